"""NODDI (Zhang et al. 2012) through AMICO (Daducci et al. 2015), an optional extra.

Neurites are sticks with a Watson distribution of orientations; water outside them is hindered by
tortuosity; the rest is free.  Two diffusivities are assumed, not measured, and every value depends on
them.  AMICO is called with arrays: what it writes goes to a temporary folder.
"""

from __future__ import annotations

import importlib
import importlib.util
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import ConfigError, FitError, InputError
from cordqa.models.diffusion.gradients import LINEAR, GradientTable
from cordqa.models.diffusion.powder import PowderShell, find_shells, repair_samples
from cordqa.models.diffusion.powder_checks import check_signals
from cordqa.models.maps import FittedMaps, Reasons

__all__ = ["fit_noddi", "noddi_available"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_IN_VIVO, _EX_VIVO = (1.7, 3.0), (0.6, 2.0)
_RANGE_UM2_MS = (0.05, 5.0)
#: Directions recommended for both shells together (Zhang et al. 2012 measured 30 + 60).
_MANY_DIRECTIONS = 60
_TOP_SHELL_S_MM2 = 1500.0
#: Smallest and largest fraction in AMICO's dictionary of neurites.
_FRACTION_RANGE = (0.1, 0.99)
_AT_EDGE = 1e-3
_LMAX, _DIRECTIONS = 12, 500
_UNITS = {"NDI": "1", "ODI": "1", "FWF": "1", "dot_fraction": "1"}

NO_SIGNAL = "a shell or the b = 0 volumes have no positive signal"
NO_VALUE = "no number from the fit"
#: AMICO keeps its verbosity and its folder in module variables.
_LOCK = threading.Lock()


def noddi_available() -> bool:
    """Whether the library that fits NODDI is installed."""
    return importlib.util.find_spec("amico") is not None


def fit_noddi(
    signals: ArrayLike,
    table: GradientTable,
    *,
    parallel_um2_ms: float | None = None,
    isotropic_um2_ms: float | None = None,
    ex_vivo: bool = False,
) -> FittedMaps:
    """Neurite density, orientation dispersion and free water.

    Parameters
    ----------
    signals : array_like, shape (..., n)
        Magnitudes, volumes last.  Samples that are no positive number are replaced by what the
        others of their shell predict.
    table : GradientTable
        Linear encoding with b = 0 and at least two shells of at least 6 well spread directions.
    parallel_um2_ms : float, optional
        Assumed diffusivity along neurites; default 1.7 in vivo, 0.6 ex vivo.
    isotropic_um2_ms : float, optional
        Assumed diffusivity of free water; default 3.0 in vivo, 2.0 ex vivo.
    ex_vivo : bool
        Add a compartment of water that does not move, as fixed tissue has.

    Returns
    -------
    FittedMaps
        ``NDI``, ``ODI`` and ``FWF`` (and ``dot_fraction`` ex vivo), without standard errors: the
        fit is a regularised choice from a dictionary, whose residuals do not give them.

    Raises
    ------
    InputError
        If signals or table cannot be used: one shell, other encodings than linear, no b = 0.
    ConfigError
        If the library is not installed, or a diffusivity cannot be one.
    FitError
        If the library gave up.

    References
    ----------
    .. [1] Zhang et al., NeuroImage 2012, doi:10.1016/j.neuroimage.2012.03.072
    .. [2] Daducci et al., NeuroImage 2015, doi:10.1016/j.neuroimage.2014.10.026
    """
    array = check_signals(signals, table)
    shells = _check_shells(table)
    assumed = _check_diffusivities(parallel_um2_ms, isotropic_um2_ms, ex_vivo)
    if not noddi_available():
        raise ConfigError(
            "NODDI is fitted by AMICO, which is not installed",
            todo="in your clone of cordqa: pip install '.[noddi]' (its licence: research and teaching only)",
        )
    shape = array.shape[:-1]
    data, lost = repair_samples(np.asarray(array.reshape(-1, len(table)), dtype=float), shells)
    good = np.asarray((np.isfinite(data) & (data > 0)).all(axis=1))
    names = ("NDI", "ODI", "FWF", *(("dot_fraction",) if ex_vivo else ()))
    values = np.full((len(data), len(names)), np.nan)
    if good.any():
        values[good] = _fit(data[good], table, shells, assumed, ex_vivo)
    known = np.isfinite(values).all(axis=1)
    values[~known] = np.nan
    reasons = Reasons.collect(
        shape, [((~good).reshape(shape), NO_SIGNAL), ((~known).reshape(shape), NO_VALUE)]
    )
    return FittedMaps(
        model="NODDI (Watson), AMICO",
        values={name: values[:, i].reshape(shape) for i, name in enumerate(names)},
        units={name: _UNITS[name] for name in names},
        reasons=reasons,
        flags=_flags(values, np.asarray(lost.sum(axis=0) > 0) & known, shape),
        notices=_notices(shells, assumed, ex_vivo),
    )


def _check_shells(table: GradientTable) -> tuple[PowderShell, ...]:
    shells = find_shells(table)
    weighted = [shell for shell in shells if not shell.unweighted]
    other = [shell.name for shell in weighted if abs(shell.b_delta - LINEAR) > 0.05]
    if other:
        raise InputError(
            "NODDI is defined for linear encoding only",
            found=", ".join(other),
            todo="select the linear volumes",
        )
    if not any(shell.unweighted for shell in shells):
        raise InputError("NODDI needs volumes without diffusion weighting", found="none")
    used = [shell for shell in weighted if shell.degree >= 2]
    if len(used) < 2:
        raise InputError(
            "NODDI needs two shells: one b-value cannot tell neurite density from free water",
            found=", ".join(f"{shell.name} ({shell.volumes.size})" for shell in weighted),
            expected="two shells of at least 6 well spread directions each, and b = 0",
        )
    return shells


def _check_diffusivities(
    parallel: float | None, isotropic: float | None, ex_vivo: bool
) -> tuple[float, float]:
    default = _EX_VIVO if ex_vivo else _IN_VIVO
    along = default[0] if parallel is None else float(parallel)
    free = default[1] if isotropic is None else float(isotropic)
    low, high = _RANGE_UM2_MS
    if not (low <= along <= free <= high):
        raise ConfigError(
            "the assumed diffusivities must be in um2/ms, that of neurites no larger than that of free water",
            found=f"{along:g} and {free:g}",
            expected=f"from {low:g} to {high:g}",
        )
    return along, free


def _notices(shells: tuple[PowderShell, ...], assumed: tuple[float, float], ex_vivo: bool) -> tuple[str, ...]:
    weighted = [shell for shell in shells if not shell.unweighted]
    along, free = assumed
    notices = [
        f"NODDI assumes diffusivities of {along:g} um2/ms along neurites and {free:g} um2/ms of free water"
        f" ({'ex vivo' if ex_vivo else 'in vivo'}); they are not measured, and its values change with them",
        "the model was made for the brain; in the spinal cord its values did not track what they are named"
        " for (doi:10.1016/j.neuroimage.2019.116026), so compare values of one protocol only",
        "NODDI has no standard errors here",
    ]
    n = sum(shell.volumes.size for shell in weighted)
    if n < _MANY_DIRECTIONS:
        notices.append(f"{n} weighted volumes; the model was published with 90")
    top = max(1e3 * shell.b_ms_um2 for shell in weighted)
    if top < _TOP_SHELL_S_MM2:
        notices.append(f"highest shell b = {top:.0f} s/mm2; neurites stand out from about 2000 upward")
    return tuple(notices)


def _flags(values: Array, repaired: Mask, shape: tuple[int, ...]) -> dict[str, Mask]:
    with np.errstate(invalid="ignore"):
        low, high = _FRACTION_RANGE
        at_edge = (values[:, 0] <= low + _AT_EDGE) | (values[:, 0] >= high - _AT_EDGE)
        water = values[:, 2] > 0.99
    return {
        "samples that are no positive number were replaced": repaired.reshape(shape),
        f"NDI at the end of what can be fitted ({low:g} or {high:g})": np.asarray(at_edge).reshape(shape),
        "nearly all free water: NDI and ODI mean nothing": np.asarray(water).reshape(shape),
    }


def _fit(
    data: Array,
    table: GradientTable,
    shells: tuple[PowderShell, ...],
    assumed: tuple[float, float],
    ex_vivo: bool,
) -> Array:
    """Call AMICO on voxels in a row, shape (v, n); returns (v, 3), or (v, 4) ex vivo."""
    # One voxel alone loses its axis in AMICO.
    voxels = np.repeat(data, 2, axis=0) if len(data) == 1 else data
    b = np.zeros(len(table))
    for shell in shells:
        b[shell.volumes] = 0.0 if shell.unweighted else round(1e3 * shell.b_ms_um2)
    directions = np.where(table.is_b0[:, None], 0.0, table.directions)
    reference = voxels[:, table.is_b0].mean(axis=1, keepdims=True)
    images = (voxels / reference)[:, None, None, :].astype(np.float32)
    with _LOCK, tempfile.TemporaryDirectory() as folder, _quiet(folder):
        try:
            maps = _run(images, np.column_stack([directions, b]), assumed, ex_vivo, folder)
        except SystemExit as error:
            raise FitError("AMICO gave up on NODDI", found="no reason given") from error
    return np.asarray(maps[: len(data)], dtype=float)


def _run(
    images: NDArray[np.float32], scheme: Array, assumed: tuple[float, float], ex_vivo: bool, folder: str
) -> Array:
    amico, lut, scheme_module = (_module(name) for name in ("amico", "amico.lut", "amico.scheme"))
    work = amico.Evaluation(study_path=folder, subject=".", output_path=folder)
    work.scheme = scheme_module.Scheme(scheme, 0)
    work.niiDWI, work.niiDWI_img = True, images
    work.niiMASK_img = np.ones(images.shape[:3], dtype=np.uint8)
    work.mean_b0s = np.ones(images.shape[:3])
    work.set_config("dim", images.shape[:3])
    work.set_config("nthreads", 1)
    work.set_model("NODDI")
    along, free = assumed
    work.model.set(dPar=1e-3 * along, dIso=1e-3 * free, isExvivo=ex_vivo)
    lut.precompute_rotation_matrices(_LMAX, _DIRECTIONS)
    work.generate_kernels(regenerate=True, lmax=_LMAX, ndirs=_DIRECTIONS)
    work.load_kernels()
    work.fit()
    return np.asarray(work.RESULTS["MAPs"][:, 0, 0, :], dtype=float)


@contextmanager
def _quiet(folder: str) -> Iterator[None]:
    """Keep AMICO silent and its files in one folder; put its settings back afterwards."""
    amico, lut = _module("amico"), _module("amico.lut")
    level, home = amico.get_verbose(), lut.dipy_home
    amico.set_verbose(0)
    lut.dipy_home = folder
    try:
        with warnings.catch_warnings():
            # Of what AMICO uses inside; nothing that the reader could act on.
            warnings.simplefilter("ignore")
            yield
    finally:
        amico.set_verbose(level)
        lut.dipy_home = home


def _module(name: str) -> Any:
    """Import a part of AMICO, which has no type information and need not be installed."""
    return importlib.import_module(name)
