"""Sort frames into sets of images that can enter one fit, by what their headers say.

Frames of one set come from one scanner, patient and study, lie on one grid, show the same part
of the signal, and were made by the same kind of sequence.  Among those, a set is what varies
along one parameter: inversion time (the repetition time may follow it), echo time, flip angle,
repetition time or b-value.  No file, folder or series name is used.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from cordqa.io.frames import Frame
from cordqa.io.stacking import Stack, split_runs, stack_slices

__all__ = [
    "Parameters",
    "SetPlan",
    "drop_copies",
    "drop_surveys",
    "drop_time_series",
    "group_frames",
    "snap",
]

_T = TypeVar("_T")
#: A quantitative measurement is not repeated more often than this within one series.
_MOST_REPETITIONS = 10
_SURVEY_ANGLE_COSINE = math.cos(math.radians(10.0))
#: Directions and spacings that differ less are those of one grid (0.1 degree).
_DIRECTION_TOLERANCE = 2e-3
_SPACING_TOLERANCE = 1e-3
_IN_PLANE_TOLERANCE = 0.1  # pixels
_THROUGH_PLANE_TOLERANCE = 0.1  # slice thicknesses


class Parameters(NamedTuple):
    """What may vary within a set; values equal within tolerance are made equal, NaN is None."""

    ti: float | None
    te: float | None
    fa: float | None
    tr: float | None
    b: float | None
    direction: tuple[float, ...]
    encoding: str = ""
    repeat: int = 0  # of an image within its diffusion series, where averages are stored apart


@dataclass(frozen=True, slots=True)
class SetPlan:
    """Frames of one image set.

    Attributes
    ----------
    axis : str
        The parameter that varies: ``ti``, ``te``, ``fa``, ``tr``, ``b``; empty for one image.
    multi_echo : bool
        Whether the echoes come from one excitation.
    stack : Stack
        Frames by image and slice, and those that were left out.
    """

    axis: str
    multi_echo: bool
    stack: Stack

    @property
    def first(self) -> Frame:
        """Frame of the first image and slice."""
        return self.stack.images[0][0]


def _by(items: Iterable[_T], key: Callable[[_T], Hashable]) -> dict[Hashable, list[_T]]:
    groups: dict[Hashable, list[_T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(groups)


def drop_copies(frames: Sequence[Frame]) -> tuple[list[Frame], int]:
    """Keep one of several copies of the same DICOM instance; return the rest's number."""
    seen: set[Hashable] = set()
    kept = []
    for frame in frames:
        # Some anonymisers give all files one identifier, so what the image shows must agree too.
        key = (
            *(frame.instance_uid, frame.index, frame.series_uid, frame.instance_number, frame.position),
            *_raw_parameters(frame),
            *(frame.part, frame.acquired, frame.acquisition_number, frame.rows, frame.columns),
        )
        if frame.instance_uid and key in seen:
            continue
        seen.add(key)
        kept.append(frame)
    return kept, len(frames) - len(kept)


def drop_surveys(frames: Sequence[Frame]) -> tuple[list[Frame], int]:
    """Leave out series whose slices lie in several orientations: surveys of the position."""
    kept: list[Frame] = []
    for group in _series(frames):
        normal = _normal(group[0])
        if all(abs(_dot(normal, _normal(f))) > _SURVEY_ANGLE_COSINE for f in group):
            kept.extend(group)
    return kept, len(frames) - len(kept)


def drop_time_series(frames: Sequence[Frame]) -> tuple[list[Frame], int]:
    """Leave out series that repeat one image many times (functional or dynamic scans)."""
    kept: list[Frame] = []
    for group in _series(frames):
        constant = len({_raw_parameters(f) for f in group}) == 1
        places = Counter((f.position, f.orientation, f.part, f.direction) for f in group)
        if not (constant and max(places.values()) > _MOST_REPETITIONS):
            kept.extend(group)
    return kept, len(frames) - len(kept)


def _series(frames: Sequence[Frame]) -> Iterable[list[Frame]]:
    return _by(frames, lambda f: (f.study_uid, f.series_uid) if f.series_uid else id(f)).values()


def _raw_parameters(frame: Frame) -> tuple[str, ...]:
    a = frame.acquisition
    values = (a.inversion_time_s, a.echo_time_s, a.repetition_time_s, a.flip_angle_deg, a.b_value_s_per_mm2)
    return (*map(str, values), a.diffusion_encoding)  # as text, so that NaN equals NaN


def _normal(frame: Frame) -> tuple[float, float, float]:
    a, b, c, d, e, f = frame.orientation
    return b * f - c * e, c * d - a * f, a * e - b * d


def _dot(first: Sequence[float], second: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(first, second, strict=True))


def group_frames(frames: Sequence[Frame]) -> list[SetPlan]:
    """Sort frames into sets.

    Parameters
    ----------
    frames : sequence of Frame
        Frames of one folder, in any order.

    Returns
    -------
    list of SetPlan
        Ordered by time of acquisition.  Every frame is in exactly one plan, either among its
        images or among those its stack left out.
    """
    plans: list[SetPlan] = []
    ordered = sorted(frames, key=_order)
    for alike in _by(ordered, _same_kind).values():
        for grid in _same_grid(alike):
            plans.extend(_plans_on_grid(grid))
    return sorted(plans, key=lambda plan: (_order(plan.first), str(plan.first.part)))


def _order(frame: Frame) -> tuple[str, int, int, int, str, int]:
    return (
        *(frame.acquired, frame.series_number, frame.acquisition_number, frame.instance_number),
        *(frame.file.source, frame.index),
    )


def _same_kind(frame: Frame) -> Hashable:
    return (
        *(frame.scanner, frame.patient_key, frame.study_uid, frame.session, frame.run, frame.part),
        *(frame.family, frame.processing, frame.rows, frame.columns, frame.acquisition.echo_train_length),
    )


def _same_grid(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Split frames by grid: same directions, spacing, slice thickness and in-plane origin."""
    grids: list[list[Frame]] = []
    known: dict[Hashable, int] = {}
    for frame in frames:
        thickness = frame.acquisition.slice_thickness_mm
        exact = (frame.position, frame.orientation, frame.spacing, str(thickness))
        if exact not in known:
            match = next((i for i, grid in enumerate(grids) if _on_grid(frame, grid[0])), len(grids))
            known[exact] = match
            if match == len(grids):
                grids.append([])
        grids[known[exact]].append(frame)
    return grids


def _on_grid(frame: Frame, reference: Frame) -> bool:
    pairs = zip(frame.orientation, reference.orientation, strict=True)
    if any(abs(a - b) > _DIRECTION_TOLERANCE for a, b in pairs):
        return False
    sizes = (*frame.spacing, frame.acquisition.slice_thickness_mm)
    reference_sizes = (*reference.spacing, reference.acquisition.slice_thickness_mm)
    for a, b in zip(sizes, reference_sizes, strict=True):
        if not (abs(a - b) <= _SPACING_TOLERANCE * b or (math.isnan(a) and math.isnan(b))):
            return False
    offset = [a - b for a, b in zip(frame.position, reference.position, strict=True)]
    along_row = abs(_dot(offset, reference.orientation[:3])) / reference.spacing[1]
    along_column = abs(_dot(offset, reference.orientation[3:])) / reference.spacing[0]
    return max(along_row, along_column) <= _IN_PLANE_TOLERANCE


def _plans_on_grid(frames: list[Frame]) -> list[SetPlan]:
    parameters = _parameters(frames)
    places = _places(frames)
    plans = []
    for axis, group in _partition(frames, parameters):
        for run in split_runs(group, key=lambda f: parameters[id(f)], place=lambda f: places[id(f)]):
            echoes = Counter((f.series_uid, parameters[id(f)].te) for f in run)
            multi_echo = axis == "te" and max(Counter(s for s, _ in echoes).values()) > 1
            stacks = stack_slices(run, key=lambda f: parameters[id(f)], place=lambda f: places[id(f)])
            plans += [SetPlan(axis if len(s.images) > 1 else "", multi_echo, s) for s in stacks]
    return plans


def _places(frames: Sequence[Frame]) -> dict[int, float]:
    """Return each frame's position along the normal, equal for frames of one slice."""
    normal = _normal(frames[0])
    along = {id(f): _dot(f.position, normal) for f in frames}
    thickness = frames[0].acquisition.slice_thickness_mm
    tolerance = _THROUGH_PLANE_TOLERANCE * (thickness if math.isfinite(thickness) else 1.0)
    same = snap(along.values(), absolute=tolerance, relative=0.0)
    return {key: same[value] for key, value in along.items()}


def snap(values: Iterable[float], *, absolute: float, relative: float) -> dict[float, float]:
    """Map values to the smallest one of those that agree within tolerance."""
    result: dict[float, float] = {}
    start: float | None = None
    for value in sorted({v for v in values if math.isfinite(v)}):
        if start is None or value - start > max(absolute, relative * abs(start)):
            start = value
        result[value] = start
    return result


def _parameters(frames: Sequence[Frame]) -> dict[int, Parameters]:
    """Return each frame's parameters, equal where they agree within what scanners round to."""
    acquisitions = [f.acquisition for f in frames]
    ti = snap((a.inversion_time_s for a in acquisitions), absolute=1e-4, relative=1e-3)
    te = snap((a.echo_time_s for a in acquisitions), absolute=2e-5, relative=1e-3)
    tr = snap((a.repetition_time_s for a in acquisitions), absolute=1e-4, relative=2e-3)
    fa = snap((a.flip_angle_deg for a in acquisitions), absolute=0.05, relative=1e-3)
    b = snap((a.b_value_s_per_mm2 for a in acquisitions), absolute=2.0, relative=0.02)
    repeats = _diffusion_repeats(frames)
    return {
        id(f): Parameters(
            ti=ti.get(f.acquisition.inversion_time_s),
            te=te.get(f.acquisition.echo_time_s),
            fa=fa.get(f.acquisition.flip_angle_deg),
            tr=tr.get(f.acquisition.repetition_time_s),
            b=b.get(f.acquisition.b_value_s_per_mm2),
            direction=tuple(round(d, 3) for d in f.direction),
            encoding=f.acquisition.diffusion_encoding,
            repeat=repeats.get(id(f), 0),
        )
        for f in frames
    }


def _diffusion_repeats(frames: Sequence[Frame]) -> dict[int, int]:
    """Number the images of one series that share weighting and place: averages, not repeats.

    Images without weighting are stored several times in many series; each enters the fit.
    """
    if not any(f.acquisition.b_value_s_per_mm2 > 0 for f in frames):
        return {}  # some scanners write a b-value of 0 into every image
    seen: Counter[Hashable] = Counter()
    numbers = {}
    for frame in frames:
        if frame.series_uid and math.isfinite(frame.acquisition.b_value_s_per_mm2):
            place = (frame.position, frame.orientation)
            cell = (frame.series_uid, place, frame.direction, *_raw_parameters(frame))
            numbers[id(frame)] = seen[cell]
            seen[cell] += 1
    return numbers


def _axes(frames: Sequence[Frame]) -> tuple[str, ...]:
    """Return the parameters to look at, the most telling first."""
    sequence = frames[0].acquisition.sequence
    rest = {
        "inversion recovery": ("ti", "te", "tr"),
        "gradient echo": ("fa", "te", "tr"),
        "spin echo": ("te", "tr", "fa"),
    }
    return ("b", *rest.get(sequence, ("ti", "te", "fa", "tr")))


def _partition(frames: Sequence[Frame], parameters: dict[int, Parameters]) -> list[tuple[str, list[Frame]]]:
    """Split frames into groups that vary along one parameter; what is left stands alone."""
    left = list(frames)
    groups: list[tuple[str, list[Frame]]] = []
    for axis in _axes(frames):
        taken: set[int] = set()
        for group in _by(left, _fixed(axis, left, parameters)).values():
            known = [f for f in group if getattr(parameters[id(f)], axis) is not None]
            if len({getattr(parameters[id(f)], axis) for f in known}) > 1:
                groups.append((axis, known))
                taken |= {id(f) for f in known}
        left = [f for f in left if id(f) not in taken]  # still in the order of acquisition
    groups += [("", group) for group in _by(left, lambda f: parameters[id(f)][:5]).values()]
    return groups


def _fixed(
    axis: str, frames: Sequence[Frame], parameters: dict[int, Parameters]
) -> Callable[[Frame], Hashable]:
    """Return what frames of one group must agree on when ``axis`` varies."""
    free = {axis}
    if axis == "ti" and not _same_time_at_several_tr(frames, parameters):
        free.add("tr")  # some protocols lengthen TR with TI
    trains: Mapping[str, Hashable] = {}
    if axis == "te":
        trains = _echo_trains(frames, parameters)
    elif axis == "b":
        trains = _complete_series(frames, parameters)

    def key(frame: Frame) -> Hashable:
        own = parameters[id(frame)]
        names = (n for n in ("ti", "te", "fa", "tr", "b") if n not in free)
        return (*(getattr(own, name) for name in names), trains.get(frame.series_uid))

    return key


def _same_time_at_several_tr(frames: Sequence[Frame], parameters: dict[int, Parameters]) -> bool:
    """Tell whether an inversion time was measured with several repetition times: two protocols."""
    seen: dict[Hashable, set[float | None]] = defaultdict(set)
    for frame in frames:
        own = parameters[id(frame)]
        seen[own.ti, own.te, own.fa].add(own.tr)
    return any(len(values) > 1 for values in seen.values())


def _complete_series(frames: Sequence[Frame], parameters: dict[int, Parameters]) -> dict[str, tuple[str]]:
    """Return the diffusion series that hold several b-values, each of which is complete in itself.

    What is left, one b-value to a series, is joined with the others of its kind.
    """
    values: dict[str, set[float]] = defaultdict(set)
    for frame in frames:
        b = parameters[id(frame)].b
        if b is not None:
            values[frame.series_uid].add(b)
    return {uid: (uid,) for uid, known in values.items() if uid and len(known) > 1}


def _echo_trains(frames: Sequence[Frame], parameters: dict[int, Parameters]) -> dict[str, tuple[float, ...]]:
    """Return the echo times of every series that has several: it is complete in itself."""
    times: dict[str, set[float]] = defaultdict(set)
    for frame in frames:
        te = parameters[id(frame)].te
        if te is not None:
            times[frame.series_uid].add(te)
    return {uid: tuple(sorted(values)) for uid, values in times.items() if uid and len(values) > 1}
