"""Find the Spinal Cord Toolbox and say which of its pieces are there.

The toolbox lives in its own Python environment, so it is only ever called as a program.  Every
piece is taken from one folder: programs of one version never meet the template of another.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cordqa.engines.errors import EngineUnavailableError
from cordqa.engines.protocol import Capability, Step

__all__ = ["DEEPSEG_MODELS", "Rejected", "Search", "Toolbox", "find_toolbox", "list_pieces", "search_toolbox"]

OPTION_VARIABLE = "CORDQA_SCT_DIR"
TOOLBOX_VARIABLE = "SCT_DIR"
_VERSION_FILE = Path("spinalcordtoolbox", "version.txt")
_TEMPLATE = Path("data", "PAM50")
_TEMPLATE_FILE = _TEMPLATE / "template" / "info_label.txt"
_ATLAS_FILE = _TEMPLATE / "atlas" / "info_label.txt"
_MODELS = Path("data", "deepseg_models")
_PROGRAM_FOLDERS = (Path("bin"), Path("python", "envs", "venv_sct", "bin"))
_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")
_MAX_LINK_BYTES = 64 * 1024
#: Folder of the model behind each ``sct_deepseg`` task that is used (spinalcordtoolbox/deepseg/models.py).
DEEPSEG_MODELS: Mapping[str, str] = {
    "spinalcord": "model_seg_sc_contrast_agnostic_nnunet",
    "graymatter": "model_seg_gm_contrast_region_agnostic",
}
#: ``sct_deepseg TASK`` replaced ``sct_deepseg -task`` in this version; the old form ends with status 0.
DEEPSEG_SUBCOMMANDS = (7, 0, 0)
_STEP_PROGRAMS: Mapping[Step, tuple[str, ...]] = {
    Step.LABEL_LEVELS: ("sct_label_vertebrae",),
    Step.REGISTER_TEMPLATE: ("sct_register_to_template",),
    Step.WARP_TEMPLATE: ("sct_warp_template",),
    Step.COREGISTER: ("sct_register_multimodal",),
    Step.MOTION_CORRECT: ("sct_dmri_moco",),
    Step.DTI: ("sct_dmri_compute_dti",),
    Step.MTR: ("sct_compute_mtr",),
    Step.MTSAT: ("sct_compute_mtsat",),
    Step.MORPHOMETRY: ("sct_process_segmentation",),
    Step.EXTRACT: ("sct_extract_metric",),
}
_REGISTRATION = ("isct_antsRegistration", "isct_antsApplyTransforms", "isct_ComposeMultiTransform")
_STEP_BINARIES: Mapping[Step, tuple[str, ...]] = {
    Step.REGISTER_TEMPLATE: _REGISTRATION,
    Step.WARP_TEMPLATE: ("isct_antsApplyTransforms",),
    Step.COREGISTER: (*_REGISTRATION, "isct_antsSliceRegularizedRegistration"),
    Step.MOTION_CORRECT: ("isct_antsSliceRegularizedRegistration", "isct_antsApplyTransforms"),
}
_NEEDS_TEMPLATE = (Step.REGISTER_TEMPLATE, Step.WARP_TEMPLATE)


@dataclass(frozen=True, slots=True)
class Toolbox:
    """One installation.

    Attributes
    ----------
    root : Path
        Folder that holds ``spinalcordtoolbox/`` and ``data/``.
    programs : Path
        Folder of the ``sct_*`` programs.
    version : str
        Content of ``version.txt``; for example ``7.3`` or ``7.4.dev0``.
    found_by : str
        How it was found, for people.
    """

    root: Path
    programs: Path
    version: str
    found_by: str

    @property
    def template(self) -> Path:
        """Folder of the PAM50 template, which may be absent."""
        return self.root / _TEMPLATE

    @property
    def has_template(self) -> bool:
        """Whether the PAM50 template with its atlas is installed."""
        return (self.root / _TEMPLATE_FILE).is_file() and (self.root / _ATLAS_FILE).is_file()

    @property
    def release(self) -> tuple[int, int, int]:
        """Version as numbers; zeros where ``version.txt`` holds something else."""
        match = _VERSION.match(self.version)
        return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else (0, 0, 0)

    def program(self, name: str) -> Path | None:
        """Return the path of one ``sct_*`` program, or ``None``."""
        path = self.programs / name
        return path if _is_program(path) else None

    def has_binary(self, name: str) -> bool:
        """Tell whether one ``isct_*`` binary is there; the toolbox takes them from ``bin/`` only."""
        return _is_program(self.root / "bin" / name)

    def has_model(self, task: str) -> bool:
        """Tell whether the model of a ``sct_deepseg`` task is installed, so that none is downloaded."""
        folder = self.root / _MODELS / DEEPSEG_MODELS[task]
        try:
            return folder.is_dir() and any(folder.iterdir())
        except OSError:
            return False


@dataclass(frozen=True, slots=True)
class Rejected:
    """A place that was looked at, and why it was not used."""

    place: str
    reason: str


@dataclass(frozen=True, slots=True)
class Search:
    """What the search for the toolbox found."""

    toolbox: Toolbox | None
    rejected: tuple[Rejected, ...]

    def sentence(self) -> str:
        """Say for people why there is no toolbox."""
        return "; ".join(f"{item.place}: {item.reason}" for item in self.rejected)


def search_toolbox(option: Path | None = None, *, environ: Mapping[str, str] | None = None) -> Search:
    """Look for the toolbox by option, ``CORDQA_SCT_DIR``, ``SCT_DIR``, PATH and the home folder.

    A folder that the user named for cordqa (the option or ``CORDQA_SCT_DIR``) is used or refused;
    nothing else is taken in its stead.

    Parameters
    ----------
    option : Path, optional
        Folder given on the command line.
    environ : mapping, optional
        Environment; that of the process by default.
    """
    environ = os.environ if environ is None else environ
    rejected: list[Rejected] = []
    for place, root, programs, final in _candidates(option, environ):
        found = _examine(root, programs, place)
        if isinstance(found, Toolbox):
            return Search(found, tuple(rejected))
        rejected.append(Rejected(f"{place} ({root})", found))
        if final:
            break
    if not rejected:
        rejected.append(
            Rejected(
                "search", f"neither {OPTION_VARIABLE} nor {TOOLBOX_VARIABLE} is set, no sct_version on PATH"
            )
        )
    return Search(None, tuple(rejected))


def find_toolbox(option: Path | None = None, *, environ: Mapping[str, str] | None = None) -> Toolbox:
    """Find the toolbox or say where it was looked for.

    Raises
    ------
    EngineUnavailableError
        If there is none.
    """
    search = search_toolbox(option, environ=environ)
    if search.toolbox is None:
        raise EngineUnavailableError(
            "the Spinal Cord Toolbox was not found",
            where="engine sct",
            found=search.sentence(),
            todo=f"install it, set {OPTION_VARIABLE} to its folder, or use the built-in engine",
        )
    return search.toolbox


def list_pieces(toolbox: Toolbox) -> tuple[Capability, ...]:
    """Say for each step whether all that it needs is installed."""
    pieces = [_segmentation(toolbox, Step.SEGMENT_CORD), _segmentation(toolbox, Step.SEGMENT_GREY_MATTER)]
    for step, programs in _STEP_PROGRAMS.items():
        missing = [name for name in programs if toolbox.program(name) is None]
        missing += [name for name in _STEP_BINARIES.get(step, ()) if not toolbox.has_binary(name)]
        if step in _NEEDS_TEMPLATE and not toolbox.has_template:
            missing.append("the PAM50 template and atlas")
        pieces.append(_capability(step, missing))
    return tuple(pieces)


def _capability(step: Step, missing: list[str]) -> Capability:
    if not missing:
        return Capability(step=step, available=True)
    template = any("PAM50" in name for name in missing)
    todo = "run: sct_download_data -d PAM50" if template else "install the Spinal Cord Toolbox again"
    return Capability(step=step, available=False, reason=f"missing: {', '.join(missing)}", todo=todo)


def _segmentation(toolbox: Toolbox, step: Step) -> Capability:
    """Segmentation has two ways: a network that must be installed, or an older program."""
    task = "spinalcord" if step is Step.SEGMENT_CORD else "graymatter"
    reasons = []
    if toolbox.release < DEEPSEG_SUBCOMMANDS:
        reasons.append(f"sct_deepseg {task} needs version 7.0 or newer, this is {toolbox.version}")
    elif toolbox.program("sct_deepseg") is None:
        reasons.append("missing: sct_deepseg")
    elif not toolbox.has_model(task):
        reasons.append(f"the model {DEEPSEG_MODELS[task]} is not installed")
    else:
        return Capability(step=step, available=True)
    if step is Step.SEGMENT_CORD:
        names = [n for n in ("isct_propseg", "isct_spine_detect") if not toolbox.has_binary(n)]
        names += [] if toolbox.program("sct_propseg") else ["sct_propseg"]
        if not names:
            return Capability(step=step, available=True, reason=f"by sct_propseg; {reasons[0]}")
        reasons.append(f"sct_propseg lacks {', '.join(names)}")
    return Capability(
        step=step, available=False, reason="; ".join(reasons), todo=f"run: sct_deepseg {task} -install"
    )


def _candidates(
    option: Path | None, environ: Mapping[str, str]
) -> Iterator[tuple[str, Path, Path | None, bool]]:
    """Yield (how it is named, root, folder of programs if known, whether to stop after it)."""
    programs = _programs_on_path(environ)
    if option is not None:
        yield "option", option, programs, True
        return
    if environ.get(OPTION_VARIABLE):
        yield OPTION_VARIABLE, Path(environ[OPTION_VARIABLE]), programs, True
        return
    if environ.get(TOOLBOX_VARIABLE):
        yield TOOLBOX_VARIABLE, Path(environ[TOOLBOX_VARIABLE]), programs, False
    if programs is not None:
        yield "PATH", _root_of(programs) or programs, programs, False
    for root in _home_folders(environ):
        yield "home folder", root, None, False


def _programs_on_path(environ: Mapping[str, str]) -> Path | None:
    found = shutil.which("sct_version", path=environ.get("PATH", ""))
    return Path(found).parent if found else None


def _home_folders(environ: Mapping[str, str]) -> list[Path]:
    home = environ.get("HOME", "")
    try:
        return sorted(Path(home).glob("sct_*"), reverse=True) if home else []
    except (OSError, ValueError):
        return []


def _root_of(programs: Path) -> Path | None:
    """Find the folder of the toolbox from that of its programs: above it, or linked by its Python."""
    try:
        real = (programs / "sct_version").resolve()
    except (OSError, RuntimeError):
        return None
    for folder in (*real.parents, *programs.parents):
        if (folder / _VERSION_FILE).is_file():
            return folder
    return next((root for root in _linked_folders(programs.parent) if (root / _VERSION_FILE).is_file()), None)


def _linked_folders(environment: Path) -> Iterator[Path]:
    """Yield the folders that a Python environment links to (``pip install -e``)."""
    for pattern in ("lib/python3*/site-packages/*.pth", "lib/python3*/site-packages/*.egg-link"):
        for link in sorted(environment.glob(pattern)):
            try:
                with link.open(encoding="utf-8", errors="replace") as stream:
                    text = stream.read(_MAX_LINK_BYTES)
            except OSError:
                continue
            yield from (Path(line.strip()) for line in text.splitlines() if line.strip().startswith("/"))


def _examine(root: Path, programs: Path | None, place: str) -> Toolbox | str:
    """Return the installation in ``root``, or why there is none."""
    try:
        root = root.expanduser().resolve()
        if not root.is_dir():
            return "is not a folder"
        version = _read_version(root)
        if not version:
            return f"has no {_VERSION_FILE}, so it is not a Spinal Cord Toolbox"
        folder = _program_folder(root, programs)
    except (OSError, ValueError, RuntimeError) as error:
        return f"cannot be used: {getattr(error, 'strerror', None) or error}"
    if folder is None:
        return "has no sct_* programs in bin/; its installation did not finish"
    return Toolbox(root=root, programs=folder, version=version, found_by=place)


def _program_folder(root: Path, programs: Path | None) -> Path | None:
    """Find the programs in ``root``, or in an environment that is linked to it and to no other."""
    for folder in _PROGRAM_FOLDERS:
        if _is_program(root / folder / "sct_version"):
            return root / folder
    if programs is not None and (owner := _root_of(programs)) is not None and owner.resolve() == root:
        return programs
    return None


def _read_version(root: Path) -> str:
    path = root / _VERSION_FILE
    if not path.is_file():
        return ""
    with path.open(encoding="utf-8", errors="replace") as stream:
        return " ".join(stream.read(200).split())


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
