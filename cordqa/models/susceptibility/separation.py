"""Separation into para- and diamagnetic parts, with what relaxation adds to the field.

Both signs of susceptibility speed up the reversible relaxation, while they oppose each other in
the field: ``chi = chi_para + chi_dia`` and ``R2' = Dr_para chi_para + Dr_dia |chi_dia|`` are two
equations with two unknowns (Shin et al. 2021, doi:10.1016/j.neuroimage.2021.118371).  The
relaxivities hold for the static regime and are proportional to the field strength.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.models.susceptibility.physics import hertz_per_ppm

__all__ = ["RELAXIVITY_HZ_PER_PPM_3T", "SeparatedSources", "separate"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Reversible relaxation of 1 ppm at 3 T, Hz.
RELAXIVITY_HZ_PER_PPM_3T = 137.0
#: The same for R2*, which holds irreversible relaxation as well: it stands in for R2' + R2 (Dimov et al.
#: 2022, doi:10.3390/tomography8030127).
R2_STAR_RELAXIVITY_HZ_PER_PPM_3T = 274.0
_LEVEL = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class SeparatedSources:
    """Parts of susceptibility; NaN where either input is unknown.

    Attributes
    ----------
    para_ppm, dia_ppm : ndarray
        At least zero, and at most zero.
    para_standard_error_ppm, dia_standard_error_ppm : ndarray or None
        From the standard errors of the inputs, where given; of the free solution.
    at_bound : ndarray of bool
        Voxels where the two equations ask for a part of the wrong sign; it was set to zero.
    experimental : bool
        Whether R2* stood in for R2'.
    method : str
    notices : tuple of str
    """

    para_ppm: Array
    dia_ppm: Array
    para_standard_error_ppm: Array | None
    dia_standard_error_ppm: Array | None
    at_bound: Mask
    experimental: bool
    method: str
    notices: tuple[str, ...] = ()


def separate(
    chi_ppm: Array,
    r2_prime_per_s: Array | None = None,
    *,
    field_strength_t: float,
    r2_star_per_s: Array | None = None,
    allow_r2_star: bool = False,
    para_relaxivity_3t: float | None = None,
    dia_relaxivity_3t: float | None = None,
    chi_standard_error: Array | None = None,
    r2_prime_standard_error: Array | None = None,
) -> SeparatedSources:
    """Separate susceptibility into its para- and diamagnetic parts.

    Parameters
    ----------
    chi_ppm : ndarray
        Referenced to tissue or fluid without sources (usually CSF): the zero matters here.
    r2_prime_per_s : ndarray, optional
        R2* less R2, 1/s; the latter needs a spin-echo scan.
    field_strength_t : float
    r2_star_per_s : ndarray, optional
        1/s; stands in for R2' if allowed.
    allow_r2_star : bool
        Take R2* where there is no R2': experimental, as part of R2* has nothing to do with
        susceptibility.
    para_relaxivity_3t, dia_relaxivity_3t : float, optional
        Hz/ppm at 3 T; 137 for both with R2', 274 with R2*.
    chi_standard_error, r2_prime_standard_error : ndarray, optional
        Decide where a bound is active, and give the standard errors.

    Raises
    ------
    InputError
        If there is no R2' and R2* is not there or not allowed; if shapes differ; if a relaxivity
        is not positive.
    """
    rate, experimental = _choose_rate(r2_prime_per_s, r2_star_per_s, allow_r2_star)
    if rate.shape != chi_ppm.shape:
        raise InputError(
            "susceptibility and relaxation rate lie on different grids",
            found=f"{chi_ppm.shape} and {rate.shape}",
            expected="one shape",
            todo="resample the relaxation rate",
        )
    default = R2_STAR_RELAXIVITY_HZ_PER_PPM_3T if experimental else RELAXIVITY_HZ_PER_PPM_3T
    hertz_per_ppm(field_strength_t)  # refuses an impossible field
    plus = _relaxivity(para_relaxivity_3t, default) * field_strength_t / 3
    minus = _relaxivity(dia_relaxivity_3t, default) * field_strength_t / 3
    known = np.isfinite(chi_ppm) & np.isfinite(rate)
    chi, speed = np.where(known, chi_ppm, 0), np.where(known, rate, 0)
    para, dia, bound = _solve(chi, speed, plus, minus, _ratio(chi_standard_error, r2_prime_standard_error))
    errors = _errors(plus, minus, chi_standard_error, r2_prime_standard_error)
    bound &= known
    return SeparatedSources(
        para_ppm=np.where(known, para, np.nan),
        dia_ppm=np.where(known, dia, np.nan),
        para_standard_error_ppm=errors[0],
        dia_standard_error_ppm=errors[1],
        at_bound=bound,
        experimental=experimental,
        method=_sentence(plus, minus, experimental),
        notices=_notices(bound, known, experimental),
    )


def _choose_rate(prime: Array | None, star: Array | None, allowed: bool) -> tuple[Array, bool]:
    if prime is not None:
        return np.asarray(prime, dtype=float), False
    if star is None or not allowed:
        raise InputError(
            "separation into para- and diamagnetic parts needs R2'",
            found="R2* only" if star is not None else "no relaxation rate",
            expected="R2' = R2* - R2, with R2 of a spin-echo scan",
            todo="give R2', or ask for the experimental variant that takes R2* in its place",
        )
    return np.asarray(star, dtype=float), True


def _relaxivity(given: float | None, default: float) -> float:
    value = default if given is None else given
    if not (math.isfinite(value) and value > 0):
        raise InputError(
            "a relaxivity is not usable", found=f"{value:g}", expected="a positive number, Hz/ppm"
        )
    return value


def _ratio(chi_error: Array | None, rate_error: Array | None) -> Array | float | None:
    """Variance of the rate over that of chi; None: trust both alike."""
    if chi_error is None or rate_error is None:
        return None
    ratio: Array = np.square(rate_error) / np.maximum(np.square(chi_error), 1e-12)
    return ratio


def _solve(
    chi: Array, rate: Array, plus: float, minus: float, ratio: Array | float | None
) -> tuple[Array, Array, Mask]:
    """Two equations; where a part has the wrong sign, the other is the weighted compromise."""
    para = (rate + minus * chi) / (plus + minus)
    size = (rate - plus * chi) / (plus + minus)
    scale = plus * minus if ratio is None else ratio
    only_para = (scale * chi + plus * rate) / (scale + plus**2)
    only_dia = (-scale * chi + minus * rate) / (scale + minus**2)
    no_dia, no_para = size < 0, para < 0
    new_para = np.where(no_dia, np.maximum(only_para, 0), np.where(no_para, 0, para))
    new_size = np.where(no_dia, 0, np.where(no_para, np.maximum(only_dia, 0), size))
    # Both wrong happens only with a negative rate: the one that chi asks for is kept.
    both = no_dia & no_para
    new_para = np.where(both & (chi < 0), 0, new_para)
    new_size = np.where(both & (chi < 0), np.maximum(only_dia, 0), new_size)
    return new_para, -new_size, no_dia | no_para


def _errors(
    plus: float, minus: float, chi_error: Array | None, rate_error: Array | None
) -> tuple[Array | None, Array | None]:
    if chi_error is None or rate_error is None:
        return None, None
    para = np.hypot(rate_error, minus * chi_error) / (plus + minus)
    dia = np.hypot(rate_error, plus * chi_error) / (plus + minus)
    return para, dia


def _sentence(plus: float, minus: float, experimental: bool) -> str:
    rate = "R2* in place of R2' (experimental)" if experimental else "R2'"
    return (
        f"Para- and diamagnetic parts were solved in closed form from susceptibility and {rate}, with "
        f"relaxivities of {plus:.1f} and {minus:.1f} Hz/ppm; parts of the wrong sign were set to zero."
    )


def _notices(bound: Mask, known: Mask, experimental: bool) -> tuple[str, ...]:
    notices = []
    if experimental:
        notices.append("para- and diamagnetic parts rest on R2* in place of R2': experimental")
    share = float(np.count_nonzero(bound)) / max(int(np.count_nonzero(known)), 1)
    if share > _LEVEL:
        notices.append(
            f"in {100 * share:.0f} % of the voxels one part came out with the wrong sign and was set to "
            "zero: check the reference of susceptibility and the unit of R2' (1/s)"
        )
    return tuple(notices)
