"""Laying sections into masks: place, turn, size and partial volume of a planted atlas."""

from __future__ import annotations

import numpy as np
import pytest
from helpers_cord import cylinder, reoriented

from cordqa.cord.atlas import parse_label_table
from cordqa.cord.atlas_shapes import analytical_sections
from cordqa.cord.extraction import extract_regions
from cordqa.cord.template import (
    lay_atlas,
    sections_from_arrays,
    sections_from_template,
    sections_to_arrays,
)
from cordqa.errors import EmptyInputError, InputError
from cordqa.records import Volume

TABLE = """# Keyword=IndivLabels
0, WM right, a
1, WM left, b
2, GM, c
3, CSF, d
# Keyword=CombinedLabels
50, spinal cord, 0:2
# Keyword=MAPLabels
white matter, 0:1
gray matter, 2
CSF, 3
"""


def painted(**geometry):
    """Volumes of a cylinder with a grey core, halves of white matter, and CSF around."""
    cord = cylinder(**geometry).data.astype(float)
    core = cylinder(**{**geometry, "semi_axes": tuple(0.5 * a for a in geometry["semi_axes"])}).data
    outer = cylinder(**{**geometry, "semi_axes": tuple(1.4 * a for a in geometry["semi_axes"])}).data
    right = np.arange(cord.shape[0])[:, None, None] >= cord.shape[0] / 2
    white = cord - core
    affine = cylinder(**geometry).affine
    parts = [white * right, white * ~right, core, outer - cord]
    return [Volume(data=p.astype(np.float32), affine=affine) for p in parts]


def template():
    geometry = {"semi_axes": (6.0, 4.0), "spacing": (0.5, 0.5, 1.0), "shape": (60, 48, 40), "fine": 4}
    cord = cylinder(**geometry)
    discs = np.zeros(cord.data.shape)
    discs[30, 24, 38], discs[30, 24, 21], discs[30, 24, 3] = 3, 4, 5
    labels = parse_label_table(TABLE)
    binary = Volume(data=(cord.data > 0.5).astype(np.uint8), affine=cord.affine)
    return binary, painted(**geometry), Volume(data=discs, affine=cord.affine), labels


def test_sections_of_a_template_keep_its_levels_and_shares():
    sections = sections_from_template(*template(), per_level=2)
    assert np.all((sections.coordinate > 3) & (sections.coordinate <= 5))
    assert np.all(np.diff(sections.coordinate) > 0)
    share = sections.fractions[:, 2].sum(axis=(1, 2)) / sections.fractions[:, :3].sum(axis=(1, 2, 3))
    assert np.allclose(share, 0.25, atol=0.01)
    again = sections_from_arrays(sections_to_arrays(sections), sections.labels)
    assert np.allclose(again.fractions, sections.fractions, atol=1 / 500)
    assert np.allclose(again.blur, sections.blur)


@pytest.mark.parametrize("turn", [0.0, 15.0, -20.0])
@pytest.mark.parametrize("size", [(6.0, 4.0), (7.0, 3.5)])
def test_the_atlas_lands_where_the_truth_is(turn, size):
    geometry = {
        "semi_axes": size,
        "turn_deg": turn,
        "spacing": (0.8, 0.8, 5.0),
        "shape": (40, 36, 4),
        "centre": (0.7, -0.4),
    }
    sections = sections_from_template(*template())
    atlas, notices = lay_atlas(sections, cylinder(**geometry), coordinate=np.full(4, 4.0))
    truth = painted(**geometry)
    assert notices == ()
    grey = atlas.paint(atlas.labels.find("GM"))
    assert np.abs(grey - truth[2].data).mean() / truth[2].data.mean() < 0.06
    assert grey.sum() == pytest.approx(truth[2].data.sum(), rel=0.02)
    assert atlas.paint(atlas.labels.find("cord")).sum() == pytest.approx(
        sum(t.data.sum() for t in truth[:3]), rel=0.02
    )
    assert atlas.weights.sum(axis=0).max() <= 1.001


def test_file_orientation_does_not_matter():
    sections = analytical_sections()
    mask = cylinder(shape=(34, 30, 4), spacing=(0.9, 0.9, 5.0), turn_deg=10.0)
    coordinate = np.array([5.5, 5.0, 4.5, 4.0])
    a, _ = lay_atlas(sections, mask, coordinate=coordinate)
    b, _ = lay_atlas(sections, reoriented(mask, (2, 0, 1), (0, 1)), coordinate=coordinate)
    assert np.allclose(a.weights, b.weights, atol=1e-5)


def test_rotation_can_be_left_out_and_is_limited():
    sections = analytical_sections()
    mask = cylinder(shape=(34, 34, 2), turn_deg=20.0)
    turned, _ = lay_atlas(sections, mask)
    straight, _ = lay_atlas(sections, mask, rotate=False)
    assert np.abs(turned.weights - straight.weights).max() > 0.3
    far = cylinder(shape=(34, 34, 2), turn_deg=60.0)
    a, b = lay_atlas(sections, far)[0], lay_atlas(sections, far, rotate=False)[0]
    assert np.array_equal(a.weights, b.weights)


def test_without_levels_it_says_so():
    _, notices = lay_atlas(analytical_sections(), cylinder(shape=(30, 30, 2)))
    assert "no level is known" in notices[0].message


def test_slices_beyond_the_atlas_get_none():
    mask = cylinder(shape=(30, 30, 3))
    atlas, notices = lay_atlas(analytical_sections(), mask, coordinate=np.array([4.5, np.nan, 24.0]))
    assert atlas.covered_slices().tolist() == [0]
    assert "2 slices" in notices[0].message


def test_what_cannot_be_laid():
    sections = analytical_sections()
    mask = cylinder(shape=(30, 30, 3))
    with pytest.raises(EmptyInputError):
        lay_atlas(sections, Volume(data=mask.data * 0, affine=mask.affine))
    with pytest.raises(InputError, match="per slice"):
        lay_atlas(sections, mask, coordinate=np.zeros(2))
    with pytest.raises(InputError, match="supersampling"):
        lay_atlas(sections, mask, supersampling=0)


def test_broken_templates_and_caches_are_named():
    cord, weights, discs, labels = template()
    with pytest.raises(InputError, match="one volume per label"):
        sections_from_template(cord, weights[:2], discs, labels)
    with pytest.raises(EmptyInputError, match="two labelled discs"):
        sections_from_template(cord, weights, Volume(data=discs.data * 0, affine=discs.affine), labels)
    with pytest.raises(InputError, match="one grid"):
        sections_from_template(cord, [*weights[:3], cylinder()], discs, labels)
    arrays = sections_to_arrays(sections_from_template(cord, weights, discs, labels))
    with pytest.raises(InputError, match="lack"):
        sections_from_arrays({"coordinate": arrays["coordinate"]}, labels)
    with pytest.raises(InputError, match="fit the labels"):
        sections_from_arrays({**arrays, "fractions": arrays["fractions"][:, :2]}, labels)


def test_planted_values_are_recovered_from_an_image_that_the_atlas_did_not_make():
    """The image is drawn from the shapes themselves, the atlas only knows the mask of the cord."""
    geometry = {
        "semi_axes": (6.6, 4.3),
        "turn_deg": 8.0,
        "spacing": (0.9, 0.9, 5.0),
        "shape": (36, 32, 6),
        "centre": (0.5, -0.3),
    }
    parts = painted(**geometry)
    values = (0.70, 0.80, 0.50, 0.10)
    image = Volume(
        data=sum(v * p.data for v, p in zip(values, parts, strict=True)).astype(float), affine=parts[0].affine
    )
    sections = sections_from_template(*template())
    # The template has a rim of CSF of its own; beyond it the image is empty.
    mask = cylinder(**geometry)
    atlas, _ = lay_atlas(sections, mask, coordinate=np.full(6, 4.0))
    found = {
        method: [
            row.value
            for row in extract_regions(
                image, atlas, quantity="FA", regions=["WM right", "WM left", "GM"], method=method
            )
        ]
        for method in ("weighted mean", "maximum likelihood", "MAP")
    }
    for method in ("maximum likelihood", "MAP"):
        assert np.allclose(found[method], values[:3], atol=0.02), method
    assert found["weighted mean"][0] < 0.66, "plain means are biased by partial volume"
