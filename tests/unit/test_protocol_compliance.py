"""The whole check: missing series, ambiguity, time, roll-ups, a study with planted deviations."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from helpers_protocol import findings_of, make_protocol, only, scan, series_rule, with_value

from cordqa.protocol.compliance import check_compliance
from cordqa.protocol.definition import load_protocol
from cordqa.protocol.example import make_compliant_series
from cordqa.protocol.matching import find_rules, matches_pattern
from cordqa.protocol.records import FindingStatus, ObservedSeries, ObservedValue
from cordqa.records import Entities, Severity, Status

TWO = make_protocol(series_rule(), series_rule("t1w", "T1w", required=False))


class TestPresence:
    def test_a_required_series_is_missing(self):
        found = findings_of(TWO, scan("T1w"), field="series")
        finding = only(found)
        assert finding.status is FindingStatus.MISSING
        assert finding.series == "t2w"
        assert finding.entities.subject == "01"
        assert finding.severity is Severity.ERROR

    def test_each_session_counts(self):
        found = findings_of(TWO, scan(session="1"), scan("T1w", session="2"), field="series")
        assert [(one.entities.session, one.status) for one in found] == [
            ("1", FindingStatus.PASS),
            ("2", FindingStatus.MISSING),
        ]

    def test_a_session_of_which_nothing_was_read(self):
        found = findings_of(TWO, scan(), field="series", sessions=[Entities(subject="02")])
        assert [one.status for one in found if one.entities.subject == "02"] == [FindingStatus.MISSING]

    def test_an_unmatched_series_has_no_rule(self):
        result = check_compliance(TWO, [scan(), scan("bold")])
        finding = only([one for one in result.findings if one.status is FindingStatus.NO_RULE])
        assert "bold" in finding.sentence
        assert finding.series == ""
        assert result.overall.n_unmatched == 1
        assert result.overall.coverage == 1.0

    def test_nothing_at_all(self):
        result = check_compliance(TWO, [])
        assert result.findings == ()
        assert result.status is Status.NOT_EVALUATED
        assert math.isnan(result.overall.compliance)
        assert math.isnan(result.overall.coverage)


class TestMatching:
    def test_two_protocols_match_one_series(self):
        other = make_protocol(series_rule("anything", "T2w"), id="other")
        found = findings_of((TWO, other), scan(RepetitionTime=1.0))
        finding = next(one for one in found if one.rule == "ambiguous")
        assert finding.status is FindingStatus.NOT_CHECKABLE
        assert "t2w of test and anything of other" in finding.sentence
        assert finding.file == scan().file
        assert not [one for one in found if one.status is FindingStatus.MISSING]

    def test_two_rules_of_one_protocol(self):
        protocol = make_protocol(series_rule("a", "T2w"), series_rule("b", "T2w"))
        assert findings_of(protocol, scan())[0].rule == "ambiguous"

    def test_the_rest_continues(self):
        other = make_protocol(series_rule("anything", "T2w"), id="other")
        rule = series_rule("dwi", "dwi", params={"EchoTime": {"value": 0.07, "rel_tol": 0.1}})
        found = findings_of((make_protocol(series_rule(), rule), other), scan(), scan("dwi", EchoTime=0.07))
        assert [one.status for one in found if one.field == "EchoTime"] == [FindingStatus.PASS]

    def test_with_several_protocols_only_those_that_were_begun_must_be_complete(self):
        other = make_protocol(series_rule("a", "dwi"), series_rule("b", "MEGRE"), id="other")
        found = findings_of((TWO, other), scan(subject="1"), scan("dwi", subject="2"))
        missing = [(one.entities.subject, one.series) for one in found if one.status is FindingStatus.MISSING]
        assert missing == [("2", "b")]

    def test_patterns(self):
        assert matches_pattern("GRE-MT1", "gre-mt1")
        assert matches_pattern("t2_[spc]?", "T2_[SPC]*")
        assert not matches_pattern("t2_s", "t2_[spc]")
        assert matches_pattern("zoom", "!*b0*")
        assert not matches_pattern("acqb0", "!*b0*")

    @pytest.mark.parametrize(
        ("labels", "rule"),
        [
            ({"flip": "1", "mt": "on"}, "mt-on"),
            ({"acq": "MTon"}, "mt-on"),
            ({"mt": "on"}, "mt-on"),
            ({"flip": "1", "mt": "off"}, "mt-off"),
            ({"acq": "MToff"}, "mt-off"),
            ({"flip": "2", "mt": "off"}, "mt-t1w"),
            ({"acq": "T1w"}, "mt-t1w"),
        ],
    )
    def test_names_of_the_public_data(self, labels, rule):
        found = find_rules(load_protocol("spine-generic-3t"), scan("MTS", labels=labels))
        assert [one.id for one in found] == [rule]

    def test_a_separate_series_of_b0_images_is_not_the_diffusion_scan(self):
        protocol = load_protocol("spine-generic-3t")
        assert not find_rules(protocol, scan("dwi", labels={"acq": "b0"}))
        assert find_rules(protocol, scan("dwi", labels={"acq": "zoomit"}))
        assert find_rules(protocol, scan("dwi"))

    def test_dicom_protocol_names(self):
        protocol = load_protocol("spine-generic-3t")
        named = {}
        for name in ("GRE-MT1", "GRE-T1w", "T1w", "Localizer"):
            series = ObservedSeries(file=name, entities=Entities(), protocol_name=name)
            named[name] = [one.id for one in find_rules(protocol, series)]
        assert named == {"GRE-MT1": ["mt-on"], "GRE-T1w": ["mt-t1w"], "T1w": ["t1w"], "Localizer": []}

    def test_a_protocol_name_does_not_overrule_a_bids_name(self):
        series = replace(scan("MTS", labels={"acq": "T1w"}), protocol_name="T1w")
        assert [one.id for one in find_rules(load_protocol("spine-generic-3t"), series)] == ["mt-t1w"]


class TestTime:
    def protocol(self, **keys):
        budget = {"max_s": 300, "why": "test", **keys}
        return make_protocol(
            series_rule(duration_s={"Siemens": 120, "any": 200}),
            series_rule("t1w", "T1w"),
            time_budget=budget,
        )

    def check(self, *series, **keys):
        return only(findings_of(self.protocol(**keys), *series, field="scan time"))

    def test_measured(self):
        finding = self.check(scan(AcquisitionDuration=120), scan("T1w", AcquisitionDuration=170))
        assert finding.status is FindingStatus.PASS
        assert finding.observed == "4:50"
        over = self.check(scan(AcquisitionDuration=150), scan("T1w", AcquisitionDuration=170))
        assert over.status is FindingStatus.OUT_OF_RANGE
        assert over.severity is Severity.WARNING

    def test_an_estimate_is_never_a_pass(self):
        finding = self.check(scan(), scan("T1w", AcquisitionDuration=100))
        assert finding.status is FindingStatus.NOT_CHECKABLE
        assert "estimated" in finding.sentence
        assert finding.observed_value == 220

    def test_an_estimate_over_the_budget_is_said(self):
        finding = self.check(scan(vendor="GE"), scan("T1w", AcquisitionDuration=150))
        assert finding.status is FindingStatus.NOT_CHECKABLE
        assert "over the budget" in finding.sentence

    def test_what_is_measured_alone_may_be_too_much(self):
        finding = self.check(scan(), scan("T1w", AcquisitionDuration=301))
        assert finding.status is FindingStatus.OUT_OF_RANGE

    def test_unknown(self):
        finding = self.check(scan("T1w"))
        assert finding.status is FindingStatus.NOT_CHECKABLE
        assert "t1w" in finding.sentence

    def test_echoes_of_one_scan_count_once(self):
        protocol = make_protocol(series_rule("megre", "MEGRE"), time_budget={"max_s": 300, "why": "test"})
        echoes = [
            scan("MEGRE", labels={"echo": str(e), "part": p}, AcquisitionDuration=200)
            for e in (1, 2, 3)
            for p in ("mag", "phase")
        ]
        result = check_compliance(protocol, echoes)
        assert result.time[0].total_s == 200
        runs = [scan("MEGRE", labels={"run": str(r)}, AcquisitionDuration=200) for r in (1, 2)]
        assert check_compliance(protocol, runs).time[0].total_s == 400

    @pytest.mark.parametrize("raw", [132000, 0, -5, "2:12", [132]])
    def test_a_time_that_cannot_be_one_is_not_added(self, raw):
        finding = self.check(scan("T1w", AcquisitionDuration=raw))
        assert finding.status is FindingStatus.NOT_CHECKABLE

    def test_only_the_series_of_the_budget_count(self):
        finding = self.check(
            scan(AcquisitionDuration=120), scan("T1w", AcquisitionDuration=900), series=["t2w"]
        )
        assert finding.status is FindingStatus.PASS


class TestRollUps:
    def result(self):
        protocol = make_protocol(
            series_rule(
                params={
                    "RepetitionTime": {"value": 1.5, "rel_tol": 0.05},
                    "MultibandAccelerationFactor": {"min": 1, "max": 3},
                }
            )
        )
        series = [
            scan(subject="1", site="A", RepetitionTime=1.5),
            scan(subject="2", site="A", RepetitionTime=2.5),
            scan(subject="3", site="B", vendor="Philips", RepetitionTime=1.5, MultibandAccelerationFactor=2),
        ]
        return check_compliance(protocol, series)

    def test_denominators_can_be_checked(self):
        result = self.result()
        overall = result.overall
        assert overall.counts == {"not checkable": 2, "out of range": 1, "pass": 6}
        assert (overall.n_pass, overall.n_checkable, overall.n_asked) == (6, 7, 9)
        assert overall.compliance == pytest.approx(6 / 7)
        assert overall.coverage == pytest.approx(7 / 9)
        for by in ("series", "site", "vendor", "participant", "field"):
            assert sum(one.n_asked for one in result.by(by)) == overall.n_asked
            assert sum(one.n_pass for one in result.by(by)) == overall.n_pass

    def test_each_way(self):
        result = self.result()
        sites = {one.key: one.compliance for one in result.by("site")}
        assert sites == {"A": pytest.approx(3 / 4), "B": 1.0}
        fields = {one.key: one.coverage for one in result.by("field")}
        assert fields["MultibandAccelerationFactor"] == pytest.approx(1 / 3)
        assert fields["RepetitionTime"] == 1.0
        assert [one.key for one in result.by("participant") if one.n_errors] == ["2"]
        assert only(list(result.deviations)).entities.subject == "2"
        assert len(result.with_status([FindingStatus.NOT_CHECKABLE])) == 2


def test_public_sidecars_never_pass_what_they_do_not_record():
    """All public sidecars lack multiband, MT and scan time; so do these."""
    protocol = load_protocol("cord-15min")
    fields = ("MultibandAccelerationFactor", "MTState", "AcquisitionDuration")
    series = [
        replace(one, parameters={k: v for k, v in one.parameters.items() if k not in fields})
        for one in make_compliant_series(protocol, vendor="Siemens", model="Prisma")
    ]
    result = check_compliance(protocol, series)
    by_field = {one.key: one for one in result.by("field")}
    for name in ("MultibandAccelerationFactor", "MTState", "scan time"):
        assert by_field[name].coverage == 0
        assert by_field[name].n_pass == 0
    assert result.status is Status.PASS
    assert 0.8 < result.overall.coverage < 1


def plant(field, raw):
    return lambda one: with_value(one, field, raw)


#: What is planted in a study of twelve participants with seven series each: where, how, and how it is found.
PLANTED = [
    ("01", "t2w", plant("RepetitionTime", 2.0), {("RepetitionTime", "out of range")}),
    ("02", "t1w", plant("EchoTime", 3.72), {("EchoTime", "unit suspect")}),
    (
        "03",
        "mt-on",
        plant("RepetitionTime", 0.041),
        {("RepetitionTime", "out of range"), ("RepetitionTime", "constraint")},
    ),
    ("04", "mt-t1w", plant("FlipAngle", "15,0"), {("FlipAngle", "not numeric")}),
    ("05", "dwi", None, {("series", "missing")}),
    ("06", "mt-on", plant("RepetitionTime", [0.035]), {("RepetitionTime", "not numeric")}),
    ("07", "mt-t1w", plant("PhilipsScaleSlope", 7e-4), {("PhilipsScaleSlope", "constraint")}),
    ("08", "mt-t1w", plant("FlipAngle", 9), {("FlipAngle", "out of range"), ("FlipAngle", "constraint")}),
    ("09", "dwi", plant("SliceThickness", 4), {("SliceThickness", "out of range")}),
]


def test_a_study_of_84_series_with_planted_deviations():
    protocol = load_protocol("spine-generic-3t")
    scanners = [("Siemens", "Prisma"), ("Philips", "Ingenia"), ("GE", "DISCOVERY_MR750")]
    vendors = {"07": scanners[1]}
    study = []
    for number in range(1, 13):
        subject = f"{number:02d}"
        vendor, model = vendors.get(subject, scanners[0] if number < 10 else scanners[number % 3])
        made = make_compliant_series(protocol, vendor=vendor, model=model, subject=subject, site=vendor)
        rules = {one.file: find_rules(protocol, one)[0].id for one in made}
        for one in made:
            change = next(((c,) for s, r, c, _ in PLANTED if (s, r) == (subject, rules[one.file])), None)
            if change is None:
                study.append(one)
            elif change[0] is not None:
                study.append(change[0](one))
    assert len(study) == 83
    result = check_compliance(protocol, study)
    found = {}
    for one in result.deviations:
        found.setdefault(one.entities.subject, set()).add((one.field, str(one.status)))
    assert found == {subject: expected for subject, _, _, expected in PLANTED}


def test_findings_say_what_to_do_and_where_the_rule_comes_from():
    protocol = load_protocol("spine-generic-3t")
    series = make_compliant_series(protocol, vendor="Siemens", model="Prisma")
    broken = [with_value(one, "FlipAngle", 77) for one in series]
    found = check_compliance(protocol, broken).deviations
    assert found
    for one in found:
        assert one.todo
        assert one.sentence
        assert one.source
        assert one.rule
        assert one.allowed


def test_values_that_are_no_values_do_not_stop_the_check():
    protocol = load_protocol("spine-generic-3t")
    for series in make_compliant_series(protocol, vendor="Philips", model="Ingenia"):
        for field in series.parameters:
            odd = replace(series, parameters={**series.parameters, field: ObservedValue({}, None)})
            result = check_compliance(protocol, [odd])
            assert result.findings
