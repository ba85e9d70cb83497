"""Published definitions of a statistic, exactly, beside the estimate that we would use.

The spine-generic project reports two coefficients of variation per vendor for healthy people of
whom each was scanned at one site: "intra-site" (the mean over sites of the SD over the site's
subjects divided by the site's mean) and "inter-site" (the SD of the site means divided by their
mean), both with SD dividing by n.

They are not repeatability and reproducibility.  Nobody was scanned twice, so the intra-site
value is the spread between people with the error of measurement on top.  Dividing by n makes it
about 11 % too small with five subjects a site, and averaging over sites gives a site with two
subjects the weight of one with eight.  The SD of site means contains the sampling of the people
at each site: sites that do not differ at all still have an inter-site COV of the intra-site one
over the root of the number of subjects.

Cohen-Adad J, et al. Sci Data 2021;8:219. doi:10.1038/s41597-021-00941-8
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import ConfigError
from cordqa.stats.quantiles import Bounds, MeanSquare, mls_interval, sd_interval
from cordqa.stats.scale import RELATIVE_REFUSALS, Scale, check_scale, refuse_relative
from cordqa.stats.table import (
    as_names,
    check_choice,
    check_level,
    clean_table,
    group_table,
    join_flags,
    stack_tables,
    tidy,
    unit_names,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SiteSpread", "site_spread", "spine_generic_cov", "spine_generic_tests"]

Array = NDArray[np.float64]

_PUBLISHED = "spine-generic definition, SD dividing by n"
_DIFFERENCE = {
    "intra": "spread of people plus error of measurement, not repeatability: nobody was scanned twice",
    "inter": "holds the sampling of the people at each site, which the variance component takes out",
}


_ROW_NAMES = ("intra_site_COV", "inter_site_COV", "within_site_CV", "between_site_CV", "vendor_mean")


class SiteSpread(NamedTuple):
    """Spread of one vendor's values, by both definitions, in units of the values or fractions.

    ``intra`` and ``inter`` are the published fractions.  ``within`` is the pooled SD within
    sites and ``between`` the SD of the sites' true means (its variance raw in
    ``between_variance``), both in units; ``mean`` is the mean of the site means.
    """

    intra: float
    inter: float
    within: float
    within_bounds: Bounds
    between: float
    between_bounds: Bounds
    between_variance: float
    mean: float
    mean_half_width: float
    n_sites: int
    n_subjects: int
    smallest: int


def site_spread(values: Array, sites: NDArray[Any], *, level: float = 0.95) -> SiteSpread:
    """Return the published and the better estimates for the values of one vendor.

    Parameters
    ----------
    values : ndarray, shape (n_subjects,)
        Finite, one per person.
    sites : ndarray, shape (n_subjects,)
        Label of the site of each.
    level : float
        Confidence level of the chi-squared (within) and modified-large-sample (between)
        intervals; the latter uses unweighted means and the harmonic mean of the sites' sizes
        [1]_, so that sites of unequal size are handled.

    References
    ----------
    .. [1] Thomas JD, Hultquist RA. Ann Stat 1978;6:582. doi:10.1214/aos/1176344202
    """
    _, index, counts = np.unique(sites.astype(str), return_inverse=True, return_counts=True)
    means = np.bincount(index, values) / counts
    squares = np.bincount(index, (values - means[index]) ** 2)
    k, total = counts.size, values.size
    mean = float(means.mean())
    sd_sites = float(means.std())
    df = float(total - k)
    error = float(squares.sum() / df) if df > 0 else math.nan
    harmonic = k / float((1.0 / counts).sum())
    nan = np.asarray(math.nan)
    between, bounds = math.nan, Bounds(nan, nan)
    if k > 1 and df > 0:
        sites_ms = float(harmonic * means.var(ddof=1))
        terms = [
            MeanSquare(1.0 / harmonic, np.asarray(sites_ms), k - 1.0),
            MeanSquare(-1.0 / harmonic, np.asarray(error), df),
        ]
        between = (sites_ms - error) / harmonic
        bounds = Bounds(*(np.sqrt(np.maximum(b, 0.0)) for b in mls_interval(terms, level=level)))
    with np.errstate(divide="ignore", invalid="ignore"):
        intra = float(np.mean(np.sqrt(squares / counts) / means))
    return SiteSpread(
        intra=intra,
        inter=sd_sites / mean if mean and k > 1 else math.nan,
        within=math.sqrt(error),
        within_bounds=sd_interval(math.sqrt(error), df, level=level),
        between=math.sqrt(max(between, 0.0)) if between == between else math.nan,  # noqa: PLR0124 (NaN)
        between_bounds=bounds,
        between_variance=between,
        mean=mean,
        mean_half_width=1.96 * sd_sites / math.sqrt(k),
        n_sites=k,
        n_subjects=total,
        smallest=int(counts.min()),
    )


def spine_generic_cov(
    data: Any,
    *,
    value: str = "value",
    site: str = "site",
    vendor: str | None = "vendor",
    subject: str = "subject",
    by: str | Sequence[str] | None = None,
    unit: str | None = None,
    scale: Scale = "ratio",
    level: float = 0.95,
    nan_policy: Literal["raise", "omit"] = "raise",
) -> pd.DataFrame:
    """Return spine-generic's intra- and inter-site COV with the better estimates beside them.

    Parameters
    ----------
    data : DataFrame, mapping or sequence of rows
        Tidy table, one value per person.
    value, site, subject : str
        Columns.
    vendor : str or None
        Column of the vendor; None takes all sites together.
    by : str or sequence of str, optional
        Columns that split the table (region, level).
    unit : str, optional
        Column with the unit; mixed units within a group are refused.
    scale : {'ratio', 'interval'}
        Of the quantity; an interval scale gets no COV.
    level : float
        Confidence level.
    nan_policy : {'raise', 'omit'}
        Whether unusable values stop the calculation or are left out.

    Returns
    -------
    DataFrame
        Per group and vendor, in percent: ``intra_site_COV`` and ``inter_site_COV`` (published
        definition), ``within_site_CV`` (pooled variance) and ``between_site_CV`` (variance
        component), with intervals; and ``vendor_mean`` with the published 1.96 SD / sqrt(n).
        The note of each published row says how it differs.

    Raises
    ------
    TableError
        If a person has two values in one group, or for unusable cells.
    """
    check_level(level)
    check_scale(scale)
    check_choice(nan_policy, ("raise", "omit"), name="nan_policy")
    places = [*as_names(by), *as_names(vendor)]
    clean, _ = clean_table(
        data,
        numbers=[value],
        keys=[subject, site],
        by=places,
        unit=unit,
        unique=True,
        nan_policy=nan_policy,
    )
    tables = []
    for key, part in group_table(clean, places):
        usable = part[np.isfinite(part[value])]
        lost = len(part) - len(usable)
        if usable.empty:
            tables.append(
                tidy(
                    key,
                    statistic=_ROW_NAMES,
                    value=math.nan,
                    level=level,
                    n={"subjects": 0, "sites": 0, "excluded": lost},
                    flags="not-estimable",
                    note="no usable value",
                )
            )
            continue
        numbers = usable[value].to_numpy(dtype=float)
        found = site_spread(numbers, usable[site].to_numpy(), level=level)
        spread = found.within if math.isfinite(found.within) else 0.0
        refusal = int(refuse_relative(numbers.min(), found.mean, spread, scale=scale))
        of = "" if unit is None else str(unit_names(part[unit])[0])
        tables.append(_rows(key, found, refusal, level=level, unit=of, lost=lost))
    return stack_tables(tables)


def _rows(
    key: dict[str, Any], s: SiteSpread, refusal: int, *, level: float, unit: str, lost: int
) -> pd.DataFrame:
    percent = 100.0 / s.mean if refusal == 0 else math.nan
    keep = 100.0 if refusal == 0 else math.nan
    nan = math.nan
    value = [s.intra * keep, s.inter * keep, s.within * percent, s.between * percent, s.mean]
    low = [nan, nan, *(float(b.low) * percent for b in (s.within_bounds, s.between_bounds))]
    high = [nan, nan, *(float(b.high) * percent for b in (s.within_bounds, s.between_bounds))]
    refused = RELATIVE_REFUSALS[refusal]
    single = "" if s.n_sites > 1 else "one site only"
    alone = "a site with one subject counts as without spread" if s.smallest < 2 else ""
    negative = f"variance component {s.between_variance:.4g} shown as 0" if s.between_variance < 0 else ""
    notes = [
        [refused, _DIFFERENCE["intra"], alone],
        [refused, _DIFFERENCE["inter"], single],
        [refused],
        [refused, single, negative],
        ["published half width, 1.96 SD of site means over root of sites, too short for few sites"],
    ]
    mark = "relative-refused" if refusal else ""
    truncated = "negative-component-truncated" if negative else ""
    return tidy(
        key,
        statistic=_ROW_NAMES,
        value=value,
        low=[*low, s.mean - s.mean_half_width],
        high=[*high, s.mean + s.mean_half_width],
        level=level,
        unit=("%", "%", "%", "%", unit),
        estimator=(
            f"mean over sites of SD / mean, {_PUBLISHED}",
            f"SD of site means / mean of site means, {_PUBLISHED}",
            "pooled SD within sites / mean of site means",
            "root of the variance component of sites, unweighted means / mean of site means",
            "mean of site means, spine-generic definition",
        ),
        interval_method=("", "", "chi-squared", "MLS", "normal, SD dividing by n"),
        n={"subjects": s.n_subjects, "sites": s.n_sites, "excluded": lost},
        flags=[
            join_flags(mark, "published-definition"),
            join_flags(mark, "published-definition"),
            mark,
            join_flags(mark, truncated),
            "published-definition",
        ],
        note=["; ".join(p for p in parts if p) for parts in notes],
    )


def spine_generic_tests(
    data: Any,
    *,
    value: str = "value",
    site: str = "site",
    vendor: str = "vendor",
    subject: str = "subject",
    by: str | Sequence[str] | None = None,
    level: float = 0.95,
    nan_policy: Literal["raise", "omit"] = "raise",
) -> pd.DataFrame:
    """Return spine-generic's tests: between sites within vendors, and between vendors.

    Parameters are those of :func:`spine_generic_cov`.

    Returns
    -------
    DataFrame
        Row ``anova_sites`` (F over people, one per vendor), ``anova_vendors`` (F over site
        means) and ``tukey`` (difference of vendors' means of site means, first minus second,
        simultaneous interval over all pairs of vendors).
    """
    from scipy import stats

    check_level(level)
    if vendor in as_names(by):
        raise ConfigError("the vendor column cannot split the table as well", found=vendor)
    clean, _ = clean_table(
        data,
        numbers=[value],
        keys=[subject, site, vendor],
        by=by,
        unique=True,
        nan_policy=nan_policy,
    )
    tables = []
    for key, part in group_table(clean.dropna(subset=[value]), by):
        vendors: dict[Any, Array] = {}
        for name, rows in part.groupby(vendor, sort=False, observed=True):
            groups = [g.to_numpy(dtype=float) for _, g in rows.groupby(site, observed=True)[value]]
            vendors[name] = np.array([g.mean() for g in groups])
            f, df1, df2, p = _anova(groups)
            tables.append(
                _test_row({**key, vendor: name, "second": ""}, "anova_sites", f, df1, df2, p, level)
            )
        f, df1, df2, p = _anova(list(vendors.values()))
        tables.append(_test_row({**key, vendor: "", "second": ""}, "anova_vendors", f, df1, df2, p, level))
        varied = sum(float(((v - v.mean()) ** 2).sum()) for v in vendors.values()) > 0
        if varied and len(vendors) > 1 and min(v.size for v in vendors.values()) > 1:
            tukey = stats.tukey_hsd(*vendors.values())
            bounds = tukey.confidence_interval(confidence_level=level)
            names = list(vendors)
            tables.extend(
                tidy(
                    {**key, vendor: names[i], "second": names[j]},
                    statistic=("tukey",),
                    value=[tukey.statistic[i, j]],
                    low=[bounds.low[i, j]],
                    high=[bounds.high[i, j]],
                    level=level,
                    estimator="difference of means of site means",
                    interval_method="Tukey-Kramer, simultaneous over vendors",
                    extra={"p": tukey.pvalue[i, j]},
                    n={"sites": vendors[names[i]].size + vendors[names[j]].size},
                )
                for i, j in combinations(range(len(names)), 2)
            )
    return stack_tables(tables)


def _anova(groups: list[Array]) -> tuple[float, float, float, float]:
    """One-way analysis of variance; NaN where there is one group or nothing is repeated."""
    from cordqa.stats.quantiles import f_survival

    values = np.concatenate(groups)
    df1, df2 = float(len(groups) - 1), float(values.size - len(groups))
    if df1 < 1 or df2 < 1:
        return math.nan, df1, df2, math.nan
    between = sum(g.size * (g.mean() - values.mean()) ** 2 for g in groups) / df1
    within = sum(((g - g.mean()) ** 2).sum() for g in groups) / df2
    if within <= 0:
        return math.nan, df1, df2, math.nan
    f = float(between / within)
    return f, df1, df2, float(f_survival(f, df1, df2))


def _test_row(
    key: dict[str, Any], name: str, f: float, df1: float, df2: float, p: float, level: float
) -> pd.DataFrame:
    return tidy(
        key,
        statistic=(name,),
        value=[f],
        level=level,
        unit="1",
        estimator="F of a one-way analysis of variance",
        extra={"df1": df1, "df2": df2, "p": p},
        n={"sites": int(df1 + 1) if name == "anova_sites" else int(df1 + df2 + 1)},
        note="" if math.isfinite(f) else "needs two groups and a repeat in one of them",
    )
