"""Serial number and temperature of the phantom, which scanners do not record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cordqa.errors import DefinitionError, UnreadableFileError
from cordqa.io.bids import load_json
from cordqa.io.files import printable, read_small
from cordqa.resources import read_yaml

__all__ = ["PhantomFacts", "read_phantom_file"]

#: Accepted spellings; those of BIDS sidecars are accepted in the phantom file as well.
_SERIAL = ("serial_number", "PhantomSerialNumber")
_TEMPERATURE = ("temperature_C", "PhantomTemperature")
_COLDEST_C, _WARMEST_C = -20.0, 80.0


@dataclass(frozen=True, slots=True)
class PhantomFacts:
    """What a file says about the phantom; empty or NaN where it says nothing.

    ``problems`` are sentences about what could not be understood.
    """

    serial_number: str = ""
    temperature_C: float = math.nan
    problems: tuple[str, ...] = ()

    def merge(self, other: PhantomFacts) -> tuple[PhantomFacts, list[str]]:
        """Fill gaps from another file; return what contradicts as sentences."""
        contradictions = []
        if self.serial_number and other.serial_number and self.serial_number != other.serial_number:
            contradictions.append(
                f"the phantom's serial number is given as {self.serial_number} and as {other.serial_number}"
            )
        if abs(self.temperature_C - other.temperature_C) > 0.05:
            contradictions.append(
                f"the phantom's temperature is given as {self.temperature_C:g} and as "
                f"{other.temperature_C:g} degrees Celsius"
            )
        temperature = other.temperature_C if math.isnan(self.temperature_C) else self.temperature_C
        return PhantomFacts(self.serial_number or other.serial_number, temperature), contradictions

    def hints(self) -> dict[str, str]:
        """Return what is known, as text."""
        result = {}
        if self.serial_number:
            result["serial_number"] = self.serial_number
        if math.isfinite(self.temperature_C):
            result["temperature_C"] = f"{self.temperature_C:g}"
        return result


def read_phantom_file(path: Path, *, limit: int) -> PhantomFacts:
    """Read ``phantom.yaml`` or ``phantom.json``.

    Raises
    ------
    UnreadableFileError
        If it is not valid YAML or JSON, or not a mapping.
    """
    if path.suffix.lower() == ".json":
        content: Any = load_json(path, limit=limit)
    else:
        content = _load_yaml(path, limit=limit)
    if not isinstance(content, Mapping):
        raise UnreadableFileError(
            "holds no keys", expected="serial_number and temperature_C", todo="correct the file"
        )
    return _facts(content)


def _load_yaml(path: Path, *, limit: int) -> Any:
    """Read YAML with every value as text: a serial number 0042 is not the octal number 34."""
    import yaml

    text = read_small(path, limit=limit)
    try:
        read_yaml(path)  # checks encoding, syntax and the absence of aliases
        return yaml.load(text, Loader=yaml.BaseLoader)
    except DefinitionError as error:
        raise UnreadableFileError(error.what, todo=error.todo or "correct the file") from None
    except yaml.YAMLError:
        raise UnreadableFileError("is not valid YAML", todo="correct the file") from None


def _facts(content: Mapping[Any, Any]) -> PhantomFacts:
    problems = []
    serial = _one_of(content, _SERIAL)
    if not isinstance(serial, (str, int, type(None))) or isinstance(serial, bool):
        problems.append("serial_number is not text and was not used; put it in quotes")
        serial = None
    temperature = _one_of(content, _TEMPERATURE)
    value = math.nan
    if temperature is not None:
        value = _temperature(temperature)
        if math.isnan(value):
            problems.append(
                f"temperature_C is not a temperature between {_COLDEST_C:g} and {_WARMEST_C:g} degrees "
                "Celsius and was not used; write a number"
            )
    unknown = [printable(str(key), limit=40) for key in content if key not in (*_SERIAL, *_TEMPERATURE)]
    if unknown:
        problems.append(
            f"not understood: {', '.join(unknown[:5])}; known are serial_number and temperature_C"
        )
    text = "" if serial is None else printable(str(serial), limit=40)
    return PhantomFacts(text, value, tuple(problems))


def _one_of(content: Mapping[Any, Any], names: tuple[str, ...]) -> Any:
    return next((content[name] for name in names if name in content), None)


def _temperature(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return math.nan
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return math.nan
    return number if _COLDEST_C <= number <= _WARMEST_C else math.nan
