"""The report as one HTML file that opens without a network."""

from __future__ import annotations

import base64
import hashlib
from functools import cache

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from cordqa.records import Result
from cordqa.report.sections import build_page, keep_options, link_dois, status_look
from cordqa.report.words import clean_text, status_word
from cordqa.resources import resource_path

__all__ = ["render_report"]


@cache
def _read(name: str) -> str:
    return resource_path("reports", name).read_text(encoding="utf-8")


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "dois": link_dois,
        "options": keep_options,
        "look": status_look,
        "word": status_word,
    }
    return environment.from_string(_read("report.html.j2"))


def _hash_source(text: str) -> str:
    """Return a hash as a content security policy names it: no other script or style may apply."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def render_report(result: Result) -> str:
    """Write a result as a complete HTML page.

    The page holds its style, script, figures and tables; it fetches nothing, and its content
    security policy forbids that it ever does.  Every text is escaped, whatever header or table it
    came from.  The same result gives the same page.

    Parameters
    ----------
    result : Result
        What one command found.  It may hold nothing but errors.

    Returns
    -------
    str
        HTML, to be written as UTF-8.

    Notes
    -----
    A figure that cannot be drawn from its data is replaced by a sentence that says why.
    """
    page = build_page(result)
    style, script = _read("style.css"), _read("script.js")
    if page.has_review:
        script += "\n" + _read("review.js")
    html = _template().render(
        page=page,
        style=Markup(style),  # our own file, not input
        style_hash=_hash_source(style),
        script=Markup(script),  # our own file, not input
        script_hash=_hash_source(script),
    )
    return clean_text(html)
