"""Repeatability of tidy tables: the same thing measured again on the same scanner.

Array functions for many regions, and what the forms of the CV mean, are in
:mod:`cordqa.stats.repeatability_core`; differences between scanners are in
:mod:`cordqa.stats.reproducibility`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cordqa.stats.quantiles import ratio, t_two_sided_p
from cordqa.stats.repeatability_core import (
    CV_FORMS,
    CV_SWITCH,
    REPEATABILITY_FACTOR,
    CvForm,
    Repeatability,
    asymmetric_limits,
    repeatability_arrays,
)
from cordqa.stats.scale import RELATIVE_REFUSALS, Scale, check_scale
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

__all__ = ["asymmetric_limits", "repeatability", "repeatability_arrays"]

Array = NDArray[np.float64]

_NAMES = (
    "wSD",
    "RC",
    "wCV",
    "RC_percent_down",
    "RC_percent_up",
    *(f"wCV_{form}" for form in CV_FORMS),
    "sd_mean_correlation",
)
_FORM_WORDS = {
    "rms": "root mean square of s/m per subject",
    "log": "sqrt(exp(s^2) - 1) of logarithms",
    "symmetric": "root mean square of s/m, corrected for the noise of m",
}


def repeatability(
    data: Any,
    *,
    value: str = "value",
    subject: str | Sequence[str] = "subject",
    within: str | None = None,
    by: str | Sequence[str] | None = None,
    unit: str | None = None,
    scale: Scale = "ratio",
    form: CvForm = "auto",
    level: float = 0.95,
    nan_policy: Literal["raise", "omit"] = "raise",
) -> pd.DataFrame:
    """Return within-subject SD, repeatability coefficient and within-subject CV.

    Parameters
    ----------
    data : DataFrame, mapping or sequence of rows
        Tidy table; all rows of one subject (and ``within``) are repeats.
    value, subject : str
        Columns of the value and of what was measured repeatedly.
    within : str, optional
        Column within which repeats count, such as the scanner: values of one subject on two
        scanners are then no repeats, and the spread is pooled over scanners.  To get it per
        scanner, put that column into ``by``.
    by : str or sequence of str, optional
        Columns that split the table; computed for all groups at once.
    unit : str, optional
        Column with the unit; mixed units within a group are refused.
    scale : {'ratio', 'interval'}
        Of the quantity.  An interval scale (susceptibility, differences) gets no CV, and the
        note says why; so do values at or below zero or near zero.
    form : {'auto', 'rms', 'log', 'symmetric'}
        Which form ``wCV`` and ``RC_percent`` take; ``auto`` is ``rms`` up to 15 % and ``log``
        above, and the estimator names it.
    level : float
        Confidence level of the chi-squared intervals.
    nan_policy : {'raise', 'omit'}
        Whether unusable values stop the calculation or are left out.

    Returns
    -------
    DataFrame
        Rows ``wSD`` and ``RC`` (1.96 sqrt(2) wSD) in units; ``wCV``, ``RC_percent_down`` and
        ``RC_percent_up`` in percent; every form of the CV (``wCV_rms``, ``wCV_log``,
        ``wCV_symmetric``); ``sd_mean_correlation`` (Spearman; if above zero with a small p the
        spread grows with the value, and percentages describe it better than units).  ``df`` is
        that of the pooled variance; ``n_single`` counts what was measured once and adds
        nothing, ``n_unusable`` the values that were left out.

    Raises
    ------
    TableError
        For missing columns, and with ``nan_policy='raise'`` for unusable cells.
    """
    check_level(level)
    check_scale(scale)
    check_choice(nan_policy, ("raise", "omit"), name="nan_policy")
    check_choice(form, ("auto", *CV_FORMS), name="form")
    keys = [*as_names(subject), *as_names(within)]
    clean, _ = clean_table(data, numbers=[value], keys=keys, by=by, unit=unit, nan_policy=nan_policy)
    layout = to_layout(clean, value=value, subject=subject, rater=within, by=by, unit=unit)
    groups, n, k, m = layout.values.shape
    cells = layout.values.reshape(groups, n * k, m)
    found = repeatability_arrays(cells, scale=scale, level=level, form=form)
    return _table(layout, cells, found, level=level, form=form)


def _table(layout: Layout, cells: Array, found: Repeatability, *, level: float, form: str) -> pd.DataFrame:
    rows = np.arange(len(layout))
    correlation, p = _spread_trend(cells)
    # Estimate, lower and upper bound; the reach downwards is negative, so its bounds change places.
    wsd = (found.wsd, found.wsd_low, found.wsd_high)
    wcv = (found.wcv, found.wcv_low, found.wcv_high)
    reach = [_percent_reach(found, i, wcv[i][rows, found.form]) for i in range(3)]
    down = [reach[i][0] for i in (0, 2, 1)]
    trend = [correlation, *[np.full_like(correlation, math.nan)] * 2]
    columns = [
        np.column_stack(
            [
                wsd[i],
                REPEATABILITY_FACTOR * wsd[i],
                100.0 * wcv[i][rows, found.form],
                down[i],
                reach[i][1],
                100.0 * wcv[i],
                trend[i],
            ]
        )
        for i in range(3)
    ]
    test = np.full_like(columns[0], math.nan)
    test[:, -1] = p
    units = np.array([[u, u, *["%"] * 6, "1"] for u in layout.units], dtype=object).reshape(-1, 9)
    return tidy(
        layout.groups,
        statistic=_NAMES,
        value=columns[0],
        low=columns[1],
        high=columns[2],
        level=level,
        unit=units,
        estimator=_estimators(found),
        interval_method=(*["chi-squared"] * 8, ""),
        extra={
            "df": np.column_stack([np.tile(found.df[:, None], 8), np.full(len(rows), math.nan)]),
            "p": test,
        },
        n={
            "subjects": _subjects(layout),
            "repeated": found.n_subjects,
            "single": found.n_single,
            "values": found.n_values,
            "unusable": layout.n_unusable,
        },
        flags=_flags(found, form),
        note=_notes(found, form),
    )


def _percent_reach(found: Repeatability, which: int, wcv: Array) -> tuple[Array, Array]:
    """Percent repeatability, down and up, at the estimate or at one of its bounds."""
    log_sd = (found.log_sd, found.log_sd_low, found.log_sd_high)[which]
    with np.errstate(over="ignore"):
        down, up = asymmetric_limits(log_sd)
    straight = 100.0 * REPEATABILITY_FACTOR * wcv
    is_log = found.form == CV_FORMS.index("log")
    return np.where(is_log, down, -straight), np.where(is_log, up, straight)


def _subjects(layout: Layout) -> NDArray[np.int64]:
    """Count the subjects with any value."""
    some: NDArray[np.int64] = (layout.counts > 0).any(axis=2).sum(axis=1)
    return some


def _estimators(found: Repeatability) -> NDArray[np.object_]:
    words = np.array([_FORM_WORDS[form] for form in CV_FORMS], dtype=object)
    rows = []
    for form in found.form:
        reach = "exp(-/+ 1.96 sqrt(2) s) - 1" if CV_FORMS[form] == "log" else "1.96 sqrt(2) wCV"
        rows.append(
            [
                "pooled within-subject variance",
                "1.96 sqrt(2) wSD",
                words[form],
                reach,
                reach,
                *words,
                "Spearman, SD against mean of each subject",
            ]
        )
    return np.array(rows, dtype=object).reshape(-1, len(_NAMES))


def _flags(found: Repeatability, form: str) -> NDArray[np.object_]:
    rows = []
    for chosen, refusal, df, wsd in zip(found.form, found.refusal, found.df, found.wsd, strict=True):
        everywhere = join_flags(
            "not-repeated" if df == 0 else "",
            "no-variation" if wsd == 0 else "",
            "few-df" if 0 < df < 5 else "",
        )
        relative = "relative-refused" if refusal else ""
        switch = "log-form-above-15-percent" if form == "auto" and chosen == 1 else ""
        headline = join_flags(everywhere, relative, switch)
        rows.append([everywhere] * 2 + [headline] * 3 + [join_flags(everywhere, relative)] * 3 + [everywhere])
    return np.array(rows, dtype=object).reshape(-1, len(_NAMES))


def _notes(found: Repeatability, form: str) -> NDArray[np.object_]:
    rows = []
    for i, (chosen, refusal, df) in enumerate(zip(found.form, found.refusal, found.df, strict=True)):
        plain = "nothing was measured twice" if df == 0 else ""
        relative = plain or RELATIVE_REFUSALS[refusal]
        headline = relative
        if form == "auto" and chosen == 1:
            low, high = 100 * found.wcv_low[i, 2], 100 * found.wcv_high[i, 2]
            headline = (
                f"log form because the CV is above {100 * CV_SWITCH:.0f} %, where the RMS form is too large; "
                f"it takes errors to be log-normal; if they are symmetric, read wCV_symmetric: "
                f"{100 * found.wcv[i, 2]:.3g} % ({low:.3g} to {high:.3g})"
            )
        rows.append([plain] * 2 + [headline] * 3 + [relative] * 3 + [plain])
    return np.array(rows, dtype=object).reshape(-1, len(_NAMES))


def _spread_trend(cells: Array) -> tuple[Array, Array]:
    """Spearman correlation of SD with mean over repeated subjects, and its p (t approximation)."""
    from scipy.stats import rankdata

    known = np.isfinite(cells)
    count = known.sum(axis=-1)
    means = np.where(known, cells, 0.0).sum(axis=-1) / np.maximum(count, 1)
    squares = np.where(known, (cells - means[..., None]) ** 2, 0.0).sum(axis=-1)
    sd = np.sqrt(squares / np.maximum(count - 1, 1))
    use = count > 1
    # Unused subjects rank behind all others and so do not touch their ranks.
    a, b = (rankdata(np.where(use, x, np.inf), axis=-1) for x in (means, sd))
    n = use.sum(axis=-1)
    centre = (n[:, None] + 1.0) / 2.0
    da, db = np.where(use, a - centre, 0.0), np.where(use, b - centre, 0.0)
    spread = np.sqrt((da**2).sum(axis=-1) * (db**2).sum(axis=-1))
    rho = np.where(n > 3, ratio((da * db).sum(axis=-1), spread), math.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = rho * np.sqrt((n - 2.0) / (1.0 - rho**2))
    return rho, t_two_sided_p(t, np.where(n > 3, n - 2.0, math.nan))
