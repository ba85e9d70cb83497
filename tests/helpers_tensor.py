"""Diffusion signals of mixtures of Gaussian compartments, written apart from the package's designs."""

from __future__ import annotations

import numpy as np

from cordqa.models.diffusion.gradients import GradientTable

SECOND = ((0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2))
# In the order of dipy.
FOURTH = (
    *("xxxx", "yyyy", "zzzz", "xxxy", "xxxz", "xyyy", "yyyz", "xzzz", "yzzz"),
    *("xxyy", "xxzz", "yyzz", "xxyz", "xyyz", "xyzz"),
)
TISSUE_KINDS = ("white matter", "crossing", "grey matter", "partial volume")


def spread_directions(n: int, seed: int = 1, steps: int = 1500) -> np.ndarray:
    """Directions that repel each other and their opposites."""
    x = np.random.default_rng(seed).normal(size=(n, 3))
    for _ in range(steps):
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        away, across = x[:, None] - x, x[:, None] + x
        near, far = np.linalg.norm(away, axis=2), np.linalg.norm(across, axis=2)
        np.fill_diagonal(near, np.inf)
        np.fill_diagonal(far, np.inf)
        x = x + 0.05 / n * ((away / near[..., None] ** 3).sum(1) + (across / far[..., None] ** 3).sum(1))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def shells(*values: float, n: int = 20, n_b0: int = 1) -> GradientTable:
    """The same spread directions on every shell (s/mm2), after ``n_b0`` volumes without weighting."""
    directions = spread_directions(n)
    b = np.concatenate([np.zeros(n_b0), np.repeat(values, n)])
    return GradientTable.linear(
        b, np.concatenate([np.zeros((n_b0, 3)), np.tile(directions, (len(values), 1))])
    )


def turned(eigenvalues: tuple[float, float, float], seed: int = 0) -> np.ndarray:
    """Tensor (um2/ms) of these eigenvalues in a random orientation."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q @ np.diag(eigenvalues) @ q.T


def mixture_signal(mixture: list[tuple[float, np.ndarray]], table: GradientTable) -> np.ndarray:
    """Sum of fractions times exp(-b n'Dn)."""
    b, n = table.b_values_s_mm2 / 1000, table.directions
    return sum(f * np.exp(-b * np.einsum("ni,ij,nj->n", n, d, n)) for f, d in mixture)


def magnitude(signal: np.ndarray, sd: float, rng: np.random.Generator) -> np.ndarray:
    """Magnitude of the signal in complex noise."""
    return np.abs(signal + sd * (rng.normal(size=signal.shape) + 1j * rng.normal(size=signal.shape)))


def axial(along: float, across: float, axis: np.ndarray) -> np.ndarray:
    return across * np.eye(3) + (along - across) * np.outer(axis, axis)


def tissue(kind: str, rng: np.random.Generator) -> list[tuple[float, np.ndarray]]:
    """Compartments of one voxel of cord-like tissue: axons (sticks nearly) and what is around them."""
    axis = np.array([*(0.15 * rng.normal(size=2)), 1.0])
    axis /= np.linalg.norm(axis)
    f = rng.uniform(0.45, 0.65)
    if kind == "white matter":
        return [
            (f, axial(rng.uniform(1.8, 2.2), rng.uniform(0.05, 0.15), axis)),
            (1 - f, axial(rng.uniform(1.6, 2.0), rng.uniform(0.6, 0.9), axis)),
        ]
    if kind == "crossing":
        side = np.cross(axis, rng.normal(size=3))
        other = np.cos(1.2) * axis + np.sin(1.2) * side / np.linalg.norm(side)
        g = rng.uniform(0.35, 0.65)
        pairs = [(axis, g), (other, 1 - g)]
        return [(f * h, axial(2.0, 0.1, a)) for a, h in pairs] + [
            ((1 - f) * h, axial(1.8, 0.75, a)) for a, h in pairs
        ]
    if kind == "grey matter":
        f, m = rng.uniform(0.35, 0.55), 12
        sticks = []
        for _ in range(m):
            n = rng.normal(size=3) + 0.6 * rng.normal() * axis
            sticks.append((f / m, axial(1.8, 0.1, n / np.linalg.norm(n))))
        return [*sticks, (1 - f, axial(rng.uniform(1.0, 1.3), rng.uniform(0.7, 0.9), axis))]
    water = rng.uniform(0.1, 0.3)
    return [
        *((fraction * (1 - water), d) for fraction, d in tissue("white matter", rng)),
        (water, 3.0 * np.eye(3)),
    ]


def cumulants(mixture: list[tuple[float, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """True second- and fourth-order coefficients of a mixture: mean, and three times the covariance."""
    mean = sum(f * d for f, d in mixture)
    second = sum(f * np.einsum("ij,kl->ijkl", d, d) for f, d in mixture)
    v = 3 * (second - np.einsum("ij,kl->ijkl", mean, mean))
    v = (v + v.transpose(0, 2, 1, 3) + v.transpose(0, 3, 2, 1)) / 3
    index = [tuple("xyz".index(c) for c in name) for name in FOURTH]
    return np.array([mean[p] for p in SECOND]), np.array([v[i] for i in index])


def along(second: np.ndarray, fourth: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """D(n) and V(n) by plain sums over all entries."""
    count2 = np.array([1 if i == j else 2 for i, j in SECOND])
    rows2 = np.stack([n[:, i] * n[:, j] for i, j in SECOND], axis=1) * count2
    count4 = np.array([{4: 1, 3: 4, 2: 6}[max(q.count(c) for c in "xyz")] for q in FOURTH])
    count4[-3:] = 12
    rows4 = np.stack([np.prod([n[:, "xyz".index(c)] for c in q], axis=0) for q in FOURTH], axis=1) * count4
    return second @ rows2.T, fourth @ rows4.T


def sphere_mean(second: np.ndarray, fourth: np.ndarray, n_polar: int = 60) -> np.ndarray:
    """Mean of V(n) / D(n)^2 over the sphere by a dense product rule."""
    height, weight = np.polynomial.legendre.leggauss(n_polar)
    turn = 2 * np.pi * np.arange(2 * n_polar) / (2 * n_polar)
    h, t = (a.ravel() for a in np.meshgrid(height, turn, indexing="ij"))
    n = np.stack([np.sqrt(1 - h**2) * np.cos(t), np.sqrt(1 - h**2) * np.sin(t), h], axis=1)
    d, v = along(second, fourth, n)
    return (v / d**2) @ np.repeat(weight / 2 / len(turn), len(turn))
