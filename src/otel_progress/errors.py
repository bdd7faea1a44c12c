"""The errors of otel-progress.

Exception
└── ProgressError
    ├── InvalidArgument (also a ValueError)   an invalid option
    ├── NoOperation (also a RuntimeError)     no operation runs here
    ├── InvalidState (also a RuntimeError)    started twice, ended before the start
    │   └── DuplicateOperation                the id is alive in this process
    ├── MissingDependency (also an ImportError)  an extra is not installed
    └── OperationCancelled                    raised by raise_if_cancelled()
"""

from __future__ import annotations


class ProgressError(Exception):
    """The base class of all errors that otel-progress raises."""


class InvalidArgument(ProgressError, ValueError):
    """An option has an invalid value; the message says what is allowed."""


class NoOperation(ProgressError, RuntimeError):
    """No operation is running in this thread and task."""


class InvalidState(ProgressError, RuntimeError):
    """A handle was used in a state that does not allow it."""


class DuplicateOperation(InvalidState):
    """An operation with the same id is alive in this process."""


class MissingDependency(ProgressError, ImportError):
    """A feature needs a package that is not installed; the message names the extra."""


class OperationCancelled(ProgressError):
    """The operation was asked to stop; it ends as cancelled."""
