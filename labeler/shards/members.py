"""Members: the files that hold a sample, one labelled clip, in a shard.

    <key>.mp4 <key>.queries.npz <key>.<teacher>.npz ... <key>.labels.npz <key>.verdict.npz
    <key>.json

`members` and `from_members` are each other's inverse. Coordinates are float32 rounded to 1/64 px
and probabilities float16: `stored` applies that rounding, and whatever is derived (labels) is
derived from rounded tracks, so that `relabel` finds the same. Nothing here writes or reads pickle.
Equal samples give equal bytes.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from labeler.clips.recipe import READABLE
from labeler.labels import ClipVerdict, Labels, Sample
from labeler.labels.verifier import from_uint8, to_uint8
from teachers import ShardError, TeacherInfo, Tracks

UNIT_PX = 1 / 64
VERDICT = "verdict.npz"
MAX_MEMBER_BYTES = 1 << 30
"""No member of a genuine sample comes near this size; a larger one is refused before it is
unpacked."""

DAMAGED = (
    ValueError,
    OSError,
    EOFError,
    RuntimeError,
    MemoryError,
    SyntaxError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)
"""What zipfile and numpy raise for bytes that are not an npz; a MemoryError if an array claims a
size that it does not have."""


def stored(tracks: Tracks) -> Tracks:
    """`tracks` with the rounding of a shard: xy float32 in steps of 1/64 px, probabilities float16
    widened to float32."""
    return Tracks(
        (np.rint(tracks.xy / UNIT_PX) * UNIT_PX).astype(np.float32),
        tracks.visibility.astype(np.float16).astype(np.float32),
        tracks.confidence.astype(np.float16).astype(np.float32),
    )


def members(sample: Sample) -> dict[str, bytes]:
    """The bytes of each member, by suffix. The same sample always gives the same bytes."""
    labels = sample.labels
    out = {"mp4": sample.mp4, "queries.npz": npz(queries=sample.queries, sampler=sample.sampler)}
    for name in sorted(sample.tracks):
        out[f"{name}.npz"] = tracks_to_npz(sample.tracks[name])
    out["labels.npz"] = npz(
        support=labels.support,
        spread=labels.spread,
        state=labels.state,
        valid=labels.valid,
        keep=labels.keep,
        settings=np.array(to_json(labels.settings)),
    )
    if sample.verdict is not None:
        out[VERDICT] = verdict_to_npz(sample.verdict)
    out["json"] = to_json(sample.meta).encode()
    return out


def from_members(key: str, parts: Mapping[str, bytes]) -> Sample:
    """The sample that `members` hold. A ShardError if a member is missing, damaged, or of another
    schema."""
    try:
        meta = json.loads(parts["json"])
        schema = meta["schema"]
    except (KeyError, ValueError, TypeError) as error:
        raise ShardError(
            f"sample {key}: its json member is missing or not a sample's ({error!r}). Run "
            "`tapdistill verify`."
        ) from error
    check_schema(schema, f"sample {key}")
    queries = read_npz(_member(key, parts, "queries.npz"), f"{key}.queries.npz")
    labels = labels_from_npz(_member(key, parts, "labels.npz"), f"{key}.labels.npz")
    try:
        return Sample(
            key=key,
            mp4=parts["mp4"],
            queries=queries["queries"],
            sampler=queries["sampler"],
            tracks={
                name: tracks_from_npz(parts[f"{name}.npz"], f"{key}.{name}.npz")
                for name in sorted(meta["teachers"])
            },
            labels=labels,
            meta=meta,
            verdict=verdict_from_npz(parts[VERDICT], f"{key}.{VERDICT}")
            if VERDICT in parts
            else None,
        )
    except (KeyError, TypeError) as error:
        raise ShardError(f"sample {key}: {error} is missing. Run `tapdistill verify`.") from error


def info_to_meta(infos: Mapping[str, TeacherInfo]) -> dict[str, dict[str, Any]]:
    """An entry of `teachers` in `meta`."""
    return {name: infos[name].to_json() for name in sorted(infos)}


def check_schema(schema: object, what: str) -> None:
    """Raise a ShardError unless `schema` is one that this version can read."""
    if type(schema) is not int or schema not in READABLE:
        raise ShardError(
            f"{what} has schema {schema!r}; this version of tapdistill reads schema "
            f"{' and '.join(map(str, READABLE))}. Use the version that wrote it."
        )


def tracks_to_npz(tracks: Tracks) -> bytes:
    """The <teacher>.npz member: xy float32 [N, T, 2], visibility and confidence float16 [N, T]."""
    return npz(
        xy=tracks.xy,
        visibility=tracks.visibility.astype(np.float16),
        confidence=tracks.confidence.astype(np.float16),
    )


def tracks_from_npz(data: bytes, what: str) -> Tracks:
    """The inverse of `tracks_to_npz`; probabilities come back as float32. `what` names the member
    in errors."""
    arrays = read_npz(data, what)
    return Tracks(
        arrays["xy"],
        arrays["visibility"].astype(np.float32),
        arrays["confidence"].astype(np.float32),
    )


def labels_from_npz(data: bytes, what: str) -> Labels:
    """The labels.npz member; `what` names it in errors."""
    arrays = read_npz(data, what)
    try:
        return Labels(**{**arrays, "settings": json.loads(str(arrays["settings"]))})
    except (KeyError, TypeError, ValueError) as error:
        raise ShardError(
            f"{what} does not hold labels ({error}). Run `tapdistill verify`."
        ) from error


def verdict_to_npz(verdict: ClipVerdict) -> bytes:
    """The verdict.npz member: right uint8 [K, N, T] and hidden uint8 [N, T], where 255 is a
    probability of 1; teachers unicode [K]; version, of the verifier."""
    return npz(
        right=to_uint8(verdict.right),
        hidden=to_uint8(verdict.hidden),
        teachers=np.array(verdict.teachers, str),
        version=np.array(verdict.version),
    )


def verdict_from_npz(data: bytes, what: str) -> ClipVerdict:
    """The inverse of `verdict_to_npz`; `what` names the member in errors."""
    arrays = read_npz(data, what)
    try:
        right, hidden = arrays["right"], arrays["hidden"]
        names, version = arrays["teachers"], arrays["version"]
        if right.shape != (*names.shape, *hidden.shape) or right.ndim != 3:
            raise ValueError(f"{right.shape} probabilities of {names.shape} teachers")
        if {right.dtype, hidden.dtype} != {np.dtype(np.uint8)}:
            raise ValueError(f"probabilities are {right.dtype} and {hidden.dtype}")
        return ClipVerdict(
            tuple(names.tolist()), from_uint8(right), from_uint8(hidden), str(version)
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ShardError(
            f"{what} does not hold a verdict ({error}). Run `tapdistill verify`."
        ) from error


def npz(**arrays: np.ndarray) -> bytes:
    """Deflated npz of plain arrays; the same arrays give the same bytes (numpy writes no time into
    it)."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def read_npz(data: bytes, what: str) -> dict[str, np.ndarray]:
    """The arrays of an npz, none of which may need pickle, or unpack to more than
    `MAX_MEMBER_BYTES`; otherwise a ShardError that names `what`."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_MEMBER_BYTES:
            raise ShardError(
                f"{what} unpacks to {size:,} bytes, more than the {MAX_MEMBER_BYTES:,} that a "
                "member may have: refused."
            )
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except DAMAGED as error:
        raise ShardError(
            f"{what} is not an npz of plain arrays ({error}). Run `tapdistill verify`."
        ) from error


def to_json(value: Any) -> str:
    """JSON with sorted keys and without spaces, so that equal values give equal text."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def _member(key: str, parts: Mapping[str, bytes], suffix: str) -> bytes:
    if suffix not in parts:
        raise ShardError(f"sample {key}: its {suffix} member is missing. Run `tapdistill verify`.")
    return parts[suffix]
