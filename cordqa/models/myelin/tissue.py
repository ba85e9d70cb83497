"""Volumes of white matter, grey matter and cerebrospinal fluid from T1, T2 and proton density."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError
from cordqa.models.maps import FittedMaps
from cordqa.models.myelin.compartments import refused_maps
from cordqa.models.myelin.mixing import Mixing, Substance, fit_shares

__all__ = ["DEFAULT_TISSUES", "TissueModel", "TissueVolume", "fit_tissues", "sum_volumes"]

Array = NDArray[np.float64]

#: Round numbers for adults at 3 T: assumptions, to be replaced by those of one's own scanner.
DEFAULT_TISSUES = (
    Substance("WM", 0.83, 0.075, 0.68),
    Substance("GM", 1.35, 0.095, 0.82),
    Substance("CSF", 4.20, 1.80, 1.00),
)
OTHER = "other"
_BATCH = 20_000
#: Voxels for which volumes are repeated with other tissues.
_DRAWN_VOXELS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TissueModel:
    """Tissues and how they share a voxel.

    Attributes
    ----------
    tissues : tuple of Substance
    mixing : Mixing
    largest_misfit : float
        Voxels beyond this (in standard deviations) are ``other``: neither a tissue nor a mixture.
    tissue_sd : float
        Relative standard deviation of each T1, T2 and PD of the tissues: how well they are known.
    n_draws : int
        Sets of tissues that are drawn for the standard error of volumes.
    seed : int
    """

    tissues: tuple[Substance, ...] = DEFAULT_TISSUES
    mixing: Mixing = field(default_factory=Mixing)
    largest_misfit: float = 3.0
    tissue_sd: float = 0.03
    n_draws: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not (self.largest_misfit > 0 and 0 <= self.tissue_sd < 0.5 and 0 <= self.n_draws <= 1000):
            raise InputError(
                "settings of the tissue model are out of range",
                found=f"misfit {self.largest_misfit:g}, SD {self.tissue_sd:g}, {self.n_draws} draws",
            )
        names = [tissue.name for tissue in self.tissues]
        if len(set(names)) != len(names) or OTHER in names:
            raise InputError("tissues need different names, none 'other'", found=", ".join(names))


@dataclass(frozen=True, slots=True, kw_only=True)
class TissueVolume:
    """Volume of one tissue.

    Attributes
    ----------
    name : str
    volume_ml : float
    noise_se_ml : float
        Standard error by the errors of single voxels, taken as independent.
    tissue_se_ml : float
        Standard error by how well T1, T2 and PD of the tissues are known.
    """

    name: str
    volume_ml: float
    noise_se_ml: float
    tissue_se_ml: float

    @property
    def standard_error_ml(self) -> float:
        """Both together."""
        return float(np.hypot(self.noise_se_ml, self.tissue_se_ml))


def fit_tissues(
    t1_ms: ArrayLike, t2_ms: ArrayLike, pd_percent: ArrayLike, model: TissueModel | None = None
) -> FittedMaps:
    """Split voxels into tissues.

    Parameters
    ----------
    t1_ms, t2_ms, pd_percent : array_like
        Maps of one shape; PD in % of water.
    model : TissueModel, optional

    Returns
    -------
    FittedMaps
        ``WM_fraction`` ... in %, and ``other_fraction``: 100 where a voxel is neither a tissue nor a
        mixture, else 0.  Voxels without T1, T2 and PD have no value.
    """
    model = model or TissueModel()
    t1, t2, pd = (np.asarray(one, dtype=float) for one in (t1_ms, t2_ms, pd_percent))
    if not t1.shape == t2.shape == pd.shape:
        raise InputError("the maps must have one shape", found=f"{t1.shape}, {t2.shape}, {pd.shape}")
    reasons = refused_maps(t1, t2, pd)
    ok = reasons.ok
    values = np.stack([t1[ok] / 1e3, t2[ok] / 1e3, pd[ok] / 100.0])
    shares, errors = _split(values, model.tissues, model)
    names = (*(f"{tissue.name}_fraction" for tissue in model.tissues), f"{OTHER}_fraction")

    def as_maps(columns: Array) -> dict[str, Array]:
        maps = {}
        for n, name in enumerate(names):
            maps[name] = np.full(t1.shape, np.nan)
            maps[name][ok] = 100.0 * columns[:, n]
        return maps

    words = "; ".join(
        f"{t.name} T1 {1e3 * t.t1_s:g} ms, T2 {1e3 * t.t2_s:g} ms, PD {100 * t.pd:g} %" for t in model.tissues
    )
    rule = {"signals": "signals add", "rates": "rates add"}[model.mixing.rule]
    return FittedMaps(
        model=f"shares of tissues by least squares, {rule}: {words}",
        values=as_maps(shares),
        units=dict.fromkeys(names, "%"),
        standard_errors=as_maps(errors),
        reasons=reasons,
        notices=(f"T1, T2 and PD of the tissues are given, not found in the images: {words}",),
    )


def _split(values: Array, tissues: tuple[Substance, ...], model: TissueModel) -> tuple[Array, Array]:
    """Return shares and standard errors with ``other`` last, shape (m, k + 1)."""
    count, k = values.shape[1], len(tissues)
    shares, errors = np.zeros((count, k + 1)), np.zeros((count, k + 1))
    for start in range(0, count, _BATCH):
        part = slice(start, start + _BATCH)
        found = fit_shares(values[0, part], values[1, part], values[2, part], tissues, model.mixing)
        resolved = found.misfit <= model.largest_misfit
        shares[part, :k] = np.where(resolved[:, None], found.shares, 0.0)
        shares[part, k] = ~resolved
        errors[part, :k] = np.where(resolved[:, None], found.errors, 0.0)
    return shares, errors


def sum_volumes(
    maps: FittedMaps,
    t1_ms: ArrayLike,
    t2_ms: ArrayLike,
    pd_percent: ArrayLike,
    voxel_volume_mm3: float,
    model: TissueModel | None = None,
) -> Mapping[str, TissueVolume]:
    """Sum fractions to volumes with standard errors.

    Parameters
    ----------
    maps : FittedMaps
        Of :func:`fit_tissues`, with the same maps and model.
    t1_ms, t2_ms, pd_percent : array_like
    voxel_volume_mm3 : float
    model : TissueModel, optional

    Returns
    -------
    mapping of str to TissueVolume
        By tissue, ``other`` last.
    """
    if not 0 < voxel_volume_mm3 < 1e6:
        raise InputError("the volume of a voxel must be positive, in mm3", found=f"{voxel_volume_mm3:g}")
    model = model or TissueModel()
    ok = maps.reasons.ok
    scale = voxel_volume_mm3 / 1e3 / 100.0
    values = np.stack(
        [np.asarray(one, dtype=float)[ok] / by for one, by in ((t1_ms, 1e3), (t2_ms, 1e3), (pd_percent, 1e2))]
    )
    drawn = _drawn_volumes(values, model) * voxel_volume_mm3 / 1e3
    spread = drawn.std(axis=0, ddof=1) if len(drawn) > 1 else np.full(len(model.tissues) + 1, np.nan)
    found = {}
    for n, (name, fraction) in enumerate(maps.values.items()):
        label = name.removesuffix("_fraction")
        error = maps.standard_errors[name][ok]
        found[label] = TissueVolume(
            name=label,
            volume_ml=float(fraction[ok].sum()) * scale,
            noise_se_ml=float(np.sqrt((error**2).sum())) * scale,
            tissue_se_ml=float(spread[n]),
        )
    return found


def _drawn_volumes(values: Array, model: TissueModel) -> Array:
    """Voxels of each tissue for tissues drawn about those given, shape (n_draws, k + 1)."""
    rng = np.random.default_rng(model.seed)
    rows = []
    # What tissues have in common shows in a part of the voxels as well.
    step = max(1, -(-values.shape[1] // _DRAWN_VOXELS))
    some = values[:, ::step]
    scale = values.shape[1] / max(1, some.shape[1])
    for _ in range(model.n_draws):
        factors = np.exp(model.tissue_sd * rng.normal(size=(len(model.tissues), 3)))
        drawn = tuple(
            Substance(t.name, t.t1_s * f[0], min(t.t2_s * f[1], t.t1_s * f[0]), min(t.pd * f[2], 2.0))
            for t, f in zip(model.tissues, factors, strict=True)
        )
        try:
            rows.append(scale * _split(some, drawn, model)[0].sum(axis=0))
        except InputError:
            # Two tissues that were drawn alike say nothing about their volumes.
            continue
    return np.array(rows).reshape(-1, len(model.tissues) + 1)
