"""Data sets and videos come from other people: each hostile one gets a clear refusal, and nothing
is read or written outside."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import tarfile
from pathlib import Path

import av
import numpy as np
import pytest

from benchmarks.harness.jobs import STILL, config, write_moving
from benchmarks.harness.processes import FLAGS
from labeler.dataset.dataset import open_dataset
from labeler.io.storage import Storage
from labeler.shards.members import from_members, members
from labeler.shards.records import latest_records
from labeler.shards.verify import collect_garbage, verify
from labeler.video.decode import open_video
from pipelines.cli import run
from pipelines.jobs.labelling import label
from pipelines.wording import harmless
from teachers import ShardError, VideoError


@pytest.fixture
def copy(dataset, tmp_path) -> Path:
    """A good data set that a test may spoil, beside a secret."""
    (tmp_path / "secret.tar").write_bytes(b"secret" * 10_000)
    return Path(
        shutil.copytree(
            dataset.folder, tmp_path / "copy", ignore=shutil.ignore_patterns("records.parquet")
        )
    )


def change_record(folder: Path, **fields) -> None:
    file = sorted(folder.glob("shards/*.json"))[0]
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


@pytest.mark.parametrize(
    "tar",
    [
        "../secret.tar",
        "/etc/passwd",
        "shards/../../secret.tar",
        "shards/000000.r0.tar",
        "s3://bucket/x.tar",
    ],
)
def test_a_record_that_names_a_file_elsewhere_is_refused(copy, tar):
    change_record(copy, tar=tar)
    with pytest.raises(ShardError, match="is not the name of a shard"):
        open_dataset(str(copy))
    findings = verify(Storage(str(copy)))
    assert any("is not the name of a shard" in finding.problem for finding in findings)
    with pytest.raises(ShardError):
        collect_garbage(Storage(str(copy)), older_than_s=0)
    assert (copy.parent / "secret.tar").exists()


@pytest.mark.parametrize("offset", [[-1, 10], [0, -10], [0, 1 << 50], [0.5, 2], ["0", 1]])
def test_a_record_with_offsets_that_cannot_be_is_refused(copy, offset):
    clips = json.loads(sorted(copy.glob("shards/*.json"))[0].read_text())["clips"]
    clips[0]["offsets"]["mp4"] = offset
    change_record(copy, clips=clips)
    with pytest.raises(ShardError, match="is not a commit record"):
        open_dataset(str(copy))


@pytest.mark.parametrize(
    "text",
    ["", "[1, 2]", "{", "[" * 100_000, '{"schema": 99, "frozen": {"sources": []}}', "\x00\xff"],
)
def test_an_unreadable_manifest_is_refused_by_every_command(copy, text, capsys):
    (copy / "dataset.json").write_text(text)
    for command in (["status"], ["verify"], ["gc"], ["relabel"]):
        assert run([*command, str(copy)]) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1, error
        assert "dataset.json" in error
    assert run(["label", str(copy / "a.mp4"), "--out", str(copy), "--teachers", STILL, *FLAGS]) == 1


def one_tar(copy: Path) -> tuple[Path, list[tuple[tarfile.TarInfo, bytes]]]:
    path = copy / str(latest_records(Storage(str(copy)))[0].tar)
    with tarfile.open(path) as tar:
        return path, [(member, tar.extractfile(member).read()) for member in tar]


@pytest.mark.parametrize("odd", ["absolute", "dots", "link", "zeros"])
def test_a_tar_with_odd_members_is_named_by_verify_and_never_unpacked(copy, odd):
    path, contents = one_tar(copy)
    extra = tarfile.TarInfo(
        {
            "absolute": "/tmp/owned.mp4",
            "dots": "../owned.mp4",
            "link": "owned.mp4",
            "zeros": "owned.mp4",
        }[odd]
    )
    if odd == "link":
        extra.type, extra.linkname = tarfile.SYMTYPE, "../../secret.tar"
    with tarfile.open(path, "w") as tar:
        tar.addfile(extra)
        for member, data in contents:
            tar.addfile(member, io.BytesIO(data))
    if odd == "zeros":  # a header that says ten gigabytes
        extra.size = 10 << 30
        data = path.read_bytes()
        path.write_bytes(extra.tobuf() + data[len(extra.tobuf()) :])
    change_record(copy, size_bytes=path.stat().st_size, sha256=_sha256(path))
    problems = " ".join(finding.problem for finding in verify(Storage(str(copy))))
    assert "refused" in problems or "that its record does not name" in problems, problems
    assert not (copy.parent / "owned.mp4").exists()
    assert not Path("/tmp/owned.mp4").exists()


def test_a_member_of_ten_gigabytes_of_zeros_is_refused_unread(copy):
    path, _ = one_tar(copy)
    extra = tarfile.TarInfo("zeros.mp4")
    extra.size = 10 << 30
    path.write_bytes(extra.tobuf())
    os.truncate(path, extra.size + 512)  # sparse: it takes no room on the disk
    change_record(copy, size_bytes=path.stat().st_size, sha256="0" * 64)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    problems = " ".join(finding.problem for finding in verify(Storage(str(copy))))
    assert "'zeros.mp4' of 10,737,418,240 bytes" in problems
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB


def _sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


class Runs:
    """Would create a file if it were unpickled."""

    def __reduce__(self):
        return os.system, ("touch /tmp/tapdistill-was-owned",)


def test_an_npz_with_pickled_objects_is_refused_and_runs_nothing(dataset):
    sample = open_dataset(str(dataset.folder))[0]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, queries=np.array([Runs()], dtype=object), sampler=sample.sampler)
    with pytest.raises(ShardError, match=r"queries\.npz is not an npz of plain arrays"):
        from_members(sample.key, {**members(sample), "queries.npz": buffer.getvalue()})
    assert not Path("/tmp/tapdistill-was-owned").exists()


@pytest.mark.parametrize(
    "name",
    [
        "[red]a[bold].mp4",
        "a\nb.mp4",
        "\x1b[31ma\x1b]0;owned\x07.mp4",
        "--out.mp4",
        "$(touch owned).mp4",
        "ü ☃ '\".mp4",
    ],
)
def test_a_hostile_file_name_is_only_a_name(tmp_path, name, capsys):
    folder = tmp_path / "videos"
    folder.mkdir()
    write_moving(folder / name, seed=0)
    (folder / f"broken {name}").write_bytes(b"no video")
    result = label(config(folder, tmp_path / "out"))
    assert (result.accounts.done, result.accounts.videos_failed) == (1, 1)
    assert open_dataset(str(tmp_path / "out")).failures["uri"].tolist() == [
        str(folder / f"broken {name}")
    ]
    assert run(["status", str(tmp_path / "out")]) == 0
    assert "\x1b" not in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "videos"]


def test_what_a_terminal_would_obey_is_not_shown():
    assert harmless("a\x1b[2Jb\x07\u202ec\td\n") == "a?[2Jb??c\td\n"


def test_a_video_that_claims_to_be_enormous_is_refused_before_anything_is_allocated(tmp_path):
    """An uncompressed AVI whose header says 100,000 x 100,000 px: 30 GB a frame."""
    path = tmp_path / "huge.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("rawvideo", rate=25, width=64, height=64, pix_fmt="bgr24")
        container.mux(
            stream.encode(
                av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            )
        )
        container.mux(stream.encode(None))
    data = bytearray(path.read_bytes())
    at = data.index(b"strf") + 12
    data[at : at + 8] = (100_000).to_bytes(4, "little") * 2
    path.write_bytes(data)
    with pytest.raises(VideoError, match="no frame size that libav accepts") as caught:
        open_video(path)
    assert caught.value.reason == "decode-error"
