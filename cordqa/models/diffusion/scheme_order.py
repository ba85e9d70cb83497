"""Signs and order of gradient directions: what diffusion does not feel and the scanner does.

``n`` and ``-n`` weight diffusion alike, but their eddy currents bend the image in opposite ways:
directions spread over the whole sphere let a correction tell distortion from diffusion.  The order
decides how evenly a scan that is cut short has sampled, and how long one gradient coil works at full
power without a rest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["axis_load", "balance_signs", "imbalance", "order_volumes", "place_unweighted"]

Array = NDArray[np.float64]
_SIGN_STARTS = 20
#: How much more the last volumes repel the next one than earlier ones, the last first.
_RECENT = (3.0, 1.5)
#: Directions of another shell repel less than those of the same.
_OTHER_SHELL = 0.5
#: Weight of the work of one coil in two consecutive volumes, against the mean repulsion.
_COIL = 1.0


def imbalance(directions: ArrayLike) -> float:
    """Length of the mean direction: 0 over the whole sphere, 0.5 over half of it, 1 along one axis."""
    array = np.asarray(directions, dtype=float)
    return float(np.linalg.norm(array.mean(axis=0))) if len(array) else float("nan")


def balance_signs(
    directions: ArrayLike, shells: Sequence[int] | NDArray[np.intp] | None = None, *, seed: int = 0
) -> Array:
    """Choose the sign of each direction so that every shell, and all of them, fill the whole sphere.

    Minimises the energy of charges at one end only of each direction, plus the square of the mean, by
    flips of one and of two directions from several random starts.

    Parameters
    ----------
    directions : array_like, shape (n, 3)
    shells : sequence of int, shape (n,), optional
        Number of the shell of each direction.
    seed : int

    Returns
    -------
    ndarray, shape (n, 3)
        The directions, some negated.
    """
    unit = np.asarray(directions, dtype=float)
    n = len(unit)
    if n < 2:
        return unit.copy()
    coupling = _sign_coupling(unit, np.zeros(n) if shells is None else np.asarray(shells))
    generator = np.random.default_rng(seed)
    best, lowest = np.ones(n), np.inf
    for _ in range(_SIGN_STARTS):
        signs = _relax(generator.choice([-1.0, 1.0], n), coupling)
        energy = float(signs @ coupling @ signs)
        if energy < lowest - 1e-12:
            best, lowest = signs, energy
    return unit * best[:, None]


def _sign_coupling(unit: Array, shells: Array) -> Array:
    """Matrix J of the energy s'Js of the signs s."""
    n = len(unit)
    cosine = np.clip(unit @ unit.T, -1.0, 1.0)
    near = 1 / np.sqrt(np.maximum(2 - 2 * cosine, 1e-6))
    far = 1 / np.sqrt(np.maximum(2 + 2 * cosine, 1e-6))
    same = shells[:, None] == shells[None, :]
    size = same.sum(axis=1).astype(float)
    weight = 1.0 / n**2 + same / size[:, None] ** 2
    # The second term is the square of the mean direction, which the first only makes small.
    coupling = weight * ((near - far) / 2 + cosine * np.sqrt(size)[:, None])
    np.fill_diagonal(coupling, 0.0)
    symmetric: Array = (coupling + coupling.T) / 2
    return symmetric


def _relax(signs: Array, coupling: Array) -> Array:
    """Flip one or two signs as long as that lowers the energy."""
    while True:
        gain = -4 * signs * (coupling @ signs)  # change of energy when one sign is flipped
        one = int(np.argmin(gain))
        pair = gain[:, None] + gain[None, :] + 8 * coupling * signs[:, None] * signs[None, :]
        np.fill_diagonal(pair, np.inf)
        first, second = np.unravel_index(int(np.argmin(pair)), pair.shape)
        if min(gain[one], pair[first, second]) > -1e-12:
            return signs
        signs = signs.copy()
        if gain[one] <= pair[first, second]:
            signs[one] *= -1
        else:
            signs[[first, second]] *= -1


def order_volumes(
    directions: ArrayLike, shells: Sequence[int] | NDArray[np.intp], strength: ArrayLike
) -> NDArray[np.intp]:
    """Order weighted volumes: shells interleaved, each beginning well spread, coils in turn.

    Parameters
    ----------
    directions : array_like, shape (n, 3)
        Zero where there is none.
    shells : sequence of int, shape (n,)
        Number of the shell of each volume.
    strength : array_like, shape (n,)
        b-value; the work of a coil is taken as proportional to it.

    Returns
    -------
    ndarray of int, shape (n,)
        Indices in the order of acquisition.  It depends on the input alone.
    """
    unit, shell = np.asarray(directions, dtype=float), np.asarray(shells)
    power = np.asarray(strength, dtype=float)
    if not len(unit):
        return np.zeros(0, dtype=np.intp)
    repulsion = _repulsion(unit, shell)
    work = unit**2 * (power / max(float(power.max()), 1e-300))[:, None]
    left = np.ones(len(unit), dtype=bool)
    order: list[int] = []
    for wanted in _shell_sequence(shell):
        candidates = np.flatnonzero(left & (shell == wanted))
        order.append(int(candidates[int(np.argmin(_cost(candidates, order, repulsion, work)))]))
        left[order[-1]] = False
    return np.array(order, dtype=np.intp)


def _repulsion(unit: Array, shell: NDArray[np.intp]) -> Array:
    cosine = np.abs(np.clip(unit @ unit.T, -1.0, 1.0))
    energy = 1 / np.sqrt(np.maximum(2 - 2 * cosine, 1e-6)) + 1 / np.sqrt(2 + 2 * cosine)
    result: Array = np.where(shell[:, None] == shell[None, :], energy, _OTHER_SHELL * energy)
    return result


def _cost(candidates: NDArray[np.intp], order: list[int], repulsion: Array, work: Array) -> Array:
    if not order:
        return np.zeros(len(candidates))
    weight = np.ones(len(order))
    for back, factor in enumerate(_RECENT[: len(order)], start=1):
        weight[-back] = factor
    spread = repulsion[np.ix_(candidates, np.array(order))] @ weight / weight.sum()
    cost: Array = spread + _COIL * (work[candidates] @ work[order[-1]])
    return cost


def _shell_sequence(shell: NDArray[np.intp]) -> list[int]:
    """Deal the shells so that each is evenly spread over the scan; the longest begins."""
    names, counts = np.unique(shell, return_counts=True)
    places = [
        ((k + 0.5) / count, -int(count), int(name))
        for name, count in zip(names, counts, strict=True)
        for k in range(count)
    ]
    return [name for _, _, name in sorted(places)]


def place_unweighted(n_weighted: int, n_unweighted: int) -> NDArray[np.bool_]:
    """Tell which volumes of a scan are b = 0: the first, the last, and evenly between them.

    Evenly spaced reference volumes show drift of the signal and motion; those at both ends bracket it.
    """
    total = n_weighted + n_unweighted
    unweighted = np.zeros(total, dtype=bool)
    if n_unweighted == 1:
        unweighted[0] = True
    elif n_unweighted > 1:
        unweighted[np.round(np.linspace(0, total - 1, n_unweighted)).astype(int)] = True
    return unweighted


def axis_load(directions: ArrayLike, b_values: ArrayLike, *, window: int = 5) -> float:
    """Largest mean work of one gradient axis over consecutive volumes, as a share of the most possible.

    Parameters
    ----------
    directions : array_like, shape (n, 3)
        In the order of acquisition; zero where there is none.
    b_values : array_like, shape (n,)
    window : int
        Consecutive volumes.

    Returns
    -------
    float
        1 where one axis alone works at the largest b throughout; a third is the least for a
        single shell without pauses.
    """
    b = np.asarray(b_values, dtype=float)
    work = np.asarray(directions, dtype=float) ** 2 * (b / max(float(b.max(initial=0.0)), 1e-300))[:, None]
    size = min(window, len(work))
    if not size:
        return float("nan")
    totals = np.cumsum(np.vstack([np.zeros(3), work]), axis=0)
    return float(((totals[size:] - totals[:-size]) / size).max())
