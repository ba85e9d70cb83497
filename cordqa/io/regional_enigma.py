"""Columns of the wide tables that the ENIGMA protocols make of FreeSurfer's results.

``LandRvolumes.csv`` has volumes (``Lthal``), ``CorticalMeasuresENIGMA_ThickAvg.csv`` and ``_SurfAvg.csv``
thickness and area of the cortex (``L_bankssts_thickavg``); each ends with columns of the whole head.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["enigma_columns", "is_enigma"]

_SUBJECT = "subjid"
_VOLUME = re.compile(r"[LR](?:LatVent|thal|caud|put|pal|hippo|amyg|accumb)", re.IGNORECASE)
_CORTEX = re.compile(r"([LR]_.+)_(thickavg|surfavg)", re.IGNORECASE)
_KINDS = {
    "volume": ("volume", "mm3"),
    "thickavg": ("thickness", "mm"),
    "surfavg": ("surface_area", "mm2"),
}
#: Columns of the whole head or hemisphere stand in tables of another measure as well.
_WHOLE = {
    "icv": "volume",
    "lthickness": "thickavg",
    "rthickness": "thickavg",
    "lsurfarea": "surfavg",
    "rsurfarea": "surfavg",
}
_FEWEST = 2


def is_enigma(heading: Sequence[str]) -> bool:
    """Tell whether a table has ``SubjID``, at least two regions of these tables, and nothing else.

    With columns of one's own (site, diagnosis), which this form has no place for, it is an ordinary table.
    """
    names = [one.strip().strip('"') for one in heading]
    regions = [one for one in names[1:] if _regional(one)]
    others = [one for one in names[1:] if not _regional(one) and one.casefold() not in _WHOLE]
    return names[0].casefold() == _SUBJECT and len(regions) >= _FEWEST and not others


def _regional(column: str) -> tuple[str, str] | None:
    """Region and measure of a column of one region."""
    cortex = _CORTEX.fullmatch(column)
    if cortex:
        return cortex[1], cortex[2].casefold()
    return (column, "volume") if _VOLUME.fullmatch(column) else None


def enigma_columns(columns: Sequence[str]) -> dict[str, tuple[str, tuple[str, str]]]:
    """Return region, and quantity with unit, of each column that has them.

    Parameters
    ----------
    columns : sequence of str

    Returns
    -------
    dict
        By column.  Those of the whole head are kept in the table of their own measure only, so that they
        do not come twice from two tables.
    """
    found = {one: part for one in columns if (part := _regional(one)) is not None}
    measures = {measure for _, measure in found.values()}
    whole = {one: (one, _WHOLE[one.casefold()]) for one in columns if one.casefold() in _WHOLE}
    kept = found | {one: part for one, part in whole.items() if part[1] in measures}
    return {one: (region, _KINDS[measure]) for one, (region, measure) in kept.items()}
