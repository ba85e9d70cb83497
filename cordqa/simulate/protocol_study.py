"""A study of JSON sidecars from scanners of three vendors, with planted deviations and known truth.

Times, angles and b-values follow the published sheets of the spine-generic protocol (Cohen-Adad et al.
2021, doi 10.1038/s41596-021-00588-0) for one scanner of each vendor; everything else is invented.
Values scatter within what headers round, never as far as a deviation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from cordqa.errors import ConfigError
from cordqa.simulate.protocol_deviations import DEVIATIONS, Draft, PlantedDeviation, make_gradients
from cordqa.simulate.protocol_sheets import INVENTED, MODELS, SECONDS, SHEETS, Sidecar

__all__ = [
    "DEVIATIONS",
    "PlantedDeviation",
    "ProtocolStudy",
    "simulate_protocol_study",
]

_FIRST_DAY = date(2024, 1, 2)

_SERIES = ("T1w", "T2w", "T2starw", "MTon", "MToff", "MTT1w", "dwi")
_NAMES = {
    "T1w": ("anat", "T1w"),
    "T2w": ("anat", "T2w"),
    "T2starw": ("anat", "T2starw"),
    "MTon": ("anat", "flip-1_mt-on_MTS"),
    "MToff": ("anat", "flip-1_mt-off_MTS"),
    "MTT1w": ("anat", "flip-2_mt-off_MTS"),
    "dwi": ("dwi", "dwi"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolStudy:
    """Files by path, what is wrong with them, and how many series there are."""

    files: Mapping[str, str]
    planted: tuple[PlantedDeviation, ...]
    n_series: int


def simulate_protocol_study(
    *,
    n_participants: int = 12,
    seed: int = 0,
    deviations: Sequence[str] | None = None,
    full_headers: bool = True,
    with_images: bool = False,
) -> ProtocolStudy:
    """Make the sidecars of a study, seven series a participant, and plant deviations.

    Parameters
    ----------
    n_participants : int
        At six sites, two of each vendor; 12 participants make 84 sidecars.
    seed : int
    deviations : sequence of str, optional
        Kinds of :data:`DEVIATIONS`, each planted once where it stands once; all of them by default.
    full_headers : bool
        Whether multiband factor, transfer pulse and scan time are recorded, as hardly any public
        sidecar does.
    with_images : bool
        List an empty NIfTI file beside every sidecar.

    Returns
    -------
    ProtocolStudy
        Nothing is written; ``files`` maps paths to text.

    Raises
    ------
    ConfigError
        If a deviation is not known, or the study is too small for all of them.
    """
    kinds = tuple(DEVIATIONS) if deviations is None else tuple(deviations)
    unknown = [kind for kind in kinds if kind not in DEVIATIONS]
    if unknown:
        raise ConfigError(
            "is no deviation that can be planted", found=unknown[0], expected=", ".join(DEVIATIONS)
        )
    draft = Draft(np.random.default_rng(seed))
    for number in range(n_participants):
        _add_participant(draft, number, full_headers=full_headers)
    # Those that need a partner of one vendor first, while there is choice.
    planted = [one for kind in sorted(kinds, key=_needs_room) for one in DEVIATIONS[kind](draft)]
    return ProtocolStudy(
        files=_files(draft, with_images=with_images),
        planted=tuple(planted),
        n_series=len(draft.place),
    )


def _needs_room(kind: str) -> int:
    return 0 if kind in ("scaling", "software", "pair", "series missing") else 1


def _add_participant(draft: Draft, number: int, *, full_headers: bool) -> None:
    vendors = tuple(SHEETS)
    vendor = vendors[number % len(vendors)]
    site = f"{vendor.lower()}{(number // len(vendors)) % 2 + 1}"
    subject = f"{site}{number // (2 * len(vendors)) + 1:02d}"
    draft.vendor[subject] = vendor
    day = (_FIRST_DAY + timedelta(days=number)).isoformat()
    for index, series in enumerate(_SERIES):
        folder, ending = _NAMES[series]
        stem = f"sub-{subject}/{folder}/sub-{subject}_{ending}"
        draft.place[subject, series] = stem
        sidecar = _sidecar(draft.rng, vendor, site, series)
        if vendor == "Philips" and series.startswith("MT"):
            # The three enter one ratio and were scanned with one scaling.
            sidecar["PhilipsScaleSlope"] = 0.0123
        sidecar["AcquisitionDate"] = day
        sidecar["AcquisitionTime"] = f"10:{5 * index:02d}:00.000000"
        if full_headers:
            sidecar |= _rarely_recorded(vendor, series)
        draft.sidecars[stem] = sidecar
        if series == "dwi":
            draft.texts[f"{stem}.bval"], draft.texts[f"{stem}.bvec"] = make_gradients()


def _sidecar(rng: np.random.Generator, vendor: str, site: str, series: str) -> Sidecar:
    manufacturer, model, software = MODELS[vendor]
    sidecar: Sidecar = {
        "Modality": "MR",
        "MagneticFieldStrength": 3 if vendor != "GE" else 3.0,
        "Manufacturer": manufacturer,
        "ManufacturersModelName": model,
        "DeviceSerialNumber": str(1000 + sum(map(ord, site))),
        "SoftwareVersions": software[0],
        "MRAcquisitionType": "2D" if series in ("dwi", "T2starw") else "3D",
        "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"],
        "ConversionSoftware": "simulated",
    }
    # Headers round to microseconds and to a tenth of a degree.
    held = {**SHEETS[vendor][series], **INVENTED[vendor].get(series, {})}
    if vendor == "Philips" and series.startswith("MT"):
        held["SliceThickness"] = 5
    for name, value in held.items():
        sidecar[name] = round(value * (1 + 1e-3 * rng.uniform(-1, 1)), 6) if "Time" in name else value
    if vendor == "Philips":
        slope = round(float(rng.uniform(0.01, 0.02)), 8)
        sidecar |= {"PhilipsRescaleSlope": 1.5, "PhilipsRescaleIntercept": 0, "PhilipsScaleSlope": slope}
    return sidecar


def _rarely_recorded(vendor: str, series: str) -> Sidecar:
    """Fields that few converters write."""
    more: Sidecar = {"AcquisitionDuration": SECONDS[vendor][_SERIES.index(series)]}
    if series == "dwi":
        more["MultibandAccelerationFactor"] = 1
    if series.startswith("MT"):
        more["MTState"] = series == "MTon"
    return more


def _files(draft: Draft, *, with_images: bool) -> dict[str, str]:
    rows = ["participant_id\tsite"]
    rows += [f"sub-{subject}\t{subject[:-2]}" for subject in draft.vendor]
    sidecars = {f"{stem}.json": json.dumps(found, indent=1) for stem, found in draft.sidecars.items()}
    files = {
        "dataset_description.json": json.dumps({"Name": "simulated", "BIDSVersion": "1.9.0"}),
        "participants.tsv": "\n".join(rows) + "\n",
        **sidecars,
        **draft.texts,  # may replace a sidecar by what is none
    }
    if with_images:
        files |= {f"{stem}.nii.gz": "" for stem in draft.place.values()}
    return files
