"""Judge a gradient scheme: spread, precision, balance, and whether a model can be fitted to it.

Every limit has a reason that can be computed again; ``benchmarks/scheme_energy.py --limits`` prints the
numbers that stand in the sentences.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import ConfigError
from cordqa.models.diffusion.gradient_shells import Shell, find_shells
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.diffusion.scheme_energy import (
    best_energy,
    closest_angle_deg,
    electrostatic_energy,
    unique_directions,
)
from cordqa.models.diffusion.scheme_models import MEAN_DIFFUSIVITY, SchemeModel, judge_for_model
from cordqa.models.diffusion.scheme_order import balance_signs, imbalance
from cordqa.models.diffusion.scheme_verdicts import make_verdict
from cordqa.records import Status, Verdict

__all__ = [
    "IDEAL_CONDITION",
    "SchemeLimits",
    "SchemeModel",
    "check_scheme",
    "direction_condition",
    "mean_diffusivity_penalty",
]

Array = NDArray[np.float64]

#: Condition number of directions without end: sqrt((1/3) / (2/15)).
IDEAL_CONDITION = math.sqrt(2.5)
_FEWEST_TO_JUDGE = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemeLimits:
    """Limits of the checks.

    Attributes
    ----------
    energy_ratio : float
        Electrostatic energy over the best known one; one in twenty sets of random directions
        comes below 1.06 to 1.07.
    closest_angle_deg : float
        Two directions closer than this are one direction, measured twice.
    closest_share : float
        Or closer than this share of what hexagonal packing gives, which decides where there are so
        many directions that all of them are close.
    condition_warn, condition_fail : float
        Condition number of the six tensor elements: at 1.77 and 2.24 the worst determined one needs
        25 % and 100 % more scan time than with ideal directions.
    imbalance : float
        Length of the mean direction; half a sphere gives 0.5.
    b0_penalty : float
        Standard deviation of MD over that with the best number of b = 0 volumes in the same time.
    """

    energy_ratio: float = 1.05
    closest_angle_deg: float = 8.0
    closest_share: float = 0.5
    condition_warn: float = IDEAL_CONDITION / math.sqrt(0.8)
    condition_fail: float = IDEAL_CONDITION / math.sqrt(0.5)
    imbalance: float = 0.25
    b0_penalty: float = 1.5


def check_scheme(
    table: GradientTable, *, model: SchemeModel = "dti", limits: SchemeLimits | None = None
) -> tuple[Verdict, ...]:
    """Judge a scheme for one model.

    Parameters
    ----------
    table : GradientTable
        Checked, see :func:`cordqa.models.diffusion.gradient_checks.check_gradients`.
    model : {'dti', 'dki', 'ufa', 'noddi'}
        What is to be fitted.
    limits : SchemeLimits, optional

    Returns
    -------
    tuple of Verdict
        For each shell spread and balance, for the scheme precision, b = 0 volumes and rank.

    Raises
    ------
    ConfigError
        If the model is not known.
    """
    if model not in get_args(SchemeModel):
        raise ConfigError("is not a model", found=repr(model), expected=", ".join(get_args(SchemeModel)))
    rules = limits or SchemeLimits()
    verdicts: list[Verdict] = []
    for shell in find_shells(table):
        verdicts += _judge_shell(table, shell, rules, powder=model == "ufa")
    if model != "ufa":  # which averages over directions
        verdicts.append(_judge_condition(table, rules))
    verdicts.append(_judge_b0(table, model, rules))
    verdicts += judge_for_model(table, model)
    return tuple(verdicts)


def direction_condition(directions: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Condition number of the six tensor elements, the same however the scheme is turned.

    Off-diagonal elements are scaled by the square root of two, which makes the columns a basis that
    rotations keep; the ideal is 1.58 (cf. Skare et al. 2000, doi:10.1006/jmre.2000.2209).

    Parameters
    ----------
    directions : array_like, shape (n, 3)
    weights : array_like, shape (n,), optional
        Of each row; equal otherwise.

    Returns
    -------
    float
        Infinite where the directions do not determine a tensor.
    """
    n = np.asarray(directions, dtype=float)
    root = math.sqrt(2.0)
    x, y, z = n.T
    rows = np.stack([x * x, y * y, z * z, root * x * y, root * x * z, root * y * z], axis=1)
    if weights is not None:
        rows = rows * np.asarray(weights, dtype=float)[:, None]
    if len(rows) < 6:
        return math.inf
    singular = np.linalg.svd(rows, compute_uv=False)
    return float(singular[0] / singular[-1]) if singular[-1] > 1e-7 * singular[0] else math.inf


def mean_diffusivity_penalty(table: GradientTable, *, diffusivity_um2_ms: float = MEAN_DIFFUSIVITY) -> float:
    """Standard deviation of MD over that with the best share of b = 0 volumes in the same scan time.

    Weighted least squares of the logarithm; the weighted volumes keep their proportions.

    Returns
    -------
    float
        At least 1; infinite without b = 0 volumes, or with nothing else.
    """
    low = table.is_b0
    share = float(low.mean()) if len(table) else 0.0
    if share in (0.0, 1.0):
        return math.inf
    b = table.b_ms_um2
    power = np.exp(-2 * b * diffusivity_um2_ms)

    def deviation(part: Array) -> Array:
        m0, m1, m2 = (
            part * _mean(power[low] * b[low] ** k) + (1 - part) * _mean(power[~low] * b[~low] ** k)
            for k in range(3)
        )
        result: Array = np.sqrt(m0 / np.maximum(m0 * m2 - m1**2, 1e-300))
        return result

    best = float(deviation(np.linspace(0.005, 0.995, 397)).min())
    return float(max(deviation(np.array([share]))[0] / best, 1.0))


def _mean(values: Array) -> float:
    return float(values.mean()) if values.size else 0.0


def _judge_shell(table: GradientTable, shell: Shell, limits: SchemeLimits, *, powder: bool) -> list[Verdict]:
    if shell.width_s_mm2 > 0.2 * shell.b_s_mm2:
        reason = f"b-values are spread over {shell.width_s_mm2:.0f} s/mm2, which is no shell"
        return [
            make_verdict(
                Status.WARN, shell.name, "width of the shell", shell.width_s_mm2, reason, unit="s/mm2"
            )
        ]
    directions = table.directions[shell.volumes]
    if not directions.any():
        return []
    unique, counts = unique_directions(directions)
    verdicts = [_judge_repeats(shell, counts)] if counts.max() > 1 else []
    if len(unique) < _FEWEST_TO_JUDGE:
        reason = f"{len(unique)} different directions are too few to speak of their spread"
        return [*verdicts, make_verdict(Status.NOT_EVALUATED, shell.name, "spread", math.nan, reason)]
    spread = [_judge_energy(shell, unique, limits), _judge_angle(shell, unique, limits)]
    verdicts += [_for_powder(one) for one in spread] if powder else spread
    verdicts.append(_judge_balance(shell, directions, limits))
    return verdicts


def _for_powder(verdict: Verdict) -> Verdict:
    """Uneven directions cost a powder average precision only, because its weights make up for them."""
    if verdict.status is not Status.FAIL:
        return verdict
    reason = f"{verdict.reason}. The weights of the powder average make up for it, at the cost of noise"
    return replace(verdict, status=Status.WARN, reason=reason)


def _judge_repeats(shell: Shell, counts: NDArray[np.intp]) -> Verdict:
    even = counts.min() == counts.max()
    if even:
        words = f"each of {len(counts)} directions was measured {counts[0]} times"
    else:
        words = (
            f"{int((counts > counts.min()).sum())} of {len(counts)} directions were measured up to "
            f"{counts.max()} times, the others {counts.min()} times: some count more than others"
        )
    status = Status.PASS if even else Status.WARN
    return make_verdict(status, shell.name, "directions measured more than once", float(counts.max()), words)


def _judge_energy(shell: Shell, unique: Array, limits: SchemeLimits) -> Verdict:
    optimum, searched = best_energy(len(unique))
    ratio = electrostatic_energy(unique) / optimum
    good = ratio <= limits.energy_ratio
    kind = "the best known" if searched else "an estimate of the best"
    reason = f"{ratio * optimum:.2f} for {len(unique)} directions, {kind} is {optimum:.2f}"
    if not good:
        reason += "; about what directions drawn at random have"
    return make_verdict(
        Status.PASS if good else Status.FAIL,
        shell.name,
        "electrostatic energy over the optimum",
        ratio,
        reason,
        high=limits.energy_ratio,
        source="Jones et al. 1999, doi:10.1002/(SICI)1522-2594(199909)42:3<515::AID-MRM14>3.0.CO;2-Q",
    )


def _judge_angle(shell: Shell, unique: Array, limits: SchemeLimits) -> Verdict:
    angle = closest_angle_deg(unique)
    packed = math.degrees(math.sqrt(4 * math.pi / (math.sqrt(3) * len(unique))))
    least = limits.closest_share * packed
    low = min(limits.closest_angle_deg, least)
    status = Status.FAIL if angle < low else Status.WARN if angle < least else Status.PASS
    reason = f"{len(unique)} directions could lie about {packed:.0f} degrees apart"
    if status is not Status.PASS:
        reason += "; the closest two say almost the same"
    return make_verdict(
        status, shell.name, "smallest angle between directions", angle, reason, low=low, unit="degrees"
    )


def _judge_balance(shell: Shell, directions: Array, limits: SchemeLimits) -> Verdict:
    observed = imbalance(directions)
    if observed <= limits.imbalance:
        status, reason = Status.PASS, "the directions fill the whole sphere"
    else:
        possible = imbalance(balance_signs(directions))
        status = Status.WARN if observed > 1.25 * possible else Status.PASS
        reason = (
            f"the directions lie on one side of the sphere; with some of them negated it would be "
            f"{possible:.2f}. Diffusion does not feel it, but distortion by eddy currents no longer "
            "cancels over the shell and is harder to tell from diffusion"
        )
    return make_verdict(
        status,
        shell.name,
        "hemispheric balance (length of the mean direction)",
        observed,
        reason,
        high=limits.imbalance,
        source="half a sphere gives 0.5",
    )


def _judge_condition(table: GradientTable, limits: SchemeLimits) -> Verdict:
    weighted = ~table.is_b0 & (table.b_delta != 0)
    strength = table.b_ms_um2[weighted] * table.b_delta[weighted]
    condition = direction_condition(table.directions[weighted], strength)
    if condition > limits.condition_fail:
        status = Status.FAIL
    else:
        status = Status.WARN if condition > limits.condition_warn else Status.PASS
    if math.isinf(condition):
        reason = "the directions do not determine a tensor"
    else:
        times = (condition / IDEAL_CONDITION) ** 2
        reason = f"the worst determined element needs {times:.3g} times the scan time of ideal directions"
    return make_verdict(
        status,
        "scheme",
        "condition number of the tensor elements",
        condition,
        reason,
        high=limits.condition_fail if status is Status.FAIL else limits.condition_warn,
        source="ideal 1.58; Skare et al. 2000, doi:10.1006/jmre.2000.2209",
    )


def _judge_b0(table: GradientTable, model: SchemeModel, limits: SchemeLimits) -> Verdict:
    n = int(table.is_b0.sum())
    rule = "precision of MD with these b = 0 volumes, against the best number in the same time"
    if n == 0:
        return make_verdict(
            Status.FAIL if model != "ufa" else Status.WARN,
            "scheme",
            "volumes without diffusion weighting",
            0.0,
            f"none at or below {table.b0_limit_s_mm2:g} s/mm2",
            low=1.0,
        )
    penalty = mean_diffusivity_penalty(table)
    good = penalty <= limits.b0_penalty
    reason = f"{n} of {len(table)} volumes; standard deviation of MD {penalty:.2f} times the best possible"
    if n == 1:
        reason += "; a single one cannot be checked against another either"
    return make_verdict(
        Status.PASS if good else Status.WARN, "scheme", rule, penalty, reason, high=limits.b0_penalty
    )
