"""The verdict on the protocol beside the values of other commands."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers_dicom import inversion_series
from helpers_protocol_study import write_study

from cordqa.errors import DefinitionError
from cordqa.io.bids_index import index_dataset
from cordqa.records import Result, Status
from cordqa.simulate.protocol_study import simulate_protocol_study
from cordqa.workflow.cord import CordSettings, run_cord_group, run_cord_participants
from cordqa.workflow.phantom import PhantomSettings, run_phantom
from cordqa.workflow.protocol.beside import add_protocol

NAME = "spine-generic-3t"


def result(status: Status = Status.PASS) -> Result:
    return Result(kind="cord", title="T", status=status, summary="Measured.")


@pytest.fixture(scope="module")
def deviating(tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = simulate_protocol_study(deviations=["echo time"], n_participants=3)
    return write_study(study, tmp_path_factory.mktemp("data"))


def test_nothing_happens_where_no_protocol_is_asked_for(tmp_path: Path) -> None:
    own = result()
    assert add_protocol(own, tmp_path / "absent", None) is own
    assert add_protocol(own, tmp_path / "absent", "") is own


@pytest.mark.parametrize("own", [Status.PASS, Status.WARN, Status.FAIL, Status.NOT_EVALUATED])
def test_values_of_scans_that_do_not_keep_the_protocol_are_no_pass(deviating: Path, own: Status) -> None:
    found = add_protocol(result(own), index_dataset(deviating), NAME)
    assert found.status is Status.FAIL
    assert found.summary.startswith("Measured. The protocol spine-generic-3t was not kept:")
    first, second = found.verdicts
    assert (first.scope, first.status) == ("protocol", Status.FAIL)
    assert second.quantity == "EchoTime" and second.rule.startswith("protocol: ")
    assert [one.name for one in found.statistics] == ["compliance", "coverage"]


def test_a_kept_protocol_leaves_the_status_as_it_is(tmp_path: Path) -> None:
    root = write_study(simulate_protocol_study(deviations=[], n_participants=3), tmp_path)
    for own in (Status.PASS, Status.WARN, Status.FAIL, Status.NOT_EVALUATED):
        found = add_protocol(result(own), index_dataset(root), NAME)
        assert found.status is own and len(found.verdicts) == 1


def test_only_the_scans_of_the_session_count_and_what_was_not_checked_is_no_pass(deviating: Path) -> None:
    found = add_protocol(result(), index_dataset(deviating), NAME, session="absent")
    assert found.status is Status.WARN and found.verdicts[0].status is Status.NOT_EVALUATED
    found = add_protocol(result(Status.FAIL), index_dataset(deviating), NAME, session="absent")
    assert found.status is Status.FAIL


def test_a_protocol_that_is_not_there_is_refused_before_any_work(deviating: Path, tmp_path: Path) -> None:
    settings = CordSettings(protocol="nonsense")
    with pytest.raises(DefinitionError, match="nonsense"):
        run_cord_participants(deviating, tmp_path, settings=settings)
    with pytest.raises(DefinitionError, match="nonsense"):
        run_cord_group(tmp_path, settings=settings, bids=deviating)
    with pytest.raises(DefinitionError, match="nonsense"):
        run_phantom(deviating, tmp_path, settings=PhantomSettings(protocol="nonsense"))


def test_a_phantom_run_shows_the_verdict(tmp_path: Path) -> None:
    inversion_series(
        tmp_path / "in", [50.0, 400.0, 1100.0, 2500.0], ProtocolName="T1_IR", RepetitionTime=1000
    )
    settings = PhantomSettings(protocol="system-phantom-t1-ir")
    found = run_phantom(tmp_path / "in", tmp_path / "out", settings=settings)
    (overall,) = [one for one in found.verdicts if one.rule == "protocol"]
    assert overall.status is Status.FAIL
    assert any(one.quantity == "RepetitionTime" for one in found.verdicts)
    assert found.provenance.config["protocol"] == "system-phantom-t1-ir"
