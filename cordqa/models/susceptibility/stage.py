"""From the stored echoes of a scan to its total field, with everything that judges the echoes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from cordqa.models.susceptibility.echo_order import check_decay, check_direction, judge_times
from cordqa.models.susceptibility.field import FieldFit, fit_field
from cordqa.models.susceptibility.masks import FitMask, make_fit_mask, quality_mask, widen_cord_mask
from cordqa.models.susceptibility.phase_sign import PhaseSign, judge_phase_sign
from cordqa.models.susceptibility.physics import hertz_per_ppm, radians_per_ppm_second
from cordqa.models.susceptibility.quality import NOISE_QUALITY, estimate_noise, voxel_quality
from cordqa.models.susceptibility.r2star import DecayFit, fit_r2star
from cordqa.models.susceptibility.readout import (
    OddEven,
    SliceReport,
    estimate_odd_even,
    judge_slices,
    remove_odd_even,
)
from cordqa.models.susceptibility.scan import Echoes, Scan, prepare_scan
from cordqa.models.susceptibility.total_field import ChainSettings
from cordqa.models.susceptibility.unwrap import unwrap_echoes

__all__ = ["NOISE_PHASE", "FieldStage", "MappingSettings", "measure_field", "to_volume"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Readout = Literal["auto", "monopolar", "bipolar"]
Sign = Literal["auto", "positive", "negative"]

NOISE_PHASE = "the phase is noise"
_TURNED = (
    "the phase falls where the field is stronger, as air beside the tissue shows, so its sign was turned "
    "(a wrong direction of the main field can look the same: check it)"
)
_UNMASKED = (
    "no mask was given, or one of all voxels: it was made from magnitude and phase alone and may hold fat, "
    "marrow and vessels, which spoil what lies beside them (give --mask, or --cord-mask for a cord)"
)
_UNSEEN = (
    "the sign of the phase cannot be seen in this image and was taken as positive (phase grows with the "
    "field): if veins and iron come out diamagnetic, use --phase-sign negative"
)
_SLICE_BY_SLICE = (
    "the slices were acquired one by one (2D): the phase steps from slice to slice with breathing, and the "
    "consensus asks for 3D"
)
#: From fewer slices the field above and below is largely unknown.
_FEW_SLICES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingSettings:
    """Choices of the pipeline.

    Attributes
    ----------
    chain : ChainSettings
        Background removal and inversion.
    phase_sign : {'auto', 'positive', 'negative'}
        Whether the phase grows where the field is stronger; ``auto`` looks for air beside tissue and
        takes ``positive`` where the image cannot tell, which is said.
    readout : {'auto', 'monopolar', 'bipolar'}
        Whether odd and even echoes are read in opposite directions.
    noise_sd : float, optional
        Of one channel, in units of the magnitude; from the echoes otherwise.
    reference_name : str
        How the reference region is called.
    separate_without_r2 : bool
        Separate para- and diamagnetic parts with R2* where there is neither R2' nor R2: experimental.
    second_opinion : bool
        Compare the unwrapping with that of scikit-image.
    display_phase : bool
        Add the phase of the last echo unwrapped by its Laplacian, to look at.
    slice_axis : int, optional
        Array axis along which slices are counted; found out unless told.
    """

    chain: ChainSettings = field(default_factory=ChainSettings)
    phase_sign: Sign = "auto"
    readout: Readout = "auto"
    noise_sd: float | None = None
    reference_name: str = "reference region"
    separate_without_r2: bool = False
    second_opinion: bool = False
    display_phase: bool = False
    slice_axis: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldStage:
    """The scan up to its total field; volumes have shape (x, y, z), NaN outside ``fit_mask``.

    Attributes
    ----------
    total_field_ppm, standard_error_ppm : ndarray
        Positive where the field is stronger.
    echoes : Echoes
    outline : ndarray of bool
        Tissue before any voxel was left out.
    outline_kind : {'given', 'widened', 'quality'}
    fit_mask : FitMask
    line : FieldFit
        Of the voxels of ``fit_mask``, with the sign that was found.
    unwrapped : ndarray, shape (n_voxels, n_echoes)
        With the sign of the scanner.
    sign : PhaseSign
    sign_used : {1, -1}
    odd_even : OddEven
    slices : SliceReport
    decay : DecayFit or None
        None with one echo.
    quality_map : ndarray
        Quality of the phase, 0 to 1.
    notices, warnings : tuple of str
        What a reader should know, and must not overlook.
    methods : tuple of str
    """

    total_field_ppm: Array
    standard_error_ppm: Array
    echoes: Echoes
    outline: Mask
    outline_kind: str
    fit_mask: FitMask
    line: FieldFit
    unwrapped: Array
    sign: PhaseSign
    sign_used: int
    odd_even: OddEven
    slices: SliceReport
    decay: DecayFit | None
    quality_map: Array
    notices: tuple[str, ...]
    warnings: tuple[str, ...]
    methods: tuple[str, ...]


def measure_field(
    scan: Scan,
    *,
    mask: Mask | None = None,
    cord_mask: Mask | None = None,
    settings: MappingSettings | None = None,
) -> FieldStage:
    """Bring a scan up to its total field; parameters are those of :func:`map_susceptibility`."""
    chosen = settings or MappingSettings()
    echoes = prepare_scan(scan)
    outline, kind, quality = _outline(echoes, mask, cord_mask)
    noisy = outline & (quality < NOISE_QUALITY) & ~np.any(list(echoes.missing.values()), axis=0)
    chosen_mask = make_fit_mask(outline, {**echoes.missing, NOISE_PHASE: noisy})
    inside = chosen_mask.mask
    check_decay(np.asarray(echoes.magnitude[inside], dtype=float))
    echoes, odd_even, about_readout = _readout(echoes, inside, chosen.readout)
    unwrapped = unwrap_echoes(
        cast(Array, echoes.phase), cast(Array, echoes.magnitude), echoes.times_s, inside
    )
    magnitude = np.asarray(echoes.magnitude[inside], dtype=float)
    noise, about_noise = _noise(chosen, echoes, inside)
    line = fit_field(
        unwrapped,
        magnitude,
        echoes.times_s,
        inside,
        field_strength_t=echoes.field_strength_t,
        voxel_size_mm=echoes.voxel_size_mm,
        noise_sd=noise,
    )
    about_times = _times(line, echoes)
    sign, used, about_sign = _sign(line, inside, echoes, chosen.phase_sign)
    line = replace(line, field_ppm=used * line.field_ppm, offset_rad=used * line.offset_rad)
    axis = echoes.slice_axis if chosen.slice_axis is None else chosen.slice_axis
    slices = judge_slices(
        line.field_ppm * hertz_per_ppm(echoes.field_strength_t),
        line.residual_rad,
        magnitude,
        inside,
        noise_sd=line.noise_sd,
        axis=axis,
    )
    decay = None
    if echoes.times_s.size > 1:
        decay = fit_r2star(magnitude, echoes.times_s, noise_sd=line.noise_sd)
    return FieldStage(
        total_field_ppm=to_volume(line.field_ppm, inside),
        standard_error_ppm=to_volume(line.standard_error_ppm, inside),
        echoes=echoes,
        outline=outline,
        outline_kind=kind,
        fit_mask=chosen_mask,
        line=line,
        unwrapped=unwrapped,
        sign=sign,
        sign_used=used,
        odd_even=odd_even,
        slices=slices,
        decay=decay,
        quality_map=quality,
        notices=_texts(*chosen_mask.notices, about_readout, about_noise),
        warnings=_texts(
            *echoes.warnings,
            *line.notices,
            about_times,
            _contradiction(odd_even),
            about_sign,
            slices.sentence,
            _SLICE_BY_SLICE if echoes.encoding == "2D" else "",
            _few_slices(inside, axis),
            _UNMASKED if kind == "quality" else "",
        ),
        methods=(*_field_methods(echoes, kind, line, odd_even, used), _slices(axis)),
    )


def to_volume(values: Array, mask: Mask) -> Array:
    """Put values of the voxels of a mask into a volume, NaN elsewhere."""
    full = np.full(mask.shape, np.nan)
    full[mask] = values
    return full


def _texts(*texts: str) -> tuple[str, ...]:
    return tuple(text for text in texts if text)


def _outline(echoes: Echoes, mask: Mask | None, cord_mask: Mask | None) -> tuple[Mask, str, Array]:
    """Return the outline of the tissue, how it came about, and the quality of the phase."""
    if mask is not None and cord_mask is None:
        outline = np.asarray(mask, dtype=bool)
        quality = voxel_quality(echoes.phase, echoes.magnitude, echoes.times_s, outline)
        return outline, "given", quality
    seen = echoes.magnitude[..., 0] > 0
    quality = voxel_quality(echoes.phase, echoes.magnitude, echoes.times_s, seen)
    first = echoes.magnitude[..., 0]
    if cord_mask is None:
        return quality_mask(first, quality, echoes.voxel_size_mm), "quality", quality
    wide = widen_cord_mask(np.asarray(cord_mask, dtype=bool), first, quality, echoes.voxel_size_mm)
    return (wide if mask is None else wide & np.asarray(mask, dtype=bool)), "widened", quality


def _contradiction(term: OddEven) -> str:
    """Say where the user calls a readout monopolar that is not."""
    if not term.span_rad > 0 or term.found or not term.reason:
        return ""
    return (
        f"odd and even echoes differ by a plane of {term.span_rad:.2f} rad across the mask, which "
        "contradicts the monopolar readout that was given; it was left in the phase"
    )


def _readout(echoes: Echoes, inside: Mask, choice: Readout) -> tuple[Echoes, OddEven, str]:
    """Look for a phase that alternates from echo to echo and remove it."""
    term = estimate_odd_even(echoes.phase, echoes.magnitude, echoes.times_s, inside)
    if choice == "monopolar":
        told = OddEven.unknown("the user says that the readout is monopolar")
        # The span stands only where a plane is there against what was said.
        return echoes, replace(told, span_rad=term.span_rad if term.found else np.nan), ""
    if term.reason:
        left = "the phase that alternates is part of the field, as a plane that the background takes up"
        return echoes, term, f"{term.reason}; with a bipolar readout {left}"
    if not (term.found or choice == "bipolar"):
        return echoes, term, ""
    term = replace(term, found=True)
    cleaned = replace(echoes, phase=remove_odd_even(echoes.phase, term))
    said = f"odd and even echoes differ by a plane of {term.span_rad:.2f} rad across the mask"
    return cleaned, term, f"{said}: the readout is bipolar, and the plane was removed"


def _noise(chosen: MappingSettings, echoes: Echoes, inside: Mask) -> tuple[float | None, str]:
    if chosen.noise_sd is not None or echoes.times_s.size > 2:
        return chosen.noise_sd, ""
    noise = estimate_noise(echoes.magnitude[..., -1], inside)
    if not noise > 0:
        return None, "the noise is not known, so all voxels weigh alike and nothing has a standard error"
    n = echoes.times_s.size
    return noise, (
        f"{n} echo{'es' if n > 1 else ''} cannot show the noise: it was estimated from differences of the "
        "magnitude between neighbours, which texture makes too large; --noise-sd gives it"
    )


def _few_slices(inside: Mask, axis: int) -> str:
    slices = int(inside.any(axis=tuple(a for a in range(3) if a != axis)).sum())
    if slices >= _FEW_SLICES:
        return ""
    return (
        f"{slices} slices: sources above and below them are not seen, and values near both ends are doubtful"
    )


def _times(line: FieldFit, echoes: Echoes) -> str:
    """Refuse echoes in reversed order; say where their times do not fit the phase."""
    slope = line.field_ppm * radians_per_ppm_second(echoes.field_strength_t)
    check_direction(slope, line.offset_rad, echoes.times_s)
    return judge_times(slope, line.residual_rad, echoes.times_s)


def _sign(line: FieldFit, inside: Mask, echoes: Echoes, choice: Sign) -> tuple[PhaseSign, int, str]:
    """Judge the sign of the phase; return it, the sign that is used, and what to say."""
    error = to_volume(line.standard_error_ppm, inside)
    judged = judge_phase_sign(
        to_volume(line.field_ppm, inside),
        error if np.isfinite(line.noise_sd) else None,
        inside,
        voxel_size_mm=echoes.voxel_size_mm,
        b0_direction=echoes.b0_direction,
    )
    if choice != "auto":
        used = 1 if choice == "positive" else -1
        against = judged.sign == -used
        text = "air beside the tissue contradicts the sign of the phase that was given" if against else ""
        return judged, used, text
    if judged.sign == 1:
        return judged, 1, ""
    return (judged, -1, _TURNED) if judged.sign == -1 else (judged, 1, _UNSEEN)


def _field_methods(
    echoes: Echoes, kind: str, line: FieldFit, odd_even: OddEven, sign: int
) -> tuple[str, ...]:
    masks = {
        "given": "The mask was given.",
        "widened": "The outline of the cord was widened to the canal and the discs through voxels with "
        "signal and a believable phase.",
        "quality": "The mask was made from the magnitude and the quality of the phase.",
    }
    said = [*echoes.sentences, masks[kind]]
    if odd_even.found:
        said.append("A plane that alternates between odd and even echoes was estimated and removed.")
    if sign < 0:
        said.append("The sign of the phase was turned.")
    said.append(_unwrapping(echoes.times_s.size))
    if line.offset_scale_voxels > 0:
        said.append(
            f"The phase offset was taken as smooth over {line.offset_scale_voxels:.2g} voxels, with a "
            f"standard deviation of {line.offset_sd_rad:.3f} rad about it."
        )
    return tuple(said)


def _slices(axis: int) -> str:
    return f"Slices were judged one by one along the {('first', 'second', 'third')[axis]} axis of the array."


def _unwrapping(n_echoes: int) -> str:
    if n_echoes == 1:
        return "The phase was unwrapped along paths of best quality and divided by the echo time."
    return (
        "The phase was unwrapped along paths of best quality in space and predicted from echo to echo; the "
        "total field is the slope of a magnitude-weighted fit, refined on the complex signal."
    )
