"""From the numbers of gradient files to a checked table: each kind of bad input has its own error."""

from __future__ import annotations

import numpy as np
import pytest

from cordqa.errors import ConfigError, InputError
from cordqa.models.diffusion.gradient_checks import check_gradients, orient_directions
from cordqa.models.diffusion.gradient_errors import (
    BTensorError,
    BUnitError,
    BValueError,
    DirectionNormError,
    GradientError,
    GradientLengthError,
    MissingDirectionError,
    NoReferenceError,
    OrientationError,
)
from cordqa.models.diffusion.gradient_frames import (
    directions_from_array_axes,
    directions_to_array_axes,
    rotation_of_affine,
)
from cordqa.models.diffusion.gradient_shells import find_b0_limit, find_shells, group_values
from cordqa.models.diffusion.gradient_tensors import shapes_from_words, split_b_tensors
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.records import Severity

RADIOLOGICAL = np.diag([-2.0, 2.0, 5.0, 1.0])
NEUROLOGICAL = np.diag([2.0, 2.0, 5.0, 1.0])


def directions(n: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def scheme(n: int = 12, n_b0: int = 2, b: float = 1000.0) -> tuple[np.ndarray, np.ndarray]:
    values = np.r_[np.zeros(n_b0), np.full(n, b)]
    return values, np.vstack([np.zeros((n_b0, 3)), directions(n)])


def test_fsl_directions_lose_their_flip() -> None:
    b, n = scheme()
    same = check_gradients(b, n.T, affine=RADIOLOGICAL).table
    np.testing.assert_allclose(same.directions, n, atol=1e-12)
    flipped = check_gradients(b, n.T, affine=NEUROLOGICAL).table
    np.testing.assert_allclose(flipped.directions, n * [-1, 1, 1], atol=1e-12)


def test_scanner_axes_are_turned_into_array_axes() -> None:
    b, n = scheme()
    angle = np.radians(25)
    tilt = np.eye(3)
    tilt[1:, 1:] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = np.eye(4)
    affine[:3, :3] = tilt @ np.diag([-2.0, 2.0, 5.0])
    table = check_gradients(b, n, affine=affine, frame="world").table
    expected = n @ (tilt @ np.diag([-1.0, 1, 1]))  # R'n, R without the voxel size
    np.testing.assert_allclose(table.directions, expected, atol=1e-12)


@pytest.mark.parametrize("affine", [RADIOLOGICAL, NEUROLOGICAL, None])
@pytest.mark.parametrize("frame", ["fsl", "world", "array"])
def test_frames_have_an_inverse(affine: np.ndarray | None, frame: str) -> None:
    n = directions(7)
    there = directions_to_array_axes(n, frame, affine)
    np.testing.assert_allclose(directions_from_array_axes(there, frame, affine), n, atol=1e-12)


def test_sheared_or_singular_affine_is_refused() -> None:
    sheared = np.eye(4)
    sheared[0, 1] = 0.2
    with pytest.raises(InputError, match="not perpendicular"):
        rotation_of_affine(sheared)
    with pytest.raises(InputError, match="singular"):
        rotation_of_affine(np.diag([1.0, 1.0, 0.0, 1.0]))
    with pytest.raises(InputError, match="not a 4 x 4"):
        rotation_of_affine(np.full((4, 4), np.nan))


@pytest.mark.parametrize(("factor", "unit"), [(1e-3, "ms/um2"), (1e6, "s/m2")])
def test_other_units_are_refused_and_named_and_converted_on_request(factor: float, unit: str) -> None:
    b, n = scheme()
    with pytest.raises(BUnitError, match=unit):
        check_gradients(b * factor, n)
    checked = check_gradients(b * factor, n, b_unit=unit)
    np.testing.assert_allclose(checked.table.b_values_s_mm2, b)
    assert [notice.code for notice in checked.notices] == ["gradients.b-unit"]


def test_a_wrong_unit_on_request_is_refused_too() -> None:
    b, n = scheme()
    with pytest.raises(BUnitError, match="1e\\+06 s/mm2"):
        check_gradients(b, n, b_unit="ms/um2")
    with pytest.raises(ConfigError):
        check_gradients(b, n, b_unit="furlong")


def test_ms_um2_never_becomes_all_b0() -> None:
    """Three shells of 0, 1 and 2.5 must not pass for 41 unweighted volumes."""
    b = np.r_[0.0, np.ones(20), np.full(20, 2.5)]
    with pytest.raises(BUnitError):
        check_gradients(b, np.vstack([np.zeros(3), directions(40)]))


@pytest.mark.parametrize("bad", [np.nan, -5.0, np.inf])
def test_impossible_b_values_are_named_with_their_volume(bad: float) -> None:
    b, n = scheme()
    b[4] = bad
    with pytest.raises(BValueError, match="volume 5"):
        check_gradients(b, n)


def test_no_weighting_at_all_is_refused() -> None:
    with pytest.raises(BUnitError, match="no volume has diffusion weighting"):
        check_gradients(np.zeros(5), np.zeros((5, 3)))


def test_weak_volumes_alone_are_no_weighting() -> None:
    """Everything at or below the limit of b = 0 would be a table of unweighted volumes."""
    with pytest.raises(BUnitError, match="no volume has diffusion weighting"):
        check_gradients(np.r_[0.0, np.full(6, 40.0)], np.vstack([np.zeros(3), directions(6)]))


def test_lengths_that_make_impossible_b_values_are_refused() -> None:
    b, n = scheme()
    with pytest.raises(BUnitError, match="beyond any scanner"):
        check_gradients(b, 20 * n, norms="scale-b")


def test_low_shells_need_unit_vectors_where_they_count_as_weighted() -> None:
    b, n = scheme()
    b[2:5] = 30.0
    n[2:5] *= 0.5
    assert check_gradients(b, n).table.is_b0.sum() == 5
    with pytest.raises(DirectionNormError):
        check_gradients(b, n, b0_limit_s_mm2=10)


def test_lengths_name_all_counts() -> None:
    b, n = scheme()
    with pytest.raises(GradientLengthError, match="14 b-values, 13 directions, 15 volumes in the image"):
        check_gradients(b, n[1:], n_volumes=15)
    with pytest.raises(GradientLengthError, match="3 encoding shapes"):
        check_gradients(b, n, b_delta=[1, 1, 0])
    with pytest.raises(GradientLengthError, match="empty"):
        check_gradients([], np.zeros((0, 3)))


def test_both_orientations_are_read() -> None:
    b, n = scheme()
    for given in (n, n.T):
        np.testing.assert_allclose(check_gradients(b, given, frame="array").table.directions, n)


def test_three_volumes_are_read_only_where_one_reading_is_possible() -> None:
    n = directions(3)
    with_b0 = np.vstack([np.zeros(3), n[:2]])
    b = np.array([0.0, 1000, 1000])
    for given in (with_b0, with_b0.T):
        checked = check_gradients(b, given, frame="array")
        np.testing.assert_allclose(checked.table.directions, with_b0)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    b = np.array([500.0, 1000, 2000])
    with pytest.raises(OrientationError, match="cannot be told apart"):
        check_gradients(b, rotation, frame="array")
    settled = check_gradients(b, rotation, frame="array", rows_are="volumes")
    np.testing.assert_allclose(settled.table.directions, rotation)
    np.testing.assert_allclose(check_gradients(b, np.eye(3), frame="array").table.directions, np.eye(3))


def test_directions_without_three_components_are_refused() -> None:
    with pytest.raises(OrientationError, match="MRtrix"):
        orient_directions(np.ones((7, 4)))
    with pytest.raises(OrientationError):
        orient_directions(np.ones(9))
    with pytest.raises(OrientationError):
        orient_directions(np.ones((3, 7)), rows_are="volumes")


def test_rounded_directions_are_normalised() -> None:
    b, n = scheme()
    table = check_gradients(b, np.round(n, 3)).table
    np.testing.assert_allclose(np.linalg.norm(table.directions[2:], axis=1), 1, atol=1e-12)


def test_wrong_lengths_are_refused_and_what_they_may_hide_is_said() -> None:
    """A length of 0.97 taken for 1 is a mistake of 6 % in b, which dipy makes in silence."""
    b, n = scheme()
    with pytest.raises(DirectionNormError, match=r"lengths 0\.970 to 0\.970"):
        check_gradients(b, 0.97 * n)
    hidden = n.copy()
    hidden[2:8] *= np.sqrt(0.5)
    with pytest.raises(DirectionNormError, match="b times squared length would be 500 s/mm2"):
        check_gradients(b, hidden)


def test_hidden_shells_are_unfolded_on_request() -> None:
    """One nominal b of 2000 and lengths that encode the rest, b = 0 included."""
    true_b, n = scheme(12, 2, 2000.0)
    true_b[2:8] = 1000.0
    hidden = n * np.sqrt(true_b / 2000.0)[:, None]
    nominal = np.full(true_b.size, 2000.0)
    with pytest.raises(DirectionNormError):
        check_gradients(nominal, hidden, allow_no_b0=True)
    checked = check_gradients(nominal, hidden, norms="scale-b", frame="array")
    np.testing.assert_allclose(checked.table.b_values_s_mm2, true_b)
    np.testing.assert_allclose(checked.table.directions[2:], n[2:])
    ignored = check_gradients(true_b, 0.97 * n, norms="normalise")
    assert ignored.notices[0].code == "gradients.norm"
    with pytest.raises(ConfigError):
        check_gradients(true_b, n, norms="whatever")


def test_weighted_volume_without_direction_is_refused() -> None:
    b, n = scheme()
    n[5] = 0
    with pytest.raises(MissingDirectionError, match=r"volume 6;.*trace-weighted"):
        check_gradients(b, n)
    n[5] = np.nan
    with pytest.raises(MissingDirectionError):
        check_gradients(b, n)


def test_b0_needs_no_direction_and_spherical_encoding_none_either() -> None:
    b, n = scheme()
    n[0] = np.nan
    delta = np.ones(b.size)
    n[5:9], delta[5:9] = 0.0, 0.0
    table = check_gradients(b, n, b_delta=delta).table
    assert np.all(table.directions[[0, 5, 6]] == 0)
    assert np.isfinite(table.b_tensors_ms_um2).all()
    alone = check_gradients(b, None, b_delta=0.0).table
    assert np.all(alone.b_delta == 0)


@pytest.mark.parametrize("delta", [-0.6, 1.2, np.nan])
def test_impossible_shapes_are_refused(delta: float) -> None:
    b, n = scheme()
    with pytest.raises(BTensorError, match="b_delta"):
        check_gradients(b, n, b_delta=delta)


@pytest.mark.parametrize("nominal", [0.0, 5.0, 10.0, 45.0])
def test_nominal_zero_may_be_stored_as_something_small(nominal: float) -> None:
    limit, notices = find_b0_limit(np.r_[nominal, nominal, np.full(9, 800.0)])
    assert limit == 50 and not notices


def test_a_shifted_b0_is_found_and_said() -> None:
    limit, notices = find_b0_limit(np.r_[60.0, 61, np.full(9, 800.0)])
    assert limit == 61
    assert notices[0].severity is Severity.WARNING and notices[0].code == "gradients.b0-shifted"
    limit, notices = find_b0_limit(np.r_[40.0, 50, 58, np.full(9, 800.0)])
    assert limit == 58 and notices


def test_low_shells_are_not_b0() -> None:
    limit, notices = find_b0_limit([0, 0, 100, 100, 700, 2000])
    assert limit == 50 and not notices
    limit, notices = find_b0_limit([0, 10, 20, 30, 50, 80, 100, 200, 400, 800])
    assert limit == 50 and notices[0].code == "gradients.b0-mixed"


def test_no_b0_is_refused_with_one_shell_and_said_with_two() -> None:
    with pytest.raises(NoReferenceError, match="cannot be told apart"):
        find_b0_limit(np.r_[np.full(6, 795.0), np.full(6, 805.0)])
    _, notices = find_b0_limit(np.full(6, 800.0), allow_none=True)
    assert notices[0].code == "gradients.no-b0"
    _, notices = find_b0_limit(np.r_[np.full(6, 500.0), np.full(6, 1000.0)])
    assert notices[0].code == "gradients.no-b0"
    _, notices = find_b0_limit(np.r_[np.full(6, 150.0), np.full(6, 1000.0)])
    assert notices[0].code == "gradients.no-b0"


def test_a_limit_that_was_named_is_used_or_refused() -> None:
    b, n = scheme()
    b[:2] = 90
    n[:2] = directions(2, 5)
    assert check_gradients(b, n, b0_limit_s_mm2=100).table.is_b0.sum() == 2
    with pytest.raises(ConfigError):
        check_gradients(b, n, b0_limit_s_mm2=1000)
    with pytest.raises(ConfigError):
        check_gradients(b, n, b0_limit_s_mm2=np.nan)


def test_shells_gather_what_scanners_spread() -> None:
    b = np.r_[0, 5, 990, 995, 1000, 1005, 1995, 2000, 2010, 2000]
    delta = np.r_[np.ones(9), 0]
    n = np.vstack([np.zeros((2, 3)), directions(7), np.zeros(3)])
    table = GradientTable(b_values_s_mm2=b.astype(float), directions=n, b_delta=delta)
    shells = find_shells(table)
    assert [(shell.b_s_mm2, shell.b_delta, shell.volumes.size) for shell in shells] == [
        (997.5, 1.0, 4),
        (2000.0, 1.0, 3),
        (2000.0, 0.0, 1),
    ]
    assert shells[1].name == "b = 2000 s/mm2, linear"
    assert shells[0].width_s_mm2 == 15


def test_a_ramp_is_no_shell() -> None:
    b = np.r_[0, np.arange(500.0, 2001, 20)]
    table = GradientTable.linear(b, np.vstack([np.zeros(3), directions(b.size - 1)]))
    (shell,) = find_shells(table)
    assert shell.width_s_mm2 > 0.2 * shell.b_s_mm2


def test_groups_of_nothing_and_of_one() -> None:
    assert group_values([], 1.0).size == 0
    assert group_values([3.0], 1.0).tolist() == [0]
    assert group_values([3.0, 1.0, 3.5], 1.0).tolist() == [1, 0, 1]


def test_b_tensors_come_apart_as_they_were_made() -> None:
    b, n = scheme(9, 1, 1500.0)
    delta = np.array([1.0, 1, 1, -0.5, -0.5, -0.5, 0.5, 0.0, 0.0, 1])
    n[delta == 0] = 0
    table = GradientTable(b_values_s_mm2=b, directions=n, b_delta=delta)
    parts = split_b_tensors(table.b_tensors_ms_um2 * 1e3)
    np.testing.assert_allclose(parts.b_values, b, atol=1e-9)
    weighted = b > 0
    np.testing.assert_allclose(parts.b_delta[weighted], delta[weighted], atol=1e-9)
    cosine = np.abs(np.sum(parts.directions * n, axis=1))
    np.testing.assert_allclose(cosine[weighted & (delta != 0)], 1, atol=1e-9)


@pytest.mark.parametrize(
    ("tensor", "word"),
    [
        (np.diag([600.0, 300, 100]), "about an axis"),
        (np.diag([1200.0, -100, -100]), "negative"),
        (np.array([[1.0, 2, 0], [0, 1, 0], [0, 0, 1]]), "not symmetric"),
        (np.full((3, 3), np.nan), "numbers"),
    ],
)
def test_b_tensors_without_a_shape_are_refused(tensor: np.ndarray, word: str) -> None:
    with pytest.raises(BTensorError, match=word):
        split_b_tensors([np.diag([1000.0, 0, 0]), tensor])
    with pytest.raises(BTensorError, match="wrong shape"):
        split_b_tensors(np.ones((4, 6)))


def test_words_of_shapes() -> None:
    assert shapes_from_words(["LTE", "pte", "STE", "CTE"]).tolist() == [1.0, -0.5, 0.0, 0.5]
    assert shapes_from_words("STE").tolist() == [0.0]
    with pytest.raises(BTensorError, match="XTE"):
        shapes_from_words(["LTE", "XTE"])


def test_b_tensors_agree_with_dipy() -> None:
    gradients = pytest.importorskip("dipy.core.gradients")
    b, n = scheme(8, 0, 1000.0)
    words = np.array(["LTE", "LTE", "PTE", "PTE", "STE", "STE", "CTE", "CTE"])
    theirs = gradients.gradient_table(b, bvecs=n, btens=words, b0_threshold=50).btens
    ours = GradientTable(b_values_s_mm2=b, directions=n, b_delta=shapes_from_words(list(words)))
    np.testing.assert_allclose(ours.b_tensors_ms_um2 * 1e3, theirs, atol=1e-8)


def test_all_errors_are_of_one_family_with_a_code_each() -> None:
    kinds = GradientError.__subclasses__()
    assert len({kind.code for kind in kinds}) == len(kinds)
    assert all(kind.exit_status == 2 for kind in kinds)
