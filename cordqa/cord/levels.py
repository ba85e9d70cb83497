"""Vertebral levels along the cord, from a few labels and the spacing of an average spine.

A place along the cord is written as one number, the *level coordinate*: vertebra N spans N to
N + 1, counted from C1 = 1 downwards (C7 = 7, T1 = 8, L1 = 20).  The disc above vertebra N is at N
(so disc 3 is C2/C3) and the middle of its body at N + 0.5.  Between labels the spacing of an
average spine is stretched to fit; beyond the outermost labels it continues with the same stretch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.axes import Oriented, orient
from cordqa.cord.centreline import Centreline
from cordqa.errors import EmptyInputError, InputError
from cordqa.records import Notice, Severity, Volume

__all__ = [
    "LEVEL_NAMES",
    "SPACING_MM",
    "Kind",
    "LevelLabel",
    "LevelMap",
    "distance_groups",
    "fit_levels",
    "label_at_distance",
    "level_groups",
    "level_number",
    "read_labels",
]

Array = NDArray[np.float64]
Kind = Literal["disc", "body"]

LEVEL_NAMES = (
    *(f"C{n}" for n in range(1, 8)),
    *(f"T{n}" for n in range(1, 13)),
    *(f"L{n}" for n in range(1, 6)),
)
#: Height of vertebra with its disc, C1 to L5, in mm, rounded to half a millimetre: no transcription of
#: one table, but in line with published anatomy.  Bodies: Panjabi et al. (thorax
#: doi:10.1097/00007632-199108000-00006, neck 1991, lumbar 1992).  Discs: 5.5 mm in the neck (a
#: rounded value of ours), 4.5 to 7.2 mm in the thorax (Kunkel et al.,
#: doi:10.1111/j.1469-7580.2011.01397.x), 10 mm below.  C1 and C2 are the ring and the body with the
#: dens.  Only ratios matter as soon as two labels are given.
SPACING_MM: tuple[float, ...] = (
    *(15.0, 20.0, 17.0, 17.0, 17.0, 16.5, 18.5),
    *(18.5, 20.0, 20.5, 21.0, 21.0, 22.5, 23.5, 24.5, 25.5, 27.0, 28.5, 30.0),
    *(32.5, 34.0, 34.5, 34.5, 33.0),
)
#: Labels that make the spine this much shorter or longer than average are probably misnumbered.
_PLAUSIBLE_STRETCH = (0.7, 1.4)
#: Voxels of one number with a gap of more than this are two labels: about half a cervical vertebra.
_APART_MM = 8.0
#: Uncertainty of a level that rests on average spacing alone, relative to the distance from the
#: label: upper cord length varies by 13.1 mm in 144.0 mm (doi:10.1111/jon.13240).
SPACING_SD = 0.09


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelLabel:
    """One known place: the coordinate of a disc or of the middle of a body, and where it is."""

    coordinate: float
    point_mm: tuple[float, float, float]
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelMap:
    """Level coordinate of every slice of an image.

    Attributes
    ----------
    coordinate : ndarray, shape (n_slices,)
        Level coordinate at the middle of each slice, counted from inferior; NaN outside C1 to L5.
    edges : ndarray, shape (n_slices + 1,)
        The same at the borders between slices, from the lowest.
    stretch : float
        Spacing of this spine over that of the average spine; NaN with a single label.
    standard_uncertainty_mm : ndarray, shape (n_slices,)
        Of the place of the levels: 0 between labels' slices, growing with distance from them.
    notices : tuple of Notice
    """

    coordinate: Array
    edges: Array
    stretch: float
    standard_uncertainty_mm: Array
    notices: tuple[Notice, ...] = ()

    def names(self) -> tuple[str, ...]:
        """Level of each slice; empty where it lies outside C1 to L5."""
        return tuple("" if math.isnan(c) else LEVEL_NAMES[int(c) - 1] for c in self.coordinate)


def level_number(name: str) -> int:
    """Number of a vertebra, C1 = 1.

    Raises
    ------
    InputError
        If it is none of C1 to C7, T1 to T12, L1 to L5.
    """
    cleaned = name.strip().upper()
    if cleaned not in LEVEL_NAMES:
        raise InputError("unknown vertebral level", found=name, expected="C1 to C7, T1 to T12 or L1 to L5")
    return LEVEL_NAMES.index(cleaned) + 1


def read_labels(volume: Volume, *, kind: Kind) -> tuple[LevelLabel, ...]:
    """Take labels from a label image: each voxel's value is the number of a disc or of a body.

    Parameters
    ----------
    volume : Volume
        Zero but for labels; disc N lies above vertebra N (3 is C2/C3).  Voxels of one value count as
        one label, at their centre of mass.
    kind : {'disc', 'body'}
        What the numbers mean; an image does not tell.

    Raises
    ------
    EmptyInputError
        If there is no label.
    InputError
        If a value is no vertebral number.
    """
    if kind not in ("disc", "body"):
        raise InputError("unknown kind of label", found=str(kind), expected="disc or body")
    data = orient(volume, what="label image")
    values = np.unique(data.data[np.isfinite(data.data) & (data.data != 0)])
    if values.size == 0:
        raise EmptyInputError("the label image holds no label", where=volume.source)
    wrong = [v for v in values if v != round(float(v)) or not 1 <= v <= len(LEVEL_NAMES)]
    if wrong:
        raise InputError(
            "a label is no vertebral number",
            where=volume.source,
            found=f"{float(wrong[0]):g}",
            expected=f"1 (C1) to {len(LEVEL_NAMES)} (L5)",
        )
    return tuple(_label(data, int(value), kind) for value in values)


def _label(data: Oriented, value: int, kind: Kind) -> LevelLabel:
    voxels = np.argwhere(data.data == value)
    _check_once(np.unique(voxels[:, 2]), value, data)
    centre = voxels.mean(axis=0)
    point = data.affine[:3, :3] @ centre + data.affine[:3, 3]
    return LevelLabel(
        coordinate=value + (0.5 if kind == "body" else 0.0),
        point_mm=(float(point[0]), float(point[1]), float(point[2])),
        name=f"{'middle of' if kind == 'body' else 'disc above'} {LEVEL_NAMES[value - 1]}",
    )


def _check_once(slices: NDArray[np.intp], value: int, data: Oriented) -> None:
    """Refuse one number at two heights: their middle is the place of neither."""
    step = np.diff(slices)
    if step.size and step.max() > 1 and step.max() * data.spacing_mm[2] > _APART_MM:
        at = int(step.argmax())
        raise InputError(
            f"label {value} is given twice",
            where=data.source,
            found=f"slices {slices[at]} and {slices[at + 1]}, {step[at] * data.spacing_mm[2]:.0f} mm apart",
            expected="each number once",
        )


def label_at_distance(
    point_mm: tuple[float, float, float],
    *,
    landmark: str,
    distance_mm: float,
    kind: Kind = "disc",
    spacing_mm: Sequence[float] = SPACING_MM,
) -> LevelLabel:
    """Make a label from a distance: the point lies ``distance_mm`` below a landmark.

    Parameters
    ----------
    point_mm : tuple of float
        A point of the image in RAS+ millimetres.
    landmark : str
        Vertebra, for example "C3"; with ``kind`` its upper disc or the middle of its body.
    distance_mm : float
        Along the cord; negative where the point lies above the landmark.

    Raises
    ------
    InputError
        If that leads out of the spine.
    """
    down = _positions(spacing_mm)
    start = level_number(landmark) + (0.5 if kind == "body" else 0.0)
    wanted = float(np.interp(start, np.arange(1, down.size + 1), down)) + distance_mm
    if not down[0] <= wanted <= down[-1]:
        raise InputError("the distance leads out of the spine", found=f"{distance_mm:g} mm from {landmark}")
    return LevelLabel(
        coordinate=float(np.interp(wanted, down, np.arange(1, down.size + 1))),
        point_mm=point_mm,
        name=f"{distance_mm:g} mm below {'middle of' if kind == 'body' else 'disc above'} {landmark}",
    )


def _positions(spacing_mm: Sequence[float]) -> Array:
    """Distance of the upper end of each vertebra, and of the lower end of the last, below C1."""
    spacing = np.asarray(spacing_mm, dtype=float)
    if spacing.shape != (len(LEVEL_NAMES),) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise InputError("spacings must be positive, one per vertebra", found=f"{spacing.size} numbers")
    return np.concatenate([[0.0], np.cumsum(spacing)])


def fit_levels(
    labels: Sequence[LevelLabel],
    image: Volume,
    *,
    centreline: Centreline | None = None,
    spacing_mm: Sequence[float] = SPACING_MM,
) -> LevelMap:
    """Give every slice of an image its level coordinate.

    Parameters
    ----------
    labels : sequence of LevelLabel
        One or more.  With one, the average spacing is used as it is, and a notice says so.
    image : Volume
        The image whose slices are asked for; in any orientation.
    centreline : Centreline, optional
        Distances are measured along it; without one, along the superior axis of the image.
    spacing_mm : sequence of float
        Heights of C1 to L5, vertebra with its disc.

    Raises
    ------
    EmptyInputError
        If there is no label.
    InputError
        If a label lies outside the image, or labels contradict each other's order.
    """
    if not labels:
        raise EmptyInputError("levels need at least one label", todo="use slice-wise results instead")
    oriented = orient(image)
    at = np.array([_slice_of(label, oriented) for label in labels])
    coordinate = np.array([label.coordinate for label in labels], dtype=float)
    order = np.argsort(at)
    at, coordinate = at[order], coordinate[order]
    _check_order(at, coordinate)
    down = _positions(spacing_mm)
    number = np.arange(1, down.size + 1, dtype=float)
    known = np.interp(coordinate, number, down)
    borders = np.arange(oriented.n_slices + 1) - 0.5
    heights = _heights(np.concatenate([borders, at]), oriented, centreline)
    border_mm, label_mm = heights[: borders.size], heights[borders.size :]
    stretch = (label_mm[-1] - label_mm[0]) / (known[0] - known[-1]) if at.size > 1 else math.nan
    scale = 1.0 if math.isnan(stretch) else float(stretch)
    place = _piecewise(border_mm, label_mm, known, scale)
    middle = 0.5 * (place[1:] + place[:-1])
    away = np.maximum(0.0, np.maximum(known.min() - middle, middle - known.max())) * scale
    return LevelMap(
        coordinate=_inside(middle, down, number),
        edges=np.interp(place, down, number, left=math.nan, right=math.nan),
        stretch=float(stretch),
        standard_uncertainty_mm=SPACING_SD * away,
        notices=_notices(at.size, float(stretch)),
    )


def _slice_of(label: LevelLabel, image: Oriented) -> float:
    """Position of a label along the slices; it must lie within the image."""
    index = np.linalg.solve(image.affine, [*label.point_mm, 1.0])[:3]
    if not ((index >= -0.5) & (index <= np.array(image.data.shape) - 0.5)).all():
        raise InputError(
            "a level label lies outside the image",
            where=image.source,
            found=f"{label.name or f'{label.coordinate:g}'} at {np.round(index, 1).tolist()}",
            expected=f"within {image.data.shape} voxels",
            todo="check that labels and image belong together",
        )
    return float(index[2])


def _check_order(at: Array, coordinate: Array) -> None:
    if at.size > 1 and not ((np.diff(coordinate) < 0) & (np.diff(at) > 0)).all():
        raise InputError(
            "level labels contradict each other: numbers must grow from superior to inferior",
            found=", ".join(f"{c:g} at slice {z:.1f}" for z, c in zip(at, coordinate, strict=True)),
            todo="check the numbering, and that each label is given once",
        )


def _heights(at: Array, image: Oriented, line: Centreline | None) -> Array:
    """Millimetres upwards along the centreline; straight on beyond its ends."""
    step = image.spacing_mm[2]
    if line is None or line.slices.size < 2:
        return np.asarray(at * step)
    if not np.allclose(line.affine, image.affine, atol=0.1):
        raise InputError("centreline and image are not on one grid", where=image.source)
    inside = np.interp(at, line.slices, line.arc_length_mm)
    below = np.minimum(at - line.slices[0], 0.0) * step
    above = np.maximum(at - line.slices[-1], 0.0) * step
    return np.asarray(inside + below + above)


def _piecewise(wanted_mm: Array, label_mm: Array, known: Array, scale: float) -> Array:
    """Distance below C1 in the average spine, for heights in this one."""
    ends_mm = np.concatenate([[label_mm[0] - 1000.0], label_mm, [label_mm[-1] + 1000.0]])
    ends = np.concatenate([[known[0] + 1000.0 / scale], known, [known[-1] - 1000.0 / scale]])
    return np.asarray(np.interp(wanted_mm, ends_mm, ends))


def _inside(place: Array, down: Array, number: Array) -> Array:
    out = np.interp(place, down, number)
    return np.asarray(np.where((place < down[0]) | (place >= down[-1]), math.nan, out))


def _notices(count: int, stretch: float) -> tuple[Notice, ...]:
    if count == 1:
        text = "levels rest on one label and the spacing of an average spine: give a second label if you can"
        return (Notice(severity=Severity.WARNING, message=text, code="levels.one-label"),)
    if not _PLAUSIBLE_STRETCH[0] <= stretch <= _PLAUSIBLE_STRETCH[1]:
        text = f"the labels make vertebrae {100 * stretch:.0f} % of average height: check their numbering"
        return (Notice(severity=Severity.WARNING, message=text, code="levels.stretch"),)
    return ()


def level_groups(
    levels: LevelMap, slices: NDArray[np.intp], wanted: Sequence[str] | None = None
) -> tuple[dict[str, NDArray[np.bool_]], dict[str, str]]:
    """Group slices by vertebral level.

    Parameters
    ----------
    levels : LevelMap
        Of the image that the slices belong to.
    slices : ndarray of int
        Slice numbers that hold cord.
    wanted : sequence of str, optional
        Levels asked for, "C3" or "C2-C5" for one group of several; by default every level met.

    Returns
    -------
    groups : dict
        Level to a mask over ``slices``; nothing chosen where the level is not covered.
    notes : dict
        What is to be said about a level: covered in part, or not at all.
    """
    if slices.size and (slices.min() < 0 or slices.max() >= levels.coordinate.size):
        raise InputError("slices and levels do not belong to one image", found=f"slice {slices.max()}")
    number = np.floor(levels.coordinate[slices])
    if wanted is None:
        wanted = [LEVEL_NAMES[int(n) - 1] for n in np.unique(number[np.isfinite(number)])]
    groups: dict[str, NDArray[np.bool_]] = {}
    notes: dict[str, str] = {}
    for name in wanted:
        first, _, last = name.partition("-")
        low, high = level_number(first), level_number(last or first)
        groups[name] = (number >= min(low, high)) & (number <= max(low, high))
        covered = _covered(levels, slices, min(low, high), max(low, high) + 1)
        if not groups[name].any():
            notes[name] = f"{name} is not covered"
        elif covered < 0.9:
            notes[name] = f"{100 * covered:.0f} % of {name} is covered"
    return groups, notes


def _covered(levels: LevelMap, slices: NDArray[np.intp], low: float, high: float) -> float:
    """Share of a stretch of levels that lies within the given slices."""
    lower, upper = levels.edges[slices], levels.edges[slices + 1]  # coordinates fall going up
    overlap = np.minimum(lower, high) - np.maximum(upper, low)
    return float(np.nansum(np.clip(overlap, 0.0, None)) / (high - low))


def distance_groups(
    centreline: Centreline,
    point_mm: tuple[float, float, float],
    *,
    distances_mm: Sequence[float],
    extent_mm: float,
) -> tuple[dict[str, NDArray[np.bool_]], dict[str, str]]:
    """Group slices by their distance below a landmark, for example the pontomedullary junction.

    Parameters
    ----------
    centreline : Centreline
        Distances run along it, from the point of it at the height of the landmark.
    point_mm : tuple of float
        The landmark in RAS+ millimetres.
    distances_mm : sequence of float
        Middle of each group.
    extent_mm : float
        Length of each group.

    Returns
    -------
    groups, notes : dict
        As in :func:`level_groups`.
    """
    if not extent_mm > 0:
        raise InputError("the extent must be positive", found=f"{extent_mm}")
    index = np.linalg.solve(centreline.affine, [*point_mm, 1.0])[2]
    arc = centreline.arc_length_mm
    step = centreline.spacing_mm[2]
    top = np.interp(index, centreline.slices, arc)
    top += (max(index - centreline.slices[-1], 0.0) + min(index - centreline.slices[0], 0.0)) * step
    below = top - arc
    groups: dict[str, NDArray[np.bool_]] = {}
    notes: dict[str, str] = {}
    for distance in distances_mm:
        name = f"{distance:g} mm below"
        groups[name] = np.abs(below - distance) <= extent_mm / 2
        reach = np.clip(np.minimum(below + step / 2, distance + extent_mm / 2), None, None) - np.maximum(
            below - step / 2, distance - extent_mm / 2
        )
        covered = float(np.clip(reach, 0.0, None).sum() / extent_mm)
        if not groups[name].any():
            notes[name] = f"{name} is not covered"
        elif covered < 0.9:
            notes[name] = f"{100 * covered:.0f} % of the extent is covered"
    return groups, notes
