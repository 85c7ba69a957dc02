"""AllTracker: the network, and the teachers that call it."""

from teachers.alltracker.network import AllTracker, AllTrackerConfig
from teachers.alltracker.teacher import AllTrackerTeacher, AllTrackerTinyTeacher

__all__ = [
    "AllTracker",
    "AllTrackerConfig",
    "AllTrackerTeacher",
    "AllTrackerTinyTeacher",
]
