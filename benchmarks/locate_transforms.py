"""Locate and label every real series under rotation, mirror and shift; print what became of each.

Usage: ``python benchmarks/locate_transforms.py [DATA]`` where DATA holds ``phantom/T1`` and ``phantom/T2``.
The truth is the untransformed location (there is no manual truth), so this measures consistency; the
untransformed labels were checked by eye.  A pose is right if every sphere lies within 3 mm of where the
transform carries it, labels included.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from locate_helpers import SYSTEM, log_reference, real_series, transform  # noqa: E402

from cordqa.errors import LocateError  # noqa: E402
from cordqa.phantom.label import choose_labels  # noqa: E402
from cordqa.phantom.locate import locate_plate  # noqa: E402

TRANSFORMS = {
    **{f"{angle}": {"rotation_deg": float(angle)} for angle in (0, 15, 30, 45, 90, 137, 180, 270)},
    "mirror": {"mirrored": True},
    "mirror+20": {"mirrored": True, "rotation_deg": 20.0},
    "shift+": {"shift": (0.1, 0.1)},
    "shift-": {"shift": (-0.1, 0.1)},
    "shift+33": {"shift": (0.1, -0.1), "rotation_deg": 33.0},
}


def attempt(series, images):
    """Locate and label; return centres in label order, score and margin."""
    location = locate_plate(images, series.spacing_mm, SYSTEM)
    moved = type(series)(**{**vars(series), "images": images})
    values = moved.times(location.candidates[0].centres)
    choice = choose_labels(values[location.orders], log_reference(series))
    return location, choice


def judge(series, truth, name):
    images, carry = transform(series.images, series.spacing_mm, **TRANSFORMS[name])
    start = time.process_time()
    try:
        location = locate_plate(images, series.spacing_mm, SYSTEM)
    except LocateError as error:
        return "refused", str(error), time.process_time() - start
    seconds = time.process_time() - start
    try:
        location, choice = attempt(series, images)
    except LocateError as error:
        return "refused", str(error), seconds
    centres = location.candidates[choice.index].centres
    distance = np.linalg.norm((centres - carry(truth)) * np.array(series.spacing_mm), axis=1)
    outcome = "right" if distance.max() <= 3 else "WRONG"
    return (
        outcome,
        (distance.max(), location.score, location.residual_mm, choice.score, choice.margin),
        seconds,
    )


def main(data):
    counts, seconds = Counter(), []
    print("series".ljust(28), *(name.rjust(9) for name in TRANSFORMS))
    notes = []
    for series in real_series(data):
        location, choice = attempt(series, series.images)
        truth = location.candidates[choice.index].centres
        row = []
        worst = np.array([0, 1, 0, 1, 1], float)
        for name in TRANSFORMS:
            outcome, detail, cpu = judge(series, truth, name)
            counts[outcome] += 1
            seconds.append(cpu)
            row.append(outcome)
            if isinstance(detail, str):
                notes.append(f"{series.name} {name}: {detail}")
            else:
                pick = np.array([max, min, max, min, min])
                worst = np.array([f(a, b) for f, a, b in zip(pick, worst, detail, strict=True)])
        print(series.name.ljust(28), *(word.rjust(9) for word in row))
        print(
            "".ljust(28),
            "worst: {:.2f} mm from truth, evidence {:.2f}, residual {:.2f} mm, "
            "label score {:.2f}, margin {:.2f}".format(*worst),
        )
    print(*notes, sep="\n")
    print(f"{dict(counts)}; locate_plate CPU s: median {np.median(seconds):.3f}, worst {max(seconds):.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent / "shared" / "data")
