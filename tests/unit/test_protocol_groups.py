"""Constraints: what several series must share."""

from __future__ import annotations

import pytest
from helpers_protocol import findings_of, make_protocol, only, scan, series_rule

from cordqa.protocol.check_groups import same_version
from cordqa.protocol.records import FindingStatus
from cordqa.records import Severity

PAIR = (
    series_rule("mt-on", match=[{"suffix": "MTS", "entities": {"mt": "on"}}]),
    series_rule("mt-off", match=[{"suffix": "MTS", "entities": {"mt": "off", "flip": ["1", ""]}}]),
    series_rule("mt-t1w", match=[{"suffix": "MTS", "entities": {"mt": "off", "flip": "2"}}]),
)
ON, OFF, T1W = {"mt": "on"}, {"mt": "off"}, {"mt": "off", "flip": "2"}


def constraint(kind, series=("mt-on", "mt-off"), **keys):
    return {"id": "c", "kind": kind, "series": list(series), "why": "test", **keys}


def rule(kind, **keys):
    return make_protocol(*PAIR, constraints=[constraint(kind, **keys)])


def found(protocol, *series):
    return [one for one in findings_of(protocol, *series) if one.rule == "c"]


def pair(on, off, field="RepetitionTime", **keys):
    return scan("MTS", labels=ON, **{field: on}, **keys), scan("MTS", labels=OFF, **{field: off}, **keys)


class TestEqual:
    protocol = rule("equal", fields=["RepetitionTime"], rel_tol=0.01)

    @pytest.mark.parametrize(("on", "off"), [(0.035, 0.035), (0.035, 0.0352), (35, 35)])
    def test_equal(self, on, off):
        assert only(found(self.protocol, *pair(on, off))).status is FindingStatus.PASS

    # The two public pairs that differ: sub-balgrist03 and sub-milan01.
    @pytest.mark.parametrize(("on", "off"), [(0.039, 0.035), (0.041, 0.035)])
    def test_the_two_public_pairs(self, on, off):
        finding = only(found(self.protocol, *pair(on, off)))
        assert finding.status is FindingStatus.CONSTRAINT
        assert finding.entities.subject == "01"
        assert f"mt-on: {on:g} s" in finding.sentence
        assert "MTS.json" in finding.file

    def test_one_in_another_unit(self):
        finding = only(found(self.protocol, *pair(35, 0.035)))
        assert finding.status is FindingStatus.UNIT_SUSPECT
        assert "milliseconds" in finding.sentence

    def test_not_recorded_and_not_numeric(self):
        assert only(found(self.protocol, *pair(0.035, "0,035"))).status is FindingStatus.NOT_CHECKABLE
        series = (scan("MTS", labels=ON, RepetitionTime=0.035), scan("MTS", labels=OFF))
        assert only(found(self.protocol, *series)).status is FindingStatus.NOT_CHECKABLE

    def test_nothing_to_compare(self):
        assert not found(self.protocol, scan("MTS", labels=ON, RepetitionTime=0.035))

    def test_participants_are_not_mixed(self):
        series = (*pair(0.035, 0.035), *pair(0.057, 0.057, subject="02"))
        assert [one.status for one in found(self.protocol, *series)] == [FindingStatus.PASS] * 2

    def test_sessions_are_not_mixed(self):
        series = (*pair(0.035, 0.035, session="1"), *pair(0.057, 0.057, session="2"))
        assert [one.status for one in found(self.protocol, *series)] == [FindingStatus.PASS] * 2

    def test_texts(self):
        protocol = rule("equal", fields=["ReceiveCoilName"])
        assert only(found(protocol, *pair("Head", "head", "ReceiveCoilName"))).status is FindingStatus.PASS
        assert (
            only(found(protocol, *pair("Head", "Spine", "ReceiveCoilName"))).status
            is FindingStatus.CONSTRAINT
        )

    def test_zero_is_a_value(self):
        protocol = rule("equal", fields=["PhilipsRescaleIntercept"])
        assert only(found(protocol, *pair(0, 0, "PhilipsRescaleIntercept"))).status is FindingStatus.PASS
        assert (
            only(found(protocol, *pair(0, 1, "PhilipsRescaleIntercept"))).status is FindingStatus.CONSTRAINT
        )

    def test_within_a_scanner_over_participants(self):
        one = constraint("equal", ["mt-on"], fields=["MTOffsetFrequency"], within="scanner")
        protocol = make_protocol(*PAIR, constraints=[one])
        series = [
            scan("MTS", labels=ON, subject=s, MTOffsetFrequency=v) for s, v in (("1", 1200), ("2", 1500))
        ]
        finding = only(found(protocol, *series))
        assert finding.status is FindingStatus.CONSTRAINT
        assert finding.entities.subject == ""
        assert finding.entities.scanner == "s1"
        other = scan("MTS", labels=ON, subject="2", scanner="s2", MTOffsetFrequency=1500)
        assert not found(protocol, series[0], other)

    def test_a_scanner_that_is_not_known(self):
        one = constraint("equal", ["mt-on"], fields=["MTOffsetFrequency"], within="scanner")
        protocol = make_protocol(*PAIR, constraints=[one])
        keys = {"labels": ON, "vendor": "", "model": "", "scanner": "", "MTOffsetFrequency": 1.0}
        finding = only(found(protocol, scan("MTS", subject="1", **keys), scan("MTS", subject="2", **keys)))
        assert finding.status is FindingStatus.NOT_CHECKABLE


class TestRatio:
    protocol = rule("ratio", series=("mt-t1w", "mt-off"), fields=["FlipAngle"], min=1.6, max=1.75)

    def check(self, t1w, off):
        series = (scan("MTS", labels=T1W, FlipAngle=t1w), scan("MTS", labels=OFF, FlipAngle=off))
        return only(found(self.protocol, *series)).status

    def test_ratio(self):
        assert self.check(15, 9) is FindingStatus.PASS
        assert self.check(9, 9) is FindingStatus.CONSTRAINT
        assert self.check(9, 15) is FindingStatus.CONSTRAINT
        assert self.check(15, 0) is FindingStatus.CONSTRAINT
        assert self.check(15, "9 deg") is FindingStatus.NOT_CHECKABLE


class TestSoftware:
    protocol = make_protocol(
        series_rule(), constraints=[constraint("same-software", [], within="scanner", severity="warning")]
    )

    def test_an_upgrade_is_one_finding_per_scanner(self):
        series = [scan(subject=s, software=v) for s, v in (("1", "VE11C"), ("2", "VE11C"), ("3", "XA30"))]
        finding = only(found(self.protocol, *series))
        assert finding.status is FindingStatus.CONSTRAINT
        assert finding.severity is Severity.WARNING
        assert "VE11C (2 sessions)" in finding.sentence
        assert "XA30 (1 session)" in finding.sentence

    def test_two_scanners_may_differ(self):
        series = (scan(subject="1", software="A"), scan(subject="2", software="B", scanner="s2"))
        assert [one.status for one in found(self.protocol, *series)] == [FindingStatus.PASS] * 2

    def test_spellings_of_one_version(self):
        series = (scan(subject="1", software="syngo MR E11"), scan(subject="2", software="syngo_MR_E11"))
        assert only(found(self.protocol, *series)).status is FindingStatus.PASS
        assert same_version("5.3.1\\5.3.1.1") == same_version("5.3.1_5.3.1.1")
        assert same_version("5.3.1") != same_version("5.3.11")

    def test_not_recorded(self):
        finding = only(found(self.protocol, scan(software="")))
        assert finding.status is FindingStatus.NOT_CHECKABLE


class TestValues:
    protocol = make_protocol(
        series_rule("mese", "MESE"),
        constraints=[
            constraint(
                "values",
                ["mese"],
                fields=["EchoTime"],
                min_count=4,
                max_count=6,
                first={"max": 0.012},
                last={"min": 0.035},
                even=True,
                rel_tol=0.02,
            )
        ],
    )

    def check(self, times, **keys):
        series = [
            scan("MESE", labels={"echo": str(i)}, **({} if t is None else {"EchoTime": t}))
            for i, t in enumerate(times, start=1)
        ]
        return {one.field: one.status for one in found(self.protocol, *series)}

    def test_as_asked(self):
        assert set(self.check([0.01, 0.02, 0.03, 0.04]).values()) == {FindingStatus.PASS}

    def test_order_and_repeats_do_not_matter(self):
        assert set(self.check([0.04, 0.01, 0.02, 0.03, 0.01]).values()) == {FindingStatus.PASS}

    @pytest.mark.parametrize(
        ("times", "field"),
        [
            ([0.01, 0.025, 0.04], "EchoTime"),
            ([0.01 * i for i in range(1, 8)], "EchoTime"),
            ([0.013, 0.023, 0.033, 0.043], "EchoTime, smallest"),
            ([0.005, 0.010, 0.015, 0.020], "EchoTime, largest"),
            ([0.01, 0.02, 0.03, 0.045], "EchoTime, steps"),
        ],
    )
    def test_each_part(self, times, field):
        statuses = self.check(times)
        assert statuses.pop(field) is FindingStatus.CONSTRAINT
        assert set(statuses.values()) <= {FindingStatus.PASS}

    def test_milliseconds(self):
        statuses = self.check([10, 20, 30, 40])
        assert statuses["EchoTime, smallest"] is FindingStatus.UNIT_SUSPECT

    def test_not_recorded(self):
        assert self.check([0.01, None, 0.03, 0.04]) == {"EchoTime": FindingStatus.NOT_CHECKABLE}

    def test_a_list_in_one_sidecar(self):
        assert set(self.check([[0.01, 0.02, 0.03, 0.04]]).values()) == {FindingStatus.PASS}

    def test_two_participants(self):
        series = [
            scan("MESE", subject=s, labels={"echo": str(i)}, EchoTime=0.01 * i)
            for s in ("1", "2")
            for i in range(1, 5)
        ]
        assert len(found(self.protocol, *series)) == 8


class TestScaling:
    protocol = rule("same-scaling", series=("mt-on", "mt-off", "mt-t1w"), rel_tol=0.001)

    def check(self, *slopes, vendor="Philips", **shared):
        series = [
            scan("MTS", vendor=vendor, labels=labels, **shared, **values)
            for labels, values in zip((ON, OFF, T1W), slopes, strict=False)
        ]
        return found(self.protocol, *series)

    def test_the_same(self):
        slope = {"PhilipsScaleSlope": 0.00067717}
        assert only(self.check(slope, slope, slope)).status is FindingStatus.PASS

    def test_scale_slope_differs(self):
        slope = {"PhilipsScaleSlope": 0.000634015}
        finding = only(self.check(slope, slope, {"PhilipsScaleSlope": 0.000600307}))
        assert finding.status is FindingStatus.CONSTRAINT
        assert finding.severity is Severity.ERROR

    def test_real_world_slope_differs(self):
        # github.com/spine-generic/data-multi-subject/issues/36
        mt = {"PhilipsRWVSlope": 1.69499, "PhilipsRescaleSlope": 1.69499}
        t1 = {"PhilipsRWVSlope": 1.85592, "PhilipsRescaleSlope": 1.85592}
        assert only(self.check(mt, mt, t1)).severity is Severity.ERROR

    def test_undone_by_the_converter(self):
        # sub-chibaIngenia of the public single-subject data.
        mt = {"PhilipsRescaleSlope": 1.86593, "PhilipsScaleSlope": 0.000634015}
        t1 = {"PhilipsRescaleSlope": 2.17582, "PhilipsScaleSlope": 0.000600307}
        finding = only(self.check(mt, mt, t1, UsePhilipsFloatNotDisplayScaling=1))
        assert finding.status is FindingStatus.CONSTRAINT
        assert finding.severity is Severity.WARNING

    def test_rescale_slope_alone_is_undone(self):
        # vuissAchieva of the public multi-subject data, whose MTsat is like that of other sites.
        mt = {"PhilipsRescaleSlope": 1.81343, "PhilipsScaleSlope": 0.00067717}
        t1 = {"PhilipsRescaleSlope": 2.0696, "PhilipsScaleSlope": 0.00067717}
        assert only(self.check(mt, mt, t1, UsePhilipsFloatNotDisplayScaling=1)).status is FindingStatus.PASS
        assert only(self.check(mt, mt, t1)).status is FindingStatus.NOT_CHECKABLE
        assert only(self.check(mt, mt, t1, UsePhilipsFloatNotDisplayScaling=0)).severity is Severity.ERROR

    def test_old_converter_with_real_world_values(self):
        mt = {"PhilipsRWVSlope": 1.7, "PhilipsScaleSlope": 6e-4}
        t1 = {"PhilipsRWVSlope": 1.9, "PhilipsScaleSlope": 6e-4}
        keys = {"UsePhilipsFloatNotDisplayScaling": 1}
        old = only(self.check(mt, mt, t1, ConversionSoftwareVersion="v1.0.20190902", **keys))
        assert old.severity is Severity.ERROR
        new = only(self.check(mt, mt, t1, ConversionSoftwareVersion="v1.0.20211006", **keys))
        assert new.status is FindingStatus.PASS

    def test_not_recorded(self):
        assert only(self.check({}, {}, {})).status is FindingStatus.NOT_CHECKABLE
        slope = {"PhilipsScaleSlope": 6e-4}
        assert only(self.check(slope, slope, {})).status is FindingStatus.NOT_CHECKABLE

    def test_other_vendors_do_not_scale_each_series(self):
        assert not self.check({}, {}, {}, vendor="Siemens")
