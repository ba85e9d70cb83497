"""Pixel data of DICOM files: what the header promises, whether the file keeps it, decoding."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.encaps import generate_frames
from pydicom.pixels.utils import iter_pixels

from cordqa.errors import CordqaError, TooLargeError, UnreadableFileError
from cordqa.io.codestream import codestream_size
from cordqa.io.dicom_header import Header
from cordqa.io.files import read_buffer
from cordqa.io.frames import Stored
from cordqa.io.limits import ReadLimits

__all__ = ["DicomFile", "PixelLayout", "read_layout"]

_NATIVE_LITTLE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")
_NATIVE_BIG = "1.2.840.10008.1.2.2"
#: The decoder of each syntax that is not left to pylibjpeg.  Its run-length decoder, in Rust,
#: panics on damaged streams instead of raising an error; pydicom's own is fast enough.
_PLUGINS = {_NATIVE_BIG: "", "1.2.840.10008.1.2.5": "pydicom"}
_PIXEL_DATA = 0x7FE00010


@dataclass(frozen=True, slots=True)
class PixelLayout:
    """How the pixels of one file are stored."""

    rows: int
    columns: int
    frames: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    syntax: str
    offset: int  # of the pixel values in the (inflated) file

    @property
    def native(self) -> bool:
        """Tell whether the values are not compressed and in this project's byte order."""
        return self.syntax in _NATIVE_LITTLE

    @property
    def plane_bytes(self) -> int:
        """Size of one plane, not compressed."""
        return self.rows * self.columns * self.bits_allocated // 8


def read_layout(
    dataset: FileDataset, header: Header, buffer: BinaryIO, *, size: int, limits: ReadLimits
) -> PixelLayout:
    """Check what the header claims about the pixels against the limits and against the file.

    Parameters
    ----------
    dataset : FileDataset
        Header, read up to the pixel data.
    header : Header
        The same, for reading fields.
    buffer : BinaryIO
        File, positioned where the header ended.
    size : int
        Size of the file in bytes.
    limits : ReadLimits
        What one file may claim.

    Raises
    ------
    UnreadableFileError
        If the pixel data are absent, truncated or described inconsistently.
    TooLargeError
        If more pixels are claimed than the limit.
    """
    rows, columns = header.integer("Rows"), header.integer("Columns")
    frames = header.integer("NumberOfFrames") if header.has("NumberOfFrames") else 1
    if rows < 1 or columns < 1 or frames < 1:
        raise UnreadableFileError(
            "the image size is not valid",
            found=f"{rows} rows, {columns} columns, {frames} frames",
            expected="at least 1 of each",
            todo="export the file again",
        )
    if rows * columns * frames > limits.max_pixels_per_file or frames > limits.max_planes_per_file:
        raise TooLargeError(
            "the header claims too many pixels",
            found=f"{rows} rows, {columns} columns, {frames} frames",
            expected=f"at most {limits.max_pixels_per_file} pixels, {limits.max_planes_per_file} frames",
            todo="check the file, or raise the limit",
        )
    allocated = header.integer("BitsAllocated")
    stored = header.integer("BitsStored") or allocated
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated:
        raise UnreadableFileError(
            "the bit depth is not supported",
            found=f"{stored} of {allocated} bits",
            expected="8, 16 or 32 bits allocated",
        )
    implicit, little = _encoding(dataset)
    syntax = _syntax(dataset, implicit=implicit, little=little)
    offset, length = _pixel_element(buffer, implicit=implicit, little=little)
    signed = header.integer("PixelRepresentation") == 1
    layout = PixelLayout(rows, columns, frames, allocated, stored, signed, syntax, offset)
    if syntax in (*_NATIVE_LITTLE, _NATIVE_BIG):
        expected, present = layout.plane_bytes * frames, min(length, max(size - offset, 0))
        if present < expected:
            raise UnreadableFileError(
                "the pixel data are truncated",
                found=f"{present} bytes",
                expected=f"{expected} bytes",
                todo="copy or export the file again",
            )
    return layout


def _encoding(dataset: FileDataset) -> tuple[bool, bool]:
    implicit, little = dataset.original_encoding
    return bool(implicit), little is not False


def _syntax(dataset: FileDataset, *, implicit: bool, little: bool) -> str:
    """Return the transfer syntax; without a file meta group, the one the parser recognised."""
    meta = getattr(dataset, "file_meta", None)
    named = Header([meta]).text("TransferSyntaxUID") if meta else ""
    if named:
        return named
    return _NATIVE_LITTLE[0] if implicit else _NATIVE_LITTLE[1] if little else _NATIVE_BIG


def _pixel_element(buffer: BinaryIO, *, implicit: bool, little: bool) -> tuple[int, int]:
    """Return offset and length of the pixel values; the buffer stands at their element."""
    start = buffer.tell()
    head = buffer.read(12)
    order = "<" if little else ">"
    absent = UnreadableFileError(
        "there are no pixel data: the file is truncated, or holds only a header", todo="copy the file again"
    )
    if len(head) < 12:
        raise absent
    group, element = struct.unpack(f"{order}HH", head[:4])
    if group << 16 | element != _PIXEL_DATA:
        raise absent
    if implicit:
        return start + 8, int(struct.unpack(f"{order}L", head[4:8])[0])
    return start + 12, int(struct.unpack(f"{order}L", head[8:12])[0])


@dataclass(frozen=True, slots=True)
class DicomFile:
    """A DICOM file whose header was read."""

    path: Path
    source: str
    layout: PixelLayout
    limits: ReadLimits

    def load(self, indices: Sequence[int]) -> Iterator[tuple[int, Stored]]:
        """Decode the planes with the given numbers.

        Yields
        ------
        int, Stored
            Number of the plane, and its values with the bounds of their storage.

        Raises
        ------
        UnreadableFileError
            If the pixel data cannot be decoded.
        TooLargeError
            If a compressed stream claims another size than the header.
        """
        buffer, _ = read_buffer(self.path, limits=self.limits)
        with buffer:
            planes = self._native(buffer, indices) if self.layout.native else self._decoded(buffer, indices)
            low, high = self._bounds()
            for index, plane in planes:
                yield index, Stored(plane, low, high)

    def _bounds(self) -> tuple[float, float]:
        bits = self.layout.bits_stored
        if self.layout.signed:
            return float(-(2 ** (bits - 1))), float(2 ** (bits - 1) - 1)
        return 0.0, float(2**bits - 1)

    def _native(self, buffer: BinaryIO, indices: Sequence[int]) -> Iterator[tuple[int, NDArray[Any]]]:
        layout = self.layout
        kind = np.dtype(f"<{'i' if layout.signed else 'u'}{layout.bits_allocated // 8}")
        for index in indices:
            buffer.seek(layout.offset + index * layout.plane_bytes)
            raw = buffer.read(layout.plane_bytes)
            if len(raw) < layout.plane_bytes:
                raise UnreadableFileError("the pixel data are truncated", todo="copy the file again")
            plane = np.frombuffer(raw, dtype=kind).reshape(layout.rows, layout.columns)
            yield index, _used_bits(plane, layout)

    def _decoded(self, buffer: BinaryIO, indices: Sequence[int]) -> Iterator[tuple[int, NDArray[Any]]]:
        layout = self.layout
        try:
            self._check_streams(buffer, indices)
            buffer.seek(0)
            plugin = _PLUGINS.get(layout.syntax, "pylibjpeg")
            planes = iter_pixels(buffer, indices=list(indices), raw=True, decoding_plugin=plugin)
            for index, plane in zip(indices, planes, strict=True):
                if plane.shape != (layout.rows, layout.columns):
                    raise UnreadableFileError("the compressed image has another size than the header says")
                yield index, _used_bits(plane, layout)
        except CordqaError:
            raise
        except Exception as error:
            # Decoders meet arbitrary bytes; their messages may quote the header.
            raise UnreadableFileError(
                f"the pixel data cannot be decoded ({type(error).__name__}, transfer syntax "
                f"{_digits(layout.syntax)})",
                todo="export the file again without compression",
            ) from None

    def _check_streams(self, buffer: BinaryIO, indices: Sequence[int]) -> None:
        """Refuse a compressed stream that claims another size before a decoder allocates it."""
        if self.layout.syntax == _NATIVE_BIG:
            return
        wanted = set(indices)
        buffer.seek(self.layout.offset)
        for index, stream in enumerate(generate_frames(buffer, number_of_frames=self.layout.frames)):
            size = codestream_size(stream) if index in wanted else None
            if size is not None and size != (self.layout.rows, self.layout.columns, 1):
                raise TooLargeError(
                    "the compressed image has another size than the header says",
                    found=f"{size[0]} rows, {size[1]} columns, {size[2]} components",
                    expected=f"{self.layout.rows} rows, {self.layout.columns} columns, 1 component",
                )


def _digits(uid: str) -> str:
    return "".join(c for c in uid if c in "0123456789.")[:64]


def _used_bits(plane: NDArray[Any], layout: PixelLayout) -> NDArray[Any]:
    """Drop the bits above those in use, which may hold overlays, and extend the sign."""
    unused = layout.bits_allocated - layout.bits_stored
    if unused == 0 or plane.dtype.itemsize * 8 != layout.bits_allocated:
        return plane
    shifted: NDArray[Any] = np.right_shift(np.left_shift(plane, unused), unused)
    return shifted
