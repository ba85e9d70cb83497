from __future__ import annotations

from pathlib import Path

import pytest

from cordqa.errors import ConfigError
from cordqa.workflow.execute import machine

GIB = 1024**3


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 8 CPUs and 16 GiB free, and no limits."""
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "_OWN_CGROUP", tmp_path / "own")
    monkeypatch.setattr(machine, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _pid: set(range(8)), raising=False)
    (tmp_path / "cgroup").mkdir()
    (tmp_path / "own").write_text("0::/slurm/job_1\n")
    (tmp_path / "meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable:   {16 * 1024 * 1024} kB\n")
    return tmp_path


def _limit(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("_", ".", 1)).write_text(content + "\n")


def test_as_many_workers_as_cpus_where_memory_allows(box: Path) -> None:
    assert machine.count_workers(memory_per_worker_bytes=GIB) == (8, "")


def test_memory_limits_the_default_and_says_so(box: Path) -> None:
    count, note = machine.count_workers(memory_per_worker_bytes=5 * GIB)
    assert count == 3
    assert "3 of 8 CPUs" in note


def test_a_request_is_granted_with_a_warning(box: Path) -> None:
    count, note = machine.count_workers(6, memory_per_worker_bytes=5 * GIB)
    assert count == 6
    assert "3 would fit" in note


def test_never_more_workers_than_tasks_and_never_none(box: Path) -> None:
    assert machine.count_workers(tasks=3)[0] == 3
    assert machine.count_workers(tasks=0)[0] == 1
    assert machine.count_workers(memory_per_worker_bytes=99 * GIB)[0] == 1


@pytest.mark.parametrize("requested", [0, -2])
def test_fewer_than_one_worker_is_refused(box: Path, requested: int) -> None:
    with pytest.raises(ConfigError):
        machine.count_workers(requested)


def test_the_limits_of_a_job_count_wherever_they_are_set(box: Path) -> None:
    _limit(box / "cgroup" / "slurm" / "job_1", cpu_max="max 100000", memory_max="max", memory_current="5")
    _limit(box / "cgroup" / "slurm", cpu_max="250000 100000")
    _limit(
        box / "cgroup" / "slurm",
        memory_max=str(6 * GIB),
        memory_current=str(4 * GIB),
        memory_stat=f"anon 1\ninactive_file {GIB}",
    )
    assert machine.usable_cpus() == 2
    assert machine.available_memory_bytes() == 3 * GIB


def test_half_a_cpu_is_one_worker(box: Path) -> None:
    _limit(box / "cgroup", cpu_max="50000 100000")
    assert machine.usable_cpus() == 1


def test_an_unknown_machine_still_works(box: Path) -> None:
    (box / "meminfo").unlink()
    (box / "own").unlink()
    assert machine.count_workers()[0] >= 1
