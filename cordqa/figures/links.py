"""Links between the pages of a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cordqa.figures._make import filled, make_figure
from cordqa.records import Figure, Status

__all__ = ["PageLink", "pages"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PageLink:
    """One page: what it is about, where it lies, and what was found.

    Attributes
    ----------
    name : str
        As it stands behind the points of figures, so that a point leads to its page.
    path : str
        From the folder of the page that shows the link, with forward slashes.
    status : Status
    word : str
        What stands for the status; its usual word where empty.
    text : str
        One line: what was found, or why nothing was.
    """

    name: str
    path: str
    status: Status = Status.NOT_EVALUATED
    word: str = ""
    text: str = ""


def pages(
    title: str,
    entries: Sequence[PageLink],
    *,
    index: str = "",
    previous: PageLink | None = None,
    following: PageLink | None = None,
    caption: str = "",
) -> Figure:
    """Link the pages of a study: a list of all of them, or the way to the neighbours of one.

    It is no picture: the report places it where a reader looks for the way.

    Parameters
    ----------
    entries : sequence of PageLink
        Listed with status and text; empty on a page that only leads on.
    index : str
        Path of the page that lists all.

    Notes
    -----
    ``data``: ``entries``, ``previous``, ``following`` (each ``name``, ``path``, ``status``, ``word``,
    ``text``)
    and ``index``.
    """
    data = {
        "entries": [_entry(one) for one in entries],
        "previous": _entry(previous) if previous else None,
        "following": _entry(following) if following else None,
        "index": index,
    }
    return make_figure("pages", "pages", title, data, caption=caption, alt=title)


def _entry(link: PageLink) -> dict[str, object]:
    words = {"word": link.word, "text": link.text}
    return filled({"name": link.name, "path": link.path, "status": str(link.status), **words})
