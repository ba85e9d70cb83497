import numpy as np
import pytest
from helpers_susceptibility import brain, cord, detrended_error, geometry, inside

from cordqa.errors import InputError
from cordqa.models.susceptibility.background_laplace import remove_by_boundary
from cordqa.models.susceptibility.background_smv import (
    remove_by_iterated_means,
    remove_by_regularised_means,
    remove_by_varying_means,
)
from cordqa.models.susceptibility.background_sources import fill_holes, remove_by_projection

METHODS = {
    "pdf": remove_by_projection,
    "lbv": lambda f, m, b0_direction, **k: remove_by_boundary(f, m, **k),
    "v-sharp": lambda f, m, b0_direction, **k: remove_by_varying_means(f, m, **k),
    "resharp": lambda f, m, b0_direction, **k: remove_by_regularised_means(f, m, **k),
    "ismv": lambda f, m, b0_direction, **k: remove_by_iterated_means(f, m, **k),
}


@pytest.fixture(params=sorted(METHODS))
def remove(request):
    return METHODS[request.param]


def test_most_of_the_background_goes(remove):
    scan = brain()
    found = remove(inside(scan, scan.total_field_ppm), scan.mask, **geometry(scan))
    before = detrended_error(scan.total_field_ppm, scan.local_field_ppm, found.valid)
    after = detrended_error(found.local_ppm, scan.local_field_ppm, found.valid)
    assert after < 0.25 * before
    assert after < 100


def test_parts_add_up_and_stay_in_the_mask(remove):
    scan = brain()
    total = inside(scan, scan.total_field_ppm)
    found = remove(total, scan.mask, **geometry(scan))
    assert not np.any(found.valid & ~scan.mask)
    assert np.allclose((found.local_ppm + found.background_ppm)[found.valid], total[found.valid])
    assert np.all(np.isnan(found.local_ppm[~found.valid]))
    assert found.kept_fraction == pytest.approx(found.valid.sum() / scan.mask.sum())
    assert bool(found.notices) == (found.kept_fraction < 0.95)
    assert found.method.endswith(".")


def test_a_harmonic_field_is_background_altogether(remove):
    mask = np.zeros((24, 24, 24), bool)
    mask[4:20, 4:20, 4:20] = True
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, 24) for _ in range(3)), indexing="ij")
    total = 0.3 * x * y + 0.2 * (2 * z * z - x * x - y * y) + 0.5 * z
    found = remove(total, mask, voxel_size_mm=(1, 1, 1), b0_direction=(0, 0, 1))
    assert np.nanstd(found.local_ppm) < 0.05 * total[mask].std()


@pytest.mark.parametrize("name", ["v-sharp", "resharp", "ismv"])
def test_radii_made_for_a_brain_leave_something_of_a_cord(name):
    scan = cord()
    found = METHODS[name](inside(scan, scan.total_field_ppm), scan.mask, **geometry(scan))
    assert found.kept_fraction > 0.4
    assert "keeps only" in found.notices[0]


def test_projection_keeps_the_whole_cord():
    scan = cord()
    found = remove_by_projection(inside(scan, scan.total_field_ppm), scan.mask, **geometry(scan))
    assert found.kept_fraction == 1.0


def test_holes_are_no_place_for_sources():
    scan = brain()
    mask = scan.mask.copy()
    mask[18:21, 18:21, 16:19] = False
    whole = remove_by_projection(inside(scan, scan.total_field_ppm), scan.mask, **geometry(scan))
    holed = remove_by_projection(np.where(mask, scan.total_field_ppm, np.nan), mask, **geometry(scan))
    assert fill_holes(mask).sum() >= scan.mask.sum()
    assert np.nanstd((whole.local_ppm - holed.local_ppm)[mask]) < 0.1 * np.nanstd(whole.local_ppm)


def test_nan_in_the_field_is_a_hole(remove):
    scan = brain()
    total = inside(scan, scan.total_field_ppm)
    total[20, 20, 18] = np.nan
    found = remove(total, scan.mask, **geometry(scan))
    assert not found.valid[20, 20, 18]
    assert np.all(np.isfinite(found.local_ppm[found.valid]))


def test_impossible_input_is_named(remove):
    field = np.zeros((8, 8, 8))
    with pytest.raises(InputError, match="one shape"):
        remove(field, np.ones((8, 8, 7), bool), voxel_size_mm=(1, 1, 1), b0_direction=(0, 0, 1))
    with pytest.raises(InputError, match="no value inside the mask"):
        remove(field, np.zeros((8, 8, 8), bool), voxel_size_mm=(1, 1, 1), b0_direction=(0, 0, 1))


@pytest.mark.parametrize("name", ["lbv", "v-sharp", "resharp", "ismv"])
def test_a_thread_of_voxels_is_refused(name):
    mask = np.zeros((8, 8, 8), bool)
    mask[4, 4, :] = True
    with pytest.raises(InputError, match=r"too thin|no voxel of the mask"):
        METHODS[name](np.ones((8, 8, 8)), mask, voxel_size_mm=(1, 1, 1), b0_direction=(0, 0, 1))
