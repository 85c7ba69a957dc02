"""Finite: a network whose weights are broken computes NaN, and must not pass for one that has
nothing to say."""

from __future__ import annotations

from torch import Tensor

from teachers.errors import TeacherError


def require_finite(
    values: Tensor, name: str
) -> None:  # [..., C], a row a point that the network had to answer for
    """A TeacherError that names the teacher, unless every value is a finite number."""
    broken = ~values.isfinite().all(-1)
    if broken.any():
        raise TeacherError(
            f"the network of teacher {name!r} computed NaN or infinity for {int(broken.sum())} of "
            f"{broken.numel()} points: its weights are broken. See what is wrong with their file: "
            f"`tapdistill teachers check {name} FILE`."
        )
