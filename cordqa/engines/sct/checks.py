"""Refuse inputs with which the toolbox would end in a traceback, or in a wrong result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cordqa.engines.grids import Grid, read_grid, same_grid
from cordqa.engines.protocol import Estimator, Grouping
from cordqa.engines.sct.commands import split_name
from cordqa.errors import ConfigError, InputError
from cordqa.io.files import iter_lines, read_small
from cordqa.io.volumes import read_volume

__all__ = [
    "N_ATLAS_LABELS",
    "atlas_images",
    "beside_atlas",
    "check_atlas",
    "check_gradients",
    "check_levels",
    "check_mask",
    "check_same",
    "count_labels",
    "volume_grid",
]

_MAX_TEXT_BYTES = 2 * 1024 * 1024
N_ATLAS_LABELS = 37
_NEEDS_WHOLE_ATLAS = (Estimator.MAXIMUM_LIKELIHOOD, Estimator.MAXIMUM_A_POSTERIORI)


def volume_grid(path: Path) -> Grid:
    """Read the grid of an image that must be one volume."""
    grid = read_grid(path)
    if any(n > 1 for n in grid.extra):
        raise InputError(
            "holds several volumes where one is expected",
            where=path.name,
            found=f"shape {grid.shape + grid.extra}",
            expected="three dimensions",
            todo="average the volumes first",
        )
    return grid


def check_same(grid: Grid, path: Path, what: str) -> None:
    """Refuse an image that lies on another grid."""
    if not same_grid(grid, volume_grid(path)):
        raise InputError(
            f"the {what} lies on another grid", where=path.name, todo="align the images to each other first"
        )


def check_levels(levels: Sequence[int], group_by: Grouping, level_image: Path | None, *, where: str) -> None:
    """Refuse levels without an image of them, and rows per level without levels.

    Raises
    ------
    ConfigError
        In either case.
    """
    if levels and level_image is None:
        raise ConfigError("levels need a level image", where=where, todo="label the levels first")
    if group_by is Grouping.LEVEL and not levels:
        raise ConfigError("rows per level need the levels", where=where, todo="name the levels")


def check_mask(path: Path, grid: Grid) -> None:
    """Refuse an empty mask, or one of another image; the toolbox would end with a traceback."""
    check_same(grid, path, "mask")
    if not bool((read_volume(path).data > 0).any()):
        raise InputError("is empty", where=path.name, todo="segment the cord again or draw it")


def count_labels(path: Path, grid: Grid) -> int:
    """Count the labelled voxels of an image of discs or vertebral bodies."""
    check_same(grid, path, "label image")
    labels = read_volume(path).data
    values = labels[labels > 0]
    if values.size == 0:
        raise InputError("holds no label", where=path.name, todo="label at least one disc")
    if len(np.unique(values)) != values.size:
        raise InputError(
            "holds a label more than once",
            where=path.name,
            found=f"{values.size} voxels for {len(np.unique(values))} labels",
            todo="give one voxel to each label",
        )
    return int(values.size)


def check_gradients(grid: Grid, bvals: Path, bvecs: Path, name: str) -> None:
    """Refuse b-values and directions that are swapped or belong to another series."""
    n_volumes = grid.extra[0] if grid.extra else 1
    counts = {"b-values": len(_floats(bvals)), "directions": len(_floats(bvecs))}
    expected = {"b-values": n_volumes, "directions": 3 * n_volumes}
    for what, count in counts.items():
        if count != expected[what]:
            raise InputError(
                f"the {what} do not fit the series",
                where=name,
                found=f"{count} numbers in {(bvals if what == 'b-values' else bvecs).name}",
                expected=f"{expected[what]} for {n_volumes} volumes",
                todo="check that the files of b-values and directions are not exchanged",
            )


def _floats(path: Path) -> list[float]:
    words = " ".join(iter_lines(read_small(path, limit=_MAX_TEXT_BYTES))).replace(",", " ").split()
    try:
        return [float(word) for word in words]
    except ValueError:
        raise InputError("holds something else than numbers", where=path.name) from None


def atlas_images(atlas: Path) -> list[Path]:
    """List the images of an atlas, one per label, in the order of the labels."""
    return sorted(atlas.glob("PAM50_atlas_*.nii.gz")) or sorted(atlas.glob("atlas_[0-9]*.nii.gz"))


def check_atlas(
    atlas: Path,
    labels: Sequence[int],
    estimator: Estimator,
    grid: Grid,
    *,
    n_labels: int = N_ATLAS_LABELS,
) -> tuple[str, ...]:
    """Refuse an atlas that is absent, of another image, or too small for the estimator; name the labels.

    ``n_labels`` is the number of labels of the whole atlas; by default that of PAM50.
    """
    if atlas.is_file():
        check_same(grid, atlas, "mask")
        if estimator in _NEEDS_WHOLE_ATLAS:
            raise ConfigError("this estimator needs the whole atlas", where=atlas.name, found=estimator)
        return (split_name(atlas.name)[0],)
    images = atlas_images(atlas)
    if not images:
        raise InputError("holds no atlas", where=str(atlas), todo="warp the template to the image first")
    if estimator in _NEEDS_WHOLE_ATLAS and len(images) != n_labels:
        raise InputError(
            "the atlas is not complete, and this estimator needs all of it",
            where=str(atlas),
            found=f"{len(images)} labels",
            expected=str(n_labels),
        )
    check_same(grid, images[0], "atlas")
    known = _label_names(atlas / "info_label.txt")
    unknown = [label for label in labels if label not in known]
    if unknown or not labels:
        raise ConfigError(
            "is not a label of the atlas" if unknown else "needs labels",
            where=str(atlas),
            found=str(unknown),
            expected=f"one of {', '.join(str(n) for n in known)}",
        )
    return tuple(known[label] for label in labels)


def _label_names(path: Path) -> dict[int, str]:
    """Read the identifiers and names of ``info_label.txt``, single and combined."""
    names: dict[int, str] = {}
    combined = False
    for line in iter_lines(read_small(path, limit=_MAX_TEXT_BYTES)):
        combined = combined or "Keyword=CombinedLabels" in line
        number, comma, rest = line.partition(",")
        if comma and number.strip().isdecimal() and number.strip().isascii():
            # After the name stands a file, or a list of numbers, which has commas of its own.
            name = rest.partition(",")[0] if combined else rest.rpartition(",")[0]
            names.setdefault(int(number), name.strip() or rest.strip())
    return names


def beside_atlas(atlas: Path, name: str) -> Path | None:
    """Return the template image (``cord``, ``levels``) that came together with an atlas, if there is one."""
    folder = atlas.parent / "template"
    known = [path for stem in ("PAM50", "atlas") if (path := folder / f"{stem}_{name}.nii.gz").is_file()]
    return known[0] if atlas.is_dir() and known else None
