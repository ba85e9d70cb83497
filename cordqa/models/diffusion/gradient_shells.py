"""Which volumes count as not weighted, and which form a shell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.models.diffusion.gradient_errors import NoReferenceError
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.records import Notice, Severity

__all__ = ["DEFAULT_B0_LIMIT", "Shell", "find_b0_limit", "find_shells", "group_values"]

Array = NDArray[np.float64]

#: s/mm2; at a diffusivity of 1 um2/ms such a volume has lost 5 % of its signal.
DEFAULT_B0_LIMIT = 50.0
#: A lowest shell above the default limit still stands for b = 0 up to here.
_HIGHEST_B0 = 100.0
#: and only where everything else is at least this many times stronger.
_CLEAR_OF_B0 = 3.0
#: Values of one nominal b = 0 differ by no more than this.
_B0_WIDTH = 30.0
#: Values at or below the limit that differ by more are no longer one nominal value.
_B0_MIXED = 20.0
#: Two values this far apart (the larger of both) belong to different shells.
_SHELL_GAP, _SHELL_GAP_SHARE = 40.0, 0.06
#: Shapes that differ by less are the same shape.
_SHAPE_GAP = 0.05


@dataclass(frozen=True, slots=True)
class Shell:
    """Volumes of one b-value and one shape.

    Attributes
    ----------
    b_s_mm2 : float
        Median b-value, s/mm2.
    b_delta : float
        Shape, -1/2 to 1.
    volumes : ndarray of int
        Their indices in the table.
    width_s_mm2 : float
        Largest less smallest b-value; more than a fifth of b means that these are no shells.
    """

    b_s_mm2: float
    b_delta: float
    volumes: NDArray[np.intp]
    width_s_mm2: float

    @property
    def name(self) -> str:
        """For people: ``b = 1000 s/mm2, linear``."""
        shapes = {1.0: "linear", 0.0: "spherical", -0.5: "planar"}
        shape = next((word for value, word in shapes.items() if abs(self.b_delta - value) < _SHAPE_GAP), "")
        return f"b = {self.b_s_mm2:.0f} s/mm2, {shape or f'b_delta {self.b_delta:.2f}'}"


def group_values(values: ArrayLike, gap: float, gap_share: float = 0.0) -> NDArray[np.intp]:
    """Number the groups of values that lie close to each other, in rising order.

    Parameters
    ----------
    values : array_like, shape (n,)
    gap : float
        A step to the next larger value that exceeds it begins a new group.
    gap_share : float
        Or that exceeds this share of the larger value, whichever is more.

    Returns
    -------
    ndarray of int, shape (n,)
    """
    array = np.asarray(values, dtype=float)
    order = np.argsort(array, kind="stable")
    ordered = array[order]
    new = np.diff(ordered) > np.maximum(gap, gap_share * np.abs(ordered[1:]))
    groups = np.empty(array.size, dtype=np.intp)
    groups[order] = np.concatenate([[0], np.cumsum(new)]) if array.size else 0
    return groups


def find_shells(table: GradientTable) -> tuple[Shell, ...]:
    """Group the weighted volumes by b-value and shape, lowest b first, linear before other shapes.

    Neighbouring b-values less than 40 s/mm2 or 6 % apart belong together, so values that a scanner
    reports as 995, 1000 and 1005 are one shell.
    """
    weighted = np.flatnonzero(~table.is_b0)
    if not weighted.size:
        return ()
    shape = group_values(table.b_delta[weighted], _SHAPE_GAP)
    shells = []
    for one in np.unique(shape):
        volumes = weighted[shape == one]
        b = table.b_values_s_mm2[volumes]
        level = group_values(b, _SHELL_GAP, _SHELL_GAP_SHARE)
        for number in np.unique(level):
            inside = level == number
            shells.append(
                Shell(
                    float(np.median(b[inside])),
                    float(np.median(table.b_delta[volumes[inside]])),
                    volumes[inside],
                    float(np.ptp(b[inside])),
                )
            )
    return tuple(sorted(shells, key=lambda shell: (shell.b_s_mm2, -shell.b_delta)))


def find_b0_limit(b_values_s_mm2: ArrayLike, *, allow_none: bool = False) -> tuple[float, tuple[Notice, ...]]:
    """Find the b-value up to which volumes count as not weighted.

    50 s/mm2 where some volume lies below it; else the upper edge of the lowest shell, where that is
    at most 100 s/mm2 and far below the rest (scanners store a nominal 0 as 5, 10 or 60).

    Parameters
    ----------
    b_values_s_mm2 : array_like, shape (n,)
        Finite, not negative.
    allow_none : bool
        Accept a single shell without any unweighted volume.

    Returns
    -------
    limit : float
        s/mm2.
    notices : tuple of Notice
        What the reader must know about the choice.

    Raises
    ------
    NoReferenceError
        If there is one shell only and nothing that could stand for b = 0.
    """
    b = np.sort(np.asarray(b_values_s_mm2, dtype=float))
    low = b[group_values(b, _B0_MIXED) == 0] if b.size else b
    if b.size and b[0] <= DEFAULT_B0_LIMIT:
        return _limit_above_zero(b, low)
    if b.size and low[-1] <= _HIGHEST_B0 and np.ptp(low) <= _B0_WIDTH and _is_clear(b, low):
        message = (
            f"no b-value lies at or below {DEFAULT_B0_LIMIT:g} s/mm2; the {low.size} volumes at "
            f"{low[0]:g} to {low[-1]:g} s/mm2 count as not weighted (fits use their b-values as they are)"
        )
        return float(low[-1]), (_notice("gradients.b0-shifted", message),)
    groups = group_values(b, _SHELL_GAP, _SHELL_GAP_SHARE)
    if not allow_none and (not b.size or groups.max() == 0):
        raise NoReferenceError(
            "no volume without diffusion weighting, and one shell only: "
            "signal and diffusivity cannot be told apart",
            found=f"b-values from {b[0]:g} to {b[-1]:g} s/mm2" if b.size else "no volumes",
            expected=f"some volumes at or below {DEFAULT_B0_LIMIT:g} s/mm2",
            todo="give the b = 0 volumes as well, or name the limit of b = 0 (--b0-limit)",
        )
    message = (
        f"no volume without diffusion weighting: the lowest b-value is {b[0]:g} s/mm2, and the "
        "signal at b = 0 is an extrapolation"
    )
    return DEFAULT_B0_LIMIT, (_notice("gradients.no-b0", message),)


def _limit_above_zero(b: Array, low: Array) -> tuple[float, tuple[Notice, ...]]:
    """Limit where some volume lies at or below the default one."""
    top = float(low[-1])
    if DEFAULT_B0_LIMIT < top <= _HIGHEST_B0 and np.ptp(low) <= _B0_WIDTH and _is_clear(b, low):
        message = f"the lowest shell reaches from {low[0]:g} to {top:g} s/mm2; all of it counts as b = 0"
        return top, (_notice("gradients.b0-shifted", message),)
    inside = b[b <= DEFAULT_B0_LIMIT]
    if np.ptp(inside) <= _B0_MIXED:
        return DEFAULT_B0_LIMIT, ()
    message = (
        f"volumes between {inside[0]:g} and {inside[-1]:g} s/mm2 all count as not weighted; name a lower "
        "limit of b = 0 if some of them are low shells"
    )
    return DEFAULT_B0_LIMIT, (_notice("gradients.b0-mixed", message),)


def _is_clear(b: Array, low: Array) -> bool:
    """Whether everything above the lowest group is much stronger (and there is something)."""
    above = b[b > low[-1]]
    return bool(above.size) and bool(above[0] >= _CLEAR_OF_B0 * low[-1])


def _notice(code: str, message: str) -> Notice:
    return Notice(severity=Severity.WARNING, code=code, message=message)
