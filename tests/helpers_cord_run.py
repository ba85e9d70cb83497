"""Run one participant in this process and look values up."""

from __future__ import annotations

from pathlib import Path

from cordqa.io.bids_index import index_dataset
from cordqa.records import Measurement, Result, State
from cordqa.workflow.cord_atlas import prepare_atlas
from cordqa.workflow.cord_participant import CordJob, analyse_unit
from cordqa.workflow.cord_settings import CordSettings, read_exclusions


def analyse(bids: Path, out: Path, subject: str = "01", session: str = "", **settings: object) -> Result:
    options = CordSettings(**settings)  # type: ignore[arg-type]
    job = CordJob(
        index=index_dataset(bids),
        subject=subject,
        session=session,
        out=out,
        settings=options,
        work=out / "work",
        atlas=prepare_atlas(options.template, out / "work"),
        marks=read_exclusions(options.exclude_from),
    )
    return analyse_unit(job)


def rows(result: Result, quantity: str, region: str = "WM", level: str = "all slices") -> list[Measurement]:
    return [r for r in result.measurements if (r.quantity, r.region, r.level) == (quantity, region, level)]


def row(result: Result, quantity: str, region: str = "WM", level: str = "all slices") -> Measurement:
    (found,) = rows(result, quantity, region, level)
    return found


def reasons(result: Result, state: State) -> dict[str, str]:
    return {outcome.what: outcome.reason for outcome in result.outcomes if outcome.state is state}
