"""LocoTrack: the network, and the teachers that call it."""

from teachers.locotrack.network import LocoTrack, LocoTrackConfig
from teachers.locotrack.teacher import LocoTrackSmallTeacher, LocoTrackTeacher

__all__ = [
    "LocoTrack",
    "LocoTrackConfig",
    "LocoTrackSmallTeacher",
    "LocoTrackTeacher",
]
