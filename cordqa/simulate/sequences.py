"""What a pulse sequence makes of a tissue: one signed signal per image and compartment.

The signal equations are those of :mod:`cordqa.models.relaxometry.signal`; here stand only the
timing tables of the protocols and how they end up in an image header.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import ConfigError
from cordqa.models.relaxometry.signal import (
    inversion_recovery_signal,
    multi_echo_spin_echo_signal,
    spin_echo_saturation,
    spin_echo_signal,
    spoiled_gradient_echo_signal,
)
from cordqa.records import Acquisition

__all__ = [
    "InversionRecovery",
    "MultiEchoSpinEcho",
    "PulseSequence",
    "SpinEcho",
    "Tissue",
    "VariableFlipAngle",
]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tissue:
    """Relaxation times, proton density and relative transmit field of compartments, each (n,)."""

    t1_s: Array
    t2_s: Array
    proton_density: Array
    transmit: Array


class PulseSequence(Protocol):
    """A protocol of several images that enter one fit."""

    name: ClassVar[str]
    #: Whether all images belong to one series, which shares one scale.
    one_series: ClassVar[bool]

    def acquisitions(self) -> tuple[Acquisition, ...]:
        """Return the header of each image."""
        ...

    def signals(self, tissue: Tissue, *, inversion_angle_deg: Array, refocusing_angle_deg: Array) -> Array:
        """Return the signed signals, shape (n_images, n_compartments), for the actual angles (n,)."""
        ...


def _check_times(what: str, times_s: tuple[float, ...]) -> None:
    if not times_s or not all(np.isfinite(time) and time > 0 for time in times_s):
        raise ConfigError(f"{what} must be positive", found=str(times_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class InversionRecovery:
    """Spin-echo inversion recovery.

    ``repetition_times_s`` holds one time for each inversion time; the excitation is ideal.
    """

    name: ClassVar[str] = "inversion recovery"
    one_series: ClassVar[bool] = False

    inversion_times_s: tuple[float, ...]
    repetition_times_s: tuple[float, ...]
    echo_time_s: float = 0.010

    def __post_init__(self) -> None:
        _check_times("inversion times", self.inversion_times_s)
        _check_times("repetition times", self.repetition_times_s)
        _check_times("the echo time", (self.echo_time_s,))
        if len(self.inversion_times_s) != len(self.repetition_times_s):
            raise ConfigError(
                "each inversion time needs its repetition time",
                found=str(len(self.repetition_times_s)),
                expected=str(len(self.inversion_times_s)),
            )

    def acquisitions(self) -> tuple[Acquisition, ...]:
        """Return the header of each image."""
        return tuple(
            Acquisition(
                repetition_time_s=repetition,
                echo_time_s=self.echo_time_s,
                inversion_time_s=inversion,
                flip_angle_deg=90.0,
                echo_train_length=1,
                sequence=self.name,
            )
            for inversion, repetition in zip(self.inversion_times_s, self.repetition_times_s, strict=True)
        )

    def signals(self, tissue: Tissue, *, inversion_angle_deg: Array, refocusing_angle_deg: Array) -> Array:
        """Return the signed signals, shape (n_images, n_compartments)."""
        del refocusing_angle_deg  # one echo: imperfect refocusing only scales all images alike
        return inversion_recovery_signal(
            np.array(self.inversion_times_s)[:, None],
            tissue.t1_s,
            m0=spin_echo_signal(self.echo_time_s, tissue.t2_s, m0=tissue.proton_density),
            inversion_angle_deg=inversion_angle_deg,
            repetition_time_s=np.array(self.repetition_times_s)[:, None],
            echo_time_s=self.echo_time_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiEchoSpinEcho:
    """A CPMG train; refocusing angles below 180 degrees bring stimulated echoes."""

    name: ClassVar[str] = "spin echo"
    one_series: ClassVar[bool] = True

    n_echoes: int = 32
    echo_spacing_s: float = 0.010
    repetition_time_s: float = 3.0

    def __post_init__(self) -> None:
        _check_times("echo spacing and repetition time", (self.echo_spacing_s, self.repetition_time_s))
        if self.n_echoes < 1 or self.n_echoes * self.echo_spacing_s >= self.repetition_time_s:
            raise ConfigError("the echo train must fit into the repetition time", found=str(self))

    def acquisitions(self) -> tuple[Acquisition, ...]:
        """Return the header of each image."""
        return tuple(
            Acquisition(
                repetition_time_s=self.repetition_time_s,
                echo_time_s=round((index + 1) * self.echo_spacing_s, 9),
                flip_angle_deg=90.0,
                refocusing_angle_deg=180.0,
                echo_train_length=self.n_echoes,
                sequence=self.name,
            )
            for index in range(self.n_echoes)
        )

    def signals(self, tissue: Tissue, *, inversion_angle_deg: Array, refocusing_angle_deg: Array) -> Array:
        """Return the signed signals, shape (n_images, n_compartments)."""
        del inversion_angle_deg
        saturation = spin_echo_saturation(
            tissue.t1_s,
            self.repetition_time_s,
            echo_spacing_s=self.echo_spacing_s,
            n_echoes=self.n_echoes,
        )
        return multi_echo_spin_echo_signal(
            self.n_echoes,
            self.echo_spacing_s,
            tissue.t2_s,
            tissue.t1_s,
            m0=tissue.proton_density * saturation,
            refocusing_angle_deg=refocusing_angle_deg,
            excitation_angle_deg=90.0 * tissue.transmit,
        ).T


@dataclass(frozen=True, slots=True, kw_only=True)
class VariableFlipAngle:
    """Spoiled gradient echo at several flip angles; the transmit field scales all of them."""

    name: ClassVar[str] = "gradient echo"
    one_series: ClassVar[bool] = False

    flip_angles_deg: tuple[float, ...] = (2.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0)
    repetition_time_s: float = 0.0066
    echo_time_s: float = 0.0025

    def __post_init__(self) -> None:
        _check_times("flip angles", self.flip_angles_deg)
        _check_times("repetition and echo time", (self.repetition_time_s, self.echo_time_s))

    def acquisitions(self) -> tuple[Acquisition, ...]:
        """Return the header of each image."""
        return tuple(
            Acquisition(
                repetition_time_s=self.repetition_time_s,
                echo_time_s=self.echo_time_s,
                flip_angle_deg=angle,
                echo_train_length=1,
                sequence=self.name,
            )
            for angle in self.flip_angles_deg
        )

    def signals(self, tissue: Tissue, *, inversion_angle_deg: Array, refocusing_angle_deg: Array) -> Array:
        """Return the signed signals, shape (n_images, n_compartments); T2* is taken as T2."""
        del inversion_angle_deg, refocusing_angle_deg
        return spoiled_gradient_echo_signal(
            np.array(self.flip_angles_deg)[:, None],
            tissue.t1_s,
            self.repetition_time_s,
            m0=spin_echo_signal(self.echo_time_s, tissue.t2_s, m0=tissue.proton_density),
            b1=tissue.transmit,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SpinEcho:
    """One spin-echo image; with a long repetition time and short echo it shows proton density."""

    name: ClassVar[str] = "spin echo"
    one_series: ClassVar[bool] = True

    repetition_time_s: float = 10.0
    echo_time_s: float = 0.010

    def __post_init__(self) -> None:
        _check_times("repetition and echo time", (self.repetition_time_s, self.echo_time_s))

    def acquisitions(self) -> tuple[Acquisition, ...]:
        """Return the header of the image."""
        return (
            Acquisition(
                repetition_time_s=self.repetition_time_s,
                echo_time_s=self.echo_time_s,
                flip_angle_deg=90.0,
                echo_train_length=1,
                sequence=self.name,
            ),
        )

    def signals(self, tissue: Tissue, *, inversion_angle_deg: Array, refocusing_angle_deg: Array) -> Array:
        """Return the signed signals, shape (1, n_compartments)."""
        del inversion_angle_deg, refocusing_angle_deg
        saturation = spin_echo_saturation(
            tissue.t1_s, self.repetition_time_s, echo_spacing_s=self.echo_time_s, n_echoes=1
        )
        signal = spin_echo_signal(self.echo_time_s, tissue.t2_s, m0=tissue.proton_density * saturation)
        return np.atleast_2d(signal)
