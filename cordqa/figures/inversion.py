"""What inversion times do: lines over the first of them, with the one that was used."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cordqa.figures._make import aligned, filled, make_figure, number, numbers
from cordqa.figures.parts import Numbers
from cordqa.records import Figure

__all__ = ["InversionPanel", "inversion"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InversionPanel:
    """Lines of one contrast over its first inversion time.

    ``time`` (n) in seconds; ``lines`` (n each) by name; NaN where there is none.  ``used`` is the time
    with which the image was made; ``best`` that of the highest contrast, ``flat`` the times between
    which it hardly changes; both are absent where nothing was searched.
    """

    label: str
    time: Numbers
    lines: Mapping[str, Numbers]
    used: float
    best: float = math.nan
    flat: tuple[float, float] = (math.nan, math.nan)
    note: str = ""


def inversion(
    name: str,
    title: str,
    *,
    panels: Sequence[InversionPanel],
    y_label: str,
    x_label: str = "Inversion time (s)",
    caption: str = "",
    alt: str = "",
) -> Figure:
    """Show signals or contrast over the inversion time, one panel per contrast.

    Raises
    ------
    InputError
        If a line and the times differ in length.

    Notes
    -----
    ``data``: ``x_label``, ``y_label``, and ``panels``, a list of ``label``, ``x``, ``lines`` (each
    ``label``, ``y``), ``used`` and optionally ``best``, ``flat`` (two numbers), ``note``.
    """
    data = {"x_label": x_label, "y_label": y_label, "panels": [_panel(name, one) for one in panels]}
    names = ", ".join(one.label for one in panels)
    return make_figure(name, "inversion", title, data, caption=caption, alt=alt or f"{title}: {names}")


def _panel(where: str, panel: InversionPanel) -> dict[str, Any]:
    time = numbers(panel.time)
    lines = [
        {"label": label, "y": aligned(f"{where}, {panel.label}", {"x": time, "y": numbers(values)})["y"]}
        for label, values in panel.lines.items()
    ]
    flat = [number(end) for end in panel.flat]
    optional = {
        "used": number(panel.used),
        "best": number(panel.best),
        "flat": flat if None not in flat else None,
        "note": panel.note,
    }
    return {"label": panel.label, "x": time, "lines": lines, **filled(optional)}
