"""The result as text for a terminal: verdict first, no colour."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable

from cordqa.records import Result, State
from cordqa.report.attention import Alert, Case, collect_alerts
from cordqa.report.sections import states_sentence
from cordqa.report.statistic_tables import statistic_text
from cordqa.report.words import clean_text, status_word

__all__ = ["render_text"]

_WIDTH = 96
_CASES_SHOWN = 4
_ALERTS_SHOWN = 12
_STATISTICS_SHOWN = 12


def render_text(result: Result) -> str:
    """Write a result as plain text.

    Verdict and summary, what needs attention, the overall statistics, what became of the input,
    and at the end how much was done.  Nothing in it can steer a terminal.

    Parameters
    ----------
    result : Result
        What one command found.

    Returns
    -------
    str
        Lines of at most 96 characters (longer where one word is longer), with a final line break.
    """
    blocks = [_head(result), _attention(result), _statistics(result), _outcomes(result)]
    text = "\n\n".join("\n".join(block) for block in blocks if block)
    return clean_text(text) + "\n"


def _wrap(text: str, first: str = "", rest: str = "") -> list[str]:
    """Break a text into lines; line breaks inside it count as spaces, a number keeps its unit."""
    lines = textwrap.wrap(
        re.sub(r"[ \t\r\n\f\v]+", " ", text).strip(),
        width=_WIDTH,
        initial_indent=first,
        subsequent_indent=rest or " " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [re.sub("[\u00a0\u202f]", " ", line) for line in lines]


def _head(result: Result) -> list[str]:
    word = status_word(result.status).upper()
    lines = _wrap(result.title, f"{word}  ") or [word]
    lines += _wrap(result.summary)
    counts: dict[str, int] = {}
    for verdict in result.verdicts:
        if verdict.scope == "overall":
            continue
        counts[str(verdict.status)] = counts.get(str(verdict.status), 0) + 1
    if counts:
        order = ("fail", "warn", "not evaluated", "pass")
        words = ", ".join(f"{counts[status]} {status}" for status in order if status in counts)
        lines += _wrap(f"Checks: {words}")
    return lines


def _attention(result: Result) -> list[str]:
    alerts = [alert for alert in collect_alerts(result) if alert.look in ("fail", "warn")]
    if not alerts:
        return []
    lines = ["Needs attention"]
    for alert in alerts[:_ALERTS_SHOWN]:
        lines += _alert(alert)
    return lines + _more(len(alerts) - _ALERTS_SHOWN, "  ")


def _alert(alert: Alert) -> list[str]:
    head = f"{alert.title}" + (f" (limit {alert.limit})" if alert.limit else "")
    lines = _wrap(head, f"  {alert.word.upper():<8} ")
    for case in alert.cases[:_CASES_SHOWN]:
        lines += _wrap(_case(case), " " * 11, " " * 13)
    lines += _more(len(alert.cases) - _CASES_SHOWN, " " * 11)
    for words in (alert.reason, f"Source: {alert.source}" if alert.source else ""):
        lines += _wrap(words, " " * 11) if words else []
    return lines


def _case(case: Case) -> str:
    parts = [case.subject, f"limit {case.limit}" if case.limit else "", case.reason]
    head = ", ".join(part for part in parts[:1] if part)
    observed = f"{head}: {case.observed}" if head and case.observed else head or case.observed
    return "; ".join(part for part in (observed, *parts[1:]) if part)


def _more(count: int, indent: str) -> list[str]:
    return [f"{indent}and {count} more; see the report"] if count > 0 else []


def _statistics(result: Result) -> list[str]:
    """Only what holds overall; the rest is in the report."""
    overall = [one for one in result.statistics if not one.region and not one.group]
    if not overall:
        return []
    lines = ["Statistics"]
    for one in overall[:_STATISTICS_SHOWN]:
        lines += _wrap(statistic_text(one), "  ", "    ")
    return lines + _more(len(overall) - _STATISTICS_SHOWN, "  ")


def _outcomes(result: Result) -> list[str]:
    lines = []
    for state in (State.FAILED, State.SKIPPED):
        found = [one for one in result.outcomes if one.state is state]
        for one in found[:_ALERTS_SHOWN]:
            reason = f": {one.reason}" if one.reason else ""
            lines += _wrap(f"{one.what}{reason}", f"  {state.upper():<8} ")
        lines += _more(len(found) - _ALERTS_SHOWN, "  ")
    return _titled("Data", lines) + _wrap(states_sentence(result))


def _titled(title: str, lines: Iterable[str]) -> list[str]:
    lines = list(lines)
    return [title, *lines] if lines else []
