"""What can go wrong with the running of tasks, as opposed to the tasks themselves."""

from __future__ import annotations

from cordqa.errors import ConfigError, CordqaError

__all__ = ["ClusterError", "MissingExtraError", "PickleError"]


class PickleError(CordqaError):
    """A task cannot be sent to another process."""

    code = "execute.pickle"


class ClusterError(CordqaError):
    """The cluster cannot be reached or used."""

    code = "execute.cluster"
    exit_status = 2


class MissingExtraError(ConfigError):
    """An option needs packages that are not installed."""

    code = "input.extra"
