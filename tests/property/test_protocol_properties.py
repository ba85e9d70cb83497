"""What must not change a finding: the order of files, the unit of the source, who else is in the study."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cordqa.errors import DefinitionError
from cordqa.protocol.compliance import check_compliance
from cordqa.protocol.definition import load_protocol
from cordqa.protocol.example import make_compliant_series
from cordqa.protocol.fields import FIELDS, FieldKind, observe
from cordqa.protocol.records import FindingStatus, Origin, Problem
from cordqa.resources import resource_path

PROTOCOL = load_protocol("spine-generic-3t")
STUDY = tuple(
    one
    for number, (vendor, model) in enumerate(
        [("Siemens", "Prisma"), ("Philips", "Ingenia"), ("GE", "DISCOVERY_MR750")], start=1
    )
    for one in make_compliant_series(
        PROTOCOL, vendor=vendor, model=model, subject=f"{number:02d}", site=vendor
    )
)
NUMBERS = ["RepetitionTime", "EchoTime", "FlipAngle", "SliceThickness", "AcquisitionDuration"]
anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


def spoiled(seed):
    """Change some values of the study at random."""
    rng = random.Random(seed)
    series = list(STUDY)
    for _ in range(6):
        at = rng.randrange(len(series))
        field = rng.choice(NUMBERS)
        value = rng.choice([0.5, 1500, "1,5", [1], None, 9.0, 0.035])
        series[at] = replace(series[at], parameters={**series[at].parameters, field: observe(field, value)})
    return series


def told(result):
    return [
        (f.status, f.severity, f.file, f.series, f.field, f.observed, f.allowed, f.rule, f.sentence, f.todo)
        for f in result.findings
    ]


@pytest.mark.parametrize("seed", range(8))
def test_the_order_of_files_changes_nothing(seed):
    series = spoiled(seed)
    mixed = list(series)
    random.Random(seed).shuffle(mixed)
    first, second = check_compliance(PROTOCOL, series), check_compliance(PROTOCOL, mixed)
    assert told(first) == told(second)
    assert first.roll_ups == second.roll_ups
    assert first.status is second.status


@pytest.mark.parametrize("seed", range(4))
def test_the_unit_of_the_source_changes_nothing(seed):
    """The same scan from a sidecar in seconds and from DICOM in milliseconds."""
    series = spoiled(seed)
    from_dicom = []
    for one in series:
        values = dict(one.parameters)
        for name, found in one.parameters.items():
            seconds = FIELDS[name].unit == "s" and FIELDS[name].kind is FieldKind.NUMBER
            if seconds and found.problem is Problem.NONE and isinstance(found.value, float):
                values[name] = observe(name, found.value * 1e3, origin=Origin.DICOM, factor=1e-3)
        from_dicom.append(replace(one, parameters=values))
    first, second = check_compliance(PROTOCOL, series), check_compliance(PROTOCOL, from_dicom)
    assert [(f.status, f.field, f.file) for f in first.findings] == [
        (f.status, f.field, f.file) for f in second.findings
    ]


def test_a_second_participant_changes_nothing_for_the_first():
    alone = check_compliance(PROTOCOL, [one for one in STUDY if one.entities.subject == "02"])
    together = check_compliance(PROTOCOL, STUDY)
    mine = [f for f in told(together) if "sub-02" in f[2]]
    assert [f for f in told(alone) if "sub-02" in f[2] and f[3] != "all series"] == [
        f for f in mine if f[3] != "all series"
    ]


@settings(max_examples=150, deadline=None)
@given(field=st.sampled_from(sorted(FIELDS)), raw=anything)
def test_any_recorded_value_is_read_or_refused_with_a_word(field, raw):
    found = observe(field, raw)
    if found.problem is not Problem.NONE:
        assert found.note
    elif FIELDS[field].kind is FieldKind.NUMBER:
        assert isinstance(found.value, float)


@settings(max_examples=60, deadline=None)
@given(index=st.integers(0, 6), field=st.sampled_from(NUMBERS), raw=anything)
def test_any_value_gives_one_finding_for_its_field(index, field, raw):
    one = STUDY[index]
    changed = replace(one, parameters={**one.parameters, field: observe(field, raw)})
    result = check_compliance(PROTOCOL, [changed])
    mine = [f for f in result.findings if f.field == field and f.file == one.file]
    assert len(mine) <= 1
    for finding in mine:
        assert isinstance(finding.status, FindingStatus)
        assert finding.sentence


def test_damaged_protocol_files_are_refused_with_a_sentence(tmp_path):
    rng = random.Random(3)
    text = resource_path("protocols", "qsm-megre.yaml").read_text(encoding="utf-8")
    path = tmp_path / "damaged.yaml"
    refused = 0
    for _ in range(150):
        at, length = rng.randrange(len(text)), rng.choice([1, 3, 20, 200])
        path.write_text(
            text[:at] + rng.choice(["", "[", "x: ", "-1", "!!x"]) + text[at + length :], encoding="utf-8"
        )
        try:
            protocol = load_protocol(path)
        except DefinitionError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            check_compliance(protocol, STUDY)
    assert refused > 50
