"""Steps of the toolbox that find the cord, its levels and the template in it."""

from __future__ import annotations

from pathlib import Path

from cordqa.engines.grids import Grid, check_image, covered_slices, slice_axis
from cordqa.engines.protocol import Contrast, EngineResult, EngineRun, Step, Tissue
from cordqa.engines.sct import commands
from cordqa.engines.sct.checks import check_mask, count_labels, volume_grid
from cordqa.engines.sct.locate import DEEPSEG_SUBCOMMANDS
from cordqa.engines.sct.runner import Runner, keep, text_of
from cordqa.records import Notice, Severity

__all__ = ["coregister", "label_levels", "register_template", "segment", "warp_template"]


def segment(
    runner: Runner, image: Path, workdir: Path, *, contrast: Contrast, tissue: Tissue = Tissue.CORD
) -> EngineResult:
    """Segment the cord or its grey matter: file ``segmentation``, checked to be a mask.

    Raises
    ------
    EngineUnavailableError
        If the network is not installed and there is no older program; nothing is downloaded.
    """
    runner.need(Step.SEGMENT_CORD if tissue is Tissue.CORD else Step.SEGMENT_GREY_MATTER)
    grid = volume_grid(image)
    output = "segmentation.nii.gz"
    task = "spinalcord" if tissue is Tissue.CORD else "graymatter"
    if runner.toolbox.release >= DEEPSEG_SUBCOMMANDS and runner.toolbox.has_model(task):
        command = commands.deepseg(
            task, image=text_of(image), output=output, quality_folder=runner.quality_folder
        )
    else:
        command = commands.propseg(
            text_of(image), contrast, output=output, quality_folder=runner.quality_folder
        )
    name = "cord_mask.nii.gz" if tissue is Tissue.CORD else "grey_matter_mask.nii.gz"
    with runner.scratch(workdir) as scratch:
        run = runner.run(command, scratch, workdir)
        check_image(scratch / output, like=grid, n_extra=0, mask=True, who=command.program)
        files = keep(scratch, workdir, {"segmentation": (output, name)})
    return EngineResult(files=files, runs=(run,))


def label_levels(
    runner: Runner,
    image: Path,
    workdir: Path,
    *,
    segmentation: Path,
    contrast: Contrast,
    discs: Path | None = None,
) -> EngineResult:
    """Number the levels from labelled discs (3 is C2/C3), or on T1w and T2w from the image alone."""
    runner.need(Step.LABEL_LEVELS)
    grid = volume_grid(image)
    check_mask(segmentation, grid)
    if discs is not None:
        count_labels(discs, grid)
        # With labelled discs the contrast is not looked at; the program knows only two.
        contrast = Contrast.T1 if contrast is Contrast.T1 else Contrast.T2
    command = commands.label_vertebrae(
        text_of(image),
        text_of(segmentation),
        contrast=contrast,
        discs=text_of(discs),
        folder="levels",
        quality_folder=runner.quality_folder,
    )
    with runner.scratch(workdir) as scratch:
        run = runner.run(command, scratch, workdir)
        for output in command.outputs:
            check_image(scratch / output, like=grid, n_extra=0, who=command.program)
        files = keep(
            scratch,
            workdir,
            {
                "levels": (command.outputs[0], "levels.nii.gz"),
                "discs": (command.outputs[1], "discs.nii.gz"),
            },
        )
    return EngineResult(files=files, runs=(run,))


def register_template(
    runner: Runner,
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
    runner.need(Step.REGISTER_TEMPLATE)
    grid = volume_grid(image)
    check_mask(segmentation, grid)
    labels = bodies if bodies is not None else discs
    count = count_labels(labels, grid) if labels is not None else None
    if contrast is Contrast.DWI:
        contrast = Contrast.T1  # mean diffusion images show the cord bright and the fluid dark
    steps = commands.SEGMENTATION_STEPS if reference == "subject" else None
    command = commands.register_to_template(
        text_of(image),
        text_of(segmentation),
        bodies=text_of(bodies),
        discs=text_of(discs),
        contrast=contrast,
        reference=reference,
        folder="template",
        steps=steps,
        n_labels=count,
        quality_folder=runner.quality_folder,
    )
    roles = {Path(name).name.removesuffix(".nii.gz"): name for name in command.outputs}
    with runner.scratch(workdir) as scratch:
        run = runner.run(command, scratch, workdir)
        check_image(scratch / roles["warp_template2anat"], like=grid, n_extra=1, who=command.program)
        check_image(scratch / roles["warp_anat2template"], n_extra=1, who=command.program)
        check_image(scratch / roles["template2anat"], like=grid, n_extra=0, who=command.program)
        files = keep(scratch, workdir, {role: (name, Path(name).name) for role, name in roles.items()})
    notices = (_one_label_notice(),) if count == 1 else ()
    return EngineResult(files=files, runs=(run,), notices=notices)


def warp_template(
    runner: Runner, image: Path, workdir: Path, *, warp: Path, with_atlas: bool = True
) -> EngineResult:
    """Bring levels, tissues and the atlas to the image; says which slices they reach."""
    runner.need(Step.WARP_TEMPLATE)
    grid = volume_grid(image)
    command = commands.warp_template(
        text_of(image), text_of(warp), with_atlas=with_atlas, quality_folder=runner.quality_folder
    )
    with runner.scratch(workdir) as scratch:
        run = runner.run(command, scratch, workdir)
        images = [name for name in command.outputs if name.endswith(".nii.gz")]
        for output in images:
            check_image(scratch / output, like=grid, n_extra=0, who=command.program)
        cord = scratch / "label/template/PAM50_cord.nii.gz"
        check_image(cord, like=grid, mask=True, who=command.program)
        notices = _coverage_notices(cord, grid)
        folder = keep(scratch, workdir, {"label": ("label", "label")})["label"]
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
    runner: Runner, moving: Path, workdir: Path, *, fixed: Path, segmentation: Path | None = None
) -> EngineResult:
    """Align one contrast to another slice by slice, within 35 mm around the cord where it is known."""
    runner.need(Step.COREGISTER)
    volume_grid(moving)
    grid = volume_grid(fixed)
    runs: list[EngineRun] = []
    mask = None
    with runner.scratch(workdir) as scratch:
        if segmentation is not None:
            check_mask(segmentation, grid)
            process = f"centerline,{text_of(segmentation)}"
            around = commands.create_mask(text_of(fixed), process=process, output="around.nii.gz")
            runs.append(runner.run(around, scratch, workdir))
            mask = "around.nii.gz"
        command = commands.register_images(
            text_of(moving),
            text_of(fixed),
            fixed_segmentation=text_of(segmentation),
            mask=mask,
            steps=commands.SLICEREG_STEPS,
            warp_output="warp_moving2fixed.nii.gz",
            quality_folder=runner.quality_folder if segmentation is not None else None,
        )
        runs.append(runner.run(command, scratch, workdir))
        registered, warp = command.outputs
        check_image(scratch / registered, like=grid, n_extra=0, who=command.program)
        stem, ending = commands.split_name(registered)
        names = {"registered": (registered, f"{stem}{ending}"), "warp": (warp, f"warp_{stem}.nii.gz")}
        files = keep(scratch, workdir, names)
    return EngineResult(files=files, runs=tuple(runs))


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
