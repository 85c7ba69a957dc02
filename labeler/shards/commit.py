"""Committing a shard: the tar is published, then its record is created, and only then it exists.

Who loses the race for a revision is done if the winner's tar has the same name (the same bytes),
else deletes its own tar and goes on from the winner's revision.
"""

from __future__ import annotations

from typing import Any

from labeler.io import Storage
from labeler.shards.record import Record
from labeler.shards.records import read_record
from labeler.shards.tar import WrittenShard, shard_name


def commit(storage: Storage, record: Record, shard: WrittenShard | None) -> bool:
    """Publish `shard`, then create `record`, which names it.

    Returns:
        True if the unit now has this revision with these bytes, ours or an equal one of another
        writer. False if another writer took the revision with other bytes: our tar is gone again;
        read its record and go on from there.
    """
    if shard is not None:
        storage.publish(shard.file, record.tar_name)
    if storage.create(record.name, record.to_bytes()):
        return True
    winner = read_record(storage, record.unit, record.revision)
    if winner.tar == record.tar:
        return True
    if record.tar is not None:
        storage.remove(record.tar)
    return False


def tar_of(unit: int, revision: int, shard: WrittenShard | None) -> dict[str, Any]:
    """The fields of a `Record` that describe its tar."""
    if shard is None:
        return {"tar": None, "size_bytes": 0, "sha256": None}
    return {
        "tar": shard_name(unit, revision, shard.sha256),
        "size_bytes": shard.size_bytes,
        "sha256": shard.sha256,
    }
