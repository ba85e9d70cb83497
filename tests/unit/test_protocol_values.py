"""Parameters of one series: every status, units, vendors, what cannot be read."""

from __future__ import annotations

import math

import pytest
from helpers_protocol import findings_of, make_protocol, only, scan, series_rule

from cordqa.protocol.fields import FIELDS, observe
from cordqa.protocol.records import FindingStatus, ObservedSeries, ObservedValue, Origin, Problem
from cordqa.records import Entities, Severity, Status

TR = {"RepetitionTime": {"value": 1.5, "rel_tol": 0.05}}


def check(value, rule=None, **keys):
    protocol = make_protocol(series_rule(params={"RepetitionTime": rule or TR["RepetitionTime"]}), **keys)
    values = {} if value is None else {"RepetitionTime": value}
    return only(findings_of(protocol, scan(**values), field="RepetitionTime"))


@pytest.mark.parametrize("value", [1.5, 1.425, 1.575, "1.5", 1.4250000000001])
def test_inside_passes(value):
    finding = check(value)
    assert finding.status is FindingStatus.PASS
    assert finding.severity is Severity.INFO
    assert not finding.todo


@pytest.mark.parametrize("value", [1.42, 1.58, 0.0, -1.5, 2.0])
def test_both_sides_of_the_interval_count(value):
    finding = check(value)
    assert finding.status is FindingStatus.OUT_OF_RANGE
    assert finding.observed_value == value
    assert finding.allowed == "1.5 s (1.425 to 1.575)"
    assert finding.severity is Severity.ERROR
    assert finding.todo


@pytest.mark.parametrize(
    ("value", "unit"), [(1500, "milliseconds"), (1.5e6, "microseconds"), (2300, "milliseconds")]
)
def test_a_wrong_unit_is_named(value, unit):
    finding = check(value)
    assert finding.status is FindingStatus.UNIT_SUSPECT
    assert unit in finding.sentence


def test_a_wrong_unit_is_out_of_range_without_the_guard():
    assert check(1500, units_guard=False).status is FindingStatus.OUT_OF_RANGE


@pytest.mark.parametrize(
    ("field", "limit", "value", "unit"),
    [
        ("EchoTime", {"value": 0.00313, "rel_tol": 0.05}, 3.13, "milliseconds"),
        ("FlipAngle", {"value": 9, "abs_tol": 0.5}, math.radians(9), "radians"),
        ("MagneticFieldStrength", {"value": 3, "rel_tol": 0.05}, 30000, "gauss"),
        ("SliceThickness", {"value": 5, "rel_tol": 0.05}, 0.005, "metres"),
        ("MTOffsetFrequency", {"value": 1200, "rel_tol": 0.05}, 1.2, "kilohertz"),
        ("AcquisitionDuration", {"value": 132, "rel_tol": 0.1}, 2.2, "minutes"),
    ],
)
def test_units_of_other_fields(field, limit, value, unit):
    protocol = make_protocol(series_rule(params={field: limit}))
    finding = only(findings_of(protocol, scan(**{field: value}), field=field))
    assert finding.status is FindingStatus.UNIT_SUSPECT
    assert unit in finding.sentence


@pytest.mark.parametrize(
    ("value", "note"),
    [
        ("1,5", "comma"),
        ([1.5, 1.5], "list"),
        ([], "list"),
        ("fast", "not a number"),
        ("", "not a number"),
        (True, "not a number"),
        ({"a": 1}, "not a number"),
        (math.nan, "finite"),
        (math.inf, "finite"),
        (10**400, "not a number"),
        ("9" * 400, "finite"),
    ],
)
def test_what_is_no_number_is_named(value, note):
    finding = check(value)
    assert finding.status is FindingStatus.NOT_NUMERIC
    assert note in finding.sentence
    assert finding.severity is Severity.ERROR


def test_not_recorded_is_not_checkable_and_never_a_pass():
    finding = check(None)
    assert finding.status is FindingStatus.NOT_CHECKABLE
    assert not finding.status.is_checkable
    assert not finding.status.is_deviation
    assert finding.severity is Severity.WARNING


def test_not_recorded_is_missing_where_the_protocol_says_so():
    finding = check(None, {"value": 1.5, "rel_tol": 0.05, "if_absent": "missing"})
    assert finding.status is FindingStatus.MISSING
    assert finding.severity is Severity.ERROR


def test_severity_and_reason_come_from_the_rule():
    finding = check(2.0, {"value": 1.5, "rel_tol": 0.05, "severity": "warning", "why": "because of heat"})
    assert finding.severity is Severity.WARNING
    assert "because of heat" in finding.sentence


def test_a_contradiction_is_named_and_not_judged():
    protocol = make_protocol(series_rule(params=TR))
    value = ObservedValue(1.5, None, "s", Origin.SIDECAR, Problem.CONTRADICTION, "sidecar 1.5 s, DICOM 2 s")
    series = scan()
    series = ObservedSeries(
        file=series.file, entities=series.entities, suffix="T2w", parameters={"RepetitionTime": value}
    )
    finding = only(findings_of(protocol, series, field="RepetitionTime"))
    assert finding.status is FindingStatus.NOT_CHECKABLE
    assert "DICOM 2 s" in finding.sentence


def test_an_unreadable_file_makes_everything_not_checkable():
    rule = {"value": 1.5, "rel_tol": 0.05, "if_absent": "missing"}
    protocol = make_protocol(series_rule(params={"RepetitionTime": rule}))
    found = findings_of(protocol, scan(problem="the sidecar is not valid JSON (line 3)"))
    assert {one.field: one.status for one in found} == {
        "file": FindingStatus.NOT_CHECKABLE,
        "RepetitionTime": FindingStatus.NOT_CHECKABLE,
        "series": FindingStatus.PASS,
    }
    assert all("line 3" in one.sentence for one in found if one.field != "series")


class TestVendors:
    protocol = make_protocol(
        series_rule(
            params={
                "EchoTime": {
                    "rel_tol": 0.05,
                    "by": {"Siemens": 0.12, "Siemens/*Trio*": 0.118, "Siemens/TrioTim": 0.1, "Philips": 0.1},
                }
            }
        )
    )

    def finding(self, value=0.12, **scanner):
        return only(findings_of(self.protocol, scan(EchoTime=value, **scanner), field="EchoTime"))

    def test_the_vendor_decides(self):
        assert self.finding(0.12).status is FindingStatus.PASS
        assert self.finding(0.12, vendor="Philips").status is FindingStatus.OUT_OF_RANGE
        assert self.finding(0.1, vendor="Philips").status is FindingStatus.PASS

    def test_the_most_specific_model_decides(self):
        assert self.finding(0.118, model="Magnetom TRIO").rule == "t2w.EchoTime.Siemens/*Trio*"
        assert self.finding(0.1, model="triotim").rule == "t2w.EchoTime.Siemens/TrioTim"
        assert self.finding(0.12, model="").rule == "t2w.EchoTime.Siemens"

    def test_no_rule_for_another_vendor(self):
        finding = self.finding(vendor="GE", model="MR750")
        assert finding.status is FindingStatus.NO_RULE
        assert "GE MR750" in finding.sentence
        assert not finding.status.is_checkable

    def test_an_unknown_vendor_is_not_checkable(self):
        finding = self.finding(vendor="")
        assert finding.status is FindingStatus.NOT_CHECKABLE
        assert "vendor" in finding.sentence

    def test_an_unknown_vendor_does_not_matter_for_a_general_rule(self):
        protocol = make_protocol(series_rule(params=TR))
        finding = only(findings_of(protocol, scan(vendor="", RepetitionTime=1.5), field="RepetitionTime"))
        assert finding.status is FindingStatus.PASS


@pytest.mark.parametrize(
    ("field", "limit", "good", "bad"),
    [
        ("MTState", True, True, False),
        ("MTState", False, 0, "true"),
        ("MRAcquisitionType", "3D", "3d", "2D"),
        ("ReceiveCoilName", ["HeadNeck_64", "*Spine*"], "BW_Spine_32", "Body"),
        ("ImageType", ["NORM"], ["ORIGINAL", "PRIMARY", "M", "NORM"], ["ORIGINAL", "PRIMARY", "M"]),
        ("ImageType", ["!DERIVED"], ["ORIGINAL", "PRIMARY"], ["DERIVED", "PRIMARY"]),
        ("ImageType", ["!DERIVED", "DIS2D", "DIS3D"], ["ORIGINAL", "DIS2D"], ["ORIGINAL", "ND"]),
        ("ScanningSequence", ["IR"], "GR\\IR", "GR"),
        ("MultibandAccelerationFactor", {"min": 2, "max": 3}, 2, 4),
        ("EchoTrainLength", [64, 78], 78, 77),
    ],
)
def test_flags_words_and_alternatives(field, limit, good, bad):
    protocol = make_protocol(
        series_rule(params={field: limit} if isinstance(limit, dict) else {field: {"by": {"any": limit}}})
    )
    statuses = [only(findings_of(protocol, scan(**{field: v}), field=field)).status for v in (good, bad)]
    assert statuses == [FindingStatus.PASS, FindingStatus.OUT_OF_RANGE]


def test_a_flag_that_is_neither():
    protocol = make_protocol(series_rule(params={"MTState": {"by": {"any": True}}}))
    finding = only(findings_of(protocol, scan(MTState="maybe"), field="MTState"))
    assert finding.status is FindingStatus.NOT_NUMERIC


def test_field_strength_of_the_protocol_is_checked_everywhere():
    protocol = make_protocol(series_rule(), field_strength_T=[3.0])
    statuses = {
        value: only(
            findings_of(protocol, scan(MagneticFieldStrength=value), field="MagneticFieldStrength")
        ).status
        for value in (3, 2.89362, 1.5)
    }
    assert statuses == {
        3: FindingStatus.PASS,
        2.89362: FindingStatus.PASS,
        1.5: FindingStatus.OUT_OF_RANGE,
    }


def test_field_strength_may_come_with_the_entities():
    protocol = make_protocol(series_rule(), field_strength_T=[3.0])
    series = ObservedSeries(file="a", entities=Entities(field_strength_T=7.0, vendor="GE"), suffix="T2w")
    finding = only(findings_of(protocol, series, field="MagneticFieldStrength"))
    assert finding.status is FindingStatus.OUT_OF_RANGE


def test_dicom_times_are_converted():
    assert observe("RepetitionTime", "35.0", origin=Origin.DICOM, factor=1e-3).value == pytest.approx(0.035)
    assert observe("EchoTime", [0.01, 0.02]).value == (0.01, 0.02)
    assert observe("EchoTime", [0.01, "x"]).value is None


def test_every_field_has_a_label_and_a_plausible_range():
    for name, spec in FIELDS.items():
        assert spec.label and spec.name == name
        assert spec.plausible[0] < spec.plausible[1]


def test_the_verdict_over_all():
    protocol = make_protocol(series_rule(params=TR))
    from cordqa.protocol.compliance import check_compliance

    assert check_compliance(protocol, [scan(RepetitionTime=1.5)]).status is Status.PASS
    assert check_compliance(protocol, [scan(RepetitionTime=9)]).status is Status.FAIL
    assert check_compliance(protocol, []).status is Status.NOT_EVALUATED
    soft = make_protocol(
        series_rule(params={"RepetitionTime": {"value": 1.5, "rel_tol": 0, "severity": "warning"}})
    )
    assert check_compliance(soft, [scan(RepetitionTime=9)]).status is Status.WARN
