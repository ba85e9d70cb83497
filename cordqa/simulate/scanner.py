"""Simulated scanners: fields, noise, gain, biases, orientation, and the visits of a phantom."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import ConfigError
from cordqa.simulate.geometry import Placement, SliceGeometry
from cordqa.simulate.system_phantom import DigitalPlate

__all__ = ["FIELD_RADIUS_MM", "Session", "SimulatedScanner"]

Array = NDArray[np.float64]

#: Distance at which the curvature of the transmit and receive fields is stated.
FIELD_RADIUS_MM = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedScanner:
    """One scanner with everything that makes its numbers differ from the truth.

    Attributes
    ----------
    name : str
        Key of the scanner.
    vendor : {'Siemens', 'GE', 'Philips'}
        Decides how files are written.
    model, software, site : str
    field_strength_T : float
    gain : float
        Image value of water with all its magnetization, in the middle of the phantom.
    gain_session_sd : float
        Relative SD of the gain between sessions.
    noise_sd : float
        SD of the real and of the imaginary channel of each coil, relative to ``gain``.
    n_coils : int
        Coils combined by root sum of squares; their noise is independent.
    receive_curvature, receive_slope : float
        Relative change of the receive sensitivity at 100 mm from the isocentre, by the square
        of the distance and along x.
    transmit_scale, transmit_curvature : float
        Actual over nominal flip angle at the isocentre, and its relative change at 100 mm.
    inversion_angle_deg, refocusing_angle_deg : float
        Angle where the transmit field is nominal.
    adiabatic_inversion : bool
        The inversion does not follow the transmit field.
    t1_bias, t2_bias : float
        Relative bias that no setting in the header explains.
    session_sd, sphere_sd : float
        Relative SD of the relaxation times between sessions: common to all spheres, and own.
    rotation_deg, mirror : float, bool
        How the slice is planned: turned in its plane, seen from behind.
    tilt_deg, size_error : tuple of float, float
        Tilt of the plate against the slice; relative error of the gradients' calibration.
    reposition_mm, reposition_deg : float
        SD of shift (per axis in the plane) and rotation between sessions.
    planning_mm : float
        SD of the distance between the planned slice and the plate.
    zero_filled_matrix : int
        Rows and columns after zero filling of k-space, which correlates the noise; 0 for none.
    bits_stored, signed : int, bool
        Type of the stored pixel.
    scaling : {'integer', 'float'}
        Stored value equals image value; or one rescale slope per series, which fills the range.
    blanks_background : bool
        Air is set to zero, as after some coil combinations.
    """

    name: str
    vendor: Literal["Siemens", "GE", "Philips"]
    model: str = "Simulated"
    software: str = "1.0"
    site: str = ""
    field_strength_T: float = 3.0
    gain: float = 2000.0
    gain_session_sd: float = 0.0
    noise_sd: float = 0.005
    n_coils: int = 1
    receive_curvature: float = 0.0
    receive_slope: float = 0.0
    transmit_scale: float = 1.0
    transmit_curvature: float = 0.0
    inversion_angle_deg: float = 180.0
    refocusing_angle_deg: float = 180.0
    adiabatic_inversion: bool = False
    t1_bias: float = 0.0
    t2_bias: float = 0.0
    session_sd: float = 0.0
    sphere_sd: float = 0.0
    rotation_deg: float = 0.0
    mirror: bool = False
    tilt_deg: tuple[float, float] = (0.0, 0.0)
    size_error: float = 0.0
    reposition_mm: float = 0.0
    reposition_deg: float = 0.0
    planning_mm: float = 0.0
    zero_filled_matrix: int = 0
    bits_stored: int = 12
    signed: bool = False
    scaling: Literal["integer", "float"] = "integer"
    blanks_background: bool = False

    def __post_init__(self) -> None:
        if not (self.gain > 0 and self.noise_sd >= 0 and self.n_coils >= 1):
            raise ConfigError(
                "a scanner needs a positive gain, noise of at least 0 and a coil", where=self.name
            )
        if not 1 < self.bits_stored <= 16:
            raise ConfigError("bits stored must lie between 2 and 16", where=self.name)

    def transmit(self, positions_mm: Array) -> Array:
        """Return actual over nominal flip angle at LPS positions, shape (..., 3) to (...)."""
        square = (positions_mm**2).sum(axis=-1) / FIELD_RADIUS_MM**2
        field: Array = self.transmit_scale * (1 + self.transmit_curvature * square)
        return field

    def sensitivity(self, positions_mm: Array) -> Array:
        """Return the receive sensitivity of all coils together; 1 at the isocentre, never negative."""
        square = (positions_mm**2).sum(axis=-1) / FIELD_RADIUS_MM**2
        linear = positions_mm[..., 0] / FIELD_RADIUS_MM
        field: Array = np.maximum(1 + self.receive_curvature * square + self.receive_slope * linear, 0.0)
        return field

    def stored_range(self) -> tuple[int, int]:
        """Return the lowest and the highest stored value."""
        if self.signed:
            return -(2 ** (self.bits_stored - 1)), 2 ** (self.bits_stored - 1) - 1
        return 0, 2**self.bits_stored - 1

    def slice_geometry(self, plate: DigitalPlate) -> SliceGeometry:
        """Return the slice that this scanner's users plan through a plate."""
        return SliceGeometry.coronal(
            centre_mm=plate.centre_mm, rotation_deg=self.rotation_deg, mirror=self.mirror
        )

    def draw_session(self, rng: np.random.Generator, name: str = "", acquired: str = "") -> Session:
        """Draw what differs between two visits of the phantom to this scanner."""
        shift = rng.standard_normal(3) * [self.reposition_mm, self.planning_mm, self.reposition_mm]
        return Session(
            name=name,
            acquired=acquired,
            gain_factor=float(1 + self.gain_session_sd * rng.standard_normal()),
            t1_factor=float(1 + self.session_sd * rng.standard_normal()),
            t2_factor=float(1 + self.session_sd * rng.standard_normal()),
            placement=Placement(
                rotation_deg=float(self.reposition_deg * rng.standard_normal()),
                tilt_deg=self.tilt_deg,
                shift_mm=(float(shift[0]), float(shift[1]), float(shift[2])),
                scale=1 + self.size_error,
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One visit of the phantom: when, how it lay, and how far the relaxation times strayed."""

    name: str = ""
    acquired: str = ""
    gain_factor: float = 1.0
    t1_factor: float = 1.0
    t2_factor: float = 1.0
    placement: Placement = field(default_factory=Placement)
