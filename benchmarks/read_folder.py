"""Time the sorting of a folder of small DICOM files.

Makes 1,000 files (ten series of 100: inversion recovery, multi-echo and flip-angle series of
several slices, with as many private elements as real scanners write), reads the folder and
prints CPU time.  Usage: ``python benchmarks/read_folder.py [N_FILES] [FOLDER]``; with a folder,
that one is read instead.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

TARGET_S, LIMIT_S = 2.0, 5.0
ROWS = 192
PRIVATE_ELEMENTS = 200


def _make(folder: Path, count: int) -> None:
    from helpers_dicom import add_philips_scale, mr_image, uid, write

    rng = np.random.default_rng(0)
    for number in range(count):
        series, image = divmod(number, 100)
        echo, slice_number = divmod(image, 10)
        pixels = rng.integers(0, 3000, (ROWS, ROWS)).astype(np.uint16)
        ds = mr_image(
            pixels,
            SeriesInstanceUID=uid(f"series {series}"),
            SeriesNumber=series + 1,
            InstanceNumber=image + 1,
            AcquisitionTime=f"{10 + series}0000",
            EchoTime=10 * (echo + 1),
            ImagePositionPatient=[0, 0, 5 * slice_number],
        )
        add_philips_scale(ds, slope=0.01 * (series + 1))
        ds.add_new((0x2001, 0x0010), "LO", "Philips Imaging DD 001")
        for element in range(PRIVATE_ELEMENTS):
            ds.add_new((0x2001, 0x1010 + element), "LO", f"value {element}")
        write(folder / f"{number % 7}" / f"IM_{number * 7919 % count:05d}", ds)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    if len(sys.argv) > 2:
        _time(Path(sys.argv[2]))
        return
    with tempfile.TemporaryDirectory() as name:
        _make(Path(name), count)
        _time(Path(name))


def _time(folder: Path) -> None:
    begin = time.process_time()
    from cordqa.io.folder import read_folder

    imported = time.process_time()
    reading = read_folder(folder)
    done = time.process_time()
    images = sum(s.data.shape[0] * s.data.shape[1] for s in reading.sets)
    print(f"files                {reading.n_files}")
    print(f"sets, planes         {len(reading.sets)}, {images}")
    print(f"CPU, imports         {imported - begin:.2f} s")
    print(f"CPU, sort and decode {done - imported:.2f} s (limit {LIMIT_S:g} s, target {TARGET_S:g} s)")
    print(f"CPU per file         {1e3 * (done - imported) / max(reading.n_files, 1):.2f} ms")
    print(f"peak memory          {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
