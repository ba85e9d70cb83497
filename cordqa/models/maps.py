"""What every model that fits voxels returns: values, standard errors, reasons and flags."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordqa.records import Figure

__all__ = ["Attachments", "ExtraImage", "FittedMaps", "Reasons", "part_passed_on"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: A contrast of fewer standard errors, or below this, cannot be compared with anything.
_CLEAR, _NOTHING = 2.0, 1e-9


@dataclass(frozen=True, slots=True)
class Reasons:
    """Why voxels have no value: one byte per voxel and a table of sentences.

    Attributes
    ----------
    codes : ndarray of uint8
        Voxel shape; 0 where there is a value.
    texts : tuple of str
        ``texts[code]`` is the reason; ``texts[0]`` is empty.
    """

    codes: NDArray[np.uint8]
    texts: tuple[str, ...]

    @classmethod
    def collect(cls, shape: tuple[int, ...], failures: Sequence[tuple[NDArray[np.bool_], str]]) -> Reasons:
        """Number the failures; where several apply, the first stands."""
        codes = np.zeros(shape, dtype=np.uint8)
        texts = [""]
        for where, text in failures:
            if text not in texts:
                texts.append(text)
            codes[where & (codes == 0)] = texts.index(text)
        return cls(codes=codes, texts=tuple(texts))

    @property
    def ok(self) -> Mask:
        """Where there is a value."""
        good: Mask = self.codes == 0
        return good

    def counts(self) -> dict[str, int]:
        """Count the voxels without a value, by reason."""
        number = np.bincount(self.codes.ravel(), minlength=len(self.texts))
        return {text: int(n) for text, n in zip(self.texts[1:], number[1:], strict=False) if n}

    def at(self, index: tuple[int, ...] | int) -> str:
        """Return the reason of one voxel, in words; empty where it has a value."""
        return self.texts[int(self.codes[index])]

    def then(self, where: NDArray[np.bool_], text: str) -> Reasons:
        """Add one more failure, which stands only where none stood before."""
        texts = self.texts if text in self.texts else (*self.texts, text)
        codes = self.codes.copy()
        codes[where & (codes == 0)] = texts.index(text)
        return Reasons(codes=codes, texts=texts)


def part_passed_on(before: float, after: float, error: float) -> float:
    """Return the part of a contrast that a model passes on, from a map and its replica.

    Parameters
    ----------
    before, after : float
        The contrast in the map and in the replica, see :class:`Attachments`.
    error : float
        Standard error of the contrast in the map; 0 where it is not known.

    Returns
    -------
    float
        NaN where the contrast is below two of its standard errors, so that it cannot be compared.
    """
    clear = abs(before) > max(_CLEAR * error, _NOTHING)
    return after / before if clear else math.nan


@dataclass(frozen=True, slots=True)
class ExtraImage:
    """An image that is written and not measured: shape (i, j, k), its unit and what it shows."""

    data: Array
    unit: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachments:
    """What a model of a whole volume gives beyond its maps; arrays have shape (i, j, k).

    Attributes
    ----------
    masks : mapping of str to ndarray of bool
        By a label of letters and digits; they may reach beyond the voxels that were to be fitted.
    images : mapping of str to ExtraImage
        By a label of letters and digits.
    draws : mapping of str to ndarray, shape (n_draws, i, j, k) or (n_draws, m)
        Realisations of the error of a map, zero on average: what neighbours share of it is in
        them, so that the error of a region is the root mean square of its draws.
    documents : mapping of str to mapping
        Plain data by file name without extension; written as JSON.
    methods : tuple of str
        Paragraphs for the methods text.
    vectors : mapping of str to ndarray, voxel shape and three components
        Unit vectors along the axes of the image array, such as the main direction of diffusion; they
        are written and not measured.
    warnings : tuple of str
        Notices that a reader must not overlook.
    figures : tuple of Figure
        Shown after the maps.
    details : mapping of str to mapping
        Further entries of the sidecar of a map, by the key of its value.
    zeros : mapping of str to ndarray of bool, shape (i, j, k) or (m,)
        Voxels whose mean was subtracted from a map: it is zero because of that, and no measurement.
    replicas : mapping of str to ndarray, shape (i, j, k) or (m,)
        What the model makes of the data of its own map, with noise: what a contrast between regions
        loses from the map to its replica, it lost from the truth to the map.
    files : mapping of str to callable
        Other files by their path below the output folder; each makes its content from what the
        names of all outputs begin with.
    """

    masks: Mapping[str, Mask] = field(default_factory=dict)
    images: Mapping[str, ExtraImage] = field(default_factory=dict)
    draws: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    documents: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    methods: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    details: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    zeros: Mapping[str, Mask] = field(default_factory=dict)
    replicas: Mapping[str, Array] = field(default_factory=dict)
    files: Mapping[str, Callable[[str], bytes]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedMaps:
    """Maps of one model over one set of voxels.

    Every array has the voxel shape.  A value is NaN exactly where its reason is not empty.

    Attributes
    ----------
    model : str
        Equation and estimator, for the methods text.
    values : mapping of str to ndarray
        By quantity (an id of :mod:`cordqa.quantities` wherever there is one) or parameter.
    units : mapping of str to str
        Unit of each value; that of the registered quantity wherever there is one.
    standard_errors : mapping of str to ndarray
        One standard deviation in the same unit; a name is absent where the model has none, and
        a voxel is NaN where it cannot be known.
    reasons : Reasons
        Why a voxel has no value in any map.
    own_reasons : mapping of str to Reasons
        Maps that lack a value in more voxels than ``reasons`` says have their own.
    flags : mapping of str to ndarray of bool
        A sentence, and the voxels whose values are kept but doubtful for that reason.
    notices : tuple of str
        What holds for the whole fit: an assumption, a model limit, a shell that was left out.
    vectors : mapping of str to ndarray, voxel shape and three components
        Unit vectors along the axes of the image array, such as the main direction of diffusion; they
        are written and not measured.
    warnings : tuple of str
        Those of the notices that a reader must not overlook.
    attached : Attachments, optional
        Only of models that see the whole volume at once.
    """

    model: str
    values: Mapping[str, Array]
    units: Mapping[str, str]
    standard_errors: Mapping[str, Array] = field(default_factory=dict)
    reasons: Reasons
    own_reasons: Mapping[str, Reasons] = field(default_factory=dict)
    flags: Mapping[str, Mask] = field(default_factory=dict)
    vectors: Mapping[str, Array] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    attached: Attachments | None = None

    def reason_of(self, name: str) -> Reasons:
        """Why voxels lack a value in one map."""
        return self.own_reasons.get(name, self.reasons)

    def flag_counts(self) -> dict[str, int]:
        """Count the doubtful voxels, by sentence."""
        return {text: int(np.count_nonzero(where)) for text, where in self.flags.items() if where.any()}
