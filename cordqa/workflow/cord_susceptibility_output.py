"""What a gradient-echo scan of the cord leaves: maps, masks, reporting table, figure and sentences."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from cordqa import __version__
from cordqa.cord.axes import orient
from cordqa.io.derivatives import DerivativeInfo, derivative_path, write_derivative
from cordqa.io.results import write_text
from cordqa.models.maps import Attachments
from cordqa.quantities import get_quantity
from cordqa.records import Figure, Volume, as_plain
from cordqa.workflow.cord_atlas import AtlasChoice
from cordqa.workflow.cord_figures import atlas_outlines
from cordqa.workflow.cord_mosaic import Layer, Outline, draw_step
from cordqa.workflow.cord_settings import CordSettings
from cordqa.workflow.cord_susceptibility import SusceptibilityMaps
from cordqa.workflow.cord_susceptibility_rows import EXPERIMENTAL

__all__ = [
    "draw_susceptibility",
    "susceptibility_methods",
    "susceptibility_references",
    "write_susceptibility",
]

_SUFFIXES = {
    "susceptibility": "Chimap",
    "R2star": "R2starmap",
    "local_field": "localField",
    "total_field": "totalField",
}
_MASKS = {
    "registration": "Outline of the tissue: the only mask to register with",
    "fit": "Voxels whose phase was fitted",
    "valid": "Voxels that have a susceptibility",
}
_REFERENCES = (
    "QSM Consensus Organization Committee et al. Recommended implementation of quantitative susceptibility "
    "mapping for clinical research in the brain. Magn Reson Med 2024. doi:10.1002/mrm.30006",
)


# -- images ------------------------------------------------------------------------------------------


def write_susceptibility(found: SusceptibilityMaps, out: Path) -> None:
    """Write the maps with their standard errors; of a phase also the three masks and ``consensus.json``.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    maps = found.found.maps
    for name, suffix in _SUFFIXES.items():
        if name in maps.values:
            text, unit = get_quantity(name).description, get_quantity(name).unit
            _write(found.volume(name), found, out, suffix=suffix, text=text, units=unit)
        if name in maps.values and name in maps.standard_errors:
            error = maps.standard_errors[name].astype(np.float32)
            volume = Volume(data=error, affine=found.image.volume.affine)
            text = f"Standard error of {name}"
            _write(volume, found, out, suffix=suffix, desc="SE", text=text, units=unit)
    if not found.found.consensus:  # no phase: nothing but a decay was fitted
        return
    for label, text in _MASKS.items():
        mask = getattr(found.found.masks, label).astype(np.uint8)
        volume = Volume(data=mask, affine=found.image.volume.affine)
        _write(volume, found, out, suffix="mask", desc=label, text=text)
    path = _path(found, suffix="consensus", desc="", extension=".json")
    write_text(out / path, _dump(found))


def _dump(found: SusceptibilityMaps) -> str:
    table = {"experimental": EXPERIMENTAL, "fitted_in": found.fit_mask, **found.found.consensus}
    return json.dumps(as_plain(table), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _path(found: SusceptibilityMaps, *, suffix: str, desc: str, extension: str = ".nii.gz") -> PurePosixPath:
    """Name an output; scans that differ only in their suffix are told apart by the description."""
    own = found.image.file.suffix
    if own != "MEGRE" and suffix != "mask":
        desc = own + desc[:1].upper() + desc[1:]
    return derivative_path(found.image.file, suffix=suffix, extension=extension, desc=desc)


def _write(
    volume: Volume,
    found: SusceptibilityMaps,
    out: Path,
    *,
    suffix: str,
    text: str,
    desc: str = "",
    units: str = "",
) -> None:
    info = DerivativeInfo(
        description=text,
        method=f"{_attached(found).methods[0]} Fitted in {found.fit_mask}.",
        engine="cordqa",
        engine_version=__version__,
        sources=list(found.echoes.files),
        units=units,
        extra={"Experimental": EXPERIMENTAL},
    )
    write_derivative(volume, out, path=_path(found, suffix=suffix, desc=desc), info=info)


def _attached(found: SusceptibilityMaps) -> Attachments:
    return found.found.maps.attached or Attachments(methods=("",))


# -- figure ------------------------------------------------------------------------------------------


def draw_susceptibility(found: SusceptibilityMaps, name: str) -> Figure:
    """Show magnitude and maps with the cord, the fit mask and the atlas over them."""
    image = found.image
    layers = {"magnitude": Layer(volume=image.volume)}
    for quantity, label in (("susceptibility", "susceptibility"), ("local_field", "local field"),
                            ("R2star", "R2*")):  # fmt: skip
        if quantity in found.found.maps.values:
            unit = get_quantity(quantity).unit
            layers[label] = Layer(volume=found.volume(quantity), is_map=True, unit=unit)
    fit = Volume(data=found.found.masks.fit.astype(np.float32), affine=image.volume.affine)
    outlines: dict[str, Outline] = {"cord": orient(image.mask.volume).data, "fit mask": orient(fit).data}
    outlines |= atlas_outlines(found.atlas)
    return draw_step(
        image,
        name=name,
        title=image.label,
        layers=layers,
        outlines=outlines,
        off=("columns (atlas)",),
        caption="Root mean square of the echoes, and maps (experimental). The fit mask should hold the "
        "canal and no bone, fat or air; streaks that leave the cord, and a slice that is brighter or "
        "darker than both neighbours, are artefacts.",
    )


# -- sentences ---------------------------------------------------------------------------------------


def susceptibility_methods(
    found: Sequence[SusceptibilityMaps], atlas: AtlasChoice, settings: CordSettings
) -> tuple[str, ...]:
    """Write one paragraph per scan."""
    return tuple(_paragraph(one, atlas, settings) for one in found)


def _paragraph(one: SusceptibilityMaps, atlas: AtlasChoice, settings: CordSettings) -> str:
    table = one.found.consensus
    unmet = ", ".join(str(point["number"]) for point in table.get("points", ()) if point["met"] is False)
    fitted = f"the field was fitted in {one.fit_mask}" if table else f"the decay in {one.fit_mask}"
    noise = "realisations of the noise (susceptibility) or of the voxels' fits as if voxels were independent"
    errors = f"{noise} (R2*, local field)" if table else "the voxels' fits as if voxels were independent"
    texts = (
        f"{'Susceptibility' if table else 'R2*'} ({one.image.label}; {EXPERIMENTAL}): "
        f"{one.image.mask.method}, on the root mean square of the echoes; {fitted}.",
        *_attached(one).methods,
        f"Not met of the 2024 consensus (written for the brain): points {unmet}." if unmet else "",
        f"Values of regions were taken by {settings.method} from the maps with the {atlas.name}; their "
        f"standard uncertainty is that of {errors}. It does not hold errors of the background, of breathing, "
        "or of the mask.",
    )
    return " ".join(text for text in texts if text)


def susceptibility_references(found: Sequence[SusceptibilityMaps]) -> tuple[str, ...]:
    """List what the maps rest on."""
    return _REFERENCES if any(one.found.consensus for one in found) else ()
