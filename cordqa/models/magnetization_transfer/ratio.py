"""Magnetization transfer ratio."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError
from cordqa.models.magnetization_transfer.outcomes import NO_NUMBER, NO_SIGNAL, judge
from cordqa.models.maps import FittedMaps

__all__ = ["mt_ratio"]

Array = NDArray[np.float64]


def mt_ratio(mt_on: ArrayLike, mt_off: ArrayLike, *, limit_percent: float | None = None) -> FittedMaps:
    """Magnetization transfer ratio, 100 (S_off - S_on) / S_off.

    The ratio depends on T1, flip angle, TR and B1 as well as on the tissue: compare it between
    scanners with care, and look at MTsat beside it.

    Parameters
    ----------
    mt_on, mt_off : array_like, same shape
        Signal with and without the saturation pulse, registered, of one scaling.
    limit_percent : float, optional
        Clip to plus and minus this value, as the Spinal Cord Toolbox does at 100; by default values
        are left as they are, and noise outside tissue may lie far out.

    Returns
    -------
    FittedMaps
        MTR (%); NaN with a reason where a signal is not positive or not a number: a zero is padding, or
        what a mask left, and no saturation of 100 %.

    Raises
    ------
    InputError
        If shapes differ.
    """
    on, off = np.asarray(mt_on, dtype=float), np.asarray(mt_off, dtype=float)
    if on.shape != off.shape:
        raise InputError("MT-on and MT-off differ in shape", found=f"{on.shape}", expected=f"{off.shape}")
    if limit_percent is not None and not limit_percent > 0:
        raise InputError("the limit must be positive", found=f"{limit_percent}")
    known = np.isfinite(on) & np.isfinite(off)
    usable = known & (off > 0) & (on > 0)
    ratio = 100.0 * (1.0 - np.divide(on, off, out=np.ones_like(on), where=usable))
    if limit_percent is not None:
        ratio = np.clip(ratio, -limit_percent, limit_percent)
    values, reasons = judge(ratio, [(~known, NO_NUMBER), (~usable, NO_SIGNAL)])
    return FittedMaps(
        model="100 (off - on) / off", values={"MTR": values}, units={"MTR": "%"}, reasons=reasons
    )
