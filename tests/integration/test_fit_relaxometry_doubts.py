"""Series that fit, and are wrong: order, settings, scaling and noise are doubted where the data show it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from helpers_fit import load, request_of, save, sidecar

from cordqa.errors import CordqaError
from cordqa.models.relaxometry.signal import inversion_recovery_signal, spoiled_gradient_echo_signal
from cordqa.records import Result, Severity
from cordqa.workflow.fit.inputs import read_inputs
from cordqa.workflow.fit.registry import find_model
from cordqa.workflow.fit.request import FitRequest
from cordqa.workflow.fit.run import run_fit

TIMES = (0.05, 0.15, 0.3, 0.6, 1.0, 1.6, 2.4)
ANGLES = (3.0, 8.0, 15.0, 25.0)
SHAPE = (8, 8, 4)


def warnings_of(result: Result) -> str:
    return " | ".join(n.message for n in result.notices if n.severity is not Severity.INFO)


def series(name: str, folder: Path, signal: np.ndarray, **settings: tuple[float, ...]) -> FitRequest:
    request = request_of(find_model(name), folder / "example")
    path = save(folder / "series.nii.gz", signal)
    return replace(request, images={"images": (path,)}, settings=settings, maps={}, options={})


def recovery(order: list[int], sd: float = 0.0) -> np.ndarray:
    t1 = np.linspace(0.4, 1.6, int(np.prod(SHAPE))).reshape(SHAPE)
    clean = inversion_recovery_signal(
        np.array(TIMES), t1[..., None], m0=1000.0, inversion_angle_deg=170.0, repetition_time_s=4.0
    )
    noise = np.random.default_rng(1).normal(0, sd, (2, *clean.shape))
    return np.abs(clean + noise[0] + 1j * noise[1])[..., order]


@pytest.mark.parametrize(
    ("order", "match"),
    [
        ([6, 5, 4, 3, 2, 1, 0], "reversed order"),
        ([0, 1, 3, 2, 4, 5, 6], "of the signal off the fitted curve"),
    ],
)
def test_inversion_times_in_another_order_are_doubted(order: list[int], match: str, tmp_path: Path) -> None:
    request = series(
        "t1-ir", tmp_path, recovery(order, 20.0), inversion_times=TIMES, repetition_time=(4.0,) * 7
    )
    assert match in warnings_of(run_fit(request, tmp_path / "out"))


def test_a_series_in_order_is_not_doubted_at_low_signal(tmp_path: Path) -> None:
    request = series(
        "t1-ir", tmp_path, recovery(list(range(7)), 80.0), inversion_times=TIMES, repetition_time=(4.0,) * 7
    )
    assert warnings_of(run_fit(request, tmp_path / "out")) == ""


@pytest.mark.parametrize("wrong", ["reversed", "one scaled"])
def test_flip_angles_that_do_not_belong_to_their_images_are_doubted(wrong: str, tmp_path: Path) -> None:
    t1 = np.linspace(0.6, 1.6, int(np.prod(SHAPE))).reshape(SHAPE)
    signal = spoiled_gradient_echo_signal(np.array(ANGLES), t1[..., None], 0.015, m0=1000.0)
    if wrong == "one scaled":
        signal[..., -1] *= 1.5
    angles = ANGLES[::-1] if wrong == "reversed" else ANGLES
    request = series("t1-vfa", tmp_path, signal, flip_angles=angles, repetition_time=(0.015,))
    assert "the fitted curve in most voxels" in warnings_of(run_fit(request, tmp_path / "out"))


def test_too_few_settings_are_said_before_anything_is_fitted(tmp_path: Path) -> None:
    three = series("t1-ir", tmp_path, recovery([0, 3, 6]), inversion_times=(0.05, 0.6, 2.4))
    with pytest.raises(CordqaError, match="--inversion-angle 180"):
        run_fit(three, tmp_path / "out")
    fixed = replace(three, options={"inversion_angle": 170.0}, settings={**three.settings})
    assert np.isfinite(run_fit(fixed, tmp_path / "fixed").measurements[0].value)
    same = series("t1-vfa", tmp_path, np.ones((*SHAPE, 2)), flip_angles=(5.0, 5.0), repetition_time=(0.015,))
    with pytest.raises(CordqaError, match="too few different flip angles"):
        run_fit(same, tmp_path / "same")


def test_angles_in_radians_are_refused_or_doubted(tmp_path: Path) -> None:
    request = request_of(find_model("t1-ir"), tmp_path / "ir")
    with pytest.raises(CordqaError, match="10 to 180"):
        run_fit(replace(request, options={"inversion_angle": 3.14}), tmp_path / "out")
    request = request_of(find_model("mtsat"), tmp_path / "mt")
    wrong = {**request.settings, "flip_angles": tuple(np.radians(request.settings["flip_angles"]))}
    assert "radians" in warnings_of(run_fit(replace(request, settings=wrong), tmp_path / "out"))


def test_scaling_that_differs_between_files_is_said(tmp_path: Path) -> None:
    request = request_of(find_model("t1-vfa"), tmp_path / "in")
    data = load(request.images["images"][0])
    paths = tuple(save(tmp_path / f"fa-{n}.nii.gz", data[..., n]) for n in range(4))
    for path, slope in zip(paths, (0.002, 0.002, 0.004, 0.002), strict=True):
        sidecar(path, PhilipsRescaleSlope=1.0, PhilipsScaleSlope=slope, PhilipsRescaleIntercept=0.0)
    result = run_fit(replace(request, images={"images": paths}), tmp_path / "out")
    assert "different scaling (slope 0.002 to 0.004)" in warnings_of(result)


def test_a_uniform_image_without_its_scaling_is_refused(tmp_path: Path) -> None:
    request = request_of(find_model("mp2rage"), tmp_path / "in")
    tiny = save(tmp_path / "tiny.nii.gz", 1e-6 * load(request.images["uniform"][0]))
    with pytest.raises(CordqaError, match="hardly differs from zero"):
        run_fit(replace(request, images={"uniform": (tiny,)}), tmp_path / "out")


def test_two_echoes_in_the_wrong_order_are_a_warning(tmp_path: Path) -> None:
    for name in ("t2", "t2star"):
        request = request_of(find_model(name), tmp_path / name)
        data = load(request.images["images"][0])
        order = list(range(data.shape[-1]))
        order[3], order[2] = order[2], order[3]
        path = save(tmp_path / f"{name}.nii.gz", data[..., order])
        result = run_fit(replace(request, images={"images": (path,)}), tmp_path / "out" / name)
        assert "may be in the wrong order" in warnings_of(result)


def test_known_noise_takes_the_place_of_the_floor(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    times = 0.01 * np.arange(1, 33)
    clean = 1000 * np.exp(-times / 0.03) * np.ones((10, 10, 6, 1))
    noisy = np.abs(clean + rng.normal(0, 36, clean.shape) + 1j * rng.normal(0, 36, clean.shape))
    request = series("t2", tmp_path, noisy, echo_times=tuple(times))
    plain = run_fit(request, tmp_path / "plain")
    known = run_fit(replace(request, noise_sd=36.0), tmp_path / "known")
    assert plain.measurements[0].value > 34
    assert any("the noise is not known" in n.message for n in plain.notices)
    assert known.measurements[0].value == pytest.approx(30.0, rel=0.025)
    assert not any("the noise is not known" in n.message for n in known.notices)


def test_mt_images_without_settings_get_one_sentence_and_mtsat_its_pulse_order(tmp_path: Path) -> None:
    request = replace(request_of(find_model("mtr"), tmp_path / "mtr"), settings={})
    unknown = [n.message for n in run_fit(request, tmp_path / "r").notices if "not known" in n.message]
    assert len(unknown) == 1
    request = request_of(find_model("mtsat"), tmp_path / "mtsat")
    after = run_fit(request, tmp_path / "after")
    before = run_fit(replace(request, options={"pulse_order": "before"}), tmp_path / "before")
    assert any("--pulse-order before" in n.message for n in after.notices)
    assert not any("--pulse-order" in n.message for n in before.notices)
    assert before.measurements[0].value == pytest.approx(after.measurements[0].value / 1.04, rel=0.01)


def _real_recovery(folder: Path, out: Path) -> tuple[FitRequest, np.ndarray]:
    """Request for real inversion-recovery images of a phantom, with the public rescale slope only."""
    files = [pydicom.dcmread(path) for path in sorted(folder.iterdir()) if path.is_file()]
    files.sort(key=lambda one: float(one.InversionTime))
    images = [one.pixel_array * float(one.get("RescaleSlope", 1)) for one in files]
    data = np.stack(images, axis=-1)[:, :, None, :].astype(np.float32)
    bright = data.max(axis=-1) > np.quantile(data.max(axis=-1), 0.8)
    request = series(
        "t1-ir",
        out,
        data,
        inversion_times=tuple(float(one.InversionTime) / 1000 for one in files),
        repetition_time=tuple(float(one.RepetitionTime) / 1000 for one in files),
    )
    return replace(request, mask=save(out / "mask.nii.gz", bright)), data


def _doubts(request: FitRequest) -> tuple[str, ...]:
    return request.model.prepare(read_inputs(request).data).state["misfit"]


@pytest.mark.parametrize("scan", ["site3_ge/plate5", "site1_20200218/plate5"])
def test_real_scans_in_order_are_not_doubted_and_reversed_they_are(
    scan: str, shared_data: Path, tmp_path: Path
) -> None:
    request, data = _real_recovery(shared_data / "phantom" / "T1" / scan, tmp_path)
    assert _doubts(request) == ()
    backward = save(tmp_path / "backward.nii.gz", data[..., ::-1])
    assert _doubts(replace(request, images={"images": (backward,)})) != ()


def test_a_real_scan_without_its_private_scaling_is_doubted(shared_data: Path, tmp_path: Path) -> None:
    """Philips scales every image by itself, and the public slope does not undo it."""
    request, _ = _real_recovery(shared_data / "phantom" / "T1" / "site5_philips_3T" / "plate5", tmp_path)
    (doubt,) = _doubts(request)
    assert "scaling" in doubt
