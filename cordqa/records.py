"""The records that travel between rooms.

Everything that produces numbers makes :class:`Measurement` rows; everything that judges or
summarises makes :class:`Verdict` and :class:`Statistic`; a :class:`Result` holds them all, and
text, JSON, TSV and HTML are rendered from that one record so that they cannot disagree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator

__all__ = [
    "Acquisition",
    "Entities",
    "Figure",
    "ImageSet",
    "Measurement",
    "Notice",
    "Number",
    "Outcome",
    "Part",
    "Provenance",
    "Result",
    "Severity",
    "State",
    "Statistic",
    "Status",
    "Verdict",
    "Volume",
    "as_plain",
]


def _nan_from_none(value: Any) -> Any:
    return math.nan if value is None else value


#: A float that is NaN where the value is not known; written to JSON as ``null``.
Number = Annotated[float, BeforeValidator(_nan_from_none)]


class Part(StrEnum):
    """Which part of the complex signal an image shows."""

    MAGNITUDE = "magnitude"
    REAL = "real"
    IMAGINARY = "imaginary"
    PHASE = "phase"


class Status(StrEnum):
    """Outcome of one check."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    NOT_EVALUATED = "not evaluated"


class State(StrEnum):
    """What became of one unit of work."""

    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"


class Severity(StrEnum):
    """How much a notice matters."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entities:
    """Who and where: the keys by which measurements are grouped.

    Empty string means "not known".  Names follow BIDS where BIDS has one.  ``scanner`` is the
    key for between-scanner statistics: two machines of one model are two scanners.
    """

    subject: str = ""
    session: str = ""
    run: str = ""
    acquisition: str = ""
    site: str = ""
    vendor: str = ""
    model: str = ""
    software: str = ""
    scanner: str = ""
    field_strength_T: Number = math.nan
    acquired: str = ""  # ISO 8601 date and time of the acquisition


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquisition:
    """Parameters of one image in SI units (angles in degrees), each with its origin.

    ``origins`` maps a field name to where its value comes from: ``DICOM``, ``sidecar``,
    ``user`` or ``default``.  NaN means that no source gave it.

    ``diffusion_encoding`` is ``none`` (no weighting), ``direction``, ``trace`` (an average over
    directions), or empty where the header does not tell; ``diffusion_direction`` is a unit vector in
    patient coordinates (LPS), empty where there is none, unless its origin says otherwise.
    ``map_quantity`` names the quantity of a map that the scanner computed; empty for an image.
    """

    repetition_time_s: Number = math.nan
    echo_time_s: Number = math.nan
    inversion_time_s: Number = math.nan
    flip_angle_deg: Number = math.nan
    refocusing_angle_deg: Number = math.nan
    field_strength_T: Number = math.nan
    slice_thickness_mm: Number = math.nan
    b_value_s_per_mm2: Number = math.nan
    diffusion_direction: tuple[float, ...] = ()
    diffusion_encoding: str = ""
    map_quantity: str = ""
    echo_train_length: int = 0
    # "spin echo", "inversion recovery", "gradient echo" or "" where the header does not say
    sequence: str = ""
    scale_slope: Number = 1.0
    scale_intercept: Number = 0.0
    scale_source: str = ""
    temperature_C: Number = math.nan
    origins: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSet:
    """Images on one grid from one scanner and session that can enter one fit.

    They differ only in inversion time, echo time, flip angle, repetition time or b-value.

    Attributes
    ----------
    data : ndarray, shape (n_images, n_slices, n_rows, n_columns), float32
        Values after vendor scaling, comparable between the images of the set.
    clipped : ndarray of bool, same shape, or None
        Samples stored at the top of the range, whose true value may be higher.
    affine : ndarray, shape (4, 4)
        Maps (slice, row, column, 1) to RAS+ millimetres.
    spacing_mm : tuple of float
        Distance between slices, rows, columns.
    acquisitions : tuple of Acquisition
        One per image.
    part : Part
        Magnitude, real, imaginary or phase.
    label : str
        Short name for people, made from header facts (not from file names).
    sources : tuple of str
        Input files, relative to the folder that was given.
    notices : tuple of Notice
        What the reader should know about how these images were read.
    """

    data: NDArray[np.float32]
    affine: NDArray[np.float64]
    spacing_mm: tuple[float, float, float]
    acquisitions: tuple[Acquisition, ...]
    entities: Entities = field(default_factory=Entities)
    part: Part = Part.MAGNITUDE
    clipped: NDArray[np.bool_] | None = None
    label: str = ""
    sources: tuple[str, ...] = ()
    notices: tuple[Notice, ...] = ()

    def values(self, name: str) -> NDArray[np.float64]:
        """Return one acquisition parameter of every image, shape (n_images,)."""
        return np.array([getattr(a, name) for a in self.acquisitions], dtype=float)

    def varies(self, name: str) -> bool:
        """Tell whether a parameter takes more than one finite value over the images."""
        values = self.values(name)
        return np.unique(values[np.isfinite(values)]).size > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """An image on a regular grid, as NIfTI holds it.

    Attributes
    ----------
    data : ndarray, shape (i, j, k) or (i, j, k, n)
        Values in the order of the file; any orientation, which ``affine`` tells.
    affine : ndarray, shape (4, 4)
        Maps (i, j, k, 1) to RAS+ millimetres.
    source : str
        File it came from, relative to the dataset; empty for one that was computed.
    """

    data: NDArray[Any]
    affine: NDArray[np.float64]
    source: str = ""

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along i, j, k."""
        steps = np.sqrt((np.asarray(self.affine, dtype=float)[:3, :3] ** 2).sum(axis=0))
        return float(steps[0]), float(steps[1]), float(steps[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One number with everything needed to trust it.

    ``standard_uncertainty`` is one standard deviation; ``low`` and ``high`` bound the interval
    of confidence ``interval_level``.  ``value`` is NaN where it cannot be known, and then
    ``flags`` says why.  ``level`` names what the value is taken over: "C3", "C2-C5", "all slices",
    or a single slice, "C3, slice 12"; only then ``slice_number`` (from inferior, the first is 0)
    and ``array_index`` (in the file as stored) are numbers.
    """

    quantity: str
    value: Number
    unit: str
    region: str = ""
    level: str = ""
    standard_uncertainty: Number = math.nan
    low: Number = math.nan
    high: Number = math.nan
    interval_level: Number = 0.95
    uncertainty_method: str = ""
    n_voxels: int = 0
    coverage: Number = math.nan
    reference: Number = math.nan
    reference_uncertainty: Number = math.nan
    reference_source: str = ""
    temperature_C: Number = math.nan
    method: str = ""
    engine: str = ""
    entities: Entities = field(default_factory=Entities)
    flags: tuple[str, ...] = ()
    slice_number: int | None = None
    array_index: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistic:
    """One statistic over measurements, with its estimator and its n at each level.

    ``group`` names what it was computed within (for example ``scanner=A``); empty is overall.
    """

    name: str
    value: Number
    unit: str = ""
    quantity: str = ""
    region: str = ""
    group: str = ""
    low: Number = math.nan
    high: Number = math.nan
    interval_level: Number = 0.95
    estimator: str = ""
    interval_method: str = ""
    n: Mapping[str, int] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One judgement: a rule, its limit and its source beside what was observed."""

    status: Status
    subject: str  # what is judged, for people: "plate 5, sphere 3, T1"
    rule: str
    observed: Number = math.nan
    low: Number = math.nan
    high: Number = math.nan
    unit: str = ""
    source: str = ""
    reason: str = ""
    quantity: str = ""
    region: str = ""
    level: str = ""
    scope: str = ""  # "sphere", "plate", "overall", ...
    entities: Entities = field(default_factory=Entities)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something the reader should know: what, where, and what to do."""

    severity: Severity
    message: str
    where: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one unit of work (a series, a participant, a file)."""

    what: str
    state: State
    reason: str = ""
    code: str = ""
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """How a result came about."""

    version: str = ""
    command: str = ""
    created: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
    input_hashes: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    engine: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure as data; the report draws it according to ``kind``.

    ``data`` holds only JSON types.  Keeping the data rather than a picture lets a report be
    rebuilt from disk, and keeps figure and table equal.
    """

    name: str
    kind: str
    title: str
    caption: str = ""
    alt: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Everything one command found."""

    kind: str  # "phantom", "reliability", ...
    title: str
    status: Status
    summary: str = ""  # one or two sentences: the verdict in words
    measurements: tuple[Measurement, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    statistics: tuple[Statistic, ...] = ()
    notices: tuple[Notice, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    figures: tuple[Figure, ...] = ()
    methods: tuple[str, ...] = ()  # paragraphs
    references: tuple[str, ...] = ()  # citations with DOI
    provenance: Provenance = field(default_factory=Provenance)

    def count(self, state: State) -> int:
        """Count the outcomes in one state."""
        return sum(outcome.state is state for outcome in self.outcomes)


def as_plain(record: Any) -> Any:
    """Turn records into JSON types: dataclass to dict, tuple to list, NaN and infinity to None."""
    if hasattr(record, "__dataclass_fields__"):
        return {f.name: as_plain(getattr(record, f.name)) for f in fields(record)}
    if isinstance(record, Mapping):
        return {str(key): as_plain(value) for key, value in record.items()}
    if isinstance(record, (list, tuple)):
        return [as_plain(value) for value in record]
    if isinstance(record, np.ndarray):
        return as_plain(record.tolist())
    if isinstance(record, StrEnum):
        return str(record)
    if isinstance(record, np.generic):
        record = record.item()
    if isinstance(record, float) and not math.isfinite(record):
        return None
    return record
