"""Find and read the data files that belong to cordqa.

``phantoms/``, ``protocols/`` and ``reports/`` stand beside the package in a checkout and
inside it in an installed wheel.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from cordqa.errors import DefinitionError

__all__ = ["list_resources", "read_yaml", "resource_path", "resource_root"]

#: A definition file larger than this is not one that a person wrote.
MAX_YAML_BYTES = 4 * 1024 * 1024
_FOLDERS = ("phantoms", "protocols", "reports")


@cache
def resource_root() -> Path:
    """Return the folder that holds ``phantoms/``, ``protocols/`` and ``reports/``.

    Raises
    ------
    DefinitionError
        If the installation is incomplete.
    """
    package = Path(__file__).resolve().parent
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
    """Read a YAML file safely: no object construction, no aliases, bounded size.

    Raises
    ------
    DefinitionError
        If the file is absent, too large, not text, not YAML, or uses anchors.
    """
    import yaml

    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise DefinitionError("the file is too large for a definition", where=str(path))
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DefinitionError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise DefinitionError("is not UTF-8 text", where=str(path)) from error
    try:
        # Aliases allow a few lines to expand into gigabytes; no definition needs them.
        for token in yaml.scan(text, Loader=yaml.SafeLoader):
            if isinstance(token, (yaml.AliasToken, yaml.AnchorToken)):
                raise DefinitionError(
                    "YAML anchors and aliases are not accepted",
                    where=f"{path}, line {token.start_mark.line + 1}",
                    todo="write the value out",
                )
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark is not None else str(path)
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise DefinitionError(f"is not valid YAML: {problem}", where=where) from error
