"""What all harmonisers share: the fit/transform contract, covariates, and checks of the design.

The contract is scikit-learn's: constructors store, ``fit`` validates and works, learned
attributes end in ``_``.  A batch is whatever should not matter: scanner, site or vendor.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import FitError, InputError
from cordqa.records import Notice, Severity
from cordqa.stats.mixed_design import find_aliased_columns

__all__ = [
    "CovariateCoder",
    "Harmoniser",
    "as_labels",
    "check_batches",
    "check_confounding",
    "check_features",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
Labels = NDArray[np.str_]

#: Below this many people per batch its shift and spread are known too poorly to trust.
FEW_PEOPLE = 10
_STRONG_CONFOUNDING = 0.8


class Harmoniser(ABC):
    """Base of all harmonisers.

    Attributes
    ----------
    notices_ : tuple of Notice
        What the reader should know about this fit.
    n_features_in_ : int
    """

    notices_: tuple[Notice, ...]
    n_features_in_: int

    @abstractmethod
    def fit(
        self,
        X: ArrayLike,
        *,
        batch: Iterable[Any],
        covariates: Any = None,
        subject: Iterable[Any] | None = None,
    ) -> Self:
        """Learn batch effects from values of shape (n_scans, n_features); NaN marks what is missing."""

    @abstractmethod
    def transform(
        self,
        X: ArrayLike,
        *,
        batch: Iterable[Any],
        covariates: Any = None,
        subject: Iterable[Any] | None = None,
    ) -> FloatArray:
        """Take the learned batch effects out of values of the same features."""

    def fit_transform(
        self,
        X: ArrayLike,
        *,
        batch: Iterable[Any],
        covariates: Any = None,
        subject: Iterable[Any] | None = None,
    ) -> FloatArray:
        """Fit, then transform the same values."""
        fitted = self.fit(X, batch=batch, covariates=covariates, subject=subject)
        return fitted.transform(X, batch=batch, covariates=covariates, subject=subject)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Settings given to the constructor."""
        del deep
        return {
            name: getattr(self, name)
            for name in inspect.signature(type(self).__init__).parameters
            if name != "self"
        }

    def set_params(self, **settings: Any) -> Self:
        """Change settings; unknown names raise InputError."""
        known = self.get_params()
        for name, setting in settings.items():
            if name not in known:
                raise InputError("a setting is not known", found=name, expected=", ".join(known))
            setattr(self, name, setting)
        return self

    def clone(self) -> Self:
        """Unfitted copy with the same settings."""
        return type(self)(**self.get_params())

    def _check_fitted(self) -> None:
        if not hasattr(self, "n_features_in_"):
            raise InputError(f"{type(self).__name__} has not been fitted", todo="call fit first")


def check_features(X: ArrayLike, *, n_features: int | None = None) -> FloatArray:
    """Return values as (n_scans, n_features); NaN is allowed, infinity is not.

    Raises
    ------
    InputError
        If the shape is not that of a table, the number of features is not the one that was
        fitted, or a value is infinite.
    """
    try:
        table = np.array(X, dtype=float)
    except (TypeError, ValueError) as error:
        raise InputError("the values to harmonise are not all numbers") from error
    if table.ndim == 1:
        table = table[:, None]
    if table.ndim != 2 or table.size == 0:
        raise InputError(
            "values must be a table of scans by features",
            found=f"shape {table.shape}",
            expected="(scans, features)",
        )
    if np.isinf(table).any():
        raise InputError("a value is infinite", todo="empty the cell or correct it")
    if n_features is not None and table.shape[1] != n_features:
        raise InputError(
            "the features are not those that were fitted", found=str(table.shape[1]), expected=str(n_features)
        )
    return table


def as_labels(labels: Iterable[Any], n_scans: int, *, what: str) -> Labels:
    """Return labels as text, one per scan; a missing one raises InputError."""
    cells = list(labels)
    array = np.empty(len(cells), dtype=object)
    array[:] = cells
    if array.size != n_scans:
        raise InputError(f"one {what} per scan is needed", found=str(array.size), expected=str(n_scans))
    empty = [i for i, x in enumerate(array) if _is_empty(x)]
    if empty:
        raise InputError(f"{len(empty)} scans have no {what}", where=f"first at position {empty[0]}")
    return array.astype(str)


def _is_empty(label: Any) -> bool:
    """Tell whether a label says nothing: None, NaN or blank."""
    if label is None or (isinstance(label, float) and np.isnan(label)):
        return True
    return str(label).strip() in ("", "<NA>", "NaT")


def check_batches(batch: Labels, *, people: Labels | None = None) -> tuple[Labels, IntArray, list[Notice]]:
    """Number the batches and say which are small.

    Returns
    -------
    names : ndarray of str, shape (n_batches,)
    codes : ndarray of int, shape (n_scans,)
    notices : list of Notice

    Raises
    ------
    FitError
        If there is one batch only.
    """
    names, codes = np.unique(batch, return_inverse=True)
    if names.size < 2:
        raise FitError(
            "there is nothing to harmonise between", found=f"one batch, {names[0]}", expected="two"
        )
    sizes = np.bincount(codes)
    if people is not None:
        sizes = np.array([np.unique(people[codes == j]).size for j in range(names.size)])
    small = [f"{name} ({size})" for name, size in zip(names, sizes, strict=True) if size < FEW_PEOPLE]
    notices = []
    if small:
        message = f"fewer than {FEW_PEOPLE} people in {', '.join(small)}: their shift is known only roughly"
        notices.append(Notice(severity=Severity.WARNING, message=message, code="harmonise.small-batch"))
    return names, codes.astype(np.intp).ravel(), notices


class CovariateCoder:
    """Turns covariates into numeric columns, and new ones into the same columns.

    Numbers stay one column each, text becomes indicator columns of all levels but the first.

    Attributes
    ----------
    names_ : tuple of str
        Name of each column.
    """

    names_: tuple[str, ...]

    def fit(self, covariates: Any, n_scans: int) -> FloatArray:
        """Learn the levels; return columns of shape (n_scans, c)."""
        self._levels: dict[str, tuple[str, ...] | None] = {}
        columns = _as_columns(covariates, n_scans)
        for name, values in columns.items():
            self._levels[name] = (
                None if _is_number(values) else tuple(dict.fromkeys(sorted(map(str, values))))
            )
        return self._encode(columns, n_scans)

    def transform(self, covariates: Any, n_scans: int) -> FloatArray:
        """Return the same columns for other scans; an unknown level raises InputError."""
        columns = _as_columns(covariates, n_scans)
        missing = sorted(set(self._levels) - set(columns))
        if missing or len(columns) != len(self._levels):
            raise InputError(
                "the covariates are not those that were fitted",
                found=", ".join(columns) or "none",
                expected=", ".join(self._levels) or "none",
            )
        return self._encode(columns, n_scans)

    def _encode(self, columns: Mapping[str, NDArray[Any]], n_scans: int) -> FloatArray:
        encoded, names = [], []
        for name, levels in self._levels.items():
            values = columns[name]
            if levels is None:
                encoded.append(_finite(values, name))
                names.append(name)
                continue
            text = values.astype(str)
            unknown = sorted(set(text) - set(levels))
            if unknown:
                raise InputError(
                    "a covariate has a level that was not fitted",
                    where=name,
                    found=", ".join(unknown),
                    expected=", ".join(levels),
                )
            encoded += [(text == level).astype(float) for level in levels[1:]]
            names += [f"{name} {level}" for level in levels[1:]]
        self.names_ = tuple(names)
        return np.column_stack(encoded) if encoded else np.empty((n_scans, 0))


def _as_columns(covariates: Any, n_scans: int) -> dict[str, NDArray[Any]]:
    """Covariates as named columns, from nothing, a mapping, a DataFrame or a numeric table."""
    if covariates is None:
        return {}
    if hasattr(covariates, "columns"):
        columns = {str(name): np.asarray(covariates[name]) for name in covariates.columns}
    elif isinstance(covariates, Mapping):
        columns = {str(name): np.asarray(values) for name, values in covariates.items()}
    else:
        table = np.asarray(covariates)
        table = table[:, None] if table.ndim == 1 else table
        columns = {f"covariate {i}": table[:, i] for i in range(table.shape[1])}
    for name, values in columns.items():
        if values.shape != (n_scans,):
            raise InputError(
                "a covariate needs one value per scan",
                where=name,
                found=str(values.shape),
                expected=str(n_scans),
            )
        if values.dtype == object and any(_is_empty(cell) for cell in values):
            raise InputError("a covariate is missing or not finite", where=name, todo="fill it in")
    return columns


def _is_number(values: NDArray[Any]) -> bool:
    if values.dtype.kind in "iufb":
        return True
    return values.dtype == object and all(isinstance(x, (int, float, np.number)) for x in values)


def _finite(values: NDArray[Any], name: str) -> FloatArray:
    numbers = values.astype(float)
    if not np.all(np.isfinite(numbers)):
        raise InputError(
            "a covariate is missing or not finite",
            where=name,
            found=f"{int(np.count_nonzero(~np.isfinite(numbers)))} scans",
            todo="leave these scans out or fill them in",
        )
    return numbers


def check_confounding(codes: IntArray, covariates: FloatArray, names: Sequence[str]) -> list[Notice]:
    """Refuse covariates that batches determine, and say which nearly are.

    Raises
    ------
    FitError
        If a covariate is a linear combination of the batches and the other covariates: its
        effect could then not be kept while the batch is taken out.
    """
    n_batches = int(codes.max()) + 1
    constant = [name for name, column in zip(names, covariates.T, strict=True) if np.ptp(column) == 0.0]
    if constant:
        raise FitError(
            "a covariate is the same in every scan", where=", ".join(constant), todo="leave it out"
        )
    indicators = np.eye(n_batches)[codes]
    aliased = find_aliased_columns(np.column_stack([indicators, covariates]))
    if aliased:
        lost = ", ".join(names[i - n_batches] for i in aliased)
        raise FitError(
            "covariates and batches cannot be told apart",
            where=lost,
            todo="harmonise without this covariate, or add scans that break the link",
        )
    if codes.size <= n_batches + covariates.shape[1]:
        raise FitError("not more scans than batches and covariates", found=f"{codes.size} scans")
    notices = []
    for name, column in zip(names, covariates.T, strict=True):
        within = column - (np.bincount(codes, column) / np.bincount(codes))[codes]
        explained = 1.0 - float(within @ within) / float(np.sum((column - column.mean()) ** 2))
        if explained > _STRONG_CONFOUNDING:
            message = f"batches explain {100 * explained:.0f} % of {name}: its effect may be harmed"
            notices.append(Notice(severity=Severity.WARNING, message=message, code="harmonise.confounded"))
    return notices
