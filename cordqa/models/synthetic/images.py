"""Synthetic images of whole volumes, contrast by contrast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.models.maps import Reasons
from cordqa.models.synthetic.contrast import EchoTiming, double_inversion, inversion_recovery, spin_echo

__all__ = ["Contrast", "judge_maps", "render"]

Array = NDArray[np.float64]
Kind = Literal["spin echo", "inversion recovery", "double inversion"]

#: Voxels rendered together: their temporaries stay in the cache.
_AT_ONCE = 32_768
#: A relaxation time beyond this, in seconds, is none.
_LONGEST_S = 20.0
NO_VALUE = "a map has no value here"
NO_TISSUE = "all maps are zero here"
NO_TIME = "T1 or T2 is not positive"
TOO_LONG = "T1 or T2 is beyond 20 s"
NEGATIVE = "negative proton density"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """One synthetic image: its name, sequence and times.

    Attributes
    ----------
    name : str
        ``T1w``, ``FLAIR`` ...
    timing : EchoTiming
    first_s, second_s : float or None
        Inversion times, both to the excitation; no, one or two of them say which sequence it is.
    keep_sign : bool
        Whether an inverted signal stays negative (PSIR) or becomes a magnitude.
    """

    name: str
    timing: EchoTiming
    first_s: float | None = None
    second_s: float | None = None
    keep_sign: bool = False

    def __post_init__(self) -> None:
        if self.second_s is not None and self.first_s is None:
            raise InputError("a second inversion needs a first one", where=self.name)

    @property
    def kind(self) -> Kind:
        """Sequence."""
        if self.first_s is None:
            return "spin echo"
        return "inversion recovery" if self.second_s is None else "double inversion"

    @property
    def sentence(self) -> str:
        """Sequence and times in words."""
        times = [f"TR {self.timing.repetition_time_s:.4g} s", f"TE {self.timing.echo_time_s:.4g} s"]
        if self.first_s is not None and self.second_s is None:
            times.append(f"TI {self.first_s:.4g} s")
        if self.first_s is not None and self.second_s is not None:
            times.append(f"TI {self.first_s:.4g} and {self.second_s:.4g} s, both to the excitation")
        sign = ", sign kept" if self.keep_sign else ""
        return f"synthetic {self.name}: {self.kind}, {', '.join(times)}{sign}"

    def signal(self, proton_density: Array, t1_s: Array, t2_s: Array) -> Array:
        """Signal in units of the proton density."""
        if self.first_s is None:
            return spin_echo(proton_density, t1_s, t2_s, self.timing)
        if self.second_s is None:
            return inversion_recovery(
                proton_density, t1_s, t2_s, self.timing, self.first_s, keep_sign=self.keep_sign
            )
        return double_inversion(
            proton_density,
            t1_s,
            t2_s,
            self.timing,
            self.first_s,
            self.second_s,
            keep_sign=self.keep_sign,
        )


def judge_maps(
    proton_density: NDArray[np.floating], t1_s: NDArray[np.floating], t2_s: NDArray[np.floating]
) -> Reasons:
    """Say which voxels have no synthetic signal, and why."""
    maps = (proton_density, t1_s, t2_s)
    known = np.logical_and.reduce([np.isfinite(one) for one in maps])
    with np.errstate(invalid="ignore"):
        empty = known & np.logical_and.reduce([one == 0 for one in maps])
        times = (t1_s > 0) & (t2_s > 0)
        long = (t1_s > _LONGEST_S) | (t2_s > _LONGEST_S)
        negative = proton_density < 0
    failures = [
        (~known, NO_VALUE),
        (empty, NO_TISSUE),
        (~times, NO_TIME),
        (long, TOO_LONG),
        (negative, NEGATIVE),
    ]
    return Reasons.collect(known.shape, failures)


def render(
    contrast: Contrast,
    proton_density: NDArray[np.floating],
    t1_s: NDArray[np.floating],
    t2_s: NDArray[np.floating],
    *,
    where: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """Compute one synthetic image, block by block.

    Parameters
    ----------
    contrast : Contrast
    proton_density, t1_s, t2_s : ndarray, one shape
        Relaxation times in seconds.
    where : ndarray of bool
        Voxels to be computed; the others are NaN.

    Returns
    -------
    ndarray of float32
        In units of the proton density.

    Raises
    ------
    InputError
        If shapes differ.
    """
    if not proton_density.shape == t1_s.shape == t2_s.shape == where.shape:
        raise InputError(
            "the maps differ in shape", found=f"{proton_density.shape}, {t1_s.shape}, {t2_s.shape}"
        )
    image = np.full(where.shape, np.nan, dtype=np.float32)
    flat, rows = image.reshape(-1), np.flatnonzero(where)
    maps = [np.reshape(one, -1) for one in (proton_density, t1_s, t2_s)]
    for first in range(0, rows.size, _AT_ONCE):
        some = rows[first : first + _AT_ONCE]
        pd, t1, t2 = (one[some].astype(np.float64) for one in maps)
        flat[some] = contrast.signal(pd, t1, t2)
    return image
