"""The alternating scheme: what it works on, where it stands, and one round of it.

Background removal needs to know which part of the field is local, and inversion which part is not.
So they take turns: the sources outside explain what the susceptibility inside does not, and the
susceptibility explains what is left.  Expected sources outside start small, so that the rim does
not drink the local field, and grow from round to round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.models.susceptibility.background_record import check_field
from cordqa.models.susceptibility.background_sources import SourceFit, fill_holes, source_fit
from cordqa.models.susceptibility.dipole import Dipole, Padding, pad_for
from cordqa.models.susceptibility.harmonics import unit_harmonics
from cordqa.models.susceptibility.inversion_judge import (
    data_weights,
    field_noise,
    noise_regularisation,
    robust_weights,
    spike_weights,
)
from cordqa.models.susceptibility.inversion_tv import TotalVariation

__all__ = ["ChainState", "Problem", "prepare_problem"]

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Mask = NDArray[np.bool_]
Index = NDArray[np.intp]

#: Degree of the harmonics that stay free.
_DEGREE = 4
#: Expected size of the sources outside over those inside, in the first and the last round.
_FIRST_RATIO, _LAST_RATIO = 60.0, 240.0
_LEAST_SOURCE_ITERATIONS = 20
#: Sources inside the mask are this much smaller than steps of susceptibility, as a variance ratio.
_SOURCE_DAMPING = 10.0
#: Inversions of one local field, each with weights from the residuals of the one before.
_PASSES, _PASS_ITERATIONS = 4, 20
#: Iterations of the inversion that gives contrast back.
_SHARPENING_ITERATIONS = 40
#: Residuals beyond this many standard deviations are no background either.  Smaller ones at the rim
#: often are, so they keep their weight there.
_WILD = 10.0
#: The rounds end when the local field changes by less than this part of its own scatter.
_SETTLED = 0.015
_LEAST_ROUNDS = 3
#: Voxels of less than this weight wait for the second of two passes.
_RELIABLE_WEIGHT = 0.5
_LEAST_SLICES = 3
_LARGEST_SPREAD_PPM = 30.0


class _Effort(NamedTuple):
    """How much is done: a cord takes its time, a brain would take too much."""

    rounds: int
    #: Conjugate gradients without noise; stopping early regularises, so more noise means fewer.
    source_iterations: int
    #: Part of them in later rounds, which then start from the sources outside of the round before; 1 starts
    #: anew.  In a cord, whose rim is all around, that would let the rim drink local field.
    later: float
    inversion_iterations: int


_SMALL, _LARGE, _LARGE_GRID = _Effort(8, 45, 1.0, 10), _Effort(6, 40, 0.4, 15), 300_000


@dataclass(frozen=True, slots=True)
class Problem:
    """A field on its padded grid.

    Attributes
    ----------
    padding : Padding
    dipole : Dipole
    given : ndarray
        The total field as it came.
    used : ndarray of bool
        Voxels of the mask with a value, in the shape of the image.
    inside, tissue : ndarray of bool
        The same on the padded grid, and filled and continued beyond the image.
    field, weight, error : ndarray of float32
        On the padded grid; error is one standard deviation, ppm.
    noise_ppm : float
        Standard deviation of a reliable voxel.
    error_known : bool
    harmonics : tuple of ndarray
        Flat indices of ``inside``, and the free fields there.
    """

    padding: Padding
    dipole: Dipole
    given: Array
    used: Mask
    inside: Mask
    tissue: Mask
    field: Single
    weight: Single
    error: Single
    noise_ppm: float
    error_known: bool
    harmonics: tuple[Index, Single]

    def narrowed(self, valid: Mask) -> Problem:
        """Return the problem for fewer voxels."""
        inside = self.padding.embed_mask(valid)
        return replace(
            self,
            used=valid,
            inside=inside,
            weight=np.where(inside, self.weight, np.float32(0)),
            harmonics=_free_fields(inside, self.dipole),
        )


def prepare_problem(
    total_field: Array,
    standard_error: Array | None,
    mask: Mask,
    *,
    voxel_size_mm: Sequence[float] | Array,
    b0_direction: Sequence[float] | Array,
) -> Problem:
    """Check the input and place it on a padded grid.

    Raises
    ------
    InputError
    """
    field, used = check_field(total_field, mask)
    voxel = _check_geometry(used, voxel_size_mm)
    _check_unit(field[used])
    if standard_error is not None and standard_error.shape != mask.shape:
        raise InputError(
            "field and standard error have different shapes",
            found=f"{standard_error.shape}",
            expected=f"{mask.shape}",
        )
    known = standard_error is not None and bool(np.isfinite(standard_error[used]).any())
    error = np.zeros(mask.shape)
    if standard_error is not None and known:
        error = _filled_error(standard_error, used)
        noise = float(np.median(error[used]))
    else:
        noise = field_noise(field, used)
    weight = data_weights(error, used)
    padding = pad_for(used)
    inside = padding.embed_mask(used)
    dipole = Dipole(padding.shape, voxel, b0_direction)
    return Problem(
        padding=padding,
        dipole=dipole,
        given=total_field,
        used=used,
        inside=inside,
        tissue=padding.extend_mask(fill_holes(used)),
        field=padding.embed(field),
        weight=padding.embed(weight),
        error=padding.embed(np.where(used, error, 0)),
        noise_ppm=noise,
        error_known=known,
        harmonics=_free_fields(inside, dipole),
    )


def _check_unit(values: Array) -> None:
    spread = float(np.percentile(np.abs(values - np.median(values)), 95))
    if spread > _LARGEST_SPREAD_PPM:
        raise InputError(
            "the field is too wide to be in ppm",
            found=f"{spread:.0f} ppm around its median",
            expected=f"below {_LARGEST_SPREAD_PPM:.0f} ppm: air beside tissue makes less than 10",
            todo="divide a field in Hz by the frequency of 1 ppm",
        )


def _check_geometry(used: Mask, voxel_size_mm: Sequence[float] | Array) -> Array:
    voxel = np.asarray(voxel_size_mm, dtype=float)
    if voxel.shape != (3,) or not np.all(np.isfinite(voxel)) or np.any(voxel <= 0):
        raise InputError(
            "the voxel size cannot be used", found=str(voxel.tolist()), expected="three positive lengths, mm"
        )
    thin = [int(used.any(axis=tuple(j for j in range(3) if j != i)).sum()) for i in range(3)]
    if min(thin) < _LEAST_SLICES:
        raise InputError(
            "the mask is too thin for susceptibility mapping: a dipole reaches out of the slice",
            found=f"{' x '.join(map(str, thin))} voxels",
            expected=f"at least {_LEAST_SLICES} along every axis",
            todo="acquire a three-dimensional scan with more slices",
        )
    return voxel


def _filled_error(standard_error: Array, used: Mask) -> Array:
    """Give voxels without a usable error a hundred times the median: they count for little."""
    usable = np.isfinite(standard_error) & (standard_error >= 0)
    middle = float(np.median(standard_error[used & usable])) if (used & usable).any() else 0.0
    return np.where(
        usable, np.minimum(np.where(usable, standard_error, 0), 100 * max(middle, 1e-9)), 100 * middle
    )


def _free_fields(inside: Mask, dipole: Dipole) -> tuple[Index, Single]:
    return np.flatnonzero(inside), unit_harmonics(inside, dipole.voxel_size_mm, _DEGREE)


def _source_iterations(most: int, noise_ppm: float) -> int:
    part = np.sqrt(noise_regularisation(0.0) / noise_regularisation(noise_ppm))
    return max(round(most * float(part)), _LEAST_SOURCE_ITERATIONS)


def _left(local: Single, solver: TotalVariation) -> Single:
    return np.asarray(local - solver.predicted, dtype=np.float32)


class ChainState:
    """Where the chain stands.

    Parameters
    ----------
    problem : Problem
    local_field : ndarray, optional
        In the shape of the image; the total field itself unless told.

    Attributes
    ----------
    local, chi, weight : ndarray of float32
        On the padded grid.
    solver, sharper : TotalVariation
        Of the local field, and of the inversion that gives contrast back (None before it).
    rounds : int
    change : float
        What the last round changed in the local field, over its scatter.
    """

    def __init__(self, problem: Problem, local_field: Array | None = None) -> None:
        self.problem = problem
        self.local = problem.field if local_field is None else problem.padding.embed(local_field)
        self.chi = np.zeros_like(self.local)
        self.weight = problem.weight
        self._source_weight = problem.weight
        self.solver = TotalVariation(problem.dipole)
        self.sharper: TotalVariation | None = None
        self.rounds = 0
        self.change = 0.0

    def alternate(self, strength: float, rounds: int | None) -> None:
        """Run the rounds, until the local field has settled."""
        problem = self.problem
        self.weight = spike_weights(problem.weight, problem.field, problem.error, problem.inside)
        self._source_weight = self.weight
        effort = _LARGE if problem.field.size > _LARGE_GRID else _SMALL
        rounds = effort.rounds if rounds is None else rounds
        first = iterations = _source_iterations(effort.source_iterations, problem.noise_ppm)
        field, inside = problem.field, problem.inside
        ratios = np.geomspace(_FIRST_RATIO, _LAST_RATIO, rounds) if rounds > 1 else [_FIRST_RATIO]
        outside: Single | None = None
        for ratio in ratios:
            before = self.local
            own = problem.dipole(np.where(problem.tissue, self.chi, np.float32(0)))
            known = np.where(inside, field - own, np.float32(0)) if self.rounds else field
            background, sources = self._sources().fit(
                known, ratio=float(ratio), inside=1.0, iterations=iterations, start=outside
            )
            if effort.later < 1:
                iterations = max(round(first * effort.later), 1)
                outside = np.where(problem.tissue, np.float32(0), sources)
            self.local = np.where(inside, field - background, np.float32(0))
            self._invert(strength, effort.inversion_iterations, free=True)
            self.rounds += 1
            scatter = max(float(np.std(self.local[inside])), 1e-12)
            self.change = float(np.std((self.local - before)[inside])) / scatter
            if self.change < _SETTLED and self.rounds >= _LEAST_ROUNDS:
                break

    def _sources(self) -> SourceFit:
        """Prepare the fit of sources; wild voxels that the last round showed count for little."""
        problem = self.problem
        damping = _SOURCE_DAMPING * noise_regularisation(problem.noise_ppm, squared=True)
        return source_fit(
            problem.dipole, problem.tissue, self._source_weight, problem.harmonics, damping=damping
        )

    def settle(self, strength: float, *, free: bool) -> None:
        """Invert a local field that stays as it is, but for its harmonics where they are free."""
        for _ in range(_PASSES):
            self._invert(strength, _PASS_ITERATIONS, free=free)

    def _invert(self, strength: float, iterations: int, *, free: bool) -> None:
        problem = self.problem
        harmonics = problem.harmonics if free else None
        self.chi = self.solver.solve(
            self.local, self.weight, strength, iterations=iterations, harmonics=harmonics
        )
        residual = self._take(self.solver)
        self.weight = robust_weights(problem.weight, residual, problem.error, problem.inside)
        self._source_weight = robust_weights(
            problem.weight, residual, problem.error, problem.inside, tail=_WILD
        )

    def _take(self, solver: TotalVariation) -> Single:
        """Let the local field follow the free harmonics; return what is left unexplained of it."""
        if solver.harmonic_field is not None:
            self.local = self.local + solver.harmonic_field
        return _left(self.local, solver)

    def sharpen(self, strength: float, *, free: bool) -> None:
        """Give the susceptibility back the contrast that total variation took."""
        self.sharper = self.solver.copy()
        self.chi = self.sharper.solve(
            self.with_rest(self.local, self.solver),
            self.weight,
            strength,
            iterations=_SHARPENING_ITERATIONS,
            harmonics=self.problem.harmonics if free else None,
        )
        self._take(self.sharper)

    def with_rest(self, local: Single, solver: TotalVariation) -> Single:
        """Add to a local field what an inversion left of it.

        Total variation pays for contrast and so takes too little of it; the rest is in the residual,
        with the noise.  This is one step of the iteration of Osher et al. 2005 (doi:10.1137/040605412);
        the weights keep out what does not fit.
        """
        return np.asarray(local + _left(local, solver) * self.weight**2, dtype=np.float32)

    def second_pass(self, strength: float) -> None:
        """Invert again without the doubtful voxels, and take their place from the first result."""
        problem = self.problem
        reliable = self.weight >= _RELIABLE_WEIGHT
        if reliable.sum() < 0.5 * problem.inside.sum():
            return
        alone = TotalVariation(problem.dipole, radians_per_ppm=self.solver.radians_per_ppm)
        weight = np.where(reliable, self.weight, np.float32(0))
        alone.solve(self.local, weight, strength, iterations=_PASSES * _PASS_ITERATIONS)
        known = self.with_rest(self.local, alone)
        chi = alone.solve(known, weight, strength, iterations=_SHARPENING_ITERATIONS)
        shift = np.float32(np.mean(self.chi[reliable] - chi[reliable]))
        self.chi = np.where(reliable, chi + shift, self.chi)
