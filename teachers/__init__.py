"""Point trackers behind one interface: the classical ones, the learnt ones, and yours.

    teacher = teachers.load("lk")
    tracks = teacher.track(frames, queries)  # uint8 [T, H, W, 3], [N, 3] of (t, x, y)  ->  Tracks

Read `interface.py` and `tracks.py` first, `registry.py` next; then one folder per family of
trackers.
"""

from teachers.errors import (
    CheckpointError,
    ConfigError,
    ShardError,
    SurroundingsError,
    TapdistillError,
    TeacherError,
    VideoError,
)
from teachers.interface import Mode, Teacher, TeacherInfo
from teachers.loading import load
from teachers.registry import TeacherEntry, entries, names
from teachers.tracks import DenseFlow, Tracks, VisibleRule

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DenseFlow",
    "Mode",
    "ShardError",
    "SurroundingsError",
    "TapdistillError",
    "Teacher",
    "TeacherEntry",
    "TeacherError",
    "TeacherInfo",
    "Tracks",
    "VideoError",
    "VisibleRule",
    "entries",
    "load",
    "names",
]
