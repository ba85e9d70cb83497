"""From the header of one series to values that a protocol can be compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cordqa.errors import CordqaError
from cordqa.io.files import printable
from cordqa.io.sidecars import SeriesHeader
from cordqa.protocol.fields import FIELDS, format_number, observe
from cordqa.protocol.records import GradientFacts, ObservedSeries, ObservedValue, Origin, Problem
from cordqa.records import Entities

__all__ = ["number_of", "observe_header", "observe_value", "plain_error"]

_ORIGINS = {"image": Origin.IMAGE, "DICOM": Origin.DICOM, "private": Origin.PRIVATE}


def observe_header(header: SeriesHeader, scanner: str = "") -> ObservedSeries:
    """Turn the header of one series into what a protocol is compared with.

    Parameters
    ----------
    header : SeriesHeader
    scanner : str
        Name of the machine.
    """
    values = {
        name: observe_value(name, raw, header)
        for name, raw in header.values.items()
        if name in FIELDS or isinstance(raw, (int, float, str))  # no protocol speaks of nested records
    }
    derived = {**_transfer_state(header, values), **_repetition_time(values)}
    return ObservedSeries(
        file=header.source,
        entities=Entities(
            subject=header.subject,
            session=header.session,
            run=header.entities.get("run", ""),
            acquisition=header.entities.get("acq", ""),
            site=header.site,
            vendor=header.vendor,
            model=header.model,
            software=header.software,
            scanner=scanner,
            field_strength_T=number_of(values.get("MagneticFieldStrength")),
            acquired=header.acquired,
        ),
        suffix=header.suffix,
        labels=_labels(header),
        protocol_name=header.protocol_name,
        series_description=header.series_description,
        parameters={**values, **derived},
        gradients=_gradients(header),
        problem="; ".join(header.problems),
    )


def _labels(header: SeriesHeader) -> dict[str, str]:
    """BIDS entities of the name; of a DICOM series its number, by which the echoes of one scan are one."""
    if not header.suffix:
        return {"series": str(header.series_number)} if header.series_number else {}
    who = {"sub": header.subject, "ses": header.session}
    return {**{key: value for key, value in who.items() if value}, **header.entities}


def observe_value(name: str, raw: Any, header: SeriesHeader) -> ObservedValue:
    """Turn one recorded value into one that can be compared; where it cannot, ``note`` says why."""
    where = header.origins.get(name, "")
    origin = _ORIGINS.get(where, Origin.SIDECAR)
    found = observe(name, raw, origin=origin)
    if name in header.contradictions:
        return replace(found, value=None, problem=Problem.CONTRADICTION, note=header.contradictions[name])
    if origin is Origin.PRIVATE and isinstance(raw, tuple) and found.problem:
        note = f"differs between the images of the series: {format_number(min(raw))} to "
        return replace(found, problem=Problem.CONTRADICTION, note=note + format_number(max(raw)))
    if where.startswith("sidecar ") and found.problem:
        return replace(found, note=f"{found.note} (in {where.removeprefix('sidecar ')})")
    return found


def number_of(found: ObservedValue | None) -> float:
    """Return a value as a number; NaN where it is none."""
    value = None if found is None else found.value
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def _transfer_state(header: SeriesHeader, values: Mapping[str, ObservedValue]) -> dict[str, ObservedValue]:
    """Read from the sequence variant whether a transfer pulse was on, where no field says so itself.

    The variant ``MTC`` is a defined term of DICOM.  That it is absent means something only for
    Siemens, which always fills it where there is a pulse.
    """
    if "MTState" in values:
        return {}
    words = {
        word
        for name in ("SequenceVariant", "ScanOptions")
        if (found := values.get(name)) is not None and isinstance(found.value, tuple)
        for word in map(str, found.value)
    }
    if words & {"MTC", "MT"}:
        on = True
    elif header.vendor == "Siemens" and "SequenceVariant" in values:
        on = False
    else:
        return {}
    variant = values.get("SequenceVariant") or values["ScanOptions"]
    note = "read from the sequence variant and the scan options"
    return {"MTState": ObservedValue(on, on, "", variant.origin, Problem.NONE, note)}


def _repetition_time(values: Mapping[str, ObservedValue]) -> dict[str, ObservedValue]:
    """Read the repetition time from the name that BIDS gives it for anatomical images.

    With a preparation or an inversion the DICOM value may be the time between those, so there it
    stays unknown.
    """
    found = values.get("RepetitionTimeExcitation")
    if found is None or {"RepetitionTime", "RepetitionTimePreparation", "InversionTime"} & set(values):
        return {}
    return {"RepetitionTime": replace(found, note=found.note or "read from RepetitionTimeExcitation")}


def _gradients(header: SeriesHeader) -> GradientFacts | None:
    paths = header.gradients
    if not paths:
        return None
    from cordqa.workflow.gradients import read_gradients

    names = tuple(printable(path.name) for path in paths.given)
    shaped = paths.bdelta is not None or paths.btens is not None
    try:
        checked = read_gradients(None, paths, allow_no_b0=True, n_volumes=_n_volumes(header))
    except CordqaError as error:
        return GradientFacts(
            table=None, shape_stated=shaped, sources=names, problem=plain_error(error), code=error.code
        )
    return GradientFacts(table=checked.table, shape_stated=shaped, sources=names)


def _n_volumes(header: SeriesHeader) -> int | None:
    """Volumes of the image, where there is one: a scan that was cut short has fewer than its table."""
    if header.origins.get("NumberOfVolumes") != "image":
        return None
    return int(header.values["NumberOfVolumes"])


def plain_error(error: CordqaError) -> str:
    """Write an error without its place, which may be an absolute path and stands beside it already."""
    return str(type(error)(error.what, found=error.found, expected=error.expected, todo=error.todo))
