"""How well the built-in engine segments the cord on real images with given masks.

Run ``python benchmarks/cord_segmentation.py DATA`` where DATA holds ``cord/testing`` and
``cord/tutorial``.  Prints, per image: Dice of the mask at one half, centreline error, area bias
and CPU time on one thread.  Only slices on which the given mask marks something are scored.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cordqa.cord.segment import SegmentationSettings, segment_cord
from cordqa.io.volumes import read_volume

IMAGES = {
    "T2w": ("testing/t2/t2", "testing/t2/t2_seg-manual"),
    "T2*w": ("testing/t2s/t2s", "testing/t2s/t2s_seg"),
    "MT-on": ("testing/mt/mt1", "testing/mt/mt1_seg"),
    # The person moved by about 1.1 mm between both images, and the mask belongs to the first ...
    "MT-off": ("testing/mt/mt0", "testing/mt/mt1_seg"),
    # ... so the image is scored as well after the Spinal Cord Toolbox moved it onto the first.
    "MT-off moved": ("sct-reference/mt_testing/mt0_reg", "testing/mt/mt1_seg"),
    "sub-05 MT-on": ("tutorial/sub-05/sub-05_acq-MTon_MTS", "tutorial/sub-05/sub-05_acq-MTon_MTS_seg"),
    "sub-05 MT-off": ("tutorial/sub-05/sub-05_acq-MToff_MTS", "tutorial/sub-05/sub-05_acq-MTon_MTS_seg"),
}


@dataclass(frozen=True)
class Score:
    dice: float
    worst_dice: float
    centre_mean_mm: float
    centre_max_mm: float
    area_given_mm2: float
    area_mm2: float
    seconds: float
    flagged: int

    @property
    def area_bias(self) -> float:
        return self.area_mm2 / self.area_given_mm2 - 1.0


def score(folder: Path, name: str, settings: SegmentationSettings | None = None) -> Score:
    image, mask = (read_volume(folder / f"{part}.nii.gz") for part in IMAGES[name])
    start = time.process_time()
    found = segment_cord(image, settings=settings)
    seconds = time.process_time() - start
    axis = found.slice_axis
    given = np.moveaxis(mask.data > 0.5, axis, 2)
    ours = np.moveaxis(found.mask, axis, 2)
    marked = given.any(axis=(0, 1))
    given, ours = given[:, :, marked], ours[:, :, marked]
    hard = ours > 0.5
    both = (given & hard).sum(axis=(0, 1))
    sizes = given.sum(axis=(0, 1)) + hard.sum(axis=(0, 1))
    spacing = [step for k, step in enumerate(image.spacing_mm) if k != axis]
    gaps = [_gap(given[:, :, k], ours[:, :, k], spacing) for k in range(given.shape[2])]
    pixel = spacing[0] * spacing[1]
    return Score(
        dice=float(2 * both.sum() / sizes.sum()),
        worst_dice=float((2 * both / sizes).min()),
        centre_mean_mm=float(np.nanmean(gaps)),
        centre_max_mm=float(np.nanmax(gaps)),
        area_given_mm2=float(given.sum() / given.shape[2] * pixel),
        area_mm2=float(ours.sum() / given.shape[2] * pixel),
        seconds=seconds,
        flagged=sum(bool(flags) for flags in found.flags),
    )


def _gap(given: np.ndarray, ours: np.ndarray, spacing: list[float]) -> float:
    if not ours.any():
        return float("nan")
    grid = np.indices(given.shape).reshape(2, -1) * np.array(spacing)[:, None]
    a, b = (np.average(grid, axis=1, weights=m.ravel().astype(float)) for m in (given, ours))
    return float(np.hypot(*(a - b)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    options = parser.parse_args()
    print(
        f"{'image':15s} {'Dice':>6s} {'worst':>6s} {'centre mm mean/max':>19s} {'area given':>10s} {'ours':>6s} {'bias':>7s} {'CPU s':>6s} {'flagged':>7s}"
    )
    for name in IMAGES:
        s = score(options.data / "cord", name)
        print(
            f"{name:15s} {s.dice:6.3f} {s.worst_dice:6.3f} {s.centre_mean_mm:11.2f}/{s.centre_max_mm:4.2f}    "
            f"{s.area_given_mm2:10.1f} {s.area_mm2:6.1f} {s.area_bias:+7.1%} {s.seconds:6.2f} {s.flagged:7d}"
        )


if __name__ == "__main__":
    main()
