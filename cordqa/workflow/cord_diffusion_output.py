"""What a diffusion series leaves: images, the table of motion, figures, and sentences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cordqa import __version__, figures
from cordqa.cord.axes import orient
from cordqa.io.derivatives import DerivativeInfo, derivative_path, write_derivative
from cordqa.io.results import write_text
from cordqa.quantities import find_quantity
from cordqa.records import Figure, Status, Volume
from cordqa.workflow.cord_diffusion import DiffusionMaps
from cordqa.workflow.cord_figures import atlas_outlines
from cordqa.workflow.cord_mosaic import Layer, Outline, draw_step

__all__ = ["diffusion_methods", "diffusion_references", "draw_diffusion", "draw_motion", "write_diffusion"]

#: Maps that a page shows, in this order.
_SHOWN = ("FA", "MD", "MK", "muFA", "NDI")
_TENSOR_DOI = (
    "Chung S, Lu Y, Henry RG. Comparison of bootstrap approaches for estimation of uncertainties of DTI "
    "parameters. NeuroImage 2006;33:531-541. doi:10.1016/j.neuroimage.2006.07.001"
)
_REFERENCES = {
    "kurtosis": "Jensen JH et al. Diffusional kurtosis imaging. Magn Reson Med 2005;53:1432-1440. "
    "doi:10.1002/mrm.20508",
    "microscopic": "Lasic S et al. Microanisotropy imaging: quantification of microscopic diffusion "
    "anisotropy and orientational order parameter by diffusion MRI with magic-angle spinning of the "
    "q-vector. Front Phys 2014;2:11. doi:10.3389/fphy.2014.00011",
    "noddi": "Zhang H et al. NODDI: practical in vivo neurite orientation dispersion and density imaging "
    "of the human brain. NeuroImage 2012;61:1000-1016. doi:10.1016/j.neuroimage.2012.03.072",
}


# -- images ------------------------------------------------------------------------------------------


def write_diffusion(found: DiffusionMaps, out: Path) -> None:
    """Write the mean image, every map with its standard error, and the table of motion.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    file, image = found.image.file, found.image
    prepared = " ".join(found.series.prepared.sentences)
    _write(image.volume, out, found, suffix="dwi", desc="mean", text="Mean image on which the cord was found",
           method=prepared)  # fmt: skip
    for maps in found.models.values():
        method = f"{prepared} {maps.model}"
        for name, values in maps.values.items():
            known = find_quantity(name)
            unit = known.unit if known else "1"
            volume = Volume(data=values.astype(np.float32), affine=image.volume.affine)
            text = known.description if known else name
            _write(volume, out, found, suffix=name, desc="", text=text, method=method, units=unit)
            if name in maps.errors:
                error = Volume(data=maps.errors[name].astype(np.float32), affine=image.volume.affine)
                _write(error, out, found, suffix=name, desc="SE", text=f"Standard error of {name}",
                       method=method, units=unit)  # fmt: skip
    if found.series.prepared.motion_table:
        path = derivative_path(file, suffix="timeseries", extension=".tsv", desc="motion")
        write_text(out / path, _table(found.series.prepared.motion_table))


def _write(
    volume: Volume,
    out: Path,
    found: DiffusionMaps,
    *,
    suffix: str,
    desc: str,
    text: str,
    method: str,
    units: str = "",
) -> None:
    info = DerivativeInfo(
        description=text,
        method=method,
        engine="cordqa",
        engine_version=__version__,
        sources=[found.image.file],
        units=units,
    )
    write_derivative(volume, out, path=derivative_path(found.image.file, suffix=suffix, desc=desc), info=info)


def _table(rows: Sequence[dict[str, float]]) -> str:
    lines = ["\t".join(rows[0]), *("\t".join(f"{value:.6g}" for value in row.values()) for row in rows)]
    return "\n".join(lines) + "\n"


# -- figures -----------------------------------------------------------------------------------------


def draw_diffusion(found: DiffusionMaps, name: str) -> Figure:
    """Show the mean images and the maps with cord and atlas over them."""
    image = found.image
    layers = {"mean weighted": Layer(volume=image.volume), "mean b = 0": Layer(volume=found.series.b0)}
    for quantity in _SHOWN:
        if quantity in found.quantities:
            known = find_quantity(quantity)
            layers[quantity] = Layer(
                volume=found.volume(quantity), is_map=True, unit=known.unit if known else "1"
            )
    outlines: dict[str, Outline] = {"cord": orient(image.mask.volume).data}
    outlines |= atlas_outlines(found.atlas)
    return draw_step(
        image,
        name=name,
        title=image.label,
        layers=layers,
        outlines=outlines,
        off=("columns (atlas)",),
        caption="The mean of the weighted volumes after correction of motion, the mean without "
        "weighting, and maps. Where the cord lies elsewhere in the two means, b = 0 and weighted volumes "
        "were not aligned. FA is dark in grey matter and in CSF.",
    )


def draw_motion(found: DiffusionMaps, name: str) -> Figure | None:
    """Show how far the cord moved, volume by volume; volumes with outlier slices are crosses."""
    motion = found.series.prepared.motion
    if motion is None:
        return None
    lost = np.asarray(found.series.prepared.outlier.any(axis=0), dtype=bool)
    moved = motion.displacement_mm
    curve = figures.Curve(
        label="displacement",
        x=np.arange(moved.size, dtype=float),
        y=moved,
        used=~lost,
        value=float(moved.mean()),
        unit="mm",
        status=Status.PASS,
        name="displacement",
        note="mean over volumes",
    )
    return figures.curves(
        name,
        f"Motion in {found.image.label}",
        curves=[curve],
        x_label="Volume",
        y_label="",
        alt=f"Displacement of the cord in every volume of {found.image.label}",
        caption="Mean over the slices, against the mean of the series; crosses are volumes in which a "
        "slice was left out.",
    )


# -- sentences ---------------------------------------------------------------------------------------


def diffusion_methods(found: Sequence[DiffusionMaps]) -> list[str]:
    """Write one paragraph per series: preprocessing in its order, models, and how regions were taken."""
    paragraphs = []
    for one in found:
        words = [f"Diffusion ({one.image.label}): {one.image.mask.method}.", *one.series.prepared.sentences]
        words += [f"{maps.model[:1].upper()}{maps.model[1:]}." for maps in one.models.values()]
        words += [f"No {model}: {why}." for model, why in one.missing.items()]
        words.append(
            "Values of tensor and kurtosis of a region come from the maps; their standard uncertainty is "
            "that of the voxels' fits, carried through the extraction as if voxels were independent, which "
            "interpolation and denoising make too small."
        )
        if "microscopic" in one.models:
            words.append("Microscopic anisotropy of a region was fitted once to the signals of the region.")
        paragraphs.append(" ".join(words))
    return paragraphs


def diffusion_references(found: Sequence[DiffusionMaps]) -> list[str]:
    """List what the models rest on."""
    if not found:
        return []
    models = {name for one in found for name in one.models}
    return [_TENSOR_DOI, *(text for name, text in _REFERENCES.items() if name in models)]
