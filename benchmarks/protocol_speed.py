"""How long a check takes: 2,000 sidecars read, checked and reported; 10,000 files indexed.

    python benchmarks/protocol_speed.py [PARTICIPANTS]

Process CPU time, the least of several runs; the sidecars are simulated, with deviations planted.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

REPEATS = 3


def least(run: Callable[[], object]) -> float:
    """Return the least CPU time of several runs in seconds."""
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def children_cpu(command: list[str]) -> float:
    """Return the least CPU time of a command with its imports."""
    import resource

    times = []
    for _ in range(REPEATS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=False, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


def main() -> None:
    from cordqa.io.bids_index import index_dataset
    from cordqa.protocol.compliance import check_compliance
    from cordqa.protocol.definition import load_protocol
    from cordqa.simulate.protocol_study import simulate_protocol_study
    from cordqa.workflow.protocol.observe import observe_dataset

    participants = int(sys.argv[1]) if len(sys.argv) > 1 else 286
    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder) / "data", Path(folder) / "out"
        study = simulate_protocol_study(n_participants=participants)
        _write(study.files, root)
        protocol = load_protocol("spine-generic-3t")
        observed = observe_dataset(root)
        rows = [
            (f"read {study.n_series} sidecars", least(lambda: observe_dataset(root))),
            ("compare them with the protocol", least(lambda: check_compliance(protocol, observed.series))),
            (
                "whole command with imports, tables and page",
                children_cpu(
                    [sys.executable, "-m", "cordqa", "protocol", "spine-generic-3t", str(root), str(out)]
                ),
            ),
        ]
        many = Path(folder) / "many"
        n_files = _many_files(many)
        rows.append((f"index a BIDS tree of {n_files} files", least(lambda: index_dataset(many))))
        page = (out / "report.html").stat().st_size
    for words, seconds in rows:
        print(f"{words:<48} {seconds:8.2f} s CPU")
    print(f"{'size of the page':<48} {page / 1e6:8.2f} MB")


def _write(files: dict[str, str] | object, root: Path) -> None:
    for name, text in files.items():  # type: ignore[union-attr]
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _many_files(root: Path, participants: int = 500) -> int:
    """Ten series with image and sidecar for each participant: 10,000 files."""
    names = [
        f"{kind}_run-{run}_{suffix}"
        for kind in ("acq-a",)
        for run in range(1, 6)
        for suffix in ("T1w", "T2w")
    ]
    count = 0
    for number in range(participants):
        folder = root / f"sub-{number:04d}" / "anat"
        folder.mkdir(parents=True)
        for name in names:
            for ending in (".nii.gz", ".json"):
                (folder / f"sub-{number:04d}_{name}{ending}").touch()
                count += 1
    return count


if __name__ == "__main__":
    main()
