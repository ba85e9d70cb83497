"""Inhomogeneous magnetization transfer ratio (ihMTR), with its normalisation said."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError
from cordqa.models.magnetization_transfer.outcomes import NO_NUMBER, NO_SIGNAL, judge
from cordqa.models.maps import FittedMaps

__all__ = ["Normalisation", "ihmt_ratio"]

Array = NDArray[np.float64]
#: ``sum``: over the sum of both single and both dual images; ``mean``: over their means, half of it.
Normalisation = Literal["sum", "mean"]
_SHARE = {"sum": 1.0, "mean": 0.5}
NEGATIVE = "negative: the dual images are brighter than the single ones"


def ihmt_ratio(
    positive: ArrayLike,
    negative: ArrayLike,
    dual: ArrayLike,
    reference: ArrayLike,
    *,
    normalisation: Normalisation,
) -> FittedMaps:
    """Inhomogeneous MT ratio in percent.

    Saturation at both offsets at once lowers the signal more than the same power at one offset where
    dipolar order is long-lived.  With ``sum``, 100 (S+ + S- - 2 Sdual) / S0; with ``mean``, half of
    it, the difference of the mean single and the mean dual image.  Published values use either, so
    there is no default.

    Parameters
    ----------
    positive, negative : array_like, same shape
        Saturation at one offset, above and below.
    dual : array_like, same shape, or with the images along the last axis
        Saturation at both offsets with the same power; several images are averaged.
    reference : array_like, same shape
        No saturation.
    normalisation : {'sum', 'mean'}

    Returns
    -------
    FittedMaps
        ihMTR (%).

    Raises
    ------
    InputError
        If shapes differ, or the normalisation is not said.

    References
    ----------
    .. [1] Varma et al., Magn Reson Med 2015, doi:10.1002/mrm.25174
    """
    if normalisation not in get_args(Normalisation):
        raise InputError(
            "the normalisation of ihMTR must be said: published values differ by a factor of two",
            found=repr(normalisation),
            expected="sum, (S+ + S- - 2 Sdual) / S0, or mean, half of it",
        )
    s0, plus, minus = (np.asarray(image, dtype=float) for image in (reference, positive, negative))
    both = np.asarray(dual, dtype=float)
    if both.ndim == s0.ndim + 1:
        both = both.mean(axis=-1)
    if not s0.shape == plus.shape == minus.shape == both.shape:
        raise InputError(
            "the images differ in shape", found=f"{plus.shape}, {minus.shape}, {both.shape}, {s0.shape}"
        )
    images = np.stack([s0, plus, minus, both])
    known = np.isfinite(images).all(axis=0)
    usable = known & (images > 0).all(axis=0)
    above = plus + minus - 2 * both
    ratio = np.divide(above, s0, out=np.full(s0.shape, np.nan), where=usable)
    value = 100 * _SHARE[normalisation] * ratio
    value, reasons = judge(value, [(~known, NO_NUMBER), (~usable, NO_SIGNAL)])
    words = {"sum": "(S+ + S- - 2 Sdual) / S0", "mean": "(S+ + S- - 2 Sdual) / (2 S0)"}[normalisation]
    return FittedMaps(
        model=f"ihMTR = 100 {words}",
        values={"ihMTR": value},
        units={"ihMTR": "%"},
        reasons=reasons,
        flags={NEGATIVE: value < 0},
        notices=(f"normalised as {words}; the other convention differs by a factor of two",),
    )
