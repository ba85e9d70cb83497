"""Which inversion times a synthetic image gets: as said, by nulling, or best for a lesion."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.models.synthetic.contrast import EchoTiming, longitudinal_double_inversion, longitudinal_inversion
from cordqa.models.synthetic.images import Contrast
from cordqa.models.synthetic.nulling import (
    BestInversion,
    Tissue,
    best_double_inversion,
    best_inversion,
    null_inversion_time,
    null_two_tissues,
    second_inversion_time,
)

__all__ = ["Choice", "ContrastCurve", "choose_double_inversion", "choose_inversion", "measure_tissue"]

Array = NDArray[np.float64]
_CURVE_POINTS = 201
#: Pulses keep this distance, as in the search.
_PULSE_S = 0.02
_FEWEST = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ContrastCurve:
    """Contrast of a lesion over the first inversion time, and what was chosen on it.

    ``contrast`` is the signal of the lesion less that of the reference tissue, in units of proton
    density; NaN where no second inversion nulls the third tissue.
    """

    first_s: Array
    contrast: Array
    best: BestInversion


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A contrast with its inversion times, how they were chosen, and the curve where one was searched."""

    contrast: Contrast
    sentence: str
    curve: ContrastCurve | None = None


def measure_tissue(
    proton_density: NDArray[np.floating],
    t1_s: NDArray[np.floating],
    t2_s: NDArray[np.floating],
    mask: NDArray[np.bool_],
    *,
    name: str,
) -> Tissue:
    """Median T1, T2 and proton density of the voxels of a mask that have all three.

    Raises
    ------
    InputError
        If fewer than five voxels do.
    """
    with np.errstate(invalid="ignore"):
        good = mask & (t1_s > 0) & (t2_s > 0) & (proton_density > 0)
    count = int(good.sum())
    if count < _FEWEST:
        raise InputError(
            f"the {name} mask holds too few voxels with T1, T2 and PD",
            found=str(count),
            expected=f"at least {_FEWEST}",
        )
    t1, t2, density = (float(np.median(one[good])) for one in (t1_s, t2_s, proton_density))
    return Tissue(t1_s=t1, t2_s=t2, proton_density=density)


def choose_inversion(
    name: str,
    timing: EchoTiming,
    *,
    keep_sign: bool,
    nulled: Tissue,
    nulled_name: str,
    lesion: Tissue | None = None,
    reference: Tissue | None = None,
) -> Choice:
    """Inversion time that shows a lesion best, or without one nulls a tissue.

    Raises
    ------
    FitError
        If the tissue cannot be nulled in this repetition.
    """
    plain = Contrast(name=name, timing=timing, keep_sign=keep_sign)
    if lesion is None or reference is None:
        time = null_inversion_time(nulled.t1_s, timing)
        text = f"{name}: TI {time:.4g} s nulls {nulled_name} (T1 {nulled.t1_s:.4g} s)"
        return Choice(contrast=replace(plain, first_s=time), sentence=text)
    best = best_inversion(lesion, reference, timing, keep_sign=keep_sign)
    room = timing.repetition_time_s - max(timing.echo_time_s, timing.readout_s or 0.0)
    grid = np.linspace(_PULSE_S, room - _PULSE_S, _CURVE_POINTS)

    def signal(tissue: Tissue) -> Array:
        mz = longitudinal_inversion(tissue.t1_s, timing, grid)
        decay = np.exp(-timing.echo_time_s / tissue.t2_s)
        return np.asarray(tissue.proton_density * decay * (mz if keep_sign else np.abs(mz)))

    curve = ContrastCurve(first_s=grid, contrast=signal(lesion) - signal(reference), best=best)
    text = f"{name}: TI {best.first_s:.4g} s shows the lesion best against white matter; {_flat(best)}"
    return Choice(contrast=replace(plain, first_s=best.first_s), sentence=text, curve=curve)


def choose_double_inversion(
    name: str,
    timing: EchoTiming,
    *,
    white: Tissue,
    fluid: Tissue,
    lesion: Tissue | None = None,
) -> Choice:
    """Inversion times that null white matter and fluid, or fluid alone where that shows a lesion better.

    With a lesion the first time is searched while the second nulls fluid.  Where the contrast is
    highest with the pulses touching, a second inversion gains nothing: then both tissues are nulled, and
    the sentence says so.

    Raises
    ------
    FitError
        If no times null what must be nulled.
    """
    plain = Contrast(name=name, timing=timing)
    if lesion is None:
        return _null_both(plain, white, fluid, "")
    best = best_double_inversion(lesion, white, fluid, timing)
    curve = _double_curve(timing, lesion, white, fluid, best)
    if best.at_edge or best.second_s is None:
        why = "; the search gave no inner optimum: two inversions show this lesion no better than one"
        return replace(_null_both(plain, white, fluid, why), curve=curve)
    text = (
        f"{name}: TI {best.first_s:.4g} and {best.second_s:.4g} s, both to the excitation, null fluid "
        f"(T1 {fluid.t1_s:.4g} s) and show the lesion best against white matter; {_flat(best)}"
    )
    return Choice(
        contrast=replace(plain, first_s=best.first_s, second_s=best.second_s), sentence=text, curve=curve
    )


def _null_both(plain: Contrast, white: Tissue, fluid: Tissue, why: str) -> Choice:
    first, second = null_two_tissues((white.t1_s, fluid.t1_s), plain.timing)
    text = (
        f"{plain.name}: TI {first:.4g} and {second:.4g} s, both to the excitation, null white matter "
        f"(T1 {white.t1_s:.4g} s) and fluid (T1 {fluid.t1_s:.4g} s){why}"
    )
    return Choice(contrast=replace(plain, first_s=first, second_s=second), sentence=text)


def _double_curve(
    timing: EchoTiming, lesion: Tissue, white: Tissue, fluid: Tissue, best: BestInversion
) -> ContrastCurve:
    room = timing.repetition_time_s - max(timing.echo_time_s, timing.readout_s or 0.0)
    first = np.linspace(_PULSE_S, room - _PULSE_S, _CURVE_POINTS)
    second = second_inversion_time(fluid.t1_s, timing, first)
    second = np.where((second >= _PULSE_S) & (first - second >= _PULSE_S), second, np.nan)
    signals = [
        tissue.proton_density
        * np.abs(longitudinal_double_inversion(tissue.t1_s, timing, first, second))
        * np.exp(-timing.echo_time_s / tissue.t2_s)
        for tissue in (lesion, white)
    ]
    return ContrastCurve(first_s=first, contrast=signals[0] - signals[1], best=best)


def _flat(best: BestInversion) -> str:
    low, high = best.flat_s
    return f"from {low:.4g} to {high:.4g} s the contrast keeps 95 % of the best"
