"""What the parts of a phantom run hand to each other."""

from __future__ import annotations

from dataclasses import dataclass

from cordqa.phantom.find import FoundPlate
from cordqa.phantom.rates import RateLinearity
from cordqa.phantom.reference import ReferenceValue
from cordqa.phantom.repeats import Group
from cordqa.phantom.series import Series
from cordqa.records import Measurement, Notice, Statistic, Verdict

__all__ = ["AnalysedPlate", "Judgement"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysedPlate:
    """One plate of one series with its rows and the verdicts on its spheres."""

    series: Series
    found: FoundPlate
    rows: tuple[Measurement, ...]
    references: tuple[ReferenceValue, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def label(self) -> str:
        """Series, plate and quantity in words."""
        return f"{self.series.images.label}: {self.found.plate.name}, {self.found.quantity}"

    @property
    def short(self) -> str:
        """Plate and quantity in words."""
        return f"plate {self.found.plate.id} {self.found.quantity}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Everything that follows from the rows.

    ``rates`` has one entry per plate that was analysed (``None`` where concentration plays no part).
    """

    overall: Verdict
    verdicts: tuple[Verdict, ...]
    statistics: tuple[Statistic, ...] = ()
    notices: tuple[Notice, ...] = ()
    groups: tuple[Group, ...] = ()
    rates: tuple[RateLinearity | None, ...] = ()
