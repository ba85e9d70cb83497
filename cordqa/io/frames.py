"""One image plane as its header describes it, before any pixel is decoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

from cordqa.io.files import printable
from cordqa.records import Acquisition, Part

__all__ = ["Frame", "Ignored", "PixelFile", "Scanner", "Stored"]


@dataclass(frozen=True, slots=True)
class Ignored:
    """A file that is not an image to be measured, and why; it is counted, not reported."""

    why: str


@dataclass(frozen=True, slots=True)
class Stored:
    """Values of one plane as stored, with the bounds of what the storage can represent.

    ``low`` and ``high`` are infinite where the storage has no bound (floating point).
    """

    values: NDArray[Any]
    low: float
    high: float


class PixelFile(Protocol):
    """A file whose header was read and whose planes can be decoded on demand."""

    @property
    def source(self) -> str:
        """Path relative to the folder that was given."""
        ...

    def load(self, indices: Sequence[int]) -> Iterator[tuple[int, Stored]]:
        """Decode some planes; raises a :class:`~cordqa.errors.CordqaError` where that fails."""
        ...


@dataclass(frozen=True, slots=True)
class Scanner:
    """What tells one machine from another.

    ``device`` (serial number or station name) only separates machines and is never shown.
    """

    vendor: str = ""
    model: str = ""
    field_strength_T: float = 0.0  # to one decimal; 0 where unknown
    device: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One plane: where its pixels are, how it was acquired, and where it lies.

    Positions and directions are in the DICOM patient system (LPS, millimetres).  Identifiers
    serve to group frames; they are kept out of ``repr`` so that no traceback shows them.

    Attributes
    ----------
    file : PixelFile
        The file that holds the pixels.
    index : int
        Number of the plane in that file.
    position : tuple of float
        Centre of the first pixel.
    orientation : tuple of float
        Direction of increasing column index (3), then of increasing row index (3).
    spacing : tuple of float
        Distance between rows, and between columns.
    family : str
        What kind of sequence it is, as far as images of one fit must agree on it.
    processing : str
        What the scanner did to the image afterwards (normalised, distortion corrected ...).
    direction : tuple of float
        Diffusion direction; empty where none.
    flags : tuple of str
        What the reader should be told about this image; see ``cordqa.io.assemble``.
    """

    file: PixelFile = field(repr=False)
    index: int
    rows: int
    columns: int
    position: tuple[float, float, float]
    orientation: tuple[float, float, float, float, float, float]
    spacing: tuple[float, float]
    acquisition: Acquisition
    part: Part = Part.MAGNITUDE
    scanner: Scanner = field(default_factory=Scanner)
    software: str = ""
    family: str = ""
    processing: str = ""
    direction: tuple[float, ...] = ()
    acquired: str = ""
    study_date: str = ""
    series_number: int = 0
    acquisition_number: int = 0
    instance_number: int = 0
    temporal_position: int = 0
    flags: tuple[str, ...] = ()
    subject: str = ""  # only filled where identity was asked for
    session: str = ""  # only filled where the file names one (BIDS)
    run: str = ""
    patient_key: str = field(default="", repr=False)
    study_uid: str = field(default="", repr=False)
    series_uid: str = field(default="", repr=False)
    instance_uid: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        """Path of the file relative to the folder, as it may be shown."""
        return printable(self.file.source)
