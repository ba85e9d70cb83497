"""Reading phantom definitions: what is accepted, and what each mistake is told."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import numpy as np
import pytest

from cordqa.errors import DefinitionError
from cordqa.phantom.definition import list_phantoms, load_phantom
from cordqa.phantom.reference import reference_values
from cordqa.phantom.tolerance import load_tolerances
from cordqa.resources import MAX_YAML_BYTES, parse_yaml, read_yaml

MINIMAL = """\
schema: 1
id: small
name: Small phantom
batches:
  - {id: "1", first_serial: 1}
assumed_batch: "1"
sources:
  - {id: sheet, citation: A sheet.}
plates:
  - id: A
    name: plate A
    quantities: [T1]
    plane_axes: [x, z]
    inner_diameter_mm: 15
    outer_diameter_mm: 20
    source: sheet
    spheres:
      - [1, -20, 0, 0]
      - [2, 20, 0, 0]
tables:
  - id: t1
    plate: A
    batches: ["1"]
    field_strength_T: 3.0
    temperature_C: 20
    status: measured
    source: sheet
    units: {T1: ms}
    columns: [sphere, T1, u_T1]
    rows:
      - [1, 1000, 10]
      - [2, 500, 5]
"""


def load(tmp_path: Path, text: str):
    path = tmp_path / "phantom.yaml"
    path.write_text(text, encoding="utf-8")
    return load_phantom(path)


def message(tmp_path: Path, old: str, new: str) -> str:
    assert old in MINIMAL
    with pytest.raises(DefinitionError) as caught:
        load(tmp_path, MINIMAL.replace(old, new))
    text = str(caught.value)
    assert "phantom.yaml" in text
    assert "\n" not in text
    return text


def test_a_minimal_file_is_a_phantom(tmp_path):
    phantom = load(tmp_path, MINIMAL)
    plate = phantom.plate("A")
    assert plate.sphere_ids == ("1", "2")
    assert plate.plane_positions_mm.tolist() == [[-20, 0], [20, 0]]
    series = phantom.table("t1").series["2", "T1"]
    assert (series.values.tolist(), series.standard_uncertainties.tolist()) == ([500.0], [5.0])


def test_shipped_phantoms_are_listed_without_tolerances():
    assert list_phantoms() == ["caliber-diffusion", "caliber-system"]


def test_system_phantom_geometry():
    phantom = load_phantom("caliber-system")
    assert phantom.plate_ids == ("3", "4", "5")
    plate = phantom.plate(5)
    positions = plate.plane_positions_mm
    assert positions.shape == (14, 2)
    np.testing.assert_allclose(np.hypot(*positions[:10].T), 50, atol=1e-3)
    assert (plate.inner_diameter_mm, plate.outer_diameter_mm) == (15, 20)
    assert phantom.plate("4").positions_mm[0].tolist() == [0, -16.5, 50]
    assert phantom.fiducials is not None
    assert phantom.fiducials.positions_mm.shape == (56, 3)


def test_unknown_plate_names_the_known():
    with pytest.raises(DefinitionError, match=r"no plate '7'.*3, 4, 5"):
        load_phantom("caliber-system").plate(7)


def test_unknown_name_gets_a_suggestion():
    with pytest.raises(DefinitionError, match="did you mean 'caliber-system'"):
        load_phantom("calibre-system")


def test_loading_is_fast():
    times = []
    for _ in range(3):
        start = time.process_time()
        load_phantom("caliber-system")
        times.append(time.process_time() - start)
    assert min(times) < 0.15


@pytest.mark.parametrize(
    "name", ["", "nowhere.yaml", "a\0b.yaml", "../../etc/passwd", "phantoms", "tolerances/default"]
)
def test_a_path_that_is_no_definition(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DefinitionError):
        load_phantom(name)


def test_unknown_key_names_line_and_suggestion(tmp_path):
    text = message(tmp_path, "    status: measured", "    statuss: measured")
    assert "line 26" in text
    assert "tables[0]" in text
    assert "did you mean 'status'" in text


def test_unknown_top_level_key(tmp_path):
    text = message(tmp_path, "assumed_batch:", "assumed_bach:")
    assert "line 6" in text
    assert "did you mean 'assumed_batch'" in text


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("[1, 1000, 10]", "[1, .nan, 10]", "not a finite number"),
        ("[1, 1000, 10]", "[1, .inf, 10]", "not a finite number"),
        ("[1, 1000, 10]", "[1, '1000', 10]", "not a finite number"),
        ("[1, 1000, 10]", "[1, true, 10]", "not a finite number"),
        ("[1, 1000, 10]", "[1, -5, 10]", "must be positive"),
        ("[1, 1000, 10]", "[1, 1000, 0]", "must be positive"),
        ("[1, 1000, 10]", "[1, null, 10]", "not a finite number"),
        ("[1, 1000, 10]", "[1, 1000]", "2 cells for 3 columns"),
        ("[1, 1000, 10]", "[2, 1000, 10]", "given twice"),
        ("[1, 1000, 10]", "[9, 1000, 10]", "'9' is not defined"),
        ("[1, 1000, 10]", "[[], 1000, 10]", "does not begin with a sphere"),
        ("[1, -20, 0, 0]", "[2, -20, 0, 0]", "sphere '2' is given twice"),
        ("[1, -20, 0, 0]", "[1, 20, 5, 0]", "same place"),
        ("[1, -20, 0, 0]", "[1, .nan, 0, 0]", "spheres[0]"),
        ("[1, -20, 0, 0]", "[1, 1.0e+9, 0, 0]", "spheres[0]"),
        ("[1, -20, 0, 0]", "[1, -20, 0]", "spheres[0]"),
        ("units: {T1: ms}", "units: {T1: s}", "unit of T1 is 'ms'"),
        ("units: {T1: ms}", "units: {t1: ms}", "write 'T1'"),
        ("units: {T1: ms}", "units: {T2: ms}", "columns: 'T1' is not defined"),
        ("columns: [sphere, T1, u_T1]", "columns: [sphere, T1, T1]", "column 'T1' is given twice"),
        ("columns: [sphere, T1, u_T1]", "columns: [T1, sphere, u_T1]", "first column"),
        ("columns: [sphere, T1, u_T1]", "columns: [sphere, T1, temperature_C]", "either"),
        ("    temperature_C: 20\n", "", "either"),
        ("    source: sheet\n    units", "    source: shet\n    units", "did you mean 'sheet'"),
        ("plate: A", "plate: B", "'B' is not defined"),
        ('batches: ["1"]', 'batches: ["2"]', "'2' is not defined"),
        ('assumed_batch: "1"', 'assumed_batch: "9"', "assumed_batch"),
        ("first_serial: 1}", "first_serial: 5, last_serial: 2}", "ends before"),
        ("first_serial: 1}", "first_serial: '1'}", "first_serial"),
        ("inner_diameter_mm: 15", "inner_diameter_mm: 25", "exceeds"),
        ("inner_diameter_mm: 15", "inner_diameter_mm: 0", "inner_diameter_mm"),
        ("plane_axes: [x, z]", "plane_axes: [x, x]", "one axis twice"),
        ("plane_axes: [x, z]", "plane_axes: [x, w]", "plane_axes"),
        ("quantities: [T1]", "quantities: [T9]", "not registered"),
        ("field_strength_T: 3.0", "field_strength_T: -3.0", "field_strength_T"),
        ("status: measured", "status: guessed", "status"),
        ("schema: 1", "schema: 2", "schema"),
        ("id: small", "id: ../small", "id"),
        ("name: Small phantom", "name: [Small]", "name"),
        ("    status: measured", "    status: measured\n    temperature_from: [t9]", "temperature_from"),
        (
            "    status: measured",
            "    status: measured\n    extra_uncertainty: [{name: a, why: b}]",
            "either percent or",
        ),
        (
            "    status: measured",
            "    status: measured\n    extra_uncertainty: [{name: a, why: b, percent: {T2: 1}}]",
            "'T2' is not defined",
        ),
        ("tables:\n", "temperature: {assumed_C: 20}\ntables:\n", "span_C"),
        ("tables:\n", "temperature: {assumed_C: 20, span_C: [21, 24]}\ntables:\n", "does not enclose"),
    ],
)
def test_mistakes_are_told(tmp_path, old, new, told):
    assert told in message(tmp_path, old, new)


def test_a_value_may_not_be_certified_twice(tmp_path):
    again = MINIMAL[MINIMAL.index("  - id: t1") :].replace("id: t1", "id: t2")
    with pytest.raises(DefinitionError, match="is also in table t1"):
        load(tmp_path, MINIMAL + again)


def test_temperatures_must_rise(tmp_path):
    text = MINIMAL.replace("    temperature_C: 20\n", "").replace(
        "[sphere, T1, u_T1]", "[sphere, temperature_C, T1, u_T1]"
    )
    text = text.replace("- [1, 1000, 10]", "- [1, 22, 1000, 10]\n      - [1, 20, 990, 10]").replace(
        "[2, 500", "[2, 20, 500"
    )
    with pytest.raises(DefinitionError, match="do not rise"):
        load(tmp_path, text)


def test_overlapping_batches(tmp_path):
    text = MINIMAL.replace("first_serial: 1}", 'first_serial: 1}\n  - {id: "2", first_serial: 9}')
    with pytest.raises(DefinitionError, match="overlaps"):
        load(tmp_path, text)


def test_selectors_must_select_something_that_exists(tmp_path):
    note = (
        "disagreements:\n  - {id: d, what: w, sources: [sheet], used: u, why: y, note: n, affects: [{%s}]}\n"
    )
    assert load(tmp_path, MINIMAL + note % "plates: [A]").disagreements[0].id == "d"
    for wrong in (
        "plates: [B]",
        "spheres: ['7']",
        "quantities: [T2]",
        "field_strengths_T: [1.5]",
        "batches: ['3']",
    ):
        with pytest.raises(DefinitionError, match="disagreement d"):
            load(tmp_path, MINIMAL + note % wrong)


def test_several_mistakes_are_counted(tmp_path):
    text = MINIMAL.replace("[1, -20, 0, 0]", "[1, a, b, c]").replace("first_serial: 1", "first_serial: x")
    with pytest.raises(DefinitionError, match="and 1 more"):
        load(tmp_path, text)


def test_braces_in_user_text_are_not_templates(tmp_path):
    with pytest.raises(DefinitionError, match=r"\{name\}"):
        load(tmp_path, MINIMAL.replace("name: Small phantom", "'{name}': 3"))


@pytest.mark.parametrize("text", ["", "[]", "3", "- a\n- b", "null", "---"])
def test_not_a_mapping(tmp_path, text):
    with pytest.raises(DefinitionError, match="mapping of keys"):
        load(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: &x 1\nb: *x", "anchors"),
        ("a: !!python/object:os.system x", "tags"),
        ("a: !!int ''", "tags"),
        ("a: 1\na: 2", "given twice"),
        ("a: {b: 1, c: 2, b: 3}", "given twice"),
        ("[" * 100_000, "deeper"),
        ("- " * 100_000, "deeper"),
        ("{" * 100_000, "deeper"),
        ("a: [1, 2", "not valid YAML"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
        ("a: \x00", "not valid YAML"),
        ("? [1]\n: 2", "not valid YAML"),
        ("a: " + "1" * 5000, "not valid YAML"),
        ("a: 2020-13-45", "not valid YAML"),
    ],
)
def test_yaml_that_is_refused(text, told):
    with pytest.raises(DefinitionError, match=told) as caught:
        parse_yaml(text, where="file.yaml")
    assert "file.yaml" in str(caught.value)


def test_yaml_plain_values():
    assert parse_yaml("a: [1, 2.5, -1e-3, text, null, true]") == {"a": [1, 2.5, "-1e-3", "text", None, True]}


def test_file_that_is_too_large_is_not_parsed(tmp_path):
    path = tmp_path / "large.yaml"
    path.write_bytes(b"a: 1 " * (MAX_YAML_BYTES // 5 + 10))
    start = time.process_time()
    with pytest.raises(DefinitionError, match="too large"):
        read_yaml(path)
    assert time.process_time() - start < 0.5


def test_files_that_are_no_text(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(DefinitionError, match="UTF-8"):
        read_yaml(path)
    with pytest.raises(DefinitionError, match="not a regular file"):
        read_yaml(tmp_path)
    with pytest.raises(DefinitionError, match="does not exist"):
        read_yaml(tmp_path / "none.yaml")
    path.write_bytes("\ufeffa: 1".encode())
    assert read_yaml(path) == {"a": 1}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_does_not_hang(tmp_path):
    path = tmp_path / "pipe.yaml"
    os.mkfifo(path)
    with pytest.raises(DefinitionError, match="not a regular file"):
        load_phantom(path)


def test_the_examples_in_the_documentation_are_valid(tmp_path):
    page = Path(__file__).resolve().parents[2] / "docs" / "phantoms.md"
    phantom_text, tolerance_text = re.findall(
        r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL
    )
    phantom = load(tmp_path, phantom_text)
    found = reference_values(phantom, "A", "T1", field_strength_T=1.5, temperature_C=21, serial="7-005")
    assert [(v.batch, v.method) for v in found] == [("1", "borrowed")] * 2
    assert 900 < found[0].value < 930
    assert any("0.6 %" in note for note in found[0].notes)
    (tmp_path / "mine.yaml").write_text(tolerance_text, encoding="utf-8")
    tolerances = load_tolerances(tmp_path / "mine.yaml")
    assert tolerances.find("sphere-error", quantity="T1", plate="5", sphere="2").warn == (-4, 4)
