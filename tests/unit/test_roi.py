from __future__ import annotations

import numpy as np
import pytest

from cordqa.phantom.roi import background_mean_square, measure_regions


def disc(shape: tuple[int, int], centre: tuple[float, float], radius: float) -> np.ndarray:
    rows, columns = np.indices(shape)
    return np.hypot(rows - centre[0], columns - centre[1]) <= radius


def test_shading_is_not_called_noise() -> None:
    rng = np.random.default_rng(1)
    rows, columns = np.indices((64, 64))
    images = (100 + 0.5 * rows + 0.3 * columns) + rng.normal(0, 2.0, (40, 64, 64))
    signals = measure_regions(images, [disc((64, 64), (32, 32), 6)])
    assert np.mean(signals.noise_sd) == pytest.approx(2.0, rel=0.05)
    assert signals.mean[0, 0] == pytest.approx(100 + 16 + 9.6, abs=1.0)


def test_mean_square_less_background_is_unbiased_where_the_mean_is_not() -> None:
    rng = np.random.default_rng(2)
    sigma, truth = 10.0, 8.0
    shape = (200, 64, 64)
    noisy = np.abs(truth + rng.normal(0, sigma, shape) + 1j * rng.normal(0, sigma, shape))
    air = disc((64, 64), (10, 10), 10)
    noisy[:, air] = np.abs(
        rng.normal(0, sigma, (200, air.sum())) + 1j * rng.normal(0, sigma, (200, air.sum()))
    )
    floor = background_mean_square(noisy, disc((64, 64), (10, 10), 10))
    assert floor is not None
    signals = measure_regions(noisy, [disc((64, 64), (40, 40), 8)])
    corrected = np.sqrt(np.mean(signals.mean_square[0] - floor))
    assert corrected == pytest.approx(truth, rel=0.04)  # three sampling SD
    assert signals.mean.mean() > 1.5 * truth


def test_clipped_samples_are_dropped_but_one_maximum_is_not() -> None:
    images = np.full((2, 32, 32), 100.0)
    clipped = np.zeros((2, 32, 32), dtype=bool)
    clipped[0, 16, 16] = True
    clipped[1, 14:18, 14:18] = True
    signals = measure_regions(images, [disc((32, 32), (16, 16), 5)], clipped=clipped)
    assert signals.valid.tolist() == [[True, False]]
    assert signals.clipped.tolist() == [[False, True]]


def test_nan_pixels_are_left_out_and_counted() -> None:
    images = np.full((2, 32, 32), 7.0)
    images[1, 16, 10:17] = np.nan
    images[1, 0, 0] = np.inf
    signals = measure_regions(images, [disc((32, 32), (16, 16), 5), np.zeros((32, 32), dtype=bool)])
    assert signals.mean[0].tolist() == [7.0, 7.0]
    assert 0 < signals.coverage[0] < 1
    assert not signals.valid[1].any()
    assert signals.n_pixels[1] == 0


def test_region_without_a_finite_pixel_has_no_value() -> None:
    images = np.full((1, 16, 16), np.nan)
    signals = measure_regions(images, [disc((16, 16), (8, 8), 4)])
    assert np.isnan(signals.mean).all()
    assert not signals.valid.any()
    assert np.isnan(signals.noise_sd).all()


def test_masked_background_measures_no_floor() -> None:
    images = np.zeros((3, 64, 64))
    assert background_mean_square(images, np.ones((64, 64), dtype=bool)) is None
    assert background_mean_square(images + 1, disc((64, 64), (5, 5), 3)) is None
