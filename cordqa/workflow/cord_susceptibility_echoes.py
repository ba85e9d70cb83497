"""Echoes of a gradient-echo scan: which files belong together, and what they hold.

``sub-01_echo-1_part-mag_MEGRE.nii.gz`` and its like are one scan, of as many files as it has echoes
and parts, or one 4D file per part.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.io.bids_index import BidsFile, BidsIndex
from cordqa.io.volumes import read_volume
from cordqa.models.susceptibility.scan import Scan
from cordqa.records import Volume
from cordqa.workflow.cord_records import Unit

__all__ = ["EchoSet", "gather_echoes", "read_echo_times", "read_part", "read_scan"]

Single = NDArray[np.float32]

#: Scans of this suffix are always of gradient echoes; those of the others where phase lies beside them.
_ALWAYS = "MEGRE"
_SUFFIXES = (_ALWAYS, "GRE", "T2starw", "T2star")
_PHASE = ("phase", "imag")
#: Entities in which files of one scan differ.
_WITHIN = ("echo", "part")
#: Echo times beyond this are no seconds.
_LONGEST_S = 0.25
#: Echo times of phase and magnitude that differ by no more than this are the same, rounded.
_SAME_S = 5e-5
#: Of scanners for people and animals.
_FIELDS_T = (0.05, 12.0)
#: Half a turn, with room for the rounding of integers.
_TURN = 1.001 * math.pi
_WORDS = {
    "mag": "magnitude",
    "phase": "phase",
    "real": "real part",
    "imag": "imaginary part",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoSet:
    """Files of one gradient-echo scan.

    Attributes
    ----------
    by_part : mapping of str to tuple of BidsFile
        ``mag`` and ``phase``, or ``real`` and ``imag``; in the order of the echoes.
    """

    by_part: Mapping[str, tuple[BidsFile, ...]]

    @property
    def files(self) -> tuple[BidsFile, ...]:
        """All files."""
        return tuple(file for files in self.by_part.values() for file in files)

    @property
    def image(self) -> BidsFile:
        """What stands for the scan: its first file, without the entities in which files differ.

        Masks and labels of the user that name no echo and no part belong to it.
        """
        first = (self.by_part.get("mag") or self.files)[0]
        return replace(first, entities={k: v for k, v in first.entities.items() if k not in _WITHIN})

    @property
    def name(self) -> str:
        """Name for texts: the entities that all files share, without participant and session."""
        words = [f"{k}-{v}" for k, v in self.image.entities.items() if k not in ("sub", "ses")]
        return "_".join([*words, self.image.suffix])

    @property
    def acquisition(self) -> str:
        """Name without the run, which repeats share."""
        words = [f"acq-{self.image.entities['acq']}"] if "acq" in self.image.entities else []
        return "_".join([*words, self.image.suffix])


def gather_echoes(files: Iterable[BidsFile]) -> list[EchoSet]:
    """Find the gradient-echo scans among the images of a participant and session.

    A ``T2starw`` image without phase is no such scan: it stays an anatomical image.
    """
    groups: dict[tuple[object, ...], list[BidsFile]] = defaultdict(list)
    for file in files:
        if file.suffix in _SUFFIXES:
            key = (file.suffix, *((k, v) for k, v in file.entities.items() if k not in _WITHIN))
            groups[key].append(file)
    found = []
    for some in groups.values():
        parts = {_part(file) for file in some}
        if some[0].suffix == _ALWAYS or parts & set(_PHASE):
            found.append(_make_set(some))
    return sorted(found, key=lambda one: one.image.relative)


def _part(file: BidsFile) -> str:
    return file.entities.get("part", "mag")


def _make_set(files: Sequence[BidsFile]) -> EchoSet:
    by_part: dict[str, list[BidsFile]] = {}
    for part in ("mag", "phase", "real", "imag"):
        own = [file for file in files if _part(file) == part]
        if own:
            by_part[part] = sorted(own, key=_echo)
    return EchoSet(by_part={part: tuple(own) for part, own in by_part.items()})


def _echo(file: BidsFile) -> tuple[int, str]:
    """Order by the number of the echo: 10 comes after 2."""
    number = file.entities.get("echo", "")
    return int(number) if number.isdigit() else 0, file.relative


# -- reading -----------------------------------------------------------------------------------------


def read_part(echoes: EchoSet, part: str, unit: Unit) -> Volume:
    """Read all echoes of one part; four dimensions, echoes last.

    Raises
    ------
    InputError
        If the part is missing, or its files do not lie on one grid.
    """
    files = echoes.by_part.get(part, ())
    if not files:
        raise InputError(f"there is no {_WORDS[part]} of these echoes", where=echoes.name)
    volumes = []
    for file in files:
        volumes.append(read_volume(file.path, source=file.relative))
        unit.used.add(file.relative)
    first = volumes[0]
    for other in volumes[1:]:
        _check_grid(first, other)
    if len(volumes) == 1:
        data = first.data if first.data.ndim == 4 else first.data[..., None]
    else:
        data = np.stack([_three(volume) for volume in volumes], axis=-1)
    if data.ndim != 4:
        raise InputError(
            "echoes must have three dimensions each",
            where=first.source,
            found=f"shape {' x '.join(map(str, first.data.shape))}",
        )
    return Volume(data=data, affine=first.affine, source=first.source)


def _three(volume: Volume) -> NDArray[np.generic]:
    data = volume.data
    if data.ndim == 4 and data.shape[3] == 1:
        data = data[..., 0]
    if data.ndim != 3:
        raise InputError(
            "one of several echoes must have three dimensions",
            where=volume.source,
            found=f"shape {' x '.join(map(str, data.shape))}",
            todo="give one file per echo, or one file of all",
        )
    return data


def _check_grid(first: Volume, other: Volume) -> None:
    same = first.data.shape[:3] == other.data.shape[:3]
    if not same or not np.allclose(first.affine, other.affine, atol=1e-2):
        raise InputError(
            "the echoes are not on one grid",
            where=other.source,
            found=f"{other.data.shape[:3]}",
            expected=f"{first.data.shape[:3]} at the place of {first.source}",
        )


def read_scan(
    index: BidsIndex,
    echoes: EchoSet,
    unit: Unit,
    magnitude: Volume | None = None,
    *,
    phase_range: tuple[float, ...] | None = None,
) -> Scan:
    """Read phase, magnitude, echo times and field strength.

    Parameters
    ----------
    index : BidsIndex
    echoes : EchoSet
    unit : Unit
        Told which files were used.
    magnitude : Volume, optional
        The magnitude, where it was read before.
    phase_range : tuple of two floats, optional
        Stored values of -pi and pi, where the user knows them.

    Raises
    ------
    InputError
        If phase or magnitude is missing, their echoes differ, or the sidecars do not tell echo times
        in seconds and the field strength, or contradict each other about the times.
    """
    parts = not echoes.by_part.get("phase") and {"real", "imag"} <= echoes.by_part.keys()
    first, second = ("real", "imag") if parts else ("phase", "mag")
    phase = read_part(echoes, first, unit)
    other = magnitude if magnitude is not None and not parts else read_part(echoes, second, unit)
    _check_grid(phase, other)
    if phase.data.shape != other.data.shape:
        raise InputError(
            f"{_WORDS[first]} and {_WORDS[second]} do not have the same echoes",
            where=echoes.name,
            found=f"{phase.data.shape[3]} and {other.data.shape[3]}",
            todo="give both for every echo",
        )
    files = echoes.by_part[first]
    _check_partners(echoes, first, second)
    times = _common_times(index, files, echoes.by_part[second], phase.data.shape[3])
    return Scan(
        phase=np.asarray(phase.data, dtype=np.float32),
        magnitude=np.asarray(other.data, dtype=np.float32),
        echo_times_s=times,
        affine=phase.affine,
        field_strength_t=_field_strength(index, (*files, *echoes.by_part[second])),
        phase_range=None if parts else phase_range or _range(index, files[0], phase),
        parts=parts,
        encoding=_encoding(index, files[0]),
        slice_direction=str(index.sidecar(files[0]).get("SliceEncodingDirection", "")),
    )


def _range(index: BidsIndex, file: BidsFile, phase: Volume) -> tuple[float, float] | None:
    """Range of a turn where the sidecar says that the phase is in rad; found out otherwise."""
    largest = float(np.nanmax(np.abs(phase.data))) if np.isfinite(phase.data).any() else math.inf
    # A sidecar that says rad beside other numbers is wrong: then the numbers decide.
    said = str(index.sidecar(file).get("Units", "")).lower() in ("rad", "radian", "radians")
    return (-math.pi, math.pi) if said and largest <= _TURN else None


def _check_partners(echoes: EchoSet, first: str, second: str) -> None:
    """Refuse echo 1 of one part beside echo 2 of the other."""
    numbers = [[file.entities.get("echo", "") for file in echoes.by_part[part]] for part in (first, second)]
    if len(numbers[0]) == len(numbers[1]) and numbers[0] != numbers[1]:
        raise InputError(
            f"{_WORDS[first]} and {_WORDS[second]} do not have the same echoes",
            where=echoes.name,
            found=" and ".join(", ".join(some) or "none" for some in numbers),
        )


def _common_times(
    index: BidsIndex, files: Sequence[BidsFile], others: Sequence[BidsFile], n_echoes: int
) -> tuple[float, ...]:
    """Echo times of both parts, which must be the same; those of one part do where the other has none."""
    told = [any("EchoTime" in index.sidecar(file) for file in some) for some in (files, others)]
    if not told[0] and told[1]:
        return read_echo_times(index, others, n_echoes)
    times = read_echo_times(index, files, n_echoes)
    if told[1]:
        partners = read_echo_times(index, others, n_echoes)
        if not np.allclose(times, partners, rtol=0, atol=_SAME_S):
            raise InputError(
                "the sidecars of the two parts contradict each other about the echo times",
                where=others[0].relative,
                found=", ".join(f"{time:g}" for time in partners),
                expected=", ".join(f"{time:g}" for time in times),
                todo="correct EchoTime, in seconds",
            )
    return times


def read_echo_times(index: BidsIndex, files: Sequence[BidsFile], n_echoes: int) -> tuple[float, ...]:
    """Return echo times in s: one number per file, or a list beside a 4D file; never rescaled.

    Parameters
    ----------
    index : BidsIndex
    files : sequence of BidsFile
        Of one part, in the order of the echoes.
    n_echoes : int

    Raises
    ------
    InputError
        If a sidecar does not tell, there are more or fewer than echoes, or they cannot be seconds.
    """
    times: list[float] = []
    for file in files:
        given = index.sidecar(file).get("EchoTime")
        values = given if isinstance(given, list) else [given]
        known = [
            float(v) for v in values if isinstance(v, (int, float)) and not isinstance(v, bool) and v > 0
        ]
        if len(known) != len(values) or not all(map(math.isfinite, known)):
            raise InputError(
                "the sidecar does not tell the echo time",
                where=file.relative,
                found=str(given)[:60],
                todo="add EchoTime in seconds (a list of all echoes beside a 4D file)",
            )
        times += known
    if len(times) != n_echoes:
        raise InputError(
            "the number of echo times does not fit the number of echoes",
            where=files[0].relative,
            found=str(len(times)),
            expected=str(n_echoes),
            todo="write EchoTime as a list of all echoes, in seconds",
        )
    if max(times) > _LONGEST_S:
        raise InputError(
            "the echo times cannot be in seconds; are they milliseconds?",
            where=files[0].relative,
            found=", ".join(f"{time:g}" for time in times),
            expected=f"at most {_LONGEST_S:g} s",
            todo="write EchoTime in seconds, as BIDS has it",
        )
    return tuple(times)


def _field_strength(index: BidsIndex, files: Sequence[BidsFile]) -> float:
    """Return the field strength in T, of the first sidecar that tells."""
    told = [index.sidecar(file).get("MagneticFieldStrength") for file in files]
    value = next((one for one in told if one is not None), None)
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if value is None or not number:
        raise InputError(
            "the sidecar does not tell the field strength",
            where=files[0].relative,
            found=repr(value)[:60] if value is not None else "",
            todo="add MagneticFieldStrength in T, a number",
        )
    if not _FIELDS_T[0] <= value <= _FIELDS_T[1]:
        raise InputError(
            "the field strength cannot be in T; is it the frequency?",
            where=files[0].relative,
            found=f"{value:g}",
            expected=f"{_FIELDS_T[0]:g} to {_FIELDS_T[1]:g} T",
            todo="write MagneticFieldStrength in T, as BIDS has it",
        )
    return float(value)


def _encoding(index: BidsIndex, file: BidsFile) -> str:
    """Tell whether the acquisition was 2D or 3D, where the sidecar does."""
    said = str(index.sidecar(file).get("MRAcquisitionType", "")).strip().upper()
    return said if said in ("2D", "3D") else ""
