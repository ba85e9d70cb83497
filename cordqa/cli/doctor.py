"""``cordqa doctor``: what is there and what is missing."""

from __future__ import annotations

import platform
from importlib import metadata

import typer

from cordqa import __version__

__all__ = ["doctor"]

_PACKAGES = (
    "numpy", "scipy", "pandas", "nibabel", "pydicom", "pylibjpeg", "pydantic", "typer", "rich", "jinja2",
    "PyYAML", "onnxruntime", "scikit-image", "dipy",
)  # fmt: skip
_DECODERS = {"libjpeg": "pylibjpeg-libjpeg", "openjpeg": "pylibjpeg-openjpeg"}
#: Packages that some commands want, what for, and the extra that brings them.
_OPTIONAL = {
    "dmri-amico": ("NODDI", "noddi"),
    "scikit-learn": ("denoising by Patch2Self", "denoise"),
    "distributed": ("Dask clusters", "cluster"),
    "dask-jobqueue": ("batch systems", "cluster"),
}


def doctor() -> None:
    """Say whether this installation is complete."""
    print(
        f"cordqa {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    )
    problems = 0
    for name in _PACKAGES:
        problems += _package(name)
    for label, name in _DECODERS.items():
        problems += _package(name, note=f"compressed DICOM ({label})")
    for name, (use, extra) in _OPTIONAL.items():
        _optional(name, use, extra)
    problems += _definitions()
    _toolbox()
    print("all is there" if not problems else f"{problems} things are missing: install cordqa again")
    raise typer.Exit(1 if problems else 0)


def _definitions() -> int:
    from cordqa.errors import DefinitionError
    from cordqa.phantom.definition import list_phantoms, load_phantom
    from cordqa.protocol.definition import list_protocols, load_protocol
    from cordqa.resources import resource_root

    try:
        print(f"data files: {resource_root()}")
        for phantom in list_phantoms():
            load_phantom(phantom)
            print(f"phantom {phantom}: valid")
        for protocol in list_protocols():
            load_protocol(protocol)
            print(f"protocol {protocol}: valid")
    except DefinitionError as error:
        print(f"MISSING: {error}")
        return 1
    return 0


def _package(name: str, *, note: str = "") -> int:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        print(f"MISSING: {name} {note}".rstrip())
        return 1
    print(f"{name} {version}{f' ({note})' if note else ''}")
    return 0


def _optional(name: str, use: str, extra: str) -> None:
    try:
        print(f"{name} {metadata.version(name)} ({use})")
    except metadata.PackageNotFoundError:
        print(f"{name}: not found (optional: {use}; in the folder of cordqa: pip install '.[{extra}]')")


def _toolbox() -> None:
    """Say what is there of the Spinal Cord Toolbox; it is optional, so nothing here is a failure."""
    from cordqa.engines.sct.locate import OPTION_VARIABLE, list_pieces, search_toolbox

    search = search_toolbox()
    toolbox = search.toolbox
    if toolbox is None:
        print("Spinal Cord Toolbox: not found (optional; cordqa cord uses its built-in engine)")
        print(f"  looked at: {search.sentence()}")
        print(f"  to use it: install it, then put it on PATH or set {OPTION_VARIABLE} to its folder")
        return
    print(f"Spinal Cord Toolbox {toolbox.version}: {toolbox.root} (found by {toolbox.found_by})")
    for place in search.rejected:
        print(f"  not used: {place.place}: {place.reason}")
    for piece in list_pieces(toolbox):
        if not piece.available:
            print(f"  cannot {piece.step}: {piece.reason}; {piece.todo}")
        elif piece.reason:
            print(f"  {piece.step}: {piece.reason}")
    if all(piece.available for piece in list_pieces(toolbox)):
        print("  all its pieces are there")
