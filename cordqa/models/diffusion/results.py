"""What the tensor and kurtosis fits return, and how it is filled block by block."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError
from cordqa.models.diffusion.linear_fit import (
    CEILING,
    NOT_CONVERGED,
    OUTSIDE_MASK,
    REASON_TEXTS,
    Block,
    Design,
    LinearFit,
    Series,
)
from cordqa.models.maps import FittedMaps, Reasons

__all__ = ["NO_SPARE_SAMPLE", "DiffusionFit", "Store", "wild_bootstrap"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Diffusivities are um2/ms inside the arithmetic and um2/s in maps.
TO_UM2_S = 1000.0
#: Leverage beyond which a residual says nothing of the noise of its sample.
_ALONE = 0.98
UNITS = {"MD": "um2/s", "AD": "um2/s", "RD": "um2/s", "S0": "a.u."}

NO_SPARE_SAMPLE = "exactly determined: no spare sample, so neither a standard error nor a check of the model"
LOST_NUMBERS = "samples that are not numbers were left out"
LOST_ZEROS = "samples at or below zero, or far below the noise, were left out"
LOST_SPIKES = f"samples above {CEILING:g} times the signal without weighting were left out"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionFit:
    """Maps and everything that a later step needs; arrays have the voxel shape plus what is said.

    Attributes
    ----------
    maps : FittedMaps
        Values, standard errors, reasons, flags.
    coefficients : ndarray, shape (..., p)
        Tensor (um2/ms), for kurtosis V = MD^2 W ((um2/ms)^2), and ln S0; NaN where there is no fit.
    direction : ndarray, shape (..., 3)
        Axis of the largest diffusivity, in the axes of the gradient table; its sign means nothing.
    degrees_of_freedom : ndarray of int
        Samples used less unknowns: those of the t quantile of the standard errors.
    noise_sd : ndarray
        Standard deviation of the residuals, in signal units; NaN without a spare sample.
    used : ndarray of bool, shape (..., n)
        Samples that entered the fit.
    outliers : ndarray of bool, shape (..., n)
        Samples that the robust fit removed; nowhere true for other fits.
    design : ndarray, shape (n, p)
        ``ln S = design @ coefficients``.
    """

    maps: FittedMaps
    coefficients: Array
    direction: Array
    degrees_of_freedom: NDArray[np.int_]
    noise_sd: Array
    used: Mask
    outliers: Mask
    design: Array

    def predict(self) -> Array:
        """Signal that the fit predicts for every volume, shape (..., n); NaN where there is none."""
        with np.errstate(over="ignore"):
            return np.asarray(np.exp(self.coefficients @ self.design.T))

    def residuals(self, signal: ArrayLike) -> Array:
        """Signal less prediction, of samples used or not, shape (..., n).

        Raises
        ------
        InputError
            If the signal is not of the shape that was fitted.
        """
        samples = np.asarray(signal)
        if samples.shape != self.used.shape:
            raise InputError(
                "the signal has another shape than the one that was fitted",
                found=f"{samples.shape}",
                expected=f"{self.used.shape}",
            )
        return np.asarray(samples - self.predict())


@dataclass(slots=True)
class Store:
    """Arrays of the flattened result."""

    series: Series
    design: Design
    names: tuple[str, ...]
    values: dict[str, Array] = field(init=False)
    errors: dict[str, Array] = field(init=False)
    flags: dict[str, Mask] = field(init=False)
    undefined: dict[str, dict[str, Mask]] = field(init=False)
    coefficients: Array = field(init=False)
    direction: Array = field(init=False)
    freedom: NDArray[np.int_] = field(init=False)
    noise_sd: Array = field(init=False)
    used: Mask = field(init=False)
    outliers: Mask = field(init=False)
    codes: NDArray[np.uint8] = field(init=False)

    def __post_init__(self) -> None:
        n, volumes = self.series.n_voxels, len(self.design.matrix)
        self.values = {name: np.full(n, np.nan) for name in self.names}
        self.errors = {}
        self.flags = {}
        self.undefined = {}
        self.coefficients = np.full((n, self.design.n_unknowns), np.nan)
        self.direction = np.full((n, 3), np.nan)
        self.freedom = np.zeros(n, dtype=int)
        self.noise_sd = np.full(n, np.nan)
        self.used = np.zeros((n, volumes), dtype=bool)
        self.outliers = np.zeros((n, volumes), dtype=bool)
        self.codes = np.full(n, OUTSIDE_MASK, dtype=np.uint8)

    def open(self, block: Block) -> Block:
        """Note what the samples of a block are worth; return its voxels that can be fitted."""
        self.codes[block.rows] = block.reason
        fit = block.select(block.reason == 0)
        self.used[fit.rows] = fit.used
        self.flag(LOST_NUMBERS, fit.rows, fit.not_numbers)
        self.flag(LOST_ZEROS, fit.rows, fit.not_positive)
        self.flag(LOST_SPIKES, fit.rows, fit.far_above)
        return fit

    def take_fit(self, block: Block, fit: LinearFit, noise_sd: Array, coefficients: Array) -> Mask:
        """Keep what every fit has; return which voxels of the block have one."""
        good: Mask = fit.reason == 0
        good &= np.isfinite(coefficients).all(axis=1)
        self.codes[block.rows] = np.where(good | (fit.reason > 0), fit.reason, NOT_CONVERGED)
        rows = block.rows[good]
        in_signal = coefficients[good].copy()
        in_signal[:, -1] += np.log(block.level[good])
        self.coefficients[rows] = in_signal
        self.freedom[rows] = fit.degrees_of_freedom()[good]
        self.noise_sd[rows] = (noise_sd * block.level)[good]
        self.used[rows] = fit.used[good]
        self.flag(NO_SPARE_SAMPLE, rows, self.freedom[rows] == 0)
        return good

    def take_maps(self, rows: NDArray[np.intp], maps: Mapping[str, Array]) -> None:
        """Store values of some rows."""
        for name, value in maps.items():
            self.values[name][rows] = value

    def take_errors(self, rows: NDArray[np.intp], errors: Mapping[str, Array]) -> None:
        """Store standard errors of some rows; they stay NaN where the value is."""
        for name, error in errors.items():
            kept = self.errors.setdefault(name, np.full(len(self.codes), np.nan))
            known = np.isfinite(self.values[name][rows]) & (self.freedom[rows] > 0)
            kept[rows] = np.where(known, error, np.nan)

    def flag(self, text: str, rows: NDArray[np.intp], where: Mask) -> None:
        """Mark rows as doubtful."""
        if where.any():
            self.flags.setdefault(text, np.zeros(len(self.codes), dtype=bool))[rows] |= where

    def blank(self, names: Sequence[str], rows: NDArray[np.intp], where: Mask, text: str) -> None:
        """Take values of some maps out, with their own reason."""
        if not where.any():
            return
        for name in names:
            self.values[name][rows[where]] = np.nan
            everywhere = self.undefined.setdefault(name, {})
            everywhere.setdefault(text, np.zeros(len(self.codes), dtype=bool))[rows] |= where

    def result(self, model: str, notices: tuple[str, ...], warnings: tuple[str, ...] = ()) -> DiffusionFit:
        """Give everything the voxel shape."""
        shape, volumes = self.series.shape, self.used.shape[1]
        reasons = Reasons(codes=self.codes.reshape(shape), texts=REASON_TEXTS)
        own = {}
        for name, failures in self.undefined.items():
            joined = reasons
            for text, where in failures.items():
                joined = joined.then(where.reshape(shape), text)
            own[name] = joined
        maps = FittedMaps(
            model=model,
            values={k: v.reshape(shape) for k, v in self.values.items()},
            units={name: UNITS.get(name, "1") for name in self.names},
            standard_errors={k: v.reshape(shape) for k, v in self.errors.items()},
            reasons=reasons,
            own_reasons=own,
            flags={k: v.reshape(shape) for k, v in self.flags.items()},
            vectors={"V1": self.direction.reshape(*shape, 3)},
            notices=notices,
            warnings=warnings,
        )
        return DiffusionFit(
            maps=maps,
            coefficients=self.coefficients.reshape(*shape, self.design.n_unknowns),
            direction=self.direction.reshape(*shape, 3),
            degrees_of_freedom=self.freedom.reshape(shape),
            noise_sd=self.noise_sd.reshape(shape),
            used=self.used.reshape(*shape, volumes),
            outliers=self.outliers.reshape(*shape, volumes),
            design=self.design.matrix,
        )


def wild_bootstrap(
    block: Block,
    design: Design,
    fit: LinearFit,
    evaluate: Callable[[Array], Mapping[str, Array]],
    *,
    n_draws: int,
    generator: np.random.Generator,
) -> dict[str, Array]:
    """Standard errors from residuals whose signs are drawn at random.

    Each log residual is divided by the square root of one less its leverage and keeps its own
    volume, so that unequal noise needs no model; the weights are those of the fit (Whitcher et al.
    2008, doi:10.1002/hbm.20395).  A sample that alone decides part of the fit, such as a single
    volume without weighting, leaves no residual: it scatters by the noise of the others.

    Parameters
    ----------
    evaluate : callable
        Maps (m,) by name of the design's coefficients (m, p).
    """
    pseudo = np.asarray(np.linalg.solve(fit.gram, design.basis.T * fit.weights[:, None, :]), dtype=float)
    residual = _scattered(block, design, fit, pseudo)
    total: dict[str, Array] = {}
    square: dict[str, Array] = {}
    centre = evaluate(design.coefficients(fit.gamma))
    for _ in range(n_draws):
        signs = generator.choice([-1.0, 1.0], size=residual.shape)
        gamma = fit.gamma + np.einsum("mpn,mn->mp", pseudo, residual * signs)
        for name, value in evaluate(design.coefficients(gamma)).items():
            # Deviations from the fit itself, so that the sum of squares does not cancel.
            away = value - centre[name]
            total[name] = total.get(name, 0.0) + away
            square[name] = square.get(name, 0.0) + away**2
    spare = fit.degrees_of_freedom() > 0
    return {
        name: np.where(
            spare, np.sqrt(np.maximum(square[name] - total[name] ** 2 / n_draws, 0) / (n_draws - 1)), np.nan
        )
        for name in total
    }


def _scattered(block: Block, design: Design, fit: LinearFit, pseudo: Array) -> Array:
    """Log residuals as large as the noise of their samples, (m, n); 0 where a sample was not used."""
    leverage = np.einsum("np,mpn->mn", design.basis, pseudo)
    residual = block.log - fit.gamma @ design.basis.T
    alone = leverage > _ALONE
    root = np.sqrt(np.where(alone, 1.0, 1 - leverage))
    noise = fit.noise_sd(block, design)[:, None] / np.sqrt(np.where(fit.used, fit.weights, 1.0))
    return np.asarray(np.where(alone, np.nan_to_num(noise), residual / root) * fit.used)
