"""Methods text and citations of a cord run, made from what actually ran."""

from __future__ import annotations

from collections.abc import Sequence

from cordqa import __version__
from cordqa.cord.point_spread import NOT_TOLD, TOLD
from cordqa.workflow.cord_atlas import AtlasChoice
from cordqa.workflow.cord_diffusion import DiffusionMaps
from cordqa.workflow.cord_diffusion_output import diffusion_methods, diffusion_references
from cordqa.workflow.cord_grey_matter import GreyMatterImage
from cordqa.workflow.cord_records import TransferMaps, Unit
from cordqa.workflow.cord_settings import CordSettings, uses_signals

__all__ = ["methods", "references"]

_HELMS = (
    "Helms G et al. High-resolution maps of magnetization transfer with inherent correction for RF "
    "inhomogeneity and "
    "T1 relaxation obtained from 3D FLASH MRI. Magn Reson Med "
    "2008;60:1396-1407. doi:10.1002/mrm.21732; erratum doi:10.1002/mrm.22607"
)
_LEVY = (
    "Levy S et al. White matter atlas of the human spinal cord with estimation of partial volume effect. "
    "NeuroImage "
    "2015;119:262-271. doi:10.1016/j.neuroimage.2015.06.040"
)
_PAM50 = (
    "De Leener B et al. PAM50: unbiased multimodal template of the brainstem and spinal cord aligned with "
    "the ICBM152 space. NeuroImage "
    "2018;"
    "165:170-179. doi:10.1016/j.neuroimage.2017.10.041"
)
_SCT = (
    "De Leener B et al. SCT: Spinal Cord Toolbox, an open-source software for processing spinal cord MRI "
    "data. NeuroImage 2017;145:24-43. "
    "doi:10.1016/j.neuroimage.2016.10.009"
)

_SCHEMATIC = (
    " Borders of that atlas are schematic: groups of tracts are approximate, and single tracts are not given."
)


def methods(
    unit: Unit,
    maps: Sequence[TransferMaps],
    atlas: AtlasChoice,
    settings: CordSettings,
    *,
    diffusion: Sequence[DiffusionMaps] = (),
    grey: Sequence[GreyMatterImage] = (),
) -> tuple[str, ...]:
    """Write the paragraphs that apply to this participant."""
    if not unit.images:
        return ()
    if settings.engine == "sct":
        return _toolbox(unit, maps, settings)
    text = [
        "Experimental: the built-in segmentation was trained on simulated sections alone and tried on a few "
        "real images of healthy people; show the repeatability of these values on your own test-retest data "
        "before they are used in a study.",
        f"Images were analysed with cordqa {__version__}. "
        + " ".join(f"{image.label}: {image.mask.method}." for image in unit.images),
        "Cross-sectional area is the sum of the mask times the area of a voxel times the cosine of the "
        "angle between "
        "the slice and the cord, whose direction is that of a smoothing spline through the centres of "
        "mass; the area "
        "within the slice, without that correction, is given as well and named so. Diameters are the axes "
        "of the "
        "ellipse with the second moments of the cross-section. Values per level are means over slices; their "
        "uncertainty is the standard deviation between slices over the root of their number, which treats "
        "slices as "
        "independent.",
    ]
    levels = {image.levels.how for image in unit.images if image.levels is not None}
    if levels:
        text.append(
            f"Vertebral levels come from {'; '.join(sorted(levels))}. Between labels the spacing of an "
            "average spine is "
            "stretched to fit."
        )
    if maps:
        text.append(_transfer(maps, atlas, settings))
    if grey:
        text.append(_grey_matter(grey))
    text += diffusion_methods(diffusion)
    if diffusion and not maps:
        text.append(_regions(atlas, settings))
    text += _sharpness(unit)
    return tuple(text)


def _sharpness(unit: Unit) -> list[str]:
    """Say how blurred the images were found, where values were taken from signals."""
    found = dict.fromkeys(
        f"{row.entities.acquisition}: {flag}"
        for row in unit.rows
        for flag in row.flags
        if flag == NOT_TOLD or flag.startswith(TOLD)
    )
    if not found:
        return []
    return [
        "Where values of magnetization transfer come from signals, the edge of the atlas was moved and "
        "blurred in the plane as the images show it: one Gaussian and one place for all slices and images, "
        "by least squares of white matter, grey matter, CSF and surroundings with free values in every slice "
        f"and image ({'; '.join(found)}). The uncertainty of these two is not part of that of the values."
    ]


def _grey_matter(grey: Sequence[GreyMatterImage]) -> str:
    parts = " ".join(f"{one.image.label}: {one.method}." for one in grey)
    return (
        f"Grey matter: {parts} Its area is the sum of the mask times the area of a voxel times the cosine of "
        "the angle between the slice and the cord; slices that do not show it have no area."
    )


def _regions(atlas: AtlasChoice, settings: CordSettings) -> str:
    words = (
        f"Regions are those of the {atlas.name}, laid into the mask by its centre, axes and outline; values "
        f"were taken by {settings.method}."
    )
    return words + _SCHEMATIC if atlas.approximate else words


def _toolbox(unit: Unit, maps: Sequence[TransferMaps], settings: CordSettings) -> tuple[str, ...]:
    """Write what the toolbox did; its programs and options are in the logs."""
    version = ", ".join(sorted({row.engine for row in unit.rows})) or "sct"
    text = [
        f"Experimental: driven by cordqa {__version__}, tested on recorded runs of the Spinal Cord Toolbox.",
        "Segmentation, shape of the cord, registration of the PAM50 template and extraction are those of "
        f"the Spinal Cord Toolbox ({version}). "
        + " ".join(f"{image.label}: {image.mask.method}." for image in unit.images)
        + " Areas are perpendicular to its centreline.",
    ]
    levels = {image.levels.how for image in unit.images if image.levels is not None}
    if levels:
        text.append(f"Vertebral levels come from {'; '.join(sorted(levels))}.")
    if maps or any(row.quantity == "FA" for row in unit.rows):
        text.append(
            "Other contrasts were aligned by its slice-wise registration within 35 mm around the cord, "
            "diffusion series by its motion correction. In slices thicker than 2 mm the template was fitted "
            "in the space of the image, by the middles of at most two vertebrae. Values of a region were "
            f"taken by {settings.method} from the maps of the voxels' values; voxels at the edge of the cord "
            "bias MTsat and T1 taken that way."
        )
    return tuple(text)


def _transfer(maps: Sequence[TransferMaps], atlas: AtlasChoice, settings: CordSettings) -> str:
    quantities = {quantity for found in maps for quantity in found.maps}
    words = (
        "Images of a magnetization-transfer protocol were aligned slice by slice in the plane where a "
        "shift could be "
        "measured. MTR is 100 (off - on) / off."
    )
    if "MTsat" in quantities:
        words += (
            " MTsat and T1 follow the algebra of Helms et al. (2008, erratum 2010) with nominal flip "
            "angles and each "
            "image's own repetition time; no B1 correction (b1_model none)."
        )
    words += _extraction(atlas, settings, quantities)
    if atlas.approximate:
        words += _SCHEMATIC
    return words


def _extraction(atlas: AtlasChoice, settings: CordSettings, quantities: set[str]) -> str:
    """Say how the value of a region was taken, and from what."""
    parts = f"white matter, grey matter and CSF as filled by the {atlas.name}"
    laid = "laid into the mask by its centre, axes and outline"
    words = f" Values of a region were taken by {settings.method} over {parts}, {laid}."
    known = [name for name in ("MTR", "MTsat", "T1") if name in quantities]
    signals = [name for name in known if uses_signals(settings, name)]
    maps = [name for name in known if name not in signals]
    if signals:
        words += (
            f" {_listed(signals)}: the signals of the region were estimated in every image and the quantity "
            "computed once from them, because signals of the parts of a voxel add up and the quantity does "
            "not; its standard uncertainty carries the scatter of voxels through the model."
        )
    if maps:
        words += (
            f" {_listed(maps)}: taken from the map of the voxels' values, as the Spinal Cord Toolbox does; "
            "voxels that hold CSF bias such values (in simulations MTR of white matter by -2 to 0 %, MTsat "
            "by -4 to -6 %, T1 by -10 to -14 % where the image is sharp)."
        )
    return words


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def references(
    unit: Unit, maps: Sequence[TransferMaps], *, diffusion: Sequence[DiffusionMaps] = ()
) -> tuple[str, ...]:
    """List the citations that this participant's values rest on."""
    found = []
    if any("MTsat" in one.maps for one in maps):
        found.append(_HELMS)
    if maps or diffusion:
        found.append(_LEVY)
    found += diffusion_references(diffusion)
    if any("PAM50" in row.method for row in unit.rows):
        found.append(_PAM50)
    if any("sct" in image.mask.engine for image in unit.images) or any(
        row.engine.startswith("sct ") for row in unit.rows
    ):
        found += [_SCT] if _PAM50 in found else [_PAM50, _SCT]
    return tuple(found)
