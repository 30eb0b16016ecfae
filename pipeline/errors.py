"""The ways in which things go wrong, each with its own consequence."""

from __future__ import annotations

__all__ = ["BadInputError", "FacadeError", "StaleInputError", "UsageError"]


class FacadeError(RuntimeError):
    """A command cannot go on: exit code 1. The message is one sentence: what, where, what to do."""


class UsageError(ValueError):
    """The command was called wrongly, or its settings are wrong: exit code 2."""


class BadInputError(ValueError):
    """One image or annotation cannot be used: it becomes a `rejected` row and the stage continues."""


class StaleInputError(BadInputError):
    """A file is not what it was when it was indexed: rejected, and tried again by the next run."""
