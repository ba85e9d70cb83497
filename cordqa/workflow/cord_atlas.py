"""Which atlas is laid into the cord: the built-in one, or the user's own copy of PAM50."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import overload

import numpy as np

from cordqa.cord.atlas import AtlasImage, AtlasLabels, parse_label_table
from cordqa.cord.atlas_shapes import analytical_sections
from cordqa.cord.point_spread import PointSpread, estimate_point_spread, lay_blurred
from cordqa.cord.template import (
    AtlasSections,
    lay_atlas,
    sections_from_arrays,
    sections_from_template,
    sections_to_arrays,
)
from cordqa.errors import CordqaError, InputError
from cordqa.io.atomic import appear_complete
from cordqa.io.files import check_folder, iter_lines, read_small
from cordqa.io.volumes import read_volume
from cordqa.records import Volume
from cordqa.workflow.cord_records import CordImage, Unit

__all__ = ["AtlasChoice", "lay_as_imaged", "lay_into_cord", "load_sections", "prepare_atlas", "regions_of"]

#: Raised when sections are cut or packed in another way, so that an older cache is not taken.
SECTIONS_VERSION = 1
_MAX_LABEL_BYTES = 2 * 1024 * 1024
#: Regions for which every atlas is good enough.
GROUPS = ("cord", "WM", "GM", "DC", "LF", "VF")
_NEEDED = ("template/PAM50_cord.nii.gz", "template/PAM50_label_disc.nii.gz", "atlas/info_label.txt")


@dataclass(frozen=True, slots=True, kw_only=True)
class AtlasChoice:
    """An atlas that any process can load: its name, and where its sections lie packed.

    ``packed`` is None for the built-in one.
    """

    name: str
    approximate: bool
    packed: Path | None = None
    labels: Path | None = None


def prepare_atlas(template: Path | None, work: Path) -> AtlasChoice:
    """Choose the atlas; cut a template into sections once, and keep them in the working folder.

    Raises
    ------
    InputError
        If the template lacks a file.
    """
    if template is None:
        return AtlasChoice(name="built-in analytical atlas", approximate=True)
    check_folder(template)
    folder = template / "data" / "PAM50" if (template / "data" / "PAM50").is_dir() else template
    missing = [name for name in _NEEDED if not (folder / name).is_file()]
    if missing:
        raise InputError(
            "holds no PAM50 template",
            where=str(template),
            found=f"no {missing[0]}",
            expected="the folder PAM50 with its folders template and atlas",
            todo="give --template the folder PAM50 of your Spinal Cord Toolbox",
        )
    weights = sorted((folder / "atlas").glob("PAM50_atlas_*.nii.gz"))
    packed = work / f"pam50-{_stamp([folder / name for name in _NEEDED] + weights)}.npz"
    choice = AtlasChoice(
        name="PAM50 (the user's copy)",
        approximate=False,
        packed=packed,
        labels=folder / "atlas" / "info_label.txt",
    )
    if not packed.is_file():
        sections = sections_from_template(
            read_volume(folder / _NEEDED[0]),
            _OneByOne(weights),
            read_volume(folder / _NEEDED[1]),
            _labels(choice),
        )
        with appear_complete(packed, suffix=".npz") as temporary:
            np.savez_compressed(temporary, **sections_to_arrays(sections))  # type: ignore[arg-type]
    return choice


class _OneByOne(Sequence[Volume]):
    """Volumes that are read when they are asked for: all labels of a template at once need gigabytes."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, index: int) -> Volume: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Volume]: ...
    def __getitem__(self, index: int | slice) -> Volume | Sequence[Volume]:
        if isinstance(index, slice):
            return _OneByOne(self._paths[index])
        return read_volume(self._paths[index])


def _stamp(paths: list[Path]) -> str:
    """Name the content of the files, wherever they lie and whenever they were copied."""
    digest = hashlib.sha256(f"sections {SECTIONS_VERSION}".encode())
    for path in paths:
        try:
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror or error}", where=str(path)) from error
    return digest.hexdigest()[:16]


def _labels(choice: AtlasChoice) -> AtlasLabels:
    if choice.labels is None:
        raise InputError("an atlas of a template needs its table of labels")
    text = "\n".join(iter_lines(read_small(choice.labels, limit=_MAX_LABEL_BYTES)))
    return parse_label_table(text, source=choice.name)


@lru_cache(maxsize=2)
def load_sections(choice: AtlasChoice) -> AtlasSections:
    """Load the sections of an atlas; once per process."""
    if choice.packed is None:
        return analytical_sections()
    with np.load(choice.packed) as arrays:
        return sections_from_arrays({name: arrays[name] for name in arrays.files}, _labels(choice))


def regions_of(labels: AtlasLabels, choice: AtlasChoice) -> tuple[str, ...]:
    """Regions that are reported: groups of tracts, and single tracts where the atlas is good enough."""
    groups = [name for name in GROUPS if name in labels.regions]
    if choice.approximate:
        return tuple(groups)
    csf = set(labels.tissues.get("CSF", ()))
    tracts = [name for n, name in enumerate(labels.names) if n not in csf]
    return (*groups, *(name for name in tracts if name not in groups))


def lay_into_cord(image: CordImage, choice: AtlasChoice, unit: Unit, name: str) -> AtlasImage | None:
    """Lay the atlas by mask and levels; without it there are maps but no values."""
    try:
        laid, notices = lay_atlas(
            load_sections(choice),
            image.mask.volume,
            coordinate=image.levels.map.coordinate if image.levels is not None else None,
            pieces="raise" if image.mask.engine == "user" else "largest",
        )
    except CordqaError as error:
        unit.fail(name, "atlas", error, (image.file.relative,))
        return None
    for notice in notices:
        unit.note(notice.code, notice.message, name, notice.severity)
    return laid


def lay_as_imaged(
    image: CordImage, choice: AtlasChoice, atlas: AtlasImage, signals: Sequence[Volume]
) -> tuple[AtlasImage, PointSpread]:
    """Lay the atlas with the edge and the blur that the signals show; as it is where they tell none."""
    sections = load_sections(choice)
    coordinate = image.levels.map.coordinate if image.levels is not None else None
    spread = estimate_point_spread(
        sections, image.mask.volume, signals, atlas, coordinate=coordinate, left_out=image.left_out
    )
    return lay_blurred(sections, image.mask.volume, spread, atlas, coordinate=coordinate), spread
