"""Time a step and record what entered it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cordqa import __version__
from cordqa.engines.protocol import EngineRun, hash_inputs
from cordqa.records import Notice, Severity

__all__ = ["NAME", "Clock", "note", "timed"]

NAME = "builtin"


@dataclass(slots=True)
class Clock:
    """Holds the record of the step once it has ended well."""

    runs: list[EngineRun] = field(default_factory=list)


@contextmanager
def timed(function: str, inputs: Sequence[Path]) -> Iterator[Clock]:
    """Time a step; its inputs are hashed before it begins."""
    clock = Clock()
    hashes = hash_inputs(inputs)
    start = time.monotonic()
    yield clock
    clock.runs.append(
        EngineRun(
            engine=NAME,
            version=__version__,
            argv=(function, *(str(path) for path in inputs)),
            runtime_s=time.monotonic() - start,
            input_hashes=hashes,
        )
    )


def note(message: str, *, where: str = "segmentation", code: str = "cord.note") -> Notice:
    """Make a remark of this engine."""
    return Notice(severity=Severity.WARNING, message=message, where=where, code=code)
