"""Every recorded table of the real toolbox, and the ways in which a table can be broken."""

from __future__ import annotations

import contextlib
import csv
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cordqa.engines.errors import EngineOutputError, MixedEnginesError
from cordqa.engines.sct.rows import extraction_rows, shape_rows, unit_factor
from cordqa.engines.sct.tables import (
    check_versions,
    parse_numbers,
    read_bare_number,
    read_centerline,
    read_motion,
    read_table,
)
from cordqa.errors import ConfigError, CordqaError

HEAD = "Timestamp,SCT Version,Filename,Slice (I->S),VertLevel,DistancePMJ"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "table.csv"
    path.write_text(text)
    return path


def extraction(tmp_path: Path, value: str, *, size: str = "10.5", method: str = "WA()") -> Path:
    return write(
        tmp_path,
        f'{HEAD},Label,Size [vox],{method},STD()\n"t","7.3","m.nii.gz","2:3","4","","white matter",'
        f"{size},{value},1.5\n",
    )


def test_every_recorded_table_parses_to_the_numbers_in_it(shared_data: Path) -> None:
    folder = shared_data / "cord" / "sct-reference"
    paths = [p for p in sorted(folder.rglob("*.csv")) if p.name != "t2_cl_fitseg.csv"]
    assert len(paths) >= 40
    for path in paths:
        table = read_table(path)
        with path.open(newline="") as stream:
            plain = list(csv.DictReader(stream))
        assert len(table.rows) == len(plain)
        for row, cells in zip(table.rows, plain, strict=True):
            for name, cell in row.values.items():
                if cells[name]:
                    assert cell.value == float(cells[name])
                    assert not cell.reason
                else:
                    assert math.isnan(cell.value)
                    assert cell.reason
            assert row.label == cells.get("Label", "")


def test_centreline_motion_and_snr_of_the_recorded_runs(shared_data: Path) -> None:
    folder = shared_data / "cord" / "sct-reference"
    line = read_centerline(folder / "t2_manualseg" / "t2_cl_fitseg.csv")
    assert len(line) == 55
    assert line[1][1] == 1.0
    assert len(read_motion(folder / "dmri_tutorial" / "moco_params.tsv")) == 35
    assert read_bare_number(folder / "dmri_testing" / "snr_mult.txt") == 2.525974955114831


def test_a_level_that_is_not_there_becomes_a_row_that_says_so(shared_data: Path) -> None:
    folder = shared_data / "cord" / "sct-reference"
    cut = read_table(folder / "err_cases" / "extract_metric.csv")
    assert cut.rows == ()
    assert "in the image" in cut.note
    rows = extraction_rows(cut, version="7", quantity="MTR", unit="%", levels=[12], labels=["white matter"])
    assert [(r.level, r.region, math.isnan(r.value), r.coverage) for r in rows] == [("T5", "WM", True, 0.0)]
    some = read_table(folder / "t2_manualseg" / "csa_perlevel.csv")
    areas = [r for r in shape_rows(some, version="7", method="", levels=range(1, 10)) if r.quantity == "CSA"]
    assert {r.level for r in areas if math.isfinite(r.value)} == {"C2", "C3", "C4", "C5"}
    assert {r.level for r in areas if r.reason} == {"C1", "C6", "C7", "T1", "T2"}


def test_an_empty_region_is_said_not_to_be_covered(shared_data: Path) -> None:
    table = read_table(shared_data / "cord" / "sct-reference" / "mt_testing" / "mtr_map.csv")
    rows = extraction_rows(table, version="7", quantity="MTR", unit="%", covered=frozenset({2, 3}))
    for row in rows:
        empty = row.n_voxels == 0
        assert math.isnan(row.value) == empty
        assert (row.reason == "the region is not covered") == empty
        assert row.coverage == (0 if empty else 1)
    assert sum(math.isnan(row.value) for row in rows) == 18


def test_partial_coverage_is_said(shared_data: Path) -> None:
    path = shared_data / "cord" / "sct-reference" / "mt_testing" / "mtr_all_slices_perslice0.csv"
    (row,) = extraction_rows(
        read_table(path), version="7", quantity="MTR", unit="%", covered=frozenset({2, 3})
    )
    assert row.coverage == 0.4
    assert "40%" in row.reason
    assert row.value == 31.664101511325022


def test_units_become_those_of_the_registry(shared_data: Path) -> None:
    table = read_table(shared_data / "cord" / "sct-reference" / "dmri_testing" / "md_tracts_map.csv")
    rows = extraction_rows(table, version="7", quantity="MD", unit="mm2/s")
    values = [r.value for r in rows if math.isfinite(r.value)]
    assert values[0] == pytest.approx(2339.4038, abs=1e-3)
    assert {r.unit for r in rows} == {"um2/s"}
    assert unit_factor("s", "T1") == (1000.0, "ms")
    with pytest.raises(ConfigError, match="does not fit"):
        unit_factor("furlong", "T1")


@pytest.mark.parametrize(
    ("text", "size", "reason"),
    [
        ('""', "0.0", "the region is not covered"),
        ("None", "0.0", "the region is not covered"),
        ('""', "4.0", "no value was computed"),
        ('"division by zero"', "4.0", "'division by zero'"),
        ("inf", "4.0", "'inf'"),
        ("1_000", "4.0", "'1_000'"),
        ("nan", "4.0", "no value"),
    ],
)
def test_a_cell_without_number_is_nan_with_reason(tmp_path: Path, text: str, size: str, reason: str) -> None:
    cell = read_table(extraction(tmp_path, text, size=size)).rows[0].values["WA()"]
    assert math.isnan(cell.value)
    assert reason in cell.reason


def test_the_value_column_is_named_after_the_method(tmp_path: Path) -> None:
    table = read_table(extraction(tmp_path, "3.5", method="MEDIAN()"))
    assert table.method == "median"
    assert table.rows[0].values["MEDIAN()"].value == 3.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a table"),
        ("a,b\n1,2\n", "is not a table"),
        ("\x00\x01\n", "is not"),
        (f'{HEAD},Label,Size [vox],STD()\n"t","7","f","","","","x",1,2\n', "by which method"),
        (f"{HEAD},MEAN(area),MEAN(area)\n", "twice"),
        (f'{HEAD},MEAN(area)\n"t","7","f","","","",1.5,7\n', "does not fit the header"),
        (f'{HEAD},MEAN(area)\n"t","7","f","",""\n', "does not fit the header"),
        (f'{HEAD},MEAN(area)\n"t","7","f","","","",71.4', "cut short"),
        (f'{HEAD},MEAN(area)\n"t","7","f","a:b","","",1\n', "slices or levels"),
        (f'{HEAD},MEAN(area)\n"t","7","f","0:999999999","","",1\n', "slices or levels"),
        (f'{HEAD}\n"t","7","f","","",""\n', "no column of results"),
    ],
)
def test_broken_tables_are_refused_with_a_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(EngineOutputError, match=message):
        read_table(write(tmp_path, text))


def test_older_tables_without_distance_are_read(tmp_path: Path) -> None:
    path = write(
        tmp_path, 'SCT Version,Filename,Slice (I->S),VertLevel,MEAN(area)\n"5.4","f","0:2","2;3",70.5\n'
    )
    (row,) = read_table(path).rows
    assert (row.slices, row.levels, row.values["MEAN(area)"].value) == ((0, 1, 2), (2, 3), 70.5)


def test_versions_are_never_mixed(tmp_path: Path) -> None:
    lines = [f'"t","{v}","f","1","","",70.5\n' for v in ("7.1", "7.3")]
    path = write(tmp_path, f"{HEAD},MEAN(area)\n" + "".join(lines))
    with pytest.raises(MixedEnginesError, match=r"7\.1, 7\.3"):
        read_table(path)
    with pytest.raises(MixedEnginesError):
        check_versions(["7.3"], version="7.1")
    # A commit cannot be compared with a number.
    check_versions(["git-HEAD-3b3c5b22"], version="7.4.dev0")
    check_versions([], version="7.1")


def test_a_missing_table_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(EngineOutputError):
        read_table(tmp_path / "absent.csv")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("", ()), ("3", (3,)), ("0:3", (0, 1, 2, 3)), ("0,2,5", (0, 2, 5)), ("2;4:5", (2, 4, 5)), ("None", ())],
)
def test_numbers(text: str, numbers: tuple[int, ...]) -> None:
    assert parse_numbers(text) == numbers


@given(st.text(max_size=40))
def test_any_text_is_numbers_or_a_value_error(text: str) -> None:
    try:
        numbers = parse_numbers(text)
    except ValueError:
        return
    assert all(isinstance(n, int) for n in numbers)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_table_or_a_named_error(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.csv"
    path.write_bytes(raw if len(raw) % 2 else HEAD.encode() + b",MEAN(area)\n" + raw)
    with contextlib.suppress(CordqaError):
        read_table(path)
