"""The main job on real scans of three vendors (skipped only where the folder is absent)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cordqa.phantom.measure import OUTSIDE
from cordqa.records import Result, State
from cordqa.workflow.phantom import PhantomSettings, run_phantom

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def result(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    # The serial number is not recorded; the tool that the scans come from assumes batch 1 at 20 C.
    settings = PhantomSettings(serial="130-0041", temperature_C=20.0)
    return run_phantom(shared_data / "phantom", tmp_path_factory.mktemp("real"), settings=settings)


def test_all_seven_plates_are_found(result: Result) -> None:
    found = {(m.entities.vendor, m.level, m.quantity) for m in result.measurements}
    assert found == {
        ("Siemens", "plate 5", "T1"),
        ("GE", "plate 4", "T1"),
        ("GE", "plate 5", "T1"),
        ("Philips", "plate 5", "T1"),
        ("GE", "plate 5", "T2"),
        ("Philips", "plate 4", "T2"),
        ("Philips", "plate 5", "T2"),
    }
    assert result.count(State.FAILED) == 0


@pytest.mark.parametrize(
    ("vendor", "level", "quantity", "limit_percent"),
    [
        ("Siemens", "plate 5", "T1", 2.4),
        ("GE", "plate 5", "T1", 5.3),
        ("Philips", "plate 5", "T1", 3.2),
        ("GE", "plate 4", "T1", 9.7),
        ("GE", "plate 5", "T2", 3.6),
    ],
)
def test_values_are_as_near_to_the_reference_as_published(
    result: Result, vendor: str, level: str, quantity: str, limit_percent: float
) -> None:
    rows = [
        m
        for m in result.measurements
        if (m.entities.vendor, m.level, m.quantity) == (vendor, level, quantity)
        and not any(flag.startswith(OUTSIDE) for flag in m.flags)
    ]
    errors = [abs(100 * (m.value / m.reference - 1)) for m in rows]
    assert len(rows) >= 8
    # The limits are published to one decimal, and are compared at that precision.
    assert round(float(np.median(errors)), 1) <= limit_percent


def test_values_fall_from_sphere_to_sphere(result: Result) -> None:
    """Spheres are numbered by falling T1 and T2; this needs no reference value."""
    plates: dict[tuple[str, str, str], list[float]] = {}
    for m in result.measurements:
        if not any(flag.startswith(OUTSIDE) for flag in m.flags):
            plates.setdefault((m.entities.vendor, m.level, m.quantity), []).append(m.value)
    for values in plates.values():
        assert np.all(np.diff(values) < 0)


def test_philips_scale_and_clipping_are_handled(result: Result) -> None:
    text = " ".join(n.message for n in result.notices if "Philips" in n.where)
    assert "scale differs between the images" in text
    assert "clipped" in text
    clipped = [m for m in result.measurements if any("clipped" in flag for flag in m.flags)]
    assert {m.entities.vendor for m in clipped} == {"Philips"}


def test_disagreement_between_sources_is_reported(result: Result) -> None:
    assert any(n.code == "reference.disagreement" for n in result.notices)
