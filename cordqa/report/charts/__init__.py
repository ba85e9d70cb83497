"""Charts: one function per kind of figure, from data to SVG."""

from __future__ import annotations

from collections.abc import Callable

from cordqa.records import Figure
from cordqa.report.charts.agreement import draw_bland_altman, draw_roc
from cordqa.report.charts.control import draw_control_chart
from cordqa.report.charts.coverage import draw_coverage
from cordqa.report.charts.curves import draw_curves
from cordqa.report.charts.drawing import Data, Drawing, FigureDataError, Key
from cordqa.report.charts.estimates import draw_bars, draw_components, draw_forest
from cordqa.report.charts.heatmap import draw_heatmap
from cordqa.report.charts.inversion import draw_inversion
from cordqa.report.charts.mosaic import draw_mosaic
from cordqa.report.charts.plate import draw_plate
from cordqa.report.charts.profiles import draw_profiles
from cordqa.report.charts.scatter import draw_identity, draw_linearity, draw_scatter
from cordqa.report.charts.strip import draw_strip

__all__ = ["FIGURE_KINDS", "Drawing", "FigureDataError", "Key", "draw_figure"]

#: Kind of figure to the function that draws it from its data and a label for unseen readers.
#: The data of each kind are described by the builder of that name in :mod:`cordqa.figures`.
FIGURE_KINDS: dict[str, Callable[[Data, str], Drawing]] = {
    "mosaic": draw_mosaic,
    "plate": draw_plate,
    "identity": draw_identity,
    "rate_linearity": draw_linearity,
    "linearity": draw_linearity,
    "scatter": draw_scatter,
    "curves": draw_curves,
    "inversion": draw_inversion,
    "strip": draw_strip,
    "profiles": draw_profiles,
    "bars": draw_bars,
    "components": draw_components,
    "forest": draw_forest,
    "bland_altman": draw_bland_altman,
    "heatmap": draw_heatmap,
    "coverage": draw_coverage,
    "control_chart": draw_control_chart,
    "roc": draw_roc,
}


def draw_figure(figure: Figure) -> Drawing:
    """Draw a figure.

    Raises
    ------
    FigureDataError
        If its kind is not known, or its data do not have the documented shape.
    """
    draw = FIGURE_KINDS.get(figure.kind)
    if draw is None:
        known = ", ".join(sorted(FIGURE_KINDS))
        raise FigureDataError(f"the kind {figure.kind!r} is not known (known are {known})")
    try:
        return draw(figure.data, figure.alt or figure.title or figure.kind)
    except (KeyError, IndexError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        # The data may come from a file that someone edited; the page says so in place of the figure.
        raise FigureDataError(str(error) or type(error).__name__) from error
