"""What can go wrong between cordqa and an engine."""

from __future__ import annotations

from typing import ClassVar

from cordqa.errors import CordqaError, InputError

__all__ = [
    "EngineError",
    "EngineOutputError",
    "EngineTimeoutError",
    "EngineUnavailableError",
    "MixedEnginesError",
]


class EngineError(CordqaError):
    """An engine failed on this image; others may go on."""

    code: ClassVar[str] = "engine"


class EngineTimeoutError(EngineError):
    """A program ran past its time and was ended, with all that it had started."""

    code: ClassVar[str] = "engine.timeout"


class EngineOutputError(EngineError):
    """A program said that it succeeded, but what it left cannot be used."""

    code: ClassVar[str] = "engine.output"


class EngineUnavailableError(InputError):
    """A program, a model or a template that this step needs is not installed."""

    code: ClassVar[str] = "engine.unavailable"


class MixedEnginesError(InputError):
    """Values of different engines or versions were about to enter one table."""

    code: ClassVar[str] = "engine.mixed"
