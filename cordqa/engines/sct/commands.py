"""Command lines of the Spinal Cord Toolbox, built from settings that make sense.

Options that the programs parse but never use are not offered, nor is ``-append``, which does not
check that the columns fit.  Each builder returns the words and the files that must be there
afterwards, relative to the working folder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from cordqa.engines.protocol import Contrast, Estimator
from cordqa.errors import ConfigError

__all__ = [
    "Command",
    "apply_warp",
    "centerline_from_segmentation",
    "compute_dti",
    "compute_mtr",
    "compute_mtsat",
    "correct_motion",
    "create_mask",
    "deepseg",
    "extract_metric",
    "label_mid_slice",
    "label_vertebrae",
    "number_range",
    "process_segmentation",
    "propseg",
    "register_images",
    "register_to_template",
    "separate_diffusion",
    "split_name",
    "warp_template",
]

#: A spoiled gradient echo of an MT protocol repeats every 5 to 100 ms; one second is milliseconds misread.
MAX_TR_S = 1.0
_MIN_FLIP_DEG, _MAX_FLIP_DEG = 1.0, 90.0
_ATLAS_SIZE = 37
_MAX_SUBJECT_LABELS = 2
#: Registration that follows the segmentation only, fit for ``-ref subject``.
SEGMENTATION_STEPS = "step=1,type=seg,algo=centermassrot:step=2,type=seg,algo=bsplinesyn,slicewise=1"
#: Rigid, slice by slice and regularised along the cord.
SLICEREG_STEPS = "step=1,type=im,algo=slicereg,metric=CC"


@dataclass(frozen=True, slots=True)
class Command:
    """A program, its arguments, and what it must leave behind."""

    program: str
    arguments: tuple[str, ...]
    outputs: tuple[str, ...] = ()
    inputs: tuple[str, ...] = field(default=())

    @property
    def words(self) -> tuple[str, ...]:
        """Program and arguments as typed."""
        return (self.program, *self.arguments)


def split_name(path: str) -> tuple[str, str]:
    """Split a file name into stem and ``.nii`` or ``.nii.gz``, as the toolbox does for its outputs."""
    name = PurePosixPath(path).name
    for ending in (".nii.gz", ".nii"):
        if name.endswith(ending):
            return name[: -len(ending)], ending
    raise ConfigError("is not a NIfTI file", where=name, expected=".nii or .nii.gz")


def number_range(numbers: Sequence[int]) -> str:
    """Write numbers as the toolbox reads them: ``2:5`` for a run, ``2,4`` otherwise."""
    values = list(numbers)
    if not values or any(n < 0 for n in values):
        raise ConfigError("needs numbers from 0 upwards", found=str(values))
    if len(values) > 2 and values == list(range(values[0], values[-1] + 1)):
        return f"{values[0]}:{values[-1]}"
    return ",".join(str(n) for n in values)


def _words(*pairs: tuple[str, object]) -> tuple[str, ...]:
    """Flatten options; one whose value is ``None`` is left out, ``True`` is 1 and ``False`` 0."""
    words: list[str] = []
    for option, value in pairs:
        if value is not None:
            words += [option, str(int(value)) if isinstance(value, bool) else str(value)]
    return tuple(words)


def _folder(folder: str | None, *names: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}" if folder else name for name in names)


def _present(*paths: str | None) -> tuple[str, ...]:
    return tuple(path for path in paths if path)


def deepseg(task: str, *, image: str, output: str, quality_folder: str | None = None) -> Command:
    """Segment with a network (version 7 or newer); its model must be installed already."""
    words = _words(("-i", image), ("-o", output), ("-qc", quality_folder))
    return Command("sct_deepseg", (task, *words), (output,), (image,))


def propseg(
    image: str,
    contrast: Contrast,
    *,
    output: str,
    centerline: str | None = None,
    quality_folder: str | None = None,
) -> Command:
    """Segment the cord by propagation."""
    words = _words(
        ("-i", image),
        ("-c", contrast),
        ("-init-centerline", centerline),
        ("-o", output),
        ("-qc", quality_folder),
    )
    return Command("sct_propseg", words, (output,), _present(image, centerline))


def centerline_from_segmentation(segmentation: str, contrast: Contrast, *, output: str) -> Command:
    """Fit the centreline of a mask; leaves an image and a table without header."""
    words = _words(("-i", segmentation), ("-method", "fitseg"), ("-c", contrast), ("-o", output))
    return Command("sct_get_centerline", words, (f"{output}.nii.gz", f"{output}.csv"), (segmentation,))


def label_vertebrae(
    image: str,
    segmentation: str,
    *,
    contrast: Contrast,
    discs: str | None = None,
    folder: str | None = None,
    quality_folder: str | None = None,
) -> Command:
    """Number the levels from labelled discs, or from the image alone."""
    if contrast not in (Contrast.T1, Contrast.T2):
        raise ConfigError(
            "levels are labelled on T1w or T2w images only", found=contrast, expected="t1 or t2"
        )
    words = _words(
        ("-i", image),
        ("-s", segmentation),
        ("-c", contrast),
        ("-discfile", discs),
        ("-ofolder", folder),
        ("-qc", quality_folder),
    )
    stem, ending = split_name(segmentation)
    outputs = _folder(folder, f"{stem}_labeled{ending}", f"{stem}_labeled_discs{ending}")
    return Command("sct_label_vertebrae", words, outputs, _present(image, segmentation, discs))


def label_mid_slice(segmentation: str, label: int, *, output: str) -> Command:
    """Put one label in the middle slice of a mask."""
    words = _words(("-i", segmentation), ("-create-seg-mid", label), ("-o", output))
    return Command("sct_label_utils", words, (output,), (segmentation,))


def register_to_template(
    image: str,
    segmentation: str,
    *,
    bodies: str | None = None,
    discs: str | None = None,
    contrast: Contrast | None = None,
    reference: str | None = None,
    folder: str | None = None,
    steps: str | None = None,
    quality_folder: str | None = None,
    n_labels: int | None = None,
) -> Command:
    """Align the template with the image by one or two vertebral labels, or by discs.

    ``n_labels``, where known, is checked: ``-ref subject`` takes one or two.
    """
    if (bodies is None) == (discs is None):
        raise ConfigError(
            "needs either labelled vertebral bodies or labelled discs", where="template registration"
        )
    if contrast is Contrast.DWI:
        raise ConfigError("there is no template of diffusion images", found="dwi", expected="t1, t2 or t2s")
    if reference not in (None, "template", "subject"):
        raise ConfigError("is not a reference", found=str(reference), expected="template or subject")
    if reference == "subject" and n_labels is not None and n_labels > _MAX_SUBJECT_LABELS:
        raise ConfigError(
            "registration in the subject's space takes one or two labels",
            found=str(n_labels),
            expected="1 or 2",
        )
    words = _words(
        ("-i", image),
        ("-s", segmentation),
        ("-l", bodies),
        ("-ldisc", discs),
        ("-c", contrast),
        ("-ref", reference),
        ("-ofolder", folder),
        ("-param", steps),
        ("-qc", quality_folder),
    )
    names = ("warp_template2anat", "warp_anat2template", "template2anat", "anat2template")
    outputs = _folder(folder, *(f"{name}.nii.gz" for name in names))
    return Command("sct_register_to_template", words, outputs, _present(image, segmentation, bodies, discs))


def warp_template(
    image: str,
    warp: str,
    *,
    with_atlas: bool | None = True,
    folder: str | None = None,
    quality_folder: str | None = None,
) -> Command:
    """Bring the template, and the atlas of 37 labels, to the image.  ``None`` leaves the default (1)."""
    words = _words(
        ("-d", image), ("-w", warp), ("-a", with_atlas), ("-ofolder", folder), ("-qc", quality_folder)
    )
    base = folder or "label"
    outputs = [f"{base}/template/PAM50_{name}.nii.gz" for name in ("cord", "levels", "wm", "gm")]
    outputs.append(f"{base}/template/info_label.txt")
    if with_atlas is not False:
        outputs += [f"{base}/atlas/PAM50_atlas_{number:02d}.nii.gz" for number in range(_ATLAS_SIZE)]
        outputs.append(f"{base}/atlas/info_label.txt")
    return Command("sct_warp_template", words, tuple(outputs), (image, warp))


def register_images(
    moving: str,
    fixed: str,
    *,
    moving_segmentation: str | None = None,
    fixed_segmentation: str | None = None,
    mask: str | None = None,
    warp: str | None = None,
    inverse_warp: str | None = None,
    steps: str | None = SLICEREG_STEPS,
    warp_output: str | None = None,
    inverse_warp_output: str | None = None,
    interpolation: str | None = "spline",
    quality_folder: str | None = None,
) -> Command:
    """Align one image to another."""
    if steps and "type=seg" in steps and not (moving_segmentation and fixed_segmentation):
        raise ConfigError("a step on segmentations needs those of both images", where="registration")
    words = _words(
        ("-i", moving),
        ("-iseg", moving_segmentation),
        ("-d", fixed),
        ("-dseg", fixed_segmentation),
        ("-m", mask),
        ("-initwarp", warp),
        ("-initwarpinv", inverse_warp),
        ("-param", steps),
        ("-x", interpolation),
        ("-owarp", warp_output),
        ("-owarpinv", inverse_warp_output),
        ("-qc", quality_folder),
    )
    (moving_stem, ending), fixed_stem = split_name(moving), split_name(fixed)[0]
    outputs = (f"{moving_stem}_reg{ending}", warp_output or f"warp_{moving_stem}2{fixed_stem}.nii.gz")
    inputs = _present(moving, moving_segmentation, fixed, fixed_segmentation, mask, warp, inverse_warp)
    return Command("sct_register_multimodal", words, outputs, inputs)


def create_mask(
    image: str, *, process: str, size: str = "35mm", shape: str | None = "cylinder", output: str | None = None
) -> Command:
    """Make a mask around the cord; ``process`` is ``center`` or ``centerline,MASK``."""
    words = _words(("-i", image), ("-p", process), ("-size", size), ("-f", shape), ("-o", output))
    given = process.partition(",")[2]
    stem, ending = split_name(image)
    return Command("sct_create_mask", words, (output or f"mask_{stem}{ending}",), _present(image, given))


def apply_warp(
    image: str, *, destination: str, warp: str, output: str, interpolation: str | None = None
) -> Command:
    """Move an image with a known warp."""
    words = _words(("-i", image), ("-d", destination), ("-w", warp), ("-x", interpolation), ("-o", output))
    return Command("sct_apply_transfo", words, (output,), (image, destination, warp))


def compute_mtr(mt_off: str, mt_on: str, *, output: str | None = None, quiet: bool = False) -> Command:
    """Magnetization transfer ratio in percent, clipped to +-100."""
    words = _words(("-mt0", mt_off), ("-mt1", mt_on), ("-o", output), ("-v", 0 if quiet else None))
    return Command("sct_compute_mtr", words, (output or "mtr.nii.gz",), (mt_off, mt_on))


def compute_mtsat(
    mt_on: str,
    mt_off: str,
    t1w: str,
    *,
    repetition_times_s: tuple[float, float, float] | None = None,
    flip_angles_deg: tuple[float, float, float] | None = None,
) -> Command:
    """MTsat in percent and T1 in seconds, from images in the order MT on, MT off, T1w.

    Raises
    ------
    ConfigError
        If a repetition time can only be milliseconds, or a flip angle only radians: the program
        would end with status 0 and meaningless maps.
    """
    if (repetition_times_s is None) != (flip_angles_deg is None):
        raise ConfigError("needs repetition times and flip angles, or neither", where="MTsat")
    times: tuple[float | None, ...] = repetition_times_s or (None,) * 3
    angles: tuple[float | None, ...] = flip_angles_deg or (None,) * 3
    names = ("MT on", "MT off", "T1w")
    for name, time, angle in zip(names, times, angles, strict=True):
        _check_sequence(name, time, angle)
    words = _words(
        ("-mt", mt_on),
        ("-pd", mt_off),
        ("-t1", t1w),
        ("-trmt", _number(times[0])),
        ("-trpd", _number(times[1])),
        ("-trt1", _number(times[2])),
        ("-famt", _number(angles[0])),
        ("-fapd", _number(angles[1])),
        ("-fat1", _number(angles[2])),
    )
    return Command("sct_compute_mtsat", words, ("mtsat.nii.gz", "t1map.nii.gz"), (mt_on, mt_off, t1w))


def _check_sequence(name: str, time_s: float | None, angle_deg: float | None) -> None:
    if time_s is not None and not 0 < time_s < MAX_TR_S:
        raise ConfigError(
            "the repetition time is not in seconds",
            where=name,
            found=f"{time_s:g}",
            expected=f"more than 0 and less than {MAX_TR_S:g} s",
            todo="give seconds: 30 ms is 0.030",
        )
    if angle_deg is not None and not _MIN_FLIP_DEG <= angle_deg <= _MAX_FLIP_DEG:
        raise ConfigError(
            "the flip angle is not in degrees",
            where=name,
            found=f"{angle_deg:g}",
            expected=f"{_MIN_FLIP_DEG:g} to {_MAX_FLIP_DEG:g} degrees",
        )


def _number(value: float | None) -> str | None:
    """Write a number so that nothing is lost in it."""
    if value is None:
        return None
    return str(int(value)) if math.isfinite(value) and value == int(value) else repr(float(value))


def separate_diffusion(image: str, bvecs: str, *, bvals: str | None = None) -> Command:
    """Split a diffusion series into b=0 and weighted volumes, and average each."""
    stem, ending = split_name(image)
    outputs = tuple(f"{stem}_{name}{ending}" for name in ("b0", "b0_mean", "dwi", "dwi_mean"))
    words = _words(("-i", image), ("-bvec", bvecs), ("-bval", bvals))
    return Command("sct_dmri_separate_b0_and_dwi", words, outputs, _present(image, bvecs, bvals))


def correct_motion(
    image: str,
    bvecs: str,
    *,
    bvals: str | None = None,
    mask: str | None = None,
    group_size: int | None = None,
    folder: str | None = None,
    quality_folder: str | None = None,
    quality_segmentation: str | None = None,
) -> Command:
    """Align the volumes of a diffusion series; ``group_size`` volumes move together (3 by default)."""
    if quality_folder and not quality_segmentation:
        raise ConfigError("the quality report of motion correction needs a segmentation")
    if group_size is not None and group_size < 1:
        raise ConfigError("the group size of motion correction is too small", found=str(group_size))
    words = _words(
        ("-i", image),
        ("-bvec", bvecs),
        ("-bval", bvals),
        ("-m", mask),
        ("-g", group_size),
        ("-ofolder", folder),
        ("-qc", quality_folder),
        ("-qc-seg", quality_segmentation),
    )
    stem, ending = split_name(image)
    outputs = _folder(
        folder,
        f"{stem}_moco{ending}",
        f"{stem}_moco_b0_mean{ending}",
        f"{stem}_moco_dwi_mean{ending}",
        "moco_params.tsv",
    )
    return Command("sct_dmri_moco", words, outputs, _present(image, bvecs, bvals, mask))


def compute_dti(
    image: str,
    bvals: str,
    bvecs: str,
    *,
    mask: str | None = None,
    method: str | None = None,
    prefix: str | None = None,
) -> Command:
    """Fit the tensor; ``method`` is ``standard`` (default) or ``restore``; diffusivities in mm2/s."""
    if method not in (None, "standard", "restore"):
        raise ConfigError("is not a tensor fit", found=str(method), expected="standard or restore")
    words = _words(
        ("-i", image), ("-bval", bvals), ("-bvec", bvecs), ("-method", method), ("-m", mask), ("-o", prefix)
    )
    outputs = tuple(f"{prefix or 'dti_'}{name}.nii.gz" for name in ("FA", "MD", "RD", "AD"))
    return Command("sct_dmri_compute_dti", words, outputs, _present(image, bvals, bvecs, mask))


def process_segmentation(
    segmentation: str,
    *,
    output: str,
    slices: str | None = None,
    levels: str | None = None,
    level_image: str | None = None,
    discs: str | None = None,
    per_level: bool | None = None,
    per_slice: bool | None = None,
    angle_correction: bool | None = None,
    normalise_to_template: bool | None = None,
) -> Command:
    """Shape of the cord; one row unless ``per_slice`` or ``per_level``."""
    if levels and not (level_image or discs):
        raise ConfigError(
            "levels need a level image or labelled discs", where="cord shape", todo="label the levels first"
        )
    if normalise_to_template and not (level_image and per_slice):
        raise ConfigError("template positions need a level image and slices", where="cord shape")
    words = _words(
        ("-i", segmentation),
        ("-vert", levels),
        ("-vertfile", level_image),
        ("-discfile", discs),
        ("-perlevel", per_level),
        ("-perslice", per_slice),
        ("-normalize-PAM50", normalise_to_template),
        ("-angle-corr", angle_correction),
        ("-z", slices),
        ("-o", output),
    )
    return Command("sct_process_segmentation", words, (output,), _present(segmentation, level_image, discs))


def extract_metric(
    metric: str,
    atlas: str,
    *,
    output: str | None,
    labels: str | None = None,
    estimator: Estimator | None = None,
    per_slice: bool | None = False,
    slices: str | None = None,
    levels: str | None = None,
    level_image: str | None = None,
    per_level: bool | None = None,
    combine: bool | None = None,
) -> Command:
    """Extract a metric; ``atlas`` is a folder, or one mask.

    ``per_slice`` is written out by default, because without it the program gives one row for each
    slice and not one row; ``None`` leaves it to the program.
    """
    words = _words(
        ("-i", metric),
        ("-f", atlas),
        ("-l", labels),
        ("-combine", combine),
        ("-method", estimator),
        ("-vert", levels),
        ("-vertfile", level_image),
        ("-perlevel", per_level),
        ("-perslice", per_slice),
        ("-z", slices),
        ("-o", output),
    )
    outputs = (output or "extract_metric.csv",)
    return Command("sct_extract_metric", words, outputs, _present(metric, level_image))
