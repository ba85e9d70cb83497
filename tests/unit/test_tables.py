"""Tables as people write them: encodings, delimiters, decimal signs, and what is no table."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest

from cordqa.errors import (
    CordqaError,
    EmptyInputError,
    InputError,
    TableError,
    TooLargeError,
    UnreadableFileError,
)
from cordqa.io.results import write_result
from cordqa.io.table_numbers import looks_numeric, parse_numbers
from cordqa.io.tables import RawTable, TableLimits, read_table
from cordqa.records import Entities, Measurement, Result, Status


def table(tmp_path: Path, content: str | bytes, **options: object) -> RawTable:
    path = tmp_path / "t.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_table(path, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
def test_delimiter_is_found(tmp_path: Path, sign: str) -> None:
    found = table(tmp_path, "a,b,c\n1,2,x y\n3,4,z\n".replace(",", sign))
    assert found.columns == ("a", "b", "c")
    assert found.delimiter == sign
    assert found.cells["c"] == ["x y", "z"]
    assert found.lines == [2, 3]


def test_delimiter_inside_quotes_does_not_count(tmp_path: Path) -> None:
    found = table(tmp_path, 'site,value\n"Lyon, France",1\n"Bern; ""city""",2\n')
    assert found.cells["site"] == ["Lyon, France", 'Bern; "city"']


def test_the_delimiter_of_a_spreadsheet_is_taken(tmp_path: Path) -> None:
    found = table(tmp_path, "sep=;\r\na;b\r\n1,5;2\r\n")
    assert found.columns == ("a", "b")
    assert found.lines == [3]


@pytest.mark.parametrize(("word", "sign"), [("tab", "\t"), ("comma", ","), (";", ";"), ("semicolon", ";")])
def test_delimiter_can_be_named(tmp_path: Path, word: str, sign: str) -> None:
    assert table(tmp_path, f"a{sign}b\n1{sign}2\n", delimiter=word).delimiter == sign


def test_a_wrong_delimiter_is_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="is not a delimiter"):
        table(tmp_path, "a,b\n1,2\n", delimiter="comma semicolon")


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("utf-8", "utf-8"), ("utf-8-sig", "utf-8-sig"), ("latin-1", "latin-1"), ("utf-16", "utf-16")],
)
def test_encodings(tmp_path: Path, encoding: str, shown: str) -> None:
    found = table(tmp_path, "site,value\nKöln,1\n".encode(encoding))
    assert found.columns == ("site", "value")
    assert found.cells["site"] == ["Köln"]
    assert found.encoding == shown
    assert any(one.code == "table.encoding" for one in found.notices) == (encoding == "latin-1")


def test_line_numbers_follow_the_file(tmp_path: Path) -> None:
    found = table(tmp_path, 'a,b\n\n1,2\n"x\ny",3\n\n4,5\n')
    assert found.lines == [3, 5, 7]


def test_ragged_lines_are_left_out_and_said(tmp_path: Path) -> None:
    found = table(tmp_path, "a,b,c\n1,2,3\n4,5\n6,7,8\n9,10,11,12\n13,14,15,,\n")
    assert found.cells["a"] == ["1", "6", "13"]
    assert [(one.line, one.reason) for one in found.dropped] == [
        (3, "2 fields instead of 3"),
        (5, "4 fields instead of 3"),
    ]
    assert "line 3" in found.notices[0].message


def test_names_of_columns(tmp_path: Path) -> None:
    assert table(tmp_path, ",value\n0,1\n").columns == ("column 1", "value")
    with pytest.raises(TableError, match=r"line 1: two columns have the name 'a' \(found columns 1 and 3\)"):
        table(tmp_path, "a,b,a\n1,2,3\n")
    with pytest.raises(TableError, match="first line holds numbers"):
        table(tmp_path, "1,2.5\n3,4\n")


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (b"", EmptyInputError, "empty"),
        (b"   \n \n", EmptyInputError, "empty"),
        (b"a,b\n", EmptyInputError, "no rows"),
        (b"value\n1\n2\n", TableError, "one column only"),
        (b"PK\x03\x04 and so on", TableError, "spreadsheet"),
        (b"\x1f\x8b\x08 and so on", TableError, "compressed"),
        (b"%PDF-1.7", TableError, "PDF"),
        (b"a,b\n1,\x002\n", TableError, "line 2: is not text"),
        (b"\xff\xfeab\x00", TableError, "UTF-16"),
        (bytes(range(1, 256)) * 20, TableError, "not text"),
        (b'a,b\n1,"2\n3,4\n', TableError, "quotes"),
        (b"a,b\n1,5,2,5\n3,5,4,5\n", TableError, "decimal commas"),
        (b"made by R\nx,y\n1,2\n3,4\n", TableError, "above the names"),
    ],
)
def test_what_is_no_table_is_said(
    tmp_path: Path, content: bytes, kind: type[CordqaError], words: str
) -> None:
    with pytest.raises(kind, match=words) as caught:
        table(tmp_path, content)
    assert str(caught.value).startswith("t.csv")
    assert isinstance(caught.value, InputError)


def test_limits_are_checked(tmp_path: Path) -> None:
    content = "a,b\n" + "1,2\n" * 50
    with pytest.raises(TooLargeError, match="too large"):
        table(tmp_path, content, limits=TableLimits(max_bytes=100))
    with pytest.raises(TooLargeError, match="too many rows"):
        table(tmp_path, content, limits=TableLimits(max_rows=10))
    with pytest.raises(TableError, match="too many columns"):
        table(tmp_path, content, limits=TableLimits(max_columns=1))
    with pytest.raises(TableError, match="line 2: a cell is too long"):
        table(tmp_path, f"a,b\n{'x' * 99},2\n", limits=TableLimits(max_cell_characters=98))
    with pytest.raises(TableError, match="line 2"):
        table(tmp_path, f"a,b\n{'x' * 200_000},2\n")


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match=r"absent.csv: cannot be opened"):
        read_table(tmp_path / "absent.csv")
    with pytest.raises(UnreadableFileError, match="not a regular file"):
        read_table(tmp_path)
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    with pytest.raises(UnreadableFileError, match="not a regular file"):
        read_table(pipe)


# ------------------------------------------------------------------------------------ numbers


def test_numbers_and_what_is_none(tmp_path: Path) -> None:
    cells = [
        "1",
        "-2.5",
        "+.5",
        "3.",
        "1e3",
        "\u22124",
        "n/a",
        "",
        "NaN",
        "none",
        "inf",
        "1e999",
        "abc",
        "5 %",
        "1_0",
    ]
    found = parse_numbers(table(tmp_path, "k,v\n" + "".join(f"x,{cell}\n" for cell in cells)), "v")
    expected = [1, -2.5, 0.5, 3, 1000, -4] + [math.nan] * 9
    np.testing.assert_array_equal(found.values, expected)
    assert found.missing.tolist() == [False] * 6 + [True] * 4 + [False] * 5
    kinds = {one.text: (one.kind, one.line) for one in found.bad}
    assert kinds == {
        "inf": ("infinite", 12),
        "1e999": ("infinite", 13),
        "abc": ("text", 14),
        "5 %": ("text", 15),
        "1_0": ("text", 16),
    }


def test_a_decimal_comma_is_found_and_said(tmp_path: Path) -> None:
    found = parse_numbers(table(tmp_path, "a;v\nx;1,5\ny;1.234,25\nz;7\n"), "v")
    np.testing.assert_array_equal(found.values, [1.5, 1234.25, 7])
    assert [one.code for one in found.notices] == ["table.decimal-comma"]
    assert "line 2" in found.notices[0].message


def test_a_doubtful_comma_is_asked_about(tmp_path: Path) -> None:
    raw = table(tmp_path, "a;v\nx;1,234\ny;2,345\n")
    asked = parse_numbers(raw, "v")
    assert np.isnan(asked.values).all()
    assert {one.kind for one in asked.bad} == {"decimal-comma"}
    assert not asked.notices
    np.testing.assert_array_equal(parse_numbers(raw, "v", decimal=",").values, [1.234, 2.345])
    assert {one.kind for one in parse_numbers(raw, "v", decimal=".").bad} == {"decimal-comma"}


def test_points_and_commas_in_one_column_are_not_guessed(tmp_path: Path) -> None:
    found = parse_numbers(table(tmp_path, "a;v\nx;1,5\ny;1.5\n"), "v")
    assert found.bad[0].kind == "decimal-comma"
    assert found.values[1] == 1.5


def test_an_unknown_decimal_sign_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="not a decimal sign"):
        parse_numbers(table(tmp_path, "a,v\nx,1\n"), "v", decimal="'")


def test_what_looks_numeric() -> None:
    assert looks_numeric(["1", "2,5", "n/a", ""])
    assert not looks_numeric(["a", "1", "b"])
    assert not looks_numeric(["", "n/a"])


def test_own_measurements_come_back(tmp_path: Path) -> None:
    rows = tuple(
        Measurement(
            quantity="T1",
            value=value,
            unit="ms",
            region="=1+1",  # a spreadsheet would run it; the file keeps it from that
            flags=("a", "b"),
            entities=Entities(subject="007", scanner="-A"),
        )
        for value in (812.25, math.nan)
    )
    write_result(Result(kind="phantom", title="", status=Status.PASS, measurements=rows), tmp_path)
    found = read_table(tmp_path / "measurements.tsv")
    assert found.cells["subject"] == ["007", "007"]
    assert found.cells["region"][0] == "=1+1"
    assert found.cells["scanner"][0] == "-A"
    np.testing.assert_array_equal(parse_numbers(found, "value").values, [812.25, math.nan])
    assert found.cells["flags"][0] == "a;b"


def test_real_tables_are_read(shared_data: Path) -> None:
    sizes = {
        "spine_generic_csa.csv": (1421, 18),
        "masivar_csa.csv": (1001, 15),
        "rrsg_t1_tidy.csv": (752, 17),
        "gold/delong_asah.csv": (113, 7),
        "gold/lme4_pastes.csv": (60, 4),
    }
    for name, size in sizes.items():
        found = read_table(shared_data / "tables" / name)
        assert (len(found), len(found.columns)) == size
        assert not found.dropped and not found.notices
