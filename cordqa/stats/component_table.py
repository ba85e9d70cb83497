"""From a tidy table to the designs of variance-component models.

Groups of a table (regions, quantities) that share one design are put together, so that ten
thousand regions cost little more than one.  Where a design is balanced, its factors are also
laid out as axes of an array, with nested labels numbered within their parents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import ConfigError, CordqaError
from cordqa.stats.mixed_design import MixedDesign, find_inestimable_terms, make_design
from cordqa.stats.table import Problem, as_frame, as_names, check_columns, clean_table, group_table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Axes", "Batch", "ComponentModel", "read_batches", "read_model"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class ComponentModel:
    """Which columns are random terms, fixed categories and covariates.

    Attributes
    ----------
    random : tuple of tuple of str
        Columns of each random term; ``("subject", "scanner")`` is their interaction.
    categories, covariates : tuple of str
        Fixed effects with a mean per category, and linear ones.
    notes : tuple of str
        What was decided on the way, for example that vendor became fixed.
    """

    random: tuple[tuple[str, ...], ...]
    categories: tuple[str, ...] = ()
    covariates: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the random terms."""
        return tuple(":".join(term) for term in self.random)

    @property
    def key_columns(self) -> tuple[str, ...]:
        """Every column with labels, each once."""
        return tuple(dict.fromkeys([*(c for term in self.random for c in term), *self.categories]))


@dataclass(frozen=True, slots=True)
class Axes:
    """A balanced design as axes of an array.

    Attributes
    ----------
    order : ndarray of int, shape (n,)
        Puts the values into the order of the array.
    shape : tuple of int
        Levels per axis, repeats last.
    random, fixed : tuple of tuple of int
        Axes of each term.
    """

    order: IntArray
    shape: tuple[int, ...]
    random: tuple[tuple[int, ...], ...]
    fixed: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Groups of a table that share one design.

    Attributes
    ----------
    groups : tuple of dict
        The ``by`` values of each group.
    values : ndarray, shape (B, n)
    design : MixedDesign or None
        None where the model cannot be fitted; ``reason`` says why.
    axes : Axes or None
        Present where the design is balanced and has no covariate.
    left_out : dict of str to str
        Random terms whose variance this design cannot give, and why.
    levels : dict of str to int
        Number of levels of every column with labels, and of every random term.
    parents : dict of str to tuple of str
        Columns that each column with labels is nested in.
    n_missing : ndarray of int, shape (B,)
        Rows of the table without a usable value or covariate.
    positions : tuple of int
        Place of each group in the table.
    reason : str
    """

    groups: tuple[dict[str, Any], ...]
    values: FloatArray
    design: MixedDesign | None
    axes: Axes | None
    left_out: dict[str, str]
    levels: dict[str, int]
    parents: dict[str, tuple[str, ...]]
    n_missing: NDArray[np.int64]
    positions: tuple[int, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Group:
    """One group of the table, sorted, with the rows that cannot be used taken out."""

    position: int
    keys: dict[str, Any]
    part: pd.DataFrame
    n_missing: int


def read_model(
    data: Any,
    *,
    random: Sequence[str],
    fixed: Sequence[str] = (),
    adaptive: Sequence[str] = (),
    few_levels: int = 5,
) -> ComponentModel:
    """Decide the role of every column.

    Parameters
    ----------
    data : DataFrame or anything :func:`~cordqa.stats.table.as_frame` takes
    random : sequence of str
        Random terms: a column, or several joined by ``:``.
    fixed : sequence of str
        Columns of text, booleans or categories get a mean per category; numeric ones are linear.
    adaptive : sequence of str
        Columns that are fixed where they have fewer than ``few_levels`` levels, else random.
    few_levels : int

    Returns
    -------
    ComponentModel
    """
    frame = as_frame(data)
    terms = [tuple(part.strip() for part in term.split(":")) for term in as_names(random)]
    columns = [c for term in terms for c in term]
    fixed, adaptive = as_names(fixed), as_names(adaptive)
    check_columns(frame, [*columns, *fixed, *adaptive])
    if len({frozenset(term) for term in terms}) != len(terms):
        raise ConfigError("a random term is given twice", found=", ".join(random))
    categories = [c for c in fixed if c in columns or not _is_numeric(frame[c])]
    covariates = [c for c in fixed if c not in categories]
    notes = []
    for name in adaptive:
        count = int(frame[name].nunique())
        if count >= few_levels:
            terms.append((name,))
            continue
        categories.append(name)
        notes.append(f"{name} is a fixed effect because it has {count} levels, fewer than {few_levels}")
    clash = sorted({":".join(t) for t in terms if len(t) == 1} & set(categories))
    if clash:
        raise ConfigError("a column is both random and fixed", found=", ".join(clash))
    if not terms:
        raise ConfigError("at least one random term is needed", todo="name the subject column")
    return ComponentModel(tuple(terms), tuple(categories), tuple(covariates), tuple(notes))


def _is_numeric(column: pd.Series[Any]) -> bool:
    """Tell whether a column is a covariate: numbers, or text that is mostly numbers."""
    import pandas as pd

    if pd.api.types.is_bool_dtype(column) or isinstance(column.dtype, pd.CategoricalDtype):
        return False
    if pd.api.types.is_numeric_dtype(column):
        return True
    parsed = pd.to_numeric(column, errors="coerce")
    return bool(parsed.notna().sum() > 0.5 * max(int(column.notna().sum()), 1))


def read_batches(
    data: Any,
    value: str,
    model: ComponentModel,
    *,
    by: str | Sequence[str] | None = None,
    nan_policy: str = "raise",
) -> tuple[list[Batch], tuple[Problem, ...]]:
    """Check the table and put the groups that share one design together.

    Parameters
    ----------
    data : DataFrame, mapping or sequence of rows
    value : str
        Column of measured values.
    model : ComponentModel
    by : str or sequence of str, optional
        Columns that split the table into groups.
    nan_policy : {'raise', 'omit'}

    Returns
    -------
    batches : list of Batch
    problems : tuple of Problem
    """
    keys = model.key_columns
    if value in keys or value in model.covariates:
        raise ConfigError("the column of values is also a term of the model", found=value)
    frame, problems = clean_table(
        data, numbers=[value, *model.covariates], keys=list(keys), by=by, nan_policy=nan_policy
    )
    pending: dict[tuple[bytes, ...], list[_Group]] = {}
    for position, (group, part) in enumerate(group_table(frame, by)):
        usable = part.dropna(subset=[value, *model.covariates])
        usable = usable.sort_values([*keys, *model.covariates], kind="stable", key=_sortable)
        entry = _Group(position, group, usable, len(part) - len(usable))
        pending.setdefault(_signature(usable, model), []).append(entry)
    return [_make_batch(entries, value, model) for entries in pending.values()], problems


def _sortable(column: pd.Series[Any]) -> pd.Series[Any]:
    """Let labels of mixed types be sorted."""
    return column.astype(str) if column.dtype.kind not in "iuf" else column


def _signature(part: pd.DataFrame, model: ComponentModel) -> tuple[bytes, ...]:
    codes = [np.ascontiguousarray(_codes(part[c])).tobytes() for c in model.key_columns]
    numbers = [part[c].to_numpy(dtype=float).tobytes() for c in model.covariates]
    return (*codes, *numbers)


def _codes(column: pd.Series[Any]) -> IntArray:
    """Number labels by their first appearance in the sorted part."""
    import pandas as pd

    return np.asarray(pd.factorize(column)[0], dtype=np.intp)


def _make_batch(entries: list[_Group], value: str, model: ComponentModel) -> Batch:
    first = entries[0].part
    codes = {name: _codes(first[name]) for name in model.key_columns}
    labels = {name: _join(codes, term) for name, term in zip(model.names, model.random, strict=True)}
    parents = {
        a: tuple(b for b in codes if a != b and _nested(codes[a], codes[b]) and np.unique(codes[b]).size > 1)
        for a in codes
    }
    design, left_out, reason = _try_design(first, labels, model)
    kept = tuple(term for name, term in zip(model.names, model.random, strict=True) if name not in left_out)
    balanced = design is not None and not model.covariates
    return Batch(
        groups=tuple(entry.keys for entry in entries),
        values=np.stack([entry.part[value].to_numpy(dtype=float) for entry in entries]),
        design=design,
        axes=_find_axes(codes, kept, model.categories) if balanced else None,
        left_out=left_out,
        levels={name: int(np.unique(code).size) for name, code in {**codes, **labels}.items()},
        parents=parents,
        n_missing=np.array([entry.n_missing for entry in entries], dtype=np.int64),
        positions=tuple(entry.position for entry in entries),
        reason=reason,
    )


def _try_design(
    part: pd.DataFrame, labels: dict[str, IntArray], model: ComponentModel
) -> tuple[MixedDesign | None, dict[str, str], str]:
    """Design, the terms left out with reasons, and why there is no design at all."""
    if len(part) == 0:
        return None, {}, "no row of this group has a usable value"
    try:
        design, left_out = _usable_design(labels, *_fixed_columns(part, model))
    except CordqaError as error:
        return None, {}, str(error)
    reason = "" if design else "no variance can be estimated: " + "; ".join(left_out.values())
    return design, left_out, reason


def _join(codes: dict[str, IntArray], term: tuple[str, ...]) -> IntArray:
    """Number the combinations of several columns."""
    joined = np.zeros(codes[term[0]].size, dtype=np.intp)
    for name in term:
        joined = joined * (int(codes[name].max(initial=0)) + 1) + codes[name]
        joined = np.unique(joined, return_inverse=True)[1].astype(np.intp).ravel()
    return joined


def _usable_design(
    labels: dict[str, IntArray], fixed: FloatArray, fixed_names: list[str]
) -> tuple[MixedDesign | None, dict[str, str]]:
    """Leave out the terms that the design cannot give, one after the other."""
    left_out: dict[str, str] = {}
    remaining = dict(labels)
    while remaining:
        design = make_design(remaining, fixed, fixed_names=fixed_names)
        found = find_inestimable_terms(design)
        if not found:
            return design, left_out
        left_out |= found
        remaining = {name: code for name, code in remaining.items() if name not in found}
    return None, left_out


def _fixed_columns(part: pd.DataFrame, model: ComponentModel) -> tuple[FloatArray, list[str]]:
    """Intercept, covariates and indicator columns, all but the intercept centred.

    Centring makes the intercept the mean at the average composition of the group.
    """
    columns, names = [np.ones(len(part))], ["mean"]
    for name in model.covariates:
        columns.append(part[name].to_numpy(dtype=float))
        names.append(name)
    for name in model.categories:
        codes = _codes(part[name])
        labels = list(dict.fromkeys(part[name]))
        for level, label in enumerate(labels[1:], start=1):
            columns.append((codes == level).astype(float))
            names.append(f"{name} {label} - {labels[0]}")
    table = np.column_stack(columns)
    table[:, 1:] -= table[:, 1:].mean(axis=0, keepdims=True)
    return table, names


def _find_axes(
    codes: dict[str, IntArray], random: tuple[tuple[str, ...], ...], categories: tuple[str, ...]
) -> Axes | None:
    """Lay a balanced design out as an array; None where it is not balanced."""
    names = tuple(dict.fromkeys([*(c for term in random for c in term), *categories]))
    pairs = {(a, b): _nested(codes[a], codes[b]) for a in names for b in names if a != b}
    if any(pairs[a, b] and pairs[b, a] for a, b in pairs):
        return None
    parents = {a: tuple(b for b in names if b != a and pairs[a, b]) for a in names}
    ranks, shape = [], []
    for name in names:
        rank = _rank_within(codes[name], _join(codes, parents[name]) if parents[name] else None)
        ranks.append(rank)
        shape.append(int(rank.max(initial=0)) + 1)
    cells = np.ravel_multi_index(tuple(ranks), tuple(shape))
    counts = np.bincount(cells, minlength=int(np.prod(shape)))
    if counts.size != int(np.prod(shape)) or counts.min() != counts.max():
        return None
    position = {name: axis for axis, name in enumerate(names)}

    def axes_of(term: tuple[str, ...]) -> tuple[int, ...]:
        return tuple(sorted({position[c] for name in term for c in (name, *parents[name])}))

    return Axes(
        order=np.argsort(cells, kind="stable"),
        shape=(*shape, int(counts[0])),
        random=tuple(axes_of(term) for term in random),
        fixed=tuple(axes_of((name,)) for name in categories),
    )


def _nested(inner: IntArray, outer: IntArray) -> bool:
    """Tell whether every level of one column occurs with one level of another only."""
    pairs = inner.astype(np.int64) * (int(outer.max(initial=0)) + 1) + outer
    return bool(np.unique(pairs).size == np.unique(inner).size)


def _rank_within(code: IntArray, parent: IntArray | None) -> IntArray:
    """Number the levels from zero within each parent level."""
    if parent is None:
        return code
    width = int(code.max(initial=0)) + 1
    pairs, inverse = np.unique(parent.astype(np.int64) * width + code, return_inverse=True)
    owner = pairs // width
    first = np.searchsorted(owner, owner)
    rank: IntArray = (np.arange(pairs.size) - first).astype(np.intp)
    within: IntArray = rank[inverse.ravel()]
    return within
