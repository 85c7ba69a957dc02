"""Metadata of a video: what a table or a tar says about it, as one JSON object that is passed on
from the plan to the shards.

Whatever people have in their tables must not stop a job: values that JSON does not know become text
(dates, decimals) or null (NaN, infinity, bytes, anything nested too deeply), and addresses lose
their passwords and signatures.
"""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Callable, Mapping, Sequence
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


def from_members(
    files: Sequence[tuple[str, bytes]], broken: Callable[[str], None] = lambda name: None
) -> str:
    """What the metadata files of a video say, with later files overriding earlier ones: the columns
    of a json object, the text of a txt; in the form of `to_metadata`. `broken` is called with the
    name of each json file that is none."""
    columns: dict[str, Any] = {}
    for name, data in files:
        text = _text(data)
        if name.lower().endswith(".txt"):
            columns["txt"] = text.strip()
            continue
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            broken(name)
            continue
        columns.update(value if isinstance(value, dict) else {"json": value})
    return to_metadata(columns)


def _text(data: bytes) -> str:
    """The text of a file: UTF-8, or what the mark at its beginning says, as Windows writes it."""
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if marked else "utf-8-sig", errors="replace")


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
