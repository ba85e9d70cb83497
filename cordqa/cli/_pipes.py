"""Streams whose reader may go away (``cordqa ... | head``): the work goes on, and its exit status is kept."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

__all__ = ["patient_streams"]


class _PatientStream:
    """A text stream that drops what no one reads any more."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._drop()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._drop()

    def _drop(self) -> None:
        # What is buffered is written at the end of the program, and must have somewhere to go.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def patient_streams() -> Iterator[None]:
    """Make stdout and stderr such streams for a while."""
    kept = sys.stdout, sys.stderr
    # A stream that was closed at the start is None, and print knows that.
    patient = [stream and cast(TextIO, _PatientStream(stream)) for stream in kept]
    sys.stdout, sys.stderr = patient
    try:
        yield
    finally:
        sys.stdout, sys.stderr = kept
        for one in filter(None, patient):
            with suppress(OSError, ValueError):  # said already, or closed
                one.flush()
