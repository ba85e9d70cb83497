"""How a step of the toolbox is run: in a fresh folder, checked, and only then kept.

Programs write under fixed names and pick up what an earlier call left, so each gets a folder of its
own; a killed run leaves nothing that looks finished.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

from cordqa.engines.errors import EngineUnavailableError
from cordqa.engines.grids import Grid, check_image
from cordqa.engines.protocol import EngineRun, Step, hash_inputs
from cordqa.engines.sct.commands import Command
from cordqa.engines.sct.locate import Toolbox, list_pieces
from cordqa.engines.sct.run import run_command
from cordqa.engines.sct.tables import SctTable, read_table
from cordqa.errors import OutputError

__all__ = ["Runner", "keep", "text_of"]


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs the programs of one installation.

    Parameters
    ----------
    toolbox : Toolbox
    timeout_s : float
        Limit of each program, seconds of wall clock.
    threads : int
        Threads of its registrations; 1 makes them reproducible.
    quality : Path or None
        Folder in which the programs themselves build their page of quality control.
    """

    toolbox: Toolbox
    timeout_s: float = 3600.0
    threads: int = 1
    quality: Path | None = None
    _hashes: dict[tuple[str, int, int], str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def quality_folder(self) -> str | None:
        """Folder of the page of quality control in full, None where none is wanted."""
        return text_of(self.quality)

    @property
    def version(self) -> str:
        """Version of the toolbox."""
        return self.toolbox.version

    @contextlib.contextmanager
    def scratch(self, workdir: Path) -> Iterator[Path]:
        """Make a fresh folder in which one step runs, and remove it whatever happens."""
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(dir=workdir, prefix=".sct-")).resolve()
        except OSError as error:
            raise OutputError(
                f"cannot be written: {error.strerror or error}", where=str(workdir), todo="free some space"
            ) from error
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def need(self, step: Step) -> None:
        """Refuse a step whose pieces are missing, before any work (and any download) begins."""
        piece = next(p for p in list_pieces(self.toolbox) if p.step is step)
        if not piece.available:
            raise EngineUnavailableError(
                f"cannot {step}" if step.startswith(("segment", "label")) else f"{step} is not available",
                where=f"Spinal Cord Toolbox {self.version}",
                found=piece.reason,
                todo=piece.todo,
            )

    def run(self, command: Command, scratch: Path, workdir: Path) -> EngineRun:
        """Run one program in the scratch folder; its log goes to the working folder."""
        inputs = [scratch / name for name in command.inputs if (scratch / name).is_file()]
        return run_command(
            command,
            self.toolbox,
            folder=scratch,
            timeout_s=self.timeout_s,
            log=workdir / "logs" / f"{command.program}-{_digest(command)}.log",
            threads=self.threads,
            hashes={str(path): self.hash(path) for path in inputs if path.parent != scratch},
        )

    def hash(self, path: Path) -> str:
        """Hash a file once; the same image enters many steps."""
        status = path.stat()
        key = (str(path), status.st_size, status.st_mtime_ns)
        if key not in self._hashes:
            self._hashes[key] = hash_inputs([path])[str(path)]
        return self._hashes[key]

    def maps(
        self, command: Command, workdir: Path, grid: Grid, roles: Mapping[str, str]
    ) -> tuple[dict[str, Path], EngineRun]:
        """Run a program that writes maps on one grid; check and keep them."""
        with self.scratch(workdir) as scratch:
            run = self.run(command, scratch, workdir)
            for name in roles.values():
                check_image(scratch / name, like=grid, n_extra=0, who=command.program)
            files = keep(scratch, workdir, {role: (name, name) for role, name in roles.items()})
        return files, run

    def table(
        self, command: Command, workdir: Path, name: str
    ) -> tuple[SctTable, EngineRun, dict[str, Path]]:
        """Run a program that writes a table; read it and keep it under a name of its own."""
        with self.scratch(workdir) as scratch:
            run = self.run(command, scratch, workdir)
            table = read_table(scratch / command.outputs[0], version=self.version)
            files = keep(scratch, workdir, {"table": (command.outputs[0], f"{name}_{_digest(command)}.csv")})
        return table, run, files


def _digest(command: Command) -> str:
    """Name a call by what was asked, so that two calls in one folder do not share a log or a table."""
    return hashlib.sha256("\0".join(command.words).encode("utf-8", "surrogateescape")).hexdigest()[:8]


@overload
def text_of(path: Path) -> str: ...
@overload
def text_of(path: None) -> None: ...
@overload
def text_of(path: Path | None) -> str | None: ...
def text_of(path: Path | None) -> str | None:
    """Write a path in full: programs run in another folder."""
    # Not resolved: a file in a data archive is a link whose target has another name.
    return None if path is None else str(Path(path).absolute())


def keep(scratch: Path, workdir: Path, names: Mapping[str, tuple[str, str]]) -> dict[str, Path]:
    """Move checked files out of the scratch folder; a role maps to (made as, kept as)."""
    kept: dict[str, Path] = {}
    for role, (made, name) in names.items():
        target = workdir / name
        try:
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            (scratch / made).replace(target)
        except OSError as error:
            raise OutputError(f"cannot be written: {error.strerror or error}", where=str(target)) from error
        kept[role] = target
    return kept
