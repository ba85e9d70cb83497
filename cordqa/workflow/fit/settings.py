"""Acquisition parameters of every image: from the user, else from the sidecars, else a default."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import ConfigError, InputError, UnreadableFileError
from cordqa.io.bids import Sidecars
from cordqa.io.limits import DEFAULT_LIMITS
from cordqa.records import Acquisition
from cordqa.workflow.fit.data import SettingValue
from cordqa.workflow.fit.registry import FitModel, Setting

__all__ = ["ImageFile", "SidecarReader", "describe_setting", "make_acquisitions", "resolve_settings"]

Array = NDArray[np.float64]
#: Folders above an image that are searched for the top of its dataset.
_MAX_DEPTH = 8
#: Settings of one image that differ by less are alike (sidecars round).
_ALIKE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFile:
    """One file of images: its role, how many volumes it holds, and what its sidecar says."""

    path: Path
    role: str
    count: int
    sidecar: Mapping[str, Any] = field(default_factory=dict)


class SidecarReader:
    """Reads what the sidecars say about an image, wherever it lies.

    Inside a BIDS dataset sidecars are inherited from the folders above; elsewhere the JSON file of
    the same name counts.
    """

    def __init__(self) -> None:
        self._by_root: dict[Path, Sidecars] = {}

    def of(self, image: Path) -> Mapping[str, Any]:
        """Return the sidecar of an image; empty where it has none.

        Raises
        ------
        UnreadableFileError
            If it is not valid JSON.
        """
        path = image.absolute()
        root = _dataset_root(path)
        if root not in self._by_root:
            self._by_root[root] = Sidecars(root, limit=DEFAULT_LIMITS.max_sidecar_bytes)
        return self._by_root[root].of(path.relative_to(root).as_posix()) or {}


def _dataset_root(path: Path) -> Path:
    for folder in list(path.parents)[:_MAX_DEPTH]:
        if (folder / "dataset_description.json").is_file():
            return folder
    return path.parent


def resolve_settings(
    model: FitModel, files: Sequence[ImageFile], given: Mapping[str, tuple[float, ...]]
) -> dict[str, SettingValue]:
    """Return the value of every setting of a model.

    Raises
    ------
    ConfigError
        If a value of the user is out of range, or their number does not fit the images.
    InputError
        If a setting is missing, contradicts itself, or cannot be in its unit.
    """
    found = {}
    for setting in model.settings:
        mine = [file for file in files if setting.role in ("", file.role)]
        count = sum(file.count for file in mine)
        if setting.id in given:
            value = SettingValue(_from_user(setting, given[setting.id], count), "user")
        else:
            value = _from_sidecars(setting, mine)
        found[setting.id] = _shared(setting, value) if setting.shared else value
    return found


def _from_user(setting: Setting, values: tuple[float, ...], count: int) -> Array:
    array = np.array(values, dtype=float)
    if array.size == 1 and (setting.shared or setting.constant):
        array = np.repeat(array, count)
    if array.size != count:
        raise ConfigError(
            "the number of values does not fit the number of images",
            where=setting.option,
            found=str(array.size),
            expected=str(count),
            todo="give one value per image, in the order of the images",
        )
    _check_unit(setting, array, setting.option, "")
    return array


def _from_sidecars(setting: Setting, files: Sequence[ImageFile]) -> SettingValue:
    parts = [_of_file(setting, file) for file in files]
    values = np.concatenate(parts) if parts else np.empty(0)
    if np.isfinite(values).all() and values.size:
        return SettingValue(values, "sidecar")
    missing = [f.path.name for f, part in zip(files, parts, strict=True) if not np.isfinite(part).all()]
    if math.isfinite(setting.default):
        filled = np.where(np.isfinite(values), values, setting.default)
        return SettingValue(filled, "default")
    if setting.required:
        # What is in part of the sidecars is of no use without the rest.
        keys = " or ".join(setting.sidecar)
        raise InputError(
            f"the {_words(setting)} of {len(missing)} file{'s' if len(missing) != 1 else ''} is not known",
            where=missing[0] if missing else "",
            found=f"no {keys} in the sidecar" if keys else "",
            todo=f"give {setting.option} in {setting.unit}" + (", or correct the sidecar" if keys else ""),
        )
    return SettingValue(np.full(values.shape, np.nan), "")


def _words(setting: Setting) -> str:
    return setting.id.replace("_", " ")


def _of_file(setting: Setting, file: ImageFile) -> Array:
    key = next((k for k in setting.sidecar if file.sidecar.get(k) is not None), "")
    if not key:
        return np.full(file.count, np.nan)
    raw = file.sidecar[key]
    entries = raw if isinstance(raw, list) else [raw]
    numbers = [_number(entry) for entry in entries]
    if not numbers or any(number is None for number in numbers):
        raise UnreadableFileError(
            f"{key} in the sidecar is not a number", where=file.path.name, todo="correct the sidecar"
        )
    array = np.array(numbers, dtype=float)
    if array.size == 1 and (file.count == 1 or setting.shared or setting.constant):
        array = np.repeat(array, file.count)
    if array.size != file.count:
        raise InputError(
            f"the number of {key} values in the sidecar does not fit the number of volumes",
            where=file.path.name,
            found=str(array.size),
            expected=str(file.count),
            todo=f"list one value per volume, or give {setting.option} in {setting.unit}",
        )
    _check_unit(setting, array, file.path.name, f"{key} in the sidecar ")
    return array


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _check_unit(setting: Setting, values: Array, where: str, what: str) -> None:
    """Refuse values that cannot be meant in this unit, and say what they probably are."""
    wrong = values[~((values >= setting.smallest) & (values <= setting.largest))]
    if not wrong.size:
        return
    slip = f"; are these {setting.slip}?" if setting.slip and (wrong > setting.largest).any() else ""
    error = InputError if what else ConfigError
    raise error(
        f"{what or 'the value '}cannot be in {setting.unit}",
        where=where,
        found=f"{wrong[0]:g}",
        expected=f"{setting.smallest:g} to {setting.largest:g} {setting.unit}{slip}",
    )


def _shared(setting: Setting, value: SettingValue) -> SettingValue:
    finite = value.values[np.isfinite(value.values)]
    if finite.size and np.ptp(finite) > _ALIKE * np.abs(finite).max():
        raise InputError(
            f"the {_words(setting)} must be the same in all images",
            found=f"{finite.min():g} to {finite.max():g} {setting.unit}",
            todo="leave out the images that differ, or correct the sidecars",
        )
    return value


def make_acquisitions(
    model: FitModel, files: Sequence[ImageFile], settings: Mapping[str, SettingValue]
) -> tuple[Acquisition, ...]:
    """Gather the settings of each image into an acquisition with origins."""
    fields: list[dict[str, Any]] = [_scaling(file) for file in files for _ in range(file.count)]
    origins: list[dict[str, str]] = [{} for _ in fields]
    roles = [file.role for file in files for _ in range(file.count)]
    for setting in model.settings:
        if not setting.acquisition:
            continue
        value = settings[setting.id]
        mine = [n for n, role in enumerate(roles) if setting.role in ("", role)]
        for n, number in zip(mine, value.values, strict=True):
            if math.isfinite(number):
                fields[n][setting.acquisition] = float(number)
                origins[n][setting.acquisition] = value.origin
    return tuple(Acquisition(**one, origins=origin) for one, origin in zip(fields, origins, strict=True))


def _scaling(file: ImageFile) -> dict[str, Any]:
    """Philips stores a factor beside that of the header; a converter may have applied either."""
    slope, scale, shift = (
        _number(file.sidecar.get(key))
        for key in ("PhilipsRescaleSlope", "PhilipsScaleSlope", "PhilipsRescaleIntercept")
    )
    if slope is None or scale is None:
        return {}
    return {"scale_slope": scale, "scale_intercept": shift or 0.0, "scale_source": "sidecar"}


def describe_setting(setting: Setting, value: SettingValue) -> str:
    """Write a setting for the methods text: values, unit and origin; empty where it is not known."""
    if not value.known:
        return ""
    distinct = list(dict.fromkeys(f"{number:g}" for number in value.values))
    shown = ", ".join(distinct[:12]) + (", ..." if len(distinct) > 12 else "")
    return f"{_words(setting)} {shown} {setting.unit} ({value.origin})"
