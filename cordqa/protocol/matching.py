"""Which series of a protocol an observed series is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from cordqa.protocol.records import ObservedSeries, Protocol, SeriesMatch, SeriesRule

__all__ = ["Placed", "Placement", "find_rules", "matches_pattern", "place_series"]


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """An observed series with the rule that it falls under."""

    series: ObservedSeries
    protocol: Protocol
    rule: SeriesRule


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """Where each observed series belongs.

    Attributes
    ----------
    placed : tuple of Placed
    unmatched : tuple of ObservedSeries
        Those that no rule recognises.
    ambiguous : tuple of (ObservedSeries, tuple of (Protocol, SeriesRule))
        Those that more than one rule recognises; nothing is checked for them.
    """

    placed: tuple[Placed, ...]
    unmatched: tuple[ObservedSeries, ...]
    ambiguous: tuple[tuple[ObservedSeries, tuple[tuple[Protocol, SeriesRule], ...]], ...]


def matches_pattern(text: str, pattern: str) -> bool:
    """Compare without regard to case; ``*`` stands for anything, a leading ``!`` for all but this."""
    if pattern.startswith("!"):
        return not matches_pattern(text, pattern[1:])
    if "*" not in pattern:
        return text.casefold() == pattern.casefold()
    # Only the asterisk is special: brackets and question marks occur in protocol names.
    escaped = pattern.casefold().replace("[", "[[]").replace("?", "[?]")
    return fnmatchcase(text.casefold(), escaped)


def find_rules(protocol: Protocol, series: ObservedSeries) -> tuple[SeriesRule, ...]:
    """Return the rules that recognise a series.

    BIDS names are tried first.  The protocol name of DICOM counts only where there is no BIDS name:
    a converted ``GRE-T1w`` is an ``MTS`` image, whatever a pattern for ``T1w`` would make of it.
    """
    by_name = tuple(rule for rule in protocol.series if _any_bids(rule.matches, series))
    if by_name or series.labels.get("sub"):
        return by_name
    return tuple(rule for rule in protocol.series if _any_protocol_name(rule.matches, series))


def place_series(protocols: Sequence[Protocol], observed: Sequence[ObservedSeries]) -> Placement:
    """Find the rule of every series, over all protocols."""
    placed: list[Placed] = []
    unmatched: list[ObservedSeries] = []
    ambiguous: list[tuple[ObservedSeries, tuple[tuple[Protocol, SeriesRule], ...]]] = []
    for series in observed:
        found = tuple((one, rule) for one in protocols for rule in find_rules(one, series))
        if not found:
            unmatched.append(series)
        elif len(found) > 1:
            ambiguous.append((series, found))
        else:
            placed.append(Placed(series, *found[0]))
    return Placement(tuple(placed), tuple(unmatched), tuple(ambiguous))


def _any_bids(matches: Sequence[SeriesMatch], series: ObservedSeries) -> bool:
    return any(
        series.suffix in one.suffix and _entities_match(one.entities, series.labels)
        for one in matches
        if one.suffix
    )


def _entities_match(asked: Mapping[str, tuple[str, ...]], labels: Mapping[str, str]) -> bool:
    """Whether every asked entity has one of its values; all of the negated ones must hold."""
    for key, patterns in asked.items():
        value = labels.get(key, "")
        refused = [one for one in patterns if one.startswith("!")]
        wanted = [one for one in patterns if not one.startswith("!")]
        if any(not matches_pattern(value, one) for one in refused):
            return False
        if wanted and not any(_matches_value(value, one) for one in wanted):
            return False
    return True


def _matches_value(value: str, pattern: str) -> bool:
    """An asterisk asks for some value; only an empty pattern allows the entity to be absent."""
    return matches_pattern(value, pattern) if value else not pattern


def _any_protocol_name(matches: Sequence[SeriesMatch], series: ObservedSeries) -> bool:
    names = [name for name in (series.protocol_name, series.series_description) if name]
    return any(
        matches_pattern(name, pattern) for one in matches for pattern in one.protocol_name for name in names
    )
