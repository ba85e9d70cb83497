"""Components of a subject by rater table with empty cells, by REML from every value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import FitError, TooLargeError

__all__ = ["CrossedFit", "fit_crossed", "occupied"]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CrossedFit:
    """REML components of one table.

    Attributes
    ----------
    variances : ndarray, shape (3,) or (4,)
        Subject, rater, (interaction,) residual; NaN where not estimable.
    mean : float
        Grand mean (generalised least squares).
    singular : bool
        Whether a variance is exactly zero.
    reason : str
        Why there is no estimate; empty where there is.
    """

    variances: Array
    mean: float
    singular: bool
    reason: str = ""


def occupied(values: Array) -> Array:
    """Take out subjects and raters without any value; shape (n, k, m)."""
    known: NDArray[np.bool_] = np.asarray(np.any(np.isfinite(values), axis=2))
    return values[known.any(axis=1)][:, known.any(axis=0)]


def fit_crossed(values: Array, *, interaction: bool) -> CrossedFit:
    """Fit subject, rater and, with replicates, their interaction as random effects.

    Parameters
    ----------
    values : ndarray, shape (n_subjects, k_raters, m_replicates)
        NaN where empty.
    interaction : bool
        Whether to keep the interaction apart from the residual; needs replicates.
    """
    from cordqa.stats.mixed_design import find_inestimable_terms, make_design
    from cordqa.stats.reml import fit_reml

    subject, rater, replicate = np.nonzero(np.isfinite(values))
    random: dict[str, NDArray[Any]] = {"subject": subject, "rater": rater}
    if interaction:
        random["subject by rater"] = subject * values.shape[1] + rater
    nothing = np.full(len(random) + 1, np.nan)
    try:
        design = make_design(random)
        unknown = find_inestimable_terms(design)
        if unknown:
            why = "; ".join(f"{term}: {reason}" for term, reason in unknown.items())
            return CrossedFit(nothing, np.nan, False, why)
        fit = fit_reml(values[subject, rater, replicate], design)
    except (FitError, TooLargeError) as error:
        return CrossedFit(nothing, np.nan, False, str(error))
    if fit.reasons[0] or not fit.converged[0]:
        return CrossedFit(nothing, np.nan, False, fit.reasons[0] or "REML did not converge")
    return CrossedFit(fit.variances[0], float(fit.coefficients[0, 0]), bool(fit.singular[0]))
