"""A diffusion series made ready to be fitted: gradients checked, cord found, motion undone, levels lent."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.axes import orient
from cordqa.cord.dwi_preprocess import DwiSettings, PreprocessedDwi, preprocess_dwi
from cordqa.cord.morphometry import measure_morphometry
from cordqa.cord.motion import MotionSettings
from cordqa.errors import CordqaError, InputError
from cordqa.io.bids_index import BidsFile, BidsIndex
from cordqa.io.bids_labels import Role, UserFiles, find_user_files
from cordqa.io.gradients import read_matrix
from cordqa.io.volumes import orientation_notices, read_volume
from cordqa.models.diffusion.design import tensor_design
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.records import Severity, Volume
from cordqa.workflow.cord_engine import segment_builtin
from cordqa.workflow.cord_image import find_mask, find_outliers, make_contrast, own_levels
from cordqa.workflow.cord_records import CordImage, Mask, Unit
from cordqa.workflow.cord_select import make_entities
from cordqa.workflow.cord_settings import CordSettings
from cordqa.workflow.cord_transfer import carried_levels
from cordqa.workflow.gradients import find_gradient_files, read_gradients

__all__ = ["DiffusionSeries", "holds_no_weighting", "prepare_series"]

Series = NDArray[np.float32]

#: Weighted volumes between these b-values (s/mm2) show the cord bright in dark CSF.
_SHOWN_FROM, _SHOWN_TO = 300.0, 1500.0
#: A slice that lost its signal in more than this share of the volumes needs a look.
_LOST_SHARE = 0.1
_ENTITIES = ("acq", "dir")


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionSeries:
    """A preprocessed series and the cord in it.

    Attributes
    ----------
    image : CordImage
        Mean of the weighted volumes (of those without weighting where the cord was found there).
    b0 : Volume
        Mean of the volumes without weighting.
    prepared : PreprocessedDwi
    """

    image: CordImage
    b0: Volume
    prepared: PreprocessedDwi

    @property
    def gradients(self) -> GradientTable:
        """Table that belongs to the series as it is now."""
        return self.prepared.gradients

    @property
    def noise_sd(self) -> float:
        """Median noise level in the cord, in signal units; NaN where it is not known."""
        sigma = self.prepared.noise.sigma
        known = sigma[np.isfinite(sigma) & (sigma > 0)]
        return float(np.median(known)) if known.size else math.nan


def prepare_series(index: BidsIndex, file: BidsFile, unit: Unit, settings: CordSettings) -> DiffusionSeries:
    """Read, check and preprocess one series, and find its cord and levels.

    Raises
    ------
    CordqaError
        If the series, its gradients or its mask cannot be used, or no cord is found.
    """
    name = make_contrast(file)
    volume, gradients = _read(index, file, unit, name)
    user = find_user_files(index, file)
    unit.notices.extend(user.notices)
    means = _means(volume.data, gradients, volume)
    mask, shown = _find_cord(index, file, means, unit, user)
    prepared = preprocess_dwi(
        volume.data,
        volume.affine,
        gradients,
        mask.volume.data,
        DwiSettings(
            denoise=settings.denoise,
            gibbs=settings.gibbs,
            motion=None if settings.skip_motion else MotionSettings(),
        ),
    )
    for text in prepared.notices:
        unit.note("diffusion.preprocessing", text, name, Severity.INFO)
    means = _means(prepared.usable_data, prepared.gradients, volume)
    mask = _find_again(file, means[shown], mask, unit)
    image = _image(index, file, means[shown], mask, prepared, unit, user)
    return DiffusionSeries(image=image, b0=means["b = 0"], prepared=prepared)


def holds_no_weighting(index: BidsIndex, file: BidsFile) -> bool:
    """Tell whether all b-values are zero, as those of an image of reversed phase encoding often are."""
    path = find_gradient_files(file.path, root=index.root).bval
    if path is None:
        return False
    try:
        return not read_matrix(path).any()
    except InputError:
        return False


def _read(index: BidsIndex, file: BidsFile, unit: Unit, name: str) -> tuple[Volume, GradientTable]:
    volume = read_volume(file.path, source=file.relative)
    unit.used.add(file.relative)
    for notice in orientation_notices(file.path, source=file.relative):
        unit.note(notice.code, notice.message, name, notice.severity)
    if volume.data.ndim != 4 or volume.data.shape[3] < 2:
        raise InputError(
            "a diffusion series has several volumes",
            where=file.relative,
            found=f"shape {' x '.join(map(str, volume.data.shape))}",
            expected="four dimensions",
            todo="name a map or a single volume otherwise than dwi",
        )
    paths = find_gradient_files(file.path, root=index.root)
    checked = read_gradients(
        volume.affine, paths, n_volumes=volume.data.shape[3], sidecar=index.sidecar(file)
    )
    for path in paths.given:
        if path.is_relative_to(index.root):
            unit.used.add(path.relative_to(index.root).as_posix())
    for notice in checked.notices:
        unit.note(notice.code, notice.message, name, notice.severity)
    # A scheme that no tensor can be fitted to is refused before any work is done.
    tensor_design(checked.table)
    return volume, checked.table


def _means(data: NDArray[np.generic], gradients: GradientTable, like: Volume) -> dict[str, Volume]:
    """Means of the volumes that show the cord, and of those without weighting."""
    b = gradients.b_values_s_mm2
    weighted = ~gradients.is_b0 & (b >= _SHOWN_FROM) & (b <= _SHOWN_TO)
    if not weighted.any():
        weighted = ~gradients.is_b0
    found = {}
    for name, chosen in (("weighted", weighted), ("b = 0", gradients.is_b0)):
        some = np.asarray(data[..., chosen], dtype=np.float32)
        count = np.isfinite(some).sum(axis=-1)
        total = np.where(np.isfinite(some), some, 0.0).sum(axis=-1)
        mean = np.divide(total, count, out=np.zeros(total.shape, dtype=np.float32), where=count > 0)
        found[name] = Volume(data=mean, affine=like.affine, source=like.source)
    return found


def _find_cord(
    index: BidsIndex, file: BidsFile, means: dict[str, Volume], unit: Unit, user: UserFiles
) -> tuple[Mask, str]:
    """Find the cord in the mean weighted image; where it is not seen, in the mean without weighting."""
    if Role.CORD in user.by_role:
        return find_mask(index, file, means["weighted"], unit, user), "weighted"
    try:
        return _segment(file, means["weighted"], unit), "weighted"
    except CordqaError as error:
        try:
            mask = _segment(file, means["b = 0"], unit)
        except CordqaError:
            raise error from None
        unit.note(
            "diffusion.mask-b0",
            f"no cord in the mean weighted image ({error}); it was found in the mean of b = 0, where masks "
            "are less good",
            make_contrast(file),
        )
        return mask, "b = 0"


def _segment(file: BidsFile, mean: Volume, unit: Unit) -> Mask:
    mask, notices = segment_builtin(file, mean, at_edge=True)
    for notice in notices:
        unit.note(notice.code, notice.message, make_contrast(file), notice.severity)
    return mask


def _find_again(file: BidsFile, mean: Volume, first: Mask, unit: Unit) -> Mask:
    """Find the cord once more where motion no longer blurs it; a mask of the user stays."""
    if first.engine == "user":
        return first
    try:
        return _segment(file, mean, unit)
    except CordqaError:
        return first


def _image(
    index: BidsIndex,
    file: BidsFile,
    mean: Volume,
    mask: Mask,
    prepared: PreprocessedDwi,
    unit: Unit,
    user: UserFiles,
) -> CordImage:
    name = make_contrast(file)
    table = measure_morphometry(mask.volume, pieces="raise" if mask.engine == "user" else "largest")
    words = [f"{key}-{file.entities[key]}" for key in _ENTITIES if key in file.entities]
    image = CordImage(
        file=file,
        volume=mean,
        entities=make_entities(index, file, contrast="_".join([*words, file.suffix])),
        mask=mask,
        table=table,
        levels=own_levels(index, user, mean, table, name, unit),
        outliers=find_outliers(table, mask) | _lost_slices(prepared, mask.volume),
    )
    if image.levels is None:
        image = replace(image, levels=carried_levels(image, unit))
    if image.levels is None:
        unit.note(
            "cord.no-levels",
            "no label tells the vertebral levels: diffusion is given per slice and over all slices",
            image.label,
        )
    return image


def _lost_slices(prepared: PreprocessedDwi, mask: Volume) -> dict[int, str]:
    """Slices that lost signal in many volumes: number from inferior to the reason."""
    laid = orient(mask)
    lost = prepared.outlier.sum(axis=1)
    volumes = prepared.outlier.shape[1]
    found = {}
    for number in range(laid.n_slices):
        count = int(lost[laid.array_index(number)])
        if count > _LOST_SHARE * volumes:
            found[number] = f"unlike the other volumes in {count} of {volumes}"
    return found
