"""Gradient files to a checked table in array axes, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import CordqaError, EmptyInputError, InputError
from cordqa.io.files import printable
from cordqa.io.gradients import (
    GradientPaths,
    find_gradient_files,
    read_matrix,
    read_shapes,
    read_tensors,
    write_matrix,
)
from cordqa.models.diffusion.gradient_checks import BUnit, CheckedTable, Norms, check_gradients
from cordqa.models.diffusion.gradient_errors import (
    BTensorError,
    GradientLengthError,
    MissingDirectionError,
    OrientationError,
)
from cordqa.models.diffusion.gradient_frames import Frame, directions_from_array_axes
from cordqa.models.diffusion.gradient_tensors import shapes_from_words, split_b_tensors
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.records import Notice, Severity

__all__ = ["GradientPaths", "find_gradient_files", "read_gradients", "write_gradients"]

Array = NDArray[np.float64]
#: The trace of a b-tensor and the b-value beside it may differ by this share.
_TRACE_TOLERANCE = 0.05
#: Echo times that differ by less (seconds) are one echo time.
_SAME_ECHO_TIME_S = 5e-4


def read_gradients(
    image_affine: ArrayLike | None,
    paths: GradientPaths | None = None,
    *,
    bval: Path | None = None,
    bvec: Path | None = None,
    bdelta: Path | None = None,
    btens: Path | None = None,
    mrtrix: Path | None = None,
    n_volumes: int | None = None,
    sidecar: Mapping[str, Any] | None = None,
    b_unit: BUnit | None = None,
    norms: Norms = "refuse",
    b0_limit_s_mm2: float | None = None,
    allow_no_b0: bool = False,
    rows_are: Literal["volumes", "axes"] | None = None,
    tensor_frame: Frame = "array",
) -> CheckedTable:
    """Read and check the gradient files of one image.

    Parameters
    ----------
    image_affine : array_like, shape (4, 4), or None
        Of the image; without it directions are correct up to a flip (FSL) or a rotation (MRtrix).
    paths : GradientPaths, optional
        What :func:`find_gradient_files` found; single files below take precedence.
    bval, bvec, bdelta, btens, mrtrix : Path, optional
        See :class:`GradientPaths`.
    n_volumes : int, optional
        Of the image, compared with the number of encodings.
    sidecar : mapping, optional
        JSON sidecar of the image; echo times that vary between volumes are pointed out.
    b_unit, norms, b0_limit_s_mm2, allow_no_b0, rows_are
        As in :func:`cordqa.models.diffusion.gradient_checks.check_gradients`.
    tensor_frame : {'array', 'fsl', 'world'}
        Axes of b-tensors.

    Returns
    -------
    CheckedTable
        ``(table, notices)``: directions in array axes, b in s/mm2.

    Raises
    ------
    UnreadableFileError
        If a file is damaged or holds no numbers.
    GradientError
        If the numbers cannot be used, by kind (:mod:`cordqa.models.diffusion.gradient_errors`).
    """
    named = {"bval": bval, "bvec": bvec, "bdelta": bdelta, "btens": btens, "mrtrix": mrtrix}
    chosen = replace(paths or GradientPaths(), **{kind: path for kind, path in named.items() if path})
    settings: dict[str, Any] = {
        "affine": image_affine,
        "n_volumes": n_volumes,
        "b_unit": b_unit,
        "norms": norms,
        "b0_limit_s_mm2": b0_limit_s_mm2,
        "allow_no_b0": allow_no_b0,
        "rows_are": rows_are,
    }
    try:
        checked = _read(chosen, settings, tensor_frame)
    except CordqaError as error:
        raise _placed(error, chosen) from error
    where = ", ".join(printable(path.name, limit=80) for path in chosen.given)
    notices = (*checked.notices, *_unused(chosen), *_mixed_echo_times(sidecar, len(checked.table)))
    return CheckedTable(checked.table, tuple(replace(one, where=one.where or where) for one in notices))


def _read(paths: GradientPaths, settings: dict[str, Any], tensor_frame: Frame) -> CheckedTable:
    if paths.btens is not None:
        return _from_tensors(paths, settings, tensor_frame)
    shape = None if paths.bdelta is None else _shapes(paths.bdelta)
    if paths.bval is not None:
        b = _vector(paths.bval)
        if paths.bvec is None:
            if shape is None or np.any(shape != 0):
                raise MissingDirectionError(
                    "there are b-values without directions",
                    found=printable(paths.bval.name),
                    expected="a bvec file beside it",
                )
            return check_gradients(b, None, b_delta=shape, **settings)
        return check_gradients(b, read_matrix(paths.bvec), b_delta=shape, frame="fsl", **settings)
    if paths.mrtrix is not None:
        matrix = _four_columns(read_matrix(paths.mrtrix))
        settings["rows_are"] = "volumes"
        return check_gradients(matrix[:, 3], matrix[:, :3], b_delta=shape, frame="world", **settings)
    raise EmptyInputError(
        "no gradient files",
        where=", ".join(printable(path.name) for path in paths.given),
        expected="bval and bvec, an MRtrix table, or b-tensors",
        todo="put them beside the image under its name, or name them",
    )


def _from_tensors(paths: GradientPaths, settings: dict[str, Any], frame: Frame) -> CheckedTable:
    assert paths.btens is not None  # the caller looked
    if paths.bdelta is not None:
        raise BTensorError(
            "b-tensors hold the shape already", found=paths.bdelta.name, todo="give one of the two"
        )
    parts = split_b_tensors(read_tensors(paths.btens))
    if paths.bval is not None:
        b = _vector(paths.bval)
        if b.size != parts.b_values.size:
            raise GradientLengthError(
                "b-values and b-tensors do not belong together",
                found=f"{b.size} b-values, {parts.b_values.size} b-tensors",
            )
        wrong = np.flatnonzero(np.abs(b - parts.b_values) > _TRACE_TOLERANCE * np.maximum(b, parts.b_values))
        if wrong.size:
            raise BTensorError(
                "the trace of a b-tensor is not its b-value",
                found=f"{parts.b_values[wrong[0]]:g} beside {b[wrong[0]]:g} at volume {wrong[0] + 1}",
                todo="write both in s/mm2",
            )
    settings["rows_are"] = "volumes"
    return check_gradients(parts.b_values, parts.directions, b_delta=parts.b_delta, frame=frame, **settings)


def _shapes(path: Path) -> Array:
    found = read_shapes(path)
    return shapes_from_words(found) if isinstance(found, tuple) else found


def _vector(path: Path) -> Array:
    """Read b-values: one row, or one per line."""
    matrix = read_matrix(path)
    if 1 not in matrix.shape:
        raise OrientationError(
            "b-values are one row or one column",
            where=printable(path.name),
            found=" x ".join(str(n) for n in matrix.shape),
            todo="were bval and bvec exchanged?" if 3 in matrix.shape else "",
        )
    return matrix.ravel()


def _four_columns(matrix: Array) -> Array:
    if matrix.shape[1] != 4 and matrix.shape[0] == 4:
        matrix = matrix.T
    if matrix.shape[1] != 4:
        raise OrientationError(
            "an MRtrix table has four columns",
            found=" x ".join(str(n) for n in matrix.shape),
            expected="x, y, z and b in each row",
        )
    return matrix


def _placed(error: CordqaError, paths: GradientPaths) -> CordqaError:
    """Name the files in an error that does not."""
    if error.where or not isinstance(error, InputError):
        return error
    where = ", ".join(printable(path.name, limit=80) for path in paths.given)
    return type(error)(error.what, where=where, found=error.found, expected=error.expected, todo=error.todo)


def _unused(paths: GradientPaths) -> tuple[Notice, ...]:
    """Say which files were there and not read."""
    if paths.btens is not None:
        unused = [paths.bvec, paths.mrtrix]
    else:
        unused = [paths.mrtrix] if paths.bval is not None else []
    names = [printable(path.name, limit=80) for path in unused if path is not None]
    if not names:
        return ()
    message = f"not read, because another file holds the same: {', '.join(names)}"
    return (Notice(severity=Severity.INFO, code="gradients.unused", message=message),)


def _mixed_echo_times(sidecar: Mapping[str, Any] | None, n: int) -> tuple[Notice, ...]:
    """Point out echo times that vary: relaxation would pass for diffusion."""
    times = (sidecar or {}).get("EchoTime")
    if not isinstance(times, list) or len(times) != n:
        return ()
    values = [float(t) for t in times if isinstance(t, (int, float)) and not isinstance(t, bool)]
    if len(values) < 2 or max(values) - min(values) < _SAME_ECHO_TIME_S:
        return ()
    message = (
        f"echo times vary from {1e3 * min(values):.1f} to {1e3 * max(values):.1f} ms between volumes: "
        "differences of relaxation would be read as diffusion"
    )
    return (Notice(severity=Severity.WARNING, code="gradients.echo-times", message=message),)


def write_gradients(
    table: GradientTable, stem: Path, *, affine: ArrayLike | None = None, mrtrix: bool = True
) -> GradientPaths:
    """Write a table as FSL files, with ``.bdelta`` where an encoding is not linear, and for MRtrix.

    Parameters
    ----------
    table : GradientTable
    stem : Path
        Path without ending: ``sub-01_dwi`` gives ``sub-01_dwi.bval``.
    affine : array_like, shape (4, 4), optional
        Of the image that the table belongs to; for a scheme that has none yet, directions are written
        as for an image with a negative determinant (no flip), scanner axes as array axes.
    mrtrix : bool
        Also write an MRtrix table; it holds no shapes.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """

    def name(ending: str) -> Path:
        return stem.with_name(stem.name + ending)

    weighted = ~table.is_b0
    linear = not np.any(table.b_delta[weighted] != 1)
    write_matrix(name(".bval"), table.b_values_s_mm2)
    write_matrix(name(".bvec"), directions_from_array_axes(table.directions, "fsl", affine).T)
    if linear:
        name(".bdelta").unlink(missing_ok=True)  # of an earlier table, which would be taken for this one's
    else:
        write_matrix(name(".bdelta"), table.b_delta)
    if mrtrix:
        world = directions_from_array_axes(table.directions, "world", affine)
        write_matrix(name(".b"), np.column_stack([world, table.b_values_s_mm2]))
    return GradientPaths(
        bval=name(".bval"),
        bvec=name(".bvec"),
        bdelta=None if linear else name(".bdelta"),
        mrtrix=name(".b") if mrtrix else None,
    )
