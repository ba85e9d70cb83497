"""What readout and breathing leave in the phase: odd and even echoes, and slices that do not fit.

With a bipolar readout, gradient delays shift odd and even echoes in opposite directions of k-space:
their phase differs by a plane in space (Robinson et al. 2017, doi:10.1002/nbm.3601).  The second
difference of three echoes shows that plane and nothing of field or offset.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["OddEven", "SliceReport", "estimate_odd_even", "judge_slices", "remove_odd_even"]

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Complex = NDArray[np.complex128]
Mask = NDArray[np.bool_]

#: Echo spacings that differ by less than this share are equal.
_EQUAL = 0.02
#: A plane counts if it spans more than this across the mask, rad, and explains more than chance.
_LEAST_SPAN = 0.1
_PASSES = 3
#: Robust standard deviations beyond which a slice does not fit among the others.
_BEYOND = 5.0
#: Nor is a slice flagged for less than this share of the typical misfit.
_LEAST_EXCESS = 0.3
#: A residual below this harms nothing, rad.
_LEAST_RESIDUAL_RAD = 0.01
#: A slice whose field steps away by less than the first, Hz, is anatomy; by more than the second it is
#: flagged even if many slices do.
_STEP_LIMITS_HZ = (2.0, 5.0)
#: The same for the phase by which an echo of a whole slice lies off the line, rad.
_COMMON_LIMITS_RAD = (0.05, 0.2)
#: How a shift of one slice shows in the steps of the slices around it.
_SHAPE = np.array([1.0, -4.0, 6.0, -4.0, 1.0]) / 6
#: A slice with fewer voxels is not judged, nor one with less than this share of the median slice: where
#: tissue ends, most voxels hold air as well.
_FEWEST, _SMALL = 20, 0.2
_TINY = np.finfo(float).tiny


@dataclass(frozen=True, slots=True)
class OddEven:
    """Phase that changes sign from echo to echo: ``constant + gradient . index``.

    Attributes
    ----------
    gradient_rad : ndarray, shape (3,)
        Per voxel along each axis.
    constant_rad : float
        At index zero; known up to a multiple of pi / 2, and chosen smallest in the middle.
    span_rad : float
        From one end of the mask to the other.
    found : bool
        Whether it is there.
    reason : str
        Why it could not be looked for; empty where it was.
    """

    gradient_rad: Array
    constant_rad: float
    span_rad: float
    found: bool
    reason: str = ""

    @classmethod
    def unknown(cls, reason: str) -> OddEven:
        """Nothing could be found out."""
        return cls(np.zeros(3), 0.0, math.nan, False, reason)


def estimate_odd_even(
    phase: NDArray[np.floating], magnitude: NDArray[np.floating], echo_times_s: Array, mask: Mask
) -> OddEven:
    """Look for a phase that alternates between odd and even echoes.

    Parameters
    ----------
    phase, magnitude : ndarray, shape (x, y, z, n_echoes)
        Wrapped phase in rad.
    echo_times_s : ndarray, shape (n_echoes,)
        Three or more, at equal distances.
    mask : ndarray of bool, shape (x, y, z)
    """
    if echo_times_s.size < 3:
        return OddEven.unknown("fewer than three echoes cannot show whether the readout alternates")
    spacing = np.diff(echo_times_s)
    if np.ptp(spacing) > _EQUAL * spacing.mean():
        return OddEven.unknown("echoes at unequal distances cannot show whether the readout alternates")
    signal = _second_difference(phase, magnitude, mask)
    gradient, constant = np.zeros(3), 0.0
    index = np.argwhere(mask)
    middle = index.mean(axis=0)
    flat = signal[mask]
    for _ in range(_PASSES):
        turned = np.zeros_like(signal)
        turned[mask] = flat * np.exp(-4j * ((index - middle) @ gradient + constant))
        gradient = gradient + _gradient(turned, mask)
        constant += float(np.angle(turned[mask].sum())) / 4
    corrected = flat * np.exp(-4j * ((index - middle) @ gradient + constant))
    span = float(np.abs(gradient * (index.max(0) - index.min(0))).sum())
    power = max(float(np.abs(flat).sum()), _TINY)
    # By chance n unit vectors add up to sqrt(n) of their number: the fit must gain clearly more.
    gain = float(corrected.sum().real - flat.sum().real) / power
    found = span > _LEAST_SPAN and gain > 3 / math.sqrt(flat.size) and gain > 1e-3
    return OddEven(gradient, constant - float(gradient @ middle), span, found)


def _second_difference(phase: NDArray[np.floating], magnitude: NDArray[np.floating], mask: Mask) -> Complex:
    """Sum over triples of echoes of ``S1 S2*^2 S3``, its phase four times the alternating one."""
    wrapped = np.asarray(phase[mask], dtype=float)
    weight = np.asarray(magnitude[mask], dtype=float)
    total = np.zeros(len(wrapped), dtype=complex)
    for echo in range(phase.shape[-1] - 2):
        angle = wrapped[:, echo] - 2 * wrapped[:, echo + 1] + wrapped[:, echo + 2]
        sign = 1.0 if echo % 2 == 0 else -1.0
        total += weight[:, echo : echo + 3].min(axis=1) * np.exp(1j * sign * angle)
    image = np.zeros(mask.shape, dtype=complex)
    image[mask] = total
    return image


def _gradient(image: Complex, mask: Mask) -> Array:
    """Return the phase gradient of an image per voxel, a quarter of it: the mean step between neighbours."""
    steps = []
    for axis in range(3):
        one, inside = np.moveaxis(image, axis, 0), np.moveaxis(mask, axis, 0)
        both = inside[1:] & inside[:-1]
        product = (one[1:] * np.conj(one[:-1]))[both]
        steps.append(float(np.angle(product.sum())) / 4 if product.size else 0.0)
    return np.array(steps)


def remove_odd_even(phase: Single, term: OddEven) -> Single:
    """Subtract the alternating phase; the result is wrapped only where it was.

    Parameters
    ----------
    phase : ndarray, shape (x, y, z, n_echoes)
    term : OddEven
    """
    plane = np.full(phase.shape[:3], term.constant_rad)
    for axis, slope in enumerate(term.gradient_rad):
        ramp = slope * np.arange(phase.shape[axis])
        plane += ramp.reshape([-1 if a == axis else 1 for a in range(3)])
    signs = np.where(np.arange(phase.shape[-1]) % 2 == 0, 1.0, -1.0)
    turned = np.asarray(phase, dtype=float) - plane[..., None] * signs
    return np.asarray(turned - 2 * math.pi * np.round(turned / (2 * math.pi)), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class SliceReport:
    """How slices fit among the others.

    Attributes
    ----------
    axis : int
        Array axis along which slices are counted.
    misfit : ndarray, shape (n_slices, n_echoes)
        Robust residual of the phase over its noise; 1 is noise alone, NaN a slice that was not judged.
    common_rad : ndarray, shape (n_slices, n_echoes)
        Residual that the whole slice shares, less what all slices share; NaN as before.
    step_hz : ndarray, shape (n_slices,)
        How far the field of a slice steps away from that of its neighbours, median over the plane;
        NaN in the two slices at each end.
    jitter_hz : float
        Robust standard deviation of these steps.
    flagged : tuple of int
        Slices that do not fit.
    sentence : str
        What a reader should know; empty where all fit.
    """

    axis: int
    misfit: Array
    common_rad: Array
    step_hz: Array
    jitter_hz: float
    flagged: tuple[int, ...]
    sentence: str


def judge_slices(
    field_hz: Array,
    residual_rad: Array,
    magnitude: Array,
    mask: Mask,
    *,
    noise_sd: float,
    axis: int,
) -> SliceReport:
    """Find slices that breathing or motion has spoilt.

    Within a slice the residual of the fit shows echoes that contradict each other; between slices a
    step of the field shows a shift of the main field from one excitation to the next.

    Parameters
    ----------
    field_hz : ndarray, shape (n_voxels,)
        Of the voxels of the mask.
    residual_rad, magnitude : ndarray, shape (n_voxels, n_echoes)
    mask : ndarray of bool, shape (x, y, z)
    noise_sd : float
        Of one channel, in units of the magnitude; NaN where it is not known.
    axis : int
    """
    where = np.argwhere(mask)[:, axis]
    n = mask.shape[axis]
    score = np.abs(residual_rad) * magnitude / noise_sd if noise_sd > 0 else np.abs(residual_rad) * np.nan
    misfit, size = np.full((n, residual_rad.shape[1]), np.nan), np.zeros(n)
    common = misfit.copy()
    counts = np.bincount(where, minlength=n)
    fewest = max(_FEWEST, _SMALL * float(np.median(counts[counts > 0]))) if counts.any() else _FEWEST
    for k in np.flatnonzero(counts >= fewest):
        own = where == k
        misfit[k] = 1.4826 * np.median(score[own], axis=0)
        size[k] = np.median(np.abs(residual_rad[own]))
        common[k] = np.median(residual_rad[own], axis=0)
    if len(common[counts >= fewest]):
        common -= np.median(common[counts >= fewest], axis=0)
    volume = np.full(mask.shape, np.nan)
    volume[mask] = field_hz
    step = _steps(np.moveaxis(volume, axis, 0), fewest)
    typical = float(np.nanmedian(misfit)) if np.isfinite(misfit).any() else 1.0
    bad = _outside(misfit, _LEAST_EXCESS * typical) & (size > _LEAST_RESIDUAL_RAD)
    bad |= _far(common, _COMMON_LIMITS_RAD).any(axis=1)
    known = step[np.isfinite(step)]
    jitter = float(1.4826 * np.median(np.abs(known))) if known.size else np.nan
    limit = float(np.clip(np.nan_to_num(_BEYOND * jitter), *_STEP_LIMITS_HZ))
    jumps = _shifted(step, limit)
    if jitter > _STEP_LIMITS_HZ[0]:  # where all slices step, a step cannot be laid to one of them
        jumps |= np.nan_to_num(np.abs(step)) > limit
    flagged = tuple(int(k) for k in np.flatnonzero(bad | jumps))
    return SliceReport(axis, misfit, common, step, jitter, flagged, _sentence(bad, jumps, jitter, n))


def _far(values: Array, limits: tuple[float, float]) -> Mask:
    """Find values far from zero: beyond what scatters everywhere, within limits."""
    known = np.abs(values[np.isfinite(values)])
    scatter = 1.4826 * float(np.median(known)) if known.size else 0.0
    far: Mask = np.nan_to_num(np.abs(values)) > float(np.clip(_BEYOND * scatter, *limits))
    return far


def _steps(volume: Array, fewest: float) -> Array:
    """Step of each slice: 1 for a slice that is shifted by 1, little for what varies smoothly."""
    steps = np.full(len(volume), np.nan)
    # A shifted slice bends its neighbours by two thirds as much the other way; anatomy bends all alike.
    # Only voxels that all five slices have are compared.
    for k in range(2, len(volume) - 2):
        step = np.tensordot(_SHAPE, volume[k - 2 : k + 3], axes=1)
        known = step[np.isfinite(step)]
        if known.size >= fewest:
            steps[k] = np.median(known)
    return steps


def _shifted(step: Array, limit: float) -> Mask:
    """Find the slices whose shifts explain the steps: the largest first, less what it does to others."""
    n, left = len(step), np.nan_to_num(step)
    atoms = np.zeros((n, n + 4))
    for k in range(n):
        atoms[k, k : k + 5] = _SHAPE
    # A slice at an end has no step of its own, only what it does to those further in.
    atoms = np.where(np.isfinite(step), atoms[:, 2:-2], 0.0)
    length = np.linalg.norm(atoms, axis=1)
    unit = np.divide(atoms, length[:, None], out=np.zeros_like(atoms), where=length[:, None] > 0)
    least = limit * float(np.linalg.norm(_SHAPE))
    found = np.zeros(n, dtype=bool)
    for _ in range(n):
        size = unit @ left
        k = int(np.argmax(np.abs(size)))
        if not abs(float(size[k])) > least:
            break
        found[k] = True
        left = left - size[k] * unit[k]
    return found


def _outside(values: Array, least: float) -> Mask:
    """Find rows with a value far above the median of its column."""
    found = np.zeros(len(values), dtype=bool)
    for column in values.T:
        known = column[np.isfinite(column)]
        if known.size < 5:
            continue
        middle = np.median(known)
        limit = max(_BEYOND * 1.4826 * float(np.median(np.abs(known - middle))), least)
        found |= np.nan_to_num(column - middle) > limit
    return found


def _sentence(misfit: Mask, step: Mask, jitter_hz: float, n: int) -> str:
    said = []
    if misfit.any():
        said.append(f"in slices {_list(misfit)} of {n} the echoes contradict each other more than elsewhere")
    if step.any():
        said.append(f"in slices {_list(step)} of {n} the field steps away from both neighbours")
    if jitter_hz > _STEP_LIMITS_HZ[0]:
        said.append(f"the field steps from slice to slice everywhere, by {jitter_hz:.1f} Hz (SD)")
    return "; ".join(said) + " (breathing, motion or flow)" if said else ""


def _list(which: Mask) -> str:
    numbers = [str(int(k)) for k in np.flatnonzero(which)]
    return ", ".join(numbers[:10]) + (", ..." if len(numbers) > 10 else "")
