"""The engines that cordqa knows, and which one to use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cordqa.engines.protocol import Engine
from cordqa.errors import ConfigError

__all__ = ["AUTO", "ENGINES", "make_engine"]

#: Name and what it is, for people.
ENGINES: Mapping[str, str] = {
    "builtin": "Built in; needs no other program and downloads nothing.",
    "sct": "The Spinal Cord Toolbox, called as a program in its own environment.",
}
AUTO = "auto"


def make_engine(
    name: str = AUTO, *, sct_folder: Path | None = None, timeout_s: float = 3600.0, threads: int = 1
) -> Engine:
    """Return an engine by name; ``auto`` is the toolbox where it is found, else the built-in one.

    Parameters
    ----------
    name : str
    sct_folder : Path, optional
        Folder of the toolbox; naming one that cannot be used is an error, also with ``auto``.
    timeout_s : float
        Limit of each program of the toolbox, seconds.
    threads : int
        Threads of its registrations.

    Raises
    ------
    ConfigError
        If there is no such engine.
    EngineUnavailableError
        If the toolbox is asked for and not found.
    """
    if name not in (AUTO, *ENGINES):
        raise ConfigError("is not an engine", found=repr(name), expected=", ".join((AUTO, *ENGINES)))
    if name in (AUTO, "sct"):
        from cordqa.engines.sct.engine import SctEngine
        from cordqa.engines.sct.locate import OPTION_VARIABLE, find_toolbox, search_toolbox

        # A folder that the user named and that cannot be used is an error, not a reason to switch.
        named = name == "sct" or sct_folder is not None or bool(os.environ.get(OPTION_VARIABLE))
        toolbox = find_toolbox(sct_folder) if named else search_toolbox().toolbox
        if toolbox is not None:
            return SctEngine(toolbox, timeout_s=timeout_s, threads=threads)
    from cordqa.engines.builtin import BuiltinEngine

    return BuiltinEngine()
