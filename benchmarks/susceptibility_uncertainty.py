"""Standard errors of susceptibility mapping against the scatter of repeats, on own phantoms.

Each phantom is scanned again and again with new noise and taken through the whole chain from phase to
susceptibility.  A ratio is the reported standard error over the standard deviation of the repeats, both
as root mean squares: 1 is right, 2 is twice too wide.  Regions are the tissues of the phantom, whole and
by thirds along z; contrasts are their differences.  With 16 repeats a ratio of one region is itself
known to about 18 %, and that of all of a phantom, which share much of their noise, to about 10 %.

    python benchmarks/susceptibility_uncertainty.py [--repeats 16] [--quick] [--seeds 201,202]
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from cordqa.models.susceptibility.pipeline import MappingSettings, Scan, map_susceptibility
from cordqa.models.susceptibility.total_field import ChainSettings
from cordqa.simulate.susceptibility import (
    SusceptibilityScan,
    SusceptibilityScanner,
    simulate_brain,
    simulate_cord,
)

SNR = {"brain": 50.0, "cord": 35.0}
LEAST_VOXELS = 40
COLUMNS = ("field", "chi", "chi med", "whole", "thirds", "contrasts", "loc reg", "R2*", "R2* reg", "cpu s")


@dataclass
class Repeats:
    """Values of the mask, shape (n_repeats, n_voxels), and of the draws one axis more."""

    chi: np.ndarray
    error: np.ndarray
    draws: np.ndarray
    field: np.ndarray
    field_error: np.ndarray
    local: np.ndarray
    rate: np.ndarray
    rate_error: np.ndarray
    cpu: float


def phantom(kind: str, seed: int) -> SusceptibilityScan:
    """Scan without noise."""
    scanner = SusceptibilityScanner(snr=math.inf)
    if kind == "brain":
        return simulate_brain(seed=seed, scanner=scanner)
    tilted = replace(
        scanner, echo_times_s=(0.0035, 0.007, 0.0105, 0.014, 0.0175), b0_direction=(0.0, 0.34, 0.94)
    )
    return simulate_cord(seed=seed, scanner=tilted)


def noisy(clean: SusceptibilityScan, snr: float, seed: int) -> Scan:
    rng = np.random.default_rng(seed)
    signal = clean.magnitude * np.exp(1j * clean.phase)
    signal = signal + (rng.standard_normal(signal.shape) + 1j * rng.standard_normal(signal.shape)) / snr
    return Scan(
        phase=np.angle(signal).astype(np.float32),
        magnitude=np.abs(signal).astype(np.float32),
        echo_times_s=clean.scanner.echo_times_s,
        affine=np.diag([*clean.voxel_size_mm, 1.0]),
        field_strength_t=clean.scanner.field_strength_t,
        b0_direction=clean.scanner.b0_direction,
    )


def repeat(clean: SusceptibilityScan, snr: float, n: int, chain: ChainSettings) -> Repeats:
    found, inside, used = [], clean.mask, []
    for number in range(n):
        scan = noisy(clean, snr, 5000 + number)
        start = time.process_time()
        settings = MappingSettings(chain=replace(chain, seed=number))
        result = map_susceptibility(scan, mask=inside, settings=settings).maps
        used.append(time.process_time() - start)
        value, error = result.values, result.standard_errors
        assert result.attached is not None
        found.append(
            (
                value["susceptibility"][inside],
                error["susceptibility"][inside],
                result.attached.draws["susceptibility"][:, inside],
                value["total_field"][inside],
                error["total_field"][inside],
                value["local_field"][inside],
                value["R2star"][inside],
                error["R2star"][inside],
            )
        )
    return Repeats(*(np.stack(part) for part in zip(*found, strict=True)), cpu=min(used))


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.nanmean(np.square(values))))


def regions(clean: SusceptibilityScan, good: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Tissues, whole (third ``-``) and by thirds, as voxels of the mask."""
    label = clean.label[clean.mask]
    height = np.argwhere(clean.mask)[:, 2]
    third = np.minimum(3 * (height - height.min()) // (np.ptp(height) + 1), 2)
    for tissue in np.unique(label):
        for part in ("-", 0, 1, 2):
            where = good & (label == tissue) & ((third == part) | (part == "-"))
            if where.sum() >= LEAST_VOXELS:
                yield str(part), where


def ratio(pairs: list[tuple[float, float]]) -> float:
    reported, actual = np.array(pairs).T
    return rms(reported) / rms(actual)


def of_mean(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    return values[..., where].mean(axis=-1, dtype=float)


def compare(clean: SusceptibilityScan, r: Repeats, detail: Callable[[str], None]) -> dict[str, float]:
    good = np.isfinite(r.chi).all(0) & np.isfinite(r.field).all(0) & np.isfinite(r.rate).all(0)
    scatter = r.chi[:, good].std(0, ddof=1)
    row = {
        "field": rms(r.field_error[:, good]) / rms(r.field[:, good].std(0, ddof=1)),
        "chi": rms(r.error[:, good]) / rms(scatter),
        "chi med": float(np.median(r.error[:, good].mean(0) / scatter)),
        "R2*": rms(r.rate_error[:, good]) / rms(r.rate[:, good].std(0, ddof=1)),
        "cpu s": r.cpu,
    }
    parts = list(regions(clean, good))
    pairs: dict[str, list[tuple[float, float]]] = {}
    for part, where in parts:
        reported, actual = rms(of_mean(r.draws, where)), float(of_mean(r.chi, where).std(ddof=1))
        pairs.setdefault("whole" if part == "-" else "thirds", []).append((reported, actual))
        detail(
            f"    tissue {np.unique(clean.label[clean.mask][where])[0]:>2} third {part}: {where.sum():6d} voxels, "
            f"scatter {1e3 * actual:6.3f} ppb, reported {1e3 * reported:6.3f}, ratio {reported / actual:.2f}"
        )
        for name, values, error in (
            ("loc reg", r.local, r.field_error),
            ("R2* reg", r.rate, r.rate_error),
        ):
            alone = rms(np.sqrt((error[:, where] ** 2).sum(1)) / where.sum())
            pairs.setdefault(name, []).append((alone, float(of_mean(values, where).std(ddof=1))))
    for (first_part, first), (second_part, second) in combinations(parts, 2):
        if first_part == second_part:
            drawn = of_mean(r.draws, first) - of_mean(r.draws, second)
            actual = float((of_mean(r.chi, first) - of_mean(r.chi, second)).std(ddof=1))
            pairs.setdefault("contrasts", []).append((rms(drawn), actual))
    return row | {name: ratio(found) for name, found in pairs.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=16)
    parser.add_argument("--probes", type=int, default=6)
    parser.add_argument("--seeds", default="201,202", help="of phantoms that decided nothing")
    parser.add_argument("--quick", action="store_true", help="one cord and one brain, 8 repeats, no others")
    parser.add_argument("--detail", action="store_true", help="every region")
    options = parser.parse_args()
    seeds = [int(part) for part in options.seeds.split(",")]
    n = 8 if options.quick else options.repeats
    cases = [(kind, seed, "tv") for kind in SNR for seed in (seeds[:1] if options.quick else seeds)]
    if not options.quick:
        cases += [(kind, seeds[0], inversion) for kind in SNR for inversion in ("nonlinear-tv", "l2", "tkd")]
    print(f"reported standard error over scatter of {n} repeats, {options.probes} realisations each")
    print(f"{'phantom':<24}" + "".join(f"{name:>10}" for name in COLUMNS))
    for kind, seed, inversion in cases:
        clean = phantom(kind, seed)
        chain = ChainSettings(probes=options.probes, inversion=inversion)
        found = repeat(clean, SNR[kind], n, chain)
        lines: list[str] = []
        row = compare(clean, found, lines.append)
        print(
            f"{f'{kind} {seed} {inversion}':<24}" + "".join(f"{row[name]:>10.2f}" for name in COLUMNS),
            flush=True,
        )
        if options.detail:
            print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
