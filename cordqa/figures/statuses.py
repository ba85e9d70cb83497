"""Who was scanned as asked: statuses by participant and parameter, told apart without colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cordqa.errors import InputError
from cordqa.figures._make import filled, make_figure, texts
from cordqa.records import Figure

__all__ = ["CoverageRow", "StatusKey", "StatusRow", "coverage_bars", "status_map"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusKey:
    """One status: a character in the data, the sign in the cell, words for the legend, and its look.

    ``look`` is ``pass``, ``warn``, ``fail``, ``none`` (hatched), ``open`` (outlined) or ``blank``.
    """

    code: str
    label: str
    look: str
    sign: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusRow:
    """One parameter: the statuses of all columns, one character each, and what is said of some cells."""

    label: str
    group: str
    codes: str
    details: Mapping[int, str]  # column to words


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageRow:
    """What was asked of one group: how much passed, deviated, and could not be judged."""

    label: str
    group: str
    n_pass: int
    n_deviating: int
    n_unknown: int


def coverage_bars(
    name: str,
    title: str,
    *,
    rows: Sequence[CoverageRow],
    caption: str = "",
    alt: str = "",
) -> Figure:
    """Show compliance beside coverage: one bar per group, of what passed, deviated, nobody knows.

    Parameters
    ----------
    rows : sequence of CoverageRow
        Rows of one ``group`` (series, site, vendor) stand together under its name.

    Notes
    -----
    Kind ``coverage``; ``data``: ``rows``, a list of ``label``, ``group``, ``n_pass``,
    ``n_deviating``, ``n_unknown``.
    """
    data = {
        "rows": [
            {
                "label": row.label,
                "group": row.group,
                "n_pass": row.n_pass,
                "n_deviating": row.n_deviating,
                "n_unknown": row.n_unknown,
            }
            for row in rows
        ]
    }
    return make_figure(
        name,
        "coverage",
        title,
        data,
        caption=caption
        or "Compliance is the share of passes among what could be judged; coverage the share of what "
        "could be judged among what the protocol asks. What is not recorded is hatched: it is no pass.",
        alt=alt or f"{title}: passes, deviations and what could not be judged in {len(rows)} groups",
    )


def status_map(
    name: str,
    title: str,
    *,
    columns: Sequence[str],
    rows: Sequence[StatusRow],
    keys: Sequence[StatusKey],
    note: str = "",
    caption: str = "",
    alt: str = "",
) -> Figure:
    """Show statuses as a grid: participants side by side, parameters below each other.

    Parameters
    ----------
    columns : sequence of str
        Participants, those to look at first.
    rows : sequence of StatusRow
        Rows of one ``group`` (a series) stand together under its name.
    keys : sequence of StatusKey
        Every status that occurs; their order is that of the legend.
    note : str
        For example how many participants are not drawn one by one.

    Raises
    ------
    InputError
        If a row has another number of statuses than there are columns, or one that no key explains.

    Notes
    -----
    Drawn as ``heatmap`` with ``scale`` = ``"status"``.  ``data``: ``columns``, ``rows`` (list of
    ``label``, ``group``, ``codes``, ``details``), ``keys`` and ``note``.
    """
    known = {key.code for key in keys}
    for row in rows:
        if len(row.codes) != len(columns) or not set(row.codes) <= known:
            raise InputError(
                "the statuses of a row do not match the columns and the legend",
                where=f"{name}, {row.group} {row.label}",
                found=f"{len(row.codes)} statuses ({''.join(sorted(set(row.codes)))})",
                expected=f"{len(columns)} of {''.join(sorted(known))}",
            )
    data = {
        "columns": texts(columns),
        "rows": [_row(row) for row in rows],
        "keys": [
            filled({"code": k.code, "label": k.label, "look": k.look, "sign": k.sign})
            for k in keys
            if any(k.code in row.codes for row in rows)
        ],
        "note": note,
        "scale": "status",
    }
    return make_figure(
        name,
        "heatmap",
        title,
        data,
        caption=caption or "Each column is a participant, those with most deviations first.",
        alt=alt or f"{title}: {len(rows)} parameters of {len(columns)} participants",
    )


def _row(row: StatusRow) -> dict[str, object]:
    details = {str(column): text for column, text in row.details.items()}
    return {"label": row.label, "group": row.group, "codes": row.codes, **filled({"details": details})}
