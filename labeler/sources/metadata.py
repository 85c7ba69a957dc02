"""Metadata of a video: what a table or a tar says about it, as one JSON object that is passed on
from the plan to the shards.

Whatever people have in their tables must not stop a job: values that JSON does not know become text
(dates, decimals) or null (NaN, infinity, bytes, anything nested too deeply), and addresses lose
their passwords and signatures.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from labeler.io.secrets import without_secrets

DEEPEST = 32
"""How deeply lists and objects may be nested; anything deeper is left out."""


def to_metadata(columns: Mapping[str, Any]) -> str:
    """The columns that have a value, as a JSON object; "" if there are none."""
    known = {name: plain for name, value in columns.items() if (plain := _plain(value)) is not None}
    if not known:
        return ""
    text = json.dumps(known, sort_keys=True, ensure_ascii=False)
    # half a character of UTF-16 can be in JSON, but not in a file
    return without_secrets(text).encode(errors="replace").decode()


def from_members(files: Sequence[tuple[str, bytes]]) -> str:
    """What the metadata files of a video say, with later files overriding earlier ones: the columns
    of a json object, the text of a txt; in the form of `to_metadata`."""
    columns: dict[str, Any] = {}
    for name, data in files:
        text = data.decode(errors="replace")
        if name.lower().endswith(".txt"):
            columns["txt"] = text.strip()
            continue
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            continue
        columns.update(value if isinstance(value, dict) else {"json": value})
    return to_metadata(columns)


def _plain(value: Any, depth: int = 0) -> Any:
    """`value` as JSON knows it."""
    if value is None or depth > DEEPEST or isinstance(value, bytes | bytearray | memoryview):
        return None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (str, int)):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(inner, depth + 1) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner, depth + 1) for inner in value]
    return str(value)
