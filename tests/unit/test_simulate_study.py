"""The three-vendor study: truth, planted faults, determinism."""

from __future__ import annotations

import numpy as np
import pytest
from simulate_plates import make_plate

from cordqa.errors import ConfigError
from cordqa.simulate.acquire import quantise
from cordqa.simulate.study import SimulatedAcquisition, three_vendor_study

PLATES = {"4": make_plate("4"), "5": make_plate("5", posts=True)}


@pytest.fixture(scope="module")
def study() -> list[SimulatedAcquisition]:
    return list(three_vendor_study(PLATES, seed=11, n_repeats=2))


def test_three_vendors_with_two_sets_in_each_session(study: list[SimulatedAcquisition]) -> None:
    keys = [(s.image_set.entities.vendor, s.session.name, s.truth[0].plate) for s in study]
    expected = [(v, r, p) for v in ("Siemens", "GE", "Philips") for r in ("01", "02") for p in ("5", "4")]
    assert keys == expected
    assert len({s.session.acquired for s in study}) == 6
    assert {s.image_set.entities.field_strength_T for s in study} == {3.0}


def test_truth_holds_the_phantom_and_what_the_scanner_sees(study: list[SimulatedAcquisition]) -> None:
    for item in study:
        plate = PLATES[item.truth[0].plate]
        assert [t.sphere for t in item.truth] == [s.label for s in plate.spheres]
        assert [t.t1_s for t in item.truth] == [s.t1_s for s in plate.spheres]
        seen = np.mean([t.seen_t1_s / t.t1_s for t in item.truth])
        assert seen == pytest.approx(1 + item.scanner.t1_bias, abs=0.02)


def test_spheres_lie_where_the_truth_says(study: list[SimulatedAcquisition]) -> None:
    for item in study:
        image = item.image_set.data[-1, 0] if item.truth[0].plate == "5" else item.image_set.data[0, 0]
        for truth in item.truth:
            row, column = round(truth.row), round(truth.column)
            inside = image[row - 1 : row + 2, column - 1 : column + 2].mean()
            rows, columns = np.indices(image.shape)
            radius = np.hypot(rows - truth.row, columns - truth.column) * item.image_set.spacing_mm[1]
            shell = image[np.abs(radius - 8.8) < 0.7].mean()
            assert inside > 1.4 * shell


def test_planted_faults_are_written_down_and_real(study: list[SimulatedAcquisition]) -> None:
    planted = [text for item in study for text in item.planted]
    assert sum("T1 +8.0%" in text for text in planted) == 2
    assert sum("stimulated echoes" in text for text in planted) == 2
    assert sum("of the range it needs" in text for text in planted) == 1
    for item in study:
        clipped = quantise(item.image_set, item.scanner).clipped
        assert clipped is not None
        assert clipped.any() == any("of the range" in text for text in item.planted)


def test_only_the_seed_decides(study: list[SimulatedAcquisition]) -> None:
    again = next(iter(three_vendor_study(PLATES, seed=11, n_repeats=2)))
    assert np.array_equal(again.image_set.data, study[0].image_set.data)
    assert again.truth == study[0].truth
    other = next(iter(three_vendor_study(PLATES, seed=12, n_repeats=2)))
    assert not np.array_equal(other.image_set.data, study[0].image_set.data)


def test_nothing_to_simulate_is_said_at_once() -> None:
    with pytest.raises(ConfigError, match="at least one session"):
        three_vendor_study(PLATES, seed=1, n_repeats=0)
    with pytest.raises(ConfigError, match="no digital plate 4"):
        three_vendor_study({"5": PLATES["5"]}, seed=1)
