"""The checks of vendor traps that need more than a constraint; :mod:`cordqa.protocol.traps` names them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from cordqa.models.diffusion.gradient_shells import find_shells
from cordqa.protocol.findings import Verdict, finding_at, make_finding
from cordqa.protocol.grouping import common_entities, group_placed, same_acquisition, scanner_key
from cordqa.protocol.matching import Placed
from cordqa.protocol.records import (
    ConstraintKind,
    Finding,
    FindingStatus,
    Limit,
    ObservedSeries,
    Protocol,
    Within,
)
from cordqa.records import Severity

__all__ = [
    "Check",
    "Trap",
    "check_b_values",
    "check_distortion",
    "check_interpolation",
    "check_normalisation",
    "check_phase_sign",
]

Check = Callable[["Trap", Protocol, Sequence[Placed]], Iterable[Finding]]
#: A reconstructed matrix larger than this share of the acquired one was interpolated.
_INTERPOLATED = 1.02
#: s/mm2; a shell whose b-values differ by less holds nominal ones.
_NOMINAL_WIDTH = 0.5
_NORM = frozenset({"NORM"})
_DISTORTION = frozenset({"DIS2D", "DIS3D", "ND"})
_PHASE = frozenset({"P", "PHASE"})
_SHOWN = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Trap:
    """A trap.

    Attributes
    ----------
    id, title : str
    what : str
        What happens, in a sentence or two.
    evidence : str
        The published case or the measured fact.
    source : str
        Where that can be read.
    enforced_by : str
        What looks for it: ``check``, or the kind of constraint that a protocol must hold.
    """

    id: str
    title: str
    what: str
    evidence: str
    source: str
    enforced_by: str
    check: Check | None = None


def _verdict(
    trap: Trap,
    field: str,
    sentence: str,
    *,
    todo: str,
    observed: str = "",
    allowed: str = "",
    severity: Severity = Severity.WARNING,
    status: FindingStatus = FindingStatus.CONSTRAINT,
) -> Verdict:
    return Verdict(
        status=status,
        field=field,
        rule=f"trap.{trap.id}",
        severity=severity,
        source=trap.source,
        sentence=sentence,
        todo=todo,
        observed=observed,
        limit=Limit(text=allowed),
    )


def check_interpolation(trap: Trap, protocol: Protocol, placed: Sequence[Placed]) -> Iterable[Finding]:
    """Find images whose matrix is larger than what was acquired."""
    del protocol
    for one in placed:
        ratio = _interpolation(one.series)
        if ratio > _INTERPOLATED:
            yield make_finding(
                one,
                _verdict(
                    trap,
                    "ReconMatrixPE",
                    f"the matrix was interpolated {ratio:.2g} times in the phase encoding direction: voxels "
                    "are smaller than what was acquired, and their noise is correlated",
                    observed=f"{ratio:.2g}",
                    allowed="1",
                    todo="switch interpolation off; denoising and removal of Gibbs ringing expect the "
                    "acquired matrix",
                ),
            )


def _interpolation(series: ObservedSeries) -> float:
    """Return how many times the matrix was interpolated; 1 where that is not recorded.

    A scanner may also pad a field of view that is smaller in the phase encoding direction to a square.
    """
    acquired, made = (_number(series, name) for name in ("AcquisitionMatrixPE", "ReconMatrixPE"))
    if acquired is None or made is None or acquired <= 0:
        return 1.0
    percent = _number(series, "PercentPhaseFOV")
    share = percent / 100 if percent is not None and 1 <= percent <= 100 else 1.0
    return max(made * share / acquired, 1.0)


def _number(series: ObservedSeries, name: str) -> float | None:
    found = series.parameters.get(name)
    return found.value if found is not None and isinstance(found.value, float) else None


def _words(series: ObservedSeries) -> frozenset[str]:
    found = series.parameters.get("ImageType")
    words = found.value if found is not None and isinstance(found.value, tuple) else ()
    return frozenset(str(word).upper() for word in words)


def check_normalisation(trap: Trap, protocol: Protocol, placed: Sequence[Placed]) -> Iterable[Finding]:
    """Within a set that enters one ratio; and over the participants of a study."""
    siemens = [one for one in placed if one.series.vendor == "Siemens" and _words(one.series)]
    for constraint in protocol.constraints:
        if constraint.kind is not ConstraintKind.SAME_SCALING:
            continue
        members = [one for one in siemens if one.rule.id in constraint.series]
        for group in group_placed(members, Within.SESSION).values():
            states = {one.rule.id: _state(one.series, _NORM) for one in group}
            if len(set(states.values())) > 1:
                yield _unlike_set(trap, protocol, constraint.series, group, states)
    yield from _odd_ones(
        trap,
        siemens,
        _NORM,
        "intensity is normalised by the scanner in some scans of this series and not in others",
        "scan all with the same setting of prescan normalise",
    )


def _unlike_set(
    trap: Trap,
    protocol: Protocol,
    names: Sequence[str],
    group: Sequence[Placed],
    states: Mapping[str, str],
) -> Finding:
    shown = ", ".join(f"{name}: {state}" for name, state in states.items())
    verdict = _verdict(
        trap,
        "ImageType",
        f"prescan normalise is not the same over images that enter one ratio ({shown}): the ratio then holds "
        "the sensitivity of the coil",
        observed=shown,
        allowed="the same",
        severity=Severity.ERROR,
        todo="reconstruct or scan them with one setting, or leave the ratio out",
    )
    files = ", ".join(one.series.file for one in group)
    series = "+".join(name for name in names if name in states)
    return finding_at(verdict, protocol=protocol, file=files, series=series, entities=common_entities(group))


def check_distortion(trap: Trap, protocol: Protocol, placed: Sequence[Placed]) -> Iterable[Finding]:
    """Find scans of a series whose correction of distortion differs from that of most."""
    del protocol
    siemens = [one for one in placed if one.series.vendor == "Siemens" and _words(one.series) & _DISTORTION]
    yield from _odd_ones(
        trap,
        siemens,
        _DISTORTION,
        "distortion by the gradients is corrected differently from the other scans of this series",
        "scan all with the same correction; 3D where an area or a volume is measured",
    )


def _state(series: ObservedSeries, words: frozenset[str]) -> str:
    found = sorted(_words(series) & words)
    return "+".join(found) if found else f"not {'/'.join(sorted(words))}"


def _odd_ones(
    trap: Trap, placed: Sequence[Placed], words: frozenset[str], sentence: str, todo: str
) -> Iterable[Finding]:
    """Yield those scans of a series whose image type differs from what most of them have."""
    by_series: dict[str, list[Placed]] = {}
    for one in placed:
        by_series.setdefault(one.rule.id, []).append(one)
    for members in by_series.values():
        counts = Counter(_state(one.series, words) for one in members)
        if len(counts) < 2:
            continue
        usual, n = max(counts.items(), key=lambda item: (item[1], item[0]))
        for one in members:
            state = _state(one.series, words)
            if state != usual:
                text = f"{sentence}: {state} here, {usual} in {n} of {len(members)}"
                verdict = _verdict(trap, "ImageType", text, observed=state, allowed=usual, todo=todo)
                yield make_finding(one, verdict)


def check_phase_sign(trap: Trap, protocol: Protocol, placed: Sequence[Placed]) -> Iterable[Finding]:
    """One finding per scanner: the header does not say which sign the phase has."""
    phase = [one for one in placed if one.series.labels.get("part") == "phase" or _words(one.series) & _PHASE]
    vendors = sorted({one.series.vendor or "unknown vendor" for one in phase})
    for group in group_placed(phase, Within.SCANNER).values():
        scanner = scanner_key(group[0].series.entities) or "this scanner"
        several = f"; this study has phase from {', '.join(vendors)}" if len(vendors) > 1 else ""
        verdict = _verdict(
            trap,
            "phase sign",
            f"which sign the phase of {scanner} has is not recorded, and vendors differ{several}",
            todo="look once per scanner and software: veins and iron must come out paramagnetic (positive)",
            status=FindingStatus.NOT_CHECKABLE,
        )
        files = _files(group)
        entities = common_entities(group)
        series = group[0].rule.id
        yield finding_at(verdict, protocol=protocol, file=files, series=series, entities=entities)


def check_b_values(trap: Trap, protocol: Protocol, placed: Sequence[Placed]) -> Iterable[Finding]:
    """Within one scanner and series: b-values as played out in some scans, as asked for in others."""
    tables = [one for one in placed if one.series.gradients and one.series.gradients.table is not None]
    for group in group_placed(tables, Within.SCANNER).values():
        for rule in dict.fromkeys(one.rule.id for one in group):
            members = [one for one in group if one.rule.id == rule]
            nominal = [one for one in members if _is_nominal(one.series)]
            if not nominal or len(nominal) == len(members):
                continue
            verdict = _verdict(
                trap,
                "b-values",
                f"b-values are rounded in {len(nominal)} of {len(members)} scans of this scanner and given "
                "as played out in the others",
                observed=f"{len(nominal)} of {len(members)} rounded",
                allowed="one convention",
                todo="do not correct for imaging gradients in some of them only; see whether software or "
                "converter changed",
            )
            entities = common_entities(members)
            file = _files(nominal)
            yield finding_at(verdict, protocol=protocol, file=file, series=rule, entities=entities)


def _is_nominal(series: ObservedSeries) -> bool:
    table = series.gradients.table if series.gradients is not None else None
    return table is None or all(shell.width_s_mm2 < _NOMINAL_WIDTH for shell in find_shells(table))


def _files(group: Sequence[Placed]) -> str:
    names = [one.series.file for one in {same_acquisition(one): one for one in reversed(group)}.values()]
    names.sort()
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
