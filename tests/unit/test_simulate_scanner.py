"""Simulated scans: signals, noise, fields, coils, parts, storage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from simulate_plates import make_plate

from cordqa.errors import ConfigError
from cordqa.models.relaxometry.signal import (
    inversion_recovery_signal,
    multi_echo_spin_echo_signal,
    spin_echo_saturation,
    spoiled_gradient_echo_signal,
)
from cordqa.records import Part
from cordqa.simulate.acquire import acquire, quantise
from cordqa.simulate.scanner import Session, SimulatedScanner
from cordqa.simulate.sequences import (
    InversionRecovery,
    MultiEchoSpinEcho,
    PulseSequence,
    SpinEcho,
    VariableFlipAngle,
)

PLATE = make_plate("5")
RECOVERY = InversionRecovery(
    inversion_times_s=(0.05, 0.2, 0.6, 1.5, 3.0),
    repetition_times_s=(3.0, 3.0, 3.5, 4.5, 6.0),
    echo_time_s=0.012,
)
TRAIN = MultiEchoSpinEcho(n_echoes=12, echo_spacing_s=0.012, repetition_time_s=2.5)
IDEAL = SimulatedScanner(name="ideal", vendor="GE", gain=1000.0, noise_sd=0.0, bits_stored=16, signed=True)
T1 = PLATE.tissue("t1_s")[:14]
T2 = PLATE.tissue("t2_s")[:14]


def scan(scanner: SimulatedScanner, sequence: PulseSequence, **options: object):
    return acquire(PLATE, sequence, scanner, np.random.default_rng(7), **options)  # type: ignore[arg-type]


def at_centres(image_set, coverage) -> np.ndarray:
    """Mean over the 3 x 3 voxels in the middle of each sphere, shape (n_images, n_spheres)."""
    middles = np.rint(coverage.centres[:, 1:]).astype(int)
    return np.stack(
        [image_set.data[:, 0, r - 1 : r + 2, c - 1 : c + 2].mean(axis=(1, 2)) for r, c in middles], axis=1
    )


def test_inversion_recovery_obeys_the_equation_at_the_centres() -> None:
    image_set, _, coverage = scan(IDEAL, RECOVERY, part=Part.REAL, downsampling="box")
    expected = 1000 * inversion_recovery_signal(
        np.array(RECOVERY.inversion_times_s)[:, None],
        T1,
        m0=np.exp(-0.012 / T2),
        repetition_time_s=np.array(RECOVERY.repetition_times_s)[:, None],
        echo_time_s=0.012,
    )
    assert at_centres(image_set, coverage) == pytest.approx(expected, rel=1e-4, abs=0.01)
    magnitude, _, _ = scan(IDEAL, RECOVERY, downsampling="box")
    assert at_centres(magnitude, coverage) == pytest.approx(np.abs(expected), rel=1e-4, abs=0.01)


@pytest.mark.parametrize("adiabatic", [False, True])
def test_inversion_follows_the_transmit_field_unless_adiabatic(adiabatic: bool) -> None:
    scanner = replace(IDEAL, transmit_scale=0.9, inversion_angle_deg=170.0, adiabatic_inversion=adiabatic)
    image_set, _, coverage = scan(scanner, RECOVERY, part=Part.REAL, downsampling="box")
    expected = 1000 * inversion_recovery_signal(
        0.05,
        T1,
        m0=np.exp(-0.012 / T2),
        inversion_angle_deg=170.0 if adiabatic else 153.0,
        repetition_time_s=3.0,
        echo_time_s=0.012,
    )
    assert at_centres(image_set, coverage)[0] == pytest.approx(expected, rel=1e-3, abs=0.05)


def test_echo_train_obeys_the_equation_with_the_actual_angles() -> None:
    scanner = replace(IDEAL, transmit_scale=0.9, refocusing_angle_deg=175.0)
    image_set, tissue, coverage = scan(scanner, TRAIN, downsampling="box")
    expected = 1000 * multi_echo_spin_echo_signal(
        12,
        0.012,
        T2,
        T1,
        m0=spin_echo_saturation(T1, 2.5, echo_spacing_s=0.012, n_echoes=12),
        refocusing_angle_deg=0.9 * 175.0,
        excitation_angle_deg=81.0,
    )
    assert tissue.transmit == pytest.approx(np.full(15, 0.9))
    assert at_centres(image_set, coverage) == pytest.approx(expected.T, rel=1e-4, abs=0.01)


def test_variable_flip_angle_and_proton_density() -> None:
    sequence = VariableFlipAngle(flip_angles_deg=(3.0, 12.0, 25.0))
    image_set, _, coverage = scan(replace(IDEAL, transmit_scale=1.1), sequence, downsampling="box")
    expected = 1000 * spoiled_gradient_echo_signal(
        np.array([[3.0], [12.0], [25.0]]), T1, 0.0066, m0=np.exp(-0.0025 / T2), b1=1.1
    )
    assert at_centres(image_set, coverage) == pytest.approx(expected, rel=1e-3)
    half = replace(PLATE, spheres=tuple(replace(s, proton_density=0.5) for s in PLATE.spheres))
    dim, _, coverage = acquire(half, SpinEcho(), IDEAL, np.random.default_rng(0), downsampling="box")
    bright, _, _ = scan(IDEAL, SpinEcho(), downsampling="box")
    ratio = at_centres(dim, coverage) / at_centres(bright, coverage)
    assert ratio == pytest.approx(np.full((1, 14), 0.5), rel=1e-3)


def test_headers_say_what_was_done() -> None:
    image_set, _, _ = scan(replace(IDEAL, field_strength_T=1.5), RECOVERY)
    assert image_set.values("inversion_time_s") == pytest.approx(RECOVERY.inversion_times_s)
    assert image_set.values("repetition_time_s") == pytest.approx(RECOVERY.repetition_times_s)
    assert set(image_set.values("field_strength_T")) == {1.5}
    assert {a.sequence for a in image_set.acquisitions} == {"inversion recovery"}
    train, _, _ = scan(IDEAL, TRAIN)
    assert train.values("echo_time_s") == pytest.approx(0.012 * np.arange(1, 13))
    assert {a.echo_train_length for a in train.acquisitions} == {12}
    assert train.data.shape == (12, 1, 192, 192)
    assert train.data.dtype == np.float32
    assert train.spacing_mm == pytest.approx((5.0, 250 / 192, 250 / 192))


@pytest.mark.parametrize("n_coils", [1, 4])
def test_noise_has_the_requested_sd(n_coils: int) -> None:
    scanner = replace(IDEAL, noise_sd=0.01, n_coils=n_coils)
    real, _, _ = scan(scanner, RECOVERY, part=Part.REAL)
    quiet, _, _ = scan(replace(scanner, noise_sd=0.0), RECOVERY, part=Part.REAL)
    residual = real.data - quiet.data
    assert residual.std() == pytest.approx(10.0, rel=0.02)
    assert abs(residual.mean()) < 0.1
    imaginary, _, _ = scan(scanner, RECOVERY, part=Part.IMAGINARY)
    assert imaginary.data.std() == pytest.approx(10.0, rel=0.02)


@pytest.mark.parametrize("n_coils", [1, 4])
def test_air_holds_the_noise_of_the_coil_combination(n_coils: int) -> None:
    scanner = replace(IDEAL, noise_sd=0.01, n_coils=n_coils)
    image_set, _, coverage = scan(scanner, RECOVERY, downsampling="box")
    air = image_set.data[:, coverage.body < 1e-6]
    # Rayleigh for one coil; chi with 2 n degrees of freedom for n coils: E[x^2] = 2 n sd^2.
    assert (air.astype(float) ** 2).mean() == pytest.approx(2 * n_coils * 10.0**2, rel=0.02)
    if n_coils == 1:
        assert air.mean() == pytest.approx(10.0 * np.sqrt(np.pi / 2), rel=0.01)


@pytest.mark.parametrize("part", [Part.MAGNITUDE, Part.REAL])
def test_zero_filling_keeps_signal_and_noise_and_correlates(part: Part) -> None:
    scanner = replace(IDEAL, noise_sd=0.01, zero_filled_matrix=256)
    image_set, _, coverage = scan(scanner, RECOVERY, part=part, downsampling="box")
    assert image_set.data.shape == (5, 1, 256, 256)
    assert coverage.maps.shape == (15, 1, 256, 256)
    assert image_set.spacing_mm == pytest.approx((5.0, 250 / 256, 250 / 256))
    quiet, _, _ = scan(replace(scanner, noise_sd=0.0), RECOVERY, part=part, downsampling="box")
    plain, _, plain_coverage = scan(IDEAL, RECOVERY, part=part, downsampling="box")
    assert coverage.positions_mm == pytest.approx(plain_coverage.positions_mm)
    assert at_centres(quiet, coverage) == pytest.approx(at_centres(plain, plain_coverage), rel=0.02, abs=5.0)
    if part is Part.REAL:
        noise = image_set.data - quiet.data
        assert noise.std() == pytest.approx(10.0, rel=0.02)
        # Neighbours at 0.75 acquired voxels: sin(0.75 pi) / (0.75 pi) = 0.30.
        correlation = (noise[..., 1:] * noise[..., :-1]).mean() / noise.var()
        assert correlation == pytest.approx(0.30, abs=0.02)


def test_phase_is_the_background_phase_plus_sign() -> None:
    image_set, _, coverage = scan(IDEAL, RECOVERY, part=Part.PHASE)
    _, _, z = coverage.positions_mm[0]
    row, column = np.rint(coverage.centres[0, 1:]).astype(int)
    phase = image_set.data[:, 0, row, column]
    # Sphere 1 (T1 2 s) is inverted at 50 ms and recovered at 3 s.
    assert phase[-1] == pytest.approx(0.006 * z, abs=0.01)
    assert abs(phase[0] - phase[-1]) == pytest.approx(np.pi, abs=0.01)


def test_root_sum_of_squares_keeps_the_signal() -> None:
    one, _, _ = scan(replace(IDEAL, receive_curvature=0.2), TRAIN)
    many, _, _ = scan(replace(IDEAL, receive_curvature=0.2, n_coils=6), TRAIN)
    assert np.allclose(many.data, one.data, rtol=1e-4, atol=0.01)


def test_receive_field_scales_all_images_alike() -> None:
    plain, _, coverage = scan(IDEAL, RECOVERY, downsampling="box")
    shaded, _, _ = scan(
        replace(IDEAL, receive_curvature=0.3, receive_slope=0.1), RECOVERY, downsampling="box"
    )
    ratio = at_centres(shaded, coverage) / at_centres(plain, coverage)
    assert ratio == pytest.approx(np.broadcast_to(ratio[0], ratio.shape), rel=5e-3)
    x, y, z = coverage.positions_mm[2]
    expected = 1 + 0.3 * (x**2 + y**2 + z**2) / 1e4 + 0.1 * x / 100
    assert ratio[0, 2] == pytest.approx(expected, rel=2e-3)


def test_bias_and_session_change_what_is_seen_and_nothing_else() -> None:
    scanner = replace(IDEAL, t1_bias=0.04, t2_bias=-0.02)
    session = Session(t1_factor=1.01, t2_factor=0.99, gain_factor=0.5)
    image_set, tissue, _ = scan(scanner, RECOVERY, session=session)
    assert tissue.t1_s[:14] == pytest.approx(T1 * 1.04 * 1.01)
    assert tissue.t2_s[:14] == pytest.approx(T2 * 0.98 * 0.99)
    assert image_set.values("inversion_time_s") == pytest.approx(RECOVERY.inversion_times_s)


def test_sessions_vary_as_asked() -> None:
    scanner = replace(
        IDEAL,
        planning_mm=0.5,
        session_sd=0.01,
        gain_session_sd=0.05,
        reposition_mm=2.0,
        reposition_deg=3.0,
        tilt_deg=(1.0, 0.5),
    )
    rng = np.random.default_rng(5)
    sessions = [scanner.draw_session(rng) for _ in range(2000)]
    assert np.std([s.t1_factor for s in sessions]) == pytest.approx(0.01, rel=0.06)
    assert np.std([s.gain_factor for s in sessions]) == pytest.approx(0.05, rel=0.06)
    assert np.std([s.placement.rotation_deg for s in sessions]) == pytest.approx(3.0, rel=0.06)
    assert np.std([s.placement.shift_mm for s in sessions], axis=0) == pytest.approx(
        [2.0, 0.5, 2.0], rel=0.06
    )
    assert {s.placement.tilt_deg for s in sessions} == {(1.0, 0.5)}


def test_same_seed_same_images() -> None:
    noisy = replace(IDEAL, noise_sd=0.01, sphere_sd=0.01)
    assert np.array_equal(scan(noisy, RECOVERY)[0].data, scan(noisy, RECOVERY)[0].data)
    other = acquire(PLATE, RECOVERY, noisy, np.random.default_rng(8))[0]
    assert not np.array_equal(scan(noisy, RECOVERY)[0].data, other.data)


def test_blanked_background_is_zero_outside_only() -> None:
    image_set, _, coverage = scan(replace(IDEAL, noise_sd=0.01, blanks_background=True), RECOVERY)
    assert not image_set.data[:, coverage.body < 0.01].any()
    assert (image_set.data[:, coverage.body > 0.1] > 0).all()


def test_integer_scaling_stores_values_as_they_are() -> None:
    image_set, _, _ = scan(replace(IDEAL, noise_sd=0.01), RECOVERY)
    assert set(image_set.values("scale_slope")) == {1.0}
    back = quantise(image_set, IDEAL)
    assert np.array_equal(back.data, np.rint(image_set.data))
    assert back.clipped is not None
    assert not back.clipped.any()


def test_integer_scaling_clips_at_the_stored_range() -> None:
    bright = replace(IDEAL, gain=9000.0, bits_stored=12, signed=False)
    image_set, _, _ = scan(bright, RECOVERY)
    back = quantise(image_set, bright)
    assert back.data.max() == 4095
    assert back.clipped is not None
    assert np.array_equal(back.clipped, np.rint(image_set.data) >= 4095)


def test_float_scaling_differs_between_series_but_not_within() -> None:
    scanner = replace(IDEAL, vendor="Philips", scaling="float", bits_stored=12, signed=False, gain=1e5)
    recovery, _, _ = scan(scanner, RECOVERY)
    assert np.unique(recovery.values("scale_slope")).size == 5
    train, _, _ = scan(scanner, TRAIN)
    assert np.unique(train.values("scale_slope")).size == 1
    back = quantise(recovery, scanner)
    half_step = recovery.values("scale_slope").max() / 2
    assert np.abs(back.data - recovery.data).max() <= half_step * 1.001
    assert back.clipped is not None
    assert not back.clipped.any()


def test_headroom_below_one_clips_one_image() -> None:
    scanner = replace(IDEAL, vendor="Philips", scaling="float", bits_stored=12, signed=False)
    image_set, _, _ = scan(scanner, RECOVERY, headroom={4: 0.8})
    back = quantise(image_set, scanner)
    assert back.clipped is not None
    clipped = back.clipped.sum(axis=(1, 2, 3))
    assert clipped[4] > 100
    assert not clipped[:4].any()


@pytest.mark.parametrize("signed", [True, False])
def test_signed_parts_survive_storage(signed: bool) -> None:
    scanner = replace(IDEAL, bits_stored=12, signed=signed, noise_sd=0.01)
    for part in (Part.REAL, Part.IMAGINARY, Part.PHASE):
        image_set, _, _ = scan(scanner, RECOVERY, part=part)
        slope = image_set.values("scale_slope").max()
        back = quantise(image_set, scanner)
        # Phase may lie a whole step off, at the end of the turn.
        step = slope if part is Part.PHASE else slope / 2
        assert np.abs(back.data - image_set.data).max() <= step * 1.01
        assert image_set.data.min() < 0


@pytest.mark.parametrize(
    "change",
    [{"gain": 0.0}, {"noise_sd": -1.0}, {"noise_sd": float("nan")}, {"n_coils": 0}, {"bits_stored": 17}],
)
def test_impossible_scanners_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="ideal"):
        replace(IDEAL, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make",
    [
        lambda: InversionRecovery(inversion_times_s=(0.1,), repetition_times_s=(1.0, 2.0)),
        lambda: InversionRecovery(inversion_times_s=(), repetition_times_s=()),
        lambda: InversionRecovery(inversion_times_s=(-0.1,), repetition_times_s=(1.0,)),
        lambda: MultiEchoSpinEcho(n_echoes=100, echo_spacing_s=0.1, repetition_time_s=2.0),
        lambda: MultiEchoSpinEcho(n_echoes=0),
        lambda: VariableFlipAngle(flip_angles_deg=(0.0,)),
        lambda: SpinEcho(echo_time_s=float("inf")),
    ],
)
def test_impossible_sequences_are_refused(make) -> None:
    with pytest.raises(ConfigError):
        make()
