"""Write images as BIDS derivatives: name, sidecar and description of the dataset.

The sidecar is written before the image, so an image that is there is always explained; both are
written under a temporary name and renamed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from cordqa.errors import ConfigError
from cordqa.io.bids_index import BidsFile
from cordqa.io.bids_names import entity_key, format_name, split_extension
from cordqa.io.results import write_text
from cordqa.io.volumes import write_volume
from cordqa.records import Volume, as_plain

__all__ = ["DerivativeInfo", "derivative_path", "write_dataset_description", "write_derivative"]

BIDS_VERSION = "1.9.0"
_LINK = "raw"
#: Suffixes that do not say which image they were made from; the image's own goes into ``desc``.
_SHARED = frozenset({"mask", "dseg", "probseg", "dlabel", "xfm"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivativeInfo:
    """What a sidecar says about an image.

    Attributes
    ----------
    description : str
        What the image shows.
    method : str
        Model and estimator.
    engine, engine_version : str
        Who made it.
    sources : sequence of str or BidsFile
        Files it was made from.
    units : str
        Unit of the values.
    extra : mapping
        Further fields; they do not replace the ones above.
    """

    description: str
    method: str = ""
    engine: str = ""
    engine_version: str = ""
    sources: Sequence[str | BidsFile] = ()
    units: str = ""
    extra: Mapping[str, Any] | None = None


def derivative_path(
    image: BidsFile, *, suffix: str, extension: str = ".nii.gz", **entities: str
) -> PurePosixPath:
    """Return where, below the output folder, a derivative of an image belongs.

    A mask of the T2w image and one of the T1w image of a participant would share a name, so the
    suffix of the image goes into ``desc`` (``sub-01_label-SC_desc-T2w_mask.nii.gz``).

    Parameters
    ----------
    image : BidsFile
        The image that it was made from.
    suffix, extension : str
    **entities : str
        Added to those of the image, by word or by key; an empty value removes one.

    Raises
    ------
    ConfigError
        If the image has no participant, or an entity is not valid.
    """
    if not image.subject:
        raise ConfigError("belongs to no participant", where=image.relative)
    values = dict(image.entities)
    values.update({entity_key(name): value for name, value in entities.items()})
    if suffix in _SHARED:
        source = image.source_suffix or image.suffix
        given = values.get("desc", "")
        if not given.startswith(source):
            values["desc"] = source + given[:1].upper() + given[1:]
    name = format_name(values, suffix=suffix, extension=extension)
    folder = PurePosixPath(f"sub-{values['sub']}")
    if values.get("ses"):
        folder /= f"ses-{values['ses']}"
    return folder / (image.datatype or "anat") / name


def write_derivative(volume: Volume, out: Path, *, path: PurePosixPath, info: DerivativeInfo) -> Path:
    """Write an image and its sidecar below ``out``; return the path of the image.

    Raises
    ------
    OutputError
        If either cannot be written.
    ConfigError
        If ``path`` is no NIfTI name, or leaves the folder.
    """
    stem, extension = split_extension(path.name)
    if extension not in (".nii.gz", ".nii") or path.is_absolute() or ".." in path.parts:
        raise ConfigError("is not a path of an image below the output folder", found=str(path))
    target = out / path
    write_text(target.with_name(f"{stem}.json"), _dump(_sidecar(volume, info)))
    write_volume(volume, target)
    return target


def write_dataset_description(
    out: Path, *, name: str, version: str, raw: Path | None = None, engines: Mapping[str, str] | None = None
) -> Path:
    """Write ``dataset_description.json`` of the derivatives.

    Parameters
    ----------
    out : Path
    name, version : str
        Title of the dataset, and version of cordqa.
    raw : Path, optional
        The dataset that it was made from; linked relative to ``out`` where it can be.
    engines : mapping, optional
        Version by engine.
    """
    makers = [{"Name": "cordqa", "Version": version}]
    makers += [{"Name": key, "Version": value} for key, value in sorted((engines or {}).items())]
    description: dict[str, Any] = {
        "Name": name,
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": makers,
    }
    if raw is not None:
        link = _relative(raw, out)
        description["SourceDatasets"] = [{"URL": link}]
        description["DatasetLinks"] = {_LINK: link}
    path = out / "dataset_description.json"
    write_text(path, _dump(description))
    return path


def _sidecar(volume: Volume, info: DerivativeInfo) -> dict[str, Any]:
    sidecar: dict[str, Any] = dict(info.extra or {})
    maker = {"Name": info.engine or "cordqa"} | (
        {"Version": info.engine_version} if info.engine_version else {}
    )
    sidecar |= {
        "Description": info.description,
        "Sources": [_uri(source) for source in info.sources],
        "GeneratedBy": [maker],
    }
    if info.method:
        sidecar["Method"] = info.method
    if info.units:
        sidecar["Units"] = info.units
    if volume.data.dtype.kind == "f" and volume.data.size:
        # A reader should know how much of a map could not be computed.
        missing = int(np.count_nonzero(~np.isfinite(volume.data)))
        if missing:
            sidecar["NumberOfVoxelsWithoutValue"] = missing
    return sidecar


def _uri(source: str | BidsFile) -> str:
    """Return the BIDS URI of a file of the raw data, or of a derivative by its name."""
    if isinstance(source, str):
        return source
    return f"bids:{source.derivative or _LINK}:{source.relative}"


def _relative(path: Path, start: Path) -> str:
    import os

    try:
        return Path(os.path.relpath(path.resolve(), start.resolve())).as_posix()
    except (OSError, ValueError):  # another drive
        return path.as_posix()


def _dump(data: Mapping[str, Any]) -> str:
    return json.dumps(as_plain(data), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
