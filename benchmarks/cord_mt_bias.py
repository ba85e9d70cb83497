"""Bias of MTR, MTsat and T1 of white matter, taken from signals and from maps, over simulated visits.

Run: ``python benchmarks/cord_mt_bias.py [people]``.  The simulator paints outlines on a fine grid, blurs them,
adds movement between the images, coil sensitivity and noise; the analysis is the whole built-in one with the
schematic atlas.  The reference is what the same model makes of the noise-free signals of pure white
matter under the scanner's own transmit field, so that what is left is bias of segmentation, alignment,
atlas and extraction.
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np

from cordqa.io.bids_index import index_dataset
from cordqa.models.magnetization_transfer.saturation import mt_saturation_signal
from cordqa.simulate.cord_study import CordScanner, CordTruth, cord_scanners
from cordqa.workflow.cord_atlas import prepare_atlas
from cordqa.workflow.cord_demo import write_cord_study
from cordqa.workflow.cord_participant import CordJob, analyse_unit
from cordqa.workflow.cord_settings import CordSettings
from cordqa.workflow.cord_transfer import TransferModel

QUANTITIES = ("MTR", "MTsat", "T1")


def noise_free(truth: CordTruth, scanner: CordScanner) -> dict[str, float]:
    """What the model makes of pure white matter on this scanner."""
    t1_s, lost = truth.t1_ms["WM"] / 1000, truth.mtsat_percent["WM"] / 100 * scanner.transmit**2
    plan = ((scanner.mt_echo, lost), (scanner.mt_echo, 0.0), (scanner.t1_echo, 0.0))
    signals = [mt_saturation_signal(1.0, t1_s, [d], echo, b1=scanner.transmit) for echo, d in plan]
    model = TransferModel(echoes={"on": scanner.mt_echo, "off": scanner.mt_echo, "T1w": scanner.t1_echo})
    return {name: float(values[0]) for name, values in model(np.stack(signals)).values.items()}


def main(people: int) -> None:
    """Print mean and spread of the relative error by site."""
    scanners = {scanner.site: scanner for scanner in cord_scanners()}
    errors: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        bids, out = Path(folder) / "bids", Path(folder) / "out"
        truths = write_cord_study(bids, seed=7, n_people=people, n_repeats=1)
        index = index_dataset(bids)
        for truth in truths:
            if truth.planted:
                continue
            for source in ("signals", "map"):
                settings = CordSettings(extract_from=source)  # type: ignore[arg-type]
                job = CordJob(
                    index=index,
                    subject=truth.subject,
                    session=truth.session,
                    out=out,
                    settings=settings,
                    work=out / "work",
                    atlas=prepare_atlas(None, out / "work"),
                    marks={},
                )
                expected = noise_free(truth, scanners[truth.site])
                for row in analyse_unit(job).measurements:
                    if row.quantity in QUANTITIES and (row.region, row.level) == ("WM", "all slices"):
                        error = 100 * (row.value / expected[row.quantity] - 1)
                        errors[truth.site, row.quantity, source].append(error)
    print("site     quantity  from      bias %   SD %    n")
    for (site, quantity, source), values in sorted(errors.items()):
        print(
            f"{site:8s} {quantity:9s} {source:8s} {np.mean(values):+7.2f} {np.std(values, ddof=1):6.2f} "
            f"{len(values):4d}"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4)
