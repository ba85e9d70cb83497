"""Numbers of the Spinal Cord Toolbox on real scans, met by our own code (recorded runs; see their README).

Everything derived from PAM50 stays in pytest's cache on this machine.
"""

from __future__ import annotations

import csv
import hashlib
import inspect
import os
from pathlib import Path

import numpy as np
import pytest

from cordqa.cord import template
from cordqa.cord.atlas import gather_atlas, parse_label_table
from cordqa.cord.atlas_shapes import analytical_sections
from cordqa.cord.axes import orient
from cordqa.cord.centreline import fit_centreline
from cordqa.cord.extraction import extract_regions
from cordqa.cord.levels import fit_levels, read_labels
from cordqa.cord.morphometry import measure_morphometry
from cordqa.cord.template import lay_atlas
from cordqa.io.volumes import read_volume
from cordqa.models.magnetization_transfer.ratio import mt_ratio
from cordqa.models.magnetization_transfer.saturation import SpoiledEcho, fit_mt_saturation
from cordqa.records import Volume

pytestmark = pytest.mark.data

METHODS = {
    "wa": "weighted mean",
    "bin": "binary",
    "ml": "maximum likelihood",
    "map": "MAP",
    "median": "median",
    "max": "max",
}
GROUPS = ("cord", "WM", "GM", "DC", "LF", "VF")
CST = ("WM left lateral corticospinal tract", "WM right lateral corticospinal tract")


@pytest.fixture(scope="module")
def sct(shared_data) -> Path:
    return shared_data / "cord" / "sct-reference"


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def column(rows, name):
    return np.array([float(row[name]) for row in rows])


def warped_atlas(folder):
    labels = parse_label_table((folder / "label/atlas/info_label.txt").read_text())
    volumes = [
        read_volume(folder / f"label/atlas/PAM50_atlas_{n:02d}.nii.gz") for n in range(len(labels.names))
    ]
    return gather_atlas(volumes, labels)


@pytest.fixture(scope="module")
def t2_mask(sct):
    return read_volume(sct / "t2_manualseg" / "t2_seg-manual.nii.gz")


def test_area_without_angle_correction_is_equal(sct, t2_mask):
    rows = table(sct / "t2_manualseg" / "csa_perslice_noangle.csv")
    ours = measure_morphometry(t2_mask, angle_correction=False)
    assert ours.slices.tolist() == [int(row["Slice (I->S)"]) for row in rows]
    assert np.abs(ours.values["CSA"] - column(rows, "MEAN(area)")).max() == 0.0
    for name in ("diameter_AP_ellipse", "diameter_RL", "eccentricity", "orientation"):
        assert np.abs(ours.values[name] - column(rows, f"MEAN({name})")).max() < 1e-6, name
    assert np.abs(ours.values["solidity"] - column(rows, "MEAN(solidity)")).max() < 0.005


def test_area_perpendicular_to_the_cord_is_equal(sct, t2_mask):
    rows = table(sct / "t2_manualseg" / "csa_perslice.csv")
    ours = measure_morphometry(t2_mask)
    assert np.abs(ours.values["CSA"] / column(rows, "MEAN(area)") - 1).max() < 5e-4
    assert np.abs(ours.values["angle_AP"] - column(rows, "MEAN(angle_AP)")).max() < 1e-6
    assert np.abs(ours.values["angle_RL"] - column(rows, "MEAN(angle_RL)")).max() < 1e-6
    assert np.abs(ours.values["length"] / column(rows, "SUM(length)") - 1).max() < 5e-4
    # It resamples lengths along the tilt to a grid of 0.1 mm, which rounds them.
    assert np.abs(ours.values["diameter_RL"] - column(rows, "MEAN(diameter_RL)")).max() < 0.1
    assert np.abs(ours.values["diameter_AP_ellipse"] - column(rows, "MEAN(diameter_AP_ellipse)")).max() < 0.1
    assert abs((ours.values["diameter_AP"] - column(rows, "MEAN(diameter_AP)")).mean()) < 0.02


@pytest.mark.parametrize("file", ["csa_perlevel.csv", "csa_discfile.csv", "csa_c2c3.csv", "csa_default.csv"])
def test_area_over_slices_is_equal(sct, t2_mask, file):
    ours = measure_morphometry(t2_mask)
    for row in table(sct / "t2_manualseg" / file):
        first, _, last = row["Slice (I->S)"].partition(":")
        chosen = (ours.slices >= int(first)) & (ours.slices <= int(last or first))
        area = ours.values["CSA"][chosen]
        assert area.mean() == pytest.approx(float(row["MEAN(area)"]), rel=5e-4)
        assert area.std() == pytest.approx(float(row["STD(area)"]), abs=0.02)


def test_centreline_is_equal(sct, t2_mask):
    theirs = np.loadtxt(sct / "t2_manualseg" / "t2_cl_fitseg.csv", delimiter=",")
    line = fit_centreline(t2_mask)
    assert line.slices.tolist() == theirs[:, 1].astype(int).tolist()
    # The array is stored as (posterior, superior, right), and the file follows it.
    assert np.abs(line.right - theirs[:, 2]).max() < 1e-6
    assert np.abs(t2_mask.data.shape[0] - 1 - line.anterior - theirs[:, 0]).max() < 1e-6


def test_area_on_other_voxel_sizes_differs_by_its_rounding(sct):
    """It resamples 0.898 mm voxels to nine steps of 0.1 mm, which makes areas 0.36 % too large."""
    mask = read_volume(sct / "mts_sub05" / "sub-05_acq-MTon_MTS_seg.nii.gz")
    ours = measure_morphometry(mask)
    for row in table(sct / "mts_sub05" / "csa.csv"):
        first, last = map(int, row["Slice (I->S)"].split(":"))
        chosen = (ours.slices >= first) & (ours.slices <= last)
        rounding = (0.9 / mask.spacing_mm[0]) * (0.9 / mask.spacing_mm[1])
        assert ours.values["CSA"][chosen].mean() * rounding == pytest.approx(
            float(row["MEAN(area)"]), rel=1e-3
        )
        assert ours.values["angle_AP"][chosen].mean() == pytest.approx(float(row["MEAN(angle_AP)"]), abs=1e-4)
        assert ours.values["length"][chosen].sum() == pytest.approx(float(row["SUM(length)"]), rel=1e-5)


def test_levels_from_two_labels_agree_with_its_template(sct, t2_mask):
    labels = read_labels(read_volume(sct / "t2_manualseg" / "labels.nii.gz"), kind="body")
    levels = fit_levels(labels, t2_mask, centreline=fit_centreline(t2_mask))
    theirs = orient(read_volume(sct / "t2_manualseg" / "label/template/PAM50_levels.nii.gz")).data.max(
        axis=(0, 1)
    )
    known = theirs > 0
    ours = np.floor(levels.coordinate[known])
    assert (ours == theirs[known]).mean() >= 0.95
    assert np.abs(ours - theirs[known]).max() <= 1
    middle_c4 = np.interp(-4.5, -levels.coordinate, np.arange(levels.coordinate.size))
    assert middle_c4 == pytest.approx(26, abs=1.0)


@pytest.fixture(scope="module")
def mt_atlas(sct):
    return warped_atlas(sct / "mt_testing")


@pytest.mark.parametrize("short", METHODS)
def test_every_method_of_extraction_is_equal(sct, mt_atlas, short):
    folder = sct / "mt_testing"
    rows = table(folder / f"mtr_z2-3_{short}.csv")
    image = read_volume(folder / "mtr.nii.gz", dtype=np.float64)
    ours = extract_regions(
        image,
        mt_atlas,
        quantity="MTR",
        regions=[*GROUPS, *CST],
        method=METHODS[short],
        groups={"z": [2, 3]},
    )
    theirs = column(rows, f"{short.upper()}()")
    assert np.abs([row.value for row in ours] - theirs).max() < 1e-5


def test_every_tract_by_map_is_equal(sct, mt_atlas):
    folder = sct / "mt_testing"
    rows = table(folder / "mtr_z2-3_map_all_tracts.csv")
    image = read_volume(folder / "mtr.nii.gz", dtype=np.float64)
    names = mt_atlas.labels.names[: len(rows)]
    ours = extract_regions(image, mt_atlas, quantity="MTR", regions=names, groups={"z": [2, 3]}, min_voxels=0)
    assert np.abs([row.value for row in ours] - column(rows, "MAP()")).max() < 1e-5


def test_slices_that_the_atlas_does_not_reach_are_said(sct, mt_atlas):
    folder = sct / "mt_testing"
    image = read_volume(folder / "mtr.nii.gz", dtype=np.float64)
    groups = {str(z): [z] for z in range(5)}
    ours = extract_regions(image, mt_atlas, quantity="MTR", regions=["WM"], groups=groups)
    for row, theirs in zip(ours, table(folder / "mtr_perslice.csv")[:5], strict=True):
        if theirs["MAP()"]:
            assert row.value == pytest.approx(float(theirs["MAP()"]), abs=1e-5)
        else:
            assert np.isnan(row.value)
            assert "not covered" in row.flags[0]


@pytest.mark.parametrize(
    ("file", "region", "pick"),
    [("mtsat_map.csv", "MTsat", "mtsat.nii.gz"), ("t1_map.csv", "T1", "t1map.nii.gz")],
)
def test_maps_of_saturation_and_t1_are_extracted_equally(sct, mt_atlas, file, region, pick):
    rows = table(sct / "mt_testing" / file)
    image = read_volume(sct / "mt_testing" / pick, dtype=np.float64)
    ours = extract_regions(image, mt_atlas, quantity=region, regions=["WM", "GM", "DC"])
    assert np.abs([row.value for row in ours] - column(rows, "MAP()")).max() < 1e-5


def test_a_map_of_one_value_keeps_it_in_every_region_of_the_toolbox_atlas(mt_atlas):
    """Its own estimate takes what no label fills as zero, which lowers white matter here by 1.7 %."""
    uniform = Volume(data=np.full(mt_atlas.shape, 25.0), affine=mt_atlas.affine)
    ours = extract_regions(uniform, mt_atlas, quantity="MTR", regions=[*GROUPS, *CST], surround=True)
    assert [row.value for row in ours] == pytest.approx([25.0] * len(ours), abs=1e-4)
    theirs = extract_regions(uniform, mt_atlas, quantity="MTR", regions=["WM"])
    assert theirs[0].value == pytest.approx(24.57, abs=0.01)


def test_ratio_saturation_and_t1_are_equal_without_b1(sct):
    folder = sct / "mt_testing"

    def data(name):
        return np.asarray(read_volume(folder / name, dtype=np.float64).data)

    on, off, t1w = data("mt1.nii.gz"), data("mt0_reg.nii.gz"), data("t1w_reg.nii.gz")
    ratio = mt_ratio(on, off, limit_percent=100.0)
    theirs = data("mtr.nii.gz")
    assert np.array_equal(np.isnan(ratio.values["MTR"]), np.isnan(theirs))
    assert np.nanmax(np.abs(ratio.values["MTR"] - theirs)) < 2e-5  # stored in single precision
    short = SpoiledEcho(repetition_time_s=0.030, flip_angle_deg=9.0)
    maps = fit_mt_saturation(
        on,
        off,
        t1w,
        mt_echo=short,
        pd_echo=short,
        t1_echo=SpoiledEcho(repetition_time_s=0.015, flip_angle_deg=15.0),
    )
    saturation, t1 = data("mtsat.nii.gz"), data("t1map.nii.gz")
    # It writes 0 where there is no value, and where MTsat exceeds 100 %: three voxels of the background.
    both = np.isfinite(maps.values["MTsat"]) & ~((saturation == 0) & (maps.values["MTsat"] > 100))
    assert (~both & np.isfinite(maps.values["MTsat"])).sum() == 3
    assert np.abs(maps.values["MTsat"][both] - saturation[both]).max() < 1e-9
    assert np.nanmax(np.abs(maps.values["T1"] / 1000 - t1)) < 1e-9
    assert np.all(t1[np.isnan(maps.values["T1"])] == 0)


@pytest.fixture(scope="module")
def pam50(shared_data, request, tmp_path_factory):
    """Sections of the user's own PAM50, cached until the code that makes them changes."""
    root = shared_data / "cord" / "PAM50"
    labels = parse_label_table((root / "atlas" / "info_label.txt").read_text())
    key = hashlib.sha256(inspect.getsource(template).encode()).hexdigest()[:16]
    cache = getattr(request.config, "cache", None)
    folder = cache.mkdir("cordqa-template") if cache else tmp_path_factory.mktemp("template")
    cached = folder / f"{key}.npz"
    if cached.is_file():
        with np.load(cached) as arrays:
            return template.sections_from_arrays(dict(arrays), labels)
    sections = template.sections_from_template(
        read_volume(root / "template" / "PAM50_cord.nii.gz"),
        [read_volume(root / f"atlas/PAM50_atlas_{n:02d}.nii.gz") for n in range(len(labels.names))],
        read_volume(root / "template" / "PAM50_label_disc.nii.gz"),
        labels,
    )
    arrays = template.sections_to_arrays(sections)
    unfinished = cached.with_suffix(f".{os.getpid()}.npz")
    np.savez_compressed(unfinished, **arrays)
    unfinished.replace(cached)
    return template.sections_from_arrays(arrays, labels)


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def grey_matter_dice(sections, shared_data):
    """Nine slices of a T2* scan; their levels are not labelled and taken as C2 to C6."""
    folder = shared_data / "cord" / "testing" / "t2s"
    mask = read_volume(folder / "t2s_seg.nii.gz")
    manual = orient(read_volume(folder / "t2s_gmseg_manual.nii.gz")).data > 0.5
    atlas, _ = lay_atlas(sections, mask, coordinate=np.linspace(6.5, 2.5, mask.data.shape[2]))
    return dice(atlas.paint(atlas.labels.find("GM")) > 0.5, manual)


def test_grey_matter_of_the_template_meets_the_manual_mask(pam50, shared_data):
    assert grey_matter_dice(pam50, shared_data) >= 0.77


def test_grey_matter_of_the_schematic_atlas_meets_the_manual_mask(shared_data):
    assert grey_matter_dice(analytical_sections(), shared_data) >= 0.67


def white_matter_mt(sections, sct):
    """MTR of white matter in both MT cases: with the atlas laid by us, and by the toolbox; its estimate."""
    out = []
    folder = sct / "mt_testing"
    image = read_volume(folder / "mtr.nii.gz")
    # Five slices of 17 mm; its own levels say that slices 2 and 3 are C4 and C3.
    atlas, _ = lay_atlas(
        sections, read_volume(folder / "mt1_seg.nii.gz"), coordinate=np.array([6.5, 5.5, 4.5, 3.5, 2.5])
    )
    row = extract_regions(image, atlas, quantity="MTR", regions=["WM"], groups={"z": [2, 3]})[0]
    out.append((row.value, 33.5869415580556))
    folder = sct / "mts_sub05"
    mask = read_volume(folder / "sub-05_acq-MTon_MTS_seg.nii.gz")
    labels = read_labels(read_volume(folder / "label_c3c4.nii.gz"), kind="disc")
    levels = fit_levels(labels, mask, centreline=fit_centreline(mask))
    atlas, _ = lay_atlas(sections, mask, coordinate=levels.coordinate)
    rows = [row for row in table(folder / "mtr_perlevel.csv") if row["Label"] == "white matter"]
    for theirs in rows:
        first, last = map(int, theirs["Slice (I->S)"].split(":"))
        ours = extract_regions(
            read_volume(folder / "mtr.nii.gz"),
            atlas,
            quantity="MTR",
            regions=["WM"],
            groups={"z": range(first, last + 1)},
        )[0]
        out.append((ours.value, float(theirs["MAP()"])))
    return out


def test_white_matter_mt_is_within_one_point(pam50, sct):
    for ours, theirs in white_matter_mt(pam50, sct):
        assert ours == pytest.approx(theirs, abs=1.0)


def test_white_matter_mt_of_the_schematic_atlas_is_within_one_point(sct):
    for ours, theirs in white_matter_mt(analytical_sections(), sct):
        assert ours == pytest.approx(theirs, abs=1.0)


def test_lateral_corticospinal_anisotropy_is_within_limits(pam50, sct):
    folder = sct / "dmri_tutorial"
    mask = read_volume(folder / "dmri_moco_dwi_mean_seg.nii.gz")
    labels = read_labels(read_volume(folder / "label_c3c4.nii.gz"), kind="disc")
    levels = fit_levels(labels, mask, centreline=fit_centreline(mask))
    atlas, _ = lay_atlas(pam50, mask, coordinate=levels.coordinate)
    image = read_volume(folder / "dti_FA.nii.gz")
    ours = extract_regions(image, atlas, quantity="FA", regions=CST)
    theirs = extract_regions(image, warped_atlas(folder), quantity="FA", regions=CST)
    for mine, reference in zip(ours, theirs, strict=True):
        assert mine.value == pytest.approx(reference.value, abs=0.03)
