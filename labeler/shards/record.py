"""Record: what one commit of a unit says, and its digest, the columns that are computed from all
records of a data set at once."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from labeler.clips.recipe import SCHEMA
from labeler.reasons import LeftOut
from labeler.shards.checked_json import check_types
from labeler.shards.members import MAX_MEMBER_BYTES, check_schema, to_json
from labeler.shards.plan import hash_of
from labeler.shards.tar import Offsets
from teachers import ShardError

TAR = re.compile(r"shards/(\d{6,})\.r(\d+)\.[0-9a-f]{12}\.tar")
"""The path of a tar in its data set; the groups are its unit and revision."""


@dataclass(frozen=True, kw_only=True)
class ClipEntry:
    """One labelled clip, as it stands in its record and in `clips.parquet`."""

    key: str
    uri: str
    source_start: int
    """Index of the clip's first frame in the source."""
    stride: int
    frames: int
    height: int
    width: int
    queries: int
    kept: int
    """Queries whose labels are kept."""
    mean_support: float | None
    """Mean support over the valid visible frames of kept queries; None if there is none."""
    mean_trust: float | None = None
    """How decided the verifier is: the mean, over points and frames, of its probability for what it
    finds more likely, that the most trusted position is right or that the point is hidden. None if
    no verifier judged the clip, or if it has no points."""
    decoder: str
    truncated: bool
    offsets: Offsets
    """Suffix -> (offset, size) in the tar."""


@dataclass(frozen=True, kw_only=True)
class VideoEntry:
    """One video of the unit that could be read; the others became rows."""

    uri: str
    sha256: str
    clips: int
    """Number of clips found in it; each was labelled or became a row."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What one commit says."""

    schema: int = SCHEMA
    unit: int
    revision: int
    plan: int
    """Number of the plan file that the unit belongs to."""
    tar: str | None
    """Path of the tar in the data set; None if no clip of the unit could be labelled."""
    size_bytes: int
    sha256: str | None
    teachers: dict[str, dict[str, Any]]
    """`TeacherInfo` by name."""
    agreement: dict[str, Any]
    verifier: str | None = None
    """Version of the verifier that judged every clip of the unit; None if none did, as always in
    schema 1."""
    videos: list[VideoEntry]
    clips: list[ClipEntry]
    rows: list[LeftOut]
    planned: int
    """Number of videos in the unit."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time by step."""
    fingerprint: dict[str, str] = field(default_factory=dict)
    """Versions and device that the bytes depend on."""

    @property
    def name(self) -> str:
        return record_name(self.unit, self.revision)

    @property
    def tar_name(self) -> str:
        """The tar of a record with clips; a ShardError if the record names none."""
        if self.tar is None:
            raise ShardError(
                f"{self.name} has clips, but names no tar: it is damaged. Run `tapdistill verify`."
            )
        return self.tar

    def uris(self) -> set[str]:
        """Every source that the record mentions."""
        return {one.uri for some in (self.videos, self.clips, self.rows) for one in some}

    def to_bytes(self) -> bytes:
        lists = {
            name: [vars(one) for one in getattr(self, name)] for name in ("videos", "clips", "rows")
        }
        # `asdict` would also copy every offset, which takes three times as long
        return (to_json({**vars(self), **lists}) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, what: str) -> Record:
        """Parse a record; `what` names the file in errors."""
        try:
            fields = json.loads(data)
            check_schema(fields.get("schema"), what)
            fields["videos"] = [VideoEntry(**entry) for entry in fields["videos"]]
            fields["clips"] = [
                ClipEntry(
                    **{
                        **entry,
                        "offsets": {
                            suffix: (start, size)
                            for suffix, (start, size) in entry["offsets"].items()
                        },
                    }
                )
                for entry in fields["clips"]
            ]
            fields["rows"] = [LeftOut(**row) for row in fields["rows"]]
            record = cls(**fields)
            for one in (record, *record.videos, *record.clips, *record.rows):
                check_types(one)
            record._check_ranges()
            return record
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ShardError(
                f"{what} is not a commit record ({error}). Run `tapdistill verify`."
            ) from error

    def _check_ranges(self) -> None:
        """Raise a ValueError for a tar or a range that no genuine record has: a data set may come
        from somebody else."""
        if self.tar is not None and not TAR.fullmatch(self.tar):
            raise ValueError(f"{self.tar!r} is not the name of a shard")
        ranges = [found for entry in self.clips for found in entry.offsets.values()]
        if any(
            not (
                type(at) is int and type(size) is int and at >= 0 and 0 <= size <= MAX_MEMBER_BYTES
            )
            for at, size in ranges
        ):
            raise ValueError("it names a range that cannot be in a shard")


def record_name(unit: int, revision: int) -> str:
    return f"shards/{unit:06d}.r{revision}.json"


def digest_of(record: Record) -> dict[str, Any]:
    """One row of the table of records, by the names of `labeler.shards.copies.COLUMNS`.

    tar, size_bytes, planned, ...    as in the record
    teachers, agreement              as JSON
    videos, found                    videos that could be read, and the clips found in them
    clips, queries, kept, frames     sums over the labelled clips
    support                          sum of mean support times kept queries
    trust, judged                    sum of mean trust, and the number of clips that have one
    shapes                           JSON: "height,width,frames,stride" -> clips
    reasons                          JSON: [what, reason, rows] for each kind of row
    uris                             hash of every source that the record mentions: `hash_of`
    """
    clips = record.clips
    trusts = [entry.mean_trust for entry in clips if entry.mean_trust is not None]
    shapes = Counter((one.height, one.width, one.frames, one.stride) for one in clips)
    reasons = Counter((row.what, row.reason) for row in record.rows)
    return {
        "unit": record.unit,
        "revision": record.revision,
        "plan": record.plan,
        "planned": record.planned,
        "tar": record.tar,
        "size_bytes": record.size_bytes,
        "teachers": to_json(record.teachers),
        "agreement": to_json(record.agreement),
        "verifier": record.verifier,
        "videos": len(record.videos),
        "found": sum(video.clips for video in record.videos),
        "clips": len(clips),
        "queries": sum(entry.queries for entry in clips),
        "kept": sum(entry.kept for entry in clips),
        "frames": sum(entry.frames for entry in clips),
        "support": float(sum((entry.mean_support or 0) * entry.kept for entry in clips)),
        "trust": float(sum(trusts)),
        "judged": len(trusts),
        "shapes": to_json({",".join(map(str, of)): n for of, n in sorted(shapes.items())}),
        "reasons": to_json([[*which, count] for which, count in sorted(reasons.items())]),
        "uris": hash_of(record.uris()),
    }
