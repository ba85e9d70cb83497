"""One run of ``cordqa fit``: read, fit, summarise, write; nothing where nothing has changed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from cordqa import __version__
from cordqa.errors import ConfigError, CordqaError, FitError
from cordqa.io.files import digest_file
from cordqa.io.results import prepare_folder, read_result, write_config, write_result
from cordqa.models.maps import FittedMaps
from cordqa.records import Outcome, Provenance, Result, Severity, State, Status, as_plain
from cordqa.workflow.fit.chunks import Advance, fit_voxels
from cordqa.workflow.fit.figures import map_label
from cordqa.workflow.fit.inputs import Inputs, read_inputs
from cordqa.workflow.fit.parts import complete_images
from cordqa.workflow.fit.request import FitRequest
from cordqa.workflow.fit.summary import describe_methods, summarise
from cordqa.workflow.fit.write import MapWriter, output_prefix, remove_outputs

__all__ = ["run_fit"]

Progress = Callable[[str], None]
_PACKAGES = ("numpy", "scipy", "nibabel")
_CURRENT = "done by an earlier run, and nothing has changed since"


def run_fit(
    request: FitRequest, out: Path, *, progress: Progress | None = None, advance: Advance | None = None
) -> Result:
    """Fit one model to one image set and write maps, tables and result into ``out``.

    An earlier result of the same model, inputs and options is kept as it is; one of other inputs is
    replaced; one of another model or command is refused.

    Parameters
    ----------
    request : FitRequest
    out : Path
        Output folder; made where it does not exist.
    progress : callable, optional
        Told what is going on, one line at a time.
    advance : callable, optional
        Told how many voxels of how many are done.

    Returns
    -------
    Result
        Also where no voxel could be fitted: then its outcome is failed.

    Raises
    ------
    InputError
        If images, settings or maps cannot be used together.
    OutputError
        If the output cannot be written.
    """
    tell = progress or (lambda _line: None)
    _check_out(out)
    request = complete_images(request)
    prepare_folder(out)
    tell(
        f"reading {', '.join(path.name for path in request.files[:4])}"
        + (" ..." if len(request.files) > 4 else "")
    )
    inputs = read_inputs(request)
    config = _config(request, inputs)
    hashes = _hashes((*request.files, *inputs.found))
    earlier = _earlier(out)
    if not request.redo:
        _refuse_other(earlier, request, out)
        if earlier is not None and _is_current(earlier, config, hashes, out):
            tell(_CURRENT)
            return _kept(earlier)
    tell(f"fitting {request.model.id} to {int(inputs.mask.sum())} voxels")
    maps = fit_voxels(request.model, inputs.data, n_procs=request.n_procs, advance=advance)
    _check_maps(maps, inputs, request)
    tell("writing")
    return _write(request, inputs, maps, out, config=config, hashes=hashes, earlier=earlier)


def _check_out(out: Path) -> None:
    if out.name.lower().endswith((".nii", ".nii.gz", ".bval", ".bvec", ".json")):
        raise ConfigError(
            "the last name must be the output folder", found=out.name, todo="add a folder at the end"
        )


def _check_maps(maps: FittedMaps, inputs: Inputs, request: FitRequest) -> None:
    """Hold a model to its contract: arrays of one shape, and a reason for every hole."""
    shape = (int(inputs.mask.sum()),)
    for name, values in maps.values.items():
        if values.shape != shape or maps.reason_of(name).codes.shape != shape:
            raise FitError(
                f"the model {request.model.id} gave {name} in another shape", found=f"{values.shape}"
            )
        unexplained = ~np.isfinite(values) & maps.reason_of(name).ok
        if unexplained.any():
            raise FitError(
                f"the model {request.model.id} gave no reason for {int(unexplained.sum())} holes in {name}"
            )


def _config(request: FitRequest, inputs: Inputs) -> dict[str, Any]:
    settings = {
        name: {"values": value.values.tolist(), "origin": value.origin}
        for name, value in inputs.data.settings.items()
        if value.known
    }
    return {**request.plain(), "settings": settings}


def _labels(files: Sequence[Path]) -> dict[str, Path]:
    """Name every input file; files of one name are told apart by their folder."""
    names: dict[str, Path] = {}
    for path in dict.fromkeys(files):
        name = path.name if path.name not in names else f"{path.parent.name}/{path.name}"
        while name in names:
            name += "'"
        names[name] = path
    return names


def _hashes(files: Sequence[Path]) -> dict[str, str]:
    return {name: digest_file(path) for name, path in _labels(files).items()}


def _earlier(out: Path) -> Result | None:
    if not (out / "result.json").is_file():
        return None
    try:
        return read_result(out)
    except CordqaError:
        return None  # damaged, or of another version: replaced


def _refuse_other(earlier: Result | None, request: FitRequest, out: Path) -> None:
    if earlier is None:
        return
    model = earlier.provenance.config.get("model", "")
    if earlier.kind != "fit" or model != request.model.id:
        what = f"cordqa {earlier.kind}" + (f" {model}" if earlier.kind == "fit" else "")
        raise ConfigError(
            f"holds the result of {what}", where=str(out), todo="give another folder, or --redo to replace it"
        )


def _is_current(earlier: Result, config: dict[str, Any], hashes: dict[str, str], out: Path) -> bool:
    before = dict(earlier.provenance.config)
    outputs = before.pop("outputs", None)
    if not isinstance(outputs, list) or earlier.provenance.version != __version__:
        return False
    same = _canonical(before) == _canonical(config) and dict(earlier.provenance.input_hashes) == hashes
    return same and all((out / str(name)).is_file() for name in outputs)


def _canonical(config: dict[str, Any]) -> str:
    return json.dumps(as_plain(config), sort_keys=True)


def _kept(earlier: Result) -> Result:
    outcomes = tuple(
        replace(one, state=State.SKIPPED, reason=f"{_CURRENT}: {one.reason}", code="execute.current")
        if one.state is State.DONE
        else one
        for one in earlier.outcomes
    )
    return replace(earlier, outcomes=outcomes)


def _write(
    request: FitRequest,
    inputs: Inputs,
    maps: FittedMaps,
    out: Path,
    *,
    config: dict[str, Any],
    hashes: dict[str, str],
    earlier: Result | None,
) -> Result:
    names = [path.name for paths in request.images.values() for path in paths]
    writer = MapWriter(
        model=request.model,
        maps=maps,
        grid=inputs.grid,
        mask=inputs.mask,
        out=out,
        prefix=output_prefix(names),
        sources=list(hashes),
        about={"Settings": config["settings"], "Options": config["options"]},
    )
    outputs = writer.names()
    result = _result(request, inputs, maps, config={**config, "outputs": outputs}, hashes=hashes)
    stale = earlier.provenance.config.get("outputs", []) if earlier and earlier.kind == "fit" else []
    # The earlier result goes first: a run that is killed now leaves maps without a result, never
    # a result beside maps that are not its own.
    remove_outputs(out, ["result.json", "report.html", *map(str, stale)])
    writer.write()
    write_config(config, out)
    write_result(result, out)
    return result


def _result(
    request: FitRequest,
    inputs: Inputs,
    maps: FittedMaps,
    *,
    config: dict[str, Any],
    hashes: dict[str, str],
) -> Result:
    summary = summarise(request, inputs, maps)
    outcome = _outcome(request, inputs, maps)
    warned = any(notice.severity is not Severity.INFO for notice in summary.notices)
    mark = " (experimental)" if request.model.experimental else ""
    return Result(
        kind="fit",
        title=f"Fit{mark}: {request.model.description}",
        status=Status.WARN if warned and outcome.state is State.DONE else Status.NOT_EVALUATED,
        summary=f"{outcome.reason[:1].upper()}{outcome.reason[1:]}.",
        measurements=tuple(summary.measurements),
        statistics=tuple(summary.statistics),
        notices=tuple(dict.fromkeys(summary.notices)),
        outcomes=(outcome,),
        figures=tuple(summary.figures),
        methods=describe_methods(request, inputs, maps),
        references=request.model.references,
        provenance=Provenance(
            version=__version__,
            command=_command(request),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            config=config,
            packages={name: metadata.version(name) for name in _PACKAGES},
            input_hashes=hashes,
            engine=f"cordqa {__version__}",
        ),
    )


def _outcome(request: FitRequest, inputs: Inputs, maps: FittedMaps) -> Outcome:
    total = int(inputs.mask.sum())
    main = next(iter(maps.values))
    found = int(np.isfinite(maps.values[main]).sum())
    what = f"{request.model.id}, {next(iter(next(iter(request.images.values())))).name}"
    sources = tuple(path.name for paths in request.images.values() for path in paths)
    if not found:
        reasons = maps.reason_of(main).counts()
        why = max(reasons, key=lambda text: reasons[text]) if reasons else "no voxel"
        text = f"none of {total} voxels could be fitted, most for: {why}"
        return Outcome(what=what, state=State.FAILED, reason=text, code="fit.nothing", sources=sources)
    text = (
        f"{', '.join(map(map_label, maps.values))} of {found} of {total} voxels ({100 * found / total:.1f} %)"
    )
    if request.mask is None and not request.model.outlines:
        text += "; no mask was given, so air is included"
    return Outcome(what=what, state=State.DONE, reason=text, sources=sources)


def _command(request: FitRequest) -> str:
    """Write the command with the words of its help text: paths may name people."""
    table = request.gradients
    words = [f"--{name.replace('_', '-')} {_word(value)}" for name, value in sorted(request.settings.items())]
    words += [f"--{name.replace('_', '-')} FILE" for name in sorted(request.maps)]
    words += [
        f"--{name.replace('_', '-')}" + ("" if value is True else f" {_word(value)}")
        for name, value in sorted(request.options.items())
        if value is not None and value is not False
    ]
    words += [
        f"--{name} FILE" for name in ("bval", "bvec", "bdelta", "btens", "mrtrix") if getattr(table, name)
    ]
    words += [f"--b-unit {table.b_unit}"] if table.b_unit else []
    words += [f"--lengths {table.norms}"] if table.norms != "refuse" else []
    words += [f"--b0-limit {table.b0_limit_s_mm2:g}"] if table.b0_limit_s_mm2 is not None else []
    words += ["--mask FILE"] if request.mask else []
    words += ["--noise-map FILE"] if request.noise_map else []
    words += [f"--noise-sd {request.noise_sd:g}"] if request.noise_sd is not None else []
    words += ["--region FILE"] * len(request.regions)
    words += [f"--region-statistic {request.region_statistic}"] if request.region_statistic != "mean" else []
    shared = request.correlated_voxels
    words += [f"--correlated-voxels {shared:g}"] if not math.isclose(shared, 1.0) else []
    words += ["--resample"] if request.resample else []
    return " ".join(["cordqa fit", request.model.id, request.model.usage, *words])


def _word(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(f"{number:g}" for number in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
