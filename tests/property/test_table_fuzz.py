"""Damaged tables, thousands of them: no hang, no crash, no error that is not this project's."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np

from cordqa.errors import CordqaError
from cordqa.io.table_numbers import parse_numbers
from cordqa.io.tables import TableLimits, read_table
from cordqa.records import State
from cordqa.workflow.reliability import run_reliability
from cordqa.workflow.reliability_checks import check_long
from cordqa.workflow.reliability_design import read_design
from cordqa.workflow.reliability_long import make_long
from cordqa.workflow.reliability_settings import ReliabilitySettings, make_settings

#: The same tables every time, since seeds and mutations are; fewer on a slow machine.
N_READ, READ_SECONDS = 4000, 1.5
N_CHECKED, CHECK_SECONDS = 300, 1.5
N_RUN, RUN_SECONDS = 40, 2.0

_CELLS = (
    "", " ", "n/a", "nan", "NA", "inf", "-inf", "1e999", "-1e-999", "0", "-0.0", "1,5", "1,234", "1.234,5",
    "1_000", "0x1F", "１２", "−3.5", "5 %", "7.0", "1e308", "-1e308", "5e-324", "abc", "C2", "T1", "\u202e",
    "2024-02-30", "2024-05-31", "20240531", "31.12.2024", "9999-99-99", "''", "'=1+1", "=1+1", "\x1b[31m",
    "x" * 300, "None", "True", "HC", "\ufeff", "\u00a0", "a\x00b", '"', "''''", "sub-01", "GE", "ge", "mm^2",
)  # fmt: skip
_BYTES = (b"\x00", b"\xff", b"\xfe\xff", b"\xc3", b'"', b",", b";", b"\t", b"\n", b"\r", b"\r\n", b"|", b"\\")


def _tidy(rng: random.Random) -> str:
    """A small study of travelling people, as one row per value."""
    lines = [
        "subject,session,run,scanner,site,vendor,quantity,region,value,unit,reference,acquired,group,age,sex"
    ]
    for subject in range(1, 5):
        for scanner in "AB":
            for session in (1, 2):
                for region in ("C2", "C10"):
                    value = 60 + 3 * subject + (scanner == "B") + rng.gauss(0, 1)
                    lines.append(
                        f"{subject},{session},1,{scanner},site{scanner},v{scanner},CSA,{region},{value:.3f},mm2,"
                        f"{60 + 3 * subject},2024-0{session}-1{subject},{'HC' if subject % 2 else 'DCM'},"
                        f"{20 + subject},{'FM'[subject % 2]}"
                    )
    return "\n".join(lines) + "\n"


def _wide(rng: random.Random) -> str:
    """The same in the manner of a spreadsheet: semicolons, decimal commas, several columns of values."""
    lines = ["participant_id;level;csa;FA;site"]
    for subject in range(1, 9):
        area, anisotropy = 70 + rng.gauss(0, 5), 0.6 + rng.gauss(0, 0.03)
        lines.append(
            f"{subject};C{2 + subject % 3};{area:.2f};{anisotropy:.3f};{'ABC'[subject % 3]}".replace(".", ",")
        )
    return "\r\n".join(lines)


def _mutate(rng: random.Random, text: str) -> bytes:
    """Damage cells, lines or bytes, one to six times."""
    content = text.encode()
    for _ in range(rng.randint(1, 6)):
        kind = rng.randrange(8)
        lines = content.split(b"\n")
        place = rng.randrange(len(lines))
        if kind <= 2:
            sign = b";" if content.count(b";") > content.count(b",") else b","
            cells = lines[place].split(sign)
            cells[rng.randrange(len(cells))] = rng.choice(_CELLS).encode("utf-8", "surrogatepass")
            lines[place] = sign.join(cells)
            content = b"\n".join(lines)
        elif kind == 3:
            lines.insert(place, lines[rng.randrange(len(lines))])
            content = b"\n".join(lines)
        elif kind == 4:
            del lines[place]
            content = b"\n".join(lines) or b"x"
        elif kind == 5:
            at = rng.randrange(len(content))
            content = content[:at] + rng.choice(_BYTES) + content[at:]
        elif kind == 6:
            at = rng.randrange(len(content))
            content = content[:at] + content[at + rng.randint(1, 40) :] or b"x"
        else:
            content = content[: rng.randrange(len(content)) + 1]
    return content


def _options(rng: random.Random) -> ReliabilitySettings:
    raw: dict[str, object] = {}
    if rng.random() < 0.2:
        raw["where"] = rng.choice(["region=C2", "scanner=A", "subject=1,2", "absent=1"])
    if rng.random() < 0.2:
        raw["exclude"] = rng.choice(["subject=1: motion", "scanner=B", "line=x: y"])
    if rng.random() < 0.2:
        raw["decimal"] = rng.choice([",", "."])
    if rng.random() < 0.1:
        raw["subject_within"] = rng.choice(["site", "vendor", "absent"])
    if rng.random() < 0.1:
        raw["by"] = rng.choice(["session", "sex"])
    return make_settings(("", raw))


def _damaged(number: int) -> tuple[random.Random, bytes]:
    rng = random.Random(number)
    return rng, _mutate(rng, _tidy(rng) if number % 3 else _wide(rng))


def test_damaged_tables_are_read_or_refused_with_a_sentence(tmp_path: Path) -> None:
    path, limits = tmp_path / "table.csv", TableLimits(max_bytes=100_000, max_cell_characters=200)
    begin, done, used = time.process_time(), 0, 0
    for number in range(N_READ):
        path.write_bytes(_damaged(number)[1])
        try:
            table = read_table(path, limits=limits)
            for column in table.columns:
                found = parse_numbers(table, column)
                assert np.isfinite(found.values).sum() + found.missing.sum() + len(found.bad) == len(table)
            used += 1
        except CordqaError as error:
            assert str(error).isprintable() and len(str(error)) < 2000
        done += 1
        if time.process_time() - begin > READ_SECONDS:
            break
    assert done >= 500
    # Most damage concerns a cell; if all tables failed, the mutations would test nothing.
    assert used > 0.3 * done


def test_damaged_tables_are_laid_out_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    begin, done, used = time.process_time(), 0, 0
    for number in range(N_CHECKED):
        rng, content = _damaged(100_000 + number)
        path.write_bytes(content)
        settings = _options(rng)
        done += 1
        try:
            long = make_long(read_table(path), settings)
            check_long(long, settings)
            read_design(long, settings)
        except CordqaError as error:
            assert str(error).isprintable() and len(str(error)) < 2000
            continue
        used += 1
        assert (long.frame["left_out"] != "").sum() + len(long.used) == len(long.frame)
        if time.process_time() - begin > CHECK_SECONDS:
            break
    assert done >= 50
    assert used > 0.2 * done


def test_damaged_tables_are_analysed_without_an_internal_error(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    begin, done, finished = time.process_time(), 0, 0
    for number in range(N_RUN):
        rng = random.Random(10_000 + number)
        path.write_bytes(_mutate(rng, _tidy(rng) if number % 4 else _wide(rng)))
        try:
            result = run_reliability(path, tmp_path / "out", settings=_options(rng))
        except CordqaError:
            continue
        finally:
            done += 1
        finished += 1
        failed = [one for one in result.outcomes if one.state is State.FAILED]
        assert not failed, f"table {number}: {failed[0].what}: {failed[0].reason}"
        if time.process_time() - begin > RUN_SECONDS:
            break
    assert finished >= 1
