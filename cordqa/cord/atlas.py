"""Atlas of white and grey matter: which regions there are, and how much of each voxel they fill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.axes import check_same_grid, orient
from cordqa.errors import InputError
from cordqa.records import Volume

__all__ = ["AtlasImage", "AtlasLabels", "Region", "gather_atlas", "parse_label_table"]

TISSUES = ("WM", "GM", "CSF")
#: Names used in tables for the groups that atlas files spell out.
_SHORT = {
    "spinal cord": "cord",
    "white matter": "WM",
    "gray matter": "GM",
    "grey matter": "GM",
    "dorsal columns": "DC",
    "lateral funiculi": "LF",
    "ventral funiculi": "VF",
    "csf": "CSF",
    "csf contour": "CSF",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A region that can be asked for: one label, or several taken together.

    ``approximate`` says that its borders are drawn from a scheme, so that its value is a hint and
    not a measurement of that tract.
    """

    name: str
    members: tuple[int, ...]
    approximate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AtlasLabels:
    """The labels of an atlas.

    Attributes
    ----------
    names : tuple of str
        One per label, in the order of the weights.
    regions : mapping
        Name to region: every label, and the groups WM, GM, DC, LF, VF, CSF, cord.
    tissues : mapping
        WM, GM and CSF to their labels; partial-volume estimates begin with these.
    source : str
        Where the atlas comes from.
    """

    names: tuple[str, ...]
    regions: Mapping[str, Region]
    tissues: Mapping[str, tuple[int, ...]]
    source: str = ""

    def find(self, name: str) -> Region:
        """Look a region up.

        Raises
        ------
        InputError
            If the atlas has no such region.
        """
        region = self.regions.get(name)
        if region is None:
            raise InputError("the atlas has no such region", found=name, expected=", ".join(self.regions))
        return region


@dataclass(frozen=True, slots=True, kw_only=True)
class AtlasImage:
    """An atlas laid into an image: the fraction of each voxel that each label fills.

    Attributes
    ----------
    labels : AtlasLabels
    weights : ndarray, shape (n_labels, n_right, n_anterior, n_superior), float32
        Fractions from 0 to 1 within a box of the image, laid out as (right, anterior, superior).
    corner : tuple of int
        First voxel of that box in the whole image, in the same layout.
    shape : tuple of int
        Shape of the whole image in the same layout.
    affine : ndarray, shape (4, 4)
        From that layout of the whole image to RAS+ millimetres.
    """

    labels: AtlasLabels
    weights: NDArray[np.float32]
    corner: tuple[int, int, int]
    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    def region_weights(self, region: Region) -> NDArray[np.float64]:
        """Fraction of each voxel of the box that a region fills."""
        return np.asarray(self.weights[list(region.members)].sum(axis=0, dtype=float))

    def covered_slices(self) -> NDArray[np.intp]:
        """Slices of the image in which any label is present, counted from inferior."""
        return np.flatnonzero(self.weights.any(axis=(0, 1, 2))) + self.corner[2]

    def paint(self, region: Region) -> NDArray[np.float64]:
        """Fractions of a region over the whole image, laid out as (right, anterior, superior)."""
        out = np.zeros(self.shape)
        i, j, k = self.corner
        box = self.region_weights(region)
        out[i : i + box.shape[0], j : j + box.shape[1], k : k + box.shape[2]] = box
        return out


def parse_label_table(text: str, *, source: str = "") -> AtlasLabels:
    """Understand the label table that comes with an atlas (``info_label.txt``).

    Lines read ``id, name, file`` under the keyword IndivLabels, ``id, name, ids`` under
    CombinedLabels and ``name, ids`` under MAPLabels, where ids are as in ``0:29`` or ``4,5``.

    Raises
    ------
    InputError
        If there are no labels, or ids are not 0, 1, 2, ...
    """
    sections: dict[str, list[list[str]]] = {}
    current = ""
    for line in text.splitlines():
        if "Keyword=" in line:
            current = line.split("Keyword=", 1)[1].split()[0]
        elif line.strip() and not line.lstrip().startswith("#"):
            sections.setdefault(current, []).append([part.strip() for part in line.split(",")])
    rows = [row for row in sections.get("IndivLabels", []) if len(row) >= 3]
    if not rows or [row[0] for row in rows] != [str(n) for n in range(len(rows))]:
        raise InputError("the label table has no labels numbered 0, 1, 2, ...", where=source)
    names = tuple(", ".join(row[1:-1]) for row in rows)
    regions = {name: Region(name=name, members=(n,)) for n, name in enumerate(names)}
    for row in sections.get("CombinedLabels", []):
        name = _SHORT.get(row[1].casefold(), row[1])
        regions[name] = Region(name=name, members=_ids(",".join(row[2:]), len(names), source))
    tissues = {
        _SHORT.get(row[0].casefold(), row[0]): _ids(",".join(row[1:]), len(names), source)
        for row in sections.get("MAPLabels", [])
    }
    for name, members in tissues.items():
        regions.setdefault(name, Region(name=name, members=members))
    return AtlasLabels(names=names, regions=regions, tissues=tissues, source=source)


def _ids(text: str, count: int, source: str) -> tuple[int, ...]:
    members: list[int] = []
    try:
        for part in text.replace(" ", "").split(","):
            first, _, last = part.partition(":")
            members.extend(range(int(first), int(last or first) + 1))
    except ValueError as error:
        raise InputError("a list of label ids cannot be understood", where=source, found=text) from error
    if not members or min(members) < 0 or max(members) >= count:
        raise InputError("a label id does not exist", where=source, found=text, expected=f"0 to {count - 1}")
    return tuple(members)


def gather_atlas(volumes: Sequence[Volume], labels: AtlasLabels) -> AtlasImage:
    """Put together an atlas that already lies in the image, one volume per label.

    Raises
    ------
    InputError
        If numbers or grids differ, or a weight is not a number from 0 to 1.
    """
    if len(volumes) != len(labels.names):
        raise InputError(
            "an atlas needs one volume per label", found=f"{len(volumes)}", expected=f"{len(labels.names)}"
        )
    first = volumes[0]
    arrays = []
    for volume in volumes:
        check_same_grid(first, volume, what="the labels of the atlas")
        data = np.asarray(orient(volume, what="atlas label").data, dtype=np.float32)
        if not np.isfinite(data).all() or data.min() < -1e-3 or data.max() > 1.001:
            raise InputError("atlas weights must be fractions from 0 to 1", where=volume.source)
        arrays.append(data)
    oriented = orient(first, what="atlas label")
    filled = np.argwhere(np.any([array > 0 for array in arrays], axis=0))
    low = filled.min(axis=0) if filled.size else np.zeros(3, dtype=int)
    high = filled.max(axis=0) + 1 if filled.size else np.zeros(3, dtype=int)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return AtlasImage(
        labels=labels,
        weights=np.stack([array[box] for array in arrays]),
        corner=(int(low[0]), int(low[1]), int(low[2])),
        shape=(arrays[0].shape[0], arrays[0].shape[1], arrays[0].shape[2]),
        affine=oriented.affine,
    )
