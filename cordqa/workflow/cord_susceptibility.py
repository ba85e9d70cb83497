"""Susceptibility of the cord: from phase and magnitude of gradient echoes to maps and values of regions.

The cord is found in the magnitude; a mask of the user wins.  The field is fitted and inverted in the
canal: in the user's own mask of it where there is one, else in the outline of the cord, widened through
voxels with signal and believable phase.  What fails concerns that scan alone, and a phase that cannot
be used does not cost the shape of the cord.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.atlas import AtlasImage
from cordqa.cord.axes import orient
from cordqa.cord.morphometry import measure_morphometry
from cordqa.errors import CordqaError, EmptyInputError, InputError
from cordqa.io.bids_index import BidsFile, BidsIndex
from cordqa.io.bids_labels import Role, find_user_files
from cordqa.io.volumes import read_volume
from cordqa.models.susceptibility.pipeline import (
    MappingSettings,
    Scan,
    SusceptibilityMapping,
    map_susceptibility,
)
from cordqa.models.susceptibility.total_field import ChainSettings
from cordqa.records import Severity, Volume
from cordqa.workflow.cord_atlas import AtlasChoice, lay_into_cord
from cordqa.workflow.cord_image import (
    find_mask,
    find_outliers,
    leave_out_slices,
    own_levels,
    shape_rows,
    slice_verdict,
)
from cordqa.workflow.cord_records import CordImage, Unit, lay_like
from cordqa.workflow.cord_select import ANATOMICAL, Selection, make_entities
from cordqa.workflow.cord_settings import CordSettings
from cordqa.workflow.cord_susceptibility_decay import map_decay, surround
from cordqa.workflow.cord_susceptibility_echoes import (
    EchoSet,
    read_echo_times,
    read_part,
    read_scan,
)
from cordqa.workflow.cord_susceptibility_rows import susceptibility_rows
from cordqa.workflow.cord_transfer import carried_levels

__all__ = ["SusceptibilityMaps", "analyse_susceptibility", "measure_echo_image", "skip_susceptibility"]

Mask = NDArray[np.bool_]

_STEP = "susceptibility"
#: Realisations of the noise; an error from this many is itself known to 1 / sqrt(2 n), three tenths.
_DRAWS = 6
_HALF = 0.5
_MISFIT = "its echoes or its field do not fit those of the other slices (breathing, flow)"


@dataclass(frozen=True, slots=True, kw_only=True)
class SusceptibilityMaps:
    """Everything that one gradient-echo scan gave.

    Attributes
    ----------
    image : CordImage
        Root mean square of the magnitude over the echoes, with the cord in it.
    echoes : EchoSet
    found : SusceptibilityMapping
    atlas : AtlasImage or None
        None where it could not be laid.
    fit_mask : str
        What the field was fitted in.
    """

    image: CordImage
    echoes: EchoSet
    found: SusceptibilityMapping
    atlas: AtlasImage | None
    fit_mask: str

    def volume(self, quantity: str) -> Volume:
        """Return the map of a quantity."""
        values = self.found.maps.values[quantity].astype(np.float32)
        return Volume(data=values, affine=self.image.volume.affine, source=quantity)


def analyse_susceptibility(
    index: BidsIndex,
    echoes: EchoSet,
    unit: Unit,
    choice: AtlasChoice,
    *,
    settings: CordSettings,
    marks: Mapping[str, str],
) -> SusceptibilityMaps | None:
    """Analyse one gradient-echo scan; what fails is recorded in ``unit``.

    Parameters
    ----------
    index : BidsIndex
    echoes : EchoSet
        Of :func:`~cordqa.workflow.cord_susceptibility_echoes.gather_echoes`.
    unit : Unit
        Receives image, rows, notices and outcomes.
    choice : AtlasChoice
    settings : CordSettings
    marks : mapping
        Marks of a reviewer.
    """
    sources = tuple(file.relative for file in echoes.files)
    made = measure_echo_image(index, echoes, unit, settings=settings, marks=marks)
    if made is None:
        unit.skip(echoes.name, _STEP, "no cord was found in the magnitude", "susceptibility.no-cord", sources)
        return None
    image, magnitude = made
    lone = not echoes.by_part.get("phase") and not {"real", "imag"} <= echoes.by_part.keys()
    if lone:
        reason = "there is no phase beside the magnitude; susceptibility needs it (part-phase)"
        unit.skip(echoes.name, _STEP, reason, "susceptibility.no-phase", sources)
        if magnitude.data.shape[-1] < 2:
            return None
    try:
        if lone:
            found, fit_mask = _decay(index, echoes, image, magnitude, unit)
        else:
            scan = read_scan(index, echoes, unit, magnitude, phase_range=settings.phase_range or None)
            found, fit_mask = _map(index, echoes, scan, image, unit, settings)
    except CordqaError as error:
        unit.fail(echoes.name, "R2star" if lone else _STEP, error, sources)
        return None
    if not lone:
        image = _with_misfits(image, found)
        unit.images[-1], unit.verdicts[-1] = image, slice_verdict(image)
        _tell(echoes, found, unit)
    unit.done(
        echoes.name, "R2star" if lone else _STEP, f"{', '.join(found.maps.values)}; {fit_mask}", sources
    )
    return _take_regions(
        SusceptibilityMaps(image=image, echoes=echoes, found=found, atlas=None, fit_mask=fit_mask),
        choice,
        unit,
        settings,
    )


def _take_regions(
    done: SusceptibilityMaps, choice: AtlasChoice, unit: Unit, settings: CordSettings
) -> SusceptibilityMaps:
    """Lay the atlas and take the values of its regions."""
    echoes, image, found, fit_mask = done.echoes, done.image, done.found, done.fit_mask
    sources = tuple(file.relative for file in echoes.files)
    atlas = lay_into_cord(image, choice, unit, echoes.name)
    done = replace(done, atlas=atlas)
    if atlas is not None:
        try:
            rows = susceptibility_rows(
                found, image, atlas, choice, settings=settings, flags=(f"fitted in {fit_mask}",)
            )
        except CordqaError as error:
            unit.fail(echoes.name, "extraction", error, sources)
            return done
        unit.rows.extend(rows)
        words = ", ".join(dict.fromkeys(row.quantity for row in rows))
        unit.done(image.label, "extraction", f"{words} by {settings.method} of the map, {choice.name}")
    return done


def skip_susceptibility(chosen: Selection, unit: Unit) -> None:
    """Leave gradient echoes to no engine but the built-in one; magnitudes of one file stay anatomical."""
    for echoes in chosen.susceptibility:
        magnitude = echoes.by_part.get("mag", ())
        if echoes.image.suffix in ANATOMICAL and len(magnitude) == 1:
            chosen.anatomical.append(magnitude[0])
        reason = "only the engine builtin maps susceptibility; 'cordqa fit qsm' maps it without regions"
        sources = tuple(file.relative for file in echoes.files)
        unit.skip(echoes.name, _STEP, reason, "susceptibility.engine", sources)


# -- the image ---------------------------------------------------------------------------------------


def measure_echo_image(
    index: BidsIndex, echoes: EchoSet, unit: Unit, *, settings: CordSettings, marks: Mapping[str, str]
) -> tuple[CordImage, Volume] | None:
    """Find the cord in the magnitude of all echoes and measure its shape.

    Returns
    -------
    tuple of CordImage and Volume, or None
        The image, appended to ``unit.images`` as well, and the magnitude of all echoes.
    """
    file, sources = echoes.image, tuple(one.relative for one in echoes.files)
    try:
        magnitude = _magnitude(echoes, unit)
        image = _make_image(index, echoes, file, magnitude, unit)
    except CordqaError as error:
        unit.fail(echoes.name, "cord", error, sources)
        return None
    image = leave_out_slices(image, marks, unit)
    unit.images.append(image)
    measured = int(np.isfinite(image.table.values["CSA"]).sum())
    words = f"mask of the user ({image.mask.source})" if image.mask.source else image.mask.method
    unit.done(echoes.name, "cord", f"{measured} slices measured; {words}", sources)
    shape_rows(image, unit, wanted=settings.levels)
    return image, magnitude


def _magnitude(echoes: EchoSet, unit: Unit) -> Volume:
    if "mag" in echoes.by_part or not {"real", "imag"} <= echoes.by_part.keys():
        return read_part(echoes, "mag", unit)
    real, imaginary = read_part(echoes, "real", unit), read_part(echoes, "imag", unit)
    if real.data.shape != imaginary.data.shape:
        raise EmptyInputError(
            "real and imaginary part do not have the same echoes",
            where=echoes.name,
            found=f"{real.data.shape} and {imaginary.data.shape}",
        )
    return Volume(data=np.hypot(real.data, imaginary.data), affine=real.affine, source=real.source)


def _make_image(
    index: BidsIndex, echoes: EchoSet, file: BidsFile, magnitude: Volume, unit: Unit
) -> CordImage:
    """Join the echoes by their root mean square, which weighs the strong ones and keeps T2* contrast."""
    data = np.nan_to_num(np.asarray(magnitude.data, dtype=np.float32), posinf=0.0, neginf=0.0)
    joined = np.sqrt(np.mean(data**2, axis=-1, dtype=np.float32))
    volume = Volume(data=joined, affine=magnitude.affine, source=file.relative)
    user = find_user_files(index, file)
    unit.notices.extend(user.notices)
    mask = find_mask(index, file, volume, unit, user)
    table = measure_morphometry(mask.volume, pieces="raise" if mask.engine == "user" else "largest")
    image = CordImage(
        file=file,
        volume=volume,
        entities=make_entities(index, file, contrast=echoes.acquisition),
        mask=mask,
        table=table,
        levels=own_levels(index, user, volume, table, echoes.name, unit),
        outliers=find_outliers(table, mask),
    )
    return image if image.levels is not None else replace(image, levels=carried_levels(image, unit))


# -- the maps ----------------------------------------------------------------------------------------


def _map(
    index: BidsIndex, echoes: EchoSet, scan: Scan, image: CordImage, unit: Unit, settings: CordSettings
) -> tuple[SusceptibilityMapping, str]:
    cord = np.asarray(np.nan_to_num(image.mask.volume.data) > _HALF)
    canal, words = _canal(index, echoes, image, unit), "the cord mask, widened to the canal"
    mapping = MappingSettings(chain=ChainSettings(probes=_DRAWS), phase_sign=settings.phase_sign)
    if canal is None:
        return map_susceptibility(scan, cord_mask=cord, settings=mapping), words
    # A cord that reaches beyond the user's canal is cord all the same.
    found = map_susceptibility(scan, mask=canal | cord, settings=mapping)
    return found, "the canal mask of the user"


def _decay(
    index: BidsIndex, echoes: EchoSet, image: CordImage, magnitude: Volume, unit: Unit
) -> tuple[SusceptibilityMapping, str]:
    """Map R2*, which needs no phase."""
    times = read_echo_times(index, echoes.by_part["mag"], magnitude.data.shape[-1])
    cord = np.asarray(np.nan_to_num(image.mask.volume.data) > _HALF)
    canal = _canal(index, echoes, image, unit)
    if canal is not None:
        return map_decay(magnitude, times, canal | cord), "the canal mask of the user"
    where = surround(cord, image.volume.affine)
    return map_decay(magnitude, times, where), "the cord mask and what lies around it"


def _canal(index: BidsIndex, echoes: EchoSet, image: CordImage, unit: Unit) -> Mask | None:
    own = find_user_files(index, echoes.image).by_role.get(Role.CANAL)
    if own is None:
        return None
    unit.used.add(own.relative)
    laid = lay_like(read_volume(own.path, source=own.relative), image.volume, what="canal mask")
    values = np.nan_to_num(np.asarray(laid.data))
    # Above 1 are labels, or a mask that was stored as 0 and 255.
    inside: Mask = values > (_HALF if values.max(initial=0.0) <= 1.0 else 0.0)
    if not inside.any():
        raise EmptyInputError("the canal mask is empty", where=own.relative)
    if inside.all():
        raise InputError(
            "the canal mask holds every voxel of the image, so it is no canal",
            where=own.relative,
            todo="draw the canal, or take the mask away: the cord mask is widened then",
        )
    return inside


def _with_misfits(image: CordImage, found: SusceptibilityMapping) -> CordImage:
    """Add slices whose echoes or field stand out to those that need a look."""
    laid = orient(image.mask.volume)
    if laid.order[2] != found.quality["slice_axis"]:
        return image
    flagged = {int(k) for k in found.quality["slices_flagged"]}
    outliers = dict(image.outliers)
    for number in (int(n) for n in image.table.slices):
        if laid.array_index(number) in flagged and number not in image.left_out:
            outliers[number] = "; ".join(t for t in (outliers.get(number, ""), _MISFIT) if t)
    return replace(image, outliers=outliers)


def _tell(echoes: EchoSet, found: SusceptibilityMapping, unit: Unit) -> None:
    """Say what the data and the mapping leave to be known."""
    attached = found.maps.attached
    for text in attached.warnings if attached else ():
        unit.note("susceptibility.warning", text, echoes.name)
    for text in found.maps.notices:
        unit.note("susceptibility.note", text, echoes.name, Severity.INFO)
    misfit = [f"{value:.2f}" for value in found.quality["misfit_by_echo"]]
    if misfit:
        text = f"misfit of the phase by echo, in units of noise: {', '.join(misfit)} (1 is noise alone)"
        unit.note("susceptibility.residual", text, echoes.name, Severity.INFO)
