"""However an array lies in the scanner, the map is the same: direction of the main field, kernel, chain."""

from __future__ import annotations

import itertools
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from helpers_cord_echoes import tilted_affine
from nibabel.orientations import apply_orientation, inv_ornt_aff

from cordqa.models.susceptibility.dipole import forward_field
from cordqa.models.susceptibility.geometry import b0_from_affine, voxel_size_mm
from cordqa.models.susceptibility.pipeline import MappingSettings, Scan, map_susceptibility
from cordqa.models.susceptibility.scan import find_slice_axis
from cordqa.models.susceptibility.total_field import ChainSettings
from cordqa.simulate.susceptibility import simulate_cord

#: All ways to order and turn three axes: column 0 is the new place of an axis, column 1 its direction.
ORIENTATIONS = [
    np.array(list(zip(order, signs, strict=True)), dtype=float)
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
#: Of a person: LAS, sagittal and coronal slices as scanners store them, and all three axes turned.
CLINICAL = [
    np.array([[0, -1], [1, 1], [2, 1]]),
    np.array([[2, 1], [0, -1], [1, -1]]),
    np.array([[0, 1], [2, -1], [1, -1]]),
    np.array([[0, -1], [1, -1], [2, -1]]),
]


def turned(image, how):
    return np.ascontiguousarray(apply_orientation(image, how))


def turned_affine(affine, how, shape):
    return affine @ inv_ornt_aff(how, shape)


def back(image, how):
    order = [int(place) for place, _ in how]
    upright = np.flip(image, [order[a] for a in range(3) if how[a, 1] < 0])
    return np.transpose(upright, order)


def test_the_field_of_a_source_is_the_same_in_all_48_orientations():
    affine = tilted_affine((0.7, 0.9, 1.6), (0, 0.37, 0.93))
    rng = np.random.default_rng(0)
    chi = np.zeros((14, 12, 10))
    chi[5:8, 4:9, 3:5] = rng.normal(size=(3, 5, 2))
    expected = forward_field(chi, voxel_size_mm=voxel_size_mm(affine), b0_direction=b0_from_affine(affine))
    assert expected.std() > 0
    for how in ORIENTATIONS:
        other = turned_affine(affine, how, chi.shape)
        found = forward_field(
            turned(chi, how), voxel_size_mm=voxel_size_mm(other), b0_direction=b0_from_affine(other)
        )
        np.testing.assert_allclose(back(found, how), expected, atol=1e-4 * np.abs(expected).max())


@pytest.fixture(scope="module")
def cord():
    scan = simulate_cord(seed=2, shape=(48, 48, 18), voxel_size_mm=(0.8, 0.8, 2.0))
    affine = tilted_affine(scan.voxel_size_mm, scan.scanner.b0_direction)
    return scan, affine


def mapped(cord, how):
    scan, affine = cord
    slices = int(how[2, 0])
    settings = MappingSettings(chain=ChainSettings(probes=0), slice_axis=slices)
    found = map_susceptibility(
        Scan(
            phase=turned(scan.phase, how),
            magnitude=turned(scan.magnitude, how),
            echo_times_s=scan.scanner.echo_times_s,
            affine=turned_affine(affine, how, scan.mask.shape),
            field_strength_t=scan.scanner.field_strength_t,
        ),
        mask=turned(scan.mask, how),
        settings=settings,
    )
    return {name: back(values, how) for name, values in found.maps.values.items()}


@pytest.fixture(scope="module")
def upright(cord):
    return mapped(cord, np.array([[0, 1], [1, 1], [2, 1]]))


def test_the_upright_map_shows_the_truth(cord, upright):
    scan, _ = cord
    chi, known = upright["susceptibility"], np.isfinite(upright["susceptibility"])
    assert np.corrcoef(chi[known], scan.chi_ppm[known])[0, 1] > 0.6


@pytest.mark.parametrize("how", CLINICAL, ids=["LAS", "sagittal", "coronal", "turned"])
def test_the_map_is_the_same_map_however_it_was_stored(cord, upright, how):
    found = mapped(cord, how)
    for name, most in (
        ("total_field", 1e-5),
        ("R2star", 1e-5),
        ("local_field", 0.02),
        ("susceptibility", 0.03),
    ):
        expected = upright[name]
        assert np.array_equal(np.isfinite(found[name]), np.isfinite(expected))
        apart = np.sqrt(np.nanmean((found[name] - expected) ** 2)) / np.nanstd(expected)
        assert apart < most, name


def test_a_wrong_direction_would_show(cord, upright):
    """The check has teeth: the same arrays with the axes of the header left as they were."""
    scan, affine = cord
    found = map_susceptibility(
        Scan(
            phase=scan.phase,
            magnitude=scan.magnitude,
            echo_times_s=scan.scanner.echo_times_s,
            affine=affine,
            field_strength_t=scan.scanner.field_strength_t,
            b0_direction=np.array(scan.scanner.b0_direction) * [1, -1, 1],
        ),
        mask=scan.mask,
        settings=replace(MappingSettings(), chain=ChainSettings(probes=0)),
    ).maps.values["susceptibility"]
    expected = upright["susceptibility"]
    assert np.sqrt(np.nanmean((found - expected) ** 2)) > 0.2 * np.nanstd(expected)


def test_nibabel_turns_images_as_this_test_does():
    image = nib.Nifti1Image(np.arange(24.0).reshape(2, 3, 4), np.diag([1.0, 2.0, 3.0, 1.0]))
    for how in CLINICAL:
        other = image.as_reoriented(how)
        np.testing.assert_array_equal(other.get_fdata(), turned(image.get_fdata(), how))
        np.testing.assert_allclose(other.affine, turned_affine(image.affine, how, image.shape))
        np.testing.assert_array_equal(back(other.get_fdata(), how), image.get_fdata())


@pytest.mark.parametrize(
    ("told", "voxel", "axis"),
    [
        ("", (1.0, 1.0, 1.0), 2),
        ("", (0.8, 0.8, 3.0), 2),
        ("", (0.8, 3.0, 0.8), 1),
        ("", (3.0, 0.8, 0.9), 0),
        ("", (1.1, 1.0, 1.0), 2),
        ("j-", (1.0, 1.0, 3.0), 1),
        ("i", (1.0, 1.0, 1.0), 0),
        ("sagittal", (1.0, 1.0, 1.0), 2),
    ],
)
def test_slices_lie_where_the_sidecar_or_the_voxels_say(told, voxel, axis):
    assert find_slice_axis(told, np.array(voxel)) == axis
