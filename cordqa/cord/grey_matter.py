"""Grey matter within a given cord mask, where the image shows it.

First the image is asked whether grey and white matter differ at all: intensities well inside the
cord are regressed on the grey matter of a schematic atlas, which knows nothing of the image.  Only
then a small network, trained on simulated sections alone, marks grey matter; the mask holds the part
of each voxel.  An image, or a slice, without contrast gets no grey matter but a reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.atlas_shapes import analytical_sections
from cordqa.cord.axes import Oriented, check_same_grid, orient, orient_mask, slice_label
from cordqa.cord.grey_network import GreyNetwork, packaged_grey_network, shown_to_network
from cordqa.cord.template import lay_atlas
from cordqa.errors import InputError, LocateError
from cordqa.records import Volume

__all__ = [
    "LOW_GREY_CONFIDENCE",
    "GreyMatter",
    "GreyMatterNotSeenError",
    "GreyMatterSettings",
    "segment_grey_matter",
]

Array = NDArray[np.float32]
Floats = NDArray[np.float64]

#: Flag of slices whose grey matter is mostly what the network expects, not what the image shows.
LOW_GREY_CONFIDENCE = "grey matter is faint here"
#: Points per voxel and direction at which the network's answer is averaged.
_PARTS = 4
#: Voxels wider than this blur the horns: areas of simulated grey matter then read several percent large.
_WIDE_MM = 0.75
#: Distance from the edge of the cord within which CSF may show, in mm.
_RIM_MM = 0.8


class GreyMatterNotSeenError(LocateError):
    """Grey and white matter cannot be told apart in the image."""

    code: ClassVar[str] = "locate.grey-matter"


@dataclass(frozen=True, slots=True, kw_only=True)
class GreyMatterSettings:
    """Choices of the segmentation.

    Attributes
    ----------
    least_evidence : float
        Evidence of contrast (see :attr:`GreyMatter.evidence`), summed over all slices and divided by
        the root of their number, below which the image is refused.  On simulated images without
        contrast it stayed below 2.5.
    least_median_evidence : float
        Median over the slices below which the image is refused: shading that all slices share adds up
        over many slices, but is small in each.
    least_slice_evidence : float
        The same for a single slice of an image that is not refused.
    low_confidence : float
        Confidence (see :attr:`GreyMatter.confidence`) below which a slice is flagged.
    most_voxel_mm : float
        Voxels wider than this cannot show the horns.
    least_share, most_share : float
        Shares of the section outside this range are not grey matter.
    """

    least_evidence: float = 5.0
    least_median_evidence: float = 1.5
    least_slice_evidence: float = 2.0
    low_confidence: float = 0.75
    most_voxel_mm: float = 1.1
    least_share: float = 0.05
    most_share: float = 0.45


@dataclass(frozen=True, slots=True, kw_only=True)
class GreyMatter:
    """Segmented grey matter on the grid of the image; slices in the order in which they are stored.

    Attributes
    ----------
    mask : ndarray of float32, shape of the image
        Part of each voxel that is grey matter, 0..1.
    area_mm2 : ndarray, shape (n_slices,)
        Area in the plane of the slice, not corrected for angle; NaN where there is a reason.
    share : ndarray, shape (n_slices,)
        Area over that of the cord mask.
    confidence : ndarray, shape (n_slices,)
        Overlap (Dice) with the truth that the network expects of its own outline; on simulated images
        it was right within 0.05 on average.  0 where there is no grey matter.
    contrast_to_noise : ndarray, shape (n_slices,)
        Difference of grey and white matter over the standard deviation within them; above zero where
        grey matter is the brighter one.  It is taken inside the outline that was found, which makes it
        a little too large in faint images.
    evidence : ndarray, shape (n_slices,)
        Student's t of the schematic atlas's grey matter in the image, above zero where it is the
        brighter one.  It does not depend on the outline that was found.
    reasons : tuple of str
        Why a slice has no area; empty where it has one.
    flags : tuple of tuple of str
        What to know about each slice.
    slice_axis : int
        Axis of the stored image that runs along the body.
    notes : tuple of str
        What to know about the whole.
    method : str
        Name and version of the method, for provenance.
    """

    mask: Array
    area_mm2: Floats
    share: Floats
    confidence: Floats
    contrast_to_noise: Floats
    evidence: Floats
    reasons: tuple[str, ...]
    flags: tuple[tuple[str, ...], ...]
    slice_axis: int
    notes: tuple[str, ...] = ()
    method: str = ""


def segment_grey_matter(
    volume: Volume,
    cord_mask: Volume,
    *,
    settings: GreyMatterSettings | None = None,
    network: GreyNetwork | None = None,
) -> GreyMatter:
    """Segment grey matter inside a cord mask, on T2*-weighted images or any that show it.

    Parameters
    ----------
    volume : Volume
        Image with three axes and axial slices of at most about 1 mm in plane; grey matter may be
        brighter (T2*w, PSIR, MT) or darker than white matter.
    cord_mask : Volume
        Cord on the same grid, binary or soft; of several pieces in a slice the largest counts.
    settings : GreyMatterSettings, optional
    network : GreyNetwork, optional
        The packaged network by default.

    Raises
    ------
    InputError, EmptyInputError
        If image and mask are not on one grid, voxels are too large, or the mask cannot be a cord.
    GreyMatterNotSeenError
        If the image as a whole shows no difference between grey and white matter.
    """
    settings = settings or GreyMatterSettings()
    network = network or packaged_grey_network()
    laid_out, mask = _checked(volume, cord_mask, settings)
    data = np.where(np.isfinite(laid_out.data), laid_out.data, 0.0).astype(np.float64)
    evidence, reasons = _evidence(data, laid_out.data, mask)
    sign = _polarity(evidence, laid_out.source, settings)
    used = np.flatnonzero([not reason for reason in reasons])
    fractions, confidence = np.zeros(data.shape, dtype=np.float32), np.zeros(mask.n_slices)
    fractions[:, :, used], confidence[used] = _ask(network, sign * data[:, :, used], mask, used)
    for k in used:
        reasons[k] = _implausible(sign * evidence[k], fractions[:, :, k], mask.data[:, :, k], settings)
        if reasons[k]:
            fractions[:, :, k], confidence[k] = 0.0, 0.0
    found = _Found(fractions=fractions, confidence=confidence, evidence=evidence, reasons=reasons)
    return _result(found, data, mask, laid_out, settings, network.version)


def _checked(volume: Volume, cord_mask: Volume, settings: GreyMatterSettings) -> tuple[Oriented, Oriented]:
    """Lay image and mask out, or refuse what cannot show grey matter."""
    laid_out = orient(volume)
    if np.iscomplexobj(laid_out.data):
        raise InputError("grey matter is segmented in real images", where=laid_out.source, found="complex")
    check_same_grid(volume, cord_mask, what="image and cord mask")
    mask = orient_mask(cord_mask, pieces="largest")
    widest = max(laid_out.spacing_mm[:2])
    if widest > settings.most_voxel_mm:
        raise InputError(
            "voxels are too wide to show the horns of grey matter",
            where=laid_out.source,
            found=f"{widest:.3g} mm in the plane",
            expected=f"at most {settings.most_voxel_mm:g} mm",
            todo="use an image of higher resolution",
        )
    return laid_out, mask


def _evidence(data: Floats, stored: NDArray[np.generic], mask: Oriented) -> tuple[Floats, list[str]]:
    """Return Student's t of the atlas's grey matter per slice, and why a slice has none."""
    atlas, _ = lay_atlas(analytical_sections(), Volume(data=mask.data, affine=mask.affine), pieces="largest")
    grey = atlas.paint(atlas.labels.regions["GM"])
    values = np.full(mask.n_slices, np.nan)
    reasons = ["no cord"] * mask.n_slices
    for k in np.flatnonzero((mask.data > 0.5).any(axis=(0, 1))):
        inside = _well_inside(mask.data[:, :, k], mask.spacing_mm[:2])
        if np.count_nonzero(inside) < 20 or float(np.ptp(grey[:, :, k][inside])) < 0.2:
            reasons[k] = "the cord is too small or cut by the field of view"
        elif not np.isfinite(np.asarray(stored[:, :, k], dtype=float)[inside]).all():
            reasons[k] = "the image holds values that are not finite"
        else:
            values[k] = _student(data[:, :, k], grey[:, :, k], inside, mask.spacing_mm[:2])
            reasons[k] = "" if math.isfinite(values[k]) else "the image is constant inside the cord"
    return values, reasons


def _well_inside(plane: Floats, spacing_mm: tuple[float, float]) -> NDArray[np.bool_]:
    """Return the voxels of a slice of the cord that lie away from its edge and the image's."""
    from scipy.ndimage import distance_transform_edt

    padded = np.pad(plane > 0.5, 1)
    depth = distance_transform_edt(padded, sampling=spacing_mm)[1:-1, 1:-1]
    # The distance runs to the centre of the nearest voxel outside: half a voxel beyond the edge.
    return np.asarray(depth - 0.5 * min(spacing_mm) > _RIM_MM)


def _student(
    plane: Floats, grey: Floats, inside: NDArray[np.bool_], spacing_mm: tuple[float, float]
) -> float:
    """Return t of grey matter in a regression that allows for shading and for light from the rim."""
    rows, columns = np.nonzero(inside)
    x, y = (rows - rows.mean()) * spacing_mm[0], (columns - columns.mean()) * spacing_mm[1]
    level = x**2 / max(float(x.var()), 1e-9) + y**2 / max(float(y.var()), 1e-9)
    design = np.column_stack([np.ones(x.size), x, y, level, grey[inside]])
    values = plane[inside]
    solution, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
    residual = values - design @ solution
    spread = float(residual @ residual) / max(values.size - 5, 1)
    if rank < 5 or spread <= 1e-12 * float(values @ values) / values.size:
        return math.nan
    error = math.sqrt(spread * float(np.linalg.inv(design.T @ design)[4, 4]))
    return float(solution[4]) / error


def _polarity(evidence: Floats, where: str, settings: GreyMatterSettings) -> float:
    """Return 1 where grey matter is brighter, -1 where it is darker, or refuse the image."""
    known = evidence[np.isfinite(evidence)]
    if known.size == 0:
        raise GreyMatterNotSeenError(
            "no slice can be asked for grey matter", where=where, todo="check the cord mask and the image"
        )
    together = float(known.sum()) / math.sqrt(known.size)
    middle = float(np.median(known)) * math.copysign(1.0, together)
    if abs(together) < settings.least_evidence or middle < settings.least_median_evidence:
        raise GreyMatterNotSeenError(
            "grey and white matter cannot be told apart",
            where=where,
            found=f"evidence of contrast {abs(together):.1f} over {known.size} slices, median {middle:.1f}",
            expected=f"at least {settings.least_evidence:g}, median {settings.least_median_evidence:g}",
            todo="use an image made to show grey matter (T2*w, PSIR) with enough signal",
        )
    return math.copysign(1.0, together)


def _ask(
    network: GreyNetwork, data: Floats, mask: Oriented, slices: NDArray[np.intp]
) -> tuple[Array, Floats]:
    """Return the part of each voxel that is grey matter, shape (nx, ny, n), and the network's confidence."""
    spacing = mask.spacing_mm[:2]
    shape = data.shape[:2]
    shown, centres = [], []
    for n, k in enumerate(slices):
        plane = np.asarray(mask.data[:, :, k], dtype=np.float32)
        i, j = np.nonzero(plane > 0.5)
        centre = np.array([i.mean(), j.mean()])
        image = _patch(data[:, :, n], centre, spacing, network, order=3)
        inside = np.clip(_patch(plane, centre, spacing, network, order=1), 0.0, 1.0)
        shown.append(shown_to_network(image, inside))
        centres.append(centre)
    answers = network.fractions(np.stack(shown))
    out = np.zeros((*shape, len(slices)), dtype=np.float32)
    for n, (k, centre) in enumerate(zip(slices, centres, strict=True)):
        part = _back(answers[n], centre, spacing, shape, network.grid_mm)
        out[:, :, n] = np.minimum(part, mask.data[:, :, k])
    return out, np.array([_expected_dice(answer) for answer in answers])


def _expected_dice(answer: Array) -> float:
    """Return the Dice that fractions promise their own outline at one half."""
    outline = answer > 0.5
    total = float(answer.sum()) + float(np.count_nonzero(outline))
    return 2.0 * float(answer[outline].sum()) / total if total > 0.0 else 0.0


def _patch(
    plane: NDArray[np.floating],
    centre: Floats,
    spacing: tuple[float, float],
    network: GreyNetwork,
    order: int,
) -> Array:
    """Interpolate the surroundings of the cord on the network's grid."""
    from scipy.ndimage import gaussian_filter, map_coordinates

    line = (np.arange(network.size) - (network.size - 1) / 2) * network.grid_mm
    # Voxels much finer than the grid are averaged, not picked.
    blur = [0.4 * max(network.grid_mm / step - 1.0, 0.0) for step in spacing]
    fine = gaussian_filter(plane, blur) if max(blur) > 0 else plane
    where = np.meshgrid(*(line / step + c for step, c in zip(spacing, centre, strict=True)), indexing="ij")
    return np.asarray(map_coordinates(fine, where, order=order, mode="nearest"), dtype=np.float32)


def _back(
    answer: Array, centre: Floats, spacing: tuple[float, float], shape: tuple[int, int], grid_mm: float
) -> Array:
    """Average an answer of the network over the voxels of the image."""
    matrices = []
    for count, step, c in zip(shape, spacing, centre, strict=True):
        fine = (np.arange(_PARTS) + 0.5) / _PARTS - 0.5
        place = ((np.arange(count)[:, None] + fine).ravel() - c) * step / grid_mm + (answer.shape[0] - 1) / 2
        weights = np.maximum(1.0 - np.abs(place[:, None] - np.arange(answer.shape[0])), 0.0)
        matrices.append(weights.reshape(count, _PARTS, -1).mean(axis=1))
    return np.asarray(matrices[0] @ answer @ matrices[1].T, dtype=np.float32)


def _implausible(evidence: float, fraction: Array, cord: Floats, settings: GreyMatterSettings) -> str:
    """Say why the grey matter of a slice cannot be believed; empty if it can."""
    if evidence < settings.least_slice_evidence:
        return f"grey and white matter cannot be told apart here (evidence {evidence:.1f})"
    share = float(fraction.sum()) / max(float(cord.sum()), 1e-9)
    if not settings.least_share <= share <= settings.most_share:
        return f"grey matter would be {share:.0%} of the section"
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What was found, slices counted from inferior."""

    fractions: Array
    confidence: Floats
    evidence: Floats
    reasons: list[str]


def _result(
    found: _Found,
    data: Floats,
    mask: Oriented,
    laid_out: Oriented,
    settings: GreyMatterSettings,
    version: str,
) -> GreyMatter:
    """Measure every slice and put everything back into the stored order."""
    fractions, reasons = found.fractions, found.reasons
    pixel = laid_out.spacing_mm[0] * laid_out.spacing_mm[1]
    known = np.array([not reason for reason in reasons])
    area = np.where(known, fractions.sum(axis=(0, 1), dtype=float) * pixel, np.nan)
    cord = np.maximum(mask.data.sum(axis=(0, 1)) * pixel, 1e-9)
    ratio = np.full(known.size, np.nan)
    for k in np.flatnonzero(known):
        ratio[k] = _contrast_to_noise(data[:, :, k], fractions[:, :, k], mask, int(k))
    low = known & (found.confidence < settings.low_confidence)
    flags = [(LOW_GREY_CONFIDENCE,) if faint else () for faint in low]
    stored = np.argsort([laid_out.array_index(k) for k in range(known.size)])
    return GreyMatter(
        mask=np.ascontiguousarray(laid_out.restore(fractions)),
        area_mm2=area[stored],
        share=(area / cord)[stored],
        confidence=found.confidence[stored],
        contrast_to_noise=ratio[stored],
        evidence=found.evidence[stored],
        reasons=tuple(reasons[k] for k in stored),
        flags=tuple(flags[k] for k in stored),
        slice_axis=laid_out.order[2],
        notes=(*mask.notes, *_notes(reasons, max(laid_out.spacing_mm[:2]))),
        method=f"grey-matter network {version} inside the given cord mask",
    )


def _contrast_to_noise(plane: Floats, fraction: Array, mask: Oriented, k: int) -> float:
    """Return the difference of grey and white matter over their pooled standard deviation."""
    deep = _well_inside(mask.data[:, :, k], mask.spacing_mm[:2])
    grey, white = plane[deep & (fraction > 0.8)], plane[deep & (fraction < 0.1)]
    if min(grey.size, white.size) < 5:
        return math.nan
    spread = math.sqrt((grey.size * grey.var() + white.size * white.var()) / (grey.size + white.size))
    return float(grey.mean() - white.mean()) / spread if spread > 0 else math.nan


def _notes(reasons: list[str], widest_mm: float) -> list[str]:
    """Say which slices with cord hold no grey matter, and what the size of the voxels does."""
    notes = []
    bare = [k for k, reason in enumerate(reasons) if reason and reason != "no cord"]
    if bare:
        example = f"{slice_label(bare[0])}: {reasons[bare[0]]}"
        notes.append(f"{len(bare)} slices with cord hold no grey matter; {example}")
    if widest_mm > _WIDE_MM:
        notes.append(f"in voxels of {widest_mm:.2g} mm areas of grey matter read too large")
    return notes
