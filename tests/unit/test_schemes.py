"""Design of schemes: the energy and its optimum, signs, order, time."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from cordqa.errors import ConfigError
from cordqa.models.diffusion.scheme_energy import (
    best_energy,
    closest_angle_deg,
    electrostatic_energy,
    spread_directions,
    spread_shells,
    unique_directions,
)
from cordqa.models.diffusion.scheme_optima import BEST_ENERGIES
from cordqa.models.diffusion.scheme_order import (
    axis_load,
    balance_signs,
    imbalance,
    order_volumes,
    place_unweighted,
)
from cordqa.models.diffusion.scheme_time import Budget, ScanTiming
from cordqa.models.diffusion.schemes import ShellRequest, default_b0_count, design_scheme, fill_budget

#: Independent values of the optimum, to the digits given.
PUBLISHED = {6: 23.083, 12: 108.79, 20: 325.549, 30: 764.432, 60: 3222.41, 64: 3680.74}


def random_rotation(seed: int = 0) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]


@pytest.mark.parametrize(("n", "energy"), PUBLISHED.items())
def test_the_optimum_is_reached_from_any_seed(n: int, energy: float) -> None:
    for seed in range(3):
        found = spread_directions(n, seed=seed)
        assert found.energy == pytest.approx(electrostatic_energy(found.directions), rel=1e-9)
        assert found.energy <= best_energy(n)[0] * (1 + 1e-5)
        assert found.energy == pytest.approx(energy, abs=0.006)
        assert found.ratio == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("n", [7, 11, 16, 27, 41, 50, 72, 90])
def test_other_numbers_reach_the_table(n: int) -> None:
    assert spread_directions(n).energy <= BEST_ENERGIES[n] * (1 + 1e-5)


def test_sixty_four_directions_take_less_than_0_3_s() -> None:
    spread_directions(12)
    times = []
    for seed in range(4):
        start = time.process_time()
        spread_directions(64, seed=seed)
        times.append(time.process_time() - start)
    assert min(times) < 0.3


def test_few_directions_are_the_regular_solids() -> None:
    assert closest_angle_deg(spread_directions(2).directions) == pytest.approx(90)
    assert closest_angle_deg(spread_directions(3).directions) == pytest.approx(90)
    icosahedron = math.degrees(math.acos(1 / math.sqrt(5)))
    assert closest_angle_deg(spread_directions(6).directions) == pytest.approx(icosahedron, abs=1e-3)
    assert spread_directions(1).directions.shape == (1, 3)
    for n in (1, 2, 3, 4, 5):
        assert spread_directions(n).energy == pytest.approx(best_energy(n)[0], abs=1e-6)


def test_the_table_follows_the_expansion_and_so_do_larger_numbers() -> None:
    from cordqa.models.diffusion.scheme_energy import _expansion

    ratios = [_expansion(n) / energy for n, energy in BEST_ENERGIES.items() if n >= 40]
    assert np.abs(np.array(ratios) - 1).max() < 1e-4
    energy, searched = best_energy(200)
    assert not searched
    assert spread_directions(200, starts=1).energy / energy == pytest.approx(1, abs=5e-4)


def test_energy_does_not_feel_sign_rotation_or_length() -> None:
    n = spread_directions(13).directions
    signs = np.random.default_rng(0).choice([-1, 1], (13, 1))
    assert electrostatic_energy(3 * signs * n @ random_rotation()) == pytest.approx(electrostatic_energy(n))
    assert electrostatic_energy(np.vstack([n, -n[:1]])) == math.inf
    assert electrostatic_energy(n[:1]) == 0


def test_closest_angle_keeps_small_angles() -> None:
    tiny = 1e-7
    assert closest_angle_deg([[1, 0, 0], [-1, tiny, 0]]) == pytest.approx(math.degrees(tiny))
    assert math.isnan(closest_angle_deg([[1, 0, 0]]))


def test_unique_directions_count_repeats() -> None:
    n = spread_directions(6).directions
    unique, counts = unique_directions(np.vstack([n, -n, n[:2]]))
    assert unique.shape == (6, 3) and counts.tolist() == [3, 3, 2, 2, 2, 2]


def test_the_seed_decides() -> None:
    np.testing.assert_array_equal(
        spread_directions(20, seed=4).directions, spread_directions(20, seed=4).directions
    )
    assert not np.allclose(spread_directions(20, seed=4).directions, spread_directions(20, seed=5).directions)


def test_several_shells_are_good_each_and_together() -> None:
    found = spread_shells((20, 30))
    assert found.ratio < 1.005
    union = electrostatic_energy(found.directions) / best_energy(50)[0]
    assert union < 1.005
    apart = np.vstack([spread_directions(20).directions, spread_directions(30, seed=1).directions])
    assert electrostatic_energy(apart) / best_energy(50)[0] > union


@pytest.mark.parametrize("counts", [(), (0,), (2000,), (10, 0)])
def test_impossible_numbers_are_refused(counts: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError):
        spread_shells(counts)
    with pytest.raises(ConfigError):
        spread_directions(6, starts=0)
    with pytest.raises(ConfigError):
        best_energy(0)


@pytest.mark.parametrize(("n", "limit"), [(6, 0.25), (12, 0.06), (30, 0.03), (64, 0.02)])
def test_signs_fill_the_whole_sphere(n: int, limit: float) -> None:
    half = spread_directions(n).directions
    half = half * np.where(half[:, 2:] < 0, -1, 1)
    assert imbalance(half) > 0.3
    full = balance_signs(half)
    assert imbalance(full) < limit
    np.testing.assert_array_equal(np.abs(full), np.abs(half))


def test_signs_fill_every_shell() -> None:
    found = spread_shells((12, 20)).directions
    shells = np.repeat([0, 1], [12, 20])
    full = balance_signs(found, shells)
    assert max(imbalance(full[shells == 0]), imbalance(full[shells == 1]), imbalance(full)) < 0.06
    assert balance_signs(found[:1]).shape == (1, 3)


def test_a_scan_cut_short_is_well_spread() -> None:
    n = spread_directions(40).directions
    order = order_volumes(n, np.zeros(40, int), np.ones(40))
    assert sorted(order) == list(range(40))
    for k in (10, 20, 30):
        ratio = electrostatic_energy(n[order[:k]]) / best_energy(k)[0]
        generator = np.random.default_rng(0)
        chance = [
            electrostatic_energy(n[generator.choice(40, k, replace=False)]) / best_energy(k)[0]
            for _ in range(20)
        ]
        assert ratio < np.mean(chance)


def test_work_moves_between_the_coils() -> None:
    n = spread_directions(60).directions
    b = np.full(60, 1000.0)
    ordered = n[order_volumes(n, np.zeros(60, int), b)]
    by_axis = n[np.argsort(np.abs(n[:, 2]))]
    assert axis_load(ordered, b) < 0.6 < axis_load(by_axis, b)
    assert axis_load([[1, 0, 0]] * 6, [500.0] * 6) == 1
    assert math.isnan(axis_load(np.zeros((0, 3)), []))


def test_shells_are_interleaved() -> None:
    shells = np.repeat([0, 1], [10, 20])
    order = order_volumes(spread_shells((10, 20)).directions, shells, np.repeat([1000.0, 2500], [10, 20]))
    places = np.flatnonzero(shells[order] == 0)
    assert np.diff(places).max() <= 4


def test_b0_volumes_bracket_the_scan() -> None:
    placed = np.flatnonzero(place_unweighted(30, 5))
    assert placed[0] == 0 and placed[-1] == 34 and len(placed) == 5
    assert np.ptp(np.diff(placed)) <= 1
    assert np.flatnonzero(place_unweighted(6, 1)).tolist() == [0]
    assert not place_unweighted(6, 0).any()


def test_a_single_shell_for_the_cord() -> None:
    made = design_scheme([ShellRequest(b_s_mm2=800, n=30)], n_b0=5)
    assert len(made.table) == 35 and made.table.is_b0.sum() == 5
    directions = made.table.directions[~made.table.is_b0]
    assert electrostatic_energy(directions) <= best_energy(30)[0] * (1 + 1e-5)
    assert np.all(made.table.b_delta == 1)
    assert default_b0_count(30) == 4 and default_b0_count(3) == 2


def test_sets_of_b_tensors() -> None:
    made = design_scheme(
        [
            ShellRequest(b_s_mm2=2000, n=20),
            ShellRequest(b_s_mm2=2000, n=12, b_delta=-0.5),
            ShellRequest(b_s_mm2=2000, n=10, b_delta=0.0),
        ]
    )
    table = made.table
    spherical = made.shell_of_volume == 2
    assert np.all(table.directions[spherical] == 0) and np.all(table.b_delta[spherical] == 0)
    traces = np.trace(table.b_tensors_ms_um2, axis1=1, axis2=2)
    np.testing.assert_allclose(traces, table.b_ms_um2)
    assert np.isnan(made.pulse_pairs).all()


def test_double_diffusion_encoding_lists_both_pulses() -> None:
    made = design_scheme(
        [
            ShellRequest(b_s_mm2=2000, n=12),
            ShellRequest(b_s_mm2=2000, n=12, b_delta=-0.5, perpendicular_pulses=True),
        ]
    )
    pairs = made.pulse_pairs[made.shell_of_volume == 1]
    np.testing.assert_allclose(
        np.einsum("nij,nkj->nik", pairs, pairs), np.tile(np.eye(2), (12, 1, 1)), atol=1e-12
    )
    # Two equal pulses at right angles are a plane whose normal is the direction of the table.
    halves = 0.5 * 2.0 * np.einsum("nij,nik->njk", pairs, pairs)
    np.testing.assert_allclose(halves, made.table.b_tensors_ms_um2[made.shell_of_volume == 1], atol=1e-12)
    assert np.isnan(made.pulse_pairs[made.shell_of_volume == 0]).all()


def test_the_same_seed_gives_the_same_scheme() -> None:
    request = [ShellRequest(b_s_mm2=1000, n=12), ShellRequest(b_s_mm2=2500, n=20)]
    first, again = (design_scheme(request, seed=7).table for _ in range(2))
    np.testing.assert_array_equal(first.directions, again.directions)
    assert not np.allclose(first.directions, design_scheme(request, seed=8).table.directions)


@pytest.mark.parametrize(
    "bad",
    [
        {"b_s_mm2": 1.0},
        {"b_s_mm2": float("nan")},
        {"b_s_mm2": 1e6},
        {"b_s_mm2": 1000, "n": 0},
        {"b_s_mm2": 1000, "b_delta": 2.0},
        {"b_s_mm2": 1000, "b_delta": float("nan")},
        {"b_s_mm2": 1000, "perpendicular_pulses": True},
    ],
)
def test_impossible_shells_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        ShellRequest(**bad)


def test_contradictions_are_refused() -> None:
    shell = ShellRequest(b_s_mm2=1000, n=10)
    for shells, n_b0 in (
        ([], None),
        ([shell, shell], None),
        ([ShellRequest(b_s_mm2=900)], None),
        ([shell], -1),
    ):
        with pytest.raises(ConfigError):
            design_scheme(shells, n_b0=n_b0)
    with pytest.raises(ConfigError, match="too many"):
        design_scheme([ShellRequest(b_s_mm2=b, n=600) for b in (500, 1000)])


def test_scan_time_is_simple_arithmetic() -> None:
    plain = ScanTiming(repetition_time_s=3.5)
    assert plain.total_s(34) == pytest.approx(119)
    banded = ScanTiming(slices=16, multiband=2, slice_time_s=0.1, averages=2, dummies=3, preparation_s=10)
    assert banded.volume_s == pytest.approx(0.8)
    assert banded.total_s(40) == pytest.approx(10 + 83 * 0.8)
    assert "16 slices / multiband 2 = 8 excitations" in banded.arithmetic(40)[0]
    triggered = ScanTiming(slices=15, heart_rate_per_min=60, slices_per_beat=4)
    assert triggered.volume_s == pytest.approx(4)
    assert any(
        "no multiple" in line
        for line in ScanTiming(repetition_time_s=2, slices=15, multiband=2).arithmetic(3)
    )


def test_volumes_within_inverts_the_total() -> None:
    for timing in (
        ScanTiming(repetition_time_s=3.1),
        ScanTiming(slices=16, multiband=2, slice_time_s=0.1, averages=3, dummies=2, preparation_s=7),
    ):
        for n in (1, 7, 50):
            assert timing.volumes_within(timing.total_s(n)) == n
            assert timing.volumes_within(timing.total_s(n) - 0.01) == n - 1
    assert ScanTiming(repetition_time_s=3).volumes_within(1) == 0


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"repetition_time_s": 3500},
        {"repetition_time_s": 0},
        {"repetition_time_s": float("nan")},
        {"repetition_time_s": 3, "multiband": 4},
        {"repetition_time_s": 3, "multiband": 0},
        {"repetition_time_s": 1, "slices": 16, "slice_time_s": 0.1},
        {"repetition_time_s": 3, "heart_rate_per_min": 60, "slices": 4, "slices_per_beat": 2},
        {"heart_rate_per_min": 60},
        {"heart_rate_per_min": 1, "slices": 4, "slices_per_beat": 2},
        {"repetition_time_s": 3, "averages": 0},
        {"repetition_time_s": 3, "preparation_s": float("inf")},
        {"repetition_time_s": 3, "slices": 1, "multiband": 2},
        {"slice_time_s": 0.1},
    ],
)
def test_impossible_timings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        ScanTiming(**bad)


def test_the_budget_is_filled_and_not_overdrawn() -> None:
    timing = ScanTiming(repetition_time_s=3.5)
    budget = Budget(others_s=600)
    shells = fill_budget([ShellRequest(b_s_mm2=1000), ShellRequest(b_s_mm2=2500)], timing, budget)
    n = [shell.n or 0 for shell in shells]
    volumes = sum(n) + default_b0_count(sum(n))
    assert timing.total_s(volumes) <= 300 < timing.total_s(volumes + 2)
    assert n[1] / n[0] == pytest.approx(2.5, rel=0.1)
    given = fill_budget(
        [ShellRequest(b_s_mm2=1000, n=20), ShellRequest(b_s_mm2=2500)], timing, budget, n_b0=5
    )
    assert given[0].n == 20 and given[1].n == 85 - 25


def test_what_does_not_fit_is_refused_with_the_sums() -> None:
    timing = ScanTiming(repetition_time_s=3.5)
    with pytest.raises(ConfigError, match=r"338 volumes x 3\.5 s = 19:43 min.*at most 257 volumes"):
        fill_budget([ShellRequest(b_s_mm2=800, n=300)], timing, Budget())
    with pytest.raises(ConfigError, match="does not fit"):
        fill_budget([ShellRequest(b_s_mm2=b) for b in (500, 1000)], timing, Budget(total_s=40))
    with pytest.raises(ConfigError, match="nothing is left"):
        Budget(total_s=600, others_s=600)
    with pytest.raises(ConfigError):
        Budget(total_s=float("nan"))
