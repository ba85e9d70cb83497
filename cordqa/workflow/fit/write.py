"""Write maps, standard errors, reasons and flags as images with sidecars."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordqa import __version__
from cordqa.errors import CordqaError
from cordqa.io.atomic import appear_complete
from cordqa.io.bids_names import format_name, parse_name, split_extension
from cordqa.io.derivatives import DerivativeInfo, write_derivative
from cordqa.io.results import write_text
from cordqa.models.maps import Attachments, FittedMaps, Reasons
from cordqa.quantities import find_quantity
from cordqa.records import Volume, as_plain
from cordqa.workflow.fit.grid import Grid
from cordqa.workflow.fit.registry import FitModel

__all__ = ["OUTSIDE", "MapWriter", "map_suffix", "output_prefix", "remove_outputs", "spread"]

OUTSIDE = "outside the mask"
#: What BIDS calls the map of a quantity; others are called as the quantity.
_SUFFIXES = {
    "T1": "T1map",
    "T2": "T2map",
    "T2star": "T2starmap",
    "R1": "R1map",
    "R2": "R2map",
    "R2star": "R2starmap",
    "PD": "PDmap",
    "M0": "M0map",
    "B1": "TB1map",
    "MTR": "MTRmap",
    "MWF": "MWFmap",
    "susceptibility": "Chimap",
}
_SAFE = re.compile(r"[^A-Za-z0-9+-]+")
_OWN_NAME = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9_.+-]*\.(nii\.gz|json|tsv)|dicom/[A-Za-z0-9][A-Za-z0-9_+-]*\.dcm"
)


def map_suffix(name: str) -> str:
    """Return the last word of the file name of a map."""
    words = re.split(r"[^A-Za-z0-9]+", name)
    return _SUFFIXES.get(name) or words[0] + "".join(word[:1].upper() + word[1:] for word in words[1:])


def output_prefix(images: Sequence[str]) -> str:
    """Return what the names of all outputs begin with.

    For BIDS names the entities that all images share, so that maps of several echoes are not called
    by one of them; for a single other file its name; else nothing.
    """
    names = [parse_name(image) for image in images]
    known = [name.entities for name in names if name is not None and "sub" in name.entities]
    if len(known) == len(images) and known:
        shared = {key: value for key, value in known[0].items() if all(k.get(key) == value for k in known)}
        if "sub" in shared:
            return format_name(shared, suffix="x", extension=".x").removesuffix("_x.x") + "_"
    if len(set(images)) != 1:
        return ""
    stem = _SAFE.sub("_", split_extension(images[0])[0]).strip("_-+")
    return f"{stem}_" if stem else ""


def spread(values: NDArray[Any], mask: NDArray[np.bool_], fill: float) -> NDArray[Any]:
    """Put the voxels of the mask, numbers or vectors, back into the volume."""
    full = np.full(mask.shape + values.shape[1:], fill, dtype=values.dtype)
    full[mask] = values
    return full


@dataclass(slots=True)
class MapWriter:
    """Writes everything that belongs to one fit into one folder."""

    model: FitModel
    maps: FittedMaps
    grid: Grid
    mask: NDArray[np.bool_]
    out: Path
    prefix: str
    sources: Sequence[str]
    about: Mapping[str, Any]

    def names(self) -> list[str]:
        """Names of all files that will be written."""
        images = [f"{self.prefix}{map_suffix(name)}" for name in self.maps.values]
        images += [f"{self.prefix}{map_suffix(name)}_se" for name in self.maps.standard_errors]
        images += [f"{self.prefix}{map_suffix(name)}" for name in self.maps.vectors]
        tables = [self._desc("reason")] + [
            self._desc(f"{self._word(n)}Reason") for n in self.maps.own_reasons
        ]
        flags = [self._desc("flags")] if self._flags() else []
        masks = [self._desc(label, "mask") for label in self._attached.masks]
        extra = [f"{self.prefix}{label}" for label in self._attached.images]
        stems = [*images, *tables, *flags, *masks, *extra]
        return [
            *(f"{stem}{end}" for stem in stems for end in (".nii.gz", ".json")),
            *(f"{t}.tsv" for t in tables),
            *(f"{name}.json" for name in self._attached.documents),
            *self._attached.files,
        ]

    def write(self) -> None:
        """Write all images, each complete or not at all."""
        for name, values in self.maps.values.items():
            self._write_map(name, values)
        for name, values in self.maps.standard_errors.items():
            self._write_map(name, values, error=True)
        for name, vectors in self.maps.vectors.items():
            about = (
                f"{name}: unit vectors along the axes of the image array (i, j, k); their sign means nothing"
            )
            single = spread(vectors.astype(np.float32), self.mask, np.nan)
            self._put(f"{self.prefix}{map_suffix(name)}", single, about)
        self._write_reasons(self._desc("reason"), self.maps.reasons, "any map")
        for name, reasons in self.maps.own_reasons.items():
            self._write_reasons(self._desc(f"{self._word(name)}Reason"), reasons, name)
        self._write_flags()
        self._write_attached()

    @property
    def _attached(self) -> Attachments:
        return self.maps.attached or Attachments()

    def _write_attached(self) -> None:
        """Write what a model of a whole volume gives beyond its maps."""
        for label, mask in self._attached.masks.items():
            text = f"Mask ({label}) of {self.model.id}; voxels that are in it are 1"
            self._put(self._desc(label, "mask"), mask.astype(np.uint8), text)
        for label, image in self._attached.images.items():
            data = image.data.astype(np.float32)
            self._put(f"{self.prefix}{label}", data, image.description, image.unit)
        for name, document in self._attached.documents.items():
            write_text(self.out / f"{name}.json", dump(document))
        for name, make in self._attached.files.items():
            with appear_complete(self.out / name) as temporary:
                temporary.write_bytes(make(self.prefix))

    def _word(self, name: str) -> str:
        return re.sub(r"[^A-Za-z0-9]", "", name)

    def _desc(self, label: str, suffix: str = "dseg") -> str:
        """Name of an image of labels; a description that the source has is kept in front."""
        head, _, old = self.prefix.rstrip("_").rpartition("_desc-")
        if head and re.fullmatch(r"[A-Za-z0-9+]+", old):
            return f"{head}_desc-{old}{label[:1].upper()}{label[1:]}_{suffix}"
        return f"{self.prefix}desc-{label}_{suffix}"

    def _write_map(self, name: str, values: NDArray[Any], *, error: bool = False) -> None:
        registered = find_quantity(name)
        what = registered.description if registered else f"{name.replace('_', ' ')}."
        stem = f"{self.prefix}{map_suffix(name)}" + ("_se" if error else "")
        with np.errstate(over="ignore"):
            single = spread(values.astype(np.float32), self.mask, np.nan)
        self._put(
            stem,
            np.where(np.isfinite(single), single, np.float32(np.nan)),
            f"Standard error (one standard deviation) of: {what}" if error else what,
            self.maps.units.get(name, ""),
            extra=self._attached.details.get(name),
        )

    def _write_reasons(self, stem: str, reasons: Reasons, what: str) -> None:
        codes = spread(reasons.codes, self.mask, 0)
        texts = list(reasons.texts)
        if not self.mask.all():
            # Outside stands apart from failures, at the end of the range of a byte.
            codes[~self.mask] = 255
        rows = [(0, "has a value"), *enumerate(texts[1:], start=1)]
        rows += [(255, OUTSIDE)] if not self.mask.all() else []
        table = "index\tname\n" + "".join(f"{code}\t{text}\n" for code, text in rows)
        write_text(self.out / f"{stem}.tsv", table)
        self._put(stem, codes, f"Why a voxel has no value in {what}; the table of the same name explains")

    def _flags(self) -> list[tuple[str, NDArray[np.bool_]]]:
        return [(text, where) for text, where in self.maps.flags.items() if where.any()][:32]

    def _write_flags(self) -> None:
        flags = self._flags()
        if not flags:
            return
        bits = np.zeros(flags[0][1].shape, dtype=np.uint32)
        for n, (_, where) in enumerate(flags):
            bits |= where.astype(np.uint32) * np.uint32(2**n)
        kind = np.uint8 if len(flags) <= 8 else np.uint16 if len(flags) <= 16 else np.uint32
        texts = {str(2**n): text for n, (text, _) in enumerate(flags)}
        text = "Doubts about voxels that have a value: the sum of the numbers in Flags"
        self._put(self._desc("flags"), spread(bits.astype(kind), self.mask, 0), text, extra={"Flags": texts})

    def _put(
        self,
        stem: str,
        data: NDArray[Any],
        description: str,
        units: str = "",
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        info = DerivativeInfo(
            description=description,
            method=self.maps.model,
            engine="cordqa",
            engine_version=__version__,
            sources=list(self.sources),
            units=units,
            extra={
                "Model": self.model.id,
                "Experimental": self.model.experimental or None,
                "EstimationReference": list(self.model.references),
                **self.about,
                **(extra or {}),
            },
        )
        if not self.model.experimental:
            info = replace(info, extra={k: v for k, v in (info.extra or {}).items() if k != "Experimental"})
        volume = Volume(data=data, affine=self.grid.affine)
        write_derivative(volume, self.out, path=PurePosixPath(f"{stem}.nii.gz"), info=info)


def remove_outputs(out: Path, names: Sequence[str]) -> None:
    """Remove what an earlier fit left, so that nothing of it stands beside a new result.

    Only plain names of the kind that a fit writes are touched.

    Raises
    ------
    CordqaError
        If a file cannot be removed.
    """
    for name in names:
        path = out / name
        own = _OWN_NAME.fullmatch(name) or name in ("result.json", "report.html")
        if not own or path.is_symlink() or not path.is_file():
            continue
        try:
            path.unlink()
        except OSError as error:
            raise CordqaError(f"cannot be replaced: {error.strerror}", where=str(path)) from error


def dump(data: Mapping[str, Any]) -> str:
    """Write JSON as everywhere in cordqa."""
    return json.dumps(as_plain(data), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
