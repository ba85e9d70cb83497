"""Judge the gradient schemes in files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cordqa import __version__
from cordqa.errors import ConfigError, CordqaError, EmptyInputError
from cordqa.io.files import printable
from cordqa.io.limits import DEFAULT_LIMITS
from cordqa.models.diffusion.gradient_checks import BUnit, Norms
from cordqa.models.diffusion.gradient_shells import find_shells
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.diffusion.scheme_check import check_scheme
from cordqa.models.diffusion.scheme_energy import unique_directions
from cordqa.models.diffusion.scheme_models import SchemeModel
from cordqa.models.diffusion.scheme_verdicts import worst
from cordqa.records import Notice, Outcome, Provenance, Result, State, Status, Verdict
from cordqa.workflow.gradients import GradientPaths, find_gradient_files, read_gradients

__all__ = ["check_schemes"]

_ENDINGS = {
    ".bval": "bval",
    ".bvals": "bval",
    ".bvec": "bvec",
    ".bvecs": "bvec",
    ".bdelta": "bdelta",
    ".btens": "btens",
    ".npy": "btens",
    ".b": "mrtrix",
    ".grad": "mrtrix",
}
_IMAGES = (".nii.gz", ".nii")


@dataclass(slots=True)
class _Found:
    """What was given of one scheme."""

    name: str
    paths: GradientPaths
    n_volumes: int | None = None


def check_schemes(
    files: Sequence[Path],
    *,
    model: SchemeModel = "dti",
    b_unit: BUnit | None = None,
    norms: Norms = "refuse",
    b0_limit_s_mm2: float | None = None,
) -> Result:
    """Judge the schemes in gradient files.

    Parameters
    ----------
    files : sequence of Path
        bval, bvec, bdelta, b-tensor or MRtrix files, or images with such files beside them; what
        belongs to one scheme is found by its name.
    model : {'dti', 'dki', 'ufa', 'noddi'}
    b_unit, norms, b0_limit_s_mm2
        As in :func:`cordqa.workflow.gradients.read_gradients`.

    Returns
    -------
    Result
        Verdicts whose subject begins with the name of the scheme.

    Raises
    ------
    CordqaError
        If there is one scheme only and it cannot be read.
    """
    schemes = _collect(files)
    verdicts: list[Verdict] = []
    notices: list[Notice] = []
    outcomes: list[Outcome] = []
    status: dict[str, Status] = {}
    for scheme in schemes:
        sources = tuple(path.name for path in scheme.paths.given)
        try:
            if not scheme.paths:
                raise EmptyInputError("has no gradient files beside it", where=scheme.name)
            table, said = read_gradients(
                None,
                scheme.paths,
                n_volumes=scheme.n_volumes,
                b_unit=b_unit,
                norms=norms,
                b0_limit_s_mm2=b0_limit_s_mm2,
                allow_no_b0=True,
            )
        except CordqaError as error:
            if len(schemes) == 1:
                raise
            outcomes.append(
                Outcome(
                    what=scheme.name, state=State.FAILED, reason=str(error), code=error.code, sources=sources
                )
            )
            continue
        found = check_scheme(table, model=model)
        status[scheme.name] = worst(found)
        verdicts += [
            replace(one, subject=f"{scheme.name}, {one.subject}", region=scheme.name) for one in found
        ]
        # Nothing that is judged here depends on the axes.
        notices += [one for one in said if one.code != "gradients.no-affine"]
        outcomes.append(Outcome(what=scheme.name, state=State.DONE, reason=_contents(table), sources=sources))
    return Result(
        kind="scheme",
        title=f"Gradient schemes for {model}",
        status=worst(verdicts),
        summary=_summary(status),
        verdicts=tuple(verdicts),
        notices=tuple(notices),
        outcomes=tuple(outcomes),
        provenance=Provenance(version=__version__),
    )


def _contents(table: GradientTable) -> str:
    """Volumes by shell: ``5 at b = 0; 30 at b = 800 s/mm2, linear``."""
    parts = [f"{int(table.is_b0.sum())} at b = 0"]
    for shell in find_shells(table):
        directions = table.directions[shell.volumes]
        different = len(unique_directions(directions)[0]) if directions.any() else 0
        repeats = f" ({different} directions)" if 0 < different < len(shell.volumes) else ""
        parts.append(f"{len(shell.volumes)}{repeats} at {shell.name}")
    return "; ".join(parts)


def _summary(status: Mapping[str, Status]) -> str:
    words = {Status.FAIL: "Fails", Status.WARN: "Passes with warnings", Status.PASS: "Passes"}
    parts = []
    for one, text in words.items():
        names = [name for name, found in status.items() if found is one]
        if names:
            parts.append(f"{text} ({len(names)}): {', '.join(names)}.")
    return " ".join(parts)


def _collect(files: Sequence[Path]) -> list[_Found]:
    """Group what was given by scheme, in the order given; look for the rest of each."""
    if not files:
        raise ConfigError("no files were given", todo="give bval and bvec files, MRtrix tables or images")
    groups: dict[tuple[Path, str], dict[str, Path]] = {}
    images: dict[tuple[Path, str], Path] = {}
    for path in files:
        if not path.is_file():
            raise ConfigError("does not exist or is no file", where=printable(str(path)))
        stem, kind = _kind(path)
        key = (path.parent, stem)
        if kind == "image":
            images[key] = path
            groups.setdefault(key, {})
        elif groups.setdefault(key, {}).setdefault(kind, path) != path:
            raise ConfigError(f"two {kind} files for one scheme", where=printable(str(path)))
    found = [_complete(key, given, images.get(key)) for key, given in groups.items()]
    for one, name in zip(found, _names(list(groups)), strict=True):
        one.name = name
    return found


def _names(keys: Sequence[tuple[Path, str]]) -> list[str]:
    """Name each scheme by its files, with as many folders before it as tell it from the others."""
    paths = [folder.absolute() / stem for folder, stem in keys]  # no stem: the folder itself
    for depth in range(1, 1 + max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return [printable(name, limit=120) for name in names]


def _kind(path: Path) -> tuple[str, str]:
    """Stem and kind of a gradient file or an image."""
    name = path.name.removesuffix(".txt")
    for ending in _IMAGES:
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)], "image"
    for ending, kind in _ENDINGS.items():
        if name.lower().endswith(ending):
            return name[: -len(ending)], kind
    for word, kind in (("bval", "bval"), ("bvec", "bvec"), ("bdelta", "bdelta")):
        if name.lower().startswith(word):
            return "", kind
    raise ConfigError(
        "is not a kind of gradient file",
        where=printable(path.name),
        expected=f"one of {', '.join(_ENDINGS)}, or a NIfTI image",
    )


def _complete(key: tuple[Path, str], given: Mapping[str, Path], image: Path | None) -> _Found:
    folder, stem = key
    paths = find_gradient_files(folder / f"{stem or 'bvals'}.nii.gz")
    if "mrtrix" in given and "bval" not in given and "bvec" not in given:
        paths = replace(paths, bval=None, bvec=None)
    elif "btens" not in given and ("bval" in given or "bvec" in given):
        paths = replace(paths, btens=None, mrtrix=None)
    n_volumes = _count_volumes(image) if image is not None else None
    return _Found(stem, replace(paths, **given), n_volumes)


def _count_volumes(image: Path) -> int:
    from cordqa.io.nifti_header import read_nifti_header

    return read_nifti_header(image, limits=DEFAULT_LIMITS).shape[3]
