"""The application and its commands."""

from __future__ import annotations

from typing import Annotated

import typer

from cordqa import __version__
from cordqa.cli import (
    cord,
    demo,
    doctor,
    fit,
    listing,
    normative,
    phantom,
    protocol,
    reliability,
    report,
    scheme,
)

app = typer.Typer(
    name="cordqa",
    help="How far can I trust this MRI measurement? Research use only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog=(
        "Exit status: 0 finished and passed; 1 some of the work failed; "
        "2 wrong usage or unreadable input; 3 finished, and a check failed."
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"cordqa {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_print_version)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the full traceback of an error.", envvar="CORDQA_DEBUG")
    ] = False,
) -> None:
    pass


app.command("demo")(demo.demo)
app.command("phantom")(phantom.phantom)
app.command("cord", context_settings={"allow_extra_args": True})(cord.cord)
app.add_typer(fit.app, name="fit")
app.add_typer(normative.app, name="normative")
app.command("reliability")(reliability.reliability)
app.add_typer(protocol.app, name="protocol")
app.add_typer(scheme.app, name="scheme")
app.command("report")(report.report)
app.command("list")(listing.list_things)
app.command("doctor")(doctor.doctor)
