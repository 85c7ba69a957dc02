"""A recipe is all that the process which makes clips knows, and a data set freezes it."""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict, fields, replace

import numpy as np
import pytest

from benchmarks.harness.jobs import write_moving
from labeler.clips.choice import ClipConfig
from labeler.clips.making import VideoSource
from labeler.clips.queries import QueryConfig
from labeler.clips.recipe import PIXELS, ClipRecipe
from labeler.io.storage import Storage
from labeler.shards.manifest import Frozen, freeze
from labeler.sources.listing import Source
from teachers import ConfigError

RECIPE = ClipRecipe(
    clips=ClipConfig(frames=16, strides=(1,), clips_per_video=1), queries=QueryConfig(count=5)
)


def test_a_data_set_freezes_a_recipe_and_hands_on_no_more_than_that():
    frozen = Frozen(sources=("private/videos",), videos_per_unit=3, **vars(RECIPE))
    assert frozen.recipe() == RECIPE
    assert type(frozen.recipe()) is ClipRecipe
    assert b"private" not in pickle.dumps(frozen.recipe())


def test_what_is_frozen_beside_the_recipe_says_which_videos_there_are():
    recipe = {field.name for field in fields(ClipRecipe)}
    assert asdict(Frozen(sources=())).keys() - recipe == {
        "sources",
        "column",
        "words",
        "videos_per_unit",
    }


def test_a_data_set_of_other_pixels_is_not_mixed_with_ours(tmp_path):
    storage, ours = Storage(str(tmp_path)), Frozen(sources=("videos",))
    freeze(storage, ours, "2.0")
    freeze(storage, ours, "2.1")
    path = tmp_path / "dataset.json"
    manifest = json.loads(path.read_text())
    assert manifest["frozen"].pop("pixels") == PIXELS  # which the first version did not write
    path.write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match=r"begun by tapdistill 2\.0, which makes other pixels"):
        freeze(storage, ours, "2.1")


def test_equal_recipes_make_equal_clips_and_another_one_other_queries_of_the_same_pixels(tmp_path):
    path = write_moving(tmp_path / "a.mp4", seed=0, frames=20)
    source = Source(str(path), path.stat().st_size, "")

    def clip_of(recipe: ClipRecipe):
        return VideoSource(recipe).clip(source, 0)

    one, again = clip_of(RECIPE), clip_of(pickle.loads(pickle.dumps(RECIPE)))
    more = clip_of(replace(RECIPE, queries=QueryConfig(count=9)))
    assert (one.mp4, one.key) == (again.mp4, again.key)
    np.testing.assert_array_equal(one.queries, again.queries)
    np.testing.assert_array_equal(one.frames, more.frames)
    assert (one.frames.shape, len(one.queries), len(more.queries)) == ((16, 48, 64, 3), 5, 9)
