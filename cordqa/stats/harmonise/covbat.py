"""CovBat: ComBat, and then the same for how features vary together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError
from cordqa.stats.harmonise.base import Harmoniser, check_features
from cordqa.stats.harmonise.combat import BatchEffects, Combat, estimate_batch_effects, find_batches

__all__ = ["CovBat"]

FloatArray = NDArray[np.float64]


class CovBat(Harmoniser):
    """Harmonise mean, variance and covariance between features.

    After ComBat the residuals are turned into principal components; shift and scale of the
    scores of each batch are removed for the components that hold most of the variance.

    Parameters
    ----------
    variance_kept : float
        Share of the variance whose components are adjusted, above 0 and up to 1.
    empirical_bayes, reference, tolerance
        As for :class:`~cordqa.stats.harmonise.combat.Combat`.  Scores are not shrunk.

    Attributes
    ----------
    combat_ : Combat
    components_ : ndarray, shape (k, p)
        Principal axes of the standardised residuals.
    n_adjusted_ : int
        Components whose scores are adjusted.

    Notes
    -----
    Needs complete rows: a covariance of values that are missing differently is not defined.

    References
    ----------
    Chen A. A. et al. 2022, Hum Brain Mapp 43:1179, doi:10.1002/hbm.25688.
    """

    def __init__(
        self,
        *,
        variance_kept: float = 0.95,
        empirical_bayes: Literal["auto"] | bool = "auto",
        reference: str | None = None,
        tolerance: float = 1e-4,
    ) -> None:
        self.variance_kept = variance_kept
        self.empirical_bayes = empirical_bayes
        self.reference = reference
        self.tolerance = tolerance

    def fit(
        self,
        X: ArrayLike,
        *,
        batch: Iterable[Any],
        covariates: Any = None,
        subject: Iterable[Any] | None = None,
    ) -> Self:
        """Learn ComBat's effects, the components, and the batch effects of their scores.

        Parameters
        ----------
        X, batch, covariates, subject
            As for :meth:`Combat.fit <cordqa.stats.harmonise.combat.Combat.fit>`; no NaN.

        Raises
        ------
        InputError
            If a value is missing, there are fewer than two features, or ``variance_kept`` is
            not a share.
        """
        if not 0.0 < self.variance_kept <= 1.0:
            raise InputError("variance_kept must lie between 0 and 1", found=str(self.variance_kept))
        table = _complete(check_features(X))
        if table.shape[1] < 2:
            raise InputError("a covariance needs two features", found=str(table.shape[1]), todo="use ComBat")
        self.combat_ = Combat(
            empirical_bayes=self.empirical_bayes, reference=self.reference, tolerance=self.tolerance
        ).fit(table, batch=batch, covariates=covariates, subject=subject)
        residuals = self._residuals(table, batch, covariates)
        self.residual_mean_ = residuals.mean(axis=0)
        spread = residuals.std(axis=0, ddof=1)
        self.residual_spread_ = np.where(spread > 0.0, spread, 1.0)
        standard = (residuals - self.residual_mean_) / self.residual_spread_
        _, singular, self.components_ = np.linalg.svd(standard, full_matrices=False)
        explained = np.cumsum(singular**2) / np.sum(singular**2)
        self.n_adjusted_ = int(np.searchsorted(explained, self.variance_kept - 1e-12) + 1)
        scores = standard @ self.components_[: self.n_adjusted_].T
        self._fit_scores(scores, batch)
        self.n_features_in_ = table.shape[1]
        self.notices_ = self.combat_.notices_
        return self

    def _residuals(self, table: FloatArray, batch: Iterable[Any], covariates: Any) -> FloatArray:
        """What is left after ComBat, the mean and the covariates."""
        cleaned = self.combat_.transform(table, batch=batch, covariates=covariates)
        return cleaned - self._expected(table, covariates)

    def _expected(self, table: FloatArray, covariates: Any) -> FloatArray:
        """Mean and covariate effects; a feature that passes through keeps its own values."""
        columns = self.combat_.coder_.transform(covariates, table.shape[0])
        slopes = self.combat_.coefficients_[self.combat_.batches_.size :]
        mean = self.combat_.centre_ + columns @ slopes
        return np.where(self.combat_.passed_through_, table, mean)

    def _fit_scores(self, scores: FloatArray, batch: Iterable[Any]) -> None:
        names = self.combat_.batches_
        codes = find_batches(batch, names, scores.shape[0])
        home = None if self.reference is None else int(np.flatnonzero(names == str(self.reference))[0])
        means = np.stack([scores[codes == j].mean(axis=0) for j in range(names.size)])
        within = scores - means[codes]
        kept = np.ones(codes.size, dtype=bool) if home is None else codes == home
        self.score_mean_ = scores[kept].mean(axis=0)
        self.score_spread_ = np.sqrt((within[kept] ** 2).mean(axis=0))
        standard = (scores - self.score_mean_) / self.score_spread_
        effects = estimate_batch_effects(
            standard, codes, names.size, shrink=False, mean_only=False, tolerance=self.tolerance
        )
        shift, ratio = effects.shift.copy(), np.where(effects.ratio > 0.0, effects.ratio, 1.0)
        if home is not None:
            shift[home], ratio[home] = 0.0, 1.0
        self.score_effects_ = BatchEffects(shift, ratio)

    def transform(
        self,
        X: ArrayLike,
        *,
        batch: Iterable[Any],
        covariates: Any = None,
        subject: Iterable[Any] | None = None,
    ) -> FloatArray:
        """Take mean, variance and covariance effects out of values.

        Parameters
        ----------
        X, batch, covariates
            As in :meth:`fit`.
        subject
            Ignored.

        Returns
        -------
        ndarray, shape (n_scans, n_features)
        """
        del subject
        self._check_fitted()
        table = _complete(check_features(X, n_features=self.n_features_in_))
        codes = find_batches(batch, self.combat_.batches_, table.shape[0])
        residuals = self._residuals(table, batch, covariates)
        standard = (residuals - self.residual_mean_) / self.residual_spread_
        axes = self.components_[: self.n_adjusted_]
        scores = standard @ axes.T
        inside = (scores - self.score_mean_) / self.score_spread_
        inside = (inside - self.score_effects_.shift[codes]) / np.sqrt(self.score_effects_.ratio[codes])
        cleaned = inside * self.score_spread_ + self.score_mean_
        changed = standard + (cleaned - scores) @ axes
        rebuilt = changed * self.residual_spread_ + self.residual_mean_ + self._expected(table, covariates)
        untouched = np.broadcast_to(self.combat_.passed_through_, table.shape).copy()
        if self.reference is not None:
            untouched[self.combat_.batches_[codes] == str(self.reference)] = True
        return np.where(untouched, table, rebuilt)


def _complete(table: FloatArray) -> FloatArray:
    missing = np.isnan(table)
    if missing.any():
        raise InputError(
            "CovBat needs complete rows",
            found=f"{int(missing.any(axis=1).sum())} scans with a missing value",
            todo="leave them or the features out, or use ComBat",
        )
    return table
