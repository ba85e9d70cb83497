"""T2 from multi-echo spin echo: an exponential over a noise floor, or extended phase graphs.

The two models differ in what they do about imperfect refocusing.  Stimulated echoes make the
first echo too weak and the later ones too strong.  The exponential leaves the first echo out,
after which the rest is nearly a straight decay with T2 a little too long.  The phase graph fits
the refocusing angle from that very pattern and uses all echoes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError
from cordqa.models.relaxometry.checks import broadcast_to_signal, check_range, check_signal, check_times
from cordqa.models.relaxometry.fitting import (
    NO_SIGNAL,
    NO_T1,
    RelaxometryFit,
    fit_by_pattern,
)
from cordqa.models.relaxometry.multi_echo_solvers import EchoTrain, solve_epg, solve_exponential
from cordqa.models.relaxometry.slice_profile import UNIFORM, SliceProfile, windowed_sinc_profile

__all__ = ["choose_slice_profile", "fit_multi_echo"]

Array = NDArray[np.float64]

#: A sample is signal when it is this many times the floor.
_CLEAR_OF_FLOOR = 2.0
_WIDTH_RATIOS = (1.0, 1.1, 1.2, 1.35, 1.6, 2.0)


def fit_multi_echo(
    signal: ArrayLike,
    echo_times_s: ArrayLike,
    *,
    noise_floor: ArrayLike = 0.0,
    skip_first: int | None = None,
    model: Literal["exponential", "epg"] = "exponential",
    t1_s: ArrayLike | None = None,
    slice_profile: SliceProfile = UNIFORM,
    noise_sd: ArrayLike | None = None,
    valid: ArrayLike | None = None,
    rician: bool = False,
    t2_range_s: tuple[float, float] = (0.001, 5.0),
) -> RelaxometryFit:
    """Fit sqrt(S(TE)^2 + floor^2), or the mean of Rician noise, to multi-echo spin-echo magnitudes.

    Parameters
    ----------
    signal : array_like, shape (..., n_echoes)
        Magnitude.  For a region take the root of the mean square, for which the sum of squares is
        exact.  A signal with the floor taken out beforehand (and ``noise_floor`` 0) needs
        ``noise_sd``, or its late echoes, which are never negative, count too much.
    echo_times_s : array_like, shape (n_echoes,)
        For ``epg`` they must be multiples of the first.
    noise_floor : array_like, broadcast to the signal
        Measured magnitude without signal (root mean square).  Not a fit parameter: a free offset
        trades against T2.
    skip_first : int, optional
        Echoes left out at the start of the train.  Default 1 for ``exponential`` (the first echo
        alone lacks any stimulated echo, so it lies below the decay of the others) and 0 for
        ``epg``, which needs it.
    model : {'exponential', 'epg'}
        S = M0 exp(-TE/T2), or the phase graph with the refocusing angle as third parameter.
    t1_s : array_like, broadcast to the voxel shape
        Needed by ``epg``: stimulated echoes decay with T1 while they are stored.
    slice_profile : SliceProfile
        Distribution of angles through the slice, for ``epg``.
    noise_sd, valid : array_like, broadcast to the signal, optional
        As in :func:`~cordqa.models.relaxometry.inversion_recovery.fit_inversion_recovery`.
    rician : bool
        For single voxels: ``noise_sd`` is that of one channel, the fitted curve is the mean magnitude
        under it, and each echo weighs by the variance that its magnitude has.  There is then no
        ``noise_floor``.
    t2_range_s : tuple of float
        A minimum at the end of this range gives NaN with reason "outside range".

    Returns
    -------
    RelaxometryFit
        Parameters ``t2_s``, ``m0`` and for ``epg`` also ``refocusing_angle_deg`` (at the centre
        of the slice; it has no standard error where it ends at 180 degrees).

    Raises
    ------
    InputError
        If shapes or times do not fit together, or ``epg`` has no T1.

    References
    ----------
    .. [1] Lebel and Wilman, Magn Reson Med 2010, doi:10.1002/mrm.22487
    .. [2] Milford et al., PLoS ONE 2015, doi:10.1371/journal.pone.0145255
    """
    echo_times = check_times(echo_times_s, "echo times", longest_s=10.0)
    if model not in ("exponential", "epg"):
        raise InputError("unknown decay model", found=str(model), expected="exponential or epg")
    limits = check_range(t2_range_s, "T2")
    skip = (1 if model == "exponential" else 0) if skip_first is None else int(skip_first)
    keep = _kept(echo_times, skip)
    data = check_signal(signal, echo_times.size)
    shape = data.shape
    used = keep if valid is None else keep & broadcast_to_signal(valid, shape, "valid").astype(bool)
    floor = _rician(noise_sd, noise_floor, shape) if rician else _floor(noise_floor, shape)
    refused = np.where(_hidden(data, floor, used), NO_SIGNAL, "")
    if model == "exponential":
        solver = partial(solve_exponential, echo_times=echo_times, floor=floor, rician=rician, limits=limits)
        names: tuple[str, ...] = ("t2_s", "m0")
    else:
        t1 = _t1(t1_s, shape[:-1])
        refused = np.where(np.isfinite(t1).reshape(shape[:-1]), refused, NO_T1)
        spacing, columns = _echo_numbers(echo_times)
        train = EchoTrain(spacing, int(columns.max()) + 1, columns, t1, slice_profile)
        solver = partial(
            solve_epg, train=train, echo_times=echo_times, floor=floor, rician=rician, limits=limits
        )
        names = ("t2_s", "m0", "refocusing_angle_deg")
    fit = fit_by_pattern(
        data,
        echo_times.size,
        solver,
        model=_describe(model, skip, slice_profile, rician=rician),
        names=names,
        minimum=len(names) if model == "exponential" else 4,
        valid=used,
        noise_sd=noise_sd,
        distinct=echo_times,
        refused=refused,
    )
    return _fold(fit) if model == "epg" and slice_profile.largest_factor <= 1 else fit


def _fold(fit: RelaxometryFit) -> RelaxometryFit:
    """Bound the standard error of an angle near 180 degrees.

    The signal depends on the square of 180 - angle.  The linear error grows without limit there,
    but the angle is never further off than the root of what the square may be.
    """
    name = "refocusing_angle_deg"
    away = 180.0 - fit.parameters[name]
    with np.errstate(invalid="ignore", over="ignore"):
        square_sd = 2 * away * fit.standard_errors[name]
        error = np.divide(
            square_sd,
            2 * np.sqrt(np.maximum(away**2, square_sd)),
            out=np.full(away.shape, np.nan),
            where=square_sd > 0,
        )
    return replace(fit, standard_errors={**fit.standard_errors, name: error})


def choose_slice_profile(
    signal: ArrayLike,
    echo_times_s: ArrayLike,
    *,
    t1_s: ArrayLike,
    noise_floor: ArrayLike = 0.0,
    valid: ArrayLike | None = None,
    candidates: Sequence[SliceProfile] | None = None,
) -> SliceProfile:
    """Return the slice profile with which phase graphs leave the least residual over all curves.

    The profile belongs to the pulses, so it is one for all regions of a scan; the curves
    themselves decide, no reference value enters.  The criterion is the sum over the curves of
    the logarithm of their residual sum of squares.

    Parameters
    ----------
    signal, echo_times_s, t1_s, noise_floor, valid
        As in :func:`fit_multi_echo`.  A poor T1 spoils the choice where T1 is close to T2.
    candidates : sequence of SliceProfile, optional
        Default: uniform, and refocusing slices 1 to 2 times as wide as the excitation.

    Raises
    ------
    InputError
        If no curve can be fitted with every candidate.
    """
    if candidates is None:
        candidates = (UNIFORM, *(windowed_sinc_profile(ratio) for ratio in _WIDTH_RATIOS))
    fits = [
        fit_multi_echo(
            signal,
            echo_times_s,
            noise_floor=noise_floor,
            model="epg",
            t1_s=t1_s,
            slice_profile=profile,
            valid=valid,
        )
        for profile in candidates
    ]
    usable = np.all([fit.ok & (fit.degrees_of_freedom > 0) for fit in fits], axis=0)
    if not usable.any():
        raise InputError("no curve can be fitted with every slice profile", found=f"{usable.size} curves")
    # The number of samples and of parameters is the same for all candidates.
    scores = [np.log(np.maximum(fit.residual_sd[usable], 1e-300)).sum() for fit in fits]
    return candidates[int(np.argmin(scores))]


def _describe(model: str, skip: int, profile: SliceProfile, *, rician: bool) -> str:
    skipped = f", first {skip} of the train left out" if skip else ""
    skipped += ", mean of Rician noise" if rician else ""
    if model == "exponential":
        return f"mono-exponential{'' if rician else ' over a measured noise floor'}{skipped}"
    return f"extended phase graph, free refocusing angle, slice profile {profile.name}{skipped}"


def _kept(echo_times: Array, skip: int) -> NDArray[np.bool_]:
    order = np.unique(echo_times)
    if not 0 <= skip < order.size:
        raise InputError(
            "no echo is left", found=f"{order.size} echo times, {skip} left out", expected="at least 2 echoes"
        )
    kept: NDArray[np.bool_] = echo_times >= order[skip]
    return kept


def _floor(noise_floor: ArrayLike, shape: tuple[int, ...]) -> Array:
    floor = np.asarray(noise_floor, dtype=float)
    if not np.isfinite(floor).all() or (floor < 0).any():
        raise InputError("the noise floor must be finite and not negative", found=f"{np.min(floor)}")
    flat: Array = broadcast_to_signal(floor, shape, "the noise floor").reshape(-1, shape[-1])
    return flat


def _rician(noise_sd: ArrayLike | None, noise_floor: ArrayLike, shape: tuple[int, ...]) -> Array:
    """Noise of one channel of every sample; 0 where it is not known."""
    if noise_sd is None or np.any(np.asarray(noise_floor, dtype=float) != 0):
        raise InputError(
            "the mean of Rician noise needs noise_sd, and no noise floor beside it",
            todo="give either the noise or the floor",
        )
    sd = broadcast_to_signal(noise_sd, shape, "noise_sd").astype(float).reshape(-1, shape[-1])
    return np.where(np.isfinite(sd) & (sd > 0), sd, 0.0)


def _hidden(signal: NDArray[Any], floor: Array, used: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Rows that have samples, but none that stands clear of the floor."""
    values = np.abs(signal)
    usable = np.isfinite(values) & used
    clear = usable & (values > _CLEAR_OF_FLOOR * floor.reshape(values.shape))
    hidden: NDArray[np.bool_] = usable.any(axis=-1) & ~clear.any(axis=-1)
    return hidden


def _t1(t1_s: ArrayLike | None, shape: tuple[int, ...]) -> Array:
    if t1_s is None:
        raise InputError(
            "the phase graph needs T1",
            todo="give a measured or assumed T1 (it matters little where T1 >> T2)",
        )
    t1 = broadcast_to_signal(t1_s, shape, "t1_s").astype(float).reshape(-1)
    return np.where(t1 > 0, t1, np.nan)


def _echo_numbers(echo_times: Array) -> tuple[float, NDArray[np.intp]]:
    """Return the echo spacing and the index of each image in the train."""
    spacing = float(echo_times.min())
    numbers = np.rint(echo_times / spacing) if spacing > 0 else np.zeros(echo_times.size)
    if spacing <= 0 or np.abs(echo_times - numbers * spacing).max() > 0.02 * spacing:
        raise InputError(
            "the phase graph needs echo times that are multiples of the first",
            found=", ".join(f"{1e3 * t:g}" for t in echo_times[:4]) + " ms ...",
            todo="use the exponential model",
        )
    return spacing, (numbers - 1).astype(np.intp)
