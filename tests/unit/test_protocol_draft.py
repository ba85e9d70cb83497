"""Drafts of protocols from what most scans have in common, and comparisons."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from helpers_protocol_study import write_study

from cordqa.errors import ConfigError, DefinitionError, EmptyInputError, InputError
from cordqa.protocol.definition import load_protocol
from cordqa.protocol.fields import observe
from cordqa.protocol.records import ObservedSeries
from cordqa.records import Entities, Status
from cordqa.simulate.protocol_study import simulate_protocol_study
from cordqa.workflow.protocol.check import check_observed, load_protocols
from cordqa.workflow.protocol.compare import compare_protocols, write_comparison, write_comparison_json
from cordqa.workflow.protocol.draft import draft_dataset
from cordqa.workflow.protocol.infer import draft_protocol
from cordqa.workflow.protocol.observe import observe_dataset


def scans(
    *values: float, name: str = "EchoTime", vendor: str = "Siemens", **labels: str
) -> list[ObservedSeries]:
    return [
        ObservedSeries(
            file=f"sub-{vendor}{index}_{name}_{sorted(labels.items())}",
            entities=Entities(subject=f"{vendor}{index}", vendor=vendor),
            suffix="T2w",
            labels={"sub": f"{vendor}{index}", **labels},
            parameters={name: observe(name, value)},
        )
        for index, value in enumerate(values)
    ]


def value_of(observed: list[ObservedSeries], vendor: str = "Siemens", name: str = "EchoTime"):
    (series,) = draft_protocol(observed).series
    return series.fields[name][vendor]


def test_a_deviating_scan_neither_moves_the_value_nor_widens_the_tolerance() -> None:
    found = value_of(scans(0.1, 0.1002, 0.0999, 0.1001, 0.5))
    assert found.value == pytest.approx(0.10005) and found.rel_tol == 0.01
    assert found.agreement == 0.8 and (found.low, found.high) == (0.0999, 0.5) and found.n == 5


def test_the_tolerance_covers_what_the_common_value_scatters() -> None:
    found = value_of(scans(0.098, 0.1, 0.1, 0.1, 0.102))
    assert 0.02 < found.rel_tol <= 0.03
    zero = value_of(scans(0.0, 0.0, name="MTOffsetFrequency"), name="MTOffsetFrequency")
    assert zero.value == 0 and math.isnan(zero.rel_tol)


def test_what_no_scanner_does_is_no_common_value() -> None:
    assert not draft_protocol(scans(2000.0, 2000.0, name="RepetitionTime")).series[0].fields


def test_vendors_that_agree_share_a_value_and_others_do_not() -> None:
    same = scans(0.1, 0.1) + scans(0.1, 0.1, vendor="GE")
    assert value_of(same, "any").n == 4
    apart = scans(0.1, 0.1) + scans(0.12, 0.12, vendor="GE")
    assert value_of(apart, "GE").value == 0.12 and value_of(apart, "Siemens").value == 0.1


def test_what_varies_is_left_out() -> None:
    (series,) = draft_protocol(scans(0.01, 0.02, 0.03, 0.04)).series
    assert not series.fields and series.varying["EchoTime"]["Siemens"].agreement == 0.25


def test_a_series_without_an_entity_says_so_beside_one_with_it() -> None:
    observed = scans(0.1, 0.1) + scans(0.2, 0.2, acq="sag")
    found = {one.id: one.entities for one in draft_protocol(observed).series}
    assert found == {"t2w": {"acq": ""}, "t2w-acq-sag": {"acq": "sag"}}


def test_nothing_is_drafted_from_nothing(tmp_path: Path) -> None:
    assert draft_protocol([]).series == ()
    empty = tmp_path / "sub-01/anat/sub-01_T2w.json"
    empty.parent.mkdir(parents=True)
    empty.write_text("{}")
    with pytest.raises(EmptyInputError, match="no header records a parameter"):
        draft_dataset(tmp_path)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(simulate_protocol_study(seed=5), tmp_path_factory.mktemp("study"))


def test_a_draft_loads_and_the_majority_passes_under_it(study: Path, tmp_path: Path) -> None:
    file = tmp_path / "draft.yaml"
    text, summary = draft_dataset(study, name="mine", out=file)
    assert file.read_text() == text and "7 series" in summary and "1 file could not be read" in summary
    protocol = load_protocol(file)
    assert protocol.id == "mine" and len(protocol.series) == 7
    assert "# n 4, 75 % agree" in text or "% agree, all from" in text
    observed = observe_dataset(study)
    result = check_observed(observed.series, (protocol,)).result
    assert result.overall.compliance > 0.95
    people = {one.entities.subject for one in observed.series}
    clean = people - {one.entities.subject for one in result.deviations}
    deviating_rules = {}
    for one in result.findings:
        deviating_rules.setdefault(one.rule, []).append(one.status.is_deviation)
    assert all(sum(found) <= len(found) / 2 for found in deviating_rules.values())
    assert clean or people


def test_the_values_of_a_draft_are_those_that_were_simulated(study: Path) -> None:
    draft = {one.id: one for one in draft_protocol(observe_dataset(study).series).series}
    assert draft["mts-flip-1-mt-on"].fields["RepetitionTime"]["Philips"].value == pytest.approx(
        0.057, rel=2e-3
    )
    assert draft["dwi"].shells[0].min_n == 5
    assert [(shell.b_s_mm2, shell.min_n) for shell in draft["dwi"].shells] == [(0, 5), (800, 30)]
    assert draft["t2w"].duration_s["Philips"] == 311.5


def test_header_texts_cannot_break_out_of_the_draft(tmp_path: Path) -> None:
    path = tmp_path / "sub-01/anat/sub-01_T2w.json"
    path.parent.mkdir(parents=True)
    nasty = 'x"\n}: [&a *a !!python/object #'
    path.write_text(json.dumps({"EchoTime": 1e-5, "PhaseEncodingDirection": nasty, "Manufacturer": nasty}))
    text, _ = draft_dataset(tmp_path, out=tmp_path / "draft.yaml")
    (rule,) = [one for one in load_protocol(tmp_path / "draft.yaml").series[0].parameters if one.limit.one_of]
    assert rule.limit.one_of == (nasty.replace("\n", " "),) and "any" in text
    with pytest.raises(ConfigError):
        draft_dataset(tmp_path, name="../x")
    with pytest.raises(ConfigError, match=r"ends in \.yaml"):
        draft_dataset(tmp_path, out=tmp_path / "draft.txt")


def test_a_protocol_does_not_differ_from_itself() -> None:
    comparison = compare_protocols("spine-generic-3t", "spine-generic-3t")
    assert comparison.rows and not comparison.differences
    assert "No difference" in write_comparison(comparison)


def test_differences_are_named_both_ways() -> None:
    there = compare_protocols("spine-generic-3t", "cord-15min")
    back = compare_protocols("cord-15min", "spine-generic-3t")
    assert len(there.differences) == len(back.differences) > 0
    row = next(one for one in there.differences if one.field == "series" and one.series == "t1w")
    assert row.relation == "only in A"
    plain = json.loads(write_comparison_json(there))
    assert plain["n_differences"] == len(plain["rows"])
    everything = json.loads(write_comparison_json(there, everything=True))
    assert len(everything["rows"]) == plain["n_parameters"]


def test_a_protocol_against_a_dataset(study: Path) -> None:
    comparison = compare_protocols("spine-generic-3t", study)
    relations = {(one.series, one.field, one.vendor): one.relation for one in comparison.rows}
    assert relations["mt-on", "RepetitionTime", "Philips"] == "inside"
    assert relations["t1w", "EchoTime", "GE"] == "only in B"  # nothing is published
    assert not any(one.relation == "outside" for one in comparison.rows)
    turned = compare_protocols(study, "spine-generic-3t")
    assert [(one.a, one.b) for one in turned.rows] == [(one.b, one.a) for one in comparison.rows]


def test_a_dataset_that_is_another_protocol_lies_outside(study: Path) -> None:
    comparison = compare_protocols("dki-cord", study)
    assert any(one.field == "gradients" and one.relation == "outside" for one in comparison.rows)


def test_sides_that_are_neither_are_refused(study: Path) -> None:
    with pytest.raises(DefinitionError, match="did you mean 'dki-cord'"):
        compare_protocols("dki-kord", "spine-generic-3t")
    with pytest.raises(InputError, match="both sides are datasets"):
        compare_protocols(study, study)


def test_several_protocols_are_named_with_commas() -> None:
    assert [one.id for one in load_protocols("spine-generic-3t, dki-cord")] == [
        "spine-generic-3t",
        "dki-cord",
    ]
    assert check_observed([], load_protocols("dki-cord")).result.status is Status.NOT_EVALUATED
