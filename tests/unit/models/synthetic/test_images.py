"""Synthetic images: voxels with and without a value, choice of times, curves, DICOM that says what it is."""

from __future__ import annotations

import io
import math

import numpy as np
import pydicom
import pytest

from cordqa.errors import InputError, OutputError
from cordqa.io.dicom_derived import DerivedSeries, derived_slice, digest_of
from cordqa.models.synthetic.choice import (
    choose_double_inversion,
    choose_inversion,
    magnetization_curves,
    measure_tissue,
)
from cordqa.models.synthetic.contrast import EchoTiming, spin_echo
from cordqa.models.synthetic.images import Contrast, judge_maps, render
from cordqa.models.synthetic.nulling import Tissue, null_inversion_time

TIMING = EchoTiming(repetition_time_s=6.0, echo_time_s=0.01)
WHITE = Tissue(t1_s=0.83, t2_s=0.075, proton_density=0.7)
LESION = Tissue(t1_s=1.3, t2_s=0.12, proton_density=0.85)
FLUID = Tissue(t1_s=4.0, t2_s=2.0)


def test_rendering_equals_the_equation_voxel_by_voxel() -> None:
    rng = np.random.default_rng(0)
    shape = (40, 30, 41)
    pd, t1, t2 = (rng.uniform(*ends, shape).astype(np.float32) for ends in ((0.5, 1), (0.3, 4), (0.02, 2)))
    where = rng.random(shape) > 0.2
    image = render(Contrast(name="T1w", timing=TIMING), pd, t1, t2, where=where)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image[where], spin_echo(pd, t1, t2, TIMING)[where], rtol=1e-6)
    assert np.isnan(image[~where]).all()


def test_voxels_without_a_value_say_why() -> None:
    pd = np.array([1.0, np.nan, 0.0, 1.0, 1.0, -0.1, 1.0])
    t1 = np.array([1.0, 1.0, 0.0, 0.0, 25.0, 1.0, -2.0])
    t2 = np.array([0.1, 0.1, 0.0, 0.1, 0.1, 0.1, 0.1])
    found = judge_maps(pd, t1, t2)
    assert [found.at(n) for n in range(7)] == [
        "",
        "a map has no value here",
        "all maps are zero here",
        "T1 or T2 is not positive",
        "T1 or T2 is beyond 20 s",
        "negative proton density",
        "T1 or T2 is not positive",
    ]


def test_sign_is_kept_only_where_it_is_meant() -> None:
    maps = [np.array([x]) for x in (1.0, 4.0, 1.0)]
    kept = Contrast(name="PSIR", timing=TIMING, first_s=0.5, keep_sign=True).signal(*maps)
    assert kept[0] < 0
    assert Contrast(name="FLAIR", timing=TIMING, first_s=0.5).signal(*maps)[0] == -kept[0]
    assert "sign kept" in Contrast(name="PSIR", timing=TIMING, first_s=0.5, keep_sign=True).sentence


def test_without_a_lesion_tissues_are_nulled() -> None:
    one = choose_inversion("FLAIR", TIMING, keep_sign=False, nulled=FLUID, nulled_name="fluid")
    maps = [np.array([x]) for x in (1.0, FLUID.t1_s, FLUID.t2_s)]
    assert abs(one.contrast.signal(*maps)[0]) < 1e-9
    assert "nulls fluid" in one.sentence
    two = choose_double_inversion(
        "DIR", EchoTiming(repetition_time_s=15.0, echo_time_s=0.1), white=WHITE, fluid=FLUID
    )
    for tissue in (WHITE, FLUID):
        values = [np.array([x]) for x in (1.0, tissue.t1_s, tissue.t2_s)]
        assert abs(two.contrast.signal(*values)[0]) < 1e-9


def test_with_a_lesion_the_best_time_is_at_the_top_of_the_curve() -> None:
    found = choose_inversion(
        "PSIR",
        TIMING,
        keep_sign=True,
        nulled=WHITE,
        nulled_name="white matter",
        lesion=LESION,
        reference=WHITE,
    )
    assert found.curve is not None
    assert found.contrast.first_s == found.curve.best.first_s
    assert np.abs(found.curve.contrast).max() <= abs(found.curve.best.contrast) + 1e-9
    low, high = found.curve.best.flat_s
    inside = (found.curve.first_s >= low) & (found.curve.first_s <= high)
    assert np.abs(found.curve.contrast[inside]).min() > 0.94 * abs(found.curve.best.contrast)
    assert "95 %" in found.sentence


def test_a_search_without_inner_optimum_falls_back_to_nulling_and_says_so() -> None:
    timing = EchoTiming(repetition_time_s=15.0, echo_time_s=0.1)
    found = choose_double_inversion("DIR", timing, white=WHITE, fluid=FLUID, lesion=LESION)
    assert found.curve is not None
    assert found.curve.best.at_edge
    assert "no better than one" in found.sentence
    plain = choose_double_inversion("DIR", timing, white=WHITE, fluid=FLUID)
    assert found.contrast == plain.contrast


def test_tissues_are_medians_of_voxels_that_have_all_three() -> None:
    t1 = np.array([1.0, 1.1, 1.2, 1.3, 1.4, np.nan, 0.0, 9.0])
    mask = np.array([True] * 7 + [False])
    found = measure_tissue(np.full(8, 0.8), t1, np.full(8, 0.1), mask, name="lesion")
    assert found.t1_s == pytest.approx(1.2)
    with pytest.raises(InputError, match="lesion mask"):
        measure_tissue(np.full(8, 0.8), t1, np.full(8, 0.1), mask & (t1 > 1.25), name="lesion")


def test_wrong_contrasts_are_named() -> None:
    with pytest.raises(InputError, match="first one"):
        Contrast(name="DIR", timing=TIMING, second_s=0.5)
    with pytest.raises(InputError, match="shape"):
        render(
            Contrast(name="T1w", timing=TIMING), np.ones(3), np.ones(3), np.ones(2), where=np.ones(3, bool)
        )


def series(**changed: object) -> DerivedSeries:
    affine = np.array([[-2.0, 0, 0, 10], [0, 1.5, 0, -20], [0, 0, 4, 5], [0, 0, 0, 1]])
    settings = {
        "label": "SYNTHETIC",
        "name": "PSIR",
        "description": "computed",
        "affine": affine,
        "n_slices": 2,
        "largest": 80.0,
        "identity": digest_of(np.ones(3)),
        "series_number": 9001,
        "times_ms": {"EchoTime": 10.0},
    }
    return DerivedSeries(**(settings | changed))  # type: ignore[arg-type]


def test_dicom_says_that_it_is_synthetic_and_holds_signed_values() -> None:
    plane = np.linspace(-80, 80, 12).reshape(4, 3)
    plane[0, 0] = np.nan
    found = pydicom.dcmread(io.BytesIO(derived_slice(plane, 1, series(), "")))
    assert list(found.ImageType) == ["DERIVED", "SECONDARY", "SYNTHETIC", "PSIR"]
    assert found.SeriesDescription == "SYNTHETIC PSIR (computed, not acquired)"
    assert found.PatientID.startswith("SYN-")
    stored = found.pixel_array.T
    assert stored[0, 0] == found.PixelPaddingValue
    values = stored * float(found.RescaleSlope)
    np.testing.assert_allclose(values.ravel()[1:], plane.ravel()[1:], atol=0.51 * 80 / 32000)
    assert [float(v) for v in found.PixelSpacing] == [1.5, 2.0]
    assert [float(v) for v in found.ImagePositionPatient] == [-10.0, 20.0, 9.0]
    assert [float(v) for v in found.ImageOrientationPatient] == [1, 0, 0, 0, -1, 0]
    assert found.EchoTime == 10


def test_dicom_identity_is_stable_and_tells_patients_apart() -> None:
    plane = np.ones((2, 2))

    def uid(patient: str, **changed: object) -> str:
        data = derived_slice(plane, 0, series(**changed), patient)
        return str(pydicom.dcmread(io.BytesIO(data)).StudyInstanceUID)

    assert uid("sub-01") == uid("sub-01")
    assert len({uid("sub-01"), uid("sub-02"), uid("sub-01", identity=digest_of(np.zeros(3)))}) == 3
    one, other = (
        pydicom.dcmread(io.BytesIO(derived_slice(plane, 0, series(description=text), "sub-01")))
        for text in ("TI 1 s", "TI 2 s")
    )
    assert one.StudyInstanceUID == other.StudyInstanceUID
    assert one.SOPInstanceUID != other.SOPInstanceUID


def test_dicom_refuses_a_sheared_grid_and_stores_an_empty_image() -> None:
    sheared = np.eye(4)
    sheared[0, 1] = 0.5
    with pytest.raises(OutputError, match="perpendicular"):
        derived_slice(np.ones((2, 2)), 0, series(affine=sheared), "")
    found = pydicom.dcmread(io.BytesIO(derived_slice(np.full((2, 2), np.nan), 0, series(largest=0.0), "")))
    assert (found.pixel_array == -32768).all()


def test_dicom_of_other_images_are_other_objects_and_open_with_a_window() -> None:
    def read(**changed: object) -> pydicom.Dataset:
        return pydicom.dcmread(io.BytesIO(derived_slice(np.ones((2, 2)), 0, series(**changed), "sub-01")))

    one, other = read(content="a"), read(content="b", window=(-20.0, 30.0))
    assert one.StudyInstanceUID == other.StudyInstanceUID
    assert one.SeriesInstanceUID != other.SeriesInstanceUID
    assert one.SOPInstanceUID != other.SOPInstanceUID
    assert (other.WindowCenter, other.WindowWidth) == (5, 50)
    assert "VOILUTFunction" not in other
    assert read(window=(0.0, 0.5)).VOILUTFunction == "LINEAR_EXACT"
    assert "WindowWidth" not in one
    assert one.BurnedInAnnotation == "NO"


def test_dicom_places_every_voxel_of_an_oblique_flipped_grid_where_the_affine_does() -> None:
    turn, tilt = 0.4, -0.3
    about_x = np.array([[1, 0, 0], [0, math.cos(turn), -math.sin(turn)], [0, math.sin(turn), math.cos(turn)]])
    about_y = np.array([[math.cos(tilt), 0, math.sin(tilt)], [0, 1, 0], [-math.sin(tilt), 0, math.cos(tilt)]])
    affine = np.eye(4)
    affine[:3, :3] = about_x @ about_y @ np.diag([-1.2, 0.9, 3.0])
    affine[:3, 3] = [30.0, -40.0, 12.0]
    # Slices shifted within their plane are still parallel planes.
    affine[:3, 2] += 0.5 * affine[:3, 0]
    found = pydicom.dcmread(io.BytesIO(derived_slice(np.ones((5, 4)), 2, series(affine=affine), "")))
    along, down = np.reshape([float(v) for v in found.ImageOrientationPatient], (2, 3))
    spacing = [float(v) for v in found.PixelSpacing]
    corner = np.array([float(v) for v in found.ImagePositionPatient])
    for i, j in ((0, 0), (4, 0), (2, 3)):
        place = corner + along * spacing[1] * i + down * spacing[0] * j
        np.testing.assert_allclose(place * [-1, -1, 1], (affine @ [i, j, 2, 1])[:3], atol=1e-9)
    assert float(found.SpacingBetweenSlices) == pytest.approx(3.0)
    flat = affine.copy()
    flat[:3, 2] = flat[:3, 0]
    with pytest.raises(OutputError, match="lie apart"):
        derived_slice(np.ones((5, 4)), 2, series(affine=flat), "")


def test_a_lesion_without_an_inner_optimum_gets_the_nulling_times_and_the_sentence_says_so() -> None:
    timing = EchoTiming(repetition_time_s=6.0, echo_time_s=0.01)
    white = Tissue(t1_s=0.83, t2_s=0.075, proton_density=0.7)
    # Dense and of one T1: without an inversion it is as bright as it gets.
    lesion = Tissue(t1_s=0.83, t2_s=0.12, proton_density=0.95)
    found = choose_inversion(
        "PSIR", timing, keep_sign=True, nulled=white, nulled_name="white", lesion=lesion, reference=white
    )
    assert found.curve is not None
    assert found.curve.best.at_edge
    assert found.contrast.first_s == pytest.approx(null_inversion_time(0.83, timing))
    assert "no better than none" in found.sentence


def test_curves_of_magnetization_cross_zero_at_the_times_that_null() -> None:
    timing = EchoTiming(repetition_time_s=11.0, echo_time_s=0.03)
    white, fluid = Tissue(t1_s=0.83, t2_s=0.07), Tissue(t1_s=4.0, t2_s=1.5)
    choice = choose_double_inversion("DIR", timing, white=white, fluid=fluid)
    time, levels = magnetization_curves(choice.contrast, {"white": white, "fluid": fluid})
    for level in levels.values():
        assert np.interp(choice.contrast.first_s, time, level) == pytest.approx(0, abs=2e-3)
        assert level[0] > 0 > level[-1]
    with pytest.raises(InputError, match="without an inversion"):
        magnetization_curves(Contrast(name="T1w", timing=timing), {})
