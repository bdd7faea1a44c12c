"""The errors of otel-progress.

Exception
└── ProgressError
    ├── InvalidArgument (also a ValueError)   an invalid option
    ├── NoOperation (also a RuntimeError)     no operation runs here
    ├── InvalidState (also a RuntimeError)    started twice, ended before the start
    │   └── DuplicateOperation                the id is alive in this process
    ├── MissingDependency (also an ImportError)  an extra is not installed
    ├── CheckpointError                       a checkpoint can't be saved or read
    │   ├── CheckpointMismatch                it belongs to other code or other arguments
    │   ├── OperationHeld                     another process works on the operation
    │   └── LeaseLost                         another process has taken over the operation
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


class CheckpointError(ProgressError):
    """A checkpoint can't be saved or read; the message says why, and what to do.

    Attributes:
        passing: whether the cause may pass by itself, such as a server that is restarted; writes are then tried again
            for 15 s before the job is told.
    """

    passing = False


class CheckpointMismatch(CheckpointError):
    """The checkpoint belongs to other code or other arguments; the message names both, and how to go on."""


class OperationHeld(CheckpointError):
    """Another process holds the lease of the operation; the message says who, since when, and until when."""


class LeaseLost(CheckpointError):
    """This process lost the lease of its operation, and can't save anything of it any more: stop the work."""


class OperationCancelled(ProgressError):
    """The operation was asked to stop; it ends as cancelled."""
