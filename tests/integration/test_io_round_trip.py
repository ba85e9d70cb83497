"""What the writer writes as three vendors, the reader reads back as it was."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from cordqa.io.dicom_write import write_dicom
from cordqa.io.folder import read_folder
from cordqa.records import Acquisition, Entities, ImageSet, Part

AFFINE = np.array([[0, 0, -1.5, 100.0], [-5, 0, 0, 20], [0, -1.5, 0, 110], [0, 0, 0, 1]])
RANGES = {
    Part.MAGNITUDE: (50, 3000, 0.0),
    Part.PHASE: (-3.1, 3.1, -math.pi),
    Part.REAL: (-1500, 1500, -2048.0),
    Part.IMAGINARY: (-1500, 1500, -2048.0),
}
PARAMETERS = ("inversion_time_s", "echo_time_s", "flip_angle_deg", "repetition_time_s", "field_strength_T")


def _images(vendor: str, part: Part, sequence: str) -> ImageSet:
    low, high, offset = RANGES[part]
    data = np.random.default_rng(0).uniform(low, high, (3, 2, 36, 40)).astype(np.float32)
    acquisitions = []
    for number in range(3):
        slope = (1.0, 1.5, 1.2)[number] if vendor == "Philips" else 1.0
        slope, offset = (
            (2 * math.pi / 4096, offset) if part is Part.PHASE else (slope, offset and -2048 * slope)
        )
        own = {
            "inversion recovery": {"inversion_time_s": 0.05 * 2**number},
            "spin echo": {"echo_time_s": 0.01 * (number + 1), "echo_train_length": 3},
            "gradient echo": {"flip_angle_deg": 2.0 + 5 * number, "repetition_time_s": 0.005},
        }[sequence]
        shared = {
            "repetition_time_s": 2.5,
            "echo_time_s": 0.012,
            "flip_angle_deg": 90.0,
            "field_strength_T": 3.0,
            "slice_thickness_mm": 5.0,
            "echo_train_length": 1,
            "sequence": sequence,
            "scale_slope": slope,
            "scale_intercept": offset,
        }
        acquisitions.append(Acquisition(**(shared | own)))  # type: ignore[arg-type]
    return ImageSet(
        data=data,
        affine=AFFINE,
        spacing_mm=(5.0, 1.5, 1.5),
        acquisitions=tuple(acquisitions),
        part=part,
        entities=Entities(vendor=vendor, model="X1", field_strength_T=3.0, acquired="2024-01-05T10:00:00"),
    )


@pytest.mark.parametrize("vendor", ["Siemens", "GE", "Philips"])
@pytest.mark.parametrize(
    ("part", "sequence", "enhanced", "compressed"),
    [
        (Part.MAGNITUDE, "inversion recovery", False, None),
        (Part.MAGNITUDE, "inversion recovery", True, None),
        (Part.MAGNITUDE, "spin echo", False, "rle"),
        (Part.MAGNITUDE, "spin echo", True, "jpeg2000"),
        (Part.MAGNITUDE, "gradient echo", False, None),
        (Part.PHASE, "inversion recovery", False, None),
        (Part.REAL, "inversion recovery", False, "jpeg2000"),
        (Part.IMAGINARY, "inversion recovery", True, None),
    ],
)
def test_round_trip(
    tmp_path: Path, vendor: str, part: Part, sequence: str, enhanced: bool, compressed: str | None
) -> None:
    original = _images(vendor, part, sequence)
    write_dicom(original, tmp_path / "scan", enhanced=enhanced, compressed=compressed)
    (read,) = read_folder(tmp_path).sets
    assert read.part is part
    assert read.acquisitions[0].sequence == sequence
    step = max(a.scale_slope for a in original.acquisitions)
    np.testing.assert_allclose(read.data, original.data, atol=0.501 * step, rtol=0)
    np.testing.assert_allclose(read.affine, original.affine, atol=1e-3)
    for name in PARAMETERS:
        np.testing.assert_allclose(read.values(name), original.values(name), rtol=1e-5, err_msg=name)
    assert read.entities.scanner == f"{vendor} X1 3 T"
    assert {n.code for n in read.notices} <= {"scaling.differs"}
