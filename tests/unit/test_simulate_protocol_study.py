"""The simulated sidecar study is what its truth says."""

from __future__ import annotations

import json

import pytest

from cordqa.errors import ConfigError
from cordqa.simulate.protocol_study import DEVIATIONS, simulate_protocol_study


def test_a_study_of_84_sidecars_holds_every_kind_of_deviation_once() -> None:
    study = simulate_protocol_study(seed=1)
    assert {one.kind for one in study.planted} == set(DEVIATIONS)
    assert study.n_series == 83  # one of 84 is the missing one
    sidecars = [name for name in study.files if name.startswith("sub-") and name.endswith(".json")]
    assert len(sidecars) == 83
    for one in study.planted:
        assert all(name in study.files for name in one.files)


def test_the_same_seed_gives_the_same_study_and_another_seed_another() -> None:
    first, again, other = (simulate_protocol_study(seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first.planted != other.planted


def test_without_deviations_only_rounding_differs() -> None:
    study = simulate_protocol_study(deviations=[], n_participants=18)
    assert not study.planted and study.n_series == 126
    echo = {
        json.loads(text)["EchoTime"]
        for name, text in study.files.items()
        if name.endswith("T2w.json") and "siemens" in name
    }
    assert max(echo) / min(echo) - 1 < 0.003


def test_fields_that_few_record_can_be_left_out() -> None:
    study = simulate_protocol_study(deviations=[], full_headers=False)
    assert not any(
        word in text
        for text in study.files.values()
        for word in ("MultibandAccelerationFactor", "MTState", "AcquisitionDuration")
    )


def test_what_is_no_deviation_and_a_study_that_is_too_small_are_refused() -> None:
    with pytest.raises(ConfigError, match="no deviation that can be planted"):
        simulate_protocol_study(deviations=["nonsense"])
    with pytest.raises(ConfigError, match="too small"):
        simulate_protocol_study(deviations=["scaling"], n_participants=1)
    with pytest.raises(ConfigError, match="two participants"):
        simulate_protocol_study(deviations=["software"], n_participants=3)
