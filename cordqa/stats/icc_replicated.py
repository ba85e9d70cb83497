"""Intraclass correlation where every cell holds replicates, kept apart and not averaged.

The interaction of subject and rater is a component of its own, so that the reliability of one
measurement, of one per rater, and of a repeat by the same rater can each be given.

Eliasziw M, et al. Phys Ther 1994;74:777.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError
from cordqa.stats.icc_core import CELLS, DRAWS, mean_squares
from cordqa.stats.quantiles import ratio

__all__ = [
    "REPLICATED_FORMS",
    "ReplicatedICCs",
    "replicated_icc_arrays",
    "replicated_icc_from_components",
]

Array = NDArray[np.float64]


#: Forms for tables with replicates in every cell; the last is the agreement of two measurements
#: of one subject by one rater (scan-rescan).
REPLICATED_FORMS = ("ICC(A,1)", "ICC(C,1)", "ICC(A,k)", "ICC(C,k)", "ICC(intra)")


class ReplicatedICCs(NamedTuple):
    """Five ICC with intervals, shape (..., 5) in the order of ``REPLICATED_FORMS``.

    ``components`` holds the variances of subject, rater, their interaction and the residual,
    shape (..., 4), before negative ones were set to zero.
    """

    value: Array
    low: Array
    high: Array
    components: Array


def replicated_icc_arrays(values: ArrayLike, *, level: float = 0.95, seed: int = 0) -> ReplicatedICCs:
    """Return ICC of single measurements where every cell holds replicates.

    Replicates are not averaged: the interaction of subject and rater is kept apart from the
    residual, and the ICC are those of one measurement (or one per rater, for the k forms).

    Parameters
    ----------
    values : array-like, shape (..., n_subjects, k_raters, m_replicates)
        Complete tables, m at least 2.
    level : float
        Confidence level of the generalized intervals.
    seed : int
        Seed of the generalized intervals.
    """
    y = np.asarray(values, dtype=float)
    n, k, m = y.shape[-3:] if y.ndim >= 3 else (0, 0, 0)
    if n < 2 or k < 2 or m < 2:
        raise InputError(
            "replicates need at least two subjects, two raters and two values per cell",
            found=f"{n}, {k} and {m}",
        )
    cells = y.mean(axis=-1)
    ms = mean_squares(cells)
    within = y.var(axis=-1, ddof=1).mean(axis=(-2, -1))
    table = _Table(
        squares=(m * ms.subjects, m * ms.raters, m * ms.error, within),
        freedom=(n - 1.0, k - 1.0, ms.df_error, n * k * (m - 1.0)),
        sizes=(n, k, float(m)),
    )
    return _replicated(table, (1.0 - level) / 2.0, seed)


def replicated_icc_from_components(
    components: ArrayLike,
    *,
    n: int,
    k: int,
    m: float,
    df_residual: float,
    level: float = 0.95,
    seed: int = 0,
) -> ReplicatedICCs:
    """Return ICC from REML components of an incomplete table with replicates.

    Parameters
    ----------
    components : array-like, shape (..., 4)
        Variances of subject, rater, interaction and residual.
    n, k : int
        Numbers of subjects and raters.
    m : float
        Mean number of values per filled cell.
    df_residual : float
        Number of values minus number of filled cells.
    """
    c = np.asarray(components, dtype=float)
    residual = c[..., 3]
    interaction = residual + m * c[..., 2]
    table = _Table(
        squares=(interaction + k * m * c[..., 0], interaction + n * m * c[..., 1], interaction, residual),
        freedom=(n - 1.0, k - 1.0, (n - 1.0) * (k - 1.0), df_residual),
        sizes=(n, k, m),
    )
    return _replicated(table, (1.0 - level) / 2.0, seed)


class _Table(NamedTuple):
    """Mean squares of subjects, raters, interaction and residual, their df, and (n, k, m)."""

    squares: tuple[Array, Array, Array, Array]
    freedom: tuple[float, float, float, float]
    sizes: tuple[int, int, float]


def _replicated(table: _Table, tail: float, seed: int) -> ReplicatedICCs:
    rng = np.random.default_rng(seed)
    k = table.sizes[1]
    if min(table.freedom) <= 0:
        nan = np.full((*np.shape(table.squares[0]), len(REPLICATED_FORMS)), np.nan)
        return ReplicatedICCs(nan, nan, nan, nan[..., :4])
    pivots = [rng.chisquare(df, DRAWS) / df for df in table.freedom]
    shape = np.shape(table.squares[0])
    flat = [np.ravel(s) for s in table.squares]
    raw = np.stack(_components(flat, table.sizes), axis=-1)
    value = _forms(np.maximum(raw, 0.0), k)
    bounds = np.empty((2, *value.shape))
    step = max(1, CELLS // DRAWS // len(REPLICATED_FORMS))
    for i in range(0, value.shape[0], step):
        part = slice(i, i + step)
        drawn = [s[part, None] / w for s, w in zip(flat, pivots, strict=True)]
        forms = _forms(np.maximum(np.stack(_components(drawn, table.sizes), axis=-1), 0.0), k)
        bounds[:, part] = np.quantile(forms, [tail, 1.0 - tail], axis=1)
    size = (*shape, len(REPLICATED_FORMS))
    return ReplicatedICCs(
        value.reshape(size), bounds[0].reshape(size), bounds[1].reshape(size), raw.reshape(*shape, 4)
    )


def _components(squares: list[Array], sizes: tuple[int, int, float]) -> list[Array]:
    n, k, m = sizes
    subject, rater, interaction, residual = squares
    return [
        (subject - interaction) / (k * m),
        (rater - interaction) / (n * m),
        (interaction - residual) / m,
        residual,
    ]


def _forms(c: Array, k: int) -> Array:
    """Five ICC from (..., 4) components; 0/0 (nothing varies) is NaN."""
    subject, rater, interaction, residual = (c[..., i] for i in range(4))
    noise = interaction + residual
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.stack(
            [
                ratio(subject, subject + rater + noise),
                ratio(subject, subject + noise),
                ratio(subject, subject + (rater + noise) / k),
                ratio(subject, subject + noise / k),
                ratio(subject + interaction, subject + noise),
            ],
            axis=-1,
        )
