"""Voxel sizes and matrix from the first bytes of a NIfTI file."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

from cordqa.errors import CordqaError
from cordqa.io.files import open_regular

__all__ = ["read_image_sizes"]

_BYTES = 352
#: Length of the header, then format and offset of the sizes and of the spacings.
_LAYOUTS = {348: ("8h", 40, "8f", 76), 540: ("8q", 16, "8d", 104)}


def read_image_sizes(path: Path) -> dict[str, float]:
    """Return ``VoxelSizeI``, ``J``, ``K`` (mm), ``NumberOfSlices`` and ``NumberOfVolumes``.

    Axes are those of the file.  Empty where the file is not a readable NIfTI image: datasets
    often come with links in place of their images, and that is no fault of the protocol.
    """
    try:
        file, _ = open_regular(path)
        with file:
            head = file.read(_BYTES)
            if head[:2] == b"\x1f\x8b":
                file.seek(0)
                with gzip.GzipFile(fileobj=file) as unpacked:
                    head = unpacked.read(_BYTES)
    except (CordqaError, OSError, EOFError, zlib.error):
        return {}
    return _sizes(head)


def _sizes(head: bytes) -> dict[str, float]:
    if len(head) < _BYTES:
        return {}
    for order in "<>":
        layout = _LAYOUTS.get(struct.unpack_from(f"{order}i", head)[0])
        if layout is not None:
            break
    else:
        return {}
    dims = struct.unpack_from(order + layout[0], head, layout[1])
    spacing = [abs(float(value)) for value in struct.unpack_from(order + layout[2], head, layout[3])]
    names = ("VoxelSizeI", "VoxelSizeJ", "VoxelSizeK")
    found = {
        name: round(value, 6)
        for name, value in zip(names, spacing[1:4], strict=True)
        if math.isfinite(value) and value > 0
    }
    for name, axis in (("NumberOfSlices", 3), ("NumberOfVolumes", 4)):
        count = dims[axis] if dims[0] >= axis else 1
        if 0 < count < 10**6:
            found[name] = float(count)
    return found
