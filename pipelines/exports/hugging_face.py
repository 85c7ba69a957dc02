"""Hugging Face export: a folder that `datasets.load_dataset` streams, ready to be uploaded.

    data/train-00000.tar ...   WebDataset shards, the same members in every sample
    clips.parquet              a row per clip: key, tar, uri, size, queries, agreement, trust
    README.md                  the dataset card
    croissant.json             the same facts as Croissant JSON-LD (schema 1.0)

The shards of a labelling job hold only what there is: a teacher that failed on a clip has no member
there, and the metadata of a video have whatever types its table had. `datasets` takes columns and
types from the first samples, and stops at the first that differs. So here every sample has every
teacher (NaN where it failed), and of the metadata only what is in all of one type are fields;
everything is in `details`, as JSON text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment

from labeler.dataset import Clip, Dataset
from labeler.io import file_sha256
from labeler.shards.members import VERDICT, members, tracks_to_npz
from labeler.shards.revisions import entry
from labeler.shards.tar import ShardWriter
from teachers import Tracks
from teachers.licences import in_words, licence_note

SHARD_BYTES = 500 * 10**6
"""A shard is closed once it is larger: small enough to be fetched again, large enough to stream."""
CARD = Path(__file__).parent / "templates" / "dataset_card.md.j2"
SHARDS = f"data/train-{'[0-9]' * 5}.tar"
FILES = ("clips.parquet", "README.md", "croissant.json", SHARDS)
"""What an export consists of, as patterns."""
TABLE_COLUMNS = {
    "key": "of the clip; also that of its sample in the tar",
    "tar": "the shard that holds it",
    "uri": "the video that it was cut from",
    "source_start": "its first frame in that video",
    "stride": "every how many-th frame of the video was taken",
    "frames": "how many frames it has",
    "height": "px",
    "width": "px",
    "queries": "how many points were tracked",
    "kept": "how many of them the teachers agree on",
    "mean_support": "share of the opinions that agree, mean over the visible labels of kept points",
    "mean_trust": "probability of what the verifier finds more likely, that the most trusted "
    "position is right or that the point is hidden, mean over points and frames",
}
MEMBERS = {
    "mp4": "the clip, H.264",
    "queries.npz": "`queries` float32 [N, 3]: (t, x, y), px, an integer is a pixel centre",
    "labels.npz": "`support` float32, `state` uint8 (0 disputed, 1 visible, 2 occluded), `valid` "
    "bool, all [N, T]; `keep` bool [N]",
    VERDICT: "`right` uint8 [K, N, T] and `hidden` uint8 [N, T]: the verifier's probabilities, "
    "times 255; `teachers` [K]",
    "json": "`key`, `uri`, `frames`, `height`, `width`, `fps`, `stride`, `source_frames`, "
    "`source_timestamps_s`, and `details`, the whole record as JSON text",
}


def sample_of(clip: Clip, teachers: list[str], judged: bool) -> dict[str, bytes]:
    """Suffix -> bytes of a clip's members: every teacher, and metadata of one type each."""
    parts = members(clip)
    points, frames = clip.labels.support.shape
    nothing = np.full((points, frames), np.nan, np.float32)
    for name in teachers:
        if name not in clip.tracks:
            tracks = Tracks(np.full((points, frames, 2), np.nan, np.float32), nothing, nothing)
            parts[f"{name}.npz"] = tracks_to_npz(tracks)
    if not judged:
        parts.pop(VERDICT, None)
    meta = clip.meta
    row = {
        "key": clip.key,
        "uri": str(meta["uri"]),
        **{name: int(meta[name]) for name in ("frames", "height", "width", "stride")},
        "fps": float(meta["fps"]),
        "source_frames": [int(number) for number in meta["source_frames"]],
        "source_timestamps_s": [float(time) for time in meta["source_timestamps_s"]],
        "details": json.dumps(meta, sort_keys=True),
    }
    parts["json"] = json.dumps(row).encode()
    return parts


@dataclass
class HubWriter:
    """Writes clips into a new folder, one after another; `finish` adds what describes them."""

    folder: Path
    dataset: Dataset
    shard_bytes: int = SHARD_BYTES
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What `clips.parquet` will say, by key."""
    _shard: ShardWriter | None = None
    _bytes: int = 0
    _tars: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.folder / "data").mkdir(parents=True)

    def write(self, clip: Clip) -> None:
        """Add one clip; of equal clips, which several units of a job may have, the first."""
        if clip.key in self.rows:
            return
        if self._shard is None:
            self._tars.append(f"data/train-{len(self._tars):05d}.tar")
            self._shard, self._bytes = ShardWriter(self.folder / self._tars[-1]), 0
        parts = sample_of(clip, self.dataset.teachers, not self.dataset.unjudged)
        self._shard.write(clip.key, parts)
        self.rows[clip.key] = vars(entry(clip)) | {"tar": self._tars[-1]}
        self._bytes += sum(map(len, parts.values()))
        if self._bytes >= self.shard_bytes:
            self._close()

    def finish(self) -> None:
        """Write the table, the card, and the Croissant description."""
        self._close()
        table = pd.DataFrame(list(self.rows.values()))[list(TABLE_COLUMNS)]
        table = table.astype({"mean_support": float, "mean_trust": float})  # None is NaN
        table.to_parquet(self.folder / "clips.parquet", index=False)
        (self.folder / "README.md").write_text(card(self.dataset, table))
        described = croissant(self.folder, self.dataset, self._tars)
        (self.folder / "croissant.json").write_text(json.dumps(described, indent=1))

    def _close(self) -> None:
        if self._shard is not None:
            self._shard.finish()
            self._shard = None


def is_export(croissant: bytes) -> bool:
    """Whether that is the `croissant.json` of an export, and not of somebody's own data set."""
    try:
        return "tapdistill" in json.loads(croissant)["description"]
    except (ValueError, KeyError, TypeError):
        return False


def _name(dataset: Dataset) -> str:
    return dataset.storage.url.rstrip("/").rsplit("/", 1)[-1] or "labels"


def card(dataset: Dataset, table: pd.DataFrame) -> str:
    """The dataset card: front matter that tells `datasets` where the clips are, then what they are,
    who labelled them, under which licences, and how to read and cite them."""
    absent = VERDICT if dataset.unjudged else None
    agreements = {json.dumps(one, sort_keys=True) for one in dataset.agreements}
    environment = Environment(keep_trailing_newline=True)
    environment.filters["licence"] = in_words
    return environment.from_string(CARD.read_text()).render(
        name=_name(dataset),
        size="n<1K" if len(table) < 1000 else "1K<n<10K" if len(table) < 10_000 else "n>10K",
        said=(
            f"{len(table):,} clips of {table['uri'].nunique():,} videos, "
            f"{table['frames'].sum():,} frames; {table['queries'].sum():,} tracked points, of "
            f"which the teachers agree on {table['kept'].sum():,}"
        ),
        members={name: text for name, text in MEMBERS.items() if name != absent},
        teachers=dataset.teacher_infos,
        licences=licence_note(dataset.teacher_infos),
        version=version("tapdistill"),
        agreement="; ".join(sorted(agreements)),
        verifiers=", ".join(dataset.verifiers) or "none",
        frozen=json.dumps(dataset.manifest["frozen"], indent=1, sort_keys=True),
    )


def croissant(folder: Path, dataset: Dataset, tars: list[str]) -> dict[str, Any]:
    """Croissant 1.0 JSON-LD: the shards, and `clips.parquet` as a record set."""
    columns = pd.read_parquet(folder / "clips.parquet").dtypes
    types = {"i": "sc:Integer", "f": "sc:Float"}
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": _name(dataset),
        "description": "Tracks of points in real video by several trackers, and what they agree "
        "on (pseudo-labels), written by tapdistill.",
        "license": licence_note(dataset.teacher_infos),
        "url": dataset.storage.url,
        "version": "1.0.0",
        "datePublished": datetime.now(UTC).date().isoformat(),
        "citeAs": "Karaev et al., CoTracker3, arXiv 2410.11831, for the recipe; and the papers of "
        "the teachers.",
        "distribution": [
            _file_object(folder, "clips.parquet", "application/x-parquet"),
            *(_file_object(folder, tar, "application/x-tar") for tar in tars),
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "clips",
                "name": "clips",
                "description": "One row per labelled clip.",
                "key": {"@id": "clips/key"},
                "field": [
                    {
                        "@type": "cr:Field",
                        "@id": f"clips/{name}",
                        "name": name,
                        "description": text,
                        "dataType": types.get(columns[name].kind, "sc:Text"),
                        "source": {
                            "fileObject": {"@id": "clips.parquet"},
                            "extract": {"column": name},
                        },
                    }
                    for name, text in TABLE_COLUMNS.items()
                ],
            }
        ],
    }


def _file_object(folder: Path, name: str, kind: str) -> dict[str, str]:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "encodingFormat": kind,
        "contentSize": f"{(folder / name).stat().st_size} B",
        "sha256": file_sha256(folder / name),
    }


_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The vocabulary that Croissant's specification prescribes, word for word."""
