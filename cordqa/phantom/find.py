"""From one series to its plates: locate, measure, fit, and decide which plate and which sphere is which."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import AmbiguousLabelsError, CordqaError, FitError, LocateError
from cordqa.phantom.definition import PhantomDefinition, Plate
from cordqa.phantom.diffusion import DiffusionPlate, fit_vials
from cordqa.phantom.fit import (
    FitSettings,
    RegionFit,
    check_series,
    fit_regions,
    order_fit,
    refit_phase_graph,
)
from cordqa.phantom.label import Choice, UnclearLabelsError, choose_labels
from cordqa.phantom.locate import Location, NotLocatedError, PlateLayout, PlatePose
from cordqa.phantom.locate_volume import locate_in_volume
from cordqa.phantom.masks import air_mask, sphere_masks
from cordqa.phantom.reference import ReferenceValue
from cordqa.phantom.roi import background_mean_square, measure_regions
from cordqa.phantom.series import QUANTITY, Kind, Series

__all__ = ["FoundPlate", "Search", "find_plates"]

Array = NDArray[np.float64]
#: Gives the reference values of one plate and quantity for a series.
References = Callable[[str, str], Sequence[ReferenceValue]]
#: Gives T1 in seconds of every sphere of one plate, shape (n_spheres,).
Longitudinal = Callable[[str], Array]

#: Two plates of one geometry whose values fit this equally well cannot be told apart.
MINIMUM_PLATE_MARGIN = 0.10
#: Diameter of the measured region over the inner diameter of the sphere: far enough from the wall
#: that neither partial volume nor the first ringing of the edge enters.
REGION_SHARE = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPlate:
    """One plate of one series; every array is in the order of the plate's spheres.

    Attributes
    ----------
    plate : Plate
    quantity : str
        What the plate was recognised by and is judged on (T1, T2 or PD).
    location : Location
    pose : PlatePose
        The labelling that was chosen.
    choice : Choice
        How clear the labelling was.
    fitted : RegionFit
    radius_mm : float
        Of the region inside each sphere.
    b1_used : bool
        Whether a transmit map entered the fit.
    diffusion : DiffusionPlate or None
        What a diffusion series tells besides.
    """

    plate: Plate
    quantity: str
    location: Location
    pose: PlatePose
    choice: Choice
    fitted: RegionFit
    radius_mm: float
    b1_used: bool = False
    diffusion: DiffusionPlate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What was found in one series, and what was refused and why."""

    found: tuple[FoundPlate, ...]
    refused: tuple[CordqaError, ...] = ()


def find_plates(
    series: Series,
    kind: Kind,
    definition: PhantomDefinition,
    references: References,
    *,
    settings: FitSettings,
    longitudinal: Longitudinal,
    only_plate: str | None = None,
    b1: NDArray[np.floating] | None = None,
) -> Search:
    """Find, fit and label the plates in one series.

    Parameters
    ----------
    series : Series
    kind : Kind
    definition : PhantomDefinition
    references : callable
        ``references(plate_id, quantity)``; used to label spheres and plates, never to start a fit.
    settings : FitSettings
    longitudinal : callable
        ``longitudinal(plate_id)`` gives T1 (s) of every sphere, for the phase graph alone.
    only_plate : str, optional
        Look for this plate alone.
    b1 : ndarray, shape (n_slices, n_rows, n_columns), optional
        Actual over nominal flip angle on the grid of the images.

    Raises
    ------
    FitError
        If the header cannot support the fit.
    LocateError
        If no plate was found, or none could be labelled.
    """
    if kind is not Kind.DIFFUSION:
        check_series(series, kind)
    plates = [p for p in definition.plates if only_plate in (None, p.id) and _concerns(p, kind)]
    if not plates:
        raise LocateError(
            f"no plate of this phantom is measured by {QUANTITY[kind]}",
            where=series.images.label,
            todo="choose the phantom or the plate that was scanned",
        )
    if kind is Kind.DIFFUSION:
        return _find_vials(series, plates, definition)
    found: list[FoundPlate] = []
    refused: list[CordqaError] = []
    for layout, members in _layouts(plates):
        try:
            located = locate_in_volume(
                series.images.data,
                series.images.spacing_mm,
                layout,
                at_most=max(len(members), _plates_of_layout(definition, members[0])),
                where=series.images.label,
            )
        except NotLocatedError as error:
            refused.append(error)
            continue
        refused.extend(located.refused)
        for location in located.plates:
            try:
                found.append(
                    _label(
                        series,
                        kind,
                        location,
                        layout,
                        members,
                        references,
                        definition,
                        settings,
                        longitudinal,
                        b1,
                    )
                )
            except CordqaError as error:
                refused.append(error)
    if not found:
        raise refused[0]
    return Search(found=_drop_weaker_twins(found, refused), refused=tuple(refused))


def _find_vials(series: Series, plates: Sequence[Plate], definition: PhantomDefinition) -> Search:
    """Find the vials of every plate that holds some; the errors of those that were not found come along."""
    found: list[FoundPlate] = []
    refused: list[CordqaError] = []
    for plate in plates:
        try:
            fitted, diffusion, choice, pose = fit_vials(series, plate, definition)
        except LocateError as error:
            refused.append(error)
            continue
        found.append(
            FoundPlate(
                plate=plate,
                quantity=QUANTITY[Kind.DIFFUSION],
                location=diffusion.vials.location,
                pose=pose,
                choice=choice,
                fitted=fitted,
                radius_mm=diffusion.region_share * diffusion.vials.radius_mm,
                diffusion=diffusion,
            )
        )
    if not found:
        raise refused[0]
    return Search(found=tuple(found), refused=tuple(refused))


def _concerns(plate: Plate, kind: Kind) -> bool:
    if kind is Kind.DIFFUSION:
        return QUANTITY[kind] in plate.quantities
    if plate.inner_diameter_mm is None or plate.outer_diameter_mm is None:
        return False
    return QUANTITY[kind] in plate.quantities or "PD" in plate.quantities


def _layouts(plates: Sequence[Plate]) -> list[tuple[PlateLayout, list[Plate]]]:
    """Group plates of the same geometry, so that each geometry is searched once."""
    groups: dict[bytes, list[Plate]] = {}
    for plate in plates:
        groups.setdefault(_geometry(plate), []).append(plate)
    return [(_layout(members), members) for members in groups.values()]


def _geometry(plate: Plate) -> bytes:
    sizes = [plate.inner_diameter_mm, plate.outer_diameter_mm]
    return np.array([*plate.plane_positions_mm.ravel(), *sizes], dtype=float).tobytes()


def _plates_of_layout(definition: PhantomDefinition, plate: Plate) -> int:
    return sum(_geometry(other) == _geometry(plate) for other in definition.plates)


def _layout(members: Sequence[Plate]) -> PlateLayout:
    """Layout of plates that share one geometry, which cannot be told apart before the fit."""
    plate = members[0]
    ids = [member.id for member in members]
    name = plate.name if len(ids) == 1 else f"plate {', '.join(ids[:-1])} or {ids[-1]}"
    n = len(plate.spheres)
    return PlateLayout(
        name=name,
        sphere_ids=tuple(int(s) if s.isdigit() else i + 1 for i, s in enumerate(plate.sphere_ids)),
        positions_mm=plate.plane_positions_mm,
        inner_diameter_mm=np.full(n, plate.inner_diameter_mm, dtype=float),
        outer_diameter_mm=np.full(n, plate.outer_diameter_mm, dtype=float),
    )


def _label(
    series: Series,
    kind: Kind,
    location: Location,
    layout: PlateLayout,
    plates: Sequence[Plate],
    references: References,
    definition: PhantomDefinition,
    settings: FitSettings,
    longitudinal: Longitudinal,
    b1: NDArray[np.floating] | None,
) -> FoundPlate:
    """Fit once at the located places, then ask every plate and labelling how well it agrees."""
    images = series.images
    radius = float(layout.inner_diameter_mm.min()) / 2 * REGION_SHARE
    masks = sphere_masks(images.data.shape[1:], location.candidates[0], images.spacing_mm, radius_mm=radius)
    signals = measure_regions(series.data, masks, clipped=images.clipped)
    outside = air_mask(
        images.data.shape[1:],
        location.candidates[0],
        images.spacing_mm,
        shell_diameter_mm=definition.shell_inner_diameter_mm,
    )
    floor = None if series.signed else background_mean_square(images.data, outside)
    local_b1 = None if b1 is None else _local_b1(b1, masks, images.label)
    fitted = fit_regions(series, kind, signals, floor_mean_square=floor, b1=local_b1)
    offers: list[tuple[Plate, str, Choice]] = []
    refusals: list[UnclearLabelsError] = []
    missing: list[str] = []
    for plate in plates:
        for quantity in _judged_quantities(plate, kind):
            values = references(plate.id, quantity)
            reference = np.array([value.value for value in values])
            if not np.isfinite(reference).any():
                missing.append(f"{plate.name}: {values[0].reason}")
                continue
            try:
                offers.append((plate, quantity, _choose(fitted, quantity, location, reference, images.label)))
            except UnclearLabelsError as error:
                refusals.append(error)
    if not offers and not refusals:
        raise LocateError(
            f"without any reference value the spheres cannot be told apart ({'; '.join(missing)})",
            where=images.label,
            todo="check field strength, temperature and batch",
        )
    if not offers:
        raise _unclear(max(refusals, key=lambda error: error.choice.score), missing)
    plate, quantity, choice = _best(offers, images.label)
    ordered = order_fit(fitted, location.orders[choice.index])
    if kind is Kind.MULTI_ECHO and settings.t2_model == "epg":
        ordered = refit_phase_graph(ordered, series, floor, longitudinal(plate.id))
    return FoundPlate(
        plate=plate,
        quantity=quantity,
        location=location,
        pose=location.candidates[choice.index],
        choice=choice,
        fitted=ordered,
        radius_mm=radius,
        b1_used=b1 is not None,
    )


def _unclear(error: UnclearLabelsError, missing: Sequence[str]) -> UnclearLabelsError:
    """Add the plates that could not be tried, for one of them may be the one that was scanned."""
    if not missing:
        return error
    return UnclearLabelsError(
        f"{error.what}; without reference values are {'; '.join(missing)}",
        choice=error.choice,
        where=error.where,
        found=error.found,
        expected=error.expected,
        todo=error.todo,
    )


def _local_b1(b1: NDArray[np.floating], masks: Sequence[NDArray[np.bool_]], where: str) -> Array:
    """Mean of the transmit map in every sphere; NaN where it covers less than half of one."""
    local = np.full(len(masks), np.nan)
    for i, mask in enumerate(masks):
        values = b1[mask]
        known = values[np.isfinite(values)]
        if 2 * known.size >= values.size > 0:
            local[i] = known.mean()
    if not np.isfinite(local).any():
        raise FitError(
            "the B1 map covers none of the spheres",
            where=where,
            todo="give a map of the same scan session that reaches over the plate, without a mask",
        )
    return local


def _judged_quantities(plate: Plate, kind: Kind) -> list[str]:
    """What a plate can be recognised by in this kind of series: its relaxation time, or its density."""
    if QUANTITY[kind] in plate.quantities:
        return [QUANTITY[kind]]
    return ["PD"] if "PD" in plate.quantities else []


def _choose(fitted: RegionFit, quantity: str, location: Location, reference: Array, where: str) -> Choice:
    values, spread = _values(fitted, quantity, reference)
    with np.errstate(invalid="ignore", divide="ignore"):
        log_values = np.log(np.where(values > 0, values, np.nan))
        log_reference = np.log(np.where(reference > 0, reference, np.nan))
    return choose_labels(
        log_values[location.orders],
        log_reference,
        log_uncertainty=spread[location.orders],
        where=where,
    )


def _values(fitted: RegionFit, quantity: str, reference: Array) -> tuple[Array, Array]:
    """Return values in the unit of the reference with their relative uncertainty."""
    if quantity != "PD":
        spread = fitted.fit.relative_standard_error
        # Without spare samples there is no standard error; the value still has a vote.
        return fitted.values_ms, np.where(np.isfinite(spread), spread, 0.0)
    density = fitted.fit.parameters["m0"]
    known = np.isfinite(density) & (density > 0)
    if not known.any():
        return density, np.zeros(len(density))
    # The scale of a signal is arbitrary: bring both to the same geometric mean.
    scale = np.exp(np.nanmean(np.log(reference)) - np.mean(np.log(density[known])))
    return np.asarray(density * scale), np.zeros(len(density))


def _best(offers: Sequence[tuple[Plate, str, Choice]], where: str) -> tuple[Plate, str, Choice]:
    """Take the plate that agrees best, unless another agrees almost as well."""
    ranked = sorted(offers, key=lambda offer: -offer[2].score)
    best = ranked[0]
    if len(ranked) > 1 and best[2].score - ranked[1][2].score < MINIMUM_PLATE_MARGIN:
        raise AmbiguousLabelsError(
            f"{best[0].name} and {ranked[1][0].name} agree with the measured values almost equally well",
            where=where,
            found=f"agreement {best[2].score:.2f} and {ranked[1][2].score:.2f}",
            expected=f"a lead of at least {MINIMUM_PLATE_MARGIN:.2f}",
            todo="name the plate with --plate",
        )
    return best


def _drop_weaker_twins(found: Sequence[FoundPlate], refused: list[CordqaError]) -> tuple[FoundPlate, ...]:
    """Keep one place per plate: neighbouring slices may show the same plate twice."""
    kept: dict[str, FoundPlate] = {}
    for item in sorted(found, key=lambda f: -f.choice.score):
        if item.plate.id not in kept:
            kept[item.plate.id] = item
            continue
        refused.append(
            LocateError(
                f"{item.plate.name} was recognised twice; the place that agrees better is used",
                found=f"slices {kept[item.plate.id].pose.slice_index + 1} and {item.pose.slice_index + 1}",
            )
        )
    return tuple(kept[key] for key in sorted(kept))
