"""g-ratio, T1w/T2w, compartments and tissues: recovery, error propagation, mixing, bad input."""

import numpy as np
import pytest

from cordqa.errors import InputError
from cordqa.models.myelin.compartments import (
    EXAMPLE_COMPARTMENTS,
    CompartmentModel,
    check_maps,
    fit_compartments,
)
from cordqa.models.myelin.g_ratio import MyelinCalibration, compute_g_ratio
from cordqa.models.myelin.mixing import Mixing, Substance, fit_shares
from cordqa.models.myelin.tissue import DEFAULT_TISSUES, TissueModel, fit_tissues, sum_volumes
from cordqa.models.myelin.weighted_ratio import (
    calibrate_intensity,
    compute_weighted_ratio,
    estimate_bias_field,
)
from cordqa.models.relaxometry.multi_dynamic import (
    MultiDynamicProtocol,
    fit_multi_dynamic,
    multi_dynamic_signal,
)

# -- g-ratio -----------------------------------------------------------------------------------------


def test_g_ratio_is_that_of_stikov_and_carries_noise_through():
    mvf, v_ic, v_iso = 0.25, 0.6, 0.05
    calibration = MyelinCalibration(slope=0.02, slope_se=0.002)
    fit = compute_g_ratio(mvf / 0.02, v_ic, v_iso, calibration)
    avf = 0.75 * 0.95 * 0.6
    assert fit.values["g_ratio"] == pytest.approx(np.sqrt(1 / (1 + mvf / avf)))
    rng = np.random.default_rng(0)
    sd = (0.5, 0.03, 0.01)
    draws = [c + s * rng.normal(size=40_000) for c, s in zip((mvf / 0.02, v_ic, v_iso), sd, strict=True)]
    many = compute_g_ratio(*draws, calibration, standard_errors=sd)
    for name in ("g_ratio", "MVF", "AVF"):
        stated = np.sqrt(np.nanmean(many.standard_errors[name] ** 2))
        assert stated == pytest.approx(np.nanstd(many.values[name]), rel=0.03)
    # The calibration moves all voxels together: the notice says by how much.
    shifted = compute_g_ratio(mvf / 0.02, v_ic, v_iso, MyelinCalibration(slope=0.022)).values["g_ratio"]
    said = float(fit.notices[0].split(" by ")[1].split()[0])
    assert said == pytest.approx(abs(float(shifted - fit.values["g_ratio"])), abs=0.004)


def test_g_ratio_has_no_value_where_there_is_no_axon_or_myelin():
    fit = compute_g_ratio(
        [0.2, -0.1, 1.2, 0.2, 0.2, np.nan, 0.2],
        [0.5, 0.5, 0.5, 0.0, 1.2, 0.5, 0.5],
        [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 1.0],
        MyelinCalibration(slope=1.0),
    )
    assert [bool(np.isfinite(v)) for v in fit.values["g_ratio"]] == [True] + 6 * [False]
    assert fit.reasons.at(1) == "the calibrated myelin volume is not between 0 and 1"
    assert fit.reasons.at(3) == "no axons"
    assert fit.reasons.at(6) == "no axons"
    with pytest.raises(InputError, match="calibration"):
        MyelinCalibration(slope=0.0)


# -- T1w/T2w -----------------------------------------------------------------------------------------


def test_landmarks_undo_gain_and_offset_of_two_scanners():
    rng = np.random.default_rng(1)
    first = rng.uniform(200, 800, (12, 12, 6))
    second = 1000 - first
    low, high = first < 300, first > 700
    wanted = [(np.median(i[low]), np.median(i[high])) for i in (first, second)]
    ratios = []
    for gain, offset in ((0.5, 30.0), (3.0, -20.0)):
        lines = [
            calibrate_intensity(gain * image + offset, low, high, references)
            for image, references in zip((first, second), wanted, strict=True)
        ]
        images = [line(gain * i + offset) for line, i in zip(lines, (first, second), strict=True)]
        ratios.append(compute_weighted_ratio(*images).values["T1wT2w"])
    np.testing.assert_allclose(ratios[0], first / second, rtol=1e-9)
    np.testing.assert_allclose(ratios[1], ratios[0], rtol=1e-9)


def test_bias_field_is_found_up_to_a_constant():
    i, j, k = np.indices((30, 30, 12))
    field = np.exp(0.015 * (i - 15) - 0.01 * (j - 15))
    tissue = np.where((i + j + k) % 7 < 4, 1.0, 1.4)
    mask = (i - 15) ** 2 + (j - 15) ** 2 < 160
    found = estimate_bias_field(
        500 * field * tissue, 400 * field / tissue, mask, (2.0, 2.0, 3.0), fwhm_mm=15.0
    )
    ratio = (found / field)[mask]
    assert ratio.std() / ratio.mean() < 0.5 * field[mask].std() / field[mask].mean()


def test_ratio_refuses_dark_voxels_and_states_noise():
    first = np.full(20, 500.0)
    second = np.linspace(5, 700, 20)
    first[3], second[4] = 0.0, np.nan
    fit = compute_weighted_ratio(first, second, noise_sd=(5.0, 5.0))
    assert fit.reasons.at(0) == "the T2-weighted image is too dark for a ratio"
    assert fit.reasons.at(3) == "no signal in one of the images"
    assert fit.reasons.at(4) == "an image is missing"
    rng = np.random.default_rng(2)
    many = compute_weighted_ratio(500 + 5 * rng.normal(size=9999), 400 + 5 * rng.normal(size=9999))
    assert fit.standard_errors["T1wT2w"][11] > 0
    one = compute_weighted_ratio([500.0], [400.0], noise_sd=(5.0, 5.0)).standard_errors["T1wT2w"][0]
    assert one == pytest.approx(many.values["T1wT2w"].std(), rel=0.05)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"second": np.arange(100) < 4}, "too small"),
        ({"references": (5.0, 5.0)}, "do not differ"),
        ({"references": (80.0, 10.0)}, "swapped"),
    ],
)
def test_useless_landmarks_are_named(change, words):
    image = np.arange(100.0)
    given = {"first": image < 20, "second": image > 80, "references": (10.0, 90.0), **change}
    with pytest.raises(InputError, match=words):
        calibrate_intensity(image, given["first"], given["second"], given["references"])


# -- compartments and tissues ------------------------------------------------------------------------

SHARES = np.random.default_rng(3).dirichlet((2, 3, 1), 60)
PROTOCOL = MultiDynamicProtocol(
    delays_s=np.repeat([0.17, 0.67, 1.84, 3.84], 2),
    echo_times_s=[0.0228, 0.1026] * 4,
    repetition_time_s=4.2,
)


def maps_of_rates(shares, substances):
    values = np.array([[s.t1_s, s.t2_s, s.pd] for s in substances])
    pd = shares @ values[:, 2]
    t1, t2 = (pd / (shares @ (values[:, 2] / values[:, n])) for n in (0, 1))
    return 1e3 * t1, 1e3 * t2, 1e2 * pd


def measured_maps(shares, substances, rng, *, sd=0.0, noise=0.0):
    """Signals of water that does not exchange, summed, and fitted as one tissue."""
    signal = sum(
        shares[:, [n]]
        * multi_dynamic_signal(
            PROTOCOL,
            s.t1_s * np.exp(sd * rng.normal(size=len(shares))),
            s.t2_s * np.exp(sd * rng.normal(size=len(shares))),
            m0=s.pd,
        )
        for n, s in enumerate(substances)
    )
    fit = fit_multi_dynamic(signal + noise * rng.normal(size=signal.shape), PROTOCOL, signed=True)
    return fit.values["T1"], fit.values["T2"], 100 * fit.values["M0"]


def test_compartments_come_back_from_their_own_mixture():
    for compartments in (
        EXAMPLE_COMPARTMENTS,
        (*EXAMPLE_COMPARTMENTS, Substance("excess_water", 2.5, 0.3, 0.9)),
    ):
        shares = np.random.default_rng(4).dirichlet(np.ones(len(compartments)), 40)
        fit = fit_compartments(
            *maps_of_rates(shares, compartments), CompartmentModel(compartments=compartments)
        )
        np.testing.assert_allclose(fit.values["MVF_model"], 100 * shares[:, 0], atol=0.05)
        assert len(fit.values) == len(compartments)
        assert "given by the user" in fit.notices[0]


def test_standard_errors_of_fractions_follow_those_of_the_maps():
    rng = np.random.default_rng(5)
    t1, t2, pd = (
        np.full(4000, one[0]) for one in maps_of_rates(np.array([[0.25, 0.6, 0.15]]), EXAMPLE_COMPARTMENTS)
    )
    errors = (0.01 * t1, 0.01 * t2, 0.01 * pd)
    noisy = [one + se * rng.normal(size=4000) for one, se in zip((t1, t2, pd), errors, strict=True)]
    model = CompartmentModel(compartments=EXAMPLE_COMPARTMENTS)
    fit = fit_compartments(*noisy, model, standard_errors=errors)
    stated = np.sqrt(np.nanmean(fit.standard_errors["MVF_model"] ** 2))
    assert stated == pytest.approx(np.nanstd(fit.values["MVF_model"]), rel=0.1)


def test_what_is_no_mixture_or_no_tissue_has_a_reason():
    model = CompartmentModel(compartments=EXAMPLE_COMPARTMENTS)
    fit = fit_compartments(
        [1000.0, np.nan, -5.0, 50_000.0, 3000.0, 1000.0],
        [80.0, 80.0, 80.0, 80.0, 12.0, 80.0],
        [75.0, 75.0, 75.0, 75.0, 100.0, 300.0],
        model,
    )
    assert [fit.reasons.at(n) for n in range(6)] == [
        "",
        "T1, T2 or PD is missing",
        "T1, T2 or PD is not positive",
        "T1, T2 or PD beyond what tissue or water has",
        "no mixture of the compartments has these T1, T2 and PD",
        "T1, T2 or PD beyond what tissue or water has",
    ]


def test_tissues_of_a_measured_mixture_come_back():
    """Signals add, whatever the fit of one T1 and T2 makes of them; the rule knows that."""
    rng = np.random.default_rng(6)
    shares = np.vstack([np.eye(3).repeat(20, axis=0), np.zeros((60, 3))])
    part = rng.uniform(0.1, 0.9, 60)
    shares[60:90, 0], shares[60:90, 1] = part[:30], 1 - part[:30]
    shares[90:, 1], shares[90:, 2] = part[30:], 1 - part[30:]
    maps = measured_maps(shares, DEFAULT_TISSUES, rng)
    model = TissueModel()
    fit = fit_tissues(*maps, model)
    found = np.stack([fit.values[f"{t.name}_fraction"] for t in DEFAULT_TISSUES], axis=1) / 100
    # One T1 cannot stand for two: that costs 4 % in the worst voxel.
    assert np.abs(found - shares).max() < 0.045
    rates = fit_tissues(*maps, TissueModel(mixing=Mixing(rule="rates")))
    worse = np.stack([rates.values[f"{t.name}_fraction"] for t in DEFAULT_TISSUES], axis=1) / 100
    assert np.sqrt(((worse - shares) ** 2).mean()) > 2 * np.sqrt(((found - shares) ** 2).mean())
    volumes = sum_volumes(fit, *maps, 8.0, model)
    for n, tissue in enumerate(DEFAULT_TISSUES):
        assert volumes[tissue.name].volume_ml == pytest.approx(0.008 * shares[:, n].sum(), rel=0.03)
    assert volumes["other"].volume_ml == 0


def test_volumes_lie_within_their_errors():
    """Tissue values drawn about the assumed ones: the stated error is that of the volumes."""
    rng = np.random.default_rng(7)
    shares = rng.dirichlet((1, 1, 0.5), 250)
    scores = []
    for _ in range(12):
        true = tuple(
            Substance(t.name, *(v * np.exp(0.03 * rng.normal()) for v in (t.t1_s, t.t2_s, min(t.pd, 0.97))))
            for t in DEFAULT_TISSUES
        )
        maps = measured_maps(shares, true, rng)
        fit = fit_tissues(*maps)
        volumes = sum_volumes(fit, *maps, 1.0)
        scores += [
            (volumes[t.name].volume_ml - 1e-3 * shares[:, n].sum()) / volumes[t.name].standard_error_ml
            for n, t in enumerate(DEFAULT_TISSUES)
        ]
    assert 0.4 < np.sqrt(np.mean(np.square(scores))) < 2.0


def test_unresolved_voxels_are_other():
    fit = fit_tissues([900.0, 500.0], [80.0, 400.0], [70.0, 30.0])
    assert fit.values["other_fraction"].tolist() == [0.0, 100.0]
    assert fit.values["WM_fraction"][1] == 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Substance("x", 830.0, 75.0, 0.7), "cannot be meant"),
        (lambda: Mixing(rule="magic"), "mixing rule"),
        (lambda: Mixing(echo_times_s=(22.8, 102.6)), "seconds"),
        (lambda: CompartmentModel(compartments=EXAMPLE_COMPARTMENTS[:2]), "compartments must be"),
        (lambda: TissueModel(tissues=(DEFAULT_TISSUES[0],) * 2), "different names"),
        (lambda: fit_tissues(np.ones(3), np.ones(2), np.ones(3)), "one shape"),
        (lambda: check_maps(np.array([1.1]), np.array([80.0]), np.array([70.0])), "are these seconds"),
        (lambda: check_maps(np.array([1100.0]), np.array([80.0]), np.array([0.7])), "are these fractions"),
        (
            lambda: fit_shares(
                np.ones(1), np.full(1, 0.1), np.ones(1),
                (DEFAULT_TISSUES[0], Substance("y", 0.8301, 0.075, 0.68)), Mixing(),
            ),
            "cannot be told apart",
        ),
        (lambda: sum_volumes(fit_tissues([900.0], [80.0], [70.0]), [900.0], [80.0], [70.0], -1.0), "mm3"),
    ],
)  # fmt: skip
def test_wrong_input_is_named(make, words):
    with pytest.raises(InputError, match=words):
        make()
