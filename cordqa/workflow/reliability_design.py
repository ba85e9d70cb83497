"""The design of a study as its table shows it: who was measured where, and how often."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cordqa.records import Severity
from cordqa.workflow.reliability_names import (
    ambiguous,
    name_objects,
    name_scanners,
    name_subjects,
    number_repeats,
    read_dates,
)
from cordqa.workflow.reliability_settings import ReliabilitySettings
from cordqa.workflow.reliability_table import LongTable, Mask, natural_key, plural

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Design", "read_design"]

#: A covariate known for fewer rows than this is not adjusted for.
_KNOWN = 0.8
#: Ages are often given in whole years: one year between two of them may be one day.
_YEAR = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """What the table says about the study.

    Attributes
    ----------
    machine : str
        Column that tells machines apart: ``scanner``, ``site``, ``vendor`` or none.
    counts : mapping of str to int
        Subjects, sessions, scanners, sites, vendors, regions, quantities, values.
    crossed : bool
        Somebody was measured on two machines.
    repeated : bool
        Somebody was measured twice on one machine.
    sessions, runs : bool
        Repeats are sessions; repeats are runs within a session.
    one_object : bool
        No column names the subject.
    groups : tuple of str
        Labels of the column of groups.
    covariates : tuple of str
        Columns that components and harmonisation adjust for.
    dated : bool
    """

    machine: str
    counts: Mapping[str, int]
    crossed: bool
    repeated: bool
    sessions: bool
    runs: bool
    one_object: bool
    groups: tuple[str, ...]
    covariates: tuple[str, ...]
    dated: bool

    @property
    def machines(self) -> int:
        """Number of machines; 0 where no column names them."""
        return self.counts.get(f"{self.machine}s", 0) if self.machine else 0

    @property
    def subjects(self) -> int:
        """Number of subjects."""
        return self.counts["subjects"]


def read_design(long: LongTable, settings: ReliabilitySettings) -> Design:
    """Find out the design, complete the keys of the table, and say what is doubtful.

    Adds to the frame the columns ``repeat`` (number of the repeat of a subject on a machine) and
    ``visit`` (session, or its number where sessions have no common names).

    Raises
    ------
    ConfigError
        If ``subject_within`` names a column that the table does not have.
    """
    one_object = name_objects(long)
    name_scanners(long)
    name_subjects(long, settings)
    dated = read_dates(long)
    machine = _machine(long)
    number_repeats(long, machine)
    used = long.used.dropna(subset=["value"])
    design = _describe(long, used, settings, machine=machine, one_object=one_object, dated=dated)
    _say_design(long, design, used)
    return design


def _machine(long: LongTable) -> str:
    for name in ("scanner", "site", "vendor"):
        if (long.frame[name] != "").any():
            return name
    return ""


def _describe(
    long: LongTable,
    used: pd.DataFrame,
    settings: ReliabilitySettings,
    *,
    machine: str,
    one_object: bool,
    dated: bool,
) -> Design:
    names = {
        "subject": "subjects",
        "session": "sessions",
        "scanner": "scanners",
        "site": "sites",
        "vendor": "vendors",
    }
    counts = {more: len(set(used[name].tolist()) - {""}) for name, more in names.items()}
    counts |= {"quantities": len(long.scopes), "regions": used["region"].nunique(), "values": len(used)}
    place = [machine] if machine else []
    cells = ["quantity", "region", "subject", *place]
    repeated = bool(used.duplicated(cells).any())
    visits = used[["subject", *place, "session"]].drop_duplicates()
    sessions = bool(visits.duplicated(["subject", *place]).any())
    runs = repeated and bool(used.duplicated([*cells, "session"]).any())
    crossed = bool(machine) and ambiguous(used, "subject", machine)
    groups = tuple(sorted(set(used["group"].tolist()) - {""}, key=natural_key))
    return Design(
        machine=machine,
        counts=counts,
        crossed=crossed,
        repeated=repeated,
        sessions=sessions,
        runs=runs,
        one_object=one_object,
        groups=groups,
        covariates=_covariates(long, used, settings),
        dated=dated,
    )


def _covariates(long: LongTable, used: pd.DataFrame, settings: ReliabilitySettings) -> tuple[str, ...]:
    """Covariates that vary between subjects and are known for nearly all of them."""
    asked = [name for name in settings.covariate if name in used]
    found = []
    for name in dict.fromkeys(["age", "sex", *asked]):
        known: Mask = used[name].notna().to_numpy() & (used[name].astype(str) != "").to_numpy()
        people = used.loc[known].groupby("subject", observed=True)[name].first()
        if people.nunique() < 2:
            if name in asked:
                long.note("covariate", f"{name} does not vary between subjects and is not adjusted for")
            continue
        if known.mean() < _KNOWN:
            message = (
                f"{name} is known for {100 * known.mean():.0f} % of the values only and is not adjusted for"
            )
            long.note("covariate", message)
            continue
        if not known.all():
            lost = plural(int((~known).sum()), "value")
            long.note(
                "covariate", f"{lost} without {name} take no part in variance components", Severity.INFO
            )
        found.append(name)
    return tuple(found)


def _say_design(long: LongTable, design: Design, used: pd.DataFrame) -> None:
    """Say what in the design keeps statistics from meaning what they seem to mean."""
    for name in ("vendor", "site", "scanner"):
        groups = used.loc[(used[name] != "") & (used["group"] != ""), [name, "group"]].drop_duplicates()
        if len(design.groups) > 1 and groups[name].nunique() > 1 and not groups.duplicated(name).any():
            message = (
                f"each {name} measured one group only, so that differences between groups and between "
                f"{name}s cannot be told apart; no statistic can repair that"
            )
            long.note("confounded", message)
            break
    if design.machine == "site" and not design.crossed and design.machines > 1:
        people = used.groupby("site", observed=True)["subject"].nunique()
        alone = [str(site) for site in people[people == 1].index]
        if alone:
            words = ", ".join(alone[:6]) + (", ..." if len(alone) > 6 else "")
            message = (
                f"{plural(len(alone), 'site')} with one subject ({words}), which "
                f"{'tells' if len(alone) == 1 else 'tell'} nothing about the spread within a site"
            )
            long.note("small-sites", message, Severity.INFO)
    _say_mixed(long, design, used)
    _say_ageing(long, design, used)


def _say_mixed(long: LongTable, design: Design, used: pd.DataFrame) -> None:
    """Say when values that were made in different ways are taken together."""
    places = {
        "engine": ["quantity"],
        "method": ["quantity", "region"],
        "acquisition": ["quantity", "region", *([design.machine] if design.machine else [])],
    }
    for name, place in places.items():
        if name not in used:
            continue
        several = used.groupby(place, observed=True)[name].nunique() > 1
        if several.any():
            message = (
                f"values with different entries in the column {name!r} are taken together; "
                f"--by {name} tells them apart"
            )
            long.note("mixed-methods", message)


def _say_ageing(long: LongTable, design: Design, used: pd.DataFrame) -> None:
    """Say when repeats are so far apart that the subjects themselves have changed."""
    if not design.repeated or design.one_object:
        return
    ages = used.groupby("subject", observed=True)["age"]
    apart = (ages.max() - ages.min()).dropna()
    if (apart > _YEAR).any():
        message = (
            f"repeats of {plural(int((apart > _YEAR).sum()), 'subject')} lie more than a year apart (at most "
            f"{apart.max():.1f} years); growth and ageing count as error of measurement"
        )
        long.note("ageing", message)
