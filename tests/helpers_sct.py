"""A toolbox made of shell scripts: it behaves as it is told, so that the caller can be tested."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np

from cordqa.engines.sct.locate import DEEPSEG_MODELS, Toolbox, find_toolbox

PROGRAMS = (
    "sct_version",
    "sct_deepseg",
    "sct_propseg",
    "sct_label_vertebrae",
    "sct_register_to_template",
    "sct_warp_template",
    "sct_register_multimodal",
    "sct_create_mask",
    "sct_dmri_moco",
    "sct_dmri_compute_dti",
    "sct_compute_mtr",
    "sct_compute_mtsat",
    "sct_process_segmentation",
    "sct_extract_metric",
)
BINARIES = (
    "isct_propseg",
    "isct_spine_detect",
    "isct_antsRegistration",
    "isct_antsApplyTransforms",
    "isct_ComposeMultiTransform",
    "isct_antsSliceRegularizedRegistration",
)


def write_program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def make_toolbox(
    root: Path,
    scripts: Mapping[str, str] | None = None,
    *,
    version: str = "7.3",
    models: bool = True,
    template: bool = True,
) -> Toolbox:
    """Build an installation; programs that are not scripted end with status 0 and do nothing."""
    (root / "spinalcordtoolbox").mkdir(parents=True)
    (root / "spinalcordtoolbox" / "version.txt").write_text(f"{version}\n")
    for name in (*PROGRAMS, *BINARIES):
        write_program(root / "bin" / name, (scripts or {}).get(name, "exit 0"))
    if template:
        for part in ("template", "atlas"):
            (root / "data" / "PAM50" / part).mkdir(parents=True)
            (root / "data" / "PAM50" / part / "info_label.txt").write_text("# labels\n")
    if models:
        for name in DEEPSEG_MODELS.values():
            (root / "data" / "deepseg_models" / name).mkdir(parents=True)
            (root / "data" / "deepseg_models" / name / "weights").write_text("x")
    return find_toolbox(root, environ={"PATH": os.defpath})


def write_image(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.eye(4) if affine is None else affine), path)
    return path


def cord_mask(shape: tuple[int, int, int] = (12, 12, 6)) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[4:8, 4:8, :] = 1
    return mask
