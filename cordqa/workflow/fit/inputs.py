"""Read what a model needs and check that it belongs together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import EmptyInputError, InputError
from cordqa.io.bids import bids_entities
from cordqa.io.files import printable
from cordqa.io.maps import ScalarMap, read_b1_map
from cordqa.io.vendors import vendor_name
from cordqa.io.volumes import orientation_notices
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.records import Entities, Notice, Severity
from cordqa.workflow.fit.data import FitData
from cordqa.workflow.fit.gradients import read_encoding
from cordqa.workflow.fit.grid import Grid, bring_to_grid, read_image
from cordqa.workflow.fit.regions import Region, read_regions
from cordqa.workflow.fit.registry import ImageRole, MapInput
from cordqa.workflow.fit.request import FitRequest, checked_options
from cordqa.workflow.fit.settings import ImageFile, SidecarReader, make_acquisitions, resolve_settings

__all__ = ["Inputs", "read_inputs"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
#: Largest numbers of 8, 12 and 16 bits, and how many samples at one of them are no chance.
_LARGEST_INTEGERS, _SATURATED = (255.0, 4095.0, 32767.0, 65535.0), 10
#: Inside a mask of fractions.
_HALF = 0.5


@dataclass(slots=True)
class Inputs:
    """Everything that was read."""

    data: FitData
    grid: Grid
    regions: tuple[Region, ...]
    entities: Entities
    notices: list[Notice] = field(default_factory=list)
    found: tuple[Path, ...] = ()  # files that were not named and were read

    @property
    def mask(self) -> Mask:
        """Voxels to be fitted."""
        return self.data.mask


@dataclass(slots=True)
class _Reader:
    """What accumulates while files are read."""

    request: FitRequest
    grid: Grid | None = None
    mask: Mask | None = None
    files: list[ImageFile] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    sidecars: SidecarReader = field(default_factory=SidecarReader)
    found: tuple[Path, ...] = ()

    def note(self, message: str, code: str, where: str = "", severity: Severity = Severity.WARNING) -> None:
        self.notices.append(Notice(severity=severity, message=message, where=where, code=code))

    @property
    def here(self) -> Grid:
        if self.grid is None:
            raise EmptyInputError("no image was given")
        return self.grid


def read_inputs(request: FitRequest) -> Inputs:
    """Read images, mask, maps, settings, gradients and regions of a request.

    Raises
    ------
    CordqaError
        If anything is missing, damaged, on another grid, or in another unit.
    """
    model = request.model
    options = checked_options(model, request.options)
    reader = _Reader(request)
    parts, roles = _read_images(reader)
    mask = reader.mask if reader.mask is not None else np.ones(reader.here.shape, dtype=bool)
    settings = resolve_settings(model, reader.files, request.settings)
    signal = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
    del parts
    maps = {one.id: found for one in model.maps if (found := _read_map(one, reader, mask)) is not None}
    data = FitData(
        signal=signal,
        roles=roles,
        settings=settings,
        acquisitions=make_acquisitions(model, reader.files, settings),
        maps=maps,
        noise_sd=_read_noise(reader, mask),
        options=options,
        gradients=_read_gradients(reader, signal.shape[-1]),
        mask=mask,
        affine=reader.here.affine,
        sidecar=reader.files[0].sidecar,
    )
    regions, notices = read_regions(request.regions, reader.here, resample=request.resample)
    reader.notices += notices
    first = reader.files[0]
    entities = _entities(first.path, first.sidecar)
    return Inputs(data, reader.here, regions, entities, reader.notices, reader.found)


def _read_images(reader: _Reader) -> tuple[list[NDArray[np.float32]], dict[str, slice]]:
    """Read the images role by role; voxels of a voxelwise model come as a list."""
    request = reader.request
    parts: list[NDArray[np.float32]] = []
    roles: dict[str, slice] = {}
    start = 0
    for role in request.model.images:
        count = 0
        paths = request.images.get(role.id, ())
        for path in paths:
            part = _read_one(path, role, reader)
            count += part.shape[-1]
            parts.append(part)
        _check_count(role, count, [path.name for path in paths])
        roles[role.id] = slice(start, start + count)
        start += count
    _check_repeats(reader)
    return parts, roles


def _read_one(path: Path, role: ImageRole, reader: _Reader) -> NDArray[np.float32]:
    volume = read_image(path)
    data = volume.data[..., None] if volume.data.ndim == 3 else volume.data
    grid = Grid(data.shape, volume.affine)
    if reader.grid is None:
        reader.grid = grid
        reader.mask = _read_mask(reader)
        if not reader.request.model.voxelwise:  # what sees the whole volume sees where the main field points
            reader.notices += orientation_notices(path)
    elif difference := reader.grid.difference(grid):
        raise InputError(
            "the images are not on one grid",
            where=path.name,
            found=difference,
            todo="register and resample the images first",
        )
    if "phase" not in role.id:  # a phase reaches the ends of its range wherever it wraps
        _note_saturation(data, path, reader)
    reader.files.append(
        ImageFile(path=path, role=role.id, count=data.shape[-1], sidecar=reader.sidecars.of(path))
    )
    if not reader.request.model.voxelwise:
        return np.asarray(data, dtype=np.float32)
    if reader.mask is not None:
        return np.asarray(data[reader.mask], dtype=np.float32)
    return np.ascontiguousarray(data, dtype=np.float32).reshape(-1, data.shape[-1])


def _note_saturation(data: NDArray[np.float32], path: Path, reader: _Reader) -> None:
    """Say where many samples stand at the largest number of an integer type: the rest was cut off."""
    inside = data if reader.mask is None else data[reader.mask]
    largest = float(np.nanmax(inside, initial=0.0))
    if largest not in _LARGEST_INTEGERS:
        return
    count = int(np.count_nonzero(inside == largest))
    if count >= _SATURATED:
        reader.note(
            f"{count} samples are exactly {largest:.0f}, the largest number of an integer type: the images "
            "are probably cut off there",
            "fit.saturated",
            path.name,
        )


def _check_count(role: ImageRole, count: int, names: Sequence[str]) -> None:
    where = ", ".join(names[:3])
    if count == 0:
        if not role.required:
            return
        todo = f"give {role.option}" if role.by_option else ""
        raise EmptyInputError(f"no {role.metavar} was given", todo=todo)
    if not role.many and count != 1:
        raise InputError(
            f"{role.metavar} must be one volume",
            where=where,
            found=f"{count} volumes",
            todo="average or choose among the volumes first",
        )
    if role.many and count < role.minimum:
        kind = "a single 3D image" if count == 1 else f"{count} volumes"
        raise InputError(
            "too few volumes for this model",
            where=where,
            found=kind,
            expected=f"at least {role.minimum}",
            todo="give a 4D file, or one file per volume in order",
        )


def _check_repeats(reader: _Reader) -> None:
    paths = [file.path.resolve() for file in reader.files]
    twice = next((path for n, path in enumerate(paths) if path in paths[:n]), None)
    if twice is not None:
        raise InputError("the same file was given twice", where=twice.name, todo="check the order of images")


def _read_mask(reader: _Reader) -> Mask | None:
    path = reader.request.mask
    if path is None:
        made = "no mask was given, so one was made from the images; add --mask to use your own"
        all_voxels = "no mask was given, so every voxel was fitted, air included; add --mask to leave it out"
        text = made if reader.request.model.outlines else all_voxels
        if "cord_mask" in reader.request.maps:
            text = "no mask was given, so the cord mask was widened to one; add --mask to use your own"
        reader.note(text, "fit.no-mask", severity=Severity.INFO)
        return None
    values, resampled = _read_on_grid(path, "mask", reader)
    if resampled:
        reader.note("the mask was resampled to the grid of the images", "fit.resampled", path.name)
    inside: Mask = np.nan_to_num(values) > _HALF
    if not inside.any():
        raise EmptyInputError("the mask is empty on these images", where=path.name)
    return inside


def _read_on_grid(path: Path, what: str, reader: _Reader) -> tuple[Array, bool]:
    volume = read_image(path)
    values = volume.data[..., 0] if volume.data.ndim == 4 and volume.data.shape[3] == 1 else volume.data
    if values.ndim != 3:
        raise InputError(f"the {what} must have three dimensions", where=path.name, found=f"{values.shape}")
    scalar = ScalarMap(values.astype(np.float64), volume.affine, path.name)
    return bring_to_grid(scalar, reader.here, what=what, resample=reader.request.resample)


def _read_map(one: MapInput, reader: _Reader, mask: Mask) -> Array | None:
    path = reader.request.maps.get(one.id)
    name = one.id.replace("_", " ").replace("b1", "B1").replace("t1", "T1")
    if path is None:
        if one.required:
            raise InputError(f"the model needs a {name}", todo=f"give {one.option}")
        return None
    if one.kind == "b1":
        if not path.is_file():
            read_image(path)  # says what is wrong with it
        found = read_b1_map(path, units=str(reader.sidecars.of(path).get("Units", "")))
        if found.assumed:
            reader.note(found.assumed, "fit.b1-unit", path.name)
        values, resampled = bring_to_grid(found, reader.here, what=name, resample=reader.request.resample)
    else:
        values, resampled = _read_on_grid(path, name, reader)
    if resampled:
        reader.note(f"the {name} was resampled to the grid of the images", "fit.resampled", path.name)
    _check_map(one, values[mask], name, path.name)
    return values[mask] if reader.request.model.voxelwise else values


def _check_map(one: MapInput, values: Array, name: str, where: str) -> None:
    known = values[np.isfinite(values) & (values != 0)]
    if not known.size:
        raise InputError(f"the {name} says nothing inside the mask", where=where)
    middle = float(np.median(known))
    if not one.low <= middle <= one.high:
        share = one.unit == "1"
        slip = f"; {'are these' if share else 'is it in'} {one.slip}?" if one.slip else ""
        raise InputError(
            f"the {name} is out of range" if share else f"the {name} cannot be in {one.unit}",
            where=where,
            found=f"a median of {middle:.3g}",
            expected=f"{one.low:g} to {one.high:g}{'' if share else ' ' + one.unit}{slip}",
        )


def _read_noise(reader: _Reader, mask: Mask) -> Array | None:
    request = reader.request
    if request.noise_sd is not None:
        return np.full(int(mask.sum()) if request.model.voxelwise else mask.shape, request.noise_sd)
    if request.noise_map is None:
        return None
    values, resampled = _read_on_grid(request.noise_map, "noise map", reader)
    name = request.noise_map.name
    if resampled:
        reader.note("the noise map was resampled to the grid of the images", "fit.resampled", name)
    inside = values[mask]
    if not (inside > 0).any():
        raise InputError("the noise map is nowhere positive inside the mask", where=name)
    return inside if request.model.voxelwise else values


def _read_gradients(reader: _Reader, count: int) -> GradientTable | None:
    if not reader.request.model.gradients:
        return None
    table, notices, read = read_encoding(reader.request.gradients, reader.files, reader.here)
    reader.found = tuple(path for path in read if path not in reader.request.gradients.given)
    reader.notices += notices
    if len(table) != count:
        raise InputError(
            "the gradient table does not fit the images",
            found=f"{len(table)} encodings",
            expected=f"{count} volumes",
        )
    return table


def _entities(path: Path, sidecar: Mapping[str, Any]) -> Entities:
    """Who and where, as far as the name and the sidecar of the first image tell."""
    names = bids_entities(path.name)
    strength = sidecar.get("MagneticFieldStrength")
    known = isinstance(strength, (int, float)) and not isinstance(strength, bool) and 0 < strength < 30
    tesla = float(strength) if known and strength is not None else float("nan")
    acquired = _text(sidecar, "AcquisitionDateTime")
    return Entities(
        subject=names.get("sub", ""),
        session=names.get("ses", ""),
        run=names.get("run", ""),
        acquisition=names.get("acq", ""),
        site=_text(sidecar, "InstitutionName"),
        vendor=vendor_name(_text(sidecar, "Manufacturer")),
        model=_text(sidecar, "ManufacturersModelName"),
        software=_text(sidecar, "SoftwareVersions"),
        scanner=_text(sidecar, "DeviceSerialNumber") or _text(sidecar, "StationName"),
        field_strength_T=tesla,
        acquired=acquired if acquired[:4].isdigit() and "T" in acquired else "",
    )


def _text(sidecar: Mapping[str, Any], key: str) -> str:
    value = sidecar.get(key)
    plain = isinstance(value, (str, int, float)) and not isinstance(value, bool)
    return printable(str(value), limit=64) if plain else ""
