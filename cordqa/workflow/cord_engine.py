"""Who finds the cord in an image: the built-in network, or the Spinal Cord Toolbox."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cordqa import __version__
from cordqa.cord.segment import SegmentationSettings, segment_cord
from cordqa.engines.protocol import Contrast
from cordqa.engines.sct.engine import SctEngine
from cordqa.engines.sct.locate import Toolbox
from cordqa.io.bids_index import BidsFile
from cordqa.io.volumes import read_volume
from cordqa.records import Notice, Severity, Volume
from cordqa.workflow.cord_records import Mask, lay_like

__all__ = ["Segmenter", "make_segmenter", "segment_builtin"]

Segmenter = Callable[[BidsFile, Volume], tuple[Mask, tuple[Notice, ...]]]
_CONTRASTS = {"T1w": Contrast.T1, "UNIT1": Contrast.T1, "T2w": Contrast.T2}


def make_segmenter(toolbox: Toolbox | None, work: Path) -> Segmenter:
    """Return the function that segments; with a toolbox it is the toolbox's."""
    return segment_builtin if toolbox is None else _Sct(engine=SctEngine(toolbox), work=work)


def segment_builtin(
    file: BidsFile, volume: Volume, *, at_edge: bool = False
) -> tuple[Mask, tuple[Notice, ...]]:
    """Segment with the built-in network.

    Parameters
    ----------
    file : BidsFile
    volume : Volume
    at_edge : bool
        Draw the mask at the edge in the image instead of a little inside, as customary masks are: the
        tissues of voxels at the border can then be told apart by how much of each they hold.

    Raises
    ------
    InputError, CordNotFoundError
        If the image cannot hold a cord, or none is found.
    """
    found = segment_cord(volume, settings=SegmentationSettings(inset_mm=0.0) if at_edge else None)
    mask = Mask(
        volume=Volume(data=found.mask, affine=volume.affine, source=f"cord of {file.relative}"),
        engine="builtin",
        version=__version__,
        method=f"{found.method}, drawn at the edge" if at_edge else found.method,
        confidence=found.confidence,
        slice_flags=found.flags,
    )
    notices = tuple(
        Notice(severity=Severity.INFO, message=text, code="cord.segmentation") for text in found.notes
    )
    return mask, notices


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sct:
    """Calls the toolbox; its files stay in the working folder."""

    engine: SctEngine
    work: Path

    def __call__(self, file: BidsFile, volume: Volume) -> tuple[Mask, tuple[Notice, ...]]:
        folder = self.work / "sct" / re.sub(r"[^A-Za-z0-9_-]", "_", file.name.partition(".")[0])
        folder.mkdir(parents=True, exist_ok=True)
        contrast = _CONTRASTS.get(file.suffix, Contrast.T2S)
        found = self.engine.segment(file.path, folder, contrast=contrast)
        path = found.files["segmentation"]
        mask = lay_like(read_volume(path, source=path.name), volume, what="mask of the toolbox")
        program = found.runs[0].argv[0] if found.runs and found.runs[0].argv else "sct"
        return (
            Mask(
                volume=mask,
                engine=self.engine.name,
                version=self.engine.version,
                method=f"Spinal Cord Toolbox {self.engine.version}, {Path(program).name}",
            ),
            found.notices,
        )
