"""Registry of quantities: what a number is, its unit, and what may be done with it.

The ``scale`` decides which statistics are defined.  A *ratio* quantity has a true zero and
is positive, so a coefficient of variation means something.  An *interval* quantity
(susceptibility, a difference) has no such zero: it gets a within-subject SD and a
repeatability coefficient in its own unit, and never a CV.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["QUANTITIES", "Quantity", "find_quantity", "get_quantity"]


@dataclass(frozen=True, slots=True)
class Quantity:
    """One measurable quantity.

    Attributes
    ----------
    id : str
        Stable identifier used in tables.
    label : str
        Name for people.
    unit : str
        Unit of every value stored under this id.
    low, high : float
        Plausible range in tissue or in a phantom; a value outside it is flagged, not removed.
    scale : {'ratio', 'interval'}
        Whether a coefficient of variation is defined.
    description : str
        One sentence.
    """

    id: str
    label: str
    unit: str
    low: float
    high: float
    scale: Literal["ratio", "interval"]
    description: str


_ALL = (
    Quantity("T1", "T1", "ms", 1.0, 10_000.0, "ratio", "Longitudinal relaxation time."),
    Quantity("T2", "T2", "ms", 1.0, 5_000.0, "ratio", "Transverse relaxation time."),
    Quantity("T2star", "T2*", "ms", 0.5, 3_000.0, "ratio", "Effective transverse relaxation time."),
    Quantity("R2star", "R2*", "1/s", 0.0, 500.0, "ratio", "Effective transverse relaxation rate."),
    Quantity(
        "PD",
        "Proton density",
        "%",
        0.0,
        130.0,
        "ratio",
        "Proton density relative to a reference sphere of water.",
    ),
    Quantity("B1", "B1", "1", 0.3, 2.0, "ratio", "Actual over nominal flip angle (transmit field)."),
    Quantity("ADC", "ADC", "um2/s", 1.0, 4_000.0, "ratio", "Apparent diffusion coefficient."),
    Quantity(
        "CSA",
        "Cross-sectional area",
        "mm2",
        5.0,
        200.0,
        "ratio",
        "Cord cross-sectional area perpendicular to the centreline.",
    ),
    Quantity(
        "diameter_AP", "AP diameter", "mm", 1.0, 20.0, "ratio", "Antero-posterior diameter of the cord."
    ),
    Quantity("diameter_RL", "RL diameter", "mm", 1.0, 25.0, "ratio", "Right-left diameter of the cord."),
    Quantity(
        "eccentricity", "Eccentricity", "1", 0.0, 1.0, "ratio", "Eccentricity of the cord's cross-section."
    ),
    Quantity(
        "solidity", "Solidity", "1", 0.0, 1.0, "ratio", "Area over convex area of the cord's cross-section."
    ),
    Quantity(
        "diameter_AP_ellipse",
        "AP diameter (ellipse)",
        "mm",
        1.0,
        20.0,
        "ratio",
        "Antero-posterior axis of the ellipse with the second moments of the cord's cross-section.",
    ),
    Quantity(
        "orientation",
        "Orientation",
        "deg",
        -90.0,
        90.0,
        "interval",
        "Rotation of the cord's cross-section within its plane.",
    ),
    Quantity(
        "angle_AP",
        "Tilt about AP",
        "deg",
        -90.0,
        90.0,
        "interval",
        "Tilt of the cord about the antero-posterior axis.",
    ),
    Quantity(
        "angle_RL",
        "Tilt about RL",
        "deg",
        -90.0,
        90.0,
        "interval",
        "Tilt of the cord about the right-left axis.",
    ),
    Quantity("length", "Length", "mm", 0.0, 1_000.0, "ratio", "Length of the cord along its centreline."),
    Quantity(
        "GM_area",
        "Grey-matter area",
        "mm2",
        1.0,
        60.0,
        "ratio",
        "Area of grey matter in the cross-section perpendicular to the centreline.",
    ),
    Quantity(
        "length_anterior",
        "Anterior length",
        "mm",
        0.5,
        15.0,
        "ratio",
        "Part of the antero-posterior diameter in front of the centre of mass.",
    ),
    Quantity(
        "length_posterior",
        "Posterior length",
        "mm",
        0.5,
        15.0,
        "ratio",
        "Part of the antero-posterior diameter behind the centre of mass.",
    ),
    Quantity("FA", "FA", "1", 0.0, 1.0, "ratio", "Fractional anisotropy."),
    Quantity("muFA", "muFA", "1", 0.0, 1.0, "ratio", "Microscopic fractional anisotropy."),
    Quantity(
        "muFA_lower", "muFA, lower limit", "1", 0.0, 1.0, "ratio", "Lower limit of the 95 % interval of muFA."
    ),
    Quantity(
        "muFA_upper",
        "muFA, upper limit",
        "1",
        0.0,
        10.0,
        "ratio",
        "Upper limit of the 95 % interval of muFA.",
    ),
    Quantity("MD", "MD", "um2/s", 1.0, 4_000.0, "ratio", "Mean diffusivity."),
    Quantity("AD", "AD", "um2/s", 1.0, 5_000.0, "ratio", "Axial diffusivity."),
    Quantity("RD", "RD", "um2/s", 1.0, 4_000.0, "ratio", "Radial diffusivity."),
    Quantity("MK", "MK", "1", -1.0, 5.0, "ratio", "Mean kurtosis."),
    Quantity("AK", "AK", "1", -1.0, 5.0, "ratio", "Axial kurtosis: along the main direction."),
    Quantity("RK", "RK", "1", -1.0, 10.0, "ratio", "Radial kurtosis: averaged across the main direction."),
    Quantity("MKT", "MKT", "1", -1.0, 5.0, "ratio", "Mean of the kurtosis tensor."),
    Quantity("KFA", "KFA", "1", 0.0, 1.0, "ratio", "Fractional anisotropy of the kurtosis tensor."),
    Quantity(
        "VI",
        "Isotropic variance",
        "um4/ms2",
        -0.5,
        3.0,
        "ratio",
        "Variance of mean diffusivity between compartments.",
    ),
    Quantity(
        "VA",
        "Anisotropic variance",
        "um4/ms2",
        -0.5,
        3.0,
        "ratio",
        "Variance of diffusivity that the orientation of anisotropic compartments causes; 2/5 of the mean variance of their eigenvalues.",
    ),
    Quantity("KI", "KI", "1", -1.0, 10.0, "ratio", "Isotropic kurtosis: 3 VI / MD^2."),
    Quantity("KA", "KA", "1", -1.0, 5.0, "ratio", "Anisotropic kurtosis: 3 VA / MD^2; 2.4 for sticks."),
    Quantity(
        "OP",
        "Order parameter",
        "1",
        0.0,
        1.0,
        "ratio",
        "How far anisotropic compartments are aligned, 0 to 1.",
    ),
    Quantity("NDI", "NDI", "1", 0.0, 1.0, "ratio", "Neurite density index of NODDI."),
    Quantity("ODI", "ODI", "1", 0.0, 1.0, "ratio", "Orientation dispersion index of NODDI."),
    Quantity("FWF", "FWF", "1", 0.0, 1.0, "ratio", "Free water fraction of NODDI."),
    Quantity(
        "MWF",
        "Myelin water fraction",
        "%",
        0.0,
        60.0,
        "ratio",
        "Share of water with a T2 as short as that between the layers of myelin.",
    ),
    Quantity(
        "MWF_mcDESPOT",
        "Myelin water fraction (two pools)",
        "%",
        0.0,
        40.0,
        "ratio",
        "Share of the faster of two exchanging waters, from spoiled and balanced gradient echoes.",
    ),
    Quantity(
        "MVF", "Myelin volume fraction", "%", 0.0, 60.0, "ratio", "Volume of myelin, by a stated calibration."
    ),
    Quantity(
        "MVF_model",
        "Myelin volume (model)",
        "%",
        0.0,
        60.0,
        "ratio",
        "Volume of myelin by a model of compartments with assumed T1, T2 and PD.",
    ),
    Quantity(
        "AVF", "Axon volume fraction", "%", 0.0, 100.0, "ratio", "Volume of axons without their myelin."
    ),
    Quantity("g_ratio", "g-ratio", "1", 0.3, 1.0, "ratio", "Inner over outer diameter of myelinated axons."),
    Quantity("T1wT2w", "T1w/T2w", "1", 0.0, 10.0, "ratio", "Ratio of a T1- to a T2-weighted image."),
    Quantity("T2IE", "T2 of tissue water", "ms", 20.0, 300.0, "ratio", "Geometric mean T2 of tissue water."),
    Quantity("volume", "Volume", "mm3", 1.0, 3e6, "ratio", "Volume of a region or tissue."),
    Quantity("surface_area", "Surface area", "mm2", 1.0, 3e5, "ratio", "Area of a region of the cortex."),
    Quantity("thickness", "Thickness", "mm", 0.1, 10.0, "ratio", "Mean thickness of a region of the cortex."),
    Quantity("MTR", "MTR", "%", 0.0, 100.0, "ratio", "Magnetization transfer ratio."),
    Quantity("MTsat", "MTsat", "%", -1.0, 15.0, "ratio", "Magnetization transfer saturation."),
    Quantity(
        "ihMTR",
        "ihMTR",
        "%",
        -5.0,
        50.0,
        "ratio",
        "Inhomogeneous magnetization transfer ratio; the normalisation is said with the value.",
    ),
    Quantity(
        "susceptibility",
        "Magnetic susceptibility",
        "ppm",
        -2.0,
        5.0,
        "interval",
        "Magnetic susceptibility relative to the stated reference.",
    ),
    Quantity(
        "susceptibility_paramagnetic",
        "Paramagnetic susceptibility",
        "ppm",
        0.0,
        5.0,
        "interval",
        "Paramagnetic part of susceptibility relative to the stated reference.",
    ),
    Quantity(
        "susceptibility_diamagnetic",
        "Diamagnetic susceptibility",
        "ppm",
        -5.0,
        0.0,
        "interval",
        "Diamagnetic part of susceptibility relative to the stated reference, not positive.",
    ),
    Quantity(
        "local_field",
        "Local field",
        "ppm",
        -2.0,
        2.0,
        "interval",
        "Relative field change by sources inside the mask.",
    ),
    Quantity(
        "total_field", "Total field", "ppm", -20.0, 20.0, "interval", "Relative change of the main field."
    ),
)

QUANTITIES: dict[str, Quantity] = {quantity.id: quantity for quantity in _ALL}


def find_quantity(name: str) -> Quantity | None:
    """Look a quantity up by its id, ignoring case; ``None`` where it is not registered."""
    exact = QUANTITIES.get(name)
    if exact is not None:
        return exact
    folded = name.strip().casefold()
    return next((q for q in _ALL if q.id.casefold() == folded), None)


def get_quantity(name: str) -> Quantity:
    """Look a quantity up by its id.

    Raises
    ------
    KeyError
        If it is not registered.
    """
    quantity = find_quantity(name)
    if quantity is None:
        raise KeyError(f"quantity {name!r} is not registered; known are {', '.join(QUANTITIES)}")
    return quantity
