import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cordqa.errors import InputError
from cordqa.models.susceptibility.dipole import (
    Dipole,
    dipole_kernel,
    forward_field,
    pad_for,
    unit_direction,
    unpredictable_power,
)
from cordqa.models.susceptibility.harmonics import orthonormalise, solid_harmonics


def sphere(direction, voxel, radius=9.0, shape=(40, 40, 40)):
    """Field of a sphere of 1 ppm by the kernel and by the formula, and where to compare them."""
    grid = np.meshgrid(
        *((np.arange(n) - n // 2) * v for n, v in zip(shape, voxel, strict=True)), indexing="ij"
    )
    r = np.sqrt(sum(g**2 for g in grid))
    fine = [
        (g[..., None] + v * (np.arange(4) + 0.5 - 2) / 4)
        for g, v in zip(np.meshgrid(*[np.zeros(1)] * 3), voxel, strict=True)
    ]
    part = np.zeros(shape)
    for dx in fine[0].ravel():
        for dy in fine[1].ravel():
            for dz in fine[2].ravel():
                part += (grid[0] + dx) ** 2 + (grid[1] + dy) ** 2 + (grid[2] + dz) ** 2 < radius**2
    found = forward_field(part / 64, voxel_size_mm=voxel, b0_direction=direction)
    unit = unit_direction(direction)
    cosine = sum(g * u for g, u in zip(grid, unit, strict=True)) / np.maximum(r, 1e-9)
    truth = np.where(r > radius, (radius / np.maximum(r, 1e-9)) ** 3 / 3 * (3 * cosine**2 - 1), 0)
    edge = 2.5 * max(voxel)
    return found, truth, r < radius - edge, (r > radius + edge) & (r < 2 * radius), cosine


@pytest.mark.parametrize(
    ("direction", "voxel"),
    [((0, 0, 1), (1, 1, 1)), ((0, 0.5, 0.8), (1, 1, 1)), ((1, 0.2, 0), (1.2, 0.9, 1.0))],
)
def test_a_sphere_has_the_field_of_the_formula(direction, voxel):
    found, truth, core, shell, _ = sphere(direction, voxel)
    shift = np.median(found[core])
    assert np.abs(found[core] - shift).max() < 0.03
    assert np.sqrt(np.mean((found - shift - truth)[shell] ** 2)) < 0.015


def test_a_paramagnetic_sphere_strengthens_the_field_at_its_poles():
    found, _, _, shell, cosine = sphere((0, 0, 1), (1, 1, 1))
    assert found[shell & (np.abs(cosine) > 0.9)].min() > 0
    assert found[shell & (np.abs(cosine) < 0.2)].max() < 0


def test_the_kernel_keeps_its_bounds_and_its_zero():
    kernel = dipole_kernel((12, 10, 9), (1, 2, 3), (1, 1, 0))
    assert kernel.shape == (12, 10, 5)
    assert kernel.dtype == np.float32
    assert kernel[0, 0, 0] == 0
    assert kernel.min() >= -2 / 3 - 1e-6
    assert kernel.max() <= 1 / 3 + 1e-6


@given(st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: np.linalg.norm(v) > 0.1))
@settings(max_examples=20, deadline=None)
def test_neither_sign_nor_length_of_the_direction_matters(vector):
    first = dipole_kernel((8, 6, 6), (1, 1, 2), vector)
    assert np.allclose(first, dipole_kernel((8, 6, 6), (1, 1, 2), [-3 * v for v in vector]), atol=1e-6)


def test_turning_the_image_turns_the_field():
    chi = np.zeros((16, 16, 16))
    chi[5:9, 6:12, 7:9] = 0.1
    one = forward_field(chi, voxel_size_mm=(1, 1, 1), b0_direction=(0, 0.3, 0.9))
    turned = forward_field(np.moveaxis(chi, 0, 2), voxel_size_mm=(1, 1, 1), b0_direction=(0.3, 0.9, 0))
    assert np.allclose(np.moveaxis(one, 0, 2), turned, atol=1e-6)


@pytest.mark.parametrize("bad", [(0, 0, 0), (np.nan, 0, 1), (1, 2), (np.inf, 0, 0)])
def test_an_unusable_direction_is_refused(bad):
    with pytest.raises(InputError, match="direction of the main field"):
        unit_direction(bad)


def test_padding_gives_room_and_brings_back():
    rng = np.random.default_rng(0)
    mask = np.zeros((30, 28, 10), bool)
    mask[10:16, 2:12, :] = True
    padding = pad_for(mask)
    image = rng.standard_normal(mask.shape)
    assert padding.open_sides == ((False, False), (False, False), (True, True))
    assert padding.shape[2] >= 10 + 28
    assert np.allclose(padding.crop(padding.embed(image))[mask], image[mask])
    tissue = padding.extend_mask(mask)
    assert tissue.sum() == mask[:, :, 0].sum() * (10 + 28)
    assert padding.embed_mask(mask).sum() == mask.sum()


def test_a_mask_in_a_corner_is_padded_all_round():
    mask = np.zeros((9, 9, 9), bool)
    mask[0, 8, 4] = True
    padding = pad_for(mask)
    assert padding.embed_mask(mask).sum() == 1
    assert min(padding.shape) >= 17


def test_convolution_is_symmetric():
    rng = np.random.default_rng(1)
    dipole = Dipole((12, 15, 10), (1, 1, 2), (0.1, 0.2, 1))
    a, b = (rng.standard_normal((12, 15, 10)).astype(np.float32) for _ in range(2))
    assert np.vdot(a, dipole(b)) == pytest.approx(np.vdot(dipole(a), b), rel=1e-3)


def test_solid_harmonics_obey_laplace():
    mask = np.ones((9, 9, 9), bool)
    for column in solid_harmonics(mask, np.array([1.0, 1.5, 0.7]), 4).T:
        f = column.reshape(mask.shape)
        bend = sum(
            np.diff(f, 2, axis=a)[tuple(slice(1, -1) if i != a else slice(None) for i in range(3))] / v**2
            for a, v in enumerate((1.0, 1.5, 0.7))
        )
        # Seven points are exact to third order only.
        assert np.abs(bend).max() < 0.05 * max(np.ptp(f), 1)


def test_the_basis_is_orthonormal_and_spans_the_weighted_harmonics():
    rng = np.random.default_rng(2)
    mask = rng.random((10, 9, 8)) > 0.4
    weight = rng.random(mask.sum()) + 0.1
    basis = orthonormalise((solid_harmonics(mask, np.ones(3), 3) * weight[:, None]).astype(np.float32))
    assert basis.shape[1] == 16
    assert np.allclose(basis.T @ basis, np.eye(16), atol=1e-5)
    shape = solid_harmonics(mask, np.ones(3), 3)[:, 5] * weight
    assert np.allclose(basis @ (basis.T @ shape), shape, atol=1e-5)


def test_a_mask_of_one_slice_has_fewer_harmonics():
    mask = np.ones((8, 8, 1), bool)
    assert orthonormalise(solid_harmonics(mask, np.ones(3), 3).astype(np.float32)).shape[1] < 16


def test_the_kernel_is_that_of_theory_at_low_frequencies():
    direction, voxel, shape = unit_direction((0.2, -0.5, 1)), np.array([1.0, 0.8, 2.0]), (60, 50, 40)
    kernel = dipole_kernel(shape, voxel, direction)
    for index in ((1, 0, 0), (0, 2, 1), (-3, 1, 2), (4, -3, 1)):
        k = np.array(index) / (np.array(shape) * voxel)
        assert kernel[index] == pytest.approx(1 / 3 - (k @ direction) ** 2 / (k @ k), abs=0.005)


def test_the_highest_frequency_of_an_even_grid_has_both_signs():
    kernel = dipole_kernel((8, 8, 8), (1, 1, 1), (1, 0.5, 0.3))
    for axis in (0, 1):
        face = np.take(kernel, 4, axis=axis)
        mirrored = np.roll(face[::-1], 1, axis=0)
        assert np.allclose(face[:, 0], mirrored[:, 0], atol=1e-6)


def test_only_a_tilt_makes_much_of_the_field_unpredictable():
    voxel, shape = (1.0, 1.0, 1.0), (24, 24, 24)
    axial, tilted = (unpredictable_power(shape, voxel, b) for b in ((0, 0, 1), (0, 0.5, 0.866)))
    for power in (axial, tilted):
        assert np.all(np.isfinite(power) & (power >= 0))
        assert power[0, 0, 0] == 0
        assert power[1, 1, 1] < 0.1 * power.max()
    assert tilted.mean() > 2 * axial.mean()
