"""Sources: what a listing found, held as columns, so that millions of videos take little memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labeler.lazy_sequence import LazySequence

AT_ONCE = 1 << 16
"""How many sources are Python objects at a time."""


@dataclass(frozen=True)
class Source:
    """A video as a listing sees it."""

    uri: str
    """A path or URL; "archive.tar#member.mp4" for a member of a tar, "folder/" for a folder of
    pictures."""
    size: int
    """Size in bytes; 0 if the listing does not say."""
    etag: str
    """What the storage tells about the content: an ETag, or the size and time of a local file; ""
    if the listing does not say."""
    offset: int | None = None
    """Where the bytes of a member of a tar begin."""
    metadata: str = ""
    """What a table or a tar says about the video, as a JSON object; "" if nothing."""

    @property
    def span(self) -> tuple[int, int] | None:
        """(offset, size) of a member of a tar."""
        return None if self.offset is None else (self.offset, self.size)


SCHEMA = pa.schema(
    [
        ("uri", pa.large_string()),
        ("size", pa.int64()),
        ("etag", pa.large_string()),
        ("offset", pa.int64()),
        ("metadata", pa.large_string()),
    ]
)


class Sources(LazySequence[Source]):
    """Sources as a table of five columns; each `Source` is made when it is accessed."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    @classmethod
    def of(cls, sources: Iterable[Source]) -> Sources:
        """The sources of an iterable, in its order."""
        stream, batches = iter(sources), list[pa.RecordBatch]()
        while some := list(itertools.islice(stream, AT_ONCE)):
            columns = {name: [getattr(one, name) for one in some] for name in SCHEMA.names}
            batches.append(pa.RecordBatch.from_pydict(columns, schema=SCHEMA))
        return cls(pa.Table.from_batches(batches, schema=SCHEMA))

    def in_order(self) -> tuple[Sources, dict[str, list[tuple[int, Source]]]]:
        """Sorted by URI, the first source of each; and for each URI that came several times, (index
        before sorting, source) of all its sources, in their order."""
        uris = self.table["uri"].combine_chunks()
        if len(uris) < 2 or pc.all(pc.less(uris[:-1], uris[1:])).as_py():
            return self, {}
        order = pc.sort_indices(uris)
        uris = uris.take(order)
        again = pc.equal(uris[:-1], uris[1:])
        several: dict[str, list[tuple[int, Source]]] = {}
        if pc.any(again).as_py():
            first = pa.concat_arrays([pa.array([True]), pc.invert(again)])
            repeated = set(uris[1:].filter(again).to_pylist())
            for index, source in enumerate(self):
                if source.uri in repeated:
                    several.setdefault(source.uri, []).append((index, source))
            order = order.filter(first)
        del uris
        return Sources(self.table.take(order)), several

    def __len__(self) -> int:
        return self.table.num_rows

    def __iter__(self) -> Iterator[Source]:
        for first in range(0, len(self), AT_ONCE):
            columns = self.table.slice(first, AT_ONCE).to_pydict().values()
            yield from itertools.starmap(Source, zip(*columns, strict=True))

    def take(self, indices: Sequence[int] | np.ndarray) -> Self:
        """The sources with these indices, in that order."""
        return type(self)(self.table.take(pa.array(indices, pa.int64())))

    def _item(self, index: int) -> Source:
        row = self.table.slice(index, 1).to_pydict()
        return Source(**{name: values[0] for name, values in row.items()})
