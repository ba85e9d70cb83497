"""The digital phantom: coverage, partial volume, ringing, geometry."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from simulate_plates import make_plate

from cordqa.errors import ConfigError
from cordqa.simulate.geometry import Placement, SliceGeometry
from cordqa.simulate.rendering import Raster, downsampling_matrix
from cordqa.simulate.system_phantom import DigitalPlate, DigitalSphere, render_coverage

PLATE = make_plate("5")
SLICE = SliceGeometry.coronal(centre_mm=PLATE.centre_mm)


def centre_of_mass(image: np.ndarray) -> np.ndarray:
    indices = np.indices(image.shape)
    return (indices * image).sum(axis=(1, 2)) / image.sum()


@pytest.mark.parametrize("how", ["box", "fourier"])
@pytest.mark.parametrize("n", [7, 8])
def test_downsampling_keeps_uniform_objects(how: str, n: int) -> None:
    matrix = downsampling_matrix(n, 4, how)  # type: ignore[arg-type]
    assert matrix.shape == (n, 4 * n)
    assert matrix.sum(axis=1) == pytest.approx(np.ones(n), abs=1e-5)


def test_fourier_downsampling_is_truncation_of_k_space() -> None:
    n, oversampling = 16, 4
    rng = np.random.default_rng(3)
    fine = rng.normal(size=n * oversampling)
    # Fine samples lie half a fine sample off the voxel grid, hence the phase ramp.
    frequencies = np.fft.fftfreq(n * oversampling, d=1 / (n * oversampling))
    spectrum = np.fft.fft(fine) * np.exp(-2j * np.pi * frequencies * (0.5 / oversampling - 0.5) / n)
    keep = np.abs(frequencies) < n / 2
    coarse_positions = np.arange(n) / n
    waves = np.exp(2j * np.pi * np.outer(coarse_positions, frequencies[keep]))
    expected = (waves @ spectrum[keep]).real / (n * oversampling)
    edge = np.abs(frequencies) == n / 2
    waves = np.exp(2j * np.pi * np.outer(coarse_positions, frequencies[edge]))
    # Both Nyquist samples, half each.
    expected += 0.5 * (waves @ spectrum[edge]).real / (n * oversampling)
    assert downsampling_matrix(n, oversampling, "fourier") @ fine == pytest.approx(expected, abs=1e-5)


def test_ball_has_the_right_volume() -> None:
    raster = Raster(
        index=0,
        n_rows=40,
        n_columns=48,
        spacing_mm=(1.3, 0.9),
        thickness_mm=30.0,
        slice_distance_mm=30.0,
        oversampling=6,
        how="box",
    )
    ball = raster.ball(np.array([0.0, 20.3, 23.8]), 7.5)
    assert ball.sum() * 1.3 * 0.9 * 30.0 == pytest.approx(4 / 3 * np.pi * 7.5**3, rel=2e-3)
    assert centre_of_mass(ball) == pytest.approx((20.3, 23.8), abs=0.01)


def test_thin_slice_off_centre_cuts_a_smaller_disc() -> None:
    raster = Raster(
        index=0,
        n_rows=64,
        n_columns=64,
        spacing_mm=(0.5, 0.5),
        thickness_mm=0.2,
        slice_distance_mm=1.0,
        how="box",
    )
    disc = raster.ball(np.array([6.0, 32.0, 32.0]), 7.5)
    assert disc.sum() * 0.25 == pytest.approx(np.pi * (7.5**2 - 6.0**2), rel=0.01)
    assert not raster.ball(np.array([7.7, 32.0, 32.0]), 7.5).any()


@pytest.mark.parametrize("how", ["box", "fourier"])
def test_spheres_are_full_inside_and_shells_are_empty(how: str) -> None:
    coverage = render_coverage(PLATE, SLICE, downsampling=how)  # type: ignore[arg-type]
    rows, columns = np.rint(coverage.centres[:, 1:]).astype(int).T
    tolerance = 0.12 if how == "fourier" else 1e-5
    for index in range(14):
        inside = coverage.maps[:, 0, rows[index], columns[index]]
        assert inside[index] == pytest.approx(1.0, abs=tolerance)
        assert np.delete(inside, index) == pytest.approx(np.zeros(14), abs=tolerance)
    # 8.75 mm from the centre lies the middle of the shell.
    step = 8.75 / SLICE.spacing_mm[0]
    shell = coverage.maps[:, 0, rows[0] - round(step), columns[0]].sum()
    assert shell < 0.25


def test_ringing_only_with_fourier() -> None:
    box = render_coverage(PLATE, SLICE, downsampling="box")
    fourier = render_coverage(PLATE, SLICE, downsampling="fourier")
    assert box.maps.min() >= -1e-5
    assert box.maps.max() <= 1 + 1e-5
    assert fourier.maps.min() < -0.03
    assert fourier.maps.max() > 1.03
    assert fourier.maps.sum(axis=(1, 2, 3)) == pytest.approx(box.maps.sum(axis=(1, 2, 3)), rel=1e-3)


def test_body_is_the_circle_that_the_plane_cuts_from_the_ball() -> None:
    thin = replace(SLICE, thickness_mm=0.5)
    coverage = render_coverage(PLATE, thin, downsampling="box")
    area = coverage.body.sum() * np.prod(thin.spacing_mm)
    assert area == pytest.approx(np.pi * (100.0**2 - 56.5**2), rel=2e-3)


@pytest.mark.parametrize("rotation", [0.0, 37.0, 180.0, -137.0])
@pytest.mark.parametrize("mirror", [False, True])
def test_every_sphere_is_where_the_geometry_says(rotation: float, mirror: bool) -> None:
    geometry = SliceGeometry.coronal(centre_mm=PLATE.centre_mm, rotation_deg=12.0, mirror=mirror)
    placement = Placement(rotation_deg=rotation, shift_mm=(8.0, 0.0, -5.0), scale=1.01)
    coverage = render_coverage(PLATE, geometry, placement=placement)
    for index in range(14):
        found = centre_of_mass(np.maximum(coverage.maps[index, 0], 0.3) - 0.3)
        assert found == pytest.approx(coverage.centres[index, 1:], abs=0.05)
    ring = coverage.centres[:10, 1:] - coverage.centres[:10, 1:].mean(axis=0)
    radius = np.linalg.norm(ring, axis=1) * geometry.spacing_mm[0]
    assert radius == pytest.approx(np.full(10, 50.5), abs=1e-6)
    # Seen from the front, the ring from sphere 1 to 2 turns clockwise on the screen (rows go down).
    (row_1, column_1), (row_2, column_2) = ring[:2]
    assert np.sign(column_1 * row_2 - row_1 * column_2) == (-1 if mirror else 1)


def test_numbers_run_as_drawn_when_nothing_is_turned() -> None:
    centres = render_coverage(PLATE, SLICE).centres
    # Sphere 1 at the top, sphere 2 to its right on the screen (+x is left of the patient).
    assert centres[0, 1] < centres[1, 1] < centres[5, 1]
    assert centres[1, 2] > centres[0, 2] > centres[9, 2]


def test_tilt_takes_spheres_out_of_a_thin_slice() -> None:
    thin = replace(SLICE, thickness_mm=2.0)
    coverage = render_coverage(PLATE, thin, placement=Placement(tilt_deg=(9.0, 0.0)))
    depth_mm = coverage.centres[:, 0] * thin.slice_distance_mm
    assert abs(depth_mm[0]) == pytest.approx(50 * np.sin(np.deg2rad(9.0)), rel=1e-6)
    area = np.clip(coverage.maps[:14], 0, 1).sum(axis=(1, 2, 3))
    # Spheres 1 and 6 lie farthest from the axis of the tilt.
    assert area[0] < 0.2 * area[:14].max()


def test_volume_of_thin_slices_follows_the_sphere() -> None:
    volume = replace(SLICE, n_slices=21, thickness_mm=1.0, slice_distance_mm=1.0)
    coverage = render_coverage(PLATE, volume, downsampling="box", oversampling=4)
    size = coverage.maps[0].sum() * np.prod(volume.spacing_mm) * 1.0
    assert size == pytest.approx(4 / 3 * np.pi * 7.5**3, rel=5e-3)


def test_posts_and_bubbles_give_no_signal() -> None:
    posts = render_coverage(make_plate("5", posts=True), SLICE)
    plain = render_coverage(PLATE, SLICE)
    lost = (plain.maps[-1] - posts.maps[-1]).sum() * np.prod(SLICE.spacing_mm)
    assert lost == pytest.approx(3 * np.pi * 6.0**2, rel=0.03)
    spheres = (replace(PLATE.spheres[0], bubble_diameter_mm=8.0), *PLATE.spheres[1:])
    thick = replace(SLICE, thickness_mm=20.0, slice_distance_mm=20.0)
    with_air = render_coverage(replace(PLATE, spheres=spheres), thick)
    without = render_coverage(PLATE, thick)
    air = (without.maps[0] - with_air.maps[0]).sum() * np.prod(thick.spacing_mm) * 20.0
    assert air == pytest.approx(4 / 3 * np.pi * 4.0**3, rel=0.03)


def test_phantom_outside_the_field_of_view_is_empty_not_an_error() -> None:
    coverage = render_coverage(PLATE, SLICE, placement=Placement(shift_mm=(600.0, 0.0, 0.0)))
    assert np.abs(coverage.maps).max() < 1e-3


@pytest.mark.parametrize(
    "change",
    [{"t1_s": 0.0}, {"t2_s": float("nan")}, {"inner_diameter_mm": 25.0}, {"bubble_diameter_mm": 16.0}],
)
def test_impossible_spheres_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="sphere 1"):
        replace(PLATE.spheres[0], **change)  # type: ignore[arg-type]


def test_plate_without_spheres_is_refused() -> None:
    with pytest.raises(ConfigError, match="plate 9"):
        DigitalPlate(plate="9", spheres=())


def test_tissue_lists_spheres_then_water() -> None:
    sphere = DigitalSphere(label="1", position_mm=(0, 0, 0), t1_s=0.5, t2_s=0.1, proton_density=0.4)
    plate = DigitalPlate(plate="x", spheres=(sphere,))
    assert plate.tissue("t1_s").tolist() == [0.5, plate.water_t1_s]
    assert plate.tissue("proton_density").tolist() == [0.4, 1.0]
