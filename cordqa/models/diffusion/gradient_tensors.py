"""b-tensors and their names: what others write for the shape of an encoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.models.diffusion.gradient_errors import BTensorError

__all__ = ["SHAPE_WORDS", "BTensorParts", "shapes_from_words", "split_b_tensors"]

Array = NDArray[np.float64]

#: The words of dipy; its cigar is two thirds along the axis and a sixth across.
SHAPE_WORDS = {"LTE": 1.0, "PTE": -0.5, "STE": 0.0, "CTE": 0.5}
#: Largest difference of the two equal eigenvalues, as a share of b.
_ASYMMETRY = 0.05
#: Below this trace a tensor has no shape.
_NO_WEIGHTING = 1e-9


class BTensorParts(NamedTuple):
    """Trace (in the unit of the tensors), unit symmetry axis (n, 3) and shape of each tensor."""

    b_values: Array
    directions: Array
    b_delta: Array


def shapes_from_words(words: str | Sequence[str]) -> Array:
    """Return b_delta of the words LTE, PTE, STE and CTE.

    Raises
    ------
    BTensorError
        If a word is none of them.
    """
    listed = [words] if isinstance(words, str) else list(words)
    upper = [str(word).strip().upper() for word in listed]
    unknown = sorted({word for word in upper if word not in SHAPE_WORDS})
    if unknown:
        raise BTensorError(
            "is not a shape of encoding", found=", ".join(unknown[:3]), expected=", ".join(SHAPE_WORDS)
        )
    return np.array([SHAPE_WORDS[word] for word in upper])


def split_b_tensors(tensors: ArrayLike) -> BTensorParts:
    """Take axially symmetric b-tensors apart.

    Parameters
    ----------
    tensors : array_like, shape (n, 3, 3)
        Any unit, any frame.

    Raises
    ------
    BTensorError
        If a tensor is not finite, not symmetric, has a negative eigenvalue, or is not axially
        symmetric within 5 % of b.
    """
    array = np.asarray(tensors, dtype=float)
    if array.ndim != 3 or array.shape[1:] != (3, 3):
        raise BTensorError(
            "b-tensors have the wrong shape",
            found=" x ".join(str(n) for n in array.shape),
            expected="n x 3 x 3",
        )
    _refuse("hold something else than numbers", ~np.isfinite(array).all(axis=(1, 2)))
    size = np.abs(array).max(axis=(1, 2))
    _refuse("are not symmetric", np.abs(array - array.transpose(0, 2, 1)).max(axis=(1, 2)) > 1e-3 * size)
    values, vectors = np.linalg.eigh(array)
    trace = values.sum(axis=1)
    b = np.maximum(trace, _NO_WEIGHTING)
    _refuse("have a negative eigenvalue", values[:, 0] < -_ASYMMETRY * b)
    # The odd one out is the axis: the lowest of a plane, the highest of a line.
    axis = np.where(values[:, 1] - values[:, 0] > values[:, 2] - values[:, 1], 0, 2)
    rows = np.arange(len(array))
    along = values[rows, axis]
    low, high = values[rows, np.where(axis == 0, 1, 0)], values[rows, np.where(axis == 0, 2, 1)]
    _refuse("are not symmetric about an axis", (high - low > _ASYMMETRY * b) & (trace > _NO_WEIGHTING))
    delta = np.clip((along - (low + high) / 2) / b, -0.5, 1.0)
    directed = (np.abs(delta) > _ASYMMETRY / 2) & (trace > _NO_WEIGHTING)
    directions = np.where(directed[:, None], vectors[rows, :, axis], 0.0)
    return BTensorParts(np.maximum(trace, 0.0), directions, np.where(directed, delta, 0.0))


def _refuse(what: str, bad: NDArray[np.bool_]) -> None:
    wrong = np.flatnonzero(bad)
    if wrong.size:
        raise BTensorError(
            f"b-tensors {what}",
            found=f"{wrong.size} of {bad.size}, the first at volume {wrong[0] + 1}",
            expected="symmetric tensors with a symmetry axis and no negative eigenvalue",
        )
