"""``cordqa fit qsm`` on files: parts found by name, everything written, bad input named."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from helpers_fit import load, save, sidecar
from helpers_qsm import TIMES, echoes, head

from cordqa.cli._run import run
from cordqa.io.results import read_result

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
FAST = ["--background", "none", "--inversion", "tkd", "--no-report"]


@pytest.fixture(scope="module")
def data():
    mask, _, field = head((28, 28, 24))
    phase, magnitude = echoes(field, tissue=mask, snr=80)
    return phase, magnitude, mask


@pytest.fixture
def files(data, tmp_path):
    phase, magnitude, mask = data
    return {
        "phase": save(tmp_path / "phase.nii.gz", phase, AFFINE),
        "magnitude": save(tmp_path / "mag.nii.gz", magnitude, AFFINE),
        "mask": save(tmp_path / "mask.nii.gz", mask, AFFINE),
    }


def words(files, out, *more, times="0.004,0.008,0.012,0.016,0.02"):
    given = ["fit", "qsm", str(files["phase"]), str(out), "--magnitude", str(files["magnitude"])]
    return [*given, "--echo-times", times, "--field-strength", "3", *FAST, *more]


def write_bids(folder, data, *, n=5, kinds=("phase", "mag")):
    phase, magnitude, _ = data
    parts = {
        "phase": phase,
        "mag": magnitude,
        "real": magnitude * np.cos(phase),
        "imag": magnitude * np.sin(phase),
    }
    written = {}
    for kind in kinds:
        for echo in range(n):
            path = folder / f"sub-01_ses-1_echo-{echo + 1}_part-{kind}_MEGRE.nii.gz"
            save(path, parts[kind][..., echo], AFFINE)
            sidecar(path, EchoTime=float(TIMES[echo]), MagneticFieldStrength=3.0)
            written.setdefault(kind, []).append(str(path))
    return written


def test_everything_is_written_and_said(files, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(words(files, out, "--mask", str(files["mask"]), "--noise-realisations", "3")) == 0
    capsys.readouterr()
    for name in ("Chimap", "localField", "totalField", "R2starmap", "phaseOffset", "background", "weight"):
        assert (out / f"phase_{name}.nii.gz").is_file() or (out / f"{name}.nii.gz").is_file()
    masks = sorted(path.name for path in out.glob("*_mask.nii.gz"))
    assert len(masks) == 3
    registration = next(out.glob("*desc-registration_mask.nii.gz"))
    assert np.array_equal(load(registration) > 0, load(files["mask"]) > 0)
    consensus = json.loads((out / "consensus.json").read_text())
    assert len(consensus["points"]) == 8
    assert consensus["reporting"]["acquisition"]["field_strength_T"] == 3.0
    result = read_result(out)
    row = result.measurements[0]
    assert (row.quantity, row.unit) == ("susceptibility", "ppm")
    assert any("experimental" in notice.message for notice in result.notices)
    assert any("stored as radians" in text for text in result.methods)
    assert "consensus.json" in result.provenance.config["outputs"]


def test_a_region_has_the_error_of_its_noise_realisations(files, data, tmp_path, capsys):
    region = np.zeros(data[2].shape)
    region[10:16, 10:16, 10:14] = 1
    save(tmp_path / "region.nii.gz", region, AFFINE)
    more = ["--mask", str(files["mask"]), "--region", str(tmp_path / "region.nii.gz")]
    more += ["--inversion", "tv", "--noise-realisations", "4"]
    assert run(words(files, tmp_path / "out", *more)) == 0
    capsys.readouterr()
    rows = [m for m in read_result(tmp_path / "out").measurements if m.quantity == "susceptibility"]
    assert "4 realisations" in rows[1].uncertainty_method
    assert rows[1].standard_uncertainty > 0


def test_the_zero_of_the_scale_is_no_measurement(files, data, tmp_path, capsys):
    region = np.zeros(data[2].shape)
    region[10:16, 10:16, 10:14] = 1
    region[10:16, 10:16, 14:18] = 2
    save(tmp_path / "region.nii.gz", region, AFFINE)
    reference = save(tmp_path / "reference.nii.gz", region == 1, AFFINE)
    more = ["--mask", str(files["mask"]), "--region", str(tmp_path / "region.nii.gz")]
    more += ["--inversion", "tv", "--noise-realisations", "4"]

    def rows(out, *extra):
        assert run(words(files, tmp_path / out, *more, *extra)) == 0
        capsys.readouterr()
        result = read_result(tmp_path / out)
        return result, [m for m in result.measurements if m.quantity == "susceptibility"]

    result, (whole, first, second) = rows("whole")
    assert np.isnan(whole.value) and np.isnan(whole.standard_uncertainty)
    assert "the zero of the scale" in whole.flags[0]
    assert np.isfinite([first.value, second.value]).all()
    text = " ".join(result.methods)
    assert "mean 0 ppm and standard deviation" in text
    assert "is for magnetic susceptibility the root mean square over 4 realisations" in text.lower()
    assert "and for the other maps propagated from the standard errors of the voxels" in text
    # Small images say what the inversion passes on of a contrast.
    passed = [s for s in result.statistics if s.name == "contrast passed on"]
    assert {s.region for s in passed} <= {first.region, second.region}
    assert all(0 < s.value < 1.5 and "the inversion passes on" in s.note for s in passed)
    _, (whole, first, second) = rows("region", "--reference", str(reference))
    assert np.isfinite([whole.value, second.value]).all() and np.isnan(first.value)


def test_contrasts_are_compared_only_where_noise_is_known(files, data, tmp_path, capsys):
    region = np.zeros(data[2].shape)
    region[10:16, 10:16, 10:14] = 1
    save(tmp_path / "region.nii.gz", region, AFFINE)
    more = ["--mask", str(files["mask"]), "--region", str(tmp_path / "region.nii.gz"), "--inversion", "tv"]
    assert run(words(files, tmp_path / "out", *more, "--recovery", "--noise-realisations", "1")) == 0
    capsys.readouterr()
    result = read_result(tmp_path / "out")
    assert not [s for s in result.statistics if s.name == "contrast passed on"]
    assert any("not said of any contrast" in notice.message for notice in result.notices)


def test_a_widened_cord_mask_is_called_that(files, tmp_path, capsys):
    more = ["--cord-mask", str(files["mask"]), "--noise-realisations", "0"]
    assert run(words(files, tmp_path / "out", *more)) == 0
    capsys.readouterr()
    notices = [notice.message for notice in read_result(tmp_path / "out").notices]
    assert any("the cord mask was widened" in text for text in notices)
    assert not any("one was made" in text for text in notices)


def test_magnitudes_are_found_beside_the_phase(data, tmp_path, capsys):
    found = write_bids(tmp_path, data)
    assert run(["fit", "qsm", *found["phase"], str(tmp_path / "out"), *FAST]) == 0
    # The same files together, in any order; and 4D files with settings given.
    mixed = [*found["mag"][::-1], *found["phase"][::-1]]
    assert run(["fit", "qsm", *mixed, str(tmp_path / "mixed"), *FAST]) == 0
    assert run(["fit", "qsm", *found["mag"], str(tmp_path / "from-mag"), *FAST]) == 0
    capsys.readouterr()
    first = load(tmp_path / "out" / "sub-01_ses-1_Chimap.nii.gz")
    for other in ("mixed", "from-mag"):
        np.testing.assert_array_equal(first, load(tmp_path / other / "sub-01_ses-1_Chimap.nii.gz"))
    result = read_result(tmp_path / "out")
    assert result.provenance.config["settings"]["echo_times"]["origin"] == "sidecar"
    assert len(result.provenance.input_hashes) == 10
    assert result.measurements[0].entities.subject == "01"


def test_real_and_imaginary_files_are_paired_as_well(data, tmp_path, capsys):
    found = write_bids(tmp_path, data, kinds=("real", "imag"))
    assert run(["fit", "qsm", *found["real"], str(tmp_path / "out"), *FAST]) == 0
    capsys.readouterr()
    text = " ".join(read_result(tmp_path / "out").methods)
    assert "real and imaginary" in text


def test_a_missing_magnitude_is_asked_for(data, tmp_path, capsys):
    found = write_bids(tmp_path, data, kinds=("phase",))
    assert run(["fit", "qsm", *found["phase"], str(tmp_path / "out"), *FAST]) == 2
    assert "--magnitude" in capsys.readouterr().err


def test_parts_that_are_given_twice_are_refused(data, tmp_path, capsys):
    found = write_bids(tmp_path, data)
    both = [*found["phase"], *found["mag"], str(tmp_path / "out"), "--magnitude", found["mag"][0], *FAST]
    assert run(["fit", "qsm", *both]) == 2
    assert "give them once" in capsys.readouterr().err


def test_ten_echoes_are_in_the_order_of_their_numbers(tmp_path):
    from cordqa.workflow.fit.parts import complete_images
    from cordqa.workflow.fit.registry import find_model
    from cordqa.workflow.fit.request import FitRequest

    paths = tuple(tmp_path / f"sub-1_echo-{n}_part-phase_MEGRE.nii.gz" for n in (1, 10, 2))
    request = complete_images(FitRequest(model=find_model("qsm"), images={"phase": paths}))
    assert [path.name[11:13] for path in request.images["phase"]] == ["1_", "2_", "10"]
    other = FitRequest(model=find_model("t2"), images={"images": paths})
    assert complete_images(other) is other


@pytest.mark.parametrize(
    ("more", "times", "says"),
    [
        ([], "4,8,12,16,20", "milliseconds"),
        ([], "0.004,0.008", "number of values"),
        (["--field-strength", "128"], "0.004,0.008,0.012,0.016,0.02", "MHz"),
        (["--b0-direction", "0,0,0"], "0.004,0.008,0.012,0.016,0.02", "main field"),
        (["--phase-range", "0,1"], "0.004,0.008,0.012,0.016,0.02", "outside the given range"),
        (["--background", "magic"], "0.004,0.008,0.012,0.016,0.02", "alternating"),
    ],
)
def test_settings_that_cannot_be_meant_are_named(files, tmp_path, capsys, more, times, says):
    assert run(words(files, tmp_path / "out", *more, times=times)) == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*.nii.gz"))


@pytest.mark.parametrize(
    "kind", ["swapped", "hz", "slice", "grid", "zero", "nan", "echoes", "repeated", "backwards", "lost echo"]
)
def test_bad_images_are_named(files, data, tmp_path, capsys, kind):
    phase, magnitude, mask = data
    given = dict(files)
    more = ["--mask", str(files["mask"])]
    if kind == "swapped":
        given["phase"], given["magnitude"] = files["magnitude"], files["phase"]
    elif kind == "hz":
        given["phase"] = save(tmp_path / "hz.nii.gz", np.linspace(-90, 90, phase.size).reshape(phase.shape))
        given["magnitude"] = save(tmp_path / "m.nii.gz", magnitude)
        more = []
    elif kind == "slice":
        given["phase"] = save(tmp_path / "p.nii.gz", phase[:, :, 12:13], AFFINE)
        given["magnitude"] = save(tmp_path / "m.nii.gz", magnitude[:, :, 12:13], AFFINE)
        more = []
    elif kind == "grid":
        more = ["--mask", str(save(tmp_path / "other.nii.gz", mask[:-1], AFFINE))]
    elif kind == "zero":
        given["magnitude"] = save(tmp_path / "m.nii.gz", 0 * magnitude, AFFINE)
    elif kind == "nan":
        given["phase"] = save(tmp_path / "p.nii.gz", np.full(phase.shape, np.nan), AFFINE)
    elif kind == "echoes":
        given["magnitude"] = save(tmp_path / "m.nii.gz", magnitude[..., :4], AFFINE)
    elif kind == "repeated":
        given["phase"] = save(tmp_path / "p.nii.gz", np.repeat(phase[..., :1], 5, axis=-1), AFFINE)
    elif kind == "backwards":
        given["phase"] = save(tmp_path / "p.nii.gz", phase[..., ::-1], AFFINE)
    elif kind == "lost echo":
        given["magnitude"] = save(tmp_path / "m.nii.gz", magnitude * [1, 1, 1, 1, 0], AFFINE)
    says = {
        "repeated": "the same image in all echoes",
        "backwards": "the phase runs backwards",
        "lost echo": "echo 5 of the magnitude is empty",
        "swapped": "order of phase and magnitude",
        "hz": "field map in Hz",
        "slice": "so few slices",
        "grid": "another grid",
        "zero": "no voxel of the mask has a usable phase (found no magnitude",
        "nan": "no finite value",
        "echoes": "same echoes",
    }[kind]
    assert run(words(given, tmp_path / "out", *more)) == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*.nii.gz"))


def test_the_sidecar_tells_that_it_was_3d_and_a_header_that_it_lost_its_place(data, tmp_path, capsys):
    found = write_bids(tmp_path, data)
    for path, time in zip(found["phase"], TIMES, strict=True):
        sidecar(Path(path), EchoTime=float(time), MagneticFieldStrength=3.0, MRAcquisitionType="3D")
    assert run(["fit", "qsm", *found["phase"], str(tmp_path / "out"), *FAST]) == 0
    point = json.loads((tmp_path / "out" / "consensus.json").read_text())["points"][0]
    assert point["met"] is True and "3D by its sidecar" in point["how"]
    assert not [n for n in read_result(tmp_path / "out").notices if "how the image lies" in n.message]
    for kind, paths in found.items():
        for n, path in enumerate(paths):
            image = nib.Nifti1Image(dict(zip(("phase", "mag"), data, strict=False))[kind][..., n], None)
            image.header.set_zooms((2.0, 2.0, 2.0))
            image.to_filename(path)
    assert run(["fit", "qsm", *found["phase"], str(tmp_path / "lost"), *FAST]) == 0
    capsys.readouterr()
    assert [n for n in read_result(tmp_path / "lost").notices if "how the image lies" in n.message]


def test_full_scale_is_no_saturation_of_a_phase(data, tmp_path, capsys):
    phase, magnitude, _ = data
    stored = np.clip(np.floor((phase + np.pi) / (2 * np.pi) * 4096), 0, 4095)
    assert (stored == 4095).sum() >= 10
    files = {
        "phase": save(tmp_path / "phase.nii.gz", stored, AFFINE),
        "magnitude": save(tmp_path / "mag.nii.gz", magnitude, AFFINE),
    }
    assert run(words(files, tmp_path / "out")) == 0
    capsys.readouterr()
    result = read_result(tmp_path / "out")
    assert any("stored as 0 to 4095" in text for text in result.methods)
    assert not [n for n in result.notices if "cut off" in n.message]
