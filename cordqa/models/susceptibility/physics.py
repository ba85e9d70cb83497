"""Constants and units that every step of susceptibility mapping shares."""

from __future__ import annotations

import math

from cordqa.errors import InputError

__all__ = ["GAMMA_BAR_MHZ_T", "hertz_per_ppm", "radians_per_ppm_second"]

#: Proton gyromagnetic ratio over 2 pi, MHz/T (CODATA 2018).
GAMMA_BAR_MHZ_T = 42.577478518


def hertz_per_ppm(field_strength_t: float) -> float:
    """Frequency shift in Hz of a relative field change of 1 ppm.

    Raises
    ------
    InputError
        If the field strength is not that of a scanner (0.05 to 12 T).
    """
    if not 0.05 <= field_strength_t <= 12:
        raise InputError(
            "the field strength is not that of a scanner",
            found=f"{field_strength_t:g}",
            expected="0.05 to 12 T",
            todo="give --field-strength in tesla",
        )
    return GAMMA_BAR_MHZ_T * field_strength_t


def radians_per_ppm_second(field_strength_t: float) -> float:
    """Phase in rad that a relative field change of 1 ppm accrues in one second."""
    return 2 * math.pi * hertz_per_ppm(field_strength_t)
