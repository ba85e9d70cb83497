"""A digital diffusion phantom from the shipped definition, and folders of its scans."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cordqa.phantom.definition import load_phantom
from cordqa.phantom.reference import reference_values
from cordqa.records import ImageSet
from cordqa.simulate.diffusion_phantom import (
    DiffusionScanner,
    DigitalVial,
    DigitalVials,
    three_diffusion_scanners,
)

DEFINITION = load_phantom("caliber-diffusion")
PLATE = DEFINITION.plate("vials")


def digital_vials(temperature_C: float = 20.0, **settings) -> DigitalVials:
    """The phantom at one temperature; solutions with more polymer have a shorter T2."""
    references = reference_values(
        DEFINITION, "vials", "ADC", field_strength_T=3.0, temperature_C=temperature_C
    )
    amounts = dict(DEFINITION.contents[0].rows)
    vials = tuple(
        DigitalVial(
            label=reference.sphere,
            position_mm=(float(x), float(y)),
            adc_um2_per_s=reference.value,
            t2_s=1.2 - 0.018 * amounts[reference.sphere],
            proton_density=1 - 0.006 * amounts[reference.sphere],
        )
        for reference, (x, y) in zip(references, PLATE.plane_positions_mm, strict=True)
    )
    settings.setdefault("bath_adc_um2_per_s", references[0].value)
    return DigitalVials(vials=vials, **settings)


def true_adc(phantom: DigitalVials) -> np.ndarray:
    return np.array([vial.adc_um2_per_s for vial in phantom.vials])


def clean_scanner(index: int = 0, **changes) -> DiffusionScanner:
    """One of the three scanners without bias or ghost."""
    plain = {"ghost": 0.0, "adc_scale": 1.0, "nonlinearity": (0.0, 0.0, 0.0), "n_slices": 1}
    return replace(three_diffusion_scanners()[index], **(plain | changes))


def some_images(images: ImageSet, keep) -> ImageSet:
    """Some of the images of a set."""
    keep = [int(k) for k in keep]
    return replace(images, data=images.data[keep], acquisitions=tuple(images.acquisitions[k] for k in keep))
