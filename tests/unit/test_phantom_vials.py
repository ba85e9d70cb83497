"""Vials: found at any turn, told apart by their ADC, their width measured on the safe side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers_diffusion_phantom import DEFINITION, PLATE, clean_scanner, digital_vials, some_images, true_adc

from cordqa.errors import DefinitionError, FitError, InputError, LocateError
from cordqa.phantom.definition import Plate, load_phantom
from cordqa.phantom.diffusion import MAIN, fit_vials
from cordqa.phantom.diffusion_plan import plan_images
from cordqa.phantom.label import UnclearLabelsError, choose_labels_under
from cordqa.phantom.plate import NotLocatedError
from cordqa.phantom.series import Kind, Series, find_kind
from cordqa.phantom.vials import locate_vials
from cordqa.records import ImageSet
from cordqa.simulate.diffusion_phantom import DiffusionProtocol, adc_map, scan_diffusion, trace_images

PROTOCOL = DiffusionProtocol()


def scan(phantom=None, scanner=None, *, protocol=PROTOCOL, seed=0) -> ImageSet:
    return scan_diffusion(
        phantom or digital_vials(), protocol, scanner or clean_scanner(), np.random.default_rng(seed)
    )


def fit(images: ImageSet):
    return fit_vials(Series(images=images, data=images.data, signed=False), PLATE, DEFINITION)


def errors_in_sigma(images, phantom):
    fitted, _, choice, _ = fit(images)
    value = fitted.fit.parameters[MAIN]
    return (value - true_adc(phantom)) / fitted.fit.standard_errors[MAIN], choice


@pytest.mark.parametrize(
    ("rotation", "mirror", "temperature", "stretch", "bath"),
    [
        (0, False, 20, 1.0, 1.0),
        (60, False, 0, 1.05, 1.0),
        (-123, True, 26, 0.95, 0.0),
        (30, True, 16, 1.02, 1.0),
        (180, False, 22, 1.0, 0.0),
    ],
)
def test_every_vial_is_found_named_and_measured(rotation, mirror, temperature, stretch, bath):
    phantom = digital_vials(temperature, bath_proton_density=bath)
    scanner = clean_scanner(rotation_deg=rotation, mirror=mirror, stretch=stretch, shear=0.02)
    deviation, choice = errors_in_sigma(scan(phantom, scanner), phantom)
    assert np.abs(deviation).max() < 4.5  # 13 values
    assert choice.margin > 0.22


@pytest.mark.parametrize(("plane", "index"), [("coronal", 0), ("axial", 1), ("sagittal", 2)])
def test_any_orientation_of_the_slices_serves(plane, index):
    phantom = digital_vials()
    images = scan(phantom, clean_scanner(index, plane=plane, n_slices=3))
    fitted, details, _, _ = fit(images)
    assert np.abs(fitted.fit.parameters[MAIN] / true_adc(phantom) - 1).max() < 0.06
    assert details.vials.slices == (0, 1, 2)
    middle = int(np.argmin(details.distance_mm))
    assert PLATE.sphere_ids[middle] == "1"
    assert details.distance_mm[middle] < 6.0


@pytest.mark.parametrize(("diameter", "wall", "bath"), [(18, 1.2, 1.0), (25, 1.2, 0.0), (30, 1.0, 1.0)])
def test_the_width_is_measured_and_never_too_large(diameter, wall, bath):
    phantom = digital_vials(inner_diameter_mm=diameter, wall_mm=wall, bath_proton_density=bath)
    _, details, _, _ = fit(scan(phantom, clean_scanner(stretch=1.04)))
    assert diameter / 2 - 1.6 < details.vials.radius_mm < diameter / 2 + 0.3
    assert details.vials.range_mm == (8, 16)


def test_a_width_that_the_definition_gives_is_used():
    plate = PLATE.model_copy(
        update={"inner_diameter_range_mm": None, "inner_diameter_mm": 25.0, "outer_diameter_mm": 27.4}
    )
    images = scan()
    found = locate_vials(images.data[:1], images.spacing_mm, plate)
    assert (found.radius_mm, found.range_mm) == (12.5, None)


def test_noise_of_the_stack_falls_with_the_slices_that_show_the_vials():
    one, _, _, _ = fit(scan(scanner=clean_scanner(n_slices=1)))
    many, details, _, _ = fit(scan(scanner=clean_scanner(n_slices=25)))
    # 25 slices of 4 mm reach beyond vials of 50 mm; those at the ends show none.
    assert min(details.vials.slices) > 0 and max(details.vials.slices) < 24
    ratio = many.fit.standard_errors[MAIN] / one.fit.standard_errors[MAIN]
    assert np.median(ratio) == pytest.approx(1 / np.sqrt(5), rel=0.25)


def test_a_ghost_moves_the_adc_by_no_more_than_it_adds():
    phantom = digital_vials()
    level = 0.02
    images = scan(phantom, clean_scanner(ghost=level, noise_sd=1e-4))
    fitted, _, _, _ = fit(images)
    # The ghost of the bath adds at most this share to the signal of the faintest vial.
    faintest = fitted.fit.parameters["m0"].min() / images.data[0].max()
    bound = 1e6 * level / faintest / 500
    assert np.abs(fitted.fit.parameters[MAIN] - true_adc(phantom)).max() < bound


def test_noise_is_told_apart_from_ringing_and_between_images():
    """Ringing is a pattern that all images share; images of other averages have another noise.

    The bath is dark here: ringing of a bright one decays unlike the vials and is not shared.
    """
    phantom = digital_vials(bath_proton_density=0.0)
    images = scan(phantom, clean_scanner(noise_sd=0.02))
    quiet = scan(phantom, clean_scanner(noise_sd=0.005), seed=1)
    strong = images.values("b_value_s_per_mm2") == 900
    data = np.where(strong[:, None, None, None], quiet.data, images.data)
    fitted, _, _, _ = fit(replace(images, data=data))
    noise = fitted.signals.noise_sd / clean_scanner().gain
    np.testing.assert_allclose(noise[~strong], 0.02, rtol=0.15)
    np.testing.assert_allclose(noise[strong], 0.005, rtol=0.25)


def test_averages_give_the_same_adc_and_no_axes():
    images = scan()
    single, details, _, _ = fit(images)
    average, plain, _, _ = fit(trace_images(images))
    np.testing.assert_allclose(average.fit.parameters[MAIN], single.fit.parameters[MAIN], rtol=0.05)
    assert details.along_axes is not None and plain.along_axes is None
    assert "trace" in average.fit.model and "3 directions" in single.fit.model


def test_averages_beside_single_directions_are_not_mixed_in():
    images = scan()
    trace = some_images(trace_images(images), [1, 2])
    both = replace(
        images,
        data=np.concatenate([images.data, 1.3 * trace.data]),
        acquisitions=images.acquisitions + trace.acquisitions,
    )
    alone, _, _, _ = fit(images)
    joined, details, _, _ = fit(both)
    np.testing.assert_allclose(joined.fit.parameters[MAIN], alone.fit.parameters[MAIN], rtol=1e-6)
    assert details.averaged is not None


def test_directions_show_a_gradient_that_is_off():
    phantom = digital_vials()
    images = scan(phantom, clean_scanner(noise_sd=1e-3, nonlinearity=(0.0, 0.0, -0.05)))
    _, details, _, _ = fit(images)
    assert details.along_axes is not None
    share = details.along_axes / true_adc(phantom)[:, None]
    np.testing.assert_allclose(share[:, :2], 1.0, atol=0.02)
    expected = (1 - 0.05 * (details.distance_mm / 100) ** 2) ** 2
    np.testing.assert_allclose(share[:, 2], expected, atol=0.02)


def test_many_directions_give_the_axes_through_a_tensor():
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(12, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    protocol = DiffusionProtocol(b_values=(0.0, 700.0), directions=tuple(map(tuple, vectors.tolist())))
    phantom = digital_vials()
    _, details, _, _ = fit(scan(phantom, clean_scanner(noise_sd=1e-3), protocol=protocol))
    assert details.along_axes is not None
    np.testing.assert_allclose(details.along_axes, np.tile(true_adc(phantom), (3, 1)).T, rtol=0.03)


def test_vials_of_one_content_cannot_be_told_apart():
    phantom = digital_vials()
    same = replace(phantom, vials=tuple(replace(v, adc_um2_per_s=1000.0) for v in phantom.vials))
    with pytest.raises(UnclearLabelsError, match="which vial is which"):
        fit(scan(same))


def test_swapped_neighbours_are_refused_or_named_by_place():
    """Vials in the wrong places must not be called by what they hold."""
    phantom = digital_vials()
    order = np.random.default_rng(5).permutation(13)
    mixed = replace(
        phantom,
        vials=tuple(
            replace(v, adc_um2_per_s=phantom.vials[k].adc_um2_per_s)
            for v, k in zip(phantom.vials, order, strict=True)
        ),
    )
    with pytest.raises(UnclearLabelsError):
        fit(scan(mixed))


def test_a_missing_vial_is_named_as_not_seen():
    phantom = digital_vials(bath_proton_density=0.0)
    without = replace(
        phantom,
        vials=tuple(replace(v, proton_density=1e-6) if v.label == "5" else v for v in phantom.vials),
    )
    with pytest.raises(NotLocatedError, match="1 of 13 vials"):
        fit(scan(without))


def test_slices_beyond_the_vials_are_refused():
    phantom = digital_vials(length_mm=4.0)
    images = scan(phantom, clean_scanner(n_slices=2, slice_distance_mm=30.0))
    with pytest.raises(LocateError):
        fit(images)


@pytest.mark.parametrize("fill", [0.0, np.nan, "noise"])
def test_images_of_nothing_are_refused(fill):
    images = scan()
    if fill == "noise":
        data = np.abs(np.random.default_rng(0).normal(0, 30, images.data.shape)).astype(np.float32)
    else:
        data = np.full_like(images.data, fill)
    with pytest.raises(LocateError):
        fit(replace(images, data=data))


def test_plan_refuses_what_gives_no_adc():
    images = scan()
    b = images.values("b_value_s_per_mm2")
    with pytest.raises(FitError, match="one b-value"):
        plan_images(some_images(images, np.flatnonzero(b == 900)))
    lost = replace(images.acquisitions[2], b_value_s_per_mm2=np.nan)
    with pytest.raises(FitError, match="missing from 1 of 7"):
        plan_images(replace(images, acquisitions=(*images.acquisitions[:2], lost, *images.acquisitions[3:])))


def test_opposite_directions_are_one():
    images = scan()
    turned = tuple(
        replace(a, diffusion_direction=tuple(-d for d in a.diffusion_direction))
        if a.b_value_s_per_mm2 == 900
        else a
        for a in images.acquisitions
    )
    assert plan_images(replace(images, acquisitions=turned)).names == ("x", "y", "z")


def test_kinds():
    images = scan()
    assert find_kind(images) is Kind.DIFFUSION
    assert find_kind(adc_map(images)) is None


def test_stack_without_axes_is_refused():
    with pytest.raises(InputError):
        locate_vials(np.zeros((2, 8, 8)), (4, 2, 2), PLATE)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"inner_diameter_range_mm": [16, 16]}, "smallest, largest"),
        ({"inner_diameter_mm": 25, "outer_diameter_mm": 27}, "either"),
        ({"noun": "bottle"}, "noun"),
    ],
)
def test_definition_refuses_widths_that_make_no_sense(changes, words):
    with pytest.raises(ValueError, match=words):
        Plate.model_validate(PLATE.model_dump() | changes)


def test_unknown_conditions_are_chosen_with_the_labelling():
    reference = np.log([[1000.0, 700, 400, 250, 120, 60], [2000, 1500, 1000, 700, 400, 200]])
    right = reference[1] + 0.02
    choice, condition = choose_labels_under([right[::-1], right], reference)
    assert (choice.index, condition) == (1, 1)
    assert choice.margin == pytest.approx(choice.scores[1] - choice.scores[0])
    with pytest.raises(UnclearLabelsError):
        choose_labels_under([right, right], reference)


def test_shipped_definition_names_its_vials():
    phantom = load_phantom("caliber-diffusion")
    assert phantom.plate("vials").noun == "vial"
    with pytest.raises(DefinitionError):
        phantom.plate("spheres")
