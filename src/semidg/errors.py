"""Errors that a user can cause. Each message names the file or the value and says what to change."""

from __future__ import annotations


class SemidgError(Exception):
    """Base of all errors of this package; the command line prints its text and exits with code 2."""


class ConfigError(SemidgError):
    """A value of the configuration or of the command line is wrong."""


class DataError(SemidgError):
    """A file of a data set is missing, unreadable or does not fit the others."""


class SplitError(SemidgError):
    """Split lists do not fit the data, or a split cannot be made."""


class RunError(SemidgError):
    """A run folder or a bundle is missing, of another version or damaged."""


class NonFiniteLossError(SemidgError):
    """A loss term became NaN or infinite during training."""
