"""Which shells can tell the variance of diffusivities by orientation from that by size.

The two differ only in how they depend on the shape of the encoding, so at least two shapes are
needed, over the same range of b: beyond the common range the terms that the expansion leaves out
would look like anisotropy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.models.diffusion.cumulant import cumulant_design, fit_cumulant
from cordqa.models.diffusion.powder import PowderShell, average_shells, repair_samples

__all__ = [
    "B0_LEFT_OUT",
    "choose_shells",
    "describe_sampling",
    "judge_b0",
    "reduce_kept",
    "why_unsupported",
]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Shapes whose |b_delta| differ by less are one: the expansion sees its square.
_SHAPE_STEP = 0.1
#: b-values that differ by less (ms/um2, and relative) are one level.
_LEVEL_STEP, _LEVEL_RATIO = 0.05, 1.1
#: Shells above this times the largest b that all shapes reach are beyond the common range.
_RANGE_RATIO = 1.1
#: The lowest weighted shell must lie at or below this (ms/um2) to judge the b = 0 volumes.
_LOW_B = 0.25
#: Disagreement of the b = 0 volumes with the others that is acted on.
_B0_TOLERANCE = 0.01
#: ... and by how many standard errors of its median, and how many times what the neglected third
#: order may do to the extrapolation.
_B0_SIGMAS, _B0_NEGLECTED = 3.0, 2.0
_B0_VOXELS = 4096
#: Noise standard deviations that every shell must lie above zero, and the share of voxels with signal
#: in which they must.
_B0_CLEAR, _B0_SHARE = 5.0, 0.1
_UNKNOWNS = 4
B0_LEFT_OUT = "the b = 0 volumes were left out"
#: Spread of the b-values of a shell that is worth a word.
_WIDEST = 0.1


def choose_shells(shells: Sequence[PowderShell]) -> tuple[tuple[PowderShell, ...], tuple[str, ...]]:
    """Return the shells to fit, and notices about those left out.

    Raises
    ------
    InputError
        If they cannot support the model.
    """
    notices: list[str] = []
    single = [s for s in shells if s.directional and s.volumes.size == 1]
    kept = np.array([not (s.directional and s.volumes.size == 1) for s in shells])
    if single:
        names = ", ".join(shell.name for shell in single)
        notices.append(f"left out, because one direction gives no average over directions: {names}")
    matched = _matched(shells, kept)
    beyond = [shells[i].name for i in np.flatnonzero(kept & ~matched).tolist()]
    if beyond:
        notices.append(
            "left out, because the other shapes of encoding do not reach these b-values and the"
            f" difference would look like anisotropy: {', '.join(beyond)}"
        )
    reason = why_unsupported(shells, matched)
    if reason:
        names = ", ".join(f"{shell.name} ({shell.volumes.size})" for shell in shells)
        raise InputError(
            f"these encodings cannot determine microscopic anisotropy: {reason}",
            found=names,
            expected="at least two shapes of encoding over a common range of b, with b = 0 or a low b"
            " and two higher b-values",
        )
    return tuple(shell for shell, keep in zip(shells, matched, strict=True) if keep), tuple(notices)


def why_unsupported(shells: Sequence[PowderShell], kept: Mask) -> str:
    """Why the kept shells cannot support the model; empty where they can."""
    chosen = [shell for shell, keep in zip(shells, kept, strict=True) if keep]
    weighted = [shell for shell in chosen if not shell.unweighted]
    shapes = _steps(sorted(abs(shell.b_delta) for shell in weighted), _SHAPE_STEP, 1.0)
    if shapes < 2:
        return "there is one shape of encoding only (equal |b_delta| count as one)"
    if _steps(sorted(shell.b_ms_um2 for shell in chosen), _LEVEL_STEP, _LEVEL_RATIO) < 3:
        return "fewer than three b-values, b = 0 among them"
    design = cumulant_design(chosen)
    if np.linalg.matrix_rank(design / np.abs(design).max(axis=0), tol=1e-3) < _UNKNOWNS:
        return "b-values and shapes change together"
    return ""


def reduce_kept(shells: Sequence[PowderShell], kept: Mask) -> tuple[Mask, str]:
    """Return which of the kept shells remain in the common range, and why the model fails if it does."""
    matched = _matched(shells, kept)
    return matched, why_unsupported(shells, matched)


def judge_b0(
    signals: NDArray[Any], shells: Sequence[PowderShell], noise_sd: Array | None
) -> tuple[bool, str]:
    """Whether the b = 0 volumes belong to the same decay as the others, and a sentence about it.

    They often do not: blood and moving fluid add signal that low b-values remove, and crushers or
    another timing take signal away.  Where shells at low b determine the signal at b = 0 on their
    own, the b = 0 volumes have to agree with it, or get a level of their own, which leaves them out.
    """
    kept = np.array([not shell.unweighted for shell in shells])
    lowest = min(shell.b_ms_um2 for shell in shells if not shell.unweighted)
    if kept.all() or len(signals) == 0:
        return True, ""
    others = [shell for shell in shells if not shell.unweighted]
    if lowest > _LOW_B or why_unsupported(shells, kept):
        return True, (
            "whether the b = 0 volumes agree with the weighted ones could not be tested:"
            f" there is no shell between them and b = {1e3 * lowest:.0f} s/mm2"
        )
    mismatch, error, neglected = _b0_mismatch(signals, shells, others, noise_sd)
    if not np.isfinite(mismatch):
        return True, (
            "whether the b = 0 volumes agree with the weighted ones could not be tested: too few voxels"
            " have all shells well above a known noise"
        )
    if not abs(mismatch) > max(_B0_TOLERANCE, _B0_SIGMAS * error, _B0_NEGLECTED * neglected):
        return True, ""
    side = "below" if mismatch < 0 else "above"
    return False, (
        f"{B0_LEFT_OUT}: they lie {100 * abs(mismatch):.1f} % {side} what the volumes"
        f" from b = {1e3 * lowest:.0f} s/mm2 up extrapolate to (median over voxels)"
    )


def describe_sampling(shells: Sequence[PowderShell]) -> tuple[str, ...]:
    """Say which shells have too few directions, or too many b-values, for an average over the sphere."""
    notices = []
    poor = [f"{s.name} ({s.volumes.size})" for s in shells if s.directional and s.degree == 0]
    if poor:
        notices.append(
            "fewer than 6 well spread directions, so the mean over them is no average over the sphere and"
            f" its scatter is counted as error: {', '.join(poor)}"
        )
    wide = [s.name for s in shells if not s.unweighted and s.b_width > _WIDEST * s.b_ms_um2]
    if wide:
        notices.append(
            f"b-values spread over more than {100 * _WIDEST:.0f} % were averaged as one shell:"
            f" {', '.join(wide)}"
        )
    return tuple(notices)


def _b0_mismatch(
    signals: NDArray[Any],
    shells: Sequence[PowderShell],
    others: Sequence[PowderShell],
    noise_sd: Array | None,
) -> tuple[float, float, float]:
    """Median over voxels of ln(b = 0) less its extrapolation, its standard error, and that of the model."""
    step = max(1, len(signals) // _B0_VOXELS)
    part, _ = repair_samples(np.asarray(signals[::step], dtype=float), shells)
    averages = average_shells(part, shells, noise_sd=None if noise_sd is None else noise_sd[::step])
    number = next(i for i, shell in enumerate(shells) if shell.unweighted)
    rows = [i for i in range(len(shells)) if i != number]
    fit = fit_cumulant(averages.means[rows], averages.variances[rows], others)
    above = averages.means[rows] > _B0_CLEAR * averages.noise_sd
    clear, signal = above.all(axis=0), above.any(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_b = shells[number].b_ms_um2
        difference = np.log(averages.means[number]) + mean_b * fit.parameters[1] - fit.parameters[0]
    judged = fit.solved & clear & np.isfinite(difference)
    difference = difference[judged]
    # Where only a few voxels are clear of the noise, those were chosen by their noise.
    if difference.size == 0 or difference.size < _B0_SHARE * np.count_nonzero(signal):
        return np.nan, np.nan, np.nan
    median = float(np.median(difference))
    spread = 1.4826 * float(np.median(np.abs(difference - median)))
    own = np.sqrt(np.median(fit.covariance[0, 0, judged])) if difference.size < 10 else spread
    neglected = float(np.median(np.abs(fit.truncation[:, 0, judged]).sum(axis=0)))
    return median, 1.2533 * float(own) / np.sqrt(difference.size), neglected


def _matched(shells: Sequence[PowderShell], kept: Mask) -> Mask:
    """Of the kept shells, those within the range of b that every shape reaches."""
    weighted = [shells[i] for i in np.flatnonzero(kept).tolist() if not shells[i].unweighted]
    if not weighted:
        return kept
    shapes = np.array([abs(shell.b_delta) for shell in weighted])
    largest = np.array([shell.b_ms_um2 for shell in weighted])
    common = min(largest[np.abs(shapes - shape) <= _SHAPE_STEP].max() for shape in shapes)
    within = np.array([shell.b_ms_um2 <= _RANGE_RATIO * common for shell in shells])
    return np.asarray(kept & within)


def _steps(values: Sequence[float], absolute: float, ratio: float) -> int:
    """Count the distinct values of a sorted list."""
    count, last = 0, -np.inf
    for value in values:
        if value > last + absolute and value > last * ratio:
            count, last = count + 1, value
    return count
