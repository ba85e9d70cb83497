"""The 2024 consensus on susceptibility mapping: what was met, what was not and why, and what to report.

Recommendations of the ISMRM study group on electro-magnetic tissue properties (2024,
doi:10.1002/mrm.30006).  They are for the brain; a cord has no consensus yet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["DOI", "Point", "Processing", "check_consensus", "reporting_table"]

DOI = "10.1002/mrm.30006"
_BASED_ON_SOURCES = {
    "alternating": "sources outside the mask and harmonics, in turns with the inversion (PDF family)",
    "pdf": "PDF",
    "v-sharp": "V-SHARP",
    "resharp": "RESHARP",
    "ismv": "iterative spherical mean value (of the SHARP family)",
}
_SPARSE = {
    "tv": "total variation, weighted by the noise",
    "nonlinear-tv": "total variation with the non-linear signal model",
    "rts": "rapid two-step with total variation",
}
_FEWEST_ECHOES = 3


@dataclass(frozen=True, slots=True)
class Point:
    """One recommendation.

    ``met`` is ``None`` where images alone cannot tell; ``how`` then says what to check.
    """

    number: int
    recommendation: str
    met: bool | None
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Processing:
    """What was done, as far as the consensus asks for it.

    Attributes
    ----------
    version : str
        Of cordqa.
    echo_times_s : sequence of float
    field_strength_t : float
    voxel_size_mm, b0_direction : sequence of float
    readout : str
        ``monopolar``, ``bipolar`` or empty where it is not known.
    mask : {'given', 'widened', 'quality'}
        The user's, the user's cord widened, or made from magnitude and phase.
    quality_excluded : int
        Voxels left out of the mask because their phase was noise.
    background, inversion : str
        Ids of :mod:`cordqa.models.susceptibility.total_field`.
    parameters : mapping
        Numerical parameters of every step.
    reference : str
        Name of the reference region; ``whole mask``.
    reference_mean_ppm, reference_sd_ppm : float
        Of that region, relative to the mean of the whole mask.
    resampled : sequence of str
        What was interpolated.
    encoding : {'', '2D', '3D'}
        Of the acquisition, as its sidecar says.
    """

    version: str
    echo_times_s: Sequence[float]
    field_strength_t: float
    voxel_size_mm: Sequence[float]
    b0_direction: Sequence[float]
    readout: str
    mask: str
    quality_excluded: int
    background: str
    inversion: str
    reference: str
    reference_mean_ppm: float
    reference_sd_ppm: float
    parameters: Mapping[str, Any] = field(default_factory=dict)
    resampled: Sequence[str] = ()
    encoding: str = ""


def check_consensus(done: Processing) -> tuple[Point, ...]:
    """Compare what was done with the eight recommendations."""
    return (
        _acquisition(done),
        Point(
            2,
            "Exact phase unwrapping",
            True,
            "by quality-guided paths, which adds multiples of 2 pi only; a Laplacian is never fitted to",
        ),
        _combination(done),
        _mask(done),
        _background(done),
        _inversion(done),
        _reference(done),
        Point(8, "Report toolbox, algorithms, parameters, units and reference", True, "in this file"),
    )


def _acquisition(done: Processing) -> Point:
    what = "Monopolar 3D multi-echo gradient echo, phase saved and exported"
    n = len(done.echo_times_s)
    if n < _FEWEST_ECHOES:
        few = "one echo" if n == 1 else f"{n} echoes"
        return Point(1, what, False, f"{few}: neither readout nor misfit can be checked")
    if done.readout == "bipolar":
        return Point(1, what, False, "the readout alternates; its phase was estimated and removed")
    if done.encoding == "2D":
        return Point(1, what, False, "the slices were acquired one by one (2D)")
    readout = "without alternating phase" if done.readout else "whether the readout alternates is not known"
    unfiltered = "that its phase is unfiltered only the protocol can tell"
    if done.readout and done.encoding == "3D":
        return Point(1, what, True, f"3D by its sidecar, {n} echoes {readout}; {unfiltered}")
    dimension = "3D by its sidecar" if done.encoding else "check in the protocol that it was 3D"
    return Point(1, what, None, f"{n} echoes, {readout}; {dimension}; {unfiltered}")


def _combination(done: Processing) -> Point:
    what = "Echoes combined before removal of the background"
    if len(done.echo_times_s) == 1:
        return Point(3, what, False, "there is one echo")
    return Point(3, what, True, "weighted fit of phase over echo time, then non-linear refinement")


def _mask(done: Processing) -> Point:
    what = "Mask of the tissue, with the quality of the phase taken into account"
    excluded = f"{done.quality_excluded} voxels whose phase is noise were left out"
    if done.mask == "given":
        return Point(4, what, True, f"mask of the user; {excluded}; the others count by their noise")
    if done.mask == "widened":
        how = f"outline of the cord, widened through voxels with signal and believable phase; {excluded}"
        return Point(4, what, True, how)
    return Point(
        4,
        what,
        False,
        "no mask was given; made from magnitude and the quality of the phase alone",
    )


def _background(done: Processing) -> Point:
    what = "Background removal inside the mask, based on SHARP or PDF"
    if done.background in _BASED_ON_SOURCES:
        return Point(5, what, True, _BASED_ON_SOURCES[done.background])
    why = "no background was removed" if done.background == "none" else f"{done.background} was chosen"
    return Point(5, what, False, why)


def _inversion(done: Processing) -> Point:
    what = "Inversion by optimisation with a penalty that favours sparsity"
    if done.inversion in _SPARSE:
        return Point(6, what, True, _SPARSE[done.inversion])
    return Point(6, what, False, f"{done.inversion} was chosen, which has no such penalty")


def _reference(done: Processing) -> Point:
    what = "Values relative to a stated reference, the whole region among them"
    if done.reference == "whole mask":
        return Point(7, what, True, "mean of the valid mask")
    return Point(
        7,
        what,
        math.isfinite(done.reference_mean_ppm),
        f"mean of {done.reference}, which is {done.reference_mean_ppm:.4f} +- "
        f"{done.reference_sd_ppm:.4f} ppm relative to the whole mask",
    )


def reporting_table(done: Processing, methods: Sequence[str], quality: Mapping[str, Any]) -> dict[str, Any]:
    """Make the reporting table as plain data, ready for JSON.

    Parameters
    ----------
    done : Processing
    methods : sequence of str
        Sentences that say what was done.
    quality : mapping
        Numbers that judge the data and the result.
    """
    points = check_consensus(done)
    return {
        "consensus": f"https://doi.org/{DOI}",
        "scope": "written for the brain; there is no consensus for the spinal cord",
        "points": [
            {"number": p.number, "recommendation": p.recommendation, "met": p.met, "how": p.how}
            for p in points
        ],
        "reporting": {
            "toolbox": {"name": "cordqa", "version": done.version},
            "acquisition": {
                "field_strength_T": done.field_strength_t,
                "echo_times_s": [float(t) for t in done.echo_times_s],
                "voxel_size_mm": [float(v) for v in done.voxel_size_mm],
                "b0_direction_in_array_axes": [float(v) for v in done.b0_direction],
                "readout": done.readout or "not known",
                "encoding": done.encoding or "not known",
            },
            "algorithms": {
                "unwrapping": "quality-guided minimum spanning tree in space, prediction from echo to echo",
                "echo_combination": "weighted fit with a smooth phase offset, non-linear refinement",
                "mask": done.mask,
                "background_removal": done.background,
                "inversion": done.inversion,
            },
            "parameters": dict(done.parameters),
            "further_processing": list(done.resampled) or ["none: no image was resampled or interpolated"],
            "referencing": {
                "unit": "ppm",
                "region": done.reference,
                "mean_relative_to_whole_mask_ppm": done.reference_mean_ppm,
                "sd_in_region_ppm": done.reference_sd_ppm,
            },
            "inclusion_and_exclusion": "to be stated by the study; quality numbers are listed here",
        },
        "quality": dict(quality),
        "methods": " ".join(methods),
    }
