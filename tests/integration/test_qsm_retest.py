"""Susceptibility has a repeatability in ppm and never a coefficient of variation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cordqa.cli._run import run
from cordqa.io.results import read_result
from cordqa.records import Status


@pytest.mark.parametrize("quantity", ["susceptibility", "local_field"])
def test_repeatability_is_in_ppm(tmp_path, capsys, quantity):
    rng = np.random.default_rng(0)
    truth = rng.normal(0.02, 0.03, 12)
    rows = [
        {
            "quantity": quantity,
            "unit": "ppm",
            "region": "cord",
            "subject": f"sub-{s:02d}",
            "session": f"ses-{k}",
            "value": truth[s] + rng.normal(0, 0.004),
        }
        for s in range(12)
        for k in (1, 2)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "all.tsv", sep="\t", index=False)
    assert run(["reliability", str(tmp_path / "all.tsv"), str(tmp_path / "out")]) == 0
    capsys.readouterr()
    found = read_result(tmp_path / "out").statistics
    names = {one.name for one in found if np.isfinite(one.value)}
    assert not [name for name in names if "CV" in name.upper() or "percent" in name]
    coefficient = next(one for one in found if one.name == "RC")
    assert coefficient.unit == "ppm"
    assert coefficient.value == pytest.approx(2.77 * 0.004, rel=0.5)


def test_the_test_that_the_documentation_offers(tmp_path, capsys):
    """Scans of three people, twice each, through fit, table and reliability."""
    from helpers_fit import save, sidecar
    from helpers_qsm import TIMES, echoes, head

    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    mask, _, field = head((24, 24, 20))
    save(tmp_path / "mask.nii.gz", mask, affine)
    region = np.zeros(mask.shape)
    region[8:12, 8:12, 7:11], region[13:16, 10:14, 9:12] = 1, 2
    save(tmp_path / "region.nii.gz", region, affine)
    tables = []
    for subject in range(3):
        for session in range(2):
            raw = tmp_path / f"raw-{subject}-{session}"
            raw.mkdir()
            phase, magnitude = echoes(
                field * (1 + 0.2 * subject), tissue=mask, snr=80, seed=10 * subject + session
            )
            names = []
            for echo, time in enumerate(TIMES):
                for part, image in (("phase", phase), ("mag", magnitude)):
                    name = f"sub-{subject}_ses-{session}_echo-{echo + 1}_part-{part}_MEGRE.nii.gz"
                    names.append(str(save(raw / name, image[..., echo], affine)))
                    sidecar(raw / name, EchoTime=float(time), MagneticFieldStrength=3.0)
            out = tmp_path / f"fit-{subject}-{session}"
            words = ["fit", "qsm", *names, str(out), "--mask", str(tmp_path / "mask.nii.gz"), "--no-report"]
            words += ["--region", str(tmp_path / "region.nii.gz"), "--noise-realisations", "0"]
            assert run([*words, "--background", "none", "--inversion", "tkd"]) == 0
            tables.append((out / "measurements.tsv").read_text().splitlines())
    whole = [tables[0][0], *(line for table in tables for line in table[1:])]
    (tmp_path / "all.tsv").write_text("\n".join(whole) + "\n")
    words = ["reliability", str(tmp_path / "all.tsv"), str(tmp_path / "out")]
    assert run([*words, "--where", "quantity=susceptibility", "--limit", "RC<=0.02"]) in (0, 3)
    capsys.readouterr()
    result = read_result(tmp_path / "out")
    assert {one.unit for one in result.statistics if one.name == "RC"} == {"ppm"}
    assert {one.quantity for one in result.statistics if one.name == "RC"} == {"susceptibility"}
    assert result.verdicts
    # The whole mask is the zero: it neither passes nor fails a limit.
    assert {one.region for one in result.statistics if one.name == "RC" and np.isfinite(one.value)} == {
        "region 1",
        "region 2",
    }
    assert all((one.status is Status.PASS) == ("mask" not in one.subject) for one in result.verdicts)
