"""``cordqa phantom``: a quality-assurance run of a phantom."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["phantom"]


def phantom(
    folder: Annotated[Path, typer.Argument(metavar="DICOM_DIR", help="Folder of DICOM or NIfTI files.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for report and tables.")],
    name: Annotated[
        str, typer.Option("--phantom", help="Phantom name (see 'cordqa list phantoms') or a YAML file.")
    ] = "caliber-system",
    serial: Annotated[
        str | None, typer.Option(help="Serial number, for example 130-0042; decides the batch.")
    ] = None,
    batch: Annotated[str | None, typer.Option(help="Batch, where the serial number is not known.")] = None,
    field_strength: Annotated[
        float | None, typer.Option(help="Field strength in tesla, where the header lacks it.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Temperature of the phantom in degrees Celsius.")
    ] = None,
    temperature_uncertainty: Annotated[
        float | None, typer.Option(help="Standard uncertainty of the temperature; 0.5 by default.")
    ] = None,
    plate: Annotated[
        str | None, typer.Option(help="Plate in every image, where the search should not decide.")
    ] = None,
    tolerances: Annotated[
        Path | None, typer.Option(help="YAML file with tolerances; the shipped ones otherwise.")
    ] = None,
    b1_map: Annotated[
        Path | None,
        typer.Option(help="NIfTI map of actual over nominal flip angle."),
    ] = None,
    t2_model: Annotated[
        str, typer.Option(help="Model of the multi-echo decay: exponential or epg.")
    ] = "exponential",
    protocol: Annotated[
        str | None,
        typer.Option(help="Also check the scans against this protocol (see 'cordqa list protocols')."),
    ] = None,
    show_identity: Annotated[
        bool, typer.Option("--show-identity", help="Let the patient identifier into the output.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole result as JSON.")] = False,
) -> None:
    """Find a phantom in a folder of scans, measure it and judge it."""
    from cordqa.cli._output import exit_status, finish, progress
    from cordqa.workflow.phantom import PhantomSettings, run_phantom

    settings = PhantomSettings(
        phantom=name,
        serial=serial,
        batch=batch,
        field_strength_T=field_strength,
        temperature_C=temperature,
        temperature_uncertainty_C=temperature_uncertainty,
        plate=plate,
        tolerances=tolerances,
        b1_map=b1_map,
        t2_model=t2_model,
        show_identity=show_identity,
        protocol=protocol,
    )
    result = run_phantom(folder, out, settings=settings, progress=progress)
    finish(result, out, as_json=as_json)
    raise typer.Exit(exit_status(result))
