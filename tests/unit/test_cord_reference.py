"""Reference files of controls: what is built is what is read, and nothing else is taken for one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cordqa.cli._run import run
from cordqa.cord.normative import score_person
from cordqa.errors import ConfigError, TableError, UnreadableFileError
from cordqa.records import Entities, Measurement
from cordqa.workflow.cord_normative import read_normative, score_rows
from cordqa.workflow.cord_records import Unit
from cordqa.workflow.cord_reference import build_reference, read_reference

LICENCE = "CC-BY 4.0, simulated"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Controls with planted effects, two patients, and a repeat."""
    rng = np.random.default_rng(4)
    lines = ["participant_id,age,sex,vendor,pathology,level,csa"]
    for n in range(90):
        age, sex, vendor = rng.uniform(20, 60), "MF"[n % 2], ("GE", "Philips", "Siemens")[n % 3]
        for level, base in (("C3", 75.0), ("C2C3", 72.0)):
            value = base - 0.1 * (age - 40) + (3 if sex == "M" else -3) + 2 * (n % 3) + rng.normal(0, 4)
            lines.append(f"sub-{n},{age:.1f},{sex},{vendor},HC,{level},{value:.3f}")
    lines += ["sub-90,40,M,GE,DCM,C3,20", "sub-91,40,F,GE,ALS,C3,21", "sub-0,40,M,GE,HC,C3,500"]
    path = tmp_path / "controls.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_reference_gives_the_scores_of_its_table(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "ref.json"
    said: list[str] = []
    built = build_reference(table, out, licence=LICENCE, tell=said.append)
    assert said == ["2 rows left out, whose pathology is that of no control"]
    read, direct = read_normative(out), read_normative(table)
    assert built.models.keys() == read.models.keys() == direct.models.keys() == {
        ("CSA", "C3"), ("CSA", "C2-C3")
    }  # fmt: skip
    for key, model in read.models.items():
        for vendor in ("GE", "unknown"):
            one, other = (
                score_person(m, 60.0, age_years=50.0, sex="F", vendor=vendor)
                for m in (model, direct.models[key])
            )
            assert repr(one) == repr(other)
    assert LICENCE in read.name and "controls.csv" in read.name
    content = json.loads(out.read_text())
    assert "sub-" not in out.read_text()
    assert (content["licence"], content["models"][0]["n"]) == (LICENCE, 90)


def test_values_are_scored_with_it(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "ref.json"
    build_reference(table, out, licence=LICENCE)
    unit = Unit(name="sub-01", segment=lambda *_a: None)  # type: ignore[arg-type,return-value]
    row = Measurement(
        quantity="CSA",
        value=40.0,
        unit="mm2",
        region="cord",
        level="C3",
        method="perpendicular to the centreline",
        entities=Entities(subject="01", vendor="GE"),
    )
    unit.rows.extend([row, replace(row, level="C3, slice 4", slice_number=4)])
    score_rows(unit, read_reference(out), {"age": "50", "sex": "F"})
    scored, single = unit.rows
    assert any("below the 95 % prediction interval" in flag for flag in scored.flags)
    assert scored.reference == pytest.approx(75 - 1 - 3, abs=2.5)
    assert LICENCE in scored.reference_source
    assert single.flags == ()  # one slice is no level


def test_building_needs_a_name_and_a_licence(table: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="licence"):
        build_reference(table, tmp_path / "ref.json", licence=" ")
    with pytest.raises(ConfigError, match="json"):
        build_reference(table, tmp_path / "ref.tsv", licence=LICENCE)
    few = tmp_path / "few.csv"
    few.write_text("\n".join(table.read_text().splitlines()[:6]))
    with pytest.raises(TableError, match="too few"):
        build_reference(few, tmp_path / "ref.json", licence=LICENCE)
    assert not (tmp_path / "ref.json").exists()


def spoil(content: dict, how: str) -> dict:
    model = content["models"][0]
    if how == "other format":
        content["format"] = "another"
    elif how == "later version":
        content["version"] = 2
    elif how == "no models":
        content["models"] = []
    elif how == "short":
        model["coefficients"] = model["coefficients"][:3]
    elif how == "negative spread":
        model["residual_sd"] = -1.0
    elif how == "not symmetric":
        model["unscaled_covariance"][0][1] += 0.1
    elif how == "not positive":
        model["unscaled_covariance"][0][0] = -1.0
    elif how == "unknown field":
        model["person"] = "sub-01"
    return content


@pytest.mark.parametrize(
    "how",
    [
        "other format", "later version", "no models", "short", "negative spread", "not symmetric",
        "not positive", "unknown field",
    ],
)  # fmt: skip
def test_what_is_no_reference_is_refused(how: str, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "ref.json"
    build_reference(table, out, licence=LICENCE)
    out.write_text(json.dumps(spoil(json.loads(out.read_text()), how)))
    with pytest.raises(UnreadableFileError) as caught:
        read_reference(out)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff\xfe", b"null", b'{"format": NaN}'])
def test_any_bytes_are_refused_in_a_sentence(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "ref.json"
    path.write_bytes(raw)
    with pytest.raises(UnreadableFileError):
        read_reference(path)


def test_the_command(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "ref.json"
    words = ["normative", "build", str(table), str(out)]
    assert run([*words, "--licence", LICENCE, "--note", "3 T, T2w"]) == 0
    captured = capsys.readouterr()
    assert "C2-C3" in captured.out and "--reference-table" in captured.err
    assert json.loads(out.read_text())["notes"][0] == "3 T, T2w"
    assert run([*words, "--licence", LICENCE, "--json"]) == 0
    assert {row["level"] for row in json.loads(capsys.readouterr().out)} == {"C3", "C2-C3"}
    assert run(words) == 2
    assert run(["normative", "build", "absent.csv", str(out), "--licence", "x"]) == 2


def test_the_public_table_of_controls(shared_data: Path, tmp_path: Path) -> None:
    """203 people, three vendors: sex and age go the known way, and its own people lie where they should."""
    source = shared_data / "tables" / "spine_generic_csa.csv"
    out = tmp_path / "ref.json"
    built = build_reference(source, out, licence="MIT (metrics), CC-BY 4.0 (participants)")
    model = read_reference(out).models["CSA", "C2-C3"]
    assert model.n == 203 and model.vendors == ("GE", "Philips", "Siemens")
    man, woman = (
        score_person(model, 70.0, age_years=30.0, sex=sex, vendor="Siemens").expected for sex in ("M", "F")
    )
    assert 0 < man - woman < 8
    assert {level for _, level in built.models} >= {"C2", "C3", "C4", "C5", "C6", "C7", "C2-C3"}
    assert {quantity for quantity, _ in built.models} == {
        "CSA", "diameter_AP", "diameter_RL", "eccentricity", "solidity"
    }  # fmt: skip
