"""``cordqa protocol infer``: from a dataset to the draft of a protocol file."""

from __future__ import annotations

import re
from pathlib import Path

from cordqa.errors import ConfigError, EmptyInputError
from cordqa.io.files import printable
from cordqa.io.results import write_text
from cordqa.protocol.definition import protocol_from_data
from cordqa.resources import parse_yaml
from cordqa.workflow.protocol.draft_text import write_draft
from cordqa.workflow.protocol.infer import draft_protocol
from cordqa.workflow.protocol.observe import observe_dataset

__all__ = ["draft_dataset"]

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def draft_dataset(data: Path, *, name: str = "draft", out: Path | None = None) -> tuple[str, str]:
    """Draft a protocol from the most common values of a dataset.

    Parameters
    ----------
    data : Path
        BIDS dataset, JSON sidecars, or DICOM files.
    name : str
        Id of the protocol: small letters, digits, ``-``, ``_`` and dots.
    out : Path, optional
        File to write.

    Returns
    -------
    text : str
        The YAML file.
    summary : str
        What it rests on, in a sentence.

    Raises
    ------
    ConfigError
        If the name cannot be the id of a protocol, or the file would not be YAML, or exists already.
    EmptyInputError
        If no series records a parameter.
    """
    if not _ID.fullmatch(name):
        raise ConfigError(
            "cannot be the id of a protocol",
            where="name",
            found=repr(printable(name, limit=80)),
            expected="small letters, digits, '-', '_' and dots",
        )
    if out is not None and out.suffix.lower() not in (".yaml", ".yml"):
        raise ConfigError(
            "a protocol file ends in .yaml", where=str(out), todo="give a name such as draft.yaml"
        )
    if out is not None and out.exists():
        # A draft is there to be edited by hand: writing over it would lose that work.
        raise ConfigError("exists already", where=str(out), todo="give another name, or remove the file")
    observed = observe_dataset(data)
    draft = draft_protocol(observed.series)
    if not draft.series:
        raise EmptyInputError(
            "no header records a parameter",
            where=printable(str(data)),
            found=f"{len(observed.series)} series",
        )
    text = write_draft(draft, name=name)
    # What is written must load: better an error here than in the editor of the reader.
    protocol_from_data(parse_yaml(text))
    if out is not None:
        write_text(out, text)
    count = len(observed.outcomes)
    unread = f"; {count} file{'' if count == 1 else 's'} could not be read" if count else ""
    where = f" in {out}" if out is not None else ""
    summary = (
        f"{len(draft.series)} series from {draft.n_series} headers of {draft.n_sessions} sessions{where}"
        f"{unread}; read every line before use"
    )
    return text, summary
