"""A participant through the steps of an engine: shape, levels, template and regions are the engine's own.

The images are found and opened as in every run.  Whatever an engine makes lies as files in the working
folder of the image, and its rows become measurements that carry its name and version; nothing of
another engine is mixed in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cordqa.cord.atlas import AtlasImage
from cordqa.cord.axes import orient
from cordqa.cord.levels import fit_levels, level_number
from cordqa.cord.slice_rows import PERPENDICULAR
from cordqa.engines.builtin.levels import paint_levels
from cordqa.engines.builtin.measure import atlas_labels, read_atlas
from cordqa.engines.protocol import (
    Contrast,
    Engine,
    EngineResult,
    EngineRow,
    Estimator,
    Grouping,
    Step,
    row_measurement,
)
from cordqa.errors import ConfigError, CordqaError
from cordqa.io.bids_index import BidsFile, BidsIndex
from cordqa.io.bids_labels import Role, find_user_files
from cordqa.io.volumes import read_volume, write_volume
from cordqa.records import Volume
from cordqa.workflow.cord_image import ALL, labels_of, make_contrast, slice_verdict
from cordqa.workflow.cord_records import CordImage, Levels, Unit
from cordqa.workflow.cord_settings import CordSettings

__all__ = ["ESTIMATORS", "StepRun", "contrast_of"]

#: How this program names the ways of extraction, and engines do.
ESTIMATORS = {
    "MAP": Estimator.MAXIMUM_A_POSTERIORI,
    "maximum likelihood": Estimator.MAXIMUM_LIKELIHOOD,
    "weighted mean": Estimator.WEIGHTED_AVERAGE,
    "binary": Estimator.BINARY,
    "median": Estimator.MEDIAN,
}
_CONTRASTS = {"T1w": Contrast.T1, "UNIT1": Contrast.T1, "T2w": Contrast.T2, "dwi": Contrast.DWI}
#: Identifiers of cord, WM, GM, DC, LF and VF.
_GROUPS = (50, 51, 52, 53, 54, 55)
#: A cord in slices closer than this is straightened before the template is fitted.
_THIN_MM = 2.0
#: So many labels a registration in the space of the image can take.
_LABELS_SUBJECT = 2


def contrast_of(file: BidsFile) -> Contrast:
    """Return the contrast as the toolbox names it."""
    return _CONTRASTS.get(file.suffix, Contrast.T2S)


@dataclass(frozen=True, slots=True)
class _Group:
    """What rows are asked for; ``name`` is that of a single group, empty where rows name themselves."""

    grouping: Grouping
    levels: tuple[int, ...] = ()
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRun:
    """The steps of one engine for one participant; what fails is recorded in ``unit``."""

    engine: Engine
    work: Path
    unit: Unit
    settings: CordSettings

    def folder(self, file: BidsFile) -> Path:
        """Working folder of an image; what an engine leaves there has fixed names."""
        name = re.sub(r"[^A-Za-z0-9_-]", "_", file.name.partition(".")[0])
        folder = self.work / "steps" / self.engine.name / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def mask_file(self, image: CordImage) -> Path:
        """Write the mask on the grid of its image, whoever drew it."""
        path = self.folder(image.file) / "mask.nii.gz"
        write_volume(image.mask.volume, path)
        return path

    # -- levels --------------------------------------------------------------------------------------

    def label(self, index: BidsIndex, image: CordImage) -> CordImage:
        """Let the engine number the levels: from discs of the user, or from a T1w or T2w image alone."""
        discs = find_user_files(index, image.file).by_role.get(Role.DISCS)
        contrast = contrast_of(image.file)
        if discs is None and (image.levels is not None or contrast not in (Contrast.T1, Contrast.T2)):
            return image
        if discs is None and not self._can_label_alone():
            return image
        name = make_contrast(image.file)
        try:
            result = self.engine.label_levels(
                image.file.path,
                self.folder(image.file),
                segmentation=self.mask_file(image),
                contrast=contrast,
                discs=None if discs is None else discs.path,
            )
            found = read_volume(result.files["levels"], source=result.files["levels"].name)
            fitted = fit_levels(
                labels_of(found, Role.VERTEBRAE), image.volume, centreline=image.table.centreline
            )
        except CordqaError as error:
            self.unit.fail(name, "levels of the engine", error, (image.file.relative,))
            return image
        self.take(result, name)
        how = f"labels of the user ({discs.name})" if discs is not None else "the image alone, automatically"
        if discs is None:
            text = "levels were numbered automatically: check them on the page before they are used"
            self.unit.note("cord.levels-automatic", text, image.label)
        self.unit.done(name, "levels of the engine", f"{how}, by {self.engine.name} {self.engine.version}")
        return replace(image, levels=Levels(map=fitted, how=f"{how}, numbered by {self.engine.name}"))

    def _can_label_alone(self) -> bool:
        """Only the toolbox numbers levels without a label, and only where all that it needs is there."""
        known = {piece.step: piece.available for piece in self.engine.capabilities()}
        return self.engine.name == "sct" and known.get(Step.LABEL_LEVELS, False)

    def level_file(self, image: CordImage) -> Path | None:
        """Write the levels of an image as voxels of its cord; None where none is known."""
        if image.levels is None:
            return None
        path = self.folder(image.file) / "levels_used.nii.gz"
        painted = paint_levels(image.mask.volume, image.levels.map.coordinate)
        if not painted.data.any():
            return None
        write_volume(painted, path)
        return path

    def levels_met(self, image: CordImage) -> list[int]:
        """Levels that any slice of the mask lies in."""
        return sorted({level_number(name) for name in image.level_names() if name})

    # -- rows ----------------------------------------------------------------------------------------

    def shape(self, image: CordImage) -> None:
        """Measure the shape of the cord per slice, per level, and over all slices."""
        name = make_contrast(image.file)
        self.unit.verdicts.append(slice_verdict(image))
        mask, levels = self.mask_file(image), self.level_file(image)
        try:
            results = [
                (
                    group.name,
                    self.engine.morphometry(
                        mask,
                        self.folder(image.file),
                        group_by=group.grouping,
                        levels=group.levels,
                        level_image=levels,
                    ),
                )
                for group in (_Group(Grouping.SLICE), *self._groups(image, levels))
            ]
        except CordqaError as error:
            self.unit.fail(name, "shape of the cord", error, (image.file.relative,))
            return
        for group_name, result in results:
            self.take(result, name)
            self._add(result.rows, image, level=group_name, method=PERPENDICULAR)
        self.unit.done(name, "shape of the cord", f"{self.engine.name} {self.engine.version}")

    def _groups(self, image: CordImage, levels: Path | None) -> list[_Group]:
        """Rows that are asked for: all slices, single levels together, and each range of levels."""
        groups = [_Group(Grouping.ALL, name=ALL)]
        if levels is None:
            return groups
        single = [level_number(text) for text in self.settings.levels if "-" not in text]
        if not self.settings.levels:
            single = self.levels_met(image)
        if single:
            groups.append(_Group(Grouping.LEVEL, tuple(sorted(single))))
        for text in self.settings.levels:
            if "-" in text:
                low, high = sorted(level_number(part) for part in text.split("-"))
                groups.append(_Group(Grouping.ALL, tuple(range(low, high + 1)), name=text))
        return groups

    def extract(
        self,
        image: CordImage,
        metric: Path,
        atlas: Path,
        *,
        quantity: str,
        unit: str,
        flags: Sequence[str] = (),
    ) -> None:
        """Take the values of a map in all regions of a laid atlas.

        Raises
        ------
        CordqaError
            If the engine cannot.
        """
        estimator = ESTIMATORS.get(self.settings.method)
        if estimator is None:
            raise ConfigError(
                "is not offered by engines", where="method", found=self.settings.method,
                expected=", ".join(ESTIMATORS),
            )  # fmt: skip
        levels = self.level_file(image)
        wanted = self._groups(image, levels)
        if levels is None:
            wanted.append(_Group(Grouping.SLICE))
        for group in wanted:
            result = self.engine.extract(
                metric,
                self.folder(image.file),
                atlas=atlas,
                labels=self._labels(atlas),
                quantity=quantity,
                unit=unit,
                estimator=estimator,
                group_by=group.grouping,
                levels=group.levels,
                level_image=levels,
            )
            self.take(result, image.label)
            self._add(
                result.rows,
                image,
                level=group.name,
                method=f"{self.settings.method} of the map",
                flags=flags,
            )

    def _labels(self, atlas: Path) -> list[int]:
        """Groups of tracts, and single tracts where their borders are more than a scheme."""
        labels = atlas_labels(atlas)
        if any(region.approximate for region in labels.regions.values()):
            return list(_GROUPS)
        csf = labels.tissues.get("CSF", ())
        return [*(n for n in range(len(labels.names)) if n not in csf), *_GROUPS]

    def _add(
        self,
        rows: Sequence[EngineRow],
        image: CordImage,
        *,
        level: str,
        method: str,
        flags: Sequence[str] = (),
    ) -> None:
        """Turn rows into measurements; what lies over several levels is called as it was asked for."""
        oriented = orient(image.volume)
        for row in rows:
            made = row_measurement(row, entities=image.entities)
            stored = None if made.slice_number is None else oriented.array_index(made.slice_number)
            self.unit.rows.append(
                replace(
                    made,
                    level=level or made.level,
                    method=f"{method}, {row.method}" if row.method and method != PERPENDICULAR else method,
                    engine=self._label(image),
                    array_index=stored,
                    flags=(*made.flags, *flags),
                )
            )

    def _label(self, image: CordImage) -> str:
        own = f"{self.engine.name} {self.engine.version}"
        return f"{own}, mask of the user" if image.mask.engine == "user" else own

    def take(self, result: EngineResult, where: str) -> None:
        """Keep the remarks of an engine."""
        for notice in result.notices:
            self.unit.note(notice.code, notice.message, where, notice.severity)

    # -- template ------------------------------------------------------------------------------------

    def lay_template(self, image: CordImage, shown: Path, contrast: Contrast) -> Path:
        """Register and warp the template to an image; return the folder of the atlas.

        Raises
        ------
        CordqaError
            If a step fails, or no level is known: without a label the template has no place.
        """
        folder, mask = self.folder(image.file), self.mask_file(image)
        thin = orient(image.volume).spacing_mm[2] < _THIN_MM
        reference = "template" if thin else "subject"
        bodies = self._write_bodies(image, folder)
        registered = self.engine.register_template(
            shown, folder, segmentation=mask, contrast=contrast, bodies=bodies, reference=reference
        )
        self.take(registered, image.label)
        warped = self.engine.warp_template(shown, folder, warp=registered.files["warp_template2anat"])
        self.take(warped, image.label)
        return warped.files["atlas"]

    def _write_bodies(self, image: CordImage, folder: Path) -> Path | None:
        """Label the middles of the outermost two vertebrae that lie in the mask, on the centreline."""
        if image.levels is None:
            return None
        oriented, line = orient(image.mask.volume), image.table.centreline
        place = image.levels.map.coordinate[line.slices]
        met = [n for n in self.levels_met(image) if np.nanmin(place) <= n + 0.5 <= np.nanmax(place)]
        chosen = met if len(met) <= _LABELS_SUBJECT else [met[0], met[-1]]
        if not chosen:
            # Not even one middle lies in the field of view: the level of the middle slice stands for it.
            middle = int(np.argmin(np.abs(place - np.nanmedian(place))))
            chosen = [int(place[middle])]
        data = np.zeros(oriented.data.shape, dtype=np.uint8)
        for level in chosen:
            at = int(np.nanargmin(np.abs(place - (level + 0.5))))
            column = (line.right[at], line.anterior[at])
            data[round(float(column[0])), round(float(column[1])), int(line.slices[at])] = level
        path = folder / "bodies.nii.gz"
        write_volume(Volume(data=oriented.restore(data), affine=image.mask.volume.affine), path)
        return path

    def atlas_image(self, atlas: Path) -> AtlasImage:
        """Read a laid atlas, for the pictures of the page."""
        return read_atlas(atlas, atlas_labels(atlas).names[:1], combine=False)[0]
