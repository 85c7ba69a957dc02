"""`tapdistill eval --baseline`: every other tracker minus one of them."""

from __future__ import annotations

import pandas as pd
import pytest

from pipelines.cli import run as tapdistill
from student.synth.scene import SynthConfig, generate, save


def test_every_other_tracker_minus_the_baseline_is_printed(tmp_path, capsys):
    scene = SynthConfig(frames=6, height=64, width=96, points=12, split="test")
    for seed in (0, 1, 2):
        save(generate(seed, scene), tmp_path / f"test-{seed:05d}")
    table = tmp_path / "scores.parquet"
    called = ["eval", "--dataset", "npz", "--root", str(tmp_path), "--out", str(table)]
    assert tapdistill([*called, "--model", "lk", "flow", "match", "--baseline", "flow"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    at = lines.index(["minus", "flow", "AJ", "delta_avg", "OA"])
    assert [line[0] for line in lines[at + 1 : at + 3]] == ["lk", "match"]

    scores = pd.read_parquet(table).pivot(index="clip", columns="model", values="AJ")
    difference = 100 * (scores["match"] - scores["flow"])
    mean, above = lines[at + 2][1], lines[at + 2][4]
    assert mean == f"{difference.mean():+.1f}"
    assert above == f"{(difference > 0).sum()}/3"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "lk", "flow", "--baseline", "match"], "name one of --model lk flow"),
        (["--model", "lk", "--baseline", "lk"], "beside at least one other"),
        (["--model", "lk", "flow", "--baseline", "lk", "--policy", "medoid"], "give one"),
    ],
)
def test_a_baseline_that_says_nothing_is_refused(arguments, message, capsys):
    assert tapdistill(["eval", *arguments]) != 0
    assert message in " ".join(capsys.readouterr().err.split())
