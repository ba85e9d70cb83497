"""The test-retest that susceptibility needs: asked for where it is missing, its result where it was done.

Susceptibility has no true zero, so its repeatability is a coefficient in ppm and never relative.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cordqa.records import Measurement, Notice, Severity, Statistic
from cordqa.workflow.cord_image import ALL
from cordqa.workflow.cord_susceptibility_rows import CONTRAST, EXPERIMENTAL

__all__ = ["COMPARED", "LEAST_PEOPLE", "Retest", "is_compared", "judge_retest"]

#: Quantities of gradient echoes that are compared between people.
COMPARED = ("susceptibility", "R2star")
_REGIONS = ("WM", "GM")
#: From fewer people who were scanned twice the coefficient is hardly known.
LEAST_PEOPLE = 10
_COEFFICIENT = "RC"
_TEST = (
    f"The test: scan at least {LEAST_PEOPLE} people twice with the protocol of the study, positioned anew in "
    "between; name the scans ses-1 and ses-2; run 'cordqa cord BIDS_DIR OUT participant' and '... group' on "
    "them. This report then gives the repeatability coefficient (RC) of every region and level in ppm, the "
    "difference that two scans of one person stay below 95 times of 100. To hold it against a limit: "
    "cordqa reliability OUT/reliability/table.tsv REPEAT --where quantity=susceptibility "
    "--limit 'RC<=0.02'. The difference GM-WM does not depend on the zero of the scale."
)


@dataclass(frozen=True, slots=True)
class Retest:
    """Rows with what is known of their repeatability, and what to tell."""

    rows: tuple[Measurement, ...]
    notices: tuple[Notice, ...] = ()
    paragraphs: tuple[str, ...] = ()


def is_compared(row: Measurement) -> bool:
    """Tell whether a value of gradient echoes is compared between people."""
    if row.quantity == "susceptibility" and row.region == CONTRAST:
        return True
    return row.quantity in COMPARED and row.region in _REGIONS


def judge_retest(rows: Sequence[Measurement], statistics: Sequence[Statistic]) -> Retest:
    """Say whether the study has shown that its susceptibility repeats, and how to show it.

    Values whose region and level have a repeatability coefficient from enough people in two sessions
    carry it instead of the flag ``experimental``.

    Parameters
    ----------
    rows : sequence of Measurement
        All values of the study.
    statistics : sequence of Statistic
        Of the reliability engine.
    """
    own = [row for row in rows if row.quantity == "susceptibility" and math.isfinite(row.value)]
    if not own:
        return Retest(tuple(rows))
    lone = _lone_levels(rows)
    people = _people(rows, lone)
    known = {
        key: text
        for one in statistics
        if (text := _shown(one, people)) and (key := (one.quantity, one.region, one.group))
    }
    done = tuple(_marked(row, known, lone) for row in rows)
    repeated = max((len(names) for key, names in people.items() if key[0] == "susceptibility"), default=0)
    lines = [
        f"{region}{f' ({group})' if group else ''}: {text}"
        for (quantity, region, group), text in known.items()
        if quantity == "susceptibility"
    ]
    if lines:
        text = f"Susceptibility, test-retest of this study. {'; '.join(lines)}. {_CAUTION}"
        return Retest(done, (_notice(text, Severity.INFO),), (text,))
    text = f"Susceptibility is experimental: {_missing(repeated, own)}. {_TEST}"
    return Retest(done, (_notice(text, Severity.WARNING),), (text,))


_CAUTION = (
    "A change that is smaller means nothing. What happened to people between the sessions is in the "
    "coefficient as well; it holds for this protocol and scanner."
)


def _notice(text: str, severity: Severity) -> Notice:
    return Notice(severity=severity, message=text, where="study", code="susceptibility.test-retest")


def _missing(repeated: int, rows: Sequence[Measurement]) -> str:
    if repeated:
        return (
            f"{repeated} {'person was' if repeated == 1 else 'people were'} scanned in two sessions, and "
            f"{LEAST_PEOPLE} are needed to show that it repeats"
        )
    runs = {(row.entities.subject, row.entities.run) for row in rows if row.entities.run}
    if len(runs) > len({name for name, _ in runs}):
        return "its repeats are runs of one session, which do not hold the positioning"
    return "nobody was scanned in two sessions, so nothing shows that it repeats"


def _people(rows: Sequence[Measurement], lone: Mapping[str, str]) -> dict[tuple[str, str, str], set[str]]:
    """People with a value in two sessions, by quantity, name of the region, and acquisition."""
    sessions: dict[tuple[str, str, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for row in rows:
        if is_compared(row) and math.isfinite(row.value):
            for name in _names(row, lone):
                key = row.quantity, name, row.entities.acquisition
                sessions[key][row.entities.subject].add(row.entities.session)
    return {
        key: {name for name, some in by_person.items() if len(some) > 1}
        for key, by_person in sessions.items()
    }


def _lone_levels(rows: Sequence[Measurement]) -> dict[str, str]:
    """Level by quantity where only one is compared: the engine then does not name it."""
    levels: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if is_compared(row) and math.isfinite(row.value):
            levels[row.quantity].add(row.level)
    found = {}
    for quantity, names in levels.items():
        known = names - {ALL} or names
        if len(known) == 1:
            found[quantity] = next(iter(known))
    return found


def _names(row: Measurement, lone: Mapping[str, str]) -> tuple[str, ...]:
    """How the reliability engine may call the region and level of a value."""
    joined = f"{row.level} {row.region}"
    return (joined, row.region) if lone.get(row.quantity) == row.level else (joined,)


def _shown(one: Statistic, people: Mapping[tuple[str, str, str], set[str]]) -> str:
    """Write a coefficient that rests on enough people in two sessions; empty for any other."""
    if one.name != _COEFFICIENT or one.quantity not in COMPARED or not math.isfinite(one.value + one.high):
        return ""
    same = [
        len(names)
        for (quantity, region, acquisition), names in people.items()
        if (quantity, region) == (one.quantity, one.region)
        and one.group in ("", f"acquisition={acquisition}")
    ]
    number = max(same, default=0)
    if number < LEAST_PEOPLE:
        return ""
    return (
        f"RC {one.value:.3g} {one.unit} ({100 * one.interval_level:.0f} % interval {one.low:.3g} to "
        f"{one.high:.3g}; {number} people in two sessions)"
    )


def _marked(
    row: Measurement, known: Mapping[tuple[str, str, str], str], lone: Mapping[str, str]
) -> Measurement:
    if EXPERIMENTAL not in row.flags or not is_compared(row):
        return row
    for name in _names(row, lone):
        for group in ("", f"acquisition={row.entities.acquisition}"):
            text = known.get((row.quantity, name, group))
            if text:
                flags = (f"own test-retest: {text}" if f == EXPERIMENTAL else f for f in row.flags)
                return replace(row, flags=tuple(flags))
    return row
