"""Vendor scaling, image parts and clipping, on made files and on real ones."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from helpers_dicom import mr_image, philips_image, picture, set_pixels, uid, write
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from cordqa.io.clipping import find_clipped
from cordqa.io.folder import read_folder
from cordqa.io.frames import Stored
from cordqa.io.vendors import part_of_token, vendor_name
from cordqa.records import ImageSet, Part, Severity


def _only(folder: Path) -> ImageSet:
    (images,) = read_folder(folder).sets
    return images


@pytest.mark.parametrize(
    ("manufacturer", "name"),
    [
        ("SIEMENS", "Siemens"),
        ("Siemens Healthineers", "Siemens"),
        ("GE MEDICAL SYSTEMS", "GE"),
        ("Philips Medical Systems", "Philips"),
        ("TOSHIBA_MEC", "Canon"),
        ("UIH", "United Imaging"),
        ("Home-made\nscanner", "Home-made scanner"),
        ("", ""),
    ],
)
def test_vendor_names(manufacturer: str, name: str) -> None:
    assert vendor_name(manufacturer) == name


@pytest.mark.parametrize(
    ("token", "part"),
    [
        ("M", Part.MAGNITUDE),
        ("M_IR", Part.MAGNITUDE),
        ("R_IR", Part.REAL),
        ("I", Part.IMAGINARY),
        ("PHASE MAP", Part.PHASE),
        ("P_FFE", Part.PHASE),
        ("ND", None),
        ("IR", None),
        ("PRIMARY", None),
    ],
)
def test_words_of_image_type(token: str, part: Part | None) -> None:
    assert part_of_token(token) is part


def test_parts_of_siemens_become_separate_sets_of_one_label(tmp_path: Path) -> None:
    for number, code in enumerate("MPRI"):
        ds = mr_image(picture(number).astype(np.int16), ImageType=["ORIGINAL", "PRIMARY", code, "ND"])
        write(tmp_path / code, ds)
    sets = read_folder(tmp_path).sets
    assert {s.part for s in sets} == set(Part)
    assert len({s.label for s in sets}) == 1


@pytest.mark.parametrize(
    ("code", "part"), [(0, Part.MAGNITUDE), (1, Part.PHASE), (2, Part.REAL), (3, Part.IMAGINARY)]
)
def test_parts_of_ge_come_from_the_private_element(tmp_path: Path, code: int, part: Part) -> None:
    ds = mr_image(picture(1).astype(np.int16), Manufacturer="GE MEDICAL SYSTEMS")
    ds.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    ds.add_new((0x0043, 0x0010), "LO", "GEMS_PARM_01")
    ds.add_new((0x0043, 0x102F), "SS", code)
    write(tmp_path / "a", ds)
    images = _only(tmp_path)
    assert images.part is part
    if part is Part.PHASE:  # stored in thousandths of a radian
        np.testing.assert_allclose(images.data[0, 0], picture(1) / 1000.0, rtol=1e-6)


def test_philips_images_of_one_fit_become_comparable(tmp_path: Path) -> None:
    truth = np.random.default_rng(0).uniform(1e4, 9e4, (16, 12))
    for number, ss in enumerate((0.0115, 0.0291, 0.0143)):
        stored = np.round(truth * ss).astype(np.uint16)
        ds = philips_image(stored, rs=1.221, ri=0, ss=ss, SeriesInstanceUID=uid(f"{number}"))
        ds.EchoTime = 10 * (number + 1)
        write(tmp_path / str(number), ds)
    images = _only(tmp_path)
    np.testing.assert_allclose(images.data[:, 0], np.stack([truth] * 3), rtol=0.005)
    (notice,) = images.notices
    assert (notice.code, notice.severity) == ("scaling.differs", Severity.INFO)
    assert images.acquisitions[0].scale_source == "Philips private scale slope"


@pytest.mark.parametrize(
    ("rs", "ri", "si"),
    [(2.0, -4000.0, 2000.0), (1.0, 0.0, 2000.0), (2.0, -4000.0, 0.0)],
    ids=["both agree", "combined rescaling", "only the public intercept"],
)
def test_philips_offset_of_real_images(tmp_path: Path, rs: float, ri: float, si: float) -> None:
    stored = picture(2, top=4000)
    write(
        tmp_path / "a",
        philips_image(stored, rs=rs, ri=ri, ss=0.5, si=si, ImageType=["ORIGINAL", "PRIMARY", "R"]),
    )
    images = _only(tmp_path)
    np.testing.assert_allclose(images.data[0, 0], (stored - 2000.0) / 0.5)
    assert images.part is Part.REAL


def test_philips_without_the_private_slope_is_said(tmp_path: Path) -> None:
    for number in range(2):
        ds = mr_image(picture(number), Manufacturer="Philips", SeriesInstanceUID=uid(f"{number}"))
        ds.EchoTime = 10 * (number + 1)
        write(tmp_path / str(number), ds)
    (notice,) = _only(tmp_path).notices
    assert (notice.code, notice.severity) == ("image.philips-scale-absent", Severity.WARNING)


def test_a_mixture_of_scalings_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "a", philips_image(picture(1), rs=1, ri=0, ss=2))
    write(
        tmp_path / "b",
        mr_image(picture(2), Manufacturer="Philips", ManufacturerModelName="Ingenia", EchoTime=20),
    )
    codes = {n.code: n.severity for n in _only(tmp_path).notices}
    assert codes["scaling.mixed"] is Severity.ERROR


def test_rescale_and_real_world_values(tmp_path: Path) -> None:
    write(tmp_path / "a" / "f", mr_image(picture(1), RescaleSlope=2, RescaleIntercept=-10))
    np.testing.assert_allclose(_only(tmp_path / "a").data[0, 0], picture(1) * 2.0 - 10)
    item = Dataset()
    item.RealWorldValueSlope, item.RealWorldValueIntercept = 3.0, 5.0
    item.RealWorldValueFirstValueMapped, item.RealWorldValueLastValueMapped = 0, 4095
    ds = mr_image(picture(1), RescaleSlope=2, RescaleIntercept=-10)
    ds.RealWorldValueMappingSequence = Sequence([item])
    write(tmp_path / "b" / "f", ds)
    images = _only(tmp_path / "b")
    np.testing.assert_allclose(images.data[0, 0], picture(1) * 3.0 + 5)
    assert images.acquisitions[0].scale_source == "real-world value mapping"


@pytest.mark.parametrize("rescale", [True, False])
def test_siemens_phase_is_in_radians(tmp_path: Path, rescale: bool) -> None:
    stored = np.array([[0, 2048], [4095, 1024]], dtype=np.uint16)
    elements = {"RescaleSlope": 2, "RescaleIntercept": -4096} if rescale else {}
    write(tmp_path / "a", mr_image(stored, ImageType=["ORIGINAL", "PRIMARY", "P", "ND"], **elements))
    images = _only(tmp_path)
    expected = np.array([[-1, 0], [4094 / 4096, -0.5]]) * math.pi
    np.testing.assert_allclose(images.data[0, 0], expected, atol=1e-6)
    assert images.clipped is not None and not images.clipped.any()


def test_unsigned_real_image_without_intercept_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "a", mr_image(ImageType=["ORIGINAL", "PRIMARY", "R", "ND"]))
    (notice,) = _only(tmp_path).notices
    assert (notice.code, notice.severity) == ("image.zero-level-unknown", Severity.ERROR)


def test_zero_or_absurd_slopes_are_not_applied(tmp_path: Path) -> None:
    write(tmp_path / "a", philips_image(picture(1), rs=0, ri=0, ss=0))
    np.testing.assert_array_equal(_only(tmp_path).data[0, 0], picture(1))


# Clipping


def test_the_top_of_the_bits_in_use_is_clipped(tmp_path: Path) -> None:
    pixels = picture(1, top=4000)
    pixels[3, :8] = 4095
    ds = mr_image(pixels)
    set_pixels(ds, pixels, bits_stored=12)
    write(tmp_path / "a", ds)
    images = _only(tmp_path)
    assert images.clipped is not None
    np.testing.assert_array_equal(images.clipped[0, 0], pixels == 4095)
    assert "8 sample(s) are clipped" in images.notices[0].message


def _noisy(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = np.full((64, 64), 20.0)
    image[8:56, 8:56] = 2000.0
    image[20:40, 20:40] = 3000.0
    return np.abs(image + rng.normal(0, 60, image.shape))


def test_samples_piled_up_below_the_top_are_clipped() -> None:
    image = np.minimum(_noisy(), 3000).astype(np.uint16)
    clipped = find_clipped(Stored(image, 0, 65535), Part.MAGNITUDE)
    np.testing.assert_array_equal(clipped, image == 3000)
    assert clipped.sum() > 100


def test_a_lone_maximum_is_not_clipped() -> None:
    image = _noisy().astype(np.uint16)
    assert not find_clipped(Stored(image, 0, 65535), Part.MAGNITUDE).any()


@pytest.mark.parametrize("levels", [(3000,), (3000, 1000), (3000, 2000, 1000, 500)])
def test_plateaus_of_a_noise_free_simulation_are_not_clipped(levels: tuple[int, ...]) -> None:
    image = np.zeros((64, 64), np.uint16)
    for number, level in enumerate(levels):
        image[4:20, 4 + 15 * number : 16 + 15 * number] = level
    assert not find_clipped(Stored(image, 0, 65535), Part.MAGNITUDE).any()


def test_images_of_few_grey_levels_are_not_clipped() -> None:
    image = np.random.default_rng(0).integers(0, 8, (64, 64)).astype(np.uint16)
    assert not find_clipped(Stored(image, 0, 65535), Part.MAGNITUDE).any()


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4)), np.full((4, 4), np.nan), np.full((4, 4), -1.0), np.zeros((0, 0))]
)
def test_empty_images_are_not_clipped(image: np.ndarray) -> None:
    assert not find_clipped(Stored(image, -math.inf, math.inf), Part.MAGNITUDE).any()


def test_saturated_images_are_an_error(tmp_path: Path) -> None:
    pixels = np.minimum(_noisy(), 2000).astype(np.uint16)
    pixels[pixels == 2000] = 4095
    ds = mr_image(pixels)
    set_pixels(ds, pixels, bits_stored=12)
    write(tmp_path / "a", ds)
    (notice,) = _only(tmp_path).notices
    assert (notice.code, notice.severity) == ("image.saturated", Severity.ERROR)


# Real scans


def test_philips_rule_on_a_real_scan(shared_data: Path) -> None:
    """The short-T1 spheres have recovered at TI 600 and 800 ms: only the scaled values agree."""
    images = _only(shared_data / "phantom" / "T1" / "site5_philips_3T")
    assert images.values("inversion_time_s") == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.6, 0.8])
    slopes = images.values("scale_slope")
    assert slopes.max() / slopes.min() > 2.4
    late, last = images.data[4, 0], images.data[5, 0]
    bright = last > 0.8 * last.max()
    assert bright.sum() > 50
    assert np.median(last[bright] / late[bright]) == pytest.approx(1.0, abs=0.02)
    stored_ratio = (last / slopes[5])[bright] / (late / slopes[4])[bright]
    assert abs(np.median(stored_ratio) - 1.0) > 0.1
    assert images.clipped is not None
    assert images.clipped.sum(axis=(1, 2, 3)).tolist() == [0, 0, 210, 0, 0, 0]


def test_real_scans_of_three_vendors_are_sorted(shared_data: Path) -> None:
    reading = read_folder(shared_data / "phantom")
    found = {(s.entities.scanner, s.acquisitions[0].sequence): s.data.shape for s in reading.sets}
    assert found == {
        ("Siemens Aera 1.5 T", "inversion recovery"): (6, 1, 192, 192),
        ("GE Optima MR450w 1.5 T", "inversion recovery"): (6, 2, 256, 256),
        ("GE Optima MR450w 1.5 T", "spin echo"): (8, 1, 256, 256),
        ("Philips Ingenia 3 T", "inversion recovery"): (6, 1, 192, 192),
        ("Philips Ingenia 3 T", "spin echo"): (32, 2, 192, 192),
    }
    assert reading.outcomes == () and reading.ignored == {} and reading.n_files == 96
    siemens = next(s for s in reading.sets if s.entities.vendor == "Siemens")
    assert siemens.values("repetition_time_s") == pytest.approx([1.0, 1.0, 1.0, 1.26, 1.86, 2.46])
