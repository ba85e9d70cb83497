"""How well the built-in engine segments the cord: real images with given masks, and simulated truth.

Run ``python benchmarks/cord_segmentation.py DATA`` where DATA holds ``cord/testing``,
``cord/tutorial`` and ``cord/sct-reference``.  Prints, per image: Dice of the mask at one half,
centreline error, area bias, slices found and CPU time on one thread; what a perfect mask of the
MT-off image could reach against the mask of MT-on; and, on simulated people and scanners, the bias
of areas against the truth, for both conventions of where the boundary lies.  Only slices on which
the given mask marks something are scored.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cordqa.cord.segment import SegmentationSettings, segment_cord
from cordqa.io.volumes import read_volume
from cordqa.records import Volume
from cordqa.simulate import cord_study as study
from cordqa.simulate.cord import people

_DIFFUSION = "sct-reference/dmri_tutorial"
IMAGES = {
    "T2w": ("testing/t2/t2", "testing/t2/t2_seg-manual"),
    "T2*w": ("testing/t2s/t2s", "testing/t2s/t2s_seg"),
    "MT-on": ("testing/mt/mt1", "testing/mt/mt1_seg"),
    # The person moved by about 1.1 mm between both images, and the mask belongs to the first ...
    "MT-off": ("testing/mt/mt0", "testing/mt/mt1_seg"),
    # ... so the image is scored as well after the Spinal Cord Toolbox moved it onto the first.
    "MT-off moved": ("sct-reference/mt_testing/mt0_reg", "testing/mt/mt1_seg"),
    "sub-05 MT-on": ("tutorial/sub-05/sub-05_acq-MTon_MTS", "tutorial/sub-05/sub-05_acq-MTon_MTS_seg"),
    # Masks of the Spinal Cord Toolbox (propseg on the mean diffusion-weighted image), not by hand.
    "mean DWI": (f"{_DIFFUSION}/dmri_moco_dwi_mean", f"{_DIFFUSION}/dmri_moco_dwi_mean_seg"),
    "mean b=0": (f"{_DIFFUSION}/dmri_moco_b0_mean", f"{_DIFFUSION}/dmri_moco_dwi_mean_seg"),
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
    found: int
    slices: int

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
        found=int(np.isfinite(found.edge_area_mm2).sum()),
        slices=int(found.edge_area_mm2.size),
    )


def _gap(given: np.ndarray, ours: np.ndarray, spacing: list[float]) -> float:
    if not ours.any():
        return float("nan")
    grid = np.indices(given.shape).reshape(2, -1) * np.array(spacing)[:, None]
    a, b = (np.average(grid, axis=1, weights=m.ravel().astype(float)) for m in (given, ours))
    return float(np.hypot(*(a - b)))


def ceiling(folder: Path) -> float:
    """Dice of the MT-on mask with itself, moved as the Spinal Cord Toolbox moved MT-off onto MT-on.

    Someone who outlined the cord in MT-off as that mask outlines it in MT-on would score this.
    """
    from scipy.ndimage import shift

    mask = read_volume(folder / "testing/mt/mt1_seg.nii.gz")
    field = np.squeeze(read_volume(folder / "sct-reference/mt_testing/warp_mt02mt1.nii.gz").data)
    given = mask.data > 0.5
    moved = np.zeros(given.shape, dtype=bool)
    for k in range(given.shape[2]):
        # The displacement is the same all over a slice; Dice does not depend on its sign.
        step = field[given[:, :, k], k, :2].mean(axis=0) / np.array(mask.spacing_mm[:2])
        moved[:, :, k] = shift(given[:, :, k].astype(float), step, order=1) > 0.5
    return float(2 * (given & moved).sum() / (given.sum() + moved.sum()))


def simulated_bias(people: int) -> dict[str, list[tuple[float, float]]]:
    """Return relative errors of areas (at the edge, customary) per contrast, one pair per image."""
    out: dict[str, list[tuple[float, float]]] = {}
    for visit in study.simulate_study(n_people=people, n_repeats=1):
        for scan in visit.scans:
            if scan.gradients is not None:
                continue
            found = segment_cord(scan.volume)
            slices = visit_areas(visit, scan.volume)
            pixel = scan.volume.spacing_mm[0] * scan.volume.spacing_mm[1]
            drawn = found.mask.sum(axis=(0, 1)) * pixel
            used = np.isfinite(found.edge_area_mm2)
            pair = (values[used] / slices[used] for values in (found.edge_area_mm2, drawn))
            edge, customary = (float(np.mean(ratio)) - 1.0 for ratio in pair)
            name = scan.suffix
            if name == "MTS":
                name = {("1", "on"): "MT-on", ("1", "off"): "MT-off"}.get(
                    (scan.entities["flip"], scan.entities["mt"]), "MT T1w"
                )
            out.setdefault(f"{visit.scanner.vendor} {name}", []).append((edge, customary))
    return out


def visit_areas(visit: study.CordVisit, image: Volume) -> np.ndarray:
    """True area of the cord in the plane of every slice.

    How far the person lies up or down this time is not part of the truth: up to a few millimetres,
    over which areas change by less than one percent.
    """
    person = visit.person
    height = image.affine[2, 3] + image.affine[2, 2] * np.arange(image.data.shape[2])
    _, _, right, front = people.cord_centre(person, height)
    along = people.along_cord(person, people.PROFILE, height)
    return person.area_mm2 * along * np.hypot(1.0, right) * np.hypot(1.0, front)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--people", type=int, default=2, help="simulated people per scanner")
    options = parser.parse_args()
    print(
        f"{'image':15s} {'Dice':>6s} {'worst':>6s} {'centre mm mean/max':>19s} {'area given':>10s} {'ours':>6s} "
        f"{'bias':>7s} {'found':>7s} {'CPU s':>6s} {'flagged':>7s}"
    )
    for name in IMAGES:
        s = score(options.data / "cord", name)
        print(
            f"{name:15s} {s.dice:6.3f} {s.worst_dice:6.3f} {s.centre_mean_mm:11.2f}/{s.centre_max_mm:4.2f}    "
            f"{s.area_given_mm2:10.1f} {s.area_mm2:6.1f} {s.area_bias:+7.1%} {s.found:3d}/{s.slices:3d} "
            f"{s.seconds:6.2f} {s.flagged:7d}"
        )
    print(
        f"\nMT-off: the mask of MT-on, moved as the person moved, has Dice {ceiling(options.data / 'cord'):.3f}"
    )
    print("\nArea against simulated truth, mean over people (at the edge, customary):")
    for name, pairs in sorted(simulated_bias(options.people).items()):
        edge, customary = np.mean(pairs, axis=0)
        print(f"{name:20s} {edge:+6.1%} {customary:+6.1%}")


if __name__ == "__main__":
    main()
