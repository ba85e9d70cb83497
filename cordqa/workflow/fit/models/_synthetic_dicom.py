"""Synthetic images as DICOM files, one series per contrast."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from cordqa.io.dicom_derived import DerivedSeries, derived_slice
from cordqa.models.synthetic.images import Contrast

__all__ = ["dicom_files"]

_FIRST_SERIES = 9001


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
            series_number=_FIRST_SERIES + n,
            times_ms=_times(contrast),
        )
        for k in range(image.shape[2]):
            files[f"dicom/{contrast.name}_{k + 1:04d}.dcm"] = partial(_make, image[:, :, k], k, series)
    return files


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
