"""One tracker minus another, clip by clip."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from student.evaluation.evaluate import FIGURES, minus
from teachers import ConfigError


def rows_of(model: str, aj: list[float]) -> pd.DataFrame:
    """A row per clip; delta_avg and OA are the same in all of them."""
    clips = [f"clip-{number}" for number in range(len(aj))]
    return pd.DataFrame({"model": model, "clip": clips, "AJ": aj, "delta_avg": 0.5, "OA": 0.5})


def by_hand(*of_models: pd.DataFrame) -> pd.DataFrame:
    """Rows in the order of `compare`: all trackers on the first clip, then on the next."""
    return pd.concat(of_models).sort_values("clip", kind="stable", ignore_index=True)


def test_clips_are_paired_so_that_how_hard_they_are_falls_out():
    before = [0.1, 0.5, 0.9, 0.3]
    scores = by_hand(rows_of("before", before), rows_of("after", [aj + 0.02 for aj in before]))
    found = minus(scores, "before").set_index("figure")
    assert found["model"].tolist() == ["after"] * len(FIGURES)
    assert found.loc["AJ", ["mean", "low", "high"]].to_list() == pytest.approx([0.02] * 3)
    assert found.loc["AJ", ["above", "clips"]].to_list() == [4, 4]
    assert found.loc["OA", ["mean", "low", "high", "above"]].to_list() == [0, 0, 0, 0]


def test_the_interval_is_that_of_another_bootstrap_of_the_differences():
    chance = np.random.default_rng(0)
    before, gains = chance.uniform(0, 1, 40), chance.normal(0.01, 0.02, 40)
    scores = by_hand(rows_of("before", [*before]), rows_of("after", [*(before + gains)]))
    found = minus(scores, "before").set_index("figure").loc["AJ"]
    theirs = stats.bootstrap((gains,), np.mean, method="percentile", rng=chance).confidence_interval
    assert found["low"] == pytest.approx(theirs.low, abs=5e-4)
    assert found["high"] == pytest.approx(theirs.high, abs=5e-4)
    assert found["above"] == (gains > 0).sum()


def test_a_clip_without_the_figure_is_in_no_difference():
    scores = by_hand(rows_of("a", [0.2, np.nan, 0.4]), rows_of("b", [0.1, 0.9, 0.6]))
    found = minus(scores, "a").set_index("figure").loc["AJ"]
    assert found["mean"] == pytest.approx(0.05)
    assert found[["above", "clips"]].to_list() == [1, 2]


def test_a_baseline_that_was_not_scored_is_refused():
    with pytest.raises(ConfigError, match="no rows of 'c': there are a"):
        minus(rows_of("a", [0.2]), "c")
