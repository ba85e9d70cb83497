"""What can be wrong with a gradient table, by name."""

from __future__ import annotations

from cordqa.errors import InputError

__all__ = [
    "BTensorError",
    "BUnitError",
    "BValueError",
    "DirectionNormError",
    "GradientError",
    "GradientLengthError",
    "MissingDirectionError",
    "NoReferenceError",
    "OrientationError",
]


class GradientError(InputError):
    """The gradient table cannot be used."""

    code = "input.gradients"


class GradientLengthError(GradientError):
    """b-values, directions, encoding shapes and volumes differ in number."""

    code = "input.gradients.length"


class BValueError(GradientError):
    """A b-value is negative or no number."""

    code = "input.gradients.b-value"


class BUnitError(GradientError):
    """The b-values cannot be in s/mm2."""

    code = "input.gradients.b-unit"


class DirectionNormError(GradientError):
    """Directions are not of unit length."""

    code = "input.gradients.norm"


class MissingDirectionError(GradientError):
    """A weighted volume has no direction."""

    code = "input.gradients.no-direction"


class OrientationError(GradientError):
    """It cannot be told which axis of the directions counts the volumes."""

    code = "input.gradients.orientation"


class BTensorError(GradientError):
    """The shape of an encoding is impossible or not supported."""

    code = "input.gradients.b-tensor"


class NoReferenceError(GradientError):
    """No volume without weighting, and one shell only."""

    code = "input.gradients.no-b0"
