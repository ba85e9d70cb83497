"""Fit a volume piece by piece, here or in other processes, and join the pieces.

A piece bounds the memory of a fit, and is the unit of progress.  A voxelwise model gives the same
answer whatever the pieces.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import FitError
from cordqa.models.maps import Attachments, FittedMaps, Reasons
from cordqa.workflow.fit.data import FitData
from cordqa.workflow.fit.registry import FitModel

__all__ = ["CHUNK_VOXELS", "Advance", "fit_voxels", "join_maps"]

Array = NDArray[np.float64]
#: Told how many voxels of how many are done.
Advance = Callable[[int, int], None]
#: Voxels fitted together.
CHUNK_VOXELS = 16_384
#: Libraries read these when they are loaded, so they are set before a process starts.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
#: Chunks per process that wait for their turn: more would only hold memory.
_WAITING = 2


def fit_voxels(
    model: FitModel,
    data: FitData,
    *,
    n_procs: int = 1,
    chunk_voxels: int = CHUNK_VOXELS,
    advance: Advance | None = None,
) -> FittedMaps:
    """Fit a list of voxels, shape (m, n), or a whole volume where the model wants one.

    Maps come as lists of the voxels of the mask either way.

    Parameters
    ----------
    model : FitModel
    data : FitData
    n_procs : int
        Processes, each with one thread.
    chunk_voxels : int
    advance : callable, optional
        Told how many voxels are done.

    Raises
    ------
    FitError
        If a process is lost, or the model breaks its contract.
    CordqaError
        What the model refuses.
    """
    tell = advance or (lambda _done, _total: None)
    ready = data if model.prepare is None else model.prepare(data)
    if not model.voxelwise:
        found = _inside(model.fit(ready), data.mask)
        tell(int(data.mask.sum()), int(data.mask.sum()))
        return found
    total = data.signal.shape[0]
    starts = range(0, total, chunk_voxels)
    chunks = (ready.rows(slice(at, at + chunk_voxels)) for at in starts)
    workers = max(1, min(n_procs, len(starts)))
    results = map(model.fit, chunks) if workers == 1 else _apart(model, chunks, workers)
    parts: list[FittedMaps] = []
    done = 0
    tell(0, total)
    for part in results:
        parts.append(part)
        done += part.reasons.codes.size
        tell(done, total)
    return join_maps(parts)


def _inside(maps: FittedMaps, mask: NDArray[np.bool_]) -> FittedMaps:
    """Turn maps of a volume into lists of the voxels of the mask.

    Raises
    ------
    FitError
        If a map has another shape than the volume.
    """
    arrays = [*maps.values.values(), *maps.standard_errors.values(), *maps.flags.values()]
    codes = [reasons.codes for reasons in (maps.reasons, *maps.own_reasons.values())]
    if any(array.shape != mask.shape for array in (*arrays, *codes)):
        raise FitError("the model gave a map in another shape than the images", expected=f"{mask.shape}")
    return replace(
        maps,
        values={name: array[mask] for name, array in maps.values.items()},
        standard_errors={name: array[mask] for name, array in maps.standard_errors.items()},
        reasons=replace(maps.reasons, codes=maps.reasons.codes[mask]),
        own_reasons={name: replace(one, codes=one.codes[mask]) for name, one in maps.own_reasons.items()},
        flags={text: array[mask] for text, array in maps.flags.items()},
        vectors={name: array[mask] for name, array in maps.vectors.items()},
        attached=_attached(maps.attached, mask),
    )


def _attached(found: Attachments | None, mask: NDArray[np.bool_]) -> Attachments | None:
    """Bring draws, zeros and replicas to the voxels of the mask; masks and images stay volumes."""
    if found is None:
        return None
    volumes = [*found.masks.values(), *(one.data for one in found.images.values())]
    if any(array.shape != mask.shape for array in volumes):
        raise FitError("the model gave an image in another shape than the images", expected=f"{mask.shape}")
    return replace(
        found,
        draws={name: draws[:, mask] for name, draws in found.draws.items()},
        zeros={name: where[mask] for name, where in found.zeros.items()},
        replicas={name: values[mask] for name, values in found.replicas.items()},
    )


def _apart(model: FitModel, chunks: Iterator[FitData], workers: int) -> Iterator[FittedMaps]:
    """Fit in other processes and yield in order, never holding more than a few chunks."""
    import multiprocessing

    waiting: deque[Future[FittedMaps]] = deque()
    with _single_threaded():
        pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
        try:
            for chunk in chunks:
                waiting.append(pool.submit(model.fit, chunk))
                if len(waiting) >= workers * _WAITING:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise FitError(
                "a process was lost, probably for want of memory", todo="use fewer processes (--n-procs)"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _single_threaded() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def join_maps(parts: Sequence[FittedMaps]) -> FittedMaps:
    """Join the maps of consecutive voxels.

    Raises
    ------
    FitError
        If the pieces do not hold the same maps.
    """
    if not parts:
        raise FitError("there is no voxel to fit")
    first = parts[0]
    if len(parts) == 1:
        return first
    if any(part.values.keys() != first.values.keys() or part.units != first.units for part in parts):
        raise FitError("the model gave different maps for different voxels")
    errors = {name for part in parts for name in part.standard_errors}
    own = {name for part in parts for name in part.own_reasons}
    flags = dict.fromkeys(text for part in parts for text in part.flags)
    return FittedMaps(
        model=first.model,
        values={name: np.concatenate([part.values[name] for part in parts]) for name in first.values},
        units=first.units,
        standard_errors={
            name: np.concatenate([_error_of(part, name) for part in parts]) for name in sorted(errors)
        },
        reasons=_join_reasons([part.reasons for part in parts]),
        own_reasons={name: _join_reasons([part.reason_of(name) for part in parts]) for name in sorted(own)},
        flags={text: np.concatenate([_flag_of(part, text) for part in parts]) for text in flags},
        vectors={name: np.concatenate([part.vectors[name] for part in parts]) for name in first.vectors},
        notices=tuple(dict.fromkeys(text for part in parts for text in part.notices)),
        warnings=tuple(dict.fromkeys(text for part in parts for text in part.warnings)),
    )


def _error_of(part: FittedMaps, name: str) -> Array:
    found = part.standard_errors.get(name)
    return np.full(part.reasons.codes.shape, np.nan) if found is None else found


def _flag_of(part: FittedMaps, text: str) -> NDArray[np.bool_]:
    found = part.flags.get(text)
    return np.zeros(part.reasons.codes.shape, dtype=bool) if found is None else found


def _join_reasons(parts: Sequence[Reasons]) -> Reasons:
    """Give all pieces one table of sentences."""
    texts = tuple(dict.fromkeys(text for part in parts for text in part.texts))
    codes = [
        np.array([texts.index(text) for text in part.texts], dtype=np.uint8)[part.codes] for part in parts
    ]
    return Reasons(codes=np.concatenate(codes), texts=texts)
