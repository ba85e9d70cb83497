"""Diffusion phantom: labels under random moves, recovery and coverage of the ADC, time of one series.

    python benchmarks/diffusion_phantom.py [N_MOVES]

Simulated on the shipped definition at random rotation, mirror image, shift, stretch and shear, slice
plane, temperature, width of the vials, and bath.  A move counts as wrong where any vial gets another
vial's name, and as refused where the program says so itself.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from cordqa.errors import CordqaError
from cordqa.io.dicom_write import write_dicom
from cordqa.phantom.definition import load_phantom
from cordqa.phantom.diffusion import MAIN, fit_vials
from cordqa.phantom.reference import reference_values
from cordqa.phantom.series import Series
from cordqa.simulate.diffusion_phantom import (
    DiffusionProtocol,
    DiffusionScanner,
    DigitalVial,
    DigitalVials,
    scan_diffusion,
    three_diffusion_scanners,
)
from cordqa.workflow.phantom import PhantomSettings, run_phantom

DEFINITION = load_phantom("caliber-diffusion")
PLATE = DEFINITION.plate("vials")


def phantom(temperature: float, **settings) -> DigitalVials:
    values = reference_values(DEFINITION, "vials", "ADC", field_strength_T=3.0, temperature_C=temperature)
    amounts = dict(DEFINITION.contents[0].rows)
    vials = tuple(
        DigitalVial(
            label=v.sphere,
            position_mm=(float(x), float(y)),
            adc_um2_per_s=v.value,
            t2_s=1.2 - 0.018 * amounts[v.sphere],
            proton_density=1 - 0.006 * amounts[v.sphere],
        )
        for v, (x, y) in zip(values, PLATE.plane_positions_mm, strict=True)
    )
    return DigitalVials(vials=vials, bath_adc_um2_per_s=values[0].value, **settings)


def random_case(rng: np.random.Generator, *, ghost: float) -> tuple[DigitalVials, DiffusionScanner]:
    temperature = float(rng.choice([0.0, 16.0, 20.0, 23.0, 26.0]))
    body = phantom(
        temperature,
        inner_diameter_mm=float(rng.uniform(18, 28)),
        wall_mm=float(rng.uniform(0.8, 1.5)),
        bath_proton_density=float(rng.choice([0.0, 0.3, 1.0])),
    )
    scanner = DiffusionScanner(
        name="S",
        vendor="Siemens",
        plane=str(rng.choice(["coronal", "axial", "sagittal"])),  # type: ignore[arg-type]
        rotation_deg=float(rng.uniform(-180, 180)),
        mirror=bool(rng.integers(2)),
        shift_mm=(float(rng.uniform(-8, 8)), float(rng.uniform(-8, 8))),
        stretch=float(rng.uniform(0.95, 1.05)),
        shear=float(rng.uniform(-0.03, 0.03)),
        ghost=ghost,
        noise_sd=0.01,
    )
    return body, scanner


def moves(n: int, *, ghost: float) -> None:
    rng = np.random.default_rng(0)
    right = wrong = refused = 0
    errors, covered, margins = [], [], []
    for _ in range(n):
        body, scanner = random_case(rng, ghost=ghost)
        images = scan_diffusion(body, DiffusionProtocol(), scanner, rng)
        try:
            series = Series(images=images, data=images.data, signed=False)
            fitted, _, choice, pose = fit_vials(series, PLATE, DEFINITION)
        except CordqaError as error:
            refused += 1
            print("  refused:", str(error)[:150])
            continue
        truth = np.array([v.adc_um2_per_s for v in body.vials])
        if misplaced(pose.voxels[:, 1:], body, scanner):
            wrong += 1
            continue
        right += 1
        value = fitted.fit.parameters[MAIN]
        low, high = fitted.fit.interval(0.95)
        errors.append(100 * (value / truth - 1))
        covered.append((low <= truth) & (truth <= high))
        margins.append(choice.margin)
    relative = np.array(errors)
    print(
        f"ghost {100 * ghost:g} %: {n} moves: {right} right, {wrong} wrong, {refused} refused; "
        f"least lead {min(margins):.2f}"
    )
    print("  vial     bias %   SD %   coverage of 95 % intervals")
    for k, vial in enumerate(PLATE.sphere_ids):
        print(
            f"  {vial:>4} {np.nanmean(relative[:, k]):+9.2f} {np.nanstd(relative[:, k]):6.2f} "
            f"{100 * np.mean(np.array(covered)[:, k]):8.1f}"
        )
    print(f"  all  {np.nanmean(relative):+9.2f} {np.nanstd(relative):6.2f} {100 * np.mean(covered):8.1f}")


def misplaced(found: np.ndarray, body: DigitalVials, scanner: DiffusionScanner) -> bool:
    """Compare centres with the true ones, computed here once more."""
    angle = np.deg2rad(scanner.rotation_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    drawn = np.array([v.position_mm for v in body.vials]) @ turn.T
    rows, columns = -drawn[:, 1], drawn[:, 0] * (-1 if scanner.mirror else 1)
    places = np.column_stack([rows, columns]) + scanner.shift_mm
    apparent = np.column_stack([scanner.stretch * places[:, 0] + scanner.shear * places[:, 1], places[:, 1]])
    pixel = scanner.field_of_view_mm / scanner.matrix
    distance = np.linalg.norm(found * pixel - (apparent + (scanner.matrix - 1) / 2 * pixel), axis=1)
    return bool(distance.max() > 3.0)


def seconds() -> None:
    body = phantom(20.0)
    for scanner in three_diffusion_scanners():
        for n_slices in (1, 25):
            images = scan_diffusion(
                body, DiffusionProtocol(), replace(scanner, n_slices=n_slices), np.random.default_rng(0)
            )
            with tempfile.TemporaryDirectory() as folder:
                write_dicom(images, Path(folder) / "in")
                best = np.inf
                for k in range(3):
                    start = time.process_time()
                    run_phantom(
                        Path(folder) / "in",
                        Path(folder) / f"out{k}",
                        settings=PhantomSettings(phantom="caliber-diffusion", temperature_C=20.0),
                    )
                    best = min(best, time.process_time() - start)
            print(
                f"{scanner.vendor}, {n_slices} slice(s), {len(images.data)} images: {best:.2f} s CPU without imports"
            )


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    moves(number, ghost=0.0)
    moves(max(number // 4, 5), ghost=0.02)
    seconds()
