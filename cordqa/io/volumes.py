"""Read and write NIfTI volumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cordqa.errors import TooLargeError, UnreadableFileError
from cordqa.io.atomic import appear_complete
from cordqa.records import Notice, Severity, Volume

__all__ = ["MAX_VOXELS", "orientation_notices", "read_volume", "write_volume"]

#: A file that claims more is refused before it is allocated.
MAX_VOXELS = 1_000_000_000


def read_volume(path: Path, *, source: str = "", dtype: Any = np.float32) -> Volume:
    """Read one NIfTI file.

    Parameters
    ----------
    path : Path
        ``.nii`` or ``.nii.gz``.
    source : str
        How the file is called in records; its name by default.
    dtype : numpy type
        Floating type of the values after scaling.

    Raises
    ------
    UnreadableFileError
        If it is damaged, truncated, or has no usable orientation.
    TooLargeError
        If it claims more than ``MAX_VOXELS``.
    """
    import nibabel as nib

    name = source or path.name
    try:
        # nibabel's own types do not tell which image classes have an affine.
        image: Any = nib.load(path)
        count = int(np.prod([int(n) for n in image.shape], dtype=np.int64))
        if count > MAX_VOXELS:
            raise TooLargeError("claims too many voxels", where=name, found=str(image.shape))
        _check_kind(image.get_data_dtype(), np.dtype(dtype), name)
        data = np.asarray(image.dataobj, dtype=dtype)
        affine = np.asarray(image.affine, dtype=float)
    except (OSError, ValueError, EOFError, OverflowError, nib.filebasedimages.ImageFileError) as error:
        raise UnreadableFileError(
            "cannot be read as NIfTI", where=name, todo="check that the file is complete"
        ) from error
    if data.ndim < 3 or data.size == 0:
        raise UnreadableFileError("is not a volume", where=name, found=f"shape {data.shape}")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise UnreadableFileError("has no usable orientation in its header", where=name)
    return Volume(data=data, affine=affine, source=name)


def _check_kind(stored: np.dtype[Any], wanted: np.dtype[Any], name: str) -> None:
    """Refuse what has no single real value per voxel; a cast would drop a part without a word."""
    if stored.fields is not None:
        raise UnreadableFileError(
            "holds colours, not values", where=name, todo="give the image that the colours were made from"
        )
    if stored.kind == "c" and wanted.kind != "c":
        raise UnreadableFileError("holds complex values", where=name, todo="give the magnitude image")


def orientation_notices(path: Path, *, source: str = "") -> tuple[Notice, ...]:
    """Say where the header leaves open, or contradicts itself about, how the image lies.

    Parameters
    ----------
    path : Path
        A NIfTI file that can be read.
    source : str
        How the file is called in records; its name by default.
    """
    import nibabel as nib

    image: Any = nib.load(path)
    if not hasattr(image, "get_sform"):  # another format than NIfTI
        return ()
    name = source or path.name
    sform, qform = image.get_sform(coded=True)[0], image.get_qform(coded=True)[0]
    if sform is None and qform is None:
        text = (
            "the header does not say how the image lies (its qform and sform codes are 0): right, anterior "
            "and superior are guesses; convert the image again, or set the codes"
        )
        return (Notice(severity=Severity.WARNING, message=text, where=name, code="input.no-orientation"),)
    if sform is None or qform is None:
        return ()
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(image.shape[:3]) - 1)
    apart = np.linalg.norm(corners @ (sform - qform)[:3, :3].T + (sform - qform)[:3, 3], axis=1).max()
    if apart <= 0.5 * float(np.linalg.norm(sform[:3, :3], axis=0).min()):
        return ()
    text = (
        f"qform and sform of the header contradict each other by up to {apart:.1f} mm: sform is used; "
        "check the program that wrote the image last"
    )
    return (Notice(severity=Severity.WARNING, message=text, where=name, code="input.orientation"),)


def write_volume(volume: Volume, path: Path) -> None:
    """Write one NIfTI file atomically.

    Raises
    ------
    OutputError
        If it cannot be written; nothing is left behind under the final name.
    """
    import nibabel as nib

    data = volume.data
    if data.dtype == np.bool_:
        data = data.astype(np.uint8)
    elif data.dtype == np.float64:
        data = data.astype(np.float32)
    suffix = ".nii.gz" if path.name.endswith(".gz") else ".nii"
    with appear_complete(path, suffix=suffix) as temporary:
        image: Any = nib.Nifti1Image  # nibabel leaves it untyped
        nib.save(image(data, volume.affine), temporary)
