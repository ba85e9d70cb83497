"""Which batch a phantom belongs to, by its serial number."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cordqa.errors import ConfigError
from cordqa.phantom.definition import PhantomDefinition, Serial
from cordqa.phantom.schema import suggest

__all__ = ["BatchChoice", "find_batch", "parse_serial"]

_SERIAL = re.compile(r"(?:(?P<prefix>[A-Za-z0-9]{1,8})-)?(?P<number>[0-9]{1,9})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchChoice:
    """The batch whose certificate is used; ``assumed`` where no serial number or batch was given."""

    batch: str
    serial: str = ""
    assumed: bool = False
    reason: str = ""


def parse_serial(text: str | int, serial: Serial | None = None) -> int:
    """Read a serial number such as ``130-0042``, ``0042``, ``42`` or ``SN 130-0042``.

    Parameters
    ----------
    text : str or int
        What the user or the header gave.
    serial : Serial, optional
        The form of this phantom's serial numbers; a prefix of another model is then refused.

    Returns
    -------
    int
        The running number without prefix.

    Raises
    ------
    ConfigError
        If it is not a serial number, or one of another model.
    """
    serial = serial or Serial()
    example = serial.example or "0042"
    shown = repr(str(text)[:40])
    cleaned = re.sub(
        r"^(serial(\s+(number|no))?|s/?n)\b[\s.:#-]*", "", str(text).strip(), flags=re.IGNORECASE
    )
    match = _SERIAL.fullmatch(cleaned) if not isinstance(text, bool) else None
    if match is None or int(match["number"]) == 0:
        raise ConfigError(
            "is not a serial number", where="serial", found=shown, expected=f"for example {example}"
        )
    if serial.prefixes and match["prefix"] is not None and match["prefix"] not in serial.prefixes:
        raise ConfigError(
            "the serial number belongs to another model",
            where="serial",
            found=shown,
            expected=f"one that begins with {' or '.join(serial.prefixes)}",
            todo="choose the phantom definition that belongs to this serial number",
        )
    if len(match["number"].lstrip("0")) > serial.digits:
        raise ConfigError(
            "the serial number is too long", where="serial", found=shown, expected=f"for example {example}"
        )
    return int(match["number"])


def find_batch(
    definition: PhantomDefinition, serial: str | int | None = None, *, batch: str | None = None
) -> BatchChoice:
    """Find the batch of a phantom.

    Parameters
    ----------
    definition : PhantomDefinition
        The phantom.
    serial : str or int, optional
        Serial number; empty text counts as not given.
    batch : str, optional
        Batch given by the user instead; it must agree with the serial number where both are given.

    Returns
    -------
    BatchChoice
        With ``assumed`` and a reason where neither was given.

    Raises
    ------
    ConfigError
        If the serial number or the batch is not one of this phantom, or the two contradict.
    """
    if batch is not None and batch not in definition.batch_ids:
        raise ConfigError(
            f"no batch {str(batch)[:40]!r}{suggest(str(batch), definition.batch_ids)}",
            where=definition.name,
            expected=f"one of {', '.join(definition.batch_ids)}",
        )
    if serial is None or not str(serial).strip():
        if batch is not None:
            return BatchChoice(batch=batch, reason="batch given by the user")
        reason = f"no serial number was given; batch {definition.assumed_batch} is assumed"
        return BatchChoice(batch=definition.assumed_batch, assumed=True, reason=reason)
    number = parse_serial(serial, definition.serial)
    found = next((item.id for item in definition.batches if item.contains(number)), None)
    if found is None:
        raise ConfigError(
            "the serial number is in no known batch", where=definition.name, found=repr(str(serial)[:40])
        )
    if batch is not None and batch != found:
        raise ConfigError(
            f"serial number {number} belongs to batch {found}",
            where=definition.name,
            found=f"batch {batch}",
            todo="give the serial number or the batch, not both",
        )
    return BatchChoice(
        batch=found, serial=f"{number:0{definition.serial.digits}d}", reason="from the serial number"
    )
