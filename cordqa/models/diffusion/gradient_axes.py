"""Do the gradients lie along the axes that the files claim?  The cord itself tells.

In white matter of the cord water moves most easily along the cord, so the first eigenvector of the
tensor must follow its centreline.  A table whose components were exchanged turns every eigenvector
by the same exchange, and leaves FA and MD as they were.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError
from cordqa.records import Notice, Severity, Status

__all__ = ["ALIGNMENT_LIMIT", "AxisCheck", "check_cord_axis"]

Array = NDArray[np.float64]

#: Mean absolute cosine between first eigenvector and cord below which something is wrong.
ALIGNMENT_LIMIT = 0.8
#: Another order of components must fit better by this much to be believed,
_BETTER = 0.1
#: or, where noise keeps every order below the limit (random vectors have 0.5), by this much over so
#: many voxels that chance does not do it.
_NOISY_LIMIT, _MUCH_BETTER, _MANY_VOXELS = 0.6, 0.2, 50
#: and two orders that fit as well as this cannot be told apart.
_SAME = 0.02
_FEWEST_VOXELS = 10
_AXES = "xyz"


@dataclass(frozen=True, slots=True)
class AxisCheck:
    """What the direction of the cord says about the table.

    Attributes
    ----------
    status : Status
        Pass; warn (a flip is likely, or nothing fits); fail (components are exchanged); not evaluated.
    alignment : float
        Mean of |v1 . cord axis| with the table as it is.
    best_alignment : float
        The same with the best exchange of components.
    correction : tuple of str
        Where each component of a corrected direction comes from, for example ``("+x", "+z", "+y")``;
        a sign is relative to the other components, because ``n`` and ``-n`` are one direction.
    undetermined : tuple of str
        Other readings of the table that this cord cannot tell from the best one.
    n_voxels : int
    message : str
        One sentence for people.
    """

    status: Status
    alignment: float
    best_alignment: float
    correction: tuple[str, str, str]
    undetermined: tuple[str, ...]
    n_voxels: int
    message: str

    def as_notice(self) -> Notice | None:
        """Return what the reader must know; none where the table agrees with the cord."""
        if self.status is Status.PASS:
            return None
        severity = Severity.ERROR if self.status is Status.FAIL else Severity.WARNING
        return Notice(severity=severity, code="gradients.axes", message=self.message)


def check_cord_axis(
    first_eigenvectors: ArrayLike, cord_axis: ArrayLike, *, mask: NDArray[np.bool_] | None = None
) -> AxisCheck:
    """Compare the main direction of diffusion with the direction of the cord.

    Parameters
    ----------
    first_eigenvectors : array_like, shape (..., 3)
        In array axes, as fitted with the table in question; NaN where there is none.
    cord_axis : array_like, shape (3,) or (..., 3)
        Tangent of the centreline in the same axes (scaled to millimetres), any length.
    mask : ndarray of bool, shape (...), optional
        Cord, better its white matter; everything finite otherwise.

    Returns
    -------
    AxisCheck

    Raises
    ------
    InputError
        If shapes do not belong together.

    Notes
    -----
    The mean of |v1 . t| over the voxels is computed for the table as it is and for its 23 other
    readings (six orders of the components, four relative signs).  Readings that treat the cord alike
    cannot be told apart: an exchange of the two axes across the cord, and a flip of an axis that lies
    along or across it.
    """
    vectors, axes = _flatten(first_eigenvectors, cord_axis, mask)
    if len(vectors) < _FEWEST_VOXELS:
        message = f"{len(vectors)} voxels are too few to compare the gradients with the axis of the cord"
        return AxisCheck(Status.NOT_EVALUATED, np.nan, np.nan, ("+x", "+y", "+z"), (), len(vectors), message)
    readings = _readings()
    scores = np.array([np.abs(np.einsum("ij,ij->i", vectors @ q.T, axes)).mean() for q in readings])
    return _judge(readings, scores, len(vectors))


def _judge(readings: list[Array], scores: Array, n: int) -> AxisCheck:
    alignment, top = float(scores[0]), float(scores.max())
    gain = top - alignment
    clear = top >= ALIGNMENT_LIMIT and gain > _BETTER
    noisy = n >= _MANY_VOXELS and top >= _NOISY_LIMIT and gain > _MUCH_BETTER
    if clear or noisy:
        chosen = _simplest(readings, scores)
        flipped = np.array_equal(np.abs(readings[chosen]), np.eye(3))
        status = Status.WARN if flipped else Status.FAIL
    elif alignment >= ALIGNMENT_LIMIT:
        chosen, status = 0, Status.PASS
    else:
        chosen, status = 0, Status.WARN
    rivals = [i for i in np.flatnonzero(scores > scores[chosen] - _SAME) if i != chosen]
    undetermined = tuple(" ".join(_words(readings[i])) for i in rivals)
    correction = _words(readings[chosen])
    return AxisCheck(
        status,
        alignment,
        top,
        correction,
        undetermined,
        n,
        _sentence(status, alignment, float(scores[chosen]), correction, len(rivals)),
    )


def _simplest(readings: list[Array], scores: Array) -> int:
    """Of the readings that fit as well as the best, the one that changes least."""
    changes = [2 * int((np.diag(q) == 0).sum()) + int((q < 0).sum()) for q in readings]
    good = np.flatnonzero(scores > scores.max() - _SAME)
    return int(min(good, key=lambda i: (changes[i], -scores[i])))


def _sentence(status: Status, alignment: float, chosen: float, words: tuple[str, ...], rivals: int) -> str:
    start = f"|v1 . cord axis| is {alignment:.2f} on average"
    blind = "a flip of an axis along or across the cord, or an exchange of the two across it, cannot be seen"
    if status is Status.PASS:
        return f"{start}, as it should be; {blind}" if rivals else f"{start}, as it should be"
    if status is Status.FAIL:
        return (
            f"{start}: the components of the directions are exchanged; taken as ({', '.join(words)}) they "
            f"give {chosen:.2f}" + (f" ({blind})" if rivals else "")
        )
    if words != ("+x", "+y", "+z"):
        return f"{start}, with flipped components ({', '.join(words)}) {chosen:.2f}: a sign is probably wrong"
    return (
        f"{start}, and no exchange of components explains it (limit {ALIGNMENT_LIMIT:g}): "
        "the data are noise, or the mask is not cord"
    )


def _readings() -> list[Array]:
    """Six orders times four relative signs; the first is the table as it is."""
    signs = [(1, 1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, -1)]
    return [
        np.eye(3)[list(order)] * np.array(sign)[:, None]
        for order in itertools.permutations(range(3))
        for sign in signs
    ]


def _words(reading: Array) -> tuple[str, str, str]:
    source = np.abs(reading).argmax(axis=1)
    first, second, third = (
        f"{'-' if reading[row, column] < 0 else '+'}{_AXES[column]}" for row, column in enumerate(source)
    )
    return first, second, third


def _flatten(
    first_eigenvectors: ArrayLike, cord_axis: ArrayLike, mask: NDArray[np.bool_] | None
) -> tuple[Array, Array]:
    vectors = np.asarray(first_eigenvectors, dtype=float)
    axes = np.asarray(cord_axis, dtype=float)
    try:
        axes = np.broadcast_to(axes, vectors.shape)
        inside = np.ones(vectors.shape[:-1], bool) if mask is None else np.asarray(mask, dtype=bool)
        flat, tangents = vectors[inside], axes[inside]
        if vectors.shape[-1] != 3 or inside.shape != vectors.shape[:-1]:
            raise ValueError
    except (ValueError, IndexError) as error:
        raise InputError(
            "eigenvectors, cord axis and mask do not belong together",
            found=f"shapes {np.shape(first_eigenvectors)} and {np.shape(cord_axis)}"
            + ("" if mask is None else f", mask {mask.shape}"),
        ) from error
    length = np.linalg.norm(flat, axis=-1) * np.linalg.norm(tangents, axis=-1)
    good = np.isfinite(length) & (length > 0)
    flat, tangents = flat[good], tangents[good]
    return (
        flat / np.linalg.norm(flat, axis=1, keepdims=True),
        tangents / np.linalg.norm(tangents, axis=1, keepdims=True),
    )
