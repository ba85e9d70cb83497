"""From the numbers of gradient files to a checked table; nothing doubtful passes in silence.

Every check raises an error of its own name (:mod:`cordqa.models.diffusion.gradient_errors`) or
leaves a notice.  Two things no check of the files can see: whether the first component was flipped
(diffusion along ``n`` and its mirror image gives the same anisotropy), and directions that belong to
another scan with as many volumes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import ConfigError
from cordqa.models.diffusion.gradient_errors import (
    BTensorError,
    BUnitError,
    BValueError,
    DirectionNormError,
    GradientLengthError,
    MissingDirectionError,
    OrientationError,
)
from cordqa.models.diffusion.gradient_frames import Frame, directions_to_array_axes
from cordqa.models.diffusion.gradient_shells import DEFAULT_B0_LIMIT, find_b0_limit, group_values
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.records import Notice, Severity

__all__ = ["BUnit", "CheckedTable", "Norms", "check_b_unit", "check_gradients", "orient_directions"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
BUnit = Literal["s/mm2", "ms/um2", "s/m2"]
#: What a length other than one means: an error, nothing (normalise), or b times its square.
Norms = Literal["refuse", "normalise", "scale-b"]

_UNITS: dict[str, float] = {"s/mm2": 1.0, "ms/um2": 1e3, "s/m2": 1e-6}
#: A largest b below this is no diffusion weighting in s/mm2; above the other none that any scanner has.
_LOWEST_MAXIMUM, _HIGHEST_MAXIMUM = 20.0, 1e5
#: Directions written with three digits are off by up to this; more means something (a length of
#: 0.97 taken for 1 is a mistake of 6 % in b).
NORM_TOLERANCE = 0.01
_SHAPE_RANGE = (-0.5, 1.0)
_SHOWN = 5


class CheckedTable(NamedTuple):
    """A table and what the reader must know about it."""

    table: GradientTable
    notices: tuple[Notice, ...]


def check_gradients(
    b_values: ArrayLike,
    vectors: ArrayLike | None,
    *,
    b_delta: ArrayLike | None = None,
    affine: ArrayLike | None = None,
    frame: Frame = "fsl",
    n_volumes: int | None = None,
    b_unit: BUnit | None = None,
    norms: Norms = "refuse",
    b0_limit_s_mm2: float | None = None,
    allow_no_b0: bool = False,
    rows_are: Literal["volumes", "axes"] | None = None,
) -> CheckedTable:
    """Check the numbers of gradient files and turn them into a table in array axes.

    Parameters
    ----------
    b_values : array_like, shape (n,)
    vectors : array_like, shape (3, n) or (n, 3), or None
        As they stand in the file; none only where no encoding has a direction.
    b_delta : array_like, shape () or (n,), optional
        Shape of the encodings, -1/2 to 1; linear otherwise.
    affine : array_like, shape (4, 4), optional
        Of the image; decides the sign of FSL's first component and turns scanner axes.
    frame : {'fsl', 'world', 'array'}
        Axes of the vectors.
    n_volumes : int, optional
        Of the image, to be compared.
    b_unit : {'s/mm2', 'ms/um2', 's/m2'}, optional
        s/mm2; without it, values that cannot be in s/mm2 are refused.
    norms : {'refuse', 'normalise', 'scale-b'}
        What to do with directions whose length differs from 1 by more than 1 %.
    b0_limit_s_mm2 : float, optional
        Volumes at or below it are not weighted; found from the values otherwise.
    allow_no_b0 : bool
        Accept a single shell without unweighted volumes.
    rows_are : {'volumes', 'axes'}, optional
        Settles a file of three volumes, which reads both ways.

    Returns
    -------
    CheckedTable
        The table, directions normalised, and notices.

    Raises
    ------
    GradientError
        One of its kinds, see :mod:`cordqa.models.diffusion.gradient_errors`.
    """
    b = np.asarray(b_values, dtype=float).ravel()
    delta = _spread_shape(b_delta, b.size)
    given = np.zeros((b.size, 3)) if vectors is None else np.asarray(vectors, dtype=float)
    if vectors is not None and not _is_3x3(given):
        given = orient_directions(given, rows_are=rows_are)
    _check_lengths(b.size, len(given), None if b_delta is None else delta.size, n_volumes)
    b, notices = _check_b(b, b_unit)
    if vectors is not None and _is_3x3(given):
        given = orient_directions(given, rows_are=rows_are, weighted=b > _LOWEST_MAXIMUM)
    _check_shape(delta)
    needs_unit = DEFAULT_B0_LIMIT if b0_limit_s_mm2 is None else min(b0_limit_s_mm2, DEFAULT_B0_LIMIT)
    given, b, more = _check_norms(given, b, delta, norms, needs_unit)
    notices += more
    limit, more = _b0_limit(b, b0_limit_s_mm2, allow_no_b0)
    notices += more
    if not limit < b.max() <= _HIGHEST_MAXIMUM:
        raise BUnitError(
            "no volume has diffusion weighting" if b.max() <= limit else "b-values are beyond any scanner",
            found=f"a largest b-value of {b.max():g} s/mm2",
            expected=f"more than {limit:g} and at most {_HIGHEST_MAXIMUM:g} s/mm2",
        )
    _check_directions(given, b, delta, limit)
    if affine is None and frame == "world":
        notices += (_warn("gradients.no-affine", "without the image, scanner axes are taken for array axes"),)
    directions = directions_to_array_axes(_unit(given), frame, affine)
    table = GradientTable(b_values_s_mm2=b, directions=directions, b_delta=delta, b0_limit_s_mm2=limit)
    return CheckedTable(table, notices)


def check_b_unit(largest: float) -> None:
    """Refuse a table, built by hand, whose largest b-value cannot be in s/mm2.

    Raises
    ------
    BUnitError
        If it cannot be.
    """
    if _LOWEST_MAXIMUM <= largest <= _HIGHEST_MAXIMUM:
        return
    unit = "ms/um2" if 0 < largest < _LOWEST_MAXIMUM else "s/m2" if largest > 0 else ""
    raise BUnitError(
        "the b-values are not in s/mm2" if unit else "no volume has diffusion weighting",
        found=f"a largest b-value of {largest:g}" + (f", as in {unit}" if unit else ""),
        expected=f"between {_LOWEST_MAXIMUM:g} and {_HIGHEST_MAXIMUM:g} s/mm2",
        todo="convert them to s/mm2" if unit else "",
    )


def orient_directions(
    vectors: ArrayLike,
    *,
    rows_are: Literal["volumes", "axes"] | None = None,
    weighted: NDArray[np.bool_] | None = None,
) -> Array:
    """Return directions as (n, 3), whichever way round the file holds them.

    Parameters
    ----------
    vectors : array_like, shape (3, n) or (n, 3)
    rows_are : {'volumes', 'axes'}, optional
        Settles it.
    weighted : ndarray of bool, shape (3,), optional
        Of three volumes: which need a unit vector, which may tell the axes apart.

    Raises
    ------
    OrientationError
        If no axis has three entries, or three volumes read both ways.
    """
    array = np.asarray(vectors, dtype=float)
    if array.ndim != 2 or 3 not in array.shape:
        raise OrientationError(
            "the directions do not have three components",
            found=" x ".join(str(n) for n in array.shape) or "one number",
            expected="3 rows (FSL) or 3 columns",
            todo="a table of four columns is an MRtrix table; give it as such" if 4 in array.shape else "",
        )
    if rows_are is not None:
        oriented = array if rows_are == "volumes" else array.T
        if oriented.shape[1] != 3:
            raise OrientationError(
                f"the rows cannot be {rows_are}", found=" x ".join(str(n) for n in array.shape)
            )
        return oriented
    if array.shape[0] != 3:
        return array
    if array.shape[1] != 3 or np.allclose(array, array.T, atol=1e-9):
        return array.T
    return _settle_3x3(array, weighted)


def _settle_3x3(array: Array, weighted: NDArray[np.bool_] | None) -> Array:
    """Three volumes: one reading may be impossible, because a weighted volume needs a unit vector."""
    need = np.ones(3, dtype=bool) if weighted is None or weighted.shape != (3,) else weighted
    possible = [
        way
        for way in (array.T, array)
        if np.all(np.abs(np.linalg.norm(way[need], axis=1) - 1) < NORM_TOLERANCE)
    ]
    if len(possible) == 1:
        return possible[0]
    raise OrientationError(
        "three volumes with three components: rows and columns cannot be told apart",
        found="3 x 3 numbers that read both ways"
        if possible
        else "3 x 3 numbers that are no unit vectors either way",
        todo="say whether the rows are axes (FSL) or volumes",
    )


def _is_3x3(array: Array) -> bool:
    return array.shape == (3, 3)


def _spread_shape(b_delta: ArrayLike | None, n: int) -> Array:
    if b_delta is None:
        return np.ones(n)
    delta = np.asarray(b_delta, dtype=float).ravel()
    return np.full(n, delta[0]) if delta.size == 1 else delta


def _check_lengths(n_b: int, n_vectors: int, n_delta: int | None, n_volumes: int | None) -> None:
    counts = {"b-values": n_b, "directions": n_vectors}
    if n_delta is not None:
        counts["encoding shapes"] = n_delta
    if n_volumes is not None:
        counts["volumes in the image"] = n_volumes
    if n_b == 0:
        raise GradientLengthError("the gradient table is empty")
    if len(set(counts.values())) > 1:
        raise GradientLengthError(
            "the gradient files and the image do not belong together",
            found=", ".join(f"{number} {name}" for name, number in counts.items()),
            expected="one of each per volume",
            todo="look for volumes that were removed or added after conversion, such as a mean",
        )


def _check_b(b: Array, unit: BUnit | None) -> tuple[Array, tuple[Notice, ...]]:
    if unit is not None and unit not in _UNITS:
        raise ConfigError("is not a unit of b-values", found=repr(unit), expected=", ".join(_UNITS))
    bad = np.flatnonzero(~np.isfinite(b) | (b < 0))
    if bad.size:
        raise BValueError(
            "a b-value is negative or not a number",
            found=", ".join(f"{b[i]:g} at volume {i + 1}" for i in bad[:_SHOWN]),
            expected="numbers of at least 0",
            todo="correct the b-value file",
        )
    scaled = b * _UNITS[unit or "s/mm2"]
    largest = float(scaled.max())
    if largest == 0:
        raise BUnitError("no volume has diffusion weighting", found="only b-values of 0")
    if _LOWEST_MAXIMUM <= largest <= _HIGHEST_MAXIMUM:
        notices = (
            () if unit in (None, "s/mm2") else (_info("gradients.b-unit", f"b-values converted from {unit}"),)
        )
        return scaled, notices
    looks = "ms/um2" if largest < _LOWEST_MAXIMUM else "s/m2"
    raise BUnitError(
        f"the b-values cannot be in {unit or 's/mm2'}",
        found=f"a largest one of {b.max():g}, which looks like {looks}"
        if unit is None
        else f"a largest one of {b.max():g} {unit}, that is {largest:g} s/mm2",
        expected=f"between {_LOWEST_MAXIMUM:g} and {_HIGHEST_MAXIMUM:g} s/mm2",
        todo=f"correct the file, or say that the unit is {looks} (--b-unit)"
        if unit is None
        else "name the right unit",
    )


def _check_shape(delta: Array) -> None:
    low, high = _SHAPE_RANGE
    bad = np.flatnonzero(~np.isfinite(delta) | (delta < low - 1e-6) | (delta > high + 1e-6))
    if bad.size:
        raise BTensorError(
            "an encoding shape (b_delta) is impossible",
            found=", ".join(f"{delta[i]:g} at volume {i + 1}" for i in bad[:_SHOWN]),
            expected="-0.5 (planar) to 1 (linear); 0 is spherical",
        )


def _check_norms(
    vectors: Array, b: Array, delta: Array, norms: Norms, needs_unit: float
) -> tuple[Array, Array, tuple[Notice, ...]]:
    """Settle what lengths other than one mean."""
    if norms not in ("refuse", "normalise", "scale-b"):
        raise ConfigError(
            "is not a rule for lengths", found=repr(norms), expected="refuse, normalise or scale-b"
        )
    vectors = vectors.copy()
    absent = ~np.isfinite(vectors).all(axis=1)
    vectors[absent] = 0.0  # refused below where the volume is weighted
    length = np.linalg.norm(vectors, axis=1)
    if norms == "scale-b":
        directed = (delta != 0) & ~absent
        scaled = np.where(directed, b * length**2, b)
        return (
            vectors,
            scaled,
            (_info("gradients.norm", "b-values multiplied by the squared length of the directions"),),
        )
    odd = np.flatnonzero(
        (b > needs_unit) & (delta != 0) & (length > 0) & (np.abs(length - 1) > NORM_TOLERANCE)
    )
    if not odd.size:
        return vectors, b, ()
    found = (
        f"{odd.size} of {b.size} volumes, lengths {length[odd].min():.3f} to {length[odd].max():.3f}, "
        f"the first at volume {odd[0] + 1}"
    )
    if norms == "normalise":
        return vectors, b, (_warn("gradients.norm", f"directions were brought to unit length ({found})"),)
    hint = _hidden_shells(b[odd] * length[odd] ** 2)
    raise DirectionNormError(
        "directions of weighted volumes are not of unit length",
        found=f"{found}{hint}",
        expected=f"1 within {NORM_TOLERANCE:g}",
        todo="say whether b is to be multiplied by the squared length (some scanners hide shells in it) "
        "or the lengths are to be ignored (--lengths)",
    )


def _hidden_shells(scaled: Array) -> str:
    """Say which shells the lengths would make of the b-values, if they make few."""
    groups = group_values(scaled, 40.0, 0.06)
    centres = [float(np.median(scaled[groups == one])) for one in np.unique(groups)]
    if len(centres) > 6:
        return ""
    return "; b times squared length would be " + ", ".join(f"{centre:.0f}" for centre in centres) + " s/mm2"


def _b0_limit(b: Array, given: float | None, allow_none: bool) -> tuple[float, tuple[Notice, ...]]:
    if given is None:
        return find_b0_limit(b, allow_none=allow_none)
    if not 0 <= given < float(b.max()):
        raise ConfigError(
            "the limit of b = 0 must lie below the largest b-value",
            found=f"{given:g}",
            expected=f"0 to less than {b.max():g} s/mm2",
        )
    _, notices = find_b0_limit(b, allow_none=True) if not (b <= given).any() else (given, ())
    return float(given), notices


def _check_directions(vectors: Array, b: Array, delta: Array, limit: float) -> None:
    absent = np.flatnonzero((b > limit) & (delta != 0) & ~vectors.any(axis=1))
    if absent.size:
        raise MissingDirectionError(
            "a weighted volume has no direction",
            found=f"{absent.size} of them: volume {_listed(absent + 1)}; "
            f"b = {_listed(np.unique(b[absent]))} s/mm2",
            expected=f"a unit vector where b is above {limit:g} s/mm2 and the encoding is not spherical",
            todo="remove a trace-weighted or mean volume from image and files; mark a spherical encoding "
            "with b_delta = 0; write b = 0 where nothing was applied",
        )


def _listed(values: Sequence[float] | NDArray[np.generic]) -> str:
    shown = ", ".join(f"{float(value):g}" for value in values[:_SHOWN])
    return shown + (" ..." if len(values) > _SHOWN else "")


def _unit(vectors: Array) -> Array:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Array = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
    return unit


def _warn(code: str, message: str) -> Notice:
    return Notice(severity=Severity.WARNING, code=code, message=message)


def _info(code: str, message: str) -> Notice:
    return Notice(severity=Severity.INFO, code=code, message=message)
