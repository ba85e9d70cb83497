"""How much a folder may ask of the machine before it is refused."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFAULT_LIMITS", "ReadLimits"]

_MEBI = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadLimits:
    """Bounds on what is read; each is checked before memory is asked for.

    Attributes
    ----------
    max_files : int
        Files looked at in one folder.
    max_file_bytes : int
        Size of one file on disk.
    max_pixels_per_file : int
        Rows times columns times frames (or voxels times volumes) claimed by one file.
    max_planes_per_file : int
        Frames (or slices times volumes) claimed by one file.
    max_total_bytes : int
        Memory for the images of all sets together; sets beyond it are reported as skipped.
    max_sidecar_bytes : int
        Size of one JSON sidecar, b-value file or phantom file.
    max_inflated_bytes : int
        Size of a deflated DICOM file after decompression.
    """

    max_files: int = 200_000
    max_file_bytes: int = 2048 * _MEBI
    max_pixels_per_file: int = 128 * _MEBI
    max_planes_per_file: int = 100_000
    max_total_bytes: int = 2048 * _MEBI
    max_sidecar_bytes: int = 2 * _MEBI
    max_inflated_bytes: int = 512 * _MEBI


DEFAULT_LIMITS = ReadLimits()
