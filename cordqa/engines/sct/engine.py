"""The engine that calls the Spinal Cord Toolbox.

Every program runs in a fresh folder of its own, because the toolbox writes under fixed names and
picks up what an earlier call left there.  What it made is checked and only then moved to the
working folder, so a killed run leaves nothing that looks finished.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

from cordqa.engines.errors import EngineError, EngineUnavailableError
from cordqa.engines.grids import Grid, check_image, covered_slices, read_grid, slice_axis
from cordqa.engines.protocol import (
    Capability,
    Contrast,
    EngineResult,
    EngineRun,
    Estimator,
    Grouping,
    SpoiledImage,
    Step,
    Tissue,
    hash_inputs,
)
from cordqa.engines.sct import commands
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
from cordqa.engines.sct.commands import Command
from cordqa.engines.sct.locate import DEEPSEG_SUBCOMMANDS, Toolbox, list_pieces
from cordqa.engines.sct.rows import extraction_rows, shape_rows, unit_factor
from cordqa.engines.sct.run import run_command
from cordqa.engines.sct.tables import SctTable, read_table
from cordqa.errors import ConfigError, OutputError
from cordqa.records import Notice, Severity

__all__ = ["SctEngine"]


@dataclass(frozen=True, slots=True)
class SctEngine:
    """The Spinal Cord Toolbox as an engine.

    Parameters
    ----------
    toolbox : Toolbox
        From :func:`cordqa.engines.sct.locate.find_toolbox`.
    timeout_s : float
        Limit of each program, seconds of wall clock.
    threads : int
        Threads of its registrations; 1 makes them reproducible.
    """

    toolbox: Toolbox
    timeout_s: float = 3600.0
    threads: int = 1
    _hashes: dict[tuple[str, int, int], str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        """Short name, stored with every value."""
        return "sct"

    @property
    def version(self) -> str:
        """Version of the toolbox, as its ``version.txt`` says."""
        return self.toolbox.version

    def capabilities(self) -> tuple[Capability, ...]:
        """Say for each step whether all that it needs is installed."""
        return list_pieces(self.toolbox)

    def segment(
        self, image: Path, workdir: Path, *, contrast: Contrast, tissue: Tissue = Tissue.CORD
    ) -> EngineResult:
        """Segment the cord or its grey matter: file ``segmentation``, checked to be a mask.

        Raises
        ------
        EngineUnavailableError
            If the network is not installed and there is no older program; nothing is downloaded.
        """
        self._need(Step.SEGMENT_CORD if tissue is Tissue.CORD else Step.SEGMENT_GREY_MATTER)
        grid = volume_grid(image)
        output = "segmentation.nii.gz"
        task = "spinalcord" if tissue is Tissue.CORD else "graymatter"
        if self.toolbox.release >= DEEPSEG_SUBCOMMANDS and self.toolbox.has_model(task):
            command = commands.deepseg(task, image=_text(image), output=output)
        else:
            command = commands.propseg(_text(image), contrast, output=output)
        name = "cord_mask.nii.gz" if tissue is Tissue.CORD else "grey_matter_mask.nii.gz"
        with self._scratch(workdir) as scratch:
            run = self._run(command, scratch, workdir)
            check_image(scratch / output, like=grid, n_extra=0, mask=True, who=command.program)
            files = _keep(scratch, workdir, {"segmentation": (output, name)})
        return EngineResult(files=files, runs=(run,))

    def label_levels(
        self, image: Path, workdir: Path, *, segmentation: Path, contrast: Contrast, discs: Path | None = None
    ) -> EngineResult:
        """Number the levels from labelled discs (3 is C2/C3), or on T1w and T2w from the image alone."""
        self._need(Step.LABEL_LEVELS)
        grid = volume_grid(image)
        check_mask(segmentation, grid)
        if discs is not None:
            count_labels(discs, grid)
            # With labelled discs the contrast is not looked at; the program knows only two.
            contrast = Contrast.T1 if contrast is Contrast.T1 else Contrast.T2
        command = commands.label_vertebrae(
            _text(image), _text(segmentation), contrast=contrast, discs=_text(discs), folder="levels"
        )
        with self._scratch(workdir) as scratch:
            run = self._run(command, scratch, workdir)
            for output in command.outputs:
                check_image(scratch / output, like=grid, n_extra=0, who=command.program)
            files = _keep(
                scratch,
                workdir,
                {
                    "levels": (command.outputs[0], "levels.nii.gz"),
                    "discs": (command.outputs[1], "discs.nii.gz"),
                },
            )
        return EngineResult(files=files, runs=(run,))

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
        """Align the PAM50 template: warps both ways, and both images moved."""
        self._need(Step.REGISTER_TEMPLATE)
        grid = volume_grid(image)
        check_mask(segmentation, grid)
        labels = bodies if bodies is not None else discs
        count = count_labels(labels, grid) if labels is not None else None
        if contrast is Contrast.DWI:
            contrast = Contrast.T1  # mean diffusion images show the cord bright and the fluid dark
        steps = commands.SEGMENTATION_STEPS if reference == "subject" else None
        command = commands.register_to_template(
            _text(image),
            _text(segmentation),
            bodies=_text(bodies),
            discs=_text(discs),
            contrast=contrast,
            reference=reference,
            folder="template",
            steps=steps,
            n_labels=count,
        )
        roles = {Path(name).name.removesuffix(".nii.gz"): name for name in command.outputs}
        with self._scratch(workdir) as scratch:
            run = self._run(command, scratch, workdir)
            check_image(scratch / roles["warp_template2anat"], like=grid, n_extra=1, who=command.program)
            check_image(scratch / roles["warp_anat2template"], n_extra=1, who=command.program)
            check_image(scratch / roles["template2anat"], like=grid, n_extra=0, who=command.program)
            files = _keep(scratch, workdir, {role: (name, Path(name).name) for role, name in roles.items()})
        notices = (_one_label_notice(),) if count == 1 else ()
        return EngineResult(files=files, runs=(run,), notices=notices)

    def warp_template(
        self, image: Path, workdir: Path, *, warp: Path, with_atlas: bool = True
    ) -> EngineResult:
        """Bring levels, tissues and the atlas to the image; says which slices they reach."""
        self._need(Step.WARP_TEMPLATE)
        grid = volume_grid(image)
        command = commands.warp_template(_text(image), _text(warp), with_atlas=with_atlas)
        with self._scratch(workdir) as scratch:
            run = self._run(command, scratch, workdir)
            images = [name for name in command.outputs if name.endswith(".nii.gz")]
            for output in images:
                check_image(scratch / output, like=grid, n_extra=0, who=command.program)
            cord = scratch / "label/template/PAM50_cord.nii.gz"
            check_image(cord, like=grid, mask=True, who=command.program)
            notices = _coverage_notices(cord, grid)
            folder = _keep(scratch, workdir, {"label": ("label", "label")})["label"]
        files = {
            "label": folder,
            "cord": folder / "template/PAM50_cord.nii.gz",
            "levels": folder / "template/PAM50_levels.nii.gz",
            "white_matter": folder / "template/PAM50_wm.nii.gz",
            "grey_matter": folder / "template/PAM50_gm.nii.gz",
        }
        if with_atlas:
            files["atlas"] = folder / "atlas"
        return EngineResult(files=files, runs=(run,), notices=notices)

    def coregister(
        self, moving: Path, workdir: Path, *, fixed: Path, segmentation: Path | None = None
    ) -> EngineResult:
        """Align one contrast to another slice by slice, within 35 mm around the cord where it is known."""
        self._need(Step.COREGISTER)
        volume_grid(moving)
        grid = volume_grid(fixed)
        runs: list[EngineRun] = []
        mask = None
        with self._scratch(workdir) as scratch:
            if segmentation is not None:
                check_mask(segmentation, grid)
                process = f"centerline,{_text(segmentation)}"
                around = commands.create_mask(_text(fixed), process=process, output="around.nii.gz")
                runs.append(self._run(around, scratch, workdir))
                mask = "around.nii.gz"
            command = commands.register_images(
                _text(moving),
                _text(fixed),
                fixed_segmentation=_text(segmentation),
                mask=mask,
                steps=commands.SLICEREG_STEPS,
                warp_output="warp_moving2fixed.nii.gz",
            )
            runs.append(self._run(command, scratch, workdir))
            registered, warp = command.outputs
            check_image(scratch / registered, like=grid, n_extra=0, who=command.program)
            stem, ending = commands.split_name(registered)
            names = {"registered": (registered, f"{stem}{ending}"), "warp": (warp, f"warp_{stem}.nii.gz")}
            files = _keep(scratch, workdir, names)
        return EngineResult(files=files, runs=tuple(runs))

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
        """Align the volumes of a diffusion series; also file ``motion``, mm per volume."""
        self._need(Step.MOTION_CORRECT)
        grid = read_grid(image)
        check_gradients(grid, bvals, bvecs, image.name)
        if mask is not None:
            check_mask(mask, grid)
        command = commands.correct_motion(
            _text(image),
            _text(bvecs),
            bvals=_text(bvals),
            mask=_text(mask),
            group_size=group_size,
            folder="moco",
        )
        series, b0_mean, dwi_mean, motion = command.outputs
        with self._scratch(workdir) as scratch:
            run = self._run(command, scratch, workdir)
            moved = read_grid(scratch / series)
            check_image(scratch / series, like=grid, n_extra=1, who=command.program)
            if moved.extra != grid.extra:
                raise EngineError(
                    "changed the number of volumes",
                    where=command.program,
                    found=str(moved.extra),
                    expected=str(grid.extra),
                )
            for name in (b0_mean, dwi_mean):
                check_image(scratch / name, like=grid, n_extra=0, who=command.program)
            roles = {"image": series, "b0_mean": b0_mean, "dwi_mean": dwi_mean, "motion": motion}
            files = _keep(scratch, workdir, {role: (name, Path(name).name) for role, name in roles.items()})
        return EngineResult(files=files, units={"motion": "mm"}, runs=(run,))

    def dti(
        self, image: Path, workdir: Path, *, bvals: Path, bvecs: Path, mask: Path | None = None
    ) -> EngineResult:
        """Fit the diffusion tensor; diffusivities are in mm2/s, as the program writes them."""
        self._need(Step.DTI)
        grid = read_grid(image)
        check_gradients(grid, bvals, bvecs, image.name)
        if mask is not None:
            check_mask(mask, grid)
        command = commands.compute_dti(_text(image), _text(bvals), _text(bvecs), mask=_text(mask))
        roles = {Path(name).name[len("dti_") : -len(".nii.gz")]: name for name in command.outputs}
        files, run = self._maps(command, workdir, grid, roles)
        units = {role: "1" if role == "FA" else "mm2/s" for role in roles}
        return EngineResult(files=files, units=units, runs=(run,))

    def mtr(self, mt_on: Path, workdir: Path, *, mt_off: Path) -> EngineResult:
        """Magnetization transfer ratio in percent; NaN where the image without MT is zero."""
        self._need(Step.MTR)
        grid = volume_grid(mt_on)
        check_same(grid, mt_off, "MT off")
        command = commands.compute_mtr(_text(mt_off), _text(mt_on))
        files, run = self._maps(command, workdir, grid, {"MTR": "mtr.nii.gz"})
        return EngineResult(files=files, units={"MTR": "%"}, runs=(run,))

    def mtsat(
        self, mt_on: SpoiledImage, workdir: Path, *, mt_off: SpoiledImage, t1w: SpoiledImage
    ) -> EngineResult:
        """Magnetization transfer saturation in percent and T1 in seconds.

        All six parameters are given to the program: registered images have lost their sidecars.

        Raises
        ------
        ConfigError
            If a repetition time is not in seconds or a flip angle not in degrees.
        """
        self._need(Step.MTSAT)
        grid = volume_grid(mt_on.path)
        check_same(grid, mt_off.path, "MT off")
        check_same(grid, t1w.path, "T1w")
        command = commands.compute_mtsat(
            _text(mt_on.path),
            _text(mt_off.path),
            _text(t1w.path),
            repetition_times_s=(mt_on.repetition_time_s, mt_off.repetition_time_s, t1w.repetition_time_s),
            flip_angles_deg=(mt_on.flip_angle_deg, mt_off.flip_angle_deg, t1w.flip_angle_deg),
        )
        files, run = self._maps(command, workdir, grid, {"MTsat": "mtsat.nii.gz", "T1": "t1map.nii.gz"})
        return EngineResult(files=files, units={"MTsat": "%", "T1": "s"}, runs=(run,))

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
        self._need(Step.MORPHOMETRY)
        grid = volume_grid(segmentation)
        check_mask(segmentation, grid)
        if level_image is not None:
            check_same(grid, level_image, "level image")
        if group_by is Grouping.LEVEL and not levels:
            raise ConfigError("rows per level need the levels", where="cord shape", todo="name the levels")
        command = commands.process_segmentation(
            _text(segmentation),
            output="shape.csv",
            levels=commands.number_range(levels) if levels else None,
            level_image=_text(level_image),
            per_level=True if group_by is Grouping.LEVEL else None,
            per_slice=True if group_by is Grouping.SLICE else None,
            angle_correction=angle_correction,
        )
        table, run, files = self._table(command, workdir, f"shape_{group_by}")
        method = f"sct shape, {'with' if angle_correction else 'without'} angle correction"
        rows = shape_rows(table, version=self.version, method=method, levels=levels)
        return EngineResult(files=files, rows=rows, runs=(run,), notices=_table_notices(table, command))

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
        """Extract a metric per region; ``atlas`` is the folder of the warped atlas, or one mask."""
        self._need(Step.EXTRACT)
        unit_factor(unit, quantity)
        grid = volume_grid(metric)
        names = check_atlas(atlas, labels, estimator, grid)
        level_image = level_image or beside_atlas(atlas, "PAM50_levels.nii.gz")
        if level_image is not None:
            check_same(grid, level_image, "level image")
        check_levels(levels, group_by, level_image, where=metric.name)
        command = commands.extract_metric(
            _text(metric),
            _text(atlas),
            output="extracted.csv",
            labels=commands.number_range(labels) if atlas.is_dir() else None,
            estimator=estimator,
            per_slice=_per_slice(group_by, levels),
            slices=f"{slices[0]}:{slices[1]}" if slices else None,
            levels=commands.number_range(levels) if levels else None,
            level_image=_text(level_image),
            per_level=True if group_by is Grouping.LEVEL else None,
            combine=True if combine else None,
        )
        table, run, files = self._table(command, workdir, f"{quantity}_{estimator}_{group_by}")
        cord = beside_atlas(atlas, "PAM50_cord.nii.gz")
        rows = extraction_rows(
            table,
            version=self.version,
            quantity=quantity,
            unit=unit,
            covered=covered_slices(cord) if cord is not None else None,
            levels=levels,
            labels=names,
        )
        return EngineResult(files=files, rows=rows, runs=(run,), notices=_table_notices(table, command))

    def _need(self, step: Step) -> None:
        """Refuse a step whose pieces are missing, before any work (and any download) begins."""
        piece = next(p for p in self.capabilities() if p.step is step)
        if not piece.available:
            raise EngineUnavailableError(
                f"cannot {step}" if step.startswith(("segment", "label")) else f"{step} is not available",
                where=f"Spinal Cord Toolbox {self.version}",
                found=piece.reason,
                todo=piece.todo,
            )

    @contextlib.contextmanager
    def _scratch(self, workdir: Path) -> Iterator[Path]:
        """Make a fresh folder in which one step runs, and remove it whatever happens."""
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(dir=workdir, prefix=".sct-")).resolve()
        except OSError as error:
            raise OutputError(
                f"cannot be written: {error.strerror or error}", where=str(workdir), todo="free some space"
            ) from error
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _run(self, command: Command, scratch: Path, workdir: Path) -> EngineRun:
        inputs = [scratch / name for name in command.inputs if (scratch / name).is_file()]
        return run_command(
            command,
            self.toolbox,
            folder=scratch,
            timeout_s=self.timeout_s,
            log=workdir / "logs" / f"{command.program}-{_digest(command)}.log",
            threads=self.threads,
            hashes={str(path): self._hash(path) for path in inputs if path.parent != scratch},
        )

    def _hash(self, path: Path) -> str:
        """Hash a file once; the same image enters many steps."""
        status = path.stat()
        key = (str(path), status.st_size, status.st_mtime_ns)
        if key not in self._hashes:
            self._hashes[key] = hash_inputs([path])[str(path)]
        return self._hashes[key]

    def _maps(
        self, command: Command, workdir: Path, grid: Grid, roles: Mapping[str, str]
    ) -> tuple[dict[str, Path], EngineRun]:
        with self._scratch(workdir) as scratch:
            run = self._run(command, scratch, workdir)
            for name in roles.values():
                check_image(scratch / name, like=grid, n_extra=0, who=command.program)
            files = _keep(scratch, workdir, {role: (name, name) for role, name in roles.items()})
        return files, run

    def _table(
        self, command: Command, workdir: Path, name: str
    ) -> tuple[SctTable, EngineRun, dict[str, Path]]:
        with self._scratch(workdir) as scratch:
            run = self._run(command, scratch, workdir)
            table = read_table(scratch / command.outputs[0], version=self.version)
            files = _keep(scratch, workdir, {"table": (command.outputs[0], f"{name}_{_digest(command)}.csv")})
        return table, run, files


def _digest(command: Command) -> str:
    """Name a call by what was asked, so that two calls in one folder do not share a log or a table."""
    return hashlib.sha256("\0".join(command.words).encode("utf-8", "surrogateescape")).hexdigest()[:8]


@overload
def _text(path: Path) -> str: ...
@overload
def _text(path: None) -> None: ...
@overload
def _text(path: Path | None) -> str | None: ...
def _text(path: Path | None) -> str | None:
    """Write a path in full: programs run in another folder."""
    # Not resolved: a file in a data archive is a link whose target has another name.
    return None if path is None else str(Path(path).absolute())


def _keep(scratch: Path, workdir: Path, names: Mapping[str, tuple[str, str]]) -> dict[str, Path]:
    """Move checked files out of the scratch folder; a role maps to (made as, kept as)."""
    kept: dict[str, Path] = {}
    for role, (made, name) in names.items():
        target = workdir / name
        try:
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            (scratch / made).replace(target)
        except OSError as error:
            raise OutputError(f"cannot be written: {error.strerror or error}", where=str(target)) from error
        kept[role] = target
    return kept


def _per_slice(group_by: Grouping, levels: Sequence[int]) -> bool | None:
    if group_by is Grouping.SLICE:
        return True
    # Without levels the program would give one row per slice if it were not told otherwise.
    return None if levels else False


def _one_label_notice() -> Notice:
    return Notice(
        severity=Severity.WARNING,
        message="one label only: the template is moved along the cord but not scaled, so levels far from "
        "the label rest on the lengths of the template's vertebrae",
        code="levels.one-label",
    )


def _coverage_notices(cord: Path, grid: Grid) -> tuple[Notice, ...]:
    count = grid.shape[slice_axis(grid.affine)[0]]
    covered = covered_slices(cord)
    if len(covered) == count:
        return ()
    message = f"the template reaches {len(covered)} of {count} slices; the others have no atlas"
    return (Notice(severity=Severity.WARNING, message=message, code="atlas.coverage"),)


def _table_notices(table: SctTable, command: Command) -> tuple[Notice, ...]:
    if not table.note:
        return ()
    return (Notice(severity=Severity.WARNING, message=table.note, where=command.program, code="table.empty"),)
