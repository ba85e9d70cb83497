"""What models share that take T1, T2 and proton density as maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.models.myelin.mixing import Mixing, MixingRule, Substance
from cordqa.workflow.fit.data import FitData
from cordqa.workflow.fit.registry import ImageRole, Option

__all__ = ["IMAGES", "example_maps", "mixing_of", "mixing_options", "substance_of", "substance_option"]

IMAGES = (
    ImageRole(id="t1", metavar="T1_MAP", help="T1 in ms."),
    ImageRole(id="t2", metavar="T2_MAP", help="T2 in ms."),
    ImageRole(id="pd", metavar="PD_MAP", help="Proton density in % of water."),
)


def example_maps(
    shares: NDArray[np.float64], substances: Sequence[Substance], shape: tuple[int, int, int]
) -> dict[str, NDArray[np.float64]]:
    """Maps of voxels whose relaxation rates add, weighted by water; shares are (n_voxels, n_substances)."""
    values = np.array([[one.t1_s, one.t2_s, one.pd] for one in substances])
    pd = shares @ values[:, 2]
    t1, t2 = (pd / (shares @ (values[:, 2] / values[:, n])) for n in (0, 1))
    return {"t1": 1e3 * t1.reshape(shape), "t2": 1e3 * t2.reshape(shape), "pd": 1e2 * pd.reshape(shape)}


def substance_option(name: str, words: str, default: tuple[float, float, float] | None = None) -> Option:
    """One substance: T1 and T2 in ms, PD in %."""
    return Option(
        id=name,
        kind=tuple,
        default=default,
        unit="ms, ms, %",
        low=0.1,
        high=20_000.0,
        length=3,
        help=f"T1, T2 and PD of {words}.",
    )


def substance_of(data: FitData, name: str) -> Substance:
    """Read such an option.

    Raises
    ------
    InputError
        If it was not given.
    """
    given = cast("tuple[float, ...] | None", data.options[name])
    if given is None:
        raise InputError(
            f"no T1, T2 and PD of {name.replace('_', ' ')}", todo=f"give --{name.replace('_', '-')}"
        )
    return Substance(name, given[0] / 1e3, given[1] / 1e3, given[2] / 100.0)


def mixing_of(data: FitData) -> Mixing:
    """Read the options of mixing."""
    echoes = cast("tuple[float, ...]", data.options["mixing_echo_times"])
    delays = cast("tuple[float, ...]", data.options["mixing_delays"])
    spread = cast("tuple[float, ...]", data.options["relative_sd"])
    return Mixing(
        rule=cast(MixingRule, data.text("mixing")),
        echo_times_s=echoes,
        delays_s=delays,
        relative_sd=(spread[0] / 100.0, spread[1] / 100.0, spread[2] / 100.0),
    )


def mixing_options(default: MixingRule) -> tuple[Option, ...]:
    """Options by which substances mix."""
    return (
        Option(
            id="mixing",
            kind=str,
            default=default,
            choices=("signals", "rates"),
            help="signals: no exchange of water, signals add; rates: fast exchange, relaxation rates add.",
        ),
        Option(
            id="mixing_echo_times",
            kind=tuple,
            default=(0.0228, 0.1026),
            unit="s",
            low=1e-4,
            high=5.0,
            help="Echo times of the measurement of the maps, for signals.",
        ),
        Option(
            id="mixing_delays",
            kind=tuple,
            default=(0.17, 0.67, 1.84, 3.84),
            unit="s",
            low=1e-3,
            high=30.0,
            help="Saturation or inversion delays of that measurement, for signals.",
        ),
        Option(
            id="relative_sd",
            kind=tuple,
            default=(5.0, 5.0, 5.0),
            unit="%",
            low=0.01,
            high=99.0,
            length=3,
            help="Standard deviations of T1, T2 and PD between voxels of one tissue; they are the weights.",
        ),
        Option(
            id="largest_misfit",
            kind=float,
            default=3.0,
            unit="SD",
            low=0.1,
            high=1000.0,
            help="A voxel that no mixture comes nearer to than this is left unexplained.",
        ),
    )
