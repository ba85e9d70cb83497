"""Which inversion times a synthetic image gets: as said, by nulling, or best for a lesion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.models.synthetic.contrast import EchoTiming, longitudinal_double_inversion, longitudinal_inversion
from cordqa.models.synthetic.images import Contrast
from cordqa.models.synthetic.nulling import (
    PULSE_S,
    BestInversion,
    Tissue,
    allowed_second,
    best_double_inversion,
    best_inversion,
    null_inversion_time,
    null_two_tissues,
    tissue_signal,
)

__all__ = [
    "Choice",
    "ContrastCurve",
    "choose_double_inversion",
    "choose_inversion",
    "magnetization_curves",
    "measure_tissue",
]

Array = NDArray[np.float64]
_CURVE_POINTS = 201
_FEWEST = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ContrastCurve:
    """Contrast of a lesion over the first inversion time, and the best on it.

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

    Where the contrast is highest with the inversion touching its neighbours, it gains nothing: then the
    tissue is nulled, and the sentence says so.

    Raises
    ------
    FitError
        If the tissue cannot be nulled in this repetition.
    """
    plain = Contrast(name=name, timing=timing, keep_sign=keep_sign)
    if lesion is None or reference is None:
        return _null_one(plain, nulled, nulled_name, "")
    best = best_inversion(lesion, reference, timing, keep_sign=keep_sign)
    first = _grid(timing)
    signals = [tissue_signal(one, timing, first, keep_sign=keep_sign) for one in (lesion, reference)]
    curve = ContrastCurve(first_s=first, contrast=signals[0] - signals[1], best=best)
    if best.at_edge:
        why = "; the search gave no inner optimum: an inversion shows this lesion no better than none"
        return replace(_null_one(plain, nulled, nulled_name, why), curve=curve)
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
    first = _grid(timing)
    second = allowed_second(fluid, timing, first)
    signals = [tissue_signal(one, timing, first, second) for one in (lesion, white)]
    curve = ContrastCurve(first_s=first, contrast=signals[0] - signals[1], best=best)
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


def magnetization_curves(
    contrast: Contrast, tissues: Mapping[str, Tissue]
) -> tuple[Array, Mapping[str, Array]]:
    """Longitudinal magnetization at the excitation, of every tissue, over the first inversion time.

    Of two inversions the second keeps its time.

    Parameters
    ----------
    contrast : Contrast
        With one inversion or two.
    tissues : mapping of str to Tissue

    Returns
    -------
    first_s : ndarray
        Seconds.
    levels : mapping of str to ndarray
        As a fraction of equilibrium, with its sign; zero is a null.
    """
    if contrast.first_s is None:
        raise InputError("a contrast without an inversion nulls nothing", where=contrast.name)
    second = contrast.second_s
    first = np.linspace(second or 0.0, contrast.timing.room_s, _CURVE_POINTS)
    levels = {
        name: longitudinal_inversion(tissue.t1_s, contrast.timing, first)
        if second is None
        else longitudinal_double_inversion(tissue.t1_s, contrast.timing, first, second)
        for name, tissue in tissues.items()
    }
    return first, levels


def _grid(timing: EchoTiming) -> Array:
    """Times that pulses allow, as in the search."""
    return np.linspace(PULSE_S, timing.room_s - PULSE_S, _CURVE_POINTS)


def _null_one(plain: Contrast, nulled: Tissue, nulled_name: str, why: str) -> Choice:
    time = null_inversion_time(nulled.t1_s, plain.timing)
    text = f"{plain.name}: TI {time:.4g} s nulls {nulled_name} (T1 {nulled.t1_s:.4g} s){why}"
    return Choice(contrast=replace(plain, first_s=time), sentence=text)


def _null_both(plain: Contrast, white: Tissue, fluid: Tissue, why: str) -> Choice:
    first, second = null_two_tissues((white.t1_s, fluid.t1_s), plain.timing)
    text = (
        f"{plain.name}: TI {first:.4g} and {second:.4g} s, both to the excitation, null white matter "
        f"(T1 {white.t1_s:.4g} s) and fluid (T1 {fluid.t1_s:.4g} s){why}"
    )
    return Choice(contrast=replace(plain, first_s=first, second_s=second), sentence=text)


def _flat(best: BestInversion) -> str:
    low, high = best.flat_s
    return f"from {low:.4g} to {high:.4g} s the contrast keeps 95 % of the best"
