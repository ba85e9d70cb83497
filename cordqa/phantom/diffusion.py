"""From a diffusion series to the ADC of every vial: which images, which noise, which vial is which.

The layout of the vials looks the same after every sixth of a turn and in a mirror.  Their ADC tells
them apart, for it falls from pair to pair around the rings.  The temperature shifts all of them, so each
labelling is compared under every temperature of the certificate: a wrong or missing temperature
costs a verdict, never a label.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import FitError, InputError, LocateError
from cordqa.models.diffusion.adc import SHARED, AdcFit, fit_adc
from cordqa.models.relaxometry.fitting import RelaxometryFit
from cordqa.phantom.definition import PhantomDefinition, Plate
from cordqa.phantom.diffusion_plan import AXES, ImagePlan, plan_images
from cordqa.phantom.diffusion_signals import REGION_SHARE, VialSignals, measure_vials
from cordqa.phantom.fit import RegionFit
from cordqa.phantom.label import Choice, UnclearLabelsError, choose_labels_under
from cordqa.phantom.plate import PlatePose
from cordqa.phantom.roi import RegionSignals
from cordqa.phantom.series import Kind, Series
from cordqa.phantom.vials import FoundVials, locate_vials
from cordqa.records import ImageSet

__all__ = ["MAIN", "DiffusionPlate", "fit_at", "fit_vials"]

Array = NDArray[np.float64]
Index = NDArray[np.intp]

#: Name of the coefficient among the parameters of the fit.
MAIN = "adc_um2_per_s"
#: Components of a tensor; with as many spread directions its diagonal can be told.
_TENSOR_SIZE = 6
_MOST_CONDITION = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionPlate:
    """What diffusion adds to a located plate; arrays are in the order of its vials.

    Attributes
    ----------
    plan : ImagePlan
    vials : FoundVials
    fit : AdcFit
        Of the images in ``plan.main``.
    averaged : AdcFit or None
        Of averages over directions, where there are both.
    along_axes : ndarray, shape (n_vials, 3), or None
        ADC along x, y and z in um2/s, where the directions tell it.
    distance_mm : ndarray, shape (n_vials,)
        From the origin of the scanner's coordinates.
    labelled_at_C : float
        Temperature of the certificate that suited the labelling best.
    region_share : float
    """

    plan: ImagePlan
    vials: FoundVials
    fit: AdcFit
    averaged: AdcFit | None
    along_axes: Array | None
    distance_mm: Array
    labelled_at_C: float
    region_share: float = REGION_SHARE


def fit_vials(
    series: Series, plate: Plate, definition: PhantomDefinition
) -> tuple[RegionFit, DiffusionPlate, Choice, PlatePose]:
    """Locate the vials, fit every one, and decide which is which.

    Parameters
    ----------
    series : Series
    plate : Plate
    definition : PhantomDefinition
        Its certificates tell the vials apart; they start no fit.

    Returns
    -------
    fitted : RegionFit
    diffusion : DiffusionPlate
    choice : Choice
    pose : PlatePose

    Raises
    ------
    FitError
        If the header cannot support the fit.
    LocateError
        If the vials are not found or cannot be told apart.
    """
    images = series.images
    plan = plan_images(images)
    found = locate_vials(_views(images, plan), images.spacing_mm, plate, where=images.label)
    start = found.location.candidates[0]
    signals = measure_vials(series, plan, start, found, shell_diameter_mm=definition.shell_inner_diameter_mm)
    fit = _fit(plan, plan.main, signals, images.label)
    adc = fit.maps.values["ADC"]
    error = fit.maps.standard_errors["ADC"]
    choice, temperature = _choose(adc, error, found, plate, definition, images.label)
    order = found.location.orders[choice.index]
    fit = _ordered(fit, order)
    averaged = None
    if plan.averaged.any():
        averaged = _ordered(_fit(plan, plan.averaged, signals, images.label), order)
    pose = found.location.candidates[choice.index]
    places = pose.voxels @ images.affine[:3, :3].T + images.affine[:3, 3]
    diffusion = DiffusionPlate(
        plan=plan,
        vials=found,
        fit=fit,
        averaged=averaged,
        along_axes=_along_axes(plan, fit),
        distance_mm=np.linalg.norm(places, axis=1),
        labelled_at_C=temperature,
    )
    return (
        _region_fit(plan, fit, signals.corrected[order], _pick(signals.regions, order)),
        diffusion,
        choice,
        pose,
    )


def fit_at(
    series: Series, pose: PlatePose, found: FoundVials, definition: PhantomDefinition
) -> NDArray[np.float64]:
    """Fit a series of averages where the vials were located in another series of the same grid.

    Parameters
    ----------
    series : Series
        Without single directions.
    pose : PlatePose
        Labelled.
    found : FoundVials
    definition : PhantomDefinition

    Returns
    -------
    ndarray, shape (n_vials,)
        ADC in um2/s, in the order of ``pose``.

    Raises
    ------
    FitError
        If the header cannot support the fit.
    """
    plan = plan_images(series.images)
    signals = measure_vials(series, plan, pose, found, shell_diameter_mm=definition.shell_inner_diameter_mm)
    return np.asarray(_fit(plan, plan.main, signals, series.images.label).maps.values["ADC"])


def _views(images: ImageSet, plan: ImagePlan) -> NDArray[np.float32]:
    """Mean image of every b-value: few views with little noise."""
    return np.stack([images.data[plan.b_values == b].mean(axis=0) for b in np.unique(plan.b_values)])


def _fit(plan: ImagePlan, chosen: NDArray[np.bool_], signals: VialSignals, where: str) -> AdcFit:
    """Fit some of the images; the result covers all, with NaN for the others."""
    regions, noise = signals.regions, signals.noise
    # One value everywhere, as in a made-up image, leaves no noise to weigh by.
    noise = np.maximum(noise, 1e-9 * np.nanmax(np.abs(regions.mean), initial=1e-300))
    pixel = np.maximum(noise, np.sqrt(signals.floor / 2))
    spread = noise / np.sqrt(np.maximum(regions.n_pixels, 1))[:, None]
    groups = np.where(plan.groups == SHARED, np.where(plan.b_values > 0, 0, SHARED), plan.groups)
    try:
        fit = fit_adc(
            signals.corrected[:, chosen],
            plan.b_values[chosen],
            groups[chosen],
            noise_sd=spread[:, chosen],
            pixel_noise_sd=pixel[chosen],
            valid=regions.valid[:, chosen],
        )
    except InputError as error:
        raise FitError(
            error.what, where=where, found=error.found, expected=error.expected, todo=error.todo
        ) from error
    predicted = np.full(regions.mean_square.shape, np.nan)
    used = np.zeros(regions.mean_square.shape, dtype=bool)
    predicted[:, chosen], used[:, chosen] = fit.predicted, fit.used
    return replace(fit, predicted=predicted, used=used)


def _choose(
    adc: Array,
    error: Array,
    found: FoundVials,
    plate: Plate,
    definition: PhantomDefinition,
    where: str,
) -> tuple[Choice, float]:
    temperatures, references = _certified(plate, definition)
    if not len(temperatures):
        raise LocateError(
            "without any certificate of ADC the vials cannot be told apart",
            where=where,
            todo="add a table of ADC to the phantom definition",
        )
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.log(np.where(adc > 0, adc, np.nan))
        spread = np.nan_to_num(error / adc)
    orders = found.location.orders
    try:
        choice, condition = choose_labels_under(
            values[orders], np.log(references), log_uncertainty=np.abs(spread)[orders], where=where
        )
    except UnclearLabelsError as unclear:
        raise UnclearLabelsError(
            unclear.what.replace("sphere", plate.noun),
            choice=unclear.choice,
            where=where,
            found=unclear.found,
            expected=unclear.expected,
            todo="check that the phantom is the right one and that its vials stand in their places",
        ) from unclear
    return choice, float(temperatures[condition])


def _certified(plate: Plate, definition: PhantomDefinition) -> tuple[Array, Array]:
    """Certified ADC by temperature and vial, shape (n_temperatures, n_vials)."""
    rows: dict[float, Array] = {}
    for table in definition.tables:
        if table.plate != plate.id:
            continue
        for k, vial in enumerate(plate.sphere_ids):
            series = table.series.get((vial, "ADC"))
            for temperature, value in zip(*series[:2], strict=True) if series else ():
                row = rows.setdefault(float(temperature), np.full(len(plate.sphere_ids), np.nan))
                row[k] = value
    temperatures = np.array(sorted(rows))
    return temperatures, np.array([rows[t] for t in temperatures])


def _ordered(fit: AdcFit, order: Index) -> AdcFit:
    maps = replace(
        fit.maps,
        values={name: values[order] for name, values in fit.maps.values.items()},
        standard_errors={name: values[order] for name, values in fit.maps.standard_errors.items()},
        reasons=replace(fit.maps.reasons, codes=fit.maps.reasons.codes[order]),
    )
    arrays = {
        name: getattr(fit, name)[order]
        for name in (
            *("along", "along_standard_errors", "highest_b", "predicted", "used", "residual_sd"),
            *("degrees_of_freedom", "interval_degrees_of_freedom"),
        )
    }
    return replace(fit, maps=maps, **arrays)


def _pick(signals: RegionSignals, order: Index) -> RegionSignals:
    names = ("mean", "mean_square", "n_pixels", "coverage", "clipped", "valid")
    return replace(signals, **{name: getattr(signals, name)[order] for name in names})


def _along_axes(plan: ImagePlan, fit: AdcFit) -> Array | None:
    """ADC along the three axes: as measured, or the diagonal of a tensor through many directions."""
    if not plan.by_direction or plan.image_axes:
        return None
    names = plan.names
    if all(axis in names for axis in AXES):
        return np.asarray(fit.along[:, [names.index(axis) for axis in AXES]])
    x, y, z = plan.directions.T
    design = np.column_stack([x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z])
    if len(design) < _TENSOR_SIZE or np.linalg.cond(design) > _MOST_CONDITION:
        return None
    return np.asarray((fit.along @ np.linalg.pinv(design).T)[:, :3])


def _region_fit(plan: ImagePlan, fit: AdcFit, signal: Array, signals: RegionSignals) -> RegionFit:
    """Put the fit into the shape that rows and figures of every phantom share."""
    reasons = np.array([fit.maps.reasons.at(k) for k in range(len(fit.residual_sd))], dtype=str)
    what = f"mean of {len(plan.directions)} directions" if plan.by_direction else "trace-weighted images"
    shared = RelaxometryFit(
        model=f"{what}; {fit.maps.model}",
        main=MAIN,
        parameters={MAIN: fit.maps.values["ADC"], "m0": fit.maps.values["S0"]},
        standard_errors={MAIN: fit.maps.standard_errors["ADC"], "m0": fit.maps.standard_errors["S0"]},
        degrees_of_freedom=fit.degrees_of_freedom,
        interval_degrees_of_freedom=fit.interval_degrees_of_freedom,
        residual_sd=fit.residual_sd,
        n_used=fit.used.sum(axis=1),
        reason=reasons,
        predicted=fit.predicted,
        used=fit.used,
    )
    return RegionFit(kind=Kind.DIFFUSION, fit=shared, setting=plan.b_values, signal=signal, signals=signals)
