"""One suite for every model of ``cordqa fit``: put a module into the registry and it is tested here."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers_fit import Words, data_of, load, request_of

from cordqa.cli._run import run
from cordqa.errors import CordqaError
from cordqa.io.results import read_result
from cordqa.quantities import QUANTITIES
from cordqa.records import Status
from cordqa.workflow.fit.chunks import fit_voxels, join_maps
from cordqa.workflow.fit.registry import find_model, list_models
from cordqa.workflow.fit.run import run_fit

pytestmark = pytest.mark.parametrize("name", list_models())
COMMON = {"mask", "noise_map", "noise_sd", "region", "out", "json", "redo", "report", "resample", "n_procs"}


#: These hold also where the extra of a model is not installed.
WITHOUT_EXTRA = ("test_record_is_complete", "test_help_names_every_input")


@pytest.fixture(autouse=True)
def extra(request, name):
    model = find_model(name)
    if not model.installed and request.node.originalname not in WITHOUT_EXTRA:
        pytest.skip(f"{model.requires}, an optional extra, is not installed")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The example of each model as data and as maps, read and fitted once."""
    found: dict = {}

    def make(name: str):
        if name not in found:
            data = data_of(find_model(name), tmp_path_factory.mktemp(name))
            found[name] = data, fit_voxels(find_model(name), data)
        return found[name]

    return make


def same(first, second) -> None:
    assert first.values.keys() == second.values.keys()
    for key in first.values:
        np.testing.assert_allclose(first.values[key], second.values[key], rtol=1e-7, atol=1e-12)
        assert [first.reason_of(key).at(n) for n in range(first.reasons.codes.size)] == [
            second.reason_of(key).at(n) for n in range(second.reasons.codes.size)
        ]
    for key, error in first.standard_errors.items():
        np.testing.assert_allclose(error, second.standard_errors[key], rtol=1e-5, atol=1e-9)


def test_record_is_complete(name):
    model = find_model(name)
    assert 20 < len(model.description) < 110
    assert not model.description.endswith(".")
    assert model.references
    # A DOI that could not be checked is left out; the work must then be found by volume and page.
    assert all(re.search(r"doi:10\.\d{4,}/\S+|\b\d{4};\d+:\d+", text) for text in model.references)
    assert any(re.search(r"doi:10\.\d{4,}/\S+", text) for text in model.references)
    assert model.produces
    names = [one.id for group in (model.settings, model.maps, model.options) for one in group]
    assert not COMMON & set(names)
    for one in (*model.settings, *model.maps, *model.options, *model.images):
        assert one.help.endswith(".")
    for one in model.settings:
        assert one.unit
        assert one.smallest < one.largest
    for one in model.options:
        assert one.unit or one.kind in (bool, str)
        assert one.choices or one.kind is not str
        if one.kind in (float, int):
            assert np.isfinite([one.low, one.high]).all()


def test_recovers_the_truth_without_noise(name, prepared):
    data, maps = prepared(name)
    example = find_model(name).example()
    for quantity, truth in example.truth.items():
        got = maps.values[quantity].reshape(truth.shape)
        np.testing.assert_allclose(got, truth, rtol=example.tolerance, atol=1e-6)
    assert set(maps.values) <= set(find_model(name).produces)
    assert set(maps.standard_errors) <= set(maps.values)
    assert data.signal.dtype == np.float32


def test_units_are_those_of_the_registry(name, prepared):
    _, maps = prepared(name)
    assert set(maps.units) == set(maps.values)
    for quantity, unit in maps.units.items():
        assert unit
        if quantity in QUANTITIES:
            assert unit == QUANTITIES[quantity].unit


def test_a_hole_has_a_reason_and_a_value_has_none(name, prepared):
    data, _ = prepared(name)
    model = find_model(name)
    if not model.voxelwise:
        pytest.skip("a whole-volume model")
    signal = data.signal.copy()
    signal[0] = np.nan
    signal[1] = 0
    signal[2, 0] = np.nan
    signal[3] = -signal[3]
    broken = fit_voxels(model, replace(data, signal=signal))
    for quantity, values in broken.values.items():
        assert np.array_equal(np.isfinite(values), broken.reason_of(quantity).ok)
        assert not np.isfinite(values[:2]).any()
    for error in broken.standard_errors.values():
        assert not np.isfinite(error[~broken.reasons.ok]).any()
    for where in broken.flags.values():
        assert where.shape == signal.shape[:1]
        assert where.dtype == bool


def test_one_bad_voxel_changes_no_other(name, prepared):
    data, maps = prepared(name)
    model = find_model(name)
    if not model.voxelwise:
        pytest.skip("a whole-volume model")
    for bad in (np.nan, 0.0, 1e30):
        signal = data.signal.copy()
        signal[5] = bad
        found = fit_voxels(model, replace(data, signal=signal))
        for quantity, values in maps.values.items():
            np.testing.assert_allclose(
                np.delete(found.values[quantity], 5), np.delete(values, 5), rtol=1e-7, atol=1e-12
            )


def test_chunks_and_order_do_not_matter(name, prepared):
    data, maps = prepared(name)
    model = find_model(name)
    if not model.voxelwise:
        pytest.skip("a whole-volume model")
    same(maps, fit_voxels(model, data, chunk_voxels=5))
    order = np.random.default_rng(1).permutation(data.signal.shape[0])
    turned = fit_voxels(model, data.rows(order))
    for quantity, values in maps.values.items():
        np.testing.assert_allclose(turned.values[quantity], values[order], rtol=1e-7, atol=1e-12)


def test_a_change_of_scale_changes_only_amplitudes(name, prepared):
    if find_model(name).absolute:
        pytest.skip("the numbers of the images have a meaning of their own")
    data, maps = prepared(name)
    noise = None if data.noise_sd is None else 4 * data.noise_sd
    scaled = fit_voxels(find_model(name), replace(data, signal=4 * data.signal, noise_sd=noise))
    for quantity, values in maps.values.items():
        if quantity in QUANTITIES and maps.units[quantity] not in ("signal", "a.u."):
            np.testing.assert_allclose(scaled.values[quantity], values, rtol=1e-5, atol=1e-8)


def test_standard_errors_follow_the_noise(name, prepared):
    """Where the model takes a noise level, its standard errors are those of repeated noise."""
    model = find_model(name)
    example = model.example()
    if not np.isfinite(example.noise_sd) or not model.voxelwise:
        pytest.skip("the example states no noise")
    data, _ = prepared(name)
    rng = np.random.default_rng(3)
    many = data.rows(np.repeat(np.arange(4), 400))
    noisy = many.signal + rng.normal(0, example.noise_sd, many.signal.shape).astype(np.float32)
    maps = fit_voxels(
        model, replace(many, signal=noisy, noise_sd=np.full(many.signal.shape[0], example.noise_sd))
    )
    main = next(iter(example.truth))
    spread = maps.values[main].reshape(4, 400).std(axis=1)
    stated = np.sqrt(np.nanmean(maps.standard_errors[main].reshape(4, 400) ** 2, axis=1))
    np.testing.assert_allclose(stated, spread, rtol=0.15)


def test_travels_to_another_process(name, prepared):
    data, maps = prepared(name)
    function, chunk = pickle.loads(pickle.dumps((find_model(name).fit, data)))
    assert function is find_model(name).fit
    assert chunk.signal.shape == data.signal.shape
    same(maps, join_maps([pickle.loads(pickle.dumps(maps))]))


def test_whole_run_writes_everything_with_sidecars(name, tmp_path):
    model = find_model(name)
    request = request_of(model, tmp_path / "in")
    result = run_fit(request, tmp_path / "out")
    out = tmp_path / "out"
    assert result.status in (Status.NOT_EVALUATED, Status.WARN)
    assert read_result(out).measurements[0].region == "all voxels"
    images = sorted(out.glob("*.nii.gz"))
    for image in images:
        assert image.with_name(image.name.removesuffix(".nii.gz") + ".json").is_file()
    outputs = result.provenance.config["outputs"]
    extra = {"result.json", "config.yaml", "measurements.tsv", "measurements.json", "statistics.tsv"}
    assert {path.name for path in out.iterdir()} == set(outputs) | extra | {"verdicts.tsv"}
    shape = next(iter(model.example().images.values())).shape[:3]
    assert all(load(image).shape[:3] == shape for image in images)  # vectors have a fourth axis
    rows = {row.quantity: row for row in result.measurements}
    example = model.example()
    for quantity, truth in example.truth.items():
        assert rows[quantity].value == pytest.approx(truth.mean(), rel=example.tolerance, abs=1e-6)
    assert all(figure.data for figure in result.figures)
    assert result.methods
    assert result.references


def test_help_names_every_input(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    model = find_model(name)
    assert run(["fit", name, "--help"]) == 0
    text = capsys.readouterr().out
    for role in model.images:
        assert (role.option if role.by_option else role.metavar) in text
    for one in (*model.settings, *model.maps, *model.options):
        assert one.option in text
    assert "--bval" in text or not model.gradients
    assert "doi:" in text


def test_command_line_gives_what_python_gives(name, tmp_path, capsys):
    model = find_model(name)
    words = Words(model, request_of(model, tmp_path / "in"), tmp_path / "out")
    assert run(words.list("--no-report")) == 0
    capsys.readouterr()
    direct = run_fit(words.request, tmp_path / "direct")
    assert not (tmp_path / "out" / "report.html").exists()
    printed = read_result(tmp_path / "out")
    assert [m.value for m in printed.measurements] == pytest.approx(
        [m.value for m in direct.measurements], rel=1e-9, nan_ok=True
    )


def test_wrong_number_of_settings_is_refused(name, tmp_path, capsys):
    model = find_model(name)
    counts = {one.id: one for one in model.settings if not one.shared and not one.constant}
    request = request_of(model, tmp_path / "in")
    wrong = {key: (*request.settings[key], 0.5) for key in counts if key in request.settings}
    if not wrong:
        pytest.skip("no setting per image")
    words = Words(model, replace(request, settings={**request.settings, **wrong}), tmp_path / "out")
    assert run(words.list()) == 2
    assert "number of values" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.nii.gz"))


def test_missing_required_settings_are_named(name, tmp_path):
    model = find_model(name)
    needed = [one for one in model.settings if one.required and not np.isfinite(one.default)]
    request = request_of(model, tmp_path / "in")
    for one in needed:
        rest = {key: value for key, value in request.settings.items() if key != one.id}
        with pytest.raises(CordqaError, match=one.option) as caught:
            run_fit(replace(request, settings=rest), tmp_path / "out")
        assert caught.value.exit_status == 2


def test_settings_in_a_wrong_unit_are_named(name, tmp_path):
    model = find_model(name)
    request = request_of(model, tmp_path / "in")
    for one in model.settings:
        if one.slip != "milliseconds" or one.id not in request.settings:
            continue
        wrong = {**request.settings, one.id: tuple(1000 * v for v in request.settings[one.id])}
        with pytest.raises(CordqaError) as caught:
            run_fit(replace(request, settings=wrong), tmp_path / "out")
        assert "milliseconds" in str(caught.value)


def test_truncated_series_is_refused(name, tmp_path):
    """A single 3D image where a series is needed."""
    model = find_model(name)
    series = next((role for role in model.images if role.many and role.minimum > 1), None)
    if series is None:
        pytest.skip("no series")
    request = request_of(model, tmp_path / "in")
    example = model.example()
    from helpers_fit import save

    single = save(tmp_path / "single.nii.gz", example.images[series.id][..., 0])
    with pytest.raises(CordqaError, match="single 3D image"):
        run_fit(replace(request, images={**request.images, series.id: (single,)}), tmp_path / "out")
    assert not list(Path(tmp_path / "out").glob("*.nii.gz"))
