"""Tables of the page: columns of texts, with the raw values for sorting and for download."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from markupsafe import Markup

from cordqa.report.words import clean_text

__all__ = ["Cell", "Column", "Table", "embed_json"]

#: Rows written into the page; the script shows the others on demand.
ROWS_SHOWN = 200
#: A note of more characters and several parts is folded.
_LONG_NOTE = 160
#: Rows that travel with the page; beyond this a page is the wrong place for a table.
ROWS_EMBEDDED = 20_000


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    ``raw`` holds what sorting and download use (numbers, or the full text); empty means that the
    texts themselves are used.
    """

    label: str
    texts: Sequence[str]
    kind: Literal["text", "number", "plusminus", "status", "note", "count"] = "text"
    raw: Sequence[float | str] = ()
    name: str = ""  # heading in a download; empty: the label

    @property
    def is_empty(self) -> bool:
        """Tell whether no row has anything to say here."""
        return not any(self.texts)


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell as the template writes it."""

    text: str
    kind: str
    label: str

    @property
    def parts(self) -> list[str]:
        """Parts of a note that is too long to stand open in a row; empty otherwise (as in ``script.js``)."""
        parts = self.text.split("; ") if self.kind == "note" and len(self.text) > _LONG_NOTE else []
        return parts if len(parts) > 1 else []


@dataclass(frozen=True, slots=True)
class Table:
    """A table: columns of one length, a name per row, remarks above it."""

    id: str
    caption: str
    columns: Sequence[Column]
    names: Sequence[str] = ()
    remarks: Sequence[str] = ()
    file_name: str = "table.csv"
    sources: Sequence[str] = ()
    estimators: Sequence[tuple[str, str]] = ()
    folded: bool = False

    @property
    def length(self) -> int:
        """Number of rows."""
        return len(self.columns[0].texts) if self.columns else 0

    @property
    def shown(self) -> int:
        """Number of rows written into the page."""
        return min(self.length, ROWS_SHOWN)

    @property
    def embedded(self) -> int:
        """Number of rows that travel with the page."""
        return min(self.length, ROWS_EMBEDDED)

    def rows(self) -> Iterator[tuple[str, list[Cell]]]:
        """Yield name and cells of the rows written into the page."""
        for row in range(self.shown):
            name = self.names[row] if self.names else ""
            yield name, [Cell(column.texts[row], column.kind, column.label) for column in self.columns]

    def data(self) -> Markup:
        """Return the whole table as JSON that is safe inside a script element."""
        stop = self.embedded
        columns = [_column_data(column, stop) for column in self.columns]
        return embed_json({"columns": columns, "names": list(self.names[:stop]), "file": self.file_name})


def _column_data(column: Column, stop: int) -> dict[str, Any]:
    texts = list(column.texts[:stop])
    data: dict[str, Any] = {"label": column.name or column.label, "kind": column.kind, **_packed(texts)}
    if column.raw:
        data["raw"] = [_plain(value) for value in column.raw[:stop]]
    return data


def _packed(texts: list[str]) -> dict[str, Any]:
    """Store each different text once where that is shorter."""
    different = list(dict.fromkeys(texts))
    if len(different) * 3 > len(texts):
        return {"text": texts}
    place = {text: index for index, text in enumerate(different)}
    return {"words": different, "at": [place[text] for text in texts]}


def _plain(value: float | str) -> float | str | None:
    if isinstance(value, str):
        return value
    return float(f"{value:.7g}") if math.isfinite(value) else None


def embed_json(data: Any) -> Markup:
    """Write data as JSON that can neither end its script element nor break its line rules."""
    text = clean_text(json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)  # no sign that HTML gives a meaning to is left
