"""Locate and label every real series under rotation, mirror and shift; print what became of each.

Usage: ``python benchmarks/locate_transforms.py [DATA] [N_RANDOM]`` where DATA holds ``phantom/T1`` and
``phantom/T2``, and N_RANDOM random moves with added noise (SNR 20 to 100) are tried on each series.

The truth is the untransformed location (there is no manual truth), so this measures consistency; the
untransformed labels were checked by eye.  A result is right if every sphere lies within 3 mm of where
the transform carries it, labels included.  Two more tables follow: the right labels against the
reference of the other plate, and how often values drawn at random are labelled at all.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from locate_helpers import REFERENCE_MS, SYSTEM, log_reference, real_series, transform  # noqa: E402

from cordqa.errors import LocateError  # noqa: E402
from cordqa.phantom.label import choose_labels  # noqa: E402
from cordqa.phantom.locate import locate_plate  # noqa: E402
from cordqa.phantom.pose import find_symmetries  # noqa: E402

TRANSFORMS = {
    **{f"{angle}": {"rotation_deg": float(angle)} for angle in (0, 15, 30, 45, 90, 137, 180, 270)},
    "mirror": {"mirrored": True},
    "mirror+20": {"mirrored": True, "rotation_deg": 20.0},
    "shift+": {"shift": (0.1, 0.1)},
    "shift-": {"shift": (-0.1, 0.1)},
    "shift+33": {"shift": (0.1, -0.1), "rotation_deg": 33.0},
}


def attempt(series, images):
    """Locate and label; return the location, the choice and the seconds that locating took."""
    start = time.process_time()
    location = locate_plate(images, series.spacing_mm, SYSTEM)
    seconds = time.process_time() - start
    moved = type(series)(**{**vars(series), "images": images})
    values = moved.times(location.candidates[0].centres)
    return location, choose_labels(values[location.orders], log_reference(series)), seconds


def judge(series, truth, move, noise=None):
    """Return the outcome, the numbers behind it (or the reason of a refusal), and the seconds."""
    images, carry = transform(series.images, series.spacing_mm, **move)
    if noise is not None:
        snr, rng = noise
        images = np.abs(images + rng.normal(0, np.percentile(images, 99.5) / snr, images.shape))
    try:
        location, choice, seconds = attempt(series, images)
    except LocateError as error:
        return "refused", str(error), np.nan
    centres = location.candidates[choice.index].centres
    distance = np.linalg.norm((centres - carry(truth)) * np.array(series.spacing_mm), axis=1).max()
    numbers = (distance, location.residual_mm, location.score, choice.score, choice.margin)
    return ("right" if distance <= 3 else "WRONG"), numbers, seconds


class Tally:
    """Counts, worst values and reasons over many attempts."""

    def __init__(self):
        self.counts, self.numbers, self.seconds, self.notes = Counter(), [], [], []

    def add(self, name, outcome, detail, seconds):
        self.counts[outcome] += 1
        if isinstance(detail, str):
            self.notes.append(f"  {name}: {detail}")
        else:
            self.numbers.append(detail)
            self.seconds.append(seconds)

    def __str__(self):
        words = ", ".join(f"{n} {outcome}" for outcome, n in self.counts.items())
        if not self.numbers:
            return words
        table = np.array(self.numbers)
        worst = [*table[:, :2].max(axis=0), *table[:, 2:].min(axis=0)]
        return words + (
            "; worst: {:.2f} mm from truth, residual {:.2f} mm, evidence {:.2f}, label score {:.2f}, "
            "margin {:.2f}".format(*worst)
        )


def fixed_moves(all_series, truths):
    print("series".ljust(26), *(name.rjust(9) for name in TRANSFORMS))
    total = Tally()
    for series in all_series:
        own, row = Tally(), []
        for name, move in TRANSFORMS.items():
            result = judge(series, truths[series.name], move)
            row.append(result[0])
            own.add(f"{series.name} {name}", *result)
            total.add(f"{series.name} {name}", *result)
        print(series.name.ljust(26), *(word.rjust(9) for word in row))
        print("".ljust(26), own)
    print(*total.notes, sep="\n")
    print(f"fixed moves: {total}")
    print(f"locate_plate, CPU: median {np.median(total.seconds):.3f} s, worst {max(total.seconds):.3f} s\n")


def random_moves(all_series, truths, n):
    rng = np.random.default_rng(0)
    total = Tally()
    for series in all_series:
        own = Tally()
        for k in range(n):
            move = {
                "rotation_deg": rng.uniform(0, 360),
                "mirrored": bool(rng.integers(2)),
                "shift": tuple(rng.uniform(-0.1, 0.1, 2)),
            }
            result = judge(series, truths[series.name], move, (np.exp(rng.uniform(3, 4.6)), rng))
            own.add(f"{series.name} {k}", *result)
            total.add(f"{series.name} {k}", *result)
        print(series.name.ljust(26), own)
    print(*total.notes, sep="\n")
    print(f"random moves with noise: {total}\n")


def other_references(all_series):
    print("label score / margin of the untransformed series against each reference")
    columns = [f"{array} {field}" for array in ("NiCl2", "MnCl2") for field in ("1.5", "3.0")]
    print("series".ljust(26), *(c.rjust(13) for c in columns))
    for series in all_series:
        location = locate_plate(series.images, series.spacing_mm, SYSTEM)
        values = series.times(location.candidates[0].centres)[location.orders]
        cells = []
        for column in columns:
            reference = np.log(REFERENCE_MS[f"{series.quantity} {column}"])
            choice = choose_labels(values, reference, minimum_margin=-1, minimum_score=-1)
            cells.append(f"{choice.score:.2f} / {choice.margin:.2f}")
        print(series.name.ljust(26), *(cell.rjust(13) for cell in cells))


def chance(n=4000):
    """Label values of which only some are right; the others are drawn at random or missing."""
    rng = np.random.default_rng(1)
    orders = np.array([order for _, order in find_symmetries(SYSTEM.positions_mm, SYSTEM.kinds)])
    print(f"\nlabels from partly random values ({n} plates each; right values with 10 % error), percent")
    print("spheres with right value:".ljust(34), *(f"{k}".rjust(20) for k in (0, 4, 6, 8, 10)))
    for table in ("T1 NiCl2 1.5", "T1 MnCl2 1.5", "T2 MnCl2 3.0"):
        reference = np.log(REFERENCE_MS[table])
        for others in ("random", "missing"):
            cells = []
            for n_right in (0, 4, 6, 8, 10):
                counts = Counter()
                for _ in range(n):
                    counts[_draw(rng, orders, reference, n_right, others)] += 100 / n
                cells.append(" ".join(f"{w}:{counts[w]:.3g}" for w in ("right", "WRONG")))
            print(f"{table}, others {others}".ljust(34), *(cell.rjust(20) for cell in cells))


def _draw(rng, orders, reference, n_right, others):
    size = len(reference)
    values = rng.uniform(np.log(8), np.log(4000), size) if others == "random" else np.full(size, np.nan)
    right = rng.permutation(size)[:n_right]
    values[right] = reference[right] + rng.normal(0, 0.1, n_right)
    true = int(rng.integers(len(orders)))
    measured = np.empty(size)
    measured[orders[true]] = values
    try:
        return "right" if choose_labels(measured[orders], reference).index == true else "WRONG"
    except LocateError:
        return "refused"


def main(data, n_random):
    all_series = real_series(data)
    if not all_series:
        sys.exit(f"no phantom series below {data}: give the folder that holds phantom/T1 and phantom/T2")
    truths = {}
    for series in all_series:
        location, choice, _ = attempt(series, series.images)
        truths[series.name] = location.candidates[choice.index].centres
    fixed_moves(all_series, truths)
    random_moves(all_series, truths, n_random)
    other_references(all_series)
    chance()


if __name__ == "__main__":
    main(
        Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent / "shared" / "data",
        int(sys.argv[2]) if len(sys.argv) > 2 else 40,
    )
