"""Steps of the toolbox that make maps: motion, diffusion tensor, magnetization transfer."""

from __future__ import annotations

from pathlib import Path

from cordqa.engines.errors import EngineError
from cordqa.engines.grids import check_image, read_grid
from cordqa.engines.protocol import EngineResult, SpoiledImage, Step
from cordqa.engines.sct import commands
from cordqa.engines.sct.checks import check_gradients, check_mask, check_same, volume_grid
from cordqa.engines.sct.runner import Runner, keep, text_of

__all__ = ["dti", "motion_correct", "mtr", "mtsat"]


def motion_correct(
    runner: Runner,
    image: Path,
    workdir: Path,
    *,
    bvals: Path,
    bvecs: Path,
    mask: Path | None = None,
    group_size: int = 3,
) -> EngineResult:
    """Align the volumes of a diffusion series; also file ``motion``, mm per volume."""
    runner.need(Step.MOTION_CORRECT)
    grid = read_grid(image)
    check_gradients(grid, bvals, bvecs, image.name)
    if mask is not None:
        check_mask(mask, grid)
    command = commands.correct_motion(
        text_of(image),
        text_of(bvecs),
        bvals=text_of(bvals),
        mask=text_of(mask),
        group_size=group_size,
        folder="moco",
    )
    series, b0_mean, dwi_mean, motion = command.outputs
    with runner.scratch(workdir) as scratch:
        run = runner.run(command, scratch, workdir)
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
        files = keep(scratch, workdir, {role: (name, Path(name).name) for role, name in roles.items()})
    return EngineResult(files=files, units={"motion": "mm"}, runs=(run,))


def dti(
    runner: Runner, image: Path, workdir: Path, *, bvals: Path, bvecs: Path, mask: Path | None = None
) -> EngineResult:
    """Fit the diffusion tensor; diffusivities are in mm2/s, as the program writes them."""
    runner.need(Step.DTI)
    grid = read_grid(image)
    check_gradients(grid, bvals, bvecs, image.name)
    if mask is not None:
        check_mask(mask, grid)
    command = commands.compute_dti(text_of(image), text_of(bvals), text_of(bvecs), mask=text_of(mask))
    roles = {Path(name).name[len("dti_") : -len(".nii.gz")]: name for name in command.outputs}
    files, run = runner.maps(command, workdir, grid, roles)
    units = {role: "1" if role == "FA" else "mm2/s" for role in roles}
    return EngineResult(files=files, units=units, runs=(run,))


def mtr(runner: Runner, mt_on: Path, workdir: Path, *, mt_off: Path) -> EngineResult:
    """Magnetization transfer ratio in percent; NaN where the image without MT is zero."""
    runner.need(Step.MTR)
    grid = volume_grid(mt_on)
    check_same(grid, mt_off, "MT off")
    command = commands.compute_mtr(text_of(mt_off), text_of(mt_on))
    files, run = runner.maps(command, workdir, grid, {"MTR": "mtr.nii.gz"})
    return EngineResult(files=files, units={"MTR": "%"}, runs=(run,))


def mtsat(
    runner: Runner, mt_on: SpoiledImage, workdir: Path, *, mt_off: SpoiledImage, t1w: SpoiledImage
) -> EngineResult:
    """Magnetization transfer saturation in percent and T1 in seconds.

    All six parameters are given to the program: registered images have lost their sidecars.

    Raises
    ------
    ConfigError
        If a repetition time is not in seconds or a flip angle not in degrees.
    """
    runner.need(Step.MTSAT)
    grid = volume_grid(mt_on.path)
    check_same(grid, mt_off.path, "MT off")
    check_same(grid, t1w.path, "T1w")
    command = commands.compute_mtsat(
        text_of(mt_on.path),
        text_of(mt_off.path),
        text_of(t1w.path),
        repetition_times_s=(mt_on.repetition_time_s, mt_off.repetition_time_s, t1w.repetition_time_s),
        flip_angles_deg=(mt_on.flip_angle_deg, mt_off.flip_angle_deg, t1w.flip_angle_deg),
    )
    files, run = runner.maps(command, workdir, grid, {"MTsat": "mtsat.nii.gz", "T1": "t1map.nii.gz"})
    return EngineResult(files=files, units={"MTsat": "%", "T1": "s"}, runs=(run,))
