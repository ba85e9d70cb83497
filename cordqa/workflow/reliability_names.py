"""Names of scanners, subjects and sessions, and dates, made unambiguous."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from cordqa.errors import ConfigError
from cordqa.records import Severity
from cordqa.workflow.reliability_settings import ReliabilitySettings
from cordqa.workflow.reliability_table import MIXED, LongTable, natural_key, plural

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ambiguous", "name_objects", "name_scanners", "name_subjects", "number_repeats", "read_dates"]

_OBJECT = "one object"
#: Ages of one name at two sites that differ by more are those of two people.
_AGE_APART = 15.0
_MANY_SESSIONS = 10
_YEARS = (1950, 2100)


def name_objects(long: LongTable) -> bool:
    """Name subjects where no column does: one object, or a person per row where people differ.

    Returns
    -------
    bool
        Whether all rows are taken to be of one object.
    """
    frame = long.frame
    if not (frame["subject"] == "").all():
        return False
    people = [name for name in ("group", "sex", "age") if frame[name].replace("", np.nan).nunique() > 1]
    if people:
        frame["subject"] = "line " + frame["line"].astype(str)
        message = (
            f"no column names the subject; because {people[0]} differs between rows, each row is taken to be "
            "a person of its own; if people were measured twice, give --map subject=COLUMN"
        )
        long.note("no-subject", message)
        return False
    frame["subject"] = _OBJECT
    message = (
        "no column names the subject, so all values of a region on a scanner are taken to be of one "
        "object, such as a phantom; if they are of different people, give --map subject=COLUMN"
    )
    known = bool(frame["reference"].notna().any()) or _from_cordqa(long)
    long.note("no-subject", message, Severity.INFO if known else Severity.WARNING)
    return True


def _from_cordqa(long: LongTable) -> bool:
    return any(name in long.frame for name in MIXED) and bool((long.frame["acquired"] != "").any())


def name_scanners(long: LongTable) -> None:
    """Give every machine a name of its own: scanner 1 of site A is not scanner 1 of site B."""
    frame = long.frame
    if (frame["scanner"] != "").any():
        if ambiguous(frame, "scanner", "site"):
            frame["scanner"] = _combined(frame, "site", "scanner")
            message = "scanners of one name stand at several sites and are told apart by the site"
            long.note("scanner-names", message, Severity.INFO)
    elif ambiguous(frame, "site", "model"):
        frame["scanner"] = _combined(frame, "site", "model")
        message = "some sites have several models of scanner; site and model together name a scanner"
        long.note("scanner-names", message, Severity.INFO)


def ambiguous(frame: pd.DataFrame, inner: str, outer: str) -> bool:
    """Tell whether a label of one column occurs with several of another."""
    pairs = frame.loc[(frame[inner] != "") & (frame[outer] != ""), [inner, outer]].drop_duplicates()
    return bool(pairs.duplicated(inner).any())


def _combined(frame: pd.DataFrame, first: str, second: str) -> pd.Series[str]:
    return (frame[first].astype(str) + " " + frame[second].astype(str)).str.strip().astype(object)


def name_subjects(long: LongTable, settings: ReliabilitySettings) -> None:
    """Tell people of one name apart where they cannot be the same.

    Raises
    ------
    ConfigError
        If ``subject_within`` names a column that the table does not have.
    """
    frame, within = long.frame, settings.subject_within
    if within:
        if within not in frame or within == "subject":
            raise ConfigError(
                "names of subjects cannot be unique within it",
                where="subject_within",
                found=repr(within),
                expected="site, scanner, vendor, group or another column that has a role",
            )
        frame["subject"] = _combined(frame, within, "subject")
        return
    place = next((name for name in ("site", "vendor") if ambiguous(frame, "subject", name)), "")
    if not place or (frame["subject"] == _OBJECT).all():
        return
    used = frame[frame["left_out"] == ""]
    both = used.groupby("subject", observed=True)
    travelled = both[place].nunique() > 1
    sexes = both["sex"].nunique() > 1
    ages = (both["age"].max() - both["age"].min()) > _AGE_APART
    impossible = (sexes | ages) & travelled
    if impossible.any():
        names = ", ".join(sorted(map(str, impossible[impossible].index), key=natural_key)[:3])
        frame["subject"] = _combined(frame, place, "subject")
        message = (
            f"{int(impossible.sum())} of {int(travelled.sum())} names that occur at several {place}s change "
            f"sex or age between them ({names}), so subjects are taken to be named anew at each {place}"
        )
        long.note("subject-names", message)
        return
    message = (
        f"{plural(int(travelled.sum()), 'subject name')} at several {place}s are taken to be the same "
        f"people; if subjects are named anew at each {place}, give --subject-within {place}"
    )
    long.note("subject-names", message, Severity.INFO)


def read_dates(long: LongTable) -> bool:
    """Check dates; take them from the names of the sessions where those are dates."""
    frame = long.frame
    labels = set(frame["acquired"].tolist()) - {""}
    if not labels:
        sessions = set(frame["session"].tolist()) - {""}
        if sessions and all(_is_date(label, strict=True) for label in sessions):
            frame["acquired"] = frame["session"]
            long.note("dates", "the names of the sessions are dates, and are used as such", Severity.INFO)
            return True
        return False
    wrong = {label for label in labels if not _is_date(label)}
    if wrong:
        rows = frame["acquired"].isin(wrong).to_numpy()
        example = sorted(wrong, key=natural_key)[0]
        message = (
            f"{plural(len(wrong), 'date')} cannot be read ({long.lines(rows)}, for example {example!r}); "
            "write 2024-05-31, because 03.04.2024 may be April or March; these values have no place in time"
        )
        long.note("dates", message)
        frame.loc[rows, "acquired"] = ""
    undated = (frame["acquired"] == "").to_numpy()
    if undated.any() and len(labels) > len(wrong):
        message = f"{plural(int(undated.sum()), 'value')} without a date have no place in time"
        long.note("dates", f"{message} ({long.lines(undated)})", Severity.INFO)
    return len(labels) > len(wrong)


def _is_date(label: str, *, strict: bool = False) -> bool:
    """Tell whether a label is an ISO 8601 date; strictly, one that cannot be a mere number."""
    if strict and not (len(label) >= 8 and (label[:8].isdigit() or label[4:5] == "-")):
        return False
    try:
        when = datetime.fromisoformat(label)
    except ValueError:
        return False
    return _YEARS[0] <= when.year <= _YEARS[1]


def number_repeats(long: LongTable, machine: str) -> None:
    """Number the repeats of every subject on every machine, in the order of time."""
    frame = long.frame
    order = np.lexsort(
        (
            frame["line"].to_numpy(),
            _natural_codes(frame["run"]),
            _natural_codes(frame["session"]),
            _times(frame),
        )
    )
    ordered = frame.iloc[order]
    keys = ["quantity", "region", "subject", *([machine] if machine else [])]
    # Rows that take no part must not use up a number.
    alive = ((ordered["left_out"] == "") & ordered["value"].notna()).to_numpy()
    numbers = np.zeros(len(frame), dtype=np.int64)
    counted = ordered[alive].groupby(keys, sort=False, observed=True).cumcount().to_numpy() + 1
    numbers[order[alive]] = counted
    frame["repeat"] = numbers
    frame["visit"] = _visits(frame)


def _natural_codes(labels: pd.Series[str]) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    ranks = {label: i for i, label in enumerate(sorted(set(labels.tolist()), key=natural_key))}
    return np.array([ranks[label] for label in labels.tolist()], dtype=np.int64)


def _times(frame: pd.DataFrame) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Rank of every row in time; all alike where dates are not known."""
    known = {label for label in set(frame["acquired"].tolist()) if label}
    moments = {label: datetime.fromisoformat(label).replace(tzinfo=None) for label in known}
    ranks = {label: i for i, label in enumerate(sorted(known, key=lambda one: moments[one]), start=1)}
    return np.array([ranks.get(label, 0) for label in frame["acquired"].tolist()], dtype=np.int64)


def _visits(frame: pd.DataFrame) -> pd.Series[str]:
    """Sessions that can be compared between subjects: their names where few, else their numbers."""
    if not (frame["session"] != "").any():
        return frame["repeat"].astype(str).astype(object)
    if frame["session"].nunique() <= _MANY_SESSIONS:
        return frame["session"]
    codes = frame.assign(_code=_natural_codes(frame["session"]), _time=_times(frame))
    ranks = codes.groupby(["subject", "scanner", "site"], observed=True)[["_time", "_code"]].rank(
        method="dense"
    )
    number = ranks["_time"].where(codes["_time"] > 0, ranks["_code"])
    return number.astype(int).astype(str).astype(object)
