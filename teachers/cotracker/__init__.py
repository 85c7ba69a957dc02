"""CoTracker 2.1 and CoTracker3: networks, and the teachers that call them."""

from teachers.cotracker.cotracker2 import CoTracker2, CoTracker2Config
from teachers.cotracker.cotracker3 import (
    CoTracker3,
    CoTracker3Config,
    CoTracker3Network,
    CoTracker3Online,
)
from teachers.cotracker.offline import CoTracker3OfflineTeacher
from teachers.cotracker.online import CoTracker2Teacher, CoTracker3OnlineTeacher
from teachers.cotracker.refinements import Refinements
from teachers.cotracker.teacher import CoTrackerTeacher

__all__ = [
    "CoTracker2",
    "CoTracker2Config",
    "CoTracker2Teacher",
    "CoTracker3",
    "CoTracker3Config",
    "CoTracker3Network",
    "CoTracker3OfflineTeacher",
    "CoTracker3Online",
    "CoTracker3OnlineTeacher",
    "CoTrackerTeacher",
    "Refinements",
]
