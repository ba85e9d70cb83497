"""Synthetic contrast from maps of T1, T2 and proton density."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.models.maps import Attachments, FittedMaps, Reasons
from cordqa.models.synthetic.choice import (
    Choice,
    choose_double_inversion,
    choose_inversion,
    measure_tissue,
)
from cordqa.models.synthetic.contrast import EchoTiming
from cordqa.models.synthetic.images import Contrast, judge_maps, render
from cordqa.models.synthetic.nulling import Tissue
from cordqa.workflow.fit.data import FitData
from cordqa.workflow.fit.models._synthetic_figures import inversion_figures
from cordqa.workflow.fit.registry import Example, FitModel, ImageRole, MapInput, Option

__all__ = ["MODEL"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
_Tissues = Mapping[str, Tissue | None]
_NAMES = ("T1w", "T2w", "PDw", "FLAIR", "PSIR", "DIR")
_PREFIX = "synthetic_"
LABEL = "SYNTHETIC"
_SHORT_T1 = "T1 is shorter than T2: no tissue"
#: Medians that maps in milliseconds, or in seconds, can have.
_MEDIANS = {"ms": ((50.0, 10_000.0), (2.0, 5_000.0)), "s": ((0.05, 10.0), (0.002, 5.0))}
#: Mask, the tissue that it holds, and its name.
_MASKS = (
    ("white_mask", "white", "white matter"),
    ("fluid_mask", "fluid", "fluid"),
    ("lesion_mask", "lesion", "lesion"),
)
_OTHER = {"ms": "s", "s": "ms"}
#: T2 of tissues of which only T1 is said; it does not enter nulling.
_ANY_T2 = 0.1
_HALF = 0.5


@dataclass(frozen=True, slots=True)
class _Maps:
    """The three maps, relaxation times in seconds."""

    density: NDArray[np.float32]
    t1: NDArray[np.float32]
    t2: NDArray[np.float32]

    def tissue(self, mask: Mask, name: str) -> Tissue:
        return measure_tissue(self.density, self.t1, self.t2, mask, name=name)


def _fit(data: FitData) -> FittedMaps:
    maps = _maps(data)
    reasons = judge_maps(maps.density, maps.t1, maps.t2)
    tissues = _tissues(data, maps)
    choices = _choose(data, tissues)
    images = [
        (c.contrast, render(c.contrast, maps.density, maps.t1, maps.t2, where=reasons.ok & data.mask))
        for c in choices
    ]
    return _as_maps(data, choices, images, reasons, maps, tissues)


def _as_maps(
    data: FitData,
    choices: Sequence[Choice],
    images: Sequence[tuple[Contrast, NDArray[np.float32]]],
    reasons: Reasons,
    maps: _Maps,
    tissues: _Tissues,
) -> FittedMaps:
    with np.errstate(invalid="ignore"):
        odd = reasons.ok & (maps.t2 > maps.t1)
    sentences = [one.sentence for one in choices if one.sentence]
    measured = {key for role, key, _ in _MASKS if data.map(role) is not None}
    files, coarse = _dicom(data, images, maps) if data.flag("dicom") else ({}, ())
    return FittedMaps(
        model=f"{LABEL}: computed from T1, T2 and PD by signal equations, not acquired",
        values={f"{_PREFIX}{c.name}": np.where(reasons.ok, image, np.nan) for c, image in images},
        units={f"{_PREFIX}{c.name}": "unit of PD" for c, _ in images},
        reasons=reasons,
        flags={_SHORT_T1: odd},
        notices=tuple(sentences),
        attached=Attachments(
            documents={"contrasts": _document(choices, tissues, measured)},
            details={f"{_PREFIX}{c.contrast.name}": {"Synthetic": _times_of(c)} for c in choices},
            methods=tuple(f"{one.contrast.sentence}." for one in choices),
            warnings=coarse,
            figures=tuple(inversion_figures(choices, tissues)),
            files=files,
        ),
    )


def _dicom(
    data: FitData, images: Sequence[tuple[Contrast, NDArray[np.float32]]], maps: _Maps
) -> tuple[Mapping[str, Callable[[str], bytes]], tuple[str, ...]]:
    """Name the files, and say where 16 bits are too few."""
    from cordqa.io.dicom_derived import digest_of
    from cordqa.workflow.fit.models._synthetic_dicom import coarse_notices, dicom_files

    identity = digest_of(maps.t1, maps.t2, maps.density, data.affine)
    return dicom_files(images, data.affine, identity, label=LABEL), coarse_notices(images)


def _maps(data: FitData) -> _Maps:
    """Relaxation times in seconds, refusing maps in another unit than said, or in another order."""
    unit = data.text("time_unit")
    factor = np.float32(1e-3 if unit == "ms" else 1.0)
    found = [data.signal[..., data.roles[role]][..., 0] for role in ("t1_map", "t2_map", "pd_map")]
    medians = [_median(image, name, data.mask) for image, name in zip(found, ("T1", "T2", "PD"), strict=True)]
    _check_units(medians[:2], unit)
    if medians[0] <= medians[1]:
        raise InputError(
            "T1 is not longer than T2",
            found=f"medians of {medians[0]:.4g} and {medians[1]:.4g} {unit}",
            todo="give the maps in the order T1, T2, PD",
        )
    return _Maps(found[2], found[0] * factor, found[1] * factor)


def _median(image: NDArray[np.float32], name: str, mask: Mask) -> float:
    """Median of the positive values."""
    values = image[mask & np.isfinite(image) & (image > 0)]
    if not values.size:
        raise InputError(f"the {name} map holds no positive value inside the mask")
    return float(np.median(values))


def _check_units(medians: Sequence[float], unit: str) -> None:
    def fits(which: str) -> list[bool]:
        return [low <= m <= high for m, (low, high) in zip(medians, _MEDIANS[which], strict=True)]

    other, own = _OTHER[unit], fits(unit)
    for good, name, middle, (low, high) in zip(own, ("T1", "T2"), medians, _MEDIANS[unit], strict=True):
        if not good:
            both = all(fits(other))
            raise InputError(
                f"the {name} map cannot be in {unit}",
                found=f"a median of {middle:.4g}",
                expected=f"{low:g} to {high:g} {unit}",
                todo=f"give --time-unit {other} if both maps are in {other}"
                if both
                else "bring T1 and T2 to one unit, ms or s, and say which with --time-unit",
            )


def _choose(data: FitData, tissues: _Tissues) -> list[Choice]:
    """Every contrast that was asked for, with its times."""
    words = data.text("contrasts").split(",")
    wanted = _NAMES if "all" in words else words
    return [_one(name, data, tissues) for name in wanted]


def _tissues(data: FitData, maps: _Maps) -> _Tissues:
    """White matter and fluid, from masks or as said; a lesion only from a mask."""
    white, fluid = cast("tuple[float, float]", data.options["null_t1"])
    found: dict[str, Tissue | None] = {
        "white": Tissue(t1_s=white, t2_s=min(_ANY_T2, white)),
        "fluid": Tissue(t1_s=fluid, t2_s=min(_ANY_T2, fluid)),
        "lesion": None,
    }
    for role, key, words in _MASKS:
        mask = _inside(data, role)
        if mask is not None:
            if role == "white_mask" and (lesion := _inside(data, "lesion_mask")) is not None:
                # Segmentations count a lesion as white matter: it is not compared with itself.
                mask = mask & ~lesion
            found[key] = maps.tissue(mask, words)
    if found["lesion"] is not None and data.map("white_mask") is None:
        raise InputError("a lesion needs white matter to be compared with", todo="give --white-mask as well")
    _check_order(cast(Tissue, found["white"]), cast(Tissue, found["fluid"]))
    return found


def _inside(data: FitData, role: str) -> Mask | None:
    mask = data.map(role)
    return None if mask is None else (np.nan_to_num(mask) > _HALF) & data.mask


def _check_order(white: Tissue, fluid: Tissue) -> None:
    if not white.t1_s < fluid.t1_s:
        raise InputError(
            "white matter must have a shorter T1 than fluid",
            found=f"{white.t1_s:.4g} and {fluid.t1_s:.4g} s",
            todo="look at --white-mask and --fluid-mask, or at the order of --null-t1",
        )


def _one(name: str, data: FitData, tissues: _Tissues) -> Choice:
    times = cast("tuple[float, ...]", data.options[name.lower()])
    inversions = {"FLAIR": 1, "PSIR": 1, "DIR": 2}.get(name, 0)
    if len(times) not in (2, 2 + inversions):
        expected = "TR,TE" + {0: "", 1: " or TR,TE,TI", 2: " or TR,TE,TI1,TI2"}[inversions]
        raise InputError("has the wrong number of times", where=f"--{name.lower()}", expected=expected)
    timing = EchoTiming(repetition_time_s=times[0], echo_time_s=times[1])
    white, fluid = cast(Tissue, tissues["white"]), cast(Tissue, tissues["fluid"])
    lesion = tissues["lesion"]
    if len(times) > 2 or not inversions:
        contrast = Contrast(
            name=name,
            timing=timing,
            first_s=times[2] if len(times) > 2 else None,
            second_s=times[3] if len(times) > 3 else None,
            keep_sign=name == "PSIR",
        )
        return Choice(contrast=contrast, sentence="")
    if name == "DIR":
        return choose_double_inversion(name, timing, white=white, fluid=fluid, lesion=lesion)
    if name == "FLAIR":
        return choose_inversion(name, timing, keep_sign=False, nulled=fluid, nulled_name="fluid")
    return choose_inversion(
        name,
        timing,
        keep_sign=True,
        nulled=white,
        nulled_name="white matter",
        lesion=lesion,
        reference=None if lesion is None else white,
    )


def _times_of(one: Choice) -> dict[str, Any]:
    """Sequence and times of one contrast, for its sidecar."""
    contrast = one.contrast
    return {
        "Label": LABEL,
        "Sequence": contrast.kind,
        "RepetitionTime": contrast.timing.repetition_time_s,
        "EchoTime": contrast.timing.echo_time_s,
        "InversionTimes": [t for t in (contrast.first_s, contrast.second_s) if t is not None],
        "SignKept": contrast.keep_sign,
        "Choice": one.sentence or "as given",
    }


def _document(choices: Sequence[Choice], tissues: _Tissues, measured: set[str]) -> Mapping[str, Any]:
    """Times of every contrast, the tissues behind them, and the curve on which they were searched."""
    found: dict[str, Any] = {}
    for one in choices:
        entry = _times_of(one)
        if one.curve is not None:
            best = one.curve.best
            entry["Search"] = {
                "FirstInversionTime": [round(float(t), 6) for t in one.curve.first_s],
                "Contrast": [float(v) if np.isfinite(v) else None for v in one.curve.contrast],
                "Best": {"first": best.first_s, "second": best.second_s, "contrast": best.contrast},
                "FlatRegion": list(best.flat_s),
                "AtEdge": best.at_edge,
            }
        found[one.contrast.name] = entry
    found["Tissues"] = {
        name: {"T1": one.t1_s, "T2": one.t2_s, "PD": one.proton_density, "From": "mask"}
        if name in measured
        else {"T1": one.t1_s, "From": "--null-t1"}
        for name, one in tissues.items()
        if one is not None
    }
    return found


def _example() -> Example:
    t1 = np.linspace(500, 2500, 12).reshape(3, 2, 2)
    t2 = np.linspace(60, 200, 12).reshape(3, 2, 2)
    density = np.linspace(65, 100, 12).reshape(3, 2, 2)
    late = 2 * np.exp(-(600 - 5) / t1) - np.exp(-600 / t1)
    inverted = 1 - 2 * np.exp(-400 / t1) + 2 * np.exp(-(6000 - 5) / t1) - np.exp(-6000 / t1)
    return Example(
        images={"t1_map": t1, "t2_map": t2, "pd_map": density},
        truth={
            "synthetic_T1w": density * (1 - late) * np.exp(-10 / t2),
            "synthetic_PSIR": density * inverted * np.exp(-10 / t2),
        },
        tolerance=1e-4,
        options={"t1w": (0.6, 0.01), "psir": (6.0, 0.01, 0.4)},
    )


def _times(name: str, default: tuple[float, ...], text: str) -> Option:
    return Option(
        id=name.lower(), kind=tuple, default=default, unit="s", low=0.0, high=60.0, help=f"{name}: {text}."
    )


def _mask(name: str, text: str) -> MapInput:
    return MapInput(id=name, unit="1", help=f"Mask of {text}.")


MODEL = FitModel(
    id="synthetic",
    description="Synthetic T1w, T2w, PDw, FLAIR, PSIR and DIR images from maps of T1, T2 and proton density",
    fit=_fit,
    example=_example,
    voxelwise=False,
    takes_noise=False,
    absolute=True,
    images=(
        ImageRole(id="t1_map", metavar="T1_MAP", help="Map of T1."),
        ImageRole(id="t2_map", metavar="T2_MAP", help="Map of T2."),
        ImageRole(id="pd_map", metavar="PD_MAP", help="Map of proton density (or M0), in any unit."),
    ),
    maps=(
        _mask("white_mask", "white matter: its median T1 is nulled, and a lesion is compared with it"),
        _mask("fluid_mask", "fluid: its median T1 is nulled"),
        _mask("lesion_mask", "a lesion: PSIR and DIR get the inversion times that show it best"),
    ),
    options=(
        Option(
            id="time_unit", kind=str, default="ms", choices=("ms", "s"), help="Unit of the T1 and T2 maps."
        ),
        Option(
            id="contrasts",
            kind=str,
            default="all",
            choices=("all", *_NAMES),
            many=True,
            help="Which images are made, separated by commas.",
        ),
        Option(
            id="null_t1",
            kind=tuple,
            default=(0.83, 4.0),
            unit="s",
            length=2,
            low=0.01,
            high=20.0,
            help="T1 of white matter and of fluid, for nulling where no mask is given.",
        ),
        _times("T1w", (0.6, 0.01), "TR,TE"),
        _times("T2w", (4.5, 0.1), "TR,TE"),
        _times("PDw", (8.0, 0.015), "TR,TE"),
        _times("FLAIR", (9.0, 0.1), "TR,TE nulls fluid; TR,TE,TI is taken as it is"),
        _times("PSIR", (6.0, 0.01), "TR,TE nulls white matter, or shows a lesion best; or TR,TE,TI"),
        _times(
            "DIR", (15.0, 0.1), "TR,TE nulls white matter and fluid, or shows a lesion best; or TR,TE,TI1,TI2"
        ),
        Option(
            id="dicom",
            kind=bool,
            default=False,
            help="Write DICOM files as well, under a pseudonym and labelled as synthetic.",
        ),
    ),
    produces=tuple(f"{_PREFIX}{name}" for name in _NAMES),
    references=(
        "Redpath TW, Smith FW. Technical note: use of a double inversion recovery pulse sequence to image "
        "selectively grey or white brain matter. Br J Radiol 1994;67:1258-1263.",
        "Hagiwara A et al. SyMRI of the brain: rapid quantification of relaxation rates and proton density. "
        "Invest Radiol 2017;52:647-657. doi:10.1097/RLI.0000000000000365",
    ),
    assumptions=(
        "Synthetic images are computed, not acquired: what T1, T2 and PD do not hold (flow, partial volume, "
        "diffusion, artefacts) cannot be seen in them. Inversions are ideal, and transverse magnetization is "
        "spoiled between repetitions.",
    ),
)
