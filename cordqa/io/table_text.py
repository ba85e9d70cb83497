"""From the bytes of a file to the text of a table."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from cordqa.errors import CordqaError, TableError, TooLargeError, UnreadableFileError
from cordqa.io.files import open_regular
from cordqa.records import Notice, Severity

__all__ = ["Reading", "TableLimits", "decode_table", "read_bytes", "take_separator_line"]

_SEPARATOR_LINE = re.compile(r'^"?sep=(.)"?\r?$')
#: First bytes of files that people take for tables.
_OTHER_FORMATS = (
    (b"PK\x03\x04", "a spreadsheet or a zip archive"),
    (b"\xd0\xcf\x11\xe0", "an old spreadsheet"),
    (b"\x1f\x8b", "compressed (gzip)"),
    (b"%PDF", "a PDF file"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableLimits:
    """Bounds on a table; each is checked before more memory is asked for."""

    max_bytes: int = 256 * 1024 * 1024
    max_rows: int = 2_000_000
    max_columns: int = 2_000
    max_cell_characters: int = 10_000


@dataclass(slots=True)
class Reading:
    """What accumulates while one table is read."""

    name: str
    limits: TableLimits
    notices: list[Notice] = field(default_factory=list)

    def note(self, code: str, message: str, severity: Severity = Severity.INFO) -> None:
        """Keep a remark."""
        self.notices.append(Notice(severity=severity, message=message, where=self.name, code=code))

    def error(
        self, what: str, *, line: int = 0, found: str = "", expected: str = "", todo: str = ""
    ) -> TableError:
        """Make an error that names the file and, where known, the line."""
        where = f"{self.name}, line {line}" if line else self.name
        return TableError(what, where=where, found=found, expected=expected, todo=todo)


def read_bytes(path: Path, reading: Reading) -> bytes:
    """Read a regular file of bounded size; errors carry its name without the folder."""
    limit = reading.limits.max_bytes
    try:
        file, size = open_regular(path)
        with file:
            if size > limit:
                raise TooLargeError(
                    "the table is too large", found=f"{size} bytes", expected=f"at most {limit}"
                )
            return file.read(limit)
    except CordqaError as error:
        # The name is said once, here; what lies below knows only the bytes.
        raise type(error)(
            error.what, where=reading.name, found=error.found, expected=error.expected, todo=error.todo
        ) from error
    except OSError as error:
        raise UnreadableFileError(f"cannot be read: {error.strerror}", where=reading.name) from error


def decode_table(content: bytes, reading: Reading) -> tuple[str, str]:
    """Return the text of a file and its encoding, or say what the file is instead."""
    for magic, what in _OTHER_FORMATS:
        if content.startswith(magic):
            raise reading.error(f"is {what}, not a table of text", todo="export it as CSV and give that file")
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        try:
            return content.decode("utf-16"), "utf-16"
        except UnicodeDecodeError as error:
            raise reading.error("begins like UTF-16 text but is not", todo="save it as UTF-8") from error
    if b"\0" in content:
        line = content.count(b"\n", 0, content.index(b"\0")) + 1
        raise reading.error("is not text: it holds zero bytes", line=line, todo="export the table as CSV")
    try:
        encoding = "utf-8-sig" if content.startswith(b"\xef\xbb\xbf") else "utf-8"
        return content.decode("utf-8-sig"), encoding
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        text = content.decode("latin-1")
        strange = sum(not (c.isprintable() or c in "\t\r\n") for c in text[:65536])
        if strange > 0.02 * min(len(text), 65536):
            raise reading.error("is not text", todo="export the table as CSV") from error
        reading.note(
            "table.encoding", f"line {line} is not UTF-8, so the file was read as Latin-1; check accents"
        )
        return text, "latin-1"


def take_separator_line(text: str) -> tuple[str, str]:
    """Take off the line ``sep=;`` by which spreadsheets name their delimiter."""
    first, _, rest = text.partition("\n")
    match = _SEPARATOR_LINE.match(first)
    return (rest, match.group(1)) if match else (text, "")
