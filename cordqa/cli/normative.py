"""``cordqa normative``: reference values of controls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(
    help="Reference values of controls, with which cordqa cord compares people.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _group() -> None:
    pass


@app.command("build")
def build(
    table: Annotated[
        Path, typer.Argument(metavar="TABLE", help="One row per control and level: age, sex, level, CSA ...")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT.json", help="Reference file to write.")],
    licence: Annotated[
        str,
        typer.Option("--licence", "--license", help="Licence and credit of the table; it is kept with it."),
    ],
    note: Annotated[
        list[str] | None, typer.Option(help="How controls were scanned and measured; repeat it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was built as JSON.")] = False,
) -> None:
    """Build a reference file from a table of controls, for ``cordqa cord --reference-table``.

    The file holds models of the expected value by age, sex and vendor with their scatter, and no person.
    """
    import json

    from cordqa.cli._output import progress
    from cordqa.workflow.cord_reference import build_reference

    found = build_reference(table, out, licence=licence, notes=tuple(note or ()), tell=progress)
    rows = [
        {
            "quantity": quantity,
            "level": level or "any",
            "n": model.n,
            "age_from": model.age_range[0],
            "age_to": model.age_range[1],
            "residual_sd": model.residual_sd,
            "vendors": list(model.vendors),
        }
        for (quantity, level), model in sorted(found.models.items())
    ]
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
        return
    print("quantity      level   n    ages       SD about the model  vendors")
    for row in rows:
        ages = f"{row['age_from']:g}-{row['age_to']:g}"
        vendors = ", ".join(str(name) for name in row["vendors"]) or "one, or not told"  # type: ignore[attr-defined]
        print(
            f"{row['quantity']:<13} {row['level']:<7} {row['n']:<4} {ages:<10} {row['residual_sd']:<19.4g} "
            f"{vendors}"
        )
    progress(f"reference: {out}; use it with: cordqa cord BIDS_DIR OUT participant --reference-table {out}")
