"""The Ray engine: the bytes of the local engine, whatever the number of workers and whoever is
killed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray import cloudpickle
from ray.exceptions import ActorUnavailableError, RayTaskError

from benchmarks.harness.jobs import FRAMES, NEAR, STILL, config, tars, write_moving
from benchmarks.harness.processes import children_of, start_driver, still_running
from labeler.clips.choice import ClipConfig
from labeler.io.scratch import FullScratchError
from labeler.io.storage import Storage
from labeler.shards.plan import Unit
from labeler.shards.records import latest_records
from labeler.shards.verify import verify
from labeler.unit import ClipDone, UnitDone
from pipelines.engines.layout import lay_out
from pipelines.engines.ray import _UnitQueue, note_on_store
from pipelines.engines.ray_actors import RayTrackers, UnitWorker
from pipelines.engines.ray_environment import own_packages_first
from pipelines.jobs.labelling import label
from teachers import ConfigError, TeacherInfo, Tracks, TransientError
from tests.support.jobs import ROOT, SLOW, wait_for
from tests.support.stub_teachers import FEW_FRAMES

TEACHERS = (STILL, NEAR)


@pytest.mark.parametrize(
    ("nodes", "teachers", "workers", "groups", "each", "gpu_each"),
    [
        ([(2, 0)], 3, None, 2, 1, 0),
        ([(2, 0)], 3, 1, 1, 1, 0),
        ([(2, 0)], 3, 4, 4, 1, 0),
        ([(2, 0), (2, 0)], 3, None, 4, 1, 0),
        ([(3, 0), (1, 0)], 1, 2, 2, 1, 0),
        ([(16, 1)], 4, None, 1, 16, 0.25),
        ([(64, 8)] * 8, 3, 128, 64, 2, 0.3333),
        ([(64, 8), (32, 0)], 3, None, 8, 8, 0.3333),
        ([(0.5, 0)], 1, None, 1, 1, 0),
    ],
)
def test_a_layout_fits_in_its_cluster(nodes, teachers, workers, groups, each, gpu_each):
    layout = lay_out(nodes, teachers, workers)
    assert (layout.groups, layout.workers, layout.gpus) == (groups, each, gpu_each)
    assert 0 < layout.cpus * (layout.workers + teachers) <= layout.group_cpus
    assert layout.gpus * teachers <= layout.group_gpus
    room = sum(
        min(int(cpus / layout.group_cpus + 1e-3), int(gpus) if gpu_each else groups)
        for cpus, gpus in nodes
    )
    assert room >= groups


def test_a_worker_finds_our_packages_in_a_folder_with_others_of_these_names(tmp_path, monkeypatch):
    """Ray puts the driver's folder first on a worker's path, then runs what is given here, as it
    comes out of a pickle."""
    monkeypatch.chdir(tmp_path)
    assert own_packages_first() == {}
    (tmp_path / "teachers").mkdir()
    (tmp_path / "teachers" / "__init__.py").touch()
    hook = cloudpickle.dumps(own_packages_first()["worker_process_setup_hook"])
    worker = (
        "import pickle, sys; sys.path.insert(0, sys.argv[1]); "
        "pickle.loads(bytes.fromhex(sys.argv[2]))(); "
        "import teachers.errors, pipelines.engines.common; print(sys.argv[1] in sys.path)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", worker, str(tmp_path), hook.hex()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr


@pytest.mark.parametrize(
    ("store_gb", "alive", "says"),
    [
        (10.0, True, ""),
        (
            0.5,
            True,
            "the object store of big has 0.5 GB, but 16 unit workers with wide clips need 2.0 GB",
        ),
        (0.5, False, ""),
    ],
)
def test_an_object_store_that_is_too_small_for_its_workers_is_said(
    monkeypatch, store_gb, alive, says
):
    resources = {"CPU": 16.0, "GPU": 1.0, "object_store_memory": store_gb * 1e9}
    node = {"Alive": alive, "NodeManagerHostname": "big", "Resources": resources}
    monkeypatch.setattr("ray.nodes", lambda: [node])
    layout = lay_out([(16, 1)], teachers=2, workers=None)
    note = note_on_store(layout, ClipConfig())
    assert (says in note) if says else note == ""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_ray_gives_the_bytes_of_the_local_engine(videos, dataset, tmp_path, ray_cluster, workers):
    result = label(config(videos, tmp_path, TEACHERS, engine="ray", workers=workers))
    assert tars(tmp_path) == tars(dataset.folder)
    assert result.accounts == dataset.result.accounts
    assert result.open_units == []


@pytest.mark.slow
def test_a_job_begun_by_one_engine_is_ended_by_the_other(videos, dataset, tmp_path, ray_cluster):
    class Stop(Exception):
        pass

    def stop_in_the_second_unit(event) -> None:
        if isinstance(event, ClipDone) and event.unit == 1:
            raise Stop

    with pytest.raises(Stop):
        label(config(videos, tmp_path, TEACHERS), stop_in_the_second_unit)
    assert len(latest_records(Storage(str(tmp_path)))) == 1
    label(config(videos, tmp_path, TEACHERS, engine="ray", workers=2))
    assert tars(tmp_path) == tars(dataset.folder)


def title_of(pid: int) -> str:
    """What a process calls itself: "ray::UnitWorker.do"; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").strip("\0 ")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def actors_of_ours(name: str) -> list[int]:
    """Processes of this session's cluster that host an actor of class `name`."""
    return [pid for pid in children_of(os.getpid()) if title_of(pid).startswith(f"ray::{name}")]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("actor", ["UnitWorker", "TeacherActor"])
def test_an_actor_killed_in_the_middle_costs_no_clip_and_no_byte(
    videos, tmp_path, ray_cluster, actor
):
    teachers = (STILL, SLOW)
    label(config(videos, tmp_path / "calm", teachers))
    killed: list[int] = []

    def kill_once(event) -> None:
        if isinstance(event, ClipDone) and not killed:
            killed.extend(actors_of_ours(actor)[:1])
            os.kill(killed[0], signal.SIGKILL)

    result = label(
        config(videos, tmp_path / "killed", teachers, engine="ray", workers=2), kill_once
    )
    assert killed
    assert result.open_units == []
    assert result.accounts.labelled == 7
    assert tars(tmp_path / "killed") == tars(tmp_path / "calm")
    assert list(verify(Storage(str(tmp_path / "killed")))) == []


def test_a_teacher_that_starts_again_is_waited_for(monkeypatch):
    """Ray answers every call with an error until the actor is back."""
    answers = iter([ActorUnavailableError("starting", None)] * 9)
    tracks = Tracks(*(np.zeros(shape, np.float32) for shape in ((1, 2, 2), (1, 2), (1, 2))))

    def call(result):
        def get():
            if (error := next(answers, None)) is not None:
                raise error
            return result

        return SimpleNamespace(remote=lambda *_: get)

    actor = SimpleNamespace(track=call(tracks), info=call(None))
    monkeypatch.setattr("ray.get", lambda get, timeout=None: get())
    monkeypatch.setattr("ray.put", lambda frames: frames)
    monkeypatch.setattr("pipelines.engines.ray_actors.RETRY_EVERY_S", 0.0)
    frames, queries = np.zeros((2, 4, 4, 3), np.uint8), np.zeros((1, 3))
    assert RayTrackers({"near": actor}, {}).track(["near"], frames, queries, 0) == {"near": tracks}


def test_a_worker_that_starts_removes_what_killed_ones_left(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "tapdistill-0f-x").mkdir()
    (tmp_path / "tapdistill-0f.lock").touch()
    worker = UnitWorker.__new__(UnitWorker)
    worker._decoding = SimpleNamespace(check=lambda: None)
    worker._trackers = SimpleNamespace(ask=lambda: None)
    worker.ready()
    assert list(tmp_path.iterdir()) == []


def test_a_worker_without_room_for_temporary_files_says_so(monkeypatch):
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    worker = UnitWorker.__new__(UnitWorker)
    worker._decoding = SimpleNamespace(check=full)
    with pytest.raises(FullScratchError, match=r"could not start a worker: .*TMPDIR sets"):
        worker.ready()


def test_a_worker_that_never_comes_up_ends_the_job_with_the_reason(monkeypatch):
    """Beside a group for which the cluster has no room, and whose worker waits."""
    started: list[object] = []

    def new_worker(group):
        assert len(started) < 9, "it is replaced for ever"
        if group.has_room():
            started.append(object())
        call = started[-1] if group.has_room() else "waits"
        return SimpleNamespace(ready=SimpleNamespace(remote=lambda: call))

    def get(call):
        raise RayTaskError("ready", "", TransientError("its decoder does not start."))

    monkeypatch.setattr("ray.get", get)
    monkeypatch.setattr(
        "ray.wait", lambda calls, **_: ([call for call in calls if call != "waits"], [])
    )
    group, full = (
        SimpleNamespace(has_room=lambda room=room: room, has_lost_its_node=lambda: False)
        for room in (True, False)
    )
    layout = lay_out([(1, 0)], teachers=1, workers=None)
    groups: list[Any] = [group, full]
    queue = _UnitQueue([Unit(i, 0, ()) for i in range(2)], layout, groups, lambda: full, new_worker)
    with pytest.raises(TransientError, match=r"3 times .*: its decoder does not start\. Nothing"):
        list(queue.run())
    assert len(started) == 3


def asked(monkeypatch, there: TeacherInfo) -> RayTrackers:
    """Trackers of a job that knows what its first teacher said, beside an actor that is `there`."""
    monkeypatch.setattr("ray.get", lambda answer: answer)
    actor = SimpleNamespace(info=SimpleNamespace(remote=lambda: there))
    trackers = RayTrackers({"near": actor}, {"near": replace(FIRST, device="H100, ...")})
    trackers.ask()
    return trackers


FIRST = TeacherInfo(
    name="near", architecture="A", mode="label", visible_rule="none", checkpoint_sha256="ab"
)


def test_a_worker_stores_the_gpu_of_its_own_teachers(monkeypatch):
    """And not that of the first node of the job, in a cluster of several kinds."""
    here = replace(FIRST, device="A100, ...")
    assert asked(monkeypatch, here).infos == {"near": here}


def test_a_node_with_another_file_of_the_same_name_is_refused(monkeypatch):
    with pytest.raises(
        ConfigError, match=r"'near' is another .*checkpoint_sha256: 'ab' there, 'cd'"
    ):
        asked(monkeypatch, replace(FIRST, checkpoint_sha256="cd"))


@pytest.mark.slow
def test_a_video_that_takes_fifty_times_as_long_holds_up_no_other(tmp_path, ray_cluster):
    folder = tmp_path / "videos"
    folder.mkdir()
    slow = 5
    for i in range(12):
        write_moving(
            folder / f"{i:02d}.mp4", seed=i, frames=FEW_FRAMES - 2 if i == slow else FRAMES
        )
    ended: list[int] = []

    def watch(event) -> None:
        if isinstance(event, UnitDone):
            ended.append(event.unit)

    teachers = ("tests.support.stub_teachers:Uneven", STILL)
    result = label(
        config(folder, tmp_path / "out", teachers, engine="ray", workers=2, videos_per_unit=1),
        watch,
    )
    assert result.accounts.labelled == 12
    assert sorted(ended) == list(range(12))
    assert ended.index(slow) > ended.index(slow + 1), "the others went on meanwhile"


@pytest.mark.slow
def test_teacher_actors_and_workers_end_with_the_job(videos, tmp_path, ray_cluster):
    label(config(videos, tmp_path, TEACHERS, engine="ray", workers=1))
    deadline = time.monotonic() + 20
    while (
        left := actors_of_ours("UnitWorker") + actors_of_ours("TeacherActor")
    ) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("teachers", "changes", "says"),
    [
        (
            ("tests.support.stub_teachers:Untrained", STILL),
            {},
            r"^teacher 'tests\.support\.stub_teachers:Untrained' has random weights",
        ),
        (
            ("tests.support.stub_teachers:Nobody", STILL),
            {},
            r"^teacher 'tests\.support\.stub_teachers:Nobody': cannot import",
        ),
    ],
)
def test_a_teacher_that_cannot_be_made_says_why_as_on_the_local_engine(
    videos, tmp_path, ray_cluster, teachers, changes, says
):
    for engine in ("local", "ray"):
        with pytest.raises(ConfigError, match=says) as caught:
            label(config(videos, tmp_path / engine, teachers, engine=engine, **changes))
        assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_refusal_in_a_worker_is_the_same_sentence(videos, tmp_path, ray_cluster):
    label(config(videos, tmp_path, (STILL,)))
    with pytest.raises(
        ConfigError, match=r"^teacher 'still' labelled unit \d as another"
    ) as caught:
        label(config(videos, tmp_path, TEACHERS, engine="ray", checkpoint=(f"{STILL}=w.pth",)))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_transient_errors_in_a_worker_leave_the_unit_open_with_the_reason(
    videos, tmp_path, ray_cluster
):
    """A file stands where the folder of shards should be, once the job is planned."""
    settings = config(videos, tmp_path, TEACHERS, engine="ray", workers=1)
    (tmp_path / "shards").write_bytes(b"")
    result = label(settings)
    assert {event.unit for event in result.troubles} == {0, 1, 2}
    for event in result.troubles:
        assert event.why.startswith("could not look at")
        assert "\n" not in event.why


@pytest.mark.slow
def test_a_video_that_cannot_be_reached_is_a_row_at_the_last_attempt(tmp_path, ray_cluster):
    video = write_moving(tmp_path / "a.mp4", seed=1)
    (tmp_path / "list.txt").write_text(f"{video}\nhttp://127.0.0.1:9/b.mp4\n")
    settings = config(tmp_path / "list.txt", tmp_path / "out", TEACHERS, engine="ray", workers=1)
    (record,) = label(settings).records
    assert [(row.reason, row.attempts) for row in record.rows] == [("unreachable", 3)]
    assert len(record.clips) == 1


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_a_ray_driver_killed_leaves_no_process_and_loses_nothing(videos, tmp_path):
    teachers = (STILL, SLOW)
    label(config(videos, tmp_path / "calm", teachers))
    out = tmp_path / "killed"
    driver = start_driver(videos, out, teachers, "--engine", "ray", "--workers", "1")
    wait_for(
        lambda: out.joinpath("shards").exists() and any(out.joinpath("shards").glob("*.json")),
        driver,
    )
    # Ray's agents take a minute to notice
    below = [pid for pid in children_of(driver.pid) if not title_of(pid).endswith("Agent")]
    driver.send_signal(signal.SIGKILL)
    said, _ = driver.communicate()
    assert driver.returncode == -signal.SIGKILL, f"it had ended before: {said}"
    assert len(below) > 3
    assert still_running(below, within_s=30) == []
    label(config(videos, out, teachers))
    assert tars(out) == tars(tmp_path / "calm")
