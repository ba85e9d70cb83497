"""Double diffusion encoding as b-tensors.

Two pairs of gradients with a long mixing time weight the signal like one b-tensor, the sum of
theirs: parallel pairs of b-value b are linear encoding of 2b, perpendicular ones planar encoding of
2b with the normal of their plane as axis.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cordqa.models.diffusion.gradient_errors import GradientLengthError
from cordqa.models.diffusion.gradient_tensors import split_b_tensors
from cordqa.models.diffusion.gradients import GradientTable

__all__ = ["double_encoding_table"]


def double_encoding_table(
    b_of_each_pair_s_mm2: ArrayLike,
    first_directions: ArrayLike,
    second_directions: ArrayLike,
    **settings: float,
) -> GradientTable:
    """Gradient table of double diffusion encoding with equal weighting of both pairs.

    Valid where the mixing time is long against the time in which water crosses a compartment;
    otherwise the signal also depends on whether parallel pairs point the same way.

    Parameters
    ----------
    b_of_each_pair_s_mm2 : array_like, shape (n,)
        b-value of one pair; the total is twice that.
    first_directions, second_directions : array_like, shape (n, 3)
        In the axes of the image array; normalised, zero where b = 0.
    **settings
        ``b0_limit_s_mm2`` of the table, for the total b-value.

    Returns
    -------
    GradientTable

    Raises
    ------
    GradientError
        If the shapes do not belong together, or the pairs are neither parallel nor perpendicular:
        such an encoding has no symmetry axis.
    """
    b = np.asarray(b_of_each_pair_s_mm2, dtype=float)
    pairs = [np.asarray(n, dtype=float) for n in (first_directions, second_directions)]
    if b.ndim != 1 or any(n.shape != (b.size, 3) for n in pairs):
        raise GradientLengthError(
            "b-values and the two sets of directions do not belong together",
            found=f"{b.shape}, {pairs[0].shape} and {pairs[1].shape}",
            expected="(n,), (n, 3) and (n, 3)",
        )
    tensors = np.zeros((b.size, 3, 3))
    for directions in pairs:
        length = np.linalg.norm(directions, axis=1, keepdims=True)
        unit = np.divide(directions, length, out=np.zeros_like(directions), where=length > 0)
        tensors += b[:, None, None] * unit[:, :, None] * unit[:, None, :]
    parts = split_b_tensors(tensors)
    return GradientTable(
        b_values_s_mm2=parts.b_values, directions=parts.directions, b_delta=parts.b_delta, **settings
    )
