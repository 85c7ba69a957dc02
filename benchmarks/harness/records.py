"""Records of data sets that are made up: what a unit would say of its clips, without any video."""

from __future__ import annotations

from typing import Any

from labeler.shards.record import ClipEntry, Record


def clip_entry(key: str, uri: str, **changes: Any) -> ClipEntry:
    """A clip of 80 frames with 1024 queries, most of them kept."""
    made_up: dict[str, Any] = {
        "source_start": 0,
        "stride": 1,
        "frames": 80,
        "height": 384,
        "width": 680,
        "queries": 1024,
        "kept": 700,
        "mean_support": 0.9,
        "decoder": "decord",
        "truncated": False,
        "offsets": {"mp4": (512, 400_000)},
    }
    return ClipEntry(key=key, uri=uri, **(made_up | changes))


def record_of(unit: int, **changes: Any) -> Record:
    """The first revision of a unit in plan 0."""
    made_up: dict[str, Any] = {
        "revision": 0,
        "plan": 0,
        "tar": f"shards/{unit:06d}.r0.{'0' * 12}.tar",
        "size_bytes": 20_000_000,
        "sha256": "0" * 64,
        "agreement": {},
        "rows": [],
    }
    return Record(unit=unit, **(made_up | changes))
