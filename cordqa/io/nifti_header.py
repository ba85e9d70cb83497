"""NIfTI headers and data, read without trusting what they claim."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import TooLargeError, UnreadableFileError
from cordqa.io.files import open_regular
from cordqa.io.frames import Stored
from cordqa.io.limits import ReadLimits

__all__ = ["NiftiFile", "NiftiHeader", "read_nifti_header"]

#: NIfTI extensions stand between header and data; no converter writes more than this.
_MAX_HEADER_BYTES = 16 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024
_BLOCK_BYTES = 540  # of the longer of the two headers
Vector = tuple[float, float, float]


#: An axis with this times the spacing of the others is that of the slices.
_COARSE = 1.5


@dataclass(frozen=True, slots=True)
class NiftiHeader:
    """What is used of a NIfTI header.

    Attributes
    ----------
    shape : tuple of int
        Number of columns, rows and slices, and of volumes.
    order : tuple of int
        Axis of the file for columns, rows and slices: tools that reorient a coronal or sagittal
        stack leave its slices along another axis than the third.
    dtype : dtype
        Of the stored values.
    offset : int
        Where the data begin.
    affine : ndarray, shape (4, 4)
        Maps column, row and slice to RAS+ millimetres.
    slope, intercept : float
        Scaling of the stored values; 1 and 0 where the header gives none.
    """

    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    offset: int
    affine: NDArray[np.float64]
    slope: float
    intercept: float
    order: tuple[int, int, int] = (0, 1, 2)

    @property
    def orientation(self) -> tuple[float, float, float, float, float, float]:
        """LPS direction of the first axis (columns), then of the second (rows)."""
        a, b, c = _lps(self.affine[:3, 0] / np.linalg.norm(self.affine[:3, 0]))
        d, e, f = _lps(self.affine[:3, 1] / np.linalg.norm(self.affine[:3, 1]))
        return a, b, c, d, e, f

    @property
    def spacing(self) -> Vector:
        """Distance in mm between rows, between columns, and between slices."""
        columns, rows, slices = (float(np.linalg.norm(self.affine[:3, axis])) for axis in range(3))
        return rows, columns, slices

    def position(self, slice_index: int) -> Vector:
        """LPS position of the first voxel of a slice in mm."""
        return _lps(self.affine[:3, 3] + self.affine[:3, 2] * slice_index)


def _lps(vector: NDArray[np.float64]) -> Vector:
    x, y, z = (float(v) for v in vector)
    return -x, -y, z


@dataclass(frozen=True, slots=True)
class NiftiFile:
    """A NIfTI file whose header was read; planes are numbered volume by volume."""

    path: Path
    source: str
    header: NiftiHeader

    def load(self, indices: Sequence[int]) -> Iterator[tuple[int, Stored]]:
        """Read planes; see :class:`cordqa.io.frames.PixelFile`."""
        header = self.header
        columns, rows, slices, volumes = header.shape
        size = math.prod(header.shape) * header.dtype.itemsize
        raw = _read_bytes(self.path, header.offset, size)
        if len(raw) < size:
            raise UnreadableFileError(
                "the image data are truncated",
                found=f"{len(raw)} bytes",
                expected=f"{size} bytes",
                todo="copy or convert the file again",
            )
        sizes = dict(zip(header.order, (columns, rows, slices), strict=True))
        stored = np.frombuffer(raw, dtype=header.dtype).reshape(volumes, sizes[2], sizes[1], sizes[0])
        turned = stored.transpose(0, *(3 - axis for axis in reversed(header.order)))
        planes = turned.reshape(volumes * slices, rows, columns)
        low, high = -math.inf, math.inf
        if header.dtype.kind in "iu":
            low, high = float(np.iinfo(header.dtype).min), float(np.iinfo(header.dtype).max)
        for index in indices:
            yield index, Stored(planes[index].astype(header.dtype.newbyteorder("=")), low, high)


def _read_bytes(path: Path, offset: int, size: int) -> bytes:
    """Read at most ``size`` bytes from ``offset``, whatever a compressed file would expand to."""
    raw, _ = open_regular(path)
    try:
        with raw:
            packed = path.name.lower().endswith(".gz")
            file = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if packed else raw
            file.seek(offset)
            content = bytearray()
            # Piece by piece, so that memory follows what the file has and not what it claims.
            while piece := file.read(min(_CHUNK_BYTES, size - len(content))):
                content += piece
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableFileError(
            f"the image data cannot be read ({type(error).__name__})", todo="copy or convert the file again"
        ) from None
    return bytes(content)


def read_nifti_header(path: Path, *, limits: ReadLimits) -> NiftiHeader:
    """Read and check the header of a NIfTI-1 or NIfTI-2 file.

    Raises
    ------
    UnreadableFileError
        If it is damaged, a pair of files, or of a kind that is no image of real numbers.
    TooLargeError
        If it claims more voxels than the limit.
    """
    import nibabel

    library: Any = nibabel
    block = _read_bytes(path, 0, _BLOCK_BYTES)
    kind = _kind(library, block)
    if kind is None or len(block) < kind.sizeof_hdr:
        raise UnreadableFileError("is not a NIfTI file, or is truncated", todo="convert the images again")
    try:
        header = kind(block[: kind.sizeof_hdr], check=False)
        affine = np.array(header.get_best_affine(), dtype=np.float64)
        offset, magic = float(header["vox_offset"]), bytes(header["magic"].tobytes())
    except Exception as error:
        # The parser meets arbitrary bytes; its message is not kept.
        raise UnreadableFileError(
            f"the NIfTI header is damaged ({type(error).__name__})", todo="convert the images again"
        ) from None
    if magic[:1] != b"n" or magic[1:2] != b"+" or not kind.sizeof_hdr <= offset <= _MAX_HEADER_BYTES:
        raise UnreadableFileError(
            "is not a single-file NIfTI image (.nii)", todo="convert pairs of .hdr and .img to .nii"
        )
    _check_affine(affine)
    slope, intercept = _scaling(header)
    sizes = _shape(header, limits)
    order = _slices_last(sizes[:3], affine)
    shape = (sizes[order[0]], sizes[order[1]], sizes[order[2]], sizes[3])
    affine[:, :3] = affine[:, list(order)]
    return NiftiHeader(shape, _dtype(header), int(offset), affine, slope, intercept, order)


def _slices_last(sizes: tuple[int, int, int], affine: NDArray[np.float64]) -> tuple[int, int, int]:
    """Return the axes with that of the slices last: a single one, or one much coarser than the others."""
    single = [axis for axis in range(3) if sizes[axis] == 1]
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    coarsest = int(np.argmax(spacing))
    others = np.delete(spacing, coarsest)
    slices = 2
    if single and 2 not in single:
        slices = single[-1]
    elif not single and spacing[coarsest] > _COARSE * others.max():
        slices = coarsest
    first, second = (axis for axis in range(3) if axis != slices)
    return first, second, slices


def _kind(library: Any, block: bytes) -> Any:
    orders: tuple[Literal["little", "big"], ...] = ("little", "big")
    starts = {int.from_bytes(block[:4], order) for order in orders}
    return library.Nifti1Header if 348 in starts else library.Nifti2Header if 540 in starts else None


def _check_affine(affine: NDArray[np.float64]) -> None:
    if not np.isfinite(affine).all() or np.abs(affine).max() > 1e5:
        raise UnreadableFileError("the orientation is not valid", todo="convert the images again")
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if sizes.min() < 1e-3:
        raise UnreadableFileError("a voxel has no size", todo="convert the images again")
    cosines = (affine[:3, :3] / sizes).T @ (affine[:3, :3] / sizes)
    if np.abs(cosines - np.eye(3)).max() > 0.01:
        raise UnreadableFileError(
            "the axes are not perpendicular", todo="give the images as acquired, not resampled or registered"
        )


def _scaling(header: Any) -> tuple[float, float]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    usable = (
        math.isfinite(slope)
        and math.isfinite(intercept)
        and 1e-20 < abs(slope) < 1e20
        and abs(intercept) < 1e20
    )
    return (slope, intercept) if usable else (1.0, 0.0)


def _shape(header: Any, limits: ReadLimits) -> tuple[int, int, int, int]:
    dims = [int(n) for n in header["dim"]]
    count = dims[0]
    sizes = (dims[1 : count + 1] + [1] * 7)[:7] if 2 <= count <= 7 else []
    if not sizes or min(sizes) < 1 or any(n > 1 for n in sizes[4:]):
        raise UnreadableFileError(
            "the dimensions are not those of an image or a series of images",
            found=" x ".join(str(n) for n in dims[1 : max(min(count, 7), 0) + 1]) or "none",
            expected="2 to 4 dimensions",
        )
    voxels = math.prod(sizes)
    if voxels > limits.max_pixels_per_file:
        raise TooLargeError(
            "the header claims too many voxels",
            found=str(voxels),
            expected=f"at most {limits.max_pixels_per_file}",
            todo="check the file, or raise the limit",
        )
    if sizes[2] * sizes[3] > limits.max_planes_per_file:
        raise TooLargeError(
            "the header claims too many slices",
            found=f"{sizes[2]} slices, {sizes[3]} volumes",
            expected=f"at most {limits.max_planes_per_file} in all",
        )
    return sizes[0], sizes[1], sizes[2], sizes[3]


def _dtype(header: Any) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = np.dtype(header.get_data_dtype())
    except Exception:  # a code that is not in the standard
        dtype = np.dtype("V1")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise UnreadableFileError(
            "the data type is not supported",
            found=f"code {int(header['datatype'])}",
            expected="integers or real numbers",
            todo="save real and imaginary parts as separate files",
        )
    return dtype
