"""Training: it learns, goes on after a kill with the same numbers, and says clearly what it cannot
do."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

import student.training.train
import teachers
from labeler.io.storage import PART
from labeler.labels.agreement import AgreementConfig
from pipelines.cli import run as tapdistill
from pipelines.commands.relabel import RelabelConfig
from pipelines.commands.relabel import run as run_relabel
from student.data.batch import Batch
from student.data.config import DataConfig
from student.data.mixture import batches
from student.synth.textures import read_photo
from student.training.beginning import first_network
from student.training.checkpoint import Checkpoints
from student.training.config import TrainConfig
from student.training.events import Calibrated, Evaluated, Saved, Started, StepDone, StepSkipped
from student.training.interface import Goal
from student.training.losses import LossConfig
from student.training.schedule import ScheduleConfig
from student.training.step import clip_weights
from student.training.students import STUDENTS
from student.training.train import train
from teachers.cotracker.cotracker3 import CoTracker3, CoTracker3Config
from teachers.errors import CheckpointError, ConfigError, ShardError, TransientError
from teachers.layers.memory import Memory
from tests.support.slow import slow
from tests.support.training import CLIPS, SCRATCH, assert_same_weights, environment, kinds_of

DATA = DataConfig(procedural=1.0, frames=4, height=64, width=64, queries=6, batch=1)
OFFLINE = STUDENTS["offline"]
SMALL: dict[str, Any] = {"iterations": 2, "device": "cpu", "calibration_clips": 1}


def config(steps: int = 4, **settings: Any) -> TrainConfig:
    return TrainConfig.from_scratch(DATA, steps, **({**SMALL, "checkpoint_every": 2} | settings))


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder of a run of four steps; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    train(config(), folder)
    return folder


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


# --- killed and resumed


@pytest.mark.parametrize("step", [2, *slow(1, 3)])
def test_a_run_that_stops_at_any_step_goes_on_to_the_same_weights(finished, tmp_path, step):
    def stop(event: object) -> None:
        if isinstance(event, StepDone) and event.step == step:
            raise Killed

    with pytest.raises(Killed):
        train(config(), tmp_path / "stopped", watch=stop)
    resumed = train(config(), tmp_path / "stopped")
    assert_same_weights(resumed.weights, finished / "student.safetensors")


@pytest.mark.slow
def test_a_run_that_is_killed_by_the_system_goes_on_to_the_same_weights(tmp_path):
    """`kill -9` at a random moment, twice, then to the end."""
    flags = [*CLIPS, *SCRATCH, "--batch", "1", "--steps", "12"]
    command = [sys.executable, "-m", "pipelines.cli", "train", *flags]
    moments = np.random.default_rng()
    for _ in range(2):
        done = len(list(tmp_path.glob("killed/checkpoints/*.pt")))
        process = subprocess.Popen(
            [*command, "--out", str(tmp_path / "killed")],
            env=environment(),
            stdout=subprocess.DEVNULL,
        )
        while (
            process.poll() is None and len(list(tmp_path.glob("killed/checkpoints/*.pt"))) <= done
        ):
            time.sleep(0.02)
        time.sleep(moments.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
    for folder in ("killed", "whole"):
        subprocess.run(
            [*command, "--out", str(tmp_path / folder)],
            env=environment(),
            stdout=subprocess.DEVNULL,
            check=True,
        )
    assert_same_weights(
        tmp_path / "killed" / "student.safetensors", tmp_path / "whole" / "student.safetensors"
    )
    assert not list(tmp_path.glob("killed/checkpoints/*.part"))


def test_a_finished_run_is_done_at_once(run):
    events: list[object] = []
    again = train(config(), run, watch=events.append)
    # its file is written again, with the same rule
    assert kinds_of(events) == [Started, Calibrated]
    assert (events[0], again.steps) == (Started(step=4, parts=1, left_out=()), 4)


def test_settings_that_change_no_weight_may_change_on_the_way(run):
    train(config(keep=1, log_every=7, checkpoint_every=1), run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, r"step 4 was trained with seed = 0, not 1 \(1 in all\)"),
        ({"data": replace(DATA, queries=7)}, r"trained with data\.queries = 6, not 7"),
        ({"preset": "official"}, r"trained with preset = 'mini', not 'official'"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(run, change, message):
    with pytest.raises(CheckpointError, match=message):
        train(replace(config(), **change), run)


def test_a_folder_with_a_checkpoint_is_not_started_anew(run):
    with pytest.raises(
        ConfigError,
        match="has a checkpoint of step 4 already: resume from it, or give another folder",
    ):
        train(config(), run, resume=False)


# --- learning


@pytest.mark.slow
def test_a_student_from_scratch_learns(tmp_path):
    """On batches that it never saw, the loss falls: paired, because clips differ more than students
    do."""
    learning = config(steps=200, checkpoint_every=200)
    result = train(learning, tmp_path)
    before, after = first_network(learning), first_network(learning)
    after.load_state_dict(load_file(result.weights))
    losses = []
    for _, batch in zip(range(8), batches(DATA, seed=1), strict=False):
        with torch.no_grad():
            losses.append([loss_of(model, batch, learning) for model in (before, after)])
    assert np.mean(losses, 0)[1] < 0.9 * np.mean(losses, 0)[0]


def losses_of(answer: Any, batch: Batch, visibility: Any = "exact") -> dict[str, Tensor]:
    weight = clip_weights(batch, LossConfig(), 0.0)
    return OFFLINE.losses(
        answer,
        Goal(batch=batch, clip_weight=weight, visibility=visibility, config=LossConfig()),
    )


def loss_of(model: CoTracker3, batch: Batch, config: TrainConfig) -> float:
    windows = OFFLINE.track(model, batch.frames, batch.queries, config.iterations, Memory())
    return sum(losses_of(windows, batch).values()).item()


def test_a_student_learns_from_labelled_shards(tmp_path, dataset):
    start = tmp_path / "start.safetensors"
    train(config(steps=1), tmp_path / "scratch").weights.rename(start)
    data = replace(DATA, policy="random", data=(str(dataset.folder),), procedural=0.0)
    tuning = TrainConfig(
        data=data,
        init=str(start),
        schedule=ScheduleConfig.pseudo_label(steps=2),
        **SMALL,
    )
    result = train(tuning, tmp_path / "tuned")
    before, after = load_file(start), load_file(result.weights)
    moved = {key for key, value in before.items() if not torch.equal(value, after[key])}
    assert "updateformer.flow_head.weight" in moved
    assert not any("vis_conf_head" in key for key in moved)


def test_visibility_is_learnt_from_exact_clips_alone():
    batch = next(batches(replace(DATA, batch=2, at_once=2), seed=0))
    mixed = replace(batch, sources=("shards", "procedural"))
    model = first_network(config())
    windows = OFFLINE.track(model, batch.frames, batch.queries, 2, Memory())
    of = {
        sources: losses_of(windows, replace(batch, sources=sources))
        for sources in (("procedural",) * 2, ("shards",) * 2)
    }
    some, all_exact, none = losses_of(windows, mixed), *of.values()
    assert none["visibility"] == none["confidence"] == 0
    assert 0 < some["visibility"] < all_exact["visibility"]
    torch.testing.assert_close(some["visible"], all_exact["visible"])
    other = replace(mixed, visible=torch.stack([~batch.visible[0], batch.visible[1]]))
    torch.testing.assert_close(losses_of(windows, other)["visibility"], some["visibility"])


def test_consensus_learns_visibility_from_every_label_that_knows_it():
    """Labelled clips count like exact ones, but for frames of which their label says nothing."""
    batch = next(batches(replace(DATA, batch=2, at_once=2), seed=0))
    labelled = replace(batch, sources=("shards", "shards"))
    windows = OFFLINE.track(first_network(config()), batch.frames, batch.queries, 2, Memory())
    exact, learnt = losses_of(windows, batch), losses_of(windows, labelled, "consensus")
    torch.testing.assert_close(learnt, exact)
    some = torch.rand(batch.visible.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    unknown = replace(labelled, visibility_valid=some)
    other = replace(unknown, visible=batch.visible ^ ~some)
    first, second = (losses_of(windows, each, "consensus") for each in (unknown, other))
    torch.testing.assert_close(first["visibility"], second["visibility"])
    assert first["visibility"] != learnt["visibility"]


def test_points_that_only_fill_a_batch_change_no_loss():
    """A part of Kubric may show fewer points than are asked for: the rest has no valid frame,
    and its flags mean nothing."""
    batch = next(batches(DATA, seed=0))
    (window,) = OFFLINE.track(first_network(config()), batch.frames, batch.queries, 2, Memory())

    def losses(points: list[int]) -> list[Tensor]:
        given = {
            name: getattr(batch, name)[:, points]
            for name in ("queries", "xy", "visible", "valid", "visibility_valid", "weight")
        }
        own = (torch.arange(len(points)) < batch.valid.shape[1])[:, None]
        given |= {name: given[name] & own for name in ("valid", "visibility_valid")}
        answers = {
            name: getattr(window, name)[:, :, points]
            for name in ("xy", "visibility_logit", "confidence_logit")
        }
        return list(losses_of([replace(window, **answers)], replace(batch, **given)).values())

    points = list(range(batch.valid.shape[1]))
    torch.testing.assert_close(losses([*points, 0, 0, 1]), losses(points))


@pytest.mark.slow
def test_what_is_evaluated_is_the_exported_student(tmp_path):
    events: list[object] = []
    result = train(config(steps=2, eval_every=2, eval_clips=1), tmp_path, watch=events.append)
    saved = [Saved, Evaluated, Saved]
    assert kinds_of(events) == [Started, StepDone, StepDone, *saved, Calibrated]
    assert [e.figures for e in events if isinstance(e, Evaluated)] == [result.figures]
    assert result.figures.keys() == {"AJ", "delta_avg", "OA"}
    assert_same_weights(tmp_path / "best.safetensors", result.weights)
    with safe_open(result.weights, framework="pt") as file:
        metadata = file.metadata()
    assert (metadata["step"], metadata["licence"]) == ("2", "Apache-2.0")
    assert json.loads(metadata["figures"]) == result.figures


def test_procedural_clips_that_cannot_be_made_are_noticed_before_the_first_step(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("student.synth.textures.find_spec", lambda name: None)
    monkeypatch.setattr("student.synth.scene.read_photo", read_photo.__wrapped__)  # not cached
    assert config(calibration_clips=1).draws_clips
    with pytest.raises(ConfigError, match="not installed"):
        train(config(calibration_clips=1), tmp_path)
    assert not list(tmp_path.rglob("*.pt"))


def test_parts_of_files_that_a_killed_run_left_are_removed(tmp_path):
    part = tmp_path / f".student.safetensors@{'0' * 16}{PART}"
    part.write_bytes(b"half")
    train(config(), tmp_path)
    assert not part.exists()


def test_activations_that_are_computed_again_change_no_weight(tmp_path):
    kept, again = (
        train(config(steps=2, recompute=recompute), tmp_path / str(recompute))
        for recompute in (False, True)
    )
    assert_same_weights(kept.weights, again.weights)


def test_bfloat16_is_near_float32_and_leaves_weights_in_float32(tmp_path):
    events: dict[bool, list[Any]] = {False: [], True: []}
    for bf16, told in events.items():
        result = train(config(steps=1, bf16=bf16), tmp_path / str(bf16), watch=told.append)
        assert {value.dtype for value in load_file(result.weights).values()} == {torch.float32}
    exact, rough = (told[1].losses["total"] for told in events.values())
    assert exact != rough
    assert abs(rough / exact - 1) < 0.05


# --- a loss that is not finite


def poisoned(monkeypatch: pytest.MonkeyPatch, numbers: set[int], clip: int | None = None) -> None:
    """Batches with these numbers get queries that are nowhere, in one of their clips or in all."""

    class Poisoned:
        left_out = ()
        views = ()
        note = ""
        digest = "none"

        def __init__(self, *arguments: Any) -> None:
            self.numbered = enumerate(batches(*arguments))

        def __next__(self):
            number, batch = next(self.numbered)
            if number in numbers:
                batch.queries[slice(None) if clip is None else clip] = torch.nan
            return batch

    monkeypatch.setattr(student.training.train, "batches", Poisoned)


def test_a_step_with_nan_is_skipped_and_its_samples_are_named(tmp_path, monkeypatch):
    poisoned(monkeypatch, {1})
    events: list[object] = []
    result = train(config(steps=2), tmp_path, watch=events.append)
    assert kinds_of(events) == [Started, StepDone, StepSkipped, StepDone, Saved, Calibrated]
    assert events[2].keys == ("procedural-1",)
    assert (result.steps, result.steps_skipped) == (2, 1)
    assert all(value.isfinite().all() for value in load_file(result.weights).values())


def test_only_the_sample_without_a_finite_answer_is_named(tmp_path, monkeypatch):
    """Of a step of four clips in two parts, the third clip's query is nowhere."""
    poisoned(monkeypatch, {1}, clip=0)
    events: list[Any] = []
    four = replace(config(steps=1), data=replace(DATA, batch=4, at_once=2))
    train(four, tmp_path, watch=events.append)
    assert events[1] == StepSkipped(step=0, keys=("procedural-2",))


def test_how_many_steps_with_nan_stop_the_training_is_a_setting(tmp_path, monkeypatch):
    poisoned(monkeypatch, set(range(20)))
    with pytest.raises(ConfigError, match="not finite 2 times in a row after step 0"):
        train(config(most_skipped=2), tmp_path)


def test_after_several_steps_with_nan_training_stops(tmp_path, monkeypatch):
    poisoned(monkeypatch, set(range(2, 20)))
    with pytest.raises(
        ConfigError,
        match=(
            r"not finite 5 times in a row after step 2, the last time with procedural-6: "
            r".*learning rate"
        ),
    ):
        train(config(steps=4), tmp_path)
    assert Checkpoints(tmp_path, keep=1).latest().step == 2


# --- what cannot be right


def test_a_data_set_that_changed_since_the_checkpoint_is_refused(tmp_path, dataset):
    """A place of the stream would be another clip: the resumed run would not be the one that was
    begun."""
    shutil.copytree(dataset.folder, tmp_path / "labels")
    settings = replace(
        config(),
        data=replace(DATA, policy="random", data=(str(tmp_path / "labels"),), procedural=0.5),
    )
    train(settings, tmp_path / "out")
    run_relabel(RelabelConfig(data=str(tmp_path / "labels"), agreement=AgreementConfig(tau_px=1.0)))
    with pytest.raises(
        CheckpointError,
        match="hold other clips or revisions than when its checkpoint of step 4 was written",
    ):
        train(settings, tmp_path / "out")


def test_an_empty_data_set_is_an_error(tmp_path):
    with pytest.raises(ShardError, match="empty"):
        train(
            replace(config(), data=replace(DATA, procedural=0.5, data=(str(tmp_path / "empty"),))),
            tmp_path / "out",
        )


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TransientError, match="file"):
        train(config(steps=1), tmp_path / "file" / "out")


def test_weights_of_another_network_are_refused(tmp_path):
    path = Checkpoints(tmp_path, keep=1).export(
        "student", CoTracker3(CoTracker3Config.mini()), "cotracker3-offline", {}
    )
    plain = tmp_path / "plain.pth"
    torch.save(load_file(path), plain)
    fine_tuning = TrainConfig(data=DATA, init=str(plain), device="cpu")
    with pytest.raises(
        CheckpointError,
        match=r"plain\.pth: not a checkpoint of 'cotracker3-offline': .*have another shape",
    ):
        train(fine_tuning, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"visibility": "frozen"}, "init = 'scratch' with visibility = 'frozen': it would stay"),
        ({"visibility": "held"}, "init = 'scratch' with visibility = 'held': it would stay"),
        (
            {
                "init": "student.safetensors",
                "visibility": "consensus",
                "schedule": ScheduleConfig(frozen="vis_conf_head"),
            },
            "frozen = 'vis_conf_head', but visibility = 'consensus'",
        ),
        (
            {
                "init": "student.safetensors",
                "visibility": "consensus",
                "schedule": ScheduleConfig(frozen="vis_conf_head,fnet"),
            },
            "frozen = 'vis_conf_head,fnet', but visibility = 'consensus'",
        ),
        (
            {"visibility": "exact", "data": replace(DATA, data=("labels",), procedural=0.0)},
            "learns from exact tracks only, and procedural = kubric_share = 0",
        ),
        ({"visibility": "guessed"}, "visibility = 'guessed': there are frozen, held, exact, cons"),
        ({"student": "tapir", "visibility": "frozen"}, "it would stay random"),
        (
            {"student": "tapir", "visibility": "frozen", "init": "tapir.pt"},
            "a tapir student says visibility with the layers that say positions",
        ),
        (
            {"student": "tapir", "loss": LossConfig(visible=0.1)},
            r"loss\.visible = 0\.1: a tapir student has no such loss; it has tapir",
        ),
        ({"iterations": 0}, "iterations = 0: must be at least 1"),
        ({"student": "tapir", "bf16": True}, "a tapir student needs float32"),
        ({"keep": 0}, "keep = 0: must be at least 1"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(config(), **change)


# --- the command


def test_the_command_trains_and_says_where_the_student_is(tmp_path, capsys):
    file = tmp_path / "tiny.toml"
    file.write_text(
        "init = 'scratch'\npreset = 'mini'\niterations = 2\ndevice = 'cpu'\n"
        "[data]\nprocedural = 1.0\nframes = 4\nheight = 64\nwidth = 64\nqueries = 6\nbatch = 1\n"
        "[schedule]\nsteps = 2\n"
    )
    arguments = ["train", "--config", str(file), "--out", str(tmp_path / "out")]
    assert tapdistill(arguments) == 0
    said = capsys.readouterr().out
    assert (
        "offline student: 2 steps of 1 x 4 frames of 64 x 64 px with 6 points, clips 100% "
        "procedural, beginning with random weights" in said
    )
    assert "2 steps done" in said
    assert teachers.load(
        "cotracker3-offline", checkpoint=str(tmp_path / "out" / "student.safetensors"), device="cpu"
    )


def test_the_command_says_what_is_wrong_in_a_sentence(tmp_path, capsys):
    flags = ["--init", "scratch", "--procedural", "1", "--visibility", "held"]
    assert tapdistill(["train", "--out", str(tmp_path), *flags]) == 1
    assert "init = 'scratch' with visibility = 'held'" in capsys.readouterr().err
