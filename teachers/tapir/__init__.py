"""TAPIR, BootsTAPIR, and causal BootsTAPIR: the network, and the teachers that call it."""

from teachers.tapir.config import TapirConfig
from teachers.tapir.network import Tapir, TapirSteps
from teachers.tapir.stream import CausalBootsTapirTeacher
from teachers.tapir.teacher import BootsTapirTeacher, TapirTeacher

__all__ = [
    "BootsTapirTeacher",
    "CausalBootsTapirTeacher",
    "Tapir",
    "TapirConfig",
    "TapirSteps",
    "TapirTeacher",
]
