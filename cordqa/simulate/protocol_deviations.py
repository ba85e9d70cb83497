"""Deviations that can be planted into a simulated study of sidecars, each with how a check should call it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cordqa.errors import ConfigError
from cordqa.simulate.protocol_sheets import MODELS, SHEETS, Sidecar

__all__ = ["DEVIATIONS", "Draft", "PlantedDeviation", "make_gradients"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedDeviation:
    """One thing that is wrong, and how a check should call it.

    Attributes
    ----------
    kind : str
        One of :data:`DEVIATIONS`.
    files : tuple of str
        Sidecars that it concerns; several where they must agree, empty for a series that is absent.
    series, subject : str
    field : str
        BIDS field, ``gradients`` or ``series``.
    statuses : tuple of str
        What a check may call it; any of them is right.
    """

    kind: str
    files: tuple[str, ...]
    series: str
    subject: str
    field: str
    statuses: tuple[str, ...]


@dataclass(slots=True)
class Draft:
    """The study while deviations are planted into it."""

    rng: np.random.Generator
    sidecars: dict[str, Sidecar] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    place: dict[tuple[str, str], str] = field(default_factory=dict)  # subject and series to stem
    vendor: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def is_published(self, subject: str, series: str, name: str) -> bool:
        """Tell whether there is a published value to deviate from."""
        return name in SHEETS[self.vendor[subject]][series]

    def pick(
        self, series: Sequence[str], *, having: str = "", vendors: Sequence[str] = ()
    ) -> tuple[str, str, str]:
        """Choose a series that nothing was planted into; return subject, series and stem."""
        free = [
            (subject, name, stem)
            for (subject, name), stem in self.place.items()
            if name in series
            and stem not in self.used
            and (not having or self.is_published(subject, name, having))
            and (not vendors or self.vendor[subject] in vendors)
        ]
        if not free:
            raise ConfigError(
                "the study is too small for so many deviations",
                found=f"{len(self.place)} series",
                todo="ask for more participants or fewer deviations",
            )
        subject, name, stem = free[int(self.rng.integers(len(free)))]
        self.used.add(stem)
        return subject, name, stem

    def reserve(self, subject: str, *series: str) -> None:
        """Keep further deviations away from series that were compared with a deviating one."""
        self.used.update(self.place[subject, name] for name in series if (subject, name) in self.place)


def make_gradients(*, n: int = 30, b: float = 800.0, n_b0: int = 5) -> tuple[str, str]:
    """Texts of bval and bvec files: directions spread over the half sphere along a spiral."""
    steps = np.arange(n) + 0.5
    height = 1 - steps / n
    angle = math.pi * (1 + math.sqrt(5)) * steps
    radius = np.sqrt(1 - height**2)
    directions = np.column_stack([radius * np.cos(angle), radius * np.sin(angle), height])
    directions *= np.where(np.arange(n) % 2, 1, -1)[:, None]
    rows = np.vstack([np.zeros((n_b0, 3)), directions]).T
    bval = " ".join(f"{value:g}" for value in [0.0] * n_b0 + [b] * n)
    return bval + "\n", "\n".join(" ".join(f"{value:.6f}" for value in row) for row in rows) + "\n"


_OUT = ("out of range",)
_SPIN = ("T1w", "T2w", "T2starw", "dwi")


def _plant(
    draft: Draft, kind: str, pick: tuple[str, str, str], name: str, value: Any, statuses: tuple[str, ...]
) -> list[PlantedDeviation]:
    """Write a value into one sidecar and note it; no series of the same triplet is used again."""
    subject, series, stem = pick
    draft.sidecars[stem][name] = value
    if series.startswith("MT"):
        draft.reserve(subject, "MTon", "MToff", "MTT1w")
    return [
        PlantedDeviation(
            kind=kind, files=(f"{stem}.json",), series=series, subject=subject, field=name, statuses=statuses
        )
    ]


def _wrong_factor(rng: np.random.Generator) -> float:
    """Return a factor that no tolerance covers: 15 to 50 % off, either way."""
    off = float(rng.uniform(1.15, 1.5))
    return off if rng.random() < 0.5 else 1 / off


def _scaled(kind: str, name: str, series: Sequence[str]) -> Callable[[Draft], list[PlantedDeviation]]:
    def plant(draft: Draft) -> list[PlantedDeviation]:
        pick = draft.pick(series, having=name)
        value = draft.sidecars[pick[2]][name] * _wrong_factor(draft.rng)
        return _plant(draft, kind, pick, name, round(value, 5), _OUT)

    return plant


def _milliseconds(draft: Draft) -> list[PlantedDeviation]:
    pick = draft.pick(_SPIN, having="EchoTime")
    value = round(1000 * draft.sidecars[pick[2]]["EchoTime"], 4)
    return _plant(draft, "milliseconds", pick, "EchoTime", value, ("unit suspect",))


def _comma(draft: Draft) -> list[PlantedDeviation]:
    pick = draft.pick(_SPIN, having="RepetitionTime")
    text = str(draft.sidecars[pick[2]]["RepetitionTime"]).replace(".", ",")
    return _plant(draft, "decimal comma", pick, "RepetitionTime", text, ("not numeric",))


def _list(draft: Draft) -> list[PlantedDeviation]:
    pick = draft.pick(_SPIN, having="FlipAngle")
    value = [draft.sidecars[pick[2]]["FlipAngle"]] * 2
    return _plant(draft, "list", pick, "FlipAngle", [*value, "x"], ("not numeric",))


def _field_strength(draft: Draft) -> list[PlantedDeviation]:
    return _plant(draft, "field strength", draft.pick(_SPIN), "MagneticFieldStrength", 1.5, _OUT)


def _pair(draft: Draft) -> list[PlantedDeviation]:
    """Plant the published case: the repetition times of a pair with and without pulse differ."""
    subject, _, stem = draft.pick(("MTon",))
    draft.reserve(subject, "MTon", "MToff", "MTT1w")
    sidecar = draft.sidecars[stem]
    sidecar["RepetitionTime"] = round(sidecar["RepetitionTime"] * float(draft.rng.uniform(1.12, 1.35)), 5)
    other = draft.place[subject, "MToff"]
    shared: dict[str, Any] = {"kind": "pair", "subject": subject, "field": "RepetitionTime"}
    return [
        PlantedDeviation(**shared, files=(f"{stem}.json",), series="MTon", statuses=_OUT),
        PlantedDeviation(
            **shared, files=(f"{stem}.json", f"{other}.json"), series="MTon", statuses=("constraint",)
        ),
    ]


def _gradient(kind: str, **scheme: Any) -> Callable[[Draft], list[PlantedDeviation]]:
    def plant(draft: Draft) -> list[PlantedDeviation]:
        subject, series, stem = draft.pick(("dwi",))
        draft.texts[f"{stem}.bval"], draft.texts[f"{stem}.bvec"] = make_gradients(**scheme)
        return [
            PlantedDeviation(
                kind=kind,
                files=(f"{stem}.json",),
                series=series,
                subject=subject,
                field="gradients",
                statuses=(*_OUT, "missing"),
            )
        ]

    return plant


def _scaling(draft: Draft) -> list[PlantedDeviation]:
    """Plant the published case: one series of a Philips set has another scale slope."""
    subject, series, stem = draft.pick(("MTT1w",), vendors=("Philips",))
    draft.reserve(subject, "MTon", "MToff", "MTT1w")
    draft.sidecars[stem]["PhilipsScaleSlope"] = round(0.0123 * float(draft.rng.uniform(1.05, 1.3)), 6)
    files = tuple(f"{draft.place[subject, name]}.json" for name in ("MTon", "MToff", "MTT1w"))
    return [
        PlantedDeviation(
            kind="scaling",
            files=files,
            series=series,
            subject=subject,
            field="PhilipsScaleSlope",
            statuses=("constraint",),
        )
    ]


def _software(draft: Draft) -> list[PlantedDeviation]:
    """Upgrade one scanner before its last participant."""
    sites = sorted({subject[:-2] for subject in draft.vendor})
    several = [site for site in sites if sum(subject[:-2] == site for subject in draft.vendor) > 1]
    if not several:
        raise ConfigError(
            "an upgrade needs a scanner with two participants", todo="ask for more participants"
        )
    site = several[int(draft.rng.integers(len(several)))]
    last = max(subject for subject in draft.vendor if subject[:-2] == site)
    newer = MODELS[draft.vendor[last]][2][1]
    for (subject, _), stem in draft.place.items():
        if subject == last:
            draft.sidecars[stem]["SoftwareVersions"] = newer
    return [
        PlantedDeviation(
            kind="software",
            files=(),
            series="",
            subject="",
            field="SoftwareVersions",
            statuses=("constraint",),
        )
    ]


def _multiband(draft: Draft) -> list[PlantedDeviation]:
    return _plant(draft, "multiband", draft.pick(("dwi",)), "MultibandAccelerationFactor", 4, _OUT)


def _no_pulse(draft: Draft) -> list[PlantedDeviation]:
    return _plant(draft, "no pulse", draft.pick(("MTon",)), "MTState", False, _OUT)


def _no_vendor(draft: Draft) -> list[PlantedDeviation]:
    """A sidecar without vendor and model: what depends on them cannot be judged."""
    subject, series, stem = draft.pick(_SPIN)
    for name in ("Manufacturer", "ManufacturersModelName"):
        del draft.sidecars[stem][name]
    return [
        PlantedDeviation(
            kind="no vendor",
            files=(f"{stem}.json",),
            series=series,
            subject=subject,
            field="Manufacturer",
            statuses=("not checkable",),
        )
    ]


def _broken(draft: Draft) -> list[PlantedDeviation]:
    """A sidecar that ends in the middle of a line."""
    subject, series, stem = draft.pick(_SPIN)
    whole = json.dumps(draft.sidecars[stem], indent=1)
    draft.texts[f"{stem}.json"] = whole[: len(whole) // 2]
    return [
        PlantedDeviation(
            kind="broken",
            files=(f"{stem}.json",),
            series=series,
            subject=subject,
            field="file",
            statuses=("not checkable",),
        )
    ]


def _series_missing(draft: Draft) -> list[PlantedDeviation]:
    subject, series, stem = draft.pick(("T2w", "T1w", "T2starw"))
    del draft.sidecars[stem], draft.place[subject, series]
    return [
        PlantedDeviation(
            kind="series missing",
            files=(),
            series=series,
            subject=subject,
            field="series",
            statuses=("missing",),
        )
    ]


#: What can be planted, by name.
DEVIATIONS: dict[str, Callable[[Draft], list[PlantedDeviation]]] = {
    "repetition time": _scaled("repetition time", "RepetitionTime", _SPIN),
    "echo time": _scaled("echo time", "EchoTime", _SPIN),
    "flip angle": _scaled("flip angle", "FlipAngle", _SPIN),
    "inversion time": _scaled("inversion time", "InversionTime", ("T1w",)),
    "milliseconds": _milliseconds,
    "decimal comma": _comma,
    "list": _list,
    "field strength": _field_strength,
    "pair": _pair,
    "b-value": _gradient("b-value", b=1000.0),
    "few directions": _gradient("few directions", n=12),
    "series missing": _series_missing,
    "scaling": _scaling,
    "software": _software,
    "slice thickness": _scaled("slice thickness", "SliceThickness", _SPIN),
    "multiband": _multiband,
    "no pulse": _no_pulse,
    "no vendor": _no_vendor,
    "broken": _broken,
}
