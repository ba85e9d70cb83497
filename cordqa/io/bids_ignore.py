"""``.bidsignore``: patterns as in ``.gitignore``.

A pattern is matched folder by folder, each part by a small automaton, so that no pattern takes
more than a short time whatever the name.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Ignore"]

_MAX_PATTERNS = 1000
_MAX_LENGTH = 300


@dataclass(frozen=True, slots=True)
class _Rule:
    """One line: its parts between slashes, ``None`` for ``**``; negated by ``!``."""

    negated: bool
    parts: tuple[re.Pattern[str] | None, ...]

    def matches(self, names: list[str]) -> bool:
        """Tell whether the pattern fits the path or a folder above it."""
        states = self._reach({0})
        for name in names:
            states = self._reach({after for state in states for after in self._step(state, name)})
            if len(self.parts) in states:
                return True
        return False

    def _step(self, state: int, name: str) -> Iterable[int]:
        if state == len(self.parts):
            return ()
        part = self.parts[state]
        if part is None:
            return (state,)
        return (state + 1,) if part.fullmatch(name) else ()

    def _reach(self, states: set[int]) -> set[int]:
        """Add the states behind each ``**``, which may also stand for nothing."""
        reached = set(states)
        for state in states:
            while state < len(self.parts) and self.parts[state] is None:
                state += 1  # noqa: PLW2901
                reached.add(state)
        return reached


class Ignore:
    """Decides which paths of a dataset are passed over."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._rules = [rule for line in lines if (rule := _rule(line)) is not None][:_MAX_PATTERNS]

    def __bool__(self) -> bool:
        return bool(self._rules)

    def matches(self, path: str) -> bool:
        """Tell whether a path, relative to the dataset and with ``/``, is passed over; the last rule wins."""
        names = path.split("/")
        ignored = False
        for rule in self._rules:
            if rule.negated == ignored and rule.matches(names):
                ignored = not rule.negated
        return ignored


def _rule(line: str) -> _Rule | None:
    text = line.strip()
    if not text or text.startswith("#") or len(text) > _MAX_LENGTH:
        return None
    negated = text.startswith("!")
    text = text.removeprefix("!")
    anchored = "/" in text.rstrip("/")
    names = [name for name in text.split("/") if name]
    if not names:
        return None
    parts = [None if name == "**" else re.compile(fnmatch.translate(name)) for name in names]
    return _Rule(negated, tuple(parts if anchored else [None, *parts]))
