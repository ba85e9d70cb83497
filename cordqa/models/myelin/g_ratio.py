"""The g-ratio of myelinated axons from the volumes of myelin and of axons."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError
from cordqa.models.maps import FittedMaps, Reasons

__all__ = ["MyelinCalibration", "compute_g_ratio"]

Array = NDArray[np.float64]
MISSING = "an input is missing"
NO_MYELIN = "the calibrated myelin volume is not between 0 and 1"
NO_SHARE = "a fraction is not between 0 and 1"
NO_AXON = "no axons"


@dataclass(frozen=True, slots=True, kw_only=True)
class MyelinCalibration:
    """How a myelin measure becomes a volume fraction: ``MVF = slope x measure + intercept``.

    Attributes
    ----------
    slope, intercept : float
        MVF (0 to 1) per unit of the measure, and at 0.
    slope_se, intercept_se : float
        Standard errors; common to all voxels.
    source : str
        Where the calibration comes from.
    """

    slope: float
    intercept: float = 0.0
    slope_se: float = 0.0
    intercept_se: float = 0.0
    source: str = "given by the user"

    def __post_init__(self) -> None:
        """Refuse a calibration that says nothing."""
        numbers = (self.slope, self.intercept, self.slope_se, self.intercept_se)
        if not np.isfinite(numbers).all() or self.slope == 0 or min(self.slope_se, self.intercept_se) < 0:
            raise InputError("the calibration of myelin volume cannot be meant", found=f"{numbers}")


def compute_g_ratio(
    myelin: ArrayLike,
    neurite: ArrayLike,
    free_water: ArrayLike,
    calibration: MyelinCalibration,
    *,
    standard_errors: tuple[ArrayLike, ArrayLike, ArrayLike] | None = None,
) -> FittedMaps:
    """Return g = sqrt(AVF / (AVF + MVF)), with AVF = (1 - MVF)(1 - v_iso) v_ic.

    Parameters
    ----------
    myelin : array_like
        Myelin measure in the unit of the calibration (MWF, MTsat ...).
    neurite, free_water : array_like
        Share of neurites in tissue water (v_ic) and of free water (v_iso), 0 to 1, of NODDI or the
        like.
    calibration : MyelinCalibration
    standard_errors : tuple of array_like, optional
        Of the three maps.

    Returns
    -------
    FittedMaps
        ``g_ratio``, ``MVF`` and ``AVF`` (%), with standard errors where those of the maps are given.
        The error of the calibration moves all voxels together: it is not in the standard errors but,
        at the median voxel, in a notice.

    References
    ----------
    .. [1] Stikov et al., NeuroImage 2015, doi:10.1016/j.neuroimage.2015.05.023
    """
    measure, v_ic, v_iso = np.broadcast_arrays(
        *(np.asarray(one, dtype=float) for one in (myelin, neurite, free_water))
    )
    mvf = calibration.slope * measure + calibration.intercept
    finite = np.isfinite(measure) & np.isfinite(v_ic) & np.isfinite(v_iso)
    shares = (v_ic >= 0) & (v_ic <= 1) & (v_iso >= 0) & (v_iso <= 1)
    avf = (1 - mvf) * (1 - v_iso) * v_ic
    reasons = Reasons.collect(
        measure.shape,
        [
            (np.asarray(~finite), MISSING),
            (np.asarray(~((mvf > 0) & (mvf < 1))), NO_MYELIN),
            (np.asarray(~shares), NO_SHARE),
            (np.asarray(~(avf > 0)), NO_AXON),
        ],
    )
    ok = reasons.ok
    mvf, avf, v_ic, v_iso = (np.where(ok, one, 0.25) for one in (mvf, avf, v_ic, v_iso))
    g = np.sqrt(avf / (avf + mvf))
    # ln g = (ln AVF - ln(AVF + MVF)) / 2, and AVF falls as MVF grows.
    by_mvf = -g / 2 * (1 / (1 - mvf) + (1 - avf / (1 - mvf)) / (avf + mvf))
    by_avf = g / 2 * (1 / avf - 1 / (avf + mvf))
    errors: dict[str, Array] = {}
    if standard_errors is not None:
        se = [np.broadcast_to(np.asarray(one, dtype=float), measure.shape) for one in standard_errors]
        mvf_se = np.abs(calibration.slope) * se[0]
        through = np.hypot((1 - mvf) * (1 - v_iso) * se[1], (1 - mvf) * v_ic * se[2])
        avf_se = np.hypot(through, avf / (1 - mvf) * mvf_se)
        errors = {
            "g_ratio": np.hypot(by_mvf * mvf_se, by_avf * through),
            "MVF": 100 * mvf_se,
            "AVF": 100 * avf_se,
        }
    values = {"g_ratio": g, "MVF": 100 * mvf, "AVF": 100 * avf}
    return FittedMaps(
        model=f"g-ratio of one axon size, MVF = {calibration.slope:g} x measure + {calibration.intercept:g} "
        f"({calibration.source})",
        values={name: np.where(ok, one, np.nan) for name, one in values.items()},
        units={"g_ratio": "1", "MVF": "%", "AVF": "%"},
        standard_errors={name: np.where(ok, one, np.nan) for name, one in errors.items()},
        reasons=reasons,
        notices=(_common_error(calibration, measure, by_mvf, ok),),
    )


def _common_error(
    calibration: MyelinCalibration, measure: Array, by_mvf: Array, ok: NDArray[np.bool_]
) -> str:
    """Say what the error of the calibration does to the median voxel."""
    if not calibration.slope_se and not calibration.intercept_se:
        return (
            "the calibration of myelin volume was given without an error: its error is common to all voxels "
            "and in no standard error"
        )
    if not ok.any():
        return "no voxel has a g-ratio"
    mvf_se = np.hypot(measure * calibration.slope_se, calibration.intercept_se)
    middle = float(np.median(np.abs(by_mvf * mvf_se)[ok]))
    return (
        f"the stated error of the calibration moves the g-ratio of the median voxel by {middle:.3f} (one "
        "standard deviation), all voxels together; it is in no standard error"
    )
