"""Find and read the diffusion encoding of the images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from cordqa.errors import InputError
from cordqa.io.gradients import GradientPaths, find_gradient_files
from cordqa.models.diffusion.gradient_checks import CheckedTable
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.records import Notice
from cordqa.workflow.fit.grid import Grid
from cordqa.workflow.fit.request import GradientFiles
from cordqa.workflow.fit.settings import ImageFile
from cordqa.workflow.gradients import read_gradients

__all__ = ["encoding_files", "read_encoding"]


def encoding_files(files: GradientFiles, images: Sequence[ImageFile]) -> list[GradientPaths]:
    """Return the gradient files: one set for all volumes where they were named, else one per image.

    A file that was named replaces what lies beside the image; where b-values or directions were
    named, nothing else is looked for but the one of the two that is missing.

    Raises
    ------
    InputError
        If there are none.
    """
    beside = [find_gradient_files(image.path) for image in images]
    if files.given:
        found = beside[0] if len(images) == 1 else GradientPaths()
        if files.mrtrix is not None or files.btens is not None:
            return [GradientPaths(mrtrix=files.mrtrix, btens=files.btens, bdelta=files.bdelta)]
        return [
            GradientPaths(
                bval=files.bval or found.bval,
                bvec=files.bvec or found.bvec,
                bdelta=files.bdelta or _shapes_beside(files.bval, found.bdelta),
            )
        ]
    missing = next((image for image, paths in zip(images, beside, strict=True) if not paths), None)
    if missing is not None:
        raise InputError(
            "there is no gradient table beside the image",
            where=missing.path.name,
            expected="bval and bvec of the same name",
            todo="give --bval and --bvec, or --mrtrix, or --btens",
        )
    return beside


def _shapes_beside(bval: Path | None, found: Path | None) -> Path | None:
    """Shapes that belong to b-values that were named; else those beside the image.

    Without them planar encodings, which have directions too, would pass for linear ones.
    """
    if bval is None:
        return found
    own = bval.with_name(bval.name.removesuffix(".bval") + ".bdelta")
    return own if own != bval and own.is_file() else None


def read_encoding(
    files: GradientFiles, images: Sequence[ImageFile], grid: Grid
) -> tuple[GradientTable, list[Notice], list[Path]]:
    """Read and check the encoding of all volumes, in the order of the images.

    Returns
    -------
    table : GradientTable
    notices : list of Notice
    files : list of Path
        What was read.

    Raises
    ------
    CordqaError
        If there is none, it is damaged, or it cannot be that of these images.
    """
    sets = encoding_files(files, images)
    if len(sets) == 1 and len(images) > 1:
        counts: list[int] = [sum(image.count for image in images)]
    else:
        counts = [image.count for image in images]
    read = partial(_read_sets, files, sets, counts, images, grid)
    checked = read(files.b0_limit_s_mm2)
    if len(checked) > 1 and files.b0_limit_s_mm2 is None:
        # What is b = 0 shows in all volumes together: a file of weighted volumes alone would count
        # its lowest shell.
        limit = min(one.table.b0_limit_s_mm2 for one in checked)
        checked = read(limit)
    notices = list(dict.fromkeys(notice for one in checked for notice in one.notices))
    read_files = [path for paths in sets for path in paths.given]
    return _joined([one.table for one in checked]), notices, read_files


def _read_sets(
    files: GradientFiles,
    sets: Sequence[GradientPaths],
    counts: Sequence[int],
    images: Sequence[ImageFile],
    grid: Grid,
    limit: float | None,
) -> list[CheckedTable]:
    return [
        read_gradients(
            grid.affine,
            paths,
            n_volumes=count,
            sidecar=image.sidecar,
            allow_no_b0=len(sets) > 1,
            b_unit=files.b_unit,
            norms=files.norms,
            b0_limit_s_mm2=limit,
        )
        for paths, count, image in zip(sets, counts, images, strict=False)
    ]


def _joined(tables: Sequence[GradientTable]) -> GradientTable:
    if len(tables) == 1:
        return tables[0]
    return GradientTable(
        b_values_s_mm2=np.concatenate([table.b_values_s_mm2 for table in tables]),
        directions=np.concatenate([table.directions for table in tables]),
        b_delta=np.concatenate([table.b_delta for table in tables]),
        b0_limit_s_mm2=max(table.b0_limit_s_mm2 for table in tables),
    )
