"""Myelin water fraction: the share of water with a T2 as short as that between myelin layers."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError
from cordqa.models.maps import FittedMaps, Reasons
from cordqa.models.myelin.echo_basis import EchoBasis, EchoGrid, angle_to_node, make_basis, node_to_angle
from cordqa.models.myelin.spectra import Smoothing, Spectra, fit_spectra
from cordqa.models.myelin.water_errors import propagate_noise
from cordqa.models.relaxometry.checks import check_signal
from cordqa.models.relaxometry.slice_profile import UNIFORM, SliceProfile

__all__ = ["MyelinWater", "NeighbourSpectra", "fit_myelin_water", "fit_water_spectra"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

INCOMPLETE = "an echo is missing"
NEGATIVE = "a magnitude is negative"
NO_SIGNAL = "no signal"
NO_ANGLE = "no refocusing angle, or one below the range of the basis"
NO_DECAY = "no sum of decays fits these echoes; are they in order?"
NO_WATER = "no water with a T2 in the range"
NOT_CONVERGED = "the fit did not converge"
LOW_SNR = "first echo less than 75 times the noise: one voxel says little about its myelin water"
AT_ANGLE_LIMIT = "refocusing angle at the end of the search"
#: Voxels solved together: arrays of decays stay in tens of megabytes.
_BATCH = 1000
#: Root mean square residual over the strongest echo above which the curve is none of decays.
_WORST_MISFIT = 0.10
_ENOUGH_SNR = 75.0
#: Denoised echoes may fall this far below zero, as a share of the strongest.
_NOISE_BELOW_ZERO = 0.05
_EDGE_DEG = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class MyelinWater:
    """Settings of the fit.

    Attributes
    ----------
    grid : EchoGrid
        Train, T1 and T2 of the decays.
    smoothing : Smoothing
        Rule by which spectra are smoothed.
    myelin_t2_s, tissue_t2_s : float
        Longest T2 of myelin water, and of the water inside and between cells.
    profile : SliceProfile
        Angles through the slice.
    bootstrap : int
        Draws of the parametric bootstrap of the standard error; 0 for linear propagation.
    seed : int
        Of the bootstrap.
    """

    grid: EchoGrid
    smoothing: Smoothing = field(default_factory=Smoothing)
    myelin_t2_s: float = 0.040
    tissue_t2_s: float = 0.200
    profile: SliceProfile = UNIFORM
    bootstrap: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse windows that hold nothing, and trains that are blind to myelin water."""
        low, high = self.grid.t2_range_s
        if not low < self.myelin_t2_s < self.tissue_t2_s <= high:
            raise InputError(
                "the windows of T2 must increase within the grid",
                found=f"{self.myelin_t2_s:g} and {self.tissue_t2_s:g} s",
                expected=f"between {low:g} and {high:g} s",
            )
        if self.grid.echo_spacing_s > self.myelin_t2_s:
            raise InputError(
                "nothing of myelin water is left at the first echo",
                found=f"{1e3 * self.grid.echo_spacing_s:g} ms",
                expected=f"at most {1e3 * self.myelin_t2_s:g} ms, 10 ms is usual",
            )
        if self.bootstrap < 0 or self.bootstrap == 1:
            raise InputError("a bootstrap needs at least two draws", found=str(self.bootstrap))

    @property
    def windows(self) -> tuple[Mask, Mask]:
        """Components of myelin water, and of tissue water."""
        t2 = self.grid.t2_s * (1 - 1e-12)
        return t2 <= self.myelin_t2_s, (t2 > self.myelin_t2_s) & (t2 <= self.tissue_t2_s)


@dataclass(frozen=True, slots=True)
class NeighbourSpectra:
    """What neighbours say about a voxel.

    Attributes
    ----------
    spectrum : ndarray, shape (m, n_t2)
        Mean of the neighbours' spectra, each of sum 1; all 0 where there is none.
    weight : float
        Weight of the squared distance to it, relative to the mean squared decay of the basis.
    """

    spectrum: Array
    weight: float


def fit_myelin_water(
    signal: ArrayLike,
    settings: MyelinWater,
    *,
    noise_sd: ArrayLike | None = None,
    refocusing_angle_deg: ArrayLike | None = None,
    neighbours: NeighbourSpectra | None = None,
) -> FittedMaps:
    """Fit the myelin water fraction of many voxels.

    The refocusing angle of each voxel is that with which non-negative amplitudes of all T2 leave the
    least residual.  The amplitudes are then made smooth as far as the rule allows, and the fraction is
    the sum of those up to ``myelin_t2_s`` over the sum of all.

    Parameters
    ----------
    signal : array_like, shape (..., n_echoes)
        Magnitudes of equally spaced echoes, the first after one spacing.
    settings : MyelinWater
    noise_sd : array_like, shape (...), optional
        Standard deviation of the noise in the unit of the signal; taken from the residual where it
        is not given.
    refocusing_angle_deg : array_like, shape (...), optional
        Known refocusing angle, 0 to 180; fitted where it is not given.
    neighbours : NeighbourSpectra, optional

    Returns
    -------
    FittedMaps
        ``MWF`` in %, ``T2IE`` (geometric mean T2 of the tissue water, ms), ``M0``,
        ``refocusing_angle`` (deg) and ``spectrum_smoothing`` (weight of the squared amplitudes over
        the mean squared decay).  Standard errors are of noise only: smoothing lets small fractions
        come out too small, which is in no standard error.  Linear propagation takes the weight of the
        smoothing as fixed, which ``chi2`` nearly does; ``discrepancy``, ``gcv`` and ``lcurve`` choose it
        by the noise too, so that the error is too small by a third to a half: use the bootstrap.

    Raises
    ------
    InputError
        If the number of echoes does not fit, or the discrepancy principle lacks the noise.

    References
    ----------
    .. [1] MacKay et al., Magn Reson Med 1994, doi:10.1002/mrm.1910310614
    .. [2] Prasloski et al., Magn Reson Med 2012, doi:10.1002/mrm.23157
    """
    data = np.real(check_signal(signal, settings.grid.n_echoes)).astype(float)
    shape = data.shape[:-1]
    flat = data.reshape(-1, data.shape[-1])
    noise, angle = (_flat(extra, shape) for extra in (noise_sd, refocusing_angle_deg))
    refused = _refused(flat, angle, settings.grid.smallest_angle_deg)
    good = np.flatnonzero(refused.ok)
    basis = make_basis(settings.grid, settings.profile)
    columns = {name: np.full(len(flat), np.nan) for name in (*_UNITS, "se_MWF", "se_M0", "misfit", "snr")}
    converged = np.ones(len(flat), dtype=bool)
    for start in range(0, good.size, _BATCH):
        rows = good[start : start + _BATCH]
        found, done = _fit_batch(flat[rows], basis, settings, rows, (noise, angle, neighbours))
        converged[rows] = done
        for name, values in found.items():
            columns[name][rows] = values
    return _as_maps(columns, refused, converged, settings, shape, angle is not None)


_UNITS = {
    "MWF": "%",
    "T2IE": "ms",
    "M0": "signal",
    "refocusing_angle": "deg",
    "spectrum_smoothing": "1",
}


def _flat(values: ArrayLike | None, shape: tuple[int, ...]) -> Array | None:
    if values is None:
        return None
    return np.broadcast_to(np.asarray(values, dtype=float), shape).reshape(-1)


def _refused(signal: Array, angle: Array | None, smallest: float) -> Reasons:
    """Voxels that cannot enter a fit."""
    missing = ~np.isfinite(signal).all(axis=1)
    strongest = np.max(np.where(np.isfinite(signal), signal, 0.0), axis=1)
    failures = [
        (missing, INCOMPLETE),
        ((signal < -_NOISE_BELOW_ZERO * strongest[:, None]).any(axis=1), NEGATIVE),
        (~(strongest > 0), NO_SIGNAL),
    ]
    if angle is not None:
        failures.append((~((angle >= smallest) & (angle <= 180)), NO_ANGLE))
    return Reasons.collect((len(signal),), failures)


_Extras = tuple[Array | None, Array | None, NeighbourSpectra | None]


def fit_water_spectra(
    signal: Array, settings: MyelinWater, *, angle_deg: Array | None = None, noise_sd: Array | None = None
) -> Spectra:
    """Fit spectra of voxels that are known to be usable, each divided by its strongest echo.

    Parameters
    ----------
    signal : ndarray, shape (m, n_echoes)
        Finite, with a positive echo in every row.
    angle_deg, noise_sd : ndarray, shape (m,), optional
    """
    scale = signal.max(axis=1)
    return fit_spectra(
        signal / scale[:, None],
        make_basis(settings.grid, settings.profile),
        settings.smoothing,
        node=None if angle_deg is None else angle_to_node(angle_deg),
        noise_sd=None if noise_sd is None else noise_sd / scale,
    )


def _fit_batch(
    signal: Array, basis: EchoBasis, settings: MyelinWater, rows: NDArray[np.intp], extras: _Extras
) -> tuple[dict[str, Array], Mask]:
    noise, angle, neighbours = extras
    scale = signal.max(axis=1)
    scaled = signal / scale[:, None]
    known = None if noise is None else noise[rows] / scale
    node = None if angle is None else angle_to_node(angle[rows])
    prior, pull = _prior(neighbours, rows, basis, scaled)
    found = fit_spectra(scaled, basis, settings.smoothing, node=node, noise_sd=known, prior=prior, pull=pull)
    spread = _noise_of(found, known, signal.shape[1])
    values = _numbers(found, settings)
    if settings.bootstrap:
        errors = _bootstrap(found, basis, settings, spread, node)
    else:
        errors = propagate_noise(found, basis, settings.windows[0], spread, angle_fitted=node is None)
    values["M0"] *= scale
    values["se_MWF"], values["se_M0"] = errors[0], errors[1] * scale
    values["misfit"] = np.sqrt(found.least_chi2 / signal.shape[1])
    with np.errstate(divide="ignore"):
        values["snr"] = scaled[:, 0] / spread
    # What typical decays weigh, so that the number means the same for any basis.
    values["spectrum_smoothing"] = found.ridge / float((basis.decays[0] ** 2).sum(axis=0).mean())
    return values, found.converged


def _prior(
    neighbours: NeighbourSpectra | None, rows: NDArray[np.intp], basis: EchoBasis, signal: Array
) -> tuple[Array | None, Array | None]:
    """Bring the neighbours' spectra to the amplitude of each voxel."""
    if neighbours is None:
        return None, None
    spectrum = neighbours.spectrum[rows]
    predicted = np.matmul(basis.at(basis.nearest(signal)), spectrum[:, :, None])[:, :, 0]
    size = (predicted**2).sum(axis=1)
    amplitude = np.where(size > 0, (predicted * signal).sum(axis=1) / np.maximum(size, 1e-30), 0.0)
    weight = neighbours.weight * float((basis.decays[0] ** 2).sum(axis=0).mean())
    pull = np.where(spectrum.sum(axis=1) > 0, weight, 0.0)
    return spectrum * amplitude[:, None], pull


def _noise_of(found: Spectra, known: Array | None, n_echoes: int) -> Array:
    """Noise of the scaled signal: as stated, else from the residual and its degrees of freedom."""
    if known is not None:
        return known
    spread: Array = np.sqrt(found.least_chi2 / np.maximum(n_echoes - found.free, 1))
    return spread


def _numbers(found: Spectra, settings: MyelinWater) -> dict[str, Array]:
    """Fractions and means of spectra; NaN where there is no water to speak of."""
    myelin, tissue = settings.windows
    x = found.amplitudes
    total = x.sum(axis=1)
    in_tissue = x[:, tissue].sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_log = x[:, tissue] @ np.log(settings.grid.t2_s[tissue]) / in_tissue
        fraction = np.where(total > 0, x[:, myelin].sum(axis=1) / total, np.nan)
    return {
        "MWF": 100.0 * fraction,
        "T2IE": np.where(in_tissue > 0, 1e3 * np.exp(mean_log), np.nan),
        "M0": total,
        "refocusing_angle": node_to_angle(found.node),
    }


def _bootstrap(
    found: Spectra, basis: EchoBasis, settings: MyelinWater, spread: Array, node: Array | None
) -> tuple[Array, Array]:
    """Fit simulated repeats of each voxel anew."""
    clean = np.matmul(found.decays, found.amplitudes[:, :, None])[:, :, 0]
    draws = np.empty((settings.bootstrap, 2, len(clean)))
    noise = np.stack([_own_noise(row, settings) for row in clean], axis=1)
    for draw in range(settings.bootstrap):
        again = fit_spectra(
            np.abs(clean + spread[:, None] * noise[draw]),
            basis,
            settings.smoothing,
            node=node,
            noise_sd=spread,
        )
        numbers = _numbers(again, settings)
        draws[draw] = numbers["MWF"], numbers["M0"]
    deviation = draws.std(axis=0, ddof=1)
    return deviation[0], deviation[1]


def _own_noise(curve: Array, settings: MyelinWater) -> Array:
    """Random numbers that belong to a curve, so that they do not depend on its company."""
    # Rounded, because the last digits of a fit do depend on it.
    key = zlib.crc32(np.round(curve, 6).tobytes())
    return np.random.default_rng((settings.seed, key)).normal(size=(settings.bootstrap, curve.size))


def _as_maps(
    columns: dict[str, Array],
    refused: Reasons,
    converged: Mask,
    settings: MyelinWater,
    shape: tuple[int, ...],
    angle_given: bool,
) -> FittedMaps:
    reasons = refused.then(~converged, NOT_CONVERGED)
    reasons = reasons.then(columns["misfit"] > _WORST_MISFIT, NO_DECAY)
    reasons = reasons.then(~np.isfinite(columns["MWF"]), NO_WATER)
    reasons = Reasons(codes=reasons.codes.reshape(shape), texts=reasons.texts)
    columns = {name: values.reshape(shape) for name, values in columns.items()}
    own = reasons.then(~np.isfinite(columns["T2IE"]), "no water with the T2 of tissue")
    angle = columns["refocusing_angle"]
    flags = {LOW_SNR: (columns["snr"] < _ENOUGH_SNR) & reasons.ok}
    if not angle_given:
        flags[AT_ANGLE_LIMIT] = (angle < settings.grid.smallest_angle_deg + _EDGE_DEG) & reasons.ok
    method = "bootstrap" if settings.bootstrap else "linear propagation of noise"
    return FittedMaps(
        model=f"non-negative T2 spectrum of phase graphs ({settings.grid.n_t2} T2), regularisation: "
        f"{settings.smoothing.words}; standard error by {method}",
        values={name: np.where(reasons.ok, columns[name], np.nan) for name in _UNITS},
        units=dict(_UNITS),
        standard_errors={name: np.where(reasons.ok, columns[f"se_{name}"], np.nan) for name in ("MWF", "M0")},
        reasons=reasons,
        own_reasons={"T2IE": own},
        flags=flags,
        notices=(_BIAS, *_doubts(settings)),
    )


def _doubts(settings: MyelinWater) -> tuple[str, ...]:
    rule = settings.smoothing.rule
    if settings.bootstrap or rule == "chi2":
        return ()
    words = (
        "without smoothing, linear propagation gives wild standard errors in some voxels"
        if rule == "none"
        else f"the weight that {rule} chooses follows the noise, which linear propagation leaves out: "
        "standard errors are too small by a third to a half"
    )
    return (f"{words}; a bootstrap of 40 draws has that in",)


_BIAS = (
    "a smoothed spectrum gives too little myelin water where the fraction is small or the signal noisy; "
    "the standard error does not include that"
)
