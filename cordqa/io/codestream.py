"""Size that a compressed stream claims, read before a decoder allocates memory for it."""

from __future__ import annotations

__all__ = ["codestream_size"]

_JPEG_START = b"\xff\xd8"
_JPEG_2000_START = b"\xff\x4f\xff\x51"
_JPEG_2000_BOX = b"jP  "
#: Start-of-frame markers of JPEG (SOF0-15 without DHT, JPG, DAC) and of JPEG-LS (SOF55).
_FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}


def codestream_size(stream: bytes) -> tuple[int, int, int] | None:
    """Return rows, columns and components that a JPEG, JPEG-LS or JPEG 2000 stream claims.

    Parameters
    ----------
    stream : bytes
        One compressed frame.

    Returns
    -------
    tuple of int or None
        Rows, columns, components; ``None`` for a stream of another kind (RLE has no size of its own).
    """
    if stream[4:8] == _JPEG_2000_BOX:
        start = stream.find(_JPEG_2000_START)
        return _jpeg_2000_size(stream[start:]) if start >= 0 else None
    if stream.startswith(_JPEG_2000_START):
        return _jpeg_2000_size(stream)
    if stream.startswith(_JPEG_START):
        return _jpeg_size(stream)
    return None


def _jpeg_2000_size(stream: bytes) -> tuple[int, int, int]:
    # SOC (2), SIZ (2), length (2), capabilities (2), then 4 bytes each: width, height, x and y
    # offset, and the same for the tiles; then the number of components (2).
    def number(at: int, size: int = 4) -> int:
        return int.from_bytes(stream[at : at + size], "big")

    return number(12) - number(20), number(8) - number(16), number(40, 2)


def _jpeg_size(stream: bytes) -> tuple[int, int, int] | None:
    at = 2
    while at + 10 <= len(stream):
        if stream[at] != 0xFF:
            return None
        marker = stream[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _FRAME_MARKERS:
            # Marker (2), length (2), bits (1), rows (2), columns (2), components (1).
            rows, columns = stream[at + 5 : at + 7], stream[at + 7 : at + 9]
            return int.from_bytes(rows, "big"), int.from_bytes(columns, "big"), stream[at + 9]
        elif marker in _WITHOUT_LENGTH:
            at += 2
        else:
            at += 2 + max(int.from_bytes(stream[at + 2 : at + 4], "big"), 2)
    return None
