"""How flip angles vary through the slice of a spin-echo train.

A slice-selective refocusing pulse reaches its nominal angle only in the middle of the slice.
The voxel sums echo trains of all these angles, which no single angle reproduces.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError

__all__ = ["UNIFORM", "SliceProfile", "windowed_sinc_profile"]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceProfile:
    """Angles through the slice relative to the slice centre.

    Attributes
    ----------
    name : str
        For the methods text.
    excitation, refocusing : ndarray, shape (n_positions,)
        Angle over the angle at the centre.
    weights : ndarray, shape (n_positions,)
        Thickness that each position stands for; sums to 1.
    largest_factor : float
        Largest actual over nominal angle that a fit may try.  A uniform 180 degrees cannot be
        told from its mirror image beyond, so there it is 1.
    """

    name: str
    excitation: Array
    refocusing: Array
    weights: Array
    largest_factor: float = 1.3


UNIFORM = SliceProfile(
    name="uniform",
    excitation=np.ones(1),
    refocusing=np.ones(1),
    weights=np.ones(1),
    largest_factor=1.0,
)


def windowed_sinc_profile(
    width_ratio: float = 1.2, *, time_bandwidth: float = 3.0, n_positions: int = 12
) -> SliceProfile:
    """Profile of Hamming-windowed sinc pulses, in the small-angle approximation.

    Half of the symmetric slice is sampled, out to 1.6 nominal half widths of the refocusing
    slice or of the excitation slice, whichever ends first: no signal comes from beyond.

    Parameters
    ----------
    width_ratio : float
        Width of the refocusing slice over that of the excitation slice, between 0.5 and 4.
        Vendors widen it to lessen the effect; the value is usually not in the header.
    time_bandwidth : float
        Time-bandwidth product of both pulses, between 1 and 20.
    n_positions : int
        Sampling positions in the half slice.

    References
    ----------
    .. [1] Lebel and Wilman, Magn Reson Med 2010, doi:10.1002/mrm.22487
    """
    if not (0.5 <= width_ratio <= 4 and 1 <= time_bandwidth <= 20 and n_positions >= 2):
        raise InputError(
            "the slice profile is out of range",
            found=f"width ratio {width_ratio}, time-bandwidth {time_bandwidth}, {n_positions} positions",
            expected="0.5 to 4, 1 to 20, at least 2",
        )
    reach = 1.6 * min(1.0, width_ratio)
    position = (np.arange(n_positions) + 0.5) / n_positions * reach
    return SliceProfile(
        name=f"windowed sinc, refocusing {width_ratio:g} x excitation",
        excitation=_response(position, time_bandwidth),
        refocusing=_response(position / width_ratio, time_bandwidth),
        weights=np.full(n_positions, 1.0 / n_positions),
    )


def _response(position: Array, time_bandwidth: float) -> Array:
    """Fourier transform of the pulse, 1 at the centre; position in nominal half widths."""
    time = np.linspace(-0.5, 0.5, 257)
    pulse = np.sinc(time_bandwidth * time) * (0.54 + 0.46 * np.cos(2 * np.pi * time))
    response: Array = np.cos(np.pi * time_bandwidth * np.outer(position, time)) @ pulse / pulse.sum()
    return response
