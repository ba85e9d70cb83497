"""What the definition files of the phantom room share, beside what all definition files do."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cordqa.quantities import find_quantity
from cordqa.resources.schema import (
    MAX_ITEMS,
    Finite,
    Identifier,
    Identifiers,
    Positive,
    Strict,
    Text,
    check_known,
    check_unique,
    load_model,
    problem,
    suggest,
)

__all__ = [
    "MAX_ITEMS",
    "Finite",
    "Identifier",
    "Identifiers",
    "Positive",
    "Strict",
    "Temperature",
    "Text",
    "check_known",
    "check_quantity",
    "check_unique",
    "load_model",
    "problem",
    "suggest",
]

Temperature = Annotated[float, Field(strict=True, ge=-20, le=60)]


def check_quantity(name: str) -> str:
    """Return the unit of a registered quantity."""
    quantity = find_quantity(name)
    if quantity is None or quantity.id != name:
        raise problem(
            f"the quantity {name!r} is not registered" + (f"; write {quantity.id!r}" if quantity else "")
        )
    return quantity.unit
