"""Motion correction and the other steps of diffusion preprocessing, on simulated and real cords.

    python benchmarks/dwi_motion.py [SHARED_DATA]

Simulated: root mean square error of the shifts in voxels (against the mean of the weighted volumes), beside
what the method itself says it is; SNR is that of white matter at b = 0.  Real: the tutorial series of the
Spinal Cord Toolbox, with the shifts that its ``sct_dmri_moco`` recorded, compared by how well the other
volumes, aligned, predict the raw ones.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from helpers_dwi import SCHEME, SPACING, left_out_residual, motion_error, rms, simulate

from cordqa.cord.motion import MotionSettings, correct_motion, estimate_motion
from cordqa.io.volumes import read_volume
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.diffusion.preprocess_denoise import denoise_mppca, denoise_patch2self
from cordqa.models.diffusion.preprocess_outliers import find_outlier_slices
from cordqa.models.diffusion.preprocess_prediction import left_out_matrix
from cordqa.models.diffusion.tensor import fit_tensor
from cordqa.simulate.cord.diffusion import CordDwi, cord_scheme, simulate_cord_dwi

SEEDS = (5, 6, 7)


def recovery() -> None:
    print("motion             SNR  moved rms  error b>0  said   error b=0  largest   CPU s")
    schemes = {
        "30 x b800": SCHEME,
        "12 x b800": cord_scheme(directions=12, every=6),
        "20 x b1000, b2000": cord_scheme(directions=20, b_values_s_mm2=(1000.0, 2000.0)),
    }
    for name, table in schemes.items():
        print(name)
        for kind in ("static", "smooth", "interleaved", "single slices", "jump"):
            for snr in (10, 20):
                rows = []
                for seed in SEEDS:
                    truth = simulate(kind, snr, seed=seed, scheme=table)
                    start = time.process_time()
                    motion = estimate_motion(truth.data, truth.cord, table, spacing_mm=SPACING)
                    cpu = time.process_time() - start
                    error = motion_error(motion, truth, table)
                    weighted = ~table.is_b0
                    rows.append(
                        (
                            rms(truth.shift_voxels),
                            rms(error[weighted]),
                            rms(motion.error_voxels[weighted]),
                            rms(error[~weighted]),
                            np.abs(error).max(),
                            cpu,
                        )
                    )
                r = np.mean(rows, axis=0)
                print(
                    f"  {kind:15s} {snr:4d}  {r[0]:8.2f}  {r[1]:9.3f}  {r[2]:5.3f}  {r[3]:9.3f}  {r[4]:7.2f}  {r[5]:6.2f}"
                )


def rotation() -> None:
    print("\nrotation: error of the angle (deg), of shifts (voxels)")
    for snr in (10, 20):
        for spread in (0.0, 2.0):
            turn = np.random.default_rng(3).normal(0, spread, len(SCHEME))
            turn -= turn[~SCHEME.is_b0].mean()
            truth = simulate("smooth", snr, turn_deg=turn)
            motion = estimate_motion(
                truth.data, truth.cord, SCHEME, spacing_mm=SPACING, settings=MotionSettings(rotation=True)
            )
            off = rms((motion.turn_deg - turn)[~SCHEME.is_b0])
            print(
                f"  SNR {snr}, spread {spread:.0f} deg: {off:.2f} deg, {rms(motion_error(motion, truth)[~SCHEME.is_b0]):.3f}"
            )


def outliers() -> None:
    print("\noutlier slices: planted, found of them, wrongly found of all others")
    for left in (0.5, 0.7, 0.8):
        for snr in (10, 20):
            rng = np.random.default_rng(1)
            planted = {
                (int(z), int(v)): left
                for z, v in zip(rng.integers(0, 9, 12), rng.integers(1, 33, 12), strict=True)
            }
            truth = simulate("smooth", snr, dropouts=planted)
            found = find_outlier_slices(truth.data, SCHEME, truth.cord).outlier
            hit = sum(bool(found[where]) for where in planted)
            print(
                f"  {left:.0%} left, SNR {snr}: {len(planted)}, {hit}, {found.sum() - hit} of {found.size - len(planted)}"
            )


def denoising() -> None:
    print("\ndenoising, SNR 15, no motion: error of FA in white matter, and over its standard error")
    scan = CordDwi(shape=(36, 36, 7), spacing_mm=SPACING, snr=15)
    truth = simulate_cord_dwi(SCHEME, scan, seed=0)
    white = truth.white > 0.95
    reference = fit_tensor(truth.clean[white], SCHEME).maps.values["FA"]
    series = {
        "none": truth.data,
        "MP-PCA": denoise_mppca(truth.data).data,
        "Patch2Self": denoise_patch2self(truth.data, SCHEME, truth.cord > -1).data,
    }
    for name, data in series.items():
        maps = fit_tensor(data[white], SCHEME).maps
        off, error = maps.values["FA"] - reference, maps.standard_errors["FA"]
        good = np.isfinite(off)
        print(
            f"  {name:10s} rms {rms(off[good]):.4f}  bias {off[good].mean():+.4f}  rms over SE {rms((off / error)[good]):.2f}"
        )


def real(shared: Path) -> None:
    data, reference = shared / "cord/tutorial/dmri", shared / "cord/sct-reference/dmri_tutorial"
    series = read_volume(data / "dmri.nii.gz")
    values, spacing = np.asarray(series.data, dtype=float), tuple(series.spacing_mm[:3])
    table = GradientTable.linear(np.loadtxt(data / "bvals.txt"), np.loadtxt(data / "bvecs.txt").T)
    cord = np.asarray(read_volume(reference / "dmri_moco_dwi_mean_seg.nii.gz").data) > 0.5
    wide = np.asarray(read_volume(reference / "mask_dmri_dwi_mean.nii.gz").data) > 0.5
    moco = np.asarray(read_volume(reference / "dmri_moco.nii.gz").data, dtype=float)
    x, y = (np.asarray(read_volume(reference / f"moco_params_{a}.nii.gz").data)[0, 0].T for a in "xy")
    shifts = {
        "none": np.zeros((*x.shape, 2)),
        "SCT, mask 30 mm": np.stack([x / spacing[0], -y / spacing[1]], axis=-1),
    }
    images = {"none": values, "SCT, mask 30 mm": moco}
    for name, mask in (("ours, mask 30 mm", wide), ("ours, mask of the cord", cord)):
        start = time.process_time()
        images[name], motion = correct_motion(values, mask, table, spacing_mm=spacing)
        shifts[name] = motion.shift_voxels
        print(f"\n{name}: {time.process_time() - start:.2f} s CPU (sct_dmri_moco: 19.2 s)")
    matrix, b0 = left_out_matrix(table), table.is_b0
    print("tutorial series         left-out residual b>0, b=0   temporal SNR b=0   b=0 / b>0")
    for name, shift in shifts.items():
        weighted, plain = (left_out_residual(values, shift, cord, matrix, which) for which in (~b0, b0))
        inside = images[name][cord]
        stable = np.median(inside[:, b0].mean(axis=1) / inside[:, b0].std(axis=1, ddof=1))
        contrast = inside[:, b0].mean() / inside[:, ~b0].mean()
        print(f"  {name:22s} {weighted:12.2f} {plain:10.2f} {stable:16.3f} {contrast:13.4f}")


if __name__ == "__main__":
    recovery()
    rotation()
    outliers()
    denoising()
    if len(sys.argv) > 1:
        real(Path(sys.argv[1]))
    else:
        print("\nno data folder given: the comparison on a real series is left out")
