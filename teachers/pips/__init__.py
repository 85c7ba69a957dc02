"""PIPs and PIPs++: networks, and the teachers that call them."""

from teachers.pips.pips import Pips, PipsConfig
from teachers.pips.pips2 import Pips2, Pips2Config
from teachers.pips.teacher import Pips2Teacher, PipsTeacher

__all__ = [
    "Pips",
    "Pips2",
    "Pips2Config",
    "Pips2Teacher",
    "PipsConfig",
    "PipsTeacher",
]
