"""Volumes of white matter, grey matter and cerebrospinal fluid from T1, T2 and proton density."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from cordqa.io.bids import bids_entities
from cordqa.models.maps import Attachments, FittedMaps
from cordqa.models.myelin.compartments import check_maps
from cordqa.models.myelin.tissue import DEFAULT_TISSUES, TissueModel, TissueVolume, fit_tissues, sum_volumes
from cordqa.workflow.fit.data import FitData
from cordqa.workflow.fit.models._maps_of_tissue import (
    IMAGES,
    example_maps,
    mixing_of,
    mixing_options,
    substance_of,
    substance_option,
)
from cordqa.workflow.fit.registry import Example, FitModel, Option

__all__ = ["MODEL"]

#: Percent of the mask.
_MOST_LOST = 1.0
_TISSUES = {"wm": "WM", "gm": "GM", "csf": "CSF"}
_WHO = {"subject": "sub", "session": "ses", "run": "run", "acquisition": "acq"}
_ASSUMED = (
    "T1, T2 and PD of the tissues are the assumptions for adults at 3 T that come with cordqa; give those of "
    "your scanner with --wm, --gm and --csf"
)


def _model(data: FitData) -> TissueModel:
    return TissueModel(
        tissues=tuple(replace(substance_of(data, option), name=name) for option, name in _TISSUES.items()),
        mixing=mixing_of(data),
        largest_misfit=data.number("largest_misfit"),
        tissue_sd=data.number("tissue_sd") / 100.0,
        n_draws=int(data.number("draws")),
    )


def _fit(data: FitData) -> FittedMaps:
    # Only the voxels of the mask count: air around the head is no tissue.
    t1, t2, pd = (np.where(data.mask, data.image(role), np.nan) for role in ("t1", "t2", "pd"))
    check_maps(t1, t2, pd)
    model = _model(data)
    found = fit_tissues(t1, t2, pd, model)
    voxel = float(abs(np.linalg.det(data.affine[:3, :3])))
    volumes = sum_volumes(found, t1, t2, pd, voxel, model)
    lost = int((~found.reasons.ok & data.mask).sum())
    text = (
        f"Volumes are sums of shares over the mask times {voxel:.4g} mm3. {lost} voxels of the mask have no "
        "T1, T2 or PD and no volume. Their standard errors join those of single voxels (independent) and "
        f"{model.n_draws} draws of the T1, T2 and PD of the tissues ({100 * model.tissue_sd:g} % standard "
        "deviation)."
    )
    attached = Attachments(
        documents={"volumes": {name: _plain(volume) for name, volume in volumes.items()}},
        files={"volumes.tsv": partial(_table, volumes)},
        methods=(text,),
    )
    sentence = "volumes: " + ", ".join(
        f"{name} {volume.volume_ml:.1f} \N{PLUS-MINUS SIGN} {volume.standard_error_ml:.1f} mL"
        for name, volume in volumes.items()
    )
    assumed = (_ASSUMED,) if model.tissues == DEFAULT_TISSUES else ()
    # Without a mask, air has no T1 either.
    loud = () if data.mask.all() else _lost(lost, int(data.mask.sum()))
    return replace(
        found, notices=(*loud, sentence, *assumed, *found.notices), warnings=loud, attached=attached
    )


def _lost(lost: int, total: int) -> tuple[str, ...]:
    """Say that volumes lack voxels: those that a fit of T1 and T2 refuses are not of all tissues alike."""
    share = 100 * lost / max(total, 1)
    if share < _MOST_LOST:
        return ()
    return (
        f"{share:.0f} % of the mask have no T1, T2 or PD and are in no volume; where a fit refused them, "
        "they are mostly fluid, whose T2 is hard to determine, so that its volume is too small",
    )


def _plain(volume: TissueVolume) -> Mapping[str, float]:
    return {
        "volume_mL": volume.volume_ml,
        "standard_error_mL": volume.standard_error_ml,
        "noise_standard_error_mL": volume.noise_se_ml,
        "tissue_standard_error_mL": volume.tissue_se_ml,
    }


def _table(volumes: Mapping[str, TissueVolume], prefix: str) -> bytes:
    """One row per tissue, as the reliability command reads it; whose they are, where BIDS names say so."""
    stream = io.StringIO()
    rows = csv.writer(stream, delimiter="\t", lineterminator="\n")
    names = bids_entities(prefix)
    who = {role: names[key] for role, key in _WHO.items() if key in names}
    if "subject" in who:
        who["subject"] = f"sub-{who['subject']}"
    rows.writerow([*who, "region", "quantity", "value", "unit", "standard_uncertainty"])
    for name, volume in volumes.items():
        # FreeSurfer and FIRST write mm3.
        error = volume.standard_error_ml
        shown = f"{1e3 * error:.6g}" if np.isfinite(error) else "n/a"
        rows.writerow([*who.values(), name, "volume", f"{1e3 * volume.volume_ml:.8g}", "mm3", shown])
    return stream.getvalue().encode()


def _example() -> Example:
    fractions = np.random.default_rng(0).dirichlet((2, 2, 2), 12)
    shape = (3, 2, 2)
    return Example(
        images=example_maps(fractions, DEFAULT_TISSUES, shape),
        truth={
            f"{tissue.name}_fraction": 100 * fractions[:, n].reshape(shape)
            for n, tissue in enumerate(DEFAULT_TISSUES)
        },
        tolerance=1e-2,
        options={"mixing": "rates"},
    )


MODEL = FitModel(
    id="volumes",
    description="Volumes of white matter, grey matter and fluid from T1, T2 and PD, with partial volume",
    fit=_fit,
    example=_example,
    images=IMAGES,
    options=(
        *(
            substance_option(option, words, (1e3 * t.t1_s, 1e3 * t.t2_s, 100 * t.pd))
            for (option, words), t in zip(
                (("wm", "white matter"), ("gm", "grey matter"), ("csf", "cerebrospinal fluid")),
                DEFAULT_TISSUES,
                strict=True,
            )
        ),
        *mixing_options("signals"),
        Option(
            id="tissue_sd",
            kind=float,
            default=3.0,
            unit="%",
            low=0.0,
            high=30.0,
            help="How well T1, T2 and PD of the tissues are known, for the standard error of volumes.",
        ),
        Option(
            id="draws",
            kind=int,
            default=20,
            unit="draws",
            low=2,
            high=1000,
            help="Sets of tissues that are drawn for that standard error.",
        ),
    ),
    takes_noise=False,
    voxelwise=False,
    absolute=True,
    produces=(*(f"{name}_fraction" for name in _TISSUES.values()), "other_fraction"),
    references=(
        "West J et al. Novel whole brain segmentation and volume estimation using quantitative MRI. Eur "
        "Radiol 2012;22:998-1007.",
        "Hagiwara A et al. SyMRI of the brain: rapid quantification of relaxation rates and proton density. "
        "Invest Radiol 2017;52:647-657. doi:10.1097/RLI.0000000000000365",
    ),
    assumptions=(
        "Every voxel of the mask is a mixture of the three tissues, whose T1, T2 and PD are the same "
        "everywhere; what is no such mixture is called other and is in no tissue.",
    ),
)
