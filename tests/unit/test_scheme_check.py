"""Schemes are judged by physics: bad ones are named, good ones pass."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from cordqa.errors import ConfigError
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.diffusion.scheme_check import (
    IDEAL_CONDITION,
    check_scheme,
    direction_condition,
    mean_diffusivity_penalty,
)
from cordqa.models.diffusion.scheme_energy import spread_directions
from cordqa.models.diffusion.scheme_models import SchemeModel
from cordqa.models.diffusion.scheme_verdicts import worst
from cordqa.models.diffusion.schemes import ShellRequest, design_scheme
from cordqa.records import Status, Verdict
from cordqa.workflow.gradients import find_gradient_files, read_gradients


def table(directions: np.ndarray, n_b0: int = 4, b: float = 800.0) -> GradientTable:
    n = np.vstack([np.zeros((n_b0, 3)), directions])
    return GradientTable.linear(np.r_[np.zeros(n_b0), np.full(len(directions), b)], n)


def find(verdicts: tuple[Verdict, ...], word: str) -> Verdict:
    (found,) = [one for one in verdicts if word in one.rule]
    return found


def failed(verdicts: tuple[Verdict, ...]) -> set[str]:
    return {one.rule for one in verdicts if one.status is Status.FAIL}


@pytest.mark.parametrize(
    ("model", "shells"),
    [
        ("dti", [(800, 30, 1.0)]),
        ("dti", [(1000, 6, 1.0)]),
        ("dki", [(1000, 20, 1.0), (2500, 30, 1.0)]),
        ("noddi", [(700, 30, 1.0), (2000, 60, 1.0)]),
        (
            "ufa",
            [
                (700, 6, 1.0),
                (1400, 12, 1.0),
                (2000, 20, 1.0),
                (700, 6, 0.0),
                (1400, 10, 0.0),
                (2000, 16, 0.0),
            ],
        ),
        ("ufa", [(1000, 12, 1.0), (2000, 20, 1.0), (1000, 12, -0.5), (2000, 20, -0.5)]),
    ],
)
def test_what_is_designed_passes(model: SchemeModel, shells: list[tuple[float, int, float]]) -> None:
    made = design_scheme([ShellRequest(b_s_mm2=b, n=n, b_delta=d) for b, n, d in shells])
    verdicts = check_scheme(made.table, model=model)
    assert worst(verdicts) is Status.PASS, [v for v in verdicts if v.status is not Status.PASS]


def test_random_directions_fail() -> None:
    generator = np.random.default_rng(0)
    failures = 0
    for _ in range(40):
        n = generator.normal(size=(30, 3))
        n /= np.linalg.norm(n, axis=1, keepdims=True)
        failures += find(check_scheme(table(n)), "energy").status is Status.FAIL
    assert failures >= 37


def test_five_directions_and_a_plane_have_no_tensor() -> None:
    angles = np.linspace(0, math.pi, 12, endpoint=False)
    flat = np.column_stack([np.cos(angles), np.sin(angles), np.zeros(12)])
    for directions in (spread_directions(5).directions, flat):
        verdicts = check_scheme(table(directions))
        assert find(verdicts, "rank").status is Status.FAIL
        assert find(verdicts, "condition").observed == math.inf


def test_two_close_directions_are_named() -> None:
    n = spread_directions(30).directions.copy()
    n[1] = n[0] + [0.05, 0.0, 0.0]
    n[1] /= np.linalg.norm(n[1])
    angle = find(check_scheme(table(n)), "smallest angle")
    assert angle.status is Status.FAIL and angle.observed < 3


def test_many_directions_may_lie_close() -> None:
    """300 directions cannot keep the eight degrees that 30 can."""
    found = spread_directions(300, starts=1).directions
    verdict = find(check_scheme(table(found, 50)), "smallest angle")
    assert verdict.observed < 8 and verdict.status is Status.PASS


def test_half_a_sphere_is_a_warning_not_a_failure() -> None:
    n = spread_directions(30).directions
    n = n * np.where(n[:, 2:] < 0, -1, 1)
    verdicts = check_scheme(table(n))
    assert find(verdicts, "balance").status is Status.WARN
    assert worst(verdicts) is Status.WARN


def test_averages_stored_as_volumes_are_no_duplicates() -> None:
    n = spread_directions(12).directions
    verdicts = check_scheme(table(np.vstack([n, -n, n, -n]), 8))
    assert worst(verdicts) is Status.PASS
    assert find(verdicts, "more than once").reason == "each of 12 directions was measured 4 times"
    uneven = find(check_scheme(table(np.vstack([n, n[:3]]))), "more than once")
    assert uneven.status is Status.WARN and "3 of 12" in uneven.reason


def test_condition_number_is_ideal_for_an_icosahedron_and_feels_no_rotation() -> None:
    six = spread_directions(6).directions
    assert direction_condition(six) == pytest.approx(IDEAL_CONDITION, abs=1e-4)
    cuboctahedron = np.array(
        [[1, 1, 0], [1, -1, 0], [1, 0, 1], [1, 0, -1], [0, 1, 1], [0, 1, -1]]
    ) / math.sqrt(2)
    assert direction_condition(cuboctahedron) == pytest.approx(2)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    assert direction_condition(cuboctahedron @ turn) == pytest.approx(2)
    assert find(check_scheme(table(cuboctahedron)), "condition").status is Status.WARN
    assert direction_condition(six[:5]) == math.inf


def test_precision_of_md_follows_a_simulation() -> None:
    """One b = 0 volume with 32: the fit of 40,000 noisy voxels scatters as the formula says."""
    generator = np.random.default_rng(0)
    spread = {}
    n = 33
    for n_b0 in (1, 5, 10):
        b = np.r_[np.zeros(n_b0), np.full(n - n_b0, 0.8)]
        signal = np.exp(-0.9 * b) + 0.01 * generator.normal(size=(40_000, n))
        logs = np.log(signal)
        spread[n_b0] = ((logs[:, b == 0].mean(1) - logs[:, b > 0].mean(1)) / 0.8).std()
        directions = spread_directions(n - n_b0).directions
        spread[-n_b0] = mean_diffusivity_penalty(table(directions, n_b0))
    assert spread[1] / spread[10] == pytest.approx(spread[-1] / spread[-10], rel=0.02)
    assert spread[5] / spread[10] == pytest.approx(spread[-5] / spread[-10], rel=0.02)


def test_b0_volumes_are_counted_for_what_they_give() -> None:
    n = spread_directions(30).directions
    assert find(check_scheme(table(n, 1)), "MD").status is Status.WARN
    assert find(check_scheme(table(n, 5)), "MD").status is Status.PASS
    assert mean_diffusivity_penalty(table(n, 0)) == math.inf
    assert "volumes without diffusion weighting" in failed(check_scheme(table(n, 0)))


def test_one_shell_supports_neither_kurtosis_nor_noddi() -> None:
    good = table(spread_directions(64).directions, 8)
    assert "rank for a kurtosis tensor" in failed(check_scheme(good, model="dki"))
    assert any("NODDI" in rule for rule in failed(check_scheme(good, model="noddi")))
    assert "encodings for microscopic anisotropy" in failed(check_scheme(good, model="ufa"))


def test_kurtosis_needs_directions_on_the_top_shell_and_distance() -> None:
    few = design_scheme([ShellRequest(b_s_mm2=1000, n=6), ShellRequest(b_s_mm2=2500, n=6)])
    assert "rank for a kurtosis tensor" in failed(check_scheme(few.table, model="dki"))
    close = design_scheme([ShellRequest(b_s_mm2=1500, n=30), ShellRequest(b_s_mm2=2000, n=30)])
    assert find(check_scheme(close.table, model="dki"), "highest over lowest").status is Status.WARN
    high = design_scheme([ShellRequest(b_s_mm2=1000, n=30), ShellRequest(b_s_mm2=5000, n=30)])
    assert find(check_scheme(high.table, model="dki"), "highest shell").status is Status.WARN


def test_powder_averages_need_six_directions_and_b_in_range() -> None:
    shells = [(1000, 4, 1.0), (2000, 2, 1.0), (1000, 4, 0.0), (2000, 6, 0.0)]
    made = design_scheme([ShellRequest(b_s_mm2=b, n=n, b_delta=d) for b, n, d in shells])
    verdicts = check_scheme(made.table, model="ufa")
    assert {v.observed: v.status for v in verdicts if "powder" in v.rule} == {
        4.0: Status.WARN,
        2.0: Status.FAIL,
    }
    strong = [(1500, 12, 1.0), (3000, 12, 1.0), (1500, 6, 0.0), (3000, 6, 0.0)]
    made = design_scheme([ShellRequest(b_s_mm2=b, n=n, b_delta=d) for b, n, d in strong])
    assert find(check_scheme(made.table, model="ufa"), "largest b").status is Status.WARN


def test_a_tensor_from_strong_weighting_alone_is_a_warning() -> None:
    verdicts = check_scheme(table(spread_directions(30).directions, 4, 3000.0))
    assert find(verdicts, "lowest shell").status is Status.WARN


def test_a_ramp_of_b_values_is_not_judged_as_a_shell() -> None:
    n = spread_directions(30).directions
    ramp = GradientTable.linear(np.r_[0, 0, np.linspace(500, 2000, 30)], np.vstack([np.zeros((2, 3)), n]))
    assert find(check_scheme(ramp), "width").status is Status.WARN


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="dti, dki, ufa, noddi"):
        check_scheme(table(spread_directions(6).directions), model="csd")


def test_nothing_to_judge() -> None:
    assert worst(()) is Status.NOT_EVALUATED


def test_seven_real_schemes(shared_data: Path) -> None:
    """One lies as unevenly as chance; six are good, four of them with something to be said."""
    found = {}
    for path in sorted((shared_data / "diffusion" / "schemes").glob("*.bval")):
        real, _ = read_gradients(None, find_gradient_files(path.with_suffix(".nii.gz")))
        found[path.stem.removeprefix("sub-").removesuffix("_dwi")] = check_scheme(real)
    assert {name for name, verdicts in found.items() if failed(verdicts)} == {"ucl"}
    assert failed(found["ucl"]) == {
        "electrostatic energy over the optimum",
        "smallest angle between directions",
    }
    assert find(found["ucl"], "energy").observed == pytest.approx(1.104, abs=0.001)
    assert find(found["ucl"], "smallest angle").observed == pytest.approx(3.95, abs=0.01)
    warned = {
        name: {one.rule.split(" ")[0] for one in verdicts if one.status is Status.WARN}
        for name, verdicts in found.items()
        if name != "ucl"
    }
    half_sphere, single_b0 = "hemispheric", "precision"
    assert warned == {
        "douglas": {single_b0},
        "juntendo750w": set(),
        "juntendoAchieva": {half_sphere, single_b0},
        "juntendoPrisma": {half_sphere},
        "perform": set(),
        "tokyoSkyra": {half_sphere},
    }
