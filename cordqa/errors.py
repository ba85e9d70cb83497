"""Exception tree.

Each class carries a stable ``code``, so that scripts can tell failures apart without
parsing sentences, and the exit status with which the command line ends.

Exit status: 0 finished and passed; 1 some of the work failed; 2 wrong usage or
unreadable input; 3 finished, and a check failed.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AmbiguousLabelsError",
    "ConfigError",
    "CordqaError",
    "DefinitionError",
    "EmptyInputError",
    "FitError",
    "InputError",
    "LocateError",
    "OutputError",
    "TableError",
    "TooLargeError",
    "UnreadableFileError",
]


class CordqaError(Exception):
    """Base of every error that cordqa raises on purpose.

    Parameters
    ----------
    what : str
        What went wrong, in one clause.
    where : str, optional
        File, series, sphere, column or line that it concerns.
    found, expected : str, optional
        The two sides of the comparison that failed.
    todo : str, optional
        What the reader can do about it.

    Examples
    --------
    >>> str(InputError("no DICOM image", where="scans/", todo="give another folder"))
    'scans/: no DICOM image; give another folder'
    """

    code: ClassVar[str] = "error"
    exit_status: ClassVar[int] = 1

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        found: str = "",
        expected: str = "",
        todo: str = "",
    ) -> None:
        self.what = what
        self.where = where
        self.found = found
        self.expected = expected
        self.todo = todo
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        sentence = f"{self.where}: {self.what}" if self.where else self.what
        if self.found and self.expected:
            sentence += f" (found {self.found}, expected {self.expected})"
        elif self.found:
            sentence += f" (found {self.found})"
        elif self.expected:
            sentence += f" (expected {self.expected})"
        if self.todo:
            sentence += f"; {self.todo}"
        # One line always: a header may carry line breaks into any of the parts.
        return " ".join(sentence.split())


class InputError(CordqaError):
    """The input cannot be used."""

    code = "input"
    exit_status = 2


class EmptyInputError(InputError):
    """Nothing usable was found in the input."""

    code = "input.empty"


class UnreadableFileError(InputError):
    """One file is damaged, truncated or not what its header claims."""

    code = "input.unreadable"


class TooLargeError(InputError):
    """A file claims more than the configured limits; refused before it is allocated."""

    code = "input.too-large"


class TableError(InputError):
    """A table lacks a column, or a cell cannot be understood."""

    code = "input.table"


class DefinitionError(InputError):
    """A phantom, tolerance or protocol definition is not valid."""

    code = "input.definition"


class ConfigError(InputError):
    """An option or a configuration value is not usable."""

    code = "input.option"


class OutputError(CordqaError):
    """A result cannot be written."""

    code = "output"
    exit_status = 2


class FitError(CordqaError):
    """A model cannot be fitted to these data at all (not: one voxel failed)."""

    code = "fit"


class LocateError(CordqaError):
    """The phantom was not found, or not with enough confidence."""

    code = "locate"


class AmbiguousLabelsError(LocateError):
    """The spheres were found, but two labellings fit almost equally well."""

    code = "locate.ambiguous"
