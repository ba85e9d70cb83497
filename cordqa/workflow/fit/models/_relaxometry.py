"""What all relaxometry models share: from a fit in seconds to maps with reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.models.maps import FittedMaps, Reasons
from cordqa.models.relaxometry import fitting
from cordqa.models.relaxometry.fitting import RelaxometryFit
from cordqa.workflow.fit.data import FitData
from cordqa.workflow.fit.registry import Setting

__all__ = [
    "ECHO_TIMES",
    "INCOMPLETE",
    "NEGATIVE",
    "SIGNAL_UNIT",
    "MapName",
    "everywhere",
    "maps_of_fit",
    "misfit_of",
    "noise_of",
    "refuse_signed",
    "refuse_too_few",
    "scaling_of",
    "strong_sample",
    "without_negative",
]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
SIGNAL_UNIT = "signal"
#: Echo times of a spin-echo series.
ECHO_TIMES = Setting(
    id="echo_times",
    help="Echo time of each image.",
    unit="s",
    sidecar=("EchoTime",),
    smallest=1e-4,
    largest=1.5,
    slip="milliseconds",
    acquisition="echo_time_s",
)
NEGATIVE = "a magnitude is negative"
INCOMPLETE = "fitted without some of the images"
#: An image that lies this share of the signal off the fitted curve in most voxels does not belong there.
_MISFIT, _SURE = 0.05, 6.0
#: Nor does one that lies this far off to either side.
_SCATTER = 0.1
#: Voxels by which a series is judged, and the fewest that can.
_SAMPLE, _FEWEST = 400, 4
_LOOKED_AT = 100_000
#: Scale slopes that differ by less are alike.
_ALIKE = 0.01
#: A magnitude series with more voxels below zero than this is no magnitude series.
_MANY = 0.2
_REASONS = {
    fitting.TOO_FEW: "too few usable images",
    fitting.NO_SIGNAL: "no signal above the noise",
    fitting.OUTSIDE_RANGE: "outside the range that was searched",
    fitting.NOT_CONVERGED: "the fit did not converge",
    fitting.AT_BOUND: "not determined by these images",
    fitting.NO_B1: "no B1",
    fitting.NO_T1: "no T1",
}


@dataclass(frozen=True, slots=True)
class MapName:
    """How a fitted parameter is called as a map, in which unit, and the factor to it."""

    name: str
    unit: str
    factor: float = 1.0


def maps_of_fit(
    fit: RelaxometryFit,
    names: Mapping[str, MapName],
    *,
    failures: tuple[tuple[Mask, str], ...] = (),
    flags: Mapping[str, Mask] | None = None,
    notices: tuple[str, ...] = (),
    warnings: tuple[str, ...] = (),
) -> FittedMaps:
    """Turn fitted curves into maps.

    Parameters
    ----------
    names : mapping
        By parameter of the fit.
    failures : tuple of (mask, text)
        Reasons that stand before those of the fit.
    flags, notices, warnings
        Passed on; warnings are notices, too.
    """
    own = [(fit.reason == word, text) for word, text in _REASONS.items()]
    known = np.isin(fit.reason, ["", *_REASONS])
    reasons = Reasons.collect(fit.reason.shape, [*failures, *own, (~known, "not fitted")])
    incomplete = (fit.n_used < fit.used.shape[-1]) & reasons.ok
    return FittedMaps(
        model=fit.model,
        values={
            to.name: np.where(reasons.ok, fit.parameters[key] * to.factor, np.nan)
            for key, to in names.items()
        },
        units={to.name: to.unit for to in names.values()},
        standard_errors={
            to.name: np.where(reasons.ok, fit.standard_errors[key] * to.factor, np.nan)
            for key, to in names.items()
        },
        reasons=reasons,
        flags={INCOMPLETE: incomplete, **{text: where & reasons.ok for text, where in (flags or {}).items()}},
        notices=(*warnings, *notices),
        warnings=warnings,
    )


def everywhere(shape: tuple[int, ...], *texts: str) -> dict[str, Mask]:
    """Flag all voxels for reasons that concern the whole fit."""
    return {text: np.ones(shape, dtype=bool) for text in texts}


def noise_of(data: FitData) -> Array | None:
    """Noise of every sample, broadcast over the images; ``None`` where it is not known."""
    return None if data.noise_sd is None else data.noise_sd[..., None].astype(np.float64)


def without_negative(signal: Array) -> tuple[Array, Mask]:
    """Take out voxels with a negative magnitude; return the signal and which they are."""
    below: Mask = np.any(signal < 0, axis=-1)
    return np.where(below[..., None], np.nan, signal), below


def refuse_signed(data: FitData, todo: str) -> None:
    """Refuse a series of which much is negative: it is no magnitude.

    Raises
    ------
    InputError
    """
    below: Mask = np.any(data.signal < 0, axis=-1)
    seen: Mask = np.isfinite(data.signal).any(axis=-1) & (data.signal != 0).any(axis=-1)
    share = float(below[seen].mean()) if seen.any() else 0.0
    if share > _MANY:
        raise InputError(
            "the images are no magnitudes",
            found=f"{100 * share:.0f} % of the voxels are negative in an image",
            todo=todo,
        )


def refuse_too_few(values: Array, minimum: int, what: str, todo: str) -> None:
    """Refuse a series with fewer different settings than the model has unknowns.

    Raises
    ------
    InputError
    """
    distinct = np.unique(values).size
    if distinct < minimum:
        raise InputError(
            f"too few different {what}",
            found=f"{distinct} in {values.size} images",
            expected=f"at least {minimum}",
            todo=todo,
        )


def strong_sample(data: FitData) -> FitData:
    """Return some of the stronger half of the voxels, spread over all, of which no image is missing."""
    # Voxels spread over all are enough, and a copy of all would cost memory.
    places = np.arange(0, len(data.signal), max(1, len(data.signal) // _LOOKED_AT))
    signal = data.signal[places, data.roles["images"]]
    size = np.abs(signal).max(axis=-1, initial=0.0)
    usable = np.isfinite(signal).all(axis=-1) & (size > 0)
    if not usable.any():
        return data.rows(places[:0])
    strong = places[usable & (size >= np.median(size[usable]))]
    return data.rows(strong[:: max(1, strong.size // _SAMPLE)][:_SAMPLE])


def misfit_of(signal: Array, predicted: Array, used: Mask, settings: Array, what: str) -> tuple[str, ...]:
    """Say which image lies off the fitted curve in most voxels: order, setting or scaling is wrong.

    Parameters
    ----------
    signal, predicted : ndarray, shape (m, n)
        ``predicted`` is NaN where there is no fit.
    used : ndarray of bool, shape (m, n)
        Images that the fit was to follow.
    settings : ndarray, shape (n,)
        What differs between the images, for the sentence, as is ``what``.
    """
    good = np.isfinite(predicted).all(axis=-1)
    if int(good.sum()) < _FEWEST:
        return ()
    off = (signal[good] - predicted[good]) / np.abs(signal[good]).max(axis=-1, keepdims=True)
    off = off[:, used[good].all(axis=0)]
    places = np.flatnonzero(used[good].all(axis=0))
    if not off.size:
        return ()
    middle, size = np.median(off, axis=0), np.median(np.abs(off), axis=0)
    # Of noise alone, the median of so many voxels would not be this large.
    scatter = np.median(np.abs(off - middle), axis=0)
    sure = np.abs(middle) > _SURE * scatter / np.sqrt(len(off))
    worst = int(np.argmax(np.where(sure, np.abs(middle), 0.0)))
    if sure[worst] and abs(middle[worst]) >= _MISFIT:
        words = f"{100 * abs(middle[worst]):.0f} % of the signal {'above' if middle[worst] > 0 else 'below'}"
    elif size.max() >= _SCATTER:
        worst = int(np.argmax(size))
        words = f"{100 * size[worst]:.0f} % of the signal off"
    else:
        return ()
    image = places[worst]
    return (
        f"image {image + 1} ({what} {settings[image]:g}) lies {words} the fitted curve in most voxels: check "
        "the order, the settings and the scaling of the images, and the noise",
    )


def scaling_of(data: FitData) -> tuple[str, ...]:
    """Say where images of one series are stored with different scaling."""
    own = [data.acquisitions[n] for n in range(*data.roles["images"].indices(len(data.acquisitions)))]
    slopes = np.array([one.scale_slope for one in own], dtype=float)
    known = slopes[np.isfinite(slopes) & (slopes > 0)]
    if not known.size or known.max() <= (1 + _ALIKE) * known.min():
        return ()
    return (
        f"the images are stored with different scaling (slope {known.min():g} to {known.max():g}): make sure "
        "that it was applied to each",
    )
