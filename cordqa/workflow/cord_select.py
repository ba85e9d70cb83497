"""Which images of a participant are analysed, and as what."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cordqa.errors import InputError
from cordqa.io.bids_index import BidsFile, BidsIndex
from cordqa.records import Entities
from cordqa.workflow.cord_susceptibility_echoes import EchoSet, gather_echoes

__all__ = [
    "MTS_ROLES",
    "OLD_ROLES",
    "Selection",
    "TransferSet",
    "make_entities",
    "read_seconds",
    "select_images",
]

#: Images whose cord is measured, in order of trust for the levels: the first with labels lends them.
ANATOMICAL = ("T2w", "T1w", "T2starw", "T2star", "UNIT1")
MTS_ROLES = ("on", "off", "T1w")
#: Entities in which the images of one protocol differ.
_WITHIN = ("mt", "flip", "acq")
OLD_ROLES = {"mton": "on", "mt1": "on", "mtoff": "off", "mt0": "off", "t1w": "T1w", "t1": "T1w"}
_SITE_COLUMNS = ("site", "site_id", "institution_id", "institution", "center", "centre")
_MAX_TEXT = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferSet:
    """Images of one magnetization-transfer protocol, by role (``on``, ``off``, ``T1w``)."""

    by_role: Mapping[str, BidsFile]
    name: str
    acquisition: str  # the name without the run, which repeats share


@dataclass(slots=True)
class Selection:
    """What is analysed, and what was found and is not."""

    anatomical: list[BidsFile] = field(default_factory=list)
    transfer: list[TransferSet] = field(default_factory=list)
    diffusion: list[BidsFile] = field(default_factory=list)
    susceptibility: list[EchoSet] = field(default_factory=list)
    left: list[tuple[BidsFile, str]] = field(default_factory=list)


def select_images(index: BidsIndex, subject: str, session: str) -> Selection:
    """Choose the images of one participant and session."""
    chosen = Selection()
    files = [f for f in index.find(subject=subject) if f.session == session]
    pieces: dict[tuple[tuple[str, str], ...], list[BidsFile]] = defaultdict(list)
    chosen.susceptibility = gather_echoes(files)
    echoes = {file.relative for one in chosen.susceptibility for file in one.files}
    for file in files:
        if file.relative in echoes:
            continue
        if file.entities.get("part", "mag") != "mag":
            chosen.left.append((file, "only magnitude images are analysed"))
        elif file.suffix in ("MTS", "MTR"):
            key = tuple((k, v) for k, v in file.entities.items() if k not in _WITHIN or not _is_role(k, v))
            pieces[key].append(file)
        elif file.suffix in ANATOMICAL:
            chosen.anatomical.append(file)
        elif file.suffix == "dwi":
            chosen.diffusion.append(file)
        elif file.datatype in ("anat", "dwi"):
            chosen.left.append((file, f"no analysis of {file.suffix} images exists yet"))
    chosen.anatomical.sort(key=lambda file: (ANATOMICAL.index(file.suffix), file.relative))
    for files_of_set in pieces.values():
        _add_set(index, files_of_set, chosen)
    return chosen


def _is_role(key: str, value: str) -> bool:
    return key != "acq" or value.casefold() in OLD_ROLES


def _add_set(index: BidsIndex, files: Sequence[BidsFile], chosen: Selection) -> None:
    by_role: dict[str, BidsFile] = {}
    for file in sorted(files, key=lambda f: f.relative):
        role = _role(index, file, files)
        if not role:
            chosen.left.append((file, "its name does not tell whether the MT pulse was on or off"))
        elif role in by_role:
            chosen.left.append((file, f"a second image 'MT {role}' beside {by_role[role].name}"))
        else:
            by_role[role] = file
    if by_role:
        first = next(iter(by_role.values()))
        kept = [
            (k, v) for k, v in first.entities.items() if k == "run" or (k == "acq" and not _is_role(k, v))
        ]
        chosen.transfer.append(
            TransferSet(
                by_role=by_role,
                name="_".join([*(f"{k}-{v}" for k, v in kept), first.suffix]),
                acquisition="_".join([*(f"{k}-{v}" for k, v in kept if k != "run"), first.suffix]),
            )
        )


def _role(index: BidsIndex, file: BidsFile, files: Sequence[BidsFile]) -> str:
    """Tell MT-on, MT-off and T1-weighted apart: by ``mt`` and ``flip``, or by the older ``acq``."""
    state = file.entities.get("mt", "")
    if state == "on":
        return "on"
    if state == "off":
        rivals = [f for f in files if f.entities.get("mt") == "off"]
        if len(rivals) < 2:
            return "off"
        # The T1-weighted image has the larger flip angle; the order of the names says it if need be.
        return "T1w" if file is max(rivals, key=lambda f: (_flip(index, f), f.relative)) else "off"
    return OLD_ROLES.get(file.entities.get("acq", "").casefold(), "")


def _flip(index: BidsIndex, file: BidsFile) -> float:
    try:
        value = read_number(index.sidecar(file), "FlipAngle")
    except InputError:
        value = math.nan
    return value if math.isfinite(value) else -1.0


def read_number(sidecar: Mapping[str, Any], *names: str) -> float:
    """Return the first field that holds a finite number, else NaN."""
    for name in names:
        value = sidecar.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    return math.nan


def read_seconds(sidecar: Mapping[str, Any], *names: str) -> float:
    """Return a repetition or echo time in seconds, as BIDS has it."""
    return read_number(sidecar, *names)


def make_entities(index: BidsIndex, file: BidsFile, *, contrast: str = "") -> Entities:
    """Gather who and where from the file name, ``participants.tsv`` and the sidecar.

    Raises
    ------
    UnreadableFileError
        If the sidecar is not valid JSON.
    """
    sidecar = index.sidecar(file)
    person = index.participants.get(file.subject, {})
    site = next((person[name] for name in _SITE_COLUMNS if person.get(name)), "")
    site = site or _text(sidecar, "InstitutionName")
    vendor = _text(sidecar, "Manufacturer") or person.get("manufacturer", "")
    model = _text(sidecar, "ManufacturersModelName") or person.get("manufacturers_model_name", "")
    serial = _text(sidecar, "DeviceSerialNumber") or _text(sidecar, "StationName")
    field_T = read_number(sidecar, "MagneticFieldStrength")
    acquisition = file.entities.get("acq", "")
    label = contrast or "_".join(
        part for part in (f"acq-{acquisition}" if acquisition else "", file.suffix) if part
    )
    return Entities(
        subject=file.subject,
        session=file.session,
        run=file.entities.get("run", ""),
        acquisition=label,
        site=site,
        vendor=_vendor(vendor),
        model=model,
        software=_text(sidecar, "SoftwareVersions"),
        scanner=" ".join(part for part in (site, model, serial) if part),
        field_strength_T=field_T,
        acquired=_text(sidecar, "AcquisitionDateTime"),
    )


def _text(sidecar: Mapping[str, Any], name: str) -> str:
    value = sidecar.get(name)
    return " ".join(str(value).split())[:_MAX_TEXT] if isinstance(value, (str, int)) else ""


def _vendor(text: str) -> str:
    """Write the names of the vendors one way; others stay as they are."""
    for word, name in (("siemens", "Siemens"), ("philips", "Philips"), ("ge ", "GE"), ("general el", "GE")):
        if f"{text.casefold()} ".startswith(word):
            return name
    return text
