"""Group series that a rule compares: those of one session, one participant, one scanner."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cordqa.protocol.matching import Placed
from cordqa.protocol.records import ObservedSeries, Within
from cordqa.records import Entities

__all__ = ["common_entities", "group_key", "group_placed", "same_acquisition", "scanner_key"]

#: Images that differ only in these come out of one scan.
_ONE_SCAN = frozenset({"echo", "part", "rec", "space", "desc"})
_SHARED = ("subject", "session", "site", "vendor", "model", "software", "scanner")


def scanner_key(entities: Entities) -> str:
    """Name a scanner: its own name, else site, vendor and model; empty where nothing is known."""
    if entities.scanner:
        return entities.scanner
    parts = (entities.site, entities.vendor, entities.model)
    return " ".join(part for part in parts if part)


def group_key(series: ObservedSeries, within: Within) -> tuple[str, ...]:
    """Say which group a series belongs to; empty texts where that is not known."""
    entities = series.entities
    if within is Within.SESSION:
        return series.session_key
    if within is Within.PARTICIPANT:
        return entities.site, entities.subject
    return (scanner_key(entities),)


def group_placed(placed: Iterable[Placed], within: Within) -> dict[tuple[str, ...], list[Placed]]:
    """Sort series into groups; each group in the order of file names, the groups in theirs."""
    groups: dict[tuple[str, ...], list[Placed]] = {}
    for one in placed:
        groups.setdefault(group_key(one.series, within), []).append(one)
    return {key: sorted(members, key=lambda one: one.series.file) for key, members in sorted(groups.items())}


def same_acquisition(one: Placed) -> tuple[str, ...]:
    """Say which scan an image comes from: echoes and parts of one scan share it."""
    labels = one.series.labels
    if not labels:
        return one.rule.id, one.series.file
    kept = sorted(f"{key}-{value}" for key, value in labels.items() if key not in _ONE_SCAN)
    return (one.rule.id, one.series.suffix, *kept)


def common_entities(members: Sequence[Placed]) -> Entities:
    """Return what the entities of several series have in common."""
    first = members[0].series.entities
    shared = {
        name: getattr(first, name)
        for name in _SHARED
        if all(getattr(one.series.entities, name) == getattr(first, name) for one in members)
    }
    return Entities(**shared)
