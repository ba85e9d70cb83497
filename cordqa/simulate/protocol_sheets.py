"""What the sidecars of a simulated study hold: published values by vendor, and invented ones beside them.

Times, angles and thicknesses are those of the published sheets of the spine-generic protocol
(Cohen-Adad et al. 2021, doi 10.1038/s41596-021-00588-0), github.com/spine-generic/protocols.
"""

from __future__ import annotations

from typing import Any

__all__ = ["INVENTED", "MODELS", "SECONDS", "SHEETS", "Sidecar"]

Sidecar = dict[str, Any]

#: Published values by vendor and series: times in s, angles in degrees, thickness in mm.
SHEETS: dict[str, dict[str, Sidecar]] = {
    "Siemens": {
        "T1w": {
            "RepetitionTime": 2.0,
            "EchoTime": 0.00372,
            "FlipAngle": 9,
            "InversionTime": 1.0,
            "SliceThickness": 1,
        },
        "T2w": {"RepetitionTime": 1.5, "EchoTime": 0.120, "FlipAngle": 120, "SliceThickness": 0.8},
        "T2starw": {"RepetitionTime": 0.6, "EchoTime": 0.014, "FlipAngle": 30, "SliceThickness": 5},
        "MTon": {"RepetitionTime": 0.035, "EchoTime": 0.00313, "FlipAngle": 9, "SliceThickness": 5},
        "MToff": {"RepetitionTime": 0.035, "EchoTime": 0.00313, "FlipAngle": 9, "SliceThickness": 5},
        "MTT1w": {"RepetitionTime": 0.015, "EchoTime": 0.00313, "FlipAngle": 15, "SliceThickness": 5},
        "dwi": {"EchoTime": 0.060, "SliceThickness": 5},
    },
    "Philips": {
        "T1w": {"RepetitionTime": 0.0078, "EchoTime": 0.0035, "FlipAngle": 9},
        "T2w": {"RepetitionTime": 3.5, "EchoTime": 0.120, "FlipAngle": 90},
        "T2starw": {"RepetitionTime": 0.6, "FlipAngle": 30},
        "MTon": {"RepetitionTime": 0.057, "EchoTime": 0.002, "FlipAngle": 9},
        "MToff": {"RepetitionTime": 0.057, "EchoTime": 0.002, "FlipAngle": 9},
        "MTT1w": {"RepetitionTime": 0.015, "EchoTime": 0.002, "FlipAngle": 15},
        "dwi": {"EchoTime": 0.070},
    },
    "GE": {
        "T1w": {"FlipAngle": 9, "InversionTime": 1.0},
        "T2w": {"RepetitionTime": 2.5, "SliceThickness": 0.8},
        "T2starw": {"RepetitionTime": 0.6, "FlipAngle": 30, "SliceThickness": 5},
        "MTon": {"RepetitionTime": 0.035, "EchoTime": 0.004, "FlipAngle": 9, "SliceThickness": 5},
        "MToff": {"RepetitionTime": 0.035, "EchoTime": 0.004, "FlipAngle": 9, "SliceThickness": 5},
        "MTT1w": {"RepetitionTime": 0.015, "EchoTime": 0.004, "FlipAngle": 15, "SliceThickness": 5},
        "dwi": {"SliceThickness": 5},
    },
}
#: What headers hold besides, for which nothing is published: no deviation can be planted there.
INVENTED: dict[str, dict[str, Sidecar]] = {
    "Siemens": {"dwi": {"RepetitionTime": 0.62, "FlipAngle": 90}},
    "Philips": {
        "T1w": {"SliceThickness": 1},
        "T2w": {"SliceThickness": 0.8},
        "T2starw": {"EchoTime": 0.0072, "SliceThickness": 5},
        "dwi": {"RepetitionTime": 3.429, "FlipAngle": 90, "SliceThickness": 5},
    },
    "GE": {
        "T1w": {"RepetitionTime": 0.0078, "EchoTime": 0.0035, "SliceThickness": 1},
        "T2w": {"EchoTime": 0.128, "FlipAngle": 90},
        "T2starw": {"EchoTime": 0.014},
        "dwi": {"RepetitionTime": 0.9, "EchoTime": 0.065, "FlipAngle": 90},
    },
}
#: Scan times in s, in the order of the series; for GE none is published.
SECONDS = {
    "Siemens": (284.0, 242.0, 285.0, 132.0, 132.0, 57.0, 126.0),
    "Philips": (262.0, 311.5, 270.6, 130.2, 130.2, 34.0, 334.0),
    "GE": (300.0, 260.0, 280.0, 130.0, 130.0, 60.0, 150.0),
}
MODELS = {
    "Siemens": ("SIEMENS", "Prisma_fit", ("syngo MR E11", "syngo MR XA30")),
    "Philips": ("Philips", "Ingenia", ("5.3.0", "5.7.1")),
    "GE": ("GE MEDICAL SYSTEMS", "DISCOVERY MR750", ("DV26.0_R01", "DV27.0_R02")),
}
