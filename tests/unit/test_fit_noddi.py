"""NODDI on the command line where AMICO is not installed, and the signal of its example."""

from __future__ import annotations

import numpy as np
import pytest
from helpers_fit import Words, request_of

from cordqa.cli._run import run
from cordqa.models.diffusion import noddi
from cordqa.workflow.fit.models._diffusion import example_table
from cordqa.workflow.fit.models.noddi import MODEL, _signal

TABLE = example_table([(700.0, 30, 1.0), (2000.0, 60, 1.0)], n_b0=2)


def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(noddi, "noddi_available", lambda: False)
    words = Words(MODEL, request_of(MODEL, tmp_path / "in"), tmp_path / "out")
    assert run(words.list()) == 2
    assert ".[noddi]" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.nii.gz"))


def test_limits_of_the_signal_are_known():
    b = TABLE.b_ms_um2
    np.testing.assert_allclose(_signal(TABLE, 0.5, 0.2, 1.0, np.eye(3)), np.exp(-3.0 * b))
    np.testing.assert_allclose(_signal(TABLE, 0.0, 0.2, 0.0, np.eye(3)), np.exp(-1.7 * b), rtol=1e-12)
    scattered = _signal(TABLE, 0.6, 0.999, 0.0, np.eye(3))[TABLE.b_values_s_mm2 == 2000.0]
    assert np.ptp(scattered) < 0.01 * scattered.mean()
    aligned = _signal(TABLE, 0.6, 0.02, 0.0, np.eye(3))
    along = np.abs(TABLE.directions[:, 2])
    assert aligned[np.argmax(along * (b > 1.9))] < 0.1 * aligned[np.argmin(along + (b < 1.9))]


def test_the_assumption_is_a_choice():
    choices = {one.id: one for one in MODEL.options}
    assert choices["parallel"].default is None and "1.7" in choices["parallel"].help
    assert MODEL.installed == noddi.noddi_available()
    assert pytest.approx(1.0) == _signal(TABLE, 0.5, 0.2, 0.1, np.eye(3))[0]
