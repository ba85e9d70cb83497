"""Longitudinal ComBat: batch effects beside a random effect of the person."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError
from cordqa.records import Notice, Severity
from cordqa.stats.harmonise.base import (
    CovariateCoder,
    Harmoniser,
    as_labels,
    check_batches,
    check_confounding,
    check_features,
)
from cordqa.stats.harmonise.combat import BatchEffects, estimate_batch_effects, find_batches
from cordqa.stats.mixed_design import find_inestimable_terms, make_design
from cordqa.stats.reml import fit_reml, predict_effects

__all__ = ["LongCombat"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

_FEWEST_FEATURES = 3


class LongCombat(Harmoniser):
    """Harmonise repeated scans of the same people.

    For each feature a mixed model (covariates and batches fixed, person random, restricted
    maximum likelihood) gives what to expect of a scan; shift and scale of the remaining error
    are then treated as in ComBat.

    Parameters
    ----------
    empirical_bayes : {'auto', True, False}
        As for :class:`~cordqa.stats.harmonise.combat.Combat`.
    tolerance : float

    Attributes
    ----------
    batches_ : ndarray of str, shape (b,)
    coefficients_ : ndarray, shape (b + c, p)
        Mean per batch, then covariate effects.
    centre_, spread_ : ndarray, shape (p,)
        Mean that all batches are brought to, and residual SD within a person and batch.
    ratio_ : ndarray, shape (p,)
        Variance between people over that residual variance.
    effects_ : BatchEffects
    people_ : dict of str to ndarray
        Predicted deviation of every person, shape (p,).

    Notes
    -----
    Shift and scale come from errors within a person, so it needs people with several scans, and
    the shift is confused with biology where few people change the scanner.  Judge it with
    :func:`cordqa.stats.harmonise.judge.judge_pairs` before using it.

    References
    ----------
    Beer J. C. et al. 2020, NeuroImage 220:117129, doi:10.1016/j.neuroimage.2020.117129.
    """

    def __init__(self, *, empirical_bayes: Literal["auto"] | bool = "auto", tolerance: float = 1e-4) -> None:
        self.empirical_bayes = empirical_bayes
        self.tolerance = tolerance

    def fit(
        self,
        X: ArrayLike,
        *,
        batch: Iterable[Any],
        covariates: Any = None,
        subject: Iterable[Any] | None = None,
    ) -> Self:
        """Learn the batch effects.

        Parameters
        ----------
        X : array-like, shape (n_scans, n_features)
            NaN marks what is missing.
        batch, subject : sequence, length n_scans
        covariates : DataFrame, mapping or numeric table, optional
            What must be kept, such as age or time since the first scan.

        Raises
        ------
        InputError
            If the subjects are not given or nobody was scanned twice.
        """
        if subject is None:
            raise InputError("longitudinal ComBat needs to know the people", todo="give subject=")
        table = check_features(X)
        n_scans, n_features = table.shape
        people = as_labels(subject, n_scans, what="subject")
        names, person = np.unique(people, return_inverse=True)
        if names.size == n_scans:
            raise InputError("nobody was scanned twice", todo="use ComBat")
        labels = as_labels(batch, n_scans, what="batch")
        self.batches_, codes, notices = check_batches(labels, people=people)
        self.coder_ = CovariateCoder()
        columns = self.coder_.fit(covariates, n_scans)
        notices += check_confounding(codes, columns, self.coder_.names_)
        self.coefficients_ = np.full((self.batches_.size + columns.shape[1], n_features), np.nan)
        self.centre_, self.spread_ = np.full(n_features, np.nan), np.full(n_features, np.nan)
        self.ratio_ = np.full(n_features, np.nan)
        deviation = np.zeros((names.size, n_features))
        for feature in range(n_features):
            self._fit_feature(table[:, feature], codes, columns, person.ravel(), feature, deviation)
        self.people_ = dict(zip(names.tolist(), deviation, strict=True))
        self.passed_through_ = ~np.isfinite(self.spread_)
        self._fit_batches(table, codes, columns, people)
        lost = int(self.passed_through_.sum())
        if lost:
            message = f"{lost} of {n_features} features left unchanged: the mixed model could not be fitted"
            notices.append(Notice(severity=Severity.WARNING, message=message, code="harmonise.constant"))
        self.notices_ = tuple(notices)
        self.n_features_in_ = n_features
        return self

    def _fit_feature(
        self,
        values: FloatArray,
        codes: IntArray,
        columns: FloatArray,
        person: IntArray,
        feature: int,
        deviation: FloatArray,
    ) -> None:
        """Mixed model of one feature; leaves NaN where it cannot be fitted."""
        here = np.isfinite(values)
        counts = np.bincount(codes[here], minlength=self.batches_.size)
        seen = counts > 0
        fixed = np.column_stack([np.eye(counts.size)[codes[here]][:, seen], columns[here]])
        enough = here.sum() > fixed.shape[1] + 1 and np.linalg.matrix_rank(fixed) == fixed.shape[1]
        if not enough or seen.sum() < 2:
            return
        design = make_design({"subject": person[here]}, fixed)
        if find_inestimable_terms(design):
            return
        fit = fit_reml(values[here], design)
        if not fit.converged[0] or fit.reasons[0]:
            return
        means = np.full(counts.size, np.nan)
        means[seen] = fit.coefficients[0, : seen.sum()]
        self.coefficients_[:, feature] = np.concatenate([means, fit.coefficients[0, seen.sum() :]])
        self.centre_[feature] = np.nansum(counts * np.nan_to_num(means)) / counts.sum()
        self.spread_[feature] = np.sqrt(fit.variances[0, -1])
        self.ratio_[feature] = fit.variances[0, 0] / fit.variances[0, -1]
        effects = predict_effects(values[here], design, fit.variances[0])["subject"]
        deviation[np.unique(person[here]), feature] = effects

    def _expected(
        self, table: FloatArray, codes: IntArray, columns: FloatArray, people: NDArray[np.str_] | None
    ) -> FloatArray:
        """Mean, covariates and person, without the batch."""
        slopes = columns @ self.coefficients_[self.batches_.size :]
        expected = np.asarray(self.centre_ + slopes + np.zeros((table.shape[0], 1)))
        if people is None:
            return expected
        rest = table - self.coefficients_[codes] - slopes
        for who in np.unique(people):
            mine = people == who
            known = self.people_.get(str(who))
            expected[mine] += self._predict_person(rest[mine]) if known is None else known
        return expected

    def _predict_person(self, rest: FloatArray) -> FloatArray:
        """Deviation of a person who was not fitted, from that person's own scans."""
        present = np.isfinite(rest)
        total = np.where(present, rest, 0.0).sum(axis=0)
        return np.asarray(self.ratio_ * total / (1.0 + self.ratio_ * present.sum(axis=0)))

    def _fit_batches(
        self, table: FloatArray, codes: IntArray, columns: FloatArray, people: NDArray[np.str_]
    ) -> None:
        used = ~self.passed_through_
        shift = np.zeros((self.batches_.size, table.shape[1]))
        ratio = np.ones_like(shift)
        shrink = used.sum() >= _FEWEST_FEATURES if self.empirical_bayes == "auto" else self.empirical_bayes
        if used.any():
            standard = (table - self._expected(table, codes, columns, people))[:, used] / self.spread_[used]
            effects = estimate_batch_effects(
                standard,
                codes,
                self.batches_.size,
                shrink=bool(shrink) and used.sum() > 1,
                mean_only=False,
                tolerance=self.tolerance,
            )
            shift[:, used], ratio[:, used] = effects.shift, np.where(effects.ratio > 0, effects.ratio, 1.0)
        self.effects_ = BatchEffects(shift, ratio)

    def transform(
        self,
        X: ArrayLike,
        *,
        batch: Iterable[Any],
        covariates: Any = None,
        subject: Iterable[Any] | None = None,
    ) -> FloatArray:
        """Take the batch effects out of values.

        Parameters
        ----------
        X, batch, covariates
            As in :meth:`fit`.
        subject : sequence, optional
            The level of people who were not fitted is predicted from the scans given here.
            Where omitted, everyone counts as average, which makes the scaling less apt.

        Returns
        -------
        ndarray, shape (n_scans, n_features)
        """
        self._check_fitted()
        table = check_features(X, n_features=self.n_features_in_)
        codes = find_batches(batch, self.batches_, table.shape[0])
        columns = self.coder_.transform(covariates, table.shape[0])
        people = None if subject is None else as_labels(subject, table.shape[0], what="subject")
        with np.errstate(invalid="ignore"):
            expected = self._expected(table, codes, columns, people)
            standard = (table - expected) / self.spread_
            cleaned = (standard - self.effects_.shift[codes]) / np.sqrt(self.effects_.ratio[codes])
            result = cleaned * self.spread_ + expected
        return np.where(self.passed_through_, table, result)
