"""Travelling subjects: the shift of every scanner from people who were scanned on several."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import FitError, InputError
from cordqa.records import Notice, Severity
from cordqa.stats.harmonise.base import FEW_PEOPLE, Harmoniser, as_labels, check_batches, check_features
from cordqa.stats.harmonise.combat import find_batches
from cordqa.stats.mixed_design import make_design
from cordqa.stats.reml import fit_reml, predict_effects

__all__ = ["TravellingSubject"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]


class TravellingSubject(Harmoniser):
    """Take out a constant shift per batch, learned from within-subject differences only.

    The model is ``value = person + shift of the batch + error`` with shifts that sum to zero.
    Differences between the people of different sites, such as age and sex, cannot enter the
    shift, so biology is not harmed and no covariates are needed.

    Parameters
    ----------
    method : {'least-squares', 'reml'}
        ``least-squares`` treats people and batches as fixed.  ``reml`` treats both as random and
        shrinks the shifts by how far they can be told from chance; better with many batches and
        few travellers, but it also learns from people seen once.
    reference : str, optional
        Batch whose shift is zero; otherwise the mean of all batches stays.

    Attributes
    ----------
    batches_ : ndarray of str, shape (b,)
    shift_ : ndarray, shape (b, p)
        In the unit of the values; NaN where the travellers do not link the batch.
    error_ : ndarray, shape (b, p)
        Standard error of the shifts (least squares; NaN for REML).
    n_travellers_ : ndarray of int, shape (b,)
        People scanned in this batch and in another.

    References
    ----------
    Yamashita A. et al. 2019, PLoS Biol 17:e3000042, doi:10.1371/journal.pbio.3000042.
    """

    def __init__(
        self, *, method: Literal["least-squares", "reml"] = "least-squares", reference: str | None = None
    ) -> None:
        self.method = method
        self.reference = reference

    def fit(
        self,
        X: ArrayLike,
        *,
        batch: Iterable[Any],
        covariates: Any = None,
        subject: Iterable[Any] | None = None,
    ) -> Self:
        """Learn the shifts.

        Parameters
        ----------
        X : array-like, shape (n_scans, n_features)
            NaN marks what is missing.
        batch, subject : sequence, length n_scans
        covariates
            Ignored: what does not change within a person cannot matter.

        Raises
        ------
        FitError
            If nobody was scanned in two batches, or the travellers do not link all batches.
        InputError
            If the subjects are not given.
        """
        del covariates
        if subject is None:
            raise InputError("travelling subjects must be named", todo="give subject=")
        if self.method not in ("least-squares", "reml"):
            raise InputError(
                "the method is not known", found=str(self.method), expected="least-squares or reml"
            )
        table = check_features(X)
        people = as_labels(subject, table.shape[0], what="subject")
        self.batches_, codes, _ = check_batches(as_labels(batch, table.shape[0], what="batch"))
        person = np.unique(people, return_inverse=True)[1].astype(np.intp).ravel()
        self.n_travellers_ = _count_travellers(person, codes)
        _check_linked(person, codes, self.batches_)
        home = self._home()
        columns = [self._one_feature(values, person, codes, home) for values in table.T]
        self.shift_ = np.stack([shift for shift, _ in columns], axis=1)
        self.error_ = np.stack([error for _, error in columns], axis=1)
        self.n_features_in_ = table.shape[1]
        self.notices_ = self._notices()
        return self

    def _home(self) -> int | None:
        if self.reference is None:
            return None
        return int(find_batches([self.reference], self.batches_, 1)[0])

    def _one_feature(
        self, values: FloatArray, person: IntArray, codes: IntArray, home: int | None
    ) -> tuple[FloatArray, FloatArray]:
        """Shift and standard error per batch from the scans that hold this feature."""
        here = np.isfinite(values)
        size = self.batches_.size
        nothing = np.full(size, np.nan)
        linked = _components(person[here], codes[here], size)
        if not here.any() or np.any(linked != linked[0]):
            return nothing, nothing.copy()
        if self.method == "reml":
            shift, error = _reml_shift(values[here], person[here], codes[here], size)
        else:
            shift, error = _least_squares_shift(values[here], person[here], codes[here], size, home)
        return shift - (shift[home] if home is not None else shift.mean()), error

    def _notices(self) -> tuple[Notice, ...]:
        notices = []
        few = [
            f"{name} ({count})"
            for name, count in zip(self.batches_, self.n_travellers_, strict=True)
            if count < FEW_PEOPLE
        ]
        if few:
            message = f"fewer than {FEW_PEOPLE} travellers in {', '.join(few)}: shifts known only roughly"
            notices.append(
                Notice(severity=Severity.WARNING, message=message, code="harmonise.few-travellers")
            )
        lost = int(np.isnan(self.shift_).any(axis=0).sum())
        if lost:
            message = f"{lost} features: missing values break the link between batches, no shift there"
            notices.append(Notice(severity=Severity.WARNING, message=message, code="harmonise.not-linked"))
        return tuple(notices)

    def transform(
        self,
        X: ArrayLike,
        *,
        batch: Iterable[Any],
        covariates: Any = None,
        subject: Iterable[Any] | None = None,
    ) -> FloatArray:
        """Subtract the shift of the batch, for travellers and anyone else.

        Parameters
        ----------
        X, batch
            As in :meth:`fit`.
        covariates, subject
            Ignored.

        Returns
        -------
        ndarray, shape (n_scans, n_features)
            NaN where the value is missing or the shift is not known.
        """
        del covariates, subject
        self._check_fitted()
        table = check_features(X, n_features=self.n_features_in_)
        codes = find_batches(batch, self.batches_, table.shape[0])
        return table - self.shift_[codes]


def _count_travellers(person: IntArray, codes: IntArray) -> NDArray[np.int64]:
    """People of each batch who were also scanned in another."""
    pairs = np.unique(np.stack([person, codes]), axis=1)
    several = np.bincount(pairs[0]) > 1
    return np.bincount(pairs[1][several[pairs[0]]], minlength=int(codes.max()) + 1).astype(np.int64)


def _components(person: IntArray, codes: IntArray, n_batches: int) -> IntArray:
    """Number the sets of batches that people link to each other."""
    group = np.arange(n_batches)
    for who in np.unique(person):
        seen = np.unique(group[codes[person == who]])
        group[np.isin(group, seen)] = seen[0]
    return group


def _check_linked(person: IntArray, codes: IntArray, names: NDArray[np.str_]) -> None:
    group = _components(person, codes, names.size)
    sets = [names[group == g] for g in np.unique(group)]
    if len(sets) == names.size:
        raise FitError(
            "nobody was scanned in two batches, so the shift of a scanner cannot be told from its people",
            todo="use ComBat with covariates, and read its caution",
        )
    if len(sets) > 1:
        listed = "; ".join(", ".join(names_of[:5]) for names_of in sets)
        raise FitError("the travelling people do not link all batches", found=f"separate sets: {listed}")


def _least_squares_shift(
    values: FloatArray, person: IntArray, codes: IntArray, n_batches: int, home: int | None
) -> tuple[FloatArray, FloatArray]:
    """Shifts after taking every person's own mean out of values and indicators."""
    indicators = np.eye(n_batches)[codes]
    _, who = np.unique(person, return_inverse=True)
    count = np.bincount(who)
    means = np.stack([np.bincount(who, column) for column in indicators.T], axis=1) / count[:, None]
    within = indicators - means[who]
    rest = values - (np.bincount(who, values) / count)[who]
    inverse = np.linalg.pinv(within.T @ within)
    shift = inverse @ within.T @ rest
    freedom = values.size - count.size - (n_batches - 1)
    sigma2 = float(np.sum((rest - within @ shift) ** 2)) / freedom if freedom > 0 else np.nan
    # Contrast of each batch with what stays: the mean of all, or the reference.
    against = np.full((n_batches, n_batches), 1.0 / n_batches)
    if home is not None:
        against = np.tile(np.eye(n_batches)[home], (n_batches, 1))
    contrast = np.eye(n_batches) - against
    variance = np.diag(contrast @ inverse @ contrast.T) * sigma2
    return shift, np.sqrt(np.maximum(variance, 0.0))


def _reml_shift(
    values: FloatArray, person: IntArray, codes: IntArray, n_batches: int
) -> tuple[FloatArray, FloatArray]:
    """Predicted random effects of the batches."""
    nothing = np.full(n_batches, np.nan)
    design = make_design({"subject": person, "batch": codes})
    fit = fit_reml(values, design)
    if not fit.converged[0] or fit.reasons[0]:
        return nothing, nothing.copy()
    found = predict_effects(values, design, fit.variances[0])["batch"]
    shift = np.zeros(n_batches)
    shift[np.unique(codes)] = found
    return shift, nothing
