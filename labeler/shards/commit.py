"""Commit: publish the tar of a shard, then create its record; only then does the shard exist.

A writer that loses the race for a revision is done if the winner's tar has the same name, and thus
the same bytes. Otherwise, it deletes its own tar and continues from the winner's revision.
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
        True if the unit now has this revision with these bytes, whoever wrote them. False if
        another writer committed other bytes as this revision: `shard` has been removed again; read
        the other record and continue from there.
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
