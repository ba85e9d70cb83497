"""A unit of work, described so that it can be sent anywhere."""

from __future__ import annotations

import hashlib
import math
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cordqa.errors import ConfigError
from cordqa.io.files import printable
from cordqa.records import Outcome
from cordqa.workflow.execute.errors import PickleError

__all__ = ["Task", "check_tasks", "function_name", "open_arguments", "safe_name", "seal", "submission_order"]

_MAX_NAME = 100
_MAX_KEY = 1000
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
#: Names that one system or another gives a meaning of its own.
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One unit of work that depends on no other.

    Attributes
    ----------
    key : str
        Name of the task, unique within a run: ``sub-01_ses-1``.
    function : callable
        Defined at the top of a module.  Returns an :class:`~cordqa.records.Outcome`, or
        ``None`` for "done"; raises where it fails.  Results travel through files.
    arguments : mapping
        Keyword arguments; they must be picklable, and their paths absolute.
    inputs : tuple of Path
        Files or folders that the result depends on.  When one changes, the task is repeated.
    outputs : tuple of Path
        Files that exist when the task is done.  A task that ends well without them has failed.
    weight : float, > 0
        Expected cost relative to the other tasks; the heavy ones start first.
    timeout_s : float or None
        Wall-clock limit in seconds, counted from the start of the work.
    """

    key: str
    function: Callable[..., Outcome | None]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[Path, ...] = ()
    outputs: tuple[Path, ...] = ()
    weight: float = 1.0
    timeout_s: float | None = None


def check_tasks(tasks: Sequence[Task]) -> None:
    """Refuse tasks that could not be told apart or could never run.

    Raises
    ------
    ConfigError
        If a key is empty, over-long or used twice, or a weight or time limit is not positive.
    """
    seen: set[str] = set()
    for task in tasks:
        where = f"task {printable(task.key, limit=80)!r}"
        if not task.key.strip() or len(task.key) > _MAX_KEY:
            raise ConfigError(
                "needs a key", where=where, found=f"{len(task.key)} characters", expected=f"1 to {_MAX_KEY}"
            )
        if task.key in seen:
            raise ConfigError("the key is used twice", where=where, todo="give every task its own key")
        seen.add(task.key)
        _check_positive(task.weight, "weight", where)
        if task.timeout_s is not None:
            _check_positive(task.timeout_s, "time limit", where)


def _check_positive(value: float, name: str, where: str) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(
            f"the {name} is not usable", where=where, found=f"{value}", expected="a positive number"
        )


def submission_order(tasks: Sequence[Task]) -> list[Task]:
    """Sort by falling weight, so that a heavy task does not start last and run alone at the end."""
    return sorted(tasks, key=lambda task: -task.weight)


def safe_name(key: str) -> str:
    """Turn a key into a file name; different keys give different names.

    A key that is a plain name already stays as it is; any other gets a part of its hash.
    """
    plain = _UNSAFE.sub("_", key)[:_MAX_NAME].strip(".-")
    if plain and plain == key and not _RESERVED.fullmatch(plain):
        return plain
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{plain}-{digest}" if plain else digest


def function_name(function: Callable[..., Any]) -> str:
    """Name a function in full, for records and messages."""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', '?')}.{name}"


def seal(task: Task) -> bytes:
    """Pickle function and arguments of a task.

    Raises
    ------
    PickleError
        If one of them cannot be pickled; it says which.
    """
    for name, part in (("the function", task.function), *_named(task.arguments)):
        try:
            pickle.dumps(part)
        # Objects may raise anything at all while they are pickled.
        except Exception as error:
            raise PickleError(
                f"{name} cannot be sent to another process: {_brief(error)}",
                where=function_name(task.function),
                todo="use functions at the top of a module, and plain values as arguments",
            ) from error
    return pickle.dumps((task.function, dict(task.arguments)))


def open_arguments(payload: bytes) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Undo :func:`seal`, in the process that does the work.

    Raises
    ------
    PickleError
        If a part cannot be restored there.
    """
    try:
        function, arguments = pickle.loads(payload)
    except Exception as error:
        raise PickleError(
            f"the task cannot be restored in the worker process: {_brief(error)}",
            todo="define the function in a module that every worker can import, not in a script",
        ) from error
    return function, arguments


def _named(arguments: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(f"the argument {name!r}", value) for name, value in arguments.items()]


def _brief(error: BaseException) -> str:
    return printable(f"{type(error).__name__}: {error}", limit=200)
