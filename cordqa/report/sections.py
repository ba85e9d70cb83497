"""What stands on the page, in order: each section appears only where it has something to say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from cordqa.records import Outcome, Result, State, Status
from cordqa.report.attention import Alert, collect_alerts
from cordqa.report.page_links import PageList, find_pages
from cordqa.report.placement import FigureView, Section, arrange_figures
from cordqa.report.words import count_noun, status_word

__all__ = ["Page", "build_page", "keep_options", "link_dois", "status_look"]

_LOOKS = {Status.PASS: "pass", Status.WARN: "warn", Status.FAIL: "fail", Status.NOT_EVALUATED: "none"}
_VERDICTS = {
    Status.PASS: "Passed",
    Status.WARN: "Passed with warnings",
    Status.FAIL: "Failed",
    Status.NOT_EVALUATED: "Not evaluated",
}
_OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z0-9-]*)")
_DOI = re.compile(r"(?:https?://(?:dx\.)?doi\.org/|doi:\s*)?(10\.\d{4,9}/[^\s\"<>]+)", re.IGNORECASE)
#: Outcomes that are listed in the open; more of them fold away.
_OPEN_OUTCOMES = 8


@dataclass(frozen=True, slots=True)
class Page:
    """Everything that the template needs."""

    result: Result
    look: str
    verdict: str
    counts: Sequence[tuple[str, str]]
    alerts: Sequence[Alert]
    notes: Sequence[Alert]
    notes_title: str
    quiet: str
    states: str
    outcomes: Sequence[Outcome]
    folded_outcomes: Sequence[Outcome]
    design: Sequence[FigureView]
    sections: Sequence[Section]
    provenance: Sequence[tuple[str, str]]
    config: Sequence[tuple[str, str]]
    hashes: Sequence[tuple[str, str]]
    contents: Sequence[tuple[str, str]]
    pages: PageList | None = None

    @property
    def has_review(self) -> bool:
        """Tell whether the page needs what serves reviewers: images to mark, or a list of pages."""
        return bool(self.pages and self.pages.entries) or any(one.id == "review" for one in self.sections)


def status_look(status: Status) -> str:
    """Return the name by which style sheet and icons know a status."""
    return _LOOKS[status]


def build_page(result: Result) -> Page:
    """Prepare everything that the template writes."""
    found = collect_alerts(result)
    alerts = [alert for alert in found if alert.look in ("fail", "warn")]
    notes = [alert for alert in found if alert.look not in ("fail", "warn")]
    design, sections = arrange_figures(result)
    problems = _in_state(result, State.FAILED) + _in_state(result, State.SKIPPED)
    done = _in_state(result, State.DONE)
    page: dict[str, Any] = {
        "result": result,
        "look": _LOOKS[result.status],
        "verdict": _headline(result),
        "counts": _counts(result),
        "alerts": alerts,
        "notes": notes,
        "notes_title": _notes_title(notes),
        "quiet": "" if alerts else _quiet(result),
        "states": states_sentence(result),
        "outcomes": problems + (done if len(done) <= _OPEN_OUTCOMES else []),
        "folded_outcomes": done if len(done) > _OPEN_OUTCOMES else [],
        "design": design,
        "sections": sections,
        "provenance": _provenance(result),
        "config": _flatten(result.provenance.config),
        "hashes": list(result.provenance.input_hashes.items()),
        "pages": find_pages(result.figures),
    }
    return Page(**page, contents=_contents(result, page))


def _in_state(result: Result, state: State) -> list[Outcome]:
    return [outcome for outcome in result.outcomes if outcome.state is state]


def _headline(result: Result) -> str:
    """Say the verdict; a warning where nothing was judged is no pass of any kind, nor is a list a pass."""
    if result.status is Status.WARN and not result.verdicts:
        return "Needs attention"
    if result.status is Status.PASS and not result.verdicts and result.figures and not result.measurements:
        return "Done"
    return _VERDICTS[result.status]


def _counts(result: Result) -> list[tuple[str, str]]:
    """Look and words for each status that occurs among the verdicts, most severe first."""
    order = (Status.FAIL, Status.WARN, Status.NOT_EVALUATED, Status.PASS)
    words = {Status.FAIL: "failed", Status.WARN: "with a warning", Status.PASS: "passed"}
    # The overall verdict heads the page; it is no check of its own.
    checks = [one for one in result.verdicts if one.scope != "overall"]
    found = [(status, sum(one.status is status for one in checks)) for status in order]
    return [
        (_LOOKS[status], f"{count} {words.get(status, status_word(status).lower())}")
        for status, count in found
        if count
    ]


def _notes_title(notes: Sequence[Alert]) -> str:
    checks = sum(len(alert.cases) for alert in notes if alert.look == "none")
    others = sum(alert.look == "info" for alert in notes)
    parts = [
        f"{count_noun(checks, 'check')} not evaluated" if checks else "",
        count_noun(others, "note") if others else "",
    ]
    return ", ".join(part for part in parts if part)


def _quiet(result: Result) -> str:
    passed = sum(one.status is Status.PASS for one in result.verdicts)
    if passed:
        return f"Nothing: {count_noun(passed, 'check')} passed and there are no warnings."
    return "There were no checks and no warnings." if result.measurements else ""


def states_sentence(result: Result) -> str:
    """Write how many units of work were done, skipped and failed."""
    if not result.outcomes:
        return ""
    return ", ".join(f"{result.count(state)} {state}" for state in State)


def _provenance(result: Result) -> list[tuple[str, str]]:
    source = result.provenance
    packages = ", ".join(f"{name} {version}" for name, version in source.packages.items())
    rows = [
        ("cordqa", source.version),
        ("Created", source.created),
        ("Command", source.command),
        ("Engine", source.engine),
        ("Seed", "" if source.seed is None else str(source.seed)),
        ("Packages", packages),
    ]
    return [(label, value) for label, value in rows if value]


def _flatten(config: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Write nested settings as one line each: ``fit.model`` and its value."""
    if isinstance(config, dict) or hasattr(config, "items"):
        return [
            row
            for key, value in config.items()
            for row in _flatten(value, f"{prefix}.{key}" if prefix else str(key))
        ]
    if isinstance(config, (list, tuple)):
        config = ", ".join(str(value) for value in config)
    return [(prefix, "not set" if config is None else str(config))]


def _contents(result: Result, page: dict[str, Any]) -> list[tuple[str, str]]:
    """Ids and titles of the sections that the page will have."""
    source = page["provenance"] or page["config"] or page["hashes"]
    entries = [
        ("attention", "What needs attention", page["alerts"] or page["notes"] or page["quiet"]),
        ("participants", page["pages"].title, page["pages"].entries)
        if page["pages"]
        else ("participants", "", False),
        ("data", "Data and exclusions", result.outcomes or page["design"]),
        *((section.id, section.title, True) for section in page["sections"]),
        ("methods", "Methods", result.methods),
        ("references", "References", result.references),
        ("provenance", "Provenance", source),
    ]
    return [(identifier, title) for identifier, title, there in entries if there]


def keep_options(text: str) -> Markup:
    """Escape a text and keep options such as ``--noise-sd`` from breaking between their two dashes."""
    # The text is escaped first, and what an option consists of needs no escaping.
    return Markup(_OPTION.sub(r'<span class="option">\1</span>', str(escape(text))))


def link_dois(text: str) -> Markup:
    """Escape a text and turn each DOI in it into a link; nothing else can become a link."""
    parts, end = [], 0
    for match in _DOI.finditer(text):
        doi = match.group(1).rstrip(".,;)]")
        # The text that was matched beyond the DOI (a full stop) stays text.
        stop = match.start(1) + len(doi)
        parts += [escape(text[end : match.start()]), _doi_link(doi)]
        end = stop
    return Markup("").join([*parts, escape(text[end:])])


def _doi_link(doi: str) -> Markup:
    return Markup('<a href="https://doi.org/{0}" rel="noreferrer noopener">doi:{0}</a>').format(doi)
