"""Find, for each measurement, the verdict that judges it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import fields

from cordqa.records import Entities, Measurement, Status, Verdict

__all__ = ["SEVERITY", "match_verdicts", "worst"]

#: Most severe first.
SEVERITY = {Status.FAIL: 0, Status.WARN: 1, Status.NOT_EVALUATED: 2, Status.PASS: 3}
_ENTITY_NAMES = tuple(field.name for field in fields(Entities))

Known = tuple[tuple[str, object], ...]
Key = tuple[str, str, str, Known]


def worst(verdicts: Sequence[Verdict]) -> Verdict | None:
    """Return the most severe verdict; ``None`` where there is none."""
    return min(verdicts, key=lambda verdict: SEVERITY[verdict.status], default=None)


def _known(entities: Entities) -> Known:
    """Name and value of the entities that are known (NaN and empty are not)."""
    pairs = ((name, getattr(entities, name)) for name in _ENTITY_NAMES)
    return tuple(
        (name, value)
        for name, value in pairs
        if value != "" and not (isinstance(value, float) and math.isnan(value))
    )


def _key(record: Measurement | Verdict) -> Key:
    return (record.quantity, record.region, record.level, _known(record.entities))


def match_verdicts(measurements: Sequence[Measurement], verdicts: Sequence[Verdict]) -> list[Verdict | None]:
    """Return the most severe verdict on each measurement.

    A verdict judges a measurement of its quantity, region and level whose entities agree with all
    entities that the verdict names.  A verdict without quantity, or without region and level,
    judges more than one measurement and is not matched.
    """
    exact: dict[Key, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        if verdict.quantity and (verdict.region or verdict.level):
            exact[_key(verdict)].append(verdict)
    keys = [_key(measurement) for measurement in measurements]
    known = set(keys)
    # Verdicts that name fewer entities than the measurements have: compared one by one.
    loose: dict[tuple[str, ...], list[tuple[frozenset[object], Verdict]]] = defaultdict(list)
    for key, found in exact.items():
        if key not in known:
            loose[key[:3]].extend((frozenset(key[3]), verdict) for verdict in found)
    return [worst([*exact.get(key, ()), *_agreeing(loose.get(key[:3], ()), key[3])]) for key in keys]


def _agreeing(candidates: Iterable[tuple[frozenset[object], Verdict]], entities: Known) -> list[Verdict]:
    own = frozenset(entities)
    return [verdict for needed, verdict in candidates if needed <= own]
