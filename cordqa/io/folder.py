"""Read a folder of images: the one entrance to everything that enters as DICOM or NIfTI.

What is read: MR images in DICOM (classic, and Enhanced multi-frame), and NIfTI with JSON
sidecars, anywhere below the folder, whatever the files are called.  Everything else is
counted.  A file that should be readable and is not costs only itself: it is reported with a
reason, and the rest is read.

A file ``phantom.yaml`` or ``phantom.json`` in the folder may give ``serial_number`` and
``temperature_C`` of the phantom, for scanners do not record them.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cordqa.errors import CordqaError, EmptyInputError, TooLargeError, UnreadableFileError
from cordqa.io.assemble import Decoded, build_set, decode_plans, plan_bytes
from cordqa.io.bids import Sidecars
from cordqa.io.files import check_folder, open_regular, printable, walk_folder
from cordqa.io.frames import Frame, Ignored
from cordqa.io.grouping import SetPlan, drop_copies, drop_surveys, drop_time_series, group_frames
from cordqa.io.limits import DEFAULT_LIMITS, ReadLimits
from cordqa.io.naming import name_sets
from cordqa.io.phantom_file import PhantomFacts, read_phantom_file
from cordqa.io.set_notices import list_some
from cordqa.records import ImageSet, Notice, Outcome, Severity, State

__all__ = ["ReadLimits", "Reading", "read_folder"]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a folder holds.

    Attributes
    ----------
    sets : tuple of ImageSet
        Images that can enter one fit, by time of acquisition.
    outcomes : tuple of Outcome
        One per file that could not be read and per set that was skipped, with the reason.
    notices : tuple of Notice
        What concerns the folder as a whole; what concerns a set stands in the set.
    ignored : mapping of str to int
        How many files (or frames) were passed over, by reason.
    n_files : int
        Files looked at.
    hints : mapping of str to str
        ``serial_number`` and ``temperature_C`` of the phantom, where a file gives them.
    """

    sets: tuple[ImageSet, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    notices: tuple[Notice, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)
    n_files: int = 0
    hints: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Work:
    """What accumulates while the files of a folder are looked at."""

    root: Path
    limits: ReadLimits
    show_identity: bool
    sidecars: Sidecars
    frames: list[Frame] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    irregular: list[str] = field(default_factory=list)
    facts: PhantomFacts = field(default_factory=PhantomFacts)

    def failed(self, source: str, error: CordqaError) -> None:
        name = printable(source)
        # What the error says about a place is dropped: it may be an absolute path.
        reason = type(error)(error.what, found=error.found, expected=error.expected, todo=error.todo)
        self.outcomes.append(
            Outcome(what=name, state=State.FAILED, reason=str(reason), code=error.code, sources=(name,))
        )

    def note(self, severity: Severity, code: str, message: str, where: str = "") -> None:
        self.notices.append(Notice(severity=severity, message=message, where=where, code=code))


def read_folder(path: Path, *, limits: ReadLimits = DEFAULT_LIMITS, show_identity: bool = False) -> Reading:
    """Read all images below a folder and sort them into sets.

    Parameters
    ----------
    path : Path
        Folder to read.
    limits : ReadLimits
        Bounds on files, pixels and memory, checked before memory is asked for.
    show_identity : bool
        Put PatientID into ``Entities.subject``.  Names, birth dates, institutions and free
        text are never kept.  (The subject label of a BIDS file name is a pseudonym, and part
        of the path; it is always kept.)

    Returns
    -------
    Reading
        The sets, and an account of every file that did not become part of one.

    Raises
    ------
    InputError
        If the folder does not exist, is not a folder, or may not be read.
    EmptyInputError
        If it holds no image that can be used.
    TooLargeError
        If it holds more files than the limit.
    """
    path = Path(path)
    check_folder(path)
    walk = walk_folder(path, limits=limits)
    if not walk.files:
        raise EmptyInputError(
            "holds no files", where=printable(str(path)), todo="give the folder that holds the images"
        )
    sidecars = Sidecars(path, limit=limits.max_sidecar_bytes)
    work = _Work(path, limits, show_identity, sidecars, ignored=walk.ignored)
    for folder in walk.unreadable:
        work.failed(folder, UnreadableFileError("the folder cannot be opened", todo="check the permissions"))
    with _quiet_libraries() as caught:
        _read_headers(work, walk.files, caught)
        sets = _make_sets(work)
    _note_irregular(work)
    if not sets:
        raise _nothing_usable(work, len(walk.files))
    hints = work.facts.hints()
    return Reading(
        tuple(sets),
        tuple(work.outcomes),
        tuple(work.notices),
        dict(sorted(work.ignored.items())),
        len(walk.files),
        hints,
    )


@contextmanager
def _quiet_libraries() -> Iterator[list[warnings.WarningMessage]]:
    """Collect the warnings of the format libraries, which may quote a header."""
    from pydicom import config

    before = config.settings.reading_validation_mode
    # Values are checked here where they are used; pydicom's own checks only cost time.
    config.settings.reading_validation_mode = config.IGNORE
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield caught
    finally:
        config.settings.reading_validation_mode = before


def _read_headers(work: _Work, sources: Sequence[str], caught: list[warnings.WarningMessage]) -> None:
    for source in sources:
        caught.clear()
        try:
            result = _read_one(work, source)
        except CordqaError as error:
            work.failed(source, error)
            continue
        if caught:
            work.irregular.append(printable(source))
        if isinstance(result, Ignored):
            work.ignored[result.why] += 1
        else:
            work.frames.extend(result)


def _read_one(work: _Work, source: str) -> list[Frame] | Ignored:
    """Read one file by what it is, or say why it is passed over."""
    name = source.rpartition("/")[2].lower()
    if name in ("phantom.yaml", "phantom.yml") and "/" in source:
        text = "only a phantom.yaml in the folder that was given is read; this one was passed over"
        work.note(Severity.WARNING, "phantom.misplaced", text, printable(source))
        return Ignored("phantom file in a subfolder")
    if source in ("phantom.yaml", "phantom.yml", "phantom.json"):
        facts = read_phantom_file(work.root / source, limit=work.limits.max_sidecar_bytes)
        _learn(work, facts, source)
        return []
    if name.endswith((".nii", ".nii.gz")):
        from cordqa.io.nifti import read_nifti

        frames, sidecar = read_nifti(work.root, source, limits=work.limits, sidecars=work.sidecars)
        _learn(work, PhantomFacts(sidecar.serial_number, math.nan), source)
        return frames
    if _looks_like_dicom(work.root / source):
        from cordqa.io.dicom import read_dicom

        return read_dicom(work.root, source, limits=work.limits, show_identity=work.show_identity)
    if name.endswith((".json", ".bval", ".bvec", ".tsv")):
        return Ignored("sidecar or table")
    return Ignored("neither DICOM nor NIfTI")


def _looks_like_dicom(path: Path) -> bool:
    """Tell by the first bytes; files without preamble begin with group 0002 or 0008."""
    file, size = open_regular(path)
    with file:
        try:
            head = file.read(132)
        except OSError as error:
            raise UnreadableFileError(f"cannot be read: {error.strerror}") from error
    if head[128:132] == b"DICM":
        return True
    if len(head) < 16 or head[:2] not in (b"\x02\x00", b"\x08\x00") or head[3] != 0:
        return False
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    return explicit or int.from_bytes(head[4:8], "little") < min(size, 256)


def _learn(work: _Work, facts: PhantomFacts, source: str) -> None:
    """Merge what a file says about the phantom; contradictions are said, the first one stays."""
    merged, contradictions = work.facts.merge(facts)
    work.facts = merged
    for text in contradictions:
        message = f"{text}; the first one is used: give it as an option to be sure"
        if all(notice.message != message for notice in work.notices):
            work.note(Severity.WARNING, "phantom.contradiction", message, printable(source))
    for text in facts.problems:
        work.note(Severity.WARNING, "phantom.file", text, printable(source))


def _note_several_objects(work: _Work) -> None:
    """Say when identifiers differ: weekly scans of one phantom often carry several, two phantoms do too."""
    count = len({frame.patient_key for frame in work.frames if frame.patient_key})
    if count > 1:
        message = (
            f"the files carry {count} different patient identifiers and are taken as scans of one object; "
            "put different objects into folders of their own"
        )
        work.note(Severity.WARNING, "read.several-objects", message)


def _make_sets(work: _Work) -> list[ImageSet]:
    frames = work.frames
    _note_several_objects(work)
    for drop, why in (
        (drop_copies, "copy of another file"),
        (drop_surveys, "localizer (several orientations in one series)"),
        (drop_time_series, "time series (one image repeated many times)"),
    ):
        frames, count = drop(frames)
        if count:
            work.ignored[why] += count
    while frames:
        plans = _within_memory(work, group_frames(frames))
        decoded, failures = decode_plans(plans)
        if not failures:
            return _finish(work, plans, decoded)
        # A file that cannot be decoded may change what is complete: sort again without it.
        for source, error in failures.items():
            work.failed(source, error)
        frames = [f for f in frames if f.file.source not in failures]
        del decoded  # before as much is asked for again
    return []


def _within_memory(work: _Work, plans: list[SetPlan]) -> list[SetPlan]:
    kept, total = [], 0
    work.outcomes = [o for o in work.outcomes if o.state is not State.SKIPPED]
    names = name_sets(plans)
    for plan, name in zip(plans, names, strict=True):
        size = plan_bytes(plan)
        if total + size > work.limits.max_total_bytes:
            sources = tuple(dict.fromkeys(f.name for i in plan.stack.images for f in i))
            work.outcomes.append(
                Outcome(
                    what=name.label,
                    state=State.SKIPPED,
                    reason=f"the images of the folder need more memory than the limit of "
                    f"{work.limits.max_total_bytes} bytes; give a smaller folder",
                    code=TooLargeError.code,
                    sources=sources,
                )
            )
            continue
        kept.append(plan)
        total += size
    return kept


def _finish(work: _Work, plans: Sequence[SetPlan], decoded: Sequence[Decoded]) -> list[ImageSet]:
    names = name_sets(plans)
    temperature = work.facts.temperature_C
    return [
        build_set(plan, pixels, name, temperature_C=temperature)
        for plan, pixels, name in zip(plans, decoded, names, strict=True)
    ]


def _note_irregular(work: _Work) -> None:
    if work.irregular:
        message = f"{len(work.irregular)} file(s) do not follow the standard in details"
        message += f" ({list_some(work.irregular)})"
        work.note(Severity.INFO, "header.irregular", message)


def _nothing_usable(work: _Work, n_files: int) -> EmptyInputError:
    parts = [f"{count} {why}" for why, count in sorted(work.ignored.items())]
    failed = [o for o in work.outcomes if o.state is State.FAILED]
    if failed:
        parts.append(f"{len(failed)} not readable, first {failed[0].what}: {failed[0].reason}")
    skipped = [o for o in work.outcomes if o.state is State.SKIPPED]
    parts += [f"{len(skipped)} set(s) skipped: {skipped[0].reason}"] if skipped else []
    return EmptyInputError(
        "holds no MR image that can be used",
        where=printable(str(work.root)),
        found=f"{n_files} file(s): {'; '.join(parts)}",
        todo="give the folder with the original DICOM images, or NIfTI with JSON sidecars",
    )
