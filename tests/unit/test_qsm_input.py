"""Phase of any vendor is recognised; what is no phase is refused with what it probably is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers_qsm import TIMES, echoes, head
from hypothesis import given, settings
from hypothesis import strategies as st

from cordqa.errors import InputError
from cordqa.models.susceptibility.echo_input import (
    check_echo_times,
    check_magnitude,
    find_missing,
    from_complex,
)
from cordqa.models.susceptibility.geometry import b0_from_affine, voxel_size_mm
from cordqa.models.susceptibility.phase_input import detect_scaling, gather_evidence
from cordqa.models.susceptibility.scan import Scan, prepare_scan
from cordqa.models.susceptibility.unwrap import wrap


@pytest.fixture(scope="module")
def scan():
    mask, _, field = head()
    phase, magnitude = echoes(field, tissue=0.02 + 0.98 * mask, snr=60)
    return phase, magnitude, mask, field


STORED = {
    "radians from -pi to pi": lambda p: p,
    "radians from 0 to 2 pi": lambda p: np.mod(p, 2 * math.pi),
    "0 to 4095": lambda p: np.clip(np.floor((p + math.pi) / (2 * math.pi) * 4096), 0, 4095),
    "-4096 to 4095": lambda p: np.clip(2 * np.round(p / math.pi * 2048), -4096, 4094),
    "-2048 to 2047": lambda p: np.clip(np.round(p / math.pi * 2048), -2048, 2047),
    "milliradians": lambda p: np.round(1000 * p),
    "degrees from -180 to 180": np.degrees,
    "degrees from 0 to 360": lambda p: np.degrees(np.mod(p, 2 * math.pi)),
}


@pytest.mark.parametrize("name", STORED)
def test_every_vendor_is_recognised_and_said(scan, name):
    phase = scan[0]
    stored = STORED[name](phase).astype(np.float32)
    scaling = detect_scaling(stored)
    assert scaling.name == name
    assert name in scaling.sentence
    # All values are right up to what was rounded, and one constant that belongs to the offset.
    apart = wrap(scaling.radians(stored).astype(float) - phase)
    middle = np.angle(np.exp(1j * apart).mean())
    assert np.abs(wrap(apart - middle)).max() < 2.1e-3


@settings(max_examples=15, deadline=None)
@given(st.floats(1e-4, 1e5), st.floats(-3, 3))
def test_any_other_range_is_rescaled_if_it_wraps(factor, shift):
    mask, _, field = head((24, 24, 20))
    phase, _ = echoes(field, tissue=0.02 + 0.98 * mask, snr=60)
    stored = (factor * (phase + shift)).astype(np.float32)
    scaling = detect_scaling(stored)
    assert scaling.turn == pytest.approx(2 * math.pi * factor, rel=2e-3)
    assert scaling.sentence.endswith(".")


def test_a_turn_that_the_user_gives_is_believed_or_refused(scan):
    phase = scan[0]
    quarter = detect_scaling(phase / 8, phase_range=(-math.pi / 8, math.pi / 8))
    np.testing.assert_allclose(quarter.radians(phase / 8), phase, atol=1e-5)
    with pytest.raises(InputError, match="outside the given range"):
        detect_scaling(phase, phase_range=(-1, 1))
    # Radians are no part of -4096 to 4095, and what wraps at pi does not wrap at 2 pi.
    with pytest.raises(InputError, match="next to nothing of the given range"):
        detect_scaling(phase, phase_range=(-4096, 4096))
    assert "50 % of the turn that was given" in detect_scaling(phase, phase_range=(-6.2832, 6.2832)).warning
    assert quarter.warning == ""
    for wrong in ((1, 1), (2, -2), (math.nan, 1)):
        with pytest.raises(InputError, match="lower to a higher"):
            detect_scaling(phase, phase_range=wrong)


def test_what_is_no_phase_is_named(scan):
    phase, magnitude, mask, field = scan
    with pytest.raises(InputError, match="looks like a magnitude"):
        detect_scaling(magnitude)
    with pytest.raises(InputError, match="field map in Hz"):
        detect_scaling((127.7 * field * mask)[..., None].astype(np.float32))
    with pytest.raises(InputError, match="less than a whole turn"):
        detect_scaling((0.3 * field)[..., None].astype(np.float32))
    with pytest.raises(InputError, match="same image in all echoes"):
        detect_scaling(np.repeat(phase[..., 1:2], 4, axis=-1))
    with pytest.raises(InputError, match="single echo"):
        detect_scaling(0.7 * phase[..., :1])
    with pytest.raises(InputError, match="another scale"):
        detect_scaling(np.stack([phase[..., 0], 1000 * phase[..., 1]], axis=-1))
    with pytest.raises(InputError, match="no finite"):
        gather_evidence(np.full((3, 3, 3), np.nan))


def test_a_phase_that_was_cut_to_its_mask_is_recognised(scan):
    phase, _, mask, _ = scan
    assert detect_scaling(np.where(mask[..., None], phase, 0)).name == "radians from -pi to pi"


def test_a_phase_whose_background_is_a_smooth_plane_is_recognised(scan):
    phase, _, mask, _ = scan
    plane = 0.002 * (np.indices(mask.shape)[0] - 20.0)
    wide = np.pad(np.where(mask[..., None], phase, plane[..., None]), [(40, 40), (40, 40), (0, 0), (0, 0)])
    wide += 0.001 * np.indices(wide.shape)[0] * (wide == 0)
    assert detect_scaling(wide).name == "radians from -pi to pi"


def test_what_is_no_magnitude_is_named(scan):
    phase, magnitude, _, _ = scan
    check_magnitude(magnitude)
    check_magnitude(magnitude[..., :1])
    check_magnitude(np.ones((4, 4, 4, 1)))
    with pytest.raises(InputError, match="same image in all echoes"):
        check_magnitude(np.ones((4, 4, 4, 2)))
    with pytest.raises(InputError, match="echo 2 of the magnitude looks like a phase"):
        # Unsigned phase among unsigned magnitudes: nothing is negative.
        unsigned = (magnitude * 4 + 1).astype(np.float32)
        unsigned[..., 1] = (phase[..., 1] + math.pi) / (2 * math.pi) * 4095
        check_magnitude(unsigned)
    lost = magnitude.copy()
    lost[..., 4] = 0
    with pytest.raises(InputError, match="echo 5 of the magnitude is empty"):
        check_magnitude(lost)
    lost[..., 4] = np.nan
    with pytest.raises(InputError, match="echo 5 of the magnitude is empty"):
        check_magnitude(lost)
    with pytest.raises(InputError, match="looks like a phase"):
        check_magnitude(phase)
    with pytest.raises(InputError, match="looks like a phase"):
        check_magnitude(np.mod(phase, 2 * math.pi))
    with pytest.raises(InputError, match="negative"):
        check_magnitude(magnitude * np.cos(phase))


@pytest.mark.parametrize(
    ("times", "says"),
    [
        ([4, 8, 12], "milliseconds"),
        ([0.004, 0.008], "number of echo times"),
        ([0.004, 0.004, 0.008], "increase"),
        ([0.0, 0.004, 0.008], "positive"),
        ([0.004, math.nan, 0.008], "positive"),
    ],
)
def test_echo_times_are_never_rescaled(times, says):
    with pytest.raises(InputError, match=says):
        check_echo_times(times, 3)


def test_real_and_imaginary_parts_are_phase_and_magnitude(scan):
    phase, magnitude, _, _ = scan
    p, m = from_complex(magnitude * np.cos(phase), magnitude * np.sin(phase))
    np.testing.assert_allclose(m, magnitude, rtol=1e-5)
    assert np.abs(wrap((p - phase)[magnitude > 1].astype(float))).max() < 1e-4
    with pytest.raises(InputError, match="minima"):
        from_complex(magnitude, magnitude)
    with pytest.raises(InputError, match="shape"):
        from_complex(magnitude, magnitude[..., :2])


def test_voxels_without_a_phase_are_found_by_reason(scan):
    phase, magnitude = scan[0].copy(), scan[1].copy()
    phase[0, 0, 0, 1] = np.nan
    magnitude[1, 0, 0, 0] = np.inf
    magnitude[2, 0, 0] = 0
    phase[3:6, 3:6, 3:6] = 0
    magnitude[7, 7, 7, 2] = -1
    missing = find_missing(phase, magnitude)
    counts = {text: int(where.sum()) for text, where in missing.items()}
    assert list(counts.values()) == [2, 1, 1, 27]
    one = find_missing(phase[..., :1], magnitude[..., :1])
    assert int(one["the phase is a fill value, not a phase"].sum()) > 1


def test_the_main_field_follows_the_slices():
    assert b0_from_affine(np.diag([2, 2, 3, 1.0])).tolist() == [0, 0, 1]
    sagittal = np.array([[0, 0, 3, 0], [2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 1.0]])
    assert b0_from_affine(sagittal).tolist() == [0, 1, 0]
    tilt = math.radians(22)
    rotation = np.array(
        [[1, 0, 0], [0, math.cos(tilt), -math.sin(tilt)], [0, math.sin(tilt), math.cos(tilt)]]
    )
    oblique = np.eye(4)
    oblique[:3, :3] = rotation * [0.65, 0.65, 1.1]
    np.testing.assert_allclose(b0_from_affine(oblique), [0, math.sin(tilt), math.cos(tilt)], atol=1e-12)
    np.testing.assert_allclose(voxel_size_mm(oblique), [0.65, 0.65, 1.1])
    sheared = np.eye(4)
    sheared[0, 1] = 0.3
    with pytest.raises(InputError, match="right angles"):
        b0_from_affine(sheared)


def test_a_scan_whose_parts_do_not_belong_together_is_refused(scan):
    phase, magnitude, _, _ = scan
    good = {"echo_times_s": TIMES, "affine": np.diag([2, 2, 2, 1.0]), "field_strength_t": 3.0}
    echoes_ = prepare_scan(Scan(phase=phase, magnitude=magnitude, **good))
    assert echoes_.b0_direction.tolist() == [0, 0, 1]
    assert "from the affine" in echoes_.sentences[1]
    for changed, says in (
        ({"magnitude": magnitude[..., :3]}, "same echoes"),
        ({"phase": phase[..., 0]}, "three dimensions"),
        ({"field_strength_t": 3000.0}, "tesla"),
        ({"b0_direction": (0, 0, 0)}, "main field"),
        ({"phase": magnitude, "magnitude": phase}, "order of phase and magnitude"),
    ):
        with pytest.raises(InputError, match=says):
            prepare_scan(Scan(**({"phase": phase, "magnitude": magnitude} | good | changed)))
