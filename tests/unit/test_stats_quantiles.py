"""Quantiles against scipy.stats, and intervals against their exact cases."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cordqa.errors import ConfigError
from cordqa.stats.quantiles import (
    MeanSquare,
    add_variances,
    chi2_quantile,
    f_quantile,
    f_survival,
    mls_interval,
    normal_quantile,
    ratio,
    sd_interval,
    t_quantile,
    t_two_sided_p,
)
from cordqa.stats.scale import RELATIVE_REFUSALS, refuse_relative


def test_quantiles_equal_scipy_stats():
    df = np.array([1.0, 2.5, 7.0, 40.0, 1e4])
    for p in (0.001, 0.025, 0.5, 0.975, 0.999):
        np.testing.assert_allclose(chi2_quantile(p, df), stats.chi2.ppf(p, df), rtol=1e-9)
        np.testing.assert_allclose(t_quantile(p, df), stats.t.ppf(p, df), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(f_quantile(p, df, 3.3), stats.f.ppf(p, df, 3.3), rtol=1e-9)
        assert normal_quantile(p) == pytest.approx(stats.norm.ppf(p), rel=1e-12, abs=1e-12)
    np.testing.assert_allclose(f_survival(2.5, df, 4.0), stats.f.sf(2.5, df, 4.0), rtol=1e-12)
    np.testing.assert_allclose(t_two_sided_p(-2.5, df), 2 * stats.t.sf(2.5, df), rtol=1e-12)


def test_no_degrees_of_freedom_is_nan_not_a_number():
    for found in (chi2_quantile(0.5, 0), t_quantile(0.5, 0), f_quantile(0.5, 0, 3), t_two_sided_p(1.0, -1)):
        assert np.isnan(found)
    assert np.isnan(sd_interval(1.0, 0)).all()
    assert f_survival(np.inf, 3, 4) == 0.0
    assert np.isnan(ratio(1.0, 0.0))


def test_sd_interval_factors_of_the_literature():
    # Two-sided 95 % factors for 10 and 35 pairs: 0.70 to 1.75 and 0.81 to 1.30.
    for n, low, high in ((10, 0.70, 1.75), (35, 0.81, 1.30)):
        assert sd_interval(1.0, n) == (pytest.approx(low, abs=0.005), pytest.approx(high, abs=0.005))


def test_one_mean_square_alone_has_the_exact_interval():
    low, high = mls_interval([MeanSquare(2.0, np.array(3.0), 7.0)])
    exact = sd_interval(np.sqrt(6.0), 7.0)
    assert low == pytest.approx(exact.low**2)
    assert high == pytest.approx(exact.high**2)


def test_sum_and_combination_agree():
    terms = [MeanSquare(0.5, np.array(3.0), 4.0), MeanSquare(2.0, np.array(1.5), 20.0)]
    low, high = add_variances([1.5, 3.0], [4.0, 20.0])
    assert mls_interval(terms) == (pytest.approx(low), pytest.approx(high))
    # A part without degrees of freedom counts as known.
    shifted = add_variances([1.5, 3.0], [4.0, 0.0])
    alone = add_variances([1.5], [4.0])
    assert shifted.high - alone.high == pytest.approx(3.0)


def test_difference_excludes_zero_exactly_when_the_f_test_does():
    # Ting's interval is built so that the two agree; that is what its cross term is for.
    for p in (0.9749, 0.9751):
        f = float(f_quantile(p, 5, 12))
        terms = [MeanSquare(1.0, np.array(f), 5.0), MeanSquare(-1.0, np.array(1.0), 12.0)]
        assert (mls_interval(terms).low > 0) == (p > 0.975)


def test_relative_spread_is_refused_with_the_right_reason():
    assert refuse_relative(1.0, 5.0, 1.0) == 0
    assert refuse_relative(1.0, 5.0, 1.0, scale="interval") == 1
    assert refuse_relative(0.0, 5.0, 1.0) == 2
    assert refuse_relative(0.1, 2.9, 1.0) == 3
    assert "true zero" in RELATIVE_REFUSALS[1]
    with pytest.raises(ConfigError):
        refuse_relative(1.0, 5.0, 1.0, scale="nominal")
