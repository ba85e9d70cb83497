"""DICOM files made from image sets: read back with pydicom, by the rules of each vendor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from simulate_plates import make_plate

from cordqa.errors import ConfigError, OutputError
from cordqa.io.dicom_write import write_dicom
from cordqa.io.dicom_write_vendor import STYLES
from cordqa.records import Acquisition, Entities, ImageSet, Part
from cordqa.simulate.acquire import acquire, quantise
from cordqa.simulate.scanner import Session, SimulatedScanner
from cordqa.simulate.sequences import InversionRecovery, MultiEchoSpinEcho, VariableFlipAngle
from cordqa.simulate.study import three_vendor_scanners

PLATE = make_plate("5")
SESSION = Session(name="01", acquired="2026-03-02T08:30:00")
RECOVERY = InversionRecovery(inversion_times_s=(0.035, 0.3, 2.0), repetition_times_s=(2.535, 2.8, 4.5))
TRAIN = MultiEchoSpinEcho(n_echoes=4, echo_spacing_s=0.0095, repetition_time_s=2.5)
SCANNERS = {scanner.vendor: scanner for scanner in three_vendor_scanners()}
VENDORS = sorted(SCANNERS)

#: Attributes that must be there in every MR image: type 1 with a value, type 2 possibly empty.
COMMON_TYPE_1 = [
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "Modality",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelData",
    "ImageType",
]
COMMON_TYPE_2 = [
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "SeriesNumber",
    "InstanceNumber",
    "Manufacturer",
    "PositionReferenceIndicator",
]
CLASSIC_TYPE_1 = [
    "ScanningSequence",
    "SequenceVariant",
    "PixelSpacing",
    "ImageOrientationPatient",
    "ImagePositionPatient",
]
CLASSIC_TYPE_2 = [
    "ScanOptions",
    "MRAcquisitionType",
    "EchoTime",
    "EchoTrainLength",
    "SliceThickness",
    "RepetitionTime",
]
ENHANCED_TYPE_1 = [
    "NumberOfFrames",
    "ContentDate",
    "ContentTime",
    "AcquisitionDateTime",
    "PixelPresentation",
    "VolumetricProperties",
    "VolumeBasedCalculationTechnique",
    "ComplexImageComponent",
    "AcquisitionContrast",
    "ResonantNucleus",
    "KSpaceFiltering",
    "MagneticFieldStrength",
    "ApplicableSafetyStandardAgency",
    "ContentQualification",
    "BurnedInAnnotation",
    "LossyImageCompression",
    "PresentationLUTShape",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
    "PulseSequenceName",
    "MRAcquisitionType",
    "EchoPulseSequence",
    "MultipleSpinEcho",
    "MultiPlanarExcitation",
    "PhaseContrast",
    "TimeOfFlightContrast",
    "SteadyStatePulseSequence",
    "EchoPlanarPulseSequence",
    "SaturationRecovery",
    "SpectrallySelectedSuppression",
    "OversamplingPhase",
    "GeometryOfKSpaceTraversal",
    "SegmentedKSpaceTraversal",
    "NumberOfKSpaceTrajectories",
    "DimensionOrganizationSequence",
    "DimensionIndexSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]


def scan(vendor: str, sequence=RECOVERY, **options) -> tuple[ImageSet, SimulatedScanner]:
    scanner = SCANNERS[vendor]
    rng = np.random.default_rng(3)
    return acquire(PLATE, sequence, scanner, rng, session=SESSION, **options)[0], scanner


def values_of(dataset: Dataset) -> np.ndarray:
    """Image values of a classic image, by each vendor's rule."""
    stored = dataset.pixel_array.astype(float)
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    block = (0x2005, 0x100E)
    if block in dataset:
        return (stored * slope + intercept) / (slope * dataset[block].value)
    return stored * slope + intercept


def check_present(dataset: Dataset, type_1: list[str], type_2: list[str]) -> None:
    missing = [k for k in type_1 + type_2 if k not in dataset]
    empty = [k for k in type_1 if k in dataset and dataset[k].is_empty]
    assert not missing
    assert not empty


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("sequence", [RECOVERY, TRAIN, VariableFlipAngle(flip_angles_deg=(3.0, 15.0))])
def test_classic_images_come_back(tmp_path: Path, vendor: str, sequence) -> None:
    image_set, scanner = scan(vendor, sequence)
    paths = write_dicom(image_set, tmp_path)
    assert len(paths) == len(set(paths)) == image_set.data.shape[0]
    expected = quantise(image_set, scanner)
    for index, path in enumerate(paths):
        dataset = pydicom.dcmread(path)
        # Philips keeps its scale in single precision.
        assert np.allclose(values_of(dataset), expected.data[index, 0], rtol=2e-7, atol=1e-3)
        header = image_set.acquisitions[index]
        assert float(dataset.EchoTime) / 1000 == pytest.approx(header.echo_time_s, rel=1e-12)
        assert float(dataset.RepetitionTime) / 1000 == pytest.approx(header.repetition_time_s, rel=1e-12)
        assert float(dataset.FlipAngle) == header.flip_angle_deg
        assert float(dataset.MagneticFieldStrength) == 3.0
        if sequence is RECOVERY:
            assert float(dataset.InversionTime) / 1000 == pytest.approx(header.inversion_time_s, rel=1e-12)
        else:
            assert "InversionTime" not in dataset


@pytest.mark.parametrize("vendor", VENDORS)
def test_mandatory_attributes_of_classic_images(tmp_path: Path, vendor: str) -> None:
    image_set, _ = scan(vendor)
    for path in write_dicom(image_set, tmp_path):
        dataset = pydicom.dcmread(path)
        check_present(dataset, COMMON_TYPE_1 + CLASSIC_TYPE_1, COMMON_TYPE_2 + CLASSIC_TYPE_2)
        assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.4"
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
        assert dataset.PatientName == "SIMULATED^PHANTOM"
        assert dataset.Manufacturer == STYLES[vendor].manufacturer


@pytest.mark.parametrize("vendor", VENDORS)
def test_mandatory_attributes_of_enhanced_images(tmp_path: Path, vendor: str) -> None:
    image_set, _ = scan(vendor)
    (path,) = write_dicom(image_set, tmp_path, enhanced=True)
    dataset = pydicom.dcmread(path)
    assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.4.1"
    check_present(dataset, COMMON_TYPE_1 + ENHANCED_TYPE_1, COMMON_TYPE_2)
    n = len(dataset.DimensionIndexSequence)
    assert n == 3  # stack, slice, inversion time
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        content = frame.FrameContentSequence[0]
        assert len(content.DimensionIndexValues) == n
        assert frame.PlanePositionSequence[0].ImagePositionPatient
        assert frame.MRImageFrameTypeSequence[0].ComplexImageComponent == "MAGNITUDE"
        assert frame.PixelValueTransformationSequence[0].RescaleType
    shared = dataset.SharedFunctionalGroupsSequence[0]
    assert shared.PixelMeasuresSequence[0].PixelSpacing == pytest.approx(list(image_set.spacing_mm[1:]))
    assert len(shared.PlaneOrientationSequence[0].ImageOrientationPatient) == 6


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("sequence", [RECOVERY, TRAIN])
def test_enhanced_frames_come_back(tmp_path: Path, vendor: str, sequence) -> None:
    image_set, scanner = scan(vendor, sequence)
    (path,) = write_dicom(image_set, tmp_path, enhanced=True)
    dataset = pydicom.dcmread(path)
    frames = dataset.PerFrameFunctionalGroupsSequence
    assert len(frames) == dataset.NumberOfFrames == image_set.data.shape[0]
    expected = quantise(image_set, scanner).data[:, 0]
    for index, (frame, stored) in enumerate(zip(frames, dataset.pixel_array.astype(float), strict=True)):
        scale = frame.PixelValueTransformationSequence[0]
        values = stored * float(scale.RescaleSlope) + float(scale.RescaleIntercept)
        if vendor == "Philips":
            assert frame[0x2005, 0x0014].value == "Philips MR Imaging DD 005"
            private = frame[0x2005, 0x140F].value[0]
            assert private[0x2005, 0x0010].value == "Philips MR Imaging DD 001"
            values /= float(scale.RescaleSlope) * private[0x2005, 0x100E].value
        assert np.allclose(values, expected[index], rtol=2e-7, atol=1e-3)
        header = image_set.acquisitions[index]
        assert frame.MREchoSequence[0].EffectiveEchoTime == pytest.approx(header.echo_time_s * 1000)
        timing = frame.MRTimingAndRelatedParametersSequence[0]
        assert float(timing.RepetitionTime) == pytest.approx(header.repetition_time_s * 1000)
        modifier = frame.MRModifierSequence[0]
        if sequence is RECOVERY:
            assert modifier.InversionTimes == pytest.approx(header.inversion_time_s * 1000)
        else:
            assert "InversionTimes" not in modifier


def test_philips_private_scale_differs_between_series_and_obeys_the_rule(tmp_path: Path) -> None:
    image_set, _ = scan("Philips")
    datasets = [pydicom.dcmread(path) for path in write_dicom(image_set, tmp_path)]
    scales = [d[0x2005, 0x100E].value for d in datasets]
    assert len(set(scales)) == 3
    assert scales == pytest.approx(1 / image_set.values("scale_slope"), rel=1e-7)
    for dataset in datasets:
        assert dataset[0x2005, 0x0010].value == "Philips MR Imaging DD 001"
        assert dataset[0x2005, 0x100E].VR == "FL"
        mapping = dataset.RealWorldValueMappingSequence[0]
        # As on real scanners the real-world value is the display value, not the value in FP.
        assert mapping.RealWorldValueSlope == pytest.approx(float(dataset.RescaleSlope))
        assert dataset.BitsStored == 12
    train, _ = scan("Philips", TRAIN)
    files = write_dicom(train, tmp_path, series_number=10)
    assert len({pydicom.dcmread(p)[0x2005, 0x100E].value for p in files}) == 1


def test_siemens_and_ge_write_no_rescale_where_there_is_none(tmp_path: Path) -> None:
    for vendor in ("Siemens", "GE"):
        image_set, _ = scan(vendor)
        dataset = pydicom.dcmread(write_dicom(image_set, tmp_path / vendor)[0])
        assert "RescaleSlope" not in dataset
        assert dataset.PixelRepresentation == int(vendor == "GE")


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("part", list(Part))
def test_parts_are_marked_and_signed_values_survive(tmp_path: Path, vendor: str, part: Part) -> None:
    image_set, scanner = scan(vendor, part=part)
    paths = write_dicom(image_set, tmp_path)
    letter = {Part.MAGNITUDE: "M", Part.PHASE: "P", Part.REAL: "R", Part.IMAGINARY: "I"}[part]
    expected = quantise(image_set, scanner).data
    for index, path in enumerate(paths):
        dataset = pydicom.dcmread(path)
        if vendor == "GE":
            assert dataset[0x0043, 0x0010].value == "GEMS_PARM_01"
            assert dataset[0x0043, 0x102F].value == "MPRI".index(letter)
        else:
            assert letter in dataset.ImageType
        # Siemens counts 4096 for half a turn of phase, GE milliradians.
        unit = {"Siemens": np.pi / 4096, "GE": 1e-3}.get(vendor, 1.0) if part is Part.PHASE else 1.0
        tolerance = 1e-6 * float(np.abs(expected).max())
        assert np.allclose(values_of(dataset) * unit, expected[index, 0], rtol=2e-7, atol=tolerance)


@pytest.mark.parametrize("compression", ["rle", "jpeg2000"])
@pytest.mark.parametrize("enhanced", [False, True])
@pytest.mark.parametrize("vendor", ["GE", "Philips"])
def test_compressed_files_hold_the_same_pixels(
    tmp_path: Path, compression: str, enhanced: bool, vendor: str
) -> None:
    image_set, _ = scan(vendor)
    plain = write_dicom(image_set, tmp_path / "plain", enhanced=enhanced)
    small = write_dicom(image_set, tmp_path / "small", enhanced=enhanced, compressed=compression)
    for before, after in zip(plain, small, strict=True):
        a, b = pydicom.dcmread(before), pydicom.dcmread(after)
        assert b.file_meta.TransferSyntaxUID.is_compressed
        assert a.SOPInstanceUID == b.SOPInstanceUID
        assert np.array_equal(a.pixel_array, b.pixel_array)
        assert after.stat().st_size < before.stat().st_size


def test_positions_and_directions_are_lps(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    affine = np.eye(4)
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    affine[:3, :3] = axes * np.array([7.0, 1.2, 0.8])
    affine[:3, 3] = (11.0, -22.0, 33.0)
    image_set = ImageSet(
        data=np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5),
        affine=affine,
        spacing_mm=(7.0, 1.2, 0.8),
        acquisitions=(Acquisition(echo_time_s=0.01), Acquisition(echo_time_s=0.02)),
        entities=Entities(vendor="Siemens"),
    )
    paths = write_dicom(image_set, tmp_path)
    assert len(paths) == 6
    flip = np.diag([-1.0, -1.0, 1.0])
    for number, path in enumerate(paths):
        dataset = pydicom.dcmread(path)
        plane = number % 3
        assert np.array_equal(dataset.pixel_array, image_set.data[number // 3, plane])
        assert int(dataset.EchoNumbers) == number // 3 + 1
        row, column = 2, 3
        direction = np.array(dataset.ImageOrientationPatient, dtype=float)
        spacing = [float(value) for value in dataset.PixelSpacing]
        lps = np.array(dataset.ImagePositionPatient, dtype=float)
        lps = lps + direction[:3] * spacing[1] * column + direction[3:] * spacing[0] * row
        expected = flip @ (affine @ [plane, row, column, 1])[:3]
        assert lps == pytest.approx(expected, abs=1e-9)


def test_series_follow_inversion_time_and_flip_angle(tmp_path: Path) -> None:
    recovery, _ = scan("Siemens")
    datasets = [pydicom.dcmread(p) for p in write_dicom(recovery, tmp_path, series_number=5)]
    assert [int(d.SeriesNumber) for d in datasets] == [5, 6, 7]
    assert len({d.SeriesInstanceUID for d in datasets}) == 3
    train, _ = scan("Siemens", TRAIN)
    echoes = [pydicom.dcmread(p) for p in write_dicom(train, tmp_path, series_number=8)]
    assert len({d.SeriesInstanceUID for d in echoes}) == 1
    assert [int(d.EchoNumbers) for d in echoes] == [1, 2, 3, 4]
    # One visit is one study.
    assert len({d.StudyInstanceUID for d in datasets + echoes}) == 1
    assert len({d.SOPInstanceUID for d in datasets + echoes}) == 7
    assert {d.StudyDate for d in datasets} == {"20260302"}


def test_files_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    image_set, _ = scan("Philips", TRAIN)
    first = [p.read_bytes() for p in write_dicom(image_set, tmp_path / "a", seed=4)]
    second = [p.read_bytes() for p in write_dicom(image_set, tmp_path / "b", seed=4)]
    assert first == second
    other = pydicom.dcmread(write_dicom(image_set, tmp_path / "c", seed=5)[0])
    assert other.SOPInstanceUID != pydicom.dcmread(tmp_path / "a" / "IM_0001_0001").SOPInstanceUID


def test_sessions_and_scanners_are_different_studies(tmp_path: Path) -> None:
    image_set, _ = scan("GE", TRAIN)
    uids = set()
    for number, change in enumerate(
        ({}, {"session": "02"}, {"scanner": "other"}, {"acquired": "2026-04-01T10:00:00"})
    ):
        changed = replace(image_set, entities=replace(image_set.entities, **change))
        uids.add(pydicom.dcmread(write_dicom(changed, tmp_path / str(number))[0]).StudyInstanceUID)
    assert len(uids) == 4


def test_clipped_values_stand_at_the_top_of_the_range(tmp_path: Path) -> None:
    image_set, scanner = scan("Philips", headroom={2: 0.8})
    dataset = pydicom.dcmread(write_dicom(image_set, tmp_path)[2])
    clipped = quantise(image_set, scanner).clipped
    assert clipped is not None
    assert np.array_equal(dataset.pixel_array == 4095, clipped[2, 0])
    assert clipped[2].any()


def test_existing_files_are_kept_unless_told_otherwise(tmp_path: Path) -> None:
    image_set, _ = scan("GE", TRAIN)
    first = write_dicom(image_set, tmp_path)[0]
    before = first.read_bytes()
    with pytest.raises(OutputError, match="there already"):
        write_dicom(image_set, tmp_path, seed=9)
    assert first.read_bytes() == before
    write_dicom(image_set, tmp_path, seed=9, overwrite=True)
    assert first.read_bytes() != before
    assert not list(tmp_path.glob(".*"))


def test_unknown_parameters_stay_empty(tmp_path: Path) -> None:
    image_set = ImageSet(
        data=np.ones((1, 1, 4, 4), dtype=np.float32),
        affine=np.eye(4),
        spacing_mm=(1.0, 1.0, 1.0),
        acquisitions=(Acquisition(),),
        entities=Entities(vendor="GE"),
    )
    enhanced = pydicom.dcmread(write_dicom(image_set, tmp_path / "enhanced", enhanced=True)[0])
    assert np.array_equal(enhanced.pixel_array, np.ones((4, 4)))
    dataset = pydicom.dcmread(write_dicom(image_set, tmp_path)[0])
    assert dataset.RepetitionTime is None
    assert dataset.EchoTime is None
    assert "InversionTime" not in dataset
    assert "MagneticFieldStrength" not in dataset
    assert dataset.StudyDate == ""


def test_header_texts_cannot_break_the_header(tmp_path: Path) -> None:
    image_set, _ = scan("GE", TRAIN)
    nasty = replace(
        image_set.entities, site="a\\b\n" + 100 * "x", scanner="..\\..", model="\0", acquisition="µ ü 漢"
    )
    dataset = pydicom.dcmread(write_dicom(replace(image_set, entities=nasty), tmp_path)[0])
    assert dataset.InstitutionName.startswith("a b x")
    assert dataset.DeviceSerialNumber == ".. .."
    assert dataset.SeriesDescription == "µ ü 漢"


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    image_set, _ = scan("GE", TRAIN)
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match="cannot be made"):
        write_dicom(image_set, tmp_path / "taken")


def bad(**change: object) -> ImageSet:
    image_set, _ = scan("GE", TRAIN)
    return replace(image_set, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "options", "error"),
    [
        ({"entities": Entities(vendor="Acme")}, {}, ConfigError),
        ({"entities": Entities(vendor="GE", acquired="yesterday")}, {}, ConfigError),
        ({}, {"compressed": "zip"}, ConfigError),
        ({"data": np.full((4, 1, 8, 8), np.nan, dtype=np.float32)}, {}, OutputError),
        ({"data": np.zeros((3, 1, 8, 8), dtype=np.float32)}, {}, OutputError),
        ({"data": np.zeros((4, 1, 0, 8), dtype=np.float32)}, {}, OutputError),
        ({"acquisitions": (Acquisition(scale_slope=0.0),) * 4}, {}, OutputError),
        ({"acquisitions": (Acquisition(scale_intercept=float("inf")),) * 4}, {}, OutputError),
        ({"affine": np.zeros((4, 4))}, {}, OutputError),
        ({"affine": np.eye(4) + np.eye(4, k=1)}, {}, OutputError),
    ],
)
def test_what_cannot_be_written_is_said(
    tmp_path: Path, change: dict[str, object], options: dict[str, str], error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        write_dicom(bad(**change), tmp_path, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert not [path for path in tmp_path.iterdir() if path.is_file()]
