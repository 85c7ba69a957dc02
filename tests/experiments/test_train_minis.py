"""How the minis were trained: every stage learns, and a killed run goes on as if it had not
been."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors.torch import load_file

import teachers
from experiments.minis import pool
from experiments.minis import train as train_minis
from experiments.minis.calibrate import calibrate
from experiments.minis.online import convert
from experiments.minis.pool import ViewConfig, draw_view, render_pool
from experiments.minis.recipes import RECIPES, Stage, start_xy, steps_of
from experiments.minis.train import train
from student.synth.scene import SynthConfig
from teachers import ConfigError, VisibleRule
from teachers.checkpoints.files import VISIBLE, read_metadata
from teachers.registry import entry_of

SMALL = ViewConfig(batch=1, frames=4, size=64, points=8)
STORED = SynthConfig(frames=8, height=96, width=96, points=200, query_frame="random")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "STORED", STORED)
        render_pool(folder, clips=2)
    return folder


def short(name, monkeypatch, steps=(2, 2)):
    recipe = RECIPES[name]()
    stages = (
        Stage(steps[0], replace(SMALL, frames=2), pretraining=True),
        Stage(steps[1], SMALL, start="between"),
    )
    monkeypatch.setattr(type(recipe), "stages", stages)
    monkeypatch.setattr(train_minis, "SAVE_EVERY", 3)
    monkeypatch.setattr(train_minis, "CALIBRATION_CLIPS", 1)
    monkeypatch.setattr(pool, "STORED", STORED)
    return recipe


def test_more_steps_are_of_the_stage_that_is_named_or_of_the_longest():
    recipe = RECIPES["cotracker3"]()
    assert steps_of(recipe, 3, 4) == [replace(recipe.stages[4], steps=3)] * 3
    assert steps_of(recipe, 2) == [replace(recipe.stages[5], steps=2)] * 2  # that of 3,000 steps
    assert len(steps_of(recipe, None)) == 450 + 250 + 350 + 950 + 80 + 3000
    with pytest.raises(ConfigError, match="--stage 6: this recipe has the stages 0 to 5"):
        steps_of(recipe, 1, 6)


@pytest.mark.parametrize(
    ("given", "says"),
    [((), "a training needs --out"), (("--out", "out", "--stage", "0"), "give --more too")],
)
def test_a_command_line_that_says_too_little_is_refused(given, says, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["train", "tapir", "--pool", "pool", *given])
    monkeypatch.setattr(train_minis, "train", lambda *_: None)
    with pytest.raises(SystemExit):
        train_minis.main()
    assert says in capsys.readouterr().err


@pytest.mark.slow
def test_stage_on_the_command_line_trains_on_the_views_of_that_stage(folder, tmp_path, monkeypatch):
    recipe = short("tapir", monkeypatch)
    drawn = []

    def draw(pool, rng, view):
        drawn.append(view)
        return draw_view(pool, rng, view)

    monkeypatch.setattr(train_minis, "draw_view", draw)
    for number, stage in enumerate(recipe.stages):
        out = tmp_path / str(number)
        arguments = ["tapir", "--pool", folder, "--out", out, "--more", "1", "--stage", number]
        monkeypatch.setattr("sys.argv", ["train", *map(str, arguments)])
        train_minis.main()
        assert drawn.pop() == stage.view
    assert drawn == []


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_killed_run_that_goes_on_ends_with_the_same_weights(name, folder, tmp_path, monkeypatch):
    recipe = short(name, monkeypatch)
    file = f"{recipe.teacher}-mini.safetensors"
    train(recipe, folder, tmp_path / "whole", seed=0)

    def killed(*_):
        raise KeyboardInterrupt

    losses = type(recipe).losses
    calls = []
    monkeypatch.setattr(
        type(recipe),
        "losses",
        lambda *given: calls.append(1) or (losses if len(calls) < 4 else killed)(*given),
    )
    with pytest.raises(KeyboardInterrupt):
        train(recipe, folder, tmp_path / "killed", seed=0)
    monkeypatch.setattr(type(recipe), "losses", losses)
    train(recipe, folder, tmp_path / "killed", seed=0)
    whole, resumed = (load_file(tmp_path / run / file) for run in ("whole", "killed"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)

    def again(*_):
        raise AssertionError("a finished training has nothing left to do")

    said = (tmp_path / "whole" / "visible_rule.txt").read_text()
    assert said.startswith("visible where ")
    monkeypatch.setattr(train_minis, "calibrate", again)
    monkeypatch.setattr(type(recipe), "losses", again)
    train(recipe, folder, tmp_path / "whole", seed=0)
    assert (tmp_path / "whole" / "visible_rule.txt").read_text() == said


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("pretraining", [True, False])
def test_a_step_reaches_the_encoder(name, pretraining, folder):
    recipe = RECIPES[name]()
    model = recipe.network()
    rng = np.random.default_rng(0)
    batch = draw_view(folder, rng, SMALL)
    start = torch.from_numpy(start_xy(batch, "query", rng))
    losses = recipe.losses(model, batch, start, pretraining)
    torch.stack(list(losses.values())).sum().backward()
    assert all(value.isfinite() and value > 0 for value in losses.values())
    first = next(parameter for parameter in model.parameters() if parameter.dim() == 4)
    assert first.grad.abs().sum() > 0


def test_starts_lie_at_the_query_near_the_truth_or_between_them(folder):
    view = draw_view(folder, np.random.default_rng(0), replace(SMALL, points=200))
    rng = np.random.default_rng(1)
    truth = view.xy.numpy()
    query = np.broadcast_to(view.queries[:, :, None, 1:].numpy(), truth.shape)
    np.testing.assert_array_equal(start_xy(view, "query", rng), query)
    between = start_xy(view, "between", rng)
    assert (between >= np.minimum(query, truth) - 1e-3).all()
    assert (between <= np.maximum(query, truth) + 1e-3).all()
    away = np.linalg.norm(start_xy(view, "near", rng) - truth, axis=-1)
    assert 1 < np.median(away) < 32
    draws = [start_xy(view, "any", np.random.default_rng(seed)) for seed in range(30)]
    assert 5 < sum(np.array_equal(xy, query) for xy in draws) < 20


def test_a_calibrated_file_keeps_its_weights_and_says_its_rule_for_good(tmp_path, monkeypatch):
    """The shipped CoTracker3 mini is far less sure than the published network."""
    monkeypatch.setattr(pool, "STORED", STORED)
    shipped = entry_of("cotracker3-offline-mini").shipped_checkpoint
    file = tmp_path / "mini.safetensors"
    weights, metadata = load_file(shipped), read_metadata(shipped)
    metadata.pop(VISIBLE, None)
    file.write_bytes(safetensors.torch.save(weights, metadata))
    found = calibrate(file, clips=2)
    assert found.before == VisibleRule("v", 0.9)
    assert found.jaccard > found.jaccard_before + 0.005
    assert read_metadata(file) == {**metadata, VISIBLE: str(found.rule)}
    kept = load_file(file)
    assert all(torch.equal(kept[key], value) for key, value in weights.items())
    teacher = teachers.load("cotracker3-offline", checkpoint=str(file), device="cpu")
    assert teacher.info.rule == found.rule
    once = file.read_bytes()
    assert calibrate(file, clips=2) == found
    assert file.read_bytes() == once


def test_a_gradient_that_is_not_finite_moves_nothing_and_soon_ends_the_training(
    folder, tmp_path, monkeypatch
):
    """The loss itself is finite: the square root of 0 has no slope."""
    recipe = short("cotracker3", monkeypatch, steps=(0, 9))
    monkeypatch.setattr(train_minis, "MOST_SKIPPED", 4)

    def broken(model, *_):
        weight = next(model.parameters())
        return {"matching": (0 * weight).abs().sum().sqrt()}

    monkeypatch.setattr(recipe, "losses", broken)
    with pytest.raises(ConfigError, match="not finite 4 times in a row, to step 4"):
        train(recipe, folder, tmp_path, seed=0)
    torch.manual_seed(0)
    begun = recipe.network().state_dict()
    kept = load_file(tmp_path / f"{recipe.teacher}-mini.safetensors")
    assert kept.keys() == begun.keys()
    assert all(torch.equal(kept[key], begun[key]) for key in begun)


def test_a_folder_of_another_training_is_refused(folder, tmp_path, monkeypatch):
    recipe = short("cotracker3", monkeypatch, steps=(0, 3))
    monkeypatch.setattr(train_minis, "calibrate", lambda *_: "a rule")
    train(recipe, folder, tmp_path, seed=0)
    with pytest.raises(ConfigError, match=r"is of a training with .*give another --out"):
        train(recipe, folder, tmp_path, seed=1)


def test_an_online_mini_has_the_weights_of_the_offline_one(tmp_path):
    shipped = entry_of("cotracker3-offline-mini").shipped_checkpoint
    convert(shipped, tmp_path / "online.safetensors")
    online, offline = load_file(tmp_path / "online.safetensors"), load_file(shipped)
    assert [key for key in offline if not torch.equal(online[key], offline[key])] == ["time_emb"]
    teacher = teachers.load(
        "cotracker3-online", checkpoint=str(tmp_path / "online.safetensors"), device="cpu"
    )
    assert teacher.model.config.window == 16
    assert teacher.info.visible_rule == str(teacher.published_rule)
