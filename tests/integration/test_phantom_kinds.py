"""Every kind of series through the whole run: complex and real data, flip angles, proton density, volumes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cordqa.io.dicom_write import write_dicom
from cordqa.phantom.definition import load_phantom
from cordqa.phantom.measure import OUTSIDE
from cordqa.phantom.reference import reference_values
from cordqa.records import Part, Result, State
from cordqa.simulate.acquire import acquire
from cordqa.simulate.geometry import SliceGeometry
from cordqa.simulate.scanner import SimulatedScanner
from cordqa.simulate.sequences import InversionRecovery, MultiEchoSpinEcho, VariableFlipAngle
from cordqa.simulate.system_phantom import DigitalPlate, DigitalSphere
from cordqa.workflow.phantom import PhantomSettings, run_phantom

SETTINGS = PhantomSettings(serial="130-0150", temperature_C=20.0)
PLANE_MM = {"3": 23.5, "4": -16.5, "5": -56.5}


def certified_s(plate: str, quantity: str) -> list[float]:
    values = reference_values(
        load_phantom("caliber-system"),
        plate,
        quantity,
        field_strength_T=3.0,
        temperature_C=20.0,
        serial="130-0150",
    )
    return [value.value / 1000.0 for value in values]


def digital(plate: str) -> DigitalPlate:
    positions = load_phantom("caliber-system").plate(plate).positions_mm
    t1, t2 = (
        ([2.5] * 14, [1.2] * 14) if plate == "3" else (certified_s(plate, "T1"), certified_s(plate, "T2"))
    )
    density = [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    return DigitalPlate(
        plate=plate,
        spheres=tuple(
            DigitalSphere(
                label=str(i + 1),
                position_mm=tuple(positions[i]),
                t1_s=t1[i],
                t2_s=t2[i],
                proton_density=density[i] if plate == "3" else 1.0,
            )
            for i in range(14)
        ),
    )


def scanner(**more: object) -> SimulatedScanner:
    return SimulatedScanner(name="T", vendor="Siemens", noise_sd=0.003, **more)  # type: ignore[arg-type]


def scan(
    folder: Path, plate: str, sequence: object, *, parts: tuple[Part, ...] = (Part.MAGNITUDE,), **more: object
) -> None:
    geometry = more.pop("geometry", None) or SliceGeometry.coronal(
        centre_mm=(0.0, PLANE_MM[plate], 0.0), matrix=160, rotation_deg=20.0
    )
    machine = more.pop("machine", None) or scanner()
    for number, part in enumerate(parts, start=1):
        rng = np.random.default_rng(7)
        images, _, _ = acquire(digital(plate), sequence, machine, rng, geometry=geometry, part=part)  # type: ignore[arg-type]
        write_dicom(images, folder / str(part), series_number=10 * number)


def inside(result: Result) -> dict[str, float]:
    """Percent error by sphere, where the protocol determines it."""
    return {
        m.region: 100 * (m.value / m.reference - 1)
        for m in result.measurements
        if not any(flag.startswith(OUTSIDE) for flag in m.flags) and math.isfinite(m.reference)
    }


LONG = InversionRecovery(
    inversion_times_s=(0.035, 0.075, 0.15, 0.3, 0.6, 1.2, 2.4, 4.0),
    repetition_times_s=(6.0,) * 8,
    echo_time_s=0.012,
)


@pytest.mark.parametrize(
    "parts", [(Part.MAGNITUDE,), (Part.REAL,), (Part.REAL, Part.IMAGINARY), (Part.MAGNITUDE, Part.PHASE)]
)
def test_inversion_recovery_of_every_part(parts: tuple[Part, ...], tmp_path: Path) -> None:
    scan(tmp_path / "scans", "5", LONG, parts=parts)
    result = run_phantom(tmp_path / "scans", tmp_path / "out", settings=SETTINGS)
    assert result.count(State.FAILED) == 0
    assert result.count(State.DONE) == 1
    assert len(result.measurements) == 14
    assert np.median([abs(error) for error in inside(result).values()]) < 1.0
    for m in result.measurements:
        # The reference is the truth of the simulation here; 4 standard errors, or half a percent.
        assert abs(m.value - m.reference) < max(4 * m.standard_uncertainty, 0.005 * m.reference)


def test_polarity_is_measured_where_phase_is_there(tmp_path: Path) -> None:
    scan(tmp_path / "scans", "5", LONG, parts=(Part.MAGNITUDE, Part.PHASE))
    result = run_phantom(tmp_path / "scans", tmp_path / "out", settings=SETTINGS)
    assert any("polarity is measured" in notice.message for notice in result.notices)


def test_flip_angles_need_the_transmit_field(tmp_path: Path) -> None:
    """With a transmit field of 0.9, T1 reads 19 % low unless the map is given."""
    folder = tmp_path / "scans"
    sequence = VariableFlipAngle(flip_angles_deg=(2.0, 4.0, 8.0, 12.0, 18.0, 25.0), repetition_time_s=0.015)
    scan(folder, "5", sequence, machine=scanner(transmit_scale=0.9))
    low = inside(run_phantom(folder, tmp_path / "a", settings=SETTINGS))
    field = tmp_path / "b1.nii.gz"
    affine = np.diag([10.0, 10.0, 10.0, 1.0])
    affine[:3, 3] = -200.0
    nib.save(nib.Nifti1Image(np.full((41, 41, 41), 90.0, dtype=np.float32), affine), field)
    right = inside(run_phantom(folder, tmp_path / "b", settings=replace(SETTINGS, b1_map=field)))
    assert np.median(list(low.values())) == pytest.approx(100 * (0.9**2 - 1), abs=3.0)
    assert abs(np.median(list(right.values()))) < 2.0


def test_proton_density_is_relative_to_its_reference_sphere(tmp_path: Path) -> None:
    scan(tmp_path / "scans", "3", MultiEchoSpinEcho(n_echoes=16, echo_spacing_s=0.02, repetition_time_s=12.0))
    result = run_phantom(tmp_path / "scans", tmp_path / "out", settings=SETTINGS)
    values = {m.region: m.value for m in result.measurements}
    assert {m.quantity for m in result.measurements} == {"PD"}
    assert values["sphere 14"] == pytest.approx(100.0)
    assert values["sphere 9"] == pytest.approx(50.0, abs=2.0)
    assert values["sphere 1"] == pytest.approx(5.0, abs=2.0)
    assert all(any("receive" in flag for flag in m.flags) for m in result.measurements)


def test_phase_graph_corrects_stimulated_echoes(tmp_path: Path) -> None:
    sequence = MultiEchoSpinEcho(n_echoes=24, echo_spacing_s=0.009, repetition_time_s=5.0)
    scan(tmp_path / "scans", "4", sequence, machine=scanner(refocusing_angle_deg=140.0))
    plain = run_phantom(tmp_path / "scans", tmp_path / "a", settings=SETTINGS)
    graph = run_phantom(tmp_path / "scans", tmp_path / "b", settings=replace(SETTINGS, t2_model="epg"))
    assert np.median(list(inside(plain).values())) > 3.0
    assert abs(np.median(list(inside(graph).values()))) < 1.5
    assert any(notice.code == "fit.stimulated-echoes" for notice in plain.notices)
    assert not any(notice.code == "fit.stimulated-echoes" for notice in graph.notices)


def test_volume_of_thin_slices(tmp_path: Path) -> None:
    sequence = VariableFlipAngle(flip_angles_deg=(3.0, 6.0, 12.0, 20.0), repetition_time_s=0.015)
    geometry = replace(
        SliceGeometry.coronal(
            centre_mm=(0.0, PLANE_MM["5"], 0.0), matrix=128, field_of_view_mm=256.0, thickness_mm=2.0
        ),
        n_slices=24,
    )
    scan(tmp_path / "scans", "5", sequence, geometry=geometry)
    result = run_phantom(tmp_path / "scans", tmp_path / "out", settings=SETTINGS)
    errors = inside(result)
    assert len(result.measurements) == 14
    assert len(errors) >= 8
    assert abs(np.median(list(errors.values()))) < 2.0


@pytest.mark.parametrize("enhanced", [False, True])
@pytest.mark.parametrize("compressed", [None, "rle", "jpeg2000"])
def test_every_container_gives_the_same_numbers(
    enhanced: bool, compressed: str | None, tmp_path: Path
) -> None:
    geometry = SliceGeometry.coronal(centre_mm=(0.0, PLANE_MM["5"], 0.0), matrix=128)
    images, _, _ = acquire(digital("5"), LONG, scanner(), np.random.default_rng(1), geometry=geometry)
    write_dicom(images, tmp_path / "plain")
    write_dicom(images, tmp_path / "packed", enhanced=enhanced, compressed=compressed)
    plain = run_phantom(tmp_path / "plain", tmp_path / "a", settings=SETTINGS)
    packed = run_phantom(tmp_path / "packed", tmp_path / "b", settings=SETTINGS)
    assert [m.value for m in packed.measurements] == pytest.approx(
        [m.value for m in plain.measurements], nan_ok=True
    )
