"""DICOM headers and pixels: units, encodings, multi-frame, compression, damage."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers_dicom import (
    MR,
    add_philips_scale,
    enhanced_image,
    mr_image,
    picture,
    set_pixels,
    uid,
    write,
)
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from cordqa.errors import EmptyInputError, TooLargeError, UnreadableFileError
from cordqa.io.dicom import read_dicom
from cordqa.io.folder import read_folder
from cordqa.io.frames import Frame, Ignored
from cordqa.io.limits import DEFAULT_LIMITS, ReadLimits
from cordqa.records import Part


def _frames(path: Path, **options: object) -> list[Frame]:
    limits = options.get("limits", DEFAULT_LIMITS)
    result = read_dicom(path.parent, path.name, limits=limits)  # type: ignore[arg-type]
    assert isinstance(result, list)
    return result


def _stored(frame: Frame) -> np.ndarray:
    ((_, stored),) = frame.file.load([frame.index])
    return stored.values


def test_parameters_are_in_si_units_with_their_origin(tmp_path: Path) -> None:
    ds = mr_image(ScanningSequence=["SE", "IR"], InversionTime=50, RepetitionTime=1000, EchoTime=12)
    (frame,) = _frames(write(tmp_path / "a", ds))
    a = frame.acquisition
    assert (a.inversion_time_s, a.repetition_time_s, a.echo_time_s) == (0.05, 1.0, 0.012)
    assert (a.flip_angle_deg, a.field_strength_T, a.slice_thickness_mm) == (90.0, 1.5, 5.0)
    assert a.sequence == "inversion recovery"
    assert a.origins["inversion_time_s"] == "DICOM"
    assert math.isnan(a.temperature_C) and "temperature_C" not in a.origins
    assert frame.acquired == "2024-01-05T10:11:12.500000"


def test_a_missing_parameter_is_nan_not_a_default(tmp_path: Path) -> None:
    (frame,) = _frames(write(tmp_path / "a", mr_image(RepetitionTime=None, MagneticFieldStrength=None)))
    assert math.isnan(frame.acquisition.repetition_time_s)
    assert math.isnan(frame.acquisition.field_strength_T)


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"MagneticFieldStrength": 15000}, 1.5),  # gauss
        ({"MagneticFieldStrength": None, "ImagingFrequency": 127.74}, 3.0002),
        ({"MagneticFieldStrength": 0, "ImagingFrequency": 63.87}, 1.5001),
    ],
)
def test_field_strength_in_other_units(tmp_path: Path, elements: dict[str, object], expected: float) -> None:
    (frame,) = _frames(write(tmp_path / "a", mr_image(**elements)))
    assert frame.acquisition.field_strength_T == pytest.approx(expected, rel=1e-3)


def test_zero_inversion_time_of_a_spin_echo_means_none(tmp_path: Path) -> None:
    (frame,) = _frames(write(tmp_path / "a", mr_image(InversionTime=0)))
    assert math.isnan(frame.acquisition.inversion_time_s)
    assert frame.acquisition.sequence == "spin echo"


@pytest.mark.parametrize(
    "syntax",
    [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
)
def test_every_native_encoding_gives_the_same_pixels(tmp_path: Path, syntax: str) -> None:
    pixels = picture(3)
    (frame,) = _frames(write(tmp_path / "a", mr_image(pixels), syntax))
    np.testing.assert_array_equal(_stored(frame), pixels)
    assert frame.position == (-10.0, 20.0, 30.0)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_files_without_preamble_are_read(tmp_path: Path, syntax: str) -> None:
    pixels = picture(4)
    path = write(tmp_path / "a", mr_image(pixels), syntax, preamble=False)
    reading = read_folder(path.parent)
    np.testing.assert_array_equal(reading.sets[0].data[0, 0], pixels)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_compressed_pixels_equal_native_ones(tmp_path: Path, syntax: str) -> None:
    pixels = picture(5, rows=32, columns=40)
    ds = mr_image(pixels)
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.compress(syntax, generate_instance_uid=False)
    (frame,) = _frames(write(tmp_path / "a", ds, syntax))
    np.testing.assert_array_equal(_stored(frame), pixels)


@pytest.mark.parametrize("name", ["MR_small_jpeg_ls_lossless", "MR_small_jp2klossless", "MR_small_RLE"])
def test_streams_of_other_encoders(tmp_path: Path, name: str) -> None:
    path, native = (get_testdata_file(f"{n}.dcm", download=False) for n in (name, "MR_small"))
    if path is None or native is None:
        pytest.skip("pydicom came without its test files")
    planes = []
    for source in (dcmread(str(path)), dcmread(str(native))):
        ds = mr_image()
        for element in [*source.group_dataset(0x0028), source["PixelData"]]:
            ds[element.tag] = element
        planes.append(_stored(_frames(write(tmp_path / "a", ds, source.file_meta.TransferSyntaxUID))[0]))
    assert planes[0].max() > 1000
    np.testing.assert_array_equal(planes[0], planes[1])


def test_signed_values_and_overlay_bits_above_those_in_use(tmp_path: Path) -> None:
    signed = np.array([[-5, 7], [0, -2048]], dtype=np.int16)
    raw = (signed & 0x0FFF).astype(np.int16)  # 12 bits in use, sign bit at bit 11
    raw[0, 1] |= 0x4000  # an overlay bit
    ds = mr_image(raw)
    set_pixels(ds, raw, bits_stored=12)
    ds.PixelRepresentation = 1
    (frame,) = _frames(write(tmp_path / "a", ds))
    np.testing.assert_array_equal(_stored(frame), signed)


def test_enhanced_frames_have_their_own_parameters_and_positions(tmp_path: Path) -> None:
    pixels = np.stack([picture(seed) for seed in range(6)])
    frames = [{"te": te, "z": z} for te in (10, 20, 30) for z in (30, 35)]
    path = write(tmp_path / "a", enhanced_image(pixels, frames))
    reading = read_folder(path.parent)
    (images,) = reading.sets
    assert images.data.shape == (3, 2, 16, 12)
    assert images.values("echo_time_s") == pytest.approx([0.01, 0.02, 0.03])
    assert images.values("repetition_time_s") == pytest.approx([2.0] * 3)
    np.testing.assert_array_equal(images.data[1, 1], pixels[3])
    assert images.spacing_mm == pytest.approx((5.0, 1.5, 2.0))
    assert images.acquisitions[0].sequence == "spin echo"


def test_enhanced_inversion_times_parts_and_philips_scale(tmp_path: Path) -> None:
    pixels = np.stack([picture(seed) for seed in range(4)])
    frames = [
        {"ti": 50, "part": "M", "scale": 2.0},
        {"ti": 50, "part": "P", "scale": 500.0, "slope": 2.0, "intercept": -3000.0},
        {"ti": 400, "part": "M", "scale": 4.0},
        {"ti": 400, "part": "P", "scale": 500.0, "slope": 2.0, "intercept": -3000.0},
    ]
    ds = enhanced_image(pixels, frames)
    ds.Manufacturer = "Philips"
    write(tmp_path / "a", ds)
    magnitude, phase = sorted(read_folder(tmp_path).sets, key=lambda s: str(s.part))
    assert (magnitude.part, phase.part) == (Part.MAGNITUDE, Part.PHASE)
    assert magnitude.values("inversion_time_s") == pytest.approx([0.05, 0.4])
    assert magnitude.values("echo_time_s") == pytest.approx([0.01, 0.01])
    np.testing.assert_allclose(magnitude.data[0, 0], pixels[0] / 2.0)
    np.testing.assert_allclose(magnitude.data[1, 0], pixels[2] / 4.0)
    np.testing.assert_allclose(phase.data[1, 0], (pixels[3] * 2.0 - 3000.0) / 1000.0, rtol=1e-5, atol=1e-6)


def test_frame_count_that_contradicts_the_description_is_refused(tmp_path: Path) -> None:
    ds = enhanced_image(np.stack([picture(1), picture(2)]), [{"te": 10}])
    with pytest.raises(UnreadableFileError, match=r"found 1, expected 2"):
        _frames(write(tmp_path / "a", ds))


def test_classic_file_with_several_frames_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match="no description of each"):
        _frames(write(tmp_path / "a", mr_image(np.stack([picture(1), picture(2)]))))


@pytest.mark.parametrize(
    ("elements", "why"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11"}, "Basic Text SR Storage"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.1"}, "Grayscale Softcopy Presentation State Storage"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "Secondary Capture Image Storage"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4.2"}, "MR Spectroscopy Storage"),
        ({"SOPClassUID": "1.2.840.10008.1.3.10"}, "DICOMDIR"),
        ({"SOPClassUID": "1.3.46.670589.11.0.0.12.4"}, "other DICOM object"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ({"ImageType": ["DERIVED", "PRIMARY", "T1 MAP", "ND"]}, "derived map or reformatted image"),
        ({"ImageType": ["DERIVED", "PRIMARY", "M", "T2", "ND"]}, "derived map or reformatted image"),
        ({"ImageType": ["DERIVED", "SECONDARY", "OTHER"]}, "derived image"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "colour image (screenshot)"),
    ],
)
def test_other_objects_are_ignored_and_counted(tmp_path: Path, elements: dict[str, object], why: str) -> None:
    write(tmp_path / "other", mr_image(**elements))
    write(tmp_path / "good", mr_image())
    reading = read_folder(tmp_path)
    assert reading.ignored == {why: 1}
    assert len(reading.sets) == 1 and reading.outcomes == ()


def test_t2_as_contrast_of_an_original_image_is_not_a_map(tmp_path: Path) -> None:
    (frame,) = _frames(write(tmp_path / "a", mr_image(ImageType=["ORIGINAL", "PRIMARY", "T2", "NONE"])))
    assert frame.part is Part.MAGNITUDE


def test_derived_magnitude_is_used_and_said(tmp_path: Path) -> None:
    write(tmp_path / "a", mr_image(ImageType=["DERIVED", "PRIMARY", "M", "NORM"]))
    (images,) = read_folder(tmp_path).sets
    assert [n.code for n in images.notices] == ["image.derived"]


def test_lossy_compression_is_said(tmp_path: Path) -> None:
    write(tmp_path / "a", mr_image(LossyImageCompression="01"))
    (images,) = read_folder(tmp_path).sets
    assert "image.lossy" in [n.code for n in images.notices]


@pytest.mark.parametrize("keyword", ["PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"])
def test_missing_geometry_names_the_element_and_what_to_do(tmp_path: Path, keyword: str) -> None:
    path = write(tmp_path / "a", mr_image(**{keyword: None}))
    with pytest.raises(UnreadableFileError, match=rf"{keyword} \(\w+,\w+\) is missing.*export the original"):
        _frames(path)


@pytest.mark.parametrize("keep", [300, 700, 1100])
def test_a_truncated_header_is_reported(tmp_path: Path, keep: int) -> None:
    path = write(tmp_path / "a", mr_image())
    path.write_bytes(path.read_bytes()[:keep])
    try:
        result = read_dicom(tmp_path, "a", limits=DEFAULT_LIMITS)
    except UnreadableFileError as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(result, Ignored)


def test_truncated_pixels_are_reported_with_numbers_and_the_rest_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "sub" / "bad", mr_image())
    path.write_bytes(path.read_bytes()[:-100])
    write(tmp_path / "good", mr_image())
    reading = read_folder(tmp_path)
    assert len(reading.sets) == 1
    (outcome,) = reading.outcomes
    assert (outcome.what, outcome.code) == ("sub/bad", "input.unreadable")
    assert "truncated (found 284 bytes, expected 384 bytes)" in outcome.reason


def test_absurd_sizes_are_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    ds = mr_image(NumberOfFrames=1_000_000)
    ds.Rows = ds.Columns = 65535
    write(tmp_path / "huge", ds)
    write(tmp_path / "good", mr_image())
    (outcome,) = read_folder(tmp_path).outcomes
    assert outcome.code == "input.too-large"
    assert "65535 rows, 65535 columns, 1000000 frames" in outcome.reason


def test_a_compressed_stream_of_another_size_is_refused(tmp_path: Path) -> None:
    ds = mr_image(picture(1, rows=64, columns=64))
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.compress(JPEG2000Lossless, generate_instance_uid=False)
    ds.Rows = ds.Columns = 16
    (frame,) = _frames(write(tmp_path / "a", ds, JPEG2000Lossless))
    with pytest.raises(TooLargeError, match="found 64 rows, 64 columns"):
        _stored(frame)


def test_a_deflated_file_that_expands_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a", mr_image(np.zeros((512, 512), np.uint16)), DeflatedExplicitVRLittleEndian)
    assert path.stat().st_size < 20_000
    with pytest.raises(TooLargeError, match="inflates"):
        _frames(path, limits=ReadLimits(max_inflated_bytes=100_000))


def test_a_damaged_deflated_file_is_reported(tmp_path: Path) -> None:
    path = write(tmp_path / "a", mr_image(), DeflatedExplicitVRLittleEndian)
    content = path.read_bytes()
    path.write_bytes(content[:400] + zlib.compress(b"junk") + content[400:])
    with pytest.raises(UnreadableFileError):
        _stored(_frames(path)[0])


def test_a_stream_that_cannot_be_decoded_costs_only_its_file(tmp_path: Path) -> None:
    for number in range(3):
        ds = mr_image(picture(number), SeriesInstanceUID=uid(f"s{number}"), EchoTime=10 * (number + 1))
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.compress(RLELossless, generate_instance_uid=False)
        path = write(tmp_path / f"{number}", ds, RLELossless)
    content = bytearray(path.read_bytes())
    content[-150:-8] = b"\x00" * 142
    path.write_bytes(bytes(content))
    reading = read_folder(tmp_path)
    (images,) = reading.sets
    assert images.values("echo_time_s") == pytest.approx([0.01, 0.02])
    assert [o.what for o in reading.outcomes] == ["2"]


def test_unsupported_compression_is_reported(tmp_path: Path) -> None:
    ds = mr_image()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.compress(RLELossless, generate_instance_uid=False)
    write(tmp_path / "a", ds, "1.2.840.10008.1.2.4.100")  # MPEG2
    with pytest.raises(EmptyInputError, match=r"1\.2\.840\.10008\.1\.2\.4\.100.*without compression"):
        read_folder(tmp_path)


def test_wrong_value_representations_do_not_raise(tmp_path: Path) -> None:
    path = write(tmp_path / "a", mr_image(EchoTime="12"))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\x18\x00\x81\x00DS\x02\x0012", b"\x18\x00\x81\x00DS\x02\x00x!"))
    (frame,) = _frames(path)
    assert math.isnan(frame.acquisition.echo_time_s)


def test_an_image_with_only_a_file_meta_group_is_reported(tmp_path: Path) -> None:
    ds = Dataset()
    ds.file_meta = mr_image().file_meta
    ds.SOPClassUID = MR
    with pytest.raises(UnreadableFileError, match="Rows"):
        _frames(write(tmp_path / "a", ds))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("typed", [True, False])
def test_philips_scale_in_another_private_block_and_without_type(
    tmp_path: Path, syntax: str, typed: bool
) -> None:
    ds = mr_image(picture(1), Manufacturer="Philips", RescaleSlope=3, RescaleIntercept=0)
    add_philips_scale(ds, slope=0.25, block=0x1B)
    if not typed:
        for element in (0x0D, 0x0E):
            value = ds[0x2005, 0x1B00 | element].value
            ds.add_new((0x2005, 0x1B00 | element), "UN", struct.pack("<f", value))
    (frame,) = _frames(write(tmp_path / "a", ds, syntax))
    assert frame.acquisition.scale_slope == pytest.approx(4.0)
    assert frame.acquisition.scale_source == "Philips private scale slope"
