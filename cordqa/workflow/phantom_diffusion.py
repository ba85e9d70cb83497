"""What a run of a diffusion phantom tells besides its verdicts.

Agreement between vials of one solution, the central vial, the three gradient axes against distance
from the isocentre, averages against single directions, the scanner's own maps, and the temperature that
the vials of water suggest.  None of it enters a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cordqa import figures
from cordqa.models.diffusion.adc import SHARED
from cordqa.phantom.definition import PhantomDefinition, WaterDiffusion
from cordqa.phantom.diffusion import DiffusionPlate
from cordqa.phantom.repeats import usable
from cordqa.records import Figure, ImageSet, Measurement, Notice, Severity, Statistic
from cordqa.workflow.phantom_records import AnalysedPlate

__all__ = ["diffusion_notices", "direction_figures", "solution_statistics", "why_no_adc"]

Array = NDArray[np.float64]

#: Vials of one solution, directions, or an average and its parts that differ by more are worth a word;
#: a choice of cordqa, about the accuracy that is asked of the whole (5 %).
_NOTABLE_PERCENT = 3.0
#: They must exceed this many standard uncertainties as well.
_NOTABLE_SIGMA = 3.0
#: The temperature that water suggests is worth a warning from this difference on.
_TEMPERATURE_DOUBT_C = 2.0
#: Uncertainty of an ADC of water by the calibration of gradients alone, in per cent.
_CALIBRATION_PERCENT = 2.0


def diffusion_notices(plate: AnalysedPlate, definition: PhantomDefinition) -> list[Notice]:
    """Say how the vials were measured, and what makes their values doubtful."""
    details = plate.found.diffusion
    if details is None:
        return []
    return [
        *_width(plate, details),
        *_weighting(plate, details),
        *_solutions(plate, definition),
        *_directions(plate, details),
        *_averages(plate, details),
        *_temperature(plate, definition),
    ]


def _note(code: str, text: str, plate: AnalysedPlate, *, warn: bool = False) -> Notice:
    severity = Severity.WARNING if warn else Severity.INFO
    return Notice(severity=severity, code=code, where=plate.series.images.label, message=text)


def _width(plate: AnalysedPlate, details: DiffusionPlate) -> list[Notice]:
    allowed = details.vials.range_mm
    if allowed is None:
        return []
    text = (
        f"the inner diameter of the vials is in no source, so it was measured in the image: "
        f"{2 * details.vials.radius_mm:.1f} mm (allowed {2 * allowed[0]:g} to {2 * allowed[1]:g} mm; thin "
        f"walls in a bright bath make it read low); regions are {2 * plate.found.radius_mm:.1f} mm wide"
    )
    return [_note("vials.width", text, plate)]


def _weighting(plate: AnalysedPlate, details: DiffusionPlate) -> list[Notice]:
    plan, notices = details.plan, []
    if not (plan.groups == SHARED).any() or plan.b_values.min() > 0:
        text = (
            f"there is no image without diffusion weighting; the ADC is that between b "
            f"{plan.b_values.min():g} and {plan.b_values.max():g} s/mm2"
        )
        notices.append(_note("diffusion.no-b0", text, plate))
    encodings = {a.diffusion_encoding for a in plate.series.images.acquisitions if a.b_value_s_per_mm2 > 0}
    if "" in encodings:
        text = (
            "the header names no direction for weighted images, which are taken as averages over directions; "
            "ADC along single axes cannot be told"
        )
        notices.append(_note("diffusion.no-direction", text, plate))
    if plan.image_axes and plan.by_direction:
        text = (
            "directions are given along the axes of the image (GE's private elements), so ADC along the "
            "scanner's axes cannot be told"
        )
        notices.append(_note("diffusion.image-axes", text, plate))
    return notices


def _solutions(plate: AnalysedPlate, definition: PhantomDefinition) -> list[Notice]:
    """Name solutions whose vials differ by more than their uncertainties explain."""
    apart = []
    for name, rows in _by_solution(plate, definition).items():
        values = np.array([row.value for row in rows])
        errors = np.array([row.standard_uncertainty for row in rows])
        spread = float(np.ptp(values))
        if spread > max(_NOTABLE_PERCENT / 100 * values.mean(), _NOTABLE_SIGMA * math.hypot(*errors[:2])):
            apart.append(f"{name}: {', '.join(_short(row) for row in rows)}")
    if not apart:
        return []
    text = (
        f"vials of one solution differ by more than {_NOTABLE_PERCENT:g} % ({'; '.join(apart)}); look for a "
        "ghost, a bubble, or a gradient that is not linear off the isocentre"
    )
    return [_note("diffusion.solutions", text, plate, warn=True)]


def _short(row: Measurement) -> str:
    return f"{row.region} {row.value:.0f}"


def _directions(plate: AnalysedPlate, details: DiffusionPlate) -> list[Notice]:
    """Say when the ADC depends on the direction, which it cannot in a liquid."""
    if not details.plan.by_direction or len(details.plan.directions) < 2:
        return []
    along, errors = details.fit.along, details.fit.along_standard_errors
    mean = details.fit.maps.values["ADC"][:, None]
    with np.errstate(invalid="ignore"):
        deviation = 100 * np.nanmedian(along / mean - 1, axis=0)
        noise = 100 * np.nanmedian(errors / mean, axis=0) / math.sqrt(len(along))
    if not np.isfinite(deviation).all():
        return []
    clear = (np.abs(deviation) > _NOTABLE_PERCENT / 2) & (np.abs(deviation) > _NOTABLE_SIGMA * noise)
    if not clear.any():
        return []
    listed = ", ".join(f"{n} {d:+.1f} %" for n, d in zip(details.plan.names, deviation, strict=True))
    text = (
        f"the ADC depends on the direction of weighting ({listed}, median over the vials), which it cannot "
        "in a liquid: gradient amplitudes, or imaging gradients left out of the b-value"
    )
    return [_note("diffusion.direction", text, plate, warn=True)]


def _averages(plate: AnalysedPlate, details: DiffusionPlate) -> list[Notice]:
    if details.averaged is None:
        return []
    own, other = details.fit.maps.values["ADC"], details.averaged.maps.values["ADC"]
    with np.errstate(invalid="ignore"):
        difference = 100 * (other / own - 1)
    if not np.isfinite(difference).any():
        return []
    middle = float(np.nanmedian(difference))
    text = (
        f"averages over directions give an ADC {middle:+.1f} % from that of the single directions (median), "
        "which were used"
    )
    return [_note("diffusion.averages", text, plate, warn=abs(middle) > _NOTABLE_PERCENT)]


def _temperature(plate: AnalysedPlate, definition: PhantomDefinition) -> list[Notice]:
    """Say which temperature the vials of water suggest; it is never used."""
    water = next((m.water for m in definition.models if m.water is not None), None)
    rows = [row for row in _by_content(plate, definition).get(0.0, []) if usable(row)]
    if water is None or not rows:
        return []
    mean = float(np.mean([row.value for row in rows]))
    suggested, slope = _temperature_of(mean, water)
    if not math.isfinite(suggested):
        return []
    noise = float(np.sqrt(np.sum([row.standard_uncertainty**2 for row in rows]))) / len(rows)
    spread = math.hypot(noise, _CALIBRATION_PERCENT / 100 * mean) / slope
    source = definition.source(water.source).citation.rstrip(".")
    text = (
        f"the vials of water ({mean:.0f} um2/s) suggest {suggested:.1f} C, give or take {spread:.1f} C, if "
        f"the scanner's b-values are right ({source}); experimental, and not used"
    )
    given = plate.references[0].temperature_C
    if not math.isfinite(given):
        return [
            _note(
                "temperature.hint", f"no temperature was given: no vial is judged; {text}", plate, warn=True
            )
        ]
    doubt = abs(given - suggested) > max(_TEMPERATURE_DOUBT_C, 2 * spread)
    tail = f"; {given:g} C was given: check thermometer and b-values" if doubt else ""
    return [_note("temperature.hint", text + tail, plate, warn=doubt)]


def _temperature_of(adc_um2_per_s: float, water: WaterDiffusion) -> tuple[float, float]:
    """Invert the power law of water; the second number is its slope in um2/s per degree."""
    if not adc_um2_per_s > 0:
        return math.nan, math.nan
    root = (adc_um2_per_s / water.D0_um2_per_s) ** (1 / water.gamma)
    slope = water.gamma * adc_um2_per_s / (root * water.Ts_K)
    return water.Ts_K * (1 + root) - 273.15, slope


def _by_content(plate: AnalysedPlate, definition: PhantomDefinition) -> dict[float, list[Measurement]]:
    """Rows by what the vials hold, in the order of the definition."""
    contents = next((c for c in definition.contents if c.plate == plate.found.plate.id), None)
    amounts: Mapping[str, float] = {} if contents is None else dict(contents.rows)
    groups: dict[float, list[Measurement]] = {}
    for vial, row in zip(plate.found.plate.sphere_ids, plate.rows, strict=True):
        if vial in amounts:
            groups.setdefault(amounts[vial], []).append(row)
    return groups


def _by_solution(plate: AnalysedPlate, definition: PhantomDefinition) -> dict[str, list[Measurement]]:
    """Rows of solutions that several vials hold, by name."""
    contents = next((c for c in definition.contents if c.plate == plate.found.plate.id), None)
    name = "" if contents is None else contents.what
    unit = "" if contents is None else contents.unit
    groups = {}
    for amount, rows in _by_content(plate, definition).items():
        known = [row for row in rows if usable(row)]
        if len(known) > 1:
            groups[f"{amount:g} {unit} {name}"] = known
    return groups


def solution_statistics(
    plates: Sequence[AnalysedPlate], definition: PhantomDefinition
) -> tuple[Statistic, ...]:
    """Return the CV over the vials of each solution, the central vial's error, and the spread over axes."""
    out: list[Statistic] = []
    for plate in plates:
        if plate.found.diffusion is None:
            continue
        where = plate.series.images.label
        level = plate.rows[0].level
        for name, rows in _by_solution(plate, definition).items():
            values = np.array([row.value for row in rows])
            out.append(
                Statistic(
                    name="CV over vials of one solution",
                    value=float(100 * values.std(ddof=1) / values.mean()),
                    unit="%",
                    quantity="ADC",
                    region=f"{level}, {name}",
                    group=where,
                    estimator="SD over vials over their mean, ddof 1",
                    n={"vials": len(rows)},
                )
            )
        out += [*_central(plate, plate.found.diffusion, where), *_axes(plate, plate.found.diffusion, where)]
    return tuple(out)


def _central(plate: AnalysedPlate, details: DiffusionPlate, where: str) -> list[Statistic]:
    """Error of the vial nearest to the origin of the scanner's coordinates."""
    nearest = int(np.argmin(details.distance_mm))
    row = plate.rows[nearest]
    if not (usable(row) and math.isfinite(row.reference)):
        return []
    spread = math.hypot(row.standard_uncertainty, row.reference_uncertainty * row.value / row.reference)
    error = row.value - row.reference
    return [
        Statistic(
            name="ADC error nearest to the isocentre",
            value=error,
            low=error - 2 * spread,
            high=error + 2 * spread,
            unit=row.unit,
            quantity="ADC",
            region=f"{row.level} {row.region}",
            group=where,
            estimator=f"measured less reference, {details.distance_mm[nearest]:.0f} mm from the origin of "
            "the scanner's coordinates",
            interval_method="expanded uncertainty, k = 2",
            n={"vials": 1},
        )
    ]


def _axes(plate: AnalysedPlate, details: DiffusionPlate, where: str) -> list[Statistic]:
    """Largest difference between directions in any vial."""
    if not details.plan.by_direction or len(details.plan.directions) < 2:
        return []
    with np.errstate(invalid="ignore"):
        spread = 100 * np.ptp(details.fit.along, axis=1) / details.fit.maps.values["ADC"]
    if not np.isfinite(spread).any():
        return []
    worst = int(np.nanargmax(spread))
    return [
        Statistic(
            name="range of ADC over directions, median vial",
            value=float(np.nanmedian(spread)),
            unit="%",
            quantity="ADC",
            region=plate.rows[0].level,
            group=where,
            estimator=f"largest less smallest over the mean; {spread[worst]:.1f} % in "
            f"{plate.rows[worst].region}",
            n={"vials": int(np.isfinite(spread).sum()), "directions": len(details.plan.directions)},
            note="noise alone gives a range as well; the figure shows whether it grows off the isocentre",
        )
    ]


def direction_figures(plates: Sequence[AnalysedPlate]) -> tuple[Figure, ...]:
    """Draw ADC along each direction against distance from the isocentre, for each scanner's first run."""
    out: list[Figure] = []
    drawn: set[tuple[str, str]] = set()
    for plate in plates:
        details = plate.found.diffusion
        entities = plate.series.images.entities
        key = (entities.scanner, entities.acquisition)
        if details is None or not details.plan.by_direction or key in drawn:
            continue
        drawn.add(key)
        with np.errstate(invalid="ignore"):
            deviation = 100 * (details.fit.along / details.fit.maps.values["ADC"][:, None] - 1)
            error = 100 * details.fit.along_standard_errors / details.fit.maps.values["ADC"][:, None]
        series = [_direction(plate, details, k, deviation, error) for k in _shown(details)]
        out.append(
            figures.scatter(
                f"directions-{len(out) + 1}",
                f"ADC by direction: {entities.scanner}",
                series=series,
                x_label="Distance from the origin of the scanner's coordinates (mm)",
                y_label="ADC along the direction against the mean (%)",
                caption="A liquid has one ADC in all directions. An offset of one direction in all vials is "
                "a calibration error of that gradient; one that grows with distance is gradient "
                "nonlinearity. x runs left to right, y front to back, z along the bore; the origin is the "
                "isocentre where the table was moved there.",
            )
        )
    return tuple(out)


def _shown(details: DiffusionPlate) -> range:
    """Few directions are drawn; of many, the first six stand for all."""
    return range(min(len(details.plan.directions), 6))


def _direction(
    plate: AnalysedPlate, details: DiffusionPlate, k: int, deviation: Array, error: Array
) -> figures.Series:
    known = np.isfinite(deviation[:, k])
    kind = " (image axes)" if details.plan.image_axes else ""
    return figures.Series(
        label=f"along {details.plan.names[k]}{kind}",
        x=details.distance_mm[known],
        y=deviation[known, k],
        low=(deviation - 2 * error)[known, k],
        high=(deviation + 2 * error)[known, k],
        names=[row.region for row, ok in zip(plate.rows, known, strict=True) if ok],
    )


def why_no_adc(images: ImageSet) -> str:
    """Say why a series gives no ADC; empty where it has nothing to do with diffusion."""
    b = images.values("b_value_s_per_mm2")
    known = b[np.isfinite(b)]
    if known.size and known.max() > 0:
        return (
            f"one b-value ({known.max():g} s/mm2) gives no ADC: images at another b-value with the same echo "
            "and repetition time are missing"
        )
    if not known.size:
        return (
            "no b-value in the header: DiffusionBValue (0018,9087) and the private elements of Siemens "
            "(0019,100C), GE (0043,1039) and Philips (2001,1003) are absent; export the originals with them"
        )
    return "images without diffusion weighting alone give no ADC: the weighted ones are missing"
