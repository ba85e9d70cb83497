"""Covariance tensor model (QTI), fitted by dipy, as parameters of microscopic anisotropy.

``ln S = ln S0 - B:<D> + 1/2 (B x B):C`` for every volume, 28 unknowns (Westin et al. 2016,
doi:10.1016/j.neuroimage.2016.02.039).  dipy gives the estimates; the standard errors follow from
the same weighted least squares.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cordqa.models.diffusion.cumulant import PowderFit
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.diffusion.powder import PowderShell

__all__ = ["QtiSolver"]

Array = NDArray[np.float64]

#: Signals are brought to this size, because dipy clamps those below a fixed small number.
_SCALE = 1e3
_TOO_LARGE = 1e3


class QtiSolver:
    """Fit of the covariance tensor model for one gradient table.

    Parameters
    ----------
    table : GradientTable
    shells : sequence of PowderShell
        Their volumes are used.
    """

    def __init__(self, table: GradientTable, shells: Sequence[PowderShell]) -> None:
        from dipy.core.gradients import gradient_table
        from dipy.reconst.qti import QtiModel

        self.volumes = np.sort(np.concatenate([shell.volumes for shell in shells]))
        part = table.select(self.volumes)
        # dipy wants a direction of every weighted volume and reads the shape from the b-tensor only.
        has_axis = np.linalg.norm(part.directions, axis=1, keepdims=True) > 0
        directions = np.where(has_axis, part.directions, [0.0, 0.0, 1.0])
        directions = np.where(part.is_b0[:, None], 0.0, directions)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gradients = gradient_table(
                part.b_ms_um2,
                bvecs=directions,
                b0_threshold=1e-3 * part.b0_limit_s_mm2,
                btens=part.b_tensors_ms_um2,
            )
            # Rank below 28 is expected: the invariants used here do not need every element.
            self.model = QtiModel(gradients, fit_method="WLS")
        self.design: Array = np.asarray(self.model.X, dtype=float)
        self.rank = int(np.linalg.matrix_rank(self.design / np.abs(self.design).max(axis=0).clip(1e-12)))

    def fit(self, signals: Array, noise_sd: Array, powder: PowderFit) -> PowderFit:
        """Fit v voxels.

        Parameters
        ----------
        signals : ndarray, shape (v, n_volumes)
            Of the whole table.
        noise_sd : ndarray, shape (v,)
        powder : PowderFit
            Second-order fit of the powder averages of the same voxels.

        Returns
        -------
        PowderFit
            ``solved`` is false where a sample is missing or the solution is not finite.  What the
            neglected third order may do is that of ``powder``, an expansion of the same order.
        """
        data = signals[:, self.volumes]
        solved = powder.solved & (np.isfinite(data) & (data > 0)).all(axis=1)
        v = len(data)
        fit = PowderFit(
            parameters=np.full((4, v), np.nan),
            covariance=np.full((4, 4, v), np.nan),
            cost=np.full(v, np.nan),
            solved=solved,
            truncation=powder.truncation,
            n_used=np.full(v, self.volumes.size),
            n_unknowns=self.rank,
        )
        if not solved.any():
            return fit
        scale = _SCALE / data[solved].max(axis=1, keepdims=True)
        scaled = data[solved] * scale
        relative_noise = np.where(np.isfinite(noise_sd[solved]), noise_sd[solved], 1.0) * scale[:, 0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parameters = np.asarray(self.model.fit(scaled).params, dtype=float)
        values, slopes = _invariants(parameters)
        fit.covariance[:, :, solved] = self._covariance(parameters, slopes, relative_noise)
        predicted = np.exp(np.clip(parameters @ self.design.T, -50.0, 50.0))
        fit.cost[solved] = (((scaled - predicted) / relative_noise[:, None]) ** 2).sum(axis=1)
        values[0] -= np.log(scale[:, 0])
        fit.parameters[:, solved] = values
        solved[solved] = np.isfinite(values).all(axis=0) & (np.abs(values[1:]) < _TOO_LARGE).all(axis=0)
        return fit

    def _covariance(self, parameters: Array, slopes: Array, noise: Array) -> Array:
        """Covariance of the invariants, shape (4, 4, v)."""
        weight = np.exp(np.clip(parameters @ self.design.T, -50.0, 50.0)) / noise[:, None]
        inverse = np.linalg.pinv(self.design * weight[:, :, None])
        spread = np.einsum("ivp,vpn->ivn", slopes, inverse)
        covariance: Array = np.einsum("ivn,jvn->ijv", spread, spread)
        return covariance


def _invariants(parameters: Array) -> tuple[Array, Array]:
    """Parameters ln S0, MD, VI and VA, shape (4, v), and their slopes by the 28 parameters, (4, v, 28)."""
    from dipy.reconst.qti import E_bulk, E_iso, e_iso, from_3x3_to_6x1, from_6x6_to_21x1

    v = len(parameters)
    mean = from_3x3_to_6x1(e_iso)[:, 0]  # type: ignore[no-untyped-call]
    bulk = from_6x6_to_21x1(E_bulk)[:, 0]  # type: ignore[no-untyped-call]
    shear_matrix = np.asarray(E_iso) - np.asarray(E_bulk)
    shear = from_6x6_to_21x1(shear_matrix)[:, 0]  # type: ignore[no-untyped-call]
    tensor, covariance = parameters[:, 1:7], parameters[:, 7:]
    half = tensor @ shear_matrix
    values = np.stack(
        [
            parameters[:, 0],
            tensor @ mean,
            covariance @ bulk,
            # VL is the shear part of <D x D> = C + <D> x <D>; VA is 2/5 of it.
            0.4 * (covariance @ shear + np.einsum("vi,vi->v", half, tensor)),
        ]
    )
    slopes = np.zeros((4, v, 28))
    slopes[0, :, 0] = 1.0
    slopes[1, :, 1:7] = mean
    slopes[2, :, 7:] = bulk
    slopes[3, :, 1:7] = 0.8 * half
    slopes[3, :, 7:] = 0.4 * shear
    return values, slopes
