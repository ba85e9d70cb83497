"""Names for people: scanners, sessions, runs and image sets, made from header facts."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from cordqa.io.frames import Scanner
from cordqa.io.grouping import SetPlan
from cordqa.records import Entities

__all__ = ["Names", "name_sets"]

_SYMBOLS = {"ti": "TI", "te": "TE", "fa": "flip angle", "tr": "TR", "b": "b"}
_UNITS = {"ti": "ms", "te": "ms", "fa": "°", "tr": "ms", "b": "s/mm²"}
_MOST_B_VALUES = 6
_KINDS = {"ti": "inversion recovery", "fa": "variable flip angle", "tr": "variable TR", "b": "diffusion"}


@dataclass(frozen=True, slots=True)
class Names:
    """Entities and label of one image set."""

    entities: Entities
    label: str


def name_sets(plans: Sequence[SetPlan]) -> list[Names]:
    """Name image sets.

    Scanners of one model get a short suffix made from a hash of their serial number, stable
    from folder to folder.  Sessions are studies, named by date.  Runs are numbered within
    scanner, session and protocol in the order of acquisition.
    """
    scanners = _scanner_labels({plan.first.scanner for plan in plans})
    sessions = _session_labels(plans)
    protocols = [_protocol(plan) for plan in plans]
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for index, plan in enumerate(plans):
        session = sessions[_study(plan)]
        groups[plan.first.scanner, plan.first.subject, session, plan.first.part, protocols[index]].append(
            index
        )
    runs = {i: run for members in groups.values() for i, run in _run_labels(plans, members).items()}
    visits = Counter(study.scanner for study in sessions)
    result = []
    for index, plan in enumerate(plans):
        entities = _entities(plan, scanners, sessions[_study(plan)], runs[index], protocols[index])
        label = f"{entities.scanner}: {_kind(plan)}, {_values(plan)}{_encoding_words(plan)}"
        if visits[plan.first.scanner] > 1:
            label += f", session {entities.session}"
        if entities.run != "1":
            label += f", run {entities.run}"
        result.append(Names(entities, label))
    return result


def _entities(plan: SetPlan, scanners: dict[Scanner, str], session: str, run: str, protocol: str) -> Entities:
    first = plan.first
    acquired = [f.acquired for image in plan.stack.images for f in image if f.acquired]
    return Entities(
        subject=first.subject,
        session=session,
        run=run,
        acquisition=protocol,
        vendor=first.scanner.vendor,
        model=first.scanner.model,
        software=first.software,
        scanner=scanners[first.scanner],
        field_strength_T=first.acquisition.field_strength_T,
        acquired=min(acquired, default=""),
    )


def _scanner_labels(scanners: set[Scanner]) -> dict[Scanner, str]:
    labels: dict[Scanner, str] = {}
    alike: dict[str, list[Scanner]] = defaultdict(list)
    for scanner in scanners:
        words = [scanner.vendor, scanner.model]
        if scanner.field_strength_T:
            words.append(f"{scanner.field_strength_T:g} T")
        alike[" ".join(word for word in words if word) or "unknown scanner"].append(scanner)
    for label, members in alike.items():
        for scanner in members:
            labels[scanner] = label if len(members) == 1 else f"{label} ({_suffix(scanner)})"
    return labels


def _suffix(scanner: Scanner) -> str:
    if not scanner.device:
        return "no serial number"
    return hashlib.sha256(scanner.device.encode("utf-8", "replace")).hexdigest()[:4]


class _Study(NamedTuple):
    scanner: Scanner
    patient: str
    uid: str
    session: str


def _study(plan: SetPlan) -> _Study:
    first = plan.first
    return _Study(first.scanner, first.patient_key, first.study_uid, first.session)


def _session_labels(plans: Sequence[SetPlan]) -> dict[_Study, str]:
    """Name each study by its date; several on one date by one scanner are numbered."""
    dates: dict[_Study, list[str]] = defaultdict(list)
    for plan in plans:
        dates[_study(plan)].append(plan.first.study_date or plan.first.acquired[:10].replace("-", ""))
    labels: dict[_Study, str] = {}
    used: Counter[Hashable] = Counter()
    for study, known in dates.items():  # in the order of time, as the plans are
        name = study.session or min(known)
        used[study.scanner, name] += 1
        number = used[study.scanner, name]
        labels[study] = (name or "1") if number == 1 else f"{name}-{number}" if name else str(number)
    return labels


def _run_labels(plans: Sequence[SetPlan], members: Sequence[int]) -> dict[int, str]:
    named = [plans[i].first.run for i in members]
    if all(named) and len(set(named)) == len(named):
        return dict(zip(members, named, strict=True))
    return {index: str(number) for number, index in enumerate(members, start=1)}


def _kind(plan: SetPlan) -> str:
    sequence = plan.first.acquisition.sequence
    if plan.first.acquisition.map_quantity:
        return f"{plan.first.acquisition.map_quantity} map"
    if plan.axis == "te":
        return f"{'multi-echo ' if plan.multi_echo else ''}{sequence or 'echo times'}"
    return _KINDS.get(plan.axis, sequence or "image")


def _axis_values(plan: SetPlan, axis: str) -> list[float]:
    values = []
    for image in plan.stack.images:
        a = image[0].acquisition
        values.append(
            {
                "ti": 1e3 * a.inversion_time_s,
                "te": 1e3 * a.echo_time_s,
                "fa": a.flip_angle_deg,
                "tr": 1e3 * a.repetition_time_s,
                "b": a.b_value_s_per_mm2,
            }[axis]
        )
    return sorted(v for v in values if math.isfinite(v))


def _text(axis: str, *values: float) -> str:
    return f"{' to '.join(f'{v:.4g}' for v in values)} {_UNITS[axis]}".replace(" °", "°")


def _values(plan: SetPlan) -> str:
    """Return what varies, for a label: ``6 TI 50 to 800 ms``."""
    if not plan.axis:
        axis = {"inversion recovery": "ti", "gradient echo": "fa"}.get(plan.first.acquisition.sequence, "te")
        values = _axis_values(plan, axis)
        return f"{_SYMBOLS[axis]} {_text(axis, values[0])}" if values else f"{_SYMBOLS[axis]} unknown"
    values = _axis_values(plan, plan.axis)
    symbol = _SYMBOLS[plan.axis] + ("s" if plan.axis == "fa" else "")
    return f"{len(set(values))} {symbol} {_text(plan.axis, values[0], values[-1])}"


def _protocol(plan: SetPlan) -> str:
    """Describe the protocol by what is fixed in it, so that repeats have one name."""
    words = [_kind(plan)]
    for axis in {"ti": ("te",), "te": ("tr",), "fa": ("tr", "te"), "b": ("te",)}.get(plan.axis, ("te", "tr")):
        values = _axis_values(plan, axis)
        if values:
            words.append(f"{_SYMBOLS[axis]} {_text(axis, values[0])}")
    if plan.axis == "te":
        times = sorted(set(_axis_values(plan, "te")))
        words.append(f"TE steps of {_text('te', min(b - a for a, b in pairwise(times)))}")
    if plan.axis == "b":
        words.append(_diffusion_words(plan))
    return ", ".join([*words, *([plan.first.processing] if plan.first.processing else [])])


def _diffusion_words(plan: SetPlan) -> str:
    """Name the b-values, and whether single directions or averages over them were stored."""
    values = sorted({round(v) for v in _axis_values(plan, "b")})
    shown = values if len(values) <= _MOST_B_VALUES else [values[0], "...", values[-1]]
    return f"b {' '.join(map(str, shown))} {_UNITS['b']}{_encoding_words(plan)}"


def _encoding_words(plan: SetPlan) -> str:
    """Return ``, 3 directions`` or ``, trace``; empty for what is no diffusion series."""
    if plan.axis != "b":
        return ""
    weighted = [i[0] for i in plan.stack.images if i[0].acquisition.b_value_s_per_mm2 > 0]
    directions = {frame.direction for frame in weighted if frame.direction}
    encodings = {frame.acquisition.diffusion_encoding for frame in weighted}
    kinds = [f"{len(directions)} direction{'s' if len(directions) > 1 else ''}"] if directions else []
    kinds += ["trace"] if "trace" in encodings else []
    kinds += ["directions not named"] if "" in encodings else []
    return f", {' and '.join(kinds)}" if kinds else ""
