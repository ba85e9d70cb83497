"""Do signals decay with the echo time?  If not, images or echo times are in another order than said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError

__all__ = ["Growth", "find_growth", "refuse_growth"]

Array = NDArray[np.float64]
#: The strongest share of the voxels is looked at: the rest may be air.
_STRONG = 0.2
_FEWEST = 4
#: Voxels, spread over all, by which a series is judged.
_SAMPLE = 100_000
#: Noise and stimulated echoes may raise the signal of most voxels by this share, but not more.
_GROWTH = 1.05
#: Growth by fewer standard errors is noise: late echoes scatter.
_SURE = 4.0


@dataclass(frozen=True, slots=True)
class Growth:
    """Signal that grows from one echo time to a later one: median ratio over the strong voxels."""

    earlier_s: float
    later_s: float
    ratio: float

    @property
    def sentence(self) -> str:
        """In words."""
        return (
            f"most signals are {100 * (self.ratio - 1):.0f} % higher at echo time {self.later_s:g} s "
            f"than at {self.earlier_s:g} s"
        )


def find_growth(signal: ArrayLike, echo_times_s: ArrayLike) -> tuple[Growth | None, tuple[Growth, ...]]:
    """Find signals that grow with the echo time.

    Parameters
    ----------
    signal : array_like, shape (..., n_images)
        Magnitude, or signed; NaN is left out.
    echo_times_s : array_like, shape (n_images,)

    Returns
    -------
    overall : Growth or None
        From the first to the last echo time, where most strong voxels grow by more than 5 %.
    steps : tuple of Growth
        The same between neighbouring echo times.
    """
    times = np.asarray(echo_times_s, dtype=float)
    raw: NDArray[Any] = np.asarray(signal)
    flat = raw.reshape(-1, raw.shape[-1])
    flat = np.abs(flat[:: max(1, len(flat) // _SAMPLE)])
    distinct = np.unique(times)
    good = np.isfinite(flat).all(axis=1)
    if distinct.size < 2 or int(good.sum()) < _FEWEST:
        return None, ()
    mean = np.stack([flat[good][:, times == t].mean(axis=1) for t in distinct], axis=1).astype(float)
    size = mean.max(axis=1)
    strong = mean[(size >= np.quantile(size, 1 - _STRONG)) & (size > 0) & (mean > 0).all(axis=1)]
    if not len(strong):
        return None, ()
    steps = (_grown(strong, distinct, n, n + 1) for n in range(distinct.size - 1))
    return _grown(strong, distinct, 0, distinct.size - 1), tuple(one for one in steps if one is not None)


def _grown(strong: Array, times: Array, first: int, last: int) -> Growth | None:
    """Compare two echo times; None where signals do not grow, or noise may have made them."""
    change = np.log(strong[:, last] / strong[:, first])
    middle = float(np.median(change))
    # Standard error of a median by the median deviation, as for normal scatter.
    error = 1.86 * float(np.median(np.abs(change - middle))) / np.sqrt(change.size)
    ratio = float(np.exp(middle))
    if ratio <= _GROWTH or middle < _SURE * error:
        return None
    return Growth(float(times[first]), float(times[last]), ratio)


def refuse_growth(signal: ArrayLike, echo_times_s: ArrayLike, *, where: str = "") -> tuple[str, ...]:
    """Refuse a series whose signal grows with the echo time; return sentences about single steps.

    Raises
    ------
    InputError
        If the last echo is brighter than the first in most strong voxels.
    """
    overall, steps = find_growth(signal, echo_times_s)
    if overall is not None:
        raise InputError(
            f"the signal does not decay: {overall.sentence}",
            where=where,
            todo="check the order of the images and of their echo times",
        )
    return tuple(
        f"{step.sentence}: echoes may be in the wrong order, or hold fat and water" for step in steps
    )
