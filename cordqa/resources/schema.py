"""What all definition files (phantoms, tolerances, protocols) share: strict reading, clear messages.

A definition is written by a person, so an unknown key is an error with a suggestion, a number is
a finite number (a quoted one is not), and every message names the file, the line and the place
inside the file.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from cordqa.errors import DefinitionError
from cordqa.resources import parse_yaml, read_yaml_text

__all__ = [
    "MAX_ITEMS",
    "Finite",
    "Identifier",
    "Identifiers",
    "Positive",
    "Strict",
    "Text",
    "check_known",
    "check_unique",
    "load_model",
    "problem",
    "suggest",
]

#: Longest text and longest list that a definition may hold.
MAX_TEXT = 2000
MAX_ITEMS = 5000
_SHOWN_PROBLEMS = 3

_Model = TypeVar("_Model", bound=BaseModel)


def problem(message: str, key: Any = None) -> PydanticCustomError:
    """Make a validation error whose text is exactly ``message``; ``key`` says which key it concerns."""
    # The text is a template for pydantic; braces in user input must not be taken for fields.
    return PydanticCustomError(
        "cordqa", "{message}", {"message": message, "key": "" if key is None else str(key)}
    )


def suggest(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the closest known name, or an empty string."""
    close = difflib.get_close_matches(name[:80], [str(item) for item in known], n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def _identifier(value: Any) -> Any:
    # Plate 5 and batch 2.5 are naturally written without quotes.
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise problem("is not an identifier (a short text or a number)")
    text = format(value, "g") if isinstance(value, float) else str(value)
    if not 0 < len(text) <= 64:
        raise problem("an identifier has 1 to 64 characters")
    return text


Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0)]
Identifier = Annotated[str, BeforeValidator(_identifier)]
Text = Annotated[str, Field(strict=True, max_length=MAX_TEXT)]
Identifiers = Annotated[tuple[Identifier, ...], Field(max_length=200)]


def check_unique(ids: Iterable[str], noun: str) -> None:
    """Refuse an identifier that is given twice."""
    twice = [item for item, count in Counter(ids).items() if count > 1]
    if twice:
        raise problem(f"{noun} {twice[0]!r} is given twice")


def check_known(ids: Iterable[str], known: Iterable[str], where: str) -> None:
    """Refuse an identifier that is not defined, with a suggestion."""
    known = list(known)
    for item in ids:
        if item not in known:
            raise problem(f"{where}: {item!r} is not defined{suggest(item, known)}")


class Strict(BaseModel):
    """Base of every definition model: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            known = [field.alias or name for name, field in cls.model_fields.items()]
            for key in data:
                if key not in known:
                    raise problem(
                        f"the key {str(key)[:80]!r} is not known here{suggest(str(key), known)}", key
                    )
        return data


def load_model(path: Path, model: type[_Model], *, noun: str) -> _Model:
    """Read a YAML file and validate it.

    Parameters
    ----------
    path : Path
        The file.
    model : type of BaseModel
        What it must be.
    noun : str
        What the file is called in messages, for example ``"phantom definition"``.

    Raises
    ------
    DefinitionError
        If the file cannot be read, is not YAML, or is not a valid definition.
    """
    text = read_yaml_text(path)
    data = parse_yaml(text, where=str(path))
    if not isinstance(data, Mapping):
        raise DefinitionError(
            f"is not a {noun}", where=str(path), found=type(data).__name__, expected="a mapping of keys"
        )
    try:
        return model.model_validate(data)
    except (ValidationError, OverflowError, RecursionError) as error:
        raise _definition_error(error, path, text, noun) from error


def _definition_error(error: Exception, path: Path, text: str, noun: str) -> DefinitionError:
    """Turn pydantic's list of problems into one sentence."""
    if not isinstance(error, ValidationError):
        return DefinitionError(f"is not a valid {noun}", where=str(path))
    problems = error.errors(include_url=False, include_input=False)
    # A list that is empty only because its items are wrong is not a problem of its own.
    places = [p["loc"] for p in problems]
    problems = [
        p
        for p in problems
        if p["type"] != "too_short"
        or not any(len(q) > len(p["loc"]) and q[: len(p["loc"])] == p["loc"] for q in places)
    ]
    shown = [f"{_place(p['loc'])}: {_lower(p['msg'])}" for p in problems[:_SHOWN_PROBLEMS]]
    if len(problems) > _SHOWN_PROBLEMS:
        shown.append(f"and {len(problems) - _SHOWN_PROBLEMS} more")
    first = problems[0]
    key = first.get("ctx", {}).get("key", "")
    line = _line(text, (*first["loc"], key) if key else first["loc"])
    where = f"{path}, line {line}" if line else str(path)
    return DefinitionError(f"is not a valid {noun}: " + "; ".join(shown), where=where)


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:] if message[1:2].islower() else message


def _place(location: tuple[int | str, ...]) -> str:
    """Write ``('plates', 1, 'spheres', 3)`` as ``plates[1].spheres[3]``."""
    place = ""
    for part in location:
        place += f"[{part}]" if isinstance(part, int) else f".{str(part)[:80]}"
    return place.lstrip(".") or "the file"


def _line(text: str, location: tuple[int | str, ...]) -> int:
    """Find the line of the deepest part of ``location`` that exists in the text; 0 if none does."""
    import yaml

    node: Any = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    for part in location:
        child = None
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            child = node.value[part]
        elif isinstance(node, yaml.MappingNode):
            child = next((value for key, value in node.value if key.value == str(part)), None)
        if child is None:
            break
        node = child
    return int(node.start_mark.line) + 1 if node is not None else 0
