"""Isolation: whatever happens in the child, the parent gets an answer or a reason, and no process
is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from labeler.clips.isolate import Isolated
from teachers.errors import ConfigError, TransientError, VideoError


class Guest:
    """What the tests host in a child."""

    def __init__(self, start: int = 0) -> None:
        self.count = start

    def add(self, number: int) -> int:
        self.count += number
        return self.count

    def pid(self) -> int:
        return os.getpid()

    def negative(self, array: np.ndarray) -> np.ndarray:
        return -array

    def hang(self) -> None:
        time.sleep(3600)

    def die(self, number: int) -> None:
        os.write(2, b"last words")
        os.kill(os.getpid(), number)

    def leave(self) -> None:
        os._exit(3)

    def hoard(self, gib: float) -> int:
        return len(np.ones(int(gib * 2**30), np.uint8))

    def refuse(self) -> None:
        raise VideoError("decode-error", "a.mp4: broken.")

    def fail(self) -> None:
        raise KeyError("deep inside")

    def return_a_lock(self) -> object:
        return threading.Lock()


class Unmakeable:
    def __init__(self) -> None:
        raise ConfigError("cannot be made")


class WithoutDisk:
    def __init__(self) -> None:
        raise OSError(5, "the disk is gone")


GUEST = f"{__name__}:Guest"


@pytest.fixture
def guest():
    with Isolated(GUEST, 10) as isolated:
        yield isolated


def _exists(pid: int) -> bool:
    """Whether the process runs (a zombie has ended)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _wait_until_gone(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while _exists(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not _exists(pid)


def test_requests_reach_one_object_in_another_process(guest):
    assert guest.call("add", 1) == 11
    assert guest.call("add", 1) == 12
    assert guest.call("pid") != os.getpid()


def test_a_request_runs_while_the_parent_does_something_else(guest):
    guest.submit("add", 5)
    with pytest.raises(RuntimeError, match="in flight"):
        guest.submit("add", 5)
    assert guest.result(timeout_s=60) == 15
    with pytest.raises(RuntimeError, match="submit one first"):
        guest.result()


def test_large_arrays_pass_unchanged_and_writable(guest):
    frames = np.random.default_rng(0).integers(0, 256, (80, 384, 682, 3), np.uint8)  # 63 MB
    back = guest.call("negative", frames)
    np.testing.assert_array_equal(back, -frames)
    back[0] = 0
    assert guest.call("negative", np.zeros((0, 3), np.uint8)).shape == (0, 3)


def test_a_hanging_child_is_killed_and_the_next_request_gets_a_fresh_one(guest):
    pid = guest.call("pid")
    with pytest.raises(VideoError, match=r"a\.mp4: took longer than 0\.2 s") as caught:
        guest.call("hang", timeout_s=0.2, about="a.mp4")
    assert caught.value.reason == "timeout"
    assert not _exists(pid)
    assert guest.call("add", 1) == 11


def test_the_start_of_the_child_does_not_count_as_the_videos_time(guest):
    assert guest.call("add", 1, timeout_s=5) == 11


@pytest.mark.parametrize(
    ("method", "args", "how"),
    [("die", (signal.SIGSEGV,), "SIGSEGV: last words"), ("leave", (), "exit code 3")],
)
def test_a_crash_tells_its_signal_and_its_last_words(guest, method, args, how):
    with pytest.raises(VideoError, match=f"a.mp4: its process ended with {how}") as caught:
        guest.call(method, *args, about="a.mp4")
    assert caught.value.reason == "crash"
    assert guest.call("add", 1) == 11


def test_a_child_that_somebody_else_killed_is_no_fault_of_the_video(guest):
    with pytest.raises(TransientError, match="SIGKILL"):
        guest.call("die", signal.SIGKILL)


def test_a_child_that_dies_before_it_is_up_is_no_fault_of_the_video(monkeypatch):
    monkeypatch.setattr(
        "labeler.clips.isolate.CHILD", "import sys; sys.exit('no module named labeler')"
    )
    with (
        Isolated(GUEST) as isolated,
        pytest.raises(TransientError, match=r"a\.mp4: .* did not start \(exit code 1: no module"),
    ):
        isolated.call("add", 1, about="a.mp4")


def test_a_child_finds_our_packages_in_a_folder_with_others_of_these_names(tmp_path, monkeypatch):
    for name in ("teachers", "labeler"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with Isolated("fractions:Fraction", 22, 7) as fraction:
        assert fraction.call("limit_denominator", 1) == 3


def test_a_child_that_dies_between_requests_is_noticed(guest):
    os.kill(guest.call("pid"), signal.SIGABRT)
    with pytest.raises(VideoError, match="SIGABRT"):
        guest.call("add", 1)
    assert guest.call("add", 1) == 11


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps RLIMIT_AS")
def test_memory_is_limited_beyond_the_imports():
    with Isolated(GUEST, memory_gib=0.5) as guest:
        assert guest.call("hoard", 0.25) == 2**28
        with pytest.raises(
            VideoError, match=r"a\.mp4: needs more memory than its limit of 0\.5 GiB"
        ) as caught:
            guest.call("hoard", 1.0, about="a.mp4")
        assert caught.value.reason == "memory"
        assert guest.call("add", 1) == 1


def test_expected_errors_come_back_as_themselves(guest):
    with pytest.raises(VideoError, match=r"^a\.mp4: broken\.$") as caught:
        guest.call("refuse")
    assert caught.value.reason == "decode-error"
    assert guest.call("add", 1) == 11


def test_other_errors_bring_the_childs_traceback(guest):
    with pytest.raises(KeyError, match="deep inside") as caught:
        guest.call("fail")
    assert 'raise KeyError("deep inside")' in caught.value.__notes__[0]
    with pytest.raises(AttributeError, match="no_such_method"):
        guest.call("no_such_method")


def test_a_result_that_cannot_be_sent_says_so(guest):
    with pytest.raises(RuntimeError, match="lock cannot leave the isolated process"):
        guest.call("return_a_lock")
    assert guest.call("add", 1) == 11


def test_an_object_that_cannot_be_made_says_why():
    with (
        Isolated(f"{__name__}:Unmakeable") as isolated,
        pytest.raises(ConfigError, match="cannot be made"),
    ):
        isolated.call("anything")
    with (
        Isolated("no.such.module:Guest") as isolated,
        pytest.raises(ModuleNotFoundError, match=r"no\b"),
    ):
        isolated.call("anything")
    with pytest.raises(ConfigError, match="write 'module:Class'"):
        Isolated("Guest")


def test_close_leaves_no_process_and_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Isolated(GUEST) as guest:
        pid = guest.call("pid")
        guest.submit("hang")
    assert not _exists(pid)
    # this process holds its lock as long as it lives
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_a_child_survives_the_thread_that_started_it():
    """The kernel's parent-death signal is about the thread that forks: a thread of a pool must not
    take the child with it."""
    isolated = Isolated(GUEST)
    thread = threading.Thread(target=lambda: isolated.call("add", 1))
    thread.start()
    thread.join()
    with isolated:
        assert isolated.call("add", 1, timeout_s=60) == 2


@pytest.mark.parametrize("method", ["hang", "pid"])
def test_no_child_outlives_a_killed_parent(method, tmp_path):
    script = (
        "from labeler.clips.isolate import Isolated\nguest = "
        f"Isolated({GUEST!r})\nprint(guest.call('pid'), "
        f"flush=True)\nguest.submit({method!r})\nimport time; time.sleep(3600)"
    )
    root = Path(__file__).parents[3]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=root, env=environment
    ) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        assert _exists(pid)
        parent.kill()
    assert _wait_until_gone(pid)


def test_a_disk_that_fails_while_the_object_is_made_is_told_and_transient():
    with (
        Isolated(f"{__name__}:WithoutDisk") as isolated,
        pytest.raises(TransientError, match=r"WithoutDisk cannot be made: .*the disk is gone"),
    ):
        isolated.call("anything")
