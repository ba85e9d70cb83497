"""The marks of a reviewer: read from YAML, and what they leave out.

A file is a list, so that the lists of several people and pages can be put behind one another::

    - image: sub-01_ses-A_T2w
      status: fail
      reason: mask leaks at C6
      slices:
      - slice: 12
        status: artefact
        reason: motion
      reviewer: NS
      date: 2025-03-01T10:20:00Z

``status`` is ``pass``, ``fail`` (what was drawn on the image is wrong) or ``artefact`` (the image
itself is spoiled); the last two leave the image out, or the slice.  Pages of participants export this
form (``reports/review.js`` writes it as :func:`format_marks` does).
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from cordqa.errors import ConfigError, InputError
from cordqa.io.bids_index import BidsFile
from cordqa.io.bids_names import split_extension
from cordqa.io.files import printable, read_small
from cordqa.records import Notice, Outcome, Severity

__all__ = [
    "LEAVES_OUT",
    "LEFT_SLICE",
    "Mark",
    "SliceMark",
    "exclusions",
    "format_marks",
    "image_name",
    "left_slices",
    "read_exclusions",
    "read_review",
    "review_notices",
    "slice_exclusions",
    "why_excluded",
]

_MAX_BYTES = 16 * 1024 * 1024
_MAX_FILES = 20_000
_SPELLINGS = {"pass": "pass", "fail": "fail", "artefact": "artefact", "artifact": "artefact"}
#: Marks that take an image, or a slice of it, out.
LEAVES_OUT = ("fail", "artefact")
#: Code of the outcome that names a slice whose values were left out.
LEFT_SLICE = "cord.excluded-slice"
_SHOWN = 8
_HEAD = "# Marks of a reviewer, for: cordqa cord ... --exclude-from FILE"
#: Allowed in JSON as they are, but not in YAML.
_NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceMark:
    """A mark on one slice, numbered from inferior as in the tables (the first is 0)."""

    status: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A mark on one image.

    Attributes
    ----------
    image : str
        Name of the image file without extension.
    status : str
        ``pass``, ``fail``, ``artefact``, or empty where only slices are marked.
    reason, reviewer : str
    date : str
        ISO 8601, as written; empty where the file does not tell.
    slices : mapping of int to SliceMark
    """

    image: str
    status: str
    reason: str = ""
    reviewer: str = ""
    date: str = ""
    slices: Mapping[int, SliceMark] = field(default_factory=dict)


def read_review(path: Path | None) -> tuple[Mark, ...]:
    """Read the marks of a file, or of all YAML files in a folder.

    Where one reviewer marked an image twice, the later mark counts (by date, then by place in the
    file).  Without the name of a reviewer every mark counts.

    Raises
    ------
    ConfigError
        If a file cannot be understood: a mark that is not read would silently keep an image.
    """
    if path is None:
        return ()
    found: list[Mark] = []
    for one in _files(path):
        found += _read(one)
    return _latest(found)


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise ConfigError("does not exist", where="exclude-from", found=printable(str(path), limit=120))
    if not path.is_dir():
        return [path]
    files = sorted(p for p in path.iterdir() if p.suffix.lower() in (".yaml", ".yml") and p.is_file())
    if not files or len(files) > _MAX_FILES:
        raise ConfigError(
            "holds no file of marks" if not files else "holds too many files",
            where=f"exclude-from: {path.name}",
            expected="files that end in .yaml",
        )
    return files


def _read(path: Path) -> list[Mark]:
    import yaml

    where = f"exclude-from: {path.name}"
    try:
        content = yaml.safe_load(read_small(path, limit=_MAX_BYTES).decode("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, InputError, RecursionError, ValueError) as error:
        raise ConfigError("cannot be read as YAML", where=where, found=str(error)[:120]) from error
    if isinstance(content, Mapping) and isinstance(content.get("review"), list):
        content = content["review"]
    if content is None:
        return []
    if not isinstance(content, list):
        raise ConfigError(
            "holds no list of reviewed images", where=where, expected="- {image: ..., status: ...}"
        )
    return [_mark(entry, f"{where}, entry {number}") for number, entry in enumerate(content, start=1)]


def _mark(entry: Any, where: str) -> Mark:
    if (
        not isinstance(entry, Mapping)
        or not isinstance(entry.get("image"), str)
        or not entry["image"].strip()
    ):
        raise ConfigError("does not name an image", where=where, expected="image, status and reason")
    slices = _slices(entry.get("slices"), where)
    # Marks on slices say nothing of the image; without them a mark must say something.
    status = "" if slices and entry.get("status") is None else _status(entry, where)
    when = entry.get("date")
    return Mark(
        image=image_name(entry["image"].strip()),
        status=status,
        reason=_text(entry.get("reason")),
        reviewer=_text(entry.get("reviewer")),
        # Unquoted dates are read as dates by YAML.
        date=when.isoformat() if isinstance(when, (date, datetime)) else _text(when),
        slices=slices,
    )


def _status(entry: Mapping[Any, Any], where: str) -> str:
    word = str(entry.get("status") or "").strip().casefold()
    if word not in _SPELLINGS:
        raise ConfigError(
            "has no status that is known",
            where=where,
            found=repr(word)[:60],
            expected="pass, fail or artefact",
        )
    return _SPELLINGS[word]


def _slices(content: Any, where: str) -> dict[int, SliceMark]:
    if content is None:
        return {}
    if not isinstance(content, list):
        raise ConfigError(
            "has marks on slices that are no list", where=where, expected="- {slice: 12, status: ...}"
        )
    found = {}
    for entry in content:
        number = entry.get("slice") if isinstance(entry, Mapping) else None
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise ConfigError(
                "marks a slice without its number",
                where=where,
                found=repr(number)[:40],
                expected="a whole number, 0 for the lowest slice",
            )
        found[number] = SliceMark(status=_status(entry, where), reason=_text(entry.get("reason")))
    return found


def _text(value: Any) -> str:
    return "" if value is None else printable(" ".join(str(value).split()), limit=200)


def _latest(marks: Sequence[Mark]) -> tuple[Mark, ...]:
    """Keep the last word of every named reviewer on every image."""
    order = sorted(range(len(marks)), key=lambda n: (marks[n].date[:19], n))
    last = {(marks[n].image, marks[n].reviewer): n for n in order if marks[n].reviewer}
    return tuple(
        mark for n, mark in enumerate(marks) if not mark.reviewer or last[mark.image, mark.reviewer] == n
    )


# -- what is left out --------------------------------------------------------------------------------


def exclusions(marks: Iterable[Mark]) -> dict[str, str]:
    """Tell which images are left out: name without extension to the reason.

    An image is left out as soon as one reviewer wants it.
    """
    reasons: dict[str, list[str]] = defaultdict(list)
    for mark in marks:
        if mark.status in LEAVES_OUT:
            reasons[mark.image].append(_words(mark.status, mark.reason, mark))
        for number, one in mark.slices.items():
            if one.status in LEAVES_OUT:
                reasons[_slice_key(mark.image, number)].append(_words(one.status, one.reason, mark))
    return {name: "; ".join(dict.fromkeys(words)) for name, words in reasons.items()}


def _words(status: str, reason: str, mark: Mark) -> str:
    who = mark.reviewer or "a reviewer"
    when = f" on {mark.date[:10]}" if mark.date else ""
    return f"marked '{status}' by {who}{when}" + (f": {reason}" if reason else "")


def _slice_key(image: str, number: int) -> str:
    # The comma cannot occur in the name of an image, so that slices never look like images.
    return f"{image}, slice {number}"


def read_exclusions(path: Path | None) -> Mapping[str, str]:
    """Read which images and slices are left out, with the reason of each.

    Raises
    ------
    ConfigError
        If the file cannot be understood.
    """
    return exclusions(read_review(path))


def why_excluded(marks: Mapping[str, str], file: BidsFile) -> str:
    """Say why an image is left out; empty where it is not."""
    return marks.get(image_name(file.name), "")


def slice_exclusions(marks: Mapping[str, str], file: BidsFile) -> dict[int, str]:
    """Tell which slices of an image are left out: number from inferior to the reason."""
    head = _slice_key(image_name(file.name), 0)[:-1]
    return {int(key[len(head) :]): why for key, why in marks.items() if key.startswith(head)}


def left_slices(outcomes: Iterable[Outcome]) -> set[str]:
    """Name the slices that a result says were left out of it, as :func:`exclusions` names them."""
    found = set()
    for one in outcomes:
        number = re.search(r"slice (\d+): values$", one.what)
        if one.code == LEFT_SLICE and number and one.sources:
            found.add(_slice_key(image_name(one.sources[0]), int(number.group(1))))
    return found


def image_name(path: str) -> str:
    """Name an image as marks do: its file name without extension."""
    return split_extension(PurePosixPath(path).name)[0]


def review_notices(
    marks: Sequence[Mark], known: Collection[str], done: Collection[str] | None = None
) -> tuple[Notice, ...]:
    """Say what was reviewed, and which marks had no effect: they would keep an image unseen.

    Parameters
    ----------
    known : collection of str
        Images that there are.
    done : collection of str, optional
        Slices that were left out of the values; None where they will be.
    """
    if not marks:
        return ()
    counts = {status: sum(mark.status == status for mark in marks) for status in ("pass", *LEAVES_OUT)}
    words = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    people = ", ".join(sorted({mark.reviewer for mark in marks if mark.reviewer})) or "not named"
    reviewed = f"a reviewer marked images: {words or 'slices only'} (reviewer: {people})"
    found = [Notice(severity=Severity.INFO, message=reviewed, where="review", code="cord.reviewed")]
    unknown = dict.fromkeys(mark.image for mark in marks if mark.image not in known)
    late = [key for key in exclusions(marks) if ", slice " in key and done is not None and key not in done]
    late = [key for key in late if key.partition(", slice ")[0] not in unknown]
    for names, message, code in (
        (list(unknown), "marks name images that are not here", "cord.mark-unknown"),
        (late, "marks on slices have no effect yet: repeat participant with them", "cord.mark-late"),
    ):
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            where = "; ".join(printable(name, limit=80) for name in names[:_SHOWN]) + more
            found.append(Notice(severity=Severity.WARNING, message=message, where=where, code=code))
    return tuple(found)


# -- writing -----------------------------------------------------------------------------------------


def format_marks(marks: Iterable[Mark]) -> str:
    """Write marks as the pages do, one entry per image."""
    lines = [_HEAD]
    for mark in marks:
        lines.append(f"- image: {_quoted(mark.image)}")
        if mark.status:
            lines.append(f"  status: {mark.status}")
        if mark.status and mark.reason:
            lines.append(f"  reason: {_quoted(mark.reason)}")
        if mark.slices:
            lines.append("  slices:")
        for number, one in sorted(mark.slices.items()):
            lines += [f"  - slice: {number}", f"    status: {one.status}"]
            if one.reason:
                lines.append(f"    reason: {_quoted(one.reason)}")
        if mark.reviewer:
            lines.append(f"  reviewer: {_quoted(mark.reviewer)}")
        if mark.date:
            lines.append(f"  date: {_quoted(mark.date)}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Write a text in double quotes: JSON's escapes are YAML's, but for what YAML does not allow."""
    return _NOT_IN_YAML.sub(
        lambda found: f"\\u{ord(found.group()):04x}", json.dumps(text, ensure_ascii=False)
    )
