"""Components of subject by rater tables with empty cells, by REML from every value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import FitError, TooLargeError

__all__ = ["CrossedFit", "fit_crossed", "occupied", "same_pattern"]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CrossedFit:
    """REML components of tables whose empty cells are the same.

    Attributes
    ----------
    variances : ndarray, shape (n_tables, 3) or (n_tables, 4)
        Subject, rater, (interaction,) residual; NaN where not estimable.
    mean : ndarray, shape (n_tables,)
        Grand mean (generalised least squares).
    singular : ndarray of bool, shape (n_tables,)
        Whether a variance is exactly zero.
    reasons : tuple of str
        Why there is no estimate; empty where there is.
    """

    variances: Array
    mean: Array
    singular: NDArray[np.bool_]
    reasons: tuple[str, ...]


def same_pattern(
    tables: Iterable[tuple[int, Array]],
) -> Iterator[tuple[NDArray[np.int64], Array]]:
    """Put tables of equal shape and equal empty cells together.

    Parameters
    ----------
    tables : iterable of (index, ndarray)
        Each of shape (n_subjects, k_raters, m).

    Yields
    ------
    index : ndarray of int, shape (n_tables,)
    values : ndarray, shape (n_tables, n_subjects, k_raters, m)
    """
    found: dict[tuple[Any, ...], list[tuple[int, Array]]] = {}
    for index, values in tables:
        found.setdefault((values.shape, np.isfinite(values).tobytes()), []).append((index, values))
    for members in found.values():
        yield np.array([i for i, _ in members], dtype=np.int64), np.stack([v for _, v in members])


def occupied(values: Array) -> Array:
    """Take out subjects and raters without any value; shape (n, k, m)."""
    known: NDArray[np.bool_] = np.asarray(np.any(np.isfinite(values), axis=2))
    return values[known.any(axis=1)][:, known.any(axis=0)]


def fit_crossed(values: Array, *, interaction: bool) -> CrossedFit:
    """Fit subject, rater and, with replicates, their interaction as random effects.

    Parameters
    ----------
    values : ndarray, shape (n_tables, n_subjects, k_raters, m_replicates)
        NaN where empty, at the same places in every table.
    interaction : bool
        Whether to keep the interaction apart from the residual; needs replicates.
    """
    from cordqa.stats.mixed_design import find_inestimable_terms, make_design
    from cordqa.stats.reml import fit_reml

    subject, rater, replicate = np.nonzero(np.isfinite(values[0]))
    random: dict[str, NDArray[Any]] = {"subject": subject, "rater": rater}
    if interaction:
        random["subject by rater"] = subject * values.shape[2] + rater
    n_terms = len(random) + 1
    try:
        design = make_design(random)
        unknown = find_inestimable_terms(design)
        if unknown:
            why = "; ".join(f"{term}: {reason}" for term, reason in unknown.items())
            return _nothing(values.shape[0], n_terms, why)
        fit = fit_reml(values[:, subject, rater, replicate], design)
    except (FitError, TooLargeError) as error:
        return _nothing(values.shape[0], n_terms, str(error))
    reasons = tuple(
        why or ("" if converged else "REML did not converge")
        for why, converged in zip(fit.reasons, fit.converged, strict=True)
    )
    return CrossedFit(fit.variances, fit.coefficients[:, 0], fit.singular, reasons)


def _nothing(n_tables: int, n_terms: int, why: str) -> CrossedFit:
    return CrossedFit(
        np.full((n_tables, n_terms), np.nan),
        np.full(n_tables, np.nan),
        np.zeros(n_tables, dtype=bool),
        (why,) * n_tables,
    )
