"""Diffusion of the cord: from a series with its gradients to maps and values of regions.

The series is checked, preprocessed in one fixed order and fitted with every model that its scheme
supports: the tensor always; kurtosis with two shells; microscopic anisotropy with encodings of two
shapes; NODDI where it is asked for.  What fails concerns that series alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.atlas import AtlasImage
from cordqa.cord.axes import orient
from cordqa.errors import CordqaError, InputError
from cordqa.io.bids_index import BidsFile, BidsIndex
from cordqa.records import Severity, Volume
from cordqa.workflow.cord_atlas import AtlasChoice, lay_into_cord
from cordqa.workflow.cord_diffusion_fit import ModelMaps, check_axis, fit_models
from cordqa.workflow.cord_diffusion_regions import NOT_USED, RegionTask
from cordqa.workflow.cord_diffusion_rows import diffusion_rows
from cordqa.workflow.cord_diffusion_series import DiffusionSeries, holds_no_weighting, prepare_series
from cordqa.workflow.cord_image import leave_out_slices, make_contrast, slice_verdict
from cordqa.workflow.cord_records import CordImage, Unit
from cordqa.workflow.cord_settings import CordSettings

__all__ = ["DiffusionMaps", "analyse_diffusion"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: The tensor is fitted so far around the cord (mm), so that a picture shows where the cord ends.
_AROUND_MM = 8.0
#: A signal below this many noise levels is at the floor.
_FLOOR = 3.0
_STEP = "diffusion"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionMaps:
    """Everything that one diffusion series gave.

    Attributes
    ----------
    series : DiffusionSeries
    models : mapping of str to ModelMaps
        ``tensor``, and what else the scheme supports.
    missing : mapping of str to str
        Why a model was not fitted.
    atlas : AtlasImage or None
        None where it could not be laid.
    """

    series: DiffusionSeries
    models: Mapping[str, ModelMaps]
    missing: Mapping[str, str]
    atlas: AtlasImage | None

    @property
    def image(self) -> CordImage:
        """The mean image with its cord."""
        return self.series.image

    def volume(self, quantity: str) -> Volume:
        """Return the map of a quantity."""
        for maps in self.models.values():
            if quantity in maps.values:
                return Volume(
                    data=maps.values[quantity].astype(np.float32),
                    affine=self.image.volume.affine,
                    source=quantity,
                )
        raise KeyError(quantity)

    @property
    def quantities(self) -> tuple[str, ...]:
        """Quantities that have a map."""
        return tuple(name for maps in self.models.values() for name in maps.values)


def analyse_diffusion(
    index: BidsIndex,
    file: BidsFile,
    unit: Unit,
    choice: AtlasChoice,
    *,
    settings: CordSettings,
    marks: Mapping[str, str],
) -> DiffusionMaps | None:
    """Analyse one diffusion series; what fails is recorded in ``unit``.

    Parameters
    ----------
    index : BidsIndex
    file : BidsFile
        A ``dwi`` image; its gradients lie beside it or are inherited.
    unit : Unit
        Receives image, rows, notices and outcomes.
    choice : AtlasChoice
    settings : CordSettings
    marks : mapping
        Marks of a reviewer.
    """
    name, sources = make_contrast(file), (file.relative,)
    if holds_no_weighting(index, file):
        reason = "no volume has diffusion weighting; images of reversed phase encoding are not used yet"
        unit.skip(name, _STEP, reason, "diffusion.no-weighting", sources)
        return None
    try:
        series = prepare_series(index, file, unit, settings)
        series = replace(series, image=leave_out_slices(series.image, marks, unit))
        atlas = lay_into_cord(series.image, choice, unit, name)
        near, inside = _where(series.image, atlas)
        models, missing = fit_models(series, near, inside, settings, unit, name)
    except CordqaError as error:
        unit.fail(name, _STEP, error, sources)
        return None
    unit.images.append(series.image)
    unit.verdicts.append(slice_verdict(series.image))
    found = DiffusionMaps(series=series, models=models, missing=missing, atlas=atlas)
    unit.done(name, _STEP, _words(found), sources)
    for maps in models.values():
        for text in maps.notices:
            unit.note("diffusion.model", text, name, Severity.INFO)
    if atlas is not None:
        _extract(found, atlas, choice, unit, settings)
    return found


def _where(image: CordImage, atlas: AtlasImage | None) -> tuple[Mask, Mask]:
    """Voxels near the cord, and those that any label of the atlas touches (else the mask)."""
    laid = orient(image.mask.volume)
    cord = laid.data > 0
    used = cord.copy()
    if atlas is not None:
        i, j, k = atlas.corner
        n = atlas.weights.shape
        used[i : i + n[1], j : j + n[2], k : k + n[3]] |= atlas.weights.any(axis=0)
    near = used.copy()
    slices = np.flatnonzero(cord.any(axis=(0, 1)))
    rows, columns = (np.flatnonzero(cord.any(axis=axes)) for axes in ((1, 2), (0, 2)))
    margin = [math.ceil(_AROUND_MM / step) for step in laid.spacing_mm[:2]]
    near[
        max(rows[0] - margin[0], 0) : rows[-1] + margin[0] + 1,
        max(columns[0] - margin[1], 0) : columns[-1] + margin[1] + 1,
        slices[0] : slices[-1] + 1,
    ] = True
    return np.asarray(laid.restore(near)), np.asarray(laid.restore(used))


def _words(found: DiffusionMaps) -> str:
    """Say in one line what was made, and what the scheme does not support."""
    missing = "; ".join(f"no {model}: {why}" for model, why in found.missing.items())
    words = f"{', '.join(found.quantities)} of {len(found.series.gradients)} volumes"
    return f"{words} ({missing})" if missing else words


def _extract(
    found: DiffusionMaps, atlas: AtlasImage, choice: AtlasChoice, unit: Unit, settings: CordSettings
) -> None:
    """Check the axis of the cord, then take the values of all regions."""
    image, name = found.image, make_contrast(found.image.file)
    _check_axis(found, atlas, unit, name)
    prepared = found.series.prepared
    task = RegionTask(
        image=image,
        atlas=atlas,
        choice=choice,
        models=found.models,
        series=Volume(data=prepared.usable_data, affine=image.volume.affine, source=image.file.relative),
        gradients=prepared.gradients,
        faint=_faint(found.series),
        lost=_lost(found.series),
        flags=_series_flags(found.series, settings),
        noise_sd=found.series.noise_sd,
    )
    try:
        rows = diffusion_rows(task, unit, wanted=settings.levels, settings=settings)
    except InputError as error:
        unit.fail(name, "extraction", error, (image.file.relative,))
        return
    unit.rows.extend(rows)
    refused = sum(any(flag.endswith(NOT_USED) for flag in row.flags) for row in rows)
    if refused:
        text = (
            f"{refused} of {len(rows)} values are not given: most of their tensors are such as no tissue has"
        )
        unit.note("diffusion.unphysical", text, name)
    quantities = dict.fromkeys(row.quantity for row in rows)
    unit.done(image.label, "extraction", f"{', '.join(quantities)} by {settings.method}, {choice.name}")


def _check_axis(found: DiffusionMaps, atlas: AtlasImage, unit: Unit, name: str) -> None:
    """Say where the main direction of white matter does not follow the cord."""
    direction = found.models["tensor"].direction
    if direction is None:
        return
    inside = atlas.paint(atlas.labels.find("WM")) > 0.5
    white = np.asarray(orient(found.image.mask.volume).restore(inside))
    notice = check_axis(direction, found.image, white).as_notice()
    if notice is not None:
        unit.note(notice.code, notice.message, name, notice.severity)


def _faint(series: DiffusionSeries) -> dict[str, Mask]:
    """Voxels at the noise floor, without weighting and at the largest b."""
    snr = list(series.prepared.noise.snr.items())
    chosen = dict([*snr[:1], *snr[-1:]])
    with np.errstate(invalid="ignore"):
        return {
            f"the signal at {name} lies below {_FLOOR:g} noise levels": np.asarray(values < _FLOOR)
            for name, values in chosen.items()
        }


def _lost(series: DiffusionSeries) -> Array:
    """Share of the volumes that was left out of every slice, counted from inferior."""
    laid = orient(series.image.mask.volume)
    share = series.prepared.outlier.mean(axis=1)
    return np.array([share[laid.array_index(n)] for n in range(laid.n_slices)])


def _series_flags(series: DiffusionSeries, settings: CordSettings) -> tuple[str, ...]:
    """Say of every value what motion may have done to it."""
    motion = series.prepared.motion
    if motion is None:
        return ("motion was not corrected",) if settings.skip_motion else ()
    largest = float(np.percentile(motion.displacement_mm, 95))
    voxel = min(motion.spacing_mm[:2])
    if largest <= voxel:
        return ()
    return (f"the cord moved by up to {largest:.1f} mm, more than a voxel of {voxel:.2g} mm; it was undone",)
