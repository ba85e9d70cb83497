"""Which file is the phase, which the magnitude: by the names that BIDS gives them.

``sub-01_echo-1_part-phase_MEGRE.nii.gz`` has its magnitude beside it as ``part-mag``; files of both
kinds may also be given together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cordqa.errors import ConfigError
from cordqa.io.bids_names import parse_name
from cordqa.workflow.fit.registry import ImageRole
from cordqa.workflow.fit.request import FitRequest

__all__ = ["complete_images"]


def complete_images(request: FitRequest) -> FitRequest:
    """Sort files of several parts into their roles, find parts that were not named, order echoes.

    Only models whose images have parts are concerned, and only files with BIDS names.

    Raises
    ------
    ConfigError
        If files of a part are given twice: among the others and by their option.
    """
    roles = {role.parts[0]: role for role in request.model.images if role.parts}
    if not roles:
        return request
    images = _sorted_out(request, roles)
    for role in roles.values():
        if not images.get(role.id):
            found = _beside(images, role)
            if found:
                images[role.id] = found
    return replace(request, images={name: _by_echo(paths) for name, paths in images.items()})


def _part(path: Path) -> str:
    name = parse_name(path.name)
    return "" if name is None else name.entities.get("part", "")


def _sorted_out(request: FitRequest, roles: Mapping[str, ImageRole]) -> dict[str, tuple[Path, ...]]:
    images: dict[str, tuple[Path, ...]] = {}
    moved: dict[str, list[Path]] = {}
    for name, paths in request.images.items():
        own = []
        for path in paths:
            role = roles.get(_part(path))
            if role is None or role.id == name:
                own.append(path)
            else:
                moved.setdefault(role.id, []).append(path)
        images[name] = tuple(own)
    for name, found in moved.items():
        if images.get(name):
            raise ConfigError(
                "files of this part are among the images and given by their option as well",
                where=found[0].name,
                todo="give them once",
            )
        images[name] = tuple(found)
    return images


def _beside(images: Mapping[str, tuple[Path, ...]], role: ImageRole) -> tuple[Path, ...]:
    """Find the partners of files of another part; none unless every file has one."""
    own, other = role.parts
    partners = [
        path.with_name(path.name.replace(f"_part-{other}_", f"_part-{own}_"))
        for paths in images.values()
        for path in paths
        if _part(path) == other
    ]
    return tuple(partners) if partners and all(path.is_file() for path in partners) else ()


def _by_echo(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    """Order files by the number of their echo, where all have one: 10 comes after 2."""
    names = [parse_name(path.name) for path in paths]
    numbers = [name.entities.get("echo", "") if name is not None else "" for name in names]
    if len(paths) < 2 or not all(number.isdigit() for number in numbers):
        return paths
    order = sorted(range(len(paths)), key=lambda n: int(numbers[n]))
    return tuple(paths[n] for n in order)
