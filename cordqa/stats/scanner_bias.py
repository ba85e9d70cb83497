"""Bias of scanners against their mean or against one of them, from tidy tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import TableError
from cordqa.stats.pairs import cell_means
from cordqa.stats.quantiles import ratio, t_quantile, t_two_sided_p
from cordqa.stats.scale import RELATIVE_REFUSALS, Scale, check_scale, refuse_relative
from cordqa.stats.table import as_names, check_choice, check_level, clean_table, stack_tables, tidy, to_layout

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["scanner_bias"]

Array = NDArray[np.float64]


def scanner_bias(
    data: Any,
    *,
    value: str = "value",
    subject: str | Sequence[str] = "subject",
    scanner: str = "scanner",
    reference: Any = None,
    by: str | Sequence[str] | None = None,
    unit: str | None = None,
    scale: Scale = "ratio",
    level: float = 0.95,
    nan_policy: Literal["raise", "omit"] = "raise",
) -> pd.DataFrame:
    """Return how much each scanner reads above or below the others over the same subjects.

    Subject and scanner effects are fitted together by least squares, so that a scanner that saw
    other subjects is not blamed for them and no value is left out.  The error is that of the
    subjects' means, so that the bias is one for subjects in general; with one subject only it is
    that of the repeats, and the bias is one for this subject.

    Parameters
    ----------
    data : DataFrame, mapping or sequence of rows
        Tidy table; replicates of a subject on a scanner are averaged (flagged).
    value, subject, scanner : str
        Columns.
    reference : label, optional
        Scanner against which the others are compared; default is the mean of all.
    by, unit, scale, level
        As in :func:`~cordqa.stats.reproducibility.reproducibility`.
    nan_policy : {'raise', 'omit'}
        Whether unusable values stop the calculation or are left out.

    Returns
    -------
    DataFrame
        Column ``scanner`` and rows ``bias`` (units) and ``bias_percent`` (of the mean of the
        reference) with t intervals (each at its own level, not simultaneous) and p.
    """
    check_level(level)
    check_scale(scale)
    check_choice(nan_policy, ("raise", "omit"), name="nan_policy")
    keys = [*as_names(subject), scanner]
    clean, _ = clean_table(data, numbers=[value], keys=keys, by=by, unit=unit, nan_policy=nan_policy)
    if scanner in as_names(by):
        raise TableError("the scanner column cannot split the table as well", where=f"column {scanner!r}")
    layout = to_layout(clean, value=value, subject=subject, rater=scanner, by=by, unit=unit)
    tables = []
    for i in range(len(layout)):
        n, k = int(layout.n_subjects[i]), int(layout.n_raters[i])
        values = layout.values[i, :n, :k]
        # One subject has no spread over subjects; its repeats are the only error there is.
        used = cell_means(values)[..., None] if n > 1 else values
        labels = layout.raters[i, :k].tolist()
        place = labels.index(reference) if reference in labels else None
        fit = _additive(used, place, reference)
        least = np.nanmin(used) if np.isfinite(used).any() else math.nan
        refusal = int(refuse_relative(least, fit.base, fit.residual_sd, scale=scale))
        averaged = "replicates-averaged" if n > 1 and layout.counts[i].max() > 1 else ""
        tables.append(
            _rows(fit, labels, scanner, level=level, refusal=refusal, flag=averaged).assign(_group=i)
        )
    table = stack_tables(tables)
    groups = layout.groups.iloc[table.pop("_group").to_numpy(dtype=int)].reset_index(drop=True)
    units = layout.units[np.repeat(np.arange(len(layout)), [len(t) for t in tables])]
    table["unit"] = np.where(table["statistic"] == "bias", units, "%")
    for place, name in enumerate(groups.columns):
        table.insert(place, name, groups[name])
    return table


@dataclass(frozen=True, slots=True)
class _Additive:
    """Scanner effects of one group: estimates, standard errors, df and what they refer to."""

    effect: Array
    se: Array
    df: float
    base: float
    residual_sd: float
    counts: NDArray[np.int64]
    reason: str


def _additive(values: Array, reference: int | None, asked: Any) -> _Additive:
    """Fit subject + scanner by least squares and return contrasts of the scanners.

    The subjects are eliminated first, which leaves one equation per scanner.

    Parameters
    ----------
    values : ndarray, shape (n_subjects, k_scanners, m)
        NaN where empty.
    reference : int or None
        Scanner to compare with; None is the mean of all.
    asked : label
        What the caller named as reference.
    """
    known = np.isfinite(values)
    values, known = (x[known.any(axis=(1, 2))] for x in (values, known))
    counts = known.sum(axis=2).astype(float)
    n, k = counts.shape
    per_scanner = counts.sum(axis=0).astype(np.int64)
    nan = np.full(k, math.nan)
    centre = float(values[known].mean()) if known.any() else math.nan
    if asked is not None and reference is None:
        reason = f"the reference scanner {asked!r} is not in this group"
        return _Additive(nan, nan, math.nan, math.nan, math.nan, per_scanner, reason)
    y = np.where(known, values - centre, 0.0)
    share = counts / counts.sum(axis=1, keepdims=True)
    matrix = np.diag(counts.sum(axis=0)) - counts.T @ share
    if k < 2 or np.linalg.matrix_rank(matrix) < k - 1:
        reason = "one scanner only" if k < 2 else "the scanners are not linked by common subjects"
        return _Additive(nan, nan, math.nan, centre, math.nan, per_scanner, reason)
    inverse = np.linalg.pinv(matrix)
    totals = y.sum(axis=2)
    effect = inverse @ (totals.sum(axis=0) - share.T @ totals.sum(axis=1))
    subject = totals.sum(axis=1) / counts.sum(axis=1) - share @ effect
    residual = np.where(known, y - subject[:, None, None] - effect[None, :, None], 0.0)
    df = float(counts.sum() - n - k + 1)
    sd = math.sqrt(float((residual**2).sum()) / df) if df > 0 else math.nan
    contrast = np.eye(k) - (1.0 / k if reference is None else np.eye(k)[reference])
    se = sd * np.sqrt(np.einsum("ij,jk,ik->i", contrast, inverse, contrast).clip(min=0.0))
    base = centre + float(subject.mean() + (effect.mean() if reference is None else effect[reference]))
    reason = "" if df > 0 else "no residual degree of freedom"
    return _Additive(contrast @ effect, se, df, base, sd, per_scanner, reason)


def _rows(
    fit: _Additive, labels: list[Any], name: str, *, level: float, refusal: int, flag: str
) -> pd.DataFrame:
    import pandas as pd

    half = t_quantile(0.5 + level / 2.0, fit.df) * fit.se
    percent = 100.0 / fit.base if refusal == 0 and fit.base else math.nan
    factor = np.array([1.0, percent])
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.where(fit.se > 0, t_two_sided_p(ratio(fit.effect, fit.se), fit.df), math.nan)
    notes = [[fit.reason, "; ".join(x for x in (fit.reason, RELATIVE_REFUSALS[refusal]) if x)]]
    return tidy(
        pd.DataFrame({name: labels}),
        statistic=("bias", "bias_percent"),
        value=fit.effect[:, None] * factor,
        low=(fit.effect - half)[:, None] * factor,
        high=(fit.effect + half)[:, None] * factor,
        level=level,
        estimator="least squares, subject and scanner effects",
        interval_method="t",
        extra={"df": fit.df, "p": p[:, None]},
        n={"values": fit.counts},
        flags=[[flag, f"{flag}, relative-refused".strip(", ") if refusal else flag]],
        note=notes,
    )
