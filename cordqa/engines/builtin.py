"""The engine that needs no other program: a thin coat over :mod:`cordqa.cord`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cordqa import __version__
from cordqa.cord.atlas import AtlasImage, AtlasLabels, Region, gather_atlas, parse_label_table
from cordqa.cord.extraction import Method, extract_regions
from cordqa.cord.levels import fit_levels, read_labels
from cordqa.cord.morphometry import SliceTable, measure_morphometry, slice_measurements, summarise_slices
from cordqa.cord.segment import segment_cord
from cordqa.engines.errors import EngineUnavailableError
from cordqa.engines.grids import check_image, slice_axis
from cordqa.engines.protocol import (
    Capability,
    Contrast,
    EngineResult,
    EngineRow,
    EngineRun,
    Estimator,
    Grouping,
    SpoiledImage,
    Step,
    Tissue,
    hash_inputs,
)
from cordqa.engines.sct.checks import (
    beside_atlas,
    check_atlas,
    check_levels,
    check_mask,
    check_same,
    count_labels,
    volume_grid,
)
from cordqa.engines.sct.rows import level_name, region_name, unit_factor
from cordqa.errors import ConfigError
from cordqa.io.files import iter_lines, read_small
from cordqa.io.volumes import read_volume, write_volume
from cordqa.records import Measurement, Notice, Severity, Volume

__all__ = ["BuiltinEngine"]

_MAX_TEXT_BYTES = 2 * 1024 * 1024
_METHODS: Mapping[Estimator, Method] = {
    Estimator.WEIGHTED_AVERAGE: "weighted mean",
    Estimator.BINARY: "binary",
    Estimator.MAXIMUM_LIKELIHOOD: "maximum likelihood",
    Estimator.MAXIMUM_A_POSTERIORI: "MAP",
    Estimator.MEDIAN: "median",
}
_AVAILABLE = (Step.SEGMENT_CORD, Step.LABEL_LEVELS, Step.MORPHOMETRY, Step.EXTRACT)
_REASONS: Mapping[Step, str] = {
    Step.REGISTER_TEMPLATE: "the built-in engine lays the atlas into the mask without a warp",
    Step.WARP_TEMPLATE: "the built-in engine lays the atlas into the mask without a warp",
}
_TODO = "use the Spinal Cord Toolbox for this step, or give the result as a derivative"


@dataclass(slots=True)
class _Clock:
    runs: list[EngineRun] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class BuiltinEngine:
    """The built-in engine; it runs in this process, downloads nothing and starts nothing."""

    @property
    def name(self) -> str:
        """Short name, stored with every value."""
        return "builtin"

    @property
    def version(self) -> str:
        """Version of cordqa, whose part this engine is."""
        return __version__

    def capabilities(self) -> tuple[Capability, ...]:
        """Say which steps this engine can take."""
        return tuple(
            Capability(step=step, available=True)
            if step in _AVAILABLE
            else Capability(step=step, available=False, reason=_reason(step), todo=_TODO)
            for step in Step
        )

    def segment(
        self, image: Path, workdir: Path, *, contrast: Contrast, tissue: Tissue = Tissue.CORD
    ) -> EngineResult:
        """Segment the cord; the network was trained on every contrast, so ``contrast`` is not used."""
        if tissue is not Tissue.CORD:
            raise self._unavailable(Step.SEGMENT_GREY_MATTER)
        grid = volume_grid(image)
        with self._timed("segment_cord", [image]) as clock:
            volume = _one_volume(read_volume(image))
            found = segment_cord(volume)
            path = workdir / "cord_mask.nii.gz"
            write_volume(Volume(data=found.mask, affine=volume.affine), path)
            check_image(path, like=grid, n_extra=0, mask=True, who="segment_cord")
        notices = [_notice(note) for note in found.notes]
        flagged = sum(1 for flags in found.flags if flags)
        if flagged:
            notices.append(_notice(f"{flagged} of {len(found.flags)} slices deserve a look"))
        return EngineResult(files={"segmentation": path}, runs=tuple(clock.runs), notices=tuple(notices))

    def label_levels(
        self, image: Path, workdir: Path, *, segmentation: Path, contrast: Contrast, discs: Path | None = None
    ) -> EngineResult:
        """Give each cord voxel its level from one or more labelled discs."""
        if discs is None:
            raise EngineUnavailableError(
                "levels need at least one labelled disc",
                where="engine builtin",
                todo="label a disc, or use slice-wise results",
            )
        grid = volume_grid(image)
        check_mask(segmentation, grid)
        count_labels(discs, grid)
        with self._timed("fit_levels", [image, segmentation, discs]) as clock:
            mask = _one_volume(read_volume(segmentation))
            levels = fit_levels(read_labels(_one_volume(read_volume(discs)), kind="disc"), mask)
            path = workdir / "levels.nii.gz"
            write_volume(_paint_levels(mask, levels.coordinate), path)
        return EngineResult(files={"levels": path}, runs=tuple(clock.runs), notices=levels.notices)

    def register_template(
        self,
        image: Path,
        workdir: Path,
        *,
        segmentation: Path,
        contrast: Contrast,
        discs: Path | None = None,
        bodies: Path | None = None,
        reference: str = "template",
    ) -> EngineResult:
        """Refuse: the atlas is laid in without a warp."""
        raise self._unavailable(Step.REGISTER_TEMPLATE)

    def warp_template(
        self, image: Path, workdir: Path, *, warp: Path, with_atlas: bool = True
    ) -> EngineResult:
        """Refuse: the atlas is laid in without a warp."""
        raise self._unavailable(Step.WARP_TEMPLATE)

    def coregister(
        self, moving: Path, workdir: Path, *, fixed: Path, segmentation: Path | None = None
    ) -> EngineResult:
        """Refuse for now."""
        raise self._unavailable(Step.COREGISTER)

    def motion_correct(
        self,
        image: Path,
        workdir: Path,
        *,
        bvals: Path,
        bvecs: Path,
        mask: Path | None = None,
        group_size: int = 3,
    ) -> EngineResult:
        """Refuse for now."""
        raise self._unavailable(Step.MOTION_CORRECT)

    def dti(
        self, image: Path, workdir: Path, *, bvals: Path, bvecs: Path, mask: Path | None = None
    ) -> EngineResult:
        """Refuse for now."""
        raise self._unavailable(Step.DTI)

    def mtr(self, mt_on: Path, workdir: Path, *, mt_off: Path) -> EngineResult:
        """Refuse for now."""
        raise self._unavailable(Step.MTR)

    def mtsat(
        self, mt_on: SpoiledImage, workdir: Path, *, mt_off: SpoiledImage, t1w: SpoiledImage
    ) -> EngineResult:
        """Refuse for now."""
        raise self._unavailable(Step.MTSAT)

    def morphometry(
        self,
        segmentation: Path,
        workdir: Path,
        *,
        group_by: Grouping = Grouping.SLICE,
        levels: Sequence[int] = (),
        level_image: Path | None = None,
        angle_correction: bool = True,
    ) -> EngineResult:
        """Measure area, diameters, eccentricity, orientation, solidity and length of the cord."""
        grid = volume_grid(segmentation)
        check_mask(segmentation, grid)
        if level_image is not None:
            check_same(grid, level_image, "level image")
        if levels and level_image is None:
            raise ConfigError(
                "levels need a level image", where=segmentation.name, todo="label the levels first"
            )
        if group_by is Grouping.LEVEL and not levels:
            raise ConfigError("rows per level need the levels", where="cord shape", todo="name the levels")
        inputs = [segmentation, *([level_image] if level_image else [])]
        with self._timed("measure_morphometry", inputs) as clock:
            mask = _one_volume(read_volume(segmentation))
            table = measure_morphometry(mask, angle_correction=angle_correction)
            by_slice = _slice_levels(mask, level_image)
            rows = self._shape_rows(table, by_slice, group_by, levels)
        return EngineResult(rows=rows, runs=tuple(clock.runs))

    def extract(
        self,
        metric: Path,
        workdir: Path,
        *,
        atlas: Path,
        labels: Sequence[int],
        quantity: str,
        unit: str,
        estimator: Estimator = Estimator.MAXIMUM_A_POSTERIORI,
        group_by: Grouping = Grouping.ALL,
        levels: Sequence[int] = (),
        slices: tuple[int, int] | None = None,
        level_image: Path | None = None,
        combine: bool = False,
    ) -> EngineResult:
        """Extract a metric per region; ``atlas`` is a folder of an atlas on this grid, or one mask."""
        scale, _ = unit_factor(unit, quantity)
        grid = volume_grid(metric)
        names = check_atlas(atlas, labels, estimator, grid)
        level_image = level_image or beside_atlas(atlas, "PAM50_levels.nii.gz")
        if level_image is not None:
            check_same(grid, level_image, "level image")
        check_levels(levels, group_by, level_image, where=metric.name)
        with self._timed("extract_regions", [metric]) as clock:
            image = _one_volume(read_volume(metric))
            laid, regions = _read_atlas(atlas, names, combine=combine)
            by_slice = _slice_levels(image, level_image)
            groups = _slice_groups(laid.shape[2], by_slice, group_by, levels, slices)
            found = {name: numbers for name, numbers in groups.items() if numbers.size}
            measured: tuple[Measurement, ...] = ()
            if found:
                measured = extract_regions(
                    image,
                    laid,
                    quantity=quantity,
                    regions=regions,
                    method=_METHODS[estimator],
                    groups=found,
                    scale=scale,
                )
            rows = tuple(self._row(m, slices=tuple(int(n) for n in found[m.level])) for m in measured)
            rows += self._absent(quantity, unit_factor(unit, quantity)[1], regions, groups, found)
        return EngineResult(rows=rows, runs=tuple(clock.runs))

    @contextmanager
    def _timed(self, function: str, inputs: Sequence[Path]) -> Iterator[_Clock]:
        """Time a step and record what entered it."""
        clock = _Clock()
        hashes = hash_inputs(inputs)
        start = time.monotonic()
        yield clock
        clock.runs.append(
            EngineRun(
                engine=self.name,
                version=self.version,
                argv=(function, *(str(path) for path in inputs)),
                runtime_s=time.monotonic() - start,
                input_hashes=hashes,
            )
        )

    def _unavailable(self, step: Step) -> EngineUnavailableError:
        return EngineUnavailableError(
            f"{step} is not available", where="engine builtin", found=_reason(step), todo=_TODO
        )

    def _shape_rows(
        self, table: SliceTable, by_slice: Mapping[int, int], group_by: Grouping, levels: Sequence[int]
    ) -> tuple[EngineRow, ...]:
        of_slice = [by_slice.get(int(number), 0) for number in table.slices]
        if group_by is Grouping.SLICE:
            chosen = [i for i, level in enumerate(of_slice) if not levels or level in levels]
            measured = slice_measurements(table)
            n = len(table.slices)
            rows = tuple(
                self._row(
                    measured[k],
                    slices=(int(table.slices[k % n]),),
                    level=level_name(of_slice[k % n]) if of_slice[k % n] else "",
                )
                for k in range(len(measured))
                if k % n in chosen
            )
            return rows + self._missing(levels, set(of_slice))
        groups = _level_masks(np.array(of_slice), group_by, levels)
        found = {name: mask for name, mask in groups.items() if mask.any()}
        rows = tuple(
            self._row(m, slices=tuple(int(n) for n in table.slices[found[m.level]]))
            for m in summarise_slices(table, found)
        )
        return rows + (self._missing(levels, set(of_slice)) if group_by is Grouping.LEVEL else ())

    def _missing(self, levels: Sequence[int], present: set[int]) -> tuple[EngineRow, ...]:
        blank = {"quantity": "CSA", "value": np.nan, "unit": "mm2", "region": "cord", "coverage": 0.0}
        return tuple(
            EngineRow(
                **blank,  # type: ignore[arg-type]
                level=level_name(level),
                engine=self.name,
                version=self.version,
                reason="this level is not in the image",
            )
            for level in levels
            if level not in present
        )

    def _absent(
        self,
        quantity: str,
        unit: str,
        regions: Sequence[str],
        groups: Mapping[str, NDArray[np.intp]],
        found: Mapping[str, NDArray[np.intp]],
    ) -> tuple[EngineRow, ...]:
        return tuple(
            EngineRow(
                quantity=quantity,
                value=np.nan,
                unit=unit,
                region=region,
                level="" if name == "all" else name,
                coverage=0.0,
                engine=self.name,
                version=self.version,
                reason="this level is not in the image",
            )
            for name in groups
            if name not in found
            for region in regions
        )

    def _row(self, m: Measurement, *, slices: tuple[int, ...], level: str | None = None) -> EngineRow:
        place = m.level if level is None else level
        return EngineRow(
            quantity=m.quantity,
            value=m.value,
            unit=m.unit,
            region=m.region,
            slices=slices,
            level="" if place == "all" or place.startswith("slice ") else place,
            n_voxels=float(m.n_voxels),
            coverage=m.coverage,
            method=m.method,
            engine=self.name,
            version=self.version,
            reason="; ".join(m.flags),
        )


def _reason(step: Step) -> str:
    return _REASONS.get(step, f"the built-in engine cannot {step} yet")


def _notice(message: str) -> Notice:
    return Notice(severity=Severity.WARNING, message=message, where="segmentation", code="cord.note")


def _one_volume(volume: Volume) -> Volume:
    """Drop dimensions of one, which some writers append."""
    data = volume.data
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    return Volume(data=data, affine=volume.affine, source=volume.source)


def _along(volume: Volume) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Return what lays values per slice, counted from inferior, along the axis of an image."""
    axis, downwards = slice_axis(volume.affine)

    def lay(values: NDArray[np.float64]) -> NDArray[np.float64]:
        shape = [1, 1, 1]
        shape[axis] = -1
        return (values[::-1] if downwards else values).reshape(shape)

    return lay


def _paint_levels(mask: Volume, coordinate: NDArray[np.float64]) -> Volume:
    """Give each voxel of the cord the number of its level."""
    numbers = np.where(np.isfinite(coordinate), np.floor(np.nan_to_num(coordinate)), 0.0)
    data = np.where(mask.data > 0.5, _along(mask)(numbers), 0).astype(np.uint8)
    return Volume(data=data, affine=mask.affine)


def _slice_levels(image: Volume, level_image: Path | None) -> dict[int, int]:
    """Return the level that most labelled voxels of each slice hold, by slice from inferior."""
    if level_image is None:
        return {}
    levels = _one_volume(read_volume(level_image))
    axis, downwards = slice_axis(levels.affine)
    planes = np.moveaxis(np.rint(np.nan_to_num(levels.data)).astype(int), axis, 0)
    planes = planes[::-1] if downwards else planes
    found = {}
    for number, plane in enumerate(planes):
        inside = plane[plane > 0]
        if inside.size:
            found[number] = int(np.bincount(inside).argmax())
    return found


def _level_masks(
    of_slice: NDArray[np.intp], group_by: Grouping, levels: Sequence[int]
) -> dict[str, NDArray[np.bool_]]:
    if group_by is Grouping.LEVEL:
        return {level_name(level): of_slice == level for level in levels}
    everything = np.isin(of_slice, levels) if levels else np.ones(of_slice.size, dtype=bool)
    return {"all": everything}


def _slice_groups(
    count: int,
    by_slice: Mapping[int, int],
    group_by: Grouping,
    levels: Sequence[int],
    slices: tuple[int, int] | None,
) -> dict[str, NDArray[np.intp]]:
    """Return the slices of each group, counted from inferior."""
    if slices is not None and not 0 <= slices[0] <= slices[1] < count:
        raise ConfigError("the slices are outside the image", found=str(slices), expected=f"0 to {count - 1}")
    first, last = slices or (0, count - 1)
    chosen = [n for n in range(first, last + 1) if not levels or by_slice.get(n) in levels]
    if group_by is Grouping.SLICE:
        return {f"slice {n}": np.array([n], dtype=np.intp) for n in chosen}
    if group_by is Grouping.LEVEL:
        return {
            level_name(level): np.array([n for n in chosen if by_slice.get(n) == level], dtype=np.intp)
            for level in levels
        }
    return {"all": np.array(chosen, dtype=np.intp)}


def _read_atlas(atlas: Path, names: Sequence[str], *, combine: bool) -> tuple[AtlasImage, list[str]]:
    """Read an atlas that lies in the image; return it with the names of the regions asked for."""
    if atlas.is_file():
        (name,) = names
        volumes = [_one_volume(read_volume(atlas))]
        labels = AtlasLabels(names=(name,), regions={name: Region(name=name, members=(0,))}, tissues={})
    else:
        text = "\n".join(iter_lines(read_small(atlas / "info_label.txt", limit=_MAX_TEXT_BYTES)))
        labels = parse_label_table(text, source=str(atlas))
        volumes = [_one_volume(read_volume(path)) for path in sorted(atlas.glob("PAM50_atlas_*.nii.gz"))]
    regions = [region_name(name) for name in names]
    if combine:
        members = sorted({member for name in regions for member in labels.find(name).members})
        joined = ", ".join(regions)
        extended = {**labels.regions, joined: Region(name=joined, members=tuple(members))}
        labels = AtlasLabels(
            names=labels.names, regions=extended, tissues=labels.tissues, source=labels.source
        )
        regions = [joined]
    return gather_atlas(volumes, labels), regions
