"""MTR, MTsat, T1: recovery from the exact signal equation, B1 models, pairs, and voxels without a value."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cordqa.errors import InputError
from cordqa.models.magnetization_transfer.pairing import check_mt_pair, check_mt_triplet
from cordqa.models.magnetization_transfer.ratio import mt_ratio
from cordqa.models.magnetization_transfer.saturation import (
    SpoiledEcho,
    fit_mt_saturation,
    mt_saturation_signal,
)
from cordqa.records import Acquisition, Severity

MT = SpoiledEcho(repetition_time_s=0.035, flip_angle_deg=9.0)
PD = SpoiledEcho(repetition_time_s=0.035, flip_angle_deg=9.0)
T1W = SpoiledEcho(repetition_time_s=0.011, flip_angle_deg=15.0)


def signals(t1_s=1.1, saturation=0.02, b1=1.0, amplitude=1000.0, mt=MT):
    return (
        mt_saturation_signal(amplitude, t1_s, saturation, mt, b1=b1),
        mt_saturation_signal(amplitude, t1_s, 0.0, PD, b1=b1),
        mt_saturation_signal(amplitude, t1_s, 0.0, T1W, b1=b1),
    )


def fit(images, mt=MT, **options):
    return fit_mt_saturation(*images, mt_echo=mt, pd_echo=PD, t1_echo=T1W, **options)


def test_known_tissue_is_recovered_within_the_small_angle_bias():
    t1, d = np.meshgrid([0.8, 1.1, 1.6, 2.0], [0.01, 0.02, 0.035])
    maps = fit(signals(t1_s=t1, saturation=d))
    assert np.allclose(maps.values["T1"], 1000 * t1, rtol=0.015)
    # The algebra puts the saturation after the readout; here it acts before: +2 to +6 % by theory.
    assert np.all(np.abs(maps.values["MTsat"] / (100 * d) - 1.04) < 0.025)
    assert maps.reasons.counts() == {}


def test_without_saturation_mtsat_is_about_zero():
    assert abs(float(fit(signals(saturation=0.0)).values["MTsat"])) < 0.02


def test_scaling_of_all_images_changes_nothing_but_the_amplitude():
    one, ten = fit(signals()), fit([10 * s for s in signals()])
    assert float(ten.values["MTsat"]) == pytest.approx(float(one.values["MTsat"]), rel=1e-9)
    assert float(ten.values["M0"]) == pytest.approx(10 * float(one.values["M0"]), rel=1e-9)


@pytest.mark.parametrize("b1", [0.7, 0.9, 1.0, 1.2, 1.3])
def test_helms_model_removes_b1_where_its_law_holds(b1):
    truth = 0.02
    planted = truth * b1**2 * (1 - 0.4 * b1) / (1 - 0.4)
    maps = fit(signals(saturation=planted, b1=b1), b1=b1, b1_model="helms2021")
    reference = fit(signals(saturation=truth))
    assert float(maps.values["MTsat"]) == pytest.approx(float(reference.values["MTsat"]), rel=0.02)
    assert float(maps.values["T1"]) == pytest.approx(1100, rel=0.02)


@pytest.mark.parametrize("b1", [0.7, 0.9, 1.0, 1.2, 1.3])
def test_lipp_model_removes_b1_where_its_law_holds(b1):
    planted = 0.02 * (1 + 1.2 * (b1 - 1))
    maps = fit(signals(saturation=planted, b1=b1), b1=b1, b1_model="lipp2023", lipp_c=1.2)
    reference = fit(signals(), b1=1.0, b1_model="lipp2023", lipp_c=1.2)
    assert float(maps.values["MTsat"]) == pytest.approx(float(reference.values["MTsat"]), rel=0.02)
    assert float(maps.values["T1"]) == pytest.approx(1100, rel=1e-3)


def test_mixed_correction_is_not_what_is_done():
    """B1-corrected R1 and A with a nominal angle would be off by tens of percent at B1 1.3."""
    b1, truth = 1.3, 0.02
    images = signals(saturation=truth * b1**2 * (1 - 0.4 * b1) / 0.6, b1=b1)
    ours = float(fit(images, b1=b1, b1_model="helms2021").values["MTsat"])
    assert ours == pytest.approx(2.08, abs=0.05)


def test_without_b1_t1_is_off_by_its_square():
    maps = fit(signals(b1=1.2))
    assert float(maps.values["T1"]) == pytest.approx(1100 * 1.2**2, rel=0.05)


def test_each_image_needs_its_own_repetition_time():
    longer = SpoiledEcho(repetition_time_s=0.041, flip_angle_deg=9.0)
    images = signals(mt=longer)
    assert float(fit(images, mt=longer).values["MTsat"]) == pytest.approx(2.07, rel=0.02)
    assert abs(float(fit(images).values["MTsat"]) - 2.07) > 0.3


def test_voxels_without_a_value_say_why():
    images = [np.full(6, s) for s in signals()]
    images[0][0] = 0.0
    images[1][1] = 0.0
    images[2][2] = np.nan
    images[2][3] = 10 * images[2][3]
    b1 = np.ones(6)
    b1[4] = 0.0
    maps = fit(images, b1=b1, b1_model="helms2021")
    reasons = [maps.reasons.at(n) for n in range(6)]
    assert reasons[:2] == ["no signal in one of the images"] * 2
    assert "not a number" in reasons[2]
    assert "contradict" in reasons[3]
    assert reasons[4] == "no B1"
    assert reasons[5] == ""
    assert np.isnan(maps.values["MTsat"][:5]).all()
    assert np.isnan(maps.values["T1"][:5]).all()
    assert maps.reason_of("T1").counts()["no B1"] == 1


def test_empty_images_give_empty_maps():
    assert fit([np.zeros(0)] * 3).values["MTsat"].shape == (0,)
    assert mt_ratio([], []).values["MTR"].shape == (0,)


def test_wrong_settings_are_named():
    images = signals()
    wrong = SpoiledEcho(repetition_time_s=35.0, flip_angle_deg=9.0)
    with pytest.raises(InputError, match="in seconds"):
        fit(images, mt=wrong)
    with pytest.raises(InputError, match="flip angle"):
        fit(images, mt=SpoiledEcho(repetition_time_s=0.03, flip_angle_deg=0.0))
    with pytest.raises(InputError, match="same settings"):
        fit_mt_saturation(*images, mt_echo=MT, pd_echo=PD, t1_echo=PD)
    with pytest.raises(InputError, match="shape"):
        fit([np.ones(3), np.ones(2), np.ones(3)])
    with pytest.raises(InputError, match="needs a B1 map"):
        fit(images, b1_model="helms2021")
    with pytest.raises(InputError, match="constant C"):
        fit(images, b1=1.0, b1_model="lipp2023")
    with pytest.raises(InputError, match="unknown B1 model"):
        fit(images, b1_model="best")
    with pytest.raises(InputError, match="percent"):
        fit(images, b1=100.0)
    with pytest.raises(InputError, match="does not fit"):
        fit([np.ones((2, 2))] * 3, b1=np.ones(3))
    with pytest.raises(InputError, match="C must"):
        fit(images, b1=1.0, helms_c=1.5)


def test_ratio():
    found = mt_ratio([50.0, 120.0, 1.0, np.nan, 5.0, 0.0], [100.0, 100.0, 0.0, 1.0, -3.0, 100.0])
    assert found.values["MTR"][:2].tolist() == [50.0, pytest.approx(-20.0)]
    assert np.isnan(found.values["MTR"][2:]).all()
    assert found.reasons.at(2) == "no signal in one of the images"
    assert "not a number" in found.reasons.at(3)
    # A zero is padding or a mask: a saturation of 100 % does not exist.
    assert found.reasons.at(5) == "no signal in one of the images"
    assert mt_ratio([500.0], [100.0], limit_percent=100.0).values["MTR"][0] == -100.0
    assert mt_ratio([500.0], [100.0]).values["MTR"][0] == -400.0
    with pytest.raises(InputError, match="shape"):
        mt_ratio([1.0], [1.0, 2.0])
    with pytest.raises(InputError, match="limit"):
        mt_ratio([1.0], [1.0], limit_percent=0.0)


def acquisition(**changed):
    settings = {"repetition_time_s": 0.035, "flip_angle_deg": 9.0, "echo_time_s": 0.0038} | changed
    return Acquisition(**settings)


def test_matching_images_raise_no_notice():
    t1w = acquisition(repetition_time_s=0.011, flip_angle_deg=15.0)
    assert check_mt_pair(acquisition(), acquisition()) == ()
    assert check_mt_triplet(acquisition(), acquisition(), t1w) == ()


@pytest.mark.parametrize(
    ("changed", "severity", "text"),
    [
        ({"repetition_time_s": 0.039}, Severity.ERROR, "repetition time differs"),
        ({"flip_angle_deg": 8.0}, Severity.ERROR, "flip angle differs"),
        ({"echo_time_s": 0.005}, Severity.ERROR, "echo time differs"),
        ({"scale_slope": 2.0}, Severity.WARNING, "different scaling"),
        ({"scale_intercept": 5.0}, Severity.WARNING, "different scaling"),
        ({"repetition_time_s": math.nan}, Severity.WARNING, "not known"),
    ],
)
def test_pairs_that_differ_are_noticed(changed, severity, text):
    notices = check_mt_pair(acquisition(**changed), acquisition())
    assert [n.severity for n in notices] == [severity]
    assert text in notices[0].message


def test_what_is_not_known_is_said_in_one_sentence():
    bare = Acquisition()
    (notice,) = check_mt_pair(bare, bare)
    assert notice.severity is Severity.WARNING
    assert "repetition time, flip angle" in notice.message
    assert "echo time" in notice.message
    (notice,) = check_mt_pair(acquisition(echo_time_s=math.nan), acquisition())
    assert notice.message.startswith("echo time of MT-on or MT-off is not known")
    t1w = acquisition(repetition_time_s=0.011, flip_angle_deg=15.0)
    errors = [n for n in check_mt_triplet(bare, bare, t1w) if n.severity is Severity.ERROR]
    assert [n.message for n in errors] == [
        "TR or flip angle of MT-on and MT-off is not known: MTsat cannot be computed"
    ]


def test_triplets_may_differ_in_tr_but_not_in_scaling():
    t1w = acquisition(repetition_time_s=0.011, flip_angle_deg=15.0)
    assert check_mt_triplet(acquisition(repetition_time_s=0.041), acquisition(), t1w) == ()
    same = check_mt_triplet(acquisition(), acquisition(), acquisition())
    assert any("cannot be solved" in n.message for n in same)
    scaled = acquisition(repetition_time_s=0.011, flip_angle_deg=15.0, scale_slope=3.0)
    assert any(
        "different scaling" in n.message for n in check_mt_triplet(acquisition(), acquisition(), scaled)
    )
    unknown = check_mt_triplet(acquisition(repetition_time_s=math.nan), acquisition(), t1w)
    assert any(n.severity is Severity.ERROR for n in unknown)
    swapped = check_mt_triplet(acquisition(), t1w, acquisition())
    assert any("which image is which" in n.message for n in swapped)
