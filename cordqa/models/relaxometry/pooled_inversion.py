"""T1 of several regions of one scan from inversion recovery, with one inversion for all.

The inversion factor b and a small offset d of the effective inversion time (a pulse of finite
length, a delay that is not in the header) belong to the scan.  Fitted freely in each region, b
is the least certain parameter where T1 is longer than the longest inversion time or shorter than the
first, and what it gets wrong goes into T1.  Here b and d are estimated once, from all regions.

What the regions do not share is not forced on them:

- the inversion of a pulse that is not adiabatic follows B1, so b may differ between regions by a
  normal deviation whose size the data show (none, up to 0.08);
- scanners drift in gain from image to image by a few tenths of a per cent, which all regions see
  alike, so each image has a gain, again of a size that the data show;
- what is left beyond the stated noise (ringing, ghosts) counts as misfit of every sample.

:mod:`~cordqa.models.relaxometry.variance_components` estimates the three and averages over their
uncertainty.  A region that the model cannot follow loses weight, so it cannot move the others.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError
from cordqa.models.relaxometry.checks import check_range, check_repetition_times, check_times
from cordqa.models.relaxometry.fitting import (
    OUTSIDE_RANGE,
    RelaxometryFit,
    check_samples,
    first_reason,
    refuse_negative,
)
from cordqa.models.relaxometry.inversion_recovery import (
    correct_phase,
    describe_data,
    fit_inversion_recovery,
)
from cordqa.models.relaxometry.inversion_search import InversionTiming
from cordqa.models.relaxometry.pooled_search import (
    SMALLEST_NOISE,
    Curves,
    Pool,
    doubt_factor,
    far_from_median,
    fit_pool,
    polarity,
    predict,
    rival_distance,
)

__all__ = ["FEWEST_REGIONS", "fit_pooled_inversion_recovery", "is_pooled", "regions_apart"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Fewer regions, or fewer inversion times, do not tell what belongs to the scan.
FEWEST_REGIONS = 4
_FEWEST_TIMES = 4
#: An inversion turns the magnetization by 90 to 180 degrees (a little more is left to noise), and
#: no pulse is longer than this.
_FACTORS = (1.0, 2.05)
_LONGEST_OFFSET_S = 0.025
#: Pixel noise over the strongest sample that is assumed where no noise is stated, to weigh down
#: magnitudes near the null.
_ASSUMED_NOISE = 0.02
_SMALLEST_SAMPLE = 1e-3
#: Residuals this many times the median are no chance with a handful of degrees of freedom.
_ROUGH = 4.0
_OFFSET = "inversion_time_offset_s"


def fit_pooled_inversion_recovery(
    signal: ArrayLike,
    inversion_times_s: ArrayLike,
    *,
    repetition_times_s: ArrayLike | None = None,
    echo_time_s: float = 0.0,
    signed: bool = False,
    noise_sd: ArrayLike | None = None,
    valid: ArrayLike | None = None,
    t1_range_s: tuple[float, float] = (0.005, 10.0),
) -> RelaxometryFit:
    """Fit M0 [1 - b exp(-(TI + d)/T1) + (b - 1) X(TR, T1)] to all regions of one scan at once.

    Parameters
    ----------
    signal : array_like, shape (n_regions, n_images)
        As in :func:`~cordqa.models.relaxometry.inversion_recovery.fit_inversion_recovery`; all
        regions from the same images, in the same unit.
    inversion_times_s, repetition_times_s, echo_time_s, signed, noise_sd, valid, t1_range_s
        As there.

    Returns
    -------
    RelaxometryFit
        Parameters ``t1_s``, ``m0``, ``inversion_factor`` and ``inversion_time_offset_s``.  The last
        is the same for all regions; the factor is too unless the data show that it differs.  M0 is at
        the mean gain of the images, and ``predicted`` holds the gain of each.  The degrees of freedom
        are those of all regions together.

        With fewer than 4 regions or 4 inversion times, or where the regions do not follow one scan
        (the factor differs by more than 0.08, the misfit exceeds 3 % of the signal, the estimates are
        no possible inversion), each region is fitted by itself: ``model`` says so, the offset is 0
        and its standard error NaN.

    Raises
    ------
    InputError
        If shapes or times do not fit together.

    Notes
    -----
    Standard errors are from the joint covariance, averaged over the variance components, in ln(T1).
    Regions share the errors of the scan's parameters, so their errors are correlated.  A region that
    :func:`regions_apart` tells has a T1 that may be worse than it says.

    Examples
    --------
    >>> import numpy as np
    >>> from cordqa.models.relaxometry.signal import inversion_recovery_signal
    >>> ti, t1 = np.array([0.05, 0.1, 0.2, 0.4, 0.6, 0.8]), np.array([1.5, 0.7, 0.3, 0.1, 0.05])
    >>> curves = inversion_recovery_signal(ti + 0.003, t1[:, None], inversion_angle_deg=165.0)
    >>> fit = fit_pooled_inversion_recovery(np.abs(curves), ti)
    >>> fit.parameters["t1_s"].round(4).tolist()
    [1.5, 0.7, 0.3, 0.1, 0.05]
    """
    inversion = check_times(inversion_times_s, "inversion times", longest_s=60.0)
    repetition = check_repetition_times(repetition_times_s, inversion, echo_time_s)
    limits = check_range(t1_range_s, "T1")
    data, used, deviation = check_samples(signal, inversion.size, valid, noise_sd)
    if data.ndim != 2:
        raise InputError("the signal must be regions by images", found=f"shape {data.shape}")
    if not signed:
        refuse_negative(data, used)
    reason = first_reason(data, used, deviation, inversion, 3)
    rows = np.flatnonzero(reason == "")
    present = inversion[used[rows].any(axis=0)]
    if rows.size >= FEWEST_REGIONS and np.unique(present).size >= _FEWEST_TIMES:
        timing = InversionTiming(inversion, repetition, echo_time_s, None)
        kept = deviation if deviation is None else deviation[rows]
        curves, scale = _curves(data[rows], used[rows], kept, timing, signed=signed, limits=limits)
        pool = fit_pool(curves)
        if _is_possible(pool):
            kind = describe_data(signed, np.iscomplexobj(data))
            polar = signed and not np.iscomplexobj(data)
            return _result(pool, curves, scale, rows=rows, reason=reason, used=used, kind=kind, polar=polar)
    alone = fit_inversion_recovery(
        signal,
        inversion,
        repetition_times_s=repetition,
        echo_time_s=echo_time_s,
        signed=signed,
        inversion_angle_deg=None if np.unique(inversion).size >= _FEWEST_TIMES else 180.0,
        noise_sd=noise_sd,
        valid=valid,
        t1_range_s=t1_range_s,
    )
    return _with_offset(alone)


def is_pooled(fit: RelaxometryFit) -> bool:
    """Tell whether a fit shares the inversion between its regions."""
    return bool(np.isfinite(fit.standard_errors.get(_OFFSET, np.array(np.nan))).any())


def regions_apart(fit: RelaxometryFit) -> Mask:
    """Tell which regions do not follow the inversion of the others.

    Their inversion factor lies far from the median, or their residuals are several times those of
    most: something is added to their signal (ringing, a ghost) or missing from it.  Their T1 may be
    less certain than its standard error says.  None are told where the fit is not pooled.
    """
    factor, error = fit.parameters["inversion_factor"], fit.standard_errors["inversion_factor"]
    if not is_pooled(fit):
        return np.zeros(factor.shape, dtype=bool)
    with np.errstate(invalid="ignore"):
        rough: Mask = fit.residual_sd > _ROUGH * np.nanmedian(fit.residual_sd)
    return rough | far_from_median(factor, error)


def _curves(
    data: NDArray[np.generic],
    used: Mask,
    deviation: Array | None,
    timing: InversionTiming,
    *,
    signed: bool,
    limits: tuple[float, float],
) -> tuple[Curves, Array]:
    """Scale every region to its strongest sample, and say how certain its samples are."""
    present = np.where(used, data, 0.0)
    is_complex = np.iscomplexobj(present)
    real: Array = correct_phase(present) if is_complex else np.asarray(present, dtype=float)
    scale = np.abs(real).max(axis=1)
    sample = real / scale[:, None]
    # Half of what leaks into a region is taken to come from itself, half from what surrounds it.
    misfit = np.broadcast_to((1 + (np.median(scale) / scale[:, None]) ** 2) / 2, sample.shape)
    if deviation is not None:
        relative = np.where(used, deviation, scale[:, None]) / scale[:, None]
        variance = np.clip(relative, SMALLEST_NOISE, 1 / SMALLEST_NOISE) ** 2
    elif signed or is_complex:
        variance = misfit
    else:
        variance = misfit * (1 + (_ASSUMED_NOISE / np.maximum(np.abs(sample), _SMALLEST_SAMPLE)) ** 2)
    curves = Curves(
        signal=sample,
        variance=variance,
        misfit=misfit,
        used=used,
        timing=timing,
        signed=signed or is_complex,
        noise_known=deviation is not None,
        limits=(float(np.log(limits[0])), float(np.log(limits[1]))),
    )
    return curves, scale


def _is_possible(pool: Pool) -> bool:
    """Tell whether the fit converged to something that an inversion pulse can do."""
    found = pool.posterior
    if not pool.converged or any(found.at_end) or np.count_nonzero(~pool.outside) < FEWEST_REGIONS:
        return False
    margin = 2 * float(np.sqrt(found.shared_variance[0]))
    factor = _FACTORS[0] - margin <= pool.factor <= _FACTORS[1] + margin
    # An offset that was cut would leave no time before the first image.
    whole = bool(np.isclose(found.shared[1], pool.offset_s, rtol=0, atol=1e-6))
    return factor and whole and abs(pool.offset_s) < _LONGEST_OFFSET_S


def _result(
    pool: Pool,
    curves: Curves,
    scale: Array,
    *,
    rows: NDArray[np.intp],
    reason: NDArray[np.str_],
    used: Mask,
    kind: str,
    polar: bool,
) -> RelaxometryFit:
    """Put the fitted regions among all of them; ``polar`` keeps the sign of the signal as a whole."""
    told = np.array(reason, dtype="<U24")
    told[rows[pool.outside]] = OUTSIDE_RANGE
    values, errors = _parameters(pool, curves, scale)
    residual, predicted = _residuals(pool, curves, polar)

    def place(part: Array) -> Array:
        out = np.full((len(told), *part.shape[1:]), np.nan)
        out[rows[~pool.outside]] = part[~pool.outside]
        return out

    return RelaxometryFit(
        model=_describe(kind),
        main="t1_s",
        parameters={name: place(part) for name, part in values.items()},
        standard_errors={name: place(part) for name, part in errors.items()},
        degrees_of_freedom=np.where(told == "", int(curves.freedom), 0),
        interval_degrees_of_freedom=np.full(len(told), np.inf if curves.noise_known else curves.freedom),
        residual_sd=place(residual * scale),
        n_used=used.sum(axis=1),
        reason=told,
        predicted=place(predicted * scale[:, None]),
        used=used,
    )


def _describe(kind: str) -> str:
    return (
        f"inversion recovery with TR, {kind}, inversion pooled over the regions (one factor and time offset, "
        "gain of each image, spread and misfit by restricted likelihood)"
    )


def _parameters(pool: Pool, curves: Curves, scale: Array) -> tuple[dict[str, Array], dict[str, Array]]:
    found = pool.posterior
    variance = found.own_variance * doubt_factor(pool, curves)[:, None]
    log_error = np.sqrt(variance[:, 0] + (rival_distance(pool, curves) / 2) ** 2)
    t1, m0, every = np.exp(pool.log_t1), pool.m0 * scale, np.ones(scale.shape)
    values = {"t1_s": t1, "m0": m0, "inversion_factor": pool.factors, _OFFSET: pool.offset_s * every}
    errors = {
        "t1_s": t1 * log_error,
        "m0": m0 * np.sqrt(variance[:, 1]),
        "inversion_factor": np.sqrt(found.factor_variance),
        _OFFSET: np.sqrt(found.shared_variance[1]) * every,
    }
    return values, errors


def _residuals(pool: Pool, curves: Curves, polar: bool) -> tuple[Array, Array]:
    """Residual standard deviation of each region and its curve, both relative to its scale."""
    curve, signs = predict(pool, curves.timing)[0], polarity(pool, curves)
    square = np.where(curves.used, curves.signal * signs - curve, 0.0) ** 2
    # Every region bears its share of the parameters of all.
    freedom = curves.used.sum(axis=1) * curves.freedom / np.count_nonzero(curves.used)
    shown = np.abs(curve) if not curves.signed else curve * signs if polar else curve
    return np.sqrt(square.sum(axis=1) / freedom), shown


def _with_offset(fit: RelaxometryFit) -> RelaxometryFit:
    """Give a fit of single regions the same parameters as a pooled one."""
    none = np.where(fit.ok, 0.0, np.nan)
    return replace(
        fit,
        parameters={**fit.parameters, _OFFSET: none},
        standard_errors={**fit.standard_errors, _OFFSET: np.full(none.shape, np.nan)},
    )
