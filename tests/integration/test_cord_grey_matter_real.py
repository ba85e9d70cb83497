"""Grey matter in real images: against a mask by hand, and refused where it cannot be seen.

``benchmarks/grey_matter_segmentation.py`` prints the same scores as a table.
"""

from __future__ import annotations

import numpy as np
import pytest

from cordqa.cord.centreline import fit_centreline
from cordqa.cord.grey_matter import GreyMatterNotSeenError, segment_grey_matter
from cordqa.cord.morphometry import measure_tissue_area
from cordqa.cord.segment import segment_cord
from cordqa.io.volumes import read_volume
from cordqa.records import Volume

pytestmark = pytest.mark.data


def _dice(a, b):
    a, b = a > 0.5, b > 0.5
    return 2.0 * (a & b).sum() / (a.sum() + b.sum())


@pytest.fixture(scope="module")
def image(shared_data):
    return read_volume(shared_data / "cord" / "testing" / "t2s" / "t2s.nii.gz")


@pytest.fixture(scope="module")
def by_hand(shared_data):
    return read_volume(shared_data / "cord" / "testing" / "t2s" / "t2s_gmseg_manual.nii.gz").data


@pytest.mark.parametrize("whose", ["given", "built-in"])
def test_grey_matter_agrees_with_a_mask_by_hand(shared_data, image, by_hand, whose):
    if whose == "given":
        cord = read_volume(shared_data / "cord" / "testing" / "t2s" / "t2s_seg.nii.gz")
    else:
        cord = Volume(data=segment_cord(image).mask, affine=image.affine)
    found = segment_grey_matter(image, cord)
    assert _dice(found.mask, by_hand) >= 0.85
    assert found.reasons == ("",) * 9
    area = found.mask.sum() / (by_hand > 0.5).sum()
    assert area == pytest.approx(1.0, abs=0.10)
    # The area per slice follows the mask by hand from the enlargement to the upper neck.
    assert np.corrcoef(found.area_mm2, by_hand.sum(axis=(0, 1)))[0, 1] > 0.85
    table = measure_tissue_area(
        Volume(data=found.mask, affine=image.affine), centreline=fit_centreline(cord), angle_correction=False
    )
    np.testing.assert_allclose(table.values["GM_area"], found.area_mm2, rtol=1e-4)


def test_t2w_at_one_millimetre_shows_no_grey_matter(shared_data):
    folder = shared_data / "cord" / "testing" / "t2"
    with pytest.raises(GreyMatterNotSeenError, match="cannot be told apart"):
        segment_grey_matter(read_volume(folder / "t2.nii.gz"), read_volume(folder / "t2_seg-manual.nii.gz"))


def test_mt_images_show_it_on_most_slices(shared_data):
    image = read_volume(shared_data / "cord" / "tutorial" / "mt" / "mt1.nii.gz")
    found = segment_grey_matter(image, Volume(data=segment_cord(image).mask, affine=image.affine))
    assert np.isfinite(found.area_mm2).sum() >= 15
    assert 0.12 < np.nanmedian(found.share) < 0.26
