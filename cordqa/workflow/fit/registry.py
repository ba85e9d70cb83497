"""What a model tells ``cordqa fit``: its images, its settings, its options and its fit.

Command line, help texts, checks, outputs and the contract suite are all made from this record.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import ConfigError
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.maps import FittedMaps
from cordqa.workflow.fit.data import FitData, OptionValue

__all__ = [
    "Example",
    "FitModel",
    "ImageRole",
    "MapInput",
    "Option",
    "Setting",
    "find_model",
    "list_models",
]

Array = NDArray[np.float64]
_IDENTIFIER = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRole:
    """One kind of image that the model needs, given by position on the command line or by an option.

    Attributes
    ----------
    id : str
        Key of :meth:`FitData.of`, lower case with underscores.
    metavar : str
        How it is called in the usage line (``MT_ON``).
    help : str
    many : bool
        Whether it is a series: one 4D file, or several files in order.  Only one role given by
        position can be.  Otherwise it is exactly one volume.
    minimum : int
        Fewest volumes of a series.
    by_option : bool
        Whether it is given by ``--`` and the id with hyphens (repeated for several files).
    required : bool
        Only one that is given by an option can be left out; then it has no images.
    parts : tuple of str
        Value of the BIDS entity ``part`` of its files, and of the files beside which they are looked
        for: ``("mag", "phase")``; empty, or these two.
    """

    id: str
    metavar: str
    help: str
    many: bool = False
    minimum: int = 1
    by_option: bool = False
    required: bool = True
    parts: tuple[str, ...] = ()

    @property
    def option(self) -> str:
        """Name on the command line, where it is given by an option."""
        return "--" + self.id.replace("_", "-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One acquisition parameter: from the sidecars, or from an option that overrides them.

    Attributes
    ----------
    id : str
        Key of :meth:`FitData.values`; the option is ``--`` and this with hyphens.
    help : str
    unit : str
        Unit of the option and of BIDS: s, deg, T, s/mm2.
    sidecar : tuple of str
        Keys of the sidecar, the preferred one first; empty where BIDS has none.
    role : str
        Images that it describes; empty for all, in the order of the command line.
    shared : bool
        Whether all these images must share one value.
    constant : bool
        Whether one value of the option may stand for all images.
    required : bool
    default : float
        Used, and said to be, where nothing gives a value.  NaN: the model is told nothing.
    smallest, largest : float
        Range of values that can be meant in this unit.
    slip : str
        What a value beyond ``largest`` probably is (``milliseconds``).
    acquisition : str
        Field of :class:`~cordqa.records.Acquisition` that it fills; empty for none.
    """

    id: str
    help: str
    unit: str
    sidecar: tuple[str, ...] = ()
    role: str = ""
    shared: bool = False
    constant: bool = False
    required: bool = True
    default: float = float("nan")
    smallest: float = 0.0
    largest: float = float("inf")
    slip: str = ""
    acquisition: str = ""

    @property
    def option(self) -> str:
        """Name on the command line."""
        return "--" + self.id.replace("_", "-")


@dataclass(frozen=True, slots=True, kw_only=True)
class MapInput:
    """One scalar map that the model can use, given by an option.

    Attributes
    ----------
    id : str
        Key of :meth:`FitData.map`; the option is ``--`` and this with hyphens.
    help : str
    kind : {'value', 'b1'}
        ``b1``: actual over nominal flip angle, as ratio or in percent, converted to a ratio.
    unit : str
        Unit that the model expects.
    required : bool
    low, high : float
        Range in which the median must lie to be in this unit.
    slip : str
        What a median outside probably is.
    """

    id: str
    help: str
    kind: Literal["value", "b1"] = "value"
    unit: str = ""
    required: bool = False
    low: float = -float("inf")
    high: float = float("inf")
    slip: str = ""

    @property
    def option(self) -> str:
        """Name on the command line."""
        return "--" + self.id.replace("_", "-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One choice about the model itself.

    Attributes
    ----------
    id : str
        Key of :attr:`FitData.options`; the option is ``--`` and this with hyphens.
    kind : type
        ``float``, ``int``, ``str``, ``bool`` or ``tuple`` (numbers separated by commas).
    default : value
        ``None`` means that the model decides, and ``help`` says how.
    help : str
    unit : str
        Of numbers; ``1`` for those without.
    choices : tuple of str
        What a text may be.
    many : bool
        Whether several choices may be given, separated by commas; upper and lower case are one then.
    low, high : float
        Ends of the range of a number, both allowed.
    length : int
        How many numbers a tuple has; 0 for any.
    """

    id: str
    kind: type[float] | type[int] | type[str] | type[bool] | type[tuple]  # type: ignore[type-arg]
    default: OptionValue
    help: str
    unit: str = ""
    choices: tuple[str, ...] = ()
    many: bool = False
    low: float = -float("inf")
    high: float = float("inf")
    length: int = 0

    @property
    def option(self) -> str:
        """Name on the command line."""
        return "--" + self.id.replace("_", "-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A noise-free image set with known truth, by which the contract suite tests the model.

    Attributes
    ----------
    images : mapping of str to ndarray
        By role, shape (i, j, k) or (i, j, k, n).
    truth : mapping of str to ndarray, shape (i, j, k)
        By quantity, in the unit of the map.
    tolerance : float
        Largest relative error of a map.
    settings, maps, options, gradients
        As the model takes them; settings in the unit of the option.
    """

    images: Mapping[str, Array]
    truth: Mapping[str, Array]
    tolerance: float
    settings: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    maps: Mapping[str, Array] = field(default_factory=dict)
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    gradients: GradientTable | None = None
    noise_sd: float = float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class FitModel:
    """One model of ``cordqa fit``.

    Attributes
    ----------
    id : str
        Sub-command.
    description : str
        One line for people.
    fit : callable
        :class:`FitData` to :class:`FittedMaps`.  For voxelwise models it sees a chunk of voxels, shape
        (m, n), and must give each voxel the same answer in whatever company it comes; others see
        (i, j, k, n).  A module-level function, because it travels to other processes.
    images : tuple of ImageRole
    produces : tuple of str
        Keys of the maps that may come out; ids of quantities wherever there is one.
    references : tuple of str
        Citations with a checked DOI, or with volume and page; the first is the model's own.
    example : callable
        Makes the :class:`Example` of the contract suite.
    settings, maps, options
        Inputs beyond the images.
    gradients : bool
        Whether it needs a gradient table.
    takes_noise : bool
        Whether a noise map or noise level is of use.
    prepare : callable, optional
        Sees all voxels once before the chunks do: refuses what cannot be, or stores in
        ``FitData.state`` what must be the same for all.
    voxelwise : bool
    absolute : bool
        Whether the numbers of the images mean something in themselves (a ratio, a phase, a map with
        a unit), so that another scale of them gives another answer.
    outlines : bool
        Whether it makes a mask of its own where none is given.
    requires : str
        Module of an optional extra that the fit needs; without it the fit refuses and names the extra.
    experimental : str
        Why it is experimental; empty where it is not.
    assumptions : tuple of str
        Sentences for the methods text.
    """

    id: str
    description: str
    fit: Callable[[FitData], FittedMaps]
    images: tuple[ImageRole, ...]
    produces: tuple[str, ...]
    references: tuple[str, ...]
    example: Callable[[], Example]
    settings: tuple[Setting, ...] = ()
    maps: tuple[MapInput, ...] = ()
    options: tuple[Option, ...] = ()
    gradients: bool = False
    takes_noise: bool = True
    prepare: Callable[[FitData], FitData] | None = None
    voxelwise: bool = True
    absolute: bool = False
    outlines: bool = False
    requires: str = ""
    experimental: str = ""
    assumptions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a record that would give a broken command."""
        if not _IDENTIFIER.fullmatch(self.id):
            raise ValueError(f"{self.id!r} cannot name a command")
        placed = [role for role in self.images if not role.by_option]
        if not placed or sum(role.many for role in placed) > 1:
            raise ValueError(f"{self.id}: needs images by position, at most one role of them a series")
        if not all(role.required for role in placed):
            raise ValueError(f"{self.id}: images given by position cannot be left out")
        names = [role.id for role in self.images] + [one.id for one in self.settings]
        names += [one.id for one in self.maps] + [one.id for one in self.options]
        wrong = [name for name in names if not _NAME.fullmatch(name)]
        if wrong or len(set(names)) != len(names):
            raise ValueError(f"{self.id}: names must differ and be lower case: {', '.join(names)}")
        unknown = {s.role for s in self.settings} - {"", *(role.id for role in self.images)}
        if unknown:
            raise ValueError(f"{self.id}: settings of unknown images: {', '.join(sorted(unknown))}")

    @property
    def installed(self) -> bool:
        """Whether everything that the fit needs is there."""
        return not self.requires or importlib.util.find_spec(self.requires) is not None

    @property
    def usage(self) -> str:
        """Images and output folder as the usage line names them."""
        words = [
            f"{role.metavar}..." if role.many else role.metavar for role in self.images if not role.by_option
        ]
        options = [f"{role.option} FILE" for role in self.images if role.by_option and role.required]
        return " ".join([*words, "OUT", *options])


@cache
def list_models() -> dict[str, FitModel]:
    """Return all models by id, from the modules of :mod:`cordqa.workflow.fit.models`.

    Raises
    ------
    ValueError
        If two modules define one id, or a module defines no ``MODEL``.
    """
    import importlib
    import pkgutil

    from cordqa.workflow.fit import models

    found: dict[str, FitModel] = {}
    for module in sorted(info.name for info in pkgutil.iter_modules(models.__path__)):
        if module.startswith("_"):
            continue
        model = getattr(importlib.import_module(f"{models.__name__}.{module}"), "MODEL", None)
        if not isinstance(model, FitModel) or model.id in found:
            raise ValueError(f"{module}: must define MODEL, with an id of its own")
        found[model.id] = model
    return dict(sorted(found.items()))


def find_model(name: str) -> FitModel:
    """Return one model.

    Raises
    ------
    ConfigError
        If it is not known.
    """
    models = list_models()
    if name not in models:
        raise ConfigError("no such model", found=repr(name), expected=", ".join(models))
    return models[name]
