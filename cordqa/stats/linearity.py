"""Linearity and bias of measured against reference values in tidy tables.

R2 near 1 proves nothing here: it grows with the range of the references, whatever the error.
Look at the slope and its interval, at the bias per level, and at the test for curvature.

Array functions are in :mod:`cordqa.stats.linearity_core`.

Raunig DL, et al. Stat Methods Med Res 2015;24:27. doi:10.1177/0962280214537344
Obuchowski NA, Bullen J. Quantitative imaging biomarkers: effect of sample size and bias on
confidence interval coverage. Stat Methods Med Res 2018;27:3139.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import ConfigError
from cordqa.stats.agreement_core import ccc_arrays, ccc_from_moments
from cordqa.stats.linearity_core import (
    Coefficient,
    Moments,
    cluster_jackknife,
    correlation_interval,
    deming_from_moments,
    lack_of_fit,
    ols_arrays,
    polynomial_terms,
    robust_line,
)
from cordqa.stats.quantiles import ratio, sd_interval, t_quantile, t_two_sided_p
from cordqa.stats.scale import RELATIVE_REFUSALS, Scale, check_scale
from cordqa.stats.table import (
    as_names,
    check_choice,
    check_level,
    clean_table,
    group_table,
    stack_tables,
    tidy,
    unit_names,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["bias_per_level", "linearity", "ols_arrays"]

Array = NDArray[np.float64]
_NO_REFERENCE = 1e-60  # a smaller reference is zero written in floating point
_CLASSICAL = "t, independent points of equal variance"
_CLUSTERED = "t, cluster-robust CR2 with Bell-McCaffrey df"
_ROBUST = "t, robust HC2 with Bell-McCaffrey df"


def linearity(
    data: Any,
    *,
    value: str = "value",
    reference: str = "reference",
    cluster: str | Sequence[str] | None = None,
    by: str | Sequence[str] | None = None,
    unit: str | None = None,
    errors: Literal["constant", "robust"] = "constant",
    error_ratio: float | None = None,
    level: float = 0.95,
    nan_policy: Literal["raise", "omit"] = "raise",
) -> pd.DataFrame:
    """Return slope, intercept, R2, concordance and tests of straightness.

    Parameters
    ----------
    data : DataFrame, mapping or sequence of rows
        Tidy table, one measured value and its reference per row, in the same unit.
    value, reference : str
        Columns.
    cluster : str or sequence of str, optional
        What makes rows dependent (the scanner, the session, the subject).  A scanner that reads
        5 % high does so in all spheres: intervals that ignore it cover 60 to 70 % instead of 95.
    by : str or sequence of str, optional
        Columns that split the table.
    unit : str, optional
        Column with the unit of both; mixed units within a group are refused.
    errors : {'constant', 'robust'}
        Without clusters: whether all points have the same error, or each its own.
    error_ratio : float, optional
        Variance of the error of the measured over that of the reference value.  Adds Deming's
        slope and intercept, for references that are not free of error.
    level : float
        Confidence level.
    nan_policy : {'raise', 'omit'}
        Whether unusable values stop the calculation or are left out and counted.

    Returns
    -------
    DataFrame
        Rows ``slope`` (p of being 1), ``intercept`` (p of being 0), ``r2``, ``ccc``,
        ``residual_sd``, ``quadratic_term`` and ``cubic_term`` (p of being 0; the test for
        curvature), ``lack_of_fit`` (F of the line against replicates), ``bias`` and, with
        ``error_ratio``, ``deming_slope`` and ``deming_intercept``.  NaN with the reason in the
        note where there are too few points.

    Raises
    ------
    TableError
        For missing columns, and with ``nan_policy='raise'`` for unusable cells.
    """
    check_level(level)
    check_choice(errors, ("constant", "robust"), name="errors")
    check_choice(nan_policy, ("raise", "omit"), name="nan_policy")
    if error_ratio is not None and not error_ratio > 0:
        raise ConfigError("error_ratio must be positive", found=repr(error_ratio))
    clean, _ = clean_table(
        data, numbers=[value, reference], keys=as_names(cluster), by=by, unit=unit, nan_policy=nan_policy
    )
    tables = []
    for key, part in group_table(clean, by):
        fit = _Fit(part, value, reference, as_names(cluster), errors=errors, level=level)
        rows = fit.line() + fit.closeness() + fit.curvature() + fit.spread()
        if error_ratio is not None:
            rows += fit.deming(error_ratio)
        tables.append(fit.table(key, rows, _unit(part, unit)))
    return stack_tables(tables)


#: Rows in the unit of the values; slopes, R2 and concordance have none.
_IN_UNITS = ("intercept", "residual_sd", "bias", "deming_intercept")


def _unit(part: pd.DataFrame, unit: str | None) -> str:
    return "" if unit is None else str(unit_names(part[unit])[0])


_Row = dict[str, Any]


def _row(name: str, found: Coefficient, estimator: str, method: str, **more: Any) -> _Row:
    return {
        "statistic": name,
        "value": float(found.value),
        "low": float(found.low),
        "high": float(found.high),
        "df": float(found.df),
        "p": float(found.p),
        "estimator": estimator,
        "interval_method": method,
        **more,
    }


class _Fit:
    """One group: its points, its clusters, and the rows that are made of them."""

    def __init__(
        self, part: pd.DataFrame, value: str, reference: str, cluster: list[str], *, errors: str, level: float
    ) -> None:
        x, y = (part[name].to_numpy(dtype=float) for name in (reference, value))
        known = np.isfinite(x) & np.isfinite(y)
        self.x, self.y, self.level = x[known], y[known], level
        self.lost = int((~known).sum())
        self.clusters: NDArray[Any] | None = None
        if cluster:
            self.clusters = part.groupby(cluster, sort=False, observed=True).ngroup().to_numpy()[known]
        self.robust = cluster != [] or errors == "robust"
        self.method = _CLUSTERED if cluster else (_ROBUST if errors == "robust" else _CLASSICAL)
        self.levels = np.unique(self.x).size

    def line(self) -> list[_Row]:
        """Slope and intercept."""
        if self.robust:
            intercept, slope = robust_line(self.x, self.y, clusters=self.clusters, level=self.level)
        else:
            fit = ols_arrays(self.x, self.y)
            intercept, slope = (
                _coefficient(getattr(fit, n), getattr(fit, f"{n}_se"), fit.df, self.level)
                for n in ("intercept", "slope")
            )
        return [
            _row("slope", _test_against(slope, 1.0, self.level), "ordinary least squares", self.method),
            _row("intercept", intercept, "ordinary least squares", self.method),
        ]

    def closeness(self) -> list[_Row]:
        """R2 and Lin's concordance."""
        if self.clusters is None:
            fit = ols_arrays(self.x, self.y)
            r = np.sqrt(fit.r2)
            low, high = correlation_interval(r, fit.n, level=self.level)
            r2 = Coefficient(
                fit.r2, np.maximum(low, 0.0) ** 2, high**2, np.asarray(math.nan), np.asarray(math.nan)
            )
            c = ccc_arrays(self.x, self.y, level=self.level)
            nan = np.asarray(math.nan)
            return [
                _row("r2", r2, "squared Pearson correlation", "Fisher z"),
                _row("ccc", Coefficient(c.value, c.low, c.high, nan, nan), "Lin 1989", "Fisher z"),
            ]
        method = "jackknife over clusters, Fisher z"
        return [
            _row("r2", self._jackknife_z(lambda m: m.r, square=True), "squared Pearson correlation", method),
            _row("ccc", self._jackknife_z(ccc_from_moments, square=False), "Lin 1989", method),
        ]

    def _jackknife_z(self, statistic: Callable[[Moments], Array], *, square: bool) -> Coefficient:
        """Jackknife a correlation on the scale of atanh, where its distribution is even."""
        top = 1.0 - 1e-15

        def to_z(m: Moments) -> Array:
            return np.asarray(np.arctanh(np.clip(statistic(m), -top, top)))

        z = cluster_jackknife(to_z, self.x, self.y, clusters=self.clusters, level=self.level)
        value, low, high = (np.tanh(v) for v in (z.value, z.low, z.high))
        if square:
            ends = np.array([low**2, high**2])
            low, high = np.where(low * high <= 0, 0.0, ends.min()), ends.max()
            value = value**2
        return Coefficient(value, low, high, z.df, np.asarray(math.nan))

    def curvature(self) -> list[_Row]:
        """Terms of second and third order, and lack of fit."""
        rows = []
        for order, name in ((2, "quadratic_term"), (3, "cubic_term")):
            if self.robust:
                found = robust_line(self.x, self.y, clusters=self.clusters, level=self.level, order=order)[
                    order
                ]
            else:
                found = polynomial_terms(self.x, self.y, order=order, level=self.level)
            note = f"needs more than {order} reference values" if self.levels <= order else ""
            estimator = f"highest term of a polynomial of order {order}"
            rows.append(_row(name, found, estimator, self.method, note=note))
        f, df1, df2, p = lack_of_fit(self.x, self.y)
        nan = np.asarray(math.nan)
        found = Coefficient(np.asarray(f), nan, nan, np.asarray(df2), np.asarray(p))
        note = "" if np.isfinite(f) else "needs replicates at three or more reference values"
        flag = ""
        if self.clusters is not None and np.isfinite(f):
            flag, note = (
                "assumes-independence",
                "takes replicates as independent although they share clusters",
            )
        freedom = f", df {df1:.0f} and {df2:.0f}" if np.isfinite(f) else ""
        estimator = "F of means per reference against the line" + freedom
        rows.append(_row("lack_of_fit", found, estimator, "", note=note, flags=flag))
        return rows

    def spread(self) -> list[_Row]:
        """Residual SD and mean difference from the reference."""
        fit = ols_arrays(self.x, self.y)
        nan = np.asarray(math.nan)
        bounds = sd_interval(fit.residual_sd, fit.df, level=self.level)
        free = not self.robust  # the chi-squared interval needs independent, equal errors
        sd = Coefficient(
            fit.residual_sd, bounds.low if free else nan, bounds.high if free else nan, fit.df, nan
        )
        bias = mean_with_interval(self.y - self.x, self.clusters, level=self.level)
        method = "t over points" if self.clusters is None else "t over means of clusters"
        return [
            _row("residual_sd", sd, "ordinary least squares, n - 2", "chi-squared" if free else ""),
            _row("bias", bias, "mean of measured minus reference", method),
        ]

    def deming(self, error_ratio: float) -> list[_Row]:
        """Slope and intercept with error in both axes."""
        lost = 1 if self.clusters is not None else 2
        method = "jackknife, t" + (" over clusters" if self.clusters is not None else "")
        rows = []
        for place, name in enumerate(("deming_slope", "deming_intercept")):

            def pick(m: Moments, place: int = place) -> Array:
                return deming_from_moments(m, error_ratio)[place]

            found = cluster_jackknife(
                pick, self.x, self.y, clusters=self.clusters, level=self.level, lost=lost
            )
            if place == 0:
                found = _test_against(found, 1.0, self.level)
            rows.append(_row(name, found, f"Deming, ratio of error variances {error_ratio:g}", method))
        return rows

    def table(self, key: dict[str, Any], rows: list[_Row], unit: str) -> pd.DataFrame:
        """Return the rows as a tidy table."""
        few = "fewer than three points" if self.x.size < 3 else ""
        flat = "no-variation" if self.levels < 2 else ""
        count = 0 if self.clusters is None else np.unique(self.clusters).size
        few_clusters = "few-clusters" if 0 < count < 5 else ""
        return tidy(
            key,
            statistic=[r["statistic"] for r in rows],
            value=[r["value"] for r in rows],
            low=[r["low"] for r in rows],
            high=[r["high"] for r in rows],
            level=self.level,
            unit=[unit if r["statistic"] in _IN_UNITS else "" for r in rows],
            estimator=[r["estimator"] for r in rows],
            interval_method=[r["interval_method"] for r in rows],
            extra={"df": [r["df"] for r in rows], "p": [r["p"] for r in rows]},
            n={
                "values": self.x.size,
                "references": self.levels,
                "clusters": count or math.nan,
                "excluded": self.lost,
            },
            flags=[", ".join(f for f in (flat, few_clusters, r.get("flags", "")) if f) for r in rows],
            note=["; ".join(n for n in (few, r.get("note", "")) if n) for r in rows],
        )


def _coefficient(value: Array, se: Array, df: Array, level: float) -> Coefficient:
    half = t_quantile(0.5 + level / 2.0, df) * se
    return Coefficient(value, value - half, value + half, df, t_two_sided_p(ratio(value, se), df))


def _test_against(found: Coefficient, target: float, level: float) -> Coefficient:
    """Replace the p of being zero by that of being equal to a target."""
    se = (found.high - found.value) / t_quantile(0.5 + level / 2.0, found.df)
    p = t_two_sided_p(ratio(found.value - target, se), found.df)
    return found._replace(p=p)


def mean_with_interval(
    values: Array, clusters: NDArray[Any] | None = None, *, level: float = 0.95
) -> Coefficient:
    """Return a mean with its t interval; with clusters, over the means of the clusters.

    Parameters
    ----------
    values : ndarray, shape (n,)
        Finite.
    clusters : ndarray, shape (n,), optional
        Each cluster counts once, whatever its size.
    level : float
        Confidence level; NaN bounds below two values or clusters.
    """
    points = values
    if clusters is not None:
        _, inverse, counts = np.unique(clusters, return_inverse=True, return_counts=True)
        points = np.bincount(inverse, values) / counts
    nan = np.asarray(math.nan)
    if points.size < 2:
        return Coefficient(np.asarray(points.mean() if points.size else math.nan), nan, nan, nan, nan)
    se = np.asarray(points.std(ddof=1) / math.sqrt(points.size))
    return _coefficient(np.asarray(points.mean()), se, np.asarray(points.size - 1.0), level)


def bias_per_level(
    data: Any,
    *,
    value: str = "value",
    reference: str = "reference",
    cluster: str | Sequence[str] | None = None,
    by: str | Sequence[str] | None = None,
    unit: str | None = None,
    scale: Scale = "ratio",
    level: float = 0.95,
    nan_policy: Literal["raise", "omit"] = "raise",
) -> pd.DataFrame:
    """Return the bias at every reference value, in units and in percent.

    Parameters are those of :func:`linearity`.  With ``cluster``, the interval is t over the
    means of the clusters (for example of the scanners), so that ten repeats on one scanner count
    as one.

    Returns
    -------
    DataFrame
        The reference in its own column, and rows ``bias`` and ``bias_percent`` of the
        reference.
    """
    check_level(level)
    check_scale(scale)
    clean, _ = clean_table(
        data, numbers=[value, reference], keys=as_names(cluster), by=by, unit=unit, nan_policy=nan_policy
    )
    tables = []
    used = clean.dropna(subset=[value, reference]).sort_values(reference, kind="stable")
    for key, part in group_table(used, [*as_names(by), reference]):
        clusters = None
        if cluster is not None:
            clusters = part.groupby(as_names(cluster), sort=False, observed=True).ngroup().to_numpy()
        at = float(key[reference])
        found = mean_with_interval(part[value].to_numpy(dtype=float) - at, clusters, level=level)
        refusal = 1 if scale == "interval" else (2 if at <= _NO_REFERENCE else 0)
        factor = np.array([1.0, 100.0 / at if refusal == 0 else math.nan])
        count = math.nan if clusters is None else np.unique(clusters).size
        tables.append(
            tidy(
                key,
                statistic=("bias", "bias_percent"),
                value=found.value * factor,
                low=found.low * factor,
                high=found.high * factor,
                level=level,
                unit=(_unit(part, unit), "%"),
                estimator="mean of measured minus reference",
                interval_method="t" if clusters is None else "t over means of clusters",
                extra={"df": found.df, "p": found.p},
                n={"values": len(part), "clusters": count},
                flags=("", "relative-refused" if refusal else ""),
                note=("", RELATIVE_REFUSALS[refusal]),
            )
        )
    return stack_tables(tables)
