"""Whether a gradient scheme supports a model: the fits themselves are asked, and what they cannot know.

Diffusivity and kurtosis of white matter of the cord (about 0.9 um2/ms and 0.8) decide how far an
expansion in b reaches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.models.diffusion.design import kurtosis_design, tensor_design
from cordqa.models.diffusion.gradient_shells import Shell, find_shells
from cordqa.models.diffusion.gradients import LINEAR, GradientTable
from cordqa.models.diffusion.powder import find_shells as find_powder_shells
from cordqa.models.diffusion.scheme_energy import unique_directions
from cordqa.models.diffusion.scheme_verdicts import make_verdict
from cordqa.models.diffusion.shell_choice import choose_shells
from cordqa.records import Status, Verdict

__all__ = ["MEAN_DIFFUSIVITY", "SchemeModel", "judge_for_model"]

Array = NDArray[np.float64]
SchemeModel = Literal["dti", "dki", "ufa", "noddi"]

#: Of white matter of the cord, um2/ms; decides how much signal is left at a b-value.
MEAN_DIFFUSIVITY = 0.9


def judge_for_model(table: GradientTable, model: SchemeModel) -> list[Verdict]:
    """Judge whether a model can be fitted to a scheme."""
    return _MODELS[model](table)


def _judge_design(
    table: GradientTable, rule: str, design: Callable[[GradientTable], Array], unknowns: int
) -> Verdict:
    """Let the fit itself say whether it would accept the scheme."""
    try:
        matrix = design(table)
    except InputError as error:
        return make_verdict(Status.FAIL, "scheme", rule, math.nan, str(error), low=float(unknowns))
    reason = f"{len(table)} volumes determine {matrix.shape[1]} unknowns"
    return make_verdict(Status.PASS, "scheme", rule, float(matrix.shape[1]), reason, low=float(unknowns))


def _judge_dti(table: GradientTable) -> list[Verdict]:
    verdicts = [_judge_design(table, "rank for a diffusion tensor", tensor_design, 7)]
    lowest = min((shell.b_s_mm2 for shell in find_shells(table)), default=math.nan)
    share = 100 * lowest * 1e-3 * MEAN_DIFFUSIVITY * 0.8 / 6
    if share > 18:
        reason = (
            f"already at the lowest shell kurtosis takes {share:.0f} % of the decay (MD 0.9 um2/ms, "
            "kurtosis 0.8), and the tensor is biased by it; add a shell at b = 500 to 1000"
        )
        verdicts.append(
            make_verdict(Status.WARN, "scheme", "lowest shell", lowest, reason, high=1500, unit="s/mm2")
        )
    return verdicts


def _judge_dki(table: GradientTable) -> list[Verdict]:
    linear = table.select(table.is_b0 | (table.b_delta == LINEAR))
    verdicts = [_judge_design(linear, "rank for a kurtosis tensor", kurtosis_design, 22)]
    return verdicts + _judge_shell_ratio(linear)


def _judge_shell_ratio(linear: GradientTable) -> list[Verdict]:
    b = [shell.b_s_mm2 for shell in find_shells(linear)]
    if len(b) < 2:
        return []
    ratio = max(b) / min(b)
    reason = f"shells at {', '.join(f'{one:.0f}' for one in b)} s/mm2"
    if ratio < 1.5:
        reason += "; so close together, curvature and slope of the decay are hardly told apart"
    status = Status.WARN if ratio < 1.5 else Status.PASS
    verdicts = [make_verdict(status, "scheme", "highest over lowest shell", ratio, reason, low=1.5)]
    if max(b) > 3000:
        reason = "the expansion to second order in b does not reach so far, and cord signal lies in the noise"
        verdicts.append(
            make_verdict(Status.WARN, "scheme", "highest shell", max(b), reason, high=3000, unit="s/mm2")
        )
    return verdicts


def _judge_noddi(table: GradientTable) -> list[Verdict]:
    linear = table.select(table.is_b0 | (table.b_delta == LINEAR))
    shells = find_shells(linear)
    rule = "shells for NODDI (two at least, six directions each)"
    counts = [len(unique_directions(linear.directions[shell.volumes])[0]) for shell in shells]
    good = len(shells) >= 2 and min(counts) >= 6
    listed = ", ".join(f"{n} at {shell.b_s_mm2:.0f}" for n, shell in zip(counts, shells, strict=True))
    reason = f"{listed or 'no'} directions" + (
        "" if good else "; one shell cannot tell free water from neurites that spread"
    )
    verdict = make_verdict(
        Status.PASS if good else Status.FAIL, "scheme", rule, float(len(shells)), reason, low=2
    )
    return [verdict, *(_judge_shell_ratio(linear) if good else [])]


def _judge_ufa(table: GradientTable) -> list[Verdict]:
    rule = "encodings for microscopic anisotropy"
    try:
        chosen, notices = choose_shells(find_powder_shells(table))
    except InputError as error:
        return [make_verdict(Status.FAIL, "scheme", rule, math.nan, str(error))]
    weighted = [shell for shell in chosen if not shell.unweighted]
    reason = f"{len(weighted)} shells of several shapes over a common range of b"
    status = Status.WARN if notices else Status.PASS
    verdicts = [make_verdict(status, "scheme", rule, float(len(weighted)), "; ".join((reason, *notices)))]
    verdicts += [_judge_powder(table, shell) for shell in find_shells(table) if shell.b_delta != 0]
    return verdicts + _judge_expansion(table)


def _judge_powder(table: GradientTable, shell: Shell) -> Verdict:
    """Judge the number of directions over which a shell is averaged."""
    n = len(unique_directions(table.directions[shell.volumes])[0])
    status = Status.PASS if n >= 6 else Status.WARN if n >= 3 else Status.FAIL
    reason = "six well spread directions average a powder exactly up to the fourth order"
    if n < 6:
        reason += "; with fewer the average still depends on how the fibres lie"
    return make_verdict(status, shell.name, "directions of a powder average", float(n), reason, low=6)


def _judge_expansion(table: GradientTable) -> list[Verdict]:
    product = float(table.b_ms_um2.max()) * MEAN_DIFFUSIVITY
    if 0.1 <= product <= 2.0:
        return []
    status = Status.FAIL if product < 0.1 else Status.WARN
    reason = (
        "diffusion weighting is negligible, and nothing can be said about its variance"
        if product < 0.1
        else "the second-order expansion is truncated where b times diffusivity exceeds 2"
    )
    return [
        make_verdict(status, "scheme", "largest b times MD (0.9 um2/ms)", product, reason, low=0.1, high=2.0)
    ]


_MODELS: dict[str, Callable[[GradientTable], list[Verdict]]] = {
    "dti": _judge_dti,
    "dki": _judge_dki,
    "ufa": _judge_ufa,
    "noddi": _judge_noddi,
}
