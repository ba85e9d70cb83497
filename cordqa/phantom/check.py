"""Judge measurements against references and tolerances; ``decision`` explains the rule.

A sphere outside the protocol's range, without value or reference, with a doubtful reference, or
which is itself the reference, is not evaluated.  A group of only such members is never a pass.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cordqa.phantom.decision import (
    R2_WARNING,
    decide,
    judge_statistic,
    judge_value,
    subject_of,
)
from cordqa.phantom.rates import RateLinearity, check_rate_linearity
from cordqa.phantom.reference import DOUBTFUL, REFERENCE_SPHERE, ReferenceValue
from cordqa.phantom.tolerance import CHECKS, POINTS, Tolerances
from cordqa.records import Entities, Measurement, Status, Verdict

__all__ = [
    "SphereError",
    "check_linearity",
    "check_rate_linearity",
    "judge_overall",
    "judge_plate",
    "judge_rate_linearity",
    "judge_sphere",
    "judge_statistic",
    "judge_value",
    "sphere_error",
]

#: A roll-up names at most this many members; the others stand in the report one by one.
_MOST_NAMED = 14
_WORST_FIRST = (Status.FAIL, Status.WARN, Status.PASS)


@dataclass(frozen=True, slots=True, kw_only=True)
class SphereError:
    """Error of one sphere: in per cent of the reference, or in ``points`` (the quantity's unit)."""

    value: float
    standard_uncertainty: float
    unit: str
    uncertainty_known: bool


def sphere_error(measurement: Measurement, *, unit: str = "%") -> SphereError:
    """Compute the error of a measurement against its reference.

    Parameters
    ----------
    measurement : Measurement
        With ``reference`` and ``reference_uncertainty`` filled in (``attach_reference``).
    unit : {'%', 'points'}
        Per cent of the reference, or the plain difference.

    Returns
    -------
    SphereError
        ``100 (m / r - 1)`` with the uncertainties of ``m`` and ``r`` combined as independent; NaN
        without value or reference.  An unknown uncertainty counts as zero and is marked.
    """
    value, reference = measurement.value, measurement.reference
    known = all(
        math.isfinite(u) and u >= 0
        for u in (measurement.standard_uncertainty, measurement.reference_uncertainty)
    )
    u_value, u_reference = (
        u if math.isfinite(u) and u >= 0 else 0.0
        for u in (measurement.standard_uncertainty, measurement.reference_uncertainty)
    )
    if not (math.isfinite(value) and math.isfinite(reference)) or (unit == "%" and reference <= 0):
        return SphereError(value=math.nan, standard_uncertainty=math.nan, unit=unit, uncertainty_known=known)
    if unit == POINTS:
        error, spread = value - reference, math.hypot(u_value, u_reference)
    else:
        error = 100 * (value / reference - 1)
        spread = 100 * math.hypot(u_value / reference, value / reference * u_reference / reference)
    return SphereError(value=error, standard_uncertainty=spread, unit=unit, uncertainty_known=known)


def judge_sphere(
    measurement: Measurement, tolerances: Tolerances, *, reference: ReferenceValue | None = None
) -> Verdict:
    """Judge the error of one sphere.

    Parameters
    ----------
    measurement : Measurement
        ``level`` is the plate, ``region`` the sphere; ``reference`` and ``reference_uncertainty``
        filled in.  A flag such as "outside protocol range" prevents a judgement.
    tolerances : Tolerances
        Rules; see :func:`load_tolerances`.
    reference : ReferenceValue, optional
        Lets the reason say why there is no reference, or what makes it uncertain.

    Returns
    -------
    Verdict
        Scope ``"sphere"``; ``observed`` is the error, ``low`` and ``high`` the failure limits.
    """
    sphere = measurement.region.rpartition(" ")[2]
    rule = tolerances.find(
        "sphere-error",
        quantity=measurement.quantity,
        plate=measurement.level.removeprefix("plate").strip(),
        sphere=sphere,
        method=measurement.method,
    )
    error = sphere_error(measurement, unit=rule.unit if rule else "%")
    obstacle = _obstacle(measurement, reference) or (
        "" if rule else f"no tolerance for {measurement.quantity}"
    )
    if obstacle or rule is None:
        status, reason = Status.NOT_EVALUATED, obstacle
    else:
        expanded = tolerances.coverage_factor * error.standard_uncertainty
        status, why = decide(error.value, expanded, rule)
        reason = f"error {error.value:+.1f} {error.unit}, expanded uncertainty {expanded:.1f} {error.unit}"
        reason += f"; {why}" if why else ""
        if status in {Status.WARN, Status.NOT_EVALUATED}:
            reason += _largest(measurement, reference)
        if not error.uncertainty_known:
            reason += "; an uncertainty is not known, so this cannot be a pass"
            status = Status.WARN if status is Status.PASS else status
    return Verdict(
        status=status,
        subject=subject_of(measurement.level, measurement.region, measurement.quantity),
        rule=rule.text if rule else CHECKS["sphere-error"].label,
        observed=error.value,
        low=rule.fail[0] if rule else math.nan,
        high=rule.fail[1] if rule else math.nan,
        unit=error.unit,
        source=rule.source if rule else "",
        reason=reason,
        quantity=measurement.quantity,
        region=measurement.region,
        level=measurement.level,
        scope="sphere",
        entities=measurement.entities,
    )


def _obstacle(measurement: Measurement, reference: ReferenceValue | None) -> str:
    """Say why a sphere cannot be judged; empty where it can."""
    flags = [flag.casefold() for flag in measurement.flags]
    outside = next(
        (f for f in measurement.flags if "outside" in f.casefold() and "range" in f.casefold()), ""
    )
    if outside:
        return outside
    if not math.isfinite(measurement.value):
        return "not measured" + (f": {', '.join(measurement.flags)}" if measurement.flags else "")
    if REFERENCE_SPHERE in flags:
        return "this sphere is the reference of the others"
    if not math.isfinite(measurement.reference) or measurement.reference <= 0:
        return (reference.reason if reference else "") or "no reference value"
    if DOUBTFUL in flags:
        return "the reference value is doubtful" + (
            f": {reference.notes[0]}" if reference and reference.notes else ""
        )
    return ""


def _largest(measurement: Measurement, reference: ReferenceValue | None) -> str:
    """Name what the uncertainty is mostly made of, so that the reader knows what would lower it."""
    fit, certificate = measurement.standard_uncertainty, measurement.reference_uncertainty
    if math.isfinite(fit) and not fit <= certificate:
        return "; most of the uncertainty is that of the fit"
    if reference is None or not reference.components:
        return ""
    part = max(reference.components, key=lambda component: component.percent)
    return f"; the largest part of the reference's uncertainty is {part.name} ({part.percent:.1f} %)"


def check_linearity(
    tolerances: Tolerances,
    *,
    quantity: str,
    slope: float,
    intercept: float,
    r2: float,
    ccc: float,
    largest_reference: float,
    n: int,
    plate: str = "",
    entities: Entities | None = None,
) -> tuple[Verdict, ...]:
    """Judge a straight line of measured against reference values.

    Parameters
    ----------
    slope, intercept, r2, ccc : float
        Results of the fit; ``intercept`` in the unit of the quantity.
    largest_reference : float
        Largest reference value in the fit; the intercept is judged in per cent of it.
    n : int
        Points in the fit; below three nothing is judged.

    Returns
    -------
    tuple of Verdict
        For slope, intercept, R2 and concordance, in this order; the verdict on R2 carries the
        warning that it proves nothing alone.
    """
    usable = largest_reference > 0 and math.isfinite(largest_reference)
    values = {
        "slope": slope,
        "intercept": 100 * intercept / largest_reference if usable else math.nan,
        "r2": r2,
        "ccc": ccc,
    }
    few = "" if n >= 3 else f"only {n} points"
    return tuple(
        judge_value(
            check,
            math.nan if few else value,
            tolerances,
            quantity=quantity,
            plate=plate,
            reason=few or (R2_WARNING if check == "r2" else f"{n} points"),
            scope="linearity",
            entities=entities,
        )
        for check, value in values.items()
    )


def judge_rate_linearity(
    result: RateLinearity,
    tolerances: Tolerances,
    *,
    quantity: str,
    plate: str = "",
    spheres: Sequence[str] = (),
    entities: Entities | None = None,
) -> Verdict:
    """Judge the departure of relaxation rates from a straight line in concentration.

    ``spheres`` names the spheres in the order of the arrays, so that the reason can name the one
    that stands out most.
    """
    reason = result.reason
    if not reason:
        worst = int(np.nanargmax(np.abs(result.left_out_percent)))
        name = spheres[worst] if worst < len(spheres) else str(worst + 1)
        reason = (
            f"{result.n} spheres; sphere {name} stands {result.left_out_percent[worst]:+.1f} % from the line "
            "through the others"
        )
    return judge_value(
        "rate-linearity",
        result.rms_percent,
        tolerances,
        quantity=quantity,
        plate=plate,
        subject=subject_of(plate, "", quantity),
        reason=reason,
        scope="plate",
        entities=entities,
    )


def judge_plate(
    verdicts: Sequence[Verdict],
    tolerances: Tolerances,
    *,
    plate: str,
    quantity: str,
    entities: Entities | None = None,
) -> Verdict:
    """Roll the verdicts on one plate and quantity up to one.

    Parameters
    ----------
    verdicts : sequence of Verdict
        Verdicts on the spheres (scope ``"sphere"``) and, if wanted, others on the same plate.
    tolerances : Tolerances
        For the number of spheres that must have been judged.

    Returns
    -------
    Verdict
        The worst of its members; at best a warning where too few spheres were judged; not evaluated
        where none was.  ``reason`` counts them and names those that are not a pass.
    """
    spheres = [verdict for verdict in verdicts if verdict.scope == "sphere"]
    judged = [verdict for verdict in spheres if verdict.status is not Status.NOT_EVALUATED]
    coverage = judge_value("judged-spheres", float(len(judged)), tolerances, quantity=quantity, plate=plate)
    status = _worst([verdict.status for verdict in verdicts]) if judged else Status.NOT_EVALUATED
    noun = _noun(spheres)
    reason = _counts(spheres) or f"no {noun}"
    if judged and coverage.status in {Status.WARN, Status.FAIL}:
        status = Status.WARN if status is Status.PASS else status
        reason += f"; only {len(judged)} {noun}s could be judged"
    others = [v for v in verdicts if v.scope != "sphere" and v.status in {Status.WARN, Status.FAIL}]
    reason += "".join(f"; {v.status}: {v.subject}" for v in others)
    return Verdict(
        status=status,
        subject=subject_of(plate, "", quantity),
        rule="worst of the spheres and checks of a plate",
        reason=reason,
        quantity=quantity,
        level=plate,
        scope="plate",
        entities=entities or Entities(),
    )


def judge_overall(verdicts: Sequence[Verdict]) -> Verdict:
    """Roll verdicts on plates (and on repeats, if any) up to the one that stands first in a report.

    The worst counts.  Where a member could not be evaluated the overall verdict is at best a
    warning, and where none could it is "not evaluated": silence is not a pass.
    """
    statuses = [verdict.status for verdict in verdicts]
    status = _worst(statuses)
    if status is Status.PASS and Status.NOT_EVALUATED in statuses:
        status = Status.WARN
    return Verdict(
        status=status,
        subject="overall",
        rule="worst of all parts; a part that could not be evaluated prevents a pass",
        reason=_counts(verdicts) or "nothing was judged",
        scope="overall",
    )


def _worst(statuses: Sequence[Status]) -> Status:
    return next((status for status in _WORST_FIRST if status in statuses), Status.NOT_EVALUATED)


def _name(verdict: Verdict) -> str:
    scanner = verdict.entities.scanner if verdict.scope != "sphere" else ""
    name = verdict.region or verdict.subject
    return f"{name}, {scanner}" if scanner and scanner not in name else name


def _noun(spheres: Sequence[Verdict]) -> str:
    """What one of them is called: sphere or vial."""
    return next((v.region.rpartition(" ")[0] for v in spheres if " " in v.region), "sphere")


def _counts(verdicts: Sequence[Verdict]) -> str:
    """Count verdicts by status and name those that are not a pass."""
    counts = Counter(verdict.status for verdict in verdicts)
    parts = []
    for status in (*_WORST_FIRST, Status.NOT_EVALUATED):
        if counts[status]:
            named = list(dict.fromkeys(_name(v) for v in verdicts if v.status is status))
            noun = _noun([v for v in verdicts if v.scope == "sphere"])
            spheres = [name.removeprefix(f"{noun} ") for name in named if name.startswith(f"{noun} ")]
            if len(spheres) == len(named) > 1:
                named = [f"{noun}s {', '.join(spheres)}"]
            more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
            names = f" ({'; '.join(named[:_MOST_NAMED])}{more})" if status is not Status.PASS else ""
            parts.append(f"{counts[status]} {status}{names}")
    return ", ".join(parts)
