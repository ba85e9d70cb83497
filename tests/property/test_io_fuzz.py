"""Damaged files, thousands of them: no hang, no crash, no error that is not this project's."""

from __future__ import annotations

import random
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers_fuzz import dicom_seeds, nifti_seeds, run_dicom, run_nifti

#: Files per kind; the same files every time, since seeds and mutations are.
N_BATCHES, BATCH = 24, 50
SECONDS = 20.0  # on a slow machine, fewer
_UNIT = 1024 if sys.platform == "darwin" else 1  # ru_maxrss is in bytes there, in KiB elsewhere


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 / _UNIT


def _fuzz(folder: Path, seeds: list[bytes], run: Callable[..., int]) -> tuple[int, int]:
    begin, before = time.process_time(), _peak_mib()
    done = used = 0
    for batch in range(N_BATCHES):
        used += run(folder / "batch", seeds, random.Random(batch), BATCH)
        done += BATCH
        if time.process_time() - begin > SECONDS:
            break
    assert _peak_mib() - before < 400, "memory followed what damaged files claim"
    return done, used


@pytest.mark.parametrize(
    ("make_seeds", "run"), [(dicom_seeds, run_dicom), (nifti_seeds, run_nifti)], ids=["dicom", "nifti"]
)
def test_damaged_files_end_in_a_set_or_in_a_reason(
    tmp_path: Path, make_seeds: Callable[[Path], list[bytes]], run: Callable[..., int]
) -> None:
    done, used = _fuzz(tmp_path, make_seeds(tmp_path), run)
    assert done >= 500
    # Some damage is harmless; if all files failed, the mutations would test nothing.
    assert used > 0.05 * done


def test_every_prefix_of_a_small_file(tmp_path: Path) -> None:
    from helpers_fuzz import _read

    content = dicom_seeds(tmp_path)[0]
    folder = tmp_path / "cut"
    folder.mkdir()
    for number, size in enumerate(range(0, len(content), 7)):
        (folder / f"{number:04d}").write_bytes(content[:size])
    assert _read(folder) == 0
