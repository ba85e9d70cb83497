"""From rows to verdicts: spheres, plates, scanners, and the one that stands first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence, Set
from dataclasses import replace

import numpy as np

from cordqa.phantom.check import (
    check_linearity,
    check_rate_linearity,
    judge_overall,
    judge_plate,
    judge_rate_linearity,
    judge_value,
)
from cordqa.phantom.definition import PhantomDefinition
from cordqa.phantom.rates import RateLinearity
from cordqa.phantom.reference import contents_of, reference_values
from cordqa.phantom.repeats import (
    BETWEEN,
    LINEARITY_NAMES,
    WITHIN,
    Group,
    between_scanners,
    concordance_over_spheres,
    field_words,
    group_measurements,
    linearity,
    usable,
    within_scanners,
)
from cordqa.phantom.tolerance import Tolerances
from cordqa.records import Entities, Notice, Result, Severity, State, Statistic, Status, Verdict
from cordqa.workflow.phantom_records import AnalysedPlate, Judgement

__all__ = ["judge", "summarise"]

#: Another batch must fit this many times better before it is mentioned, and the batch in use at
#: least this badly: differences between batches are often smaller than those between scanners.
_BATCH_FACTOR = 2.0
_BATCH_LOG_ERROR = 0.04
_RATE_QUANTITIES = ("T1", "T2")
_LINE_QUANTITIES = (*_RATE_QUANTITIES, "ADC")
#: Spheres that must be judged before the line through them is.
_LINE_SPHERES = 3


def judge(
    plates: Sequence[AnalysedPlate], tolerances: Tolerances, definition: PhantomDefinition
) -> Judgement:
    """Judge every plate, every scanner and the whole."""
    rates = tuple(_rates(plate, definition, tolerances) for plate in plates)
    verdicts: list[Verdict] = []
    parts: list[Verdict] = []
    for plate, rate in zip(plates, rates, strict=True):
        own = [*plate.verdicts, *_rate_verdicts(plate, rate, tolerances)]
        whole = judge_plate(
            own,
            tolerances,
            plate=plate.rows[0].level,
            quantity=plate.found.quantity,
            entities=plate.series.images.entities,
        )
        whole = _with_what_was_read(_no_better_than_its_checks(whole, own), plate)
        parts.append(whole)
        verdicts.extend([*own, whole])
    groups = group_measurements(row for plate in plates for row in plate.rows)
    by_group = [(group, tuple(_statistics(group))) for group in groups]
    judged = {
        id(row)
        for plate in plates
        for row, verdict in zip(plate.rows, plate.verdicts, strict=True)
        if verdict.status is not Status.NOT_EVALUATED
    }
    repeats = [v for group, own in by_group for v in _repeat_verdicts(group, own, tolerances, judged)]
    overall = _of_judged_plates(judge_overall([*parts, *repeats]), parts)
    return Judgement(
        overall=overall,
        verdicts=(overall, *verdicts, *repeats),
        statistics=tuple(statistic for _, own in by_group for statistic in own),
        notices=tuple(notice for plate in plates for notice in _batch_doubt(plate, definition)),
        groups=groups,
        rates=rates,
    )


def _no_better_than_its_checks(whole: Verdict, own: Sequence[Verdict]) -> Verdict:
    """A check that failed counts, also where no sphere of the plate could be judged."""
    if whole.status is Status.NOT_EVALUATED and any(v.status is Status.FAIL for v in own):
        return replace(whole, status=Status.FAIL)
    return whole


def _with_what_was_read(whole: Verdict, plate: AnalysedPlate) -> Verdict:
    """Images with an error, such as saturation, cannot pass on what is left of them."""
    errors = [n.message for n in plate.series.images.notices if n.severity is Severity.ERROR]
    if whole.status is not Status.PASS or not errors:
        return whole
    return replace(whole, status=Status.WARN, reason=f"{whole.reason}; no pass, because {errors[0]}")


def _of_judged_plates(overall: Verdict, parts: Sequence[Verdict]) -> Verdict:
    """Repeats that agree are no verdict where not one plate could be judged."""
    judged = any(part.status is not Status.NOT_EVALUATED for part in parts)
    if judged or overall.status not in (Status.PASS, Status.WARN):
        return overall
    return replace(overall, status=Status.NOT_EVALUATED, reason=f"no plate could be judged; {overall.reason}")


def _rates(
    plate: AnalysedPlate, definition: PhantomDefinition, tolerances: Tolerances
) -> RateLinearity | None:
    """Check 1/T against concentration over the spheres that are determined well enough for it.

    A value whose expanded uncertainty is larger than the limit cannot show a departure of that size.
    """
    if plate.found.quantity not in _RATE_QUANTITIES:
        return None
    contents = contents_of(definition, plate.found.plate.id, batch=plate.references[0].batch)
    if not contents:
        return None
    concentrations = [contents.get(sphere, math.nan) for sphere in plate.found.plate.sphere_ids]
    rule = tolerances.find("rate-linearity", quantity=plate.found.quantity, plate=plate.found.plate.id)
    limit = rule.fail[1] / 100 if rule and rule.unit == "%" else math.inf
    values = [
        row.value
        if usable(row) and not tolerances.coverage_factor * row.standard_uncertainty > limit * row.value
        else math.nan
        for row in plate.rows
    ]
    return check_rate_linearity(concentrations, values, [row.standard_uncertainty for row in plate.rows])


def _rate_verdicts(plate: AnalysedPlate, rate: RateLinearity | None, tolerances: Tolerances) -> list[Verdict]:
    if rate is None:
        return []
    return [
        judge_rate_linearity(
            rate,
            tolerances,
            quantity=plate.found.quantity,
            plate=plate.rows[0].level,
            spheres=plate.found.plate.sphere_ids,
            entities=plate.series.images.entities,
        )
    ]


def _statistics(group: Group) -> Iterable[Statistic]:
    yield from linearity(group)
    yield from within_scanners(group)
    yield from between_scanners(group)
    yield from concordance_over_spheres(group)


def _repeat_verdicts(
    group: Group, statistics: Sequence[Statistic], tolerances: Tolerances, judged: Set[int]
) -> list[Verdict]:
    """Judge linearity per scanner, and the worst sphere within and between scanners.

    ``judged`` holds the identities of the rows whose sphere could be judged.
    """
    verdicts: list[Verdict] = []
    for scanner, rows in group.by_protocol().items():
        name = group.named(scanner)
        line = {s.name: s for s in statistics if s.group == name and s.name in LINEARITY_NAMES}
        if len(line) == len(LINEARITY_NAMES) and group.quantity in _LINE_QUANTITIES:
            references = [row.reference for row in rows if usable(row) and math.isfinite(row.reference)]
            noun = rows[0].region.rpartition(" ")[0]
            lines = _line_verdicts(group, scanner, line, max(references), tolerances)
            n_judged = len({row.region for row in rows if id(row) in judged})
            verdicts.extend(_if_references_are_known(lines, n_judged, noun))
        verdicts.extend(_worst(statistics, WITHIN, name, group, tolerances, _entities(group, scanner)))
    verdicts.extend(_worst(statistics, BETWEEN, field_words(group), group, tolerances, None))
    return verdicts


def _if_references_are_known(lines: Sequence[Verdict], n_judged: int, noun: str) -> Sequence[Verdict]:
    """A line against references too uncertain to judge a sphere by cannot blame the scanner either."""
    if n_judged >= _LINE_SPHERES:
        return lines
    reason = (
        f"only {n_judged} of the {noun}s could be judged: references or values are too uncertain for a "
        "verdict on their line"
    )
    return [replace(line, status=Status.NOT_EVALUATED, reason=reason) for line in lines]


def _line_verdicts(
    group: Group, scanner: str, line: dict[str, Statistic], largest: float, tolerances: Tolerances
) -> tuple[Verdict, ...]:
    return check_linearity(
        tolerances,
        quantity=group.quantity,
        slope=line["slope"].value,
        intercept=line["intercept"].value,
        r2=line["R2"].value,
        ccc=line["CCC"].value,
        largest_reference=largest,
        n=line["slope"].n["spheres"],
        plate=group.level,
        entities=_entities(group, scanner),
    )


def _worst(
    statistics: Sequence[Statistic],
    name: str,
    where: str,
    group: Group,
    tolerances: Tolerances,
    entities: Entities | None,
) -> list[Verdict]:
    """Judge the sphere with the largest CV; that the others are smaller needs no line each."""
    cvs = [s for s in statistics if s.name == name and s.group == where and math.isfinite(s.value)]
    if not cvs:
        return []
    worst = max(cvs, key=lambda s: s.value)
    sphere = worst.region.removeprefix(group.level).strip()
    noun = sphere.rpartition(" ")[0]
    counts = ", ".join(f"{count} {noun}" for noun, count in worst.n.items())
    return [
        judge_value(
            name.lower().replace(" ", "-"),
            worst.value,
            tolerances,
            quantity=group.quantity,
            plate=group.level,
            subject=f"{group.level}, {group.quantity}: {name}, {where}",
            scope="repeats",
            reason=f"largest of {len(cvs)} {noun}s, in {sphere} ({counts}; 95 % interval {worst.low:.2g} to "
            f"{worst.high:.2g} %)",
            entities=entities,
        )
    ]


def _entities(group: Group, scanner: str) -> Entities:
    first = group.by_protocol()[scanner][0].entities
    return Entities(
        scanner=first.scanner, vendor=first.vendor, model=first.model, field_strength_T=first.field_strength_T
    )


def _batch_doubt(plate: AnalysedPlate, definition: PhantomDefinition) -> list[Notice]:
    """Say when the values suit another batch much better than the one in use."""
    if plate.found.quantity not in _RATE_QUANTITIES or len(definition.batch_ids) < 2:
        return []
    first = plate.references[0]
    errors = {batch: _log_error(plate, definition, batch) for batch in definition.batch_ids}
    own = errors.get(first.batch, math.nan)
    others = {b: e for b, e in errors.items() if b != first.batch and math.isfinite(e)}
    if not others or not math.isfinite(own):
        return []
    best = min(others, key=lambda batch: others[batch])
    if own < _BATCH_LOG_ERROR or own < _BATCH_FACTOR * others[best]:
        return []
    return [
        Notice(
            severity=Severity.WARNING,
            code="reference.batch-doubt",
            where=plate.label,
            message=f"the values suit batch {best} (median error {100 * others[best]:.1f} %) much better "
            f"than batch {first.batch} ({100 * own:.1f} %), which is in use; check the serial number",
        )
    ]


def _log_error(plate: AnalysedPlate, definition: PhantomDefinition, batch: str) -> float:
    first = plate.references[0]
    values = reference_values(
        definition,
        plate.found.plate.id,
        plate.found.quantity,
        field_strength_T=first.field_strength_T,
        temperature_C=first.temperature_C if math.isfinite(first.temperature_C) else None,
        batch=batch,
    )
    logs = [
        abs(math.log(row.value / value.value))
        for row, value in zip(plate.rows, values, strict=True)
        if usable(row) and row.value > 0 and math.isfinite(value.value) and value.value > 0
    ]
    return float(np.median(logs)) if len(logs) > 2 else math.nan


def summarise(result: Result) -> str:
    """Say the verdict in one or two sentences."""
    plates = [v for v in result.verdicts if v.scope == "plate" and v.rule.startswith("worst")]
    failed = result.count(State.FAILED)
    tail = f" {failed} part{'s' if failed != 1 else ''} of the input could not be analysed." if failed else ""
    if not plates:
        return f"Nothing could be judged: no plate was measured.{tail}"
    spheres = [v for v in result.verdicts if v.scope == "sphere"]
    noun = next((v.region.rpartition(" ")[0] for v in spheres), "sphere")
    counts = {status: sum(v.status is status for v in spheres) for status in Status}
    words = {
        Status.PASS: "All is within tolerance",
        Status.WARN: "No failure, but something needs attention",
        Status.FAIL: "At least one check failed",
        Status.NOT_EVALUATED: "Nothing could be judged",
    }[result.status]
    listed = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    scanners = {v.entities.scanner for v in plates}
    return (
        f"{words}: {len(plates)} plate measurement{'s' if len(plates) != 1 else ''} on {len(scanners)} "
        f"scanner{'s' if len(scanners) != 1 else ''}, {len(spheres)} {noun}s ({listed}).{tail}"
    )
