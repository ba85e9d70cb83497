"""A quality-assurance run of a phantom: read, find, fit, judge, and say what follows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cordqa import __version__
from cordqa.errors import ConfigError, CordqaError
from cordqa.io.files import check_folder, digest_file
from cordqa.io.folder import Reading, read_folder
from cordqa.io.maps import ScalarMap, read_b1_map
from cordqa.io.results import prepare_folder, write_config, write_result
from cordqa.phantom.batches import find_batch
from cordqa.phantom.check import judge_sphere
from cordqa.phantom.definition import PhantomDefinition, load_phantom
from cordqa.phantom.diffusion_plan import has_directions
from cordqa.phantom.find import FoundPlate, find_plates
from cordqa.phantom.fit import FitSettings
from cordqa.phantom.measure import measure_plate
from cordqa.phantom.reference import THERMOMETER_C, ReferenceValue, reference_notices, reference_values
from cordqa.phantom.repeats import usable
from cordqa.phantom.series import Kind, Series, find_kind, is_copy, join_parts, unused_parts
from cordqa.phantom.tolerance import Tolerances, load_tolerances
from cordqa.records import (
    ImageSet,
    Notice,
    Outcome,
    Provenance,
    Result,
    Severity,
    State,
    Statistic,
    Status,
    Verdict,
)
from cordqa.workflow import phantom_diffusion, phantom_diffusion_compare, phantom_figures, phantom_verdicts
from cordqa.workflow.phantom_methods import methods, references
from cordqa.workflow.phantom_notices import check_hints, fit_notices, with_field_strength
from cordqa.workflow.phantom_records import AnalysedPlate
from cordqa.workflow.protocol.beside import add_protocol, check_protocol_name

__all__ = ["PhantomSettings", "run_phantom"]

Progress = Callable[[str], None]
#: Options beyond these are slips: kelvin, millitesla, a missing decimal point.
_TEMPERATURES_C = (-20.0, 80.0)
_FIELDS_T = (0.01, 25.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomSettings:
    """Options of a run; ``None`` means "not given"."""

    phantom: str = "caliber-system"
    serial: str | None = None
    batch: str | None = None
    temperature_C: float | None = None
    temperature_uncertainty_C: float | None = None
    field_strength_T: float | None = None
    plate: str | None = None
    tolerances: Path | None = None
    b1_map: Path | None = None
    t2_model: str = "exponential"
    show_identity: bool = False
    protocol: str | None = None


@dataclass(slots=True)
class _Run:
    """What accumulates over the series of a run."""

    definition: PhantomDefinition
    tolerances: Tolerances
    settings: PhantomSettings
    hints: Mapping[str, str]
    b1: ScalarMap | None = None
    plates: list[AnalysedPlate] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    refused: list[tuple[Series, CordqaError]] = field(default_factory=list)
    statistics: list[Statistic] = field(default_factory=list)


def run_phantom(
    folder: Path,
    out: Path,
    *,
    settings: PhantomSettings | None = None,
    progress: Progress | None = None,
    annotate: Callable[[Result], Result] | None = None,
) -> Result:
    """Analyse a folder of phantom scans and write tables and result into ``out``.

    Parameters
    ----------
    folder : Path
        DICOM files, or NIfTI with sidecars, at any depth.
    out : Path
        Output folder; made where it does not exist.  Earlier results in it are replaced.
    settings : PhantomSettings, optional
    progress : callable, optional
        Told what is going on, one line at a time.
    annotate : callable, optional
        Adds to the result before it is written.

    Returns
    -------
    Result
        Also when every series failed: then the outcomes say why.

    Raises
    ------
    InputError
        If the folder holds nothing that can be read, or an option is not usable.
    OutputError
        If the output cannot be written.
    """
    settings = _cleaned(settings or PhantomSettings())
    tell = progress or (lambda _message: None)
    definition = load_phantom(settings.phantom)
    tolerances = load_tolerances(settings.tolerances)
    _check_settings(settings, definition)
    check_protocol_name(settings.protocol)
    check_folder(folder)
    b1 = _read_b1(settings.b1_map)
    prepare_folder(out)
    tell(f"reading {folder}")
    reading = read_folder(folder, show_identity=settings.show_identity)
    hints, doubts = check_hints(reading.hints, settings, definition)
    run = _Run(definition, tolerances, settings, hints, b1)
    run.notices.extend([*reading.notices, *doubts])
    if b1 is not None and b1.assumed:
        run.notices.append(
            Notice(severity=Severity.WARNING, message=b1.assumed, where=b1.name, code="phantom.b1-unit")
        )
    run.outcomes.extend(reading.outcomes)
    series = _select(reading, run)
    for number, one in enumerate(series, start=1):
        tell(f"[{number}/{len(series)}] {one.images.label}")
        _analyse(one, run)
    _add_diffusion(reading, run)
    result = _conclude(run, reading, folder)
    result = add_protocol(result, folder, settings.protocol, show_identity=settings.show_identity)
    result = annotate(result) if annotate else result
    write_config(_config(run), out)
    write_result(result, out)
    return result


def _cleaned(settings: PhantomSettings) -> PhantomSettings:
    """Take empty text as not given: a shell variable that is not set says nothing."""
    return replace(
        settings,
        serial=(settings.serial or "").strip() or None,
        batch=(settings.batch or "").strip() or None,
        plate=(settings.plate or "").strip() or None,
    )


def _select(reading: Reading, run: _Run) -> list[Series]:
    """Join the parts of each acquisition and leave out what enters no fit."""
    images = [one for one in reading.sets if not one.acquisitions[0].map_quantity]
    joined = join_parts(images)
    _note_unused(images, joined, run)
    series, notices = with_field_strength(joined, run.settings.field_strength_T)
    run.notices.extend(notices)
    kinds = {find_kind(one.images) for one in series}
    if run.b1 is not None and Kind.VARIABLE_FLIP_ANGLE not in kinds:
        text = "the B1 map was not used: no series varies the flip angle of a spoiled gradient echo"
        run.notices.append(
            Notice(severity=Severity.WARNING, message=text, where=run.b1.name, code="b1.unused")
        )
    # T1 comes first, because the phase graph of a later echo train may need it.
    # Single directions come before the averages that a scanner made of them.
    return sorted(
        series,
        key=lambda one: (
            find_kind(one.images) is Kind.MULTI_ECHO,
            find_kind(one.images) is Kind.DIFFUSION and not has_directions(one.images),
        ),
    )


def _add_diffusion(reading: Reading, run: _Run) -> None:
    """Say what diffusion tells besides the verdicts, and compare the scanner's maps."""
    for plate in run.plates:
        run.notices.extend(phantom_diffusion.diffusion_notices(plate, run.definition))
    run.statistics.extend(phantom_diffusion.solution_statistics(run.plates, run.definition))
    maps = [one for one in reading.sets if one.acquisitions[0].map_quantity]
    for one in maps:
        run.notices.extend(one.notices)
    statistics, outcomes, notices = phantom_diffusion_compare.compare_maps(maps, run.plates)
    run.statistics.extend(statistics)
    run.outcomes.extend(outcomes)
    run.notices.extend(notices)


def _read_b1(path: Path | None) -> ScalarMap | None:
    if path is None:
        return None
    from cordqa.workflow.fit.settings import SidecarReader

    units = str(SidecarReader().of(path).get("Units", "")) if path.is_file() else ""
    return read_b1_map(path, units=units)


def _check_settings(settings: PhantomSettings, definition: PhantomDefinition) -> None:
    """Refuse impossible options before anything is read."""
    if settings.t2_model not in ("exponential", "epg"):
        raise ConfigError(
            "no such model", where="t2-model", found=settings.t2_model, expected="exponential or epg"
        )
    _check_range(settings.temperature_C, "temperature", *_TEMPERATURES_C, "degrees Celsius")
    _check_range(settings.temperature_uncertainty_C, "temperature-uncertainty", 0.0, 10.0, "degrees Celsius")
    _check_range(settings.field_strength_T, "field-strength", *_FIELDS_T, "tesla")
    if settings.plate is not None:
        definition.plate(settings.plate)
    find_batch(definition, settings.serial, batch=settings.batch)


def _check_range(value: float | None, option: str, low: float, high: float, unit: str) -> None:
    if value is not None and not low <= value <= high:
        raise ConfigError(
            "is out of range", where=option, found=f"{value:g}", expected=f"{low:g} to {high:g} {unit}"
        )


def _analyse(series: Series, run: _Run) -> None:
    """Analyse one series; this is the one place where a failed series is caught."""
    images = series.images
    run.notices.extend(images.notices)
    kind = find_kind(images)
    if kind is None:
        run.outcomes.append(_outcome(series, State.SKIPPED, _why_not(series, run.definition), "series.kind"))
        return
    original = next((plate.series for plate in run.plates if is_copy(series, plate.series)), None)
    if original is not None:
        reason = f"the images are those of {original.images.label} under other identifiers, so no repeat"
        run.outcomes.append(_outcome(series, State.SKIPPED, reason, "series.copy"))
        return
    try:
        if _compare_averages(series, run):
            return
        plates = _find(series, kind, run)
    except CordqaError as error:
        run.refused.append((series, error))
        run.outcomes.append(_outcome(series, State.FAILED, _reason(error, images.label), error.code))
        return
    for plate in plates:
        run.plates.append(plate)
        what = f"{plate.found.plate.name}, {plate.found.quantity}"
        run.outcomes.append(_outcome(series, State.DONE, f"{what}: {_judged(plate.verdicts)}", ""))


def _compare_averages(series: Series, run: _Run) -> bool:
    """Compare averages over directions with their parts, where these were analysed."""
    partner = phantom_diffusion_compare.partner_of(series, run.plates)
    if partner is None:
        return False
    statistic, outcome = phantom_diffusion_compare.compare_averages(series, partner, run.definition)
    run.statistics.extend([statistic] if statistic else [])
    run.outcomes.append(outcome)
    return True


def _find(series: Series, kind: Kind, run: _Run) -> list[AnalysedPlate]:
    lookup = partial(_references, run, series)
    cached = cache(lookup)
    search = find_plates(
        series,
        kind,
        run.definition,
        partial(_labelling_references, cached, run, series),
        settings=_fit_settings(run.settings),
        longitudinal=partial(_longitudinal, run, series, cached),
        only_plate=run.settings.plate,
        b1=_b1_for(series, kind, run),
    )
    for found in search.found:
        run.notices.extend(fit_notices(series, found, b1_name=run.b1.name if run.b1 else ""))
    for error in search.refused:
        run.notices.append(
            Notice(severity=Severity.WARNING, message=str(error), where=series.images.label, code=error.code)
        )
    return [_judge(series, found, cached(found.plate.id, found.quantity), run) for found in search.found]


def _longitudinal(
    run: _Run, series: Series, cached: Callable[[str, str], tuple[ReferenceValue, ...]], plate: str
) -> NDArray[np.float64]:
    """T1 of every sphere in seconds: measured on the same scanner where it was, else the certificate's.

    It decides how stimulated echoes decay while they are stored; it is no start value of T2.
    """
    certified = np.array([value.value for value in cached(plate, "T1")])
    scanner = series.images.entities.scanner
    measured = [
        [row.value if usable(row) else math.nan for row in other.rows]
        for other in run.plates
        if other.found.plate.id == plate
        and other.found.quantity == "T1"
        and other.series.images.entities.scanner == scanner
    ]
    own = np.array(measured[-1]) if measured else np.full(certified.shape, math.nan)
    return np.asarray(np.where(np.isfinite(own), own, certified) / 1000.0)


def _judge(series: Series, found: FoundPlate, values: tuple[ReferenceValue, ...], run: _Run) -> AnalysedPlate:
    rows = measure_plate(series, found, values)
    verdicts = tuple(
        judge_sphere(row, run.tolerances, reference=value) for row, value in zip(rows, values, strict=True)
    )
    return AnalysedPlate(series=series, found=found, rows=rows, references=values, verdicts=verdicts)


def _references(
    run: _Run, series: Series, plate: str, quantity: str, *, with_temperature: bool = True
) -> tuple[ReferenceValue, ...]:
    settings, field_T = run.settings, series.images.entities.field_strength_T
    if not np.isfinite(field_T) and quantity not in ("PD", "ADC"):
        raise ConfigError(
            "the field strength is missing from the header, so no reference value applies",
            where=series.images.label,
            todo="give it with --field-strength",
        )
    return reference_values(
        run.definition,
        plate,
        quantity,
        field_strength_T=field_T,
        temperature_C=_temperature(series, run) if with_temperature else None,
        serial=settings.serial or _serial_hint(run),
        batch=settings.batch,
        temperature_uncertainty_C=THERMOMETER_C
        if settings.temperature_uncertainty_C is None
        else settings.temperature_uncertainty_C,
    )


def _labelling_references(
    cached: Callable[[str, str], tuple[ReferenceValue, ...]],
    run: _Run,
    series: Series,
    plate: str,
    quantity: str,
) -> tuple[ReferenceValue, ...]:
    """References that tell spheres apart: also where the certificate does not reach the temperature.

    Which sphere is which does not depend on the temperature; only a judgement does.
    """
    values = cached(plate, quantity)
    if any(math.isfinite(value.value) for value in values):
        return values
    return _references(run, series, plate, quantity, with_temperature=False)


def _serial_hint(run: _Run) -> str | None:
    return None if run.settings.batch is not None else run.hints.get("serial_number")


def _temperature(series: Series, run: _Run) -> float | None:
    if run.settings.temperature_C is not None:
        return run.settings.temperature_C
    measured = series.images.values("temperature_C")
    if np.isfinite(measured).any():
        return float(np.nanmean(measured))
    return _temperature_hint(run)


def _temperature_hint(run: _Run) -> float | None:
    hint = run.hints.get("temperature_C")
    return float(hint) if hint else None


def _fit_settings(settings: PhantomSettings) -> FitSettings:
    model: Literal["exponential", "epg"] = "epg" if settings.t2_model == "epg" else "exponential"
    return FitSettings(t2_model=model)


def _b1_for(series: Series, kind: Kind, run: _Run) -> NDArray[np.float64] | None:
    if run.b1 is None or kind is not Kind.VARIABLE_FLIP_ANGLE:
        return None
    return run.b1.on_grid(series.images.affine, series.images.data.shape[1:])


def _note_unused(sets: Sequence[ImageSet], series: Sequence[Series], run: _Run) -> None:
    """Images that entered no fit are named with the reason, not lost."""
    for images, reason in unused_parts(sets, series):
        run.outcomes.append(
            Outcome(
                what=images.label,
                state=State.SKIPPED,
                reason=reason,
                code="series.part",
                sources=images.sources,
            )
        )


def _why_not(series: Series, definition: PhantomDefinition) -> str:
    images = series.images
    if all(plate.quantities == ("ADC",) for plate in definition.plates):
        return phantom_diffusion.why_no_adc(images)
    inverted = any(a.sequence == "inversion recovery" for a in images.acquisitions)
    if inverted and not np.isfinite(images.values("inversion_time_s")).any():
        return "the inversion time is missing from the header; export the original images"
    if images.varies("echo_time_s"):
        return "gradient echoes give T2*, for which the phantom has no reference values"
    if images.varies("flip_angle_deg"):
        return "flip angles of spin echoes or at a long repetition time map the transmit field, not T1"
    count = len(images.acquisitions)
    return (
        f"{count} image{'s' if count != 1 else ''} of one contrast: neither inversion time, echo time nor "
        "flip angle varies, so no relaxation time can be fitted"
    )


def _outcome(series: Series, state: State, reason: str, code: str) -> Outcome:
    images = series.images
    return Outcome(what=images.label, state=state, reason=reason, code=code, sources=images.sources)


def _reason(error: CordqaError, label: str) -> str:
    """Give the sentence without the series' name, which stands beside it already."""
    return str(error).removeprefix(f"{label}: ")


def _judged(verdicts: Sequence[Verdict]) -> str:
    counts = [(s, sum(v.status is s for v in verdicts)) for s in Status]
    return ", ".join(f"{count} {status}" for status, count in counts if count)


def _conclude(run: _Run, reading: Reading, folder: Path) -> Result:
    judgement = phantom_verdicts.judge(run.plates, run.tolerances, run.definition)
    rows = tuple(row for plate in run.plates for row in plate.rows)
    result = Result(
        kind="phantom",
        title=f"Phantom QA: {run.definition.name}",
        status=judgement.overall.status,
        measurements=rows,
        verdicts=judgement.verdicts,
        statistics=(*judgement.statistics, *run.statistics),
        notices=tuple(
            dict.fromkeys(
                (*_reading_notices(reading), *run.notices, *_reference_notices(run), *judgement.notices)
            )
        ),
        outcomes=tuple(run.outcomes),
        figures=(
            *phantom_figures.draw(run.plates, run.refused, judgement),
            *phantom_diffusion.direction_figures(run.plates),
        ),
        methods=methods(run.plates, run.definition, run.tolerances, judgement.statistics),
        references=references(run.plates, run.definition, judgement.statistics),
        provenance=_provenance(run, reading, folder),
    )
    return replace(result, summary=phantom_verdicts.summarise(result))


def _reading_notices(reading: Reading) -> list[Notice]:
    return [
        Notice(
            severity=Severity.INFO, message=f"{count} passed over: {why}", where="folder", code="read.ignored"
        )
        for why, count in reading.ignored.items()
    ]


def _reference_notices(run: _Run) -> list[Notice]:
    notices: list[Notice] = []
    for plate in run.plates:
        notices.extend(reference_notices(run.definition, plate.references))
    return notices


def _config(run: _Run) -> dict[str, Any]:
    # Paths may name people, so only the name of a file is kept.
    config = {
        key: value.name if isinstance(value, Path) else value for key, value in asdict(run.settings).items()
    }
    config["phantom"] = _file_name(run.settings.phantom)
    config["protocol"] = _file_name(run.settings.protocol or "") or None
    config["serial_number_used"] = run.settings.serial or _serial_hint(run)
    config["temperature_of_folder_C"] = _temperature_hint(run)
    config["tolerances_used"] = run.tolerances.name
    return config


def _file_name(phantom: str) -> str:
    """Return a phantom's name, or the name of its file where a path was given."""
    return phantom.replace("\\", "/").rpartition("/")[2]


def _provenance(run: _Run, reading: Reading, folder: Path) -> Provenance:
    packages = ("numpy", "scipy", "pydicom", "nibabel", "pydantic")
    sources = sorted({source for images in reading.sets for source in images.sources})
    # Paths may name people; the command is given with the words of its help text instead.
    given = {
        k: v for k, v in asdict(run.settings).items() if v not in (None, False) and not isinstance(v, Path)
    }
    given["phantom"] = _file_name(run.settings.phantom)
    given |= {"protocol": _file_name(run.settings.protocol)} if run.settings.protocol else {}
    options = " ".join(f"--{key.lower().replace('_', '-')} {value}" for key, value in given.items())
    return Provenance(
        version=__version__,
        command=f"cordqa phantom DICOM_DIR OUT {options}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        config=_config(run),
        packages={name: metadata.version(name) for name in packages},
        input_hashes={source: digest_file(folder / source) for source in sources},
        engine=f"cordqa {__version__}",
    )
