"""Choices of the chain from total field to susceptibility, and its result."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError

__all__ = [
    "BACKGROUNDS",
    "INVERSIONS",
    "TOTAL_VARIATION",
    "ChainSettings",
    "Reconstruction",
    "check_settings",
]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

BACKGROUNDS = ("alternating", "pdf", "lbv", "v-sharp", "resharp", "ismv", "none")
INVERSIONS = ("tv", "nonlinear-tv", "rts", "l2", "tkd")
TOTAL_VARIATION = ("tv", "nonlinear-tv")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainSettings:
    """Choices of the chain; every default was decided on simulated fields with known truth.

    Attributes
    ----------
    background : str
        One of :data:`BACKGROUNDS`; ``none`` if the field is local already.
    inversion : str
        One of :data:`INVERSIONS`; the alternating background always uses ``tv`` between rounds.
    regularisation : float, optional
        Weight of the penalty of the inversion in its own scale; chosen from the noise otherwise.
    rounds : int, optional
        Most rounds of background and inversion of the alternating scheme, which stops earlier when
        the local field has settled; 8 unless told, 6 on grids above 300 000 voxels.
    two_pass : bool
        Invert the reliable voxels first, then all, and combine: for total variation.
    radians_per_ppm : float, optional
        Phase that 1 ppm makes (2 pi times Hz per ppm times the mean echo time); the non-linear
        inversion needs it.
    probes : int
        Random fields for the standard error of susceptibility; 0 for none.
    seed : int
        Of the random fields.
    replica : bool, optional
        Whether to invert the field of the map itself, with noise, to see what becomes of its contrasts;
        where noise is drawn and the padded grid has fewer than 300 000 voxels unless told.
    """

    background: str = "alternating"
    inversion: str = "tv"
    regularisation: float | None = None
    rounds: int | None = None
    two_pass: bool = False
    radians_per_ppm: float | None = None
    probes: int = 0
    seed: int = 0
    replica: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstruction:
    """Result of the chain; arrays have the shape of the mask.

    Attributes
    ----------
    chi_ppm : ndarray
        Susceptibility; NaN outside ``valid``.  Its mean over ``valid`` is zero: reference it
        explicitly with :func:`cordqa.models.susceptibility.reference.reference_to_mask` or
        :func:`~cordqa.models.susceptibility.reference.reference_to_region`.
    standard_error_ppm : ndarray or None
        One standard deviation from the noise of the field; None without probes.
    draws_ppm : ndarray, shape (n_probes, n_valid), or None
        Noise realisations of susceptibility; region standard errors come from them.
    local_field_ppm, background_ppm : ndarray
        Parts of the total field; NaN outside ``valid``.
    residual_ppm : ndarray
        Local field less that of the susceptibility; NaN outside ``valid``.
    weights : ndarray
        Weight of each voxel in the data term, 0 outside ``valid``; reliable voxels have 1.
    valid : ndarray of bool
        Voxels of the mask that have a value.
    kept_fraction : float
        Voxels of ``valid`` over those of the mask.
    regularisation : float
    rounds : int
    streak : float
        Share of the power of the gradient that lies near the magic angle, over what isotropy
        would give; 1 means no streaks.
    replica_ppm : ndarray or None
        What the inversion makes of the field of this very map with noise of the same size, NaN outside
        ``valid``: :func:`~cordqa.models.susceptibility.inversion_recovery.contrast_recovery` reads from
        it how much of a contrast is lost.  None where it was not made, and for other inversions than total
        variation.
    methods : tuple of str
        Sentences for the methods text.
    notices, warnings : tuple of str
        What a reader should know, and must not overlook.
    """

    chi_ppm: Array
    standard_error_ppm: Array | None
    draws_ppm: NDArray[np.float32] | None
    local_field_ppm: Array
    background_ppm: Array
    residual_ppm: Array
    weights: Array
    valid: Mask
    kept_fraction: float
    regularisation: float
    rounds: int
    streak: float
    replica_ppm: Array | None = None
    methods: tuple[str, ...] = field(default=())
    notices: tuple[str, ...] = field(default=())
    warnings: tuple[str, ...] = field(default=())


def check_settings(settings: ChainSettings) -> ChainSettings:
    """Return the settings if they can be used.

    Raises
    ------
    InputError
    """
    for name, found, known in (
        ("background removal", settings.background, BACKGROUNDS),
        ("inversion", settings.inversion, INVERSIONS),
    ):
        if found not in known:
            raise InputError(f"no {name} of this name", found=found, expected=" or ".join(known))
    strength = settings.regularisation
    if strength is not None and not 0 < strength < 1:
        raise InputError(
            "the regularisation cannot be used", found=f"{strength:g}", expected="above 0, below 1"
        )
    if (settings.rounds is not None and settings.rounds < 1) or settings.probes < 0:
        raise InputError(
            "rounds or probes cannot be used",
            found=f"{settings.rounds} rounds, {settings.probes} probes",
            expected="at least one round, no negative number of probes",
        )
    if settings.two_pass and settings.inversion not in TOTAL_VARIATION:
        raise InputError(
            "two passes are of total variation: no other inversion can leave voxels out",
            found=settings.inversion,
            expected=" or ".join(TOTAL_VARIATION),
        )
    phase = settings.radians_per_ppm
    if settings.inversion == "nonlinear-tv" and not (phase is not None and phase > 0):
        raise InputError(
            "the non-linear inversion needs the phase that 1 ppm makes",
            todo="give radians_per_ppm: 2 pi times Hz per ppm times the mean echo time",
        )
    return settings
