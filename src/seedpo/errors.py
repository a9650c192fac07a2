"""Errors that a person can mend: the command line prints them as one line, without a traceback."""

from __future__ import annotations


class SeedpoError(Exception):
    """Something that the user can put right; the message says how."""


class ConfigError(SeedpoError, ValueError):
    """A configuration that cannot be run."""


class DataError(SeedpoError, ValueError):
    """An input file, row or image that cannot be used."""


class RunFolderError(SeedpoError):
    """A run folder that does not fit what was asked."""


class TrainingDiverged(SeedpoError):
    """A loss or gradient that is not finite."""
