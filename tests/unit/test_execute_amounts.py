"""Times and memory as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cordqa.errors import ConfigError
from cordqa.workflow.cord_pool import Execution
from cordqa.workflow.execute.amounts import parse_duration, parse_memory


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("1.5 h", 5400),
        ("30m", 1800),
        ("30 min", 1800),
        ("2d", 172800),
        ("1:30", 5400),
        ("01:00:30", 3630),
        ("1-00:00:00", 86400),
    ],
)
def test_times(text: str, seconds: float) -> None:
    assert parse_duration(text, option="timeout") == seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [("8 GB", 8e9), ("8G", 8e9), ("500 MB", 5e8), ("2GiB", 2 * 1024**3), ("1000000000 b", 1e9)],
)
def test_memory(text: str, expected: float) -> None:
    assert parse_memory(text, option="memory") == expected


@pytest.mark.parametrize("text", ["", "0", "-3", "soon", "3 weeks", "nan", "inf", "1e400", "١٢"])
def test_no_time(text: str) -> None:
    with pytest.raises(ConfigError, match="timeout"):
        parse_duration(text, option="timeout")


@pytest.mark.parametrize("text", ["", "8", "0 GB", "GB", "-1 GB", "8 GB 3", "much"])
def test_no_memory(text: str) -> None:
    with pytest.raises(ConfigError, match="memory"):
        parse_memory(text, option="memory")


@given(st.text(max_size=20))
def test_any_text_is_a_number_or_a_named_error(text: str) -> None:
    for parse in (parse_duration, parse_memory):
        try:
            assert parse(text, option="x") > 0
        except ConfigError as error:
            assert "\n" not in str(error)


def test_options_that_contradict_each_other() -> None:
    for options in ({"queue": "long"}, {"account": "mri"}, {"walltime": "1:00"}, {"prologue": ("true",)}):
        with pytest.raises(ConfigError, match="option of a batch system"):
            Execution(**options)  # type: ignore[arg-type]
    for options in ({"timeout_s": 0.0}, {"timeout_s": float("nan")}, {"memory": "8"}):
        with pytest.raises(ConfigError):
            Execution(**options)  # type: ignore[arg-type]


def test_options_reach_the_jobs(tmp_path) -> None:
    execution = Execution(
        cluster="slurm", n_procs=7, memory="3 GB", walltime="02:00:00", queue="long", account="mri"
    )
    jobs = execution.job_options(tmp_path)
    assert (jobs.jobs, jobs.memory, jobs.walltime) == (7, "3 GB", "02:00:00")
    assert (jobs.queue, jobs.account, jobs.log_folder) == ("long", "mri", tmp_path / "logs")
    assert execution.memory_bytes == 3e9
    assert Execution(cluster="slurm").job_options(tmp_path).memory == "4 GB"
