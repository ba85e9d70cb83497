"""From the total field to susceptibility: background, inversion and what judges them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cordqa.models.susceptibility.background_laplace import remove_by_boundary
from cordqa.models.susceptibility.background_record import Background, kept
from cordqa.models.susceptibility.background_smv import (
    remove_by_iterated_means,
    remove_by_regularised_means,
    remove_by_varying_means,
)
from cordqa.models.susceptibility.background_sources import remove_by_projection
from cordqa.models.susceptibility.chain_record import (
    BACKGROUNDS,
    INVERSIONS,
    TOTAL_VARIATION,
    ChainSettings,
    Reconstruction,
    check_settings,
)
from cordqa.models.susceptibility.chain_repeats import draw_noise, make_replica
from cordqa.models.susceptibility.chain_state import ChainState, Problem, prepare_problem
from cordqa.models.susceptibility.inversion_direct import invert_by_division, invert_by_smoothness
from cordqa.models.susceptibility.inversion_judge import noise_regularisation, streak_index
from cordqa.models.susceptibility.inversion_rts import invert_in_two_steps
from cordqa.models.susceptibility.uncertainty import pooled_standard_error

__all__ = ["BACKGROUNDS", "INVERSIONS", "ChainSettings", "Reconstruction", "reconstruct"]

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Mask = NDArray[np.bool_]

_WITH_ERROR = (*TOTAL_VARIATION, "l2", "tkd")
#: Inversions whose penalty grows with the noise, and the noise of the field, ppm, from which it takes a third
#: of the contrast of spheres of 15 mm in simulated brains; at twice of it, all.
_WITH_PENALTY, _FLATTENING = (*TOTAL_VARIATION, "l2"), 0.009
#: Voxels of the padded grid below which one more inversion is quick.
_QUICK_GRID = 300_000
_DOUBTFUL_WEIGHT = 0.3
_MANY_DOUBTFUL = 0.05
#: Voxels per free harmonic below which too little is left: of 216 voxels in all a quarter of the contrast is
#: lost, of 27 all of it.
_PER_FIELD = 10
#: One realisation of noise alone says too little of its size.
_LEAST_DRAWS = 2
#: Part of its scatter by which a last round may change the local field without mention.
_UNSETTLED = 0.05


def reconstruct(
    total_field: Array,
    standard_error: Array | None,
    mask: Mask,
    *,
    voxel_size_mm: Sequence[float] | Array,
    b0_direction: Sequence[float] | Array,
    settings: ChainSettings | None = None,
    noise: Callable[[np.random.Generator], Single] | None = None,
) -> Reconstruction:
    """Reconstruct susceptibility from the total field.

    Parameters
    ----------
    total_field : ndarray, shape (x, y, z)
        Relative field change, ppm (of :func:`~cordqa.models.susceptibility.field.fit_field`);
        positive where the field is stronger than the main field.  Voxels of the mask that are not
        finite are left out and counted.
    standard_error : ndarray, shape (x, y, z), or None
        One standard deviation of the field, ppm; None weighs all voxels alike.
    mask : ndarray of bool, shape (x, y, z)
        At least three slices.
    voxel_size_mm : sequence of float
        Along each array axis.
    b0_direction : sequence of float
        Main field in array axes; its length does not matter, its sign neither.
    settings : ChainSettings, optional
    noise : callable, optional
        Makes a realisation of the noise of the field, ppm, in the shape of the mask (of
        :class:`~cordqa.models.susceptibility.field_noise.FieldNoise`); otherwise noise is drawn from
        the standard error, independent from voxel to voxel.

    Raises
    ------
    InputError
        If shapes differ, the mask is empty or thinner than three voxels, the direction is zero,
        the field cannot be in ppm, or a setting is unknown.
    """
    chosen = check_settings(settings or ChainSettings())
    mask = np.asarray(mask, dtype=bool)
    problem = prepare_problem(
        total_field, standard_error, mask, voxel_size_mm=voxel_size_mm, b0_direction=b0_direction
    )
    removed = _remove(total_field, mask, problem, chosen)
    if removed is not None:
        problem = problem.narrowed(removed.valid)
    own = noise_regularisation(problem.noise_ppm, squared=chosen.inversion == "l2")
    strength = own if chosen.regularisation is None else chosen.regularisation
    state = ChainState(problem, None if removed is None else np.nan_to_num(removed.local_ppm))
    if chosen.background == "alternating":
        # Another inversion has a scale of its own; the rounds before it keep that of total variation.
        between = strength if chosen.inversion in TOTAL_VARIATION else noise_regularisation(problem.noise_ppm)
        state.alternate(between, chosen.rounds)
    _invert(state, strength, chosen)
    draws = None
    if chosen.probes and problem.error_known and chosen.inversion in _WITH_ERROR:
        draws = draw_noise(state, strength, chosen, noise)
    found = _record(state, strength, chosen, removed, total_field, mask, draws)
    if _wants_replica(chosen, problem):
        again = np.where(found.valid, problem.padding.crop(make_replica(state, strength, chosen)), np.nan)
        found = replace(found, replica_ppm=again - np.nanmean(again))
    return found


def _wants_replica(settings: ChainSettings, problem: Problem) -> bool:
    if settings.inversion not in TOTAL_VARIATION:
        return False
    if settings.replica is None:
        return settings.probes > 0 and problem.field.size < _QUICK_GRID
    return settings.replica


def _remove(total: Array, mask: Mask, problem: Problem, settings: ChainSettings) -> Background | None:
    """Remove the background in one step; None where the rounds do it, or nothing has to be done."""
    voxel, direction = problem.dipole.voxel_size_mm, problem.dipole.direction
    match settings.background:
        case "pdf":
            weight = problem.padding.crop(problem.weight)
            return remove_by_projection(
                total, mask, voxel_size_mm=voxel, b0_direction=direction, weight=weight
            )
        case "lbv":
            return remove_by_boundary(total, mask, voxel_size_mm=voxel)
        case "v-sharp":
            return remove_by_varying_means(total, mask, voxel_size_mm=voxel)
        case "resharp":
            return remove_by_regularised_means(total, mask, voxel_size_mm=voxel)
        case "ismv":
            return remove_by_iterated_means(total, mask, voxel_size_mm=voxel)
        case _:
            return None


def _invert(state: ChainState, strength: float, settings: ChainSettings) -> None:
    """Run the chosen inversion on the local field."""
    dipole, local = state.problem.dipole, state.local
    match settings.inversion:
        case "tkd":
            state.chi = invert_by_division(dipole, local)
        case "l2":
            state.chi = invert_by_smoothness(dipole, local, strength)
        case "rts":
            state.chi = invert_in_two_steps(dipole, local, state.weight)
        case "nonlinear-tv":
            state.solver = state.solver.copy(radians_per_ppm=settings.radians_per_ppm)
            state.settle(strength, free=settings.background != "none")
        case _ if settings.background != "alternating":
            state.settle(strength, free=settings.background != "none")
        case _:
            pass
    if settings.inversion in TOTAL_VARIATION:
        state.sharpen(strength, free=settings.background != "none")
    if settings.two_pass:
        state.second_pass(strength)


def _record(
    state: ChainState,
    strength: float,
    settings: ChainSettings,
    removed: Background | None,
    total: Array,
    mask: Mask,
    draws: Single | None,
) -> Reconstruction:
    problem, crop = state.problem, state.problem.padding.crop
    valid = problem.used
    local = crop(state.local)
    chi = np.where(valid, crop(state.chi), np.nan)
    notices = (() if removed is None else removed.notices) + _notices(state, settings, valid, mask)
    return Reconstruction(
        chi_ppm=chi - np.nanmean(chi),
        standard_error_ppm=None if draws is None else pooled_standard_error(draws, valid),
        draws_ppm=draws,
        local_field_ppm=np.where(valid, local, np.nan),
        background_ppm=np.where(valid, total - local, np.nan),
        residual_ppm=np.where(valid, local - crop(problem.dipole(state.chi)), np.nan),
        weights=np.where(valid, crop(state.weight), 0.0),
        valid=valid,
        kept_fraction=kept(valid, mask),
        regularisation=strength if settings.inversion not in ("tkd", "rts") else math.nan,
        rounds=state.rounds,
        streak=streak_index(problem.dipole, np.where(problem.inside, state.chi, 0).astype(np.float32)),
        methods=(*_background_sentence(state, settings, removed), _inversion_sentence(strength, settings)),
        notices=notices,
        warnings=_warnings(problem, settings),
    )


def _warnings(problem: Problem, settings: ChainSettings) -> tuple[str, ...]:
    """Say where contrast is lost that no standard error tells of."""
    said = []
    index, fields = problem.harmonics
    if settings.background != "none" and index.size < _PER_FIELD * fields.shape[1]:
        said.append(
            f"only {index.size} voxels have a field: the {fields.shape[1]} free harmonics of the background "
            "explain much of it, and contrast with it"
        )
    own = settings.inversion in _WITH_PENALTY and settings.regularisation is None
    if own and problem.noise_ppm > _FLATTENING:
        said.append(_flattened(problem.noise_ppm))
    return tuple(said)


def _flattened(noise_ppm: float) -> str:
    return (
        f"the noise of the field ({noise_ppm:.3f} ppm) is so large that the regularisation flattens "
        "contrasts, of which no standard error tells: a value near zero may be a lost one (acquire more "
        "signal; --regularisation lowers the penalty and lets noise in)"
    )


def _notices(state: ChainState, settings: ChainSettings, valid: Mask, mask: Mask) -> tuple[str, ...]:
    notices = []
    missing = int(np.count_nonzero(mask & ~np.isfinite(state.problem.given)))
    if missing:
        notices.append(f"{missing} voxels of the mask have no field and are left out")
    if not state.problem.error_known:
        notices.append(
            "no error map of the field: all voxels weigh alike, and its noise "
            f"({state.problem.noise_ppm:.4f} ppm) was taken from its fourth differences"
        )
        if settings.probes:
            notices.append("no standard error of susceptibility without an error map of the field")
    elif settings.probes and settings.inversion not in _WITH_ERROR:
        notices.append(f"there is no standard error of susceptibility for the inversion {settings.inversion}")
    if settings.replica and settings.inversion not in TOTAL_VARIATION:
        notices.append(f"what the inversion {settings.inversion} passes on of contrasts is not computed")
    elif settings.replica and (settings.probes < _LEAST_DRAWS or not state.problem.error_known):
        notices.append(
            "what the inversion passes on is not said of any contrast: without two noise realisations none "
            "can be told from noise"
        )
    if state.change > _UNSETTLED:
        notices.append(
            f"the last of {state.rounds} rounds still changed the local field by "
            f"{100 * state.change:.0f} % of its scatter"
        )
    low = float((state.weight[state.problem.inside] < _DOUBTFUL_WEIGHT).mean())
    if low > _MANY_DOUBTFUL:
        notices.append(f"{100 * low:.0f} % of the voxels fit so badly that they lost most of their weight")
    return tuple(notices)


def _background_sentence(
    state: ChainState, settings: ChainSettings, removed: Background | None
) -> tuple[str, ...]:
    if removed is not None:
        return (removed.method,)
    if settings.background == "none":
        return ("The field was taken as local: no background was removed.",)
    return (
        f"Background field and susceptibility were found in {state.rounds} alternating rounds: sources "
        "outside the filled mask, weaker ones inside it and free solid harmonics to degree 4 by conjugate "
        "gradients, then total variation with the harmonics left free; the whole mask was kept.",
    )


def _inversion_sentence(strength: float, settings: ChainSettings) -> str:
    origin = "from the noise" if settings.regularisation is None else "as given"
    value = f"lambda {strength:.2g} ({origin})"
    method = {
        "tv": f"noise-weighted total variation by ADMM, {value}, voxels whose residual exceeds the noise "
        "weighted down, the residual added back once",
        "nonlinear-tv": f"noise-weighted total variation of the complex signal by ADMM, {value}, the "
        "residual added back once",
        "rts": "rapid two-step inversion",
        "l2": f"closed-form least squares with a quadratic penalty of the gradient, {value}",
        "tkd": "truncated k-space division at 0.15, corrected for underestimation",
    }[settings.inversion]
    passes = " Reliable voxels were inverted first, then all." if settings.two_pass else ""
    return f"Susceptibility was inverted with {method}.{passes}"
