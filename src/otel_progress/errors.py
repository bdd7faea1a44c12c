"""The errors of otel-progress.

Exception
└── ProgressError
    ├── InvalidArgument (also a ValueError)   an option that can't be meant
    ├── NoOperation (also a RuntimeError)     nothing is running here
    ├── InvalidState (also a RuntimeError)    started twice, ended before the start
    │   └── DuplicateOperation                the id is alive in this process
    ├── MissingDependency (also an ImportError)  an extra is not installed
    └── OperationCancelled                    raised by raise_if_cancelled()
"""

from __future__ import annotations


class ProgressError(Exception):
    """The root of every error that otel-progress raises by itself."""


class InvalidArgument(ProgressError, ValueError):
    """An option has a value that can't be meant; the text says which would do."""


class NoOperation(ProgressError, RuntimeError):
    """No operation is running in this thread and task."""


class InvalidState(ProgressError, RuntimeError):
    """A handle was used in a state that does not allow it."""


class DuplicateOperation(InvalidState):
    """An operation with the same id is alive in this process."""


class MissingDependency(ProgressError, ImportError):
    """A feature needs a package that is not installed; the text names the extra."""


class OperationCancelled(ProgressError):
    """The operation was asked to stop; it ends as cancelled."""
