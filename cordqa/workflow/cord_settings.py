"""Options of a cord run."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from cordqa.cord.estimators import LINEAR, METHODS
from cordqa.cord.levels import level_number
from cordqa.errors import ConfigError, InputError
from cordqa.io.files import printable
from cordqa.workflow.cord_review import read_exclusions, why_excluded

__all__ = [
    "DENOISING",
    "ENGINES",
    "SIGNS",
    "SOURCES",
    "TENSORS",
    "CordSettings",
    "DenoiseName",
    "EngineName",
    "SignName",
    "SourceName",
    "TensorName",
    "parse_levels",
    "parse_range",
    "read_exclusions",
    "uses_signals",
    "why_excluded",
]

EngineName = Literal["builtin", "sct"]
ENGINES: tuple[str, ...] = get_args(EngineName)
SourceName = Literal["auto", "signals", "map"]
SOURCES: tuple[str, ...] = get_args(SourceName)
DenoiseName = Literal["none", "mppca", "patch2self"]
DENOISING: tuple[str, ...] = get_args(DenoiseName)
TensorName = Literal["wls", "iwls", "robust"]
TENSORS: tuple[str, ...] = get_args(TensorName)
SignName = Literal["auto", "positive", "negative"]
SIGNS: tuple[str, ...] = get_args(SignName)
_LEVEL = re.compile(r"[CTL]\d{1,2}(-[CTL]\d{1,2})?", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class CordSettings:
    """Options of a run; ``None`` or empty means "not given".

    Attributes
    ----------
    engine : str
        ``builtin`` or ``sct``.
    participants, sessions : tuple of str
        Labels to analyse; all where empty.
    levels : tuple of str
        ``C3`` or ``C2-C5``; every level met where empty.
    method : str
        How a value is taken from voxels that hold several tissues; see
        :data:`cordqa.cord.estimators.METHODS`.
    extract_from : str
        ``signals`` takes the signals of a region and computes MTR, MTsat and T1 from them once; ``map``
        takes the values from the maps of the voxels, as the Spinal Cord Toolbox does; ``auto`` takes
        MTR from its map, so that it stays comparable, and MTsat and T1 from signals, because in a map
        they are biased far more by voxels at the edge of the cord.
    sct_folder : Path or None
        Folder of the Spinal Cord Toolbox; found by environment or path where None.
    template : Path or None
        Folder of the user's own PAM50.
    derivatives : tuple of Path
        Further folders with the user's masks and labels.
    exclude_from : Path or None
        YAML with the marks of a reviewer, or a folder of such files.
    reference_table : Path or None
        Table of controls for z-scores.
    denoise : str
        Denoising of diffusion series: ``none``, ``mppca`` or ``patch2self``.
    gibbs : bool
        Remove Gibbs ringing of diffusion series; right only for images without interpolation, filter
        and partial Fourier.
    skip_motion : bool
        Leave diffusion series as they moved.
    tensor : str
        Estimator of the diffusion tensor: ``wls``, ``iwls`` or ``robust``.
    noddi : bool
        Fit NODDI as well, where AMICO is installed.
    phase_sign : str
        Whether the phase of gradient echoes grows with the field: ``positive``, ``negative``, or ``auto``,
        which looks for air beside tissue.
    phase_range : tuple of float
        Stored values of -pi and pi of these phases; found out where empty.
    protocol : str
        Acquisition protocol against which the scans are checked; none where empty.
    """

    engine: EngineName = "builtin"
    participants: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    method: str = "MAP"
    extract_from: SourceName = "auto"
    sct_folder: Path | None = None
    template: Path | None = None
    derivatives: tuple[Path, ...] = ()
    exclude_from: Path | None = None
    reference_table: Path | None = None
    denoise: DenoiseName = "none"
    gibbs: bool = False
    skip_motion: bool = False
    tensor: TensorName = "wls"
    noddi: bool = False
    phase_sign: SignName = "auto"
    phase_range: tuple[float, ...] = ()
    protocol: str = ""
    redo: bool = False

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ConfigError(
                "no such engine", where="engine", found=self.engine, expected=" or ".join(ENGINES)
            )
        if self.method not in METHODS:
            raise ConfigError(
                "no such way of extraction", where="method", found=self.method, expected=", ".join(METHODS)
            )
        if self.extract_from not in SOURCES:
            raise ConfigError(
                "no such source of values",
                where="extract-from",
                found=self.extract_from,
                expected=", ".join(SOURCES),
            )
        for value, option, known in (
            (self.denoise, "denoise", DENOISING),
            (self.tensor, "tensor", TENSORS),
            (self.phase_sign, "phase-sign", SIGNS),
        ):
            if value not in known:
                raise ConfigError("no such choice", where=option, found=value, expected=", ".join(known))
        for path, option in ((self.template, "template"), (self.reference_table, "reference-table")):
            if path is not None and not path.exists():
                raise ConfigError("does not exist", where=option, found=str(path))

    def plain(self) -> dict[str, Any]:
        """All options as they go into the configuration that is written."""
        found: dict[str, Any] = {}
        for key, value in asdict(self).items():
            if isinstance(value, tuple):
                found[key] = [str(item) for item in value]
            else:
                found[key] = str(value) if isinstance(value, Path) else value
        return found


def uses_signals(settings: CordSettings, quantity: str) -> bool:
    """Tell whether a quantity is taken from the signals of a region, or from its map.

    A median and a largest value are no weighted sums of voxels, so they are always those of the map.
    """
    if settings.method not in LINEAR:
        return False
    return settings.extract_from == "signals" or (settings.extract_from == "auto" and quantity != "MTR")


def parse_range(text: str) -> tuple[float, float]:
    """Understand ``-4096,4095``: the stored values of -pi and pi.

    Raises
    ------
    ConfigError
        If it is not a lower and a higher number.
    """
    try:
        low, high = (float(word) for word in text.split(","))
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(
            "is no range of phases",
            where="phase-range",
            found=printable(text, limit=40),
            expected="two numbers, the lower first, as in -4096,4095",
        )
    return low, high


def parse_levels(texts: Sequence[str]) -> tuple[str, ...]:
    """Understand ``C2-C5``, ``C3`` and lists of them separated by commas.

    Raises
    ------
    ConfigError
        If one of them is no vertebral level.
    """
    wanted: list[str] = []
    for part in (word.strip().upper() for text in texts for word in text.split(",")):
        if not part:
            continue
        try:
            if not _LEVEL.fullmatch(part):
                raise InputError("not a level")
            for name in part.split("-"):
                level_number(name)
        except InputError as error:
            raise ConfigError(
                "is not a vertebral level",
                where="levels",
                found=printable(part, limit=40),
                expected="C3, or C2-C5 for the mean over several",
            ) from error
        wanted.append(part)
    return tuple(dict.fromkeys(wanted))
