"""The way from page to page: a list of participants, or the neighbours of one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cordqa.records import Figure, Status
from cordqa.report.words import status_word

__all__ = ["PAGES", "Link", "PageList", "find_pages"]

#: Kind of the figure that holds links; it is not drawn.
PAGES = "pages"
#: Only pages beside this one: no scheme, no host, no absolute path, nothing that is not a page.
_PATH = re.compile(r"(?:\.\./){0,4}(?:[A-Za-z0-9_-][A-Za-z0-9_.-]*/){0,4}[A-Za-z0-9_-][A-Za-z0-9_.-]*\.html")
_LOOKS = {Status.PASS: "pass", Status.WARN: "warn", Status.FAIL: "fail"}


@dataclass(frozen=True, slots=True)
class Link:
    """One page."""

    name: str
    path: str
    look: str
    word: str
    text: str


@dataclass(frozen=True, slots=True)
class PageList:
    """What the template needs."""

    title: str
    caption: str
    entries: Sequence[Link]
    previous: Link | None
    following: Link | None
    index: str


def find_pages(figures: Sequence[Figure]) -> PageList | None:
    """Find the links of a result; what is no path of a page beside this one is left out."""
    figure = next((one for one in figures if one.kind == PAGES), None)
    if figure is None:
        return None
    entries = figure.data.get("entries") or []
    index = str(figure.data.get("index") or "")
    return PageList(
        title=figure.title,
        caption=figure.caption,
        entries=[link for one in entries if (link := _link(one)) is not None],
        previous=_link(figure.data.get("previous")),
        following=_link(figure.data.get("following")),
        index=index if _PATH.fullmatch(index) else "",
    )


def _link(entry: Any) -> Link | None:
    if not isinstance(entry, Mapping):
        return None
    path = str(entry.get("path") or "")
    if not _PATH.fullmatch(path):
        return None
    try:
        status = Status(str(entry.get("status")))
    except ValueError:
        status = Status.NOT_EVALUATED
    word = str(entry.get("word") or status_word(status))
    name, text = str(entry.get("name") or path), str(entry.get("text") or "")
    return Link(name=name, path=path, look=_LOOKS.get(status, "none"), word=word, text=text)
