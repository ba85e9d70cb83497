"""What the parts of a cord run hand to each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cordqa import __version__
from cordqa.cord.axes import check_same_grid, orient
from cordqa.cord.levels import LevelMap
from cordqa.cord.morphometry import SliceTable
from cordqa.errors import CordqaError
from cordqa.io.bids_index import BidsFile
from cordqa.models.maps import FittedMaps, Reasons
from cordqa.records import Entities, Figure, Measurement, Notice, Outcome, Severity, State, Verdict, Volume

if TYPE_CHECKING:
    from cordqa.cord.atlas import AtlasImage
    from cordqa.cord.signal_extraction import SignalModel

__all__ = ["CordImage", "Levels", "Mask", "TransferMaps", "Unit", "lay_like"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """A cord mask on the grid of its image.

    Attributes
    ----------
    volume : Volume
        In the order of the image as stored.
    engine, version : str
        Who drew it: an engine, or ``user``.
    method : str
    confidence : ndarray, shape (n_slices,), or None
        Per slice in stored order; None for a mask of the user.
    slice_flags : tuple of tuple of str
        Per slice in stored order; empty for a mask of the user.
    source : str
        File of a mask of the user.
    """

    volume: Volume
    engine: str
    version: str
    method: str
    confidence: NDArray[np.float64] | None = None
    slice_flags: tuple[tuple[str, ...], ...] = ()
    source: str = ""

    @property
    def label(self) -> str:
        """Engine and version, as they stand beside every value."""
        if self.engine == "user":
            return f"builtin {__version__}, mask of the user"
        own = f"{self.engine} {self.version}"
        return own if self.engine == "builtin" else f"{own} mask, builtin {__version__}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """Levels of an image, and how they came there."""

    map: LevelMap
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CordImage:
    """One image with its cord."""

    file: BidsFile
    volume: Volume
    entities: Entities
    mask: Mask
    table: SliceTable
    levels: Levels | None
    outliers: Mapping[int, str]  # slice number from inferior to what is unusual about it
    left_out: Mapping[int, str] = field(default_factory=dict)  # the same, to a reviewer's reason

    @property
    def label(self) -> str:
        """Contrast with run, as it stands in texts."""
        run = f", run {self.entities.run}" if self.entities.run else ""
        return f"{self.entities.acquisition}{run}"

    def level_names(self) -> list[str]:
        """Level of every slice of the table; empty where none is known."""
        if self.levels is None:
            return [""] * self.table.slices.size
        names = self.levels.map.names()
        return [names[int(number)] for number in self.table.slices]


def _no_model(_signals: NDArray[np.float64]) -> FittedMaps:
    """Stand in for the model of maps that were not computed here."""
    return FittedMaps(model="", values={}, units={}, reasons=Reasons.collect((0,), []))


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferMaps:
    """Maps of one magnetization-transfer protocol, on the grid of ``image``.

    ``model`` makes the quantities of the maps from ``signals``, for a voxel or for a region.
    """

    image: CordImage
    maps: Mapping[str, Volume]
    atlas: AtlasImage | None
    sources: tuple[BidsFile, ...]
    flags: Mapping[str, tuple[str, ...]]
    shifts: tuple[str, ...] = ()
    signals: tuple[Volume, ...] = ()  # MT-on, MT-off and T1w where there is one, aligned
    model: SignalModel = field(default=_no_model)


@dataclass(slots=True)
class Unit:
    """What accumulates over the steps of one participant and session."""

    name: str
    segment: Callable[[BidsFile, Volume], tuple[Mask, tuple[Notice, ...]]]
    images: list[CordImage] = field(default_factory=list)
    rows: list[Measurement] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def done(self, contrast: str, step: str, reason: str, sources: tuple[str, ...] = ()) -> None:
        """Say that a step was done."""
        self._outcome(contrast, step, State.DONE, reason, "", sources)

    def skip(self, contrast: str, step: str, reason: str, code: str, sources: tuple[str, ...] = ()) -> None:
        """Say that a step was not taken, and why."""
        self._outcome(contrast, step, State.SKIPPED, reason, code, sources)

    def fail(self, contrast: str, step: str, error: CordqaError, sources: tuple[str, ...] = ()) -> None:
        """Say that a step failed, and why."""
        self._outcome(contrast, step, State.FAILED, str(error), error.code, sources)

    def _outcome(
        self, contrast: str, step: str, state: State, reason: str, code: str, sources: tuple[str, ...]
    ) -> None:
        what = f"{self.name} {contrast}: {step}"
        self.outcomes.append(Outcome(what=what, state=state, reason=reason, code=code, sources=sources))

    def note(self, code: str, message: str, where: str, severity: Severity = Severity.WARNING) -> None:
        """Keep a remark; the same remark about the same thing is kept once."""
        notice = Notice(severity=severity, message=message, where=f"{self.name} {where}", code=code)
        if notice not in self.notices:
            self.notices.append(notice)


def lay_like(volume: Volume, image: Volume, *, what: str) -> Volume:
    """Lay a mask that covers the same voxels in another order out as the image is stored.

    Programs write masks in an orientation of their own; as long as the voxels are the same ones,
    the order of the axes does not matter.

    Raises
    ------
    InputError
        If it does not cover the same voxels.
    """
    theirs, ours = orient(volume, what=what), orient(image)
    check_same_grid(
        Volume(data=ours.data, affine=ours.affine, source=image.source),
        Volume(data=theirs.data, affine=theirs.affine, source=volume.source),
        what=f"image and {what}",
    )
    return Volume(data=ours.restore(theirs.data), affine=image.affine, source=volume.source)
