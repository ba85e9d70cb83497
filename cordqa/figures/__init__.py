"""Figures as data.

A builder takes numbers and returns a :class:`cordqa.records.Figure` whose ``data`` holds only
JSON types; the report draws it.  Builders compute no statistics: means, intervals and fitted
lines come from the caller, so that figure and table cannot disagree.
"""

from __future__ import annotations

from cordqa.figures.agreement import bland_altman, control_chart, roc
from cordqa.figures.contour import trace_level
from cordqa.figures.groups import bars, components, design, forest, heatmap, strip
from cordqa.figures.inversion import InversionPanel, inversion
from cordqa.figures.links import PageLink, pages
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
from cordqa.figures.profile import Profile, ProfileGroup, profiles
from cordqa.figures.statuses import CoverageRow, StatusKey, StatusRow, coverage_bars, status_map
from cordqa.figures.tiles import Picture, Rule, Tile, mosaic

__all__ = [
    "Agreement",
    "Circle",
    "ControlPanel",
    "CoverageRow",
    "Curve",
    "Estimate",
    "Group",
    "InversionPanel",
    "PageLink",
    "Picture",
    "Profile",
    "ProfileGroup",
    "RocCurve",
    "Rule",
    "Series",
    "StatusKey",
    "StatusRow",
    "Tile",
    "bars",
    "bland_altman",
    "components",
    "control_chart",
    "coverage_bars",
    "curves",
    "design",
    "encode_png",
    "forest",
    "heatmap",
    "identity",
    "inversion",
    "linearity",
    "mosaic",
    "pages",
    "plate",
    "profiles",
    "rate_linearity",
    "roc",
    "scatter",
    "shrink_image",
    "status_map",
    "strip",
    "to_grey",
    "trace_level",
]
