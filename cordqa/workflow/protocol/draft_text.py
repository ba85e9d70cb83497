"""Write the draft of a protocol as YAML that a person goes on editing: every number with its evidence."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import date

from cordqa.protocol.fields import find_field
from cordqa.workflow.protocol.infer import Draft, DraftSeries, DraftShell, DraftValue

__all__ = ["write_draft"]

_ALL = 1.0


def write_draft(draft: Draft, *, name: str = "draft", source: str = "a dataset") -> str:
    """Write a draft as a protocol file.

    Parameters
    ----------
    draft : Draft
    name : str
        Id of the protocol.
    source : str
        What it was drafted from, for people.

    Returns
    -------
    str
        YAML with comments: number of scans, share that agrees, range of the others.
    """
    lines = [
        "# Draft of an acquisition protocol: what most scans have in common. Read every line before use:",
        "# what most scans have in common is not always what was meant.",
        "schema: 1",
        f"id: {name}",
        f"title: {_quoted(f'Most common values of {source}')}",
        f"version: {_quoted(date.today().isoformat())}",
        "rationale: "
        + _quoted(
            f"Drafted from {draft.n_series} series of {draft.n_sessions} sessions of {source}; "
            "it describes what was done, not what should be done."
        ),
        "sources:",
        "  - id: observed",
        f"    text: {_quoted(f'Most common values of {source}')}",
        "    licence: 'not applicable'",
        "default_source: observed",
        "series:",
        *(line for one in draft.series for line in _series(one, draft.n_sessions)),
        *_constraints(draft),
    ]
    if draft.left_out:
        lines.append(f"# {len(draft.left_out)} series without a name were left out.")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    # JSON strings are YAML strings, whatever stands in a header.
    return json.dumps(text, ensure_ascii=True)


def _series(one: DraftSeries, n_sessions: int) -> Iterator[str]:
    yield f"  - id: {one.id}  # {one.n} scans in {one.n_sessions} of {n_sessions} sessions"
    yield f"    title: {_quoted(one.title)}"
    yield "    match:"
    if one.suffix:
        yield f"      - suffix: [{_quoted(one.suffix)}]"
        if one.entities:
            inner = ", ".join(f"{key}: [{_quoted(value)}]" for key, value in one.entities.items())
            yield f"        entities: {{{inner}}}"
    else:
        yield f"      - protocol_name: [{_quoted(one.protocol_name)}]"
    yield f"    required: {'true' if one.required else 'false'}"
    if one.duration_s:
        yield f"    duration_s: {{{', '.join(f'{_quoted(v)}: {t:g}' for v, t in one.duration_s.items())}}}"
    if one.fields:
        yield "    params:"
        for name, values in one.fields.items():
            yield from _parameter(name, values)
    for name, values in one.varying.items():
        for vendor, found in values.items():
            yield f"      # {name}, {vendor}: left out, it varies ({_evidence(found)})"
    if one.shells:
        yield from _gradients(one.shells, one.n_schemes, one.scheme_agreement)


def _parameter(name: str, values: Mapping[str, DraftValue]) -> Iterator[str]:
    spec = find_field(name)
    unit = f"  # {spec.unit}" if spec is not None and spec.unit else ""
    yield f"      {name}:{unit}"
    yield "        by:"
    for vendor, found in values.items():
        yield f"          {_key(vendor)}: {_value(found)}  # {_evidence(found)}"


def _key(vendor: str) -> str:
    return vendor if vendor.isalpha() else _quoted(vendor)


def _value(found: DraftValue) -> str:
    if isinstance(found.value, bool):
        return "true" if found.value else "false"
    if isinstance(found.value, str):
        return _quoted(found.value)
    tolerance = "abs_tol: 0.0" if math.isnan(found.rel_tol) else f"rel_tol: {found.rel_tol:g}"
    return f"{{value: {_float(found.value)}, {tolerance}}}"


def _float(value: float) -> str:
    # YAML 1.1 reads 1e-05 as a text: a point must stand in it.
    text = f"{value:.6g}"
    if "e" in text and "." not in text:
        text = text.replace("e", ".0e")
    return text


def _evidence(found: DraftValue) -> str:
    words = [f"n {found.n}", f"{100 * found.agreement:.0f} % agree"]
    if found.agreement < _ALL:
        if math.isfinite(found.low):
            words.append(f"all from {found.low:.6g} to {found.high:.6g}")
        if found.others:
            # A comment ends with its line: header texts are written without their line breaks.
            words.append("others " + ", ".join(f"{_quoted(text)} ({n})" for text, n in found.others))
    return ", ".join(words)


def _gradients(shells: Iterable[DraftShell], n: int, agreement: float) -> Iterator[str]:
    yield f"    gradients:  # n {n}, {100 * agreement:.0f} % have these shells"
    yield "      shells:"
    for shell in shells:
        shape = "" if shell.b_delta == 1 else f", b_delta: {shell.b_delta:g}"
        yield f"        - {{b: {shell.b_s_mm2:g}, min_n: {shell.min_n}{shape}}}"


def _constraints(draft: Draft) -> Iterator[str]:
    if draft.pairs:
        yield "constraints:"
    for on, off in draft.pairs:
        yield f"  - id: {f'pair-{on}'[:64]}"
        yield "    kind: equal"
        yield f"    series: [{on}, {off}]"
        yield "    fields: [RepetitionTime, EchoTime, FlipAngle]"
        yield "    rel_tol: 0.01"
        yield "    why: 'images with and without the transfer pulse must differ in the pulse only'"
