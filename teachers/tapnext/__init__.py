"""TAPNext, BootsTAPNext, TAPNext++: one causal network that goes through video with a state. Read
`network.py` first."""

from teachers.tapnext.network import TapNext, TapNextConfig
from teachers.tapnext.teacher import TapNext512Teacher, TapNextTeacher

__all__ = [
    "TapNext",
    "TapNext512Teacher",
    "TapNextConfig",
    "TapNextTeacher",
]
