"""Figures of a phantom: its plates, its values against reference, its fits."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordqa.figures._make import aligned, filled, make_figure, number, numbers, texts
from cordqa.figures.parts import Circle, Curve, Series
from cordqa.figures.png import encode_png, shrink_image
from cordqa.records import Figure

__all__ = ["curves", "identity", "linearity", "plate", "rate_linearity", "scatter"]

Band = tuple[float, float] | Sequence[tuple[float, float, float]]


def plate(
    name: str,
    title: str,
    *,
    image: NDArray[np.uint8],
    circles: Sequence[Circle] = (),
    max_pixels: int = 256,
    caption: str = "",
    alt: str = "",
) -> Figure:
    """Show the spheres that were located, drawn on the image.

    Parameters
    ----------
    image : ndarray of uint8, shape (rows, columns)
        See :func:`cordqa.figures.to_grey`.  Stored with its longer side at most ``max_pixels``.
    circles : sequence of Circle
        In pixels of the image as given.

    Notes
    -----
    ``data``: ``png`` (base64), ``width``, ``height``, and ``circles``, a list of ``x``, ``y``,
    ``radius`` (stored pixels; the centre of the first pixel is 0.5), ``label``, ``status`` and
    optionally ``name``, ``text``, ``value``, ``uncertainty``, ``unit``.

    Raises
    ------
    InputError
        If the image is not two-dimensional uint8.
    """
    png = encode_png(image) if max(image.shape, default=0) <= max_pixels else b""
    small, factor = (image, 1.0) if png else shrink_image(image, max_pixels)
    data = {
        "png": base64.b64encode(png or encode_png(small)).decode("ascii"),
        "width": small.shape[1],
        "height": small.shape[0],
        "circles": [_circle(circle, factor) for circle in circles],
    }
    return make_figure(
        name,
        "plate",
        title,
        data,
        caption=caption
        or "Each circle should lie inside one sphere, and the numbers should run in its order.",
        alt=alt or f"{title}: image of the plate with {len(circles)} located spheres",
    )


def _circle(circle: Circle, factor: float) -> dict[str, Any]:
    return filled(
        {
            "x": number((circle.x + 0.5) / factor),
            "y": number((circle.y + 0.5) / factor),
            "radius": number(circle.radius / factor),
            "label": circle.label,
            "status": str(circle.status),
            "name": circle.name,
            "text": circle.text,
            **_value(circle),
        }
    )


def _value(part: Circle | Curve) -> dict[str, Any]:
    return {"value": number(part.value), "uncertainty": number(part.uncertainty), "unit": part.unit}


def identity(
    name: str,
    title: str,
    *,
    series: Sequence[Series],
    quantity: str = "",
    unit: str = "",
    tolerance_percent: Band | None = None,
    log: bool = True,
    caption: str = "",
    alt: str = "",
) -> Figure:
    """Show measured (``y``) against reference (``x``) with the identity line and the percent error.

    Parameters
    ----------
    series : sequence of Series
        One per scanner; ``names`` are the regions.
    tolerance_percent : (low, high) or sequence of (x, low, high), optional
        The band in the error panel, in percent: one for all, or one per reference value.

    Notes
    -----
    ``data``: ``series`` (each ``label``, ``x``, ``y`` and optionally ``low``, ``high``, ``names``),
    ``quantity``, ``unit``, ``log``, ``band`` (list of ``[x or null, low, high]``).
    """
    count = sum(len(one.x) for one in series)
    data = {
        "series": [_series(name, one) for one in series],
        "quantity": quantity,
        "unit": unit,
        "log": log,
        "band": _band(tolerance_percent),
    }
    return make_figure(
        name,
        "identity",
        title,
        data,
        caption=caption
        or "Points should lie on the line of identity, and their errors inside the shaded tolerance. "
        "A trend in the error panel is a bias that depends on the value.",
        alt=alt or f"{title}: {count} measured values against reference, with a panel of percent errors",
    )


def _band(band: Band | None) -> list[list[float | None]]:
    if band is None:
        return []
    if len(band) == 2 and not isinstance(band[0], Sequence):
        low, high = band
        return [[None, number(float(low)), number(float(high))]]  # type: ignore[arg-type]
    return [[number(value) for value in row] for row in band]  # type: ignore[union-attr]


def _series(where: str, series: Series) -> dict[str, Any]:
    columns = aligned(
        f"{where}, {series.label}",
        {"x": numbers(series.x), "y": numbers(series.y)},
        low=numbers(series.low),
        high=numbers(series.high),
        names=texts(series.names),
    )
    line = filled({"slope": number(series.slope), "intercept": number(series.intercept)})
    return {"label": series.label, **columns, **line}


def curves(
    name: str,
    title: str,
    *,
    curves: Sequence[Curve],
    x_label: str,
    y_label: str = "Signal",
    x_log: bool = False,
    caption: str = "",
    alt: str = "",
) -> Figure:
    """Show small multiples of fits, one per sphere.

    Notes
    -----
    ``data``: ``x_label``, ``y_label``, ``x_log``, and ``panels``, a list of ``label``, ``x``, ``y``
    and optionally ``used``, ``fit`` (``x``, ``y``), ``value``, ``uncertainty``, ``unit``, ``status``,
    ``name``, ``note``.
    """
    data = {
        "x_label": x_label,
        "y_label": y_label,
        "x_log": x_log,
        "panels": [_curve(name, curve) for curve in curves],
    }
    return make_figure(
        name,
        "curves",
        title,
        data,
        caption=caption
        or "The line should pass through the filled points without a pattern in what is left. "
        "Crosses are samples that did not enter the fit.",
        alt=alt or f"{title}: {len(curves)} fitted curves with their samples",
    )


def _curve(where: str, curve: Curve) -> dict[str, Any]:
    place = f"{where}, {curve.label}"
    samples = aligned(
        place,
        {"x": numbers(curve.x), "y": numbers(curve.y)},
        used=[bool(used) for used in curve.used],
    )
    fit = aligned(place, {"x": numbers(curve.fit_x), "y": numbers(curve.fit_y)})
    words = {"status": str(curve.status), "name": curve.name, "note": curve.note}
    return {"label": curve.label, **samples, **filled({"fit": fit, **_value(curve), **words})}


def linearity(
    name: str,
    title: str,
    *,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    log: bool = False,
    with_identity: bool = False,
    residual_unit: str = "",
    caption: str = "",
    alt: str = "",
) -> Figure:
    """Show points with the line fitted to each series and, beside it, what the line leaves.

    Parameters
    ----------
    series : sequence of Series
        ``slope`` and ``intercept`` draw the line; a series without them has no residuals.
    residual_unit : {'', '%'}
        ``'%'`` shows the residual in percent of the line.

    Notes
    -----
    ``data``: ``series`` (as for :func:`identity`, with ``slope`` and ``intercept``), ``x_label``,
    ``y_label``, ``log``, ``identity``, ``residuals``, ``residual_unit``.
    """
    has_line = any(math.isfinite(one.slope) and math.isfinite(one.intercept) for one in series)
    data = {
        **_lines(name, series, x_label, y_label),
        "log": log,
        "identity": with_identity,
        "residuals": has_line,
        "residual_unit": residual_unit,
    }
    return make_figure(
        name,
        "linearity",
        title,
        data,
        caption=caption or "The residuals should scatter around zero without a curve.",
        alt=alt or _points_alt(title, series, x_label, y_label),
    )


def _lines(name: str, series: Sequence[Series], x_label: str, y_label: str) -> dict[str, Any]:
    return {"series": [_series(name, one) for one in series], "x_label": x_label, "y_label": y_label}


def _points_alt(title: str, series: Sequence[Series], x_label: str, y_label: str) -> str:
    return f"{title}: {sum(len(one.x) for one in series)} points, {y_label} against {x_label}"


def scatter(
    name: str,
    title: str,
    *,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    log: bool = False,
    with_identity: bool = False,
    caption: str = "",
    alt: str = "",
) -> Figure:
    """Show points, and lines where a series has one, without a residual panel.

    Notes
    -----
    ``data``: as for :func:`linearity`.
    """
    data = {**_lines(name, series, x_label, y_label), "log": log, "identity": with_identity}
    alt = alt or _points_alt(title, series, x_label, y_label)
    return make_figure(name, "scatter", title, data, caption=caption, alt=alt)


def rate_linearity(
    name: str,
    title: str,
    *,
    series: Sequence[Series],
    quantity: str,
    concentration_unit: str = "mM",
    caption: str = "",
    alt: str = "",
) -> Figure:
    """Show the relaxation rate (1/s) against concentration: a check that needs no reference values.

    Parameters
    ----------
    series : sequence of Series
        ``x`` concentration, ``y`` rate in 1/s, ``slope`` and ``intercept`` of the fitted line.
    quantity : {'T1', 'T2'}
        Whose rate it is.

    Notes
    -----
    ``data``: as for :func:`linearity`, drawn on logarithmic axes with residuals in percent.
    """
    rate = {"T1": "R1", "T2": "R2"}.get(quantity, f"1/{quantity}")
    x_label, y_label = f"Concentration ({concentration_unit})", f"{rate} = 1/{quantity} (1/s)"
    data = {
        **_lines(name, series, x_label, y_label),
        "log": True,
        "residuals": True,
        "residual_unit": "%",
    }
    return make_figure(
        name,
        "rate_linearity",
        title,
        data,
        caption=caption
        or f"{rate} is linear in concentration. Residuals that rise or fall at one end point to the "
        "scan rather than to a reference value.",
        alt=alt or _points_alt(title, series, x_label, y_label),
    )
