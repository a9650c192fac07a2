"""Errors that a user can fix: the command line prints them as one line, without a traceback."""

from __future__ import annotations


class SeedpoError(Exception):
    """A problem that the user can fix; the message says how.

    Attributes:
        on_every_process: whether all processes of the run raise it, so that one of them is enough to print it.
        exit_status: of the command that it ends.
    """

    on_every_process: bool = False
    exit_status: int = 1


class ConfigError(SeedpoError, ValueError):
    """A configuration that cannot be run."""


class DataError(SeedpoError, ValueError):
    """An input file, row or image that cannot be used."""


class CacheError(SeedpoError):
    """A cache folder that cannot be used."""


class StreamError(SeedpoError):
    """A stream of data that broke off; unlike a row that cannot be read, it is not passed over."""


class RunFolderError(SeedpoError):
    """A run folder that does not fit the command."""


class TrainingDiverged(SeedpoError):
    """A loss or gradient that is not finite."""


class StoppedByAlarm(SeedpoError):
    """An alarm whose action is `stop` ended the run; it wrote a checkpoint from which it can continue."""

    exit_status = 3
