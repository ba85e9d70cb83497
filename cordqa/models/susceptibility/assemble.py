"""From total field and reconstruction to maps with reasons, masks, reporting table and methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordqa import __version__
from cordqa.errors import EmptyInputError
from cordqa.models.maps import Attachments, ExtraImage, FittedMaps, Reasons
from cordqa.models.susceptibility.consensus import Processing, reporting_table
from cordqa.models.susceptibility.masks import Masks
from cordqa.models.susceptibility.quality import compare_unwrapping, laplacian_phase
from cordqa.models.susceptibility.reference import Referenced, reference_to_mask, reference_to_region
from cordqa.models.susceptibility.separated_maps import (
    DIAMAGNETIC,
    PARAMAGNETIC,
    RATE_UNKNOWN,
    WRONG_SIGN,
    separate_scan,
)
from cordqa.models.susceptibility.separation import SeparatedSources
from cordqa.models.susceptibility.stage import NOISE_PHASE, FieldStage, MappingSettings, to_volume
from cordqa.models.susceptibility.total_field import Reconstruction
from cordqa.models.susceptibility.uncertainty import pooled_standard_error

__all__ = ["SusceptibilityMapping", "assemble"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_OUTSIDE = "outside the tissue that magnitude and phase show"
_LOST = "lost at the edge by removal of the background"
_NO_DECAY = "fewer than two echoes above the noise"
_DOUBTFUL = "counts little in the inversion: its echoes or its field contradict the model (air, flow, fat)"
_LOW_QUALITY = "the phase agrees poorly with that of the neighbours"
#: Weight in the inversion, relative to a reliable voxel, below which a value is doubtful.
_LITTLE = 0.1
_POOR_QUALITY = 0.5
#: Fewer of the voxels of the mask than this with a value are worth a notice.
_KEPT = 0.95
#: Streaks beyond this are worth a notice: power near the magic angle over what isotropy would give.
_STREAKS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SusceptibilityMapping:
    """Everything that came out of one scan.

    Attributes
    ----------
    maps : FittedMaps
        ``susceptibility`` first; masks, further images, draws, reporting table and methods are
        attached.
    masks : Masks
    quality : mapping
        Numbers that judge data and result; plain data.
    consensus : mapping
        Reporting table of the 2024 consensus; plain data.
    """

    maps: FittedMaps
    masks: Masks
    quality: Mapping[str, Any]
    consensus: Mapping[str, Any]


def assemble(
    stage: FieldStage,
    found: Reconstruction,
    settings: MappingSettings,
    *,
    reference: Mask | None,
    r2prime_per_s: Array | None,
    r2_per_s: Array | None,
) -> SusceptibilityMapping:
    """Join everything; parameters are those of the pipeline.

    Raises
    ------
    EmptyInputError
        If the reference region holds no voxel with a value.
    """
    masks = Masks(fit=stage.fit_mask.mask, valid=found.valid, registration=stage.outline)
    if not found.valid.any():
        raise EmptyInputError("no voxel of the mask has a susceptibility")
    if reference is None:
        zero = reference_to_mask(found)
    else:
        zero = reference_to_region(found, reference, name=settings.reference_name)
        found = _with_error_of_reference(found, zero)
    parts = separate_scan(
        stage,
        zero.chi_ppm,
        found.standard_error_ppm,
        r2prime_per_s=r2prime_per_s,
        r2_per_s=r2_per_s,
        without_r2=settings.separate_without_r2,
    )
    quality = _judge(stage, found, settings)
    methods = (*stage.methods, *found.methods, zero.sentence)
    if parts is not None:
        methods = (*methods, parts.method)
    consensus = reporting_table(_processing(stage, found, settings, zero), methods, quality)
    values, errors = _maps(stage, found, zero, parts)
    base, own = _reasons(stage, values)
    usable = np.isfinite(zero.chi_ppm)
    maps = FittedMaps(
        model="weighted field fit; " + "; ".join((settings.chain.background, settings.chain.inversion)),
        values=values,
        units={name: "1/s" if name == "R2star" else "ppm" for name in values},
        standard_errors=errors,
        reasons=base,
        own_reasons=own,
        flags={
            _DOUBTFUL: usable & (found.weights < _LITTLE),
            _LOW_QUALITY: usable & (stage.quality_map < _POOR_QUALITY),
            **({} if parts is None else {WRONG_SIGN: parts.at_bound}),
        },
        notices=tuple(dict.fromkeys((*stage.notices, *found.notices, *zero.notices))),
        attached=Attachments(
            masks={"fit": masks.fit, "valid": masks.valid, "registration": masks.registration},
            images=_images(stage, found, settings),
            draws={} if zero.draws_ppm is None else {"susceptibility": _spread(zero.draws_ppm, found.valid)},
            zeros={"susceptibility": zero.inside},
            replicas={} if found.replica_ppm is None else {"susceptibility": found.replica_ppm},
            documents={"consensus": consensus},
            methods=(" ".join(methods),),
            warnings=(*_warnings(stage, found, settings), *(() if parts is None else parts.notices)),
        ),
    )
    return SusceptibilityMapping(maps=maps, masks=masks, quality=quality, consensus=consensus)


def _with_error_of_reference(found: Reconstruction, zero: Referenced) -> Reconstruction:
    """Count the noise of the reference in that of every voxel: the zero is as noisy as it is small."""
    if zero.draws_ppm is None:
        return found
    return replace(found, standard_error_ppm=pooled_standard_error(zero.draws_ppm, found.valid))


def _spread(draws: NDArray[np.float32], mask: Mask) -> NDArray[np.float32]:
    full = np.full((len(draws), *mask.shape), np.nan, dtype=np.float32)
    full[:, mask] = draws
    return full


def _maps(
    stage: FieldStage, found: Reconstruction, zero: Referenced, parts: SeparatedSources | None
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return maps and their standard errors, susceptibility first."""
    inside = stage.fit_mask.mask
    values = {"susceptibility": zero.chi_ppm}
    errors = {} if found.standard_error_ppm is None else {"susceptibility": found.standard_error_ppm}
    if parts is not None:
        values |= {PARAMAGNETIC: parts.para_ppm, DIAMAGNETIC: parts.dia_ppm}
        if parts.para_standard_error_ppm is not None and parts.dia_standard_error_ppm is not None:
            errors[PARAMAGNETIC] = parts.para_standard_error_ppm
            errors[DIAMAGNETIC] = parts.dia_standard_error_ppm
    values |= {"local_field": found.local_field_ppm, "total_field": stage.total_field_ppm}
    if np.isfinite(stage.line.noise_sd):
        errors["total_field"] = stage.standard_error_ppm
    if stage.decay is not None:
        values["R2star"] = to_volume(stage.decay.r2star_per_s, inside)
        if np.isfinite(stage.decay.standard_error_per_s).any():
            errors["R2star"] = to_volume(stage.decay.standard_error_per_s, inside)
    return values, {name: np.where(np.isfinite(values[name]), e, np.nan) for name, e in errors.items()}


def _reasons(stage: FieldStage, values: Mapping[str, Array]) -> tuple[Reasons, dict[str, Reasons]]:
    inside = stage.fit_mask.mask
    failures = [(where, text) for where, text in stage.fit_mask.reasons]
    base = Reasons.collect(inside.shape, [*failures, (~stage.outline, _OUTSIDE), (~inside, "not fitted")])
    own = {}
    for name, array in values.items():
        one = (
            base
            if name in ("total_field", "R2star")
            else base.then(~np.isfinite(values["susceptibility"]), _LOST)
        )
        text = {"R2star": _NO_DECAY, PARAMAGNETIC: RATE_UNKNOWN, DIAMAGNETIC: RATE_UNKNOWN}.get(name, _LOST)
        one = one.then(~np.isfinite(array), text)
        if not np.array_equal(one.codes, base.codes):
            own[name] = one
    return base, own


def _images(stage: FieldStage, found: Reconstruction, settings: MappingSettings) -> dict[str, ExtraImage]:
    inside = stage.fit_mask.mask
    images = {
        "background": ExtraImage(found.background_ppm, "ppm", "Field of sources outside the tissue."),
        "residual": ExtraImage(
            found.residual_ppm, "ppm", "Local field less the field of the susceptibility."
        ),
        "weight": ExtraImage(found.weights, "1", "Weight of each voxel in the inversion; 1 is reliable."),
        "phaseQuality": ExtraImage(stage.quality_map, "1", "Agreement of the phase with that of neighbours."),
    }
    if stage.echoes.times_s.size > 1:
        images["phaseOffset"] = ExtraImage(
            to_volume(stage.line.offset_rad, inside), "rad", "Phase at echo time zero."
        )
    if settings.display_phase:
        images["laplacianPhase"] = ExtraImage(
            laplacian_phase(stage.echoes.phase[..., -1], stage.echoes.voxel_size_mm),
            "rad",
            "Phase of the last echo unwrapped by its Laplacian: to look at, not to measure.",
        )
    return images


def _judge(stage: FieldStage, found: Reconstruction, settings: MappingSettings) -> dict[str, Any]:
    """Numbers that judge the data and the result, as plain data."""
    inside, line, slices = stage.fit_mask.mask, stage.line, stage.slices
    numbers: dict[str, Any] = {
        "voxels_in_mask": int(stage.outline.sum()),
        "voxels_fitted": int(inside.sum()),
        "kept_fraction": float(found.valid.sum() / max(int(stage.outline.sum()), 1)),
        "phase_quality_median": float(np.median(stage.quality_map[inside])),
        "noise_sd": line.noise_sd,
        "phase_offset_sd_rad": line.offset_sd_rad,
        "total_field_se_median_ppm": float(np.median(line.standard_error_ppm)),
        "phase_sign": stage.sign_used,
        "phase_sign_seen": stage.sign.sign,
        "odd_even_span_rad": stage.odd_even.span_rad,
        # One echo has no residual.
        "misfit_by_echo": _medians(slices.misfit) if stage.echoes.times_s.size > 1 else [],
        "slice_axis": slices.axis,
        "slice_step_sd_hz": slices.jitter_hz,
        "slices_flagged": list(slices.flagged),
        "streak": found.streak,
        "regularisation": found.regularisation,
    }
    if settings.second_opinion:
        shares = _second_opinion(stage)
        numbers["unwrapping_differs_first_echo"], numbers["unwrapping_differs_last_echo"] = shares
    return numbers


def _medians(misfit: Array) -> list[float]:
    known = misfit[np.isfinite(misfit).all(axis=1)]
    return [float(v) for v in np.median(known, axis=0)] if len(known) else []


def _second_opinion(stage: FieldStage) -> tuple[float, float]:
    first, last = (
        compare_unwrapping(stage.unwrapped[:, echo], stage.echoes.phase[..., echo], stage.fit_mask.mask)
        for echo in (0, -1)
    )
    return first, last


def _warnings(stage: FieldStage, found: Reconstruction, settings: MappingSettings) -> tuple[str, ...]:
    said = [*stage.warnings, *found.warnings]
    kept = found.valid.sum() / max(int(stage.outline.sum()), 1)
    if kept < _KEPT:
        said.append(f"only {100 * kept:.0f} % of the voxels of the mask have a susceptibility")
    if found.streak > _STREAKS:
        said.append(
            f"streaks near the magic angle carry {found.streak:.1f} times the power that tissue would: "
            "regularise more, or look for voxels of wrong phase"
        )
    if settings.chain.background == "none":
        said.append("no background was removed: the field was taken as local")
    if settings.chain.probes and found.standard_error_ppm is None:
        said.append(f"the inversion {settings.chain.inversion} has no standard error of susceptibility here")
    return tuple(dict.fromkeys(said))


def _processing(
    stage: FieldStage, found: Reconstruction, settings: MappingSettings, zero: Referenced
) -> Processing:
    echoes, chain = stage.echoes, settings.chain
    noisy = next((where for where, text in stage.fit_mask.reasons if text == NOISE_PHASE), None)
    readout = "bipolar" if stage.odd_even.found else "" if stage.odd_even.reason else "monopolar"
    if settings.readout == "monopolar" and not stage.odd_even.span_rad > 0:
        readout = "monopolar"
    return Processing(
        version=__version__,
        echo_times_s=[float(t) for t in echoes.times_s],
        field_strength_t=echoes.field_strength_t,
        voxel_size_mm=[float(v) for v in echoes.voxel_size_mm],
        b0_direction=[float(v) for v in echoes.b0_direction],
        readout=readout,
        mask=stage.outline_kind,
        quality_excluded=0 if noisy is None else int(noisy.sum()),
        background=chain.background,
        inversion=chain.inversion,
        reference=zero.reference,
        reference_mean_ppm=zero.subtracted_ppm,
        reference_sd_ppm=zero.spread_ppm,
        encoding=echoes.encoding,
        parameters={
            "phase_offset_scale_voxels": stage.line.offset_scale_voxels,
            "background_rounds": found.rounds,
            "regularisation": found.regularisation,
            "two_pass": chain.two_pass,
            "noise_realisations": chain.probes,
            "seed": chain.seed,
        },
    )
