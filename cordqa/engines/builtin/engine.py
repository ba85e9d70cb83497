"""The steps of the built-in engine: a thin coat over :mod:`cordqa.cord` and :mod:`cordqa.models`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cordqa import __version__
from cordqa.cord.atlas_shapes import analytical_sections
from cordqa.cord.grey_matter import segment_grey_matter
from cordqa.cord.levels import fit_levels, read_labels
from cordqa.cord.morphometry import measure_morphometry
from cordqa.cord.segment import segment_cord
from cordqa.cord.template import AtlasSections
from cordqa.engines.builtin import laying, maps
from cordqa.engines.builtin.clock import NAME, note, timed
from cordqa.engines.builtin.levels import one_volume, paint_levels, slice_groups, slice_levels
from cordqa.engines.builtin.measure import atlas_labels, extraction_rows, read_atlas, shape_rows
from cordqa.engines.errors import EngineUnavailableError
from cordqa.engines.grids import check_image, read_grid
from cordqa.engines.protocol import (
    Capability,
    Contrast,
    EngineResult,
    Estimator,
    Grouping,
    SpoiledImage,
    Step,
    Tissue,
)
from cordqa.engines.sct.checks import (
    beside_atlas,
    check_atlas,
    check_gradients,
    check_levels,
    check_mask,
    check_same,
    count_labels,
    volume_grid,
)
from cordqa.engines.sct.rows import unit_factor
from cordqa.errors import ConfigError
from cordqa.io.volumes import read_volume, write_volume
from cordqa.records import Volume

__all__ = ["BuiltinEngine"]


@dataclass(frozen=True, slots=True)
class BuiltinEngine:
    """The built-in engine; it runs in this process, downloads nothing and starts nothing.

    Parameters
    ----------
    sections : callable, optional
        Loads the atlas that ``warp template`` lays; by default the schematic one.
    """

    sections: Callable[[], AtlasSections] = field(default=analytical_sections, compare=False)

    @property
    def name(self) -> str:
        """Short name, stored with every value."""
        return NAME

    @property
    def version(self) -> str:
        """Version of cordqa, whose part this engine is."""
        return __version__

    def capabilities(self) -> tuple[Capability, ...]:
        """Say which steps this engine can take."""
        return tuple(Capability(step=step, available=True) for step in Step)

    def segment(
        self, image: Path, workdir: Path, *, contrast: Contrast, tissue: Tissue = Tissue.CORD
    ) -> EngineResult:
        """Segment the cord, or the grey matter within it; the contrast is not used."""
        grid = volume_grid(image)
        grey = tissue is Tissue.GREY_MATTER
        function = "segment_grey_matter" if grey else "segment_cord"
        with timed(function, [image]) as clock:
            volume = one_volume(read_volume(image))
            cord = segment_cord(volume)
            data, remarks, flags = cord.mask, cord.notes, cord.flags
            if grey:
                mask = Volume(data=cord.mask, affine=volume.affine, source="cord mask")
                found = segment_grey_matter(volume, mask)
                data, remarks, flags = found.mask, (*cord.notes, *found.notes), found.flags
            path = workdir / ("grey_matter_mask.nii.gz" if grey else "cord_mask.nii.gz")
            write_volume(Volume(data=data, affine=volume.affine), path)
            check_image(path, like=grid, n_extra=0, mask=True, who=function)
        notices = [note(text) for text in remarks]
        flagged = sum(1 for one in flags if one)
        if flagged:
            notices.append(note(f"{flagged} of {len(flags)} slices deserve a look"))
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
        with timed("fit_levels", [image, segmentation, discs]) as clock:
            mask = one_volume(read_volume(segmentation))
            levels = fit_levels(read_labels(one_volume(read_volume(discs)), kind="disc"), mask)
            path = workdir / "levels.nii.gz"
            write_volume(paint_levels(mask, levels.coordinate), path)
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
        """Keep what lays the template: mask and level of each slice.  There is no way back from the image.

        Without labels every slice will get the section of a typical level, and a notice says so.
        """
        grid = volume_grid(image)
        check_mask(segmentation, grid)
        for labels in (discs, bodies):
            if labels is not None:
                count_labels(labels, grid)
        inputs = [path for path in (image, segmentation, discs, bodies) if path is not None]
        with timed("align_template", inputs) as clock:
            path = workdir / "template_alignment.nii.gz"
            notices = laying.align_template(segmentation, path, discs=discs, bodies=bodies)
        return EngineResult(files={"warp_template2anat": path}, runs=tuple(clock.runs), notices=notices)

    def warp_template(
        self, image: Path, workdir: Path, *, warp: Path, with_atlas: bool = True
    ) -> EngineResult:
        """Lay levels, tissues and the atlas into the image; ``warp`` comes from ``register_template``."""
        volume_grid(image)
        with timed("lay_template", [image, warp]) as clock:
            folder = workdir / "label"
            shutil.rmtree(folder, ignore_errors=True)
            files, notices = laying.lay_template(
                warp, image, folder, sections=self.sections(), with_atlas=with_atlas
            )
        return EngineResult(files=files, runs=tuple(clock.runs), notices=notices)

    def coregister(
        self, moving: Path, workdir: Path, *, fixed: Path, segmentation: Path | None = None
    ) -> EngineResult:
        """Shift the slices of one contrast so that its cord lies on that of another one."""
        volume_grid(moving)
        grid = volume_grid(fixed)
        if segmentation is None:
            raise ConfigError(
                "the built-in alignment compares the surroundings of the cord, so it needs its mask",
                where=moving.name,
                todo="segment the fixed image first",
            )
        check_mask(segmentation, grid)
        with timed("align_slices", [moving, fixed, segmentation]) as clock:
            path = workdir / f"{moving.name.partition('.')[0]}_reg.nii.gz"
            sentence = maps.align_contrast(moving, fixed, segmentation, path)
        notices = (note(sentence, where=moving.name, code="coregister"),)
        return EngineResult(files={"registered": path}, runs=tuple(clock.runs), notices=notices)

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
        """Align diffusion volumes slice by slice; also file ``motion``, one row per volume."""
        grid = read_grid(image)
        check_gradients(grid, bvals, bvecs, image.name)
        if mask is None:
            raise ConfigError(
                "the built-in motion correction looks at the cord, so it needs its mask",
                where=image.name,
                todo="segment the mean of the series first",
            )
        check_mask(mask, grid)
        names = {"image": "moco.nii.gz", "b0_mean": "moco_b0_mean.nii.gz", "dwi_mean": "moco_dwi_mean.nii.gz"}
        targets = {role: workdir / name for role, name in names.items()} | {"motion": workdir / "motion.tsv"}
        with timed("correct_motion", [image, bvals, bvecs, mask]) as clock:
            words = maps.correct_series(image, bvals, bvecs, mask, targets, group_size=group_size)
        notices = tuple(note(text, where=image.name, code="motion") for text in words)
        return EngineResult(files=targets, units={"motion": "mm"}, runs=tuple(clock.runs), notices=notices)

    def dti(
        self, image: Path, workdir: Path, *, bvals: Path, bvecs: Path, mask: Path | None = None
    ) -> EngineResult:
        """Fit the diffusion tensor by weighted least squares; diffusivities are in mm2/s."""
        grid = read_grid(image)
        check_gradients(grid, bvals, bvecs, image.name)
        if mask is not None:
            check_mask(mask, grid)
        targets = {role: workdir / f"dti_{role}.nii.gz" for role in maps.TENSOR}
        inputs = [path for path in (image, bvals, bvecs, mask) if path is not None]
        with timed("fit_tensor", inputs) as clock:
            words = maps.map_tensor(image, bvals, bvecs, mask, targets)
        notices = tuple(note(text, where=image.name, code="dti") for text in words)
        units = {role: "1" if role == "FA" else "mm2/s" for role in targets}
        return EngineResult(files=targets, units=units, runs=tuple(clock.runs), notices=notices)

    def mtr(self, mt_on: Path, workdir: Path, *, mt_off: Path) -> EngineResult:
        """Magnetization transfer ratio in percent; NaN where the image without MT shows no signal."""
        check_same(volume_grid(mt_on), mt_off, "MT off")
        path = workdir / "mtr.nii.gz"
        with timed("mt_ratio", [mt_on, mt_off]) as clock:
            maps.map_mtr(mt_on, mt_off, path)
        return EngineResult(files={"MTR": path}, units={"MTR": "%"}, runs=tuple(clock.runs))

    def mtsat(
        self, mt_on: SpoiledImage, workdir: Path, *, mt_off: SpoiledImage, t1w: SpoiledImage
    ) -> EngineResult:
        """Magnetization transfer saturation in percent and T1 in seconds, with nominal flip angles."""
        grid = volume_grid(mt_on.path)
        check_same(grid, mt_off.path, "MT off")
        check_same(grid, t1w.path, "T1w")
        targets = {"MTsat": workdir / "mtsat.nii.gz", "T1": workdir / "t1map.nii.gz"}
        with timed("fit_mt_saturation", [mt_on.path, mt_off.path, t1w.path]) as clock:
            maps.map_mtsat(mt_on, mt_off, t1w, targets)
        return EngineResult(files=targets, units={"MTsat": "%", "T1": "s"}, runs=tuple(clock.runs))

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
        check_levels(levels, group_by, level_image, where=segmentation.name)
        inputs = [segmentation, *([level_image] if level_image else [])]
        with timed("measure_morphometry", inputs) as clock:
            mask = one_volume(read_volume(segmentation))
            table = measure_morphometry(mask, angle_correction=angle_correction)
            rows = shape_rows(table, slice_levels(mask, level_image), group_by, levels)
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
        scale, registered = unit_factor(unit, quantity)
        grid = volume_grid(metric)
        count = len(atlas_labels(atlas).names) if atlas.is_dir() else 1
        names = check_atlas(atlas, labels, estimator, grid, n_labels=count)
        level_image = level_image or beside_atlas(atlas, "levels")
        if level_image is not None:
            check_same(grid, level_image, "level image")
        check_levels(levels, group_by, level_image, where=metric.name)
        with timed("extract_regions", [metric]) as clock:
            image = one_volume(read_volume(metric))
            laid, regions = read_atlas(atlas, names, combine=combine)
            level_of = slice_levels(image, level_image)
            rows = extraction_rows(
                image,
                laid,
                regions,
                slice_groups(laid.shape[2], level_of, group_by, levels, slices),
                quantity=quantity,
                unit=registered,
                scale=scale,
                estimator=estimator,
                group_by=group_by,
                level_of=level_of,
            )
        return EngineResult(rows=rows, runs=tuple(clock.runs))
