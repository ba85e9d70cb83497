"""Figures as data.

A builder takes numbers and returns a :class:`cordqa.records.Figure` whose ``data`` holds only
JSON types; the report draws it.  Builders compute no statistics: means, intervals and fitted
lines come from the caller, so that figure and table cannot disagree.
"""

from __future__ import annotations

from cordqa.figures.agreement import bland_altman, control_chart, roc
from cordqa.figures.groups import bars, components, design, forest, heatmap, strip
from cordqa.figures.parts import (
    Agreement,
    Circle,
    ControlPanel,
    Curve,
    Estimate,
    Group,
    RocCurve,
    Series,
)
from cordqa.figures.phantom import curves, identity, linearity, plate, rate_linearity, scatter
from cordqa.figures.png import encode_png, shrink_image, to_grey

__all__ = [
    "Agreement",
    "Circle",
    "ControlPanel",
    "Curve",
    "Estimate",
    "Group",
    "RocCurve",
    "Series",
    "bars",
    "bland_altman",
    "components",
    "control_chart",
    "curves",
    "design",
    "encode_png",
    "forest",
    "heatmap",
    "identity",
    "linearity",
    "plate",
    "rate_linearity",
    "roc",
    "scatter",
    "shrink_image",
    "strip",
    "to_grey",
]
