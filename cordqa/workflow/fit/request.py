"""What the user asked for, before anything is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cordqa.errors import ConfigError
from cordqa.models.diffusion.gradient_checks import BUnit, Norms
from cordqa.workflow.fit.data import OptionValue
from cordqa.workflow.fit.registry import FitModel, Option

__all__ = ["FitRequest", "GradientFiles", "RegionStatistic", "checked_options"]

RegionStatistic = Literal["mean", "median"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientFiles:
    """Files of the diffusion encoding, and how they are to be read.

    Files that are ``None`` are looked for beside the image; for the rest see
    :func:`cordqa.models.diffusion.gradient_checks.check_gradients`.
    """

    bval: Path | None = None
    bvec: Path | None = None
    bdelta: Path | None = None
    btens: Path | None = None
    mrtrix: Path | None = None
    b_unit: BUnit | None = None
    norms: Norms = "refuse"
    b0_limit_s_mm2: float | None = None

    @property
    def given(self) -> tuple[Path, ...]:
        """Those that were named."""
        named = (self.bval, self.bvec, self.bdelta, self.btens, self.mrtrix)
        return tuple(path for path in named if path is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class FitRequest:
    """One run of one model.

    Attributes
    ----------
    model : FitModel
    images : mapping of str to tuple of Path
        Files by role.
    settings : mapping of str to tuple of float
        Acquisition parameters that the user gave, in the unit of the setting.
    maps : mapping of str to Path
    options : mapping
        Those that differ from their default.
    mask, noise_map : Path, optional
    noise_sd : float, optional
        One number instead of a noise map.
    gradients : GradientFiles
    regions : tuple of Path
        Label images (integers) or partial volumes (4D, or 3D between 0 and 1).
    region_statistic : {'mean', 'median'}
        Which of the two is the value of a region; both are written.
    correlated_voxels : float
        Number of voxels that share one error, at least 1.
    resample : bool
        Bring masks, maps and regions of another grid to that of the images.
    n_procs : int
    redo : bool
        Repeat also what is done and current.
    """

    model: FitModel
    images: Mapping[str, tuple[Path, ...]]
    settings: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    maps: Mapping[str, Path] = field(default_factory=dict)
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    mask: Path | None = None
    noise_map: Path | None = None
    noise_sd: float | None = None
    gradients: GradientFiles = field(default_factory=GradientFiles)
    regions: tuple[Path, ...] = ()
    region_statistic: RegionStatistic = "mean"
    correlated_voxels: float = 1.0
    resample: bool = False
    n_procs: int = 1
    redo: bool = False

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if self.noise_map is not None and self.noise_sd is not None:
            raise ConfigError("give a noise map or a noise level, not both", where="noise")
        if self.noise_sd is not None and not (0 < self.noise_sd < math.inf):
            raise ConfigError("must be positive", where="--noise-sd", found=f"{self.noise_sd:g}")
        if not 1 <= self.correlated_voxels < math.inf:
            raise ConfigError(
                "must be at least 1", where="--correlated-voxels", found=f"{self.correlated_voxels:g}"
            )
        if self.region_statistic not in ("mean", "median"):
            raise ConfigError(
                "no such statistic", found=repr(self.region_statistic), expected="mean or median"
            )
        table = self.gradients
        if (table.mrtrix or table.btens) and (table.bval or table.bvec or (table.mrtrix and table.btens)):
            raise ConfigError("an MRtrix table or b-tensors hold b-values and directions; leave these out")

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that was named, images first."""
        named = [path for role in self.model.images for path in self.images.get(role.id, ())]
        others = [*self.maps.values(), self.mask, self.noise_map, *self.gradients.given, *self.regions]
        return tuple(dict.fromkeys(path for path in (*named, *others) if path is not None))

    def plain(self) -> dict[str, Any]:
        """Everything that decides the result; files by name, because paths may name people."""
        table = self.gradients
        gradients = (table.bval, table.bvec, table.bdelta, table.btens, table.mrtrix)
        return {
            "model": self.model.id,
            "images": {role: [path.name for path in paths] for role, paths in self.images.items()},
            "settings_given": {name: list(values) for name, values in sorted(self.settings.items())},
            "maps": {name: path.name for name, path in sorted(self.maps.items())},
            "options": dict(sorted(checked_options(self.model, self.options).items())),
            "mask": self.mask.name if self.mask else "",
            "noise_map": self.noise_map.name if self.noise_map else "",
            "noise_sd": self.noise_sd,
            "gradients": [path.name if path else "" for path in gradients],
            "gradient_reading": {
                "b_unit": table.b_unit or "",
                "lengths": table.norms,
                "b0_limit_s_mm2": table.b0_limit_s_mm2,
            },
            "regions": [path.name for path in self.regions],
            "region_statistic": self.region_statistic,
            "correlated_voxels": self.correlated_voxels,
            "resample": self.resample,
        }


def checked_options(model: FitModel, given: Mapping[str, OptionValue]) -> dict[str, OptionValue]:
    """Return the value of every option of a model.

    Raises
    ------
    ConfigError
        If one is not known, of another type, or out of range.
    """
    known = {option.id: option for option in model.options}
    unknown = sorted(given.keys() - known.keys())
    if unknown:
        raise ConfigError(
            f"no option {unknown[0]!r}", where=f"fit {model.id}", expected=", ".join(known) or "none"
        )
    return {name: _checked(option, given.get(name, option.default)) for name, option in known.items()}


def _checked(option: Option, value: OptionValue) -> OptionValue:
    if value is None:
        return None
    if option.kind is str:
        return _choice(option, value)
    if option.kind is bool:
        return bool(value)
    numbers = value if isinstance(value, tuple) else (value,)
    if any(isinstance(number, str) for number in numbers):
        raise ConfigError("must be a number", where=option.option, found=f"{value}")
    floats = tuple(float(number) for number in numbers)
    if option.kind is tuple and option.length and len(floats) != option.length:
        raise ConfigError(
            "has the wrong number of values",
            where=option.option,
            found=str(len(floats)),
            expected=str(option.length),
        )
    if not all(option.low <= number <= option.high for number in floats):  # NaN is refused as well
        raise ConfigError(
            "is out of range",
            where=option.option,
            found=", ".join(f"{number:g}" for number in floats),
            expected=f"{option.low:g} to {option.high:g} {option.unit}".strip(),
        )
    if option.kind is tuple:
        return floats
    return int(floats[0]) if option.kind is int else floats[0]


def _choice(option: Option, value: OptionValue) -> str:
    word = str(value)
    if option.many:
        return _choices(option, word)
    if option.choices and word not in option.choices:
        raise ConfigError(
            "no such choice", where=option.option, found=word, expected=" or ".join(option.choices)
        )
    return word


def _choices(option: Option, text: str) -> str:
    """Read a list of choices and write it in their order, so that one list has one form."""
    words = {word.casefold() for word in text.replace(",", " ").split()}
    chosen = [one for one in option.choices if one.casefold() in words]
    unknown = words - {one.casefold() for one in chosen}
    if unknown or not chosen:
        raise ConfigError(
            "no such choice",
            where=option.option,
            found=", ".join(sorted(unknown)) or repr(text),
            expected=f"a list of {', '.join(option.choices)}",
        )
    return ",".join(chosen)
