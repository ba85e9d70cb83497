"""What every engine can be asked, and what it answers.

An engine reads images from files and leaves images in a working folder; its rows carry the
engine, its version and the reason wherever a number cannot be known.  Whoever asks never needs
to know which engine answered.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol, runtime_checkable

from cordqa.cord.axes import slice_label
from cordqa.engines.errors import EngineError, MixedEnginesError
from cordqa.records import Entities, Measurement, Notice

__all__ = [
    "Capability",
    "Contrast",
    "Engine",
    "EngineResult",
    "EngineRow",
    "EngineRun",
    "Estimator",
    "Grouping",
    "SpoiledImage",
    "Step",
    "Tissue",
    "hash_inputs",
    "merge_results",
    "row_measurement",
]


class Contrast(StrEnum):
    """What the image shows bright; the names are those of the Spinal Cord Toolbox."""

    T1 = "t1"
    T2 = "t2"
    T2S = "t2s"
    DWI = "dwi"


class Tissue(StrEnum):
    """What a segmentation is of."""

    CORD = "cord"
    GREY_MATTER = "grey matter"


class Grouping(StrEnum):
    """Over what a number is averaged."""

    ALL = "all"
    LEVEL = "level"
    SLICE = "slice"


class Estimator(StrEnum):
    """How a metric is taken from the voxels of a region."""

    WEIGHTED_AVERAGE = "wa"
    BINARY = "bin"
    MAXIMUM_LIKELIHOOD = "ml"
    MAXIMUM_A_POSTERIORI = "map"
    MEDIAN = "median"


class Step(StrEnum):
    """What an engine may be able to do."""

    SEGMENT_CORD = "segment cord"
    SEGMENT_GREY_MATTER = "segment grey matter"
    LABEL_LEVELS = "label levels"
    REGISTER_TEMPLATE = "register template"
    WARP_TEMPLATE = "warp template"
    COREGISTER = "coregister"
    MOTION_CORRECT = "motion correct"
    DTI = "dti"
    MTR = "mtr"
    MTSAT = "mtsat"
    MORPHOMETRY = "morphometry"
    EXTRACT = "extract"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """Whether an engine can take a step here and now; where not, why, and what to do."""

    step: Step
    available: bool
    reason: str = ""
    todo: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoiledImage:
    """One spoiled gradient-echo image of a magnetization-transfer protocol.

    Attributes
    ----------
    path : Path
    repetition_time_s : float
        Seconds, never milliseconds.
    flip_angle_deg : float
        Degrees.
    """

    path: Path
    repetition_time_s: float
    flip_angle_deg: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRun:
    """How one step was carried out.

    Attributes
    ----------
    engine, version : str
        Who did it.  Values of different versions are not one statistic.
    argv : tuple of str
        The exact command, or the function and its settings for an engine without programs.
    exit_status : int
    runtime_s : float
        Wall-clock seconds.
    log : Path or None
        What the program printed.
    input_hashes : mapping
        SHA-256 by file name.
    """

    engine: str
    version: str
    argv: tuple[str, ...]
    exit_status: int = 0
    runtime_s: float = math.nan
    log: Path | None = None
    input_hashes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRow:
    """One number of one region, with the reason where there is none.

    Attributes
    ----------
    quantity : str
        Identifier; for example ``CSA`` or ``MTR``.
    value : float
        In ``unit``; NaN where it cannot be known, and then ``reason`` says why.
    standard_deviation : float
        Within the region (over slices for morphometry, over voxels for extraction; ddof 0).
    slices : tuple of int
        Slice numbers from inferior to superior.
    level : str
        Vertebral level or levels (``C4``, ``C2-C5``); empty where not known.
    n_voxels : float
        Sum of the weights of the voxels, which need not be whole.
    coverage : float
        Fraction of the asked slices that hold the region; NaN where not known.
    method : str
        Model and estimator.
    grouping : Grouping
        What it was averaged over.
    engine_build : str
        What the program itself says about its version, for the record.
    """

    quantity: str
    value: float
    unit: str
    region: str = ""
    standard_deviation: float = math.nan
    slices: tuple[int, ...] = ()
    level: str = ""
    n_voxels: float = math.nan
    coverage: float = math.nan
    method: str = ""
    engine: str = ""
    version: str = ""
    engine_build: str = ""
    reason: str = ""
    grouping: Grouping = Grouping.ALL


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineResult:
    """Images by role, rows, and how they came about.

    ``files`` maps a role (``segmentation``, ``levels``, ``warp_template2anat``, ``FA``) to a
    file or folder that was checked: it exists, is new, loads and lies on the expected grid.
    ``units`` gives the unit of each file that holds a quantity.
    """

    files: Mapping[str, Path] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    rows: tuple[EngineRow, ...] = ()
    runs: tuple[EngineRun, ...] = ()
    notices: tuple[Notice, ...] = ()


@runtime_checkable
class Engine(Protocol):
    """What every engine can be asked.

    ``workdir`` is the folder of one image of one participant; the step leaves its files there
    under fixed names and replaces those of an earlier call.  A step that the engine cannot take
    raises :class:`~cordqa.engines.errors.EngineUnavailableError` before any work is done.
    """

    @property
    def name(self) -> str:
        """Short name, stored with every value."""

    @property
    def version(self) -> str:
        """Version, stored with every value."""

    def capabilities(self) -> tuple[Capability, ...]:
        """Say for each step whether it can be taken; never raises."""

    def segment(
        self, image: Path, workdir: Path, *, contrast: Contrast, tissue: Tissue = Tissue.CORD
    ) -> EngineResult:
        """Segment the cord or its grey matter: file ``segmentation``."""

    def label_levels(
        self, image: Path, workdir: Path, *, segmentation: Path, contrast: Contrast, discs: Path | None = None
    ) -> EngineResult:
        """Give each cord voxel its vertebral level: file ``levels``.

        ``discs`` holds one voxel per disc; value 3 is the disc C2/C3.
        """

    def register_template(
        self,
        image: Path,
        workdir: Path,
        *,
        segmentation: Path,
        contrast: Contrast,
        discs: Path | None = None,
        bodies: Path | None = None,
        reference: str = "template",
    ) -> EngineResult:
        """Align the template: files ``warp_template2anat`` and ``warp_anat2template``."""

    def warp_template(
        self, image: Path, workdir: Path, *, warp: Path, with_atlas: bool = True
    ) -> EngineResult:
        """Bring the template to the image: ``levels``, ``cord`` and, if asked, folder ``atlas``."""

    def coregister(
        self, moving: Path, workdir: Path, *, fixed: Path, segmentation: Path | None = None
    ) -> EngineResult:
        """Align one contrast to another: file ``registered``, on the grid of ``fixed``."""

    def motion_correct(
        self,
        image: Path,
        workdir: Path,
        *,
        bvals: Path,
        bvecs: Path,
        mask: Path | None = None,
        group_size: int = 3,
    ) -> EngineResult:
        """Align diffusion volumes: files ``image``, ``b0_mean``, ``dwi_mean``."""

    def dti(
        self, image: Path, workdir: Path, *, bvals: Path, bvecs: Path, mask: Path | None = None
    ) -> EngineResult:
        """Fit the diffusion tensor: files ``FA``, ``MD``, ``RD``, ``AD``."""

    def mtr(self, mt_on: Path, workdir: Path, *, mt_off: Path) -> EngineResult:
        """Magnetization transfer ratio in percent: file ``MTR``.  The images share one grid."""

    def mtsat(
        self, mt_on: SpoiledImage, workdir: Path, *, mt_off: SpoiledImage, t1w: SpoiledImage
    ) -> EngineResult:
        """Magnetization transfer saturation in percent and T1: files ``MTsat`` and ``T1``."""

    def morphometry(
        self,
        segmentation: Path,
        workdir: Path,
        *,
        group_by: Grouping = Grouping.SLICE,
        levels: Sequence[int] = (),
        level_image: Path | None = None,
        angle_correction: bool = True,
    ) -> EngineResult:
        """Measure the shape of the cord: rows."""

    def extract(
        self,
        metric: Path,
        workdir: Path,
        *,
        atlas: Path,
        labels: Sequence[int],
        quantity: str,
        unit: str,
        estimator: Estimator = Estimator.MAXIMUM_A_POSTERIORI,
        group_by: Grouping = Grouping.ALL,
        levels: Sequence[int] = (),
        slices: tuple[int, int] | None = None,
        level_image: Path | None = None,
        combine: bool = False,
    ) -> EngineResult:
        """Extract a metric per region: rows in the registered unit of ``quantity``.

        ``unit`` is that of the image; ``slices`` are the first and last, inferior to superior.
        """


def hash_inputs(paths: Iterable[Path]) -> dict[str, str]:
    """Return the SHA-256 of each input file, by path.

    Raises
    ------
    EngineError
        If a file cannot be read.
    """
    hashes: dict[str, str] = {}
    for path in paths:
        try:
            with path.open("rb") as stream:
                hashes[str(path)] = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise EngineError(f"cannot be read: {error.strerror or error}", where=str(path)) from error
    return hashes


def merge_results(results: Iterable[EngineResult]) -> EngineResult:
    """Join results; files of a later one replace those of the same role.

    Raises
    ------
    MixedEnginesError
        If they come from different engines or versions.
    """
    results = tuple(results)
    makers = sorted({(run.engine, run.version) for result in results for run in result.runs})
    makers += [m for m in sorted({(r.engine, r.version) for x in results for r in x.rows}) if m not in makers]
    if len(makers) > 1:
        raise MixedEnginesError(
            "values of different engines or versions do not go into one table",
            found=", ".join(f"{name} {version}" for name, version in makers),
            todo="run all participants with one version, or analyse them apart",
        )
    files: dict[str, Path] = {}
    units: dict[str, str] = {}
    for result in results:
        files.update(result.files)
        units.update(result.units)
    return EngineResult(
        files=files,
        units=units,
        rows=tuple(row for result in results for row in result.rows),
        runs=tuple(run for result in results for run in result.runs),
        notices=tuple(notice for result in results for notice in result.notices),
    )


def row_measurement(row: EngineRow, *, entities: Entities) -> Measurement:
    """Turn a row into a measurement; slices go into the level where they are what was asked for."""
    single = row.slices[0] if row.grouping is Grouping.SLICE and len(row.slices) == 1 else None
    level = row.level
    if single is not None:
        level = slice_label(single, level)
    elif not level and row.slices:
        first, last = min(row.slices), max(row.slices)
        level = f"slice {first}" if first == last else f"slices {first}:{last}"
    n_voxels = round(row.n_voxels) if math.isfinite(row.n_voxels) else 0
    return Measurement(
        quantity=row.quantity,
        value=row.value,
        unit=row.unit,
        region=row.region,
        level=level,
        n_voxels=n_voxels,
        coverage=row.coverage,
        method=row.method,
        engine=f"{row.engine} {row.version}".strip(),
        entities=entities,
        flags=(row.reason,) if row.reason else (),
        slice_number=single,
    )
