"""Point trackers behind one interface: the classical ones, the learnt ones, and yours.

    teacher = teachers.load("lk")
    tracks = teacher.track(frames, queries)  # uint8 [T, H, W, 3], [N, 3] of (t, x, y)  ->  Tracks

Read `interface.py` and `tracks.py` first, `registry.py` next; then one folder per family of
trackers. Names below are imported when they are first used.
"""

from typing import TYPE_CHECKING

from teachers.lazy import lazy_names

if TYPE_CHECKING:
    from teachers.errors import (
        CheckpointError,
        ConfigError,
        FullStorageError,
        InstallationError,
        ShardError,
        TapdistillError,
        TeacherError,
        TransientError,
        VideoError,
    )
    from teachers.info import Mode, TeacherInfo
    from teachers.interface import Teacher
    from teachers.loading import load
    from teachers.registry import TeacherEntry, entries, names
    from teachers.stream import Stream
    from teachers.tracks import DenseFlow, Tracks, VisibleRule
    from teachers.verifier import load_verifier

_MODULES = {
    "CheckpointError": "teachers.errors",
    "ConfigError": "teachers.errors",
    "DenseFlow": "teachers.tracks",
    "FullStorageError": "teachers.errors",
    "InstallationError": "teachers.errors",
    "Mode": "teachers.info",
    "ShardError": "teachers.errors",
    "Stream": "teachers.stream",
    "TapdistillError": "teachers.errors",
    "Teacher": "teachers.interface",
    "TeacherEntry": "teachers.registry",
    "TeacherError": "teachers.errors",
    "TeacherInfo": "teachers.info",
    "Tracks": "teachers.tracks",
    "TransientError": "teachers.errors",
    "VideoError": "teachers.errors",
    "VisibleRule": "teachers.tracks",
    "entries": "teachers.registry",
    "load": "teachers.loading",
    "load_verifier": "teachers.verifier",
    "names": "teachers.registry",
}

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DenseFlow",
    "FullStorageError",
    "InstallationError",
    "Mode",
    "ShardError",
    "Stream",
    "TapdistillError",
    "Teacher",
    "TeacherEntry",
    "TeacherError",
    "TeacherInfo",
    "Tracks",
    "TransientError",
    "VideoError",
    "VisibleRule",
    "entries",
    "load",
    "load_verifier",
    "names",
]

__getattr__ = lazy_names(__name__, _MODULES)
