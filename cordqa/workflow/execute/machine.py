"""How many tasks fit on this machine at once."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from cordqa.errors import ConfigError

__all__ = ["available_memory_bytes", "count_workers", "usable_cpus"]

_GIB = 1024**3
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")
_MEMINFO = Path("/proc/meminfo")


def count_workers(
    requested: int | None = None, *, memory_per_worker_bytes: float = 2 * _GIB, tasks: int | None = None
) -> tuple[int, str]:
    """Decide how many worker processes to run.

    Parameters
    ----------
    requested : int, optional
        What the user asked for, which is granted.
    memory_per_worker_bytes : float, > 0
        What one task needs at its peak; the default number of workers keeps within what is free.
    tasks : int, optional
        Number of tasks; more workers than that are of no use.

    Returns
    -------
    workers : int
    note : str
        What the user should know about that number; empty where it is the obvious one.

    Raises
    ------
    ConfigError
        If fewer than one worker was asked for.
    """
    if requested is not None and requested < 1:
        raise ConfigError("is not usable", where="number of processes", found=str(requested), expected=">= 1")
    cpus, memory = usable_cpus(), available_memory_bytes()
    fitting = max(1, int(memory // memory_per_worker_bytes)) if math.isfinite(memory) else cpus
    workers = requested if requested is not None else min(cpus, fitting)
    workers = max(1, min(workers, tasks if tasks is not None else workers))
    return workers, _note(workers, requested, cpus=cpus, fitting=fitting, memory=memory)


def _note(workers: int, requested: int | None, *, cpus: int, fitting: int, memory: float) -> str:
    if workers > fitting:
        return (
            f"{workers} processes may need more than the {memory / _GIB:.1f} GiB of memory that are free; "
            f"{fitting} would fit"
        )
    if requested is None and workers == fitting < cpus:
        return f"{workers} of {cpus} CPUs used, because {memory / _GIB:.1f} GiB of memory are free"
    return ""


def usable_cpus() -> int:
    """Count the CPUs this process may use, within the limits of a job or a container."""
    try:
        cpus = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not known on this system
        cpus = os.cpu_count() or 1
    for folder in _cgroup_folders():
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if quota.isdigit() and period.strip().isdigit() and int(period) > 0:
            cpus = min(cpus, max(1, math.floor(int(quota) / int(period))))
    return cpus


def available_memory_bytes() -> float:
    """Return the memory that is free for new processes in bytes; infinity where it is not known."""
    limits = [_free_memory()]
    for folder in _cgroup_folders():
        limit, used = _read(folder / "memory.max"), _read(folder / "memory.current")
        if limit.isdigit() and used.isdigit():
            # The kernel gives the cache of files back when memory is asked for.
            limits.append(max(0.0, float(int(limit) - int(used) + _file_cache(folder))))
    return min(limits)


def _free_memory() -> float:
    for line in _read(_MEMINFO).splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable" and value.split():
            return float(value.split()[0]) * 1024
    try:  # elsewhere: what is built in, of which half is taken to be free
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2
    except (AttributeError, OSError, ValueError):
        return math.inf


def _file_cache(folder: Path) -> int:
    for line in _read(folder / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name == "inactive_file" and value.isdigit():
            return int(value)
    return 0


def _cgroup_folders() -> Iterator[Path]:
    """Yield the control group of this process and those around it: the narrowest limit counts."""
    own = next((line[3:] for line in _read(_OWN_CGROUP).splitlines() if line.startswith("0::")), "")
    folder = _CGROUPS / own.strip("/")
    while True:
        yield folder
        if folder == _CGROUPS or _CGROUPS not in folder.parents:
            return
        folder = folder.parent


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
