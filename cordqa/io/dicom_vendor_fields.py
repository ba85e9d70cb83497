"""Acceleration and scan time in vendors' own DICOM fields.

Where they are, and who reported it:

* Siemens (0051,xx11) PAT mode text, ``p2 s4``: in-plane and slice acceleration
  (github.com/rordenlab/dcm2niix/issues/141).  ``lMultiBandFactor`` of the text protocol stays 1 in
  some versions and sequences whatever was scanned (github.com/CMRR-C2P/MB/issues/223), so only a
  larger value is believed.
* Siemens (0051,xx0A) text ``TA 02:12``: scan time.
* GE (0043,xx83) reciprocals of the acceleration factors, (0043,xxB6) multiband factor first
  (github.com/rordenlab/dcm2niix/issues/432).
* GE (0019,xx5A) scan time in microseconds (github.com/rordenlab/dcm2niix/issues/808).
* Philips (2005,xx33) scan time in seconds: equals the public element in files that have both.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from pydicom.tag import BaseTag

from cordqa.io.dicom_header import PRIVATE_BLOCKS, Header, first_number
from cordqa.io.vendors import PHILIPS_DD1

__all__ = ["VENDOR_TAGS", "read_vendor_fields"]

_SIEMENS, _SIEMENS_CSA = "SIEMENS MR HEADER", "SIEMENS CSA HEADER"
_GE_PARAMETERS, _GE_ACQUISITION = "GEMS_PARM_01", "GEMS_ACQU_01"
_US_PER_S = 1e6
_LONGEST_SCAN_S = 6 * 3600.0
_LARGEST_FACTOR = 64
_ELEMENTS = {
    0x0019: (0x0C, 0x5A),
    0x0029: (0x20,),
    0x0043: (0x2F, 0x39, 0x83, 0xB6),
    0x0051: (0x0A, 0x11),
    0x2001: (0x03,),
    0x2005: (0x0D, 0x0E, 0x09, 0x0A, 0x0F, 0x33),
}
#: What must be read for :func:`read_vendor_fields` and for b-values and scaling.
VENDOR_TAGS: tuple[BaseTag, ...] = (
    *(BaseTag(group << 16 | block) for group in _ELEMENTS for block in PRIVATE_BLOCKS),
    *(
        BaseTag(group << 16 | block << 8 | element)
        for group, elements in _ELEMENTS.items()
        for block in PRIVATE_BLOCKS
        for element in elements
    ),
)


def read_vendor_fields(header: Header, vendor: str) -> dict[str, float]:
    """Return acceleration factors and scan time (s) by BIDS name; absent where not recorded.

    Parameters
    ----------
    header : Header
        With what :data:`VENDOR_TAGS` lists.
    vendor : str
        Name as returned by :func:`cordqa.io.vendors.vendor_name`.
    """
    readers = {"Siemens": _siemens, "GE": _ge, "Philips": _philips}
    found = readers[vendor](header) if vendor in readers else {}
    return {name: value for name, value in found.items() if _plausible(name, value)}


def _plausible(name: str, value: float) -> bool:
    highest = _LONGEST_SCAN_S if name == "AcquisitionDuration" else _LARGEST_FACTOR
    return math.isfinite(value) and 0 < value <= highest


_TA = re.compile(r"TA (?:(\d+):)?(\d+):(\d+)")
_MULTIBAND = re.compile(rb"sSliceAcceleration\.lMultiBandFactor\s*=\s*(\d+)")
_SCAN_TIME = re.compile(rb"lTotalScanTimeSec\s*=\s*(\d+)")


def _siemens(header: Header) -> dict[str, float]:
    found: dict[str, float] = {}
    mode = str(header.private(0x0051, _SIEMENS, 0x11) or "")
    for letter, name in (("p", "ParallelReductionFactorInPlane"), ("s", "MultibandAccelerationFactor")):
        if match := re.search(rf"\b{letter}(\d+)", mode):
            found[name] = float(match[1])
    if match := _TA.search(str(header.private(0x0051, _SIEMENS, 0x0A) or "")):
        found["AcquisitionDuration"] = 3600.0 * int(match[1] or 0) + 60.0 * int(match[2]) + int(match[3])
    text = header.private(0x0029, _SIEMENS_CSA, 0x20)
    if isinstance(text, bytes):
        band = _MULTIBAND.search(text)
        if band and int(band[1]) > 1:
            found.setdefault("MultibandAccelerationFactor", float(band[1]))
        time = _SCAN_TIME.search(text)
        if time:
            found.setdefault("AcquisitionDuration", float(time[1]))
    return found


def _ge(header: Header) -> dict[str, float]:
    factors = _listed(header.private(0x0043, _GE_PARAMETERS, 0x83))
    bands = _listed(header.private(0x0043, _GE_PARAMETERS, 0xB6))
    names = ("ParallelReductionFactorInPlane", "ParallelReductionFactorOutOfPlane")
    found = {name: round(1 / value, 4) for name, value in zip(names, factors, strict=False) if value > 0}
    if bands:
        found["MultibandAccelerationFactor"] = bands[0]
    found["AcquisitionDuration"] = first_number(header.private(0x0019, _GE_ACQUISITION, 0x5A)) / _US_PER_S
    return found


def _philips(header: Header) -> dict[str, float]:
    return {"AcquisitionDuration": round(first_number(header.private(0x2005, PHILIPS_DD1, 0x33)), 3)}


def _listed(value: Any) -> list[float]:
    """Numbers of a private field that may be text, bytes or a list; parts that are none are NaN."""
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace").strip("\0 ")
    if value is None:
        return []
    parts = value.split("\\") if isinstance(value, str) else value
    parts = parts if isinstance(parts, Iterable) else [parts]
    return [first_number(part) for part in parts]
