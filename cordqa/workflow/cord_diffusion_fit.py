"""The models of diffusion that a scheme supports, fitted to the voxels of a cord."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.axes import Oriented, orient
from cordqa.errors import CordqaError, InputError
from cordqa.models.diffusion.design import kurtosis_design, tensor_design
from cordqa.models.diffusion.gradient_axes import AxisCheck, check_cord_axis
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.maps import FittedMaps
from cordqa.workflow.cord_diffusion_series import DiffusionSeries
from cordqa.workflow.cord_records import CordImage, Unit
from cordqa.workflow.cord_settings import CordSettings

__all__ = [
    "KURTOSIS",
    "MICROSCOPIC",
    "NEURITES",
    "TENSOR",
    "ModelMaps",
    "check_axis",
    "fit_models",
    "for_tensor",
    "two_shapes",
]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

TENSOR = ("FA", "MD", "AD", "RD")
KURTOSIS = ("MK", "AK", "RK")
MICROSCOPIC = ("muFA", "VI", "VA", "OP")
NEURITES = ("NDI", "ODI", "FWF")
#: Above this b-value (s/mm2) kurtosis biases a tensor; larger ones are left to the other models.
_TENSOR_LIMIT = 1500.0
#: Encodings whose |b_delta| differ by more than this have two shapes.
_SHAPES_APART = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMaps:
    """Maps of one model on the grid of the series; NaN where nothing was fitted.

    Attributes
    ----------
    model : str
        Equation and estimator, for the methods text.
    values, errors : mapping of str to ndarray
        By quantity, in its registered unit.
    flags : mapping of str to ndarray of bool
        What makes a voxel doubtful.
    notices : tuple of str
    table : GradientTable
        Volumes that entered.
    direction : ndarray, shape (..., 3), or None
        Main direction in array axes, of a tensor.
    """

    model: str
    values: Mapping[str, Array]
    errors: Mapping[str, Array]
    flags: Mapping[str, Mask]
    notices: tuple[str, ...]
    table: GradientTable
    direction: Array | None = field(default=None, repr=False)


def fit_models(
    series: DiffusionSeries, near: Mask, inside: Mask, settings: CordSettings, unit: Unit, name: str
) -> tuple[dict[str, ModelMaps], dict[str, str]]:
    """Fit every model that the scheme supports.

    Parameters
    ----------
    series : DiffusionSeries
    near, inside : ndarray of bool
        Voxels for the tensor (with surroundings, for the eye), and for the models that take longer.
    settings : CordSettings
    unit : Unit
        Takes what was not possible although it was asked for.
    name : str
        Of the image, for people.

    Returns
    -------
    maps : dict
        By model: ``tensor``, ``kurtosis``, ``microscopic``, ``noddi``.
    missing : dict
        Why a model was not fitted.

    Raises
    ------
    CordqaError
        If not even a tensor can be fitted.
    """
    data, table = series.prepared.usable_data, series.gradients
    found = {"tensor": _tensor(data, table, near, settings)}
    missing: dict[str, str] = {}
    try:
        found["kurtosis"] = _kurtosis(data, table, inside, series)
    except InputError as error:
        missing["kurtosis"] = str(error)
    if two_shapes(table):
        try:
            found["microscopic"] = _microscopic(data, table, inside)
        except InputError as error:
            missing["muFA"] = str(error)
    else:
        missing["muFA"] = "all encodings have one shape"
    if settings.noddi:
        try:
            found["noddi"] = _noddi(data, table, inside)
        except CordqaError as error:
            unit.skip(name, "NODDI", str(error), error.code, (series.image.file.relative,))
    return found, missing


def two_shapes(table: GradientTable) -> bool:
    """Tell whether the weighted volumes have encodings of more than one shape."""
    shapes = np.abs(table.b_delta[~table.is_b0])
    return bool(shapes.size and np.ptp(shapes) > _SHAPES_APART)


def _tensor(
    data: NDArray[np.float32], table: GradientTable, where: Mask, settings: CordSettings
) -> ModelMaps:
    from cordqa.models.diffusion.tensor import fit_tensor

    chosen = for_tensor(table)
    fit = fit_tensor(data[..., chosen], table.select(chosen), estimator=settings.tensor, mask=where)
    values = {key: fit.maps.values[key] for key in TENSOR}
    return ModelMaps(
        model=fit.maps.model,
        values=values,
        errors={key: fit.maps.standard_errors[key] for key in TENSOR if key in fit.maps.standard_errors},
        flags=fit.maps.flags,
        notices=fit.maps.notices,
        table=table.select(chosen),
        direction=fit.direction,
    )


def for_tensor(table: GradientTable) -> Mask:
    """Volumes below the b-value at which kurtosis shows, where they determine a tensor."""
    low: Mask = table.b_values_s_mm2 <= _TENSOR_LIMIT * 1.05
    if low.all():
        return low
    try:
        tensor_design(table.select(low))
    except InputError:
        return np.ones_like(low)
    return low


def _kurtosis(
    data: NDArray[np.float32], table: GradientTable, where: Mask, series: DiffusionSeries
) -> ModelMaps:
    from cordqa.models.diffusion.kurtosis import fit_kurtosis

    linear = table.is_b0 | (table.b_delta > 1.0 - _SHAPES_APART)
    chosen = table.select(linear)
    kurtosis_design(chosen)
    # The noise map covers the cord alone; voxels at its edge have the same noise.
    level = series.noise_sd if np.isfinite(series.noise_sd) else None
    fit = fit_kurtosis(data[..., linear], chosen, rician=True, noise_sd=level, mask=where).maps
    keep = [key for key in (*KURTOSIS, "MKT", "KFA") if key in fit.values]
    return ModelMaps(
        model=fit.model,
        values={key: fit.values[key] for key in keep},
        errors={key: fit.standard_errors[key] for key in keep if key in fit.standard_errors},
        flags=fit.flags,
        notices=fit.notices,
        table=chosen,
    )


def _microscopic(data: NDArray[np.float32], table: GradientTable, where: Mask) -> ModelMaps:
    from cordqa.models.diffusion.microscopic import fit_microscopic_anisotropy

    return _spread(fit_microscopic_anisotropy(data[where], table), where, table, MICROSCOPIC)


def _noddi(data: NDArray[np.float32], table: GradientTable, where: Mask) -> ModelMaps:
    from cordqa.models.diffusion.noddi import fit_noddi

    linear = table.is_b0 | (table.b_delta > 1.0 - _SHAPES_APART)
    chosen = table.select(linear)
    return _spread(fit_noddi(data[where][:, linear], chosen), where, chosen, NEURITES)


def _spread(maps: FittedMaps, where: Mask, table: GradientTable, names: tuple[str, ...]) -> ModelMaps:
    """Lay maps of a list of voxels out over the grid."""

    def lay(values: Array) -> Array:
        out = np.full(where.shape, np.nan)
        out[where] = values
        return out

    def mark(flag: Mask) -> Mask:
        out = np.zeros(where.shape, dtype=bool)
        out[where] = flag
        return out

    return ModelMaps(
        model=maps.model,
        values={key: lay(maps.values[key]) for key in names if key in maps.values},
        errors={key: lay(error) for key, error in maps.standard_errors.items() if key in names},
        flags={text: mark(flag) for text, flag in maps.flags.items()},
        notices=maps.notices,
        table=table,
    )


def check_axis(direction: Array, image: CordImage, white: Mask) -> AxisCheck:
    """Compare the main direction in white matter with the direction of the cord, slice by slice."""
    line, laid = image.table.centreline, orient(image.mask.volume)
    tangent = np.full((laid.n_slices, 3), np.nan)
    tangent[line.slices] = np.column_stack([line.slope_right, line.slope_anterior, np.ones(line.slices.size)])
    in_array = tangent @ _to_layout(laid)
    planes = np.broadcast_to(in_array, (*laid.data.shape[:2], *in_array.shape))
    return check_cord_axis(direction, laid.restore(planes), mask=white)


def _to_layout(laid: Oriented) -> Array:
    """Matrix from directions in array axes to those in (right, anterior, superior)."""
    matrix = np.zeros((3, 3))
    for row, (axis, flip) in enumerate(zip(laid.order, laid.flipped, strict=True)):
        matrix[row, axis] = -1.0 if flip else 1.0
    return matrix
