"""Storage: whole files or none, one winner of a race, on a folder and on another file system."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from pathlib import Path

import pytest

from labeler.io.scratch import remove_abandoned, scratch_folder
from labeler.io.storage import Storage, files_of, tag_of, transient_errors
from teachers import ConfigError, FullStorageError, ShardError, TransientError


@pytest.fixture(params=["folder", "memory"])
def storage(request, tmp_path):
    return Storage(
        str(tmp_path / "data") if request.param == "folder" else f"memory://{uuid.uuid4().hex}/data"
    )


def test_a_file_is_created_once(storage):
    assert storage.create("shards/a.json", b"first")
    assert not storage.create("shards/a.json", b"second")
    assert storage.read("shards/a.json") == b"first"


@pytest.mark.parametrize("path", ["shards", "shards/a.json", "nothing"])
def test_a_listing_one_by_one_is_that_of_fsspec(storage, path):
    """Of a folder, of a file (itself), and of what is not there; but links to files are listed."""
    for name in ("shards/a.json", "shards/b.tar", "shards/below/c"):
        storage.create(name, name.encode())

    if storage.local:
        os.symlink("a.json", storage.path("shards/link.json"))
        os.symlink("nowhere", storage.path("shards/dangling"))
        os.symlink("below", storage.path("shards/folder"))
    where = storage.path(path)
    if path == "nothing":
        with pytest.raises(FileNotFoundError):
            list(files_of(storage.fs, where))
        return
    expected = [
        (Path(info["name"]).name, tag_of(info), info["size"])
        for info in storage.fs.ls(where, detail=True)
        if info["type"] == "file"
    ]
    found = {file.name: file for file in files_of(storage.fs, where)}
    if storage.local and path == "shards":
        found.pop("dangling")
        assert found.pop("link.json")[1:] == found["a.json"][1:]
        assert storage.tag("shards/link.json") == found["a.json"].tag
    assert sorted(found.values()) == sorted(expected)


def test_a_replaced_file_has_the_new_bytes(storage):
    storage.replace("a", b"old")
    storage.replace("a", b"new")
    assert storage.read("a") == b"new"


def test_a_published_file_is_a_copy(storage, tmp_path):
    file = tmp_path / "local.tar"
    file.write_bytes(b"x" * 3_000_000)
    storage.publish(file, "shards/a.tar")
    assert storage.size("shards/a.tar") == 3_000_000
    assert storage.read_range("shards/a.tar", 10, 5) == b"xxxxx"
    assert file.exists()
    with storage.open("shards/a.tar") as stream:
        assert stream.read(3) == b"xxx"


def test_names_are_the_files_of_one_folder_sorted(storage):
    for name in ("b", "shards/z", "shards/y", "shards/deep/x"):
        storage.create(name, b"")
    assert storage.names("shards") == ["y", "z"]
    assert storage.names() == ["b"]
    assert storage.names("nothing") == []


def test_removing_a_file_twice_is_fine(storage):
    storage.create("a", b"")
    storage.remove("a")
    storage.remove("a")
    assert storage.size("a") is None


def test_a_missing_file_is_named(storage):
    for read in (storage.read, storage.open, lambda name: storage.read_range(name, 0, 1)):
        with pytest.raises(ShardError, match=r"data/shards/none\.tar does not exist"):
            read("shards/none.tar")


def race(writers: int, write) -> list:
    """What `write(i)` returned in each of `writers` threads that start together."""
    barrier, results = threading.Barrier(writers), [None] * writers

    def run(i: int) -> None:
        barrier.wait()
        try:
            results[i] = write(i)
        except BaseException as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_of_eight_threads_that_create_one_name_one_wins(tmp_path):
    storage = Storage(str(tmp_path))
    for attempt in range(40):
        won = race(
            8, lambda i, name=f"shards/{attempt}.json": storage.create(name, str(i).encode() * 1000)
        )
        assert sorted(won) == [False] * 7 + [True]
        assert storage.read(f"shards/{attempt}.json") == str(won.index(True)).encode() * 1000
    assert [name for name in storage.names("shards") if not name.endswith(".json")] == []


CREATE = (
    "import sys; from labeler.io.storage import Storage; print(Storage(sys.argv[1]).create('a', "
    "sys.argv[2].encode()))"
)


@pytest.mark.slow
def test_of_four_processes_that_create_one_name_one_wins(tmp_path):
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", CREATE, str(tmp_path), str(i)], stdout=subprocess.PIPE, text=True
        )
        for i in range(4)
    ]
    assert sorted(writer.communicate()[0].strip() for writer in writers) == ["False"] * 3 + ["True"]


def test_readers_see_the_old_file_or_the_new_one_never_a_part(tmp_path):
    storage, big = Storage(str(tmp_path / "data")), 4_000_000
    versions = [tmp_path / letter for letter in "ab"]
    for version in versions:
        version.write_bytes(version.name.encode() * big)
    storage.publish(versions[0], "t.tar")
    stop, seen = threading.Event(), set()

    def read() -> None:
        while not stop.is_set():
            data = storage.read("t.tar")
            seen.add((len(data), data[:1] == data[-1:]))

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(10):
        storage.publish(versions[i % 2], "t.tar")
    stop.set()
    reader.join()
    assert seen == {(big, True)}


def test_names_are_complete_while_others_write(tmp_path):
    """A temporary file that goes away while the folder is listed must not empty the listing."""
    storage, stop = Storage(str(tmp_path)), threading.Event()
    storage.create("shards/here.json", b"")

    def write() -> None:
        while not stop.is_set():
            storage.replace("shards/busy.json", b"")

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    listings = [storage.names("shards") for _ in range(300)]
    stop.set()
    for writer in writers:
        writer.join()
    assert all("here.json" in listing for listing in listings)


HOLDS = """
import sys, time
from labeler.io.scratch import scratch_folder
from labeler.io.storage import Storage
with scratch_folder() as folder, Storage(sys.argv[1])._part("shards/a.tar", b"half") as part:
    print(folder, part, flush=True)
    time.sleep(30)
"""


def holder(tmp_path, **variables: str) -> tuple[subprocess.Popen[str], Path, Path]:
    """A process that has a scratch folder and a half-written file, and those."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path / "data")],
        env={**os.environ, "TMPDIR": str(tmp_path), **variables},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    folder, part = process.stdout.readline().split()
    return process, Path(folder), Path(part)


def test_what_a_process_holds_stays_until_it_is_killed(tmp_path, monkeypatch):
    """Whatever its host name and its process id say to others: containers share both."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    storage = Storage(str(tmp_path / "data"))
    process, folder, part = holder(tmp_path)
    with process, scratch_folder() as ours:
        remove_abandoned()
        storage.remove_abandoned_parts("shards")
        assert folder.exists()
        assert part.exists()
        process.send_signal(signal.SIGKILL)
        process.wait()
        remove_abandoned()
        storage.remove_abandoned_parts("shards")
        assert not folder.exists()
        assert not part.exists()
        assert ours.exists()
    assert [path.suffix for path in tmp_path.glob("tapdistill-*")] == [".lock"]


def abandoned(where: Path) -> tuple[Path, Path]:
    """A scratch folder of a process that is gone, and its lock file."""
    folder, lock = where / "tapdistill-0f-x", where / "tapdistill-0f.lock"
    folder.mkdir()
    lock.touch()
    return folder, lock


def test_a_folder_that_cannot_be_removed_now_is_removed_later(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder, lock = abandoned(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *_, **__: None)
        remove_abandoned()
    assert lock.exists()
    remove_abandoned()
    assert not folder.exists()
    assert not lock.exists()


LEAVES = """
import tempfile
from labeler.io.scratch import prefix, scratch_folder
with scratch_folder():
    pass
if {leaves}:
    tempfile.mkdtemp(prefix=prefix())
"""


@pytest.mark.parametrize("leaves", [True, False])
def test_what_a_process_leaves_at_its_end_is_removed_by_the_next_one(tmp_path, monkeypatch, leaves):
    code = LEAVES.format(leaves=leaves)
    subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(tmp_path)}, check=True
    )
    assert len(list(tmp_path.iterdir())) == 2 * leaves
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    remove_abandoned()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_for_temporary_files_that_cannot_be_written_says_what_to_set(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(ConfigError, match="set TMPDIR to a folder"), scratch_folder():
        pass


def test_a_variable_that_is_not_set_names_no_data_set():
    with pytest.raises(ConfigError, match="empty text"):
        Storage("")


KILLED = """
import os, signal, sys, threading
from pathlib import Path
import labeler.io.storage as s
copy = s.shutil.copyfileobj
def part(source, out, size):
    out.write(source.read(1000)); out.flush(); os.kill(os.getpid(), signal.SIGKILL)
s.shutil.copyfileobj = part
s.Storage(sys.argv[1]).publish(Path(sys.argv[2]), "shards/a.tar")
"""


def test_a_writer_killed_in_the_middle_leaves_nothing_that_the_next_job_keeps(tmp_path):
    file = tmp_path / "local.tar"
    file.write_bytes(b"x" * 5000)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "data"), str(file)], check=False
    )
    assert done.returncode == -signal.SIGKILL
    storage = Storage(str(tmp_path / "data"))
    assert storage.size("shards/a.tar") is None
    assert len(storage.names("shards")) == 1
    storage.remove_abandoned_parts("shards")
    assert storage.names("shards") == []


@pytest.fixture
def big(tmp_path):
    """A file of 200,000 bytes on a disk that has room."""
    file = tmp_path / "big"
    file.write_bytes(bytes(200_000))
    return file


@pytest.fixture
def full_disk(tmp_path, big):
    """A file system of 64 KiB; where we may not mount one, a limit on the size of files."""
    folder = tmp_path / "full"
    folder.mkdir()
    mounted = (
        os.geteuid() == 0
        and sys.platform == "linux"
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)],
            capture_output=True,
            check=False,
        ).returncode
    )
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if not mounted:
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, before[1]))
    yield folder
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_transient_and_leaves_nothing_half_written(full_disk, big):
    storage = Storage(str(full_disk))
    for write in (
        lambda: storage.create("shards/a.json", big.read_bytes()),
        lambda: storage.replace("shards/a.json", big.read_bytes()),
        lambda: storage.publish(big, "shards/a.tar"),
    ):
        with pytest.raises(
            TransientError,
            match=(
                r"could not write .*shards/a\.(json|tar): .*(No space|too large).* run the same "
                r"command again"
            ),
        ):
            write()
    assert storage.names("shards") == []
    assert storage.create("shards/small.json", b"fits")


@pytest.mark.parametrize("answer", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_a_disk_without_hard_links_says_so(tmp_path, monkeypatch, answer):
    def link(source, target):
        raise OSError(answer, os.strerror(answer), source, None, target)

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(ConfigError, match=r"its disk has no hard links .*: take a folder on anot"):
        Storage(str(tmp_path)).create("dataset.json", b"{}")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_became_read_only_stops_the_job_as_a_full_one_does():
    why = OSError(errno.EROFS, os.strerror(errno.EROFS))
    with pytest.raises(FullStorageError, match="Read-only"), transient_errors("write a.tar"):
        raise why


def test_a_folder_that_is_a_file_is_transient(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(TransientError, match=r"could not write .*file/a: .*File exists"):
        Storage(str(tmp_path / "file")).create("a", b"")


@pytest.mark.parametrize(
    "url", ["s3://key:secret@bucket/data", "https://user@example.org/x", "memory://a:b@c@d/e"]
)
def test_a_url_with_a_password_is_refused_and_not_repeated(url):
    with pytest.raises(ConfigError, match="must not hold a user or a password") as caught:
        Storage(url)
    assert "secret" not in str(caught.value)
    assert "user@" not in str(caught.value)


def test_a_relative_folder_is_the_same_after_the_process_moves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    storage = Storage("data")
    monkeypatch.chdir("/")
    storage.create("a", b"")
    assert (Path(tmp_path) / "data" / "a").exists()


def test_a_file_system_that_does_not_exist_is_named():
    with pytest.raises(ConfigError, match="nowhere"):
        Storage("nowhere://bucket/data")
