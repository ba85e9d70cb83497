"""The template in the image, without a warp: what is known of the cord is kept, and the atlas laid by it.

``register template`` leaves one image of two volumes: the cord mask, and the level coordinate of every
slice (NaN where no level is known).  ``warp template`` lays the atlas by them and writes it as a folder
that extraction can read, one image per label with a table of labels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.atlas import AtlasImage, AtlasLabels
from cordqa.cord.axes import orient
from cordqa.cord.levels import Kind, fit_levels, read_labels
from cordqa.cord.template import AtlasSections, lay_atlas
from cordqa.engines.builtin.levels import one_volume, paint_levels
from cordqa.engines.builtin.measure import APPROXIMATE
from cordqa.engines.grids import read_grid, same_grid
from cordqa.errors import InputError
from cordqa.io.results import write_text
from cordqa.io.volumes import read_volume, write_volume
from cordqa.records import Notice, Volume

__all__ = ["align_template", "lay_template"]

Array = NDArray[np.float64]
#: Identifiers of groups of labels, as PAM50 has them.
_GROUPS = {"cord": 50, "WM": 51, "GM": 52, "DC": 53, "LF": 54, "VF": 55}


def align_template(
    segmentation: Path, target: Path, *, discs: Path | None, bodies: Path | None
) -> tuple[Notice, ...]:
    """Write mask and level coordinate; say what is not known."""
    mask = one_volume(read_volume(segmentation))
    oriented = orient(mask)
    coordinate = np.full(oriented.n_slices, np.nan)
    notices: tuple[Notice, ...] = ()
    labels = bodies if bodies is not None else discs
    if labels is not None:
        kind: Kind = "body" if bodies is not None else "disc"
        found = fit_levels(read_labels(one_volume(read_volume(labels)), kind=kind), mask)
        coordinate, notices = found.coordinate, found.notices
    everywhere = np.broadcast_to(coordinate, oriented.data.shape)
    data = np.stack([np.asarray(mask.data, dtype=float), oriented.restore(everywhere)], axis=-1)
    write_volume(Volume(data=data.astype(np.float32), affine=mask.affine), target)
    return notices


def lay_template(
    alignment: Path, image: Path, folder: Path, *, sections: AtlasSections, with_atlas: bool
) -> tuple[dict[str, Path], tuple[Notice, ...]]:
    """Lay the atlas, write it below ``folder``, and return the files by role.

    Raises
    ------
    InputError
        If the alignment is none of this engine, or belongs to another image.
    """
    mask, coordinate = _read_alignment(alignment, image)
    laid, notices = lay_atlas(sections, mask, coordinate=coordinate, pieces="largest")
    files = {"label": folder}
    oriented = orient(mask)
    cord = laid.paint(laid.labels.find("cord"))
    roles = {"cord": "cord", "white_matter": "WM", "grey_matter": "GM"}
    for role, region in roles.items():
        files[role] = folder / "template" / f"atlas_{role}.nii.gz"
        _write(oriented.restore(laid.paint(laid.labels.find(region))), mask.affine, files[role])
    if coordinate is not None:
        files["levels"] = folder / "template" / "atlas_levels.nii.gz"
        inside = Volume(data=oriented.restore(cord), affine=mask.affine)
        write_volume(paint_levels(inside, coordinate), files["levels"])
    if with_atlas:
        files["atlas"] = folder / "atlas"
        _write_atlas(laid, mask, folder / "atlas")
    return files, notices


def _read_alignment(alignment: Path, image: Path) -> tuple[Volume, Array | None]:
    grid = read_grid(alignment)
    if grid.extra != (2,):
        raise InputError(
            "is no alignment of the built-in engine",
            where=alignment.name,
            found=f"shape {grid.shape + grid.extra}",
            expected="two volumes: mask and level coordinate",
            todo="register the template with the engine that is to warp it",
        )
    if not same_grid(grid, read_grid(image)):
        raise InputError(
            "the alignment lies on another grid", where=alignment.name, todo="register this image first"
        )
    stored = read_volume(alignment)
    mask = Volume(data=stored.data[..., 0], affine=stored.affine, source=alignment.name)
    planes = orient(Volume(data=stored.data[..., 1], affine=stored.affine)).data
    coordinate = np.asarray(planes[0, 0], dtype=float)
    return mask, coordinate if np.isfinite(coordinate).any() else None


def _write(data: NDArray[np.float64], affine: NDArray[np.float64], path: Path) -> None:
    write_volume(Volume(data=data.astype(np.float32), affine=affine), path)


def _write_atlas(laid: AtlasImage, mask: Volume, folder: Path) -> None:
    oriented = orient(mask)
    for n in range(len(laid.labels.names)):
        region = laid.labels.find(laid.labels.names[n])
        _write(oriented.restore(laid.paint(region)), mask.affine, folder / _file(n))
    # The table comes last: where it is, the atlas is complete.
    write_text(folder / "info_label.txt", label_table(laid.labels))


def _file(number: int) -> str:
    return f"atlas_{number:02d}.nii.gz"


def label_table(labels: AtlasLabels) -> str:
    """Write the table of labels in the form that :func:`cordqa.cord.atlas.parse_label_table` reads."""
    lines = [f"# {labels.source}"]
    if any(region.approximate for region in labels.regions.values()):
        lines.append(APPROXIMATE)
    lines += ["# Keyword=IndivLabels", "# ID, name, file"]
    lines += [f"{n}, {name}, {_file(n)}" for n, name in enumerate(labels.names)]
    lines += ["# Keyword=CombinedLabels", "# ID, name, ids"]
    for name, number in _GROUPS.items():
        if name in labels.regions:
            members = ",".join(str(n) for n in labels.regions[name].members)
            lines.append(f"{number}, {name}, {members}")
    lines += ["# Keyword=MAPLabels", "# name, ids"]
    lines += [f"{name}, {','.join(str(n) for n in members)}" for name, members in labels.tissues.items()]
    return "\n".join(lines) + "\n"
