"""The design of a mixed model: who shares which random effect, and in which order to solve.

Every random effect here is a set of indicator columns (subject, scanner, site ...), so the
covariance never needs to be formed.  Terms that are nested in one another (session in subject
in site) form a *chain* that can be eliminated level by level with plain sums; what is crossed
with the chain (scanners) is small and stays as one dense block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import FitError, InputError, TooLargeError

__all__ = [
    "MixedDesign",
    "find_aliased_columns",
    "find_inestimable_terms",
    "make_design",
    "quadratic_form_gram",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

_MAX_CELLS = 60_000_000
_ALIAS_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class MixedDesign:
    """Fixed effects and random factors of one table of n values, laid out for solving.

    Attributes
    ----------
    names : tuple of str
        Random terms, in the order asked for.
    codes : tuple of ndarray of int, shape (n,)
        Level 0..q-1 of each term per value.
    fixed : ndarray, shape (n, p)
        Columns of the fixed effects, intercept first.
    fixed_names : tuple of str
    chain : tuple of int
        Terms eliminated by sums, finest first; each is nested in the next.
    dense : tuple of int
        The other terms.
    rows : ndarray of int, shape (n,)
        Order of values in which the levels of the chain are contiguous.
    starts : tuple of ndarray of int
        Where each level begins: ``starts[0]`` within the ordered values, ``starts[i]`` within
        the levels of ``chain[i - 1]``.
    basis, triangle : ndarray, shapes (n, p) and (p, p)
        QR decomposition of the fixed columns, rows in the order of ``rows``.
    shared_sums : ndarray, shape (q, m)
        Sums of dense indicators and basis over the levels of the finest term.
    shared_products : ndarray, shape (m, m)
        Cross products of dense indicators and basis.
    dense_codes : ndarray of int, shape (n, number of dense terms)
        Column of the dense block per value, rows in the order of ``rows``.
    dense_term : ndarray of int, shape (number of dense columns,)
        Which term each dense column belongs to.
    """

    names: tuple[str, ...]
    codes: tuple[IntArray, ...]
    fixed: FloatArray
    fixed_names: tuple[str, ...]
    chain: tuple[int, ...]
    dense: tuple[int, ...]
    rows: IntArray
    starts: tuple[IntArray, ...]
    basis: FloatArray
    triangle: FloatArray
    shared_sums: FloatArray
    shared_products: FloatArray
    dense_codes: IntArray
    dense_term: IntArray

    @property
    def n_values(self) -> int:
        """Number of values."""
        return int(self.fixed.shape[0])

    @property
    def n_fixed(self) -> int:
        """Number of fixed-effect columns."""
        return int(self.fixed.shape[1])

    @property
    def n_levels(self) -> tuple[int, ...]:
        """Number of levels of each random term."""
        return tuple(int(code.max()) + 1 for code in self.codes)


def make_design(
    random: Mapping[str, Sequence[object] | NDArray[np.generic]],
    fixed: FloatArray | None = None,
    *,
    fixed_names: Sequence[str] = (),
) -> MixedDesign:
    """Lay out random terms and fixed columns for solving.

    Parameters
    ----------
    random : mapping of str to sequence, each of length n
        Label of every value for each random term.
    fixed : ndarray, shape (n, p), optional
        Fixed-effect columns; a column of ones where omitted.
    fixed_names : sequence of str
        One name per fixed column.

    Returns
    -------
    MixedDesign

    Raises
    ------
    InputError
        If lengths differ or no random term is given.
    FitError
        If fixed columns are aliased, or no residual degree of freedom is left.
    TooLargeError
        If the crossed terms have too many levels to be solved densely.
    """
    if not random:
        raise InputError("a mixed model needs at least one random term", todo="name the subject column")
    names = tuple(random)
    codes = tuple(_as_codes(labels) for labels in random.values())
    n_values = codes[0].size
    columns = np.ones((n_values, 1)) if fixed is None else np.asarray(fixed, dtype=float)
    if any(code.size != n_values for code in codes) or columns.shape[0] != n_values:
        raise InputError("the columns of the design differ in length")
    labels = tuple(fixed_names) or tuple(f"fixed {i}" for i in range(columns.shape[1]))
    _check_fixed(columns, labels)
    chain = _longest_chain(codes)
    dense = tuple(i for i in range(len(codes)) if i not in chain)
    rows, starts = _contiguous(codes, chain)
    basis, triangle = np.linalg.qr(columns[rows])
    dense_codes, dense_term = _dense_columns(codes, dense, rows)
    sums, products = _cross_products(basis, starts[0], dense_codes, dense_term.size)
    return MixedDesign(
        names=names,
        codes=codes,
        fixed=columns,
        fixed_names=labels,
        chain=chain,
        dense=dense,
        rows=rows,
        starts=starts,
        basis=basis,
        triangle=triangle,
        shared_sums=sums,
        shared_products=products,
        dense_codes=dense_codes,
        dense_term=dense_term,
    )


def _as_codes(labels: Sequence[object] | NDArray[np.generic]) -> IntArray:
    """Number the distinct labels 0..q-1."""
    array = np.asarray(labels)
    if array.dtype == object:
        array = array.astype(str)
    _, codes = np.unique(array, return_inverse=True)
    return np.asarray(codes, dtype=np.intp).ravel()


def _check_fixed(columns: FloatArray, names: tuple[str, ...]) -> None:
    """Refuse aliased fixed columns and designs without residual degrees of freedom."""
    if not np.all(np.isfinite(columns)):
        raise InputError("a fixed effect holds a value that is not finite")
    aliased = find_aliased_columns(columns)
    if aliased:
        listed = ", ".join(names[i] for i in aliased)
        raise FitError(
            "fixed effects cannot be told apart in this design",
            where=listed,
            todo="leave one of the confounded columns out",
        )
    if columns.shape[0] <= columns.shape[1]:
        raise FitError(
            "not more values than fixed effects",
            found=f"{columns.shape[0]} values",
            expected=f"more than {columns.shape[1]}",
        )


def find_aliased_columns(columns: FloatArray) -> tuple[int, ...]:
    """Return the columns that are a linear combination of those before them.

    Parameters
    ----------
    columns : ndarray, shape (n, p)

    Returns
    -------
    tuple of int
    """
    kept = np.empty((columns.shape[0], 0))
    aliased = []
    for index in range(columns.shape[1]):
        column = columns[:, index]
        size = float(np.linalg.norm(column))
        rest = column - kept @ (kept.T @ column)
        rest = rest - kept @ (kept.T @ rest)
        left = float(np.linalg.norm(rest))
        if left <= _ALIAS_TOLERANCE * max(size, np.finfo(float).tiny) or size == 0.0:
            aliased.append(index)
        else:
            kept = np.column_stack([kept, rest / left])
    return tuple(aliased)


def _is_nested(inner: IntArray, outer: IntArray) -> bool:
    """Tell whether every level of ``inner`` occurs with one level of ``outer`` only."""
    pairs = inner.astype(np.int64) * (int(outer.max()) + 1) + outer
    return bool(np.unique(pairs).size == int(inner.max()) + 1)


def _longest_chain(codes: tuple[IntArray, ...]) -> tuple[int, ...]:
    """Chain of nested terms with the most levels in total, finest term first."""
    sizes = [int(code.max()) + 1 for code in codes]
    best: dict[int, tuple[int, ...]] = {}

    def weight(chain: tuple[int, ...]) -> int:
        return sum(sizes[i] for i in chain)

    # Coarse terms first: the chain that starts at a term continues with a coarser one.
    for index in sorted(range(len(codes)), key=lambda i: (sizes[i], -i)):
        tails = [best[other] for other in best if _is_nested(codes[index], codes[other])]
        best[index] = (index, *max(tails, key=weight, default=()))
    return max(best.values(), key=weight)


def _contiguous(codes: tuple[IntArray, ...], chain: tuple[int, ...]) -> tuple[IntArray, tuple[IntArray, ...]]:
    """Order the values so that each level of the chain is one run; give the starts of the runs."""
    rows = np.lexsort(tuple(codes[i] for i in chain))
    starts: list[IntArray] = []
    finest = codes[chain[0]][rows]
    runs = np.flatnonzero(np.r_[True, finest[1:] != finest[:-1]])
    starts.append(runs)
    for _, outer in pairwise(chain):
        coarse = codes[outer][rows][runs]
        change = np.flatnonzero(np.r_[True, coarse[1:] != coarse[:-1]])
        starts.append(change)
        runs = runs[change]
    return rows, tuple(starts)


def _dense_columns(
    codes: tuple[IntArray, ...], dense: tuple[int, ...], rows: IntArray
) -> tuple[IntArray, IntArray]:
    """Column of the dense block for every value, and the term of each column."""
    sizes = [int(codes[i].max()) + 1 for i in dense]
    offsets = np.cumsum([0, *sizes])[: len(sizes)]
    columns = [codes[i][rows] + offset for i, offset in zip(dense, offsets, strict=True)]
    table = np.stack(columns, axis=1) if columns else np.empty((rows.size, 0), dtype=np.intp)
    return table.astype(np.intp), np.repeat(np.asarray(dense, dtype=np.intp), sizes)


def _cross_products(
    basis: FloatArray, starts: IntArray, dense_codes: IntArray, n_dense: int
) -> tuple[FloatArray, FloatArray]:
    """Sums over the finest levels, and products, of dense indicators and basis columns."""
    n_columns = n_dense + basis.shape[1]
    if starts.size * n_columns > _MAX_CELLS:
        raise TooLargeError(
            "the crossed random terms have too many levels",
            found=f"{starts.size} x {n_columns} cells",
            expected=f"at most {_MAX_CELLS}",
            todo="analyse fewer levels at once",
        )
    sums = np.zeros((starts.size, n_columns))
    products = np.zeros((n_columns, n_columns))
    level = np.repeat(np.arange(starts.size), np.diff(np.r_[starts, basis.shape[0]]))
    for term in range(dense_codes.shape[1]):
        column = dense_codes[:, term]
        np.add.at(sums, (level, column), 1.0)
        np.add.at(products[:, n_dense:], column, basis)
        for other in range(dense_codes.shape[1]):
            np.add.at(products, (column, dense_codes[:, other]), 1.0)
    sums[:, n_dense:] = np.add.reduceat(basis, starts, axis=0)
    products[n_dense:, :n_dense] = products[:n_dense, n_dense:].T
    products[n_dense:, n_dense:] = basis.T @ basis
    return sums, products


def find_inestimable_terms(design: MixedDesign) -> dict[str, str]:
    """Name the random terms whose variance this design cannot tell from the rest, and why.

    The quadratic forms of the terms, after taking out the fixed effects, must be linearly
    independent of each other and of the residual.

    Parameters
    ----------
    design : MixedDesign

    Returns
    -------
    dict of str to str
        Term and reason; empty where everything can be estimated.
    """
    reasons: dict[str, str] = {}
    sizes = design.n_levels
    for name, size in zip(design.names, sizes, strict=True):
        if size < 2:
            reasons[name] = f"{name} has one level only, so its variance is not defined"
        elif size == design.n_values:
            reasons[name] = f"{name} has one value per level, so it cannot be told from the residual"
    if reasons:
        return reasons
    gram = quadratic_form_gram(design)
    scale = np.sqrt(np.maximum(np.diag(gram), 0.0))
    # By the trace of the term's own quadratic form, which is linear in rounding errors; the root of
    # its square sum would lift a rounding error of 1e-13 to 1e-7 and let a confounded term pass.
    empty = np.append(gram[:-1, -1] <= _ALIAS_TOLERANCE * design.n_values, False)
    for index in np.flatnonzero(empty[:-1]).tolist():
        name = design.names[index]
        reasons[name] = f"{name} is confounded with the fixed effects"
    if reasons:
        return reasons
    kept: list[int] = [len(design.names)]  # the residual first, then the terms in order
    normalised = gram / np.outer(scale, scale)
    for index, name in enumerate(design.names):
        tried: list[int] = [*kept, index]
        if np.linalg.eigvalsh(normalised[np.ix_(tried, tried)])[0] > 1e-10:
            kept = tried
            continue
        nearest = int(kept[int(np.argmax(normalised[kept, index]))])
        other = (*design.names, "the residual")[nearest]
        alone = normalised[nearest, index] > 1.0 - 1e-9
        rest = "" if alone else " and the other terms"
        reasons[name] = f"{name} cannot be told from {other}{rest} in this design"
    return reasons


def quadratic_form_gram(design: MixedDesign) -> FloatArray:
    """Traces tr(P Zj Zj' P Zk Zk'), shape (K + 1, K + 1), residual last; P removes fixed effects."""
    n_terms = len(design.names)
    order = design.rows
    sums = []
    for code in design.codes:
        total = np.zeros((int(code.max()) + 1, design.n_fixed))
        np.add.at(total, code[order], design.basis)
        sums.append(total)
    gram = np.zeros((n_terms + 1, n_terms + 1))
    for j in range(n_terms):
        gram[j, -1] = gram[-1, j] = design.n_values - float(np.sum(sums[j] ** 2))
        for k in range(j, n_terms):
            size = int(design.codes[k].max()) + 1
            pairs, number = np.unique(
                design.codes[j].astype(np.int64) * size + design.codes[k], return_counts=True
            )
            left, right = np.divmod(pairs, size)
            cross = float(np.sum(number * np.sum(sums[j][left] * sums[k][right], axis=1)))
            square = float(np.sum((sums[j].T @ sums[j]) * (sums[k].T @ sums[k])))
            gram[j, k] = gram[k, j] = float(np.sum(number.astype(float) ** 2)) - 2.0 * cross + square
    gram[-1, -1] = design.n_values - design.n_fixed
    return gram
