"""Join sidecars with the DICOM series that they were made from: compare both, add what DICOM knows."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cordqa.io.sidecars import SeriesHeader
from cordqa.protocol.fields import FIELDS, FieldKind, format_number
from cordqa.protocol.records import ObservedSeries, ObservedValue, Problem
from cordqa.workflow.protocol.values import number_of, observe_value

__all__ = ["Joined", "join_dicom"]

#: Two sources that differ by more than headers round contradict each other.
_SAME = 0.02
#: BIDS times may be rounded to the millisecond in one source.
_SAME_S = 5e-4


@dataclass(frozen=True, slots=True)
class Joined:
    """Series in their order, and the sources of the DICOM records that were used."""

    series: tuple[ObservedSeries, ...]
    used: frozenset[str]


def join_dicom(
    observed: Sequence[ObservedSeries], sidecars: Sequence[SeriesHeader], dicom: Sequence[SeriesHeader]
) -> Joined:
    """Join each sidecar with its DICOM series.

    They belong together by the identifier of the series, where the sidecar keeps it; else by the
    participant, where a folder of the DICOM files is called ``sub-LABEL``, and the series number.

    Parameters
    ----------
    observed, sidecars : sequence
        One observed series for each header of a sidecar.
    dicom : sequence of SeriesHeader

    Returns
    -------
    Joined
        A value that both give and that differs is marked as a contradiction.
    """
    by_uid: dict[str, list[SeriesHeader]] = defaultdict(list)
    by_number: dict[tuple[str, int], list[SeriesHeader]] = defaultdict(list)
    for header in dicom:
        by_uid[header.series_uid].append(header)
        by_number[_subject_of(header.source), header.series_number].append(header)
    used: set[str] = set()
    joined = []
    for header, series in zip(sidecars, observed, strict=True):
        candidates = by_uid.get(header.series_uid, []) if header.series_uid else []
        if not candidates and header.series_number and header.subject:
            candidates = by_number.get((header.subject, header.series_number), [])
        partner = _same_echo(series, candidates)
        if partner is None:
            joined.append(series)
        else:
            used.add(partner.source)
            joined.append(_merge(series, partner))
    return Joined(tuple(joined), frozenset(used))


def _subject_of(path: str) -> str:
    match = re.search(r"(?:^|/)sub-([a-zA-Z0-9]+)", path)
    return match[1] if match else ""


def _same_echo(series: ObservedSeries, candidates: Sequence[SeriesHeader]) -> SeriesHeader | None:
    """Of the echoes of one DICOM series, choose that of the sidecar; the only one, even if it differs."""
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    echo = number_of(series.parameters.get("EchoTime"))
    times = [(abs(_rawnumber_of(one, "EchoTime") - echo), index) for index, one in enumerate(candidates)]
    known = [pair for pair in times if math.isfinite(pair[0])]
    return candidates[min(known)[1]] if known else candidates[0]


def _rawnumber_of(header: SeriesHeader, name: str) -> float:
    value = header.values.get(name)
    return float(value) if isinstance(value, (int, float)) else math.nan


def _merge(series: ObservedSeries, partner: SeriesHeader) -> ObservedSeries:
    parameters = dict(series.parameters)
    for name, raw in partner.values.items():
        found = observe_value(name, raw, partner)
        known = parameters.get(name)
        if known is None:
            if name in FIELDS:
                parameters[name] = found
        elif _contradict(name, known, found):
            note = f"the sidecar says {_words(known)}, the DICOM header says {_words(found)}"
            parameters[name] = replace(known, value=None, problem=Problem.CONTRADICTION, note=note)
    own = series.entities
    clash = bool(own.vendor and partner.vendor and own.vendor != partner.vendor)
    problem = f"the sidecar says {own.vendor}, the DICOM header says {partner.vendor}" if clash else ""
    entities = replace(
        own,
        acquired=own.acquired or partner.acquired,
        vendor="" if clash else own.vendor or partner.vendor,
        model="" if clash else own.model or partner.model,
        software=own.software or partner.software,
    )
    problems = "; ".join(one for one in (series.problem, problem) if one)
    return replace(series, parameters=parameters, entities=entities, problem=problems)


def _contradict(name: str, first: ObservedValue, second: ObservedValue) -> bool:
    """Tell whether two usable numbers or flags differ by more than rounding."""
    spec = FIELDS.get(name)
    if spec is None or first.problem or second.problem:
        return False
    if spec.kind is FieldKind.FLAG:
        return first.value != second.value
    if spec.kind is not FieldKind.NUMBER:
        return False
    a, b = number_of(first), number_of(second)
    if not (math.isfinite(a) and math.isfinite(b)):
        return False
    # Rounding to the millisecond is no contradiction for times of a tenth of a second and more.
    rounding = _SAME_S if spec.unit == "s" and min(abs(a), abs(b)) > 0.1 else 0.0
    return abs(a - b) > max(_SAME * max(abs(a), abs(b)), rounding)


def _words(found: ObservedValue) -> str:
    value = found.value
    if isinstance(value, float):
        return f"{format_number(value)} {found.unit}".strip()
    return str(value)
