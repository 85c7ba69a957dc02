"""Samples: what goes into a shard comes out of it, equal bytes for equal samples, and nothing in it
can harm who reads it."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from labeler.labels.agreement import AgreementConfig, label
from labeler.labels.sample import Sample
from labeler.shards.members import (
    MAX_MEMBER_BYTES,
    from_members,
    info_to_meta,
    members,
    npz,
    read_npz,
    stored,
    tracks_to_npz,
)
from labeler.shards.tar import ShardWriter
from teachers import ShardError, TeacherInfo, Tracks, VisibleRule


def a_sample(key: str = "0123456789abcdef-f000000-s1", seed: int = 0) -> Sample:
    """A sample of 5 queries in 9 frames, with a teacher that failed and one without a
    confidence."""
    rng = np.random.default_rng(seed)
    n, t, size = 5, 9, (48, 64)
    queries = np.column_stack([rng.integers(0, t, n), rng.integers(0, 48, (n, 2))]).astype(
        np.float32
    )
    infos = {
        name: TeacherInfo(
            name=name,
            architecture="stub",
            mode="label",
            visible_rule="v > 0.5",
            licence="none",
            settings={"a": [1]},
        )
        for name in ("one", "two", "broken")
    }
    tracks = {
        "one": stored(Tracks(rng.normal(30, 9, (n, t, 2)), rng.random((n, t)), rng.random((n, t)))),
        "two": stored(
            Tracks(rng.normal(30, 9, (n, t, 2)), rng.random((n, t)), np.full((n, t), np.nan))
        ),
        "broken": Tracks.nan(n, t),
    }
    labels = label(
        tracks, {name: info.rule for name, info in infos.items()}, queries, size, AgreementConfig()
    )
    meta = {
        "schema": 1,
        "key": key,
        "height": 48,
        "width": 64,
        "uri": "/videos/ein schöner Film.mp4",
        "teachers": info_to_meta(infos),
    }
    return Sample(
        key,
        b"not decoded here",
        queries,
        np.array(["sift", "sift", "uniform", "motion", "grid"]),
        tracks,
        labels,
        meta,
    )


def assert_same(a: object, b: object, where: str = "sample") -> None:
    """Equal, array by array, dtypes too."""
    if dataclasses.is_dataclass(a):
        for field in dataclasses.fields(a):
            assert_same(getattr(a, field.name), getattr(b, field.name), f"{where}.{field.name}")
    elif isinstance(a, np.ndarray):
        assert isinstance(b, np.ndarray)
        assert a.dtype == b.dtype, where
        np.testing.assert_array_equal(a, b, err_msg=where)
    elif isinstance(a, dict):
        assert isinstance(b, dict)
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}[{key}]")
    else:
        assert a == b, where


def test_a_sample_comes_back_as_it_was():
    sample = a_sample()
    assert_same(from_members(sample.key, members(sample)), sample)


def test_equal_samples_give_equal_bytes_in_a_fixed_order():
    first, second = members(a_sample()), members(a_sample())
    assert first == second
    assert list(first) == [
        "mp4",
        "queries.npz",
        "broken.npz",
        "one.npz",
        "two.npz",
        "labels.npz",
        "json",
    ]
    backwards = dataclasses.replace(a_sample(), tracks=dict(reversed(a_sample().tracks.items())))
    assert list(members(backwards).items()) == list(first.items())


def test_stored_coordinates_are_whole_64ths_and_probabilities_float16():
    tracks = stored(
        Tracks(np.array([[[10.01, 0.0078125]]]), np.array([[0.1]]), np.array([[np.nan]]))
    )
    assert tracks.xy.tolist() == [[[10.015625, 0.0]]]  # 641 / 64; half a step goes to the even one
    assert tracks.visibility.item() == np.float16(0.1)
    assert np.isnan(tracks.confidence).all()
    assert_same(stored(tracks), tracks)


def test_a_teachers_own_rule_says_what_it_sees():
    sample = a_sample()
    np.testing.assert_array_equal(sample.visible("one"), sample.tracks["one"].visibility > 0.5)
    assert not sample.visible("broken").any()
    assert sample.rules["two"] == VisibleRule("v", 0.5)


def npz_with_pickle() -> bytes:
    class Harm:
        def __reduce__(self):
            return os.system, ("touch /tmp/harm",)

    buffer = io.BytesIO()
    np.savez(buffer, xy=np.array([Harm()], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def npz_that_claims(entry: str, shape: tuple[int, ...]) -> bytes:
    """A tiny npz whose array says it has `shape`."""
    array = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        array, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(entry, array.getvalue())
    return buffer.getvalue()


def bomb() -> bytes:
    """1 MB of zip that unpacks to more than a member may have."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("xy.npy", "w", force_zip64=True) as out,
    ):
        for _ in range(MAX_MEMBER_BYTES // (1 << 24) + 1):
            out.write(bytes(1 << 24))
    return buffer.getvalue()


BAD_NPZ = {
    "pickle inside": (npz_with_pickle, "not an npz of plain arrays"),
    "a pickle in place of it": (lambda: pickle.dumps([1]), "not an npz of plain arrays"),
    "an npy in place of it": (lambda: b"\x93NUMPY\x01\x00", "not an npz of plain arrays"),
    "nothing": (lambda: b"", "not an npz of plain arrays"),
    "cut": (lambda: tracks_to_npz(Tracks.nan(4, 4))[:-40], "not an npz of plain arrays"),
    "an array that claims 4 TB": (
        lambda: npz_that_claims("xy.npy", (1 << 40,)),
        "not an npz of plain arrays",
    ),
    "an entry that is no array": (
        lambda: npz_that_claims("readme.txt", (1,)),
        "not an npz of plain arrays",
    ),
    "an array is missing": (
        lambda: npz(xy=np.zeros((5, 9, 2), np.float32)),
        "visibility.* is missing",
    ),
}


@pytest.mark.parametrize("name", BAD_NPZ)
def test_a_member_that_is_not_plain_arrays_is_refused(name):
    make, says = BAD_NPZ[name]
    sample = a_sample()
    with pytest.raises(ShardError, match=says):
        from_members(sample.key, {**members(sample), "one.npz": make()})
    assert not Path("/tmp/harm").exists()


@pytest.mark.slow
def test_a_zip_bomb_is_refused_by_its_declared_size():
    with pytest.raises(ShardError, match=r"k\.one\.npz unpacks to 1,\d+,\d+,\d+ bytes"):
        read_npz(bomb(), "k.one.npz")


@pytest.mark.parametrize("seed", range(150))
def test_a_damaged_member_is_an_error_that_names_the_sample_or_changes_an_array(seed):
    """Flipped bytes anywhere: never another exception than a ShardError."""
    rng = np.random.default_rng(seed)
    sample = a_sample()
    parts = members(sample)
    suffix = str(rng.choice([name for name in parts if name != "mp4"]))
    data = bytearray(parts[suffix])
    for place in rng.integers(0, len(data), 3):
        data[place] ^= int(rng.integers(1, 256))
    try:
        from_members(sample.key, {**parts, suffix: bytes(data)})
    except ShardError as error:
        assert sample.key in str(error)  # noqa: PT017  most seeds raise, none may raise anything else


@pytest.mark.parametrize("suffix", ["json", "queries.npz", "labels.npz", "one.npz", "mp4"])
def test_a_missing_member_is_named(suffix):
    sample = a_sample()
    parts = {name: data for name, data in members(sample).items() if name != suffix}
    with pytest.raises(ShardError, match=rf"{sample.key}.*{suffix}.* is missing"):
        from_members(sample.key, parts)


@pytest.mark.parametrize(
    "text", ["", "[]", "7", "{", '{"schema": 1}', '{"schema": 1, "teachers": {"none": {}}}']
)
def test_a_json_member_that_is_something_else_is_refused(text):
    sample = a_sample()
    with pytest.raises(ShardError, match=sample.key):
        from_members(sample.key, {**members(sample), "json": text.encode()})


def test_another_schema_is_refused_with_both_numbers():
    sample = a_sample()
    meta = json.dumps({**sample.meta, "schema": 3}).encode()
    with pytest.raises(
        ShardError, match="has schema 3; this version of tapdistill reads schema 1 and 2"
    ):
        from_members(sample.key, {**members(sample), "json": meta})


PLAIN_READER = """
import io, json, sys
import numpy as np
import webdataset as wds

def decode(sample):
    npz = lambda data: dict(np.load(io.BytesIO(data), allow_pickle=False))
    read = {"npz": npz, "json": json.loads}
    return {
        name: read.get(name.rsplit(".", 1)[-1], lambda data: data)(data)
        for name, data in sample.items()
    }

for sample in wds.WebDataset(sys.argv[1], shardshuffle=False).map(decode):
    names = sorted(name for name in sample if name[0] != "_")
    print(sample["__key__"], *names, sample["one.npz"]["xy"].shape, sample["json"]["width"])
"""


@pytest.mark.slow
def test_plain_webdataset_reads_a_shard_without_this_project(tmp_path):
    writer = ShardWriter(tmp_path / "a.tar")
    for key in ("aa-f000000-s1", "bb-f000000-s1"):
        writer.write(key, members(a_sample(key)))
    writer.finish()
    said = subprocess.run(
        [sys.executable, "-c", PLAIN_READER, str(tmp_path / "a.tar")],
        cwd=tmp_path,
        env={**os.environ, "WDS_SECURE": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    names = " ".join(sorted(members(a_sample())))
    assert said.splitlines() == [
        f"{key} {names} (5, 9, 2) 64" for key in ("aa-f000000-s1", "bb-f000000-s1")
    ]
