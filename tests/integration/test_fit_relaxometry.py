"""Relaxometry, MT and synthetic contrast from files to results: what users get wrong is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from helpers_fit import AFFINE, Words, load, request_of, save

from cordqa.cli._run import run
from cordqa.errors import CordqaError
from cordqa.io.results import read_result
from cordqa.models.relaxometry.gradient_echo import gradient_echo_signal
from cordqa.models.relaxometry.multi_dynamic import MultiDynamicProtocol, multi_dynamic_signal
from cordqa.models.relaxometry.spoiling import rf_spoiled_signal
from cordqa.workflow.fit.registry import find_model
from cordqa.workflow.fit.run import run_fit

DELAYS, ECHOES = np.repeat([0.17, 0.67, 1.84, 3.84], 2), np.tile([0.0228, 0.1026], 4)


def mdme(folder: Path, keep: list[int], order: list[int] | None = None, **settings: tuple[float, ...]):
    """Request for some of the images of the example, stored in another order than said."""
    request = request_of(find_model("mdme"), folder)
    data = load(request.images["images"][0])[..., order or keep]
    path = save(folder / "some.nii.gz", data)
    said = {
        "delays": tuple(DELAYS[keep]),
        "echo_times": tuple(ECHOES[keep]),
        "repetition_time": (4.0,),
        **settings,
    }
    return replace(request, images={"images": (path,)}, settings=said)


def test_missing_dynamics_are_fitted_where_the_rest_is_enough(tmp_path: Path) -> None:
    result = run_fit(mdme(tmp_path / "in", [0, 1, 2, 3, 4, 5]), tmp_path / "out")
    rows = {row.quantity: row for row in result.measurements}
    assert rows["T2"].value == pytest.approx(90.0, rel=1e-3)
    with pytest.raises(CordqaError, match="or a B1 map"):
        run_fit(mdme(tmp_path / "in", [0, 1, 4, 5]), tmp_path / "few")
    assert not list((tmp_path / "few").glob("*.nii.gz"))


@pytest.mark.parametrize("order", [[1, 0, 3, 2, 5, 4, 7, 6], [0, 1, 2, 3, 5, 4, 6, 7]])
def test_swapped_echoes_are_found(order: list[int], tmp_path: Path) -> None:
    with pytest.raises(CordqaError, match=r"delay of .* does not decay"):
        run_fit(mdme(tmp_path / "in", list(range(8)), order), tmp_path / "out")


def test_swapped_echoes_of_t2_and_t2star_are_found(tmp_path: Path) -> None:
    for name in ("t2", "t2star"):
        request = request_of(find_model(name), tmp_path / name)
        backward = load(request.images["images"][0])[..., ::-1]
        path = save(tmp_path / f"{name}.nii.gz", backward)
        with pytest.raises(CordqaError, match="order of the images"):
            run_fit(replace(request, images={"images": (path,)}), tmp_path / "out" / name)


def test_b1_map_of_another_grid_and_unit(tmp_path: Path) -> None:
    request = mdme(tmp_path / "in", list(range(8)))
    other = AFFINE.copy()
    other[:3, 3] += 3
    shifted = save(tmp_path / "b1.nii.gz", np.ones((3, 2, 2)), affine=other)
    with pytest.raises(CordqaError, match="another grid"):
        run_fit(replace(request, maps={"b1_map": shifted}), tmp_path / "out")
    percent = save(tmp_path / "percent.nii.gz", 100 * np.linspace(1.1, 0.9, 12).reshape(3, 2, 2))
    result = run_fit(replace(request, maps={"b1_map": percent}), tmp_path / "out")
    values = {row.quantity: row.value for row in result.measurements}
    assert values["T1"] == pytest.approx(1100.0, rel=1e-3)
    assert "B1" not in values


def test_holes_are_counted_with_their_reasons(tmp_path: Path) -> None:
    request = mdme(tmp_path / "in", list(range(8)))
    data = load(request.images["images"][0]).copy()
    data[0, 0, 0] = 0
    data[0, 0, 1] = np.nan
    protocol = MultiDynamicProtocol(delays_s=DELAYS, echo_times_s=ECHOES, repetition_time_s=4.0)
    data[0, 1, 0] = np.abs(multi_dynamic_signal(protocol, 40.0, 0.08, m0=5000.0))
    path = save(tmp_path / "holes.nii.gz", data)
    result = run_fit(replace(request, images={"images": (path,)}), tmp_path / "out")
    counts = {one.note: one.value for one in result.statistics if one.name == "voxels without a value"}
    assert counts["no signal above the noise"] == 1
    assert counts["too few usable images"] == 1
    assert sum(counts.values()) == 3
    assert np.isnan(load(tmp_path / "out" / "holes_T1map.nii.gz")[0]).sum() == 3


def test_uniform_images_in_integers_give_the_same_t1(tmp_path: Path) -> None:
    request = request_of(find_model("mp2rage"), tmp_path / "in")
    uniform = load(request.images["uniform"][0])
    stored = save(tmp_path / "UNIT1.nii.gz", np.rint((uniform + 0.5) * 4095))
    first = run_fit(request, tmp_path / "one")
    second = run_fit(replace(request, images={"uniform": (stored,)}), tmp_path / "two")
    for a, b in zip(first.measurements, second.measurements, strict=True):
        assert b.value == pytest.approx(a.value, rel=2e-3)
    odd = save(tmp_path / "odd.nii.gz", 30 * uniform)
    with pytest.raises(CordqaError, match="--uniform-range"):
        run_fit(replace(request, images={"uniform": (odd,)}), tmp_path / "three")
    options = {**request.options, "uniform_range": (-15.0, 15.0)}
    third = run_fit(replace(request, images={"uniform": (odd,)}, options=options), tmp_path / "three")
    assert third.measurements[0].value == pytest.approx(first.measurements[0].value, rel=1e-4)
    with pytest.raises(CordqaError, match="--excitations"):
        run_fit(
            replace(request, options={k: v for k, v in request.options.items() if k != "excitations"}),
            tmp_path / "four",
        )


def test_me_mp2rage_needs_phases_in_a_known_range(tmp_path: Path) -> None:
    request = request_of(find_model("mp2rage-me"), tmp_path / "in")
    images = {role: paths for role, paths in request.images.items() if role != "inv1_phase"}
    with pytest.raises(CordqaError, match="inv1-phase"):
        run_fit(replace(request, images=images), tmp_path / "out")
    scaled = {}
    for role in ("inv1_phase", "inv2_phase"):
        stored = np.rint(load(request.images[role][0]) / np.pi * 4096)
        scaled[role] = (save(tmp_path / f"{role}.nii.gz", stored),)
    changed = replace(request, images={**request.images, **scaled})
    with pytest.raises(CordqaError, match="--phase-range"):
        run_fit(changed, tmp_path / "out")
    options = {**request.options, "phase_range": (-4096.0, 4096.0)}
    result = run_fit(replace(changed, options=options), tmp_path / "out")
    assert result.measurements[0].value == pytest.approx(1400.0, rel=2e-3)


def test_gradient_through_the_slice_from_phase_and_from_a_field_map(tmp_path: Path) -> None:
    times = np.array([0.003, 0.008, 0.013, 0.018, 0.023])
    field = 35.0 * np.arange(6.0) + np.linspace(-40, 40, 5)[:, None, None] * np.ones((5, 4, 1))
    magnitude = gradient_echo_signal(times, np.full(field.shape, 0.04), m0=1000.0, gradient_hz=35.0)
    phase = np.angle(np.exp(2j * np.pi * field[..., None] * times))
    request = replace(
        request_of(find_model("t2star"), tmp_path / "in"),
        images={"images": (save(tmp_path / "mag.nii.gz", magnitude),)},
        settings={"echo_times": tuple(times)},
        maps={},
    )
    plain = run_fit(request, tmp_path / "plain")
    assert plain.measurements[0].value < 30
    assert any("--field-map or --phase" in notice.message for notice in plain.notices)
    ways = {
        "phase": replace(
            request, images={**request.images, "phase": (save(tmp_path / "phase.nii.gz", phase),)}
        ),
        "field": replace(request, maps={"field_map": save(tmp_path / "field.nii.gz", field)}),
    }
    for name, one in ways.items():
        result = run_fit(one, tmp_path / name)
        assert result.measurements[0].value == pytest.approx(40.0, rel=1e-3)
    both = replace(ways["phase"], maps=ways["field"].maps)
    with pytest.raises(CordqaError, match="only one of"):
        run_fit(both, tmp_path / "both")


def test_spoiling_is_corrected_where_the_increment_is_said(tmp_path: Path) -> None:
    angles, t1 = np.array([4.0, 24.0]), np.linspace(0.7, 1.6, 12).reshape(3, 2, 2)
    signal = 1e4 * rf_spoiled_signal(angles, t1[..., None], 0.065, 0.0164, increment_deg=50.0)
    request = replace(
        request_of(find_model("t1-vfa"), tmp_path / "in"),
        images={"images": (save(tmp_path / "vfa.nii.gz", signal),)},
        settings={"flip_angles": tuple(angles), "repetition_time": (0.0164,)},
        maps={},
    )
    plain = run_fit(request, tmp_path / "plain").measurements[0].value
    fixed = run_fit(replace(request, options={"spoil_increment": 50.0}), tmp_path / "fixed")
    assert abs(plain / 1150 - 1) > 0.03
    assert fixed.measurements[0].value == pytest.approx(1150, rel=2e-3)
    assert any("corrected for spoiling" in notice.message for notice in fixed.notices)


def test_ihmtr_wants_its_normalisation(tmp_path: Path) -> None:
    request = request_of(find_model("ihmtr"), tmp_path / "in")
    with pytest.raises(CordqaError, match="--normalisation"):
        run_fit(replace(request, options={}), tmp_path / "out")
    values = [
        run_fit(replace(request, options={"normalisation": how}), tmp_path / how).measurements[0].value
        for how in ("sum", "mean")
    ]
    assert values[0] == pytest.approx(2 * values[1])


@pytest.fixture
def brain(tmp_path: Path):
    """Maps of a made-up slice: white matter, a lesion in it, fluid around it."""
    i, j, _ = np.meshgrid(np.arange(12), np.arange(10), np.arange(3), indexing="ij")
    radius = np.hypot(i - 5.5, j - 4.5)
    white, lesion = radius < 4.5, np.hypot(i - 5, j - 3) < 1.6
    t1 = np.where(lesion, 1300.0, np.where(white, 830.0, 4000.0))
    t2 = np.where(lesion, 120.0, np.where(white, 75.0, 2000.0))
    density = np.where(lesion, 85.0, np.where(white, 70.0, 100.0))
    density[0, 0, 0] = -5.0
    t1[0, 1, 0], t2[0, 1, 0], density[0, 1, 0] = 0.0, 0.0, 0.0
    request = request_of(find_model("synthetic"), tmp_path / "in")
    images = {
        "t1_map": (save(tmp_path / "sub-01_T1map.nii.gz", t1),),
        "t2_map": (save(tmp_path / "sub-01_T2map.nii.gz", t2),),
        "pd_map": (save(tmp_path / "sub-01_PDmap.nii.gz", density),),
    }
    masks = {
        "white_mask": save(tmp_path / "white.nii.gz", white & ~lesion),
        "fluid_mask": save(tmp_path / "fluid.nii.gz", ~white & (t1 > 0) & (density > 0)),
        "lesion_mask": save(tmp_path / "lesion.nii.gz", lesion),
    }
    return replace(request, images=images, options={}), masks


def test_synthetic_images_null_what_they_should_and_count_what_they_cannot_show(brain, tmp_path) -> None:
    request, masks = brain
    del masks["lesion_mask"]
    result = run_fit(replace(request, maps=masks), tmp_path / "out")
    out = tmp_path / "out"
    tissue = load(out / "sub-01_syntheticDIR.nii.gz")
    assert abs(tissue[5, 7, 1]) < 1e-5
    assert abs(tissue[0, 5, 1]) < 1e-5
    assert load(out / "sub-01_syntheticPSIR.nii.gz")[0, 5, 1] < 0
    assert abs(load(out / "sub-01_syntheticFLAIR.nii.gz")[0, 5, 1]) < 1e-5
    counts = {one.note: one.value for one in result.statistics if one.name == "voxels without a value"}
    assert counts == {"negative proton density": 1, "all maps are zero here": 1}
    sidecar = json.loads((out / "sub-01_syntheticFLAIR.json").read_text())
    assert "SYNTHETIC" in sidecar["Method"]
    assert "not acquired" in sidecar["Method"]
    document = json.loads((out / "contrasts.json").read_text())
    assert document["DIR"]["Label"] == "SYNTHETIC"
    assert len(document["DIR"]["InversionTimes"]) == 2


def test_a_lesion_chooses_the_times_and_the_page_shows_how_flat_the_choice_is(brain, tmp_path) -> None:
    request, masks = brain
    result = run_fit(replace(request, maps=masks), tmp_path / "out")
    document = json.loads((tmp_path / "out" / "contrasts.json").read_text())
    search = document["PSIR"]["Search"]
    assert document["PSIR"]["InversionTimes"] == [search["Best"]["first"]]
    assert search["FlatRegion"][0] <= search["Best"]["first"] <= search["FlatRegion"][1]
    assert max(abs(v) for v in search["Contrast"] if v is not None) <= abs(search["Best"]["contrast"]) + 1e-9
    names = [figure.name for figure in result.figures]
    assert names.index("nulling") < names.index("contrast-search")
    sidecar = json.loads((tmp_path / "out" / "sub-01_syntheticPSIR.json").read_text())
    assert sidecar["Synthetic"]["InversionTimes"] == document["PSIR"]["InversionTimes"]
    assert document["Tissues"]["white"]["T1"] == pytest.approx(0.83, rel=1e-4)
    assert any("keeps 95 %" in notice.message for notice in result.notices)
    del masks["white_mask"]
    with pytest.raises(CordqaError, match="--white-mask"):
        run_fit(replace(request, maps=masks), tmp_path / "other")


def test_dicom_is_written_labelled_and_removed_with_its_result(brain, tmp_path) -> None:
    request, _ = brain
    out = tmp_path / "out"
    with_dicom = replace(request, options={"contrasts": "PSIR", "dicom": True})
    run_fit(with_dicom, out)
    files = sorted((out / "dicom").glob("*.dcm"))
    assert [path.name for path in files] == [f"PSIR_{k:04d}.dcm" for k in (1, 2, 3)]
    first = pydicom.dcmread(files[1])
    assert "SYNTHETIC" in first.ImageType
    assert first.SeriesDescription.startswith("SYNTHETIC PSIR")
    assert first.PatientID == "sub-01"
    image = nib.load(out / "sub-01_syntheticPSIR.nii.gz")
    values = first.pixel_array.T * float(first.RescaleSlope)
    np.testing.assert_allclose(values, np.asarray(image.dataobj)[:, :, 1], atol=float(first.RescaleSlope))
    place = np.diag([-1, -1, 1]) @ (image.affine @ [0, 0, 1, 1])[:3]
    np.testing.assert_allclose([float(v) for v in first.ImagePositionPatient], place, atol=1e-4)
    again = run_fit(with_dicom, out)
    assert again.outcomes[0].code == "execute.current"
    run_fit(replace(request, options={"contrasts": "PSIR"}), out)
    assert not list((out / "dicom").glob("*.dcm"))
    assert read_result(out).kind == "fit"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"time_unit": "s"}, "cannot be in s"),
        ({"t1w": (600.0, 10.0)}, "out of range"),
        ({"t1w": (0.6,)}, "--t1w"),
        ({"t1w": (0.6, 0.01, 0.3)}, "expected TR,TE"),
        ({"t1w": (0.01, 0.6)}, "does not fit"),
        ({"dir": (15.0, 0.1, 0.5, 3.0)}, "not in order"),
        ({"contrasts": "DIR,T1"}, "no such choice"),
        ({"contrasts": ","}, "no such choice"),
    ],
)
def test_wrong_settings_of_synthetic_images_are_named(options, match, brain, tmp_path) -> None:
    request, _ = brain
    with pytest.raises(CordqaError, match=match) as caught:
        run_fit(replace(request, options=options), tmp_path / "out")
    assert caught.value.exit_status == 2
    assert not list((tmp_path / "out").glob("*.nii.gz"))


@pytest.mark.parametrize(
    ("roles", "change", "match"),
    [
        ({"t1_map": "t2_map", "t2_map": "t1_map"}, 1.0, "T1 is not longer than T2"),
        ({"pd_map": "pd_map"}, -1.0, "PD map holds no positive value"),
        ({"t2_map": "t2_map"}, 1e-3, "bring T1 and T2 to one unit"),
    ],
)
def test_maps_that_cannot_be_what_they_are_called_are_refused(roles, change, match, brain, tmp_path) -> None:
    request, _ = brain
    images = dict(request.images)
    for role, other in roles.items():
        values = np.clip(change * load(request.images[other][0]), -1e9 if change > 0 else -100, 1e9)
        if change < 0:
            values[0, 0, 0] = -1.0
        images[role] = (save(tmp_path / f"{role}_x.nii.gz", values),)
    with pytest.raises(CordqaError, match=match) as caught:
        run_fit(replace(request, images=images), tmp_path / "out")
    assert caught.value.exit_status == 2


def test_masks_of_tissues_that_cannot_be_are_refused_and_a_lesion_is_not_compared_with_itself(
    brain, tmp_path
) -> None:
    request, masks = brain
    swapped = {"white_mask": masks["fluid_mask"], "fluid_mask": masks["white_mask"]}
    with pytest.raises(CordqaError, match="shorter T1 than fluid"):
        run_fit(replace(request, maps=swapped), tmp_path / "out")
    with pytest.raises(CordqaError, match="white matter mask holds too few"):
        run_fit(replace(request, maps={**masks, "white_mask": masks["lesion_mask"]}), tmp_path / "out")
    # The lesion is most of this white matter, and does not move its T1.
    lesion = load(masks["lesion_mask"]) > 0.5
    few = lesion | (np.cumsum(load(masks["white_mask"]) > 0.5).reshape(lesion.shape) < 8)
    both = {
        **masks,
        "white_mask": save(tmp_path / "both.nii.gz", few & (lesion | (load(masks["white_mask"]) > 0.5))),
    }
    run_fit(replace(request, maps=both), tmp_path / "out")
    document = json.loads((tmp_path / "out" / "contrasts.json").read_text())
    assert document["Tissues"]["white"]["T1"] == pytest.approx(0.83, rel=1e-4)


def test_dicom_of_another_mask_is_another_object_and_a_spike_is_told(brain, tmp_path) -> None:
    request, masks = brain
    options = {"contrasts": "PSIR", "dicom": True}
    seen = []
    for n, mask in enumerate((None, masks["white_mask"])):
        out = tmp_path / f"out{n}"
        result = run_fit(replace(request, options=options, mask=mask), out)
        seen.append(pydicom.dcmread(out / "dicom" / "PSIR_0002.dcm").SOPInstanceUID)
        assert not any("extreme voxels" in one.message for one in result.notices)
    assert seen[0] != seen[1]
    density = load(request.images["pd_map"][0])
    density[0, 5, 1] = 1e6
    images = {**request.images, "pd_map": (save(tmp_path / "spike.nii.gz", density),)}
    result = run_fit(replace(request, images=images, options=options), tmp_path / "spiked")
    assert any("extreme voxels" in one.message for one in result.notices)


def test_maps_in_seconds_give_the_same_images(brain, tmp_path) -> None:
    request, _ = brain
    first = run_fit(request, tmp_path / "one")
    images = dict(request.images)
    for role in ("t1_map", "t2_map"):
        images[role] = (save(tmp_path / f"{role}_s.nii.gz", load(images[role][0]) / 1000),)
    with pytest.raises(CordqaError, match="--time-unit s"):
        run_fit(replace(request, images=images), tmp_path / "two")
    second = run_fit(replace(request, images=images, options={"time_unit": "s"}), tmp_path / "two")
    for a, b in zip(first.measurements, second.measurements, strict=True):
        assert b.value == pytest.approx(a.value, rel=1e-4, abs=1e-4)


def test_the_command_line_writes_dicom(brain, tmp_path, capsys) -> None:
    request, masks = brain
    words = Words(find_model("synthetic"), replace(request, maps=masks), tmp_path / "out").list("--dicom")
    assert run(words) == 0
    assert "SYNTHETIC" in capsys.readouterr().out or (tmp_path / "out" / "report.html").is_file()
    assert len(list((tmp_path / "out" / "dicom").glob("*.dcm"))) == 18
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Contrast of the lesion by inversion time" in page


def test_a_list_of_contrasts_makes_those(brain, tmp_path) -> None:
    request, _ = brain
    result = run_fit(replace(request, options={"contrasts": "dir, T1w"}), tmp_path / "out")
    made = dict.fromkeys(one.quantity for one in result.measurements)
    assert list(made) == ["synthetic_T1w", "synthetic_DIR"]
    captions = [figure.caption for figure in result.figures if figure.name == "map-synthetic_DIR"]
    assert captions
    assert "-" not in captions[0].split(" or no value")[0]
