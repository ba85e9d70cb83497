"""Named formulae of a phantom definition, for solutions that no table covers."""

from __future__ import annotations

import math

from cordqa.errors import ConfigError
from cordqa.phantom.definition import Formula, PhantomDefinition
from cordqa.phantom.schema import suggest

__all__ = ["formula_value"]


def formula_value(
    definition: PhantomDefinition, model: str, *, content: float, temperature_C: float
) -> float:
    """Evaluate a named formula of a definition.

    Parameters
    ----------
    definition : PhantomDefinition
        The phantom.
    model : str
        Identifier of the formula, for example ``"pvp-k40"``.
    content : float
        Amount of the substance in the unit of the formula (PVP in per cent by weight).
    temperature_C : float
        Temperature.

    Returns
    -------
    float
        In the unit of the formula's quantity (um2/s for ADC); NaN outside the range of calibration
        that the definition states, and for a content that an exponential formula does not list.

    Raises
    ------
    ConfigError
        If the definition has no such formula.
    """
    formula = next((item for item in definition.models if item.id == model), None)
    if formula is None:
        known = [item.id for item in definition.models]
        raise ConfigError(
            f"no formula {str(model)[:40]!r}{suggest(str(model), known)}", where=definition.name
        )
    if not (_within(content, formula.valid_content) and _within(temperature_C, formula.valid_temperature_C)):
        return math.nan
    try:
        return _evaluate(formula, content, temperature_C)
    except OverflowError:
        return math.nan


def _evaluate(formula: Formula, content: float, temperature_C: float) -> float:
    if formula.water is not None:
        kelvin = temperature_C + 273.15
        if kelvin <= formula.water.Ts_K:
            return math.nan
        water: float = formula.water.D0_um2_per_s * (kelvin / formula.water.Ts_K - 1) ** formula.water.gamma
        return water * math.fsum(c * content**power for power, c in enumerate(formula.polynomial))
    row = next((row for row in formula.coefficients if row[0] == content), None)
    if row is None or formula.reference_temperature_C is None:
        return math.nan
    return row[1] * math.exp(row[2] * (temperature_C - formula.reference_temperature_C))


def _within(value: float, limits: tuple[float, float] | None) -> bool:
    return math.isfinite(value) and (limits is None or limits[0] <= value <= limits[1])
