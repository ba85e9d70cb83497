"""Design a gradient scheme and write it; :mod:`cordqa.workflow.scheme_judge` judges existing ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cordqa import __version__
from cordqa.errors import ConfigError
from cordqa.io.files import printable
from cordqa.io.results import prepare_folder, write_text
from cordqa.models.diffusion.scheme_check import check_scheme
from cordqa.models.diffusion.scheme_energy import (
    best_energy,
    closest_angle_deg,
    electrostatic_energy,
)
from cordqa.models.diffusion.scheme_models import SchemeModel
from cordqa.models.diffusion.scheme_order import axis_load, imbalance
from cordqa.models.diffusion.scheme_time import Budget, ScanTiming
from cordqa.models.diffusion.scheme_verdicts import worst
from cordqa.models.diffusion.schemes import SchemeDesign, ShellRequest, design_scheme, fill_budget
from cordqa.records import (
    Notice,
    Outcome,
    Provenance,
    Result,
    Severity,
    State,
    Status,
    as_plain,
)
from cordqa.workflow.gradients import write_gradients

__all__ = ["DesignRequest", "design", "parse_shell"]

_SHAPES = {"LTE": 1.0, "PTE": -0.5, "STE": 0.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class DesignRequest:
    """What is to be designed.

    Attributes
    ----------
    shells : tuple of ShellRequest
    n_b0 : int, optional
        One for eight weighted volumes otherwise.
    timing : ScanTiming, optional
        Without it the scan time is not computed, and every shell needs its number of volumes.
    budget : Budget
    model : {'dti', 'dki', 'ufa', 'noddi'}, optional
        What the scheme is judged for; guessed from the shells otherwise.
    seed : int
    name : str
        Of the files.
    """

    shells: tuple[ShellRequest, ...]
    n_b0: int | None = None
    timing: ScanTiming | None = None
    budget: Budget = field(default_factory=Budget)
    model: SchemeModel | None = None
    seed: int = 0
    name: str = "scheme"


def parse_shell(text: str) -> tuple[ShellRequest, ...]:
    """Understand ``B``, ``B:N``, ``B:SHAPE`` or ``B:N:SHAPE``.

    SHAPE is LTE (linear), PTE (planar), STE (spherical), a number (b_delta), or DDE (double
    diffusion encoding: N parallel pairs of pulses, which are linear, and N at right angles, planar).

    Raises
    ------
    ConfigError
        If it is none of them.
    """
    words = [word.strip() for word in text.split(":")]
    shape = "LTE"
    if len(words) > 1 and not words[-1].isdigit():
        shape = words.pop().upper()
    if not 1 <= len(words) <= 2:
        raise _not_a_shell(text)
    try:
        b = float(words[0])
        n = int(words[1]) if len(words) == 2 else None
        delta = 1.0 if shape == "DDE" else _SHAPES[shape] if shape in _SHAPES else float(shape)
    except ValueError:
        raise _not_a_shell(text) from None
    if not (np.isfinite(b) and np.isfinite(delta)):
        raise _not_a_shell(text)
    first = ShellRequest(b_s_mm2=b, n=n, b_delta=delta)
    if shape != "DDE":
        return (first,)
    return first, replace(first, b_delta=-0.5, perpendicular_pulses=True)


def _not_a_shell(text: str) -> ConfigError:
    return ConfigError(
        "is not a shell",
        found=repr(printable(text, limit=40)),
        expected="B:N or B:N:SHAPE, for example 1000:30 or 2000:20:STE; N may be left out where a time "
        "budget decides, SHAPE is LTE, PTE, STE, DDE or a number from -0.5 to 1",
    )


def design(request: DesignRequest, out: Path) -> tuple[Result, str]:
    """Design a scheme and write it.

    Parameters
    ----------
    request : DesignRequest
    out : Path
        Folder for ``NAME.bval``, ``NAME.bvec``, ``NAME.b`` (MRtrix), ``NAME.bdelta`` where a shape is not
        linear, ``NAME_pulses.tsv`` for double diffusion encoding, ``NAME.json`` and ``NAME.txt``.

    Returns
    -------
    Result
        Verdicts on the scheme that was made.
    str
        The same for people, with the sums of the scan time.

    Raises
    ------
    ConfigError
        If the request contradicts itself or does not fit into the time.
    OutputError
        If the folder cannot be written.
    """
    _check_name(request.name)
    shells = _filled(request)
    made = design_scheme(shells, n_b0=request.n_b0, seed=request.seed)
    model = request.model or _guess_model(made.shells)
    verdicts = check_scheme(made.table, model=model)
    time = _time(request, len(made.table))
    prepare_folder(out)
    files = _write(made, out, request.name)
    result = Result(
        kind="scheme",
        title=f"Gradient scheme for {model}",
        status=worst(verdicts),
        summary=" ".join((f"{len(made.table)} volumes, {made.n_b0} of them at b = 0.", *time[-1:])),
        verdicts=verdicts,
        notices=_design_notices(made),
        outcomes=(Outcome(what=request.name, state=State.DONE, sources=tuple(files)),),
        methods=_methods(made),
        provenance=Provenance(version=__version__, seed=request.seed),
    )
    described = _describe(made, model, time, files, result)
    text = _text(described, result)
    write_text(
        out / f"{request.name}.json", json.dumps(as_plain(described), indent=1, allow_nan=False) + "\n"
    )
    write_text(out / f"{request.name}.txt", text)
    return result, text


def _check_name(name: str) -> None:
    if not name or Path(name).name != name or name.startswith("."):
        raise ConfigError("is not a usable file name", found=repr(name), todo="give a name without a folder")


def _filled(request: DesignRequest) -> tuple[ShellRequest, ...]:
    if request.timing is not None:
        return fill_budget(request.shells, request.timing, request.budget, n_b0=request.n_b0)
    if any(shell.n is None for shell in request.shells):
        raise ConfigError(
            "a shell without a number of volumes needs the time of one volume",
            todo="give --tr, or --slices with --slice-time, or B:N",
        )
    return request.shells


def _guess_model(shells: Sequence[ShellRequest]) -> SchemeModel:
    if len({abs(shell.b_delta) for shell in shells}) > 1:
        return "ufa"
    return "dki" if len(shells) > 1 and all(shell.b_delta == 1 for shell in shells) else "dti"


def _time(request: DesignRequest, n_volumes: int) -> tuple[str, ...]:
    if request.timing is None:
        return ()
    used = request.timing.total_s(n_volumes)
    return (*request.timing.arithmetic(n_volumes), request.budget.sentence(used))


def _write(made: SchemeDesign, out: Path, name: str) -> list[str]:
    paths = write_gradients(made.table, out / name)
    files = [path.name for path in paths.given]
    pulses = out / f"{name}_pulses.tsv"
    pulses.unlink(missing_ok=True)  # of an earlier scheme
    if np.isfinite(made.pulse_pairs).any():
        rows = ["volume\tx1\ty1\tz1\tx2\ty2\tz2"]
        for volume in np.flatnonzero(np.isfinite(made.pulse_pairs).all(axis=(1, 2))):
            numbers = "\t".join(f"{value + 0.0:.6f}" for value in made.pulse_pairs[volume].ravel())
            rows.append(f"{volume + 1}\t{numbers}")
        write_text(pulses, "\n".join(rows) + "\n")
        files.append(pulses.name)
    return files


def _design_notices(made: SchemeDesign) -> tuple[Notice, ...]:
    texts = ["directions are written for array axes along those of the scanner; signs have no flip"]
    if any(shell.b_delta != 1 for shell in made.shells):
        texts.append(
            "the MRtrix table, and bval with bvec alone, pass for linear encoding: keep the .bdelta file"
        )
    return tuple(Notice(severity=Severity.INFO, message=text, code="scheme.files") for text in texts)


def _methods(made: SchemeDesign) -> tuple[str, ...]:
    several = sum(shell.has_directions for shell in made.shells) > 1
    union = ", half of it within each shell and half over all shells together," if several else ""
    return (
        f"Directions minimise the electrostatic energy of charges at both ends{union} from random starts "
        f"(seed {made.seed}); signs were chosen so that each shell fills the whole sphere; shells are "
        "interleaved, volumes ordered so that each new direction lies far from the earlier ones and the "
        "work moves between the gradient coils; b = 0 volumes are spread evenly from first to last.",
    )


def _describe(
    made: SchemeDesign, model: str, time: Sequence[str], files: Sequence[str], result: Result
) -> dict[str, Any]:
    """Everything about the scheme as plain data: the content of NAME.json."""
    return {
        "version": __version__,
        "seed": made.seed,
        "model": model,
        "status": str(result.status),
        "n_volumes": len(made.table),
        "n_b0": made.n_b0,
        "shells": [_describe_shell(made, index) for index in range(len(made.shells))],
        "largest_coil_load_over_five_volumes": axis_load(made.table.directions, made.table.b_values_s_mm2),
        "scan_time": list(time),
        "files": list(files),
        "methods": list(result.methods),
        "notices": [notice.message for notice in result.notices],
        "verdicts": as_plain(result.verdicts),
    }


def _describe_shell(made: SchemeDesign, index: int) -> dict[str, Any]:
    shell = made.shells[index]
    directions = made.table.directions[made.shell_of_volume == index]
    half = directions[: len(directions) // 2]
    known = shell.has_directions and len(directions) > 1
    energy = electrostatic_energy(directions) if known else float("nan")
    return {
        "b_s_mm2": shell.b_s_mm2,
        "b_delta": shell.b_delta,
        "n": len(directions),
        "energy": energy,
        "energy_over_best_known": energy / best_energy(len(directions))[0] if known else float("nan"),
        "first_half_over_best_known": electrostatic_energy(half) / best_energy(len(half))[0]
        if known and len(half) > 1
        else float("nan"),
        "smallest_angle_deg": closest_angle_deg(directions) if known else float("nan"),
        "mean_direction_length": imbalance(directions) if known else float("nan"),
    }


def _text(described: Mapping[str, Any], result: Result) -> str:
    lines = [
        f"{str(result.status).upper()}  {result.title}: {described['n_volumes']} volumes, "
        f"{described['n_b0']} at b = 0, seed {described['seed']}",
        "",
        f"{'b s/mm2':>8} {'b_delta':>8} {'volumes':>8} {'energy/best':>12} {'angle deg':>10} {'|mean|':>7}",
    ]
    lines += [_shell_line(shell) for shell in described["shells"]]
    lines += ["", "Scan time"]
    lines += [f"  {line}" for line in described["scan_time"]] or [
        "  not computed: no repetition time was given"
    ]
    bad = [one for one in result.verdicts if one.status in (Status.FAIL, Status.WARN)]
    if bad:
        lines += ["", "Needs attention"]
        lines += [f"  {str(v.status).upper():<5} {v.subject}, {v.rule}: {v.reason}" for v in bad]
    lines += ["", *result.methods, "", *(f"Note: {notice.message}." for notice in result.notices)]
    lines += ["", f"Files: {', '.join(described['files'])}"]
    return "\n".join(lines) + "\n"


def _shell_line(shell: Mapping[str, Any]) -> str:
    return (
        f"{shell['b_s_mm2']:>8.0f} {shell['b_delta']:>8.2f} {shell['n']:>8} "
        f"{_number(shell['energy_over_best_known'], '.4f'):>12} "
        f"{_number(shell['smallest_angle_deg'], '.1f'):>10} "
        f"{_number(shell['mean_direction_length'], '.2f'):>7}"
    )


def _number(value: float, form: str) -> str:
    return format(value, form) if np.isfinite(value) else "-"
