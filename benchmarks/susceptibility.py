"""Scores of susceptibility mapping: shared data with known truth, and own phantoms of other seeds.

Scores are detrended errors in percent of the whole mask, nothing eroded away unless the kept part
says so.  Nothing is tuned here: defaults come from phantoms of seeds 11 to 13, 21 and 22.

    python benchmarks/susceptibility.py [--shared FOLDER] [--quick]
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cordqa.models.susceptibility.field import fit_field
from cordqa.models.susceptibility.inversion_recovery import contrast_recovery
from cordqa.models.susceptibility.total_field import ChainSettings, Reconstruction, reconstruct
from cordqa.models.susceptibility.unwrap import unwrap_echoes
from cordqa.simulate.susceptibility import SusceptibilityScanner, simulate_brain, simulate_cord

GOALS = {
    "brain": {
        "wraps": 0.06,
        "field": 3.8,
        "background": 45,
        "inversion": 13,
        "noisy": 50,
        "whole": 66,
        "cpu": 15,
    },
    "cord": {
        "wraps": 0.0,
        "field": 2.3,
        "background": 20,
        "inversion": 18,
        "noisy": 46,
        "whole": 46,
        "cpu": 3,
    },
}


@dataclass
class Case:
    name: str
    kind: str
    magnitude: np.ndarray
    phase: np.ndarray
    mask: np.ndarray
    times: np.ndarray
    voxel: np.ndarray
    direction: np.ndarray
    strength: float
    chi: np.ndarray
    local: np.ndarray
    total: np.ndarray
    label: np.ndarray | None = None


def detrended_error(found: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    r, t = found[mask] - found[mask].mean(), truth[mask] - truth[mask].mean()
    slope = (r @ t) / (t @ t)
    return float(100 * np.linalg.norm(r / slope - t) / np.linalg.norm(t))


def shared_case(folder: Path, kind: str) -> Case:
    import nibabel as nib

    def read(name: str) -> np.ndarray:
        return np.asarray(nib.load(folder / "qsm" / kind / f"{name}.nii.gz").dataobj, dtype=float)

    p = json.loads((folder / "qsm" / kind / "params.json").read_text())
    return Case(
        f"shared {kind}", kind, read("magnitude"), read("phase"), read("mask") > 0, np.array(p["TE"]),
        np.array(p["voxel_size"]), np.array(p["B0_dir"]), p["B0"], read("gt_chi"), read("gt_localfield"),
        read("gt_totalfield"),
    )  # fmt: skip


def own_case(kind: str, seed: int, **scanner: object) -> Case:
    if kind == "brain":
        setup = replace(SusceptibilityScanner(), **scanner)
        s = simulate_brain(seed=seed, shape=(80, 84, 72), voxel_size_mm=(2.0, 2.0, 2.0), scanner=setup)
    else:
        s = simulate_cord(seed=seed)
    return Case(
        f"own {kind} {seed}", kind, s.magnitude.astype(float), s.phase.astype(float), s.mask,
        np.array(s.scanner.echo_times_s), s.voxel_size_mm, np.array(s.scanner.b0_direction),
        s.scanner.field_strength_t, s.chi_ppm, s.local_field_ppm, s.total_field_ppm, s.label,
    )  # fmt: skip


def wrong_wraps(case: Case, unwrapped: np.ndarray) -> float:
    hz = 42.577478518 * case.strength
    rest = unwrapped - 2 * np.pi * hz * case.total[case.mask][:, None] * case.times
    rest -= np.angle(np.exp(1j * rest).mean(1))[:, None]
    turns = np.round(rest / (2 * np.pi))
    turns -= np.median(turns, axis=0)
    return float(100 * np.mean(turns[:, -1] != 0))


def grey_white(case: Case, found: Reconstruction) -> tuple[float, float]:
    """Part of the contrast of grey and white matter that is found, and what the map says of it."""
    if case.label is None:
        return np.nan, np.nan
    grey, white = (found.valid & (case.label == n) for n in (7, 8))

    def contrast(chi: np.ndarray) -> float:
        return float(chi[white].mean() - chi[grey].mean())

    return contrast(found.chi_ppm) / contrast(case.chi), contrast_recovery(found, white, grey)


def measure(case: Case) -> dict[str, float]:
    """Every stage on its own, then the whole."""
    mask, row = case.mask, {}
    start = time.process_time()
    unwrapped = unwrap_echoes(case.phase, case.magnitude, case.times, mask)
    fit = fit_field(
        unwrapped,
        case.magnitude[mask],
        case.times,
        mask,
        field_strength_t=case.strength,
        voxel_size_mm=case.voxel,
    )
    total, error = np.full(mask.shape, np.nan), np.full(mask.shape, np.nan)
    total[mask], error[mask] = fit.field_ppm, fit.standard_error_ppm
    geometry = {"voxel_size_mm": case.voxel, "b0_direction": case.direction}
    middle = time.process_time()
    reconstruct(total, error, mask, **geometry)
    row["cpu"] = time.process_time() - start
    again = time.process_time()
    reconstruct(total, error, mask, settings=ChainSettings(probes=6, replica=False), **geometry)
    row["with se"] = middle - start + time.process_time() - again
    whole = reconstruct(total, error, mask, settings=ChainSettings(replica=True), **geometry)
    row["wraps"] = wrong_wraps(case, unwrapped)
    truth = case.total[mask]
    row["field"] = float(100 * np.linalg.norm(fit.field_ppm - truth) / np.linalg.norm(truth))
    row["whole"] = detrended_error(whole.chi_ppm, case.chi, whole.valid)
    row["contrast"], row["told"] = grey_white(case, whole)
    row["local"] = detrended_error(whole.local_field_ppm, case.local, whole.valid)
    row["kept"] = whole.kept_fraction
    row["rounds"] = whole.rounds
    exact = np.full(mask.shape, 1e-9)
    clean = reconstruct(np.where(mask, case.total, 0), exact, mask, **geometry)
    row["background"] = detrended_error(clean.local_field_ppm, case.local, clean.valid)
    local_only = ChainSettings(background="none")
    found = reconstruct(np.where(mask, case.local, 0), exact, mask, settings=local_only, **geometry)
    row["inversion"] = detrended_error(found.chi_ppm, case.chi, found.valid)
    noise = np.random.default_rng(0).standard_normal(mask.shape) * np.nan_to_num(error)
    noisy = reconstruct(np.where(mask, case.local + noise, 0), error, mask, settings=local_only, **geometry)
    row["noisy"] = detrended_error(noisy.chi_ppm, case.chi, noisy.valid)
    return row


def compare(case: Case) -> None:
    """Every background removal and every inversion on one case, from the true total and local field."""
    mask, exact = case.mask, np.full(case.mask.shape, 1e-9)
    geometry = {"voxel_size_mm": case.voxel, "b0_direction": case.direction}
    noise = 0.002 * np.random.default_rng(0).standard_normal(mask.shape)
    for background in ("pdf", "lbv", "v-sharp", "resharp", "ismv"):
        start = time.process_time()
        r = reconstruct(
            np.where(mask, case.total, 0),
            exact,
            mask,
            settings=ChainSettings(background=background),
            **geometry,
        )
        print(f"  {background:<14} local {detrended_error(r.local_field_ppm, case.local, r.valid):6.1f}"
              f"  chi {detrended_error(r.chi_ppm, case.chi, r.valid):6.1f}  kept {r.kept_fraction:.2f}"
              f"  {time.process_time() - start:.1f} s")  # fmt: skip
    for inversion in ("tv", "nonlinear-tv", "rts", "l2", "tkd"):
        scores = []
        for extra, error in ((0, exact), (noise, np.full(mask.shape, 0.002))):
            settings = ChainSettings(
                background="none", inversion=inversion,
                radians_per_ppm=2 * np.pi * 42.577 * case.strength * float(case.times.mean()),
            )  # fmt: skip
            r = reconstruct(np.where(mask, case.local + extra, 0), error, mask, settings=settings, **geometry)
            scores.append((detrended_error(r.chi_ppm, case.chi, r.valid), r.streak))
        print(f"  {inversion:<14} chi from the true local field {scores[0][0]:5.1f} (streaks {scores[0][1]:.2f}), "
              f"noise of 0.002 ppm {scores[1][0]:5.1f} (streaks {scores[1][1]:.2f})")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data"
    )
    parser.add_argument("--quick", action="store_true", help="shared data only")
    options = parser.parse_args()
    cases = []
    if (options.shared / "qsm").is_dir():
        cases += [shared_case(options.shared, kind) for kind in ("cord", "brain")]
    else:
        print("the shared data folder is absent: own phantoms only")
    if not options.quick:
        cases += [own_case(kind, seed) for kind in ("cord", "brain") for seed in (101, 102)]
    columns = (
        "wraps",
        "field",
        "background",
        "inversion",
        "noisy",
        "whole",
        "local",
        "kept",
        "contrast",
        "told",
        "rounds",
        "cpu",
        "with se",
    )
    print(f"{'case':<16}" + "".join(f"{c:>11}" for c in columns))
    for kind, goal in GOALS.items():
        print(f"{'goal ' + kind:<16}" + "".join(f"{goal.get(c, ''):>11}" for c in columns))
    for case in cases:
        row = measure(case)
        print(f"{case.name:<16}" + "".join(f"{row[c]:>11.3g}" for c in columns), flush=True)
    if options.quick:
        return
    print("\noblique main field, own brain 101, phase to susceptibility (tilt in degrees: error)")
    for tilt in (0, 10, 20, 30):
        angle = np.deg2rad(tilt)
        direction = (float(np.sin(angle) * 0.6), float(np.sin(angle) * 0.8), float(np.cos(angle)))
        row = measure(own_case("brain", 101, b0_direction=direction))
        print(
            f"  {tilt:>2}: whole {row['whole']:.1f}, inversion {row['inversion']:.1f}, noisy {row['noisy']:.1f}"
        )
    for case in cases[:1] + cases[-1:]:
        print(f"\nmethods on {case.name}, from the true field")
        compare(case)


if __name__ == "__main__":
    main()
