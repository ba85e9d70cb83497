"""How noisy a diffusion series is: noise level, signal-to-noise ratio, and the bias of magnitudes.

The noise level is that of each channel of the complex signal.  Magnitudes of weak signals scatter less
than that and are too large on average; both are undone by the moments of the Rice distribution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.diffusion.noise import rician_moments
from cordqa.models.diffusion.preprocess_prediction import contrast_groups, left_out_matrix

__all__ = ["NoiseMaps", "map_noise", "undo_rician", "undo_rician_mean"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: A signal below this many noise levels is at the floor.
FLOOR = 3.0
#: Fewer repetitions than this give no noise level.
LEAST_REPEATS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseMaps:
    """Noise of a series.

    Attributes
    ----------
    sigma : ndarray, shape (n_first, n_second, n_slices)
        Noise level per channel, in units of the data; NaN outside the mask, and where it cannot be known.
    snr : mapping of str to ndarray
        Mean signal of each contrast, without the bias of magnitudes, over the noise level.
    temporal_snr : mapping of str to ndarray
        Mean over the standard deviation of what the other volumes do not predict: motion, pulsation and
        drift count as noise here.
    rician_bias : mapping of str to float
        Median over the mask of the relative bias of the mean magnitude of each contrast; infinite where
        most of it is noise alone.
    source : str
        Where the noise level comes from.
    sentence : str
    notices : tuple of str
    """

    sigma: Array
    snr: Mapping[str, Array]
    temporal_snr: Mapping[str, Array]
    rician_bias: Mapping[str, float]
    source: str
    sentence: str
    notices: tuple[str, ...]


def map_noise(
    data: NDArray[Any],
    gradients: GradientTable,
    mask: NDArray[Any],
    *,
    sigma: Array | None = None,
    source: str = "given",
    variance_left: Array | None = None,
) -> NoiseMaps:
    """Map noise and signal-to-noise ratio.

    Parameters
    ----------
    data : ndarray, shape (n_first, n_second, n_slices, n_volumes)
        May hold NaN where outliers were left out.
    gradients : GradientTable
    mask : ndarray, shape (n_first, n_second, n_slices)
        Where noise is mapped and medians are taken.
    sigma : ndarray, shape (n_first, n_second, n_slices), optional
        Noise level known from elsewhere (from MP-PCA); else it is taken from what volumes of one
        contrast do not predict of each other, in the contrast that has most volumes.
    source : str
        Where a given noise level comes from, for the methods text.
    variance_left : ndarray, shape (n_slices, n_volumes), optional
        Share of the variance of noise that resampling left in each slice of each volume.
    """
    cord = np.asarray(np.asarray(mask) > 0.5, dtype=bool)
    groups = contrast_groups(gradients)
    values = np.asarray(data[cord], dtype=float)
    left = np.ones(data.shape[2:]) if variance_left is None else variance_left
    rest, known = _all_residuals(values, np.nonzero(cord)[2], gradients, groups, left)
    members = [groups == group for group in np.unique(groups)]
    names = [f"b = {np.median(gradients.b_values_s_mm2[mine]):.0f} s/mm2" for mine in members]
    means = [_mean(values[:, mine]) for mine in members]
    spreads = {
        name: np.sqrt(_mean(rest[:, mine] ** 2))
        for name, mine in zip(names, members, strict=True)
        if (mine & known).sum() >= LEAST_REPEATS
    }
    level = sigma[cord] if sigma is not None else np.full(len(values), np.nan)
    source = source if sigma is not None else "none"
    if sigma is None and spreads:
        # The contrast with most volumes: its spread is the best known.
        best = max(spreads, key=lambda name: int(members[names.index(name)].sum()))
        level, source = (
            undo_rician(means[names.index(best)], spreads[best])[1],
            f"what the volumes at {best} do not predict of each other",
        )
    clean = [undo_rician_mean(mean, level) for mean in means]
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = {name: signal / level for name, signal in zip(names, clean, strict=True)}
        temporal = {name: means[names.index(name)] / spread for name, spread in spreads.items()}
        bias = {
            # A signal that vanishes in noise has no relative bias.
            name: float(np.median((mean / np.where(signal > 0.1 * level, signal, 0.0) - 1.0)[mean > 0]))
            if (mean > 0).any()
            else float("nan")
            for name, mean, signal in zip(names, means, clean, strict=True)
        }
    return NoiseMaps(
        sigma=_on_grid(level, cord),
        snr={name: _on_grid(value, cord) for name, value in snr.items()},
        temporal_snr={name: _on_grid(value, cord) for name, value in temporal.items()},
        rician_bias=bias,
        source=source,
        sentence=_sentence(snr, source),
        notices=_notices(snr, bias, source),
    )


def undo_rician(mean: Array, spread: Array, *, rounds: int = 30) -> tuple[Array, Array]:
    """Signal and noise level of which a magnitude has a given mean and standard deviation.

    The fixed point of Koay and Basser 2006 (doi:10.1016/j.jmr.2006.01.016).  Where the mean is not
    above that of pure noise, the signal is zero.
    """
    mean, spread = np.asarray(mean, dtype=float), np.asarray(spread, dtype=float)
    good = np.isfinite(mean) & np.isfinite(spread) & (spread > 0) & (mean >= 0)
    ratio = np.where(good, mean, 1.0) / np.where(good, spread, 1.0)
    theta = ratio.copy()
    for _ in range(rounds):
        variance = rician_moments(theta, np.ones_like(theta))[2]
        theta = np.sqrt(np.maximum(variance * (1.0 + ratio**2) - 2.0, 0.0))
    sigma = spread / np.sqrt(rician_moments(theta, np.ones_like(theta))[2])
    return np.where(good, theta * sigma, np.nan), np.where(good, sigma, np.nan)


def undo_rician_mean(mean: Array, sigma: Array, *, rounds: int = 40) -> Array:
    """Signal of which the magnitude has a given mean at a known noise level; zero at the floor or below."""
    mean = np.asarray(mean, dtype=float)
    level = np.broadcast_to(np.asarray(sigma, dtype=float), mean.shape)
    good = np.isfinite(mean) & np.isfinite(level) & (level > 0)
    wanted = np.where(good, mean, 2.0) / np.where(good, level, 1.0)
    low, high = np.zeros_like(wanted), np.maximum(wanted, 1.0)
    for _ in range(rounds):
        middle = 0.5 * (low + high)
        below = rician_moments(middle, np.ones_like(middle))[0] < wanted
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.where(good, 0.5 * (low + high) * level, np.nan)


def _all_residuals(
    values: Array, slices: NDArray[np.intp], gradients: GradientTable, groups: NDArray[np.intp], left: Array
) -> tuple[Array, Mask]:
    """Differences to the predictions, slice by slice: volumes lost in one slice may be there in others."""
    out, known = np.full(values.shape, np.nan), np.zeros(values.shape[1], dtype=bool)
    for z in np.unique(slices):
        here = values[slices == z]
        use = np.isfinite(here).mean(axis=0) > 0.5
        matrix = left_out_matrix(gradients, use, groups=groups, strict=True, exact=True)
        out[slices == z] = _residuals(here, matrix) / np.sqrt(left[z])
        known |= np.isfinite(matrix).all(axis=1) & use
    return out, known


def _residuals(values: Array, matrix: Array) -> Array:
    """Difference to the prediction, scaled to the standard deviation of a single volume."""
    weights = np.nan_to_num(matrix)
    finite = np.isfinite(values)
    filled = np.where(finite, values, 0.0)
    rest = (filled - filled @ weights.T) / np.sqrt(1.0 + (weights**2).sum(axis=1))
    # Where a voxel lacks a helper, its weights no longer sum up, and nothing is predicted.
    short = (~finite).astype(float) @ np.abs(weights).T > 0
    return np.where(finite & ~short & np.isfinite(matrix).all(axis=1), rest, np.nan)


def _mean(values: Array) -> Array:
    """Mean over the volumes that there are; NaN without any."""
    finite = np.isfinite(values)
    count = finite.sum(axis=-1)
    total = np.where(finite, values, 0.0).sum(axis=-1)
    mean: Array = np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
    return mean


def _median(values: Array) -> float:
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else float("nan")


def _on_grid(values: Array, cord: Mask) -> Array:
    out = np.full(cord.shape, np.nan)
    out[cord] = values
    return out


def _sentence(snr: Mapping[str, Array], source: str) -> str:
    if source == "none":
        return "The noise level is not known: no contrast has volumes that predict each other."
    parts = [f"{_median(value):.1f} at {name}" for name, value in snr.items()]
    origin = "given" if source == "given" else f"taken from {source}"
    return f"The noise level was {origin}; median signal-to-noise ratio in the cord: {', '.join(parts)}."


def _notices(snr: Mapping[str, Array], bias: Mapping[str, float], source: str) -> tuple[str, ...]:
    if source == "none":
        return ("no contrast has enough volumes for a noise level",)
    out = []
    for name, value in snr.items():
        here = value[np.isfinite(value)]
        low = float((here < FLOOR).mean()) if here.size else 0.0
        if low > 0.05:
            much = (
                f"by {bias[name]:.0%} in the median of the cord" if np.isfinite(bias[name]) else "noise alone"
            )
            out.append(
                f"at {name} the signal of {low:.0%} of the cord lies below {FLOOR:g} noise levels; its "
                f"magnitudes are too large ({much})"
            )
    return tuple(out)
