"""Reliability and reproducibility of designs with missing cells, from variance components.

For a complete subject by scanner table the closed forms of :mod:`cordqa.stats.icc` and
:mod:`cordqa.stats.repeatability` are exact and faster.  These functions take over where cells
are missing or there are more sources than two; no row is dropped for being incomplete.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import ConfigError
from cordqa.stats.component_fit import ComponentFit, fit_components
from cordqa.stats.component_intervals import bootstrap_variances, profile_ratio, profile_total
from cordqa.stats.components import in_table_order
from cordqa.stats.ems import combine_components
from cordqa.stats.quantiles import Bounds, sd_interval
from cordqa.stats.reml import fit_reml
from cordqa.stats.table import as_names, check_choice, check_level, join_flags, tidy

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["REPEATABILITY_FACTOR", "component_icc", "component_reproducibility"]

FloatArray = NDArray[np.float64]
IccInterval = Literal["profile", "bootstrap", "none"]

#: Two measurements differ by less than this many within-subject SDs in 95 % of pairs.
REPEATABILITY_FACTOR = 1.96 * math.sqrt(2.0)


@dataclass(frozen=True, slots=True)
class _Form:
    """One form of the intraclass correlation."""

    name: str
    others: tuple[int, ...]
    note: str


def component_icc(
    data: Any,
    value: str,
    *,
    subject: str | Sequence[str] = "subject",
    random: Sequence[str] = ("subject", "scanner"),
    fixed: Sequence[str] = (),
    average_of: int | None = None,
    by: str | Sequence[str] | None = None,
    interval: IccInterval = "profile",
    level: float = 0.95,
    n_bootstrap: int = 1000,
    seed: int = 0,
    nan_policy: str = "raise",
) -> pd.DataFrame:
    """Intraclass correlation from variance components, for any pattern of missing cells.

    Parameters
    ----------
    data : DataFrame, mapping or sequence of rows
        Tidy table, one measured value per row.
    value : str
        Column of values.
    subject : str or sequence of str
        Column, or columns, that name the object of measurement; their term must be in ``random``.
    random, fixed, by, nan_policy
        As in :func:`cordqa.stats.components.variance_components`.
    average_of : int, optional
        Also give the reliability of a mean of this many measurements, each on a level of its
        own of every other term.
    interval : {'profile', 'bootstrap', 'none'}
        Profile of the restricted likelihood (default; holds its level also for low
        correlations), or percentiles of a parametric bootstrap.
    level, n_bootstrap, seed
        As in :func:`cordqa.stats.components.variance_components`.

    Returns
    -------
    DataFrame
        ``ICC(A,1)``, absolute agreement: everything but the subject counts as error.
        ``ICC(C,1)``, consistency: terms without the subject (a scanner's constant offset) do not
        count.  Where no such term exists there is only ``ICC(1,1)``.  With ``average_of``, also
        the forms ending in k.

    Raises
    ------
    ConfigError
        If the subject is not one of the random terms.

    References
    ----------
    McGraw K. O., Wong S. P. 1996, Psychol Methods 1:30, doi:10.1037/1082-989X.1.1.30.
    """
    check_choice(interval, ("profile", "bootstrap", "none"), name="interval")
    check_level(level)
    if average_of is not None and average_of < 1:
        raise ConfigError("average_of must be a positive number of measurements", found=str(average_of))
    name = _find_subject(subject, random)
    fits = fit_components(
        data, value, random=random, fixed=fixed, by=by, method="reml", nan_policy=nan_policy
    )
    tables = []
    for fit in fits:
        forms = _icc_forms(fit, name)
        estimate, bounds = _icc_values(fit, name, forms, interval, level, n_bootstrap, seed)
        tables.append((fit.batch.positions, [_icc_table(fit, forms, estimate, bounds, interval, level, 1)]))
        if average_of is not None:
            lifted, around = _spearman_brown(estimate, average_of), _lift(bounds, average_of)
            tables[-1][1].append(_icc_table(fit, forms, lifted, around, interval, level, average_of))
    return in_table_order(tables)


def _find_subject(subject: str | Sequence[str], random: Sequence[str]) -> str:
    """Name of the random term that is the object of measurement."""
    wanted = frozenset(as_names(subject))
    for term in as_names(random):
        if frozenset(part.strip() for part in term.split(":")) == wanted:
            return ":".join(part.strip() for part in term.split(":"))
    raise ConfigError(
        "the subject is not one of the random terms",
        found=", ".join(as_names(random)),
        expected=":".join(as_names(subject)),
    )


def _icc_forms(fit: ComponentFit, subject: str) -> list[_Form]:
    """Forms that this design has."""
    if subject not in fit.names:
        return [_Form("ICC(1,1)", (), f"the variance of {subject} cannot be estimated")]
    own = fit.names.index(subject)
    parts = set(subject.split(":"))
    everything = tuple(i for i in range(len(fit.names)) if i != own)
    residual = len(fit.names) - 1
    random_error = tuple(i for i in everything if i == residual or parts <= set(fit.names[i].split(":")))
    if random_error == everything:
        return [_Form("ICC(1,1)", everything, "no term is separate from the subjects")]
    offsets = ", ".join(fit.names[i] for i in everything if i not in random_error)
    return [
        _Form("ICC(A,1)", everything, "absolute agreement: every other source counts as error"),
        _Form("ICC(C,1)", random_error, f"consistency: {offsets} not counted as error"),
    ]


def _icc_values(
    fit: ComponentFit,
    subject: str,
    forms: list[_Form],
    interval: IccInterval,
    level: float,
    n_bootstrap: int,
    seed: int,
) -> tuple[FloatArray, Bounds]:
    """Estimates (B, forms) and their intervals."""
    shape = (len(fit.batch.groups), len(forms))
    estimate, low, high = (np.full(shape, np.nan) for _ in range(3))
    if subject not in fit.names or fit.batch.design is None:
        return estimate, Bounds(low, high)
    own = fit.names.index(subject)
    for column, form in enumerate(forms):
        estimate[:, column] = _share(fit.variances, own, form.others)
        if interval == "profile":
            low[:, column], high[:, column] = profile_ratio(
                fit.batch.values, fit.batch.design, own, others=form.others, level=level, fit=fit.reml
            )
    if interval == "bootstrap":
        tails = [0.5 - 0.5 * level, 0.5 + 0.5 * level]
        for group in range(shape[0]):
            if fit.reason(group):
                continue
            samples = bootstrap_variances(
                fit.batch.design, fit.variances[group], n_samples=n_bootstrap, seed=seed
            )
            for column, form in enumerate(forms):
                shares = _share(samples, own, form.others)
                low[group, column], high[group, column] = np.quantile(shares, tails)
    return estimate, Bounds(low, high)


def _share(variances: FloatArray, own: int, others: Sequence[int]) -> FloatArray:
    total = variances[:, own] + variances[:, list(others)].sum(axis=1)
    return np.asarray(variances[:, own] / np.where(total > 0.0, total, np.nan))


def _spearman_brown(r: FloatArray, k: int) -> FloatArray:
    """Reliability of a mean of k measurements."""
    return np.asarray(k * r / (1.0 + (k - 1) * r))


def _lift(bounds: Bounds, k: int) -> Bounds:
    return Bounds(_spearman_brown(bounds.low, k), _spearman_brown(bounds.high, k))


def _icc_table(
    fit: ComponentFit,
    forms: list[_Form],
    estimate: FloatArray,
    bounds: Bounds,
    interval: IccInterval,
    level: float,
    k: int,
) -> pd.DataFrame:
    import pandas as pd

    method = {"profile": "profile likelihood (REML)", "bootstrap": "parametric bootstrap", "none": ""}
    names = [form.name if k == 1 else form.name.replace("1)", f"{k})") for form in forms]
    flags, notes = _row_flags(fit, [form.note for form in forms])
    return tidy(
        pd.DataFrame(list(fit.batch.groups), index=range(len(fit.batch.groups))),
        statistic=names,
        value=estimate,
        low=bounds.low,
        high=bounds.high,
        level=level,
        unit="1",
        estimator=f"variance components by {fit.estimator}",
        interval_method=method[interval],
        n=fit.counts(),
        flags=flags,
        note=notes,
    )


def _row_flags(
    fit: ComponentFit, notes: Sequence[str], *, spread: bool = False
) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
    """Flags and notes of every group and statistic."""
    shape = (len(fit.batch.groups), len(notes))
    flags, texts = np.full(shape, "", dtype=object), np.full(shape, "", dtype=object)
    confounded = _confounded_terms(fit) if spread else []
    lost = [f"not counted: {reason}" for reason in fit.batch.left_out.values()]
    for group in range(shape[0]):
        reason = fit.reason(group)
        found = ["not-estimable"] if reason else []
        found += ["missing-values"] if fit.batch.n_missing[group] else []
        found += ["confounded-with-subjects"] if confounded else []
        found += ["term-left-out"] if lost else []
        if not reason and np.any(fit.variances[group] == 0.0):
            found.append("singular")
        said = [
            f"each subject was seen on one {term} only, whose variance may hold biology"
            for term in confounded
        ]
        flags[group] = join_flags(found)
        for column, note in enumerate(notes):
            texts[group, column] = "; ".join(
                part for part in (reason or note, *said, *lost, *fit.model.notes) if part
            )
    return flags, texts


def _confounded_terms(fit: ComponentFit) -> list[str]:
    """Columns of terms that never vary within the subject (first random term)."""
    subject = fit.model.random[0][-1]
    parents = fit.batch.parents.get(subject, ())
    return [name for name in fit.names[:-1] if name in parents]


def component_reproducibility(
    data: Any,
    value: str,
    *,
    subject: str | Sequence[str] = "subject",
    random: Sequence[str] = ("subject", "scanner"),
    fixed: Sequence[str] = (),
    repeat_terms: Sequence[str] = (),
    by: str | Sequence[str] | None = None,
    level: float = 0.95,
    unit: str = "",
    nan_policy: str = "raise",
) -> pd.DataFrame:
    """Repeatability and reproducibility coefficients from variance components.

    Parameters
    ----------
    data, value, random, fixed, by, level, unit, nan_policy
        As in :func:`cordqa.stats.components.variance_components`.
    subject : str or sequence of str
        The object of measurement; its variance never counts.
    repeat_terms : sequence of str
        Random terms that belong to repeatability besides the residual, for example
        ``"subject:session"`` where a repeat means a new session on the same scanner.

    Returns
    -------
    DataFrame
        ``wSD`` (residual and ``repeat_terms``), ``RC`` = 1.96 sqrt(2) wSD, ``reproducibility
        SD`` (every source but the subject) and ``RDC`` = 1.96 sqrt(2) of it.  Intervals: modified
        large sample (exact chi-squared for a single mean square) where the design is balanced,
        profile of the restricted likelihood where not.

    References
    ----------
    Raunig D. L. et al. 2015, Stat Methods Med Res 24:27, doi:10.1177/0962280214537344.
    Graybill F. A., Wang C.-M. 1980, J Am Stat Assoc 75:869, doi:10.1080/01621459.1980.10477565.
    """
    check_level(level)
    name = _find_subject(subject, random)
    unknown = sorted(set(as_names(repeat_terms)) - set(as_names(random)))
    if unknown:
        raise ConfigError("a repeat term is not one of the random terms", found=", ".join(unknown))
    # The subject comes first: the table of reasons looks there.
    ordered = [name, *(term for term in as_names(random) if term != name)]
    fits = fit_components(data, value, random=ordered, fixed=fixed, by=by, nan_policy=nan_policy)
    tables = []
    for fit in fits:
        within = np.array([n == "residual" or n in as_names(repeat_terms) for n in fit.names])
        across = np.array([n != name for n in fit.names])
        tables.append((fit.batch.positions, [_coefficient_table(fit, within, across, level, unit)]))
    return in_table_order(tables)


def _coefficient_table(
    fit: ComponentFit, within: NDArray[np.bool_], across: NDArray[np.bool_], level: float, unit: str
) -> pd.DataFrame:
    import pandas as pd

    columns, lows, highs, methods = [], [], [], []
    for weights in (within, across):
        estimate, bounds, method = _root_of_sum(fit, weights.astype(float), level)
        for factor in (1.0, REPEATABILITY_FACTOR):
            columns.append(factor * estimate)
            lows.append(factor * bounds.low)
            highs.append(factor * bounds.high)
            methods.append(method)
    counted = [n for n, used in zip(fit.names, across, strict=True) if used]
    repeat = [n for n, used in zip(fit.names, within, strict=True) if used]
    notes = [f"sources: {', '.join(repeat)}"] * 2 + [f"sources: {', '.join(counted)}"] * 2
    flags, texts = _row_flags(fit, notes, spread=True)
    return tidy(
        pd.DataFrame(list(fit.batch.groups), index=range(len(fit.batch.groups))),
        statistic=["wSD", "RC", "reproducibility SD", "RDC"],
        value=np.column_stack(columns),
        low=np.column_stack(lows),
        high=np.column_stack(highs),
        level=level,
        unit=unit,
        estimator=f"variance components by {fit.estimator}",
        interval_method=methods,
        n=fit.counts(),
        flags=flags,
        note=texts,
    )


def _root_of_sum(fit: ComponentFit, weights: FloatArray, level: float) -> tuple[FloatArray, Bounds, str]:
    """Square root of a sum of variances, its interval and the method."""
    estimate = np.sqrt(fit.variances @ weights)
    alone = np.count_nonzero(weights) == 1
    if fit.batch.design is None:
        return estimate, Bounds(np.full_like(estimate, np.nan), np.full_like(estimate, np.nan)), ""
    if fit.ems is not None and alone:
        return estimate, sd_interval(estimate, float(fit.ems.df[-1]), level=level), "chi-squared, exact"
    if fit.ems is not None:
        # The unbiased sum may count a negative component; it is what the interval belongs to.
        variance, bounds = combine_components(fit.ems, list(weights), level=level)
        low, high = (np.sqrt(np.maximum(bound, 0.0)) for bound in bounds)
        return np.sqrt(np.maximum(variance, 0.0)), Bounds(low, high), "modified large sample"
    reml = fit.reml or fit_reml(fit.batch.values, fit.batch.design)
    bounds = profile_total(fit.batch.values, fit.batch.design, list(weights), level=level, fit=reml)
    return estimate, bounds, "profile likelihood (REML)"
