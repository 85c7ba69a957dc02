"""Interface: the one interface of every tracker, with frames and queries in and tracks out.

In   frames uint8 [T, H, W, 3] RGB, queries [N, 3] as (t, x, y).
Out  `Tracks`: xy [N, T, 2], visibility [N, T], confidence [N, T].

A point is (x, y) in pixels of the given frames; an integer is a pixel CENTRE, as in OpenCV and
CoTracker. A model's own raster, range, and order stay inside its adapter. What a teacher does not
know is NaN: in frames that its mode does not track, and where the model has no visibility or no
confidence. `TeacherInfo.visible_rule` says how to turn both into a flag; whoever reads the tracks
applies it.
"""

from __future__ import annotations

import abc
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from teachers.errors import ConfigError
from teachers.info import TeacherInfo
from teachers.tracks import DenseFlow, Tracks, checked_answer, checked_frames, checked_queries

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from teachers.stream import Stream

    Settings = TypeVar("Settings", bound=DataclassInstance)

NAME = re.compile(r"[a-z0-9-]+")
RESERVED_NAMES = frozenset({"queries", "labels", "verdict"})


class Teacher(abc.ABC):
    """A point tracker. Subclasses define `info` and `_track`; `track` checks what goes in and what
    comes out.

    The attributes of the class say what a tracker can do, so that it can be asked before it has its
    weights. `info` takes from them what it does not state itself.
    """

    licence: ClassVar[str] = "see its package"
    """SPDX id of the licence that binds who uses the tracks: that of the weights, or of the code
    where there are none."""
    commercial_use: ClassVar[bool | None] = None
    """Whether that licence allows commercial use; None: whatever is known about the SPDX id
    (`teachers.spdx`)."""
    streams: ClassVar[bool] = False
    """Whether it has a `stream`, though perhaps not in every mode."""
    tracks_jointly: ClassVar[bool] = False
    """Whether the points of one call see each other, so that a track depends on which others there
    are."""
    knows_hidden_points: ClassVar[bool] = False
    """Whether it is trained to say where a point is while something covers it, so that a student
    may learn those positions from it."""
    evidence: ClassVar[str] = ""
    """What its tracks rest on, such as "patch-alignment", "flow", or "network:cotracker3". Teachers
    with equal evidence fail together, and count as one opinion. Empty: like no other teacher."""

    @property
    def info(self) -> TeacherInfo:
        """Which tracker this is, as every sample stores it; a subclass sets it when it is made."""
        return self._info

    @info.setter
    def info(self, info: TeacherInfo) -> None:
        self._info = info.completed(type(self))

    def track(self, frames: np.ndarray, queries: np.ndarray, seed: int = 0) -> Tracks:
        """Tracks of all queries over all frames.

        Args:
            frames: uint8 [T, H, W, 3] RGB, T >= 1.
            queries: [N, 3] as (t, x, y); t is a whole frame index in [0, T), (x, y) lies inside the
                frame: -0.5 <= x <= W - 0.5, -0.5 <= y <= H - 0.5. N may be 0.
            seed: for whatever the teacher draws at random (support points); equal seeds give equal
                tracks.

        Returns:
            `Tracks` with N rows and T columns, float32.

        Raises:
            ConfigError: frames or queries are not as above; the message names the first bad one.
            TeacherError: the answer cannot be right, see `checked_answer`.
        """
        frames = checked_frames(frames)
        queries = checked_queries(queries, frames.shape)
        n, t = len(queries), len(frames)
        if n == 0:
            return Tracks.nan(0, t)
        with self.computing():
            tracks = self._track(frames, queries, seed)
        return checked_answer(tracks, n, t, self.info.name)

    def computing(self) -> AbstractContextManager[None]:
        """A context around everything that it computes; a network sets here how its device
        multiplies."""
        return nullcontext()

    def stream(self, queries: np.ndarray) -> Stream:
        """Track points through frames that come bit by bit; see `Stream`. Only online teachers can,
        and only in modes that do not also track backwards.

        Args:
            queries: [N >= 1, 3] as for `track`; frames count from the first that is pushed.

        Raises:
            ConfigError: queries that `track` refuses, or a teacher or mode that needs the whole
                clip.
        """
        raise ConfigError(
            f"teacher {self.info.name!r} needs the whole clip: `track` it, or stream with an "
            "online teacher such as 'cotracker3-online', 'bootstapir-causal', or 'tapnextpp'."
        )

    def flow(self, frames: np.ndarray, t: int) -> DenseFlow:
        """Where every pixel of frame `t` is in every frame. Only dense trackers can tell.

        Args:
            frames: uint8 [T, H, W, 3] RGB, T >= 1.
            t: in [0, T).

        Raises:
            ConfigError: frames or `t` are not as above, or a teacher that tracks points alone.
            TeacherError: the network computes NaN or infinity.
        """
        raise ConfigError(
            f"teacher {self.info.name!r} tracks points: `track` them, or take a dense tracker such "
            "as 'alltracker'."
        )

    @abc.abstractmethod
    def _track(self, frames: np.ndarray, queries: np.ndarray, seed: int) -> Tracks:
        """`track`, for input that is checked: frames uint8 [T, H, W, 3], queries float32 [N >= 1,
        3]."""


def checked_name(name: str) -> str:
    """`name`, if it can be the name of a teacher (and thus of a shard member); else a
    ConfigError."""
    if not NAME.fullmatch(name) or name in RESERVED_NAMES:
        raise ConfigError(
            f"{name!r} cannot be the name of a teacher: use lower-case letters, digits, and '-', "
            f"and not {', '.join(sorted(RESERVED_NAMES))}."
        )
    return name


def checked_settings(
    kind: type[Settings], given: Mapping[str, Any], name: str, others: Sequence[str] = ()
) -> Settings:
    """Settings of that dataclass. A ConfigError names the first setting that teacher `name` has
    neither there nor among `others`; the dataclass itself refuses values that cannot be right."""
    known = [field.name for field in fields(kind)]
    unknown = next((setting for setting in given if setting not in known), None)
    if unknown is not None:
        raise ConfigError(no_setting(name, unknown, [*known, *others]))
    return kind(**given)


def no_setting(name: str, setting: str, known: Sequence[str]) -> str:
    """The message for a setting that teacher `name` does not have."""
    return (
        f"teacher {name!r}: it has no setting {setting!r}: there are "
        f"{', '.join(known) if known else 'none'}."
    )
