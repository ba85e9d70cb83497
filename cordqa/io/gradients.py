"""Gradient files: FSL bval and bvec, b-tensor shapes, MRtrix tables.

This module knows text and names, not physics: it returns the numbers as they stand in the files
(the checks are in :mod:`cordqa.models.diffusion.gradient_checks`, and
:mod:`cordqa.workflow.gradients` joins the two).
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import UnreadableFileError
from cordqa.io.atomic import appear_complete
from cordqa.io.bids_names import parse_name
from cordqa.io.files import iter_lines, printable, read_small

__all__ = [
    "GradientPaths",
    "find_gradient_files",
    "read_matrix",
    "read_shapes",
    "read_tensors",
    "write_matrix",
]

Array = NDArray[np.float64]

MAX_BYTES = 16 * 1024 * 1024
#: Endings by kind; the first is the usual one.
_ENDINGS = {
    "bval": (".bval", ".bvals"),
    "bvec": (".bvec", ".bvecs"),
    "bdelta": (".bdelta",),
    "btens": (".btens", ".btens.npy", ".btens.txt"),
    "mrtrix": (".b", ".grad"),
}
#: Names without the name of the image, used where nothing else is there.
_PLAIN = {
    "bval": ("bvals", "bval", "bvals.txt", "bval.txt"),
    "bvec": ("bvecs", "bvec", "bvecs.txt", "bvec.txt"),
    "bdelta": ("bdelta", "bdelta.txt"),
    "btens": (),
    "mrtrix": (),
}
_MAX_PARENTS = 5
_SEPARATORS = str.maketrans({",": " ", ";": " ", "\t": " ", "[": " ", "]": " "})


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientPaths:
    """Which files describe the encoding of an image.

    Attributes
    ----------
    bval, bvec : Path, optional
        FSL.
    bdelta : Path, optional
        One shape for all volumes, or one per volume; numbers, or words such as ``LTE``.
    btens : Path, optional
        b-tensors: ``.npy`` of shape (n, 3, 3), or text with nine columns.
    mrtrix : Path, optional
        Four columns: direction along scanner axes, b.
    """

    bval: Path | None = None
    bvec: Path | None = None
    bdelta: Path | None = None
    btens: Path | None = None
    mrtrix: Path | None = None

    @property
    def given(self) -> tuple[Path, ...]:
        """Those that are there."""
        values = (getattr(self, one.name) for one in fields(self))
        return tuple(value for value in values if isinstance(value, Path))

    def __bool__(self) -> bool:
        return bool(self.given)


def find_gradient_files(image: Path, *, root: Path | None = None) -> GradientPaths:
    """Find the gradient files of an image.

    A file applies that has the name of the image; else, by the inheritance of BIDS, one in its
    folder or above with the same suffix and no entity that the image has not, the nearest and most
    specific first; else a file of the image's folder that is called ``bvals``, ``bvecs`` or alike.

    Parameters
    ----------
    image : Path
        NIfTI file; need not exist.
    root : Path, optional
        Folder of the dataset, beyond which is not searched.  Without it the search ends at the folder
        that holds ``dataset_description.json``, or at the one above ``sub-*``.

    Returns
    -------
    GradientPaths
        Without those that were not found.
    """
    stem = _image_stem(image.name)
    folders = _folders(image, root)
    found = {kind: _find_one(kind, stem, folders) for kind in _ENDINGS}
    return GradientPaths(**found)


def _image_stem(name: str) -> str:
    for ending in (".nii.gz", ".nii", ".mif", ".mif.gz"):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name


def _folders(image: Path, root: Path | None) -> list[Path]:
    """Folders from that of the image up to the dataset."""
    folders = [image.parent]
    top = root.resolve() if root else None
    for _ in range(_MAX_PARENTS):
        here = folders[-1].resolve()
        if here == top or (here / "dataset_description.json").is_file() or here.parent == here:
            break
        below = any(part.startswith(("sub-", "ses-")) for part in (here.name, here.parent.name))
        if top is None and not below:
            break
        folders.append(here.parent)
    return folders


def _find_one(kind: str, stem: str, folders: list[Path]) -> Path | None:
    endings = _ENDINGS[kind]
    here = folders[0]
    own = (here / f"{stem}{ending}" for ending in endings)
    inherited = (_inherited(folder, stem, endings) for folder in folders)
    plain = (here / name for name in _PLAIN[kind])
    candidates = itertools.chain(own, inherited, plain)
    return next((path for path in candidates if path is not None and path.is_file()), None)


def _inherited(folder: Path, stem: str, endings: tuple[str, ...]) -> Path | None:
    """Return the most specific file of one folder that applies to a BIDS name."""
    image = parse_name(f"{stem}.nii.gz")
    if image is None:
        return None
    best: tuple[int, str] | None = None
    for path in _files(folder):
        ending = next((e for e in endings if path.name.endswith(e)), None)
        name = parse_name(path.name) if ending else None
        if name is None or name.suffix != image.suffix or not name.entities.items() <= image.entities.items():
            continue
        rank = (len(name.entities), path.name)
        best = max(best, rank) if best else rank
    return folder / best[1] if best else None


def _files(folder: Path) -> Iterable[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file())
    except OSError:
        return ()


def read_matrix(path: Path) -> Array:
    """Read a rectangle of numbers.

    Numbers are separated by blanks, tabs, commas or semicolons; lines that begin with ``#`` or ``%``
    are comments.

    Returns
    -------
    ndarray, shape (rows, columns)

    Raises
    ------
    UnreadableFileError
        If it cannot be read, is empty, holds something else, or its rows differ in length.
    """
    rows: list[list[float]] = []
    lines: list[int] = []
    for number, words in _lines(path):
        rows.append([_number(word, path, number) for word in words])
        lines.append(number)
    if not rows:
        raise UnreadableFileError("holds no numbers", where=_shown(path))
    odd = next((i for i, row in enumerate(rows) if len(row) != len(rows[0])), None)
    if odd is not None:
        raise UnreadableFileError(
            "its rows differ in length",
            where=f"{_shown(path)}, line {lines[odd]}",
            found=f"{len(rows[odd])} numbers",
            expected=f"{len(rows[0])}, as in line {lines[0]}",
            todo="correct the file; decimal commas are not understood",
        )
    return np.array(rows)


def read_shapes(path: Path) -> Array | tuple[str, ...]:
    """Read the shapes of encodings: numbers, or words such as ``LTE``; one, or one per volume.

    Raises
    ------
    UnreadableFileError
        If it cannot be read, is empty, or mixes numbers and words.
    """
    words = [word for _, line in _lines(path) for word in line]
    if not words:
        raise UnreadableFileError("holds no encoding shapes", where=_shown(path))
    if all(word.isalpha() and word.lower() not in ("nan", "inf") for word in words):
        return tuple(words)
    return np.array([_number(word, path, 0) for word in words])


def read_tensors(path: Path) -> Array:
    """Read b-tensors from a NumPy file of shape (n, 3, 3) or a text file with nine columns.

    Returns
    -------
    ndarray, shape (n, 3, 3)

    Raises
    ------
    UnreadableFileError
        If it is neither.
    """
    if path.name.lower().endswith(".npy"):
        array = _load_numpy(path)
    else:
        array = read_matrix(path)
        if array.shape[1] == 9:
            array = array.reshape(-1, 3, 3)
    if array.ndim != 3 or array.shape[1:] != (3, 3):
        raise UnreadableFileError(
            "does not hold b-tensors",
            where=_shown(path),
            found=" x ".join(str(n) for n in array.shape),
            expected="n x 3 x 3 (NumPy), or nine columns (text)",
            todo="tensors of six elements have no agreed order; write all nine",
        )
    return array


def _load_numpy(path: Path) -> Array:
    content = read_small(path, limit=MAX_BYTES)
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "iuf":
            raise ValueError
        return array.astype(float)
    except (ValueError, EOFError, OSError, MemoryError, SyntaxError) as error:
        raise UnreadableFileError("is not a NumPy array of numbers", where=_shown(path)) from error


def write_matrix(path: Path, numbers: ArrayLike, *, digits: int = 8) -> None:
    """Write numbers as a text file that appears complete or not at all.

    Parameters
    ----------
    path : Path
    numbers : array_like, shape (rows, columns) or (columns,)
    digits : int
        Significant digits; eight keep the direction of a unit vector to 1e-8.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    rows = np.atleast_2d(np.asarray(numbers, dtype=float))
    # Adding zero turns -0 into 0.
    text = "\n".join(" ".join(f"{value + 0.0:.{digits}g}" for value in row) for row in rows)
    with appear_complete(path) as temporary:
        temporary.write_bytes((text + "\n").encode("ascii"))


def _lines(path: Path) -> Iterable[tuple[int, list[str]]]:
    """Yield number and words of each line that holds something."""
    try:
        content = read_small(path, limit=MAX_BYTES)
    except UnreadableFileError as error:
        raise UnreadableFileError(error.what, where=_shown(path), todo=error.todo) from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content[:4096]:
        raise UnreadableFileError(
            "is not a plain text file", where=_shown(path), todo="save it as UTF-8 text"
        )
    for number, line in enumerate(iter_lines(content.removeprefix(b"\xef\xbb\xbf")), start=1):
        text = line.strip()
        if text and not text.startswith(("#", "%")):
            yield number, text.translate(_SEPARATORS).split()


def _number(word: str, path: Path, line: int) -> float:
    # float() also takes underscores and digits of other scripts, which no gradient file means.
    if word.isascii() and "_" not in word:
        try:
            return float(word)
        except ValueError:
            pass
    raise UnreadableFileError(
        "holds something else than numbers",
        where=f"{_shown(path)}, line {line}" if line else _shown(path),
        found=repr(printable(word, limit=30)),
        todo="correct the file",
    )


def _shown(path: Path) -> str:
    return printable(path.name, limit=120)
