"""Draft a protocol from what most scans of a dataset have in common, per vendor.

A number is the median of the largest group of values that lie within five percent of each other; its
tolerance covers what that group scatters.  A scan that deviates therefore neither moves the value nor
widens the tolerance.  Texts are the most frequent ones.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cordqa.protocol.fields import FIELDS, VENDORS, FieldKind
from cordqa.protocol.records import ObservedSeries, ObservedValue

__all__ = ["Draft", "DraftSeries", "DraftShell", "DraftValue", "draft_protocol"]

#: What a protocol sets, as far as headers tell; not what differs from scan to scan by itself.
_DRAFTED = """
MagneticFieldStrength RepetitionTime EchoTime InversionTime FlipAngle RefocusingFlipAngle MTState
MTOffsetFrequency MTFlipAngle SliceThickness SpacingBetweenSlices VoxelSizeI VoxelSizeJ VoxelSizeK
PixelBandwidth EchoTrainLength NumberOfAverages ParallelReductionFactorInPlane
MultibandAccelerationFactor PartialFourier AcquisitionMatrixPE ReconMatrixPE MRAcquisitionType
PhaseEncodingDirection NonlinearGradientCorrection
"""
#: Values within this of each other are one protocol that scanners round or fit to the anatomy.
_TOGETHER = 0.05
_LEAST_TOLERANCE, _TOLERANCE_STEP = 0.01, 0.005
#: A field that fewer of a vendor's scans record is left out.
_RECORDED = 0.5
#: A value that fewer scans share is no common value.
_MAJORITY = 0.5
#: A series that fewer sessions hold is not required.
_REQUIRED = 0.8
_NOT_SERIES = frozenset({"sub", "ses", "run", "series"})
_B_STEP = 50.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftValue:
    """One value of a draft.

    Attributes
    ----------
    value : float, str or bool
    rel_tol : float
        Of numbers; NaN for texts and flags, and where the value is zero.
    n : int
        Scans that record it.
    agreement : float
        Share of them that have this value.
    low, high : float
        Of all recorded numbers.
    others : tuple of (str, int)
        Other texts and how often they occur.
    """

    value: float | str | bool
    rel_tol: float = math.nan
    n: int = 0
    agreement: float = 1.0
    low: float = math.nan
    high: float = math.nan
    others: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftShell:
    """One shell of the most frequent gradient scheme: b in s/mm2, fewest volumes, shape."""

    b_s_mm2: float
    min_n: int
    b_delta: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftSeries:
    """One series of a draft.

    ``fields`` maps a BIDS field to values by vendor; the key ``any`` stands for all of them.
    ``varying`` holds those on which no half of the scans agrees: echo times of one scan, for example.
    """

    id: str
    title: str
    suffix: str = ""
    entities: Mapping[str, str] = field(default_factory=dict)
    protocol_name: str = ""
    n: int = 0
    n_sessions: int = 0
    required: bool = True
    duration_s: Mapping[str, float] = field(default_factory=dict)
    fields: Mapping[str, Mapping[str, DraftValue]] = field(default_factory=dict)
    varying: Mapping[str, Mapping[str, DraftValue]] = field(default_factory=dict)
    shells: tuple[DraftShell, ...] = ()
    n_schemes: int = 0
    scheme_agreement: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A draft of a protocol, and how much it rests on."""

    series: tuple[DraftSeries, ...]
    n_series: int
    n_sessions: int
    left_out: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()  # series that differ in the transfer pulse only


Key = tuple[str, tuple[tuple[str, str], ...], str]


def draft_protocol(
    observed: Sequence[ObservedSeries], *, place: Callable[[ObservedSeries], str] | None = None
) -> Draft:
    """Draft a protocol.

    Parameters
    ----------
    observed : sequence of ObservedSeries
    place : callable, optional
        Names the series of an existing protocol that an observed one is (empty: none of them), so
        that the two can be compared; by default every suffix with its entities is a series.

    Returns
    -------
    Draft
    """
    groups: dict[Key, list[ObservedSeries]] = defaultdict(list)
    left_out = []
    for one in observed:
        key = ("", (), place(one)) if place is not None else _key(one)
        if key is None or not any(key):
            left_out.append(one.file)
        elif one.parameters:
            groups[key].append(one)
    sessions = {one.session_key for one in observed}
    entities = _entity_keys(groups)
    series: list[DraftSeries] = []
    for key, members in sorted(groups.items(), key=lambda item: item[0]):
        made = _draft_series(key, members, entities, n_sessions=len(sessions))
        taken = {one.id for one in series}
        number = next(n for n in range(1, len(series) + 2) if _numbered(made.id, n) not in taken)
        series.append(replace(made, id=_numbered(made.id, number)))
    return Draft(
        series=tuple(series),
        n_series=len(observed),
        n_sessions=len(sessions),
        left_out=tuple(left_out),
        pairs=_transfer_pairs(series),
    )


def _key(one: ObservedSeries) -> Key | None:
    """What makes a series: suffix and entities in BIDS, the name given at the scanner in DICOM."""
    if one.suffix:
        entities = tuple(sorted((k, v) for k, v in one.labels.items() if k not in _NOT_SERIES))
        return one.suffix, entities, ""
    name = one.protocol_name or one.series_description
    return ("", (), name) if name else None


def _entity_keys(groups: Mapping[Key, Sequence[ObservedSeries]]) -> dict[str, set[str]]:
    """Entities that occur with each suffix; a series without one of them must say so."""
    found: dict[str, set[str]] = defaultdict(set)
    for suffix, entities, _ in groups:
        found[suffix].update(key for key, _ in entities)
    return found


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name[:60]}-{number}"


def _slug(*words: str) -> str:
    text = re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")
    return text[:64].strip("-") or "series"


def _draft_series(
    key: Key, members: Sequence[ObservedSeries], entities: Mapping[str, set[str]], *, n_sessions: int
) -> DraftSeries:
    suffix, own, name = key
    words = [suffix, *(f"{k}-{v}" for k, v in own)] if suffix else [name]
    held = {one.session_key for one in members}
    shells, n_schemes, agreement = _shells(members)
    values = {f: found for f in _DRAFTED.split() if (found := _by_vendor(f, members))}
    return DraftSeries(
        id=name if not suffix and _slug(name) == name else _slug(*words),
        title=" ".join(words),
        suffix=suffix,
        entities={k: dict(own).get(k, "") for k in sorted(entities[suffix])} if suffix else {},
        protocol_name=name,
        n=len(members),
        n_sessions=len(held),
        required=len(held) >= _REQUIRED * n_sessions,
        duration_s=_durations(members),
        fields=_those(values, lambda one: one.agreement >= _MAJORITY),
        varying=_those(values, lambda one: one.agreement < _MAJORITY),
        shells=shells,
        n_schemes=n_schemes,
        scheme_agreement=agreement,
    )


def _those(
    values: Mapping[str, Mapping[str, DraftValue]], wanted: Callable[[DraftValue], bool]
) -> dict[str, dict[str, DraftValue]]:
    chosen = {name: {k: v for k, v in by.items() if wanted(v)} for name, by in values.items()}
    return {name: by for name, by in chosen.items() if by}


# Values ----------------------------------------------------------------------------------------


def _usable(series: ObservedSeries, name: str) -> float | str | bool | None:
    """Return a value that a protocol may ask for; no number that no scanner does, as a wrong unit makes."""
    found: ObservedValue | None = series.parameters.get(name)
    if found is None or found.problem or found.value is None or isinstance(found.value, tuple):
        return None
    if isinstance(found.value, float):
        low, high = FIELDS[name].plausible
        return found.value if low <= found.value <= high else None
    return found.value or None if isinstance(found.value, str) else found.value


def _by_vendor(name: str, members: Sequence[ObservedSeries]) -> dict[str, DraftValue]:
    """Values of one field by vendor; under ``any`` where all vendors agree."""
    recorded: dict[str, list[float | str | bool]] = defaultdict(list)
    scans: Counter[str] = Counter()
    for one in members:
        vendor = one.vendor if one.vendor in VENDORS else ""
        scans[vendor] += 1
        value = _usable(one, name)
        if value is not None:
            recorded[vendor].append(value)
    enough = {v: values for v, values in recorded.items() if len(values) >= _RECORDED * scans[v]}
    if not enough:
        return {}
    pooled = _summarise(name, [value for values in enough.values() for value in values])
    single = {vendor: _summarise(name, values) for vendor, values in enough.items() if vendor}
    if len(single) == 1 and "" not in enough:
        return single  # nothing is known of other vendors
    same = all(_same(pooled, one) for one in single.values())
    return {"any": pooled} if same else single


def _same(first: DraftValue, second: DraftValue) -> bool:
    if isinstance(first.value, float) and isinstance(second.value, float):
        return math.isclose(first.value, second.value, rel_tol=_LEAST_TOLERANCE, abs_tol=1e-12)
    return first.value == second.value


def _summarise(name: str, values: Sequence[float | str | bool]) -> DraftValue:
    if FIELDS[name].kind is FieldKind.NUMBER:
        return _summarise_numbers(np.array([float(value) for value in values]))
    counts = Counter(values)
    (most, count), *others = counts.most_common()
    return DraftValue(
        value=most,
        n=len(values),
        agreement=count / len(values),
        others=tuple((str(value), number) for value, number in others[:5]),
    )


def _summarise_numbers(values: np.ndarray) -> DraftValue:
    together = _largest_group(np.sort(values))
    centre = float(np.median(together))
    spread = float(np.max(np.abs(together - centre))) / abs(centre) if centre else 0.0
    # A quarter more than was seen, in half percents: the next scan may lie a little beyond.
    tolerance = math.ceil(round(1.25 * spread / _TOLERANCE_STEP, 6)) * _TOLERANCE_STEP
    return DraftValue(
        value=float(f"{centre:.6g}"),
        rel_tol=round(max(tolerance, _LEAST_TOLERANCE), 4) if centre else math.nan,
        n=len(values),
        agreement=len(together) / len(values),
        low=float(values.min()),
        high=float(values.max()),
    )


def _largest_group(ordered: np.ndarray) -> np.ndarray:
    """Return the most values that lie within five percent of the smallest of them, shape (n,)."""
    reach = ordered + _TOGETHER * np.abs(ordered)
    ends = np.searchsorted(ordered, reach, side="right")
    start = int(np.argmax(ends - np.arange(ordered.size)))
    group: np.ndarray = ordered[start : ends[start]]
    return group


def _durations(members: Sequence[ObservedSeries]) -> dict[str, float]:
    found: dict[str, list[float]] = defaultdict(list)
    for one in members:
        value = _usable(one, "AcquisitionDuration")
        if isinstance(value, float) and value > 0 and one.vendor in VENDORS:
            found[one.vendor].append(value)
    return {vendor: round(float(np.median(values)), 1) for vendor, values in found.items()}


# Gradients -------------------------------------------------------------------------------------


def _shells(members: Sequence[ObservedSeries]) -> tuple[tuple[DraftShell, ...], int, float]:
    """Return the shells of the most frequent scheme, the number of schemes and how many are like it."""
    schemes: list[tuple[tuple[float, float, int], ...]] = []
    for one in members:
        table = None if one.gradients is None else one.gradients.table
        if table is None or not len(table):
            continue
        b = np.where(table.is_b0, 0.0, np.round(table.b_values_s_mm2 / _B_STEP) * _B_STEP)
        shape = np.where(table.is_b0, 1.0, np.round(table.b_delta, 1))
        counts = Counter(zip(b.tolist(), shape.tolist(), strict=True))
        schemes.append(tuple(sorted((bv, sh, n) for (bv, sh), n in counts.items())))
    if not schemes:
        return (), 0, math.nan
    kinds = Counter(tuple((b, shape) for b, shape, _ in scheme) for scheme in schemes)
    kind, count = kinds.most_common(1)[0]
    alike = [scheme for scheme in schemes if tuple((b, shape) for b, shape, _ in scheme) == kind]
    fewest = [Counter(scheme[i][2] for scheme in alike).most_common(1)[0][0] for i in range(len(kind))]
    shells = tuple(
        DraftShell(b_s_mm2=b, min_n=n, b_delta=shape) for (b, shape), n in zip(kind, fewest, strict=True)
    )
    return shells, len(schemes), count / len(schemes)


def _transfer_pairs(series: Sequence[DraftSeries]) -> tuple[tuple[str, str], ...]:
    """Series that differ in the transfer pulse only, by name."""
    on: dict[tuple[str, tuple[tuple[str, str], ...]], str] = {}
    off = dict(on)
    for one in series:
        # Before BIDS had an entity for it, the acquisition was called MTon and MToff.
        key = "mt" if one.entities.get("mt") else "acq"
        state = one.entities.get(key, "").lower().removeprefix("mt")
        others = one.suffix, tuple(sorted((k, v) for k, v in one.entities.items() if k != key))
        if one.suffix and state in ("on", "off"):
            (on if state == "on" else off)[others] = one.id
    return tuple((on[key], off[key]) for key in on if key in off)
