"""An agreement study from the command line: people who were scanned once, by two measures."""

import csv
import json

import numpy as np
import pytest

from cordqa.cli._run import run


def write(path, *, people=14, curvature=0.0, unit="%", factor=1.0, flat=False):
    """Regions of a person share an offset, so that they are not independent."""
    rng = np.random.default_rng(3)
    rows = []
    for person in range(people):
        offset = 0.6 * rng.normal()
        for region in range(8):
            x = 2 + 0.2 * region + offset + 0.1 * rng.normal()
            y = 5.0 if flat else 3 * x + curvature * x**2 + 0.5 * rng.normal()
            tissue = "WM" if region % 2 else "GM"
            rows.append((f"sub-{person:02d}", f"R{region}", tissue, "MTsat", x, "%"))
            rows.append((f"sub-{person:02d}", f"R{region}", tissue, "MWF", factor * y, unit))
    with path.open("w") as stream:
        table = csv.writer(stream)
        table.writerow(("subject", "region", "tissue", "quantity", "value", "unit"))
        table.writerows(rows)
    return str(path)


def relations(out):
    """Statistics by name and class, and the whole result."""
    result = json.loads((out / "result.json").read_text())
    found = {}
    for one in result["statistics"]:
        parts = dict(part.split("=", 1) for part in one["group"].split(", ") if "=" in part)
        if "from" in parts:
            found[one["name"], parts.get("class", "")] = one
    return found, result


@pytest.mark.parametrize(("curvature", "order"), [(0.0, 1), (0.6, 2)])
def test_a_study_of_one_scan_per_person_is_finished_work(curvature, order, tmp_path, capsys):
    path = write(tmp_path / "t.csv", curvature=curvature)
    assert run(["reliability", path, str(tmp_path / "out"), "--relate", "MTsat,MWF by tissue"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Relations: MTsat and MWF (GM): r 0.9" in shown
    assert ("calibration quadratic" in shown) == (order == 2)
    found, result = relations(tmp_path / "out")
    assert found["calibration_order", "WM"]["value"] == order
    assert found["r_pooled", "WM"]["low"] < found["r_pooled", "WM"]["value"]
    assert any(one["what"] == "Relation MTsat,MWF by tissue" for one in result["outcomes"])
    assert any("random intercept per subject" in text for text in result["methods"])


def test_a_measure_in_fractions_gives_the_same_calibration(tmp_path):
    percent = write(tmp_path / "a.csv")
    fraction = write(tmp_path / "b.csv", unit="1", factor=0.01)
    for name, path in (("a", percent), ("b", fraction)):
        assert run(["reliability", path, str(tmp_path / name), "--relate", "MTsat,MWF"]) == 0
    first, second = (relations(tmp_path / name)[0]["calibration_c1", ""]["value"] for name in ("a", "b"))
    assert first == pytest.approx(second, rel=1e-9)


def test_a_measure_that_does_not_vary_is_no_finished_work(tmp_path):
    path = write(tmp_path / "t.csv", flat=True)
    assert run(["reliability", path, str(tmp_path / "out"), "--relate", "MTsat,MWF"]) == 1
    _, result = relations(tmp_path / "out")
    mine = [one for one in result["outcomes"] if one["what"] == "Relation MTsat,MWF"]
    assert [one["state"] for one in mine] == ["skipped"]
    assert "measures that vary" in mine[0]["reason"]
