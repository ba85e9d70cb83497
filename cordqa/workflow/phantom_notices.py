"""What the reader of a phantom run should know about conditions and fits, in sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import ConfigError
from cordqa.phantom.batches import find_batch
from cordqa.phantom.definition import PhantomDefinition
from cordqa.phantom.find import FoundPlate
from cordqa.phantom.fit import RegionFit, stimulated_echo_deficit
from cordqa.phantom.series import Kind, Series
from cordqa.records import Notice, Severity

__all__ = ["GivenConditions", "check_hints", "fit_notices", "with_field_strength"]

#: First echo below the exponential by more than this: stimulated echoes matter for T2.
_DEFICIT = 0.02
#: Residuals above this share of the largest signal are no noise of a phantom scan: those of real
#: scans stay below 0.008, and a receiver gain that changes by 5 % between images gives 0.045.
_MISFIT = 0.02
#: They must exceed the noise of a sample as well.
_MISFIT_OVER_NOISE = 3.0
#: A transmit field of a phantom at 1.5 or 3 T lies in between; another unit hardly does.
_USUAL_B1 = (0.7, 1.3)
#: Field strengths that differ less are one: scanners write 2.89 or 3.
_SAME_FIELD = 0.05
_SAME_TEMPERATURE_C = 0.05


class GivenConditions(Protocol):
    """The options of a run that describe phantom and scanner."""

    @property
    def serial(self) -> str | None:
        """Serial number of the phantom."""

    @property
    def batch(self) -> str | None:
        """Batch of the phantom."""

    @property
    def temperature_C(self) -> float | None:
        """Temperature of the phantom."""


def _warning(code: str, message: str, where: str = "") -> Notice:
    return Notice(severity=Severity.WARNING, code=code, where=where, message=message)


def check_hints(
    hints: Mapping[str, str], given: GivenConditions, definition: PhantomDefinition
) -> tuple[dict[str, str], list[Notice]]:
    """Check what the folder says about the phantom against the definition and the options.

    Returns
    -------
    dict
        The hints that can be used.
    list of Notice
        A serial number that cannot be one, and options that contradict the folder.
    """
    usable, notices = dict(hints), []
    serial, temperature = hints.get("serial_number"), hints.get("temperature_C")
    if serial is not None:
        text = _serial_doubt(serial, given, definition)
        if text:
            notices.append(_warning("phantom.serial", text, "folder"))
        if not _is_serial(serial, definition):
            del usable["serial_number"]
    if (
        temperature is not None
        and given.temperature_C is not None
        and abs(float(temperature) - given.temperature_C) > _SAME_TEMPERATURE_C
    ):
        text = (
            f"the folder gives the phantom's temperature as {temperature} and the option as "
            f"{given.temperature_C:g} degrees Celsius; the option is used"
        )
        notices.append(_warning("phantom.temperature", text, "folder"))
    return usable, notices


def _is_serial(serial: str, definition: PhantomDefinition) -> bool:
    try:
        find_batch(definition, serial)
    except ConfigError:
        return False
    return True


def _serial_doubt(serial: str, given: GivenConditions, definition: PhantomDefinition) -> str:
    """Return what is wrong with the serial number of the folder; empty where nothing is."""
    try:
        batch = find_batch(definition, serial).batch
    except ConfigError as error:
        expected = f", expected {error.expected}" if error.expected else ""
        return (
            f"the serial number {serial!r} of the folder {error.what}{expected}; it is not used: correct it"
        )
    if given.serial is None and given.batch is None:
        return ""
    used = find_batch(definition, given.serial, batch=given.batch)
    if given.serial is not None and find_batch(definition, serial).serial != used.serial:
        return f"the folder gives serial number {serial} and the option {given.serial}; the option is used"
    if batch != used.batch:
        return (
            f"serial number {serial} of the folder belongs to batch {batch}, and the option names batch "
            f"{used.batch}; the option is used"
        )
    return ""


def with_field_strength(
    series: Sequence[Series], field_strength_T: float | None
) -> tuple[list[Series], list[Notice]]:
    """Give series without a field strength the one of the option; the header goes first.

    A folder may hold scans at several field strengths, and an option for all of them would
    judge some by the values of another.
    """
    if field_strength_T is None:
        return list(series), []
    out, notices = [], []
    for one in series:
        recorded = one.images.entities.field_strength_T
        if not math.isfinite(recorded):
            out.append(_at_field(one, field_strength_T))
            continue
        if abs(recorded - field_strength_T) > _SAME_FIELD * recorded:
            text = (
                f"the header says {recorded:g} T and the option {field_strength_T:g} T; the header is used, "
                "because the option is for headers that lack the field strength"
            )
            notices.append(_warning("field-strength.contradiction", text, one.images.label))
        out.append(one)
    return out, notices


def _at_field(series: Series, field_T: float) -> Series:
    images = series.images
    acquisitions = tuple(
        replace(a, field_strength_T=field_T, origins={**a.origins, "field_strength_T": "user"})
        for a in images.acquisitions
    )
    entities = replace(images.entities, field_strength_T=field_T)
    members = series.members or (images,)
    return replace(
        series, images=replace(images, acquisitions=acquisitions, entities=entities), members=members
    )


def fit_notices(series: Series, found: FoundPlate, *, b1_name: str) -> list[Notice]:
    """Say what makes the fits of a plate doubtful, and which transmit field entered them."""
    where = series.images.label
    return [
        *_stimulated_echoes(found.fitted, where),
        *_misfit(found.fitted, where),
        *_transmit_field(found, where, b1_name),
    ]


def _stimulated_echoes(fitted: RegionFit, where: str) -> list[Notice]:
    deficit = stimulated_echo_deficit(fitted)
    if not deficit > _DEFICIT:
        return []
    text = (
        f"the first echo lies {100 * deficit:.0f} % below the exponential through the others, so stimulated "
        "echoes are present and T2 of an exponential reads high; --t2-model epg takes them into account"
    )
    return [_warning("fit.stimulated-echoes", text, where)]


def _misfit(fitted: RegionFit, where: str) -> list[Notice]:
    """Say when the curves of most spheres miss their samples: the images do not belong together."""
    signal = np.where(fitted.signals.valid, np.abs(fitted.signal), 0.0)
    largest = signal.max(axis=1)
    usable = fitted.fit.ok & (largest > 0) & np.isfinite(fitted.fit.residual_sd)
    if not usable.any():
        return []
    share = float(np.median(fitted.fit.residual_sd[usable] / largest[usable]))
    noise = _median(fitted.signals.noise_of_mean[usable] / largest[usable, None])
    if share <= max(_MISFIT, _MISFIT_OVER_NOISE * noise):
        return []
    words = {
        Kind.MULTI_ECHO: "echo times",
        Kind.VARIABLE_FLIP_ANGLE: "flip angles",
        Kind.DIFFUSION: "b-values",
    }
    setting = words.get(fitted.kind, "inversion times")
    text = (
        f"the curves miss the samples by {100 * share:.1f} % of the largest signal, which noise does not "
        f"explain; look for a receiver gain that changed between the images (prescan), wrong {setting}, "
        "or images that were saved by a viewer"
    )
    return [_warning("fit.misfit", text, where)]


def _median(values: NDArray[np.float64]) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else 0.0


def _transmit_field(found: FoundPlate, where: str, name: str) -> list[Notice]:
    b1 = found.fitted.b1
    if b1 is None:
        return []
    known = b1[np.isfinite(b1)]
    middle = float(np.median(known))
    text = (
        f"the B1 map {name} gives {middle:.2f} of the nominal flip angle in the spheres "
        f"({known.min():.2f} to {known.max():.2f})"
    )
    usual = _USUAL_B1[0] <= middle <= _USUAL_B1[1]
    if not usual:
        text += ", which is unusual for a phantom: check that the map holds a ratio or per cent"
    severity = Severity.INFO if usual else Severity.WARNING
    notices = [Notice(severity=severity, code="b1.used", where=where, message=text)]
    gaps = [sphere for sphere, value in zip(found.plate.sphere_ids, b1, strict=True) if np.isnan(value)]
    if gaps:
        text = (
            f"the B1 map {name} does not cover sphere{'s' if len(gaps) > 1 else ''} {', '.join(gaps)} of "
            f"{found.plate.name}; without it there is no T1"
        )
        notices.append(_warning("b1.gaps", text, where))
    return notices
