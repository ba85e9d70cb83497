from __future__ import annotations

import sys

import pytest

from cordqa.errors import ConfigError
from cordqa.workflow.execute import dask_cluster
from cordqa.workflow.execute.dask_cluster import JobOptions, open_executor
from cordqa.workflow.execute.errors import MissingExtraError
from cordqa.workflow.execute.local import LocalPool


def test_without_options_it_is_a_pool_of_this_machine() -> None:
    with open_executor(workers=1) as executor:
        assert isinstance(executor, LocalPool)


def test_a_note_about_memory_is_passed_on() -> None:
    lines: list[str] = []
    with open_executor(workers=2, memory_per_worker_bytes=1e18, progress=lines.append):
        pass
    assert "memory" in lines[0]


def test_two_clusters_at_once_are_refused() -> None:
    with pytest.raises(ConfigError, match="exclude"):
        open_executor(scheduler="tcp://h:1", cluster="slurm")


@pytest.mark.parametrize(("system", "jobs", "said"), [("condor", 1, "slurm, pbs"), ("slurm", 0, "1 or more")])
def test_options_of_a_cluster_are_checked(system: str, jobs: int, said: str) -> None:
    with pytest.raises(ConfigError, match=said), open_executor(cluster=system, jobs=JobOptions(jobs=jobs)):
        pass


@pytest.mark.parametrize("option", [{"scheduler": "tcp://h:1"}, {"cluster": "slurm"}])
def test_absent_packages_are_named_with_the_way_to_install_them(
    option: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> object:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(dask_cluster.importlib, "import_module", absent)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[cluster\]'"), open_executor(**option):  # type: ignore[arg-type]
        pass


def test_dask_is_not_imported_before_it_is_asked_for() -> None:
    import subprocess

    code = (
        "import sys; import cordqa.workflow.execute.dask_cluster, cordqa.workflow.execute.run; "
        "sys.exit(any(name in sys.modules for name in ('dask', 'distributed', 'dask_jobqueue')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
