"""Files that appear complete or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cordqa.errors import OutputError

__all__ = ["appear_complete"]


@contextmanager
def appear_complete(path: Path, *, suffix: str = ".part") -> Iterator[Path]:
    """Yield a temporary path to write to, and rename it to ``path`` when the block ends well.

    Parameters
    ----------
    path : Path
        Final name; its folder is made where it does not exist.
    suffix : str
        Ending of the temporary name, for writers that choose a format by it.

    Raises
    ------
    OutputError
        If the folder cannot be written or the disk is full; nothing is left behind, and an
        earlier file under the final name stays as it was.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=suffix)
        os.close(handle)
        yield Path(temporary)
        # mkstemp makes files private; results follow the user's own umask instead.
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(path)
    except OSError as error:
        raise OutputError(
            f"cannot be written: {error.strerror or error}",
            where=str(path),
            todo="give an output folder that you may write to, on a disk with space left",
        ) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
