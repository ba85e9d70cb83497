"""Methods text and citations of a cord run, made from what actually ran."""

from __future__ import annotations

from collections.abc import Sequence

from cordqa import __version__
from cordqa.workflow.cord_atlas import AtlasChoice
from cordqa.workflow.cord_records import TransferMaps, Unit
from cordqa.workflow.cord_settings import CordSettings

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


def methods(
    unit: Unit, maps: Sequence[TransferMaps], atlas: AtlasChoice, settings: CordSettings
) -> tuple[str, ...]:
    """Write the paragraphs that apply to this participant."""
    if not unit.images:
        return ()
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
    words += (
        f" Values of a region were taken by {settings.method} over white matter, grey matter and CSF as "
        "filled by the "
        f"{atlas.name}, laid into the mask by its centre, axes and outline."
    )
    if atlas.approximate:
        words += (
            " Borders of that atlas are schematic: groups of tracts are approximate, and single tracts "
            "are not given."
        )
    return words


def references(unit: Unit, maps: Sequence[TransferMaps]) -> tuple[str, ...]:
    """List the citations that this participant's values rest on."""
    found = []
    if any("MTsat" in one.maps for one in maps):
        found.append(_HELMS)
    if maps:
        found.append(_LEVY)
    if any("PAM50" in row.method for row in unit.rows):
        found.append(_PAM50)
    if any("sct" in image.mask.engine for image in unit.images):
        found.append(_SCT)
    return tuple(found)
