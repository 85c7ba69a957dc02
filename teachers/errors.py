"""Errors that a user can do something about, as one small tree.

    TapdistillError
    ├── ConfigError      a setting, a flag, or a query that cannot be right
    ├── VideoError       a video that cannot be decoded or used; carries the `reason` of its row
    ├── ShardError       a data set, a shard, or a commit record that is not what it should be
    ├── CheckpointError  weights that do not belong to the architecture, or are missing
    ├── TeacherError     a teacher that cannot track this clip
    ├── InstallationError    this installation's own fault, or a bug in the code: never the data's
    └── TransientError   the machine or the network, not the data: try again later
        ├── FullStorageError    a disk, or a share of one, has no room left: the job stops
        └── DeviceError     a GPU failed: to this process it may answer no more

The command line prints them as one sentence and exits with 1; everything else shows its traceback.
They live here because `teachers` is the bottom of the import order.
"""

from __future__ import annotations


class TapdistillError(Exception):
    """Base of every expected error. The message says what, which file, why, and what to do."""


class ConfigError(TapdistillError):
    """A setting, flag, or query that cannot be right."""


class VideoError(TapdistillError):
    """A video that cannot be decoded or used.

    `reason` is one word of `labeler.reasons.REASONS`: it becomes the row of the video.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.reason, str(self))


class ShardError(TapdistillError):
    """A data set, shard, or commit record that is missing, broken, or of another schema."""


class CheckpointError(TapdistillError):
    """Weights that are missing or belong to another architecture."""


class TeacherError(TapdistillError):
    """A teacher that cannot track this clip; its tracks are then NaN, and the clip has a row."""


class TransientError(TapdistillError):
    """Not the data's fault, but that of the network, a disk, the memory, or a lost worker: the work
    stays open and is done again."""


class FullStorageError(TransientError):
    """A disk, or this user's quota on it, is full, or the disk is read-only: no other unit would
    fare better, so the job stops at once."""


class DeviceError(TransientError):
    """A GPU, or what this process has of it, has failed. Often all later calls of the process fail
    too, whatever the clip; another process may do better."""


class InstallationError(TapdistillError):
    """The installation's own fault, or a bug in the code: never a video's, so never a row."""


OWN_FAULTS = (TypeError, AttributeError, ImportError, NameError, SyntaxError)
"""What Python raises where code and its packages do not fit together, whatever the data are."""
