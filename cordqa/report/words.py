"""How numbers, units and verdicts are written for people."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from cordqa.quantities import find_quantity
from cordqa.records import Measurement, Status

__all__ = [
    "DASH",
    "clean_text",
    "count_noun",
    "flag_words",
    "format_estimate",
    "format_expanded",
    "format_limits",
    "format_number",
    "format_observed",
    "format_pair",
    "format_plain",
    "half_width",
    "pretty_unit",
    "quantity_label",
    "status_word",
    "with_unit",
]

DASH = "—"  # what stands where a number is not known
MINUS = "−"
NARROW_SPACE = "\u202f"
_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
_UNITS = {"1": "", "um2/s": "µm²/s", "mm2": "mm²", "mm3": "mm³", "mm2/s": "mm²/s", "degC": "°C"}
_UNITS |= {"um4/ms2": "µm⁴/ms²", "um2/ms": "µm²/ms"}
_WORDS = {
    str(Status.PASS): "Pass",
    str(Status.WARN): "Warning",
    str(Status.FAIL): "Fail",
    str(Status.NOT_EVALUATED): "Not evaluated",
}
# Not allowed in HTML or SVG, or able to reorder the text around them (or to steer a terminal).
_UNSAFE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def clean_text(text: object) -> str:
    """Replace characters that a page or a terminal must not receive by a visible mark."""
    return _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", str(text))


def status_word(status: Status | str) -> str:
    """Return the word for a status; unknown words are shown as they are."""
    return _WORDS.get(str(status), str(status).capitalize())


def quantity_label(quantity: str) -> str:
    """Return the registered label, or the id without its underscores where it is not registered."""
    known = find_quantity(quantity)
    return known.label if known else quantity.replace("_", " ")


def pretty_unit(unit: str) -> str:
    """Write a unit with its signs; dimensionless is empty."""
    return _UNITS.get(unit, unit)


def with_unit(text: str, unit: str) -> str:
    """Append a unit by a space that does not break."""
    unit = pretty_unit(unit)
    return f"{text}\u00a0{unit}" if unit and text != DASH else text


def count_noun(count: int, noun: str, plural: str = "") -> str:
    """Write ``1 check`` or ``3 checks``."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def flag_words(flags: Iterable[str]) -> str:
    """Write flags for people: ``outside-range`` becomes ``outside range``."""
    return "; ".join(
        re.sub(r"[-_]+", " ", flag) if re.fullmatch(r"[\w.-]+", flag) else flag for flag in flags if flag
    )


def _fixed(value: float, decimals: int) -> str:
    """Write with a number of decimals (negative: rounded to tens, hundreds) and a true minus sign."""
    value = round(value, decimals)
    text = f"{abs(value):.{max(decimals, 0)}f}"
    if abs(value) >= 10_000:
        whole, _, part = text.partition(".")
        text = f"{int(whole):,}".replace(",", NARROW_SPACE) + (f".{part}" if part else "")
    return MINUS + text if value < 0 and float(f"{abs(value):.{max(decimals, 0)}f}") > 0 else text


def _scientific(value: float, digits: int) -> str:
    mantissa, _, exponent = f"{abs(value):.{digits - 1}e}".partition("e")
    sign = MINUS if value < 0 else ""
    return f"{sign}{mantissa}×10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


def _decimals_for(value: float, digits: int) -> int:
    """Decimals that leave so many significant digits, also where rounding adds one (0.0996)."""
    if value == 0 or not math.isfinite(value):
        return 0
    exponent = f"{abs(value):.{digits - 1}e}".partition("e")[2]
    return digits - 1 - int(exponent)


def format_number(value: float, digits: int = 4) -> str:
    """Write a number with so many significant digits; a dash where it is not known.

    Examples
    --------
    >>> format_number(0.012345, 3), format_number(1489.26), format_number(float("nan"))
    ('0.0123', '1489', '—')
    """
    if not math.isfinite(value):
        return DASH
    if value != 0 and not 1e-5 <= abs(value) < 1e7:
        return _scientific(value, min(digits, 4))
    # Digits before the point are never zeroed: 1489 with 3 digits stays 1489.
    return _fixed(value, max(0, _decimals_for(value, digits)))


def format_pair(value: float, uncertainty: float) -> tuple[str, str]:
    """Write a value and its uncertainty to the second digit of the uncertainty.

    Examples
    --------
    >>> format_pair(1489.26, 12.3), format_pair(22.859, 0.0437)
    (('1489', '12'), ('22.859', '0.044'))
    """
    if not math.isfinite(value):
        return DASH, ""
    if not math.isfinite(uncertainty) or uncertainty <= 0:
        return format_number(value), ""
    if max(abs(value), uncertainty) >= 1e7 or uncertainty < 1e-6:
        return format_number(value, 4), format_number(uncertainty, 2)
    decimals = _decimals_for(uncertainty, 2)
    return _fixed(value, decimals), _fixed(uncertainty, decimals)


def half_width(measurement: Measurement) -> float:
    """Half of the stated interval where it is symmetric, else twice the standard uncertainty.

    NaN where neither is known.  An interval counts as symmetric when its arms differ by less
    than a tenth of the half width.
    """
    below, above = measurement.value - measurement.low, measurement.high - measurement.value
    half = (below + above) / 2
    if math.isfinite(half) and half > 0 and abs(above - below) <= 0.2 * half:
        return half
    return 2 * measurement.standard_uncertainty


def format_expanded(measurement: Measurement) -> tuple[str, str]:
    """Write a measurement as value and expanded uncertainty (``± 12`` or ``1470 to 1530``)."""
    below, above = measurement.value - measurement.low, measurement.high - measurement.value
    half = (below + above) / 2
    if math.isfinite(half) and half > 0 and abs(above - below) > 0.2 * half:
        return format_estimate(measurement.value, measurement.low, measurement.high)
    value, uncertainty = format_pair(measurement.value, half_width(measurement))
    return value, f"±\u00a0{uncertainty}" if uncertainty else ""


def format_estimate(value: float, low: float, high: float, *, digits: int = 2) -> tuple[str, str]:
    """Write an estimate and its interval, both to the second digit (``digits``) of the shorter arm.

    The interval is empty where neither end is known.  An arm that is very short beside the other
    does not add digits without end.

    Examples
    --------
    >>> format_estimate(0.54, 0.28, 3.41)
    ('0.54', '0.28 to 3.41')
    """
    half = (high - low) / 2
    arm = max(min(value - low, high - value), half / 5) if math.isfinite(value) else half
    biggest = max(abs(end) for end in (value, low, high) if not math.isnan(end)) if half > 0 else math.inf
    if not (math.isfinite(half) and half > 0 and biggest < 1e7 and arm >= 1e-6):
        return format_number(value), _loose_range(low, high)
    decimals = max(0, _decimals_for(arm, digits))
    interval = f"{_fixed(low, decimals)} to {_fixed(high, decimals)}"
    return _fixed(value, decimals) if math.isfinite(value) else DASH, interval


def _loose_range(low: float, high: float) -> str:
    """Write an interval whose width says nothing about digits, or of which one end is not known."""
    if math.isfinite(low) and math.isfinite(high):
        return f"{format_number(low, 3)} to {format_number(high, 3)}"
    if math.isfinite(high):
        return f"up to {format_number(high, 3)}"
    return f"from {format_number(low, 3)}" if math.isfinite(low) else ""


def format_plain(value: float, digits: int = 6) -> str:
    """Write a number that someone chose (a limit, a tick): without zeros at the end."""
    text = format_number(value, digits)
    return text.rstrip("0").rstrip(".") if "." in text and "×" not in text else text


def format_limits(low: float, high: float, unit: str = "") -> str:
    """Write what a rule allows: ``±5 %``, ``0.95 to 1.05``, ``at most 5 %``, ``at least 0.9``."""
    if math.isfinite(low) and math.isfinite(high):
        if high > 0 and math.isclose(low, -high):
            return with_unit(f"±{format_plain(high)}", unit)
        return with_unit(f"{format_plain(low)} to {format_plain(high)}", unit)
    if math.isfinite(high):
        return with_unit(f"at most {format_plain(high)}", unit)
    if math.isfinite(low):
        return with_unit(f"at least {format_plain(low)}", unit)
    return ""


def format_observed(observed: float, low: float, high: float, unit: str = "") -> str:
    """Write what was observed with enough digits to see on which side of the limit it lies."""
    if math.isfinite(observed) and observed == int(observed) and abs(observed) < 1e6:
        return with_unit(format_plain(observed), unit)  # a count needs no decimals
    limits = [limit for limit in (low, high) if math.isfinite(limit) and limit != observed]
    digits = 3
    text = format_number(observed, digits)
    while digits < 8 and any(text == format_number(limit, digits) for limit in limits):
        digits += 1
        text = format_number(observed, digits)
    return with_unit(text, unit)
