"""ihMTR with its normalisation; bias of MTsat with each B1 law used consistently."""

from __future__ import annotations

import numpy as np
import pytest

from cordqa.errors import InputError
from cordqa.models.magnetization_transfer.inhomogeneous import ihmt_ratio
from cordqa.models.magnetization_transfer.saturation import SpoiledEcho, fit_mt_saturation

PROTOCOLS = {
    "TR 35 ms": ((0.035, 9.0), (0.035, 9.0), (0.015, 15.0)),
    "TR 57 ms": ((0.057, 9.0), (0.057, 9.0), (0.015, 15.0)),
}
# How the saturation depends on B1, and the model that says so.
LAWS = {
    "none": (lambda b1: b1**2, {}),
    "helms2021": (lambda b1: b1**2 * (1 - 0.4 * b1) / 0.6, {}),
    "lipp2023": (lambda b1: 1 + 1.2 * (b1 - 1), {"lipp_c": 1.2}),
}


def test_both_normalisations_differ_by_two() -> None:
    images = ([60.0], [58.0], [54.0], [100.0])
    assert ihmt_ratio(*images, normalisation="sum").values["ihMTR"][0] == pytest.approx(10.0)
    assert ihmt_ratio(*images, normalisation="mean").values["ihMTR"][0] == pytest.approx(5.0)
    two = ([60.0], [58.0], [[53.0, 55.0]], [100.0])
    assert ihmt_ratio(*two, normalisation="sum").values["ihMTR"][0] == pytest.approx(10.0)


def test_the_normalisation_must_be_said() -> None:
    with pytest.raises(InputError, match="factor of two"):
        ihmt_ratio([1.0], [1.0], [1.0], [1.0], normalisation="")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="shape"):
        ihmt_ratio([1.0, 2.0], [1.0], [1.0], [1.0], normalisation="sum")


def test_voxels_without_a_value_say_why_and_negative_ones_are_flagged() -> None:
    s0 = np.array([100.0, 100.0, 0.0, 100.0])
    plus, minus = np.array([60.0, np.nan, 60.0, 60.0]), np.full(4, 58.0)
    found = ihmt_ratio(plus, minus, np.array([54.0, 54.0, 54.0, 70.0]), s0, normalisation="sum")
    assert [found.reasons.at(n) for n in range(4)] == [
        "",
        "a signal is not a number",
        "no signal in one of the images",
        "",
    ]
    assert np.isnan(found.values["ihMTR"][1:3]).all()
    (flag,) = found.flags.values()
    assert flag.tolist() == [False, False, False, True]


def train(
    t1: np.ndarray, saturation: np.ndarray, b1: np.ndarray, echo: SpoiledEcho, order: str
) -> np.ndarray:
    """Signal pulse by pulse, the saturation following the readout, or standing just before it."""
    angle = np.radians(echo.flip_angle_deg) * b1
    early, late = (saturation, 0 * saturation) if order == "before" else (0 * saturation, saturation)
    mz = np.ones_like(t1)
    for _ in range(1500):
        mz = mz * (1 - early)
        signal = mz * np.sin(angle)
        mz = 1 - (1 - mz * np.cos(angle) * (1 - late)) * np.exp(-echo.repetition_time_s / t1)
    return 1000 * signal


@pytest.mark.parametrize("order", ["after", "before"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("model", LAWS)
def test_mtsat_is_biased_by_less_than_six_and_a_half_percent(protocol: str, model: str, order: str) -> None:
    law, options = LAWS[model]
    t1, truth, b1 = np.meshgrid([0.8, 1.2, 2.0], [0.01, 0.02, 0.035], [0.7, 1.0, 1.3], indexing="ij")
    echoes = [SpoiledEcho(repetition_time_s=tr, flip_angle_deg=fa) for tr, fa in PROTOCOLS[protocol]]
    lost = (truth * law(b1), 0 * truth, 0 * truth)
    images = [train(t1, d, b1, echo, order) for d, echo in zip(lost, echoes, strict=True)]
    fit = fit_mt_saturation(
        *images,
        mt_echo=echoes[0],
        pd_echo=echoes[1],
        t1_echo=echoes[2],
        b1=b1,
        b1_model=model,
        pulse_order=order,
        **options,
    )
    bias = fit.values["MTsat"] / (100 * truth) - 1
    assert np.abs(bias).max() < (0.065 if order == "after" else 0.014)
    assert np.ptp(bias) < 0.05
    assert np.abs(fit.values["M0"] / 1000 - 1).max() < 0.015


def test_the_published_algebra_overestimates_a_pulse_before_the_readout() -> None:
    echoes = [SpoiledEcho(repetition_time_s=tr, flip_angle_deg=fa) for tr, fa in PROTOCOLS["TR 57 ms"]]
    t1, one = np.array([0.8]), np.ones(1)
    images = [train(t1, d * one, one, echo, "before") for d, echo in zip((0.035, 0, 0), echoes, strict=True)]
    named = {"mt_echo": echoes[0], "pd_echo": echoes[1], "t1_echo": echoes[2]}
    assert fit_mt_saturation(*images, **named).values["MTsat"][0] == pytest.approx(3.74, abs=0.02)
    with pytest.raises(InputError, match="pulse order"):
        fit_mt_saturation(*images, **named, pulse_order="first")  # type: ignore[arg-type]


def test_t1_and_m0_beyond_the_range_are_no_values_and_mtsat_stays() -> None:
    echoes = [SpoiledEcho(repetition_time_s=tr, flip_angle_deg=fa) for tr, fa in PROTOCOLS["TR 57 ms"]]
    t1, one = np.array([2.0, 8.0, 14.0]), np.ones(3)
    images = [train(t1, d * one, one, echo, "after") for d, echo in zip((0.02, 0, 0), echoes, strict=True)]
    found = fit_mt_saturation(*images, mt_echo=echoes[0], pd_echo=echoes[1], t1_echo=echoes[2])
    for name in ("T1", "M0"):
        assert np.isfinite(found.values[name]).tolist() == [True, True, False]
        assert found.reason_of(name).counts() == {"T1 below 5 ms or above 10 s": 1}
    assert np.isfinite(found.values["MTsat"]).all()
