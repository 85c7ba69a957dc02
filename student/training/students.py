"""Students: those that can be trained, by the name that `--student` takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from student.training.cotracker import COTRACKERS
from student.training.interface import Student
from student.training.locotrack import LOCOTRACKS
from student.training.tapir import TAPIRS

Kind = Literal[
    "offline",
    "online",
    "tapir",
    "bootstapir",
    "bootstapir-causal",
    "locotrack-base",
    "locotrack-small",
]
KINDS: tuple[Kind, ...] = get_args(Kind)

STUDENTS: Mapping[str, Student] = {**COTRACKERS, **TAPIRS, **LOCOTRACKS}
