"""The pages of a study: a list of all participants, and the way from one to the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cordqa import __version__, figures
from cordqa.figures import PageLink
from cordqa.io.results import write_text
from cordqa.records import Figure, Provenance, Result, State, Status
from cordqa.workflow.execute.resume import read_records

__all__ = ["INDEX", "PAGE", "PageMaker", "list_pages", "page_path", "write_index"]

#: Names of the list of all participants, and of the page of each.
INDEX, PAGE = "index.html", "report.html"
_STATUS = {State.DONE: Status.PASS, State.FAILED: Status.FAIL, State.SKIPPED: Status.NOT_EVALUATED}
Render = Callable[[Result], str]


def page_path(name: str) -> str:
    """Path of the page of ``sub-01_ses-A`` from the output folder."""
    return f"{name.replace('_', '/')}/{PAGE}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PageMaker:
    """Makes the page of one participant, with the way to its neighbours; can be sent to a process.

    Attributes
    ----------
    render : callable
        Makes a page of a result.
    current, previous, following : str
        Paths from the output folder; empty where there is no neighbour.
    """

    render: Render
    current: str
    previous: str = ""
    following: str = ""

    def __call__(self, result: Result) -> str:
        """Make the page; the result itself is not changed by where it stands."""
        up = "../" * self.current.count("/")
        links = [
            PageLink(name=_name(path), path=up + path) if path else None
            for path in (self.previous, self.following)
        ]
        way = figures.pages("Participants", (), index=up + INDEX, previous=links[0], following=links[1])
        return self.render(replace(result, figures=(way, *result.figures)))


def _name(path: str) -> str:
    return "_".join(path.split("/")[:-1])


def list_pages(out: Path, entries: Sequence[PageLink]) -> Figure:
    """List the pages of participants that exist below ``out``."""
    return figures.pages(
        "Participants",
        [one for one in entries if (out / one.path).is_file()],
        caption="Each name leads to the images of one participant and session; there, the keys n and b lead "
        "to the next one and back. Where the browser keeps marks for pages on disk, they are counted here.",
    )


def write_index(out: Path, render: Render) -> Path:
    """Write the list of all participants that any run has left below ``out``.

    Only the small records of the runs are read, so that it costs little after each of many jobs.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    outcomes = [record.outcome for record in read_records(out) if record.key.startswith("sub-")]
    links = [
        PageLink(
            name=one.what,
            path=page_path(one.what),
            status=_STATUS[one.state],
            word=str(one.state).capitalize(),
            text=one.reason,
        )
        for one in outcomes
    ]
    failed = sum(one.state is State.FAILED for one in outcomes)
    result = Result(
        kind="cord",
        title="Cord (experimental): participants",
        status=Status.WARN if failed else Status.PASS,
        summary=f"{len(outcomes)} participants and sessions; "
        + (f"{failed} with something that failed." if failed else "nothing failed."),
        figures=(list_pages(out, links),),
        provenance=Provenance(
            version=__version__,
            command="cordqa cord BIDS_DIR OUT participant",
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        ),
    )
    path = out / INDEX
    write_text(path, render(result))
    return path
