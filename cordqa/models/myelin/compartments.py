"""Myelin volume from T1, T2 and proton density, by a model whose parameters the user gives.

A voxel is filled by myelin, by cells with the water between them, by free water and, where it is
given, by excess water of the parenchyma.  Each has a T1, T2 and proton density of its own, which
nobody knows well: every volume fraction is as good as these numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError
from cordqa.models.maps import FittedMaps, Reasons
from cordqa.models.myelin.mixing import Mixing, Substance, fit_shares

__all__ = ["EXAMPLE_COMPARTMENTS", "CompartmentModel", "check_maps", "fit_compartments", "refused_maps"]

Array = NDArray[np.float64]

#: Round numbers of the size that is usually assumed at 3 T; an example, no calibration.
EXAMPLE_COMPARTMENTS = (
    Substance("myelin", 0.30, 0.013, 0.45),
    Substance("cellular", 1.20, 0.090, 0.80),
    Substance("free_water", 4.30, 2.00, 1.00),
)
_NAMES = ("myelin", "cellular", "free_water", "excess_water")
NO_NUMBER = "T1, T2 or PD is missing"
NOT_POSITIVE = "T1, T2 or PD is not positive"
BEYOND = "T1, T2 or PD beyond what tissue or water has"
OUTSIDE = "no mixture of the compartments has these T1, T2 and PD"
_RANGES_S = {"T1": (0.01, 10.0), "T2": (0.001, 10.0)}
_LARGEST_PD = 1.5
_BATCH = 20_000
_SWAPPED = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class CompartmentModel:
    """Compartments and how they mix.

    Attributes
    ----------
    compartments : tuple of Substance
        Three or four, named ``myelin``, ``cellular``, ``free_water`` and ``excess_water``.
    mixing : Mixing
    largest_misfit : float
        Beyond this (in standard deviations) no mixture counts as found.
    source : str
        Where the parameters come from, for the result.
    """

    compartments: tuple[Substance, ...]
    mixing: Mixing = field(default_factory=lambda: Mixing(rule="rates"))
    largest_misfit: float = 3.0
    source: str = "given by the user"

    def __post_init__(self) -> None:
        """Refuse compartments that are not those of the model."""
        names = tuple(one.name for one in self.compartments)
        if names not in (_NAMES[:3], _NAMES):
            raise InputError(
                "the compartments must be myelin, cellular, free_water and, where wanted, excess_water",
                found=", ".join(names),
            )
        if not self.largest_misfit > 0:
            raise InputError("the largest misfit must be positive", found=f"{self.largest_misfit:g}")


def check_maps(t1_ms: Array, t2_ms: Array, pd_percent: Array) -> None:
    """Refuse maps of another unit by their medians, and maps of T1 and T2 that are swapped.

    Raises
    ------
    InputError
    """
    ranges = (("T1", t1_ms, 50, 10_000, "seconds"), ("T2", t2_ms, 5, 5_000, "seconds"))
    for name, values, low, high, slip in (*ranges, ("PD", pd_percent, 5, 200, "fractions")):
        known = values[np.isfinite(values) & (values > 0)]
        if known.size and not low <= np.median(known) <= high:
            unit = "%" if name == "PD" else "ms"
            raise InputError(
                f"the map of {name} cannot be in {unit}",
                found=f"a median of {np.median(known):.3g}",
                expected=f"{low} to {high} {unit}; are these {slip}?",
            )
    both = (t1_ms > 0) & (t2_ms > 0)
    if both.any() and (t2_ms > t1_ms)[both].mean() > _SWAPPED:
        raise InputError(
            "T2 is longer than T1 in most voxels, which no tissue has",
            found=f"medians of {np.median(t1_ms[both]):.0f} and {np.median(t2_ms[both]):.0f} ms",
            todo="give the map of T1 first, then that of T2",
        )


def refused_maps(t1_ms: Array, t2_ms: Array, pd_percent: Array) -> Reasons:
    """Say which voxels have no T1, T2 and PD that could be those of tissue."""
    parts = np.stack([t1_ms / 1e3, t2_ms / 1e3, pd_percent / 100.0])
    finite = np.isfinite(parts).all(axis=0)
    safe = np.where(np.isfinite(parts), parts, 1.0)
    beyond = np.zeros(t1_ms.shape, dtype=bool)
    for part, (low, high) in zip(safe[:2], _RANGES_S.values(), strict=True):
        beyond |= (part < low) | (part > high)
    beyond |= (safe[2] > _LARGEST_PD) | (safe[1] > safe[0])
    return Reasons.collect(
        t1_ms.shape,
        [
            (np.asarray(~finite), NO_NUMBER),
            (np.asarray((safe <= 0).any(axis=0)), NOT_POSITIVE),
            (beyond, BEYOND),
        ],
    )


def fit_compartments(
    t1_ms: ArrayLike,
    t2_ms: ArrayLike,
    pd_percent: ArrayLike,
    model: CompartmentModel,
    *,
    standard_errors: tuple[ArrayLike, ArrayLike, ArrayLike] | None = None,
) -> FittedMaps:
    """Split voxels into compartments.

    Parameters
    ----------
    t1_ms, t2_ms, pd_percent : array_like
        Maps of one shape; PD in % of water.
    model : CompartmentModel
    standard_errors : tuple of array_like, optional
        Of the three maps; by default the relative deviations of ``model.mixing``.

    Returns
    -------
    FittedMaps
        ``MVF_model`` and the volume fractions of the others, in %.  Parameters of the compartments
        are taken as exact: their error is common to all voxels and in no standard error.
    """
    t1, t2, pd = (np.asarray(one, dtype=float) for one in (t1_ms, t2_ms, pd_percent))
    if not t1.shape == t2.shape == pd.shape:
        raise InputError("the maps must have one shape", found=f"{t1.shape}, {t2.shape}, {pd.shape}")
    reasons = refused_maps(t1, t2, pd)
    good = np.flatnonzero(reasons.ok)
    k = len(model.compartments)
    shares, errors = np.full((t1.size, k), np.nan), np.full((t1.size, k), np.nan)
    misfit = np.zeros(t1.size)
    given = None
    if standard_errors is not None:
        scales = (1e3, 1e3, 1e2)
        given = [
            np.broadcast_to(np.asarray(e, dtype=float), t1.shape).ravel() / s
            for e, s in zip(standard_errors, scales, strict=True)
        ]
    for start in range(0, good.size, _BATCH):
        at = good[start : start + _BATCH]
        own = None if given is None else (given[0][at], given[1][at], given[2][at])
        found = fit_shares(
            t1.ravel()[at] / 1e3,
            t2.ravel()[at] / 1e3,
            pd.ravel()[at] / 100.0,
            model.compartments,
            model.mixing,
            errors=own,
        )
        shares[at], errors[at], misfit[at] = found.shares, found.errors, found.misfit
    reasons = reasons.then((misfit > model.largest_misfit).reshape(t1.shape), OUTSIDE)
    names = ("MVF_model", *(f"{one.name}_fraction" for one in model.compartments[1:]))

    def as_maps(columns: Array) -> dict[str, Array]:
        parts = [100.0 * columns[:, n].reshape(t1.shape) for n in range(k)]
        return {name: np.where(reasons.ok, part, np.nan) for name, part in zip(names, parts, strict=True)}

    words = "; ".join(
        f"{c.name} T1 {1e3 * c.t1_s:g} ms, T2 {1e3 * c.t2_s:g} ms, PD {100 * c.pd:g} %"
        for c in model.compartments
    )
    rule = {"signals": "signals add (no exchange)", "rates": "rates add (fast exchange)"}[model.mixing.rule]
    return FittedMaps(
        model=f"volume fractions of {k} compartments, {rule}: {words} ({model.source})",
        values=as_maps(shares),
        units=dict.fromkeys(names, "%"),
        standard_errors=as_maps(errors),
        reasons=reasons,
        notices=(
            f"compartment parameters ({model.source}) are taken as exact; another set gives other fractions: "
            f"{words}",
        ),
    )
