"""R2* of gradient echoes without phase: all that their magnitude can tell."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cordqa.models.maps import Attachments, FittedMaps, Reasons
from cordqa.models.susceptibility.echo_input import check_echo_times, check_magnitude
from cordqa.models.susceptibility.echo_order import check_decay
from cordqa.models.susceptibility.geometry import voxel_size_mm
from cordqa.models.susceptibility.masks import Masks
from cordqa.models.susceptibility.pipeline import SusceptibilityMapping
from cordqa.models.susceptibility.quality import estimate_noise
from cordqa.models.susceptibility.r2star import fit_r2star
from cordqa.records import Volume

__all__ = ["map_decay", "surround"]

Mask = NDArray[np.bool_]

#: How far from the cord voxels are fitted, mm.
_REACH_MM = 6.0
_METHOD = (
    "R2* was fitted to the magnitude of {n} echoes, voxel by voxel: squared magnitude less its noise floor, "
    "weighted least squares and Gauss-Newton; the noise was taken from differences of the magnitude between "
    "neighbours. There was no phase."
)


def surround(cord: Mask, affine: NDArray[np.float64]) -> Mask:
    """Return the cord and what lies within 6 mm of it."""
    from scipy.ndimage import distance_transform_edt

    near: Mask = distance_transform_edt(~cord, sampling=voxel_size_mm(affine)) <= _REACH_MM
    return near


def map_decay(magnitude: Volume, echo_times_s: tuple[float, ...], where: Mask) -> SusceptibilityMapping:
    """Map R2* from the magnitude of two echoes or more.

    Parameters
    ----------
    magnitude : Volume
        Four dimensions, echoes last.
    echo_times_s : tuple of float
    where : ndarray of bool, shape (x, y, z)
        Voxels that are fitted.

    Returns
    -------
    SusceptibilityMapping
        With the one map ``R2star`` (1/s); without reporting table and numbers of quality.

    Raises
    ------
    InputError
        If the magnitude is none, grows with echo time, or its echo times cannot be seconds.
    """
    data = np.asarray(magnitude.data, dtype=float)
    times = check_echo_times(echo_times_s, data.shape[-1])
    check_magnitude(data)
    missing = ~np.isfinite(data).all(axis=-1) | (data < 0).any(axis=-1)
    inside = where & ~missing
    values = data[inside]
    check_decay(values)
    noise = estimate_noise(np.nan_to_num(data[..., -1], posinf=0.0, neginf=0.0), inside)
    fit = fit_r2star(values, times, noise_sd=noise)
    rate, error = (np.full(where.shape, np.nan) for _ in range(2))
    rate[inside], error[inside] = fit.r2star_per_s, fit.standard_error_per_s
    reasons = Reasons.collect(
        where.shape,
        [
            (where & missing, "the magnitude is not a number, or negative"),
            (~where, "further than the fit reaches"),
            (~np.isfinite(rate), "fewer than two echoes above the noise"),
        ],
    )
    maps = FittedMaps(
        model="mono-exponential decay of the magnitude",
        values={"R2star": rate},
        units={"R2star": "1/s"},
        standard_errors={"R2star": np.where(np.isfinite(rate), error, np.nan)} if noise > 0 else {},
        reasons=reasons,
        attached=Attachments(methods=(_METHOD.format(n=times.size),)),
    )
    masks = Masks(fit=inside, valid=np.isfinite(rate), registration=where)
    return SusceptibilityMapping(maps=maps, masks=masks, quality={}, consensus={})
