"""Walk a folder and open its files without trusting them.

Only regular files are opened.  Links to folders are not followed (they may form loops); links
to files are, because archives such as DataLad keep their files behind links.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from cordqa.errors import InputError, TooLargeError, UnreadableFileError
from cordqa.io.limits import ReadLimits

__all__ = [
    "Walk",
    "check_folder",
    "digest_file",
    "open_regular",
    "printable",
    "read_buffer",
    "read_small",
    "walk_folder",
]

#: A file up to this size is read at once; a larger one is read piece by piece.
_WHOLE_FILE_BYTES = 32 * 1024 * 1024
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_EXPLICIT_LITTLE = b"1.2.840.10008.1.2.1\0\0\0"


@dataclass(slots=True)
class Walk:
    """Files of a folder in a fixed order, and what was passed over."""

    files: list[str] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)


def check_folder(path: Path) -> None:
    """Refuse what is not a folder that can be listed.

    Raises
    ------
    InputError
        If it does not exist, is not a folder, or may not be read.
    """
    where = printable(str(path))
    try:
        mode = path.stat().st_mode
        if not stat.S_ISDIR(mode):
            raise InputError("is not a folder", where=where, todo="give the folder that holds the images")
        with os.scandir(path):
            pass
    except FileNotFoundError as error:
        raise InputError("does not exist", where=where, todo="check the spelling of the folder") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the name is not valid"
        raise InputError(f"cannot be opened: {reason}", where=where, todo="check the permissions") from error


def walk_folder(root: Path, *, limits: ReadLimits) -> Walk:
    """List the regular files under ``root``, sorted by path, relative to it.

    Raises
    ------
    TooLargeError
        If there are more files than the limit allows.
    """
    walk = Walk()
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            entries = sorted(os.scandir(root / folder), key=lambda entry: entry.name)
        except OSError:
            walk.unreadable.append(folder)
            continue
        folders = []
        for entry in entries:
            relative = f"{folder}/{entry.name}" if folder else entry.name
            kind = _kind(entry)
            if kind == "folder":
                folders.append(relative)
            elif kind == "file":
                walk.files.append(relative)
            else:
                walk.ignored[kind] += 1
            if len(walk.files) > limits.max_files:
                raise TooLargeError(
                    "holds too many files",
                    where=printable(str(root)),
                    expected=f"at most {limits.max_files}",
                    todo="give the folder of one scan session",
                )
        pending.extend(reversed(folders))
    walk.files.sort()
    return walk


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        if entry.is_dir(follow_symlinks=False):
            return "folder"
        if entry.is_symlink() and entry.is_dir():
            return "link to a folder (not followed)"
        return "file" if stat.S_ISREG(entry.stat().st_mode) else "not a regular file"
    except OSError:
        return "broken link"


def printable(text: str, *, limit: int = 300) -> str:
    """Return text that is safe to show: no control characters, valid Unicode, bounded length."""
    if text.isascii() and text.isprintable() and len(text) <= limit:
        return text.strip()
    clean = text.encode("utf-8", "replace").decode("utf-8", "replace")
    clean = "".join(c if c.isprintable() else " " for c in clean).strip()
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def digest_file(path: Path) -> str:
    """SHA-256 of a file in hexadecimal digits, or words that say that it could not be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        # The file was readable a moment ago; that it no longer is must show, but costs no result.
        return "not readable when hashed"


def open_regular(path: Path) -> tuple[BinaryIO, int]:
    """Open a regular file for reading; return it and its size in bytes.

    Raises
    ------
    UnreadableFileError
        If it cannot be opened, or is a pipe or a device.
    """
    # Non-blocking: opening a pipe that nobody writes to would otherwise wait for ever.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(path, flags)
        status = os.fstat(handle)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the name is not valid"
        raise UnreadableFileError(f"cannot be opened: {reason}", todo="check the permissions") from error
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise UnreadableFileError("is not a regular file")
    return os.fdopen(handle, "rb"), status.st_size


class _ClippedFile(io.RawIOBase):
    """A file whose ``read`` never asks for more than is left.

    A damaged length field may claim 4 GB; Python would reserve that much before reading.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size

    def read(self, size: int = -1, /) -> bytes:
        left = max(self._size - self._file.tell(), 0)
        return self._file.read(left if size < 0 else min(size, left))

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()


def read_buffer(path: Path, *, limits: ReadLimits) -> tuple[BinaryIO, int]:
    """Open a file as a buffer that cannot be made to reserve more memory than the file has.

    Deflated DICOM is inflated, within the limit, and presented as if it had been plain.

    Raises
    ------
    TooLargeError
        If the file, or what it inflates to, exceeds the limits.
    UnreadableFileError
        If it cannot be opened, read or inflated.
    """
    file, size = open_regular(path)
    if size > limits.max_file_bytes:
        file.close()
        raise TooLargeError(
            "the file is too large", found=f"{size} bytes", expected=f"at most {limits.max_file_bytes}"
        )
    try:
        # The syntax is named within the first bytes, so a large file need not be read to know it.
        deflated = _DEFLATED in file.read(4096)
        file.seek(0)
        if size > _WHOLE_FILE_BYTES and not deflated:
            return cast(BinaryIO, _ClippedFile(file, size)), size
        content = file.read(size)
    except OSError as error:
        file.close()
        raise UnreadableFileError(f"cannot be read: {error.strerror}") from error
    file.close()
    if deflated and content[128:132] == b"DICM":
        content = _inflate(content, limit=limits.max_inflated_bytes)
    return io.BytesIO(content), len(content)


def _inflate(content: bytes, *, limit: int) -> bytes:
    """Inflate the data set of a deflated DICOM file and name it explicit little endian."""
    # The first element of the file meta group (UL, value at byte 140) holds the group's length.
    end = 144 + int.from_bytes(content[140:144], "little")
    if end >= len(content):
        raise UnreadableFileError("the file meta group is damaged", todo="export the file again")
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        plain = inflater.decompress(content[end:], limit)
    except zlib.error as error:
        raise UnreadableFileError("the deflated data set is damaged", todo="export it again") from error
    if inflater.unconsumed_tail:
        raise TooLargeError("inflates to more than the limit", expected=f"at most {limit} bytes")
    return content[:end].replace(_DEFLATED, _EXPLICIT_LITTLE) + plain


def read_small(path: Path, *, limit: int) -> bytes:
    """Read a small text file whole.

    Raises
    ------
    TooLargeError
        If it is larger than ``limit`` bytes.
    UnreadableFileError
        If it cannot be read.
    """
    file, size = open_regular(path)
    with file:
        if size > limit:
            raise TooLargeError("is too large", found=f"{size} bytes", expected=f"at most {limit}")
        try:
            return file.read(limit)
        except OSError as error:
            raise UnreadableFileError(f"cannot be read: {error.strerror}") from error


def iter_lines(content: bytes) -> Iterator[str]:
    """Yield the lines of a text file, whatever its encoding."""
    yield from content.decode("utf-8", "replace").splitlines()
