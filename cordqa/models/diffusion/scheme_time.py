"""How long a diffusion scan takes, and how many volumes fit into a budget."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cordqa.errors import ConfigError

__all__ = ["MAX_MULTIBAND", "PROTOCOL_BUDGET_S", "Budget", "ScanTiming"]

#: The whole protocol of a cord in a clinical slot: fifteen minutes.
PROTOCOL_BUDGET_S = 900.0
#: Beyond it the few coil elements around the neck no longer separate the slices.
MAX_MULTIBAND = 3
_LONGEST_TR_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanTiming:
    """What decides the duration of one volume and of the scan.

    Attributes
    ----------
    repetition_time_s : float, optional
        Time of one volume; from ``slice_time_s`` otherwise.  Of a triggered scan the header gives the
        time between triggers instead: give ``heart_rate_per_min`` and ``slices_per_beat`` there.
    slices : int
        0 where it is not known.
    multiband : int
        Slices excited together, 1 to 3.
    slice_time_s : float, optional
        Time of one excitation with its readout; the repetition time cannot be shorter than
        ``ceil(slices / multiband)`` of them.
    heart_rate_per_min, slices_per_beat : float, int, optional
        Cardiac triggering: excitations that fit into one heart beat.
    averages : int
        Repeats of the whole scheme.
    dummies : int
        Volumes that are played out and not stored, once.
    preparation_s : float
        Shimming, reference scans and the like.
    """

    repetition_time_s: float | None = None
    slices: int = 0
    multiband: int = 1
    slice_time_s: float | None = None
    heart_rate_per_min: float | None = None
    slices_per_beat: int | None = None
    averages: int = 1
    dummies: int = 0
    preparation_s: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be timed."""
        self._check_numbers()
        if self.heart_rate_per_min is not None:
            if not self.slices or not self.slices_per_beat:
                raise ConfigError("a triggered scan needs the number of slices and of slices per beat")
            if self.repetition_time_s is not None:
                raise ConfigError("give a repetition time or a heart rate, not both")
        elif self.repetition_time_s is None and (self.slice_time_s is None or not self.slices):
            raise ConfigError(
                "the time of one volume is not known",
                expected="a repetition time, or slices and the time of one slice",
            )
        if self.repetition_time_s is not None and self.repetition_time_s < self.shortest_s - 1e-9:
            raise ConfigError(
                "the slices do not fit into the repetition time",
                found=f"{self.repetition_time_s:g} s",
                expected=f"at least {self.shortest_s:g} s ({self._excitation_words()}, "
                f"{self.slice_time_s:g} s each)",
                todo="fewer slices, a longer repetition time or a multiband factor of 2",
            )

    def _check_numbers(self) -> None:
        if not 1 <= self.multiband <= MAX_MULTIBAND:
            raise ConfigError(
                "the multiband factor is out of range",
                found=str(self.multiband),
                expected=f"1 to {MAX_MULTIBAND}; coils around the neck separate no more",
            )
        if self.slices < 0 or self.averages < 1 or self.dummies < 0 or not 0 <= self.preparation_s < math.inf:
            raise ConfigError(
                "slices, averages, dummies and preparation time must not be negative, averages at least 1"
            )
        if self.slices and self.multiband > self.slices:
            raise ConfigError("the multiband factor exceeds the number of slices")
        for name, value, high in (
            ("repetition time", self.repetition_time_s, _LONGEST_TR_S),
            ("time of one slice", self.slice_time_s, 2.0),
        ):
            if value is not None and not 0 < value <= high:
                raise ConfigError(
                    f"the {name} cannot be in seconds",
                    found=f"{value:g}",
                    expected=f"up to {high:g} s",
                    todo="milliseconds must be divided by 1000" if value > high else "",
                )
        if self.heart_rate_per_min is not None and not 20 <= self.heart_rate_per_min <= 250:
            raise ConfigError(
                "the heart rate is out of range", found=f"{self.heart_rate_per_min:g} per minute"
            )
        if self.slices_per_beat is not None and self.slices_per_beat < 1:
            raise ConfigError("at least one slice per beat is needed", found=str(self.slices_per_beat))

    @property
    def excitations(self) -> int:
        """Excitations per volume."""
        return math.ceil(self.slices / self.multiband)

    @property
    def shortest_s(self) -> float:
        """Shortest repetition time that the slices allow; 0 where it is not known."""
        return self.excitations * self.slice_time_s if self.slice_time_s is not None else 0.0

    @property
    def volume_s(self) -> float:
        """Time of one volume, seconds."""
        if self.heart_rate_per_min is not None and self.slices_per_beat:
            return math.ceil(self.excitations / self.slices_per_beat) * 60 / self.heart_rate_per_min
        return self.shortest_s if self.repetition_time_s is None else self.repetition_time_s

    def total_s(self, n_volumes: int) -> float:
        """Duration of a scan of n volumes, seconds."""
        return self.preparation_s + (self.dummies + n_volumes * self.averages) * self.volume_s

    def volumes_within(self, seconds: float) -> int:
        """Largest number of volumes that a time holds."""
        played = math.floor((seconds - self.preparation_s) / self.volume_s + 1e-9)
        return max((played - self.dummies) // self.averages, 0)

    def arithmetic(self, n_volumes: int) -> tuple[str, ...]:
        """Return the sums in words, one step in each line."""
        lines = [self._volume_line()]
        parts = f"{n_volumes} volumes"
        if self.averages > 1:
            parts += f" x {self.averages} averages"
        if self.dummies:
            parts = f"({parts} + {self.dummies} dummies)"
        total = f"{parts} x {self.volume_s:g} s"
        if self.preparation_s:
            total += f" + {self.preparation_s:g} s preparation"
        lines.append(f"{total} = {_clock(self.total_s(n_volumes))}")
        if self.slices % self.multiband:
            lines.append(
                f"{self.slices} slices are no multiple of multiband {self.multiband}: the last excitation is "
                "partly empty, and most scanners refuse it"
            )
        return tuple(lines)

    def _volume_line(self) -> str:
        if self.heart_rate_per_min is not None:
            beats = math.ceil(self.excitations / (self.slices_per_beat or 1))
            return (
                f"one volume: {self._excitation_words()}, {self.slices_per_beat} per beat = {beats} beats "
                f"of {60 / self.heart_rate_per_min:.3g} s = {self.volume_s:.3g} s"
            )
        if self.repetition_time_s is None:
            return f"one volume: {self._excitation_words()} x {self.slice_time_s:g} s = {self.volume_s:.4g} s"
        least = (
            f" (at least {self.shortest_s:.4g} s for {self._excitation_words()})" if self.shortest_s else ""
        )
        return f"one volume: repetition time {self.repetition_time_s:g} s{least}"

    def _excitation_words(self) -> str:
        if self.multiband == 1:
            return f"{self.excitations} slices"
        return f"{self.slices} slices / multiband {self.multiband} = {self.excitations} excitations"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Time for a protocol, and what its other series take."""

    total_s: float = PROTOCOL_BUDGET_S
    others_s: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a budget that others have spent."""
        if not (0 <= self.others_s < math.inf and 0 < self.total_s < math.inf):
            raise ConfigError(
                "a time budget is a positive number of seconds",
                found=f"{self.total_s:g} s, {self.others_s:g} s for other series",
            )
        if self.others_s >= self.total_s:
            raise ConfigError(
                "nothing is left of the time budget",
                found=f"{_clock(self.others_s)} for other series of {_clock(self.total_s)}",
                todo="raise the budget or shorten the other series",
            )

    @property
    def left_s(self) -> float:
        """Time for diffusion, seconds."""
        return self.total_s - self.others_s

    def sentence(self, used_s: float) -> str:
        """Say how much of it a scan uses."""
        verb = "fits into" if used_s <= self.left_s + 1e-6 else "DOES NOT FIT into"
        return f"{_clock(used_s)} {verb} {self.words}"

    @property
    def words(self) -> str:
        """What is left of it, for people."""
        if not self.others_s:
            return f"the protocol's {_clock(self.total_s)}"
        return (
            f"the {_clock(self.left_s)} that the other series ({_clock(self.others_s)}) leave of the "
            f"protocol's {_clock(self.total_s)}"
        )


def _clock(seconds: float) -> str:
    """Minutes and seconds, rounded up: a scan that needs a second more does not fit."""
    whole = math.ceil(seconds - 1e-6)
    return f"{whole // 60}:{whole % 60:02d} min"
