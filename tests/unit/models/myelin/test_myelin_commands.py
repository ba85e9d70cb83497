"""Myelin models as ``cordqa fit`` runs them: options, refusals, tables beside the maps."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from helpers_fit import data_of, request_of, save

from cordqa.errors import CordqaError
from cordqa.records import Severity
from cordqa.workflow.fit.chunks import fit_voxels
from cordqa.workflow.fit.registry import find_model
from cordqa.workflow.fit.run import run_fit
from cordqa.workflow.reliability import run_reliability


@pytest.mark.parametrize("spatial", ["angle", "spectra"])
def test_neighbours_are_used_and_named(spatial, tmp_path):
    model = find_model("mwf")
    options = {"spatial": spatial, "angle_fwhm": 6.0}
    data = data_of(model, tmp_path, options=options)
    maps = fit_voxels(model, data)
    assert maps.reasons.ok.all()
    assert "angle map smoothed" in maps.model
    assert ("neighbours" in maps.model) == (spatial == "spectra")
    alone = fit_voxels(model, data_of(model, tmp_path / "b"))
    # Smoothing brings the angles of the example, which go from 175 to 120, nearer to each other.
    assert np.ptp(maps.values["refocusing_angle"]) < np.ptp(alone.values["refocusing_angle"])
    same = fit_voxels(model, data, chunk_voxels=5)
    np.testing.assert_allclose(same.values["MWF"], maps.values["MWF"], rtol=1e-6)


def test_a_bad_voxel_does_not_spoil_its_neighbours(tmp_path):
    model = find_model("mwf")
    data = data_of(model, tmp_path, options={"spatial": "spectra"})
    signal = data.signal.copy()
    signal[3, 4] = np.nan
    maps = fit_voxels(model, replace(data, signal=signal))
    assert np.isnan(maps.values["MWF"][3])
    assert np.isfinite(np.delete(maps.values["MWF"], 3)).all()


def test_a_known_b1_gives_the_angle(tmp_path):
    model = find_model("mwf")
    angle = model.example().truth["refocusing_angle"]
    b1 = save(tmp_path / "b1.nii.gz", angle / 180)
    maps = fit_voxels(model, data_of(model, tmp_path, maps={"b1_map": b1}))
    np.testing.assert_allclose(maps.values["refocusing_angle"], angle.ravel(), rtol=1e-5)
    np.testing.assert_allclose(maps.values["MWF"], model.example().truth["MWF"].ravel(), rtol=0.02)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"echo_times": tuple(0.01 * np.array([2, 1, *range(3, 33)]))}, "do not increase"),
        ({"echo_times": tuple(0.01 * np.arange(1, 33) ** 1.1)}, "equally spaced"),
        ({"echo_times": tuple(0.045 * np.arange(1, 33))}, "nothing of myelin water"),
    ],
)
def test_echoes_that_cannot_carry_the_fit_are_named(change, words, tmp_path):
    with pytest.raises(CordqaError, match=words):
        run_fit(request_of(find_model("mwf"), tmp_path / "in", settings=change), tmp_path / "out")


def test_the_protocol_of_two_pools_is_judged_in_the_result(tmp_path):
    result = run_fit(request_of(find_model("mcdespot"), tmp_path / "in"), tmp_path / "out")
    said = [note.message for note in result.notices]
    assert any("hardly better than guessing" in text and "SNR 500" in text for text in said)
    assert any(text.startswith("experimental") for text in said)


def test_landmarks_may_lie_outside_the_mask(tmp_path):
    model = find_model("t1t2ratio")
    example = model.example()
    inside = np.zeros(example.truth["T1wT2w"].shape)
    inside[1:4] = 1
    request = request_of(model, tmp_path / "in", mask=save(tmp_path / "mask.nii.gz", inside))
    result = run_fit(request, tmp_path / "out")
    assert result.measurements[0].value == pytest.approx(example.truth["T1wT2w"][1:4].mean(), rel=1e-4)
    bare = run_fit(
        replace(request, options={}, images={k: v for k, v in request.images.items() if "l" not in k}),
        tmp_path / "b",
    )
    assert any("not calibrated" in note.message for note in bare.notices)


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("t1t2ratio", {"t1w_references": None}, "intensities of the landmarks"),
        ("t1t2ratio", {"percentiles": (5.0, 95.0)}, "not both"),
        ("gratio", {"mvf_slope": None}, "needs a calibration"),
        ("myelin", {"parameters": "own"}, "no compartments of its own"),
        ("myelin", {"myelin": (300.0, 13.0, 45.0)}, "not both"),
        ("myelin", {"parameters": "own", "myelin": (300.0, 13.0, 45.0)}, "no T1, T2 and PD of cellular"),
        ("volumes", {"wm": (0.8, 75.0, 70.0)}, "cannot be meant"),
    ],
)
def test_missing_calibrations_are_named(model, options, words, tmp_path):
    record = find_model(model)
    given = {**record.example().options, **options}
    with pytest.raises(CordqaError, match=words):
        run_fit(request_of(record, tmp_path / "in", options=given), tmp_path / "out")


def test_maps_in_seconds_are_refused(tmp_path):
    for name in ("myelin", "volumes"):
        record = find_model(name)
        images = {
            role: (save(tmp_path / f"{name}-{role}.nii.gz", data / (1000 if role != "pd" else 1)),)
            for role, data in record.example().images.items()
        }
        with pytest.raises(CordqaError, match="are these seconds"):
            run_fit(request_of(record, tmp_path / name, images=images), tmp_path / "out" / name)


def test_maps_of_t1_and_t2_that_are_swapped_are_refused(tmp_path):
    for name in ("myelin", "volumes"):
        record = find_model(name)
        images = record.example().images
        swapped = {"t1": images["t2"], "t2": images["t1"], "pd": images["pd"]}
        paths = {role: (save(tmp_path / f"{role}.nii.gz", data),) for role, data in swapped.items()}
        with pytest.raises(CordqaError, match="T2 is longer than T1"):
            run_fit(request_of(record, tmp_path / name, images=paths), tmp_path / "out" / name)


@pytest.mark.parametrize(("slope", "words"), [(0.001, "different units"), (10.0, "different units")])
def test_a_calibration_for_another_unit_gives_no_g_ratio_near_one(slope, words, tmp_path):
    record = find_model("gratio")
    options = {**record.example().options, "mvf_slope": slope, "mvf_intercept": 0.0}
    with pytest.raises(CordqaError, match=words):
        run_fit(request_of(record, tmp_path / "in", options=options), tmp_path / "out")


def test_free_water_in_percent_is_refused_although_most_of_it_is_below_one(tmp_path):
    record = find_model("gratio")
    water = np.linspace(0.0, 2.5, 12).reshape(3, 2, 2)
    images = dict(request_of(record, tmp_path / "in").images)
    images["free_water"] = (save(tmp_path / "fwf.nii.gz", water),)
    with pytest.raises(CordqaError, match="if these are percent"):
        run_fit(request_of(record, tmp_path / "in", images=images), tmp_path / "out")


@pytest.mark.parametrize("swap", [(0, 1), (2, 3), None])
def test_echoes_out_of_order_are_said_although_each_voxel_fits(swap, tmp_path):
    record = find_model("mwf")
    clean = record.example().images["images"]
    signal = np.repeat(clean, 12, axis=2)
    signal = signal + np.random.default_rng(0).normal(0, 3.0, signal.shape)
    if swap:
        signal[..., list(swap)] = signal[..., list(swap[::-1])]
    images = {"images": (save(tmp_path / "mese.nii.gz", signal),)}
    result = run_fit(request_of(record, tmp_path / "in", images=images), tmp_path / "out")
    said = [note for note in result.notices if "first echoes fit worse" in note.message]
    assert bool(said) == (swap is not None)
    assert all(note.severity is Severity.WARNING for note in said)


def test_reversed_echoes_are_refused_and_swapped_late_ones_are_said(tmp_path):
    record = find_model("mwf")
    clean = record.example().images["images"]
    images = {"images": (save(tmp_path / "reversed.nii.gz", clean[..., ::-1]),)}
    with pytest.raises(CordqaError, match="does not decay"):
        run_fit(request_of(record, tmp_path / "in", images=images), tmp_path / "out")
    late = np.array(clean)
    late[..., [10, 12]] = late[..., [12, 10]]
    images = {"images": (save(tmp_path / "late.nii.gz", late),)}
    result = run_fit(request_of(record, tmp_path / "in", images=images), tmp_path / "late")
    loud = [note.message for note in result.notices if note.severity is Severity.WARNING]
    assert any("higher at echo time 0.13 s" in text or "higher at echo time 0.12 s" in text for text in loud)


def test_rules_that_follow_the_noise_say_what_their_errors_leave_out(tmp_path):
    for rule, words in (("gcv", "too small by a third to a half"), ("none", "wild"), ("chi2", "")):
        options = {"regularisation": rule}
        result = run_fit(request_of(find_model("mwf"), tmp_path / "in", options=options), tmp_path / rule)
        said = [note.message for note in result.notices if "bootstrap" in note.message]
        assert (words in said[0]) if words else not said


def test_volumes_say_whose_they_are_and_which_values_were_assumed(tmp_path):
    record = find_model("volumes")
    paths = {
        role: (save(tmp_path / f"sub-07_ses-b_{role.upper()}map.nii.gz", data),)
        for role, data in record.example().images.items()
    }
    result = run_fit(request_of(record, tmp_path / "in", images=paths), tmp_path / "out")
    with (tmp_path / "out" / "volumes.tsv").open() as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert {(row["subject"], row["session"]) for row in rows} == {("sub-07", "b")}
    assert any("assumptions for adults at 3 T" in note.message for note in result.notices)
    total = sum(float(row["value"]) for row in rows)
    assert total == pytest.approx(12 * 16.0, rel=1e-6)  # all of 12 voxels of 16 mm3
    own = {**record.example().options, "wm": (840.0, 76.0, 69.0)}
    result = run_fit(request_of(record, tmp_path / "in2", images=paths, options=own), tmp_path / "out2")
    assert not any("assumptions for adults at 3 T" in note.message for note in result.notices)


def test_volumes_are_a_table_that_the_reliability_command_takes(tmp_path):
    rows = []
    for who in ("sub-01", "sub-02", "sub-03"):
        for session in ("01", "02"):
            out = tmp_path / who / session
            run_fit(request_of(find_model("volumes"), out / "in"), out / "out")
            with (out / "out" / "volumes.tsv").open() as stream:
                rows += [
                    {**row, "subject": who, "session": session}
                    for row in csv.DictReader(stream, delimiter="\t")
                ]
    voxels = find_model("volumes").example().truth["GM_fraction"].sum() / 100
    gm = [float(row["value"]) for row in rows if row["region"] == "GM"]
    assert gm == pytest.approx([voxels * 16.0] * 6, rel=1e-3)
    assert all(float(row["standard_uncertainty"]) > 0 for row in rows if row["region"] != "other")
    with (tmp_path / "all.tsv").open("w") as stream:
        table = csv.DictWriter(stream, list(rows[0]), delimiter="\t")
        table.writeheader()
        table.writerows(rows)
    result = run_reliability(tmp_path / "all.tsv", tmp_path / "rel")
    assert any(s.name == "wCV" and s.region == "GM" for s in result.statistics)


def test_voxels_that_are_in_no_volume_are_said_where_a_mask_should_hold_tissue_only(tmp_path):
    record = find_model("volumes")
    request = request_of(record, tmp_path / "in")
    t2 = np.array(record.example().images["t2"])
    t2[0, 0] = np.nan
    inside = np.ones(t2.shape)
    inside[2, 1, 1] = 0
    images = {**request.images, "t2": (save(tmp_path / "t2.nii.gz", t2),)}
    mask = save(tmp_path / "mask.nii.gz", inside)
    result = run_fit(replace(request, images=images, mask=mask), tmp_path / "out")
    loud = [note.message for note in result.notices if note.severity is Severity.WARNING]
    assert any(text.startswith("18 % of the mask have no T1, T2 or PD") for text in loud)
    result = run_fit(replace(request, images=images), tmp_path / "all")
    assert not any("of the mask have no" in note.message for note in result.notices)


def test_standard_errors_of_fractions_in_percent_are_refused(tmp_path):
    record = find_model("gratio")
    maps = {
        name: save(tmp_path / f"{name}.nii.gz", np.full((3, 2, 2), value))
        for name, value in (("myelin_se", 0.1), ("neurite_se", 3.0), ("free_water_se", 0.02))
    }
    request = replace(request_of(record, tmp_path / "in"), maps=maps)
    with pytest.raises(CordqaError, match="is it in percent"):
        run_fit(request, tmp_path / "out")
