"""Take scanner or site effects out, and judge by what the method did not see whether it helped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import ConfigError, CordqaError
from cordqa.records import Severity, State
from cordqa.stats.harmonise import (
    Combat,
    CovBat,
    Harmoniser,
    LongCombat,
    ScanTable,
    TravellingSubject,
    judge_biology,
    judge_pairs,
    to_scans,
)
from cordqa.workflow.reliability_run import BY, Analysis, Study
from cordqa.workflow.reliability_table import plural

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["analyse_harmonisation"]

_METHODS: dict[str, type[Harmoniser]] = {
    "travelling": TravellingSubject,
    "combat": Combat,
    "covbat": CovBat,
    "longcombat": LongCombat,
}
#: With more travellers than this, people are left out in groups.
_MANY_TRAVELLERS = 40
_FOLDS = 20
_SEPARATOR = "\x1f"


@dataclass(frozen=True, slots=True)
class _Prepared:
    """Scans by features, and which of them enter."""

    scans: ScanTable
    features: tuple[tuple[str, str], ...]
    covariates: dict[str, NDArray[Any]]


def analyse_harmonisation(study: Study) -> None:
    """Harmonise where it was asked for; keep the values before and after under ``harmonised``."""
    method = study.settings.harmonise
    if not method:
        return
    what = f"Harmonisation ({method})"
    try:
        batch = _batch(study)
        prepared = _prepare(study, batch)
        _spare_groups(study, batch, method)
        after = _harmonise(study, prepared, method)
    except CordqaError as error:
        study.fail(what, error)
        return
    _keep(study, prepared, after, batch)
    _judge_pairs(study, prepared, method)
    _judge_biology(study, prepared, after)
    if not any(one.what == what and one.state is State.FAILED for one in study.outcomes):
        for group in prepared.features:
            study.done[group].append(f"harmonisation by {batch}")


def _batch(study: Study) -> str:
    batch = study.settings.batch or study.design.machine
    if not batch or batch not in study.frame:
        raise ConfigError(
            "no column says what to harmonise between",
            where="batch",
            found=repr(batch),
            expected="scanner, site, vendor or another column that has a role",
        )
    return batch


def _spare_groups(study: Study, batch: str, method: str) -> None:
    """Refuse to take the difference of groups out with that of batches; say where groups are not kept."""
    design = study.design
    if method == "travelling" or len(design.groups) < 2 or "group" in design.covariates:
        return
    rows = study.frame.dropna(subset=["value"])
    rows = rows[((rows[batch] != "") & (rows["group"] != "")).to_numpy()]
    pairs = rows[[batch, "group"]].drop_duplicates()
    if pairs["group"].nunique() < 2:
        return
    if not pairs.duplicated(batch).any():
        raise ConfigError(
            f"each {batch} measured one group only, so that {method} takes their difference out too",
            where=f"harmonise between {batch}s",
            todo="harmonise from people who travelled (travelling), or within one group (--where)",
        )
    message = f"{method} does not keep what groups differ by, and may take it out; give --covariate group"
    study.note("harmonise-group", message)


def _prepare(study: Study, batch: str) -> _Prepared:
    """Lay the table out as scans by features; features without a value everywhere are kept as NaN."""
    frame = study.frame.dropna(subset=["value"])
    frame = frame[(frame[batch] != "").to_numpy()]
    names = [name for name in study.design.covariates if study.settings.harmonise != "travelling"]
    for name in names:
        known = frame[name].notna().to_numpy() & (frame[name].astype(str) != "").to_numpy()
        if not known.all():
            lost = int(frame.loc[~known, "subject"].nunique())
            study.note("covariate", f"{plural(lost, 'subject')} without {name} left out of the harmonisation")
            frame = frame[known]
    feature = frame[BY].astype(str).agg(_SEPARATOR.join, axis=1)
    scans = to_scans(
        frame.assign(_feature=feature, _scan=_scan_names(frame, batch)),
        "value",
        batch=batch,
        subject="subject",
        scan=["_scan"],
        feature=["_feature"],
        covariates=names,
    )
    features = [name.split(_SEPARATOR) for name in scans.features]
    return _Prepared(scans, tuple((q, r) for q, r in features), dict(scans.covariates))


def _scan_names(frame: pd.DataFrame, batch: str) -> pd.Series[Any]:
    """Number the values of one feature of a person in a batch: each is of another scan."""
    if frame.duplicated([*BY, "subject", batch, "session", "run"]).any():
        return frame.groupby([*BY, "subject", batch], observed=True).cumcount().astype(str)
    return "session " + frame["session"].astype(str) + ", run " + frame["run"].astype(str)


def _harmonise(study: Study, prepared: _Prepared, method: str) -> NDArray[np.float64]:
    scans, harmoniser = prepared.scans, _METHODS[method]()
    fitted = harmoniser.fit(
        scans.values,
        batch=list(scans.batch),
        covariates=prepared.covariates or None,
        subject=list(scans.subject),
    )
    after = fitted.transform(
        scans.values,
        batch=list(scans.batch),
        covariates=prepared.covariates or None,
        subject=list(scans.subject),
    )
    study.notices.extend(harmoniser.notices_)
    if method in ("combat", "covbat") and "group" not in prepared.covariates and len(study.design.groups) > 1:
        message = (
            "the column of groups is not among what harmonisation keeps, so that a difference between groups "
            "that goes with the batches shrinks; --covariate group keeps it, but then harmonised values must "
            "not be used to tell the groups apart"
        )
        study.note("harmonise-group", message, Severity.INFO)
    return after


def _keep(study: Study, prepared: _Prepared, after: NDArray[np.float64], batch: str) -> None:
    """Keep values before and after in one table: for the figures and for a file."""
    scans = prepared.scans
    table = scans.frame.drop(columns=["_feature", "_scan"]).copy()
    names = np.array(prepared.features, dtype=object).reshape(-1, 2)[scans.columns]
    table.insert(0, "quantity", names[:, 0])
    table.insert(1, "region", names[:, 1])
    table["harmonised"] = after[scans.rows, scans.columns]
    study.tables["harmonised"] = table.rename(columns={batch: "batch"})


def _split(table: pd.DataFrame) -> pd.DataFrame:
    """Turn the names of features back into quantity and region."""
    parts = table.pop("feature").astype(str).str.split(_SEPARATOR, expand=True)
    table.insert(0, "region", parts[1])
    table.insert(0, "quantity", parts[0])
    return table


def _judge_pairs(study: Study, prepared: _Prepared, method: str) -> None:
    scans, settings = prepared.scans, study.settings
    places = {who: set[Any]() for who in set(scans.subject.tolist())}
    for who, place in zip(scans.subject.tolist(), scans.batch.tolist(), strict=True):
        places[who].add(place)
    travellers = sum(len(found) > 1 for found in places.values())
    if not travellers:
        message = (
            "nobody was scanned in two batches, so whether harmonisation makes scanners agree is not known"
        )
        study.note("harmonise-unjudged", message)
        return
    analysis = Analysis(study, "harmonisation judged on unseen people", "harmonisation")
    try:
        found = judge_pairs(
            _METHODS[method](),
            scans.values,
            batch=list(scans.batch),
            subject=list(scans.subject),
            covariates=prepared.covariates or None,
            features=[_SEPARATOR.join(pair) for pair in prepared.features],
            n_folds=_FOLDS if travellers > _MANY_TRAVELLERS else None,
            level=settings.level,
            seed=settings.seed,
        )
    except CordqaError as error:
        study.note("harmonise-unjudged", f"harmonisation cannot be judged on people it did not see: {error}")
        return
    table = _split(found)
    units = table["quantity"].map({name: scope.unit for name, scope in study.long.scopes.items()})
    table["unit"] = np.where(table["statistic"] == "RDC ratio", "1", units)
    analysis.keep(table)
    analysis.finish()
    ratios = table[(table["statistic"] == "RDC ratio") & (table["value"] > 1.0).to_numpy()]
    clear = (ratios["low"] > 1.0).to_numpy(dtype=bool)
    words = f"harmonisation ({method})"
    if clear.any():
        names = _named(study, ratios[clear])
        study.note(
            "harmonise-worse", f"{words} makes batches agree worse in people that it did not see: {names}"
        )
    if (~clear).any():
        message = f"{words} does not help people that it did not see: {_named(study, ratios[~clear])}"
        study.note("harmonise-useless", message, Severity.INFO)


def _named(study: Study, rows: pd.DataFrame) -> str:
    names = [study.label((str(q), str(r))) for q, r in rows[BY].to_numpy()]
    return "; ".join(names[:6]) + (f"; and {len(names) - 6} more" if len(names) > 6 else "")


def _judge_biology(study: Study, prepared: _Prepared, after: NDArray[np.float64]) -> None:
    """Age and sex effects must survive; each person counts once."""
    design, scans = study.design, prepared.scans
    names: list[str] = [name for name in design.covariates if name in ("age", "sex")]
    if not names:
        study.note(
            "harmonise-biology",
            "no age or sex varies, so whether biology survives is not known",
            Severity.INFO,
        )
        return
    people = np.unique(scans.subject.astype(str), return_index=True)[1]
    covariates = _per_person(study, scans, people, names)
    known = np.ones(people.size, dtype=bool)
    for column in covariates.values():
        known &= np.array([x == x and x != "" for x in column.tolist()])  # noqa: PLR0124 (NaN)
    people = people[known]
    analysis = Analysis(study, "biology after harmonisation", "biology")
    try:
        found = judge_biology(
            scans.values[people],
            after[people],
            batch=list(scans.batch[people]),
            covariates={name: column[known] for name, column in covariates.items()},
            features=[_SEPARATOR.join(pair) for pair in prepared.features],
            level=study.settings.level,
        )
    except CordqaError as error:
        study.note("harmonise-biology", f"whether biology survives cannot be told: {error}")
        return
    analysis.keep(_split(found))
    table = analysis.finish()
    if table is None:
        return
    lost = table[table["flags"].astype(str).str.contains("biology-lost")]
    if len(lost):
        names = [
            f"{c} in {study.label((str(q), str(r)))}" for q, r, c in lost[[*BY, "covariate"]].to_numpy()[:6]
        ]
        study.note("harmonise-biology", f"harmonisation takes part of known effects away: {', '.join(names)}")


def _per_person(
    study: Study, scans: ScanTable, people: NDArray[np.intp], names: list[str]
) -> dict[str, NDArray[Any]]:
    """Covariates of the first scan of every person, also where the harmoniser does not use them."""
    first = study.frame.drop_duplicates("subject").set_index("subject")
    return {name: first[name].reindex(list(scans.subject[people])).to_numpy() for name in names}
