"""Compare the gradient table of one series with what its rule asks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from cordqa.models.diffusion.gradient_errors import BUnitError
from cordqa.models.diffusion.gradient_shells import Shell, find_shells
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.diffusion.scheme_check import direction_condition
from cordqa.models.diffusion.scheme_energy import best_energy, electrostatic_energy, unique_directions
from cordqa.protocol.fields import format_number
from cordqa.protocol.findings import Verdict, make_finding
from cordqa.protocol.matching import Placed
from cordqa.protocol.records import (
    Finding,
    FindingStatus,
    GradientFacts,
    GradientRule,
    IfAbsent,
    Limit,
    ShellRule,
)

__all__ = ["GradientMemory", "check_gradients", "shell_name"]

_SHAPE_GAP = 0.05
#: s/mm2; scanners report the b-value that they made, a few below or above the one asked for.
_SMALLEST_B_TOLERANCE = 5.0
_FEWEST_FOR_SPREAD = 6
#: A volume along a third of the sphere is linear enough for directions to count.
_LINEAR = 0.5
_BACK_TO_SCANNER = "load the gradient scheme of the study on the scanner again"
_SHAPES = {1.0: "", 0.0: "-spherical", -0.5: "-planar"}
_UNIT = "s/mm2"


@dataclass(slots=True)
class GradientMemory:
    """Verdicts by rule and table: the scans of a study share a few schemes."""

    known: dict[tuple[str, ...], tuple[Verdict, ...]] = field(default_factory=dict)


def shell_name(b_s_mm2: float, b_delta: float = 1.0) -> str:
    """Name a shell as a field: ``b800``, ``b1400-spherical``."""
    if b_s_mm2 == 0:
        return "b0"
    shape = next((word for value, word in _SHAPES.items() if abs(value - b_delta) < _SHAPE_GAP), None)
    return f"b{b_s_mm2:g}" + (f"-delta{b_delta:g}" if shape is None else shape)


def check_gradients(placed: Placed, memory: GradientMemory | None = None) -> list[Finding]:
    """Check shells, directions, condition and spread of the gradient table of a series.

    Parameters
    ----------
    placed : Placed
    memory : GradientMemory, optional
        Shared between the series of one check, which saves time.
    """
    rule = placed.rule.gradients
    if rule is None:
        return []
    facts = placed.series.gradients
    if facts is None or facts.table is None:
        return [make_finding(placed, _unusable(rule, facts, placed.protocol.units_guard))]
    memory = GradientMemory() if memory is None else memory
    key = (placed.protocol.id, rule.id, *_key(facts.table), str(facts.shape_stated))
    if key not in memory.known:
        memory.known[key] = tuple(_judge(rule, facts.table, shape_stated=facts.shape_stated))
    return [make_finding(placed, verdict) for verdict in memory.known[key]]


def _key(table: GradientTable) -> tuple[str, ...]:
    arrays = (table.b_values_s_mm2, table.directions, table.b_delta)
    return (
        *(np.ascontiguousarray(a, dtype=float).tobytes().hex() for a in arrays),
        str(table.b0_limit_s_mm2),
    )


def _unusable(rule: GradientRule, facts: GradientFacts | None, units_guard: bool) -> Verdict:
    if facts is None:
        missing = rule.if_absent is IfAbsent.MISSING
        return _verdict(
            rule,
            FindingStatus.MISSING if missing else FindingStatus.NOT_CHECKABLE,
            "gradients",
            "no b-values and directions are recorded",
            todo="add the .bval and .bvec files",
        )
    suspect = units_guard and facts.code == BUnitError.code
    return _verdict(
        rule,
        FindingStatus.UNIT_SUSPECT if suspect else FindingStatus.NOT_CHECKABLE,
        "gradients",
        f"the gradient table cannot be used: {facts.problem or 'it is empty'}",
        observed=", ".join(facts.sources) or "gradient files",
        todo="correct the gradient files, or convert the scan again",
    )


def _judge(rule: GradientRule, table: GradientTable, *, shape_stated: bool) -> Iterator[Verdict]:
    shells = find_shells(table)
    used: set[int] = set()
    if not shape_stated and any(abs(one.b_delta - 1) > _SHAPE_GAP for one in rule.shells):
        yield from _shapes_unknown(rule, table)
        return
    for asked in rule.shells:
        if asked.b_s_mm2 <= table.b0_limit_s_mm2:
            yield _judge_unweighted(rule, asked, table)
            continue
        found = [i for i, shell in enumerate(shells) if _belongs(rule, asked, shell)]
        used.update(found)
        yield _judge_shell(rule, asked, [shells[i] for i in found], shells)
    others = [shell for i, shell in enumerate(shells) if i not in used]
    yield _judge_others(rule, others)
    linear = [shells[i] for i in sorted(used) if shells[i].b_delta > _LINEAR]
    yield from _judge_directions(rule, table, linear)


def _belongs(rule: GradientRule, asked: ShellRule, shell: Shell) -> bool:
    tolerance = max(rule.b_tol * asked.b_s_mm2, _SMALLEST_B_TOLERANCE)
    close = abs(shell.b_s_mm2 - asked.b_s_mm2) <= tolerance
    return close and abs(shell.b_delta - asked.b_delta) < _SHAPE_GAP


def _shapes_unknown(rule: GradientRule, table: GradientTable) -> Iterator[Verdict]:
    for asked in rule.shells:
        if asked.b_s_mm2 <= table.b0_limit_s_mm2:
            yield _judge_unweighted(rule, asked, table)
            continue
        yield _verdict(
            rule,
            FindingStatus.NOT_CHECKABLE,
            shell_name(asked.b_s_mm2, asked.b_delta),
            "no file gives the shape of the encoding, and linear and spherical b-values look alike",
            todo="add a .bdelta file (1 linear, 0 spherical, -0.5 planar) beside the .bval file",
            limit=_count_limit(asked),
        )


def _judge_unweighted(rule: GradientRule, asked: ShellRule, table: GradientTable) -> Verdict:
    return _judge_count(rule, asked, int(table.is_b0.sum()), f"up to {table.b0_limit_s_mm2:g}")


def _judge_count(rule: GradientRule, asked: ShellRule, n: int, where: str) -> Verdict:
    """Judge how many volumes a shell has."""
    limit = _count_limit(asked)
    name = shell_name(asked.b_s_mm2, asked.b_delta)
    good = limit.low <= n <= limit.high
    text = f"{n} volume{'' if n == 1 else 's'} at b {where} {_UNIT}"
    return _verdict(
        rule,
        FindingStatus.PASS if good else FindingStatus.OUT_OF_RANGE,
        name,
        f"{text}, as asked" if good else f"{text}; the protocol asks for {limit.text}",
        observed=text,
        number=float(n),
        limit=limit,
        todo="" if good else _BACK_TO_SCANNER,
    )


def _judge_shell(
    rule: GradientRule, asked: ShellRule, found: Sequence[Shell], shells: Sequence[Shell]
) -> Verdict:
    if found:
        n = sum(shell.volumes.size for shell in found)
        return _judge_count(rule, asked, n, "= " + " and ".join(f"{shell.b_s_mm2:.0f}" for shell in found))
    seen = "; ".join(f"{shell.volumes.size} at {shell.name}" for shell in shells) or "no weighted volume"
    sentence = f"no shell at b = {asked.b_s_mm2:g} {_UNIT} within {100 * rule.b_tol:g} %; found {seen}"
    hint = _squared_length_hint(asked, shells)
    return _verdict(
        rule,
        FindingStatus.OUT_OF_RANGE,
        shell_name(asked.b_s_mm2, asked.b_delta),
        sentence + hint,
        observed=seen,
        number=0.0,
        limit=_count_limit(asked),
        todo="convert the scan again and compare the b-values with the scanner's"
        if hint
        else _BACK_TO_SCANNER,
    )


def _squared_length_hint(asked: ShellRule, shells: Sequence[Shell]) -> str:
    """Recognise b-values that were multiplied by the squared length of directions scaled for shells.

    500, 1000 and 4000 s/mm2 became 62, 250 and 4000 (github.com/MICA-MNI/micapipe/issues/41).
    """
    if len(shells) < 2:
        return ""
    largest = max(shell.b_s_mm2 for shell in shells)
    wrong = asked.b_s_mm2**2 / largest
    if any(abs(shell.b_s_mm2 - wrong) < 0.05 * wrong for shell in shells):
        return (
            f"; {wrong:.0f} is {asked.b_s_mm2:g} squared over {largest:.0f}, which b-values become when "
            "directions that are scaled by shell are normalised twice"
        )
    return ""


def _judge_others(rule: GradientRule, others: Sequence[Shell]) -> Verdict:
    good = rule.extra_shells or not others
    seen = "; ".join(f"{shell.volumes.size} at {shell.name}" for shell in others) or "none"
    return _verdict(
        rule,
        FindingStatus.PASS if good else FindingStatus.OUT_OF_RANGE,
        "other shells",
        f"shells beside those asked for: {seen}",
        observed=seen,
        number=float(len(others)),
        limit=Limit(
            low=0, high=math.inf if rule.extra_shells else 0, text="any" if rule.extra_shells else "none"
        ),
        todo="" if good else _BACK_TO_SCANNER,
    )


def _judge_directions(rule: GradientRule, table: GradientTable, linear: Sequence[Shell]) -> Iterator[Verdict]:
    """Judge number, condition and spread of directions; the worst shell counts."""
    unique = [unique_directions(table.directions[shell.volumes])[0] for shell in linear]
    if rule.min_unique_directions is not None:
        n = min((len(one) for one in unique), default=0) if unique else math.nan
        low = float(rule.min_unique_directions)
        yield _bounded(rule, "directions", "different directions in the poorest shell", n, low=low)
    if rule.max_condition_number is not None:
        volumes = (
            np.concatenate([shell.volumes for shell in linear]) if linear else np.zeros(0, dtype=np.intp)
        )
        value = direction_condition(table.directions[volumes]) if volumes.size else math.nan
        high = rule.max_condition_number
        yield _bounded(rule, "condition number", "condition number of the directions", value, high=high)
    if rule.max_energy_ratio is not None:
        ratios = [_energy_ratio(one) for one in unique if len(one) >= _FEWEST_FOR_SPREAD]
        value = max(ratios, default=math.nan)
        text = "electrostatic energy over the best known, of the worst shell"
        yield _bounded(rule, "energy ratio", text, value, high=rule.max_energy_ratio)


def _energy_ratio(directions: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    return electrostatic_energy(directions) / best_energy(len(directions))[0]


def _bounded(
    rule: GradientRule, name: str, label: str, value: float, *, low: float = -math.inf, high: float = math.inf
) -> Verdict:
    bound = f"at least {low:g}" if math.isfinite(low) else f"at most {high:g}"
    limit = Limit(low=low, high=high, text=bound)
    if math.isnan(value):
        sentence = f"the {label} cannot be told: no linear shell that is asked for was found"
        return _verdict(rule, FindingStatus.NOT_CHECKABLE, name, sentence, limit=limit)
    good = low <= value <= high
    shown = (
        "infinite: they do not determine a tensor" if math.isinf(value) else format_number(round(value, 4))
    )
    return _verdict(
        rule,
        FindingStatus.PASS if good else FindingStatus.OUT_OF_RANGE,
        name,
        f"the {label} is {shown}" + ("" if good else f"; the protocol asks for {bound}"),
        observed=shown,
        number=value,
        limit=limit,
        todo="" if good else _BACK_TO_SCANNER,
    )


def _count_limit(asked: ShellRule) -> Limit:
    if asked.max_n is None:
        text = f"at least {asked.min_n}"
    elif asked.max_n == asked.min_n:
        text = f"{asked.min_n}"
    else:
        text = f"{asked.min_n} to {asked.max_n}"
    high = math.inf if asked.max_n is None else float(asked.max_n)
    return Limit(
        low=float(asked.min_n),
        high=high,
        text=f"{text} volume{'' if text.endswith(' 1') or text == '1' else 's'}",
    )


def _verdict(
    rule: GradientRule,
    status: FindingStatus,
    name: str,
    sentence: str,
    *,
    todo: str = "",
    observed: str = "",
    number: float = math.nan,
    limit: Limit | None = None,
) -> Verdict:
    return Verdict(
        status=status,
        field=name,
        rule=f"{rule.id}.{name.replace(' ', '-')}",
        severity=rule.severity,
        source=rule.source,
        why=rule.why if status is FindingStatus.OUT_OF_RANGE else "",
        sentence=sentence,
        todo=todo,
        observed=observed,
        observed_value=number,
        limit=Limit() if limit is None else limit,
        origin="gradient files",
    )
