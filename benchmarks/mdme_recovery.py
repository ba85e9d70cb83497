"""Precision of T1, T2, M0 and B1 from multi-dynamic multi-echo, and the time that a volume takes.

Run: python benchmarks/mdme_recovery.py [--snr 100] [--repeats 4000] [--volume]

SNR is M0 of the tissue over the noise of one channel.  SD and SE are in percent of the true value; SE is
what the fit states, and its square is the Cramer-Rao bound where the two agree.  ``lost`` is the share of
voxels that the fit refuses.  ``--volume`` fits 256 x 256 x 30 voxels in the chunks of ``cordqa fit`` and renders
six synthetic contrasts of them, with the CPU time of one thread and the memory at its highest.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cordqa.models.relaxometry.multi_dynamic import (
    MultiDynamicProtocol,
    fit_multi_dynamic,
    multi_dynamic_signal,
)
from cordqa.models.synthetic.contrast import EchoTiming
from cordqa.models.synthetic.images import Contrast, judge_maps, render
from cordqa.workflow.fit.chunks import CHUNK_VOXELS, join_maps

PROTOCOL = MultiDynamicProtocol(
    delays_s=np.repeat([0.17, 0.67, 1.84, 3.84], 2),
    echo_times_s=np.tile([0.0228, 0.1026], 4),
    repetition_time_s=4.0,
)
# T1 and T2 in seconds: tissue of the brain, then what a phantom adds.
TISSUES = {
    "white matter": (0.85, 0.075),
    "deep grey": (1.1, 0.085),
    "cortex": (1.35, 0.095),
    "fluid": (4.0, 2.0),
    "T1 short": (0.25, 0.03),
    "T2 short": (0.9, 0.015),
    "T2 long": (1.5, 1.0),
    "T1 long": (3.0, 0.1),
}
SHAPE = (256, 256, 30)


def noisy(clean: np.ndarray, sd: float, rng: np.random.Generator, *, signed: bool) -> np.ndarray:
    """Add noise to both channels and return what the scanner stores."""
    real = clean + rng.normal(0, sd, clean.shape)
    return real if signed else np.abs(real + 1j * rng.normal(0, sd, clean.shape))


def precision(snr: float, repeats: int) -> None:
    """Print SD, SE and bias by tissue."""
    rng = np.random.default_rng(0)
    names = ("T1", "T2", "M0", "B1")
    print(f"SNR {snr:g}, {repeats} repeats; SD (SE) bias in percent")
    print(f"{'tissue':13s} {'data':9s} " + " ".join(f"{name:^21s}" for name in names) + "  lost %")
    for tissue, (t1, t2) in TISSUES.items():
        truth = {"T1": 1000 * t1, "T2": 1000 * t2, "M0": 1.0, "B1": 1.0}
        clean = np.broadcast_to(multi_dynamic_signal(PROTOCOL, t1, t2), (repeats, 8))
        for signed in (True, False):
            fit = fit_multi_dynamic(
                noisy(clean, 1 / snr, rng, signed=signed), PROTOCOL, signed=signed, noise_sd=1 / snr
            )
            cells = []
            for name in names:
                values, errors = fit.values[name] / truth[name], fit.standard_errors[name] / truth[name]
                stated = np.sqrt(np.nanmean(errors**2))
                cells.append(
                    f"{100 * np.nanstd(values):6.2f} ({100 * stated:6.2f}) {100 * (np.nanmean(values) - 1):+5.2f}"
                )
            lost = 100 * (~fit.reasons.ok).mean()
            print(
                f"{tissue:13s} {'signed' if signed else 'magnitude':9s} " + " ".join(cells) + f"  {lost:5.1f}"
            )


def volume(snr: float) -> None:
    """Fit a volume in chunks, render contrasts, and print CPU time and memory."""
    rng = np.random.default_rng(1)
    count = int(np.prod(SHAPE))
    chosen = np.array(list(TISSUES.values())[:4])[rng.integers(0, 4, count)]
    t1, t2 = (chosen * rng.uniform(0.9, 1.1, chosen.shape)).T
    b1 = rng.uniform(0.85, 1.15, count)
    signal = np.empty((count, 8), dtype=np.float32)
    for first in range(0, count, CHUNK_VOXELS):
        part = slice(first, first + CHUNK_VOXELS)
        clean = multi_dynamic_signal(PROTOCOL, t1[part], t2[part], b1=b1[part])
        signal[part] = noisy(clean, 1 / snr, rng, signed=False)
    start, parts = time.thread_time(), []
    for first in range(0, count, CHUNK_VOXELS):
        chunk = signal[first : first + CHUNK_VOXELS].astype(float)
        parts.append(fit_multi_dynamic(chunk, PROTOCOL, noise_sd=np.full(len(chunk), 1 / snr)))
    maps = join_maps(parts)
    used = time.thread_time() - start
    print(
        f"\nfit of {' x '.join(map(str, SHAPE))} voxels: {used:.1f} s CPU ({1e6 * used / count:.1f} us per voxel)"
    )
    print(f"without a value: {maps.reasons.counts()}")
    contrasts(maps.values["M0"], maps.values["T1"] / 1000, maps.values["T2"] / 1000)
    print(f"memory at its highest: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB")


def contrasts(density: np.ndarray, t1: np.ndarray, t2: np.ndarray) -> None:
    """Render six contrasts and print the CPU time of each."""
    maps = [np.asarray(one, dtype=np.float32).reshape(SHAPE) for one in (density, t1, t2)]
    good = judge_maps(*maps).ok
    plan = (
        Contrast(name="T1w", timing=EchoTiming(repetition_time_s=0.6, echo_time_s=0.01)),
        Contrast(name="T2w", timing=EchoTiming(repetition_time_s=4.5, echo_time_s=0.1)),
        Contrast(name="PDw", timing=EchoTiming(repetition_time_s=8.0, echo_time_s=0.015)),
        Contrast(name="FLAIR", timing=EchoTiming(repetition_time_s=9.0, echo_time_s=0.1), first_s=2.4),
        Contrast(
            name="PSIR",
            timing=EchoTiming(repetition_time_s=6.0, echo_time_s=0.01),
            first_s=0.5,
            keep_sign=True,
        ),
        Contrast(
            name="DIR",
            timing=EchoTiming(repetition_time_s=15.0, echo_time_s=0.1),
            first_s=3.854,
            second_s=0.5595,
        ),
    )
    for contrast in plan:
        start = time.thread_time()
        render(contrast, *maps, where=good)
        print(f"synthetic {contrast.name:6s} {time.thread_time() - start:.2f} s CPU")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--snr", type=float, default=100.0)
    parser.add_argument("--repeats", type=int, default=4000)
    parser.add_argument("--volume", action="store_true")
    options = parser.parse_args()
    precision(options.snr, options.repeats)
    if options.volume:
        volume(options.snr)
