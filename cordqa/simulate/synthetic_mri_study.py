"""A reliability study of synthetic MRI: a phantom and people on scanners of three vendors.

Values of T1, T2, proton density and of volumes of tissue are drawn, not measured in images: what is tested
is the analysis of such a study, from its table to its report.  Everything that is drawn has a known
distribution, so that linearity and the variation within and between scanners that the analysis finds can
be compared with what was planted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from cordqa.errors import ConfigError

__all__ = ["PLANTED", "Planted", "SyntheticStudy", "cv_of_scanners", "simulate_synthetic_mri", "true_cv"]

VENDORS = ("GE", "Siemens", "Philips")
UNITS = MappingProxyType({"T1": "ms", "T2": "ms", "PD": "%", "volume": "mm3"})
#: What a phantom has a reference of.
_MAPS = ("T1", "T2", "PD")
#: Mean T1 (ms), T2 (ms) and PD (%) of regions of the brain at 3 T, round numbers.
BRAIN = MappingProxyType(
    {
        "frontal WM": (840.0, 74.0, 67.0),
        "occipital WM": (870.0, 79.0, 68.0),
        "genu": (800.0, 70.0, 66.0),
        "thalamus": (1080.0, 80.0, 75.0),
        "putamen": (1200.0, 76.0, 79.0),
        "caudate": (1260.0, 84.0, 80.0),
        "cortical GM": (1380.0, 95.0, 82.0),
    }
)
#: Mean volumes of tissues and structures, mm3, round numbers.
VOLUMES = MappingProxyType(
    {
        "WM": 480_000.0,
        "GM": 640_000.0,
        "CSF": 250_000.0,
        "thalamus": 15_000.0,
        "putamen": 9_500.0,
        "caudate": 7_500.0,
        "hippocampus": 7_500.0,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """How one quantity varies.

    Attributes
    ----------
    gain_sd : float
        Standard deviation of the gain of scanners, relative.
    offset_sd : float
        Standard deviation of the offset of scanners, in the unit of the quantity.
    within_cv : float
        Variation between runs on one scanner at values of the brain, relative.
    brain : float
        Such a value.
    growth : float
        The variation grows by the factor ``1 + growth log10(value/brain)^2`` away from it.
    people_cv : float
        Variation between people, relative.
    """

    gain_sd: float
    offset_sd: float
    within_cv: float
    brain: float
    growth: float
    people_cv: float

    def within(self, value: float) -> float:
        """Return the relative standard deviation of repeats on one scanner."""
        return self.within_cv * (1 + self.growth * math.log10(value / self.brain) ** 2)

    def between(self, value: float) -> float:
        """Return the relative standard deviation of scanners."""
        return math.hypot(self.gain_sd, self.offset_sd / value)


#: Chosen so that the largest variation over phantom and people has the size that is published for such
#: studies (doi:10.1097/RLI.0000000000000510).
PLANTED: Mapping[str, Planted] = MappingProxyType(
    {
        "T1": Planted(gain_sd=0.03, offset_sd=2.0, within_cv=0.009, brain=1000.0, growth=0.5, people_cv=0.03),
        "T2": Planted(gain_sd=0.05, offset_sd=0.7, within_cv=0.008, brain=85.0, growth=5.5, people_cv=0.03),
        "PD": Planted(gain_sd=0.03, offset_sd=0.45, within_cv=0.007, brain=75.0, growth=12.0, people_cv=0.02),
        "volume": Planted(
            gain_sd=0.02, offset_sd=350.0, within_cv=0.005, brain=5e5, growth=0.9, people_cv=0.08
        ),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticStudy:
    """A simulated study and what it was made from.

    Attributes
    ----------
    phantom, people : tuple of mapping
        Rows of the two tables, by column.
    gains, offsets : mapping of (quantity, scanner) to float
        What every scanner was given.
    means : mapping of (quantity, region) to float
        Reference value of each sphere, mean of each region of the brain.
    """

    phantom: tuple[Mapping[str, str | float], ...]
    people: tuple[Mapping[str, str | float], ...]
    gains: Mapping[tuple[str, str], float]
    offsets: Mapping[tuple[str, str], float]
    means: Mapping[tuple[str, str], float] = field(default_factory=dict)


def true_cv(quantity: str, mean: float, *, between: bool) -> float:
    """Return the planted variation between or within scanners at a value, in percent."""
    planted = PLANTED[quantity]
    return 100.0 * (planted.between(mean) if between else planted.within(mean))


def cv_of_scanners(study: SyntheticStudy, quantity: str, region: str) -> float:
    """Return the variation of what the scanners of a study read without noise, in percent.

    That is the spread of these scanners; :func:`true_cv` is that of all scanners from which they were drawn.
    """
    mean = study.means[quantity, region]
    seen = [
        _seen(mean, mean, gain, study.offsets[name, scanner])
        for (name, scanner), gain in study.gains.items()
        if name == quantity
    ]
    return 100.0 * float(np.std(seen, ddof=1)) / float(np.mean(seen))


def _seen(truth: float, mean: float, gain: float, offset: float) -> float:
    # A small value with an offset may come near 0: a scanner would still give a positive number.
    return max(truth * gain + offset, 0.2 * mean)


def simulate_synthetic_mri(
    references: Mapping[str, Mapping[str, float]],
    *,
    seed: int,
    n_runs: int = 10,
    n_people: int = 10,
    n_sessions: int = 2,
) -> SyntheticStudy:
    """Draw the tables of a phantom and of people on three scanners.

    A value is ``(reference x gain + offset) x (1 + e)``: gain and offset belong to the scanner, e to the
    run.  Gains have mean 1 and offsets mean 0.

    Parameters
    ----------
    references : mapping of quantity to mapping of sphere to float
        T1 and T2 in ms and PD in % of every sphere.
    seed : int
    n_runs : int
        Runs of the phantom per scanner, at least 2.
    n_people, n_sessions : int
        People, and scans of each on every scanner; at least 2.

    Raises
    ------
    ConfigError
        If there is too little to analyse, or a quantity is missing.
    """
    if min(n_runs, n_people, n_sessions) < 2:
        raise ConfigError(
            "a reliability study needs two runs, two people and two sessions at least",
            found=f"{n_runs} runs, {n_people} people, {n_sessions} sessions",
        )
    missing = sorted(set(_MAPS) - set(references))
    if missing or any(not (v > 0) for table in references.values() for v in table.values()):
        raise ConfigError(
            "needs positive references of T1, T2 and PD", found=", ".join(missing) or "not positive"
        )
    rng = np.random.default_rng(seed)
    keys = [(quantity, f"SIM-{vendor}") for quantity in PLANTED for vendor in VENDORS]
    gains = {key: 1 + PLANTED[key[0]].gain_sd * float(rng.normal()) for key in keys}
    offsets = {key: PLANTED[key[0]].offset_sd * float(rng.normal()) for key in keys}
    draw = _Draw(gains, offsets, rng)
    return SyntheticStudy(
        phantom=tuple(_phantom(references, n_runs, draw)),
        people=tuple(_people(n_people, n_sessions, draw)),
        gains=gains,
        offsets=offsets,
        means={(q, f"sphere {s}"): v for q in _MAPS for s, v in references[q].items()}
        | {(q, region): mean for region, q, mean in _regions()},
    )


@dataclass(frozen=True, slots=True)
class _Draw:
    """Scanners, and the random numbers of a study."""

    gains: Mapping[tuple[str, str], float]
    offsets: Mapping[tuple[str, str], float]
    rng: np.random.Generator

    def value(self, quantity: str, scanner: str, truth: float, mean: float) -> float:
        """Measure once; the size of the error belongs to the region, not to its drawn value."""
        seen = _seen(truth, mean, self.gains[quantity, scanner], self.offsets[quantity, scanner])
        return seen * (1 + PLANTED[quantity].within(mean) * float(self.rng.normal()))


def _row(
    subject: str, session: int, vendor: str, region: str, quantity: str, value: float
) -> dict[str, str | float]:
    return {
        "subject": subject,
        "session": f"{session + 1:02d}",
        "scanner": f"SIM-{vendor}",
        "vendor": vendor,
        "region": region,
        "quantity": quantity,
        "value": value,
        "unit": UNITS[quantity],
    }


def _phantom(
    references: Mapping[str, Mapping[str, float]], n_runs: int, draw: _Draw
) -> list[dict[str, str | float]]:
    rows = []
    for vendor in VENDORS:
        for run in range(n_runs):
            for quantity in _MAPS:
                for sphere, truth in references[quantity].items():
                    value = draw.value(quantity, f"SIM-{vendor}", truth, truth)
                    row = _row("phantom", run, vendor, f"sphere {sphere}", quantity, value)
                    rows.append({**row, "reference": truth})
    return rows


def _people(n_people: int, n_sessions: int, draw: _Draw) -> list[dict[str, str | float]]:
    rows = []
    for person in range(n_people):
        for region, quantity, mean in _regions():
            truth = mean * (1 + PLANTED[quantity].people_cv * float(draw.rng.normal()))
            rows += [
                _row(
                    f"sub-{person + 1:02d}",
                    session,
                    vendor,
                    region,
                    quantity,
                    draw.value(quantity, f"SIM-{vendor}", truth, mean),
                )
                for vendor in VENDORS
                for session in range(n_sessions)
            ]
    return rows


def _regions() -> list[tuple[str, str, float]]:
    """Region, quantity and mean of everything that is measured in people."""
    maps = [
        (region, q, mean) for region, means in BRAIN.items() for q, mean in zip(_MAPS, means, strict=True)
    ]
    return maps + [(region, "volume", mean) for region, mean in VOLUMES.items()]
