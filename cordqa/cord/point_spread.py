"""How far an image is blurred beyond its voxels, found from the image, and an atlas blurred as much.

A sharp atlas takes the CSF that blur carries into the cord as signal of white matter.  The width of the step
between cord and CSF tells the blur, its place tells how far the edge of the cord lies from that of the
mask, which by custom is drawn a little inside.  Blur, edge and a shift are found together by least squares
of what every voxel would show as the sum of its parts (white matter, grey matter, CSF and what lies
beyond), with values of the parts free in every slice and image; one of each serves all slices and images.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.atlas import AtlasImage
from cordqa.cord.axes import orient_mask
from cordqa.cord.extraction import values_on_grid
from cordqa.cord.section_sampling import Pose, find_pose, interpolate_section, section_points
from cordqa.cord.template import AtlasSections, section_at, section_levels
from cordqa.records import Volume

__all__ = ["NOT_TOLD", "TOLD", "PointSpread", "estimate_point_spread", "lay_blurred"]

Array = NDArray[np.float64]
Fractions = NDArray[np.float32]

NOT_TOLD = "the images do not tell their blur: values as if they were sharp"
TOLD = "blur of"  # how the words about a blur that was found begin
#: Where the search begins: places of the edge outside the mask, and standard deviations of the blur (mm).
_EDGES = (-0.4, -0.1, 0.2, 0.5, 0.8)
_BLURS = (0.0, 0.25, 0.5, 0.75, 1.0)
#: Steps (edge, blur, shift; mm) by which the best of them is improved.
_STEPS = ((0.15, 0.125, 0.2), (0.075, 0.0625, 0.1))
#: Each is repeated until it gains no more than this, and no more often than that.
_LEAST_GAIN = 0.5
_MOST_ROUNDS = 8
#: Places whose fine sections are kept for the next blur.
_MOST_PLACES = 32
#: A mask that lies further off than this is another fault.
_FARTHEST_MM = 0.6
#: A voxel takes part where the sharp atlas fills half of it: beyond lies what no label describes.
_HALF = 0.5
#: Share of cord in a voxel below which its labels have no proportions.
_LEAST_FILLED = 0.05
#: More slices than this add nothing to one number for all of them.
_MOST_SLICES = 10
_LEAST_VOXELS = 40
#: What surrounds the cord is thinner or brighter on one side than on another: waves around the cord that
#: its signals may follow; the images choose between these numbers.
_WAVES = (1, 2)
#: Distance of the points at which a section is taken, and reach of the blur in standard deviations.
_FINE_MM = 0.3
_REACH = 3.0
#: Misfit below this share of the signal is that of a simulation without noise.
_EXACT = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class PointSpread:
    """Blur of images in the plane.

    Attributes
    ----------
    blur_mm : float
        Standard deviation of the Gaussian beyond the voxel itself; 0 where it cannot be told.
    edge_mm : float
        How far the edge of the cord lies outside that of the mask; negative inside.
    shift_mm : tuple of float
        How far the cord lies towards right and anterior of the mask.
    reason : str
        Why it cannot be told.
    """

    blur_mm: float = 0.0
    edge_mm: float = 0.0
    shift_mm: tuple[float, float] = (0.0, 0.0)
    reason: str = ""

    @property
    def words(self) -> str:
        """Say what was found."""
        if self.reason:
            return self.reason
        side = "outside" if self.edge_mm >= 0 else "inside"
        return (
            f"{TOLD} {self.blur_mm:.2f} mm beyond the voxel, edge of the cord {abs(self.edge_mm):.2f} mm "
            f"{side} that of the mask and moved by {math.hypot(*self.shift_mm):.2f} mm, from the images"
        )


#: Edge and shift (right, anterior), mm.
_Place = tuple[float, float, float]


@dataclass(slots=True)
class _Slice:
    """One slice: where the cord lies, which voxels take part, and the section of the atlas there."""

    number: int  # in the box of the atlas
    pose: Pose
    section: Fractions  # (n_parts, n, n)
    section_blur: Array  # (2,): variance in squared standard deviations of the cord
    low: NDArray[np.intp]  # first voxel of a window around those that take part, in the whole image
    used: NDArray[np.bool_]  # voxels of the window that take part
    spacing_mm: tuple[float, float, float]
    around: Array  # (1 + 2 n_waves, n_used): one, and waves around the cord, where voxels take part
    fine: dict[_Place, Fractions] = field(default_factory=dict)

    def fractions(self, place: _Place, blur_mm: float, *, most_blur_mm: float) -> Fractions:
        """Share of every part in the voxels of the window, shape (n_parts, n_right, n_anterior)."""
        count = math.ceil(max(self.spacing_mm[:2]) / _FINE_MM)
        margin = [math.ceil(_REACH * most_blur_mm / step) + 1 for step in self.spacing_mm[:2]]
        pose = _moved(self.pose, place)
        if place not in self.fine:
            if len(self.fine) >= _MOST_PLACES:
                self.fine.clear()
            low = self.low - np.array([*margin, 0])
            size = np.array([n + 2 * m for n, m in zip(self.used.shape, margin, strict=True)])
            u, v = section_points(pose, low, size, self.spacing_mm, count, (1.0, 1.0))
            self.fine[place] = interpolate_section(self.section, u, v)
        widths = pose.width_right, pose.width_forward
        right, forward = (
            _averaging(n, m, count, step, blur_mm**2 - float(b) * w**2)
            for n, m, step, b, w in zip(
                self.used.shape, margin, self.spacing_mm, self.section_blur, widths, strict=False
            )
        )
        return np.asarray(right @ self.fine[place] @ forward.T, dtype=np.float32)


def _moved(pose: Pose, place: _Place) -> Pose:
    # The edge of an ellipse lies two standard deviations from its centre.
    right, forward = (width + place[0] / 2 for width in (pose.width_right, pose.width_forward))
    return replace(pose, centre=pose.centre + np.array(place[1:]), width_right=right, width_forward=forward)


def _averaging(size: int, margin: int, count: int, step_mm: float, variance: float) -> Fractions:
    """Weights of points in the mean over each voxel, blurred by a Gaussian, shape (size, n_points).

    ``variance`` is that of the blur (mm^2) without what the section is blurred already, which may leave
    less than the voxel itself.
    """
    from scipy.special import ndtr

    points = (np.arange((size + 2 * margin) * count) + 0.5) / count - 0.5 - margin
    away = (points[None] - np.arange(size)[:, None]) * step_mm
    # A box narrower than the distance of the points would miss them: part of it is taken as a Gaussian.
    least = (0.5 * step_mm / count) ** 2
    total = max(step_mm**2 / 12.0 + variance, least)
    spread = math.sqrt(min(max(variance, least), total))
    half = 0.5 * math.sqrt(12.0 * max(total - spread**2, least / 100.0))
    weights = ndtr((away + half) / spread) - ndtr((away - half) / spread)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def estimate_point_spread(
    sections: AtlasSections,
    mask: Volume,
    images: Sequence[Volume],
    atlas: AtlasImage,
    *,
    coordinate: Array | None = None,
    left_out: Collection[int] = (),
) -> PointSpread:
    """Find blur and edge of the cord from images in which cord and CSF differ.

    Parameters
    ----------
    sections, mask, coordinate
        As they were given to :func:`cordqa.cord.template.lay_atlas`.
    images : sequence of Volume
        Registered signals on the grid of the mask.
    atlas : AtlasImage
        What was laid.
    left_out : collection of int
        Slices, counted from inferior, that are not to be looked at.

    Returns
    -------
    PointSpread
        With a reason, and zeros, where images do not tell them: no contrast between cord and CSF, a blur
        of 1 mm or more, an edge 0.4 mm inside or 0.8 mm outside that of the mask or further, a shift
        beyond 0.6 mm.

    Notes
    -----
    Least misfit ``sum(n log(RSS))`` over slices and images, each of a noise of its own (profile likelihood
    of Gaussian noise).  Signals of CSF and of what lies beyond may differ from side to side, by one or two
    waves around the cord, whichever has the lower Bayesian information criterion.  Where the cord touches
    the sac, CSF is thinner than about 0.6 mm or roots as bright as the cord lie against it, the edge is found
    up to 0.5 mm from its place, and white matter is off by 1 to 4 % (simulated, cord 40 % darker than CSF):
    over blurs and edges about as far as with the sharp atlas or nearer, in a single image at times further.
    """
    if not images:
        return PointSpread(reason=NOT_TOLD)
    merged, inner = _merged(sections)
    slices = [
        one
        for one in _slices(merged, mask, atlas, coordinate)
        if one.number + atlas.corner[2] not in left_out
    ]
    if len(slices) > _MOST_SLICES:
        chosen = np.linspace(0, len(slices) - 1, _MOST_SLICES).round().astype(int)
        slices = [slices[n] for n in chosen]
    data = np.stack([values_on_grid(image, atlas) for image in images])
    known = [(one, _voxels(one, data, atlas)) for one in slices]
    pairs = [(one, y) for one, y in known if np.isfinite(y).all(axis=1).sum() >= _LEAST_VOXELS]
    if not pairs:
        return PointSpread(reason=NOT_TOLD)
    return min((_search(pairs, inner, waves) for waves in _WAVES), key=lambda found: found[0])[1]


def _merged(sections: AtlasSections) -> tuple[AtlasSections, int]:
    """Sections of whole tissues, those of the cord first, and how many these are."""
    labels = sections.labels
    around = list(labels.tissues.get("CSF", ()))
    cord = [list(members) for name, members in labels.tissues.items() if members and name != "CSF"]
    cord = cord or [[n for n in range(len(labels.names)) if n not in around]]
    tissues = [*cord, around] if around else cord
    fractions = np.stack([sections.fractions[:, members].sum(axis=1) for members in tissues], axis=1)
    return replace(sections, fractions=fractions), len(cord)


def _slices(
    sections: AtlasSections, mask: Volume, atlas: AtlasImage, coordinate: Array | None
) -> list[_Slice]:
    """Slices that the sharp atlas reaches, with the voxels of which it fills half."""
    oriented = orient_mask(mask, pieces="largest")
    levels, _ = section_levels(coordinate, oriented, sections)
    used = atlas.weights.sum(axis=0) > _HALF
    found = []
    for k in np.flatnonzero(used.any(axis=(0, 1))):
        z = int(k) + atlas.corner[2]
        pose = find_pose(oriented.data[:, :, z], oriented.spacing_mm, rotate=True)
        if pose is None or math.isnan(levels[z]):
            continue
        rows, columns = (np.flatnonzero(used[:, :, k].any(axis=axis)) for axis in (1, 0))
        section, blur = section_at(sections, float(levels[z]))
        low = np.array([rows[0] + atlas.corner[0], columns[0] + atlas.corner[1], z], dtype=np.intp)
        window = used[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1, k]
        found.append(
            _Slice(
                number=int(k),
                pose=pose,
                section=section,
                section_blur=blur,
                low=low,
                used=window,
                spacing_mm=oriented.spacing_mm,
                around=_waves(pose, low, window, oriented.spacing_mm),
            )
        )
    return found


def _waves(
    pose: Pose, low: NDArray[np.intp], used: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
) -> Array:
    """One, and waves around the cord, at the voxels that take part."""
    place = (np.argwhere(used) + low[:2]) * np.array(spacing_mm[:2]) - pose.centre
    angle = np.arctan2(place @ pose.forward / pose.width_forward, place @ pose.right / pose.width_right)
    waves = [f(n * angle) for n in range(1, _WAVES[-1] + 1) for f in (np.cos, np.sin)]
    return np.stack([np.ones(len(angle)), *waves])


def _voxels(one: _Slice, data: Array, atlas: AtlasImage) -> Array:
    """Values of the voxels that take part, as shares of the largest, shape (n_voxels, n_images)."""
    i, j = (int(n) for n in one.low[:2])
    z = one.number + atlas.corner[2]
    window = data[:, i : i + one.used.shape[0], j : j + one.used.shape[1], z]
    values = np.asarray(window[:, one.used].T)
    # Squares of very large or small numbers would be infinite or nothing.
    size = np.abs(values)
    largest = np.max(size, axis=0, where=np.isfinite(size), initial=0.0)
    return np.asarray(values / np.where(largest > 0.0, largest, 1.0))


class _Search:
    """Least misfit over edge, blur and shift; each place is looked at once."""

    def __init__(self, pairs: Sequence[tuple[_Slice, Array]], inner: int, waves: int) -> None:
        self.pairs, self.inner, self.waves = pairs, inner, waves
        self.known: dict[tuple[_Place, float], float] = {}
        self.shift = (0.0, 0.0)

    def misfit(self, edge: float, blur: float, away: tuple[float, float] = (0.0, 0.0)) -> float:
        """Misfit at the present shift, or away from it."""
        right, forward = (round(a + b, 6) for a, b in zip(self.shift, away, strict=True))
        key = (round(edge, 6), right, forward), round(blur, 6)
        if key not in self.known:
            self.known[key] = sum(_misfit(one, y, *key, self.inner, self.waves) for one, y in self.pairs)
        return self.known[key]

    def move(self, edge: float, blur: float, step: float) -> None:
        """Improve the shift along each axis by a parabola."""
        for axis in (0, 1):
            values = [
                self.misfit(edge, blur, (n * step, 0) if axis == 0 else (0, n * step)) for n in (-1, 0, 1)
            ]
            gain = _vertex(values, 1.5) * step
            # Far from the least value the parabola may point beyond it.
            moves = [((n, 0.0) if axis == 0 else (0.0, n)) for n in (gain, -step, 0.0, step)]
            best = min(moves, key=lambda move: self.misfit(edge, blur, move))
            self.shift = self.shift[0] + best[0], self.shift[1] + best[1]

    def refine(self, edge: float, blur: float, step: tuple[float, float]) -> tuple[float, float]:
        """Best of the neighbours."""
        around = [
            (_within(edge + a * step[0], _EDGES), _within(blur + b * step[1], _BLURS))
            for a in (0, -1, 1)
            for b in (0, -1, 1)
        ]
        return min(around, key=lambda place: self.misfit(*place))


def _search(pairs: Sequence[tuple[_Slice, Array]], inner: int, waves: int) -> tuple[float, PointSpread]:
    """Look for the least misfit on a coarse grid, then on finer ones around it.

    The misfit comes back with what its free values cost (Bayesian information criterion).
    """
    search = _Search(pairs, inner, waves)
    table = np.array([[search.misfit(edge, blur) for blur in _BLURS] for edge in _EDGES])
    row, column = np.unravel_index(int(table.argmin()), table.shape)
    edge, blur = _EDGES[row], _BLURS[column]
    for step in _STEPS:
        for _ in range(_MOST_ROUNDS):
            before = search.misfit(edge, blur)
            search.move(edge, blur, step[2])
            edge, blur = search.refine(edge, blur, step[:2])
            if before - search.misfit(edge, blur) <= _LEAST_GAIN:
                break
    step = _STEPS[-1]
    turn = _vertex([search.misfit(_within(edge + n * step[0], _EDGES), blur) for n in (-1, 0, 1)])
    rise = _vertex([search.misfit(edge, blur + n * step[1]) for n in (-1, 0, 1)]) if blur else 0.0
    # Free values of a slice and image; in noise alone the misfit wanders by the root of twice their number.
    free = inner + (1 + len(pairs[0][0].section) - inner) * (1 + 2 * waves)
    sets = sum(y.shape[1] for _, y in pairs)
    cost = free * sum(y.shape[1] * math.log(len(y)) for _, y in pairs)
    best = search.misfit(edge, blur)
    told = table[:, -1].min() - best > 10.0 + 4.0 * math.sqrt(free * sets)
    within = _EDGES[0] < edge < _EDGES[-1] and math.hypot(*search.shift) <= _FARTHEST_MM
    if not (told and within and blur < _BLURS[-1]):
        return best + cost, PointSpread(reason=NOT_TOLD)
    spread = PointSpread(blur_mm=blur + rise * step[1], edge_mm=edge + turn * step[0], shift_mm=search.shift)
    return best + cost, spread


def _within(value: float, ends: Sequence[float]) -> float:
    return min(max(value, ends[0]), ends[-1])


def _vertex(values: Sequence[float], reach: float = 0.5) -> float:
    """Place of the least value of a parabola through three points one apart, from the middle one."""
    bend = values[0] - 2.0 * values[1] + values[2]
    if bend <= 0.0:
        return 0.0 if values[1] <= min(values[0], values[2]) else math.copysign(reach, values[0] - values[2])
    return min(max(0.5 * (values[0] - values[2]) / bend, -reach), reach)


def _misfit(one: _Slice, values: Array, place: _Place, blur_mm: float, inner: int, waves: int) -> float:
    """Misfit of a slice, with free values of every part in every image.

    The first ``inner`` parts are cord; what lies around it may differ from side to side.
    """
    parts = one.fractions(place, blur_mm, most_blur_mm=_BLURS[-1])[:, one.used].astype(float)
    outside = np.vstack([parts[inner:], 1.0 - parts.sum(axis=0)])
    turned = (outside[:, None] * one.around[None, : 1 + 2 * waves]).reshape(-1, outside.shape[1])
    known = np.isfinite(values).all(axis=1)
    design, y = np.vstack([parts[:inner], turned]).T[known], values[known]
    beta = np.linalg.lstsq(design, y, rcond=None)[0]
    left = ((y - design @ beta) ** 2).sum(axis=0) + _EXACT * (y**2).sum(axis=0)
    return float(len(y) * np.log(np.maximum(left, np.finfo(float).tiny)).sum())


def lay_blurred(
    sections: AtlasSections,
    mask: Volume,
    spread: PointSpread,
    atlas: AtlasImage,
    *,
    coordinate: Array | None = None,
) -> AtlasImage:
    """Lay an atlas as an image shows it: its edge where that of the image lies, blurred as the image is.

    Blur between cord and CSF is laid in; within the cord labels keep their proportions in a voxel.  The
    borders of grey matter are the atlas's, not the image's: to undo blur across them would be to undo it
    in the wrong place.

    Parameters
    ----------
    sections, mask, atlas, coordinate
        As in :func:`estimate_point_spread`.
    spread : PointSpread
        With a reason the sharp atlas is returned as it is.

    Returns
    -------
    AtlasImage
        Weights of the same labels in the voxels that the sharp atlas fills by half; what is missing from
        a whole voxel is what no label fills.
    """
    if spread.reason:
        return atlas
    place = spread.edge_mm, *spread.shift_mm
    around = set(sections.labels.tissues.get("CSF", ()))
    cord = [n for n in range(len(sections.labels.names)) if n not in around]
    weights = np.zeros_like(atlas.weights)
    for one in _slices(sections, mask, atlas, coordinate):
        sharp, found = (
            one.fractions(place, blur, most_blur_mm=spread.blur_mm) for blur in (0.0, spread.blur_mm)
        )
        filled = sharp[cord].sum(axis=0)
        scale = found[cord].sum(axis=0) / np.maximum(filled, _LEAST_FILLED)
        found[cord] = np.where(filled > _LEAST_FILLED, sharp[cord] * scale, found[cord])
        i, j = int(one.low[0]) - atlas.corner[0], int(one.low[1]) - atlas.corner[1]
        weights[:, i : i + found.shape[1], j : j + found.shape[2], one.number] = found * one.used
        one.fine.clear()
    return replace(atlas, weights=weights)
