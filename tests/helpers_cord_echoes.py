"""Gradient-echo scans of a cord as BIDS datasets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cordqa.io.volumes import write_volume
from cordqa.records import Volume

TIMES = (0.0035, 0.007, 0.0105, 0.014, 0.0175)


def tilted_affine(voxel_mm: Sequence[float], direction: Sequence[float]) -> np.ndarray:
    """Affine of slices that are turned about the axis from left to right, so that z points along B0."""
    _, y, z = np.asarray(direction, dtype=float) / np.linalg.norm(direction)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[1, 0, 0], [0, z, -y], [0, y, z]]) * np.asarray(voxel_mm, dtype=float)
    return affine


def describe(bids: Path) -> None:
    bids.mkdir(parents=True, exist_ok=True)
    (bids / "dataset_description.json").write_text('{"Name": "cord", "BIDSVersion": "1.9.0"}')


def put_echoes(
    bids: Path,
    parts: Mapping[str, np.ndarray],
    affine: np.ndarray,
    times: Sequence[float] = TIMES,
    *,
    subject: str = "01",
    suffix: str = "MEGRE",
    words: str = "",
    sidecar: Mapping[str, Any] | None = None,
) -> Path:
    """Write one file per echo and part; return the folder."""
    describe(bids)
    folder = bids / f"sub-{subject}/anat"
    folder.mkdir(parents=True, exist_ok=True)
    for part, data in parts.items():
        for n, time in enumerate(times):
            stem = folder / f"sub-{subject}_{words}echo-{n + 1}_part-{part}_{suffix}"
            write_volume(Volume(data=data[..., n], affine=affine), stem.with_name(f"{stem.name}.nii.gz"))
            about = {"EchoTime": time, "MagneticFieldStrength": 3.0, **(sidecar or {})}
            stem.with_name(f"{stem.name}.json").write_text(json.dumps(about))
    return folder


def put_label(bids: Path, name: str, data: np.ndarray, affine: np.ndarray, subject: str = "01") -> Path:
    """Write a mask or labels of the user."""
    folder = bids / f"derivatives/labels/sub-{subject}/anat"
    folder.mkdir(parents=True, exist_ok=True)
    (bids / "derivatives/labels/dataset_description.json").write_text(
        '{"Name": "labels", "BIDSVersion": "1.9.0", "DatasetType": "derivative"}'
    )
    path = folder / f"sub-{subject}_{name}.nii.gz"
    write_volume(Volume(data=np.asarray(data, dtype=np.uint8), affine=affine), path)
    return path


def small_scan(
    shape: tuple[int, int, int] = (24, 24, 10), seed: int = 0
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A bright disc with a smooth field, and the cord in its middle."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    tissue = x**2 + y**2 + 0 * z < 0.7
    times = np.array(TIMES)
    phase = 2 * np.pi * (40 * np.sin(2 * x) + 25 * y * z + 90)[..., None] * times
    signal = 1000 * tissue[..., None] * np.exp(-25 * times + 1j * phase)
    signal = signal + 15 * (rng.normal(size=signal.shape) + 1j * rng.normal(size=signal.shape))
    parts = {"mag": np.abs(signal).astype(np.float32), "phase": np.angle(signal).astype(np.float32)}
    return parts, x**2 + y**2 + 0 * z < 0.15
