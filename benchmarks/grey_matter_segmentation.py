"""How well grey matter is found within the cord: a real image with a mask by hand, and simulated truth.

Run ``python benchmarks/grey_matter_segmentation.py DATA`` where DATA holds ``cord/testing`` and
``cord/sct-reference``.  Prints Dice and area bias on the T2*-weighted image, inside the given cord
mask and inside the built-in one; on other real images what was found or why it was refused; and Dice
and area bias on simulated images of several contrasts, noise levels and voxel sizes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from cordqa.cord.grey_matter import GreyMatter, GreyMatterNotSeenError, segment_grey_matter
from cordqa.cord.segment import segment_cord
from cordqa.io.volumes import read_volume
from cordqa.records import Volume
from cordqa.simulate.cord.grey_volume import simulate_grey_volume

#: Real images without a mask of grey matter.
OTHERS = (
    "testing/mt/mt1",
    "testing/mt/mt0",
    "testing/t2/t2",
    "tutorial/mt/mt1",
    "tutorial/mt/mt0",
    "tutorial/sub-05/sub-05_acq-MTon_MTS",
    "tutorial/sub-05/sub-05_acq-MToff_MTS",
)
#: Contrast, noise, parts of 0.175 mm per voxel.
SIMULATED = (
    (0.18, 0.05, 3),
    (0.18, 0.09, 3),
    (0.10, 0.05, 3),
    (-0.18, 0.05, 3),
    (0.18, 0.05, 4),
    (0.18, 0.03, 6),
)


def dice(found: np.ndarray, given: np.ndarray) -> float:
    a, b = found > 0.5, given > 0.5
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def real(folder: Path) -> dict[str, tuple[float, float, GreyMatter]]:
    """Return Dice, bias of the area and the result, inside the given and the built-in cord mask."""
    image = read_volume(folder / "testing/t2s/t2s.nii.gz")
    given = read_volume(folder / "testing/t2s/t2s_gmseg_manual.nii.gz").data
    masks = {
        "given cord mask": read_volume(folder / "testing/t2s/t2s_seg.nii.gz"),
        "built-in cord mask": Volume(data=segment_cord(image).mask, affine=image.affine),
    }
    out = {}
    for name, mask in masks.items():
        found = segment_grey_matter(image, mask)
        bias = float(found.mask.sum() / (given > 0.5).sum()) - 1.0
        out[name] = (dice(found.mask, given), bias, found)
    return out


def simulated(contrast: float, noise: float, parts: int, *, people: int = 8) -> tuple[float, float, int]:
    """Return Dice, bias of the total area, and how many of 8 slices per image gave no value."""
    scores, found_mm2, true_mm2, lost = [], 0.0, 0.0, 0
    for seed in range(people):
        scan = simulate_grey_volume(1000 + seed, contrast=contrast, noise=noise, parts=parts)
        found = segment_grey_matter(scan.image, scan.cord)
        used = np.isfinite(found.area_mm2)
        scores.append(dice(found.mask[:, :, used], scan.grey.data[:, :, used]))
        found_mm2 += float(found.area_mm2[used].sum())
        true_mm2 += float(scan.grey.data[:, :, used].sum()) * (parts * 0.175) ** 2
        lost += int((~used).sum())
    return float(np.mean(scores)), found_mm2 / true_mm2 - 1.0, lost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    folder = parser.parse_args().data / "cord"
    for name, (score, bias, found) in real(folder).items():
        print(
            f"T2*w, {name:18s} Dice {score:.3f}, area {bias:+.1%}, slices {np.isfinite(found.area_mm2).sum()}/9"
        )
    atlas, hand = (
        read_volume(folder / f"sct-reference/t2s_gm/t2s_uncropped_gmseg{part}.nii.gz").data
        for part in ("", "_manual")
    )
    print(f"T2*w, stand-in for the toolbox's network: Dice {dice(atlas, hand):.3f}")
    for name in OTHERS:
        image = read_volume(folder / f"{name}.nii.gz")
        try:
            found = segment_grey_matter(image, Volume(data=segment_cord(image).mask, affine=image.affine))
        except GreyMatterNotSeenError as error:
            print(f"{name:40s} refused: {error}")
            continue
        known = np.isfinite(found.area_mm2)
        print(
            f"{name:40s} {known.sum()}/{known.size} slices, {np.mean(found.area_mm2[known]):.1f} mm2, "
            f"{np.mean(found.share[known]):.1%} of the section, confidence {np.mean(found.confidence[known]):.2f}"
        )
    print("\nsimulated: contrast, noise, voxel: Dice, area, slices without value")
    for contrast, noise, parts in SIMULATED:
        score, bias, lost = simulated(contrast, noise, parts)
        print(f"{contrast:+.2f} {noise:.2f} {parts * 0.175:.3f} mm: {score:.3f} {bias:+6.1%} {lost}/64")


if __name__ == "__main__":
    main()
