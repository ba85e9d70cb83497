"""From a fitted plate to rows of the table of measurements."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cordqa.models.relaxometry.pooled_inversion import regions_apart
from cordqa.models.relaxometry.protocol_range import ProtocolRange
from cordqa.phantom.find import FoundPlate
from cordqa.phantom.fit import protocol_range
from cordqa.phantom.reference import REFERENCE_SPHERE, ReferenceValue, attach_reference
from cordqa.phantom.series import MODELS, Kind, Series
from cordqa.quantities import get_quantity
from cordqa.records import Measurement

__all__ = ["MODELS", "OUTSIDE", "measure_plate"]

Array = NDArray[np.float64]

#: Begins the flag of a value that the protocol cannot determine.
OUTSIDE = "outside the protocol's range"
#: Spheres of one plate hold water, so their signal at time zero is alike but for shading.  Where
#: it is not, the fit has followed something else: ringing of the surroundings, a ghost, noise.
#: An inversion recovery sees the signal after its echo time, which may leave little of it.
_ALIKE = {
    Kind.MULTI_ECHO: (1 / 3, 3.0),
    Kind.INVERSION_RECOVERY: (1 / 30, 3.0),
    Kind.VARIABLE_FLIP_ANGLE: (1 / 10, 3.0),
}
#: Interval of every fit.
LEVEL = 0.95


def measure_plate(
    series: Series, found: FoundPlate, references: Sequence[ReferenceValue]
) -> tuple[Measurement, ...]:
    """Make one row per sphere, with reference, uncertainty and flags.

    Parameters
    ----------
    series : Series
    found : FoundPlate
    references : sequence of ReferenceValue
        For ``found.plate`` and ``found.quantity``, in the order of its spheres.

    Returns
    -------
    tuple of Measurement
        NaN with a flag where a sphere has no value.  A value outside the range that the inversion
        or echo times can determine is kept and flagged, and is not judged.
    """
    if found.fitted.kind is Kind.DIFFUSION:
        return _measure_vials(series, found, references)
    values, errors, low, high = _density(found) if found.quantity == "PD" else _relaxation(found)
    signals = found.fitted.signals
    # What was fitted there is something else: the number is none of this sphere.
    strange = np.array([bool(_strange_signal(found, i)) for i in range(len(values))])
    values, errors, low, high = (np.where(strange, np.nan, a) for a in (values, errors, low, high))
    limits = protocol_range(series, found.fitted.kind, found.fitted.fit)
    rows = []
    for i, sphere in enumerate(found.plate.sphere_ids):
        row = Measurement(
            quantity=found.quantity,
            value=float(values[i]),
            unit=get_quantity(found.quantity).unit,
            region=f"{found.plate.noun} {sphere}",
            level=f"plate {found.plate.id}",
            standard_uncertainty=float(errors[i]),
            low=float(low[i]),
            high=float(high[i]),
            interval_level=LEVEL,
            uncertainty_method="standard error of the fit; interval by Student's t",
            n_voxels=int(signals.n_pixels[i]),
            coverage=float(signals.coverage[i]),
            method=_method(found),
            entities=series.images.entities,
            flags=_flags(found, i, limits),
        )
        rows.append(attach_reference(row, references[i]))
    return tuple(rows)


def _measure_vials(
    series: Series, found: FoundPlate, references: Sequence[ReferenceValue]
) -> tuple[Measurement, ...]:
    """Make one row per vial of a diffusion phantom."""
    fit, signals = found.fitted.fit, found.fitted.signals
    low, high = fit.interval(LEVEL)
    rows = []
    for i, vial in enumerate(found.plate.sphere_ids):
        row = Measurement(
            quantity=found.quantity,
            value=float(fit.parameters[fit.main][i]),
            unit=get_quantity(found.quantity).unit,
            region=f"{found.plate.noun} {vial}",
            level=f"plate {found.plate.id}",
            standard_uncertainty=float(fit.standard_errors[fit.main][i]),
            low=float(low[i]),
            high=float(high[i]),
            interval_level=LEVEL,
            uncertainty_method="standard error of the fit; interval by Student's t",
            n_voxels=int(signals.n_pixels[i]),
            coverage=float(signals.coverage[i]),
            method=fit.model,
            entities=series.images.entities,
            flags=_vial_flags(found, i),
        )
        rows.append(attach_reference(row, references[i]))
    return tuple(rows)


def _vial_flags(found: FoundPlate, i: int) -> tuple[str, ...]:
    """Say which samples were left out, and why there is no value."""
    fit, signals = found.fitted.fit, found.fitted.signals
    flags = []
    dropped = int(signals.clipped[i].sum())
    if dropped:
        flags.append(f"{dropped} of {signals.clipped.shape[1]} samples clipped and dropped")
    if fit.reason[i]:
        flags.append(f"{OUTSIDE} ({fit.reason[i]})")
    elif found.diffusion is not None:
        highest, largest = found.diffusion.fit.highest_b[i], found.diffusion.plan.b_values.max()
        if highest < largest:
            flags.append(f"b-values above {highest:g} s/mm2 left out: the signal lies in the noise")
        low, high = get_quantity(found.quantity).low, get_quantity(found.quantity).high
        if not low <= fit.parameters[fit.main][i] <= high:
            flags.append(f"{OUTSIDE} (no liquid has this ADC; look for a bubble or a ghost)")
    if not math.isfinite(signals.coverage[i]) or signals.coverage[i] < 1:
        flags.append(f"{100 * (1 - signals.coverage[i]):.0f} % of the pixels hold no number")
    return tuple(flags)


def _relaxation(found: FoundPlate) -> tuple[Array, Array, Array, Array]:
    fit = found.fitted.fit
    low, high = fit.interval(LEVEL)
    errors = fit.standard_errors[fit.main]
    return found.fitted.values_ms, errors * 1000, low * 1000, high * 1000


def _density(found: FoundPlate) -> tuple[Array, Array, Array, Array]:
    """Proton density in per cent of the reference sphere, from the fitted signal at time zero."""
    fit = found.fitted.fit
    reference = found.plate.sphere_ids.index(str(found.plate.reference_sphere))
    m0, errors = fit.parameters["m0"], fit.standard_errors["m0"]
    low, high = fit.interval(LEVEL, "m0")
    with np.errstate(invalid="ignore", divide="ignore"):
        values = 100 * m0 / m0[reference]
        relative = np.hypot(errors / m0, errors[reference] / m0[reference])
        # The half-width grows by the same factor as the standard error does.
        widening = np.where(errors > 0, relative * m0 / errors, np.nan)
        half = (high - low) / 2 * 100 / m0[reference] * widening
    spread = np.where(np.arange(len(values)) == reference, 0.0, values * relative)
    half = np.where(np.arange(len(values)) == reference, 0.0, half)
    return values, spread, values - half, values + half


def _method(found: FoundPlate) -> str:
    model = found.fitted.fit.model
    if found.quantity == "PD":
        return f"signal at time zero relative to sphere {found.plate.reference_sphere}; {model}"
    if found.fitted.kind is Kind.VARIABLE_FLIP_ANGLE:
        return f"{model}; {'measured' if found.b1_used else 'nominal'} flip angles"
    return model


def _flags(found: FoundPlate, i: int, limits: ProtocolRange) -> tuple[str, ...]:
    fit, signals = found.fitted.fit, found.fitted.signals
    flags = []
    dropped = int(signals.clipped[i].sum())
    if dropped:
        flags.append(f"{dropped} of {signals.clipped.shape[1]} samples clipped and dropped")
    if fit.reason[i]:
        flags.append(_reason(str(fit.reason[i])))
    elif found.quantity != "PD":
        where = str(limits.outside(fit.parameters[fit.main][i]))
        strange = _strange_signal(found, i)
        if where:
            flags.append(f"{OUTSIDE} ({_shown(limits, found.quantity, where)})")
        elif strange:
            flags.append(f"{OUTSIDE} ({strange})")
    if found.fitted.kind is Kind.INVERSION_RECOVERY and regions_apart(fit)[i]:
        flags.append(
            "its curve does not follow the inversion of the other spheres: "
            "look for a bubble, ringing or a ghost"
        )
    if not math.isfinite(signals.coverage[i]) or signals.coverage[i] < 1:
        flags.append(f"{100 * (1 - signals.coverage[i]):.0f} % of the pixels hold no number")
    if found.quantity == "PD":
        flags.append("not corrected for differences in T1 and in receive sensitivity between the spheres")
        if found.plate.sphere_ids[i] == found.plate.reference_sphere:
            flags.append(REFERENCE_SPHERE)
    return tuple(flags)


def _strange_signal(found: FoundPlate, i: int) -> str:
    """Say when the fitted signal at time zero cannot be that of this sphere; empty where it can."""
    if found.quantity == "PD":
        return ""  # there the signal at time zero is what is measured
    m0 = found.fitted.fit.parameters["m0"]
    known = m0[np.isfinite(m0)]
    low, high = _ALIKE[found.fitted.kind]
    share = float(m0[i] / np.median(known)) if known.size else math.nan
    if not math.isfinite(share) or low <= share <= high:
        return ""
    return f"its signal at time zero is {100 * share:.2g} % of that of the other spheres"


def _reason(reason: str) -> str:
    """A search that ends at its bound says that the protocol cannot tell, not that a check failed."""
    return (
        f"{OUTSIDE} (no minimum within the search)"
        if reason in {"outside range", "not determined"}
        else reason
    )


def _shown(limits: ProtocolRange, quantity: str, where: str) -> str:
    if math.isnan(limits.low_s):
        return f"these settings determine no {quantity}"
    return f"{where} {1000 * limits.low_s:.3g} to {1000 * limits.high_s:.3g} ms"
