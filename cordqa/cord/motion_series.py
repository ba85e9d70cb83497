"""The state of one estimation of motion: crops of the slices, predictions, and what is known so far.

Used by :mod:`cordqa.cord.motion`, which explains the method.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.motion_linear import measure_steps, place_planes, tie_images
from cordqa.cord.motion_prior import regularise, slice_patterns
from cordqa.cord.motion_records import Motion, MotionSettings
from cordqa.cord.motion_slices import LEAST_VOXELS, near_cord, register_slices
from cordqa.errors import EmptyInputError
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.diffusion.preprocess_prediction import contrast_groups, left_out_matrix

__all__ = ["MotionSeries"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Largest step of one round, in voxels.
_LARGEST_STEP = 1.5
#: Pixels kept around the compared ones, so that planes can move.
_ROOM = 6
#: A mask with a larger section (mm2) is no cord but a region of interest.
_LARGEST_CORD_MM2 = 170.0
#: Error (voxels) of mutual information with so few pixels, by which it is drawn to whole voxels.
_MUTUAL_ERROR = 0.25
#: Shells with fewer volumes predict a direction too noisily to be taken as it is.
_MANY = 18
#: Degree of the polynomial from the brightness of the mean to that of one direction.
_POWERS = 3
#: A line along the cord is held back as if one voxel of tilt were a standard deviation.
_RIDGE = (1e-6, 1.0)


@dataclass(slots=True)
class _Slice:
    """Crop of one slice around the compared pixels."""

    box: tuple[slice, slice]
    inside: Mask
    lever: tuple[Array, Array]
    raw: Array  # (n_volumes, n_right, n_anterior)
    use: Mask  # volumes that hold anything
    centre: Array
    coefficients: Array  # of the cubic splines through them


class MotionSeries:
    """A series of which the motion is being estimated.

    Raises
    ------
    EmptyInputError
        If the series holds nothing in the mask.
    """

    def __init__(
        self,
        data: NDArray[Any],
        cord: Mask,
        gradients: GradientTable,
        spacing_mm: tuple[float, float, float],
        exclude: Mask | None,
        settings: MotionSettings,
    ) -> None:
        self.settings, self.gradients, self.spacing_mm = settings, gradients, spacing_mm
        self.aspect = spacing_mm[1] / spacing_mm[0]
        self.cord, self.groups = cord, contrast_groups(gradients)
        self.n_slices, self.n_volumes = data.shape[2], data.shape[3]
        self.planes = {}
        for z in range(self.n_slices):
            left_out = np.zeros(self.n_volumes, dtype=bool) if exclude is None else exclude[z]
            plane = _crop(data[:, :, z], cord[:, :, z], left_out, spacing_mm, settings.margin_mm)
            if plane is not None:
                self.planes[z] = plane
        if not self.planes:
            raise EmptyInputError("the series holds no signal in the mask of the cord")
        shape = (self.n_volumes, self.n_slices, 2)
        self.shift, self.error = np.zeros(shape), np.full(shape, np.inf)
        self.offset = {int(group): np.zeros((self.n_slices, 2)) for group in np.unique(self.groups)}
        self.turn, self.turn_error = np.zeros(self.n_volumes), np.zeros(self.n_volumes)
        self.measured = np.zeros(shape[:2], dtype=bool)
        self.spread: dict[str, float] = {}
        self.tied: list[str] = []
        # The contrast with most volumes is the frame of all.
        counts = {g: int((self.groups == g).sum()) for g in self.offset}
        self.reference = max(counts, key=lambda g: counts[g])
        self.matrices: dict[tuple[bytes, bool], Array] = {}

    # -- measuring -----------------------------------------------------------------------------------

    def sharpen(self, smoothing: float) -> None:
        """Prepare spline coefficients of the planes, smoothed by so many voxels."""
        from scipy.ndimage import gaussian_filter, spline_filter

        for plane in self.planes.values():
            smooth = plane.raw if smoothing == 0 else gaussian_filter(plane.raw, (0, smoothing, smoothing))
            plane.coefficients = np.stack([spline_filter(p, order=3, mode="mirror") for p in smooth])

    def improve(self, freedom: str) -> None:
        """Measure what is left of the motion in every slice, and regularise."""
        shape = (self.n_volumes, self.n_slices, 3 if self._turning(freedom) else 2)
        step, variance = np.zeros(shape), np.full(shape, np.inf)
        for z, plane in self.planes.items():
            images = self._placed(z, plane)
            matrix = self._matrix(plane.use, angular=freedom == "free")
            predicted = np.einsum("vw,wij->vij", np.nan_to_num(matrix), images, optimize=True)
            if freedom == "free":
                self._steady(predicted, images, plane)
            predicted[~np.isfinite(matrix).all(axis=1)] = np.nan
            lever = plane.lever if self._turning(freedom) else None
            found = measure_steps(images, predicted, plane.inside, lever=lever)
            step[:, z], variance[:, z] = found.step, np.where(plane.use[:, None], found.variance, np.inf)
        self.measured = np.isfinite(variance[:, :, 0])
        step[:, :, :2] = np.clip(step[:, :, :2], -_LARGEST_STEP, _LARGEST_STEP)
        total = self.shift + step[:, :, :2]
        if freedom == "free":
            self._regularise(total, variance[:, :, :2])
        else:
            self._pool(total, variance[:, :, :2], line=freedom == "line")
        if self._turning(freedom):
            self._turn(step[:, :, 2], variance[:, :, 2])
        self._centre()

    def _steady(self, predicted: Array, images: Array, plane: _Slice) -> None:
        """Make predictions that do not follow the motion of the volumes they are made from.

        A displacement that happens to depend on direction as the signal does would else be predicted, and so
        never be found; and each of two volumes would jump to where the other one was.
        """
        for group in self.offset:
            mine = self.groups == group
            used = mine & plane.use
            if used.sum() < 2:
                continue
            mean = images[used].mean(axis=0)
            if used.sum() < _MANY and not self.gradients.is_b0[mine].any():
                predicted[mine] = _like_mean(predicted[mine], mean, plane.inside)
            else:
                predicted[mine] -= self._like_motion(predicted[mine] - mean, mean, plane)

    def _like_motion(self, angular: Array, mean: Array, plane: _Slice) -> Array:
        """Return what of the angular part of predictions looks like a displacement of the mean."""
        slopes = np.stack([np.gradient(mean, axis=axis) for axis in range(2)])
        if self.settings.rotation:
            turn = plane.lever[0] * slopes[0] + plane.lever[1] * slopes[1]
            slopes = np.concatenate([slopes, turn[None]])
        basis = np.concatenate([slopes, mean[None], np.ones((1, *mean.shape))])
        part = np.linalg.lstsq(basis[:, plane.inside].T, angular[:, plane.inside].T, rcond=None)[0]
        return np.asarray(np.tensordot(part[: len(slopes)].T, slopes, axes=1), dtype=float)

    def _turning(self, freedom: str) -> bool:
        return self.settings.rotation and freedom != "volume"

    def _placed(self, z: int, plane: _Slice) -> Array:
        return place_planes(plane.coefficients, self.shift[:, z], self.turn, self.aspect, plane.centre)

    def _matrix(self, use: Mask, *, angular: bool) -> Array:
        key = (use.tobytes(), angular)
        if key not in self.matrices:
            self.matrices[key] = left_out_matrix(self.gradients, use, angular=angular, groups=self.groups)
        return self.matrices[key]

    # -- regularising --------------------------------------------------------------------------------

    def _pool(self, total: Array, variance: Array, *, line: bool) -> None:
        """One shift, or a straight line along the cord, per volume."""
        height = np.arange(self.n_slices) / self.n_slices - 0.5
        design = np.stack([np.ones(self.n_slices), height][: 2 if line else 1], axis=1)
        ridge = np.diag(_RIDGE[: design.shape[1]])
        for axis in range(2):
            weight = np.minimum(1.0 / variance[:, :, axis], 1e4)
            known = np.where(weight > 0, total[:, :, axis], 0.0)
            left = np.einsum("zi,vz,zj->vij", design, weight, design) + ridge
            right = np.einsum("zi,vz,vz->vi", design, weight, known)
            self.shift[:, :, axis] = np.linalg.solve(left, right[..., None])[..., 0] @ design.T

    def _regularise(self, total: Array, variance: Array) -> None:
        height = np.arange(self.n_slices, dtype=float) * self.spacing_mm[2]
        known = np.asarray(np.isfinite(variance[:, :, 0]).any(axis=0), dtype=bool)
        patterns = slice_patterns(height, known, interleaved=self.settings.interleaved)
        # Where a contrast lies as a whole is no motion.
        place = np.stack([self.offset[int(group)] for group in self.groups])
        for axis, name in enumerate(("first axis", "second axis")):
            own = total[:, :, axis] - place[:, :, axis]
            found = regularise(own, variance[:, :, axis], patterns, self._blocks())
            self.shift[:, :, axis] = found.value + place[:, :, axis]
            self.error[:, :, axis] = found.error
            self.spread |= {f"{name}, {part}": value for part, value in found.spread.items()}

    def _blocks(self) -> list[NDArray[np.intp]]:
        """Neighbouring volumes, with and without weighting apart."""
        size, is_b0 = self.settings.group_size, self.gradients.is_b0
        members = [np.flatnonzero(is_b0), np.flatnonzero(~is_b0)]
        return [mine[n : n + size] for mine in members for n in range(0, mine.size, size)]

    def _turn(self, step: Array, variance: Array) -> None:
        """One rotation per volume, weighed against how much the volumes differ."""
        weight = (1.0 / variance).sum(axis=1)
        known = weight > 0
        if not known.any():
            return
        error2 = 1.0 / weight[known]
        value = (self.turn + (step / variance).sum(axis=1) / np.where(known, weight, 1.0))[known]
        seen = float(np.mean(value**2)) + 1e-12
        for _ in range(20):
            w = 1.0 / (seen + error2)
            seen *= float(np.sqrt((w**2 * value**2).sum() / w.sum()))
        self.turn, self.turn_error = np.zeros(self.n_volumes), np.full(self.n_volumes, np.sqrt(seen))
        self.turn[known] = value * seen / (seen + error2)
        self.turn_error[known] = np.sqrt(seen * error2 / (seen + error2))

    def _centre(self) -> None:
        """Each contrast lies, on average, at its own place against the frame of all."""
        for group, offset in self.offset.items():
            mine = self.groups == group
            self.shift[mine] += offset - self.shift[mine].mean(axis=0)
            self.turn[mine] -= self.turn[mine].mean()

    # -- contrasts -----------------------------------------------------------------------------------

    def tie_contrasts(self) -> None:
        """Find where the mean of every contrast lies against that of the reference."""
        self.tied = []
        fixed = self._mean(self.reference)
        tight = self._is_cord()
        for group in self.offset:
            if group == self.reference:
                continue
            moving = self._mean(group)
            guess = register_slices(moving, fixed, self.cord, spacing_mm=self.spacing_mm)
            # Mutual information is drawn to whole voxels by up to this much.
            clear = guess.measurable and float(np.abs(guess.found_voxels).max()) > _MUTUAL_ERROR
            step, error = -guess.shift_voxels * clear, np.full(2, np.inf if not clear else _MUTUAL_ERROR)
            if tight:
                step, error = tie_images(moving, fixed, self.cord, self.spacing_mm, step)
            total = self.offset[group] + step
            size = np.abs(total).max(axis=0)
            self.offset[group] = np.where(size > np.maximum(2.0 * error, LEAST_VOXELS), total, 0.0)
            self.tied.append(self._tie_words(group, known=bool(np.isfinite(error).any())))
        self._centre()

    def _tie_words(self, group: int, *, known: bool) -> str:
        pair = f"{self._name(group)} and {self._name(self.reference)}"
        mm = float(np.hypot(*(self.offset[group].mean(axis=0) * np.array(self.spacing_mm[:2]))))
        if not known and mm == 0.0:
            return f"{pair} show too little in common to be tied together; their means are taken as aligned"
        return f"{pair}: means lay {mm:.2f} mm apart"

    def _is_cord(self) -> bool:
        """Whether the mask is the cord itself, and not a wide region around it."""
        area = self.cord.sum(axis=(0, 1)) * self.spacing_mm[0] * self.spacing_mm[1]
        return float(np.median(area[area > 0])) < _LARGEST_CORD_MM2

    def _mean(self, group: int) -> Array:
        """Mean of a contrast in its present alignment, not smoothed; zero beyond the crops."""
        from scipy.ndimage import spline_filter

        out = np.zeros(self.cord.shape)
        for z, plane in self.planes.items():
            mine = (self.groups == group) & plane.use
            if mine.any():
                sharp = np.stack([spline_filter(p, order=3, mode="mirror") for p in plane.raw[mine]])
                moved = place_planes(sharp, self.shift[mine, z], self.turn[mine], self.aspect, plane.centre)
                out[(*plane.box, z)] = moved.mean(axis=0)
        return out

    def _name(self, group: int) -> str:
        b = float(np.median(self.gradients.b_values_s_mm2[self.groups == group]))
        return f"b = {b:.0f} s/mm2"

    # -- result --------------------------------------------------------------------------------------

    def result(self) -> Motion:
        """Collect what was found."""
        centre = np.tile((np.array(self.cord.shape[:2]) - 1) / 2, (self.n_slices, 1))
        for z, plane in self.planes.items():
            centre[z] = plane.centre + np.array([plane.box[0].start, plane.box[1].start])
        # Slices without cord take the shift of the nearest slice that has one.
        known = np.array(sorted(self.planes))
        for z in set(range(self.n_slices)) - set(self.planes):
            near = int(known[np.abs(known - z).argmin()])
            self.shift[:, z], self.error[:, z], centre[z] = self.shift[:, near], np.inf, centre[near]
        return Motion(
            shift_voxels=self.shift,
            error_voxels=self.error,
            turn_deg=np.degrees(self.turn),
            turn_error_deg=np.degrees(self.turn_error),
            centre_voxels=centre,
            measured=self.measured,
            spread_voxels=self.spread,
            spacing_mm=self.spacing_mm,
            sentence=self._sentence(),
            notices=self._notices(),
        )

    def _sentence(self) -> str:
        how = "shifts in the plane" + (" and one rotation per volume" if self.settings.rotation else "")
        return (
            f"Motion was corrected slice by slice ({how}): each volume was compared with its prediction "
            f"from the other volumes of its b-value, within {self.settings.margin_mm:g} mm of the cord, and "
            "shifts were regularised along the cord and over neighbouring volumes by variance components "
            "estimated from the series; slices that moved were resampled once by cubic splines."
        )

    def _notices(self) -> tuple[str, ...]:
        out = []
        if bare := self.n_slices - len(self.planes):
            out.append(
                f"{bare} of {self.n_slices} slices hold no usable cord; they move with the nearest one"
            )
        if not self.measured.any():
            return (*out, "the cord could not be followed in any volume: motion is not known")
        if lost := int((~self.measured[:, sorted(self.planes)]).sum()):
            out.append(
                f"{lost} slices of single volumes could not be measured; their neighbours say how they move"
            )
        if not self._is_cord():
            out.append("the mask is wider than a cord: what surrounds it enters the motion")
        return (*out, *self.tied)


def _like_mean(predicted: Array, mean: Array, inside: Mask) -> Array:
    """Give the mean of a contrast the brightness that is predicted for each direction, by a polynomial."""
    scaled = mean / (float(np.abs(mean[inside]).max()) or 1.0)
    powers = np.stack([scaled**n for n in range(_POWERS + 1)])
    curve = np.linalg.lstsq(powers[:, inside].T, predicted[:, inside].T, rcond=None)[0]
    return np.asarray(np.tensordot(curve.T, powers, axes=1), dtype=float)


def _crop(
    data: NDArray[Any],
    cord: Mask,
    left_out: Mask,
    spacing_mm: tuple[float, float, float],
    margin_mm: float,
) -> _Slice | None:
    """Cut the surroundings of the cord out of one slice; None where there is nothing to compare."""
    if not cord.any():
        return None
    inside = near_cord(cord, spacing_mm, margin_mm)
    where = np.argwhere(inside)
    box = tuple(
        slice(max(0, int(a) - _ROOM), min(n, int(b) + _ROOM + 1))
        for a, b, n in zip(where.min(axis=0), where.max(axis=0), cord.shape, strict=True)
    )
    raw = np.moveaxis(np.asarray(data[box], dtype=float), 2, 0)
    inside = inside[box]
    there = np.isfinite(raw)
    raw = np.where(there, raw, 0.0)
    values, finite = raw[:, inside], there[:, inside]
    use = ~left_out & (finite.mean(axis=1) > 0.5)
    use &= values.std(axis=1) > 0
    if use.sum() < 2:
        return None
    # A pixel that one volume lacks is not compared in any.
    inside = inside & there[use].all(axis=0)
    middle = np.argwhere(cord[box]).mean(axis=0)
    rows, columns = np.indices(inside.shape)
    aspect = spacing_mm[1] / spacing_mm[0]
    lever = (-(columns - middle[1]) * aspect, (rows - middle[0]) / aspect)
    return _Slice(
        box=(box[0], box[1]),
        inside=inside,
        lever=lever,
        raw=raw,
        use=use,
        centre=middle,
        coefficients=raw,
    )
