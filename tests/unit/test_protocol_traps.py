"""Vendor traps: each is found where it is, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
from helpers_protocol import findings_of, make_protocol, only, scan, series_rule

from cordqa.models.diffusion.gradients import GradientTable
from cordqa.protocol.records import FindingStatus, GradientFacts
from cordqa.protocol.traps import TRAPS
from cordqa.records import Severity

PROTOCOL = make_protocol(series_rule(), series_rule("dwi", "dwi"))
MT = make_protocol(
    series_rule("mt-on", match=[{"suffix": "MTS", "entities": {"mt": "on"}}]),
    series_rule("mt-off", match=[{"suffix": "MTS", "entities": {"mt": "off"}}]),
    constraints=[{"id": "c", "kind": "same-scaling", "series": ["mt-on", "mt-off"], "why": "test"}],
)


def traps(protocol, *series):
    return [one for one in findings_of(protocol, *series) if one.rule.startswith("trap.")]


class TestInterpolation:
    def check(self, acquired, made, percent=None):
        values = {"AcquisitionMatrixPE": acquired, "ReconMatrixPE": made}
        return traps(PROTOCOL, scan(**values, **({} if percent is None else {"PercentPhaseFOV": percent})))

    @pytest.mark.parametrize(
        ("acquired", "made", "percent"),
        [(448, 512, 100), (48, 256, 50), (256, 512, 80)],  # sub-juntendo750w
    )
    def test_public_cases(self, acquired, made, percent):
        finding = only(self.check(acquired, made, percent))
        assert finding.rule == "trap.interpolated-matrix"
        assert finding.severity is Severity.WARNING

    @pytest.mark.parametrize(
        ("acquired", "made", "percent"),
        [(36, 36, 37.5), (260, 260, 81.25), (256, 256, None), (192, 96, 100), (48, 96, 50)],
    )
    def test_none(self, acquired, made, percent):
        assert not self.check(acquired, made, percent)

    def test_not_recorded_or_not_usable(self):
        assert not traps(PROTOCOL, scan())
        assert not self.check(0, 256)
        assert not self.check("many", 256)


class TestImageType:
    def test_normalised_and_not_within_a_ratio(self):
        on = scan("MTS", labels={"mt": "on"}, ImageType=["ORIGINAL", "PRIMARY", "M", "NORM"])
        off = scan("MTS", labels={"mt": "off"}, ImageType=["ORIGINAL", "PRIMARY", "M"])
        finding = next(one for one in traps(MT, on, off) if one.series == "mt-on+mt-off")
        assert finding.rule == "trap.normalisation"
        assert finding.severity is Severity.ERROR
        same = scan("MTS", labels={"mt": "off"}, ImageType=["ORIGINAL", "PRIMARY", "M", "NORM"])
        assert not traps(MT, on, same)

    @pytest.mark.parametrize(
        ("usual", "odd", "trap"),
        [
            ("NORM", "M", "normalisation"),
            ("DIS2D", "ND", "distortion-correction"),
            ("DIS3D", "DIS2D", "distortion-correction"),
        ],
    )
    def test_the_odd_one_out_over_participants(self, usual, odd, trap):
        types = [usual, usual, usual, odd]
        series = [
            scan(subject=str(i), ImageType=["ORIGINAL", "PRIMARY", "M", one]) for i, one in enumerate(types)
        ]
        finding = only([one for one in traps(PROTOCOL, *series) if one.rule == f"trap.{trap}"])
        assert finding.entities.subject == "3"
        assert "3 of 4" in finding.sentence

    def test_other_vendors_and_other_series_are_not_compared(self):
        one = scan(subject="1", ImageType=["ORIGINAL", "PRIMARY", "M", "NORM"])
        two = scan(subject="2", vendor="GE", ImageType=["ORIGINAL", "PRIMARY", "OTHER"])
        three = scan("dwi", subject="1", ImageType=["ORIGINAL", "PRIMARY", "DIFFUSION", "ND"])
        assert not traps(PROTOCOL, one, two, three)


class TestPhaseSign:
    protocol = make_protocol(series_rule("phase", match=[{"suffix": "MEGRE", "entities": {"part": "phase"}}]))

    def test_never_a_pass_and_one_finding_per_scanner(self):
        echoes = [
            scan(
                "MEGRE",
                vendor=vendor,
                scanner=vendor,
                subject=vendor,
                labels={"part": "phase", "echo": str(i)},
            )
            for vendor in ("Siemens", "GE")
            for i in (1, 2)
        ]
        found = traps(self.protocol, *echoes)
        assert [one.status for one in found] == [FindingStatus.NOT_CHECKABLE] * 2
        assert all("GE, Siemens" in one.sentence for one in found)

    def test_magnitude_is_left_alone(self):
        protocol = make_protocol(series_rule("mag", "MEGRE"))
        assert not traps(protocol, scan("MEGRE", ImageType=["ORIGINAL", "PRIMARY", "M"]))
        assert traps(protocol, scan("MEGRE", ImageType=["ORIGINAL", "PRIMARY", "P"]))


class TestBValues:
    def table(self, *b):
        directions = np.eye(3)[np.arange(len(b)) % 3] * (np.array(b) > 50)[:, None]
        return GradientFacts(table=GradientTable.linear(b, directions))

    def test_the_convention_changes_on_one_scanner(self):
        series = [
            scan("dwi", subject="1", gradients=self.table(0, 795, 800, 805)),
            scan("dwi", subject="2", gradients=self.table(0, 800, 800, 800)),
        ]
        finding = only(traps(PROTOCOL, *series))
        assert finding.rule == "trap.b-values"
        assert "1 of 2" in finding.sentence

    def test_two_scanners_may_differ(self):
        series = [
            scan("dwi", subject="1", gradients=self.table(0, 795, 800, 805)),
            scan("dwi", subject="2", scanner="s2", gradients=self.table(0, 800, 800, 800)),
        ]
        assert not traps(PROTOCOL, *series)

    def test_no_gradients(self):
        assert not traps(PROTOCOL, scan("dwi"), scan("dwi", subject="2", gradients=GradientFacts(table=None)))


def test_a_protocol_may_choose_its_traps():
    series = scan(AcquisitionMatrixPE=64, ReconMatrixPE=128)
    chosen = make_protocol(series_rule(), traps=["phase-sign"])
    assert not traps(chosen, series)
    assert traps(make_protocol(series_rule(), traps=["interpolated-matrix"]), series)


def test_every_trap_is_complete_and_documented():
    from pathlib import Path

    text = (Path(__file__).resolve().parents[2] / "docs" / "protocol_traps.md").read_text(encoding="utf-8")
    for trap in TRAPS.values():
        assert trap.what and trap.evidence and trap.source
        assert (trap.check is not None) == (trap.enforced_by == "check")
        assert f"`{trap.id}`" in text
