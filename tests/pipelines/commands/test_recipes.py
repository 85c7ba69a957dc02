"""Recipes: the published numbers stand in them, and the command takes them."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.cli import run as tapdistill
from pipelines.commands.label import LabelCommand
from pipelines.commands.train import TrainCommand
from pipelines.terminal.flags import parse
from student.data.augment import views
from student.data.order import parts_of_step
from student.training.beginning import first_network, weights_file
from student.training.cotracker import ITERATIONS
from student.training.losses import LossConfig
from student.training.losses_cotracker import GAMMA
from student.training.schedule import Optimiser
from student.training.students import STUDENTS
from teachers.cotracker.online import CoTracker3OnlineTeacher
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
        "cotracker3_mini",
        "mini",
        "mini_online",
        "tapir",
        "tapir_mini",
        "tapir_mini_real",
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
    assert (data.least_frames, data.frames) == ((40, 79) if kind == "offline" else (None, 64))
    assert data.length_of == ("clip" if kind == "offline" else "step")
    assert (data.strides, data.flip, data.photometric) == ((1, 2, 3), False, 0)
    assert (data.samplers, data.query_part, data.scale) == (("sift",), 0.25, (0.75, 1.0))
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
    assert (GAMMA, loss.huber_px) == (0.8, 6.0)


def test_the_recipe_of_the_paper_is_what_the_defaults_are():
    """The defaults say that they are the pseudo-label training: an offline student with 64 frames,
    but for what a machine decides, for whose track is the label, and for the views of the long
    clips that the recipe's labels have."""
    recipe = command("cotracker3_15k_online")
    default = parse(
        TrainCommand,
        "tapdistill train",
        ["--init", "given.pth", "--out", "out", "--data", "labels"],
    )
    assert (recipe.schedule, recipe.loss) == (default.schedule, default.loss)
    assert (recipe.iterations, recipe.visibility_choice) == (ITERATIONS, default.visibility_choice)
    assert (recipe.data.policy, default.data.policy) == ("random", "verified")
    views = ("strides", "scale", "samplers", "query_part", "flip")
    others = {"readers": 0, "policy": "", **dict.fromkeys(views)}
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
    assert (recipe.schedule.steps, recipe.schedule.ema) == (1000, 100)
    assert (recipe.data.policy, recipe.data.trust.min_right) == ("verified", 0.5)


def test_for_real_video_what_finds_a_point_stays():
    recipe = command("tapir_mini_real")
    network = first_network(replace(recipe.training(), init="tapir-mini"))
    Optimiser(network, recipe.schedule)
    learning = {
        name.split(".")[0] for name, each in network.named_parameters() if each.requires_grad
    }
    assert learning == {"torch_pips_mixer"}
    assert recipe.refinement == "chosen"


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


def test_a_variable_that_is_not_set_names_no_folder():
    with pytest.raises(ConfigError, match="--out: is empty"):
        command("mini", "--out", "")


def test_a_student_is_not_written_into_the_labels_that_it_learns_from(tmp_path, capsys):
    labels = str(tmp_path / "labels")
    flags = ["--recipe", "tapir_mini", "--data", f"{labels}/", "--out", labels]
    assert tapdistill(["train", *flags]) == 1
    assert f"--out {labels}: is the data set to learn from" in capsys.readouterr().err


def test_a_recipe_that_is_not_there_is_an_error(capsys):
    assert tapdistill(["train", "--recipe", "maxi", "--out", "out"]) == 1
    assert (
        "--recipe maxi: there are bootstapir, cotracker3_15k_offline, cotracker3_15k_online, "
        "cotracker3_mini, mini, mini_online, tapir, tapir_mini, tapir_mini_real"
        in capsys.readouterr().err
    )


def test_recipes_are_in_the_package():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    assert "recipes/*.toml" in project["tool"]["setuptools"]["package-data"]["student"]


def test_the_labels_of_the_recipe_are_long_clips_at_stride_1():
    made = parse(
        LabelCommand,
        "tapdistill label",
        ["videos", "--recipe", "cotracker3_15k", "--out", "labels", "--teachers", "lk"],
    )
    clips, queries = made.clips, made.queries
    assert (clips.clips_per_video, clips.frames, clips.strides) == (1, 300, (1,))
    assert clips.short_side == 512
    assert (queries.sift, queries.motion, queries.grid, queries.sift_part) == (1, 0, 0, 1)
    for kind in ("offline", "online"):
        data = command(f"cotracker3_15k_{kind}").data
        assert views(clips.frames, data.frames, data.steps_of(1)) >= 300
        # the smallest scale still holds the crop
        assert data.scale[0] * clips.short_side >= data.height


def rows_of_the_table() -> dict[str, str]:
    """Name and our value of each row of "Published and ours" in docs/recipe.md."""
    text = (Path(__file__).parents[3] / "docs" / "recipe.md").read_text()
    part = text.partition("## Published and ours")[2].partition("### ")[0]
    lines = [line for line in part.splitlines() if line.startswith("| ")][1:]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    assert all(len(row) == 4 for row in cells)
    return {row[0]: row[2] for row in cells}


def test_the_table_of_the_recipe_says_what_the_files_say():
    offline, online = (command(f"cotracker3_15k_{kind}") for kind in ("offline", "online"))
    made = parse(
        LabelCommand,
        "tapdistill label",
        ["videos", "--recipe", "cotracker3_15k", "--out", "labels", "--teachers", "lk"],
    )
    data, loss, schedule = online.data, online.loss, online.schedule
    same = ("strides", "height", "width", "scale", "queries", "samplers", "query_part", "policy")
    same += ("flip", "photometric", "batch")
    assert [getattr(data, name) for name in same] == [getattr(offline.data, name) for name in same]
    assert (loss, schedule) == (offline.loss, offline.schedule)
    low, high = data.scale
    online_teacher = CoTracker3OnlineTeacher._mode_settings(None, "label", None)
    assert online_teacher.backward
    count, frames = made.queries.count, made.queries.sift_frames
    said = {
        "videos": "--most-clips",
        "labels": data.labels,
        "view": f"a stored shot of up to {made.clips.frames} frames",
        "strides": ", ".join(map(str, data.strides)),
        "length, online": f"{data.frames}",
        "length, offline": f"{offline.data.least_frames} to {offline.data.frames}, for each "
        f"{offline.data.length_of}",
        "short videos": "go on in reverse",
        "crop": f"{data.height} x {data.width}",
        "scale": f"{low} to {high} of a clip of {made.clips.short_side} px",
        "what teachers see": f"at {made.clips.short_side} px",
        "queries": f"{data.queries}",
        "sampler": f"{' '.join(data.samplers)} alone, {count:,} in {frames} frames",
        "query frames": f"the first {data.query_part} of the part",
        "too few queries": "left out",
        "teachers": "the same four",
        "teachers' iterations": f"{online_teacher.iterations}; those that follow forward alone",
        "policy": f"{data.policy}: one teacher a clip",
        "visible": 'rule of mode "label"',
        "loss, visible": f"{loss.visible} x Huber {loss.huber_px:g} px",
        "loss, hidden": f"{loss.occluded} x L1, none from TAPIR",
        "refinements": f"{online.iterations}, weight {GAMMA}^(M - m)",
        "visibility head": f"{online.visibility_choice}",
        "visible rule": {0: "the published one"}[online.calibration_clips],
        "flip": {False: "none"}[data.flip],
        "colours": {0: "unchanged"}[data.photometric],
        "batch": f"{data.batch} over all devices",
        "steps": f"{schedule.steps:,}",
        "optimiser": f"AdamW {schedule.learning_rate:.0e}, weight decay "
        f"{schedule.weight_decay:.0e}, clipped at {schedule.clip_norm:g}".replace("e-0", "e-"),
        "schedule": {0: "one cosine without warm-up"}[schedule.warm_up],
        "precision": {True: "bfloat16"}[online.bf16],
        "coding": f"crf {made.encode.crf}",
    }
    rows = rows_of_the_table()
    assert list(rows) == list(said)
    assert not {name: (said[name], ours) for name, ours in rows.items() if said[name] not in ours}


def test_a_flag_may_have_the_section_that_it_has_in_a_recipe():
    """Who reads `[data] strides = [1]` in a recipe writes `--data.strides`."""
    flags = [
        "--data.strides", "2", "--data.strides=3", "--data.trust.min-right", "0.6",
        "--schedule.steps", "7", "--data.no-flip",
    ]  # fmt: skip
    short = ["--strides", "2", "3", "--trust.min-right", "0.6", "--steps", "7", "--no-flip"]
    assert command("tapir_mini", *flags) == command("tapir_mini", *short)
    assert command("tapir_mini", *flags).data.strides == (2, 3)
