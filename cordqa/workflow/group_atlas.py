"""A template-space atlas from registered maps of a group, and how far one person lies from it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cordqa import __version__
from cordqa.errors import ConfigError, InputError, UnreadableFileError
from cordqa.io.bids import bids_entities, nifti_stem
from cordqa.io.files import digest_file, printable, read_small
from cordqa.io.results import prepare_folder, write_text
from cordqa.io.volumes import write_volume
from cordqa.models.myelin.atlas import GroupAtlas, build_atlas
from cordqa.records import Volume
from cordqa.workflow.fit.grid import Grid, read_image

__all__ = ["AtlasReport", "ScoreReport", "make_atlas", "score_map"]

Array = NDArray[np.float64]
Zeros = Literal["missing", "values"]
Tell = Callable[[str], None]

FORMAT = "cordqa group atlas"
_IMAGES = {
    "mean": "mean of the group",
    "sd": "standard deviation of people (n - 1)",
    "n": "number of maps with a value",
    "coverage": "share of maps with a value, 0 to 1",
}
#: A map whose median is this many times another size than the group's has another unit.
_ANOTHER_UNIT = 5.0
_MOST_BYTES = 4_000_000
#: Two-sided 5 %.
_TAIL = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class AtlasReport:
    """What was built: voxels with a mean, maps, and what calls for attention."""

    n_maps: int
    n_voxels: int
    median: float
    median_sd: float
    unit: str
    notices: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreReport:
    """How a map compares: voxels with a score, and the share beyond the limits of 5 % of people."""

    n_voxels: int
    limit: float
    share_below: float
    share_above: float
    notices: tuple[str, ...]


@dataclass(slots=True)
class _Group:
    """What is learned of the maps while they are read."""

    zeros: Zeros
    tell: Tell
    grid: Grid | None = None
    units: dict[str, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    medians: dict[str, float] = field(default_factory=dict)
    nonzero: NDArray[np.int64] | None = None
    known: NDArray[np.int64] | None = None

    def maps(self, paths: Sequence[Path]) -> Iterator[Array]:
        """Read one map after the other, so that a large group needs little memory."""
        for path in paths:
            self.tell(f"reading {path.name}")
            yield self._read(path)

    def _read(self, path: Path) -> Array:
        volume, grid = _read_map(path)
        name = printable(path.name)
        if self.grid is None:
            self.grid = grid
            self.nonzero, self.known = (np.zeros(grid.shape, dtype=np.int64) for _ in range(2))
        apart = self.grid.difference(grid)
        if apart:
            raise InputError(
                "does not lie on the grid of the first map", where=name, found=apart,
                todo="bring all maps to one template before",
            )  # fmt: skip
        digest = digest_file(path)
        if digest in self.digests:
            raise InputError("is the same file as another map", where=name, found=self.digests[digest])
        self.digests[digest] = name
        self.units[name] = _unit(path)
        finite = np.isfinite(volume)
        present = finite & (volume != 0)
        if not present.any():
            raise InputError("holds no value", where=name)
        self.medians[name] = float(np.median(volume[present]))
        if self.nonzero is not None and self.known is not None:
            self.nonzero += present
            self.known += finite
        return np.where(present, volume, np.nan) if self.zeros == "missing" else volume


def _read_map(path: Path) -> tuple[Array, Grid]:
    volume = read_image(path)
    data = np.asarray(volume.data, dtype=float)
    if data.ndim == 4 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim != 3:
        raise InputError(
            "is no map of three dimensions", where=printable(path.name), found=f"{data.ndim} dimensions"
        )
    return data, Grid(data.shape, volume.affine)


def _unit(path: Path) -> str:
    """Unit that the sidecar of a map states; empty where it does not."""
    sidecar = path.with_name(f"{nifti_stem(path.name)}.json")
    if not sidecar.is_file():
        return ""
    try:
        found = json.loads(read_small(sidecar, limit=_MOST_BYTES))
    except (ValueError, UnreadableFileError):
        return ""
    unit = found.get("Units", "") if isinstance(found, dict) else ""
    return str(unit) if isinstance(unit, str) else ""


def make_atlas(
    maps: Sequence[Path],
    out: Path,
    *,
    minimum: int = 3,
    zeros: Zeros = "values",
    tell: Tell | None = None,
) -> AtlasReport:
    """Average registered maps of a group into ``mean``, ``sd``, ``n`` and ``coverage``.

    Parameters
    ----------
    maps : sequence of Path
        NIfTI, one per person, all on the grid of the template.
    out : Path
        Folder; ``atlas.json`` comes last.
    minimum : int
        Fewest maps with a value for a mean.
    zeros : {'values', 'missing'}
        What 0 means in a map.  Voxels that are 0 in all maps never have a mean.
    tell : callable, optional
        Told what is going on.

    Raises
    ------
    InputError
        If maps lie on several grids, have several units, one is there twice, or no voxel has enough.
    EmptyInputError
        If there are fewer maps than the minimum.
    """
    if zeros not in ("values", "missing"):
        raise ConfigError("is not known", where="zeros", found=repr(zeros), expected="values or missing")
    group = _Group(zeros, tell or (lambda _message: None))
    atlas = build_atlas(group.maps(maps), minimum=minimum)
    unit = _one_unit(group)
    if group.grid is None or group.nonzero is None or group.known is None:
        raise InputError("there are no maps")
    empty = group.nonzero == 0
    images = {
        "mean": np.where(empty, np.nan, atlas.mean),
        "sd": np.where(empty, np.nan, atlas.sd),
        "n": np.where(empty, 0, atlas.n).astype(np.int32),
        "coverage": np.where(empty, 0.0, atlas.coverage),
    }
    known = np.isfinite(images["mean"])
    if not known.any():
        raise InputError("no voxel has a value in enough maps", expected=f"at least {minimum} maps")
    notices = _doubts(group, maps)
    prepare_folder(out)
    # Where it is, the images beside it are its own.
    (out / "atlas.json").unlink(missing_ok=True)
    for name, data in images.items():
        write_volume(Volume(data=data, affine=group.grid.affine), out / f"{name}.nii.gz")
        about = {"Description": _IMAGES[name], "Units": unit if name in ("mean", "sd") else "1"}
        write_text(out / f"{name}.json", json.dumps(about, indent=2) + "\n")
    write_text(out / "atlas.json", json.dumps(_about(group, atlas, unit, notices), indent=2) + "\n")
    return AtlasReport(
        n_maps=atlas.n_maps,
        n_voxels=int(known.sum()),
        median=float(np.median(images["mean"][known])),
        median_sd=float(np.median(images["sd"][known])),
        unit=unit,
        notices=notices,
    )


def _one_unit(group: _Group) -> str:
    stated = {unit for unit in group.units.values() if unit}
    if len(stated) > 1:
        raise InputError("the maps have several units", found=", ".join(sorted(stated)))
    return next(iter(stated), "")


def _doubts(group: _Group, maps: Sequence[Path]) -> tuple[str, ...]:
    """Say what an average cannot show afterwards."""
    found = []
    middle = float(np.median(list(group.medians.values())))
    if middle != 0:
        for name, median in group.medians.items():
            if not 1 / _ANOTHER_UNIT < median / middle < _ANOTHER_UNIT:
                found.append(f"{name} has a median of {median:.3g}, the group of {middle:.3g}: another unit?")
    people = Counter(bids_entities(path.name).get("sub", "") for path in maps)
    twice = [f"sub-{who}" for who, count in people.items() if who and count > 1]
    if twice:
        found.append(f"several maps of {', '.join(twice[:4])}: maps of one person are not a group")
    if group.zeros == "values" and group.nonzero is not None and group.known is not None:
        some = (group.nonzero > 0) & (group.nonzero < group.known)
        share = 100 * float(some.sum()) / max(1, int((group.nonzero > 0).sum()))
        if share > 1:
            found.append(
                f"in {share:.0f} % of the voxels some maps are 0 and others are not; 0 counts as a value; if "
                "it means outside, give --zeros missing"
            )
    return tuple(found)


def _about(group: _Group, atlas: GroupAtlas, unit: str, notices: tuple[str, ...]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "cordqa": __version__,
        "n_maps": atlas.n_maps,
        "minimum": atlas.minimum,
        "zeros": group.zeros,
        "unit": unit,
        "maps": {name: digest for digest, name in group.digests.items()},
        "notices": list(notices),
    }


def score_map(one: Path, atlas: Path, out: Path) -> ScoreReport:
    """Say of each voxel how far a map lies from the mean of an atlas, as Student's t of prediction.

    Parameters
    ----------
    one : Path
        Registered map of a person who is not in the atlas.
    atlas : Path
        Folder of :func:`make_atlas`.
    out : Path
        NIfTI file of scores, with n - 1 degrees of freedom.

    Raises
    ------
    InputError
        If the map lies on another grid, has another unit, or is in the atlas.
    """
    from scipy.stats import t

    if not out.name.endswith((".nii", ".nii.gz")):
        raise ConfigError("must end in .nii or .nii.gz", where="OUT", found=repr(out.name))
    about = _read_about(atlas)
    values, grid = _read_map(one)
    parts = {name: _read_map(atlas / f"{name}.nii.gz") for name in ("mean", "sd", "n", "coverage")}
    _check_scored(one, about, parts["mean"][1].difference(grid))
    name = printable(one.name)
    n = parts["n"][0]
    group = GroupAtlas(
        mean=parts["mean"][0], sd=parts["sd"][0], n=n.astype(np.int64), coverage=parts["coverage"][0],
        n_maps=int(about["n_maps"]), minimum=int(about["minimum"]),
    )  # fmt: skip
    if about["zeros"] == "missing":
        values = np.where(values == 0, np.nan, values)
    scores = group.score(values)
    known = np.isfinite(scores)
    if not known.any():
        raise InputError("has no value where the atlas has a mean and a spread", where=name)
    limits = t.ppf(1 - _TAIL / 2, np.maximum(n - 1, 1))
    write_volume(Volume(data=scores, affine=grid.affine), out)
    text = {
        "Description": "difference from the mean of the group over sd sqrt(1 + 1/n): Student's t, n - 1 "
        "degrees of freedom",
        "Units": "1",
        "Sources": [name, printable(atlas.name)],
    }
    write_text(out.with_name(f"{nifti_stem(out.name)}.json"), json.dumps(text, indent=2) + "\n")
    lost = int((np.isfinite(values) & (values != 0) & ~known).sum())
    return ScoreReport(
        n_voxels=int(known.sum()),
        limit=float(np.median(limits[known])),
        share_below=float((scores < -limits)[known].mean()),
        share_above=float((scores > limits)[known].mean()),
        notices=(f"{lost} voxels with a value have no score: too few maps there, or no spread",)
        if lost
        else (),
    )


def _check_scored(one: Path, about: dict[str, Any], apart: str) -> None:
    """Refuse a map that cannot be compared with an atlas."""
    name = printable(one.name)
    if apart:
        raise InputError("does not lie on the grid of the atlas", where=name, found=apart)
    unit = _unit(one)
    if unit and about["unit"] and unit != about["unit"]:
        raise InputError(
            "has another unit than the atlas", where=name, found=unit, expected=str(about["unit"])
        )
    if digest_file(one) in about["maps"].values():
        raise InputError(
            "is one of the maps of the atlas", where=name, todo="build an atlas without this person"
        )


def _read_about(atlas: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_small(atlas / "atlas.json", limit=_MOST_BYTES))
    except (OSError, UnreadableFileError, ValueError) as error:
        raise UnreadableFileError(
            "is not a folder of an atlas", where=printable(str(atlas)),
            todo="make one with: cordqa normative atlas MAP ... OUT",
        ) from error  # fmt: skip
    keys = {"n_maps": int, "minimum": int, "zeros": str, "unit": str, "maps": dict}
    good = isinstance(found, dict) and found.get("format") == FORMAT
    if not good or not all(isinstance(found.get(key), kind) for key, kind in keys.items()):
        raise InputError("atlas.json is not that of an atlas", where=printable(str(atlas)))
    return dict(found)
