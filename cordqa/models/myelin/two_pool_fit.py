"""Fit of two exchanging waters to spoiled and balanced gradient echoes, and what it can tell at all.

The fit has more freedom than the signals have information: quite different fractions give nearly the
same signals.  :func:`measure_identifiability` simulates the user's own protocol and says how large
the error of the fraction is, beside what guessing the mean would give.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache, reduce

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError
from cordqa.models.maps import FittedMaps, Reasons
from cordqa.models.myelin.two_pool_signal import (
    TwoPools,
    balanced_two_pool_signal,
    spoiled_two_pool_signal,
)
from cordqa.models.relaxometry.least_squares import LeastSquares, covariance, solve_least_squares

__all__ = [
    "Identifiability",
    "TwoPoolProtocol",
    "fit_two_pools",
    "measure_identifiability",
    "two_pool_signals",
]

Array = NDArray[np.float64]

#: Ranges of myelin water fraction, T1 and T2 of myelin water and of the other water, and residence
#: time of myelin water, in seconds: those that are usual at 3 T.
_RANGES = {
    "fraction": (0.001, 0.35),
    "t1_myelin_s": (0.3, 0.8),
    "t2_myelin_s": (0.010, 0.030),
    "t1_other_s": (0.9, 3.0),
    "t2_other_s": (0.04, 1.5),
    "residence_s": (0.025, 0.6),
}
_NAMES = (*_RANGES, "phase_per_tr")
_STARTS = 5
_CANDIDATES = 3000
_STEP = 1e-5
_MOST_STEPS = 40
_BATCH = 128
_EDGE = 1e-3
#: Truth of the simulation: fractions spread evenly, the rest inside the middle of its range.
_TRUE_FRACTION = (0.02, 0.29)
_SIMULATED = 24
#: An error of this share of that of guessing counts as no better.
_USELESS = 0.9

MISSING = "an image is missing"
NEGATIVE = "a magnitude is negative"
NO_SIGNAL = "no signal"
NO_B1 = "no B1"
NOT_FITTED = "two waters do not explain these signals"
AT_BOUND = "the fraction lies at the end of its range: not determined"
_LARGEST_B1 = 3.0
_WORST_MISFIT = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoPoolProtocol:
    """Angles and times of the images; tuples, so that simulations of a protocol are remembered.

    Attributes
    ----------
    spoiled_angles_deg : tuple of float
    spoiled_tr_s, balanced_tr_s : float
    balanced_angles_deg, phase_increments_deg : tuple of float
        One of each per balanced image; increments are 0 or 180.
    """

    spoiled_angles_deg: tuple[float, ...]
    spoiled_tr_s: float
    balanced_angles_deg: tuple[float, ...]
    phase_increments_deg: tuple[float, ...]
    balanced_tr_s: float

    def __post_init__(self) -> None:
        """Refuse protocols that cannot carry the fit."""
        angles = (*self.spoiled_angles_deg, *self.balanced_angles_deg)
        if len(self.balanced_angles_deg) != len(self.phase_increments_deg):
            raise InputError(
                "every balanced image needs a phase increment",
                found=f"{len(self.phase_increments_deg)}",
                expected=f"{len(self.balanced_angles_deg)}",
            )
        if not all(0 < angle < 180 for angle in angles):
            raise InputError("flip angles must lie between 0 and 180 degrees", found=f"{angles}")
        if not all(0 < time < 0.1 for time in (self.spoiled_tr_s, self.balanced_tr_s)):
            raise InputError(
                "repetition times must be in seconds and below 0.1",
                found=f"{self.spoiled_tr_s:g} and {self.balanced_tr_s:g}",
            )
        distinct = len(set(self.spoiled_angles_deg)), len(set(self.balanced_angles_deg))
        if min(distinct) < 4:
            raise InputError(
                "two waters need at least four flip angles of each sequence",
                found=f"{distinct[0]} spoiled, {distinct[1]} balanced",
            )

    @property
    def n_spoiled(self) -> int:
        """Number of spoiled images, which come first."""
        return len(self.spoiled_angles_deg)


@dataclass(frozen=True, slots=True)
class Identifiability:
    """Error of the fraction in simulations of one protocol.

    Attributes
    ----------
    snr : tuple of float
        Equilibrium signal (M0) over the noise.
    rmse : tuple of float
        Of the fraction, at each.
    signal_share : float
        Mean spoiled signal over M0: times ``snr``, this is the ratio that images show.
    true_sd : float
        Standard deviation of the true fractions: what guessing their mean would err.
    n : int
        Simulated voxels at each.
    """

    snr: tuple[float, ...]
    rmse: tuple[float, ...]
    signal_share: float
    true_sd: float
    n: int

    @property
    def sentence(self) -> str:
        """In words."""
        errors = ", ".join(f"{100 * e:.1f} at SNR {s:g}" for s, e in zip(self.snr, self.rmse, strict=True))
        useless = _USELESS * self.true_sd
        worse = [f"{s:g}" for s, e in zip(self.snr, self.rmse, strict=True) if e >= useless]
        verdict = (
            f"at SNR {' and '.join(worse)} that is worse or hardly better than guessing the mean fraction "
            f"({100 * self.true_sd:.1f})"
            if worse
            else f"guessing the mean fraction would err by {100 * self.true_sd:.1f}"
        )
        return (
            f"simulated with this protocol, the fraction in % errs by {errors} (root mean square of {self.n} "
            f"voxels, known to {100 / np.sqrt(2 * self.n):.0f} %); {verdict}. SNR is "
            f"M0 over the noise: SNR 500 is {500 * self.signal_share:.0f} in the mean spoiled image"
        )


def two_pool_signals(protocol: TwoPoolProtocol, pools: TwoPools, *, b1: ArrayLike = 1.0) -> Array:
    """All signals of a protocol for equilibrium 1, spoiled images first, shape (..., n)."""
    spoiled = spoiled_two_pool_signal(protocol.spoiled_angles_deg, protocol.spoiled_tr_s, pools, b1=b1)
    balanced = balanced_two_pool_signal(
        protocol.balanced_angles_deg,
        protocol.balanced_tr_s,
        pools,
        phase_increments_deg=protocol.phase_increments_deg,
        b1=b1,
    )
    return np.concatenate([spoiled, balanced], axis=-1)


def _bounds() -> tuple[Array, Array]:
    low = [*(np.log(r[0]) if n != "fraction" else r[0] for n, r in _RANGES.items()), -np.pi]
    high = [*(np.log(r[1]) if n != "fraction" else r[1] for n, r in _RANGES.items()), np.pi]
    return np.array(low), np.array(high)


def _pools(parameters: Array, protocol: TwoPoolProtocol) -> TwoPools:
    times = np.exp(parameters[..., 1:6])
    return TwoPools(
        fraction=parameters[..., 0],
        t1_myelin_s=times[..., 0],
        t2_myelin_s=times[..., 1],
        t1_other_s=times[..., 2],
        t2_other_s=times[..., 3],
        residence_s=times[..., 4],
        off_resonance_hz=parameters[..., 6] / (2 * np.pi * protocol.balanced_tr_s),
    )


def _normalised(signal: Array, n_spoiled: int) -> Array:
    """Divide each sequence by its own mean: their amplitudes need not agree."""
    parts = signal[..., :n_spoiled], signal[..., n_spoiled:]
    return np.concatenate([part / part.mean(axis=-1, keepdims=True) for part in parts], axis=-1)


@dataclass(frozen=True, slots=True)
class _Model:
    """Normalised signals and their derivatives."""

    protocol: TwoPoolProtocol
    b1: Array

    def __call__(self, parameters: Array, rows: NDArray[np.intp]) -> tuple[Array, Array]:
        here = self.values(parameters, self.b1[rows])
        steps = np.eye(parameters.shape[1]) * _STEP
        moved = parameters[:, None, :] + steps
        b1 = np.repeat(self.b1[rows][:, None], parameters.shape[1], axis=1)
        slopes = (self.values(moved, b1) - here[:, None, :]) / _STEP
        return here, slopes.swapaxes(1, 2)

    def values(self, parameters: Array, b1: Array) -> Array:
        signal = two_pool_signals(self.protocol, _pools(parameters, self.protocol), b1=b1)
        return _normalised(signal, self.protocol.n_spoiled)


@lru_cache(maxsize=4)
def _candidates(protocol: TwoPoolProtocol) -> tuple[Array, Array]:
    """Random parameters over all ranges, and their signals, from which fits start."""
    low, high = _bounds()
    rng = np.random.default_rng(1)
    parameters = low + (high - low) * rng.uniform(size=(_CANDIDATES, low.size))
    return parameters, _Model(protocol, np.ones(1)).values(parameters, np.ones(_CANDIDATES))


def _solve(signal: Array, protocol: TwoPoolProtocol, b1: Array) -> LeastSquares:
    """Keep the best of several starts, each an unlike candidate."""
    parameters, curves = _candidates(protocol)
    distance = ((signal[:, None, :] - curves) ** 2).sum(axis=-1)
    order = np.argsort(distance, axis=1)[:, :: max(1, 40 // _STARTS)]
    low, high = _bounds()
    n = len(signal)
    model = _Model(protocol, b1)

    def solve(start: int) -> LeastSquares:
        return solve_least_squares(
            model,
            parameters[order[:, start]],
            signal,
            weight=np.ones_like(signal),
            low=np.tile(low, (n, 1)),
            high=np.tile(high, (n, 1)),
            tolerance=1e-6,
            max_steps=_MOST_STEPS,
        )

    return reduce(_lower, (solve(start) for start in range(_STARTS)))


def _lower(one: LeastSquares, other: LeastSquares) -> LeastSquares:
    better = other.cost < one.cost

    def pick(name: str) -> NDArray[np.float64]:
        first, second = getattr(one, name), getattr(other, name)
        chosen: NDArray[np.float64] = np.where(better.reshape(-1, *(1,) * (first.ndim - 1)), second, first)
        return chosen

    return LeastSquares(
        parameters=pick("parameters"),
        cost=pick("cost"),
        derivatives=pick("derivatives"),
        predicted=pick("predicted"),
        converged=pick("converged").astype(bool),
        held=pick("held").astype(bool),
    )


@lru_cache(maxsize=8)
def measure_identifiability(
    protocol: TwoPoolProtocol, *, snr: tuple[float, ...] = (100.0, 500.0, 2000.0), seed: int = 0
) -> Identifiability:
    """Simulate a protocol and say by how much the fraction errs.

    Fractions are spread evenly from 0.02 to 0.29 (standard deviation 0.08), the other parameters over
    the middle half of their ranges.

    Parameters
    ----------
    protocol : TwoPoolProtocol
    snr : tuple of float
        M0 over the standard deviation of (Gaussian) noise.
    seed : int
    """
    rng = np.random.default_rng(seed)
    low, high = _bounds()
    middle = low + (high - low) * rng.uniform(0.25, 0.75, size=(_SIMULATED, low.size))
    middle[:, 0] = np.linspace(*_TRUE_FRACTION, _SIMULATED)
    clean = two_pool_signals(protocol, _pools(middle, protocol))
    share = float(clean[:, : protocol.n_spoiled].mean())
    errors = []
    for ratio in snr:
        noisy = np.abs(clean + rng.normal(size=clean.shape) / ratio)
        fit = _solve(_normalised(noisy, protocol.n_spoiled), protocol, np.ones(_SIMULATED))
        errors.append(float(np.sqrt(np.mean((fit.parameters[:, 0] - middle[:, 0]) ** 2))))
    return Identifiability(snr, tuple(errors), share, float(middle[:, 0].std()), _SIMULATED)


@dataclass(slots=True)
class _Columns:
    """Values of all voxels by name."""

    n: int
    values: dict[str, Array] = field(default_factory=dict)

    def put(self, rows: NDArray[np.intp], **found: Array) -> None:
        for name, some in found.items():
            self.values.setdefault(name, np.full(self.n, np.nan))[rows] = some


def fit_two_pools(
    signal: ArrayLike,
    protocol: TwoPoolProtocol,
    *,
    b1: ArrayLike = 1.0,
    identifiability: Identifiability | None = None,
) -> FittedMaps:
    """Fit fraction, T1, T2, residence time and off-resonance of two exchanging waters.

    Parameters
    ----------
    signal : array_like, shape (..., n)
        Magnitudes, spoiled images first.
    protocol : TwoPoolProtocol
    b1 : array_like, shape (...)
        Actual over nominal flip angle.
    identifiability : Identifiability, optional
        Simulated here where it is not given.

    Returns
    -------
    FittedMaps
        ``MWF_mcDESPOT`` in %, ``T1_other``, ``T2_other`` and ``residence_time`` in ms, with standard
        errors that hold only where the fit found the right minimum.  The first notice says how far
        the fraction can be trusted.

    References
    ----------
    .. [1] Deoni et al., Magn Reson Med 2008, doi:10.1002/mrm.21704
    .. [2] Lankford and Does, Magn Reson Med 2013;69:127-136
    """
    data = np.asarray(signal, dtype=float)
    count = protocol.n_spoiled + len(protocol.balanced_angles_deg)
    if data.ndim == 0 or data.shape[-1] != count:
        raise InputError(
            "the images do not fit the protocol", found=f"{data.shape}", expected=f"(..., {count})"
        )
    shape = data.shape[:-1]
    flat = data.reshape(-1, count)
    relative = np.broadcast_to(np.asarray(b1, dtype=float), shape).reshape(-1)
    refused = _refused(flat, relative, protocol)
    rows = np.flatnonzero(refused.ok)
    columns = _Columns(len(flat))
    for start in range(0, rows.size, _BATCH):
        part = rows[start : start + _BATCH]
        columns.put(part, **_fit_batch(_normalised(flat[part], protocol.n_spoiled), protocol, relative[part]))
    known = identifiability or measure_identifiability(protocol)
    return _as_maps(columns, refused, known, shape)


def _refused(flat: Array, b1: Array, protocol: TwoPoolProtocol) -> Reasons:
    parts = flat[:, : protocol.n_spoiled], flat[:, protocol.n_spoiled :]
    dark = [~(np.where(np.isfinite(part), part, 0.0).mean(axis=1) > 0) for part in parts]
    return Reasons.collect(
        (len(flat),),
        [
            (np.asarray(~np.isfinite(flat).all(axis=1)), MISSING),
            (np.asarray((flat < 0).any(axis=1)), NEGATIVE),
            (dark[0] | dark[1], NO_SIGNAL),
            (~((b1 > 0) & (b1 < _LARGEST_B1)), NO_B1),
        ],
    )


def _fit_batch(signal: Array, protocol: TwoPoolProtocol, b1: Array) -> dict[str, Array]:
    fit = _solve(signal, protocol, b1)
    count = signal.shape[1]
    variance = fit.cost / max(1, count - len(_NAMES) - 2)
    spread = np.sqrt(
        np.einsum("mpp->mp", covariance(fit.derivatives, np.ones_like(signal), fit.held)) * variance[:, None]
    )
    low, high = _bounds()
    times = np.exp(fit.parameters[:, 1:6])
    near = _EDGE * (high[0] - low[0])
    return {
        "MWF_mcDESPOT": 100 * fit.parameters[:, 0],
        "T1_other": 1e3 * times[:, 2],
        "T2_other": 1e3 * times[:, 3],
        "residence_time": 1e3 * times[:, 4],
        "se_MWF_mcDESPOT": 100 * spread[:, 0],
        "se_T1_other": 1e3 * times[:, 2] * spread[:, 3],
        "se_T2_other": 1e3 * times[:, 3] * spread[:, 4],
        "misfit": np.sqrt(fit.cost / count),
        "at_bound": ((fit.parameters[:, 0] < low[0] + near) | (fit.parameters[:, 0] > high[0] - near)).astype(
            float
        ),
    }


_UNITS = {"MWF_mcDESPOT": "%", "T1_other": "ms", "T2_other": "ms", "residence_time": "ms"}


def _as_maps(
    columns: _Columns, refused: Reasons, known: Identifiability, shape: tuple[int, ...]
) -> FittedMaps:
    empty = np.full(columns.n, np.nan)
    found = {name: columns.values.get(name, empty) for name in (*_UNITS, "misfit", "at_bound")}
    reasons = refused.then(found["misfit"] > _WORST_MISFIT, NOT_FITTED)
    reasons = Reasons(codes=reasons.codes.reshape(shape), texts=reasons.texts)
    at_bound = (found["at_bound"] > 0.5).reshape(shape)
    own = reasons.then(at_bound, AT_BOUND)
    values = {
        name: np.where((own if name == "MWF_mcDESPOT" else reasons).ok, found[name].reshape(shape), np.nan)
        for name in _UNITS
    }
    errors = {
        name: np.where(
            np.isfinite(values[name]), columns.values.get(f"se_{name}", empty).reshape(shape), np.nan
        )
        for name in ("MWF_mcDESPOT", "T1_other", "T2_other")
    }
    return FittedMaps(
        model="two exchanging waters, Bloch-McConnell steady states, least squares from "
        f"{_STARTS} starts, each sequence divided by its mean",
        values=values,
        units=dict(_UNITS),
        standard_errors=errors,
        reasons=reasons,
        own_reasons={"MWF_mcDESPOT": own},
        notices=(known.sentence,),
    )
