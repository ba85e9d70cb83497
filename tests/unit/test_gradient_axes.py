"""The cord tells whether the components of the directions were exchanged."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from cordqa.errors import InputError
from cordqa.models.diffusion.gradient_axes import check_cord_axis
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.diffusion.scheme_energy import spread_directions
from cordqa.records import Severity, Status

UPRIGHT = np.array([0.02, 0.05, 1.0])
OBLIQUE = np.array([0.1, 0.6, 0.8])


def fitted(axis: np.ndarray, order: tuple[int, ...], signs: tuple[int, ...] = (1, 1, 1)) -> np.ndarray:
    """First eigenvectors of noisy cord voxels, fitted with directions whose components were exchanged."""
    generator = np.random.default_rng(3)
    n = spread_directions(30).directions
    true = GradientTable.linear(np.r_[0.0, np.full(30, 800.0)], np.vstack([np.zeros(3), n]))
    wrong = GradientTable.linear(true.b_values_s_mm2, true.directions[:, list(order)] * signs)
    unit = axis / np.linalg.norm(axis)
    tensor = 0.45 * np.eye(3) + 1.4 * np.outer(unit, unit)
    signal = np.exp(-np.einsum("vij,ij->v", true.b_tensors_ms_um2, tensor))
    noisy = np.abs(signal + 0.04 * generator.normal(size=(200, 31)))
    b = wrong.b_tensors_ms_um2
    pairs = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]
    design = np.column_stack([np.ones(31), *(-b[:, i, j] * (1 if i == j else 2) for i, j in pairs)])
    solution = np.linalg.lstsq(design, np.log(noisy.T), rcond=None)[0][1:]
    matrices = np.empty((200, 3, 3))
    for row, (i, j) in zip(solution, pairs, strict=True):
        matrices[:, i, j] = matrices[:, j, i] = row
    return np.linalg.eigh(matrices)[1][:, :, 2]


def test_a_right_table_passes_and_says_what_it_cannot_see() -> None:
    found = check_cord_axis(fitted(UPRIGHT, (0, 1, 2)), UPRIGHT)
    assert found.status is Status.PASS
    assert found.alignment > 0.95
    assert found.as_notice() is None
    assert "-x +y +z" in found.undetermined  # a flip
    assert "+y +x +z" in found.undetermined  # an exchange across the cord
    assert "cannot be seen" in found.message


@pytest.mark.parametrize("order", [o for o in itertools.permutations(range(3)) if o[2] != 2])
def test_exchanged_components_are_found_and_the_correction_is_right(order: tuple[int, ...]) -> None:
    wrong = fitted(UPRIGHT, order)
    found = check_cord_axis(wrong, UPRIGHT)
    assert found.status is Status.FAIL
    assert found.alignment < 0.8 < found.best_alignment
    notice = found.as_notice()
    assert notice is not None and notice.severity is Severity.ERROR
    source = ["xyz".index(word[1]) for word in found.correction]
    assert check_cord_axis(wrong[:, source], UPRIGHT).status is Status.PASS


def test_a_flip_is_found_where_the_cord_is_oblique() -> None:
    found = check_cord_axis(fitted(OBLIQUE, (0, 1, 2), (1, -1, 1)), OBLIQUE)
    assert found.status is Status.WARN
    assert found.correction in (("+x", "-y", "+z"), ("-x", "-y", "+z"), ("+x", "+y", "-z"))
    assert "sign is probably wrong" in found.message


def test_noise_is_not_blamed_on_the_table() -> None:
    vectors = np.random.default_rng(0).normal(size=(500, 3))
    found = check_cord_axis(vectors, UPRIGHT)
    assert found.status is Status.WARN
    assert "noise" in found.message


def test_a_noisy_exchange_is_still_found() -> None:
    generator = np.random.default_rng(0)
    vectors = np.array([0, 0, 1.0]) + 0.8 * generator.normal(size=(500, 3))
    assert check_cord_axis(vectors, UPRIGHT).alignment < 0.8
    assert check_cord_axis(vectors[:, [0, 2, 1]], UPRIGHT).status is Status.FAIL


def test_a_field_of_tangents_a_mask_and_missing_voxels() -> None:
    vectors = np.zeros((4, 5, 6, 3))
    vectors[..., 2] = 1
    vectors[0] = np.nan
    tangents = np.broadcast_to(UPRIGHT, vectors.shape)
    mask = np.zeros((4, 5, 6), bool)
    mask[:2] = True
    assert check_cord_axis(vectors, tangents, mask=mask).n_voxels == 30
    mask[:] = False
    few = check_cord_axis(vectors, tangents, mask=mask)
    assert few.status is Status.NOT_EVALUATED and few.as_notice() is not None


def test_shapes_that_do_not_belong_together_are_refused() -> None:
    for vectors, axis, mask in (
        (np.ones((5, 2)), UPRIGHT, None),
        (np.ones((5, 3)), np.ones((4, 3)), None),
        (np.ones((5, 3)), UPRIGHT, np.ones(4, bool)),
    ):
        with pytest.raises(InputError):
            check_cord_axis(vectors, axis, mask=mask)


def test_a_real_cord(shared_data) -> None:
    """30 directions at 3 T: the table as it is agrees with the cord, an exchanged one does not."""
    from cordqa.io.volumes import read_volume
    from cordqa.workflow.gradients import find_gradient_files, read_gradients

    folder = shared_data / "cord" / "sct-reference" / "dmri_tutorial"
    image = read_volume(folder / "dmri_moco.nii.gz")
    mask = read_volume(folder / "dmri_dwi_mean_seg.nii.gz").data > 0.5
    mask = np.broadcast_to(mask.reshape(*mask.shape[:2], -1), image.data.shape[:3])
    table, notices = read_gradients(
        image.affine, find_gradient_files(folder / "dmri_moco.nii.gz"), n_volumes=image.data.shape[3]
    )
    assert not notices
    b = table.b_tensors_ms_um2
    pairs = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]
    design = np.column_stack([np.ones(len(table)), *(-b[:, i, j] * (1 if i == j else 2) for i, j in pairs)])
    logs = np.log(np.maximum(image.data[mask], 1.0)).T
    solution = np.linalg.lstsq(design, logs, rcond=None)[0][1:]
    matrices = np.empty((solution.shape[1], 3, 3))
    for row, (i, j) in zip(solution, pairs, strict=True):
        matrices[:, i, j] = matrices[:, j, i] = row
    vectors = np.linalg.eigh(matrices)[1][:, :, 2]
    found = check_cord_axis(vectors, [0.0, 0.0, 1.0])
    assert found.status is Status.PASS and found.alignment > 0.95
    assert check_cord_axis(vectors[:, [0, 2, 1]], [0.0, 0.0, 1.0]).status is Status.FAIL
