"""Synthetic images as DICOM files, one series per contrast."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from cordqa.io.dicom_derived import LARGEST_STORED, DerivedSeries, derived_slice, digest_of
from cordqa.models.synthetic.images import Contrast

__all__ = ["coarse_notices", "dicom_files"]

_FIRST_SERIES = 9001
#: A viewer opens an image with this share of its values within the window.
_WINDOW_PERCENT = (0.5, 99.5)
#: A stored unit that is more than this share of what values span cannot show them.
_COARSE = 1 / 250


def dicom_files(
    images: Sequence[tuple[Contrast, NDArray[np.float32]]],
    affine: NDArray[np.float64],
    identity: str,
    *,
    label: str,
) -> Mapping[str, Callable[[str], bytes]]:
    """Name the files of all slices of all contrasts, each with what makes its content.

    Parameters
    ----------
    images : sequence of (Contrast, ndarray)
        Volumes (i, j, k); NaN has no value.
    affine : ndarray, shape (4, 4)
    identity : str
        Hex digest of the maps.
    label : str
        Word that says that the images were computed.
    """
    files: dict[str, Callable[[str], bytes]] = {}
    for n, (contrast, image) in enumerate(images):
        series = DerivedSeries(
            label=label,
            name=contrast.name,
            description=f"{label} image computed from maps of T1, T2 and proton density, not acquired: "
            f"{contrast.sentence}",
            affine=affine,
            n_slices=image.shape[2],
            largest=float(np.nanmax(np.abs(image), initial=0.0)) if np.isfinite(image).any() else 0.0,
            identity=identity,
            content=digest_of(image, affine),
            window=_window(image),
            series_number=_FIRST_SERIES + n,
            times_ms=_times(contrast),
        )
        for k in range(image.shape[2]):
            files[f"dicom/{contrast.name}_{k + 1:04d}.dcm"] = partial(_make, image[:, :, k], k, series)
    return files


def _window(image: NDArray[np.float32]) -> tuple[float, float] | None:
    """Ends of the values that a viewer shows first; None where there is no contrast."""
    known = image[np.isfinite(image)]
    if not known.size:
        return None
    low, high = (float(end) for end in np.percentile(known, _WINDOW_PERCENT))
    return (low, high) if high > low else None


def coarse_notices(images: Sequence[tuple[Contrast, NDArray[np.float32]]]) -> tuple[str, ...]:
    """Say where a few extreme voxels leave too few of the 16 bits to the others."""
    names = []
    for contrast, image in images:
        ends = _window(image)
        if ends is None:
            continue
        unit = float(np.nanmax(np.abs(image))) / LARGEST_STORED
        if unit > _COARSE * (ends[1] - ends[0]):
            names.append(contrast.name)
    if not names:
        return ()
    return (
        f"DICOM of {', '.join(names)}: a few extreme voxels leave the others fewer than {1 / _COARSE:.0f} "
        "steps; leave them out with --mask, or use the NIfTI",
    )


def _make(plane: NDArray[np.float32], index: int, series: DerivedSeries, prefix: str) -> bytes:
    return derived_slice(plane, index, series, prefix.rstrip("_"))


def _times(contrast: Contrast) -> dict[str, float]:
    times = {
        "RepetitionTime": 1000 * contrast.timing.repetition_time_s,
        "EchoTime": 1000 * contrast.timing.echo_time_s,
    }
    # Of two inversions a header has room for one: that of the first, which the description explains.
    if contrast.first_s is not None:
        times["InversionTime"] = 1000 * contrast.first_s
    return times
