"""``cordqa protocol``: was it scanned as the protocol asks? Compare protocols, draft one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

__all__ = ["app"]

_CHECK = "check"


class _CheckByDefault(TyperGroup):
    """``cordqa protocol NAME DATA OUT`` is short for ``cordqa protocol check NAME DATA OUT``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``check`` before what is no command."""
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = [_CHECK, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_CheckByDefault,
    help="Check a dataset against an acquisition protocol: cordqa protocol NAME DATA OUT. "
    "Compare protocols, draft one from scans, or print the schema of protocol files.",
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog="'cordqa list protocols' names those that are shipped. Exit status of a check: 0 in compliance; "
    "1 some files could not be read, or nothing could be judged; 2 wrong usage; 3 out of compliance.",
)


@app.command(_CHECK)
def check(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Protocol, or a YAML file; several separated by commas, each for its series."
        ),
    ],
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="BIDS dataset, JSON sidecars, or DICOM files.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for report and tables.")],
    dicom: Annotated[
        Path | None,
        typer.Option(help="DICOM files that the sidecars were made from: both are compared."),
    ] = None,
    show_identity: Annotated[
        bool, typer.Option("--show-identity", help="Let the patient identifier into the output.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole result as JSON.")] = False,
) -> None:
    """Check every series of a dataset against a protocol."""
    from cordqa.cli._output import exit_status, finish, progress
    from cordqa.workflow.protocol.run import ProtocolSettings, run_protocol

    settings = ProtocolSettings(dicom=dicom, show_identity=show_identity)
    result = run_protocol(name, data, out, settings=settings, progress=progress)
    finish(result, out, as_json=as_json)
    raise typer.Exit(exit_status(result))


@app.command("diff")
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="Protocol, YAML file, or dataset.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Protocol, YAML file, or dataset.")],
    everything: Annotated[bool, typer.Option("--all", help="Also what is the same.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare two protocols, or a protocol with the most common values of a dataset."""
    from cordqa.workflow.protocol.compare import compare_protocols, write_comparison, write_comparison_json

    comparison = compare_protocols(a, b)
    if as_json:
        print(write_comparison_json(comparison, everything=everything))
    else:
        print(write_comparison(comparison, everything=everything), end="")


@app.command("infer")
def infer(
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="BIDS dataset, JSON sidecars, or DICOM files.")
    ],
    out: Annotated[
        Path | None, typer.Argument(metavar="[FILE.yaml]", help="File to write; printed otherwise.")
    ] = None,
    name: Annotated[str, typer.Option(help="Id of the protocol.")] = "draft",
) -> None:
    """Draft a protocol from what most scans have in common, per vendor."""
    from cordqa.cli._output import progress
    from cordqa.workflow.protocol.draft import draft_dataset

    text, summary = draft_dataset(data, name=name, out=out)
    if out is None:
        print(text, end="")
    progress(summary)


@app.command("schema")
def schema() -> None:
    """Print the JSON schema of protocol files, for editors."""
    import json

    from cordqa.protocol.definition import protocol_json_schema

    print(json.dumps(protocol_json_schema(), indent=2, ensure_ascii=False))
