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
    "noise_of",
    "refuse_signed",
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
) -> FittedMaps:
    """Turn fitted curves into maps.

    Parameters
    ----------
    names : mapping
        By parameter of the fit.
    failures : tuple of (mask, text)
        Reasons that stand before those of the fit.
    flags, notices
        Passed on.
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
        notices=notices,
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
