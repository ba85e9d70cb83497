"""DICOM headers as protocols: public elements, vendors' own fields, and what is passed over."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers_dicom import SECRETS, add_philips_scale, mr_image, uid, write

from cordqa.errors import EmptyInputError
from cordqa.io.dicom_protocol import holds_dicom, read_dicom_protocols

SIEMENS, GE_PARAMETERS, GE_ACQUISITION = "SIEMENS MR HEADER", "GEMS_PARM_01", "GEMS_ACQU_01"
PHILIPS = "Philips MR Imaging DD 001"


def private(ds, group: int, creator: str, element: int, vr: str, value, *, block: int = 0x10):
    ds.add_new((group, block), "LO", creator)
    ds.add_new((group, block << 8 | element), vr, value)
    return ds


def read_one(folder: Path):
    (series,) = read_dicom_protocols(folder).series
    return series


def test_times_are_in_seconds_and_matrices_along_the_phase_encoding(tmp_path: Path) -> None:
    image = mr_image(AcquisitionMatrix=[0, 192, 128, 0], PixelBandwidth=260, SpacingBetweenSlices=5.5)
    write(tmp_path / "a", image)
    series = read_one(tmp_path)
    assert series.values["RepetitionTime"] == 2.0 and series.values["EchoTime"] == 0.01
    assert series.values["AcquisitionMatrixPE"] == 128 and series.values["ReconMatrixPE"] == 16
    assert (series.values["VoxelSizeI"], series.values["VoxelSizeJ"], series.values["VoxelSizeK"]) == (
        2,
        1.5,
        5.5,
    )
    assert series.origins["RepetitionTime"] == "DICOM" and series.vendor == "Siemens"
    assert series.acquired == "2024-01-05T10:11:12.500000"


def test_siemens_acceleration_and_scan_time(tmp_path: Path) -> None:
    image = private(mr_image(), 0x0051, SIEMENS, 0x11, "LO", "p2 s3")
    private(image, 0x0051, SIEMENS, 0x0A, "LO", "TA 02:12")
    write(tmp_path / "a", image)
    series = read_one(tmp_path)
    assert series.values["ParallelReductionFactorInPlane"] == 2
    assert series.values["MultibandAccelerationFactor"] == 3
    assert series.values["AcquisitionDuration"] == 132
    assert series.origins["MultibandAccelerationFactor"] == "private"


@pytest.mark.parametrize(("factor", "found"), [(b"1", None), (b"4", 4.0)])
def test_a_multiband_factor_of_one_in_the_text_protocol_is_not_believed(
    tmp_path: Path, factor: bytes, found: float | None
) -> None:
    text = b"SV10 sSliceAcceleration.lMultiBandFactor\t = \t" + factor + b"\nlTotalScanTimeSec = 95\n"
    write(tmp_path / "a", private(mr_image(), 0x0029, "SIEMENS CSA HEADER", 0x20, "OB", text + b" "))
    values = read_one(tmp_path).values
    assert values.get("MultibandAccelerationFactor") == found
    assert values["AcquisitionDuration"] == 95


def test_ge_reciprocals_multiband_and_microseconds(tmp_path: Path) -> None:
    image = mr_image(Manufacturer="GE MEDICAL SYSTEMS")
    private(image, 0x0043, GE_PARAMETERS, 0x83, "DS", ["0.5", "1"], block=0x11)
    private(image, 0x0043, GE_PARAMETERS, 0xB6, "LO", "2\\4\\19\\\\\\\\", block=0x11)
    private(image, 0x0019, GE_ACQUISITION, 0x5A, "FL", 204_050_000.0)
    write(tmp_path / "a", image)
    values = read_one(tmp_path).values
    assert values["ParallelReductionFactorInPlane"] == 2
    assert values["MultibandAccelerationFactor"] == 2
    assert values["AcquisitionDuration"] == pytest.approx(204.05)


def test_philips_scale_slopes_that_differ_within_a_series_are_all_kept(tmp_path: Path) -> None:
    for number, slope in enumerate((0.5, 0.5, 0.7)):
        image = mr_image(
            Manufacturer="Philips", InstanceNumber=number, RescaleSlope="2", RescaleIntercept="0"
        )
        private(add_philips_scale(image, slope=slope), 0x2005, PHILIPS, 0x33, "FL", 195.0)
        write(tmp_path / f"{number}", image)
    values = read_one(tmp_path).values
    assert values["PhilipsScaleSlope"] == pytest.approx((0.5, 0.7))
    assert values["PhilipsRescaleSlope"] == 2 and values["AcquisitionDuration"] == 195


def test_public_and_private_that_differ_contradict_each_other(tmp_path: Path) -> None:
    image = private(
        mr_image(Manufacturer="Philips", AcquisitionDuration=100.0), 0x2005, PHILIPS, 0x33, "FL", 195.0
    )
    write(tmp_path / "a", image)
    series = read_one(tmp_path)
    assert "100" in series.contradictions["AcquisitionDuration"]
    assert "195" in series.contradictions["AcquisitionDuration"]


@pytest.mark.parametrize(
    ("elements", "state"),
    [
        ({"MagnetizationTransfer": "OFF_RESONANCE"}, True),
        ({"MagnetizationTransfer": "NONE"}, False),
        ({"SequenceVariant": ["SP", "MTC"]}, True),
        ({"ScanOptions": ["PFP", "MT"]}, True),
        ({"SequenceVariant": "SP"}, None),
    ],
)
def test_the_transfer_pulse(tmp_path: Path, elements: dict, state: bool | None) -> None:
    write(tmp_path / "a", mr_image(**elements))
    assert read_one(tmp_path).values.get("MTState") is state


def test_echoes_of_one_series_are_records_of_their_own(tmp_path: Path) -> None:
    for number, echo in enumerate((5, 10, 5, 10)):
        write(tmp_path / str(number), mr_image(EchoTime=echo, InstanceNumber=number))
    reading = read_dicom_protocols(tmp_path)
    assert sorted(one.values["EchoTime"] for one in reading.series) == [0.005, 0.01]
    assert reading.n_files == 4


def test_what_is_no_image_is_counted_and_what_is_broken_is_named(tmp_path: Path) -> None:
    write(tmp_path / "good", mr_image())
    write(tmp_path / "survey", mr_image(ImageType=["ORIGINAL", "PRIMARY", "M", "LOCALIZER"]))
    mosaic = ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]
    write(tmp_path / "mosaic", mr_image(ImageType=mosaic, SeriesInstanceUID=uid("other")))
    (tmp_path / "cut").write_bytes((tmp_path / "good").read_bytes()[:200])
    (tmp_path / "readme.txt").write_text("nothing")
    reading = read_dicom_protocols(tmp_path)
    assert reading.ignored["localizer"] == 1
    assert any("mosaic" in one.source for one in reading.series)
    assert {one.source for one in reading.series} == {"good", "mosaic"}
    assert reading.n_files == 4 and ("cut" in reading.broken or sum(reading.ignored.values()) == 2)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmptyInputError):
        read_dicom_protocols(tmp_path)
    assert not holds_dicom(tmp_path)
    write(tmp_path / "survey", mr_image(ImageType=["ORIGINAL", "PRIMARY", "M", "LOCALIZER"]))
    assert holds_dicom(tmp_path)
    with pytest.raises(EmptyInputError, match="1 localizer"):
        read_dicom_protocols(tmp_path)


def test_participants_are_numbered_unless_identity_is_asked_for(tmp_path: Path) -> None:
    for number, (patient, day) in enumerate([("Ann", "20240101"), ("Bob", "20240101"), ("Ann", "20240301")]):
        image = mr_image(
            PatientID=patient,
            StudyDate=day,
            StudyInstanceUID=uid(patient + day),
            SeriesInstanceUID=uid(str(number)),
        )
        write(tmp_path / str(number), image)
    series = read_dicom_protocols(tmp_path).series
    assert [(one.subject, one.session) for one in series] == [
        ("01", "20240101"),
        ("02", ""),
        ("01", "20240301"),
    ]
    shown = repr(series)
    assert not any(secret in shown for secret in SECRETS if secret != "FREETEXT")
    named = read_dicom_protocols(tmp_path, show_identity=True).series
    assert {one.subject for one in named} == {"Ann", "Bob"}


@pytest.mark.data
def test_real_headers_of_three_vendors(shared_data: Path) -> None:
    reading = read_dicom_protocols(shared_data / "phantom")
    assert not reading.broken and reading.n_files == 96
    times = {}
    for one in reading.series:
        times.setdefault(one.vendor, set()).add(one.values.get("AcquisitionDuration"))
    assert 190.0 in times["Siemens"] and 204.05 in times["GE"] and 195.0 in times["Philips"]
    ge = next(one for one in reading.series if one.vendor == "GE")
    # 192 lines were acquired and 256 stored.
    assert (ge.values["AcquisitionMatrixPE"], ge.values["ReconMatrixPE"]) == (192, 256)
