"""Did harmonisation help?  On pairs it did not see, and without taking biology away."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import CordqaError, FitError
from cordqa.stats.component_ratios import REPEATABILITY_FACTOR
from cordqa.stats.harmonise.base import (
    CovariateCoder,
    Harmoniser,
    as_labels,
    check_confounding,
    check_features,
)
from cordqa.stats.quantiles import t_quantile
from cordqa.stats.table import check_level, join_flags, stack_tables, tidy

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["judge_biology", "judge_pairs", "transform_unseen"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

_KEPT = 0.95
_CLEAR = 2.0


def transform_unseen(
    harmoniser: Harmoniser,
    X: ArrayLike,
    *,
    batch: Iterable[Any],
    subject: Iterable[Any],
    covariates: Any = None,
    n_folds: int | None = None,
    seed: int = 0,
) -> tuple[FloatArray, dict[str, int]]:
    """Harmonise the scans of every travelling person with a fit that has not seen that person.

    Parameters
    ----------
    harmoniser : Harmoniser
        Settings only; it is copied, never fitted itself.
    X, batch, subject, covariates
        As for :meth:`Harmoniser.fit`.
    n_folds : int, optional
        Travellers are left out in this many groups; one by one where omitted.
    seed : int
        Order of the groups.

    Returns
    -------
    values : ndarray, shape (n_scans, n_features)
        NaN for people who were not seen in two batches, and where a fit without them is not
        possible.
    failures : dict of str to int
        Reason and number of groups that could not be harmonised.
    """
    table = check_features(X)
    labels = as_labels(batch, table.shape[0], what="batch")
    people = as_labels(subject, table.shape[0], what="subject")
    travellers = [who for who in np.unique(people) if np.unique(labels[people == who]).size > 1]
    if not travellers:
        raise FitError("nobody was scanned in two batches, so nothing can be judged by pairs")
    order = np.random.default_rng(seed).permutation(len(travellers))
    count = len(travellers) if n_folds is None else min(n_folds, len(travellers))
    result = np.full(table.shape, np.nan)
    failures: dict[str, int] = {}
    for fold in range(count):
        out = np.isin(people, [travellers[i] for i in order[fold::count]])
        try:
            fitted = harmoniser.clone().fit(
                table[~out], batch=labels[~out], covariates=_rows(covariates, ~out), subject=people[~out]
            )
            result[out] = fitted.transform(
                table[out], batch=labels[out], covariates=_rows(covariates, out), subject=people[out]
            )
        except CordqaError as error:
            failures[str(error)] = failures.get(str(error), 0) + 1
    return result, failures


def _rows(covariates: Any, keep: NDArray[np.bool_]) -> Any:
    """Some rows of covariates in any of the forms that are accepted."""
    if covariates is None:
        return None
    if hasattr(covariates, "columns"):
        return {str(name): np.asarray(covariates[name])[keep] for name in covariates.columns}
    if isinstance(covariates, dict):
        return {name: np.asarray(values)[keep] for name, values in covariates.items()}
    return np.asarray(covariates)[keep]


def judge_pairs(
    harmoniser: Harmoniser,
    X: ArrayLike,
    *,
    batch: Iterable[Any],
    subject: Iterable[Any],
    covariates: Any = None,
    features: Sequence[str] = (),
    n_folds: int | None = None,
    level: float = 0.95,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare the reproducibility of travelling people before and after harmonisation.

    Parameters
    ----------
    harmoniser, X, batch, subject, covariates, n_folds
        As for :func:`transform_unseen`.
    features : sequence of str, optional
        Names of the columns of ``X``.
    level : float
        Confidence level.
    n_bootstrap, seed : int
        People are resampled.

    Returns
    -------
    DataFrame
        Rows ``RDC before``, ``RDC after`` and ``RDC ratio`` per feature, from the same people's
        means per batch: 1.96 sqrt(2) times the root mean square SD within a person between
        batches, the offset between batches included.  A ratio below 1 means that harmonisation
        helps people it has not seen; flag ``made-worse`` where it does not.

    Raises
    ------
    FitError
        If nobody was scanned in two batches, or no fit without some travellers is possible.
    """
    check_level(level)
    table = check_features(X)
    after, failures = transform_unseen(
        harmoniser, table, batch=batch, subject=subject, covariates=covariates, n_folds=n_folds, seed=seed
    )
    if np.isnan(after).all():
        raise FitError("no harmonisation without the travellers is possible", found=next(iter(failures), ""))
    people = as_labels(subject, table.shape[0], what="subject")
    labels = as_labels(batch, table.shape[0], what="batch")
    names = list(features) or [f"feature {i}" for i in range(table.shape[1])]
    note = "; ".join(f"{count} left out: {reason}" for reason, count in failures.items())
    tables = []
    for index, name in enumerate(names):
        both = np.isfinite(after[:, index]) & np.isfinite(table[:, index])
        spreads = [
            _within_people(column[both], people[both], labels[both])
            for column in (table[:, index], after[:, index])
        ]
        tables.append(_pair_rows(name, type(harmoniser).__name__, spreads, level, n_bootstrap, seed, note))
    return stack_tables(tables)


def _within_people(
    values: FloatArray, people: NDArray[np.str_], labels: NDArray[np.str_]
) -> tuple[FloatArray, FloatArray]:
    """Sum of squares between batches and degrees of freedom of every travelling person."""
    squares, freedom = [], []
    for who in np.unique(people):
        mine = people == who
        means = np.array([values[mine & (labels == place)].mean() for place in np.unique(labels[mine])])
        if means.size > 1:
            squares.append(float(np.sum((means - means.mean()) ** 2)))
            freedom.append(means.size - 1.0)
    return np.array(squares), np.array(freedom)


def _pair_rows(
    name: str,
    method: str,
    spreads: list[tuple[FloatArray, FloatArray]],
    level: float,
    n_bootstrap: int,
    seed: int,
    note: str,
) -> pd.DataFrame:
    (before, freedom), (after, _) = spreads
    n_people = before.size
    if n_people < 2:
        return tidy(
            {"feature": name}, statistic=["RDC ratio"], value=[np.nan], flags="not-estimable", note=note
        )

    def rdc(squares: FloatArray, weight: FloatArray) -> Any:
        return REPEATABILITY_FACTOR * np.sqrt((weight @ squares) / (weight @ freedom))

    generator = np.random.default_rng(seed)
    draws = generator.multinomial(n_people, np.full(n_people, 1.0 / n_people), n_bootstrap).astype(float)
    ones = np.ones(n_people)
    estimates = np.array([rdc(before, ones), rdc(after, ones)])
    samples = np.stack([rdc(before, draws), rdc(after, draws)])
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.append(estimates, estimates[1] / estimates[0])
        samples = np.vstack([samples, samples[1] / samples[0]])
    low, high = np.nanquantile(samples, [0.5 - 0.5 * level, 0.5 + 0.5 * level], axis=1)
    return tidy(
        {"feature": name},
        statistic=["RDC before", "RDC after", "RDC ratio"],
        value=value,
        low=low,
        high=high,
        level=level,
        estimator=[
            "root mean square within people between batches",
            f"the same, {method} fitted without these people",
            "after over before",
        ],
        interval_method=f"bootstrap of people, percentiles of {n_bootstrap}",
        n={"people": n_people, "scans": int((freedom + 1).sum())},
        flags=join_flags("made-worse" if value[2] > 1.0 else "", "few-people" if n_people < 10 else ""),
        note=note,
    )


def judge_biology(
    before: ArrayLike,
    after: ArrayLike,
    *,
    batch: Iterable[Any],
    covariates: Any,
    features: Sequence[str] = (),
    level: float = 0.95,
) -> pd.DataFrame:
    """Ask whether known effects, such as sex and age, survive harmonisation.

    Parameters
    ----------
    before, after : array-like, shape (n_scans, n_features)
        Values as measured and harmonised.
    batch : sequence, length n_scans
    covariates : DataFrame, mapping or numeric table
        Effects to look at; one scan per person is assumed.
    features : sequence of str, optional
    level : float

    Returns
    -------
    DataFrame
        Per feature and covariate ``effect within batches`` (values as measured, batches as fixed
        effects: what the truth looks like whatever the scanners do), ``effect after`` (harmonised
        values, no batch in the model: what a reader of harmonised data would find) and ``effect
        kept`` (their ratio; NaN where the first is not clear, below two standard errors).  Flag
        ``biology-lost`` where less than 95 % is kept.
    """
    check_level(level)
    raw, clean = check_features(before), check_features(after)
    labels = as_labels(batch, raw.shape[0], what="batch")
    codes = np.unique(labels, return_inverse=True)[1].astype(np.intp).ravel()
    coder = CovariateCoder()
    columns = coder.fit(covariates, raw.shape[0])
    check_confounding(codes, columns, coder.names_)
    names = list(features) or [f"feature {i}" for i in range(raw.shape[1])]
    indicators = np.eye(int(codes.max()) + 1)[codes]
    intercept = np.ones((raw.shape[0], 1))
    tables = []
    for index, name in enumerate(names):
        here = np.isfinite(raw[:, index]) & np.isfinite(clean[:, index])
        within = _effects(raw[here, index], np.column_stack([indicators, columns])[here], columns.shape[1])
        found = _effects(clean[here, index], np.column_stack([intercept, columns])[here], columns.shape[1])
        for position, covariate in enumerate(coder.names_):
            pair = [(part[0][position], part[1][position], part[2]) for part in (within, found)]
            tables.append(_biology_rows(name, covariate, pair, level, int(here.sum())))
    return stack_tables(tables)


def _effects(values: FloatArray, design: FloatArray, n_last: int) -> tuple[FloatArray, FloatArray, float]:
    """Least squares estimates and standard errors of the last columns, and degrees of freedom."""
    used = design[:, np.any(design != 0.0, axis=0)]
    beta, _, rank, _ = np.linalg.lstsq(used, values, rcond=None)
    freedom = float(values.size - rank)
    if freedom <= 0 or rank < used.shape[1]:
        nothing = np.full(n_last, np.nan)
        return nothing, nothing.copy(), np.nan
    sigma2 = float(np.sum((values - used @ beta) ** 2)) / freedom
    error = np.sqrt(np.diag(np.linalg.inv(used.T @ used)) * sigma2)
    return np.asarray(beta[-n_last:]), np.asarray(error[-n_last:]), freedom


def _biology_rows(
    feature: str, covariate: str, pair: list[tuple[float, float, float]], level: float, n_scans: int
) -> pd.DataFrame:
    (reference, error, _), (kept, _, _) = pair
    half = [float(t_quantile(0.5 + 0.5 * level, freedom)) * spread for _, spread, freedom in pair]
    clear = abs(reference) > _CLEAR * error
    ratio = kept / reference if clear else np.nan
    return tidy(
        {"feature": feature, "covariate": covariate},
        statistic=["effect within batches", "effect after", "effect kept"],
        value=[reference, kept, ratio],
        low=[reference - half[0], kept - half[1], np.nan],
        high=[reference + half[0], kept + half[1], np.nan],
        level=level,
        estimator=[
            "least squares, batches as fixed effects",
            "least squares on harmonised values",
            "after over within batches",
        ],
        interval_method=["t", "t", ""],
        n={"scans": n_scans},
        flags=[
            "",
            "",
            join_flags("biology-lost" if clear and ratio < _KEPT else "", "" if clear else "effect-unclear"),
        ],
        note=[
            "",
            "",
            "" if clear else "the effect is not clear in these data, so its share kept means nothing",
        ],
    )
