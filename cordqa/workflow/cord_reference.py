"""Reference files of controls: built once from a table, read by every run that compares people with them.

A reference file holds models (expected value, scatter, ages, vendors), not people, so it can be handed on
where the table it was made from cannot.  It names its source, the licence of that source, and a hash.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cordqa import __version__
from cordqa.cord.normative import NormativeModel
from cordqa.errors import ConfigError, UnreadableFileError
from cordqa.io.files import read_small
from cordqa.io.results import write_text
from cordqa.workflow.cord_normative import NormativeTable, read_controls

__all__ = ["build_reference", "read_reference", "write_reference"]

FORMAT = "cordqa normative reference"
_MAX_BYTES = 16 * 1024 * 1024
#: Relative asymmetry or negative variance beyond this is no rounding.
_ROUNDING = 1e-6


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    quantity: str
    level: str
    coefficients: list[float] = Field(min_length=3, max_length=64)
    unscaled_covariance: list[list[float]]
    residual_sd: float = Field(gt=0)
    freedom: int = Field(ge=1)
    n: int = Field(ge=1)
    mean_age: float
    age_range: tuple[float, float]
    vendors: list[str]

    def fitted(self, source: str) -> NormativeModel:
        """Return the model, or refuse numbers that no fit can have given."""
        covariance: NDArray[np.float64] = np.asarray(self.unscaled_covariance, dtype=float)
        size = 3 + max(0, len(self.vendors) - 1)
        shapes_fit = len(self.coefficients) == size and covariance.shape == (size, size)
        if not shapes_fit or not np.allclose(covariance, covariance.T, rtol=_ROUNDING, atol=0):
            raise ValueError(f"{self.quantity} {self.level}: coefficients and covariance do not fit together")
        if np.linalg.eigvalsh(covariance).min() <= 0:
            raise ValueError(f"{self.quantity} {self.level}: the covariance is not that of a fit")
        return NormativeModel(
            coefficients=np.asarray(self.coefficients, dtype=float),
            unscaled_covariance=covariance,
            residual_sd=self.residual_sd,
            freedom=self.freedom,
            n=self.n,
            mean_age=self.mean_age,
            age_range=self.age_range,
            vendors=tuple(self.vendors),
            source=source,
        )


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    format: Literal["cordqa normative reference"]
    version: Literal[1]
    cordqa: str
    source: str
    source_sha256: str
    licence: str
    notes: list[str]
    models: list[_Model] = Field(min_length=1)


def build_reference(
    table: Path,
    out: Path,
    *,
    licence: str,
    notes: tuple[str, ...] = (),
    tell: Callable[[str], None] | None = None,
) -> NormativeTable:
    """Fit models to a table of controls and write them as a reference file.

    Parameters
    ----------
    table : Path
        One row per control and level; see :func:`cordqa.workflow.cord_normative.read_normative`.
    out : Path
        File to write; its name ends in ``.json``.
    licence : str
        Under what the source may be used, and by whom it is to be credited; it must not be empty.
    notes : tuple of str
        How controls were scanned and measured.
    tell : callable, optional
        Told what was left out.

    Raises
    ------
    ConfigError
        If the name of the file or the licence is missing.
    TableError
        If the table cannot be used.
    OutputError
        If the file cannot be written.
    """
    if out.suffix != ".json":
        raise ConfigError("a reference file ends in .json", where="OUT", found=out.name)
    if not licence.strip():
        raise ConfigError(
            "the source needs a licence", where="licence", todo="say under what its data may be used"
        )
    found, said = read_controls(table)
    for line in said:
        if tell is not None:
            tell(line)
    write_reference(found, out, licence=licence, notes=(*notes, *said))
    return found


def write_reference(table: NormativeTable, out: Path, *, licence: str, notes: tuple[str, ...] = ()) -> None:
    """Write models as a reference file; it appears complete or not at all."""
    content: dict[str, Any] = {
        "format": FORMAT,
        "version": 1,
        "cordqa": __version__,
        "source": table.name,
        "source_sha256": table.sha256,
        "licence": licence.strip(),
        "notes": list(notes),
        "models": [_plain(key, model) for key, model in sorted(table.models.items())],
    }
    write_text(out, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _plain(key: tuple[str, str], model: NormativeModel) -> dict[str, Any]:
    return {
        "quantity": key[0],
        "level": key[1],
        "coefficients": model.coefficients.tolist(),
        "unscaled_covariance": model.unscaled_covariance.tolist(),
        "residual_sd": model.residual_sd,
        "freedom": model.freedom,
        "n": model.n,
        "mean_age": model.mean_age,
        "age_range": list(model.age_range),
        "vendors": list(model.vendors),
    }


def read_reference(path: Path) -> NormativeTable:
    """Read a reference file.

    Raises
    ------
    UnreadableFileError
        If it is none, or holds numbers that no fit can have given.
    """
    import hashlib

    raw = read_small(path, limit=_MAX_BYTES)
    todo = "build it with: cordqa normative build TABLE OUT.json"
    try:
        content = _File.model_validate_json(raw)
        source = f"{content.source} ({content.licence})"
        models: Mapping[tuple[str, str], NormativeModel] = {
            (one.quantity, one.level): one.fitted(source) for one in content.models
        }
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "file"
        raise UnreadableFileError(
            f"is no reference file of cordqa: {place}: {first['msg']}", where=path.name, todo=todo
        ) from error
    except ValueError as error:
        raise UnreadableFileError(f"cannot be used: {error}", where=path.name, todo=todo) from error
    return NormativeTable(models=models, name=source, sha256=hashlib.sha256(raw).hexdigest())
