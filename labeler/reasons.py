"""Reasons: every video and clip that goes in comes out as a sample or as a row with a reason.

    videos   planned = done + left out + failed + open
    clips    found   = labelled + left out + failed

A reason is one word of `REASONS`; `detail` is free text in addition. What is left out was not
wanted; what failed was wanted, but could not be used.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

LEFT_OUT: dict[str, str] = {
    "unwanted": "a filter on its metadata leaves it out",
    "duplicate": "another video of the unit has the same content",
    "too-short": "fewer frames than a clip needs",
    "too-small": "fewer pixels a side than a clip needs",
    "static": "nothing moves in the clip",
    "dark": "the clip is near-black",
}
FAILED: dict[str, str] = {
    "empty": "the file has no bytes",
    "not-a-video": "not a container that the decoders know",
    "no-video-stream": "a container without video, such as audio only",
    "too-large": "sides, bytes, or frames above the limits",
    "decode-error": "frames that the decoders refuse",
    "unsafe-decoder": "the forced decoder returns wrong frames for this kind of file",
    "memory": "decoding needs more memory than its limit, or its process was killed, three times",
    "timeout": "decoding took longer than its deadline, twice",
    "crash": "decoding ended its process, twice",
    "not-found": "the source has no such file",
    "forbidden": "the source does not let us read it",
    "unreachable": "the source did not answer, or broke off, at every attempt",
    "teachers": "too few teachers could track the clip",
    "teacher-error": "one teacher could not track the clip; its tracks are NaN",
}
REASONS: dict[str, str] = LEFT_OUT | FAILED

Status = Literal["left out", "failed"]


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """One video, clip, or teacher's part of a clip that did not become a label."""

    uri: str
    what: Literal["video", "clip", "teacher"]
    """"teacher" rows say that one teacher is NaN in a clip; they are outside the sums of the
    accounts."""
    stage: str
    """The step that rejected it: "plan", "open" or "clip" for a video, "teachers", or
    "teacher:<name>"."""
    reason: str
    detail: str = ""
    key: str | None = None
    """The key of the clip, if it is about one."""
    attempts: int = 1

    def __post_init__(self) -> None:
        if self.reason not in REASONS:
            raise ValueError(f"{self.reason!r} is not one of the reasons {sorted(REASONS)}")

    @property
    def status(self) -> Status:
        return "left out" if self.reason in LEFT_OUT else "failed"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
