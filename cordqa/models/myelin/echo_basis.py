"""Echo trains of many T2 at any refocusing angle, precomputed by extended phase graphs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.models.relaxometry.signal import multi_echo_spin_echo_signal
from cordqa.models.relaxometry.slice_profile import UNIFORM, SliceProfile

__all__ = ["EchoBasis", "EchoGrid", "angle_to_node", "make_basis", "node_to_angle"]

Array = NDArray[np.float64]
#: Nodes in 1 + cos(angle), in which the echoes are polynomials: cubic interpolation errs by 1e-6.
_NODES = 240
#: Dimensions of the space of decays by which angles are compared before any decay is fitted.
_RANK = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoGrid:
    """Train and T2 of a basis.

    Attributes
    ----------
    n_echoes : int
    echo_spacing_s, t1_s : float
        Seconds; one T1 stands for all water.
    n_t2 : int
    t2_range_s : (float, float)
        Ends of the logarithmic grid of T2, seconds.
    smallest_angle_deg : float
        Smallest refocusing angle that is tried; the largest is 180, beyond which the echoes are
        those of the mirrored angle.
    """

    n_echoes: int
    echo_spacing_s: float
    t1_s: float = 1.0
    n_t2: int = 40
    t2_range_s: tuple[float, float] = (0.010, 2.0)
    smallest_angle_deg: float = 50.0

    def __post_init__(self) -> None:
        """Refuse a train or a grid that cannot be meant."""
        low, high = self.t2_range_s
        if not (4 <= self.n_echoes <= 512 and 0 < self.echo_spacing_s < 1 and 0 < self.t1_s < 100):
            raise InputError(
                "the echo train cannot be meant",
                found=f"{self.n_echoes} echoes every {self.echo_spacing_s:g} s, T1 {self.t1_s:g} s",
                expected="4 to 512 echoes, times in seconds",
            )
        if not (0 < low < high < 100 and 8 <= self.n_t2 <= 200 and 20 <= self.smallest_angle_deg < 180):
            raise InputError(
                "the grid of T2 or of angles cannot be meant",
                found=f"{self.n_t2} T2 from {low:g} to {high:g} s, from {self.smallest_angle_deg:g} degrees",
                expected="8 to 200 T2 in seconds, angles from 20 to 180 degrees",
            )

    @property
    def t2_s(self) -> Array:
        """T2 of the components, shape (n_t2,)."""
        return np.geomspace(*self.t2_range_s, self.n_t2)


@dataclass(frozen=True, slots=True)
class EchoBasis:
    """Decays at nodes of 1 + cos(refocusing angle), and the space that they span.

    Attributes
    ----------
    grid : EchoGrid
    nodes : ndarray, shape (k,)
        Equally spaced from 0 (180 degrees).
    decays : ndarray, shape (k, n_echoes, n_t2)
    spaces : ndarray, shape (k, n_echoes, r)
        Orthonormal; the directions that decays at this angle fill most.
    """

    grid: EchoGrid
    nodes: Array
    decays: Array
    spaces: Array

    def at(self, node: Array) -> Array:
        """Interpolate the decays, shape (m, n_echoes, n_t2)."""
        return self._combine(*self._weights(node))

    def derivative(self, node: Array, amplitude: Array) -> Array:
        """Derivative of the signal of given amplitudes with respect to the node, shape (m, n_echoes)."""
        first, position = self._place(node)
        weights = _slopes(position) / (self.nodes[1] - self.nodes[0])
        total = np.zeros((len(node), self.grid.n_echoes))
        for offset in range(4):
            part = np.matmul(self.decays[first + offset], amplitude[:, :, None])[:, :, 0]
            total += weights[:, offset, None] * part
        return total

    def nearest(self, signal: Array) -> Array:
        """Node whose space of decays leaves the least of each signal, shape (m,); a start for a fit."""
        flat = self.spaces.transpose(1, 0, 2).reshape(signal.shape[1], -1)
        inside = ((signal @ flat) ** 2).reshape(len(signal), self.nodes.size, -1).sum(axis=-1)
        best: Array = self.nodes[inside.argmax(axis=1)]
        return best

    def _place(self, node: Array) -> tuple[NDArray[np.intp], Array]:
        position = np.clip(node, 0.0, self.nodes[-1]) / (self.nodes[1] - self.nodes[0])
        first = np.clip(np.floor(position).astype(np.intp) - 1, 0, self.nodes.size - 4)
        return first, position - first

    def _weights(self, node: Array) -> tuple[NDArray[np.intp], Array]:
        first, t = self._place(node)
        weights = [
            -(t - 1) * (t - 2) * (t - 3) / 6,
            t * (t - 2) * (t - 3) / 2,
            -t * (t - 1) * (t - 3) / 2,
            t * (t - 1) * (t - 2) / 6,
        ]
        return first, np.stack(weights, axis=-1)

    def _combine(self, first: NDArray[np.intp], weights: Array) -> Array:
        total = self.decays[first] * weights[:, 0, None, None]
        for offset in range(1, 4):
            total += self.decays[first + offset] * weights[:, offset, None, None]
        return total


def _slopes(t: Array) -> Array:
    """Derivatives of the cubic interpolation weights."""
    a, b, c, d = t, t - 1, t - 2, t - 3
    return np.stack(
        [
            -(c * d + b * d + b * c) / 6,
            (c * d + a * d + a * c) / 2,
            -(b * d + a * d + a * b) / 2,
            (b * c + a * c + a * b) / 6,
        ],
        axis=-1,
    )


def node_to_angle(node: Array) -> Array:
    """Refocusing angle in degrees, 0 to 180."""
    angle: Array = np.degrees(np.arccos(np.clip(node - 1.0, -1.0, 1.0)))
    return angle


def angle_to_node(angle_deg: Array) -> Array:
    """Return 1 + cos(angle): smooth where the angle itself is not, at 180 degrees."""
    node: Array = 1.0 + np.cos(np.radians(angle_deg))
    return node


def make_basis(grid: EchoGrid, profile: SliceProfile = UNIFORM) -> EchoBasis:
    """Compute the decays at all nodes; excitation is half the refocusing angle.

    Parameters
    ----------
    grid : EchoGrid
    profile : SliceProfile
        Angles through the slice; the node is that of the slice centre.
    """
    key = (profile.excitation.tobytes(), profile.refocusing.tobytes(), profile.weights.tobytes())
    return _make(grid, key)


@lru_cache(maxsize=4)
def _make(grid: EchoGrid, profile: tuple[bytes, bytes, bytes]) -> EchoBasis:
    excitation, refocusing, weights = (np.frombuffer(part) for part in profile)
    nodes = np.linspace(0.0, float(angle_to_node(np.asarray(grid.smallest_angle_deg))), _NODES)
    angles = node_to_angle(nodes)
    decays = np.zeros((_NODES, grid.n_t2, grid.n_echoes))
    for here, relative_excitation, relative in zip(weights, excitation, refocusing, strict=True):
        decays += here * multi_echo_spin_echo_signal(
            grid.n_echoes,
            grid.echo_spacing_s,
            grid.t2_s,
            grid.t1_s,
            refocusing_angle_deg=angles[:, None] * relative,
            excitation_angle_deg=angles[:, None] * relative_excitation / 2,
        )
    decays = np.ascontiguousarray(decays.swapaxes(1, 2))
    spaces = np.linalg.svd(decays, full_matrices=False)[0][:, :, :_RANK]
    return EchoBasis(grid, nodes, decays, np.ascontiguousarray(spaces))
