"""The engine that calls the Spinal Cord Toolbox; its steps are in the modules beside this one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cordqa.engines.protocol import (
    Capability,
    Contrast,
    EngineResult,
    Estimator,
    Grouping,
    SpoiledImage,
    Tissue,
)
from cordqa.engines.sct import steps_anatomy, steps_maps, steps_measure
from cordqa.engines.sct.locate import Toolbox, list_pieces
from cordqa.engines.sct.runner import Runner

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
    quality : Path or None
        Folder in which its programs build their own page of quality control; none by default.
    """

    toolbox: Toolbox
    timeout_s: float = 3600.0
    threads: int = 1
    quality: Path | None = None
    _runner: Runner = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        runner = Runner(self.toolbox, timeout_s=self.timeout_s, threads=self.threads, quality=self.quality)
        object.__setattr__(self, "_runner", runner)

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
        return steps_anatomy.segment(self._runner, image, workdir, contrast=contrast, tissue=tissue)

    def label_levels(
        self, image: Path, workdir: Path, *, segmentation: Path, contrast: Contrast, discs: Path | None = None
    ) -> EngineResult:
        """Number the levels from labelled discs (3 is C2/C3), or on T1w and T2w from the image alone."""
        return steps_anatomy.label_levels(
            self._runner, image, workdir, segmentation=segmentation, contrast=contrast, discs=discs
        )

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
        return steps_anatomy.register_template(
            self._runner,
            image,
            workdir,
            segmentation=segmentation,
            contrast=contrast,
            discs=discs,
            bodies=bodies,
            reference=reference,
        )

    def warp_template(
        self, image: Path, workdir: Path, *, warp: Path, with_atlas: bool = True
    ) -> EngineResult:
        """Bring levels, tissues and the atlas to the image; says which slices they reach."""
        return steps_anatomy.warp_template(self._runner, image, workdir, warp=warp, with_atlas=with_atlas)

    def coregister(
        self, moving: Path, workdir: Path, *, fixed: Path, segmentation: Path | None = None
    ) -> EngineResult:
        """Align one contrast to another slice by slice, within 35 mm around the cord where it is known."""
        return steps_anatomy.coregister(self._runner, moving, workdir, fixed=fixed, segmentation=segmentation)

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
        return steps_maps.motion_correct(
            self._runner, image, workdir, bvals=bvals, bvecs=bvecs, mask=mask, group_size=group_size
        )

    def dti(
        self, image: Path, workdir: Path, *, bvals: Path, bvecs: Path, mask: Path | None = None
    ) -> EngineResult:
        """Fit the diffusion tensor; diffusivities are in mm2/s, as the program writes them."""
        return steps_maps.dti(self._runner, image, workdir, bvals=bvals, bvecs=bvecs, mask=mask)

    def mtr(self, mt_on: Path, workdir: Path, *, mt_off: Path) -> EngineResult:
        """Magnetization transfer ratio in percent; NaN where the image without MT is zero."""
        return steps_maps.mtr(self._runner, mt_on, workdir, mt_off=mt_off)

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
        return steps_maps.mtsat(self._runner, mt_on, workdir, mt_off=mt_off, t1w=t1w)

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
        return steps_measure.morphometry(
            self._runner,
            segmentation,
            workdir,
            group_by=group_by,
            levels=levels,
            level_image=level_image,
            angle_correction=angle_correction,
        )

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
        return steps_measure.extract(
            self._runner,
            metric,
            workdir,
            atlas=atlas,
            labels=labels,
            quantity=quantity,
            unit=unit,
            estimator=estimator,
            group_by=group_by,
            levels=levels,
            slices=slices,
            level_image=level_image,
            combine=combine,
        )
