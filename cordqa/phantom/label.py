"""Choose among the labellings that positions alone cannot tell apart.

The layout of the system phantom looks the same after half a turn and in a mirror, so four labellings put
spheres at the same places.  The relaxation times tell them apart: they fall from sphere to sphere by
known factors.  A plain correlation with the reference is a poor judge, because a protocol measures only
part of the spheres and the others hold noise that moves a correlation at will.  Here each sphere votes
with a bounded weight: it agrees, or it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import AmbiguousLabelsError, InputError

__all__ = [
    "MINIMUM_MARGIN",
    "MINIMUM_SCORE",
    "Choice",
    "UnclearLabelsError",
    "choose_labels",
    "choose_labels_under",
]

Array = NDArray[np.float64]

#: Least score of the chosen labelling, and least lead over the next.  Between 5 and 14 values drawn
#: at random are labelled in about one of 10,000 plates at most, and none was labelled wrongly when four
#: or more were right; the real scans reach 0.64 and 0.41, and 0.20 and 0.08 against the reference of
#: another plate (``benchmarks/locate_transforms.py``).
MINIMUM_SCORE = 0.42
MINIMUM_MARGIN = 0.20
#: Imaginary spheres that agree with no labelling.  They keep a handful of spheres, which may agree
#: by chance, from making as strong a case as a full plate.
_DISBELIEF = 4.0
#: Fewer values than this decide nothing, however well they agree.
_FEWEST = 5
#: Difference of logarithms at which a sphere agrees by half: about the error of a poor protocol,
#: and less than the step between neighbours of the arrays.
_HALF_AGREEMENT = 0.20
#: Common factor (as a logarithm) that is allowed between all values and the reference: field
#: strength, temperature, batch and bias move all spheres together.
_COMMON_FACTOR = 0.30
#: The same where the conditions are searched as well, so that only the scanner's bias is left.
_COMMON_FACTOR_UNDER = 0.10
_FACTOR_STEPS = 61


@dataclass(frozen=True)
class Choice:
    """The chosen labelling and how clear the choice was.

    Attributes
    ----------
    index : int
        Candidate chosen.
    score : float
        Sum of agreements over (number of spheres that have a value + 4): 0 is none, and 14 perfect
        spheres reach 0.78.
    runner_up : int
        Next best candidate (the same as ``index`` where there is only one).
    margin : float
        Score less the runner-up's score (the score itself where there is only one).
    scores : ndarray, shape (n_candidates,)
    agreement : ndarray, shape (n_spheres,)
        Agreement of each sphere under the chosen labelling, 0 to 1.
    common_factor : float
        Factor between measured and reference values that suits the chosen labelling best.
    """

    index: int
    score: float
    runner_up: int
    margin: float
    scores: Array
    agreement: Array
    common_factor: float


class UnclearLabelsError(AmbiguousLabelsError):
    """No labelling stands out; ``choice`` holds what would have been chosen."""

    def __init__(
        self,
        what: str,
        *,
        choice: Choice,
        where: str = "",
        found: str = "",
        expected: str = "",
        todo: str = "",
    ) -> None:
        super().__init__(what, where=where, found=found, expected=expected, todo=todo)
        self.choice = choice


def choose_labels(
    log_values: ArrayLike | Sequence[ArrayLike] | Callable[[int], ArrayLike],
    log_reference: ArrayLike,
    *,
    n_candidates: int | None = None,
    log_uncertainty: ArrayLike | None = None,
    minimum_margin: float = MINIMUM_MARGIN,
    minimum_score: float = MINIMUM_SCORE,
    where: str = "",
) -> Choice:
    """Choose the labelling under which measured relaxation times agree with the reference.

    A sphere whose value differs from the reference by ``d`` (in natural logarithms, after one factor
    common to all spheres, at most e^0.3) agrees by 1 / (1 + (d / 0.2)^2).  The score is the sum over
    the spheres that have a value, divided by their number plus four.  The reference decides between
    the labellings only; it does not move a centre or a value.

    Parameters
    ----------
    log_values : array_like, shape (n_candidates, n_spheres), or callable
        Natural logarithm of the relaxation time of each sphere under each labelling, in the unit of
        the reference; NaN where there is none.  A callable is given the index of a candidate and
        returns its values; it needs ``n_candidates``.
    log_reference : array_like, shape (n_spheres,)
        Natural logarithm of the reference; NaN where there is none.
    n_candidates : int, optional
        Only with a callable.
    log_uncertainty : array_like, optional
        Standard uncertainty of ``log_values``, same shape; a value known to u counts
        0.2^2 / (0.2^2 + u^2).  NaN counts as no value.
    minimum_margin, minimum_score : float
        What is refused, see :class:`Choice`.
    where : str
        Name of the series for messages.

    Raises
    ------
    UnclearLabelsError
        If the score or the margin is too small.
    InputError
        If the shapes do not agree.

    Examples
    --------
    >>> reference = np.log([2000.0, 1000, 500, 250, 125, 60])
    >>> choose_labels([reference[::-1], reference + 0.05], reference).index
    1
    """
    reference = np.asarray(log_reference, dtype=float)
    values = _collect(log_values, n_candidates)
    weights = _weights(log_uncertainty, values)
    if reference.ndim != 1 or values.ndim != 2 or values.shape[1] != reference.size or values.size == 0:
        raise InputError(
            "values and reference do not belong together",
            where=where,
            found=f"shapes {values.shape} and {reference.shape}",
            expected="(n_candidates, n_spheres) and (n_spheres,)",
        )
    choice = _choose(values - reference, weights)
    _check_choice(choice, values[choice.index] - reference, minimum_margin, minimum_score, where)
    return choice


def choose_labels_under(
    log_values: ArrayLike,
    log_references: ArrayLike,
    *,
    log_uncertainty: ArrayLike | None = None,
    minimum_margin: float = MINIMUM_MARGIN,
    minimum_score: float = MINIMUM_SCORE,
    where: str = "",
) -> tuple[Choice, int]:
    """Choose the labelling where the conditions of the reference are not known (its temperature).

    Each labelling is given the conditions that suit it best, so that its lead is over every other
    labelling under any conditions.  One factor common to all spheres may be e^0.1 at most.

    Parameters
    ----------
    log_values : array_like, shape (n_candidates, n_spheres)
    log_references : array_like, shape (n_conditions, n_spheres)
    log_uncertainty, minimum_margin, minimum_score, where
        As for :func:`choose_labels`.

    Returns
    -------
    choice : Choice
        ``scores`` are the best of each labelling.
    condition : int
        Conditions that suit the chosen labelling best.

    Raises
    ------
    UnclearLabelsError
        If the score or the margin is too small.
    """
    values, references = _collect(log_values, None), np.atleast_2d(np.asarray(log_references, dtype=float))
    weights = _weights(log_uncertainty, values)
    choices = [_choose(values - r, weights, common_factor=_COMMON_FACTOR_UNDER) for r in references]
    scores = np.array([choice.scores for choice in choices])
    best = scores.max(axis=0)
    index = int(np.argmax(best))
    condition = int(np.argmax(scores[:, index]))
    others = np.delete(best, index)
    runner_up = (
        int(np.argmax(np.where(np.arange(best.size) == index, -np.inf, best))) if others.size else index
    )
    choice = replace(
        choices[condition],
        index=index,
        runner_up=runner_up,
        margin=float(best[index] - (others.max() if others.size else 0.0)),
        scores=best,
    )
    _check_choice(choice, values[index] - references[condition], minimum_margin, minimum_score, where)
    return choice, condition


def _check_choice(
    choice: Choice, difference: Array, minimum_margin: float, minimum_score: float, where: str
) -> None:
    n_known = int(np.isfinite(difference).sum())
    too_few = n_known < min(_FEWEST, difference.size)
    if too_few or choice.score < minimum_score or choice.margin < minimum_margin:
        raise UnclearLabelsError(
            f"which sphere is which cannot be told from the {n_known} of {difference.size} spheres "
            "that have a value",
            choice=choice,
            where=where,
            found=f"agreement {choice.score:.2f}, lead over the next labelling {choice.margin:.2f}",
            expected=f"at least {minimum_score:.2f} and {minimum_margin:.2f}",
            todo="check that plate, batch and field strength are the right ones and that the "
            "inversion or echo times suit the plate",
        )


def _collect(log_values: object, n_candidates: int | None) -> Array:
    if callable(log_values):
        if n_candidates is None:
            raise InputError("a function of the candidate needs the number of candidates")
        log_values = [log_values(index) for index in range(n_candidates)]
    try:
        return np.array(log_values, dtype=float)
    except (TypeError, ValueError) as error:
        raise InputError("values must be numbers, as many for every candidate") from error


def _weights(log_uncertainty: ArrayLike | None, values: Array) -> Array:
    if log_uncertainty is None:
        return np.ones_like(values)
    spread = np.array(log_uncertainty, dtype=float)
    if spread.shape != values.shape:
        raise InputError(
            "uncertainties and values do not belong together",
            found=f"shape {spread.shape}",
            expected=f"shape {values.shape}",
        )
    with np.errstate(over="ignore"):
        weights = _HALF_AGREEMENT**2 / (_HALF_AGREEMENT**2 + spread**2)
    return np.nan_to_num(weights, nan=0.0)


def _choose(difference: Array, weights: Array, *, common_factor: float = _COMMON_FACTOR) -> Choice:
    """Score every candidate with the common factor that suits it best."""
    factors = np.linspace(-common_factor, common_factor, _FACTOR_STEPS)
    distance = np.where(np.isfinite(difference), difference, np.inf)[:, None, :] - factors[:, None]
    agreement = weights[:, None, :] / (1.0 + (distance / _HALF_AGREEMENT) ** 2)
    usable = np.where(np.isfinite(difference), weights, 0.0).sum(axis=1, keepdims=True)
    by_factor = agreement.sum(axis=2) / (usable + _DISBELIEF)
    best_factor = by_factor.argmax(axis=1)
    scores = by_factor.max(axis=1)
    order = np.argsort(-scores, kind="stable")
    index, runner_up = int(order[0]), int(order[min(1, len(order) - 1)])
    lead = scores[index] - (scores[runner_up] if len(order) > 1 else 0.0)
    return Choice(
        index=index,
        score=float(scores[index]),
        runner_up=runner_up,
        margin=float(lead),
        scores=scores,
        agreement=agreement[index, best_factor[index]],
        common_factor=float(np.exp(factors[best_factor[index]])),
    )
