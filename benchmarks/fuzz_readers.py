"""Fuzz the DICOM and NIfTI readers for as long as asked; each batch in a process of its own.

A crash of a decoder (not a Python error) shows as the exit status of the batch's process, and
the batch number reproduces it.  Usage: ``python benchmarks/fuzz_readers.py [SECONDS] [FIRST_BATCH]``.
"""

from __future__ import annotations

import multiprocessing
import random
import resource
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from helpers_fuzz import dicom_seeds, nifti_seeds, run_dicom, run_nifti

BATCH = 200
BATCHES_PER_PROCESS = 10
TIMEOUT_S = 120


def _work(first: int, folder: str, result: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    root = Path(folder)
    kinds = ((dicom_seeds(root), run_dicom), (nifti_seeds(root), run_nifti))
    for batch in range(first, first + BATCHES_PER_PROCESS):
        seeds, run = kinds[batch % 4 == 3]
        try:
            result.put((batch, run(root / "batch", seeds, random.Random(batch), BATCH), ""))
        except BaseException:
            result.put((batch, 0, traceback.format_exc()))
    result.put((-1, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, ""))


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    batch = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    begin, files, used, peak, failures = time.monotonic(), 0, 0, 0, 0
    context = multiprocessing.get_context("spawn")
    while time.monotonic() - begin < seconds:
        with tempfile.TemporaryDirectory() as folder:
            queue = context.Queue()
            process = context.Process(target=_work, args=(batch, folder, queue))
            process.start()
            process.join(TIMEOUT_S)
            if process.is_alive():
                process.kill()
                print(f"batches from {batch}: HANG (more than {TIMEOUT_S} s)")
                failures += 1
            elif process.exitcode:
                print(f"batches from {batch}: CRASH (exit status {process.exitcode})")
                failures += 1
            while not queue.empty():
                number, count, error = queue.get()
                if error:
                    print(f"batch {number}:\n{error}")
                    failures += 1
                elif number < 0:
                    peak = max(peak, count)
                else:
                    files, used = files + BATCH, used + count
        batch += BATCHES_PER_PROCESS
    print(f"files read      {files}")
    print(f"ended in a set  {used}")
    print(f"failures        {failures}")
    print(f"peak memory     {peak} MiB")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
