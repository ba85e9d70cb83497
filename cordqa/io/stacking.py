"""Separate repeats from each other, and stack the slices of one run into volumes."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from cordqa.io.frames import Frame

__all__ = ["Stack", "split_runs", "stack_slices"]

#: Slices further apart than this many thicknesses do not belong to one slab.
_SLAB_GAP = 2.05
Key = Callable[[Frame], Any]
Place = Callable[[Frame], float]


@dataclass(frozen=True, slots=True)
class Stack:
    """Frames by image and slice (in the order of position), and frames that were left out."""

    images: tuple[tuple[Frame, ...], ...]
    left_out: tuple[Frame, ...] = ()


def split_runs(frames: Sequence[Frame], *, key: Key, place: Place) -> list[list[Frame]]:
    """Separate repeats: several frames of the same parameters at the same place.

    Parameters
    ----------
    frames : sequence of Frame
        Frames of one group, in the order of acquisition.
    key, place : callable
        Give the parameters and the slice position of a frame.

    Returns
    -------
    list of list of Frame
        One per run, in the order of acquisition.
    """
    units = _units(frames, key=key, place=place)
    multiplicity = Counter((key(f), place(f)) for f in frames)
    most = max(multiplicity.values())
    # Whether one list of images was repeated as a whole, or each image in turn, is decided by
    # which of the two readings explains the folder with fewer runs.
    complete = set(multiplicity.values()) == {most}
    in_turn = _first_fit(units, key=key, place=place)
    if most == 1 or complete:
        return in_turn
    in_sequence = _in_sequence(units, key=key, place=place)
    if len(in_sequence) > len(in_turn) or _breaks_a_series(in_sequence, in_turn, key=key):
        return in_turn
    return in_sequence


def _breaks_a_series(in_sequence: Sequence[list[Frame]], in_turn: Sequence[list[Frame]], *, key: Key) -> bool:
    """Tell whether single images that exist twice would cut one series of images into two.

    One image that was scanned or exported again is no second run of the whole list.
    """

    def sizes(runs: Sequence[list[Frame]]) -> list[int]:
        return sorted((len({key(f) for f in run}) for run in runs), reverse=True)

    whole = sizes(in_turn)
    repeated = sum(whole[1:])
    return sizes(in_sequence)[0] < whole[0] and 2 * repeated < whole[0]


def _units(frames: Sequence[Frame], *, key: Key, place: Place) -> list[list[Frame]]:
    """Group frames that were acquired together: one image of one repetition of one series."""
    series: dict[Hashable, list[Frame]] = defaultdict(list)
    for frame in frames:
        series[frame.series_uid, frame.run].append(frame)
    units: list[list[Frame]] = []
    for members in series.values():
        repetition = _repetition(members, key=key, place=place)
        groups: dict[Hashable, list[Frame]] = defaultdict(list)
        for frame in members:
            groups[key(frame), repetition[id(frame)]].append(frame)
        units.extend(groups.values())
    return units


def _repetition(frames: Sequence[Frame], *, key: Key, place: Place) -> dict[int, Any]:
    """Return which repetition within its series a frame belongs to."""
    marks: tuple[Callable[[Frame], Any], ...] = (
        lambda f: 0,
        lambda f: f.temporal_position,
        lambda f: f.acquisition_number,
        lambda f: f.acquired,
    )
    for mark in marks:
        if len({(key(f), place(f), mark(f)) for f in frames}) == len(frames):
            return {id(f): mark(f) for f in frames}
    seen: Counter[Hashable] = Counter()
    result = {}
    for frame in frames:
        cell = (key(frame), place(frame))
        result[id(frame)] = seen[cell]
        seen[cell] += 1
    return result


def _first_fit(units: Sequence[list[Frame]], *, key: Key, place: Place) -> list[list[Frame]]:
    """Put every unit into the first run that has none like it yet."""
    runs: list[list[Frame]] = []
    taken: list[set[Hashable]] = []
    for unit in units:
        cells = {(key(f), place(f)) for f in unit}
        index = next((i for i, run in enumerate(taken) if not run & cells), len(runs))
        if index == len(runs):
            runs.append([])
            taken.append(set())
        runs[index].extend(unit)
        taken[index] |= cells
    return runs


def _in_sequence(units: Sequence[list[Frame]], *, key: Key, place: Place) -> list[list[Frame]]:
    """Start a new run whenever a unit repeats one of the current run."""
    runs: list[list[Frame]] = [[]]
    taken: set[Hashable] = set()
    for unit in units:
        cells = {(key(f), place(f)) for f in unit}
        if cells & taken:
            runs.append([])
            taken = set()
        runs[-1].extend(unit)
        taken |= cells
    return runs


def stack_slices(frames: Sequence[Frame], *, key: Key, place: Place) -> list[Stack]:
    """Stack the slices of one run.

    Slices that lie together form a slab, of which the largest complete block of images and
    slices is kept.  Slabs apart from each other are one stack only where they hold the same
    images of the same series (two plates of a phantom scanned at once); otherwise each is a
    stack of its own, so that one incomplete plate costs the other nothing.
    """
    stacks: dict[Hashable, Stack] = {}
    for slab in _slabs(frames, place=place):
        stack = _largest_block(slab, key=key, place=place)
        identity = tuple((key(image[0]), image[0].series_uid) for image in stack.images)
        before = stacks.get(identity, Stack(tuple(() for _ in stack.images)))
        images = zip(before.images, stack.images, strict=True)
        stacks[identity] = Stack(tuple(a + b for a, b in images), before.left_out + stack.left_out)
    return list(stacks.values())


def _slabs(frames: Sequence[Frame], *, place: Place) -> list[list[Frame]]:
    ordered = sorted(frames, key=place)
    thickness = ordered[0].acquisition.slice_thickness_mm
    gap = _SLAB_GAP * thickness if math.isfinite(thickness) else math.inf
    slabs = [[ordered[0]]]
    for before, frame in pairwise(ordered):
        if place(frame) - place(before) > gap:
            slabs.append([])
        slabs[-1].append(frame)
    return slabs


def _largest_block(frames: Sequence[Frame], *, key: Key, place: Place) -> Stack:
    """Keep the images and slices that form the largest complete block."""
    at: dict[float, dict[Any, Frame]] = defaultdict(dict)
    for frame in frames:
        at[place(frame)][key(frame)] = frame
    candidates = {frozenset(cells) for cells in at.values()}

    def covered(keys: frozenset[Any]) -> list[float]:
        return [p for p, cells in at.items() if keys <= cells.keys()]

    best = max(candidates, key=lambda k: (len(k) * len(covered(k)), len(k), sorted(map(_sortable, k))))
    places = sorted(covered(best))
    images = tuple(tuple(at[p][k] for p in places) for k in sorted(best, key=_sortable))
    used = {id(f) for image in images for f in image}
    return Stack(images, tuple(f for f in frames if id(f) not in used))


def _sortable(parameters: Any) -> tuple[Any, ...]:
    """Order images by b-value, then inversion, echo, flip angle and repetition time."""
    p = parameters
    numbers = (p.b, p.ti, p.te, p.fa, p.tr)
    return (*(-math.inf if n is None else n for n in numbers), p.direction, p.encoding, p.repeat)
