"""Where figures and tables stand on the page."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cordqa.records import Figure, Result, Status
from cordqa.report.charts import Drawing, FigureDataError, Key, draw_figure
from cordqa.report.measurement_table import measurement_table
from cordqa.report.page_links import PAGES
from cordqa.report.statistic_tables import statistic_tables
from cordqa.report.tables import Table
from cordqa.report.words import status_word

__all__ = ["FigureView", "Section", "arrange_figures"]

#: Where a figure stands, by kind; other kinds come last.
_PLACES: dict[str, tuple[str, ...]] = {
    "review": ("mosaic",),
    "spheres": ("plate",),
    "reference": ("identity", "rate_linearity", "linearity", "scatter"),
    "times": ("inversion",),
    "fits": ("curves",),
    "reliability": ("heatmap", "coverage", "bars", "forest", "components", "bland_altman"),
    "values": ("profiles", "strip"),
    "drift": ("control_chart",),
    "diagnosis": ("roc",),
}
#: Sections in the order of the page.
_TITLES = {
    "review": "Images",
    "spheres": "Located spheres",
    "reference": "Measured against reference",
    "times": "Inversion times",
    "fits": "Fitted curves",
    "measurements": "Measurements",
    "reliability": "Reliability",
    "values": "Distribution of values",
    "drift": "Over time",
    "diagnosis": "Diagnostic value",
    "figures": "Further figures",
}
#: What sections are called where a result is of another kind than a phantom's.
_TITLES_BY_KIND = {
    "cord": {"spheres": "Further images", "fits": "Along the cord"},
    "protocol": {"reliability": "Compliance", "drift": "Protocol over time"},
    "fit": {"spheres": "Maps", "reliability": "Statistics of regions"},
}
#: Figures that are open when the page is; the others unfold on a click.
_OPEN = {"fits": 2, "spheres": 8}
#: The study design is shown with the data, not among the results.
_DESIGN = "design"


@dataclass(frozen=True, slots=True)
class FigureView:
    """A figure as the template places it; ``problem`` says why there is no drawing."""

    id: str
    kind: str
    title: str
    caption: str
    drawing: Drawing | None
    problem: str = ""
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """A section with figures, tables or both."""

    id: str
    title: str
    figures: Sequence[FigureView] = ()
    tables: Sequence[Table] = ()
    legend: Sequence[Key] = ()
    caption: str = ""


def arrange_figures(result: Result) -> tuple[list[FigureView], list[Section]]:
    """Draw all figures and put them, with the tables, into sections."""
    by_place: dict[str, list[FigureView]] = defaultdict(list)
    for index, figure in enumerate(result.figures):
        if figure.kind == PAGES:
            continue  # the way to other pages stands at the head of this one
        by_place[_place_of(figure)].append(_view(figure, index))
    sections = []
    titles = {**_TITLES, **_TITLES_BY_KIND.get(result.kind, {})}
    for identifier, title in titles.items():
        views = _in_order(identifier, by_place[identifier])
        tables = statistic_tables(result.statistics) if identifier == "reliability" else []
        if identifier == "measurements" and result.measurements:
            tables = [measurement_table(result)]
        if views or tables:
            sections.append(_section(identifier, title, views, tables))
    # A cohort's table is long and says the least: it goes to the end.
    sections.sort(key=lambda section: section.id == "measurements" and result.kind == "reliability")
    return by_place[_DESIGN], sections


def _place_of(figure: Figure) -> str:
    if figure.kind == "heatmap" and figure.data.get("scale") == "presence":
        return _DESIGN
    return next((place for place, kinds in _PLACES.items() if figure.kind in kinds), "figures")


def _in_order(place: str, views: list[FigureView]) -> list[FigureView]:
    """Sort by kind, as the place lists them, and fold what comes late."""
    kinds = _PLACES.get(place, ())
    views = sorted(views, key=lambda view: kinds.index(view.kind) if view.kind in kinds else 0)
    shown = _OPEN.get(place, len(views))
    return [replace(view, folded=index >= shown) for index, view in enumerate(views)]


def _section(identifier: str, title: str, views: list[FigureView], tables: list[Table]) -> Section:
    if identifier == "reference" and not any(view.kind == "identity" for view in views):
        title = "Linearity"
    if identifier != "spheres":
        return Section(identifier, title, _without_repeats(views), tables)
    # The plates look alike: one legend and one caption serve them all.
    captions = dict.fromkeys(view.caption for view in views)
    plain = [replace(view, caption="") for view in views] if len(captions) == 1 else views
    shared = next(iter(captions)) if len(captions) == 1 else ""
    return Section(identifier, title, plain, tables, _shared_legend(views), shared)


def _without_repeats(views: list[FigureView]) -> list[FigureView]:
    """Leave out a caption that the reader has just read."""
    seen: set[str] = set()
    result = []
    for view in views:
        result.append(replace(view, caption="") if view.caption in seen else view)
        seen.add(view.caption)
    return result


def _view(figure: Figure, index: int) -> FigureView:
    slug = re.sub(r"[^a-z0-9]+", "-", figure.name.lower()).strip("-")
    try:
        drawing, problem = draw_figure(figure), ""
    except FigureDataError as error:
        drawing, problem = None, str(error)
    return FigureView(
        f"figure-{index + 1}-{slug}", figure.kind, figure.title, figure.caption, drawing, problem
    )


def _shared_legend(views: Iterable[FigureView]) -> list[Key]:
    """Gather the legends of plates, without repeats, in the order of the statuses."""
    keys = {key.label: key for view in views if view.drawing for key in view.drawing.legend}
    return [keys[word] for word in (status_word(status) for status in Status) if word in keys]
