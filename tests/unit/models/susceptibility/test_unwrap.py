import numpy as np
import pytest
from helpers_susceptibility import brain

from cordqa.models.susceptibility.unwrap import (
    edge_quality,
    find_neighbours,
    unwrap_echoes,
    unwrap_spatially,
    wrap,
)


def turns(found, truth):
    """Wrong multiples of 2 pi, up to one common to all."""
    k = np.round((found - truth) / (2 * np.pi))
    return k - np.median(k, axis=0)


def ramp(shape=(16, 14, 6), slope=1.1):
    x, y, z = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    return slope * x + 0.4 * y - 0.3 * z + 0.02 * x * y


def test_wrap_keeps_to_one_turn_and_its_branch():
    phase = np.linspace(-20, 20, 1001)
    assert np.abs(wrap(phase)).max() <= np.pi + 1e-12
    assert np.allclose(np.exp(1j * wrap(phase)), np.exp(1j * phase))


@pytest.mark.parametrize("shape", [(40,), (12, 9), (7, 6, 5)])
def test_a_smooth_phase_of_any_dimension_is_unwrapped_exactly(shape):
    truth = sum(0.9 * g for g in np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")).ravel()
    neighbours = find_neighbours(np.ones(shape, bool))
    wrapped = wrap(truth)
    found, piece = unwrap_spatially(wrapped, neighbours, edge_quality(wrapped, neighbours))
    assert np.all(piece == piece[0])
    assert np.ptp(found - truth) < 1e-9


def test_pieces_are_told_apart_and_each_is_right():
    mask = np.ones((20, 8, 4), bool)
    mask[9:11] = False
    truth = ramp((20, 8, 4))[mask]
    neighbours = find_neighbours(mask)
    wrapped = wrap(truth)
    found, piece = unwrap_spatially(wrapped, neighbours, edge_quality(wrapped, neighbours))
    assert set(np.unique(piece)) == {0, 1}
    for number in (0, 1):
        assert np.ptp((found - truth)[piece == number]) < 1e-9


def test_a_path_goes_round_a_noisy_patch():
    rng = np.random.default_rng(0)
    truth = ramp((20, 20, 4), slope=0.5)
    phase = truth.copy()
    phase[8:12, 8:12] = rng.uniform(-np.pi, np.pi, (4, 4, 4))
    mask = np.ones(truth.shape, bool)
    neighbours = find_neighbours(mask)
    wrapped = wrap(phase).ravel()
    found, _ = unwrap_spatially(wrapped, neighbours, edge_quality(wrapped, neighbours))
    good = np.ones(truth.shape, bool)
    good[7:13, 7:13] = False
    assert np.all(turns(found, truth.ravel())[good.ravel()] == 0)


def echoes(mask, times, field_hz, rng=None, sd=0.0):
    phase = 0.7 + 2 * np.pi * field_hz[..., None] * times
    if rng is not None:
        phase = phase + sd * rng.standard_normal(phase.shape)
    return wrap(phase), np.ones(phase.shape) * mask[..., None], phase


@pytest.mark.parametrize("n_echoes", [2, 3, 6])
def test_several_echoes_follow_a_field_of_many_turns(n_echoes):
    times = 0.004 + 0.005 * np.arange(n_echoes)
    mask = np.ones((16, 14, 6), bool)
    field = 12 * (ramp() - 8)
    wrapped, magnitude, truth = echoes(mask, times, field, np.random.default_rng(1), 0.05)
    found = unwrap_echoes(wrapped, magnitude, times, mask)
    assert np.ptp(truth[mask]) > 5 * np.pi
    assert np.all(turns(found, truth[mask]) == 0)


def test_one_echo_is_unwrapped_in_space_alone():
    mask = np.ones((16, 14, 6), bool)
    wrapped, magnitude, truth = echoes(mask, np.array([0.02]), ramp())
    found = unwrap_echoes(wrapped, magnitude, np.array([0.02]), mask)
    assert found.shape == (mask.sum(), 1)
    assert np.all(turns(found, truth[mask]) == 0)


def test_zero_magnitude_does_not_spread():
    times = np.array([0.004, 0.009, 0.014])
    mask = np.ones((16, 14, 6), bool)
    wrapped, magnitude, truth = echoes(mask, times, 12 * (ramp() - 8))
    magnitude[5:7, 5:7], wrapped[5:7, 5:7] = 0.0, 0.0
    found = unwrap_echoes(wrapped, magnitude, times, mask)
    dead = magnitude[mask].sum(1) == 0
    assert np.all(turns(found, truth[mask])[~dead] == 0)
    assert np.all(np.isfinite(found))


def test_nan_stays_where_it_is():
    times = np.array([0.004, 0.009, 0.014])
    mask = np.ones((16, 14, 6), bool)
    wrapped, magnitude, truth = echoes(mask, times, 12 * (ramp() - 8))
    wrapped[8, 7, 3, 1], magnitude[4, 4, 4, 0] = np.nan, np.inf
    found = unwrap_echoes(wrapped, magnitude, times, mask)
    lost = np.zeros(mask.shape, bool)
    lost[8, 7, 3] = lost[4, 4, 4] = True
    assert np.array_equal(np.isnan(found).any(1), lost[mask])
    good = ~lost[mask]
    assert np.all(turns(found[good], truth[mask][good]) == 0)


def test_the_result_is_a_multiple_of_a_turn_away():
    scan = brain()
    times = np.array(scan.scanner.echo_times_s)
    found = unwrap_echoes(scan.phase.astype(float), scan.magnitude.astype(float), times, scan.mask)
    k = (found - scan.phase[scan.mask]) / (2 * np.pi)
    assert np.allclose(k, np.round(k), atol=1e-6)


@pytest.mark.data
def test_shared_phantoms_have_hardly_a_wrong_wrap(shared_data):
    nibabel = pytest.importorskip("nibabel")
    import json

    for kind, limit in (("cord", 0.0), ("brain", 0.06)):
        folder = shared_data / "qsm" / kind

        def read(name, folder=folder):
            return np.asarray(nibabel.load(folder / f"{name}.nii.gz").dataobj, dtype=float)

        p = json.loads((folder / "params.json").read_text())
        times, mask = np.array(p["TE"]), read("mask") > 0
        found = unwrap_echoes(read("phase"), read("magnitude"), times, mask)
        rest = found - 2 * np.pi * p["gamma_MHz_T"] * p["B0"] * read("gt_totalfield")[mask][:, None] * times
        rest -= np.angle(np.exp(1j * rest).mean(1))[:, None]
        wrong = np.round(rest / (2 * np.pi))
        wrong -= np.median(wrong, axis=0)
        assert 100 * np.mean(wrong[:, -1] != 0) <= limit
