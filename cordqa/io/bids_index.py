"""Index a BIDS dataset by walking its folders once.

Only the folders that BIDS knows are entered (``sub-*``, ``ses-*``, data types, and the same below
``derivatives/``), so links cannot lead the walk in circles and ``sourcedata`` costs nothing.
Nothing is opened but ``.bidsignore`` and ``participants.tsv``; sidecars are read when asked for.
"""

from __future__ import annotations

import csv
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cordqa.errors import InputError, TooLargeError
from cordqa.io.bids import Sidecars
from cordqa.io.bids_ignore import Ignore
from cordqa.io.bids_names import entity_key, parse_name
from cordqa.io.files import check_folder, iter_lines, printable, read_small
from cordqa.records import Notice, Severity

__all__ = ["BidsFile", "BidsIndex", "index_dataset"]

MAX_FILES = 1_000_000
_MAX_TABLE_BYTES = 64 * 1024 * 1024
_MAX_SIDECAR_BYTES = 2 * 1024 * 1024
_MAX_SHOWN = 5
_OTHER_NAME = "names that are not BIDS"
_LOST_IMAGE = "images of participants whose names are not BIDS"
_IMAGES = (".nii.gz", ".nii")
#: What may lie at the top of a dataset and speak for the images below.
_INHERITED = (".json", ".bval", ".bvec")
_NOT_INHERITED = ("dataset_description.json", "participants.json", "genetic_info.json")


@dataclass(frozen=True, slots=True)
class BidsFile:
    """One file of a dataset.

    Attributes
    ----------
    root : Path
        Folder of the dataset, or of the derivative, that it belongs to.
    relative : str
        Path below ``root``, with ``/``.
    entities : mapping
        Value by key of file names (``sub``, ``acq``, ``mt``).
    suffix, source_suffix, extension : str
        ``mask``, ``T2w`` and ``.nii.gz`` of ``sub-01_T2w_label-SC_mask.nii.gz``.
    datatype : str
        Folder that it lies in (``anat``, ``dwi``).
    derivative : str
        Name of the derivative (``labels``); empty for raw data.
    """

    root: Path
    relative: str
    entities: Mapping[str, str]
    suffix: str
    source_suffix: str
    extension: str
    datatype: str
    derivative: str

    @property
    def path(self) -> Path:
        """Path of the file."""
        return self.root / self.relative

    @property
    def name(self) -> str:
        """Name of the file without its folder."""
        return self.relative.rpartition("/")[2]

    @property
    def subject(self) -> str:
        """Participant label without ``sub-``."""
        return self.entities.get("sub", "")

    @property
    def session(self) -> str:
        """Session label without ``ses-``; empty where there is none."""
        return self.entities.get("ses", "")

    @property
    def is_image(self) -> bool:
        """Whether it is a NIfTI image."""
        return self.extension in _IMAGES


@dataclass(slots=True)
class BidsIndex:
    """What a dataset holds.

    Attributes
    ----------
    root : Path
    files : tuple of BidsFile
        Sorted by derivative and path; raw data first.
    participants : mapping
        Row of ``participants.tsv`` by subject label, without ``n/a`` cells.
    notices : tuple of Notice
        What was passed over and why.
    """

    root: Path
    files: tuple[BidsFile, ...]
    participants: Mapping[str, Mapping[str, str]]
    notices: tuple[Notice, ...]
    _by_suffix: dict[str, list[BidsFile]] = field(default_factory=dict, repr=False)
    _by_subject: dict[str, list[BidsFile]] = field(default_factory=dict, repr=False)
    _sidecars: dict[Path, Sidecars] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        suffixes: dict[str, list[BidsFile]] = defaultdict(list)
        subjects: dict[str, list[BidsFile]] = defaultdict(list)
        for file in self.files:
            suffixes[file.suffix].append(file)
            subjects[file.subject].append(file)
        self._by_suffix, self._by_subject = dict(suffixes), dict(subjects)

    @property
    def subjects(self) -> tuple[str, ...]:
        """Labels of the participants with raw data, sorted."""
        return tuple(sorted({file.subject for file in self.files if not file.derivative and file.subject}))

    def sessions(self, subject: str) -> tuple[str, ...]:
        """Session labels of one participant's raw data; one empty label where there are no sessions."""
        files = self._by_subject.get(subject, [])
        return tuple(sorted({file.session for file in files if not file.derivative}))

    def find(
        self,
        *,
        suffix: str | Sequence[str] | None = None,
        extension: str | Sequence[str] | None = _IMAGES,
        datatype: str | None = None,
        derivative: str | None = "",
        **entities: str | None,
    ) -> tuple[BidsFile, ...]:
        """Find files.

        Parameters
        ----------
        suffix : str or sequence of str, optional
            ``"T2w"``; several are alternatives.
        extension : str or sequence of str, optional
            Images by default; ``None`` for any.
        datatype : str, optional
            ``"anat"`` or ``"dwi"``.
        derivative : str, optional
            Raw data by default (empty); a name; ``None`` for raw data and all derivatives.
        **entities : str or None
            By word or by key (``subject="01"``, ``mt="on"``); ``None`` asks for files without it.

        Raises
        ------
        ConfigError
            If an entity is not known.
        """
        wanted = {entity_key(name): value for name, value in entities.items()}
        suffixes = (suffix,) if isinstance(suffix, str) else suffix
        extensions = (extension,) if isinstance(extension, str) else extension
        return tuple(
            file
            for file in self._candidates(suffixes, wanted.get("sub"))
            if (suffixes is None or file.suffix in suffixes)
            and (extensions is None or file.extension in extensions)
            and (datatype is None or file.datatype == datatype)
            and (derivative is None or file.derivative == derivative)
            and all(file.entities.get(key) == value for key, value in wanted.items())
        )

    def _candidates(self, suffixes: Sequence[str] | None, subject: str | None) -> Iterable[BidsFile]:
        if subject is not None:
            return self._by_subject.get(subject, [])
        if suffixes is not None and len(suffixes) == 1:
            return self._by_suffix.get(suffixes[0], [])
        return self.files

    def sidecar(self, file: BidsFile) -> dict[str, Any]:
        """Return what the JSON sidecars say of a file, nearer ones over farther ones.

        A sidecar applies where it lies in the folder of the file or above it, has the same suffix
        and no entity that the file has not.  Empty where there is none.

        Raises
        ------
        UnreadableFileError
            If one of them is not valid JSON.
        """
        sidecars = self._sidecars.get(file.root)
        if sidecars is None:
            sidecars = self._sidecars[file.root] = Sidecars(file.root, limit=_MAX_SIDECAR_BYTES)
        return sidecars.of(file.relative) or {}

    def companion(self, file: BidsFile, extension: str) -> BidsFile | None:
        """Return the file of another extension that applies to an image (``.bval``, ``.bvec``).

        The nearest folder wins, and in it the file with most entities.
        """
        own = file.entities.items()
        folder = file.relative.rpartition("/")[0]
        best: tuple[int, int, BidsFile] | None = None
        for other in (*self._by_subject.get(file.subject, ()), *self._by_subject.get("", ())):
            place = other.relative.rpartition("/")[0]
            if (
                other.extension == extension
                and (other.suffix, other.source_suffix) == (file.suffix, file.source_suffix)
                and other.root == file.root
                and (place in ("", folder) or folder.startswith(f"{place}/"))
                and other.entities.items() <= own
            ):
                rank = (len(place), len(other.entities))
                if best is None or rank > best[:2]:
                    best = (*rank, other)
        return best[2] if best else None


def index_dataset(root: Path, *, derivatives: Sequence[Path] = (), max_files: int = MAX_FILES) -> BidsIndex:
    """Index a BIDS dataset and its derivatives.

    Results of cordqa below ``derivatives/`` are no masks of the user: they are passed over unless
    their folder is named in ``derivatives``.

    Parameters
    ----------
    root : Path
        Folder that holds ``sub-*``.
    derivatives : sequence of Path
        Further folders of derivatives, each named after its last part.
    max_files : int
        More than this is refused.

    Raises
    ------
    InputError
        If it is not a folder, or holds no participant.
    TooLargeError
        If it holds more files than ``max_files``.
    """
    check_folder(root)
    walk = _Walk(max_files=max_files, ignore=_read_ignore(root))
    walk.dataset(root, "")
    inner = root / "derivatives"
    for folder in _pipelines(inner):
        if _is_own_output(folder):
            walk.ignore_output(folder.relative_to(root).as_posix())
        else:
            walk.dataset(folder, "derivatives" if folder == inner else folder.name)
    for folder in derivatives:
        check_folder(folder)
        walk.dataset(folder, folder.name)
    if not any(file.subject and not file.derivative for file in walk.files):
        raise InputError(
            "is not a BIDS dataset: it holds no image of a participant",
            where=printable(str(root)),
            expected="folders named sub-LABEL with images",
            todo="give the folder that holds the sub-* folders",
        )
    walk.files.sort(key=lambda file: (file.derivative, file.relative))
    participants, notices = _read_participants(root)
    return BidsIndex(root, tuple(walk.files), participants, (*walk.notices(), *notices))


@dataclass(slots=True)
class _Walk:
    max_files: int
    ignore: Ignore
    files: list[BidsFile] = field(default_factory=list)
    passed_over: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def dataset(self, root: Path, derivative: str) -> None:
        """Index one dataset: the files at its top, and those of its participants."""
        seen: set[tuple[int, int]] = set()
        for entry in self._list(root, ""):
            if entry.name.startswith("sub-") and self._is_folder(entry):
                if "_" in entry.name:
                    self._pass_over("labels of participants are letters and digits alone", entry.name)
                elif self._is_new(entry, seen):
                    before = len(self.files), sum(map(len, self.passed_over.values()))
                    self._subject(root, entry.name, derivative)
                    if before == (len(self.files), sum(map(len, self.passed_over.values()))):
                        self._pass_over("folders of participants without any file", entry.name)
            elif entry.name.endswith(_INHERITED) and entry.name not in _NOT_INHERITED:
                self._file(root, entry, "", "", "", derivative)

    def _subject(self, root: Path, subject: str, derivative: str) -> None:
        for entry in self._list(root, subject):
            if not self._is_folder(entry):
                self._file(root, entry, subject, subject, "", derivative)
            elif entry.name.startswith("ses-"):
                session = f"{subject}/{entry.name}"
                for inner in self._list(root, session):
                    if self._is_folder(inner):
                        self._datatype(root, session, inner.name, subject, derivative)
                    else:
                        self._file(root, inner, session, subject, "", derivative)
            else:
                self._datatype(root, subject, entry.name, subject, derivative)

    def _datatype(self, root: Path, folder: str, name: str, subject: str, derivative: str) -> None:
        for entry in self._list(root, f"{folder}/{name}"):
            if self._is_folder(entry):
                self._pass_over("folders below a data type", f"{folder}/{name}/{entry.name}")
            else:
                self._file(root, entry, f"{folder}/{name}", subject, name, derivative)

    def _file(
        self,
        root: Path,
        entry: os.DirEntry[str],
        folder: str,
        subject: str,
        datatype: str,
        derivative: str,
    ) -> None:
        relative = f"{folder}/{entry.name}" if folder else entry.name
        if entry.name.startswith("."):
            return
        if self.ignore and not derivative and self.ignore.matches(relative):
            self._pass_over("ignored by .bidsignore", relative)
            return
        name = parse_name(entry.name)
        if name is None:
            # A misspelt image is a scan that would be missing from the study without anybody noticing.
            lost = subject and not derivative and entry.name.lower().endswith((".nii", ".nii.gz"))
            self._pass_over(_LOST_IMAGE if lost else _OTHER_NAME, relative)
            return
        found = name.entities.get("sub", "")
        if subject and found != subject.removeprefix("sub-"):
            self._pass_over("files of another participant than their folder", relative)
            return
        session = folder.split("/")[1].removeprefix("ses-") if "/ses-" in folder else ""
        if session and name.entities.get("ses", "") != session:
            self._pass_over("files of another session than their folder", relative)
            return
        if len(self.files) >= self.max_files:
            raise TooLargeError(
                "holds too many files", where=printable(str(root)), expected=f"at most {self.max_files}"
            )
        self.files.append(
            BidsFile(
                root,
                relative,
                name.entities,
                name.suffix,
                name.source_suffix,
                name.extension,
                datatype,
                derivative,
            )
        )

    def _list(self, root: Path, folder: str) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(root / folder) as entries:
                yield from sorted(entries, key=lambda entry: entry.name)
        except (OSError, ValueError):
            self._pass_over("folders that cannot be opened", folder or str(root))

    def _is_folder(self, entry: os.DirEntry[str]) -> bool:
        try:
            return entry.is_dir()
        except OSError:  # a link that leads to itself
            return False

    def _is_new(self, entry: os.DirEntry[str], seen: set[tuple[int, int]]) -> bool:
        """Refuse a participant's folder that is a link to another one: it would count twice."""
        try:
            status = entry.stat()
        except OSError:
            return False
        key = (status.st_dev, status.st_ino)
        if key in seen:
            self._pass_over("participants that are links to another one", entry.name)
            return False
        seen.add(key)
        return True

    def ignore_output(self, relative: str) -> None:
        """Pass over results of cordqa: taken for masks of the user they would answer the next run."""
        self._pass_over("results of cordqa are ignored as masks (name the folder to use them)", relative)

    def _pass_over(self, why: str, relative: str) -> None:
        self.passed_over[why].append(relative)

    def notices(self) -> Iterator[Notice]:
        """Say what was passed over, with a few examples of each kind."""
        for why, paths in sorted(self.passed_over.items()):
            examples = ", ".join(printable(path, limit=120) for path in paths[:_MAX_SHOWN])
            more = f" and {len(paths) - _MAX_SHOWN} more" if len(paths) > _MAX_SHOWN else ""
            severity = Severity.INFO if "ignore" in why or why == _OTHER_NAME else Severity.WARNING
            yield Notice(
                severity=severity, message=f"passed over, {why}: {examples}{more}", code="bids.passed-over"
            )


def _pipelines(folder: Path) -> list[Path]:
    """Return the derivatives below ``derivatives/``; the folder itself where it holds participants."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())
    except OSError:
        return []
    found = [folder / name for name in names if not name.startswith("sub-")]
    return [folder, *found] if any(name.startswith("sub-") for name in names) else found


def _is_own_output(folder: Path) -> bool:
    """Tell whether cordqa wrote a folder of derivatives, by its description."""
    try:
        content = json.loads(read_small(folder / "dataset_description.json", limit=_MAX_SIDECAR_BYTES))
    except (InputError, ValueError, RecursionError):
        return False
    makers = content.get("GeneratedBy") if isinstance(content, dict) else None
    first = makers[0] if isinstance(makers, list) and makers else None
    return isinstance(first, dict) and first.get("Name") == "cordqa"


def _read_ignore(root: Path) -> Ignore:
    path = root / ".bidsignore"
    if not path.is_file():
        return Ignore(())
    try:
        return Ignore(iter_lines(read_small(path, limit=_MAX_SIDECAR_BYTES)))
    except InputError:
        return Ignore(())


def _read_participants(root: Path) -> tuple[dict[str, dict[str, str]], tuple[Notice, ...]]:
    """Read ``participants.tsv``; what is wrong with it is said and does not stop the study."""
    path = root / "participants.tsv"
    if not path.is_file():
        return {}, ()
    try:
        lines = list(iter_lines(read_small(path, limit=_MAX_TABLE_BYTES).removeprefix(b"\xef\xbb\xbf")))
    except InputError as error:
        return {}, (_participant_notice(f"cannot be used: {error.what}"),)
    rows = list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    header = [cell.strip() for cell in rows[0]] if rows else []
    if "participant_id" not in header:
        return {}, (_participant_notice("has no column participant_id, so it is not used"),)
    if len(set(header)) != len(header):
        return {}, (_participant_notice("names a column twice, so it is not used"),)
    return _participant_rows(header, rows[1:])


def _participant_rows(
    header: list[str], rows: list[list[str]]
) -> tuple[dict[str, dict[str, str]], tuple[Notice, ...]]:
    participants: dict[str, dict[str, str]] = {}
    repeated, broken = [], 0
    for row in rows:
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            broken += 1
            continue
        cells = {name: cell.strip() for name, cell in zip(header, row, strict=True)}
        label = cells.pop("participant_id").removeprefix("sub-")
        if label in participants:
            repeated.append(label)
            continue
        participants[label] = {k: v for k, v in cells.items() if v and v.casefold() != "n/a"}
    notices = []
    if repeated:
        names = printable(", ".join(repeated[:_MAX_SHOWN]))
        notices.append(_participant_notice(f"names participants twice; the first row is used: {names}"))
    if broken:
        notices.append(
            _participant_notice(f"has {broken} rows that do not fit the header; they are not used")
        )
    return participants, tuple(notices)


def _participant_notice(message: str) -> Notice:
    return Notice(
        severity=Severity.WARNING, message=message, where="participants.tsv", code="bids.participants"
    )
