"""Diffusion weighting in the dialects of three vendors, and the unit of their ADC maps."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from helpers_dicom import mr_image, picture, uid, write
from helpers_diffusion_phantom import clean_scanner, digital_vials, some_images
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from cordqa.io.dicom_write import write_dicom
from cordqa.io.folder import read_folder
from cordqa.io.siemens_header import read_siemens_fields
from cordqa.simulate.diffusion_phantom import DiffusionProtocol, adc_map, scan_diffusion, trace_images

AXES = {(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)}


@pytest.fixture(scope="module")
def scans():
    """One small scan per vendor."""
    phantom, protocol = digital_vials(), DiffusionProtocol(n_unweighted=2)
    return [
        scan_diffusion(phantom, protocol, clean_scanner(k, matrix=64), np.random.default_rng(k))
        for k in range(3)
    ]


@pytest.mark.parametrize("vendor", [0, 1, 2])
@pytest.mark.parametrize("enhanced", [False, True])
def test_weighting_survives_each_dialect(scans, tmp_path, vendor, enhanced):
    images = scans[vendor]
    write_dicom(images, tmp_path, enhanced=enhanced)
    (read,) = read_folder(tmp_path).sets
    assert sorted(read.values("b_value_s_per_mm2")) == sorted(images.values("b_value_s_per_mm2"))
    weighted = [a for a in read.acquisitions if a.b_value_s_per_mm2 > 0]
    assert {a.diffusion_encoding for a in weighted} == {"direction"}
    assert {a.diffusion_encoding for a in read.acquisitions if a.b_value_s_per_mm2 == 0} == {"none"}
    directions = {tuple(abs(round(d, 6)) for d in a.diffusion_direction) for a in weighted}
    assert directions == AXES
    in_image = "image" in weighted[0].origins["diffusion_direction"]
    assert in_image == (vendor == 1 and not enhanced)


def test_directions_of_siemens_and_philips_belong_to_their_images(scans, tmp_path):
    for vendor in (0, 2):
        images = scans[vendor]
        write_dicom(images, tmp_path / str(vendor))
        (read,) = read_folder(tmp_path / str(vendor)).sets
        for acquisition, data in zip(read.acquisitions, read.data, strict=True):
            if acquisition.b_value_s_per_mm2 == 0:
                continue
            own = next(
                d
                for a, d in zip(images.acquisitions, images.data, strict=True)
                if (a.b_value_s_per_mm2, a.diffusion_direction)
                == (acquisition.b_value_s_per_mm2, acquisition.diffusion_direction)
            )
            np.testing.assert_allclose(data, own, atol=0.6 * acquisition.scale_slope)


@pytest.mark.parametrize("vendor", [0, 1, 2])
def test_averages_over_directions_are_told_apart(scans, tmp_path, vendor):
    write_dicom(scans[vendor], tmp_path)
    write_dicom(trace_images(scans[vendor]), tmp_path, series_number=2)
    single, average = read_folder(tmp_path).sets
    assert len(single.acquisitions) == 8
    assert [a.diffusion_encoding for a in average.acquisitions] == (
        ["none", "", ""] if vendor == 1 else ["none", "trace", "trace"]
    )
    # Two protocols: the statistics of repeats must not take one for a repeat of the other.
    assert single.entities.acquisition != average.entities.acquisition
    assert single.label != average.label


def test_one_series_per_b_value_is_joined(scans, tmp_path):
    b = scans[0].values("b_value_s_per_mm2")
    for number, value in enumerate(np.unique(b), start=1):
        write_dicom(some_images(scans[0], np.flatnonzero(b == value)), tmp_path, series_number=number)
    (read,) = read_folder(tmp_path).sets
    assert sorted(read.values("b_value_s_per_mm2")) == sorted(b)


def test_two_runs_of_a_series_stay_two(scans, tmp_path):
    write_dicom(scans[0], tmp_path)
    write_dicom(scans[0], tmp_path, series_number=7)
    one, two = read_folder(tmp_path).sets
    assert len(one.acquisitions) == len(two.acquisitions) == 8
    assert {one.entities.run, two.entities.run} == {"1", "2"}


@pytest.mark.parametrize(("vendor", "unit", "known"), [(0, 1.0, True), (2, 1000.0, False)])
def test_a_map_is_read_as_a_map(scans, tmp_path, vendor, unit, known):
    write_dicom(adc_map(scans[vendor], unit_um2_per_s=unit), tmp_path)
    (read,) = read_folder(tmp_path).sets
    (acquisition,) = read.acquisitions
    assert acquisition.map_quantity == "ADC"
    assert np.isnan(acquisition.b_value_s_per_mm2)
    assert ("map_quantity" in acquisition.origins) == known
    assert any(n.code == "image.adc-unit-unknown" for n in read.notices) != known
    # The middle of the image is the vial of water.
    assert np.median(read.data[0, 0, 30:34, 30:34]) * unit == pytest.approx(2000, rel=0.05)


def _mapping(unit: str, slope: float) -> Sequence:
    code, item = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = unit, "UCUM", unit
    item.MeasurementUnitsCodeSequence = Sequence([code])
    item.RealWorldValueSlope, item.RealWorldValueIntercept = slope, 0.0
    return Sequence([item])


@pytest.mark.parametrize(
    ("unit", "slope", "factor"),
    [
        ("um2/s", 1.0, 1.0),
        ("10-6.mm2/s", 1.0, 1.0),
        ("10*-6.mm2/s", 2.0, 2.0),
        ("1e-3 mm2/s", 0.001, 1.0),
        ("mm2/s", 1e-6, 1.0),
        ("10-3.mm2/s", 1.0, 1000.0),
    ],
)
def test_a_real_world_value_names_the_unit(tmp_path, unit, slope, factor):
    pixels = picture(top=900)
    dataset = mr_image(
        pixels,
        Manufacturer="Philips Medical Systems",
        ImageType=["DERIVED", "PRIMARY", "ADC", "ADC", "UNSPECIFIED"],
        RealWorldValueMappingSequence=_mapping(unit, slope),
    )
    write(tmp_path / "map", dataset)
    (read,) = read_folder(tmp_path).sets
    np.testing.assert_allclose(read.data[0, 0], pixels * factor, rtol=1e-6)
    assert read.acquisitions[0].origins["map_quantity"] == "real-world value mapping"


def test_a_unit_that_is_none_of_diffusion_is_not_known(tmp_path):
    dataset = mr_image(
        Manufacturer="Philips Medical Systems",
        ImageType=["DERIVED", "PRIMARY", "ADC", "ADC", "UNSPECIFIED"],
        RealWorldValueMappingSequence=_mapping("ms", 1.0),
    )
    write(tmp_path / "map", dataset)
    (read,) = read_folder(tmp_path).sets
    assert "map_quantity" not in read.acquisitions[0].origins


def test_other_derived_maps_are_still_passed_over(tmp_path):
    for number, words in enumerate((["FA", "ND"], ["TRACEW", "ND"], ["T2 MAP", "ND"])):
        dataset = mr_image(ImageType=["DERIVED", "PRIMARY", *words], SeriesInstanceUID=uid(str(number)))
        write(tmp_path / f"{number}", dataset)
    write(tmp_path / "image", mr_image())
    reading = read_folder(tmp_path)
    assert len(reading.sets) == 1
    assert reading.ignored == {"derived map or reformatted image": 3}  # a trace without b-value too


def test_ge_adds_a_billion_to_the_b_value(tmp_path):
    dataset = mr_image(Manufacturer="GE MEDICAL SYSTEMS", ImageType=["ORIGINAL", "PRIMARY", "OTHER"])
    block = dataset.private_block(0x0043, "GEMS_PARM_01", create=True)
    block.add_new(0x39, "IS", ["1000000900", "8", "0", "0"])
    write(tmp_path / "a", dataset)
    (read,) = read_folder(tmp_path).sets
    assert read.acquisitions[0].b_value_s_per_mm2 == 900
    assert read.acquisitions[0].diffusion_encoding == ""


def siemens_block(**fields: list[str]) -> bytes:
    """A CSA2 header that holds these fields."""
    out = b"SV10\4\3\2\1" + struct.pack("<II", len(fields), 77)
    for name, values in fields.items():
        out += struct.pack("<64si4siii", name.encode(), len(values), b"FD\0\0", 4, len(values) + 1, 77)
        for value in (*values, ""):
            raw = value.encode()
            out += struct.pack("<4i", len(raw), len(raw), 77, len(raw)) + raw + b"\0" * (-len(raw) % 4)
    return out


def test_b_value_and_direction_are_found_in_siemens_own_header(tmp_path):
    dataset = mr_image(ImageType=["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE", "ND"])
    block = dataset.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    raw = siemens_block(
        B_value=["500"],
        DiffusionDirectionality=["DIRECTIONAL"],
        DiffusionGradientDirection=["0.0", "0.6", "0.8"],
        Patient=["SECRET"],
    )
    block.add_new(0x10, "OB", raw)
    write(tmp_path / "a", dataset)
    (read,) = read_folder(tmp_path).sets
    acquisition = read.acquisitions[0]
    assert (acquisition.b_value_s_per_mm2, acquisition.diffusion_encoding) == (500, "direction")
    assert acquisition.diffusion_direction == pytest.approx((0.0, 0.6, 0.8))
    assert "SECRET" not in repr(read)


def test_a_damaged_siemens_header_gives_what_came_before_or_nothing():
    whole = siemens_block(B_value=["500"], Other=["x"])
    wanted = frozenset({"B_value", "Other"})
    assert read_siemens_fields(whole, wanted) == {"B_value": ("500",), "Other": ("x",)}
    for size in range(len(whole)):
        assert set(read_siemens_fields(whole[:size], wanted)) <= wanted
    rng = np.random.default_rng(0)
    for _ in range(500):
        damaged = bytearray(whole)
        damaged[int(rng.integers(8, len(whole)))] = int(rng.integers(256))
        assert set(read_siemens_fields(bytes(damaged), wanted)) <= wanted
    for other in (None, "text", b"", b"SV10", b"NUM4" + whole[4:]):
        assert read_siemens_fields(other, wanted) == {}
