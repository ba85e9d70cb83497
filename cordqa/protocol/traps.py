"""What vendors do behind one's back, as named rules; each with the case that it comes from.

``docs/protocol_traps.md`` is the long form.  A trap either has a check of its own, which runs for every
protocol that does not name other traps, or is enforced by a constraint that a protocol writes down
(``enforced_by``).
"""

from __future__ import annotations

from collections.abc import Sequence

from cordqa.protocol.matching import Placed
from cordqa.protocol.records import Finding, Protocol
from cordqa.protocol.trap_checks import (
    Trap,
    check_b_values,
    check_distortion,
    check_interpolation,
    check_normalisation,
    check_phase_sign,
)

__all__ = ["TRAPS", "Trap", "check_traps"]


def check_traps(protocol: Protocol, placed: Sequence[Placed]) -> list[Finding]:
    """Look for every trap that a protocol names; for all of them where it names none.

    Parameters
    ----------
    protocol : Protocol
    placed : sequence of Placed
        Of this protocol, in any order.
    """
    ordered = sorted(placed, key=lambda one: one.series.file)
    wanted = protocol.traps or tuple(TRAPS)
    findings: list[Finding] = []
    for name in wanted:
        trap = TRAPS[name]
        if trap.check is not None:
            findings += trap.check(trap, protocol, ordered)
    return findings


_ALL = (
    Trap(
        id="philips-scaling",
        title="Philips scales every series by itself",
        what=(
            "Stored values of two Philips series differ by the ratio of their scale slopes; MTsat from an MT "
            "set is wrong by it unless the converter undid the scaling."
        ),
        evidence=(
            "In a public MT set the slope was 1.69499 for the MT pair and 1.85592 for the T1-weighted "
            "series; MTsat of that site was about 7 where other Philips sites had about 5.5."
        ),
        source=(
            "github.com/spine-generic/data-multi-subject/issues/36 and 58; scaling: Chenevert et al. 2014, "
            "doi:10.1593/tlo.13811"
        ),
        enforced_by="same-scaling",
    ),
    Trap(
        id="mt-repetition-time",
        title="MT-on and MT-off with different repetition times",
        what="The MT ratio then compares two degrees of T1 saturation beside two of magnetization transfer.",
        evidence=(
            "2 of 259 public MT pairs differ (sub-balgrist03, 39 against 35 ms; sub-milan01, 41 against 35 "
            "ms). In simulation 6 % more TR with the pulse moves the MT ratio from 30.7 to 28.6 %."
        ),
        source="sidecars of github.com/spine-generic/data-multi-subject",
        enforced_by="equal",
    ),
    Trap(
        id="software-upgrade",
        title="New software between sessions",
        what=(
            "A new version may change reconstruction, gradients or the meaning of a setting; a change over "
            "time is then not one of the participant."
        ),
        evidence=(
            "In 224 people scanned twice, about a year apart, an upgrade of software alone had a significant "
            "effect on the change of diffusion measures of white matter."
        ),
        source="Takao et al., Hum Brain Mapp 2012, PMC6869949",
        enforced_by="same-software",
    ),
    Trap(
        id="phase-sign",
        title="Vendors differ in the sign of the phase",
        what="Fields and susceptibilities come out with the wrong sign, which no header tells.",
        evidence="GE phase was seen to be opposite to that of Siemens with essentially the same sequence.",
        source="github.com/UKRIN-MAPS/ukat/issues/33",
        enforced_by="check",
        check=check_phase_sign,
    ),
    Trap(
        id="b-values",
        title="b-values rounded, or changed by a converter",
        what=(
            "Some software reports b-values as played out (795, 800, 805), other rounds them; directions "
            "that are scaled by shell and normalised later turn shells into others."
        ),
        evidence=(
            "Siemens XA30 no longer showed the usual variation; elsewhere shells of 500, 1000 and 4000 "
            "became 62, 250 and 4000."
        ),
        source="github.com/rordenlab/dcm2niix/issues/649; github.com/MICA-MNI/micapipe/issues/41",
        enforced_by="check",
        check=check_b_values,
    ),
    Trap(
        id="interpolated-matrix",
        title="Interpolated matrix",
        what=(
            "The image has smaller voxels than were acquired: noise is correlated, and denoising and removal "
            "of Gibbs ringing no longer do what they promise."
        ),
        evidence=(
            "In a public GE cord dataset the diffusion scan has 48 acquired lines over half the field of "
            "view and 256 stored ones, the multi-echo scan 448 and 512."
        ),
        source="sidecars of github.com/spine-generic/data-single-subject, sub-juntendo750w",
        enforced_by="check",
        check=check_interpolation,
    ),
    Trap(
        id="normalisation",
        title="Prescan normalise on for some images",
        what=(
            "NORM in the image type of a Siemens scan says that the sensitivity of the coil was divided out. "
            "A ratio of a normalised and a raw image holds that sensitivity."
        ),
        evidence=(
            "Prescan normalise is an open point of the published cord protocol for the Siemens Trio; "
            "correction for bias after it was seen to spoil diffusion images."
        ),
        source="github.com/spine-generic/protocols/issues/2; github.com/PennLINC/qsiprep/issues/932",
        enforced_by="check",
        check=check_normalisation,
    ),
    Trap(
        id="distortion-correction",
        title="Distortion by the gradients corrected, or not",
        what=(
            "DIS2D, DIS3D and ND in the image type of a Siemens scan say whether it was. Areas measured far "
            "from the centre of the magnet depend on it."
        ),
        evidence=(
            "The area of the upper cervical cord varied by up to 15 % with the position in the scanner "
            "without correction, and by less than 3 % with the vendor's 3D correction."
        ),
        source="Magn Reson Med 2018;79:1595-1601, Gradient nonlinearity effects on upper cervical cord area",
        enforced_by="check",
        check=check_distortion,
    ),
)
TRAPS: dict[str, Trap] = {trap.id: trap for trap in _ALL}
