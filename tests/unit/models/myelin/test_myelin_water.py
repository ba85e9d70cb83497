"""Myelin water: solver against scipy, echoes against isochromats, recovery, noise, bad input."""

import numpy as np
import pytest
from scipy.optimize import nnls

from cordqa.errors import InputError
from cordqa.models.myelin.echo_basis import EchoGrid, angle_to_node, make_basis, node_to_angle
from cordqa.models.myelin.neighbours import NeighbourSpectra, smooth_angles, spectra_of_neighbours
from cordqa.models.myelin.nonnegative import solve_nonnegative
from cordqa.models.myelin.spectra import REGULARISATIONS, Smoothing, fit_spectra
from cordqa.models.myelin.water_fraction import MyelinWater, fit_myelin_water
from cordqa.models.relaxometry.slice_profile import windowed_sinc_profile

GRID = EchoGrid(n_echoes=32, echo_spacing_s=0.010)
SETTINGS = MyelinWater(grid=GRID)


def isochromat_echoes(t2: float, t1: float, angle_deg: float, n_echoes=32, spacing=0.010, n=300):
    """A CPMG train by rotating many isochromats: no phase graph, no recursion of orders."""
    off = 2 * np.pi * (np.arange(n) + 0.5) / n  # precession during half an echo spacing
    m = np.zeros((3, n))
    m[1] = np.sin(np.radians(angle_deg / 2))
    m[2] = np.cos(np.radians(angle_deg / 2))
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    e1, e2 = np.exp(-spacing / 2 / t1), np.exp(-spacing / 2 / t2)

    def precess(m):
        x = e2 * (np.cos(off) * m[0] - np.sin(off) * m[1])
        y = e2 * (np.sin(off) * m[0] + np.cos(off) * m[1])
        return np.stack([x, y, 1 + e1 * (m[2] - 1)])

    echoes = []
    for _ in range(n_echoes):
        m = precess(m)
        # Refocusing about y, along the excited magnetization.
        m = np.stack([c * m[0] + s * m[2], m[1], -s * m[0] + c * m[2]])
        m = precess(m)
        echoes.append(m[1].mean())
    return np.array(echoes)


def truth(fraction, angle, t2=(0.018, 0.075), t1=(0.8, 1.1)):
    """Signals of two waters whose T2 lie between those of the basis and whose T1 differ from its."""
    short, long = (isochromat_echoes(t, one, angle) for t, one in zip(t2, t1, strict=True))
    return fraction * short + (1 - fraction) * long


def test_solver_finds_what_scipy_finds():
    rng = np.random.default_rng(0)
    decays = make_basis(GRID).at(angle_to_node(rng.uniform(90, 180, 40)))
    signal = np.abs(truth(0.15, 150.0) + rng.normal(0, 0.01, (40, 32)))
    gram = decays.swapaxes(1, 2) @ decays
    linear = (decays.swapaxes(1, 2) @ signal[:, :, None])[:, :, 0]
    for ridge in (1e-6, 1e-3, 1.0):
        for blocks in (False, True):
            found = solve_nonnegative(gram, linear, np.full(40, ridge), np.zeros((40, 40)), blocks=blocks)
            assert found.converged.all()
            assert (found.x >= 0).all()
            for a, b, x in zip(decays, signal, found.x, strict=True):
                stacked = np.vstack([a, np.sqrt(ridge) * np.eye(40)])
                best = nnls(stacked, np.concatenate([b, np.zeros(40)]))[1]
                mine = np.sqrt(((b - a @ x) ** 2).sum() + ridge * (x**2).sum())
                assert mine == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("angle", [100.0, 137.3, 180.0])
def test_interpolated_decays_are_those_of_isochromats(angle):
    basis = make_basis(GRID)
    decay = basis.at(np.array([angle_to_node(np.asarray(angle))]))[0]
    for column in (0, 13, 30):
        wanted = isochromat_echoes(GRID.t2_s[column], 1.0, angle)
        np.testing.assert_allclose(decay[:, column], wanted, atol=5e-6)
    assert node_to_angle(angle_to_node(np.asarray(angle))) == pytest.approx(angle)


def test_derivative_of_the_decays_is_their_slope():
    basis = make_basis(GRID)
    node, amplitude = np.array([0.3, 0.011]), np.random.default_rng(0).uniform(0, 1, (2, 40))
    step = 1e-5

    def signal(at):
        return np.einsum("met,mt->me", basis.at(at), amplitude)

    slope = (signal(node + step) - signal(node - step)) / (2 * step)
    np.testing.assert_allclose(basis.derivative(node, amplitude), slope, atol=1e-5)


def test_noise_free_fractions_and_angles_come_back():
    for fraction in (0.05, 0.12, 0.20):
        for angle in (120.0, 150.0, 170.0):
            fit = fit_myelin_water(truth(fraction, angle, t1=(1.0, 1.0))[None], SETTINGS)
            assert fit.values["MWF"][0] == pytest.approx(100 * fraction, abs=0.5)
            assert fit.values["refocusing_angle"][0] == pytest.approx(angle, abs=0.24)
            assert fit.values["T2IE"][0] == pytest.approx(75.0, rel=0.01)


def angle_bound_deg(fraction, angle, snr):
    """Cramer-Rao bound of the angle for two waters of unknown amplitude and T2."""
    at = np.array([fraction, 1 - fraction, 0.018, 0.075, angle])

    def signal(p):
        return p[0] * isochromat_echoes(p[2], 1.0, p[4]) + p[1] * isochromat_echoes(p[3], 1.0, p[4])

    steps = np.diag(1e-4 * at)
    slopes = np.stack([(signal(at + d) - signal(at - d)) / (2 * d.sum()) for d in steps], axis=1)
    return np.sqrt(np.linalg.inv(slopes.T @ slopes)[-1, -1]) / snr


@pytest.mark.parametrize(("snr", "rmse"), [(100, 6.1), (200, 3.7), (500, 2.7)])
def test_errors_with_noise_stay_in_their_bounds(snr, rmse):
    rng = np.random.default_rng(snr)
    off, angles = [], []
    for fraction in (0.05, 0.12, 0.20):
        clean = truth(fraction, 150.0)
        fit = fit_myelin_water(clean + rng.normal(0, 1 / snr, (150, 32)), SETTINGS)
        off.append(fit.values["MWF"] - 100 * fraction)
        angles.append((fit.values["refocusing_angle"] - 150) / angle_bound_deg(fraction, 150.0, snr))
        stated = np.sqrt(np.mean(fit.standard_errors["MWF"] ** 2))
        assert stated == pytest.approx(fit.values["MWF"].std(), rel=0.3)
    assert np.sqrt(np.mean(np.square(off))) < rmse
    # No unbiased estimate is better than 1; the spread of an RMS of 450 is 0.033.
    assert np.sqrt(np.mean(np.square(angles))) < 1.15


def test_a_wrong_fixed_angle_destroys_the_fraction():
    clean = truth(0.20, 120.0)[None]
    fixed = fit_myelin_water(clean, SETTINGS, refocusing_angle_deg=180.0)
    assert np.isnan(fixed.values["MWF"][0]) or fixed.values["MWF"][0] < 5
    assert fit_myelin_water(clean, SETTINGS, refocusing_angle_deg=120.0).values["MWF"][0] > 18


@pytest.mark.parametrize("rule", REGULARISATIONS)
def test_every_rule_gives_the_residual_that_it_promises(rule):
    rng = np.random.default_rng(3)
    noise = 0.004
    signal = truth(0.15, 150.0) + rng.normal(0, noise, (60, 32))
    found = fit_spectra(signal, make_basis(GRID), Smoothing(rule=rule), noise_sd=np.full(60, noise))
    factor = found.chi2 / found.least_chi2
    assert found.converged.all()
    assert (factor >= 1 - 1e-6).all()
    if rule == "chi2":
        np.testing.assert_allclose(factor, 1.02, atol=0.0012)
    if rule == "discrepancy":
        above = found.least_chi2 < 0.98 * 32 * noise**2
        np.testing.assert_allclose(found.chi2[above], 32 * noise**2, rtol=0.03)
    settings = MyelinWater(grid=GRID, smoothing=Smoothing(rule=rule))
    maps = fit_myelin_water(signal, settings, noise_sd=noise)
    assert settings.smoothing.words in maps.model
    assert abs(maps.values["MWF"].mean() - 15) < 4


def test_bootstrap_agrees_with_propagation_and_does_not_depend_on_company():
    signal = truth(0.15, 140.0) + np.random.default_rng(4).normal(0, 0.004, (12, 32))
    drawn = fit_myelin_water(signal, MyelinWater(grid=GRID, bootstrap=40))
    linear = fit_myelin_water(signal, SETTINGS)
    ratio = drawn.standard_errors["MWF"] / linear.standard_errors["MWF"]
    assert 0.7 < np.median(ratio) < 1.4
    alone = fit_myelin_water(signal[5:6], MyelinWater(grid=GRID, bootstrap=40))
    assert alone.standard_errors["MWF"][0] == pytest.approx(drawn.standard_errors["MWF"][5], rel=1e-6)


def test_neighbours_lessen_the_error_and_keep_the_angle_map_smooth():
    rng = np.random.default_rng(5)
    shape = (8, 8, 4)
    i = np.indices(shape)[0]
    angles = (140 + 2.0 * i).ravel()
    curves = {a: truth(0.12, a) for a in np.unique(angles)}
    data = np.stack([curves[a] for a in angles]) + rng.normal(0, 0.01, (256, 32))
    mask = np.ones(shape, dtype=bool)
    alone = fit_myelin_water(data, SETTINGS)
    smooth = smooth_angles(alone.values["refocusing_angle"], mask, (2.0, 2.0, 2.0), fwhm_mm=10.0)
    before = np.sqrt(np.mean((alone.values["refocusing_angle"] - angles) ** 2))
    assert np.sqrt(np.mean((smooth - angles) ** 2)) < before / 2
    near = spectra_of_neighbours(
        data, SETTINGS, mask, (2.0, 2.0, 2.0), angle_deg=smooth, fwhm_mm=4.0, weight=0.05
    )
    np.testing.assert_allclose(near.spectrum.sum(axis=1), 1.0, atol=1e-5)
    pulled = fit_myelin_water(data, SETTINGS, refocusing_angle_deg=smooth, neighbours=near)

    def rmse(fit):
        return np.sqrt(np.mean((fit.values["MWF"] - 12) ** 2))

    assert rmse(pulled) < 0.8 * rmse(alone)
    lonely = NeighbourSpectra(np.zeros_like(near.spectrum), 0.05)
    same = fit_myelin_water(data[:3], SETTINGS, neighbours=NeighbourSpectra(lonely.spectrum[:3], 0.05))
    np.testing.assert_allclose(same.values["MWF"], alone.values["MWF"][:3], rtol=1e-4, atol=0.01)


def test_a_voxel_without_neighbours_has_no_mean():
    mask = np.zeros((9, 9, 9), dtype=bool)
    mask[0, 0, 0] = mask[8, 8, 8] = True
    data = np.stack([truth(0.1, 150.0)] * 2)
    near = spectra_of_neighbours(data, SETTINGS, mask, (2.0, 2.0, 2.0), fwhm_mm=4.0, weight=0.1)
    assert (near.spectrum == 0).all()
    angle = smooth_angles(np.array([150.0, np.nan]), mask, (2.0, 2.0, 2.0), fwhm_mm=4.0)
    assert angle[0] == pytest.approx(150.0, abs=1e-6)
    assert np.isnan(angle[1])


def test_every_hole_has_a_reason():
    clean = truth(0.15, 150.0)
    data = np.stack([clean, clean, clean, clean, clean, clean, 0 * clean])
    data[1, 4] = np.nan
    data[2] *= -1
    data[3] = np.random.default_rng(0).permutation(clean)
    data[4] = clean[::-1]
    data[5] = 1.0
    fit = fit_myelin_water(data, SETTINGS)
    assert [fit.reasons.at(n) for n in range(7)] == [
        "",
        "an echo is missing",
        "a magnitude is negative",
        "no sum of decays fits these echoes; are they in order?",
        "no sum of decays fits these echoes; are they in order?",
        "",
        "no signal",
    ]
    # A signal that does not decay is long T2 only, not myelin.
    assert fit.values["MWF"][5] < 1
    for values in fit.values.values():
        assert not np.isfinite(values[[1, 2, 3, 4, 6]]).any()
    empty = fit_myelin_water(np.empty((0, 32)), SETTINGS)
    assert empty.values["MWF"].shape == (0,)


def test_scale_does_not_matter():
    data = truth(0.15, 150.0) + np.random.default_rng(6).normal(0, 0.005, (20, 32))
    small, large = (fit_myelin_water(scale * data, SETTINGS) for scale in (1e-6, 1e6))
    np.testing.assert_allclose(small.values["MWF"], large.values["MWF"], rtol=1e-6)
    np.testing.assert_allclose(1e12 * small.values["M0"], large.values["M0"], rtol=1e-6)


def test_slice_profile_is_part_of_the_basis():
    profile = windowed_sinc_profile(1.2)
    signal = make_basis(GRID, profile).at(np.array([angle_to_node(np.asarray(160.0))]))[0][:, [4, 15]] @ [
        0.2,
        0.8,
    ]
    fit = fit_myelin_water(signal[None], MyelinWater(grid=GRID, profile=profile))
    assert fit.values["MWF"][0] == pytest.approx(20, abs=0.5)
    assert fit.values["refocusing_angle"][0] == pytest.approx(160, abs=0.5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: EchoGrid(n_echoes=32, echo_spacing_s=10.0), "seconds"),
        (lambda: EchoGrid(n_echoes=32, echo_spacing_s=0.01, t2_range_s=(2.0, 0.01)), "grid"),
        (lambda: MyelinWater(grid=EchoGrid(n_echoes=8, echo_spacing_s=0.08)), "nothing of myelin water"),
        (lambda: MyelinWater(grid=GRID, myelin_t2_s=0.3), "windows"),
        (lambda: MyelinWater(grid=GRID, bootstrap=1), "two draws"),
        (lambda: Smoothing(chi2_factor=0.9), "between 1 and 10"),
        (lambda: Smoothing(rule="magic"), "no such regularisation"),
        (lambda: fit_myelin_water(np.ones((3, 31)), SETTINGS), "last axis"),
        (
            lambda: fit_myelin_water(
                np.ones((3, 32)), MyelinWater(grid=GRID, smoothing=Smoothing(rule="discrepancy"))
            ),
            "needs the noise",
        ),
        (
            lambda: smooth_angles(np.ones(1), np.ones((1, 1, 1), bool), (1.0, 1.0, 1.0), fwhm_mm=-1),
            "width",
        ),
    ],
)
def test_wrong_settings_are_named(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_a_fraction_of_zero_is_not_known_without_error():
    rng = np.random.default_rng(7)
    clean = truth(0.02, 150.0)
    fit = fit_myelin_water(clean + rng.normal(0, 1 / 150, (200, 32)), SETTINGS)
    none = fit.values["MWF"] == 0
    assert none.mean() > 0.1
    stated = fit.standard_errors["MWF"]
    assert stated[none].min() > 0.3 * np.median(stated)
