"""Three masks that are kept apart, and how they are made.

The *fit* mask holds the voxels whose phase is used; the *valid* mask those that have a
susceptibility; the *registration* mask is the tissue as it was outlined.  Only the last belongs to
registration: an eroded or punctured outline moves surfaces and levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import EmptyInputError, InputError
from cordqa.models.susceptibility.quality import NOISE_QUALITY, split_histogram

__all__ = ["FitMask", "Masks", "make_fit_mask", "quality_mask", "widen_cord_mask"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Voxels of lower quality are not tissue; the split of the histogram may raise it up to the second.
_QUALITY_LIMITS = (0.3, 0.6)
#: A histogram has two classes if more of its variance than this lies between them.
_TWO_CLASSES = 0.8
#: Tissue is this many times the noise of air.
_ABOVE_NOISE = 5.0
#: Air is searched for where this share of the voxels at least is noise.
_SOME_AIR = 0.01
#: Rayleigh distribution: first quartile over standard deviation of one channel.  The quartile, because
#: flowing blood has a bad phase as well and is bright.
_RAYLEIGH_QUARTILE = 0.7585
#: How far the walls of the canal lie from the cord, mm.
_REACH_MM = 6.0
#: Bone has less than this share of the magnitude of the tissue around, or of the cord; beyond the canal
#: the second share is wanted, because marrow and fat have a signal and no place in a field of water.
_BONE, _CANAL = 0.35, 0.7
#: Distance over which the tissue around counts (standard deviation), mm.
_AROUND_MM = 20.0
#: The cord's own surroundings stay in the mask whatever their quality, mm.
_CLOSE_MM = 1.0
#: Pieces of a mask smaller than this share of the largest are left out.
_PIECE = 0.01
#: A mask of whose voxels fewer have a usable phase than this share lies on noise.
_SOME_PHASE = 0.05
#: Least slices in any direction.
_FEWEST_SLICES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Masks:
    """The three masks, shape (x, y, z) each.

    Attributes
    ----------
    fit : ndarray of bool
        Voxels whose phase was fitted.
    valid : ndarray of bool
        Voxels that have a susceptibility: part of ``fit``.
    registration : ndarray of bool
        The outline before any voxel was left out: contains ``fit``.
    """

    fit: Mask
    valid: Mask
    registration: Mask


@dataclass(frozen=True, slots=True)
class FitMask:
    """Voxels that are fitted, why others are not, and what the reader should know."""

    mask: Mask
    reasons: tuple[tuple[Mask, str], ...]
    notices: tuple[str, ...]


def quality_mask(
    magnitude: NDArray[np.floating], quality: Array, voxel_size_mm: Sequence[float] | Array
) -> Mask:
    """Outline tissue by the quality of the phase and by magnitude.

    A voxel is tissue if its phase agrees with its neighbours and its magnitude stands above the noise
    (where there is air to show it) and above bone, relative to the bright tissue around: coil
    sensitivities do not count.  Holes are filled and small pieces are left out.

    Parameters
    ----------
    magnitude : ndarray, shape (x, y, z)
        Of the first echo.
    quality : ndarray, shape (x, y, z)
        Of :func:`~cordqa.models.susceptibility.quality.voxel_quality`.
    voxel_size_mm : sequence of float

    Raises
    ------
    EmptyInputError
        If no voxel has a believable phase.
    """
    from scipy.ndimage import binary_fill_holes

    bright, limit = _bright(magnitude, quality), _quality_limit(quality[magnitude > 0])
    bright &= magnitude > _BONE * _around(magnitude, bright & (quality > limit), voxel_size_mm)
    tissue = bright & (quality > limit)
    opened = _opened(tissue)
    outline = _large_pieces(opened if opened.any() else tissue)
    if not outline.any():
        raise EmptyInputError(
            "no voxel has a phase that agrees with its neighbours",
            todo="give --mask, or check that phase and magnitude belong together",
        )
    # At the rim half of the neighbours are air, and quality is the mean over neighbours.
    outline = _touching(outline, bright & (quality > NOISE_QUALITY))
    filled: Mask = binary_fill_holes(outline)
    return filled


def _quality_limit(quality: Array) -> float:
    """Split tissue from noise where the histogram falls into two; otherwise take the lower limit."""
    split = split_histogram(quality)
    two = split.separation > _TWO_CLASSES
    return float(np.clip(split.threshold, *_QUALITY_LIMITS)) if two else _QUALITY_LIMITS[0]


def _bright(magnitude: NDArray[np.floating], quality: Array) -> Mask:
    """Find voxels above the noise, where enough voxels are noise to tell."""
    seen: Mask = np.isfinite(magnitude) & (magnitude > 0)
    air = seen & (quality < NOISE_QUALITY / 2)
    if air.sum() > _SOME_AIR * air.size:
        noise = float(np.percentile(magnitude[air], 25)) / _RAYLEIGH_QUARTILE
        seen &= magnitude > _ABOVE_NOISE * noise
    return seen


def _around(
    magnitude: NDArray[np.floating], tissue: Mask, voxel_size_mm: Sequence[float] | Array
) -> NDArray[np.float32]:
    """Magnitude of the bright tissue around each voxel: a mean weighted by the magnitude itself."""
    from scipy.ndimage import gaussian_filter

    scale = float(np.median(magnitude[tissue])) if tissue.any() else 1.0
    inside = np.where(tissue, magnitude / scale, 0).astype(np.float32)
    sigma = _AROUND_MM / np.asarray(voxel_size_mm, dtype=float)
    square, plain = gaussian_filter(inside**2, sigma), gaussian_filter(inside, sigma)
    # Far from all tissue nothing says what bright is: there the threshold is out of reach.
    near = plain > 1e-4
    mean = np.divide(square, plain, out=np.full_like(square, np.inf), where=near)
    return np.asarray(mean * np.float32(scale), dtype=np.float32)


def _opened(tissue: Mask) -> Mask:
    """Cut thin bridges; the edge of the image is no edge of the tissue."""
    from scipy.ndimage import binary_opening

    opened: Mask = binary_opening(np.pad(tissue, 1, mode="edge"))[1:-1, 1:-1, 1:-1]
    return opened


def _touching(outline: Mask, tissue: Mask) -> Mask:
    from scipy.ndimage import binary_dilation

    grown: Mask = outline | (binary_dilation(outline) & tissue)
    return grown


def _large_pieces(mask: Mask) -> Mask:
    from scipy.ndimage import label

    pieces, n = label(mask)
    if n <= 1:
        return mask
    size = np.bincount(pieces.ravel())
    size[0] = 0
    large: Mask = (size >= _PIECE * size.max())[pieces] & (pieces > 0)
    return large


def widen_cord_mask(
    mask: Mask,
    magnitude: NDArray[np.floating],
    quality: Array,
    voxel_size_mm: Sequence[float] | Array,
    *,
    reach_mm: float = _REACH_MM,
) -> Mask:
    """Widen the outline of the cord to the canal and the discs around it.

    Removal of the background needs more voxels than the cord has.  The mask grows through voxels
    that are connected to the cord, have signal and a believable phase, and are no further than
    ``reach_mm`` from it.

    Parameters
    ----------
    mask : ndarray of bool, shape (x, y, z)
        The cord.
    magnitude : ndarray, shape (x, y, z)
        Of the first echo.
    quality : ndarray, shape (x, y, z)
        Of :func:`~cordqa.models.susceptibility.quality.voxel_quality`.
    voxel_size_mm : sequence of float
    reach_mm : float

    Raises
    ------
    EmptyInputError
        If the mask is empty.
    """
    from scipy.ndimage import binary_fill_holes, binary_propagation, distance_transform_edt

    if not mask.any():
        raise EmptyInputError("the mask of the cord is empty")
    away = distance_transform_edt(~mask, sampling=np.asarray(voxel_size_mm, dtype=float))
    bright = magnitude > _CANAL * float(np.nanmedian(magnitude[mask]))
    usable = quality_mask(magnitude, quality, voxel_size_mm) & (away <= reach_mm) & bright
    # Only slices that hold the cord: beyond its ends nothing says where the canal is.
    axis, slab = _slab(mask, np.asarray(voxel_size_mm, dtype=float))
    seen = np.isfinite(magnitude) & (magnitude > 0) & slab
    close = seen & (away <= _CLOSE_MM)
    grown = binary_propagation(mask | close, mask=(usable & slab) | mask | close)
    filled = np.stack([binary_fill_holes(one) for one in np.moveaxis(grown, axis, 0)])
    wide: Mask = (np.moveaxis(filled, 0, axis) & seen) | mask
    return wide


def _slab(mask: Mask, voxel_size: Array) -> tuple[int, Mask]:
    """Axis along which the cord runs, and the slab between its ends."""
    used = [np.flatnonzero(mask.any(axis=tuple(i for i in range(3) if i != a))) for a in range(3)]
    axis = int(np.argmax([(u[-1] - u[0] + 1) * size for u, size in zip(used, voxel_size, strict=True)]))
    slab = np.zeros(mask.shape, dtype=bool)
    np.moveaxis(slab, axis, 0)[used[axis][0] : used[axis][-1] + 1] = True
    return axis, slab


def make_fit_mask(outline: Mask, missing: dict[str, Mask]) -> FitMask:
    """Take voxels without a phase and detached pieces out of an outline.

    Parameters
    ----------
    outline : ndarray of bool, shape (x, y, z)
    missing : dict of str to ndarray of bool
        Of :func:`~cordqa.models.susceptibility.echo_input.find_missing`.

    Raises
    ------
    InputError
        If fewer than three slices remain in some direction: a dipole field is three-dimensional.
    EmptyInputError
        If nothing remains, or next to nothing.
    """
    if not outline.any():
        raise EmptyInputError("the mask is empty")
    inside = outline.copy()
    for where in missing.values():
        inside &= ~where
    if inside.sum() < _SOME_PHASE * outline.sum():
        commonest = max(missing, key=lambda text: int((missing[text] & outline).sum()))
        share = 100 * inside.sum() / outline.sum()
        what = f"only {share:.1g} % of the voxels" if inside.any() else "no voxel"
        raise EmptyInputError(
            f"{what} of the mask ha{'ve' if inside.any() else 's'} a usable phase", found=commonest
        )
    whole = _large_pieces(inside)
    reasons = [(where & outline, text) for text, where in missing.items()]
    reasons.append((inside & ~whole, "detached from the rest: its multiple of 2 pi is not known"))
    _check_extent(whole)
    return FitMask(whole, tuple(reasons), _mask_notices(outline, whole))


def _check_extent(mask: Mask) -> None:
    spans = [int(mask.any(axis=tuple(i for i in range(3) if i != a)).sum()) for a in range(3)]
    if min(spans) >= _FEWEST_SLICES:
        return
    what = "one slice" if min(spans) == 1 else f"{min(spans)} slices"
    raise InputError(
        "susceptibility cannot be computed from so few slices: a dipole field is three-dimensional",
        found=what,
        expected=f"at least {_FEWEST_SLICES}, better 16, in every direction of the mask",
        todo="give a 3D acquisition",
    )


def _mask_notices(outline: Mask, inside: Mask) -> tuple[str, ...]:
    from scipy.ndimage import binary_fill_holes, label

    said = []
    holes = int((binary_fill_holes(outline) & ~outline).sum())
    if holes:
        said.append(
            f"the mask has enclosed holes ({holes} voxels): they have no data, but no background source "
            "is placed in them"
        )
    pieces = int(label(inside)[1])
    if pieces > 1:
        said.append(
            f"the mask has {pieces} pieces that do not touch; the phase of each is right up to a multiple "
            "of 2 pi of its own, chosen closest to zero"
        )
    return tuple(said)
