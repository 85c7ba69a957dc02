"""Recipes: the published numbers stand in them, and the command takes them."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from pipelines.cli import run as tapdistill
from pipelines.commands.train import TrainCommand
from pipelines.terminal.flags import parse
from student.data.order import parts_of_step
from student.training.cotracker import ITERATIONS
from student.training.losses import LossConfig
from student.training.losses_cotracker import GAMMA, HUBER_PX
from student.training.students import STUDENTS, weights_file
from teachers.errors import ConfigError

NAMES = sorted(path.stem for path in TrainCommand.RECIPES.glob("*.toml"))


def command(name: str, *flags: str) -> TrainCommand:
    return parse(
        TrainCommand,
        "tapdistill train",
        ["--recipe", name, "--init", "given.pth", "--out", "out", "--data", "labels", *flags],
    )


def test_these_recipes_are_there():
    assert NAMES == [
        "bootstapir",
        "cotracker3_15k_offline",
        "cotracker3_15k_online",
        "mini",
        "mini_online",
        "tapir",
        "tapir_mini",
    ]


@pytest.mark.parametrize("kind", ["offline", "online"])
def test_the_recipe_of_the_paper_has_its_numbers(kind):
    recipe = command(f"cotracker3_15k_{kind}")
    data, schedule, loss = recipe.data, recipe.schedule, recipe.loss
    assert (recipe.student, recipe.preset, recipe.iterations, recipe.bf16) == (
        kind,
        "official",
        4,
        True,
    )
    assert (data.height, data.width, data.queries, data.batch, data.policy) == (
        384,
        512,
        384,
        32,
        "random",
    )
    assert (data.least_frames, data.frames) == ((40, 80) if kind == "offline" else (None, 64))
    assert (schedule.steps, schedule.learning_rate, schedule.weight_decay, schedule.clip_norm) == (
        15_000,
        5e-5,
        1e-5,
        10,
    )
    assert (schedule.warm_up, schedule.spare_steps, schedule.ema) == (0, 100, None)
    assert (recipe.visibility_choice, STUDENTS[kind].head) == ("frozen", "vis_conf_head")
    assert (loss.visible, loss.occluded) == (0.05, 0.01)
    assert (loss.real, loss.synthetic, data.synthetic) == ((1, 1), (1, 1), 0)
    assert (GAMMA, HUBER_PX) == (0.8, 6.0)


def test_the_recipe_of_the_paper_is_what_the_defaults_are():
    """The defaults say that they are the pseudo-label training: an offline student with 64 frames,
    but for what a machine decides, and for whose track is the label."""
    recipe = command("cotracker3_15k_online")
    default = parse(
        TrainCommand,
        "tapdistill train",
        ["--init", "given.pth", "--out", "out", "--data", "labels"],
    )
    assert (recipe.schedule, recipe.loss) == (default.schedule, default.loss)
    assert (recipe.iterations, recipe.visibility_choice) == (ITERATIONS, default.visibility_choice)
    assert (recipe.data.policy, default.data.policy) == ("random", "verified")
    others = {"readers": 0, "policy": ""}
    assert {**vars(recipe.data), **others} == {**vars(default.data), **others}


@pytest.mark.parametrize("name", ["tapir", "bootstapir"])
def test_a_recipe_of_tapir_has_the_published_losses(name):
    recipe = command(name)
    assert (recipe.student, recipe.loss) == (name, LossConfig())
    assert (recipe.data.frames, recipe.data.height, recipe.data.width) == (24, 256, 256)


def test_the_mini_tapir_needs_no_weights_from_elsewhere():
    recipe = parse(
        TrainCommand,
        "tapdistill train",
        ["--recipe", "tapir_mini", "--out", "out", "--data", "labels"],
    )
    assert weights_file(recipe.init).endswith("weights/tapir-mini.safetensors")
    assert (recipe.loss.tapir.position, recipe.loss.tapir.huber_px) == (0.8, 0.25)
    assert (recipe.schedule.steps, recipe.schedule.ema) == (150, 25)
    assert (recipe.data.policy, recipe.data.trust.min_right) == ("verified", 0.5)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_the_config_file_of_that_name(name):
    file = TrainCommand.RECIPES / f"{name}.toml"
    flags = ["--init", "given.pth", "--out", "out", "--data", "labels"]
    assert command(name) == parse(TrainCommand, "tapdistill train", ["--config", str(file), *flags])


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_begins_with_its_command_cost_and_published_result(name):
    lines = (TrainCommand.RECIPES / f"{name}.toml").read_text().splitlines()
    head = [line for line in lines[: lines.index("")] if line.startswith("#")]
    assert any(f"tapdistill train --recipe {name} " in line for line in head)
    assert [
        word
        for word in ("Cost", "Published")
        if any(line.startswith(f"# {word} ") for line in head)
    ] == ["Cost", "Published"]


def test_a_flag_beats_the_recipe():
    recipe = command("mini", "--steps", "7", "--agreement.tau-px", "1")
    assert (recipe.schedule.steps, recipe.data.agreement.tau_px, recipe.student) == (
        7,
        1.0,
        "offline",
    )
    assert command("mini_online").student == "online"


def test_the_shares_of_a_batch_on_fewer_devices():
    data = command("cotracker3_15k_online").data
    assert [parts_of_step(data, world) for world in (1, 4, 8, 32)] == [32, 8, 4, 1]
    with pytest.raises(ConfigError, match="batch = 32 cannot be shared by 24 processes"):
        parts_of_step(data, 24)


def test_a_recipe_that_is_not_there_is_an_error(capsys):
    assert tapdistill(["train", "--recipe", "maxi", "--out", "out"]) == 1
    assert (
        "--recipe maxi: there are bootstapir, cotracker3_15k_offline, cotracker3_15k_online, mini, "
        "mini_online, tapir, tapir_mini" in capsys.readouterr().err
    )


def test_recipes_are_in_the_package():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    assert "recipes/*.toml" in project["tool"]["setuptools"]["package-data"]["student"]
