"""Lists and tables of videos: text files, CSV, and parquet.

    *.txt, *.list      one path or URL a line; '#' begins a comment
    *.csv, *.parquet   a column of paths or URLs; the other columns are metadata

A column of a CSV file whose values are all numbers, or all true or false, is read as such; every
other column is taken as text, so that "007" stays "007", and "NA" stays a country.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from labeler.sources.metadata import to_metadata
from labeler.sources.rules import LISTS
from teachers import ConfigError

URI_COLUMNS = ("uri", "url", "path", "video", "file")
"""Names by which the column of paths in a table is found, in this order."""
LONGEST_FIELD = 1 << 30
"""The most characters of a field of a CSV file: a column may hold the text of a whole film."""
BYTES = (
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_fixed_size_binary,
    pa.types.is_binary_view,
)
TEXTS = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_null,
)
"""Types of a column of paths; the last is that of a column without a value."""
_OF_PANDAS = "__index_level_"
"""Columns that pandas adds for its own use."""


@dataclass(frozen=True)
class ListEntry:
    """What a list or a table says about one video."""

    uri: str
    """A path or URL; "" if a row of a table names none."""
    metadata: str = ""
    """JSON object; "" if there is none."""


def read_entries(name: str, opened: BinaryIO, column: str | None) -> Iterator[ListEntry]:
    """The entries of the file `name`, `opened` for reading, in its order.

    Raises:
        ConfigError: it cannot be read as what its suffix says, or has no column of paths.
    """
    if name.lower().endswith(LISTS):
        lines = (line.strip() for line in _text(name, opened.read()).split("\n"))
        yield from (ListEntry(line) for line in lines if line and not line.startswith("#"))
        return
    is_text = not name.lower().endswith(".parquet")
    columns = _of_csv(name, opened.read()) if is_text else _of_parquet(name, opened, column)
    taken = (
        column if column is not None else next((one for one in URI_COLUMNS if one in columns), None)
    )
    if taken not in columns:
        wanted = (
            f"no column {column!r}" if column else f"none of the columns {', '.join(URI_COLUMNS)}"
        )
        raise ConfigError(
            f"{name} has {wanted}: it has {', '.join(columns)}. Name one with --column."
        )
    uris = columns.pop(taken)
    columns = {one: _typed(values) if is_text else values for one, values in columns.items()}
    for i, uri in enumerate(uris):
        metadata = to_metadata({one: values[i] for one, values in columns.items()})
        yield ListEntry("" if uri is None else str(uri).strip(), metadata)


def _text(name: str, data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{name} is not a list or table of paths: it is not UTF-8 text ({error})."
        ) from error
    if "\0" in text:
        raise ConfigError(
            f"{name} is not a list or table of paths: it holds null bytes. Is it UTF-16? Save it "
            "as UTF-8."
        )
    return text


def _of_parquet(name: str, opened: BinaryIO, column: str | None) -> dict[str, list[Any]]:
    """Its columns, by name."""
    try:
        file = pq.ParquetFile(opened)
        schema = file.schema_arrow
        named = [one for one in schema.names if not one.startswith(_OF_PANDAS)]
        taken = column or next((one for one in URI_COLUMNS if one in named), None)
        _refuse_twins(name, named)
        if taken in named:
            _refuse_no_paths(name, schema.field(taken))
        table = file.read(named)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ConfigError(f"{name} is not a table ({error}).") from error
    columns = {one: table[one].to_pylist() for one in named}
    if taken in columns:  # a struct of bytes and path, which is how Hugging Face writes videos
        columns[taken] = [
            one.get("path") if isinstance(one, dict) else one for one in columns[taken]
        ]
    return columns


def _refuse_no_paths(name: str, field: pa.Field) -> None:
    """Raise a ConfigError for a column of anything but text, such as the videos themselves."""
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    inside = {inner.name: inner.type for inner in kind} if pa.types.is_struct(kind) else {"": kind}
    if any(is_bytes(one) for one in inside.values() for is_bytes in BYTES):
        raise ConfigError(
            f"{name}: the column {field.name!r} holds the bytes of videos, not paths or URLs: "
            "write them to files or to a WebDataset tar, or name another column with --column."
        )
    path = inside.get("path", inside.get(""))
    if path is None or not any(is_text(path) for is_text in TEXTS):
        raise ConfigError(
            f"{name}: the column {field.name!r} holds {kind}, not paths or URLs: name another "
            "column with --column."
        )


def _refuse_twins(name: str, columns: Sequence[str]) -> None:
    """Raise a ConfigError if two columns have one name."""
    if len(set(columns)) < len(columns):
        raise ConfigError(
            f"{name} is not a table (two of its columns have one name: {', '.join(columns)})."
        )


def _of_csv(name: str, data: bytes) -> dict[str, list[Any]]:
    """Its columns, by name; None for an empty field."""
    csv.field_size_limit(LONGEST_FIELD)
    lines = csv.reader(io.StringIO(_text(name, data), newline=""), strict=True)
    try:
        header, *rows = [line for line in lines if line] or [[]]
    except csv.Error as error:
        raise ConfigError(f"{name} is not a table ({error}).") from error
    odd = next((i for i, row in enumerate(rows, 1) if len(row) != len(header)), None)
    if odd is not None:
        raise ConfigError(
            f"{name} is not a table (its row {odd} has {len(rows[odd - 1])} fields, its header "
            f"{len(header)})."
        )
    _refuse_twins(name, header)
    return {one: [row[i] or None for row in rows] for i, one in enumerate(header)}


def _typed(column: list[str | None]) -> list[Any]:
    """Numbers, or true and false, if all values are such; otherwise, the text as it is."""
    try:
        values = [None if text is None else json.loads(text.lower()) for text in column]
    except (ValueError, RecursionError):
        return list(column)
    kinds = {type(value) for value in values if value is not None}
    return values if kinds <= {int, float} or kinds == {bool} else list(column)
