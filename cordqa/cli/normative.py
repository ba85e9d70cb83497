"""``cordqa normative``: reference values of controls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(
    help="Reference values of controls, with which people are compared: of a table, or voxel by voxel.",
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


@app.command("atlas")
def atlas(
    maps: Annotated[
        list[Path],
        typer.Argument(metavar="MAP... OUT", help="Registered NIfTI maps, one per person; folder."),
    ],
    minimum: Annotated[int, typer.Option(help="Fewest maps with a value for a mean.")] = 3,
    zeros: Annotated[
        str, typer.Option(help="What 0 means in a map: values, or missing (outside of the brain or cord).")
    ] = "values",
    as_json: Annotated[bool, typer.Option("--json", help="Print what was built as JSON.")] = False,
) -> None:
    """Average maps of a group in template space: mean, SD, n and coverage of every voxel.

    Maps of any measure (MWF, MTsat, T1 ...) that were registered to one template before.
    """
    import json
    from dataclasses import asdict
    from typing import Literal, cast

    from cordqa.cli._output import progress
    from cordqa.workflow.group_atlas import make_atlas

    if len(maps) < 2:
        raise typer.BadParameter("give the maps, and the folder of the atlas last")
    wanted = cast('Literal["missing", "values"]', zeros)
    found = make_atlas(maps[:-1], maps[-1], minimum=minimum, zeros=wanted, tell=progress)
    if as_json:
        print(json.dumps(asdict(found), ensure_ascii=False))
        return
    unit = f" {found.unit}" if found.unit not in ("", "1") else ""
    print(
        f"{found.n_maps} maps, {found.n_voxels} voxels with a mean; median {found.median:.4g}{unit}, "
        f"median SD between people {found.median_sd:.4g}{unit}"
    )
    for notice in found.notices:
        progress(f"warning: {notice}")
    progress(f"atlas: {maps[-1]}; compare a person with: cordqa normative score MAP {maps[-1]} OUT.nii.gz")


@app.command("score")
def score(
    one: Annotated[Path, typer.Argument(metavar="MAP", help="Registered map of a person.")],
    atlas_folder: Annotated[Path, typer.Argument(metavar="ATLAS", help="Folder of cordqa normative atlas.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.nii.gz", help="Map of scores to write.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Say of every voxel how far a person lies from a group, as Student's t of prediction."""
    import json
    from dataclasses import asdict

    from cordqa.cli._output import progress
    from cordqa.workflow.group_atlas import score_map

    found = score_map(one, atlas_folder, out)
    if as_json:
        print(json.dumps(asdict(found), ensure_ascii=False))
        return
    print(
        f"{found.n_voxels} voxels: {100 * found.share_below:.1f} % below and {100 * found.share_above:.1f} % "
        f"above the limits that 2.5 % of people like the group pass on either side (|t| > {found.limit:.2f})"
    )
    for notice in found.notices:
        progress(f"warning: {notice}")
    progress(f"scores: {out}")
