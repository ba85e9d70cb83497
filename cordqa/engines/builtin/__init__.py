"""The engine that needs no other program."""

from cordqa.engines.builtin.engine import BuiltinEngine

__all__ = ["BuiltinEngine"]
