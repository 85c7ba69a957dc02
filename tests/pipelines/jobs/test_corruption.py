"""Good videos, corrupted at random: no hang, no crash of the job; each is labelled or listed, and
none is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness.jobs import FRAMES, config, write_moving
from labeler.dataset.dataset import open_dataset
from labeler.io.storage import Storage
from labeler.shards.verify import verify
from pipelines.engines.common import DecodeLimits
from pipelines.jobs.labelling import label


def corrupted(data: bytes, rng: np.random.Generator) -> bytes:
    """The file with bits flipped, its end cut off, a block of zeros or noise in it, or its header
    flipped."""
    out = bytearray(data)
    how = rng.choice(["flip", "cut", "zeros", "noise", "header"])
    if how == "cut":
        return bytes(out[: rng.integers(len(out))])
    if how in ("zeros", "noise"):
        start, size = int(rng.integers(len(out))), int(rng.integers(1, len(out) // 4))
        out[start : start + size] = bytes(size) if how == "zeros" else rng.bytes(size)
        return bytes(out[: len(data)])
    places = rng.integers(
        min(len(out), 200) if how == "header" else len(out), size=rng.integers(1, 30)
    )
    for place in places:
        out[place] ^= 1 << int(rng.integers(8))
    return bytes(out)


def write_corrupted(folder: Path, count: int, seed: int) -> None:
    folder.mkdir()
    rng = np.random.default_rng(seed)
    good = [
        write_moving(folder / f"good{i}.mp4", seed=i, frames=FRAMES + 8 * i).read_bytes()
        for i in range(3)
    ]
    for i in range(count):
        (folder / f"{i:03d}.mp4").write_bytes(corrupted(good[i % 3], rng))


@pytest.mark.parametrize(("count", "seed"), [(12, 0), pytest.param(200, 1, marks=pytest.mark.slow)])
def test_a_corrupted_video_is_labelled_or_listed(tmp_path, count, seed):
    write_corrupted(tmp_path / "videos", count, seed)
    limits = DecodeLimits(deadline_s=20.0, memory_gib=4.0)
    result = label(
        config(
            tmp_path / "videos",
            tmp_path / "out",
            videos_per_unit=16,
            decoding=limits,
            max_failed_fraction=1.0,
        )
    )
    accounts = result.accounts
    assert (accounts.videos, accounts.open) == (count + 3, 0)
    assert accounts.done + accounts.videos_left_out + accounts.videos_failed == count + 3
    assert accounts.done >= 3

    dataset = open_dataset(str(tmp_path / "out"))
    videos = {video.uri for record in dataset.records for video in record.videos}
    listed = set(dataset.failures.loc[dataset.failures["what"] == "video", "uri"])
    assert videos | listed == {str(path) for path in (tmp_path / "videos").iterdir()}
    assert not videos & listed
    assert list(verify(Storage(str(tmp_path / "out")))) == []
