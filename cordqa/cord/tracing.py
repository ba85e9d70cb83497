"""Which slices hold the cord, and its outline on each, from the probability of the network.

On every slice the likely piece of cord is outlined; the slices that hold cord are told from those
beyond its ends; doubtful slices are judged again in the light of their neighbours; short gaps are
bridged.  Nothing is dropped without a flag.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.axes import Oriented
from cordqa.cord.boundary import N_DIRECTIONS, Outlines, network_radii, outline_mask, smooth_radii
from cordqa.errors import LocateError

__all__ = [
    "APART",
    "BRAINSTEM",
    "CAUDA_EQUINA",
    "DISAGREES",
    "INSETS_MM",
    "INTERPOLATED",
    "LOW_CONFIDENCE",
    "NO_CORD",
    "SMOOTHED",
    "SUPPORTED",
    "WEAK_EDGE",
    "CordNotFoundError",
    "SegmentationSettings",
    "Traced",
    "find_extent",
    "outline_slices",
    "support_doubtful",
]

Array = NDArray[np.float32]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: Flags of slices that are not segmented.
NO_CORD = "no cord found"
BRAINSTEM = "above the cord: brainstem"
CAUDA_EQUINA = "below the cord: cauda equina or conus"
APART = "something like a cord, apart from the rest"
#: Flags of slices that are segmented and deserve a look.
LOW_CONFIDENCE = "low confidence"
WEAK_EDGE = "weak edge: outline of the network kept"
SMOOTHED = "noisy: found after smoothing"
SUPPORTED = "faint: outlined with the help of neighbours"
INTERPOLATED = "outline interpolated between neighbours"
DISAGREES = "classical detector disagrees"

#: Where the boundary of the mask lies, in mm inside the edge in the image.  ``edge``: the edge itself,
#: which gives areas of simulated cords without bias.  ``customary``: like masks made by hand or by widely
#: used software, which leave out voxels that hold some CSF; their areas are about a tenth smaller.
INSETS_MM: Mapping[str, float] = MappingProxyType({"customary": 0.25, "edge": 0.0})

#: A cord is not wider, and is bridged over no longer gap.
_MOST_WIDTH_MM, _GAP_MM = 19.0, 12.0
#: An outline that comes closer to its own centre is not one.
_LEAST_RADIUS_MM = 0.5
#: Log-odds that a certain neighbour adds, and the mean probability there must be without it.
_SUPPORT, _LEAST_TRACE = 2.0, 0.35


class CordNotFoundError(LocateError):
    """No spinal cord was found in the field of view."""

    code: ClassVar[str] = "locate.cord"


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationSettings:
    """Choices of the segmentation; the defaults are meant for every contrast.

    Attributes
    ----------
    refine : bool
        Move the outline to the edge in the image.
    inset_mm : float
        How far inside the edge at half height the outline is drawn; see ``INSETS_MM`` for the two
        conventions.  The default, the customary one, was set so that the area of one real
        T2*-weighted image equals that of its mask.
    cross_check : bool
        Run the classical detector too, and flag slices where it disagrees.
    least_confidence : float
        Mean probability inside the outline below which a slice counts as without cord.
    low_confidence : float
        Below this a segmented slice is flagged.
    least_area_mm2, most_area_mm2 : float
        Areas outside this range are not a cord.
    patch : int
        Side, in pixels of the network's grid, of the neighbourhood that is looked at closely.
    look_every_mm : float
        Distance between the slices on which the cord is searched for in the whole field of view.
    """

    refine: bool = True
    inset_mm: float = INSETS_MM["customary"]
    cross_check: bool = True
    least_confidence: float = 0.65
    low_confidence: float = 0.8
    least_area_mm2: float = 18.0
    most_area_mm2: float = 135.0
    patch: int = 64
    look_every_mm: float = 4.0


@dataclass(slots=True)
class Traced:
    """What is known per slice while the cord is being followed, from inferior to superior."""

    centres_mm: Floats
    radii_mm: Floats
    area_mm2: Floats
    width_mm: Floats
    confidence: Floats
    present: Bools
    flags: list[list[str]] = field(default_factory=list)


def outline_slices(
    probability: Array, path: Floats, *, grid_mm: float, threshold: float, settings: SegmentationSettings
) -> Traced:
    """Outline the piece of likely cord nearest the path on every slice.

    Parameters
    ----------
    probability : ndarray, shape (n_slices, nx, ny)
    path : ndarray, shape (n_slices, 2)
        Likely centre on every slice, in pixels.
    grid_mm : float
        Pixel size.
    threshold : float
        Probability at the outline.
    settings : SegmentationSettings
    """
    n = probability.shape[0]
    traced = Traced(
        centres_mm=(path - (np.array(probability.shape[1:]) - 1) / 2) * grid_mm,
        radii_mm=np.zeros((n, N_DIRECTIONS)),
        area_mm2=np.zeros(n),
        width_mm=np.zeros(n),
        confidence=np.zeros(n),
        present=np.zeros(n, dtype=bool),
        flags=[[] for _ in range(n)],
    )
    for k in range(n):
        _outline_one(traced, k, probability[k], path[k], grid_mm, threshold)
    traced.present = (
        (traced.area_mm2 >= settings.least_area_mm2)
        & (traced.confidence >= settings.least_confidence)
        & (traced.radii_mm.min(axis=1) > _LEAST_RADIUS_MM)
    )
    return traced


def _outline_one(
    traced: Traced, k: int, probability: Array, near: Floats, grid_mm: float, threshold: float
) -> Bools:
    """Outline the piece nearest a point on one slice; return the piece."""
    inside = _piece(probability, near, threshold)
    if not inside.any():
        return inside
    where = np.argwhere(inside)
    weight = probability[inside]
    centre = (where * weight[:, None]).sum(axis=0) / weight.sum()
    traced.centres_mm[k] = (centre - (np.array(probability.shape) - 1) / 2) * grid_mm
    traced.area_mm2[k] = inside.sum() * grid_mm**2
    traced.width_mm[k] = (np.ptp(where[:, 0]) + 1) * grid_mm
    traced.confidence[k] = float(weight.mean())
    alone = _alone(probability, inside, threshold)
    radii = network_radii(alone[None], traced.centres_mm[k : k + 1], grid_mm=grid_mm, threshold=threshold)
    traced.radii_mm[k] = smooth_radii(radii, around=1.0)[0]
    return inside


def support_doubtful(
    traced: Traced,
    probability: Array,
    slice_mm: float,
    *,
    grid_mm: float,
    threshold: float,
    settings: SegmentationSettings,
) -> None:
    """Judge doubtful slices again, in the light of certain neighbours.

    The network sees one slice at a time and knows nothing of the next.  Where a neighbour within
    12 mm is certain, the odds of cord are raised inside the outline that it predicts and lowered
    outside.  The confidence stays that of the network alone, and the slice is flagged.
    """
    sure = traced.present & (traced.confidence >= settings.low_confidence)
    sure &= (traced.area_mm2 <= settings.most_area_mm2) & (traced.width_mm <= _MOST_WIDTH_MM)
    reach = max(int(_GAP_MM / slice_mm), 1)
    known = np.flatnonzero(sure)
    if known.size == 0:
        return
    order = sorted(np.flatnonzero(~sure), key=lambda k: int(np.abs(known - k).min()))
    for k in order:
        near = np.flatnonzero(sure)
        near = near[np.abs(near - k) <= reach]
        if near.size and _support_one(traced, int(k), near, probability[k], slice_mm, grid_mm, threshold):
            sure[k] = traced.present[k] = True
            traced.flags[k].append(SUPPORTED)


def _support_one(
    traced: Traced,
    k: int,
    near: NDArray[np.int64],
    probability: Array,
    slice_mm: float,
    grid_mm: float,
    threshold: float,
) -> bool:
    """Outline one slice with its neighbours' help; tell whether that made sense."""
    centre = np.array([np.interp(k, near, traced.centres_mm[near, axis]) for axis in range(2)])
    radii = np.array([np.interp(k, near, traced.radii_mm[near, d]) for d in range(N_DIRECTIONS)])
    expected = Outlines(centres_mm=centre[None], radii_mm=radii[None])
    part = outline_mask(expected, probability.shape, (grid_mm, grid_mm), parts=3)[0]
    area = float(part.sum()) * grid_mm**2
    if area <= 0.0 or float((probability * part).sum()) / float(part.sum()) < _LEAST_TRACE:
        return False
    odds = np.clip(probability, 1e-4, 1.0 - 1e-4)
    logit = np.log(odds / (1.0 - odds)) + _SUPPORT * (2.0 * part - 1.0)
    raised = np.asarray(1.0 / (1.0 + np.exp(-logit)), dtype=np.float32)
    before = (
        traced.centres_mm[k].copy(),
        traced.radii_mm[k].copy(),
        *(float(v[k]) for v in (traced.area_mm2, traced.width_mm, traced.confidence)),
    )
    pixels = centre / grid_mm + (np.array(probability.shape) - 1) / 2
    inside = _outline_one(traced, k, raised, pixels, grid_mm, threshold)
    away = float(np.hypot(*(traced.centres_mm[k] - centre)))
    alike = inside.any() and 0.6 < traced.area_mm2[k] / area < 1.5 and away < 2.0 + 0.25 * slice_mm
    if alike and traced.radii_mm[k].min() > _LEAST_RADIUS_MM:
        traced.confidence[k] = float(probability[inside].mean())
        return True
    traced.centres_mm[k], traced.radii_mm[k] = before[0], before[1]
    traced.area_mm2[k], traced.width_mm[k], traced.confidence[k] = before[2:]
    return False


def _piece(probability: Array, near: Floats, threshold: float) -> Bools:
    """Return the connected piece above the threshold with most probability near a point, filled."""
    from scipy.ndimage import binary_fill_holes, label

    pieces, count = label(probability >= threshold)
    if count == 0:
        return np.zeros(probability.shape, dtype=bool)
    i, j = np.indices(probability.shape)
    closeness = np.exp(-0.5 * ((i - near[0]) ** 2 + (j - near[1]) ** 2) / 10.0**2)
    sums = np.bincount(pieces.ravel(), weights=(probability * closeness).ravel())
    best = 1 + int(np.argmax(sums[1:]))
    return np.asarray(binary_fill_holes(pieces == best), dtype=bool)


def _alone(probability: Array, inside: Bools, threshold: float) -> Array:
    """Return the probability with other pieces removed and holes filled."""
    from scipy.ndimage import binary_dilation

    kept = np.where(binary_dilation(inside, iterations=2), probability, 0.0)
    return np.asarray(np.where(inside, np.maximum(kept, threshold + 1e-3), np.minimum(kept, threshold)))


def find_extent(found: Traced, laid_out: Oriented, settings: SegmentationSettings) -> list[str]:
    """Find the slices that hold the cord; flag what lies beyond; bridge short gaps."""
    slice_mm = laid_out.spacing_mm[2]
    too_large = (found.area_mm2 > settings.most_area_mm2) | (found.width_mm > _MOST_WIDTH_MM)
    usable = found.present & ~too_large
    runs = _runs(usable, most_gap=max(int(_GAP_MM / slice_mm), 1))
    if not runs:
        raise CordNotFoundError(
            "no spinal cord was found",
            where=laid_out.source,
            found=f"at best a confidence of {found.confidence.max(initial=0.0):.2f}",
            expected=f"{settings.least_confidence:.2f} on a piece of {settings.least_area_mm2:.0f} to "
            f"{settings.most_area_mm2:.0f} mm2",
            todo="check the field of view and the orientation, or give a mask",
        )
    # A long run of slivers must not win over a shorter one of whole cords.
    weight = usable * found.confidence * np.minimum(found.area_mm2, 60.0)
    main = max(runs, key=lambda run: float(weight[run[0] : run[1] + 1].sum()))
    inside = np.zeros(usable.size, dtype=bool)
    first, last = _trim(found, usable, *main, slice_mm)
    inside[first : last + 1] = True
    for run in runs:
        if run != main and _belongs(found, usable, run, (first, last), slice_mm):
            inside[run[0] : run[1] + 1] = True
    _bridge(found, usable, inside)
    _flag_outside(found, too_large, inside, main)
    found.present = inside
    for index in np.flatnonzero(inside & (found.confidence < settings.low_confidence)):
        found.flags[index].append(LOW_CONFIDENCE)
    left = int((~inside).sum())
    return [f"{left} of {inside.size} slices are not segmented; their flags say why"] if left else []


def _runs(usable: Bools, *, most_gap: int) -> list[tuple[int, int]]:
    """Return first and last slice of every run, short gaps bridged."""
    where = np.flatnonzero(usable)
    if where.size == 0:
        return []
    breaks = np.flatnonzero(np.diff(where) > most_gap + 1)
    return [(int(part[0]), int(part[-1])) for part in np.split(where, breaks + 1)]


def _belongs(
    found: Traced, usable: Bools, run: tuple[int, int], main: tuple[int, int], slice_mm: float
) -> bool:
    """Tell whether a run apart from the main one is cord beyond a stretch that shows nothing.

    It is if it lies within 60 mm, is not a single thin slice, has the area of the main run and
    is as certain.
    """
    own = np.arange(run[0], run[1] + 1)[usable[run[0] : run[1] + 1]]
    typical = float(np.median(found.area_mm2[main[0] : main[1] + 1]))
    gap = max(run[0] - main[1], main[0] - run[1]) * slice_mm
    alike = 0.6 < float(np.median(found.area_mm2[own])) / max(typical, 1e-6) < 1.5
    return bool(gap <= 60.0 and own.size * slice_mm >= 8.0 and alike and found.confidence[own].mean() >= 0.8)


def _flag_outside(found: Traced, too_large: Bools, inside: Bools, main: tuple[int, int]) -> None:
    """Say of every slice that is not segmented why."""
    typical = float(np.median(found.area_mm2[inside]))
    wide = too_large | (found.area_mm2 > 1.3 * typical)
    for k in np.flatnonzero(~inside):
        above, below = not inside[k:].any(), not inside[:k].any()
        if not (too_large[k] or found.present[k]):
            flag = NO_CORD
        elif above and wide[k]:
            flag = BRAINSTEM
        elif below and (wide[k] or k >= main[0]):
            flag = CAUDA_EQUINA
        else:
            flag = APART
        found.flags[k].append(flag)


def _trim(found: Traced, usable: Bools, first: int, last: int, slice_mm: float) -> tuple[int, int]:
    """Cut ends where area or place jump away from the rest of the run.

    Only the outer 30 mm of a run of some length can be cut, and only outwards of a jump: a cord
    changes its area by less than a third, and moves by less than 6 mm, from slice to slice.
    """
    inner = [k for k in range(first, last + 1) if usable[k]]
    if len(inner) < 4:
        return first, last
    typical = float(np.median(found.area_mm2[inner]))
    reach = max(int(30.0 / slice_mm), 1)
    limit = 6.0 + 0.6 * slice_mm

    def jumps(here: int, there: int) -> bool:
        ratio = found.area_mm2[there] / max(found.area_mm2[here], 1e-6)
        away = float(np.hypot(*(found.centres_mm[there] - found.centres_mm[here])))
        odd = not 0.5 < found.area_mm2[there] / typical < 1.6
        return (odd and not 1 / 1.5 < ratio < 1.5) or away > limit

    half = len(inner) // 2
    for low, high in zip(inner[half::-1][1:], inner[half::-1][:-1], strict=True):
        if low - first < reach and jumps(high, low):
            first = high
            break
    for low, high in zip(inner[half:-1], inner[half + 1 :], strict=True):
        if last - high < reach and jumps(low, high):
            last = low
            break
    return first, last


def _bridge(found: Traced, usable: Bools, inside: Bools) -> None:
    """Interpolate outlines on slices inside the run that have none of their own."""
    good = np.flatnonzero(usable & inside)
    for k in np.flatnonzero(inside & ~usable):
        found.flags[k].append(INTERPOLATED)
        for values in (found.centres_mm, found.radii_mm):
            values[k] = [np.interp(k, good, values[good, c]) for c in range(values.shape[1])]
