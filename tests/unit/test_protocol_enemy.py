"""Cases in which a check could call right what is wrong, or hide it behind something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers_dicom import mr_image, uid, write
from helpers_protocol import findings_of, make_protocol, only, scan, series_rule
from pydantic import ValidationError

from cordqa.errors import EmptyInputError
from cordqa.protocol.compliance import check_compliance
from cordqa.protocol.definition import load_protocol
from cordqa.protocol.records import FindingStatus, ObservedSeries, Problem
from cordqa.records import Severity, Status
from cordqa.workflow.protocol.check import check_observed, load_protocols
from cordqa.workflow.protocol.compare import compare_protocols
from cordqa.workflow.protocol.observe import observe_dataset

ON, OFF, T1W = {"mt": "on"}, {"mt": "off"}, {"mt": "off", "flip": "2"}
PAIR = (
    series_rule("mt-on", match=[{"suffix": "MTS", "entities": {"mt": "on"}}]),
    series_rule("mt-off", match=[{"suffix": "MTS", "entities": {"mt": "off", "flip": ["1", ""]}}]),
    series_rule("mt-t1w", match=[{"suffix": "MTS", "entities": {"mt": "off", "flip": "2"}}]),
)
TR = {"RepetitionTime": {"rel_tol": 0.05, "why": "test", "by": {"Siemens": 1.5}}}


def link(kind: str, *series: str, **keys: Any) -> Any:
    one = {"id": "c", "kind": kind, "series": list(series or ("mt-on", "mt-off")), "why": "test", **keys}
    return make_protocol(*PAIR, constraints=[one])


def found(protocol: Any, *series: ObservedSeries) -> list[Any]:
    return [one for one in findings_of(protocol, *series) if one.rule == "c"]


def put(root: Path, name: str, text: str = "", **values: Any) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text or json.dumps(values))
    return path


class TestScaling:
    """DV = FP * RS * SS: displayed values share a scale where the product is the same."""

    protocol = link("same-scaling", "mt-on", "mt-off", "mt-t1w", rel_tol=0.001)

    def check(self, *slopes: tuple[float | None, float | None], flags: Any = (0, 0, 0)) -> Any:
        series = []
        for labels, (rescale, scale), flag in zip((ON, OFF, T1W), slopes, flags, strict=True):
            values = {
                "PhilipsRescaleSlope": rescale,
                "PhilipsScaleSlope": scale,
                "UsePhilipsFloatNotDisplayScaling": flag,
            }
            known = {name: value for name, value in values.items() if value is not None}
            series.append(scan("MTS", vendor="Philips", labels=labels, **known))
        return only(found(self.protocol, *series))

    def test_displayed_values_whose_scale_slope_differs(self) -> None:
        finding = self.check((1.8, 7e-4), (1.8, 7e-4), (1.8, 8e-4))
        assert (finding.status, finding.severity) == (FindingStatus.CONSTRAINT, Severity.ERROR)

    def test_displayed_values_whose_slopes_cancel(self) -> None:
        assert self.check((2.0, 6e-4), (2.0, 6e-4), (1.0, 12e-4)).status is FindingStatus.PASS

    @pytest.mark.parametrize("slopes", [(1.8, None), (None, 7e-4)])
    def test_displayed_values_of_which_one_slope_is_not_recorded(self, slopes: Any) -> None:
        assert self.check(slopes, slopes, slopes).status is FindingStatus.NOT_CHECKABLE

    def test_displayed_and_precise_values_mixed(self) -> None:
        same = (1.8, 7e-4)
        finding = self.check(same, same, same, flags=(1, 1, 0))
        assert (finding.status, finding.severity) == (FindingStatus.CONSTRAINT, Severity.ERROR)

    def test_nothing_known_of_the_scale_slope_is_no_pass(self) -> None:
        same = (1.8, None)
        assert self.check(same, same, same, flags=(None,) * 3).status is FindingStatus.NOT_CHECKABLE

    def test_a_pair_that_differs_is_seen_although_the_third_is_not_known(self) -> None:
        finding = self.check((1.8, 7e-4), (1.8, 9e-4), (None, None), flags=(None,) * 3)
        assert finding.status is FindingStatus.CONSTRAINT


class TestHidden:
    """What is known to be wrong is said, whatever else is not known."""

    def test_scans_that_differ_beside_one_that_is_not_known(self) -> None:
        protocol = link("equal", "mt-on", "mt-off", fields=["RepetitionTime"], rel_tol=0.01)
        series = [scan("MTS", labels={**ON, "run": str(run)}) for run in (1,)]
        series += [scan("MTS", labels={**ON, "run": "2"}, RepetitionTime=0.039)]
        series += [scan("MTS", labels=OFF, RepetitionTime=0.035)]
        assert only(found(protocol, *series)).status is FindingStatus.CONSTRAINT
        series[-1] = scan("MTS", labels=OFF, RepetitionTime=0.039)
        assert only(found(protocol, *series)).status is FindingStatus.NOT_CHECKABLE

    def test_a_ratio_that_is_wrong_beside_one_that_is_not_known(self) -> None:
        protocol = link("ratio", "mt-t1w", "mt-off", fields=["FlipAngle"], min=1.6, max=1.75)
        series = [scan("MTS", labels=T1W, FlipAngle=9), scan("MTS", labels=OFF, FlipAngle=9)]
        series += [scan("MTS", labels={**OFF, "run": "2"})]
        assert only(found(protocol, *series)).status is FindingStatus.CONSTRAINT

    @pytest.mark.parametrize("raw", ["2,5", [1.5, 1.5], [[1.5]], {"a": 1}, float("nan"), float("inf")])
    @pytest.mark.parametrize("vendor", ["", "GE"])
    def test_what_is_no_number_is_said_for_any_scanner(self, raw: Any, vendor: str) -> None:
        protocol = make_protocol(series_rule(params=TR))
        finding = only(findings_of(protocol, scan(vendor=vendor, RepetitionTime=raw), field="RepetitionTime"))
        assert finding.status is FindingStatus.NOT_NUMERIC

    def test_a_study_without_any_vendor_is_no_pass(self) -> None:
        rule = {"any": {"value": 0.1}, "Siemens": {"value": 0.12}}
        params = {
            "FlipAngle": {"abs_tol": 1, "why": "test", "by": {"any": 90}},
            "EchoTime": {"rel_tol": 0.05, "why": "test", "by": rule},
        }
        protocol = make_protocol(series_rule(params=params))
        check = check_observed([scan(vendor="", FlipAngle=90, EchoTime=0.1)], [protocol])
        assert check.verdicts[0].status is Status.WARN
        check = check_observed([scan(FlipAngle=90, EchoTime=0.12)], [protocol])
        assert check.verdicts[0].status is Status.PASS

    def test_software_names_the_sessions_of_each_version(self) -> None:
        protocol = make_protocol(
            series_rule(), constraints=[{"id": "c", "kind": "same-software", "within": "scanner", "why": "t"}]
        )
        series = [scan(subject=f"{n:02d}", software="E11") for n in range(9)]
        series.append(scan(subject="09", software="XA30", session="2"))
        (finding,) = [one for one in findings_of(protocol, *series) if one.rule == "c"]
        assert "E11 (9 sessions)" in finding.sentence
        assert "XA30 (1 session) in sub-09 ses-2" in finding.sentence


class TestRepetitionTime:
    """BIDS writes the repetition time of anatomical images as RepetitionTimeExcitation."""

    def one(self, root: Path, suffix: str = "MTS", **values: Any) -> Any:
        put(root, f"sub-01/anat/sub-01_{suffix}.json", **values)
        (series,) = observe_dataset(root).series
        return series.parameters.get("RepetitionTime")

    def test_it_is_the_repetition_time_of_a_scan_without_preparation(self, tmp_path: Path) -> None:
        value = self.one(tmp_path, RepetitionTimeExcitation=0.035)
        assert value.value == 0.035 and "RepetitionTimeExcitation" in value.note

    def test_the_field_of_that_name_goes_before(self, tmp_path: Path) -> None:
        assert self.one(tmp_path, RepetitionTime=0.04, RepetitionTimeExcitation=0.035).value == 0.04

    @pytest.mark.parametrize("other", ["RepetitionTimePreparation", "InversionTime"])
    def test_with_a_preparation_it_may_be_another_time(self, tmp_path: Path, other: str) -> None:
        values = {"RepetitionTimeExcitation": 0.007, other: 1.0}
        assert self.one(tmp_path, "T1w", **values) is None

    def test_a_broken_one_is_said(self, tmp_path: Path) -> None:
        assert self.one(tmp_path, RepetitionTimeExcitation="0,035").problem is Problem.NOT_NUMERIC


class TestFolders:
    def test_a_flat_folder_with_a_diffusion_scan_keeps_the_others(self, tmp_path: Path) -> None:
        for name in ("T1w", "T2w", "dwi"):
            put(tmp_path, f"sub-01_{name}.json", EchoTime=0.1)
        assert {one.suffix for one in observe_dataset(tmp_path).series} == {"T1w", "T2w", "dwi"}

    def test_results_of_an_analysis_are_no_scans(self, tmp_path: Path) -> None:
        put(tmp_path, "dataset_description.json", Name="x", BIDSVersion="1.9.0")
        put(tmp_path, "derivatives/cord/sub-01/anat/sub-01_T2w.json", EchoTime=0.1)
        with pytest.raises(EmptyInputError, match="neither BIDS sidecars nor DICOM"):
            observe_dataset(tmp_path)

    def test_a_sidecar_above_the_images_of_a_participant_is_no_series(self, tmp_path: Path) -> None:
        put(tmp_path, "sub-01/sub-01_T2w.json", EchoTime=0.1)
        put(tmp_path, "sub-01/ses-1/anat/sub-01_ses-1_T2w.json", FlipAngle=90)
        (series,) = observe_dataset(tmp_path).series
        assert series.parameters["EchoTime"].value == 0.1


class TestDicomBeside:
    def observe(self, root: Path, header: dict[str, Any], **values: Any) -> Any:
        put(root / "bids", "sub-01/anat/sub-01_T2w.json", SeriesInstanceUID=uid("x"), **values)
        write(root / "dicom/a.dcm", mr_image(SeriesInstanceUID=uid("x"), **header))
        (series,) = observe_dataset(root / "bids", dicom=root / "dicom").series
        return series

    def test_the_vendor_may_come_from_dicom(self, tmp_path: Path) -> None:
        header = {"Manufacturer": "SIEMENS", "ManufacturerModelName": "Prisma", "SoftwareVersions": "E11"}
        series = self.observe(tmp_path, header, EchoTime=0.01)
        assert (series.vendor, series.model, series.software) == ("Siemens", "Prisma", "E11")

    def test_vendors_that_contradict_each_other_are_no_vendor(self, tmp_path: Path) -> None:
        series = self.observe(tmp_path, {"Manufacturer": "SIEMENS"}, Manufacturer="GE", EchoTime=0.01)
        assert series.vendor == ""
        assert "GE" in series.problem and "Siemens" in series.problem
        protocol = make_protocol(series_rule(params=TR))
        findings = check_compliance(protocol, [series]).findings
        assert any(one.field == "file" and one.status is FindingStatus.NOT_CHECKABLE for one in findings)


def test_a_diffusion_scan_that_was_cut_short_is_no_pass(tmp_path: Path) -> None:
    import nibabel
    import numpy as np

    put(tmp_path, "sub-01/dwi/sub-01_dwi.json", EchoTime=0.06)
    put(tmp_path, "sub-01/dwi/sub-01_dwi.bval", "0 800 800 800 800 800 800")
    rows = "0 1 0 0 .7 .7 0\n0 0 1 0 .7 0 .7\n0 0 0 1 0 .7 .7"
    put(tmp_path, "sub-01/dwi/sub-01_dwi.bvec", rows)
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2, 5), dtype=np.int16), np.eye(4))
    nibabel.save(image, tmp_path / "sub-01/dwi/sub-01_dwi.nii.gz")
    (series,) = observe_dataset(tmp_path).series
    assert series.gradients is not None and series.gradients.table is None
    assert "5" in series.gradients.problem and "7" in series.gradients.problem


@pytest.mark.parametrize("b_values", ["0 nan nan", "0 800", "0 800,0 800,0", "", "0 -800 -800"])
def test_a_gradient_table_that_cannot_be_used_is_no_pass(tmp_path: Path, b_values: str) -> None:
    put(tmp_path, "sub-01/dwi/sub-01_dwi.json", Manufacturer="Siemens", EchoTime=0.06)
    put(tmp_path, "sub-01/dwi/sub-01_dwi.bval", b_values or "\n")
    put(tmp_path, "sub-01/dwi/sub-01_dwi.bvec", "0 1 0\n0 0 1\n0 0 0")
    echo = {"EchoTime": {"rel_tol": 0.05, "why": "test", "by": {"any": 0.06}}}
    gradients = {"shells": [{"b": 800, "min_n": 2}], "why": "test"}
    protocol = make_protocol(series_rule("dwi", "dwi", params=echo, gradients=gradients))
    check = check_observed(observe_dataset(tmp_path).series, [protocol])
    assert check.verdicts[0].status is Status.WARN
    assert any(one.quantity == "gradients" and one.scope == "series" for one in check.verdicts)


def test_one_protocol_named_twice_is_one() -> None:
    assert len(load_protocols("spine-generic-3t, spine-generic-3t,spine-generic")) == 1


def test_a_constraint_in_percent_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"0\.05 is 5 %"):
        link("equal", fields=["RepetitionTime"], rel_tol=5)


@pytest.mark.parametrize(
    ("field", "limit", "words"),
    [
        ("RepetitionTime", {"rel_tol": 5, "by": {"any": 1.5}}, "0.05 is 5 %"),
        ("RepetitionTime", {"rel_tol": 0.05, "by": {"any": 1500}}, "milliseconds"),
        ("EchoTime", {"by": {"any": {"min": 110, "max": 130}}}, "milliseconds"),
        ("FlipAngle", {"abs_tol": 0.5, "by": {"any": -9}}, "no scanner"),
    ],
)
def test_a_protocol_that_asks_what_no_scanner_does_is_refused(field: str, limit: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        make_protocol(series_rule(params={field: {"why": "test", **limit}}))


def test_protocols_that_differ_in_what_joins_series_differ() -> None:
    rows = {row.field: row for row in compare_protocols("spine-generic-3t", "cord-15min").rows}
    assert (rows["time budget"].a, rows["time budget"].b) == ("27:00 (warning)", "15:00 (error)")
    assert rows["constraint mt-set-coil"].relation == "only in A"
    assert rows["constraint mt-pair-repetition-time"].relation == "same"
    assert rows["field strength"].a == "3 T"


def test_the_limit_of_one_vendor_is_not_shown_as_that_of_any(tmp_path: Path) -> None:
    protocol = "spine-generic-3t"
    put(tmp_path, "sub-01/anat/sub-01_T1w.json", Manufacturer="Siemens", RepetitionTime=2.0)
    rows = compare_protocols(protocol, tmp_path).rows
    (row,) = [one for one in rows if one.series == "t1w" and one.field == "AcquisitionDuration"]
    assert row.a.startswith("Philips: 262 s")


def test_the_report_says_in_which_unit_a_value_seems_to_be() -> None:
    protocol = make_protocol(series_rule(params=TR))
    check = check_observed([scan(RepetitionTime=1500)], [protocol])
    assert any("milliseconds" in one.reason for one in check.verdicts if one.scope == "series")


def test_the_file_in_the_manual_loads(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs/protocols.md").read_text()
    put(tmp_path, "sample.yaml", text.split("```yaml\n")[1].split("```")[0])
    assert load_protocol(tmp_path / "sample.yaml").id == "my-protocol"
