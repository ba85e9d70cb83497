"""``cordqa reliability``: how far can the numbers of a table be trusted?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cordqa.records import Result

__all__ = ["reliability"]

Many = list[str]


def reliability(
    table: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE",
            help="CSV or TSV of measured values; or volumes of FreeSurfer or FIRST: asegstats2table, "
            "aparcstats2table, a folder of such files, or of FreeSurfer's subjects.",
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for report and tables.")],
    config: Annotated[
        Path | None, typer.Option(help="YAML file with any of these options; those given here count more.")
    ] = None,
    map_: Annotated[
        Many | None,
        typer.Option("--map", help="Which column is what: subject=participant_id, region=level ..."),
    ] = None,
    value: Annotated[
        Many | None, typer.Option(help="Column of values, with its quantity where the name differs: csa=CSA.")
    ] = None,
    gather: Annotated[
        str | None, typer.Option(help="Columns that hold one quantity by scanner: scanner=A,B,C.")
    ] = None,
    unit: Annotated[Many | None, typer.Option(help="Unit of the values: CSA=mm2, or mm2 for all.")] = None,
    scale: Annotated[
        Many | None, typer.Option(help="ratio or interval (no CV): difference=interval.")
    ] = None,
    where: Annotated[Many | None, typer.Option(help="Rows to analyse: cohort=III, level=C2,C3.")] = None,
    exclude: Annotated[
        Many | None, typer.Option(help="Rows to leave out, with the reason: 'subject=sub-03: motion'.")
    ] = None,
    by: Annotated[Many | None, typer.Option(help="Further column that splits the table.")] = None,
    covariate: Annotated[Many | None, typer.Option(help="Column to adjust for, besides age and sex.")] = None,
    marker: Annotated[Many | None, typer.Option(help="Markers to compare between groups: 'FA, C2'.")] = None,
    subject_within: Annotated[
        str | None, typer.Option(help="Subjects are named anew in each of these: site.")
    ] = None,
    compare: Annotated[
        str | None, typer.Option(help="What to compare in pairs: scanner, site, vendor or session.")
    ] = None,
    batch: Annotated[
        str | None, typer.Option(help="What harmonisation takes out: scanner, site, vendor.")
    ] = None,
    case: Annotated[str | None, typer.Option(help="Label of the group that holds the cases.")] = None,
    harmonise: Annotated[str | None, typer.Option(help="travelling, combat, covbat or longcombat.")] = None,
    definition: Annotated[
        str | None, typer.Option(help="Published definitions beside the estimates: spine-generic.")
    ] = None,
    scanners: Annotated[
        str | None, typer.Option(help="random: they stand for others; fixed: these ones only.")
    ] = None,
    error_ratio: Annotated[
        float | None, typer.Option(help="Variance of the error of measured over reference values (Deming).")
    ] = None,
    limit: Annotated[
        Many | None,
        typer.Option(help="Limit to judge by: 'wCV<=3%', 'CSA: ICC(A,1)>=0.9', '|bias_percent|<=5%'."),
    ] = None,
    published: Annotated[
        Many | None, typer.Option(help="Percentage to check for its n: 'sensitivity=88% of 22'.")
    ] = None,
    difference: Annotated[
        Many | None, typer.Option(help="Effect to plan a study for: 3%, or CSA=2.5 in units.")
    ] = None,
    relate: Annotated[
        Many | None,
        typer.Option(help="Quantities to correlate and to calibrate: 'MTsat,MWF by tissue'."),
    ] = None,
    level: Annotated[float | None, typer.Option(help="Confidence level of the intervals [0.95].")] = None,
    baseline: Annotated[
        int | None, typer.Option(help="Values that set the limits of a control chart [20].")
    ] = None,
    simultaneous: Annotated[
        bool | None, typer.Option("--simultaneous", help="Also intervals that hold for all regions together.")
    ] = None,
    keep_flagged: Annotated[
        bool | None,
        typer.Option("--keep-flagged", help="Keep values that cordqa flagged when it measured them."),
    ] = None,
    detail: Annotated[
        str | None, typer.Option(help="Statistics to keep: full, headline, or auto by their number.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of bootstrap and cross-validation.")] = None,
    delimiter: Annotated[str | None, typer.Option(help="tab, comma, semicolon or a character.")] = None,
    decimal: Annotated[str | None, typer.Option(help="Decimal sign of the numbers: '.' or ','.")] = None,
    names: Annotated[
        str | None,
        typer.Option(
            help="How FreeSurfer or FIRST scans are named, if not by BIDS: '{subject}_{session}', {} for "
            "anything."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole result as JSON.")] = False,
) -> None:
    """Say how far measured values can be trusted across repeats, sessions, scanners and vendors.

    Which statistics run follows from the columns of the table; the report says which did not, and why.
    """
    given: dict[str, Any] = {
        "map": map_,
        "value": value,
        "gather": gather,
        "unit": unit,
        "scale": scale,
        "where": where,
        "exclude": exclude,
        "by": by,
        "covariate": covariate,
        "marker": marker,
        "subject_within": subject_within,
        "compare": compare,
        "batch": batch,
        "case": case,
        "harmonise": harmonise,
        "definition": definition,
        "scanners": scanners,
        "error_ratio": error_ratio,
        "limit": limit,
        "published": published,
        "difference": difference,
        "relate": relate,
        "level": level,
        "baseline": baseline,
        "simultaneous": simultaneous,
        "keep_flagged": keep_flagged,
        "detail": detail,
        "seed": seed,
        "delimiter": delimiter,
        "decimal": decimal,
        "names": names,
    }
    from cordqa.cli._output import finish, progress
    from cordqa.workflow.reliability import run_reliability
    from cordqa.workflow.reliability_settings import make_settings, read_options

    filed = read_options(config) if config is not None else {}
    settings = make_settings((str(config), filed), ("", _stated(given)))
    result = run_reliability(table, out, settings=settings, progress=progress)
    finish(result, out, as_json=as_json)
    raise typer.Exit(exit_status(result))


def _stated(given: dict[str, Any]) -> dict[str, Any]:
    """Drop what was not written on the command line; zero and false were."""
    return {name: value for name, value in given.items() if value is not None and value != []}


def exit_status(result: Result) -> int:
    """Return 3 where a limit is broken, 1 where work failed or nothing could be done, else 0.

    A table that was analysed without limits is finished work, although nothing was judged.
    """
    from cordqa.records import State, Status

    if result.status is Status.FAIL:
        return 3
    if result.count(State.FAILED) or not result.count(State.DONE):
        return 1
    return 1 if result.verdicts and result.status is Status.NOT_EVALUATED else 0
