"""Fitting the variance components of every group of a table, each by the method its design allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import FitError
from cordqa.stats.component_table import Batch, ComponentModel, read_batches, read_model
from cordqa.stats.ems import EmsFit, ems_components
from cordqa.stats.reml import RemlFit, fit_reml
from cordqa.stats.table import check_choice

__all__ = ["FEW_LEVELS", "ComponentFit", "Method", "fit_components"]

FloatArray = NDArray[np.float64]
Method = Literal["auto", "ems", "reml"]

EMS = "expected mean squares, balanced design"
REML = "restricted maximum likelihood"
#: A variance from fewer levels than this is flagged, and adaptive terms are fixed.
FEW_LEVELS = 5


@dataclass(frozen=True, slots=True)
class ComponentFit:
    """Variance components of the groups of one table that share a design.

    Attributes
    ----------
    batch : Batch
    model : ComponentModel
    names : tuple of str
        Random terms that could be estimated, then ``residual``.
    raw : ndarray, shape (B, K + 1)
        Estimates before truncation at zero; equal to ``variances`` for REML.
    variances : ndarray, shape (B, K + 1)
    ems : EmsFit or None
        Present where the estimator is expected mean squares.
    reml : RemlFit or None
        Present where the estimator is restricted maximum likelihood.
    """

    batch: Batch
    model: ComponentModel
    names: tuple[str, ...]
    raw: FloatArray
    variances: FloatArray
    ems: EmsFit | None
    reml: RemlFit | None

    @property
    def estimator(self) -> str:
        """Name of the estimator that ran."""
        return EMS if self.ems is not None else REML

    def reason(self, group: int) -> str:
        """Why one group has no estimate; empty where it has."""
        if self.batch.reason:
            return self.batch.reason
        if self.reml is not None and self.reml.reasons[group]:
            return self.reml.reasons[group]
        if self.reml is not None and not self.reml.converged[group]:
            return "the likelihood has no maximum that could be found"
        return ""

    def counts(self) -> dict[str, Any]:
        """Sample size at each level, ready for :func:`~cordqa.stats.table.tidy`."""
        columns = {name: self.batch.levels[name] for name in self.model.key_columns}
        n_values = self.batch.values.shape[1]
        return {**columns, "values": n_values, "missing": self.batch.n_missing}


def fit_components(
    data: Any,
    value: str,
    *,
    random: Sequence[str],
    fixed: Sequence[str] = (),
    adaptive: Sequence[str] = (),
    by: str | Sequence[str] | None = None,
    method: Method = "auto",
    nan_policy: str = "raise",
) -> list[ComponentFit]:
    """Estimate variance components of every group of a table.

    The parameters are those of :func:`variance_components`; the result can feed several tables.

    Returns
    -------
    list of ComponentFit
        One per design that occurs among the groups.
    """
    check_choice(method, ("auto", "ems", "reml"), name="method")
    model = read_model(data, random=random, fixed=fixed, adaptive=adaptive, few_levels=FEW_LEVELS)
    batches, problems = read_batches(data, value, model, by=by, nan_policy=nan_policy)
    # What was left out is said beside every number that it could have changed.
    model = replace(model, notes=(*model.notes, *(f"left out: {p.message}" for p in problems)))
    fits = [_fit_batch(batch, model, method) for batch in batches]
    if all(fit.reason(g) for fit in fits for g in range(len(fit.batch.groups))):
        raise FitError("no variance component can be estimated", where=value, found=fits[0].reason(0))
    return fits


def _fit_batch(batch: Batch, model: ComponentModel, method: Method) -> ComponentFit:
    if batch.design is None:
        names = (*model.names, "residual")
        empty = np.full((len(batch.groups), len(names)), np.nan)
        return ComponentFit(batch, model, names, empty, empty, None, None)
    names = (*batch.design.names, "residual")
    if method != "reml":
        ems = _try_ems(batch, names)
        if ems is not None:
            return ComponentFit(batch, model, names, ems.raw, ems.variances, ems, None)
        if method == "ems":
            raise FitError(
                "expected mean squares need a balanced design without covariates",
                todo="use method='auto' or 'reml'",
            )
    reml = fit_reml(batch.values, batch.design)
    variances = np.where(reml.converged[:, None], reml.variances, np.nan)
    return ComponentFit(batch, model, names, variances, variances, None, reml)


def _try_ems(batch: Batch, names: tuple[str, ...]) -> EmsFit | None:
    """Fit by mean squares where the design is balanced and its terms are orthogonal."""
    if batch.axes is None:
        return None
    axes = batch.axes
    array = batch.values[:, axes.order].reshape(-1, *axes.shape)
    try:
        fit = ems_components(array, axes.random, names=names[:-1], fixed=axes.fixed, n_leading=1)
    except FitError:
        return None
    # Constant values leave mean squares of pure rounding; they are no estimate.
    noise = (1e-13 * np.max(np.abs(batch.values), axis=1)) ** 2
    if np.any(fit.mean_squares[:, -1] <= noise):
        return None
    return fit
