"""From the stored phase and magnitude of a scan to susceptibility with its uncertainty.

One pure function joins the steps: input, masks, unwrapping, field, background, inversion, reference
and separation.  Arrays in, arrays out; it knows no file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.models.susceptibility.assemble import SusceptibilityMapping, assemble
from cordqa.models.susceptibility.field_noise import field_noise
from cordqa.models.susceptibility.physics import hertz_per_ppm
from cordqa.models.susceptibility.scan import Echoes, Scan
from cordqa.models.susceptibility.stage import FieldStage, MappingSettings, measure_field
from cordqa.models.susceptibility.total_field import ChainSettings, reconstruct

__all__ = ["MappingSettings", "Scan", "SusceptibilityMapping", "map_susceptibility"]

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Mask = NDArray[np.bool_]


def map_susceptibility(
    scan: Scan,
    *,
    mask: Mask | None = None,
    cord_mask: Mask | None = None,
    reference: Mask | None = None,
    r2prime_per_s: Array | None = None,
    r2_per_s: Array | None = None,
    settings: MappingSettings | None = None,
) -> SusceptibilityMapping:
    """Map susceptibility.

    Parameters
    ----------
    scan : Scan
    mask : ndarray of bool, shape (x, y, z), optional
        Tissue.  Without it, and without ``cord_mask``, one is made from magnitude and phase.
    cord_mask : ndarray of bool, shape (x, y, z), optional
        The cord alone: widened to the canal and the discs for removal of the background.
    reference : ndarray of bool, shape (x, y, z), optional
        Region whose mean susceptibility is zero; the whole valid mask otherwise.
    r2prime_per_s, r2_per_s : ndarray, shape (x, y, z), optional
        For the separation into para- and diamagnetic parts: R2', or R2 of a spin echo, from which
        R2' follows with the R2* of this scan.
    settings : MappingSettings, optional

    Raises
    ------
    InputError
        If anything cannot be what it is given as; the message says what it probably is.
    """
    chosen = settings or MappingSettings()
    _check_masks(scan, mask=mask, cord_mask=cord_mask, reference=reference)
    _check_masks(scan, r2prime=r2prime_per_s, r2=r2_per_s)
    if r2prime_per_s is not None and r2_per_s is not None:
        raise InputError("give R2' or R2, not both")
    stage = measure_field(scan, mask=mask, cord_mask=cord_mask, settings=chosen)
    found = reconstruct(
        stage.total_field_ppm,
        stage.standard_error_ppm if np.isfinite(stage.line.noise_sd) else None,
        stage.fit_mask.mask,
        voxel_size_mm=stage.echoes.voxel_size_mm,
        b0_direction=stage.echoes.b0_direction,
        settings=_chain(chosen.chain, stage.echoes),
        noise=_noise(stage) if chosen.chain.probes else None,
    )
    return assemble(stage, found, chosen, reference=reference, r2prime_per_s=r2prime_per_s, r2_per_s=r2_per_s)


def _noise(stage: FieldStage) -> Callable[[np.random.Generator], Single] | None:
    """Describe the noise of the total field; None where it is not known."""
    found = field_noise(
        stage.line,
        np.asarray(stage.echoes.magnitude[stage.fit_mask.mask], dtype=float),
        stage.echoes.times_s,
        stage.fit_mask.mask,
        field_strength_t=stage.echoes.field_strength_t,
        voxel_size_mm=stage.echoes.voxel_size_mm,
    )
    return None if found is None else found.draw


def _chain(chain: ChainSettings, echoes: Echoes) -> ChainSettings:
    """Tell the non-linear inversion how much phase 1 ppm makes."""
    if chain.radians_per_ppm is not None:
        return chain
    per_ppm = 2 * math.pi * hertz_per_ppm(echoes.field_strength_t) * float(echoes.times_s.mean())
    return replace(chain, radians_per_ppm=per_ppm)


def _check_masks(scan: Scan, **images: NDArray[Any] | None) -> None:
    for name, image in images.items():
        if image is not None and image.shape != scan.phase.shape[:3]:
            raise InputError(
                f"the {name.replace('_', ' ')} lies on another grid than the images",
                found=f"{image.shape}",
                expected=f"{scan.phase.shape[:3]}",
            )
