"""How unusual is a value for a person of that age and sex, scanned by that vendor?

A linear model of controls (age, sex, vendor) gives the expected value, and the scatter of controls
about it gives the prediction interval for one more person.  The scatter includes differences
between sites, so it holds for a person from a site like those of the reference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import EmptyInputError, InputError
from cordqa.records import Measurement

__all__ = ["NormativeModel", "NormativeScore", "attach_score", "fit_normative", "score_person"]

Array = NDArray[np.float64]
#: Controls beyond the number of coefficients below which no interval is given.
MIN_FREEDOM = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class NormativeModel:
    """Expected value and scatter of one quantity in controls.

    Attributes
    ----------
    coefficients : ndarray
        At the mean age of the reference: women and men balanced, vendors balanced; then per year,
        for a man against the mean of sexes, and per vendor against the mean of vendors.
    unscaled_covariance : ndarray
        (X'X)^-1; times the residual variance it is the covariance of the coefficients.
    residual_sd : float
        With the degrees of freedom of the residual.
    freedom : int
    n : int
    mean_age : float
    age_range : tuple of float
    vendors : tuple of str
        Empty where the model has no vendor term.
    source : str
    """

    coefficients: Array
    unscaled_covariance: Array
    residual_sd: float
    freedom: int
    n: int
    mean_age: float
    age_range: tuple[float, float]
    vendors: tuple[str, ...]
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NormativeScore:
    """Place of one value among controls.

    ``z`` is the standard normal deviate of the percentile under the t distribution of a new person;
    ``low`` and ``high`` bound the prediction interval.  All NaN, with a flag, where it cannot be said.
    """

    z: float
    percentile: float
    expected: float
    prediction_sd: float
    low: float
    high: float
    interval_level: float
    flags: tuple[str, ...] = ()


def fit_normative(
    values: ArrayLike,
    *,
    age_years: ArrayLike,
    sex: Sequence[str],
    vendor: Sequence[str] | None = None,
    source: str = "",
) -> NormativeModel:
    """Fit a normative model by least squares.

    Parameters
    ----------
    values : array_like, shape (n,)
        One value per control; rows with a missing value, age, sex or vendor are left out.
    age_years : array_like, shape (n,)
    sex : sequence of str
        "M" or "F"; anything else is missing.
    vendor : sequence of str, optional
        Adds a vendor term; empty is missing.  A vendor with fewer than three controls is left out.

    Raises
    ------
    InputError
        If lengths differ.
    EmptyInputError
        If too few controls are complete (ten more than there are coefficients).

    Notes
    -----
    Residuals are taken as normal with one variance.  One value per person: repeated rows of a person
    would make intervals too narrow.
    """
    y, age = np.asarray(values, dtype=float), np.asarray(age_years, dtype=float)
    letters = np.array([str(s).strip().upper()[:1] for s in sex])
    makers = np.array([str(v).strip() for v in vendor]) if vendor is not None else np.array([])
    if not (y.ndim == 1 and y.shape == age.shape == letters.shape) or (
        vendor is not None and makers.shape != y.shape
    ):
        raise InputError(
            "values, ages, sexes and vendors must be lists of one length", found=f"{y.shape}, {age.shape}"
        )
    use = np.isfinite(y) & np.isfinite(age) & np.isin(letters, ["M", "F"])
    names: tuple[str, ...] = ()
    if vendor is not None:
        known, count = np.unique(makers[use & (makers != "")], return_counts=True)
        names = tuple(str(name) for name in known[count >= 3])
        use &= np.isin(makers, names)
    y, age, letters = y[use], age[use], letters[use]
    mean_age = float(age.mean()) if age.size else math.nan
    design = _design(age - mean_age, letters, makers[use] if vendor is not None else None, names)
    freedom = len(y) - design.shape[1]
    if freedom < MIN_FREEDOM:
        raise EmptyInputError(
            "too few complete controls for a normative model",
            where=source,
            found=f"{len(y)}",
            expected=f"at least {design.shape[1] + MIN_FREEDOM}",
        )
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise InputError(
            "controls do not vary in age or sex within vendors, so no model can be fitted", where=source
        )
    inverse = np.linalg.inv(design.T @ design)
    coefficients = inverse @ (design.T @ y)
    residual = y - design @ coefficients
    scatter = math.sqrt(float(residual @ residual) / freedom)
    if scatter <= 1e-9 * float(np.abs(y).max()):  # what is left is rounding
        raise InputError("controls do not vary, so nothing can be said about a difference", where=source)
    return NormativeModel(
        coefficients=coefficients,
        unscaled_covariance=np.asarray(inverse, dtype=float),
        residual_sd=scatter,
        freedom=freedom,
        n=len(y),
        mean_age=mean_age,
        age_range=(float(age.min()), float(age.max())),
        vendors=names if len(names) > 1 else (),
        source=source,
    )


def _design(
    age: Array, sex: NDArray[np.str_], vendor: NDArray[np.str_] | None, names: tuple[str, ...]
) -> Array:
    """Columns: one, age, sex (M +1/2, F -1/2), vendors in sum coding."""
    columns = [np.ones(age.size), age, np.where(sex == "M", 0.5, -0.5)]
    if vendor is not None and len(names) > 1:
        columns += [
            (vendor == name).astype(float) - (vendor == names[-1]).astype(float) for name in names[:-1]
        ]
    return np.column_stack(columns)


def score_person(
    model: NormativeModel,
    value: float,
    *,
    age_years: float,
    sex: str,
    vendor: str = "",
    interval_level: float = 0.95,
) -> NormativeScore:
    """Compare one person's value with controls.

    A vendor that the reference does not know gets the mean of its vendors, and a flag; an age beyond
    the reference gets a flag.  A missing age or sex gives no score.
    """
    from scipy import stats

    if not 0 < interval_level < 1:
        raise InputError("the level of the interval must lie between 0 and 1", found=f"{interval_level}")
    letter = str(sex).strip().upper()[:1]
    missing = [
        text
        for text, bad in (
            ("value is not known", not math.isfinite(value)),
            ("age is not known", not math.isfinite(age_years)),
            ("sex is not known", letter not in ("M", "F")),
        )
        if bad
    ]
    if missing:
        nan = math.nan
        return NormativeScore(
            z=nan,
            percentile=nan,
            expected=nan,
            prediction_sd=nan,
            low=nan,
            high=nan,
            interval_level=interval_level,
            flags=tuple(f"no normative score: {text}" for text in missing),
        )
    flags = []
    row = [1.0, age_years - model.mean_age, 0.5 if letter == "M" else -0.5]
    if model.vendors:
        if vendor in model.vendors:
            row += [float(vendor == n) - float(vendor == model.vendors[-1]) for n in model.vendors[:-1]]
        else:
            row += [0.0] * (len(model.vendors) - 1)
            flags.append(
                f"vendor {vendor or 'not known'}: compared with the mean of {', '.join(model.vendors)}"
            )
    if not model.age_range[0] <= age_years <= model.age_range[1]:
        flags.append(f"age beyond the reference ({model.age_range[0]:g} to {model.age_range[1]:g} years)")
    x = np.array(row)
    expected = float(x @ model.coefficients)
    spread = model.residual_sd * math.sqrt(1.0 + float(x @ model.unscaled_covariance @ x))
    t = (value - expected) / spread
    # From the tail that is small: far out, 1 - percentile would be rounded to nothing.
    tail = float(stats.t.sf(abs(t), model.freedom))
    half = float(stats.t.ppf(0.5 + interval_level / 2, model.freedom)) * spread
    return NormativeScore(
        z=math.copysign(float(stats.norm.isf(tail)), t) if t else 0.0,
        percentile=100.0 * (tail if t < 0 else 1.0 - tail),
        expected=expected,
        prediction_sd=spread,
        low=expected - half,
        high=expected + half,
        interval_level=interval_level,
        flags=tuple(flags),
    )


def attach_score(measurement: Measurement, score: NormativeScore, *, source: str) -> Measurement:
    """Write a score into a row: expected value and its prediction SD as reference, z as a flag."""
    flags = [*measurement.flags, *score.flags]
    if math.isfinite(score.z):
        flags.append(f"normative z {score.z:+.2f}")
        if not score.low <= measurement.value <= score.high:
            where = "below" if measurement.value < score.low else "above"
            flags.append(f"{where} the {100 * score.interval_level:g} % prediction interval of controls")
    return replace(
        measurement,
        reference=score.expected,
        reference_uncertainty=score.prediction_sd,
        reference_source=source if math.isfinite(score.z) else "",
        flags=tuple(flags),
    )
