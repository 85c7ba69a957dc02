"""Parquet export: every teacher's raw tracks and the labels made from them, one row per teacher,
point, and frame.

    clip, query, teacher, t       which point: the clip's key, the query's number in it, the
                                  teacher, the frame
    x, y                          px of the stored clip, pixel centres; null where the teacher does
                                  not track
    visible                       the teacher's own visible rule applied
    visibility, confidence        as the model defines them; null where it does not know them
    support, valid, keep          the label of the point: see `labeler.labels.agreement.Labels`
    right, hidden                 the verifier's probabilities that this position is right, and that
                                  the point is hidden; null where no verifier judged the clip

A row group is a clip, so that any size is written and read piece by piece.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from labeler.labels import Sample

NAME = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    {
        "clip": NAME,
        "query": pa.int32(),
        "teacher": NAME,
        "t": pa.int32(),
        "x": pa.float32(),
        "y": pa.float32(),
        "visible": pa.bool_(),
        "visibility": pa.float32(),
        "confidence": pa.float32(),
        "support": pa.float32(),
        "valid": pa.bool_(),
        "keep": pa.bool_(),
        "right": pa.float32(),
        "hidden": pa.float32(),
    }
)


class TracksWriter:
    """Writes clips into a parquet file, one after another."""

    def __init__(self, file: Path) -> None:
        self._parquet = pq.ParquetWriter(file, SCHEMA)

    def write(self, sample: Sample) -> None:
        """Add the rows of one clip."""
        self._parquet.write_table(tracks_table(sample))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._parquet.close()


def tracks_table(sample: Sample) -> pa.Table:
    """The rows of one clip: its teachers by name, their points in the order of the queries, frame
    by frame."""
    names, labels, verdict = sorted(sample.tracks), sample.labels, sample.verdict
    k, (n, t) = len(names), labels.support.shape
    shape = (k, n, t)
    tracks = [sample.tracks[name] for name in names]

    def over(values: Any) -> np.ndarray:
        """The values, repeated for each row."""
        return np.broadcast_to(values, shape).ravel()

    def known(values: np.ndarray) -> pa.Array:
        """NaN as null."""
        return pa.array(values.ravel(), pa.float32(), from_pandas=True)

    columns = {
        "clip": _named(np.zeros(k * n * t, np.int32), [sample.key]),
        "query": over(np.arange(n, dtype=np.int32)[:, None]),
        "teacher": _named(over(np.arange(k, dtype=np.int32)[:, None, None]), names),
        "t": over(np.arange(t, dtype=np.int32)),
        "x": known(np.stack([one.xy[..., 0] for one in tracks])),
        "y": known(np.stack([one.xy[..., 1] for one in tracks])),
        "visible": np.stack([sample.visible(name) for name in names]).ravel(),
        "visibility": known(np.stack([one.visibility for one in tracks])),
        "confidence": known(np.stack([one.confidence for one in tracks])),
        "support": over(labels.support),
        "valid": over(labels.valid),
        "keep": over(labels.keep[:, None]),
        "right": known(np.full(shape, np.nan) if verdict is None else verdict.of(names)),
        "hidden": known(over(np.nan if verdict is None else verdict.hidden)),
    }
    return pa.table(columns, SCHEMA)


def _named(numbers: np.ndarray, names: list[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(
        pa.array(numbers, pa.int32()), pa.array(names, pa.string())
    )
