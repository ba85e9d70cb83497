"""``cordqa fit MODEL IMAGE... OUT``: one model on one image set.

Each model is a sub-command that is made from its record, so that its help names its own images,
parameters and units.  The models are loaded only when this command runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from cordqa.workflow.fit.registry import FitModel, ImageRole, MapInput, Option, Setting
    from cordqa.workflow.fit.request import FitRequest

__all__ = ["app"]


class RegionStatistic(StrEnum):
    """What the value of a region is."""

    MEAN = "mean"
    MEDIAN = "median"


class ModelGroup(TyperGroup):
    """The sub-commands, one per registered model."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of the models."""
        from cordqa.workflow.fit.registry import list_models

        return list(list_models())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Make the command of one model; ``None`` where there is no such model."""
        from cordqa.workflow.fit.registry import list_models

        model = list_models().get(cmd_name)
        return None if model is None else _make_command(model)


app = typer.Typer(
    cls=ModelGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Fit one model to one image set: maps with standard errors, region values, report.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _fit() -> None:
    pass


def _make_command(model: FitModel) -> Any:
    single = typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    single.command(model.id, help=_help(model), short_help=_short(model), epilog=_epilog(model))(
        _make_function(model)
    )
    command = typer.main.get_command(single)
    command.name = model.id
    return command


def _short(model: FitModel) -> str:
    return f"{model.description}{' (experimental)' if model.experimental else ''}."


def _help(model: FitModel) -> str:
    parts = [_short(model), f"Maps: {', '.join(model.produces)}."]
    if model.experimental:
        parts.append(f"Experimental: {model.experimental}.")
    parts.append(" ".join(model.assumptions))
    return "\n\n".join(part for part in parts if part)


def _epilog(model: FitModel) -> str:
    return "References: " + " | ".join(model.references)


def _make_function(model: FitModel) -> Callable[..., None]:
    """Make the function whose signature is the command line of a model."""

    def command(**given: Any) -> None:
        _run(model, given)

    parameters = [*_images(model), *_own_options(model), *_common_options(model)]
    # Typer reads signature and annotations; both are those of a function written by hand.
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    command.__doc__ = _short(model)
    return command


def _parameter(name: str, kind: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)


def _images(model: FitModel) -> list[inspect.Parameter]:
    found = []
    for role in model.images:
        if role.by_option:
            continue
        kind: Any = list[Path] if role.many else Path
        argument = typer.Argument(metavar=role.metavar, help=role.help)
        found.append(_parameter(f"image_{role.id}", Annotated[kind, argument], inspect.Parameter.empty))
    out = typer.Argument(metavar="OUT", help="Folder for maps, tables and report.")
    found.append(_parameter("out", Annotated[Path, out], inspect.Parameter.empty))
    return found


def _image_option(role: ImageRole) -> inspect.Parameter:
    text = role.help + (" Repeat it for several files." if role.many else "")
    text += " Required." if role.required else ""
    option = typer.Option(role.option, help=text, metavar="FILE")
    return _parameter(f"image_{role.id}", Annotated[list[Path] | None, option], None)


def _own_options(model: FitModel) -> list[inspect.Parameter]:
    found = [_image_option(role) for role in model.images if role.by_option]
    found += [_setting(one) for one in model.settings]
    if model.gradients:
        for name, text in (
            ("bval", "b-values, s/mm2; looked for beside the image by default."),
            ("bvec", "Directions, FSL convention; looked for beside the image by default."),
            ("bdelta", "Shape of the b-tensors: 1 linear, 0 spherical, -0.5 planar."),
            ("btens", "b-tensors (n x 3 x 3 .npy, or nine columns) instead of bval and bvec."),
            ("mrtrix", "MRtrix gradient table (x y z b) instead of bval and bvec."),
        ):
            found.append(_file(f"gradient_{name}", f"--{name}", text))
        found += _gradient_reading()
    found += [_map(one) for one in model.maps]
    found += [_option(one) for one in model.options]
    if model.takes_noise:
        found.append(_file("noise_map", "--noise-map", "Noise SD per voxel, in the unit of the images."))
        noise = typer.Option("--noise-sd", help="Noise SD of all voxels, in the unit of the images.")
        found.append(_parameter("noise_sd", Annotated[float | None, noise], None))
    return found


def _gradient_reading() -> list[inspect.Parameter]:
    """Options that settle what the numbers of gradient files mean, as in ``cordqa scheme check``."""
    from cordqa.cli.scheme import Lengths, Unit

    unit = typer.Option("--b-unit", help="Unit of the b-values, where it is not s/mm2.")
    lengths = typer.Option("--lengths", help="What to do with directions that are not of unit length.")
    limit = typer.Option(
        "--b0-limit", help="Volumes up to this b-value (s/mm2) count as not weighted; found by default."
    )
    return [
        _parameter("b_unit", Annotated[Unit | None, unit], None),
        _parameter("norms", Annotated[Lengths, lengths], Lengths.REFUSE),
        _parameter("b0_limit_s_mm2", Annotated[float | None, limit], None),
    ]


def _file(name: str, option: str, text: str) -> inspect.Parameter:
    return _parameter(name, Annotated[Path | None, typer.Option(option, help=text, metavar="FILE")], None)


def _setting(one: Setting) -> inspect.Parameter:
    several = "one value, or one per image" if one.constant else "one per image"
    many = "one value" if one.shared else f"{several}, separated by commas"
    source = f"from the sidecar ({one.sidecar[0]}) by default" if one.sidecar else "in no sidecar"
    text = f"{one.help} In {one.unit}, {many}; {source}."
    option = typer.Option(one.option, help=text, metavar=one.unit.upper() + ("" if one.shared else ",..."))
    return _parameter(f"setting_{one.id}", Annotated[str | None, option], None)


def _map(one: MapInput) -> inspect.Parameter:
    return _file(f"map_{one.id}", one.option, one.help + (" Required." if one.required else ""))


def _option(one: Option) -> inspect.Parameter:
    unit = "" if one.unit in ("", "1") else f" [{one.unit}]"
    choices = f" One of: {', '.join(one.choices)}." if one.choices else ""
    shown = "" if one.default is None or one.kind is bool else f" Default: {_shown(one.default)}."
    text = f"{one.help}{choices}{unit}{shown}"
    name = f"option_{one.id}"
    if one.kind is bool:
        flags = f"{one.option}/--no-{one.option[2:]}" if one.default else one.option
        option = typer.Option(flags, help=text, show_default=bool(one.default))
        return _parameter(name, Annotated[bool, option], bool(one.default))
    kind: Any = {float: float, int: int}.get(one.kind, str)
    option = typer.Option(one.option, help=text, metavar=_metavar(one), show_default=False)
    return _parameter(name, Annotated[kind | None, option], None)


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(f"{number:g}" for number in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _metavar(one: Option) -> str:
    if one.choices:
        return "|".join(one.choices) + (",..." if one.many else "")
    return {float: "NUMBER", int: "INTEGER", tuple: "NUMBER,..."}.get(one.kind, "TEXT")


def _common_options(model: FitModel) -> list[inspect.Parameter]:
    made = "made from the images" if model.outlines else "all"
    mask = f"Voxels to fit (above one half); {made} by default."
    region = (
        "Regions: integer labels, or shares (4D, or 3D from 0 to 1); names from a .tsv beside it. Repeat it."
    )
    shared = "Voxels that share one error, after interpolation or smoothing; 1 is independent."
    found = [
        _file("mask", "--mask", mask),
        _parameter("region", Annotated[list[Path] | None, typer.Option(help=region, metavar="FILE")], None),
        _parameter(
            "region_statistic",
            Annotated[RegionStatistic, typer.Option(help="Value of a region; both are written.")],
            RegionStatistic.MEAN,
        ),
        _parameter("correlated_voxels", Annotated[float, typer.Option(help=shared)], 1.0),
        _flag("resample", "--resample", "Bring masks, maps and regions to the grid of the images."),
    ]
    if model.voxelwise:
        procs = typer.Option("--n-procs", min=1, help="Processes, each with one thread.")
        found.append(_parameter("n_procs", Annotated[int, procs], 1))
    found += [
        _flag("redo", "--redo", "Repeat also what is current; replace the result of another model."),
        _parameter(
            "report", Annotated[bool, typer.Option("--report/--no-report", help="Write report.html.")], True
        ),
        _flag("as_json", "--json", "Print the whole result as JSON."),
    ]
    return found


def _flag(name: str, option: str, text: str) -> inspect.Parameter:
    return _parameter(name, Annotated[bool, typer.Option(option, help=text)], False)


def _run(model: FitModel, given: dict[str, Any]) -> None:
    from cordqa.cli._output import progress
    from cordqa.records import State
    from cordqa.workflow.fit.run import run_fit

    out: Path = given["out"]
    request = _request(model, given)
    result = run_fit(request, out, progress=progress, advance=_Bar())
    _finish(result, out, report=given["report"], as_json=given["as_json"])
    raise typer.Exit(1 if result.count(State.FAILED) else 0)


def _request(model: FitModel, given: dict[str, Any]) -> FitRequest:
    from cordqa.workflow.fit.request import FitRequest, GradientFiles

    images = {
        role.id: tuple(value) if isinstance(value, (list, tuple)) else (value,)
        for role in model.images
        if (value := given[f"image_{role.id}"])
    }
    settings = {
        one.id: _numbers(text, one.option)
        for one in model.settings
        if (text := given[f"setting_{one.id}"]) is not None
    }
    options = {
        one.id: _numbers(value, one.option) if one.kind is tuple else value
        for one in model.options
        if (value := given[f"option_{one.id}"]) is not None
    }
    files: dict[str, Any] = {
        name: given.get(f"gradient_{name}") for name in ("bval", "bvec", "bdelta", "btens", "mrtrix")
    }
    return FitRequest(
        model=model,
        images=images,
        settings=settings,
        maps={one.id: path for one in model.maps if (path := given[f"map_{one.id}"]) is not None},
        options=options,
        mask=given["mask"],
        noise_map=given.get("noise_map"),
        noise_sd=given.get("noise_sd"),
        gradients=GradientFiles(**files, **_reading(given)),
        regions=tuple(given["region"] or ()),
        region_statistic=given["region_statistic"].value,
        correlated_voxels=given["correlated_voxels"],
        resample=given["resample"],
        n_procs=given.get("n_procs", 1),
        redo=given["redo"],
    )


def _reading(given: dict[str, Any]) -> dict[str, Any]:
    """How gradient files are to be read, as plain words."""
    names = ("b_unit", "norms", "b0_limit_s_mm2")
    found = {name: given[name] for name in names if given.get(name) is not None}
    return {name: value.value if isinstance(value, StrEnum) else value for name, value in found.items()}


def _numbers(text: str, option: str) -> tuple[float, ...]:
    """Read numbers separated by commas or spaces."""
    from cordqa.errors import ConfigError

    words = text.replace(",", " ").split()
    try:
        found = tuple(float(word) for word in words)
    except ValueError:
        found = ()
    if not found:
        raise ConfigError("must be numbers separated by commas", where=option, found=repr(text[:40]))
    return found


class _Bar:
    """Progress on stderr: a bar on a terminal, a line per quarter elsewhere."""

    def __init__(self) -> None:
        import sys

        self._live = sys.stderr.isatty()
        self._said = 0

    def __call__(self, done: int, total: int) -> None:
        import sys

        share = done / total if total else 1.0
        if self._live:
            filled = int(30 * share)
            end = "\n" if done >= total else ""
            print(
                f"\r[{'#' * filled}{'.' * (30 - filled)}] {100 * share:3.0f} %",
                end=end,
                file=sys.stderr,
                flush=True,
            )
        elif int(4 * share) > self._said:
            self._said = int(4 * share)
            print(f"{100 * share:.0f} % of {total} voxels", file=sys.stderr, flush=True)


def _finish(result: Any, out: Path, *, report: bool, as_json: bool) -> None:
    import json
    import sys

    from cordqa.cli._output import finish, progress
    from cordqa.records import State, as_plain
    from cordqa.report import render_text

    if report:
        finish(result, out, as_json=as_json)
        return
    if as_json:
        json.dump(as_plain(result), sys.stdout, ensure_ascii=False, allow_nan=False)
        print()
    else:
        print(render_text(result))
    done, skipped, failed = (result.count(state) for state in (State.DONE, State.SKIPPED, State.FAILED))
    progress(f"done {done}, skipped {skipped}, failed {failed}")
    progress(f"result: {out / 'result.json'}")
