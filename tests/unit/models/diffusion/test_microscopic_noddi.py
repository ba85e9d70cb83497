"""NODDI: what is refused without fitting anything, and recovery where AMICO is installed."""

from __future__ import annotations

import numpy as np
import pytest
from helpers_microscopic import LINEAR_SPHERICAL, axes, scheme

from cordqa.errors import ConfigError, InputError
from cordqa.models.diffusion import noddi
from cordqa.models.diffusion.noddi import fit_noddi, noddi_available

TWO_SHELLS = ((0, 0.0, 6), (711, 1.0, 30), (2000, 1.0, 60))

needs_amico = pytest.mark.skipif(not noddi_available(), reason="AMICO, an optional extra, is not installed")


def neurites(table, density, dispersion, water, *, along=1.7, free=3.0):
    """Signal of the model by its definition: Watson sticks, hindered water by tortuosity, free water."""
    concentration = 1 / np.tan(dispersion * np.pi / 2)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    sticks = axes(np.array([concentration]), 4000)[0]
    b, n = table.b_ms_um2, table.directions
    inside = np.exp(-b[:, None] * along * (n @ turn @ sticks.T) ** 2).mean(axis=1)
    spread = (sticks[:, 2] ** 2).mean()
    hindered_along = along - along * density * (1 - spread)
    hindered_across = along - along * density * (1 + spread) / 2
    cosine = (n @ turn[:, 2]) ** 2
    outside = np.exp(-b * (hindered_across + (hindered_along - hindered_across) * cosine))
    return (1 - water) * (density * inside + (1 - density) * outside) + water * np.exp(-b * free)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (((0, 0.0, 6), (1000, 1.0, 30)), "two shells"),
        (((0, 0.0, 6), (1000, 1.0, 30), (2000, 1.0, 4)), "two shells"),
        (LINEAR_SPHERICAL, "linear encoding only"),
        (((700, 1.0, 30), (2000, 1.0, 60)), "without diffusion weighting"),
    ],
)
def test_schemes_that_do_not_suffice_are_refused(parts, words):
    table = scheme(parts)
    with pytest.raises(InputError, match=words):
        fit_noddi(np.exp(-0.8 * table.b_ms_um2), table)


@pytest.mark.parametrize("values", [(1.7e-3, 3e-3), (1700.0, 3000.0), (3.0, 1.7), (np.nan, 3.0)])
def test_diffusivities_in_another_unit_are_refused(values):
    table = scheme(TWO_SHELLS)
    with pytest.raises(ConfigError, match="um2/ms"):
        fit_noddi(np.ones(len(table)), table, parallel_um2_ms=values[0], isotropic_um2_ms=values[1])


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(noddi, "noddi_available", lambda: False)
    table = scheme(TWO_SHELLS)
    with pytest.raises(ConfigError, match=r"\.\[noddi\]"):
        fit_noddi(np.ones(len(table)), table)


@needs_amico
@pytest.mark.parametrize(
    ("density", "dispersion", "water"), [(0.6, 0.2, 0.0), (0.5, 0.1, 0.2), (0.4, 0.4, 0.1)]
)
def test_recovery(density, dispersion, water):
    table = scheme(TWO_SHELLS)
    signal = neurites(table, density, dispersion, water)
    data = 300 * (signal + np.random.default_rng(0).normal(0, 0.01, (40, len(table))))
    data[3, 40] = np.nan
    data[4] = 0.0
    fit = fit_noddi(data.reshape(5, 8, -1), table)
    assert fit.values["NDI"].shape == (5, 8)
    assert np.nanmean(fit.values["NDI"]) == pytest.approx(density, abs=0.03)
    assert np.nanmean(fit.values["ODI"]) == pytest.approx(dispersion, abs=0.03)
    assert np.nanmean(fit.values["FWF"]) == pytest.approx(water, abs=0.03)
    assert np.flatnonzero(np.isnan(fit.values["NDI"])).tolist() == [4]
    assert fit.reasons.at((0, 4))
    assert fit.flags["samples that are no positive number were replaced"].ravel().nonzero()[0].tolist() == [3]
    assert any("1.7" in notice and "3 um2/ms" in notice for notice in fit.notices)
    assert any("spinal cord" in notice for notice in fit.notices)


@needs_amico
def test_nothing_is_printed_or_left_behind(tmp_path, monkeypatch, capfd):
    import amico.lut

    monkeypatch.chdir(tmp_path)
    home = amico.lut.dipy_home
    table = scheme(TWO_SHELLS)
    one = fit_noddi(neurites(table, 0.5, 0.2, 0.05), table)
    assert one.values["NDI"].shape == ()
    assert np.isfinite(one.values["NDI"])
    fixed = fit_noddi(neurites(table, 0.5, 0.2, 0.05), table, ex_vivo=True)
    assert set(fixed.values) == {"NDI", "ODI", "FWF", "dot_fraction"}
    assert any("0.6" in notice for notice in fixed.notices)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    assert amico.lut.dipy_home == home
