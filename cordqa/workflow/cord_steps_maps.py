"""Maps of a participant through the steps of an engine: magnetization transfer and diffusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cordqa.cord.morphometry import measure_morphometry
from cordqa.engines.protocol import Contrast, SpoiledImage, Tissue
from cordqa.errors import CordqaError, EmptyInputError
from cordqa.io.bids_index import BidsFile, BidsIndex
from cordqa.io.gradients import find_gradient_files
from cordqa.io.volumes import read_volume
from cordqa.models.magnetization_transfer.pairing import check_mt_pair, check_mt_triplet
from cordqa.quantities import get_quantity
from cordqa.records import Acquisition, Volume
from cordqa.workflow.cord_image import analyse_image, find_outliers, make_contrast
from cordqa.workflow.cord_records import CordImage, Mask, TransferMaps
from cordqa.workflow.cord_select import Selection, TransferSet, make_entities
from cordqa.workflow.cord_steps import StepRun, contrast_of
from cordqa.workflow.cord_transfer import (
    carried_levels,
    check_settings,
    choose_fixed,
    mismatch_flags,
    note_pair,
    read_acquisition,
)

__all__ = ["analyse_by_steps", "diffusion_by_steps", "transfer_by_steps"]

_FROM_UNIT = {"s": 1000.0}


def analyse_by_steps(index: BidsIndex, chosen: Selection, run: StepRun) -> list[TransferMaps]:
    """Analyse the images of one participant by the steps of an engine; return the maps, for the page."""
    unit = run.unit
    for file in chosen.anatomical:
        image = analyse_image(index, file, unit)
        if image is not None:
            unit.images[-1] = run.label(index, image)
    for n, image in enumerate(unit.images):
        unit.images[n] = replace(image, levels=image.levels or carried_levels(image, unit))
        run.shape(unit.images[n])
    maps = []
    for protocol in chosen.transfer:
        before = len(unit.images)
        found = transfer_by_steps(index, protocol, run)
        if found is not None:
            unit.images[before:] = [found.image]
            run.shape(found.image)
            maps.append(found)
    for file in chosen.diffusion:
        diffusion_by_steps(index, file, run)
    return maps


def transfer_by_steps(index: BidsIndex, protocol: TransferSet, run: StepRun) -> TransferMaps | None:
    """Align, map, lay the template and extract one MT protocol; what fails is recorded."""
    roles, unit = protocol.by_role, run.unit
    if not {"on", "off"} <= roles.keys():
        unit.skip(
            protocol.name, "magnetization transfer", "MT-on and MT-off are both needed", "mt.incomplete"
        )
        return None
    fixed = choose_fixed(index, roles)
    image = analyse_image(index, roles[fixed], unit)
    if image is None:
        unit.skip(protocol.name, "magnetization transfer", "no cord was found", "mt.no-cord")
        return None
    image = replace(
        image,
        entities=replace(image.entities, acquisition=protocol.acquisition),
        levels=image.levels or carried_levels(image, unit),
    )
    sources = tuple(file.relative for file in roles.values())
    try:
        settings = {role: read_acquisition(index, file) for role, file in roles.items()}
        paths = _align(run, image, roles, fixed)
        maps, flags = _transfer_maps(run, image, paths, settings, protocol.name, sources)
    except CordqaError as error:
        unit.fail(protocol.name, "magnetization transfer", error, sources)
        return None
    found = TransferMaps(
        image=image,
        maps={name: _registered(path, unit_of, name) for name, (path, unit_of) in maps.items()},
        atlas=None,
        sources=tuple(roles.values()),
        flags=flags,
        shifts=tuple(f"{role} aligned by {run.engine.name}" for role in roles if role != fixed),
    )
    atlas = _extract(run, image, roles[fixed].path, contrast_of(roles[fixed]), maps, flags, protocol.name)
    return found if atlas is None else replace(found, atlas=run.atlas_image(atlas))


def _align(run: StepRun, image: CordImage, roles: Mapping[str, BidsFile], fixed: str) -> dict[str, Path]:
    """Bring the other images onto the one that stays."""
    paths = {fixed: roles[fixed].path}
    for role, file in roles.items():
        if role != fixed:
            result = run.engine.coregister(
                file.path,
                run.folder(image.file),
                fixed=roles[fixed].path,
                segmentation=run.mask_file(image),
            )
            run.take(result, make_contrast(file))
            paths[role] = result.files["registered"]
    return paths


def _transfer_maps(
    run: StepRun,
    image: CordImage,
    paths: Mapping[str, Path],
    settings: Mapping[str, Acquisition],
    name: str,
    sources: tuple[str, ...],
) -> tuple[dict[str, tuple[Path, str]], dict[str, tuple[str, ...]]]:
    """Make the maps: file and unit by quantity, and what is to be said about each."""
    unit, folder = run.unit, run.folder(image.file)
    pair = check_mt_pair(settings["on"], settings["off"])
    note_pair(pair, unit, name)
    ratio = run.engine.mtr(paths["on"], folder, mt_off=paths["off"])
    maps = {"MTR": (ratio.files["MTR"], ratio.units["MTR"])}
    flags = {"MTR": mismatch_flags(pair)}
    if "T1w" not in paths:
        unit.skip(name, "MTsat and T1", "no T1-weighted image of the protocol", "mt.no-t1w")
    else:
        triplet = check_mt_triplet(settings["on"], settings["off"], settings["T1w"])
        note_pair(triplet, unit, name)
        try:
            check_settings(settings)
            on, off, t1w = (
                SpoiledImage(
                    path=paths[role],
                    repetition_time_s=settings[role].repetition_time_s,
                    flip_angle_deg=settings[role].flip_angle_deg,
                )
                for role in ("on", "off", "T1w")
            )
            found = run.engine.mtsat(on, folder, mt_off=off, t1w=t1w)
            maps |= {q: (found.files[q], found.units[q]) for q in ("MTsat", "T1")}
            flags |= {q: mismatch_flags(triplet) for q in ("MTsat", "T1")}
        except CordqaError as error:
            unit.fail(name, "MTsat and T1", error, sources)
    unit.done(name, "maps", ", ".join(maps), sources)
    return maps, flags


def _extract(
    run: StepRun,
    image: CordImage,
    shown: Path,
    contrast: Contrast,
    maps: Mapping[str, tuple[Path, str]],
    flags: Mapping[str, Sequence[str]],
    name: str,
) -> Path | None:
    """Lay the template and extract every map; return the folder of the atlas, None where it failed."""
    sources = (image.file.relative,)
    try:
        if image.levels is None and run.engine.name == "sct":
            raise EmptyInputError(
                "the template needs a level: no label lies in this image or another of the session",
                where=image.label,
                todo="label one disc or vertebral body of one image",
            )
        atlas = run.lay_template(image, shown, contrast)
    except CordqaError as error:
        run.unit.fail(name, "template", error, sources)
        return None
    run.unit.done(name, "template", f"{run.engine.name} {run.engine.version}")
    for quantity, (path, unit_of) in maps.items():
        try:
            run.extract(image, path, atlas, quantity=quantity, unit=unit_of, flags=flags.get(quantity, ()))
        except CordqaError as error:
            run.unit.fail(name, f"extraction of {quantity}", error, sources)
    run.unit.done(image.label, "extraction", f"{', '.join(maps)}, {run.settings.method} of the map")
    return atlas


def _registered(path: Path, unit_of: str, quantity: str) -> Volume:
    """Read a map in the registered unit of its quantity."""
    volume = read_volume(path, source=quantity)
    factor = _FROM_UNIT.get(unit_of, 1.0) if get_quantity(quantity).unit != unit_of else 1.0
    return Volume(data=volume.data * factor, affine=volume.affine, source=quantity)


# -- diffusion ---------------------------------------------------------------------------------------


def diffusion_by_steps(index: BidsIndex, file: BidsFile, run: StepRun) -> None:
    """Motion, tensor, template and extraction of one diffusion series; what fails is recorded."""
    name, sources = make_contrast(file), (file.relative,)
    folder = run.folder(file)
    try:
        gradients = find_gradient_files(file.path, root=index.root)
        if gradients.bval is None or gradients.bvec is None:
            raise EmptyInputError(
                "a diffusion series needs its b-values and directions",
                where=file.relative,
                todo="put .bval and .bvec beside it under its name",
            )
        run.unit.used.add(file.relative)
        bvals, bvecs = gradients.bval, gradients.bvec
        moved = run.engine.motion_correct(file.path, folder, bvals=bvals, bvecs=bvecs)
        run.take(moved, name)
        tensor = run.engine.dti(moved.files["image"], folder, bvals=bvals, bvecs=bvecs)
        run.take(tensor, name)
        image = _mean_image(index, file, moved.files["dwi_mean"], run)
    except CordqaError as error:
        run.unit.fail(name, "diffusion", error, sources)
        return
    run.unit.done(name, "diffusion", f"motion and tensor by {run.engine.name} {run.engine.version}", sources)
    maps = {quantity: (path, tensor.units[quantity]) for quantity, path in tensor.files.items()}
    _extract(run, image, moved.files["dwi_mean"], Contrast.DWI, maps, {}, name)
    run.unit.images.append(image)


def _mean_image(index: BidsIndex, file: BidsFile, mean: Path, run: StepRun) -> CordImage:
    """Find the cord in the mean of the weighted volumes, and lend it the levels of the session."""
    volume = read_volume(mean, source=f"mean of {file.relative}")
    found = run.engine.segment(mean, run.folder(file), contrast=Contrast.DWI, tissue=Tissue.CORD)
    run.take(found, make_contrast(file))
    mask = Mask(
        volume=read_volume(found.files["segmentation"], source="mask of the mean"),
        engine=run.engine.name,
        version=run.engine.version,
        method=f"{run.engine.name} {run.engine.version} on the mean diffusion-weighted image",
    )
    table = measure_morphometry(mask.volume, pieces="largest")
    image = CordImage(
        file=file,
        volume=volume,
        entities=make_entities(index, file),
        mask=mask,
        table=table,
        levels=None,
        outliers=find_outliers(table, mask),
    )
    return replace(image, levels=carried_levels(image, run.unit))
