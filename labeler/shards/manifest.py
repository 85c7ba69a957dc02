"""Manifest: dataset.json, the settings to which a data set is frozen from the first command on.

Sources, clips, queries, and encoding decide what the stored pixels and queries are. Other values
would mix two data sets in one folder, so they are refused, and the message names the differences.
Teachers and agreement settings may change, and are read from the commit records.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from labeler.clips import ClipRecipe
from labeler.clips.recipe import SCHEMA
from labeler.io import Storage
from labeler.io.s3 import lacks_bucket
from labeler.shards.members import check_schema
from labeler.sources import WordFilter
from teachers import ConfigError, ShardError, TransientError

NAME = "dataset.json"
MAX_BYTES = 64 << 20
"""The largest dataset.json that is read: it has room for the names of a million sources."""
LOOKED_AT = 32
"""In so many folders of one that is no data set, one is looked for."""


@dataclass(frozen=True, kw_only=True)
class Frozen(ClipRecipe):
    """Everything that decides which clips, pixels, and queries a data set has."""

    sources: tuple[str, ...]
    column: str | None = None
    words: WordFilter = field(default_factory=WordFilter)
    videos_per_unit: int | None = None

    def recipe(self) -> ClipRecipe:
        """The part that a decoding process needs, which names neither the data set nor its
        sources."""
        return ClipRecipe(**{field.name: getattr(self, field.name) for field in fields(ClipRecipe)})

    def to_json(self) -> dict[str, Any]:
        # tuples become lists, as they do when they are read again
        return json.loads(json.dumps(asdict(self)))


def freeze(storage: Storage, frozen: Frozen, tool_version: str) -> None:
    """Create dataset.json, or check that the existing one says the same.

    Raises:
        ConfigError: the data set was made with other settings; the message names each difference.
        ShardError: dataset.json is unreadable or of another schema.
    """
    text = (
        json.dumps(
            {"schema": SCHEMA, "tool_version": tool_version, "frozen": frozen.to_json()},
            indent=1,
            sort_keys=True,
        )
        + "\n"
    )
    if not storage.create(NAME, text.encode()):
        check_frozen(storage, frozen)


def check_frozen(storage: Storage, frozen: Frozen) -> None:
    """Check that dataset.json, if there is one, says the same. Raises as `freeze`."""
    if storage.size(NAME) is None:
        return
    manifest = read_manifest(storage)
    there = manifest["frozen"]
    if there.get("pixels", 1) != frozen.pixels:
        raise ConfigError(
            f"{storage.url} was begun by tapdistill {manifest.get('tool_version', '?')}, which "
            "makes other pixels from the same videos. What is there can be read, trained on, and "
            "relabelled; to label more, use that version, or another --out."
        )
    differences = list(_differences(there, frozen.to_json()))
    if differences:
        raise ConfigError(
            f"{storage.url} was made with other settings: {'; '.join(differences)}. A data set has "
            "one set of clips and queries: use the same settings, or another --out."
        )


def read_manifest(storage: Storage) -> dict[str, Any]:
    """dataset.json as it was written: schema, tool_version, frozen. A ShardError if it is missing,
    broken, or of another schema."""
    try:
        size = storage.size(NAME)
    except TransientError:
        if storage.is_file():
            raise _not_there(storage) from None
        raise
    if size is None:
        raise _not_there(storage)
    if size > MAX_BYTES:
        raise ShardError(
            f"{storage.url}/{NAME} has {size:,} bytes, and at most {MAX_BYTES:,} are allowed: it "
            "is not that of a data set."
        )
    try:
        manifest = json.loads(storage.read(NAME))
        schema = manifest["schema"]
        manifest["frozen"]["sources"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ShardError(
            f"{storage.url}/{NAME} is unreadable ({type(error).__name__}: {error}): restore it, or "
            "label into a new folder."
        ) from error
    check_schema(schema, f"{storage.url}/{NAME}")
    return manifest


def _not_there(storage: Storage) -> ShardError:
    """Why no data set can be opened there, and what may have been meant."""
    said = f"{storage.url} is not a data set"
    if storage.is_file():
        return ShardError(f"{said}: it is a file, and a data set is a folder.")
    make = f"`tapdistill label VIDEOS --out {storage.url}` makes one."
    try:
        folders = storage.folders()
    except FileNotFoundError as error:
        if lacks_bucket(error):
            return ShardError(f"{said}: there is no such bucket. Create it, or correct its name.")
        return ShardError(f"{said}: there is no such folder. {make}")
    for folder in folders[:LOOKED_AT]:
        if storage.size(f"{folder}/{NAME}") is not None:
            make = f"{storage.url}/{folder} is one."
            break
    return ShardError(f"{said}: it has no {NAME}. {make}")


def _differences(there: Any, here: Any, path: str = "") -> Any:
    """For every value that differs, a text such as 'clips.frames: 80 there, 48 here'."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted(set(there) | set(here)):
            yield from _differences(there.get(key), here.get(key), f"{path}.{key}" if path else key)
    elif there != here:
        yield f"{path}: {there!r} there, {here!r} here"
