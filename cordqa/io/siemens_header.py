"""Siemens' own image header (CSA), a binary block inside a private DICOM element.

Old scanners and some archives keep b-value and direction only here.  The layout is not published
by the vendor; it is described, for example, in the documentation of nibabel.  Every number that is
read from the block is checked against its size before it is used.
"""

from __future__ import annotations

import struct

__all__ = ["read_siemens_fields"]

_MAGIC = b"SV10"
_TAG = struct.Struct("<64si4siii")
_ITEM = struct.Struct("<4i")
_MOST_TAGS = 256
_MOST_ITEMS = 64
_LONGEST_ITEM = 1 << 16


def read_siemens_fields(block: object, wanted: frozenset[str]) -> dict[str, tuple[str, ...]]:
    """Return the values of some fields of a CSA2 header.

    Parameters
    ----------
    block : object
        Value of (0029,xx10); anything but bytes in the known layout gives nothing.
    wanted : frozenset of str
        Names of fields, for example ``B_value``.

    Returns
    -------
    dict
        By name; a field that is absent, empty or damaged is absent.
    """
    if not isinstance(block, bytes) or block[:4] != _MAGIC or len(block) < 16:
        return {}
    found: dict[str, tuple[str, ...]] = {}
    try:
        (count,) = struct.unpack_from("<I", block, 8)
        place = 16
        for _ in range(min(count, _MOST_TAGS)):
            name, values, place = _read_tag(block, place)
            if name in wanted and values:
                found[name] = values
    except (struct.error, ValueError):
        # A block that ends early keeps what was read before.
        return found
    return found


def _read_tag(block: bytes, place: int) -> tuple[str, tuple[str, ...], int]:
    raw, _, _, _, n_items, _ = _TAG.unpack_from(block, place)
    place += _TAG.size
    if not 0 <= n_items <= _MOST_ITEMS:
        raise ValueError("number of items")
    values = []
    for _ in range(n_items):
        length = _ITEM.unpack_from(block, place)[1]
        place += _ITEM.size
        if not 0 <= length <= _LONGEST_ITEM or place + length > len(block):
            raise ValueError("length of an item")
        text = _text(block[place : place + length])
        values += [text] if text else []
        place += (length + 3) // 4 * 4
    return _text(raw), tuple(values), place


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("ascii", "replace").strip()
