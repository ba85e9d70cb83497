"""The figures of one participant: every step drawn over its images, and the values along the cord."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cordqa import figures
from cordqa.cord.atlas import AtlasImage
from cordqa.cord.axes import orient
from cordqa.errors import CordqaError
from cordqa.quantities import get_quantity
from cordqa.records import Figure, Status
from cordqa.workflow.cord_mosaic import Layer, Outline, draw_step
from cordqa.workflow.cord_records import CordImage, TransferMaps, Unit

__all__ = ["atlas_outlines", "draw_unit"]

_CURVES = ("CSA", "diameter_AP", "diameter_RL")
#: Regions of the atlas that are outlined: one overlay each, made of the regions that the atlas has.
_ATLAS_OUTLINES = {"grey matter (atlas)": ("GM",), "columns (atlas)": ("DC", "LF", "VF")}
#: Outlines that would hide the picture if they were shown at once.
_QUIET = ("columns (atlas)",)
#: Images of a magnetization-transfer protocol in the order in which they are kept.
_ROLES = ("MT-on", "MT-off", "T1w")


def draw_unit(
    unit: Unit,
    maps: Sequence[TransferMaps],
    *,
    steps: Mapping[str, Callable[[str], Figure]] | None = None,
) -> tuple[Figure, ...]:
    """Make all figures of a participant in the order of the report.

    ``steps`` draws the images of other steps: path of the image to a function of the figure's name.

    Every image gets one mosaic with all that was drawn over it; see
    :mod:`cordqa.workflow.cord_mosaic` for how to show a further step.
    """
    with_maps = {found.image.file.relative: found for found in maps}
    drawn: list[Figure | None] = []
    for number, image in enumerate(unit.images, start=1):
        found = with_maps.get(image.file.relative)
        try:
            own = (steps or {}).get(image.file.relative)
            if own is not None:
                drawn.append(own(f"cord-{number}"))
            else:
                drawn.append(_anatomy(image, number) if found is None else _transfer(found, number))
        except CordqaError as error:
            # A picture that cannot be made must not cost the values; the page says why it is missing.
            drawn.append(
                Figure(name=f"cord-{number}", kind="mosaic", title=image.label, caption=str(error), data={})
            )
    drawn += [
        _shape(image, number)
        for number, image in enumerate(unit.images, start=1)
        # The mask of a diffusion series serves the atlas; its outline is drawn another way.
        if image.file.suffix != "dwi"
    ]
    return tuple(figure for figure in drawn if figure is not None)


def _anatomy(image: CordImage, number: int) -> Figure:
    return draw_step(
        image,
        name=f"cord-{number}",
        title=image.label,
        layers={image.label: Layer(volume=image.volume)},
        outlines={"cord": orient(image.mask.volume).data},
    )


def _transfer(found: TransferMaps, number: int) -> Figure:
    """Show the images of a protocol as they were aligned, and the maps, with cord and atlas over all."""
    image = found.image
    layers = {role: Layer(volume=volume) for role, volume in zip(_ROLES, found.signals, strict=False)}
    layers = layers or {image.label: Layer(volume=image.volume)}
    layers |= {
        name: Layer(volume=volume, is_map=True, unit=get_quantity(name).unit)
        for name, volume in found.maps.items()
    }
    outlines: dict[str, Outline] = {"cord": orient(image.mask.volume).data}
    outlines |= atlas_outlines(found.atlas)
    return draw_step(
        image,
        name=f"cord-{number}",
        title=image.label,
        layers=layers,
        outlines=outlines,
        off=_QUIET,
        caption="Flip between the pictures: the cord must not move from one to the next. The lines of "
        "cord and atlas should follow the edges of all of them. A mark concerns the whole protocol. Left "
        "in a picture is the person's right.",
    )


def atlas_outlines(atlas: AtlasImage | None) -> dict[str, list[NDArray[np.float64]]]:
    """Grey matter and columns of a laid atlas, one overlay each; none where it could not be laid."""
    if atlas is None:
        return {}
    known = atlas.labels.regions
    return {
        label: [atlas.paint(known[name]) for name in names if name in known]
        for label, names in _ATLAS_OUTLINES.items()
        if any(name in known for name in names)
    }


def _shape(image: CordImage, number: int) -> Figure | None:
    """Show area and diameters along the cord, one panel each."""
    values: Mapping[str, NDArray[np.float64]] = image.table.values
    if not np.isfinite(values["CSA"]).any():
        return None
    drawn = []
    usable = np.array([int(s) not in image.outliers for s in image.table.slices])
    for name in _CURVES:
        known = np.isfinite(values[name])
        drawn.append(
            figures.Curve(
                label=get_quantity(name).label,
                x=image.table.z_mm[known],
                y=values[name][known],
                used=usable[known],
                value=float(np.nanmean(values[name])),
                unit=get_quantity(name).unit,
                status=Status.PASS,
                name=name,
                note="mean over slices",
            )
        )
    return figures.curves(
        f"shape-{number}",
        f"Along the cord in {image.label}",
        curves=drawn,
        x_label="Distance from the lowest slice (mm)",
        y_label="",
        alt=f"Area and diameters of the cord in {image.label} along its length",
        caption="Each point is a slice, from inferior to superior; crosses are slices that need a look.",
    )
