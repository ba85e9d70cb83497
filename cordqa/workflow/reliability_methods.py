"""Methods text and citations of a reliability run: only of what ran."""

from __future__ import annotations

from cordqa import __version__
from cordqa.workflow.reliability_run import Study
from cordqa.workflow.reliability_table import plural

__all__ = ["methods", "references"]

#: Paragraph and citations for each analysis, by the key of its table.
_TEXTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "linearity": (
        "Measured values were regressed on reference values by ordinary least squares over all regions; "
        "intervals take into account that values of one machine, or of one session, belong together "
        "(cluster-robust, Bell and McCaffrey). Lin's concordance measures closeness to the line of identity. "
        "Curvature was tested by a quadratic and a cubic term. R2 alone proves nothing: it grows with the "
        "range of the references.",
        (
            "Lin LI. A concordance correlation coefficient to evaluate reproducibility. Biometrics "
            "1989;45:255. doi:10.2307/2532051",
            "Obuchowski NA, Bullen J. Quantitative imaging biomarkers: effect of sample size and bias on "
            "confidence interval coverage. Stat Methods Med Res 2018;27:3139.",
        ),
    ),
    "repeatability": (
        "The within-subject SD (wSD) pools the variances of the repeats of each subject on one machine with "
        "their degrees of freedom; the repeatability coefficient RC is 1.96 sqrt(2) wSD: two measurements of "
        "an unchanged subject differ by more in 5 % of pairs. The within-subject CV (wCV) is the root mean "
        "square of SD over mean per subject up to 15 %, and comes from logarithms above; each row names its "
        "form. Intervals are chi-squared. Subjects measured once add nothing and are counted.",
        (
            "Raunig DL, et al. Quantitative imaging biomarkers: a review of statistical methods for "
            "technical performance assessment. Stat Methods Med Res 2015;24:27. doi:10.1177/0962280214537344",
        ),
    ),
    "reproducibility": (
        "Reproducibility was estimated from subjects who were measured on several machines: mean squares of "
        "subjects, machines and their interaction where the table is complete, restricted maximum likelihood "
        "from every value where it is not. The reproducibility coefficient RDC is 1.96 sqrt(2) of the SD "
        "within a subject between two machines, repeats included, with modified large sample intervals. With "
        "few machines its upper limit is far above the estimate, and rightly so.",
        (
            "Graybill FA, Wang CM. Confidence intervals on nonnegative linear combinations of variances. J "
            "Am Stat Assoc 1980;75:869. doi:10.1080/01621459.1980.10477565",
        ),
    ),
    "bias": (
        "Bias of a machine is its mean difference from all machines over the same subjects (least squares "
        "with effects of subjects and machines, t intervals).",
        (),
    ),
    "icc": (
        "All forms of the intraclass correlation are given after McGraw and Wong, with F tests and "
        "intervals; missing cells were handled by restricted maximum likelihood, not by dropping subjects. "
        "The ICC grows with the spread between subjects, so it says nothing without that range, which each "
        "row states.",
        (
            "McGraw KO, Wong SP. Forming inferences about some intraclass correlation coefficients. Psychol "
            "Methods 1996;1:30. doi:10.1037/1082-989X.1.1.30",
        ),
    ),
    "components": (
        "Variance components come from expected mean squares where the design is balanced and from "
        "restricted maximum likelihood where it is not; each row names which. Vendor is a fixed effect below "
        "five levels. Estimates below zero are reported as zero with the raw value beside them.",
        ("Searle SR, Casella G, McCulloch CE. Variance Components. Wiley 1992. doi:10.1002/9780470316856",),
    ),
    "sites": (
        "Within- and between-site CV are the pooled SD within sites and the root of the variance component "
        "of sites, over the mean of the site means. Nobody was measured at two sites, so the first is the "
        "spread of people with the error of measurement on top.",
        (),
    ),
    "agreement": (
        "Limits of agreement contain 95 % of the differences between single measurements; where subjects "
        "were measured repeatedly, the variance of the repeats enters (Bland and Altman 1999). A slope of "
        "the difference on the mean was tested as proportional bias.",
        (
            "Bland JM, Altman DG. Measuring agreement in method comparison studies. Stat Methods Med Res "
            "1999;8:135. doi:10.1177/096228029900800204",
        ),
    ),
    "relations": (
        "Two quantities of the same subject, region, session and scanner make a pair; several values of one "
        "place were averaged before. The pooled correlation has an interval over subjects (jackknife of "
        "Fisher's z); that within subjects is the repeated-measures correlation; that between subjects is of "
        "their means. A parabola converts the first to the second only where its AICc is lower than that of "
        "a line by more than 2, both with a random intercept per subject; subjects with slopes of their own "
        "still bend a line in about one study of five. Nothing is converted outside the range that was seen.",
        (
            "Bakdash JZ, Marusich LR. Repeated measures correlation. Front Psychol 2017;8:456. "
            "doi:10.3389/fpsyg.2017.00456",
        ),
    ),
    "regions": (
        "Over all regions: the mean absolute percent difference (per person, then over people and regions), "
        "the share of regions below 10 %, the same of the bias (signed, averaged over people first), the "
        "mean ICC(C,1) (ICC(3,1) of Shrout and Fleiss) and the share of regions with at least 0.75. Regions "
        "are those of the table, so that these have no interval.",
        (),
    ),
    "roc": (
        "The area under the ROC curve counts pairs of a case and a control (ties one half); its interval "
        "follows DeLong, on the logit scale or by score where few people ask for it. Thresholds were chosen "
        "on these data and are optimistic. Combined markers were judged by cross-validation.",
        (
            "DeLong ER, DeLong DM, Clarke-Pearson DL. Comparing the areas under two or more correlated "
            "receiver operating characteristic curves. Biometrics 1988;44:837. doi:10.2307/2531595",
        ),
    ),
    "drift": (
        "Each machine was charted against its own baseline, anew after each change of software: Shewhart "
        "limits (t prediction limits for short baselines), an EWMA with weight 0.2 and a CUSUM. A chart "
        "needs 20 values of baseline for its limits to hold their level.",
        (),
    ),
    "harmonisation": (
        "Harmonisation was judged by the reproducibility of people whom the fit had not seen.",
        (),
    ),
}
_HARMONISERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "travelling": (
        "The shift of each batch was learned from people scanned in several batches.",
        ("Yamashita A, et al. PLoS Biol 2019;17:e3000042. doi:10.1371/journal.pbio.3000042",),
    ),
    "combat": (
        "ComBat took out shift and scale of each batch, shrunk over regions and quantities.",
        (
            "Johnson WE, Li C, Rabinovic A. Biostatistics 2007;8:118. doi:10.1093/biostatistics/kxj037",
            "Fortin JP, et al. NeuroImage 2018;167:104. doi:10.1016/j.neuroimage.2017.11.024",
        ),
    ),
    "covbat": (
        "CovBat took out shift and scale of each batch and how features vary together.",
        ("Chen AA, et al. Hum Brain Mapp 2022;43:1179. doi:10.1002/hbm.25688",),
    ),
    "longcombat": (
        "Longitudinal ComBat took out shift and scale of each batch beside a random effect of the person.",
        ("Beer JC, et al. NeuroImage 2020;220:117129. doi:10.1016/j.neuroimage.2020.117129",),
    ),
}
_SPINE_GENERIC = (
    "As asked for, intra- and inter-site COV follow the spine-generic definition: SD dividing by n, averaged "
    "over sites, and SD of the site means over their mean. The better estimates stand beside them and the "
    "notes say how they differ.",
    "Cohen-Adad J, et al. Sci Data 2021;8:219. doi:10.1038/s41597-021-00941-8",
)
_FDR = "Benjamini Y, Hochberg Y. J R Stat Soc B 1995;57:289. doi:10.1111/j.2517-6161.1995.tb02031.x"


def methods(study: Study) -> tuple[str, ...]:
    """Write the paragraphs that apply to this run."""
    left = int((study.long.frame["left_out"] != "").sum())
    text = [
        f"The table was analysed with cordqa {__version__}: {plural(len(study.frame), 'row')}, each quantity "
        f"in each region on its own. {plural(left, 'value')} took no part; each reason is listed with the "
        f"data. Intervals are at {100 * study.settings.level:g} %. Nothing was averaged over repeats, and no "
        "subject was dropped for being incomplete, unless a row says so."
    ]
    text += [_TEXTS[key][0] for key in _TEXTS if key in study.tables]
    if _adjusted(study):
        text.append(
            "With several regions, p was also adjusted for the false discovery rate (Benjamini and Hochberg) "
            "over the regions of each quantity and statistic; notes give it as p_fdr."
        )
    if "harmonised" in study.tables:
        text.append(_HARMONISERS[study.settings.harmonise][0])
    if study.settings.definition == "spine-generic" and "sites" in study.tables:
        text.append(_SPINE_GENERIC[0])
    if any(scope.scale == "interval" for scope in study.long.scopes.values()):
        text.append(
            "Quantities without a true zero (interval scale) get no CV: a percentage of their mean depends "
            "on where zero was put."
        )
    return tuple(text)


def _adjusted(study: Study) -> bool:
    return any("p_fdr" in table for table in study.tables.values())


def references(study: Study) -> tuple[str, ...]:
    """List the citations that this run rests on."""
    found = [one for key, (_, citations) in _TEXTS.items() if key in study.tables for one in citations]
    if _adjusted(study):
        found.append(_FDR)
    if "harmonised" in study.tables:
        found += _HARMONISERS[study.settings.harmonise][1]
    if study.settings.definition == "spine-generic" and "sites" in study.tables:
        found.append(_SPINE_GENERIC[1])
    return tuple(dict.fromkeys(found))
