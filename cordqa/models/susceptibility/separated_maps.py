"""Which relaxation rate the separation of a scan uses, and the maps that come of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.models.susceptibility.separation import SeparatedSources, separate
from cordqa.models.susceptibility.stage import FieldStage, to_volume

__all__ = ["DIAMAGNETIC", "PARAMAGNETIC", "RATE_UNKNOWN", "WRONG_SIGN", "separate_scan"]

Array = NDArray[np.float64]

PARAMAGNETIC, DIAMAGNETIC = "susceptibility_paramagnetic", "susceptibility_diamagnetic"
RATE_UNKNOWN = "the relaxation rate for the separation is not known"
#: R2' and R2 are parts of R2*; noise and another sequence may make them larger by this factor.
_TOO_FAST = 1.5
WRONG_SIGN = "one of the two parts came out with the wrong sign and was set to zero"


@dataclass(frozen=True, slots=True)
class _Rate:
    prime: Array | None
    star: Array | None
    error: Array | None


def separate_scan(
    stage: FieldStage,
    chi_ppm: Array,
    chi_error_ppm: Array | None,
    *,
    r2prime_per_s: Array | None,
    r2_per_s: Array | None,
    without_r2: bool,
) -> SeparatedSources | None:
    """Separate susceptibility where there is a relaxation rate to do it with; otherwise ``None``.

    Parameters
    ----------
    stage : FieldStage
    chi_ppm, chi_error_ppm : ndarray, shape (x, y, z)
    r2prime_per_s, r2_per_s : ndarray, shape (x, y, z), optional
        R2', or R2 of a spin echo, which is subtracted from the R2* of this scan.
    without_r2 : bool
        Let R2* stand in where neither is given.

    Raises
    ------
    InputError
        If R2* is needed and the scan has one echo, or if the rate that was given is larger than R2* of
        the scan in most voxels: it is part of R2*.
    """
    if r2prime_per_s is None and r2_per_s is None and not without_r2:
        return None
    rate = _rate(stage, r2prime_per_s, r2_per_s)
    return separate(
        chi_ppm,
        rate.prime,
        field_strength_t=stage.echoes.field_strength_t,
        r2_star_per_s=rate.star,
        allow_r2_star=without_r2,
        chi_standard_error=chi_error_ppm,
        r2_prime_standard_error=rate.error,
    )


def _rate(stage: FieldStage, prime: Array | None, r2: Array | None) -> _Rate:
    for name, rate in (("R2'", prime), ("R2", r2)):
        if rate is not None:
            _check_rate(name, np.asarray(rate, dtype=float), stage)
    if prime is not None:
        return _Rate(np.asarray(prime, dtype=float), None, None)
    if stage.decay is None:
        raise InputError(
            "separation needs R2*, which one echo cannot give", todo="give --r2prime, or more echoes"
        )
    inside = stage.fit_mask.mask
    star = to_volume(stage.decay.r2star_per_s, inside)
    errors = stage.decay.standard_error_per_s
    error = to_volume(errors, inside) if np.isfinite(errors).any() else None
    if r2 is None:
        return _Rate(None, star, error)
    return _Rate(star - np.where(np.asarray(r2) > 0, r2, np.nan), None, error)


def _check_rate(name: str, rate: Array, stage: FieldStage) -> None:
    """Refuse a rate that is far above R2* of the same voxels: a relaxation time, or another unit."""
    if stage.decay is None:
        return
    star, given = stage.decay.r2star_per_s, rate[stage.fit_mask.mask]
    known = np.isfinite(star) & np.isfinite(given) & (given > 0)
    if not known.any():
        return
    typical, limit = float(np.median(given[known])), float(np.median(star[known]))
    if limit > 0 and typical > _TOO_FAST * limit:
        raise InputError(
            f"{name} is larger than R2* of this scan, of which it is a part",
            found=f"a median of {typical:.3g} 1/s against {limit:.3g} 1/s",
            expected=f"{name} in 1/s at the same field strength; is it a relaxation time in ms?",
            todo="give the rate: 1000 divided by the time in ms",
        )
