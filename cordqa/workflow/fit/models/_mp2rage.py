"""What both MP2RAGE models share: options of the sequence, and reasons put in front."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.models.maps import Reasons
from cordqa.models.relaxometry.mp2rage import Mp2rageProtocol
from cordqa.workflow.fit.data import FitData
from cordqa.workflow.fit.registry import MapInput, Option, Setting

__all__ = ["B1_MAP", "OPTIONS", "REFERENCES", "TIMING", "make_protocol", "with_first"]

REFERENCES = (
    "Marques JP et al. MP2RAGE, a self bias-field corrected sequence for improved segmentation and "
    "T1-mapping at high field. NeuroImage 2010;49:1271-1281. doi:10.1016/j.neuroimage.2009.10.002",
)
B1_MAP = MapInput(
    id="b1_map",
    kind="b1",
    unit="ratio",
    help="NIfTI map of actual over nominal flip angle (ratio or percent).",
)
TIMING = (
    Setting(
        id="repetition_time",
        help="Time between inversions.",
        unit="s",
        sidecar=("RepetitionTimePreparation", "RepetitionTime"),
        shared=True,
        smallest=0.1,
        largest=30.0,
        slip="milliseconds",
        acquisition="repetition_time_s",
    ),
    Setting(
        id="excitation_spacing",
        help="Time between excitations of a train.",
        unit="s",
        sidecar=("RepetitionTimeExcitation", "EchoSpacing"),
        shared=True,
        smallest=5e-4,
        largest=0.1,
        slip="milliseconds",
    ),
)
OPTIONS = (
    Option(
        id="excitations",
        kind=tuple,
        default=None,
        unit="excitations",
        length=2,
        low=0,
        high=10_000,
        help="Required: excitations of a train before that of the centre of k-space, and from it on.",
    ),
    Option(
        id="inversion_efficiency",
        kind=float,
        default=0.96,
        unit="1",
        low=0.01,
        high=1.0,
        help="Share of the magnetization that the inversion inverts.",
    ),
    Option(id="t1_min", kind=float, default=0.05, unit="s", low=1e-3, high=60.0, help="Shortest T1."),
    Option(id="t1_max", kind=float, default=10.0, unit="s", low=1e-2, high=60.0, help="Longest T1."),
)


def make_protocol(
    data: FitData, inversion_times: tuple[float, float], flip_angles: tuple[float, float]
) -> Mp2rageProtocol:
    """Gather the settings of the sequence.

    Raises
    ------
    InputError
        If they are missing or do not fit into each other.
    """
    counts = data.options["excitations"]
    if counts is None:
        raise InputError(
            "the number of excitations of a train is needed",
            where="--excitations",
            todo="give those before the centre of k-space, and those from it on, for example 88,88",
        )
    before, after = cast("tuple[float, float]", counts)
    return Mp2rageProtocol(
        repetition_time_s=data.value("repetition_time"),
        inversion_times_s=inversion_times,
        flip_angles_deg=flip_angles,
        excitation_spacing_s=data.value("excitation_spacing"),
        excitations_before=int(before),
        excitations_after=int(after),
        inversion_efficiency=data.number("inversion_efficiency"),
    )


def with_first(reasons: Reasons, where: NDArray[np.bool_], text: str) -> Reasons:
    """Put one reason in front of the others."""
    old = [(reasons.codes == n, words) for n, words in enumerate(reasons.texts) if n]
    return Reasons.collect(reasons.codes.shape, [(where, text), *old])
