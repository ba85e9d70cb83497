"""Variance components: how much of the spread comes from subjects, scanners, sites, repeats.

Which function?  :func:`variance_components` for the components themselves (exact expected mean
squares where the design is balanced, restricted maximum likelihood where it is not).
:mod:`cordqa.stats.component_ratios` has the intraclass correlation, RC and RDC of designs with
missing cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cordqa.stats.component_fit import FEW_LEVELS, ComponentFit, Method, fit_components
from cordqa.stats.component_intervals import (
    bootstrap_variances,
    boundary_test,
    profile_ratio,
    profile_residual_share,
    profile_sd,
)
from cordqa.stats.ems import f_test, variance_intervals
from cordqa.stats.quantiles import Bounds, t_quantile
from cordqa.stats.reml import fit_reml, solve_fixed_effects
from cordqa.stats.table import check_choice, check_level, join_flags, stack_tables, tidy

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["in_table_order", "reml_components", "variance_components"]

FloatArray = NDArray[np.float64]
Interval = Literal["auto", "profile", "bootstrap", "none"]


def variance_components(
    data: Any,
    value: str,
    *,
    random: Sequence[str] = ("subject", "scanner"),
    fixed: Sequence[str] = (),
    adaptive: Sequence[str] = (),
    by: str | Sequence[str] | None = None,
    method: Method = "auto",
    interval: Interval = "auto",
    shares: bool = True,
    level: float = 0.95,
    unit: str = "",
    n_bootstrap: int = 1000,
    seed: int = 0,
    nan_policy: str = "raise",
) -> pd.DataFrame:
    """Split the spread of a measured quantity into its sources.

    Parameters
    ----------
    data : DataFrame, mapping or sequence of rows
        Tidy table, one measured value per row.
    value : str
        Column of values, in any one unit; variances come out in that unit squared.
    random : sequence of str
        Random terms.  ``"scanner"`` is crossed with other terms or nested in them as the labels
        have it; ``"subject:session"`` is one level per combination, so sessions numbered 1, 2
        in every subject are named that way; ``"subject:scanner"`` is an interaction and needs
        repeats.
    fixed : sequence of str
        Fixed effects: text, boolean and categorical columns get a mean per category, numeric
        ones (age) a straight line.
    adaptive : sequence of str
        Columns such as vendor that are fixed where they have fewer than five levels (a variance
        from three levels means little), else random.
    by : str or sequence of str, optional
        Columns that split the table into independent analyses, such as region.
    method : {'auto', 'ems', 'reml'}
        Expected mean squares are exact and unbiased but need a balanced design; restricted
        maximum likelihood works for any.  ``auto`` takes the first where it can.
    interval : {'auto', 'profile', 'bootstrap', 'none'}
        ``auto``: modified large sample (residual: exact chi-squared) with mean squares, profile
        of the restricted likelihood otherwise.  ``bootstrap``: percentiles of a parametric
        bootstrap.
    shares : bool
        Whether to add the share of each component in the sum, with its profile interval.
    level : float
        Confidence level.
    unit : str
        Unit of the values, for the table.
    n_bootstrap, seed : int
        Used by ``interval='bootstrap'``.
    nan_policy : {'raise', 'omit'}
        What to do about cells that hold no number: stop, or leave them out and count them in
        ``n_missing``.

    Returns
    -------
    DataFrame
        Rows ``variance X``, ``SD X`` and ``share X`` per term X and ``residual``, then ``mean``
        and ``effect Y`` per fixed effect.  A mean-square estimate below zero is reported as
        zero with the raw value in column ``raw`` and the flag ``negative-variance``.  Column
        ``p`` tests a variance against zero (F test, or restricted likelihood ratio with its
        boundary distribution) and an effect against zero.

    Raises
    ------
    TableError
        If a column is missing or a cell cannot be used (with ``nan_policy='raise'``).
    FitError
        If no group gives any component.

    References
    ----------
    Bates D. et al. 2015, J Stat Softw 67(1), doi:10.18637/jss.v067.i01.
    Searle S. R., Casella G., McCulloch C. E. 1992, doi:10.1002/9780470316856.

    Examples
    --------
    >>> rows = [{"subject": s, "scanner": c, "T1": 900 + 20 * s + 5 * c + (s * c) % 3}
    ...         for s in range(6) for c in range(3)]
    >>> table = variance_components(rows, "T1", unit="ms")
    >>> list(table["statistic"])[:3]
    ['variance subject', 'variance scanner', 'variance residual']
    """
    check_choice(interval, ("auto", "profile", "bootstrap", "none"), name="interval")
    check_level(level)
    fits = fit_components(
        data,
        value,
        random=random,
        fixed=fixed,
        adaptive=adaptive,
        by=by,
        method=method,
        nan_policy=nan_policy,
    )
    tables = []
    for fit in fits:
        bounds, interval_method = _variance_bounds(fit, interval, level, n_bootstrap, seed)
        parts = [
            _variance_table(fit, bounds, interval_method, level, unit),
            _share_table(fit, level, interval != "none") if shares else None,
            _effect_table(fit, level, unit),
        ]
        tables.append((fit.batch.positions, [part for part in parts if part is not None]))
    return in_table_order(tables)


def reml_components(data: Any, value: str, **options: Any) -> pd.DataFrame:
    """Variance components by restricted maximum likelihood, whatever the design.

    Takes the parameters of :func:`variance_components` except ``method``.

    Returns
    -------
    DataFrame
    """
    return variance_components(data, value, method="reml", **options)


def in_table_order(tables: Sequence[tuple[Sequence[int], Sequence[pd.DataFrame]]]) -> pd.DataFrame:
    """Stack tables of several batches and put the groups back into the order of the data.

    Parameters
    ----------
    tables : sequence of (positions, tables)
        Position of each group of a batch, and its tables with all rows of one group together.
    """
    places = [
        np.repeat(np.asarray(positions), len(part) // len(positions))
        for positions, parts in tables
        for part in parts
    ]
    stacked = stack_tables(part for _, parts in tables for part in parts)
    order = np.argsort(np.concatenate(places), kind="stable")
    return stacked.iloc[order].reset_index(drop=True)


def _variance_bounds(
    fit: ComponentFit, interval: Interval, level: float, n_bootstrap: int, seed: int
) -> tuple[Bounds, list[str]]:
    """Intervals of the variances (B, K + 1) and the method per component."""
    n_components = len(fit.names)
    nothing = Bounds(np.full(fit.variances.shape, np.nan), np.full(fit.variances.shape, np.nan))
    if fit.batch.design is None or interval == "none":
        return nothing, [""] * n_components
    if interval == "bootstrap":
        return _bootstrap_bounds(fit, level, n_bootstrap, seed), [
            f"parametric bootstrap, percentiles of {n_bootstrap}"
        ] * n_components
    if fit.ems is not None and interval == "auto":
        names = ["modified large sample"] * (n_components - 1) + ["chi-squared, exact"]
        return variance_intervals(fit.ems, level=level), names
    bounds = profile_sd(fit.batch.values, fit.batch.design, level=level, fit=fit.reml)
    squared = Bounds(bounds.low**2, bounds.high**2)
    return squared, ["profile likelihood (REML)"] * n_components


def _bootstrap_bounds(fit: ComponentFit, level: float, n_bootstrap: int, seed: int) -> Bounds:
    low, high = np.full(fit.variances.shape, np.nan), np.full(fit.variances.shape, np.nan)
    tail = 0.5 * (1.0 - level)
    design = fit.batch.design
    for group, variances in enumerate(fit.variances):
        if design is not None and not fit.reason(group):
            samples = bootstrap_variances(design, variances, n_samples=n_bootstrap, seed=seed)
            low[group], high[group] = np.quantile(samples, [tail, 1.0 - tail], axis=0)
    return Bounds(low, high)


def _flags_and_notes(fit: ComponentFit) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
    """Flags and notes of every component of every group, shape (B, K + 1)."""
    shape = fit.variances.shape
    flags, notes = np.full(shape, "", dtype=object), np.full(shape, "", dtype=object)
    for group in range(shape[0]):
        reason = fit.reason(group)
        for index, name in enumerate(fit.names):
            found, said = _one_flag(fit, group, index, name)
            flags[group, index] = "not-estimable" if reason else join_flags(found)
            notes[group, index] = reason or "; ".join([*said, *fit.model.notes])
    return flags, notes


def _one_flag(fit: ComponentFit, group: int, index: int, name: str) -> tuple[list[str], list[str]]:
    flags, notes = [], []
    if fit.ems is not None and fit.raw[group, index] < 0.0:
        flags.append("negative-variance")
        notes.append("the unbiased estimate is negative (column raw) and reported as zero")
    elif fit.variances[group, index] == 0.0:
        flags.append("singular")
        notes.append("the likelihood is highest at zero")
    levels = fit.batch.levels.get(name, FEW_LEVELS)
    if levels < FEW_LEVELS:
        flags.append("few-levels")
        notes.append(f"a variance from {levels} levels is known only roughly; consider a fixed effect")
    if fit.batch.n_missing[group]:
        flags.append("missing-values")
    return flags, notes


def _variance_table(
    fit: ComponentFit, bounds: Bounds, interval_method: list[str], level: float, unit: str
) -> pd.DataFrame:
    """Rows ``variance X`` and ``SD X``, and one per term that could not be estimated."""
    flags, notes = _flags_and_notes(fit)
    p = np.full(fit.variances.shape, np.nan)
    if fit.ems is not None:
        p[:, :-1] = f_test(fit.ems)
    elif fit.reml is not None and fit.batch.design is not None:
        p[:, :-1] = boundary_test(fit.batch.values, fit.batch.design, fit=fit.reml)
    n_lost = len(fit.batch.left_out) if fit.batch.design is not None else 0
    lost = np.full((len(fit.batch.groups), n_lost), np.nan)
    lost_flags = np.full(lost.shape, "not-estimable", dtype=object)
    lost_notes = np.broadcast_to(
        np.array(list(fit.batch.left_out.values())[:n_lost], dtype=object), lost.shape
    )
    lost_names = [f"variance {name}" for name in list(fit.batch.left_out)[:n_lost]]
    empty = np.full(fit.variances.shape, np.nan)
    squared = f"{unit}^2" if unit else ""
    n_terms = len(fit.names)
    return tidy(
        _groups(fit),
        statistic=[f"variance {n}" for n in fit.names] + [f"SD {n}" for n in fit.names] + lost_names,
        value=np.hstack([fit.variances, np.sqrt(fit.variances), lost]),
        low=np.hstack([bounds.low, np.sqrt(bounds.low), lost]),
        high=np.hstack([bounds.high, np.sqrt(bounds.high), lost]),
        level=level,
        unit=[squared] * n_terms + [unit] * n_terms + [squared] * n_lost,
        estimator=fit.estimator,
        interval_method=interval_method * 2 + [""] * n_lost,
        n=fit.counts(),
        extra={"raw": np.hstack([fit.raw, empty, lost]), "p": np.hstack([p, empty, lost])},
        flags=np.hstack([flags, flags, lost_flags]),
        note=np.hstack([notes, notes, lost_notes]),
    )


def _groups(fit: ComponentFit) -> pd.DataFrame:
    """Frame of the ``by`` columns, one row per group."""
    import pandas as pd

    return pd.DataFrame(list(fit.batch.groups), index=range(len(fit.batch.groups)))


def _share_table(fit: ComponentFit, level: float, with_interval: bool) -> pd.DataFrame:
    """Rows ``share X``: each variance over the sum of all."""
    total = fit.variances.sum(axis=1, keepdims=True)
    shares = fit.variances / np.where(total > 0.0, total, np.nan)
    low, high = np.full(shares.shape, np.nan), np.full(shares.shape, np.nan)
    n_terms = len(fit.names)
    if with_interval and fit.batch.design is not None:
        reml = fit.reml or fit_reml(fit.batch.values, fit.batch.design)
        for term in range(n_terms - 1):
            others = [i for i in range(n_terms) if i != term]
            low[:, term], high[:, term] = profile_ratio(
                fit.batch.values, fit.batch.design, term, others=others, level=level, fit=reml
            )
        low[:, -1], high[:, -1] = profile_residual_share(
            fit.batch.values, fit.batch.design, level=level, fit=reml
        )
    flags, notes = _flags_and_notes(fit)
    return tidy(
        _groups(fit),
        statistic=[f"share {name}" for name in fit.names],
        value=shares,
        low=low,
        high=high,
        level=level,
        unit="1",
        estimator=fit.estimator,
        interval_method="profile likelihood (REML)" if with_interval else "",
        n=fit.counts(),
        flags=flags,
        note=notes,
    )


def _effect_table(fit: ComponentFit, level: float, unit: str) -> pd.DataFrame | None:
    """Rows ``mean`` and ``effect Y``: generalised least squares with Wald intervals."""
    design = fit.batch.design
    if design is None:
        return None
    usable = np.array([not fit.reason(g) for g in range(len(fit.batch.groups))])
    estimate = np.full((usable.size, design.n_fixed), np.nan)
    error = estimate.copy()
    if fit.reml is not None:
        estimate[usable] = fit.reml.coefficients[usable]
        spread = fit.reml.covariance[usable]
    else:
        estimate[usable], spread = solve_fixed_effects(
            fit.batch.values[usable], design, fit.variances[usable]
        )
    error[usable] = np.sqrt(np.diagonal(spread, axis1=1, axis2=2))
    freedom = _containment_df(fit)
    half = t_quantile(0.5 + 0.5 * level, freedom) * error
    p = _wald_p(estimate, error, freedom)
    p[:, 0] = math.nan  # that the mean of a measurement is not zero is no finding
    notes = np.where(usable, "; ".join(fit.model.notes), "not estimated")[:, None]
    return tidy(
        _groups(fit),
        statistic=["mean", *(f"effect {name}" for name in design.fixed_names[1:])],
        value=estimate,
        low=estimate - half,
        high=estimate + half,
        level=level,
        unit=[unit, *_effect_units(fit, unit)],
        estimator=f"generalised least squares given components by {fit.estimator}",
        interval_method="Wald t, containment degrees of freedom",
        n=fit.counts(),
        extra={"p": p, "df": freedom},
        note=notes,
    )


def _effect_units(fit: ComponentFit, unit: str) -> list[str]:
    """Unit of every fixed effect but the mean; slopes are per unit of their covariate."""
    design = fit.batch.design
    names = () if design is None else design.fixed_names[1:]
    slopes = set(fit.model.covariates)
    return [f"{unit} per unit of {name}".strip() if name in slopes else unit for name in names]


def _wald_p(estimate: FloatArray, error: FloatArray, freedom: FloatArray) -> FloatArray:
    from cordqa.stats.quantiles import t_two_sided_p

    with np.errstate(divide="ignore", invalid="ignore"):
        return t_two_sided_p(estimate / error, freedom)


def _containment_df(fit: ComponentFit) -> FloatArray:
    """Degrees of freedom of each fixed effect, shape (p,).

    An effect that is constant within the levels of a random term (vendor within scanners) is
    known only as well as that term has levels: levels minus the fixed columns constant in it.
    """
    design = fit.batch.design
    if design is None:
        return np.empty(0)
    freedom = np.full(design.n_fixed, float(design.n_values - design.n_fixed))
    for code, size in zip(design.codes, design.n_levels, strict=True):
        first = np.unique(code, return_index=True)[1]
        constant = np.all(np.isclose(design.fixed, design.fixed[first][code]), axis=0)
        freedom[constant] = np.minimum(freedom[constant], size - np.count_nonzero(constant))
    return np.asarray(np.maximum(freedom, 0.0))
