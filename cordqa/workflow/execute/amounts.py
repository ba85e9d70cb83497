"""Times and amounts of memory as people write them."""

from __future__ import annotations

import math
import re

from cordqa.errors import ConfigError
from cordqa.io.files import printable

__all__ = ["parse_duration", "parse_memory"]

_SECONDS = {"": 1.0, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
#: As Dask and batch systems read them: GB is 10^9 bytes, GiB is 2^30.
_BYTES = {
    **{unit: float(1000**n) for n, unit in enumerate(("b", "kb", "mb", "gb", "tb"))},
    **{unit: float(1024**n) for n, unit in enumerate(("kib", "mib", "gib", "tib"), start=1)},
    **{unit: float(1000**n) for n, unit in enumerate(("k", "m", "g", "t"), start=1)},
}
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)\s*", re.ASCII)
_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):(\d{1,2})(?::(\d{1,2}))?", re.ASCII)


def parse_duration(text: str, *, option: str) -> float:
    """Understand ``90``, ``90s``, ``30m``, ``2h`` or ``1:30:00``; return seconds.

    Raises
    ------
    ConfigError
        If it is no positive time.
    """
    clock = _CLOCK.fullmatch(text.strip())
    if clock is not None:
        days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        value = ((24.0 * days + hours) * 60.0 + minutes) * 60.0 + seconds
    else:
        value = _scaled(text, _SECONDS)
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(
            "is no time",
            where=option,
            found=repr(printable(text, limit=40)),
            expected="seconds, or 30m, 2h, or hours:minutes:seconds",
        )
    return value


def parse_memory(text: str, *, option: str) -> float:
    """Understand ``8 GB``, ``8G``, ``8000 MB`` or ``8 GiB``; return bytes.

    Raises
    ------
    ConfigError
        If it is no positive amount with a unit.
    """
    value = _scaled(text, _BYTES)
    if not (math.isfinite(value) and value >= 1):
        raise ConfigError(
            "is no amount of memory",
            where=option,
            found=repr(printable(text, limit=40)),
            expected="a number with its unit: 8 GB",
        )
    return value


def _scaled(text: str, units: dict[str, float]) -> float:
    found = _AMOUNT.fullmatch(text)
    if found is None:
        return math.nan
    return float(found.group(1)) * units.get(found.group(2).casefold(), math.nan)
