"""The demonstration study: simulated scans of three vendors, written as DICOM files.

What the pipeline reads is the folder of DICOM files and the sidecar in it.  The truth is written
beside that folder, for people and tests; the analysis never looks at it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cordqa.errors import DefinitionError, OutputError
from cordqa.io.dicom_write import write_dicom
from cordqa.io.results import write_text
from cordqa.phantom.definition import PhantomDefinition, load_phantom
from cordqa.phantom.reference import reference_values
from cordqa.records import Notice, Result, Severity, as_plain
from cordqa.simulate.study import SimulatedAcquisition, SphereTruth, three_vendor_study
from cordqa.simulate.system_phantom import DigitalPlate, DigitalPost, DigitalSphere
from cordqa.workflow.phantom import run_phantom

__all__ = ["DemoTruth", "run_demo", "write_demo_study"]

PHANTOM = "caliber-system"
SERIAL = "130-0150"
TEMPERATURE_C = 20.0
FIELD_STRENGTH_T = 3.0
_PLATES = ("4", "5")
#: Rods that hold the plates together, seen on scans; (radius in mm, angles in degrees), approximate.
_POSTS = {"4": (78.0, (74.0, 196.0, 314.0)), "5": (60.0, (90.0, 198.0, 342.0))}
#: Files of a demonstration study, and what a killed run may leave of them.
_OWN_FILE = re.compile(
    r"phantom\.yaml|\.phantom\.yaml\.\w+\.part|"
    r"SIM-[A-Z]/session-\d{2,}/\.?(MR|Z|IM_)\d{4}_\d{4}(\.dcm)?(\.part)?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoTruth:
    """What a demonstration study was made from.

    Attributes
    ----------
    seed, n_repeats : int
    phantom, serial_number : str
    temperature_C, field_strength_T : float
    n_files : int
        DICOM files.
    planted : tuple of str
        What a good analysis should notice, in words.
    spheres : tuple of SphereTruth
        One per scanner, session, plate and sphere.
    """

    seed: int
    n_repeats: int
    phantom: str
    serial_number: str
    temperature_C: float
    field_strength_T: float
    n_files: int
    planted: tuple[str, ...]
    spheres: tuple[SphereTruth, ...]


def run_demo(
    out: Path,
    *,
    seed: int = 20_201,
    n_repeats: int = 3,
    progress: Callable[[str], None] | None = None,
) -> Result:
    """Simulate a three-vendor study, write it as DICOM, and analyse it like real scans.

    Parameters
    ----------
    out : Path
        Receives ``scans/``, ``truth.json`` and the results.
    seed, n_repeats, progress
        As in :func:`write_demo_study`.

    Returns
    -------
    Result
        Its notices tell what was planted, so that a reader can check what was found.
    """
    tell = progress or (lambda _message: None)
    tell("simulating scanners of three vendors")
    truth = write_demo_study(out / "scans", seed=seed, n_repeats=n_repeats, progress=progress)
    planted = tuple(
        Notice(severity=Severity.INFO, message=text, where="simulation", code="demo.planted")
        for text in dict.fromkeys(truth.planted)
    )
    command = f"cordqa demo OUT --seed {seed} --repeats {n_repeats}"

    def annotate(result: Result) -> Result:
        return replace(
            result,
            title=f"Demonstration: {result.title}",
            notices=(*planted, *result.notices),
            provenance=replace(result.provenance, command=command, seed=seed),
        )

    return run_phantom(out / "scans", out, progress=progress, annotate=annotate)


def write_demo_study(
    folder: Path,
    *,
    seed: int = 20_201,
    n_repeats: int = 3,
    progress: Callable[[str], None] | None = None,
    truth_path: Path | None = None,
) -> DemoTruth:
    """Simulate a system phantom on three scanners and write the scans as DICOM files.

    Parameters
    ----------
    folder : Path
        Receives one folder per scanner and session, and ``phantom.yaml`` with serial number and
        temperature.  An earlier demonstration study in it is replaced.
    seed : int
        The same seed writes the same files.
    n_repeats : int
        Sessions per scanner, >= 1.
    progress : callable, optional
        Receives one line per session.
    truth_path : Path, optional
        Where the truth goes; ``truth.json`` beside ``folder`` by default.

    Returns
    -------
    DemoTruth

    Raises
    ------
    ConfigError
        If ``n_repeats`` is below 1.
    OutputError
        If the folder holds other files, or cannot be written.
    """
    definition = load_phantom(PHANTOM)
    study = three_vendor_study(
        {plate: _digital_plate(definition, plate) for plate in _PLATES},
        seed=seed,
        n_repeats=n_repeats,
        field_strength_T=FIELD_STRENGTH_T,
    )
    _clear(folder)
    n_files = 0
    planted: list[str] = []
    spheres: list[SphereTruth] = []
    for item in _announced(study, n_repeats, progress):
        n_files += _write_item(item, folder, seed)
        planted.extend(item.planted)
        spheres.extend(item.truth)
    _write_sidecar(folder / "phantom.yaml")
    truth = DemoTruth(
        seed=seed,
        n_repeats=n_repeats,
        phantom=PHANTOM,
        serial_number=SERIAL,
        temperature_C=TEMPERATURE_C,
        field_strength_T=FIELD_STRENGTH_T,
        n_files=n_files,
        planted=tuple(planted),
        spheres=tuple(spheres),
    )
    text = json.dumps(as_plain(truth), ensure_ascii=False, allow_nan=False, indent=1)
    write_text(truth_path or folder.parent / "truth.json", text + "\n")
    return truth


def _digital_plate(definition: PhantomDefinition, plate_id: str) -> DigitalPlate:
    """Give the spheres of the definition their certified relaxation times."""
    plate = definition.plate(plate_id)
    times_s = {quantity: _certified_s(definition, plate_id, quantity) for quantity in ("T1", "T2")}
    spheres = tuple(
        DigitalSphere(
            label=label,
            position_mm=(x, y, z),
            t1_s=times_s["T1"][label],
            t2_s=times_s["T2"][label],
            inner_diameter_mm=plate.inner_diameter_mm or 15.0,
            outer_diameter_mm=plate.outer_diameter_mm or 20.0,
        )
        for label, x, y, z in plate.spheres
    )
    return DigitalPlate(
        plate=plate_id,
        spheres=spheres,
        posts=_posts(plate_id, offset_mm=float(plate.positions_mm[0, 1])),
        body_diameter_mm=definition.shell_inner_diameter_mm or 200.0,
    )


def _certified_s(definition: PhantomDefinition, plate_id: str, quantity: str) -> dict[str, float]:
    """Return the certified value of every sphere in seconds."""
    values = reference_values(
        definition,
        plate_id,
        quantity,
        field_strength_T=FIELD_STRENGTH_T,
        temperature_C=TEMPERATURE_C,
        serial=SERIAL,
    )
    missing = [value.sphere for value in values if not value.value > 0]
    if missing:
        raise DefinitionError(
            f"has no {quantity} for sphere {', '.join(missing)} of plate {plate_id}",
            where=definition.name,
            todo="the demonstration needs every value",
        )
    return {value.sphere: value.value / 1000 for value in values}


def _posts(plate_id: str, *, offset_mm: float) -> tuple[DigitalPost, ...]:
    radius, angles = _POSTS[plate_id]
    return tuple(
        DigitalPost(position_mm=(radius * float(np.sin(angle)), offset_mm, radius * float(np.cos(angle))))
        for angle in np.deg2rad(angles)
    )


def _announced(
    study: Iterable[SimulatedAcquisition], n_repeats: int, progress: Callable[[str], None] | None
) -> Iterator[SimulatedAcquisition]:
    """Report each session once, when its first images are there."""
    last = None
    for item in study:
        current = (item.scanner.name, item.session.name)
        if progress is not None and current != last:
            progress(
                f"simulating {item.scanner.vendor} scanner {item.scanner.name}, "
                f"session {int(item.session.name)} of {n_repeats}"
            )
        last = current
        yield item


def _write_item(item: SimulatedAcquisition, folder: Path, seed: int) -> int:
    """Write one image set; each set of a session has its own range of series numbers."""
    target = folder / item.scanner.name / f"session-{item.session.name}"
    first_series = 1 if item.image_set.varies("inversion_time_s") else 51
    return len(write_dicom(item.image_set, target, seed=seed, series_number=first_series, overwrite=True))


def _write_sidecar(path: Path) -> None:
    lines = (
        "# What no DICOM header says: which phantom was scanned, and how warm it was.",
        f'serial_number: "{SERIAL}"',
        f"temperature_C: {TEMPERATURE_C}",
    )
    write_text(path, "\n".join(lines) + "\n")


def _clear(folder: Path) -> None:
    """Remove an earlier demonstration study, and nothing else."""
    if folder.exists() and not folder.is_dir():
        raise OutputError("is a file, not a folder", where=str(folder), todo="give another folder")
    files = [path for path in folder.rglob("*") if not path.is_dir()]
    foreign = [p for p in files if not _OWN_FILE.fullmatch(p.relative_to(folder).as_posix())]
    if foreign:
        raise OutputError(
            "holds files that are not of a demonstration study",
            where=str(folder),
            found=foreign[0].name,
            todo="give an empty folder",
        )
    try:
        for path in files:
            path.unlink()
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", where=str(folder)) from error
