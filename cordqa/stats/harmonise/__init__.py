"""Harmonisation: taking scanner and site effects out of measurements.

Which one?  With people who were scanned on several scanners: :class:`TravellingSubject`, which
cannot harm biology.  Without: :class:`Combat` with age, sex and whatever else must be kept as
covariates; :class:`CovBat` where several features are used together by a classifier;
:class:`LongCombat` for follow-up studies.  Always judge the result with
:func:`judge_pairs` on people the harmoniser did not see, and with :func:`judge_biology`.
"""

from cordqa.stats.harmonise.base import Harmoniser
from cordqa.stats.harmonise.combat import Combat
from cordqa.stats.harmonise.covbat import CovBat
from cordqa.stats.harmonise.judge import judge_biology, judge_pairs, transform_unseen
from cordqa.stats.harmonise.longcombat import LongCombat
from cordqa.stats.harmonise.tables import ScanTable, harmonise_table, to_scans
from cordqa.stats.harmonise.travelling import TravellingSubject

__all__ = [
    "Combat",
    "CovBat",
    "Harmoniser",
    "LongCombat",
    "ScanTable",
    "TravellingSubject",
    "harmonise_table",
    "judge_biology",
    "judge_pairs",
    "to_scans",
    "transform_unseen",
]
