"""The pieces from which figures are made: what a caller fills in.

Sequences of numbers may hold NaN where a number is not known.  A ``name`` identifies a point
across figures and tables, where a click highlights everything of that name: use the region of
the measurement for a phantom and the subject for a cohort.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordqa.records import Status

__all__ = [
    "Agreement",
    "Circle",
    "ControlPanel",
    "Curve",
    "Estimate",
    "Group",
    "Interval",
    "Numbers",
    "RocCurve",
    "Series",
]

Numbers = Sequence[float] | NDArray[np.floating[Any]]
#: An estimate with the two ends of its interval.
Interval = tuple[float, float, float]
_UNKNOWN: Interval = (math.nan, math.nan, math.nan)


@dataclass(frozen=True, slots=True, kw_only=True)
class Circle:
    """A region of interest drawn on an image.

    ``x`` (column) and ``y`` (row) are pixel coordinates of the centre, where the centre of the
    first pixel is (0, 0); ``radius`` is in pixels.  ``label`` is drawn beside the circle (short:
    ``"3"``).  ``value`` with its expanded ``uncertainty`` (half of the interval) and ``unit``, and
    ``text``, are shown on hover.
    """

    x: float
    y: float
    radius: float
    label: str
    status: Status = Status.NOT_EVALUATED
    name: str = ""
    value: float = math.nan
    uncertainty: float = math.nan
    unit: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Points that share a marker, for example those of one scanner.

    ``low`` and ``high`` bound the interval of each ``y``; ``slope`` and ``intercept`` draw the
    fitted line of the series where the figure has one.
    """

    label: str
    x: Numbers
    y: Numbers
    low: Numbers = ()
    high: Numbers = ()
    names: Sequence[str] = ()
    slope: float = math.nan
    intercept: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Samples of one region with the fitted curve.

    ``used`` tells which samples entered the fit (empty: all of them); those that did not are
    drawn as crosses.  ``value`` with its expanded ``uncertainty`` (half of the interval) and
    ``unit`` stands above the curve; ``note`` says why there is none or what is special.
    """

    label: str
    x: Numbers
    y: Numbers
    used: Sequence[bool] | NDArray[np.bool_] = ()
    fit_x: Numbers = ()
    fit_y: Numbers = ()
    value: float = math.nan
    uncertainty: float = math.nan
    unit: str = ""
    status: Status = Status.NOT_EVALUATED
    name: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Values of one group, with the mean and SD that the caller computed (NaN: not drawn).

    ``series`` chooses the colour (for example the vendor); empty means the label itself.
    """

    label: str
    values: Numbers
    names: Sequence[str] = ()
    mean: float = math.nan
    sd: float = math.nan
    series: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """One estimate with its interval: a bar or a row of a forest plot."""

    label: str
    value: float
    low: float = math.nan
    high: float = math.nan
    series: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """One Bland-Altman panel: differences against means, with bias and limits of agreement.

    ``series`` gives one label per point, for example the vendor (empty: one series).
    """

    label: str
    means: Numbers
    differences: Numbers
    names: Sequence[str] = ()
    series: Sequence[str] = ()
    bias: Interval = _UNKNOWN
    lower: Interval = _UNKNOWN
    upper: Interval = _UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPanel:
    """One control chart: a value followed over time on one scanner.

    ``when`` holds ISO 8601 dates in order.  ``low`` and ``high`` are the control limits around
    ``centre``, ``warn_low`` and ``warn_high`` the warning limits.  ``ewma`` with its own limits is
    drawn as a line.  ``signals`` names the rule that a point breaks (empty: none).  ``events``
    maps a date to what happened, for example a software upgrade.  The first ``baseline`` points
    set the limits.
    """

    label: str
    when: Sequence[str]
    values: Numbers
    names: Sequence[str] = ()
    signals: Sequence[str] = ()
    centre: float = math.nan
    low: float = math.nan
    high: float = math.nan
    warn_low: float = math.nan
    warn_high: float = math.nan
    ewma: Numbers = ()
    ewma_low: Numbers = ()
    ewma_high: Numbers = ()
    events: Mapping[str, str] = field(default_factory=dict)
    baseline: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RocCurve:
    """One receiver operating characteristic, with its area and the interval of the area.

    ``operating`` is the chosen point (false-positive rate, true-positive rate).
    """

    label: str
    false_positive: Numbers
    true_positive: Numbers
    auc: float = math.nan
    low: float = math.nan
    high: float = math.nan
    operating: tuple[float, float] = (math.nan, math.nan)
