"""Reproducibility of tidy tables: the same thing measured on other scanners.

Array functions for many regions are in :mod:`cordqa.stats.reproducibility_core`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import TableError
from cordqa.stats.crossed_reml import fit_crossed, occupied, same_pattern
from cordqa.stats.quantiles import Bounds, ratio, sd_interval
from cordqa.stats.repeatability_core import REPEATABILITY_FACTOR
from cordqa.stats.reproducibility_core import (
    CrossedSquares,
    Reproducibility,
    Scanners,
    crossed_squares,
    one_way_squares,
    reproducibility_arrays,
    reproducibility_from_squares,
    scanner_bias_arrays,
    squares_from_components,
)
from cordqa.stats.scale import RELATIVE_REFUSALS, Scale, check_scale, refuse_relative
from cordqa.stats.scanner_bias import scanner_bias
from cordqa.stats.table import (
    Layout,
    as_names,
    check_choice,
    check_level,
    clean_table,
    join_flags,
    tidy,
    to_layout,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "reproducibility",
    "reproducibility_arrays",
    "reproducibility_from_squares",
    "scanner_bias",
    "scanner_bias_arrays",
]

Array = NDArray[np.float64]

#: Source, and whether it appears times 1.96 sqrt(2), as it is, or in percent of the mean.
_ROWS = (
    ("RDC", "total", "factor"),
    ("reproducibility_SD", "total", "sd"),
    ("reproducibility_CV", "total", "cv"),
    ("between_scanner_SD", "scanner", "sd"),
    ("between_scanner_CV", "scanner", "cv"),
    ("subject_by_scanner_SD", "interaction", "sd"),
    ("within_scanner_SD", "within", "sd"),
    ("within_scanner_CV", "within", "cv"),
)
_WORDS = {
    "total": "scanner, interaction and repeats",
    "scanner": "scanner",
    "interaction": "subject by scanner",
    "within": "repeats on one scanner",
}


def reproducibility(
    data: Any,
    *,
    value: str = "value",
    subject: str | Sequence[str] = "subject",
    scanner: str = "scanner",
    replicate: str | None = None,
    by: str | Sequence[str] | None = None,
    unit: str | None = None,
    scale: Scale = "ratio",
    scanners: Scanners = "random",
    level: float = 0.95,
    nan_policy: Literal["raise", "omit", "reml"] = "raise",
) -> pd.DataFrame:
    """Return the reproducibility coefficient (RDC) and the spread between scanners.

    Parameters
    ----------
    data : DataFrame, mapping or sequence of rows
        Tidy table.  Several rows for a subject and scanner are replicates; they are not
        averaged, but tell the interaction from the repeats.
    value, subject, scanner : str
        Columns.  One subject on every scanner (a phantom) is allowed if it was measured more
        than once.
    replicate : str, optional
        Column that numbers the replicates; only to check that none stands twice.
    by : str or sequence of str, optional
        Columns that split the table; groups of one design are computed at once.
    unit : str, optional
        Column with the unit; mixed units within a group are refused.
    scale : {'ratio', 'interval'}
        Of the quantity; an interval scale gets no CV, and the note says why.
    scanners : {'random', 'fixed'}
        Whether the scanners stand for others, or the result is about these only, see
        :func:`~cordqa.stats.reproducibility_core.reproducibility_arrays`.
    level : float
        Confidence level.
    nan_policy : {'raise', 'omit', 'reml'}
        Tables with empty cells or unequal replicates: stop; keep the subjects with a full set
        of cells (the lost are counted and flagged); or estimate the components by REML from
        every value (intervals with approximate degrees of freedom).

    Returns
    -------
    DataFrame
        Rows ``RDC`` (1.96 sqrt(2) reproducibility SD: within a subject, between two scanners),
        ``reproducibility_SD``, ``between_scanner_SD``, ``subject_by_scanner_SD`` and
        ``within_scanner_SD`` in units, CV of the first, second and last in percent of the grand
        mean.  Negative components show as 0, flagged, with the raw variance in the note.
        ``within_scanner_SD`` holds the interaction where there are no replicates.

    Raises
    ------
    TableError
        For missing columns and for what ``nan_policy='raise'`` does not allow.
    """
    check_level(level)
    check_scale(scale)
    check_choice(scanners, ("random", "fixed"), name="scanners")
    check_choice(nan_policy, ("raise", "omit", "reml"), name="nan_policy")
    clean, _ = clean_table(
        data,
        numbers=[value],
        keys=[*as_names(subject), scanner, *as_names(replicate)],
        by=by,
        unit=unit,
        unique=replicate is not None,
        nan_policy="raise" if nan_policy == "raise" else "omit",
    )
    layout = to_layout(
        clean, value=value, subject=subject, rater=scanner, replicate=replicate, by=by, unit=unit
    )
    results = _Results(len(layout), level, scanners)
    for index, values in layout.batches():
        _complete(layout, index, values, results)
    left = np.flatnonzero(~layout.balanced | (layout.n_values == 0)).tolist()
    rest = [(i, occupied(layout.dense(i))) for i in left]
    for index, values in same_pattern(rest):
        _incomplete(layout, index, values, results, nan_policy)
    return _table(layout, results, scale)


class _Results:
    """Estimates, bounds and words of every group."""

    def __init__(self, n_groups: int, level: float, scanners: Scanners) -> None:
        self.level, self.scanners = level, scanners
        self.sd = {name: np.full((n_groups, 3), math.nan) for name in _WORDS}
        self.variance = {name: np.full(n_groups, math.nan) for name in ("scanner", "interaction")}
        self.mean = np.full(n_groups, math.nan)
        self.flags = np.full(n_groups, "", dtype=object)
        self.notes = np.full(n_groups, "", dtype=object)
        self.methods = np.full(n_groups, "", dtype=object)
        self.excluded = np.zeros(n_groups, dtype=np.int64)

    def store(self, index: NDArray[np.int64], squares: CrossedSquares, method: str) -> None:
        found: Reproducibility = reproducibility_from_squares(
            squares, level=self.level, scanners=self.scanners
        )
        for name in _WORDS:
            bounds: Bounds = getattr(found, "within_bounds" if name == "within" else f"{name}_bounds")
            self.sd[name][index] = np.stack([getattr(found, name), *bounds], axis=-1)
        self.variance["scanner"][index] = found.scanner_variance
        self.variance["interaction"][index] = found.interaction_variance
        self.mean[index] = found.mean
        self.methods[index] = method

    def give_up(self, index: int | NDArray[np.int64], reason: str) -> None:
        self.flags[index] = "not-estimable"
        self.notes[index] = reason


def _complete(layout: Layout, index: NDArray[np.int64], values: Array, results: _Results) -> None:
    n, k, m = values.shape[1:]
    if k < 2:
        results.give_up(index, "one scanner only")
    elif n == 1 and m == 1:
        _single_values(index, values, results)
    else:
        method = "expected mean squares" if n > 1 else "one-way mean squares of one subject"
        results.store(index, crossed_squares(values), method)
        if n == 1:
            results.flags[index] = "interaction-in-scanner"


def _single_values(index: NDArray[np.int64], values: Array, results: _Results) -> None:
    """One subject, one value per scanner: only the total spread can be told."""
    y = values[:, 0, :, 0]
    sd = y.std(axis=1, ddof=1)
    bounds = sd_interval(sd, y.shape[1] - 1.0, level=results.level)
    results.sd["total"][index] = np.stack([sd, *bounds], axis=-1)
    results.mean[index] = y.mean(axis=1)
    results.methods[index] = "SD over scanners, one value each"
    results.flags[index] = "not-separable"
    results.notes[index] = "scanner and repeats cannot be told apart without replicates or more subjects"


def _incomplete(
    layout: Layout, index: NDArray[np.int64], values: Array, results: _Results, nan_policy: str
) -> None:
    """Tables whose empty places are the same, shape (n_tables, n, k, m)."""
    n, k = values.shape[1:3]
    counts = np.isfinite(values[0]).sum(axis=2)
    if n == 0 or k < 2:
        results.give_up(index, "one scanner only" if n else "no usable value")
    elif n == 1 and counts.max() < 2:
        _single_values(index, values[..., :1], results)
    elif n == 1:
        squares = one_way_squares(np.swapaxes(values[:, 0], -1, -2))
        results.store(index, squares, "one-way mean squares of one subject, unweighted means")
        results.flags[index] = "unbalanced, interaction-in-scanner"
    elif nan_policy == "raise":
        raise TableError(
            _imbalance(counts),
            where=", ".join(f"{a}={b}" for a, b in layout.groups.iloc[int(index[0])].items()),
            todo="choose nan_policy='reml' (uses every value) or 'omit' (keeps complete subjects)",
        )
    elif nan_policy == "omit":
        _listwise(values, counts, index, results)
    else:
        _reml(values, counts, index, results)


def _imbalance(counts: NDArray[np.int64]) -> str:
    empty = int((counts == 0).sum())
    if empty:
        return f"{empty} of {counts.size} cells (subject by scanner) have no value"
    return f"cells (subject by scanner) hold from {counts.min()} to {counts.max()} values"


def _listwise(values: Array, counts: NDArray[np.int64], index: NDArray[np.int64], results: _Results) -> None:
    """Keep the subjects whose cells all hold the full number of replicates."""
    full = (counts == counts.max()).all(axis=1)
    results.excluded[index] = int((~full).sum())
    if full.sum() < 2:
        results.give_up(index, f"only {int(full.sum())} subjects have a full set of cells")
    else:
        results.store(index, crossed_squares(values[:, full]), "expected mean squares")
    results.flags[index] = join_flags("listwise", results.flags[index[0]])


def _reml(values: Array, counts: NDArray[np.int64], index: NDArray[np.int64], results: _Results) -> None:
    replicated = bool(counts.max() > 1)
    fit = fit_crossed(values, interaction=replicated)
    for i, reason in zip(index, fit.reasons, strict=True):
        if reason:
            results.give_up(i, reason)
    good = np.array([not reason for reason in fit.reasons], dtype=bool)
    n, k = counts.shape
    n_cells, n_values = int((counts > 0).sum()), int(counts.sum())
    if n_cells - n - k + 1 < 1 or (replicated and n_values <= n_cells):
        results.give_up(index[good], "too few values for the number of subjects and scanners")
    elif good.any():
        squares = squares_from_components(
            fit.variances[good],
            fit.mean[good],
            n=n,
            k=k,
            m=n_values / n_cells,
            n_values=n_values,
            n_cells=n_cells,
        )
        results.store(index[good], squares, "REML components as mean squares, approximate df")
        results.flags[index[good]] = "unbalanced"
        results.flags[index[good & fit.singular]] = "unbalanced, singular"


def _table(layout: Layout, results: _Results, scale: str) -> pd.DataFrame:
    known = np.isfinite(layout.values)
    least = np.where(known, layout.values, math.inf).min(axis=(1, 2, 3))
    refusal = refuse_relative(least, results.mean, results.sd["total"][:, 0], scale=scale)
    shape = (len(layout), len(_ROWS))
    value = np.empty((*shape, 3))
    texts = {
        name: np.full(shape, "", dtype=object) for name in ("unit", "estimator", "method", "flags", "note")
    }
    for j, (name, source, kind) in enumerate(_ROWS):
        factor = {"factor": REPEATABILITY_FACTOR, "sd": 1.0}.get(kind)
        if factor is None:
            mean = np.where(refusal == 0, np.abs(results.mean), math.nan)
            value[:, j] = 100.0 * ratio(results.sd[source], mean[:, None])
        else:
            value[:, j] = factor * results.sd[source]
        texts["unit"][:, j] = "%" if kind == "cv" else layout.units
        texts["estimator"][:, j] = _estimators(name, source, kind, results)
        texts["method"][:, j] = _method(source, results.scanners)
        relative = refusal if kind == "cv" else np.zeros_like(refusal)
        texts["flags"][:, j], texts["note"][:, j] = _remarks(source, relative, results)
    return tidy(
        layout.groups,
        statistic=[row[0] for row in _ROWS],
        value=value[..., 0],
        low=value[..., 1],
        high=value[..., 2],
        level=results.level,
        unit=texts["unit"],
        estimator=texts["estimator"],
        interval_method=texts["method"],
        n={
            "subjects": layout.n_subjects - results.excluded,
            "scanners": layout.n_raters,
            "values": layout.n_values,
            "missing": layout.n_missing,
            "excluded_subjects": results.excluded,
        },
        flags=texts["flags"],
        note=texts["note"],
    )


def _estimators(name: str, source: str, kind: str, results: _Results) -> list[str]:
    form = {"factor": "1.96 sqrt(2) SD of ", "sd": "SD of ", "cv": "percent of the grand mean, SD of "}[kind]
    fixed = ", scanners fixed" if results.scanners == "fixed" and source in ("total", "scanner") else ""
    return [f"{form}{_WORDS[source]}{fixed}, {m}" if m else "" for m in results.methods]


def _method(source: str, scanners: str) -> str:
    if source == "within":
        return "chi-squared"
    if scanners == "fixed" and source != "interaction":
        return "noncentral chi-squared" + (", MOVER" if source == "total" else "")
    return "MLS"


def _remarks(source: str, refusal: NDArray[np.int64], results: _Results) -> tuple[list[str], list[str]]:
    flags, notes = [], []
    for i, code in enumerate(refusal):
        variance = results.variance[source][i] if source in results.variance else math.nan
        negative = variance < 0
        flags.append(
            join_flags(
                results.flags[i],
                "relative-refused" if code else "",
                "negative-component-truncated" if negative else "",
            )
        )
        if source == "interaction" and np.isnan(variance) and results.methods[i]:
            notes.append("needs replicates of several subjects on a scanner")
            continue
        raw = f"the estimate of the variance is negative ({variance:.4g}) and shown as 0" if negative else ""
        notes.append("; ".join(p for p in (results.notes[i], RELATIVE_REFUSALS[code], raw) if p))
    return flags, notes
