"""Label tables, the schematic atlas, and atlases that already lie in an image."""

from __future__ import annotations

import numpy as np
import pytest

from cordqa.cord.atlas import gather_atlas, parse_label_table
from cordqa.cord.atlas_shapes import GREY_SHARE, analytical_labels, analytical_sections
from cordqa.cord.section_sampling import section_axis
from cordqa.errors import InputError
from cordqa.records import Volume

TABLE = """# made for this test
# Keyword=IndivLabels
0, left tract (a, b), one.nii.gz
1, right tract, two.nii.gz
2, GM horn, three.nii.gz
3, CSF contour, four.nii.gz
# Keyword=CombinedLabels
50, spinal cord, 0:2
51, white matter, 0,1
# Keyword=MAPLabels
white matter, 0:1
gray matter, 2
CSF, 3
"""


def test_label_table_is_understood():
    labels = parse_label_table(TABLE)
    assert labels.names[0] == "left tract (a, b)"
    assert labels.find("cord").members == (0, 1, 2)
    assert labels.find("WM").members == (0, 1)
    assert labels.find("CSF").members == (3,)
    assert dict(labels.tissues) == {"WM": (0, 1), "GM": (2,), "CSF": (3,)}


@pytest.mark.parametrize(
    ("old", "new"), [("0:2", "0:9"), ("0:2", "x"), ("1, right", "7, right"), ("IndivLabels", "Nothing")]
)
def test_a_broken_table_is_named(old, new):
    with pytest.raises(InputError, match="label"):
        parse_label_table(TABLE.replace(old, new), source="info.txt")


def test_unknown_region_lists_the_known():
    with pytest.raises(InputError, match="right tract"):
        parse_label_table(TABLE).find("nowhere")


def test_schematic_sections_are_whole_and_symmetric():
    sections = analytical_sections()
    total = sections.fractions.sum(axis=1)
    assert total.max() <= 1 + 1e-6
    axis = section_axis()
    u, v = np.meshgrid(axis, axis, indexing="ij")
    assert np.allclose(total[:, np.hypot(u, v) < 2.4], 1.0, atol=1e-6), "no hole in cord and CSF"
    labels = sections.labels
    for name in labels.names:
        if name.startswith("left "):
            left = sections.fractions[:, labels.names.index(name)]
            right = sections.fractions[:, labels.names.index("right" + name[4:])]
            assert np.allclose(left, right[:, ::-1], atol=1e-6), name
            assert (left.sum(axis=(1, 2)) > 0).all(), name
            assert left[:, axis > 0.11].sum() == 0, "right is right"


def test_grey_matter_fills_its_share_at_each_level():
    sections = analytical_sections()
    cord, grey = sections.labels.find("cord"), sections.labels.find("GM")
    found = sections.fractions[:, list(grey.members)].sum(axis=(1, 2, 3)) / sections.fractions[
        :, list(cord.members)
    ].sum(axis=(1, 2, 3))
    assert np.allclose(found, np.interp(sections.coordinate, *np.array(GREY_SHARE).T), atol=0.01)


def test_parts_lie_where_they_belong():
    sections = analytical_sections()
    axis = section_axis()

    def middle(name):
        members = list(sections.labels.find(name).members)
        weight = sections.fractions[4, members].sum(axis=0)
        return (weight.sum(axis=1) @ np.abs(axis) / weight.sum(), weight.sum(axis=0) @ axis / weight.sum())

    assert middle("DC")[1] < -0.3
    assert middle("VF")[1] > 0.3
    assert middle("LF")[0] > middle("DC")[0]
    assert middle("dorsal horn")[1] < middle("ventral horn")[1]
    assert middle("fasciculus gracilis")[0] < middle("fasciculus cuneatus")[0]


def test_only_groups_are_meant_for_measurement():
    labels = analytical_labels()
    exact = {name for name, region in labels.regions.items() if not region.approximate}
    assert exact == {"cord", "WM", "GM", "DC", "LF", "VF", "CSF"}
    groups = [set(labels.find(n).members) for n in ("DC", "LF", "VF")]
    assert set.union(*groups) == set(labels.find("WM").members)
    assert sum(map(len, groups)) == len(labels.find("WM").members)


def test_an_atlas_is_gathered_from_volumes():
    labels = parse_label_table(TABLE)
    rng = np.random.default_rng(1)
    arrays = np.zeros((4, 8, 7, 5), dtype=np.float32)
    arrays[:, 2:5, 3:6, 1:3] = rng.dirichlet(np.ones(4), size=(3, 3, 2)).transpose(3, 0, 1, 2)
    volumes = [Volume(data=a, affine=np.eye(4)) for a in arrays]
    atlas = gather_atlas(volumes, labels)
    assert atlas.weights.shape == (4, 3, 3, 2)
    assert np.array_equal(atlas.paint(labels.find("GM")), arrays[2])
    assert atlas.covered_slices().tolist() == [1, 2]
    with pytest.raises(InputError, match="one volume per label"):
        gather_atlas(volumes[:3], labels)
    with pytest.raises(InputError, match="fractions"):
        gather_atlas([*volumes[:3], Volume(data=arrays[0] * 100, affine=np.eye(4))], labels)
    empty = gather_atlas([Volume(data=a * 0, affine=np.eye(4)) for a in arrays], labels)
    assert empty.covered_slices().size == 0
