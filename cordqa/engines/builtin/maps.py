"""Maps of the built-in engine: alignment of contrasts, magnetization transfer, motion, diffusion tensor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.centreline import fit_centreline
from cordqa.cord.motion_coregister import align_slices
from cordqa.engines.builtin.levels import one_volume
from cordqa.engines.errors import EngineOutputError
from cordqa.engines.grids import slice_axis
from cordqa.engines.protocol import SpoiledImage
from cordqa.io.atomic import appear_complete
from cordqa.io.gradients import read_matrix
from cordqa.io.volumes import read_volume, write_volume
from cordqa.models.diffusion.gradient_checks import check_gradients
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.magnetization_transfer.ratio import mt_ratio
from cordqa.models.magnetization_transfer.saturation import SpoiledEcho, fit_mt_saturation
from cordqa.records import Volume

__all__ = ["align_contrast", "correct_series", "map_mtr", "map_mtsat", "map_tensor", "mean_volumes"]

Array = NDArray[np.float64]
#: Diffusivities are written in the unit that maps of other programs have.
_MM2_PER_UM2 = 1e-6
_MS_PER_S = 1000.0
TENSOR = ("FA", "MD", "RD", "AD")


def align_contrast(moving: Path, fixed: Path, segmentation: Path, target: Path) -> str:
    """Shift the slices of one image onto another one; return what was done in a sentence."""
    still = one_volume(read_volume(fixed))
    mask = one_volume(read_volume(segmentation))
    found = align_slices(one_volume(read_volume(moving)), still, mask, fit_centreline(mask))
    _write(found.volume.data, still, target, "coregister")
    return found.note


def map_mtr(mt_on: Path, mt_off: Path, target: Path) -> None:
    """Write MTR in percent."""
    on, off = (one_volume(read_volume(path)) for path in (mt_on, mt_off))
    _write(mt_ratio(on.data, off.data).values["MTR"], on, target, "mtr")


def map_mtsat(on: SpoiledImage, off: SpoiledImage, t1w: SpoiledImage, targets: Mapping[str, Path]) -> None:
    """Write MTsat in percent and T1 in seconds; flip angles are taken as nominal."""
    images = [one_volume(read_volume(image.path)) for image in (on, off, t1w)]
    echoes = [
        SpoiledEcho(repetition_time_s=image.repetition_time_s, flip_angle_deg=image.flip_angle_deg)
        for image in (on, off, t1w)
    ]
    found = fit_mt_saturation(
        *(image.data for image in images), mt_echo=echoes[0], pd_echo=echoes[1], t1_echo=echoes[2]
    )
    for role, values in (("MTsat", found.values["MTsat"]), ("T1", found.values["T1"] / _MS_PER_S)):
        _write(values, images[0], targets[role], "mtsat")


def map_tensor(
    image: Path, bvals: Path, bvecs: Path, mask: Path | None, targets: Mapping[str, Path]
) -> tuple[str, ...]:
    """Fit the diffusion tensor and write FA and the diffusivities in mm2/s; return what must be known."""
    from cordqa.models.diffusion.tensor import fit_tensor

    series = read_volume(image)
    table = _table(series, bvals, bvecs)
    inside = one_volume(read_volume(mask)).data > 0.5 if mask is not None else None
    fit = fit_tensor(series.data, table, mask=inside, uncertainty="none")
    for role in TENSOR:
        factor = 1.0 if role == "FA" else _MM2_PER_UM2
        _write(fit.maps.values[role] * factor, series, targets[role], "dti")
    return fit.maps.notices


def correct_series(
    image: Path, bvals: Path, bvecs: Path, mask: Path, targets: Mapping[str, Path], *, group_size: int
) -> tuple[str, ...]:
    """Undo the motion of a diffusion series, and write it with its means and a table of the motion."""
    from cordqa.cord.motion import MotionSettings, correct_motion

    series, cord = read_volume(image), one_volume(read_volume(mask))
    table = _table(series, bvals, bvecs)
    axis, _ = slice_axis(series.affine)
    spacing = [series.spacing_mm[n] for n in (*(n for n in range(3) if n != axis), axis)]
    # The third axis runs across slices there; directions say only which volumes are alike.
    moved, motion = correct_motion(
        np.moveaxis(series.data, axis, 2),
        np.moveaxis(cord.data, axis, 2),
        table,
        spacing_mm=(spacing[0], spacing[1], spacing[2]),
        settings=MotionSettings(group_size=group_size),
    )
    data = np.moveaxis(moved, 2, axis)
    _write(data, series, targets["image"], "motion correction")
    mean_volumes(data, series, table, targets)
    _write_motion(motion.table(), targets["motion"])
    return (motion.sentence, *motion.notices)


def mean_volumes(data: NDArray[Any], like: Volume, table: GradientTable, targets: Mapping[str, Path]) -> None:
    """Write the means of the volumes without and with diffusion weighting."""
    for role, chosen in (("b0_mean", table.is_b0), ("dwi_mean", ~table.is_b0)):
        _write(np.mean(data[..., chosen], axis=-1), like, targets[role], "motion correction")


def _write_motion(rows: list[dict[str, float]], target: Path) -> None:
    lines = ["\t".join(rows[0]), *("\t".join(f"{value:.6g}" for value in row.values()) for row in rows)]
    with appear_complete(target) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _table(series: Volume, bvals: Path, bvecs: Path) -> GradientTable:
    count = series.data.shape[3] if series.data.ndim > 3 else 1
    checked = check_gradients(
        read_matrix(bvals).ravel(), read_matrix(bvecs), affine=series.affine, n_volumes=count
    )
    return checked.table


def _write(values: NDArray[Any], like: Volume, target: Path, who: str) -> None:
    """Write a map that holds a number somewhere; one that holds none would pass for a result."""
    if not np.isfinite(values).any():
        raise EngineOutputError("no voxel has a value", where=who, todo="check the images and their settings")
    write_volume(Volume(data=np.asarray(values, dtype=np.float32), affine=like.affine), target)
