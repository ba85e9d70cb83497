"""Messages between a process and its worker: a length, then that many bytes."""

from __future__ import annotations

import struct
from typing import BinaryIO

__all__ = ["read_frame", "write_frame"]

_HEAD = struct.Struct("<Q")


def write_frame(stream: BinaryIO, content: bytes) -> None:
    """Send one message."""
    stream.write(_HEAD.pack(len(content)))
    stream.write(content)
    stream.flush()


def read_frame(stream: BinaryIO) -> bytes | None:
    """Receive one message; None when the other side has gone."""
    head = _read_exactly(stream, _HEAD.size)
    if head is None:
        return None
    return _read_exactly(stream, _HEAD.unpack(head)[0])


def _read_exactly(stream: BinaryIO, count: int) -> bytes | None:
    content = stream.read(count)
    return content if len(content) == count else None
