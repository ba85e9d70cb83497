"""Find and read the data files that belong to cordqa.

``phantoms/``, ``protocols/`` and ``reports/`` stand beside the package in a checkout and
inside it in an installed wheel.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from cordqa.errors import DefinitionError

__all__ = ["list_resources", "parse_yaml", "read_yaml", "read_yaml_text", "resource_path", "resource_root"]

#: A definition file larger than this is not one that a person wrote.
MAX_YAML_BYTES = 4 * 1024 * 1024
#: No definition nests deeper; the C parser overflows its stack on a file that does.
MAX_YAML_DEPTH = 40
_FOLDERS = ("phantoms", "protocols", "reports")


@cache
def resource_root() -> Path:
    """Return the folder that holds ``phantoms/``, ``protocols/`` and ``reports/``.

    Raises
    ------
    DefinitionError
        If the installation is incomplete.
    """
    package = Path(__file__).resolve().parent.parent
    for root in (package / "_resources", package.parent):
        if all((root / name).is_dir() for name in _FOLDERS):
            return root
    raise DefinitionError(
        "the data files of cordqa are missing",
        where=str(package),
        expected=", ".join(_FOLDERS),
        todo="install cordqa again",
    )


def resource_path(folder: str, name: str) -> Path:
    """Return the path of one resource file, for example ``("phantoms", "x.yaml")``."""
    path = (resource_root() / folder / name).resolve()
    if resource_root().resolve() not in path.parents or not path.is_file():
        known = ", ".join(list_resources(folder)) or "none"
        raise DefinitionError(f"no {folder} resource {name!r}", expected=f"one of {known}")
    return path


def list_resources(folder: str, suffix: str = ".yaml") -> list[str]:
    """List the resource names (without suffix) in one folder."""
    return sorted(p.stem for p in (resource_root() / folder).glob(f"*{suffix}"))


def read_yaml(path: Path) -> Any:
    """Read a YAML file safely: no tags, no aliases, bounded size and depth.

    Raises
    ------
    DefinitionError
        If the file is absent, too large, not text, not YAML, uses anchors or tags, repeats
        a key or nests too deeply.
    """
    return parse_yaml(read_yaml_text(path), where=str(path))


def read_yaml_text(path: Path) -> str:
    """Read the text of a definition file.

    Raises
    ------
    DefinitionError
        If it is not a regular file, is too large or is not UTF-8 text.
    """
    try:
        if not path.is_file():
            what = "is not a regular file" if path.exists() else "does not exist"
            raise DefinitionError(what, where=str(path))
        # Read a bounded amount: the size that the system reports may not be the truth.
        with path.open("rb") as file:
            raw = file.read(MAX_YAML_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise DefinitionError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise DefinitionError("is not UTF-8 text", where=str(path)) from error
    except ValueError as error:  # a NUL byte in the path
        raise DefinitionError("is not a usable path", where=repr(str(path))) from error
    if len(raw) > MAX_YAML_BYTES:
        raise DefinitionError("the file is too large for a definition", where=str(path))
    return text


def parse_yaml(text: str, *, where: str = "") -> Any:
    """Parse YAML text safely; see :func:`read_yaml`.

    Parameters
    ----------
    text : str
        One YAML document.
    where : str, optional
        Name of the file, for messages.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_events(yaml, loader, text, where)
        return yaml.load(text, Loader=_strict_loader())
    except (yaml.YAMLError, ValueError, TypeError, ArithmeticError, LookupError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}, line {mark.line + 1}" if mark is not None else where
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be parsed"
        raise DefinitionError(f"is not valid YAML: {problem}", where=place) from error


def _check_events(yaml: Any, loader: Any, text: str, where: str) -> None:
    """Refuse aliases, which let a few lines expand into gigabytes, tags, and deep nesting."""
    depth = 0
    for event in yaml.parse(text, Loader=loader):
        place = f"{where}, line {event.start_mark.line + 1}"
        if getattr(event, "anchor", None) is not None:
            raise DefinitionError(
                "YAML anchors and aliases are not accepted", where=place, todo="write the value out"
            )
        if getattr(event, "tag", None) is not None:
            raise DefinitionError("YAML tags are not accepted", where=place, todo="write the plain value")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_YAML_DEPTH:
                raise DefinitionError(f"nests deeper than {MAX_YAML_DEPTH} levels", where=place)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


@cache
def _strict_loader() -> Any:
    """Build a safe loader that refuses a key given twice, where YAML would keep the last one."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class StrictLoader(base):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[tuple[str, str]] = set()
            for key, _ in getattr(node, "value", ()):
                name = (key.tag, key.value) if isinstance(key.value, str) else None
                if name is not None and name in seen and key.tag != "tag:yaml.org,2002:merge":
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} is given twice", key.start_mark
                    )
                if name is not None:
                    seen.add(name)
            return super().construct_mapping(node, deep=deep)

    return StrictLoader
