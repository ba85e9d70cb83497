"""Axes: from data to pixels, and where the ticks stand."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from cordqa.report.words import format_plain

__all__ = ["Scale", "linear_scale", "log_scale", "nice_step"]


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps data between ``low`` and ``high`` to pixels between ``start`` and ``stop``."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the pixel of a value; NaN where a logarithm is not defined."""
        if self.log:
            if not value > 0:
                return math.nan
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)

    def shows(self, value: float) -> bool:
        """Tell whether a value lies on the axis (false for NaN)."""
        return self.low <= value <= self.high

    def clip(self, value: float) -> float:
        """Move a value to the nearer end of the axis where it lies beyond."""
        return min(max(value, self.low), self.high)

    def ticks(self, count: int = 5) -> list[float]:
        """Return about so many round values on the axis."""
        return _log_ticks(self.low, self.high, count) if self.log else _ticks(self.low, self.high, count)

    def tick_labels(self, count: int = 5) -> list[tuple[float, str]]:
        """Return ticks with their texts, all to the same precision on a linear axis."""
        ticks = self.ticks(count)
        if self.log or len(ticks) < 2:
            return [(tick, format_plain(tick, 3)) for tick in ticks]
        step = abs(ticks[1] - ticks[0])
        if step >= 1e6 or step < 1e-4:
            return [(tick, format_plain(tick, 3)) for tick in ticks]
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        return [(tick, f"{tick:.{decimals}f}".replace("-", "−")) for tick in ticks]


def nice_step(span: float, count: int) -> float:
    """Return 1, 2 or 5 times a power of ten that divides a span into about ``count`` steps."""
    raw = span / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    # Each bound is the geometric mean of two neighbouring steps.
    bounds = ((1, math.sqrt(2)), (2, math.sqrt(10)), (5, math.sqrt(50)))
    return next((factor * power for factor, bound in bounds if raw < bound * power), 10 * power)


def _ticks(low: float, high: float, count: int) -> list[float]:
    step = nice_step(high - low, count)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step + 0.0 for index in range(first, last + 1)]


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 5, 7)):
        ticks = [factor * 10.0**decade for decade in decades for factor in factors]
        shown = [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
        if len(shown) >= min(count, 4):
            # Many decades: keep every second, third ... so that texts do not touch.
            return shown[:: max(1, math.ceil(len(shown) / (count + 2)))]
    return shown or [low, high]


def linear_scale(
    values: Iterable[float], start: float, stop: float, *, padding: float = 0.06, include: float | None = None
) -> Scale:
    """Make a linear axis that holds all finite values with some room at both ends."""
    finite = [value for value in values if math.isfinite(value)]
    if include is not None:
        finite.append(include)
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    span = high - low
    # All values equal, or so close that their difference is rounding: open a window around them.
    same = span <= 1e-12 * max(abs(low), abs(high))
    room = (abs(low) * 0.1 or 1.0) if same else span * padding
    return Scale(low - room, high + room, start, stop)


def log_scale(values: Iterable[float], start: float, stop: float, *, padding: float = 0.05) -> Scale:
    """Make a logarithmic axis that holds all finite positive values."""
    finite = [value for value in values if math.isfinite(value) and value > 0]
    low, high = (min(finite), max(finite)) if finite else (1.0, 10.0)
    room = (high / low) ** padding if high > low * (1 + 1e-12) else 1.5
    return Scale(low / room, high * room, start, stop, log=True)
