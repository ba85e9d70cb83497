"""The figures of a phantom run, as data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cordqa import figures
from cordqa.errors import CordqaError
from cordqa.phantom.check import sphere_error
from cordqa.phantom.locate import NotLocatedError
from cordqa.phantom.masks import reformat_plate
from cordqa.phantom.repeats import BETWEEN, WITHIN, Group, usable
from cordqa.phantom.series import Kind, Series
from cordqa.records import Figure, Measurement, Statistic, Status, Verdict
from cordqa.workflow.phantom_curves import fitted_curve
from cordqa.workflow.phantom_records import AnalysedPlate, Judgement

__all__ = ["draw"]

#: Repeats of one plate on one scanner look alike: the first is drawn, and any that failed.
_MAX_PLATES_DRAWN = 24
_MAX_REFUSED_DRAWN = 6
_PICTURE_PIXELS = 208
#: Pixels that differ by more than this between directions would be drawn distorted.
_SQUARE = 0.02
_AXES = {
    Kind.INVERSION_RECOVERY: ("Inversion time (ms)", 1000.0, True),
    Kind.VARIABLE_FLIP_ANGLE: ("Flip angle (degrees)", 1.0, False),
    Kind.MULTI_ECHO: ("Echo time (ms)", 1000.0, False),
    Kind.DIFFUSION: ("b-value (s/mm²)", 1.0, False),
}


def draw(
    plates: Sequence[AnalysedPlate],
    refused: Sequence[tuple[Series, CordqaError]],
    judgement: Judgement,
) -> tuple[Figure, ...]:
    """Make all figures of a run in the order of the report."""
    shown = _representative(plates, judgement)
    located = [_plate(plate, number) for number, plate in enumerate(shown, start=1)]
    misses = [_refused(series, error, n) for n, (series, error) in enumerate(refused, start=1)]
    drawn_misses = [figure for figure in misses if figure is not None][:_MAX_REFUSED_DRAWN]
    return (
        *drawn_misses,
        *located,
        *(_identity(group, judgement) for group in judgement.groups if _with_reference(group.rows)),
        *_rate_figures(plates, judgement),
        *(_curves(plate, number) for number, plate in enumerate(shown, start=1)),
        *_repeat_figures(judgement),
    )


def _representative(plates: Sequence[AnalysedPlate], judgement: Judgement) -> list[AnalysedPlate]:
    """Keep the first of each scanner and plate, and those that failed."""
    failed = {
        (v.entities, v.level, v.quantity)
        for v in judgement.verdicts
        if v.scope == "sphere" and v.status is Status.FAIL
    }
    seen: set[tuple[str, str, str]] = set()
    chosen = []
    for plate in plates:
        entities, level = plate.series.images.entities, plate.rows[0].level
        key = (entities.scanner, level, plate.found.quantity)
        if key not in seen or (entities, level, plate.found.quantity) in failed:
            chosen.append(plate)
        seen.add(key)
    return chosen[:_MAX_PLATES_DRAWN]


def _plate(plate: AnalysedPlate, number: int) -> Figure:
    images, found = plate.series.images, plate.found
    index = _brightest(images.data, found.pose.slice_index)
    circles = []
    picture, centres, scale = _picture(plate, index)
    for (row, column), sphere, measured, verdict in zip(
        centres, found.plate.sphere_ids, plate.rows, plate.verdicts, strict=True
    ):
        circles.append(
            figures.Circle(
                x=float(column),
                y=float(row),
                radius=found.radius_mm / scale,
                label=sphere,
                status=verdict.status,
                name=measured.region,
                value=measured.value,
                uncertainty=(measured.high - measured.low) / 2,
                unit=measured.unit,
                text=_words(measured, verdict),
            )
        )
    return figures.plate(
        f"plate-{number}",
        _short(plate),
        image=figures.to_grey(picture),
        circles=circles,
        max_pixels=_PICTURE_PIXELS,
        alt=f"Image of {plate.label} with its located {found.plate.noun}s",
        caption=f"{images.label}. Labels agree with the reference on {100 * found.choice.score:.0f} % of "
        f"the plate, {100 * found.choice.margin:.0f} points ahead of the next labelling; "
        f"{found.plate.noun}s lie within {found.location.residual_mm:.1f} mm (rms) of the layout.",
    )


def _short(plate: AnalysedPlate) -> str:
    """Title that fits over a picture: scanner, session, plate and quantity."""
    entities = plate.series.images.entities
    session = f", session {entities.session}" if entities.session else ""
    run = f", run {entities.run}" if entities.run not in ("", "1") else ""
    return f"{entities.scanner}{session}{run}: {plate.short}"


def _picture(plate: AnalysedPlate, index: int) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return a picture of the plate, the centres in it, and its pixel size in mm."""
    images, pose = plate.series.images, plate.found.pose
    rows, columns = images.spacing_mm[1:]
    if not pose.is_spatial and abs(rows / columns - 1) < _SQUARE:
        return images.data[index, pose.slice_index].astype(float), pose.voxels[:, 1:], columns
    picture, centres = reformat_plate(images.data[index], pose, plate.found.plate.plane_positions_mm)
    return picture, centres, 1.0


def _brightest(data: NDArray[np.float32], slice_index: int) -> int:
    """Pick the image that shows most: air is dark in all, so the largest mean serves."""
    means = [
        float(np.mean(image[np.isfinite(image)])) if np.isfinite(image).any() else -np.inf
        for image in data[:, slice_index]
    ]
    return int(np.argmax(means))


def _words(row: Measurement, verdict: Verdict) -> str:
    error = "" if math.isnan(verdict.observed) else f"error {verdict.observed:+.1f} {verdict.unit}"
    return "; ".join(part for part in (row.region, error, str(verdict.status)) if part)


def _refused(series: Series, error: CordqaError, number: int) -> Figure | None:
    """Show what the search saw where a plate was refused."""
    images = series.images
    diagnostics = error.diagnostics if isinstance(error, NotLocatedError) else None
    middle = images.data.shape[1] // 2
    where = middle if diagnostics is None else round(float(diagnostics.voxels[:, 0].mean()))
    where = min(max(where, 0), images.data.shape[1] - 1)
    picture = images.data[_brightest(images.data, where), where].astype(float)
    if not np.isfinite(picture).any() or abs(images.spacing_mm[1] / images.spacing_mm[2] - 1) > _SQUARE:
        return None
    circles = []
    if diagnostics is not None:
        for (row, column), sphere, seen in zip(
            diagnostics.voxels[:, 1:], diagnostics.sphere_ids, diagnostics.seen, strict=True
        ):
            circles.append(
                figures.Circle(
                    x=float(column),
                    y=float(row),
                    radius=4.5 / images.spacing_mm[2],
                    label="" if seen else "?",
                    status=Status.NOT_EVALUATED if seen else Status.FAIL,
                    name=f"place {sphere}",
                    text="a sphere is here" if seen else "a sphere was expected here and not seen",
                )
            )
    return figures.plate(
        f"refused-{number}",
        f"Refused: {images.label}",
        image=figures.to_grey(picture),
        circles=circles,
        max_pixels=_PICTURE_PIXELS,
        caption=f"{error}. Circles, where there are any, show the arrangement that came nearest.",
        alt=f"Image in which no plate was accepted: {images.label}",
    )


def _with_reference(rows: Sequence[Measurement]) -> list[Measurement]:
    return [row for row in rows if usable(row) and math.isfinite(row.reference)]


def _tolerance_band(group: Group, judgement: Judgement) -> list[tuple[float, float, float]] | None:
    """Failure limits of the spheres' errors as (reference, low, high), where they are in per cent."""
    limits = {
        (v.region, v.level): (v.low, v.high)
        for v in judgement.verdicts
        if v.scope == "sphere" and v.quantity == group.quantity and v.unit == "%" and math.isfinite(v.low)
    }
    band = {
        row.reference: limits[row.region, row.level]
        for row in _with_reference(group.rows)
        if (row.region, row.level) in limits
    }
    return [(x, low, high) for x, (low, high) in sorted(band.items())] or None


def _identity(group: Group, judgement: Judgement) -> Figure:
    series = []
    for scanner, rows in group.by_protocol().items():
        points = _with_reference(rows)
        if points:
            series.append(
                figures.Series(
                    label=scanner,
                    x=[row.reference for row in points],
                    y=[row.value for row in points],
                    low=[row.low for row in points],
                    high=[row.high for row in points],
                    names=[row.region for row in points],
                )
            )
    return figures.identity(
        f"identity-{_slug(group.label)}",
        f"Measured against reference: {group.label}",
        series=series,
        quantity=group.quantity,
        unit=group.rows[0].unit,
        tolerance_percent=_tolerance_band(group, judgement),
        log=group.quantity != "PD",
    )


def _rate_figures(plates: Sequence[AnalysedPlate], judgement: Judgement) -> list[Figure]:
    """One figure per group; a line for the first run of each scanner."""
    by_group: dict[str, list[figures.Series]] = {}
    quantity_of: dict[str, str] = {}
    drawn: set[tuple[str, str]] = set()
    for plate, rate in zip(plates, judgement.rates, strict=True):
        group = next(g for g in judgement.groups if plate.rows[0] in g.rows)
        scanner = plate.series.images.entities.scanner
        if rate is None or rate.reason or (group.label, scanner) in drawn:
            continue
        drawn.add((group.label, scanner))
        rates = np.array([1000 / row.value if usable(row) else math.nan for row in plate.rows])
        fitted = rates / (1 + rate.residuals_percent / 100)
        concentration = (fitted - rate.rate0_per_s) / rate.relaxivity_per_s_per_mM
        keep = np.isfinite(concentration)
        by_group.setdefault(group.label, []).append(
            figures.Series(
                label=scanner,
                x=concentration[keep],
                y=rates[keep],
                names=[row.region for row, kept in zip(plate.rows, keep, strict=True) if kept],
                slope=rate.relaxivity_per_s_per_mM,
                intercept=rate.rate0_per_s,
            )
        )
        quantity_of[group.label] = group.quantity
    return [
        figures.rate_linearity(
            f"rate-{_slug(label)}",
            f"Relaxation rate against concentration: {label}",
            series=series,
            quantity=quantity_of[label],
        )
        for label, series in by_group.items()
    ]


def _curves(plate: AnalysedPlate, number: int) -> Figure:
    x_label, factor, log = _AXES[plate.found.fitted.kind]
    return figures.curves(
        f"curves-{number}",
        f"Fits: {_short(plate)}",
        curves=[
            fitted_curve(plate, index, factor=factor) for index in range(len(plate.found.plate.sphere_ids))
        ],
        x_label=x_label,
        x_log=log,
        alt=f"Fitted curves of {plate.label}",
    )


def _repeat_figures(judgement: Judgement) -> list[Figure]:
    out: list[Figure] = []
    within = _panels(judgement.statistics, WITHIN)
    between = _panels(judgement.statistics, BETWEEN)
    if within:
        out.append(
            figures.bars(
                "within-scanner-cv",
                "Within-scanner CV",
                panels=within,
                value_label="CV over repeats",
                unit="%",
                caption="Scatter of repeats on each scanner, per sphere, with 95 % intervals.",
            )
        )
    if between:
        out.append(
            figures.bars(
                "between-scanner-cv",
                "Between-scanner CV",
                panels=between,
                value_label="CV of scanner means",
                unit="%",
                caption="Scatter of the scanners' means, per sphere. With few scanners the intervals are "
                "wide, and that is what few scanners tell.",
            )
        )
    several = [group for group in judgement.groups if len(group.by_protocol()) > 1]
    out.extend(_errors_by_scanner(group) for group in several if _with_reference(group.rows))
    return out


def _panels(statistics: Sequence[Statistic], name: str) -> Mapping[str, list[figures.Estimate]]:
    panels: dict[str, list[figures.Estimate]] = {}
    for statistic in statistics:
        if statistic.name == name:
            level, noun, sphere = statistic.region.rsplit(" ", 2)
            panels.setdefault(f"{statistic.quantity}, {level}", []).append(
                figures.Estimate(
                    label=sphere if noun == "sphere" else f"{noun} {sphere}",
                    value=statistic.value,
                    low=statistic.low,
                    high=statistic.high,
                    series=statistic.group,
                )
            )
    return panels


def _errors_by_scanner(group: Group) -> Figure:
    """Percent errors of all spheres, a column per scanner."""
    columns = []
    for scanner, rows in group.by_protocol().items():
        points = _with_reference(rows)
        errors = np.array([sphere_error(row).value for row in points])
        columns.append(
            figures.Group(
                label=scanner,
                values=errors,
                names=[row.region for row in points],
                mean=float(errors.mean()) if errors.size else math.nan,
                sd=float(errors.std(ddof=1)) if errors.size > 1 else math.nan,
            )
        )
    return figures.strip(
        f"errors-{_slug(group.label)}",
        f"Error by scanner: {group.label}",
        panels={group.label: columns},
        value_label="Error against reference",
        unit="%",
        caption="A column that lies off zero as a whole is a bias of that scanner; a spread within a "
        "column is a difference between spheres.",
    )


def _slug(text: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())
