"""Quantities whose profile likelihood is wanted, as minimisation problems over the rest.

Each holds one function of the variance components (a standard deviation, a share, a sum) at a
value and leaves the other parameters free; all rows are solved side by side.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cordqa.stats.deviance import Prepared, evaluate
from cordqa.stats.reml import RemlFit

__all__ = ["AllOverResidual", "Deviation", "Gradient", "Ratio", "Target", "Total"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]
Gradient = tuple[FloatArray, FloatArray]


class Target(Protocol):
    """A quantity whose profiled deviance is wanted, one row per interval.

    ``table`` says which table each row belongs to, ``estimate`` is the quantity at the minimum,
    ``reaches_zero`` whether zero is a possible value, ``start`` and ``free`` the parameters.
    """

    table: IntArray
    estimate: FloatArray
    reaches_zero: BoolArray
    start: FloatArray
    free: BoolArray

    def hold(self, points: FloatArray, held: FloatArray, rows: IntArray) -> FloatArray:
        """Write the held value into the parameters where it is one of them."""

    def deviance(self, points: FloatArray, held: FloatArray, rows: IntArray) -> Gradient:
        """Deviance and gradient at the parameters with the quantity held."""


class Deviation:
    """Standard deviation of one component; parameters are the SDs, the residual as logarithm."""

    def __init__(self, prepared: Prepared, fit: RemlFit, usable: IntArray) -> None:
        n_parameters = fit.variances.shape[1]
        deviations = np.sqrt(fit.variances[usable]) / prepared.scale[usable, None]
        points = np.concatenate([deviations[:, :-1], np.log(deviations[:, -1:])], axis=1)
        self.prepared, self.likelihood = prepared, fit.likelihood
        self.table = np.repeat(usable, n_parameters)
        self.parameter = np.tile(np.arange(n_parameters), usable.size)
        self.start = np.repeat(points, n_parameters, axis=0)
        self.estimate = deviations.ravel()
        self.reaches_zero = self.parameter < n_parameters - 1
        self.free = np.arange(n_parameters)[None, :] != self.parameter[:, None]

    def hold(self, points: FloatArray, held: FloatArray, rows: IntArray) -> FloatArray:
        """See :class:`Target`."""
        logarithm = np.log(np.maximum(held, 1e-300))
        points[np.arange(rows.size), self.parameter[rows]] = np.where(
            self.reaches_zero[rows], held, logarithm
        )
        return points

    def deviance(self, points: FloatArray, held: FloatArray, rows: IntArray) -> Gradient:
        """See :class:`Target`."""
        residual = np.exp(points[:, -1])
        theta = points[:, :-1] / residual[:, None]
        value, slope, last = evaluate(
            self.prepared, theta, self.table[rows], likelihood=self.likelihood, log_sigma=points[:, -1]
        )
        last = last - np.sum(slope * theta, axis=1)
        return value, np.concatenate([slope / residual[:, None], last[:, None]], axis=1)


class Ratio:
    """Variance of one term over that of others; parameters are the relative SDs."""

    def __init__(
        self, prepared: Prepared, fit: RemlFit, usable: IntArray, numerator: int, others: BoolArray
    ) -> None:
        self.prepared, self.likelihood, self.numerator = prepared, fit.likelihood, numerator
        self.table, self.start = usable, fit.theta[usable].copy()
        self.others = others[:-1].astype(float)
        self.residual = float(others[-1])
        self.estimate = self.start[:, numerator] ** 2 / self._reference(self.start)
        self.reaches_zero = np.ones(usable.size, dtype=bool)
        self.free = np.ones(self.start.shape, dtype=bool)
        self.free[:, numerator] = False

    def _reference(self, theta: FloatArray) -> FloatArray:
        return np.asarray(self.residual + theta**2 @ self.others)

    def hold(self, points: FloatArray, held: FloatArray, rows: IntArray) -> FloatArray:
        """See :class:`Target`."""
        points[:, self.numerator] = 0.0
        return points

    def deviance(self, points: FloatArray, held: FloatArray, rows: IntArray) -> Gradient:
        """See :class:`Target`."""
        theta = points.copy()
        own = np.sqrt(held * self._reference(points * self._not_own(points)))
        theta[:, self.numerator] = own
        value, slope, _ = evaluate(self.prepared, theta, self.table[rows], likelihood=self.likelihood)
        share = np.divide(held * slope[:, self.numerator], own, out=np.zeros_like(own), where=own > 0.0)
        slope = slope + share[:, None] * points * self.others
        slope[:, self.numerator] = 0.0
        return value, slope

    def _not_own(self, points: FloatArray) -> FloatArray:
        keep = np.ones(points.shape[1])
        keep[self.numerator] = 0.0
        return keep


class AllOverResidual:
    """Sum of all other variances over the residual's; parameters give the direction only."""

    def __init__(self, prepared: Prepared, fit: RemlFit, usable: IntArray) -> None:
        self.prepared, self.likelihood = prepared, fit.likelihood
        self.table, self.start = usable, fit.theta[usable].copy()
        self.estimate = np.sum(self.start**2, axis=1)
        # A table without any other variance has no direction of its own: start from equal parts.
        self.start[self.estimate == 0.0] = 1.0
        self.reaches_zero = np.ones(usable.size, dtype=bool)
        self.free = np.ones(self.start.shape, dtype=bool)

    def hold(self, points: FloatArray, held: FloatArray, rows: IntArray) -> FloatArray:
        """See :class:`Target`."""
        return points

    def deviance(self, points: FloatArray, held: FloatArray, rows: IntArray) -> Gradient:
        """See :class:`Target`."""
        length = np.linalg.norm(points, axis=1, keepdims=True)
        direction = points / length
        theta = np.sqrt(held)[:, None] * direction
        value, slope, _ = evaluate(self.prepared, theta, self.table[rows], likelihood=self.likelihood)
        across = slope - direction * np.sum(slope * direction, axis=1, keepdims=True)
        return value, np.sqrt(held)[:, None] / length * across


class Total:
    """Square root of a weighted sum of variances; parameters are the relative SDs."""

    def __init__(self, prepared: Prepared, fit: RemlFit, usable: IntArray, weights: FloatArray) -> None:
        self.prepared, self.likelihood = prepared, fit.likelihood
        self.table, self.start = usable, fit.theta[usable].copy()
        self.weights, self.residual = weights[:-1], float(weights[-1])
        residual_sd = np.sqrt(fit.variances[usable, -1]) / prepared.scale[usable]
        self.estimate = residual_sd * np.sqrt(self._sum(self.start))
        self.reaches_zero = np.zeros(usable.size, dtype=bool)
        self.free = np.ones(self.start.shape, dtype=bool)

    def _sum(self, theta: FloatArray) -> FloatArray:
        return np.asarray(self.residual + theta**2 @ self.weights)

    def hold(self, points: FloatArray, held: FloatArray, rows: IntArray) -> FloatArray:
        """See :class:`Target`."""
        return points

    def deviance(self, points: FloatArray, held: FloatArray, rows: IntArray) -> Gradient:
        """See :class:`Target`."""
        total = self._sum(points)
        log_sigma = np.log(held) - 0.5 * np.log(total)
        value, slope, last = evaluate(
            self.prepared, points, self.table[rows], likelihood=self.likelihood, log_sigma=log_sigma
        )
        return value, slope - (last / total)[:, None] * points * self.weights
