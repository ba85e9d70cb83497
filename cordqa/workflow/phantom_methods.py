"""Methods text and citations of a phantom run, made from what actually ran."""

from __future__ import annotations

from collections.abc import Sequence

from cordqa import __version__
from cordqa.models.relaxometry.pooled_inversion import is_pooled
from cordqa.phantom.definition import PhantomDefinition
from cordqa.phantom.find import REGION_SHARE
from cordqa.phantom.repeats import BETWEEN, ICC, LINEARITY_NAMES, WITHIN
from cordqa.phantom.series import Kind
from cordqa.phantom.tolerance import Tolerances
from cordqa.records import Statistic
from cordqa.workflow.phantom_records import AnalysedPlate

__all__ = ["methods", "references"]

_FITS = {
    Kind.INVERSION_RECOVERY: (
        "T1 was fitted to inversion-recovery signals by nonlinear least squares; repetition times enter the equation as "
        "recorded, also where they vary. The search covers the whole range of T1 on a grid and is started from no "
        "reference value. Polarity of magnitude data was restored by trying the signs that the equation can produce "
        "(after Barral et al. 2010). {inversion}"
    ),
    Kind.VARIABLE_FLIP_ANGLE: (
        "T1 was fitted to spoiled gradient echoes of several flip angles by nonlinear least squares of the steady-state "
        "equation; without a B1 map, errors of the transmit field go into T1 with their square."
    ),
    Kind.MULTI_ECHO: ("T2 was fitted to multi-echo spin-echo signals: {model}."),
    Kind.DIFFUSION: (
        "The ADC was fitted to the mean signals of the regions: {model}. A shell in which the signal of a vial falls below "
        "five times the noise of one pixel is left out of its fit, with all stronger ones. Up to five slices that show the "
        "vials are measured together. The vials were told apart by their ADC under every temperature of the certificate, so "
        "that a wrong or missing temperature costs no label. Averages over directions and maps that the scanner made are "
        "compared with the fit of the single directions and are no repeats of it."
    ),
}
_POOLED = (
    "The inversion factor and a small offset of the effective inversion time belong to the scan, so they were estimated "
    "from all spheres of a plate together, with a gain for each image and a spread of the factor between spheres whose "
    "sizes, with that of the remaining misfit, come from the restricted likelihood and are averaged over it; a sphere that "
    "does not follow the others loses weight."
)
_ALONE = "The inversion factor was free in every sphere (fixed to a perfect inversion below four inversion times){where}."
_CITATIONS = {
    Kind.INVERSION_RECOVERY: "Barral JK et al. A robust methodology for in vivo T1 mapping. Magn Reson Med "
    "2010;64:1057-1067. doi:10.1002/mrm.22497",
    Kind.MULTI_ECHO: "Lebel RM, Wilman AH. Transverse relaxometry with stimulated echo compensation. Magn Reson Med "
    "2010;64:1005-1014. doi:10.1002/mrm.22487",
}
_NOISE = (
    "Gudbjartsson H, Patz S. The Rician distribution of noisy MRI data. Magn Reson Med 1995;34:910-914. "
    "doi:10.1002/mrm.1910340618"
)
_DECISION = "JCGM 106:2012. The role of measurement uncertainty in conformity assessment."
_CCC = (
    "Lin LI. A concordance correlation coefficient to evaluate reproducibility. Biometrics 1989;45:255-268. "
    "doi:10.2307/2532051"
)
_MCGRAW = (
    "McGraw KO, Wong SP. Forming inferences about some intraclass correlation coefficients. Psychol Methods "
    "1996;1:30-46. doi:10.1037/1082-989X.1.1.30"
)


def methods(
    plates: Sequence[AnalysedPlate],
    definition: PhantomDefinition,
    tolerances: Tolerances,
    statistics: Sequence[Statistic],
) -> tuple[str, ...]:
    """Write the paragraphs that apply to this run."""
    if not plates:
        return ()
    first = plates[0]
    noun = first.found.plate.noun
    text = [
        f"Images were analysed with cordqa {__version__}. Series were sorted by their headers alone. The {noun}s of "
        f"{definition.name} were found from their layout by circular edges in all images of a series, at any rotation "
        f"or mirror image; which {noun} is which was decided by the order of the measured values among the few labellings "
        f"that the layout allows. Signals are from a disc of {100 * REGION_SHARE:.0f} % of the inner diameter "
        f"({2 * first.found.radius_mm:.1f} mm). For magnitude images the mean square of the background was subtracted "
        "from the mean square of the region where the background could be measured. Samples with pixels at the top of "
        "the stored range were dropped."
    ]
    for kind in Kind:
        mine = [plate for plate in plates if plate.found.fitted.kind is kind]
        if mine and kind in _FITS:
            model = "; ".join(sorted({p.found.fitted.fit.model for p in mine}))
            text.append(_FITS[kind].format(model=model, inversion=_inversion(mine)))
    if any(plate.found.quantity == "PD" for plate in plates):
        text.append(
            "Proton density is the fitted signal at time zero relative to the reference sphere of the plate; it is not "
            "corrected for receive sensitivity."
        )
    text.append(
        "Uncertainties of the fits are standard errors with 95 % intervals by Student's t; they hold noise and misfit, "
        "not systematic errors of the scan. A value outside the range that the inversion or echo times can determine "
        "(relative Cramer-Rao bound above 10 % at a signal-to-noise ratio of 100) is shown but not judged. "
        "References hold at the field strength of the scan and are interpolated in temperature; their uncertainty "
        "combines certificate, temperature, batch and filling. "
        f"Verdicts follow the tolerances '{tolerances.name}' with expanded uncertainty (coverage factor "
        f"{tolerances.coverage_factor:g}) as a guard band."
    )
    names = {statistic.name for statistic in statistics}
    if names & {WITHIN, BETWEEN, ICC}:
        text.append(
            "Within-scanner CV is the SD over repeats over their mean, per sphere and scanner; between-scanner CV is the SD "
            "of the scanners' means over their mean, per sphere and field strength; both with n - 1 and chi-squared "
            "intervals, which are wide for few scanners. The ICC over spheres is given for completeness; the wide range "
            "of the spheres makes it high for any scanners."
        )
    return tuple(text)


def _inversion(plates: Sequence[AnalysedPlate]) -> str:
    """Say where the inversion was shared by the spheres of a plate, and where it was not."""
    alone = [p for p in plates if not is_pooled(p.found.fitted.fit)]
    if not alone:
        return _POOLED
    if len(alone) == len(plates):
        return _ALONE.format(where="")
    names = dict.fromkeys(f"{p.series.images.label}, {p.found.plate.name}" for p in alone)
    return f"{_POOLED} {_ALONE.format(where=': ' + '; '.join(names))}"


def references(
    plates: Sequence[AnalysedPlate], definition: PhantomDefinition, statistics: Sequence[Statistic]
) -> tuple[str, ...]:
    """List the citations that this run rests on."""
    if not plates:
        return ()
    used = {value.source_id for plate in plates for value in plate.references if value.source_id}
    out = [definition.source(source).text for source in sorted(used)]
    kinds = {plate.found.fitted.kind for plate in plates}
    out += [_CITATIONS[kind] for kind in Kind if kind in kinds and kind in _CITATIONS]
    out += [_NOISE, _DECISION]
    names = {statistic.name for statistic in statistics}
    out += [_CCC] if names & set(LINEARITY_NAMES) else []
    out += [_MCGRAW] if ICC in names else []
    return tuple(dict.fromkeys(out))
