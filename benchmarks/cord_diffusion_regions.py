"""Values of white and grey matter from a simulated diffusion series: bias, and whether errors are as stated.

    OMP_NUM_THREADS=1 python benchmarks/cord_diffusion_regions.py [--repeats 20]

Truth is the tensor of each tissue without noise, partial volume and motion, fitted to the same scheme
(30 directions at b = 800 s/mm2).  The same cord is scanned again and again with other noise; "stated" is the
mean standard uncertainty of the region, "seen" the standard deviation of its value over the repeats.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from cordqa.io.bids_index import index_dataset
from cordqa.io.volumes import write_volume
from cordqa.models.diffusion.gaussian import axial_tensor, gaussian_signal
from cordqa.models.diffusion.tensor import fit_tensor
from cordqa.records import Volume
from cordqa.simulate.cord.diffusion import TISSUES, CordDwi, cord_scheme, simulate_cord_dwi
from cordqa.workflow.cord_atlas import prepare_atlas
from cordqa.workflow.cord_participant import CordJob, analyse_unit
from cordqa.workflow.cord_settings import CordSettings
from cordqa.workflow.gradients import write_gradients

GRADIENTS = cord_scheme()


def truth(tissue: str) -> dict[str, float]:
    """Tensor of a pure tissue at this scheme."""
    signal = sum(
        share
        * gaussian_signal(GRADIENTS, axial_tensor(np.array([0, 0, 1.0]), along_um2_ms=a, across_um2_ms=r))
        for share, a, r in TISSUES[tissue][1]
    )
    values = fit_tensor(1000.0 * np.asarray(signal)[None], GRADIENTS, uncertainty="none").maps.values
    return {name: float(values[name][0]) for name in ("FA", "MD")}


def measure(folder: Path, scan: CordDwi, seed: int, settings: CordSettings) -> dict[tuple[str, str], tuple]:
    """Value and standard uncertainty of both tissues over all slices."""
    made = simulate_cord_dwi(GRADIENTS, scan, seed=seed)
    stem = folder / "bids/sub-01/dwi/sub-01_dwi"
    stem.parent.mkdir(parents=True, exist_ok=True)
    write_volume(Volume(data=made.data, affine=made.affine), stem.with_name("sub-01_dwi.nii.gz"))
    write_gradients(GRADIENTS, stem, affine=made.affine, mrtrix=False)
    job = CordJob(
        index=index_dataset(folder / "bids"),
        subject="01",
        session="",
        out=folder / "out",
        settings=settings,
        work=folder / "work",
        atlas=prepare_atlas(None, folder / "work"),
        marks={},
    )
    return {
        (row.quantity, row.region): (row.value, row.standard_uncertainty)
        for row in analyse_unit(job).measurements
        if row.level == "all slices" and row.region in ("WM", "GM") and row.quantity in ("FA", "MD")
    }


def motion(seed: int, volumes: int, slices: int) -> np.ndarray:
    """Random walk of the whole cord, millimetres."""
    rng = np.random.default_rng(seed)
    place, out = np.zeros(2), np.zeros((volumes, slices, 2))
    for v in range(volumes):
        place = 0.85 * place + rng.normal(0.0, 0.25, 2)
        out[v] = place
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    repeats = parser.parse_args().repeats
    known = {tissue: truth(tissue) for tissue in ("WM", "GM")}
    print(
        f"{'SNR blur motion':18s} {'taken from':10s} {'':6s} {'truth':>7s} {'bias %':>7s} {'seen':>8s} {'stated':>8s}"
    )
    for snr, blur, moves in ((20.0, 0.25, False), (20.0, 0.4, False), (20.0, 0.4, True), (10.0, 0.4, True)):
        for source in ("map", "signals"):
            found: dict[tuple[str, str], list] = {}
            for seed in range(repeats):
                shift = motion(seed, len(GRADIENTS), 6) if moves else None
                scan = CordDwi(shape=(44, 44, 6), snr=snr, blur_mm=blur, shift_mm=shift)
                with tempfile.TemporaryDirectory() as name:
                    settings = CordSettings(extract_from=source, skip_motion=not moves)
                    for key, pair in measure(Path(name), scan, 100 + seed, settings).items():
                        found.setdefault(key, []).append(pair)
            for (quantity, tissue), pairs in sorted(found.items()):
                values, errors = np.array(pairs).T
                true = known[tissue][quantity]
                print(
                    f"{snr:3.0f} {blur:4.2f} {'moves' if moves else 'still':9s} {source:10s} "
                    f"{quantity} {tissue:3s} {true:7.4g} {100 * (values.mean() / true - 1):7.1f} "
                    f"{values.std(ddof=1):8.3g} {errors.mean():8.3g}"
                )


if __name__ == "__main__":
    main()
