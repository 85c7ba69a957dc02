"""Mixture: a stream of batches that nothing but (config, seed, start) decides."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from labeler.io.scratch import is_alive
from labeler.labels.agreement import AgreementConfig
from labeler.labels.policies import POLICIES
from student.data.batch import Batch
from student.data.config import AgreementOverride, DataConfig
from student.data.mixture import Batches, batches
from student.data.order import pools_of, slots
from student.data.reader import open_clips
from student.synth.scene import generate
from teachers import ConfigError, ShardError
from tests.student.evaluation.test_kubric import SCENE, write
from tests.support.slow import slow
from tests.support.training import small_data

TENSORS = "frames", "queries", "xy", "visible", "valid", "visibility_valid", "supervise_occluded"


@pytest.fixture
def copy(dataset, tmp_path) -> Path:
    """The data set, to be damaged."""
    return Path(shutil.copytree(dataset.folder, tmp_path / "copy"))


def small(folder: Path, **changes) -> DataConfig:
    """Stored and procedural clips, two a batch."""
    sizes = {"frames": 10, "height": 64, "width": 64, "queries": 12, "batch": 2, "at_once": 2}
    shares = {"policy": "random", "procedural": 0.3, "shards_at_once": 2}
    return small_data(folder, **(sizes | shares | changes))


def take(stream: Batches, number: int) -> list[Batch]:
    return list(islice(stream, number))


def assert_same(some: list[Batch], others: list[Batch]) -> None:
    for one, other in zip(some, others, strict=True):
        assert (one.keys, one.sources, one.position, one.skipped) == (
            other.keys,
            other.sources,
            other.position,
            other.skipped,
        )
        for name in TENSORS:
            assert torch.equal(getattr(one, name), getattr(other, name)), name


@pytest.fixture(scope="module")
def first_eight(dataset) -> list[Batch]:
    return take(batches(small(dataset.folder), seed=5), 8)


def test_a_batch_has_the_shapes_and_types_that_it_promises(first_eight):
    for batch in first_eight:
        shapes = {
            name: (getattr(batch, name).dtype, tuple(getattr(batch, name).shape))
            for name in TENSORS
        }
        assert shapes == {
            "frames": (torch.uint8, (2, 10, 64, 64, 3)),
            "queries": (torch.float32, (2, 12, 3)),
            "xy": (torch.float32, (2, 12, 10, 2)),
            "visible": (torch.bool, (2, 12, 10)),
            "valid": (torch.bool, (2, 12, 10)),
            "visibility_valid": (torch.bool, (2, 12, 10)),
            "supervise_occluded": (torch.bool, (2,)),
        }
        assert batch.valid.any((1, 2)).all()
        assert not (batch.visible & ~batch.valid).any()
        t = batch.queries[..., 0]
        assert ((t >= 0) & (t < 10) & (t == t.floor())).all()
    assert {source for batch in first_eight for source in batch.sources} == {"shards", "procedural"}


@pytest.mark.parametrize("readers", [2, *slow(1)])
def test_the_number_of_readers_changes_no_batch(dataset, first_eight, readers):
    assert_same(take(batches(small(dataset.folder, readers=readers), seed=5), 8), first_eight)


@pytest.mark.parametrize("after", range(1, 8))
def test_reading_goes_on_after_any_batch_as_if_it_had_never_stopped(dataset, first_eight, after):
    start = first_eight[after - 1].position
    assert_same(
        take(batches(small(dataset.folder), seed=5, start=start), 8 - after), first_eight[after:]
    )


def test_reading_goes_on_with_another_number_of_readers(dataset, first_eight):
    stream = batches(small(dataset.folder, readers=2), seed=5, start=first_eight[2].position)
    assert_same(take(stream, 3), first_eight[3:6])


def test_another_seed_gives_other_batches(dataset, first_eight):
    assert [batch.keys for batch in take(batches(small(dataset.folder), seed=6), 8)] != [
        batch.keys for batch in first_eight
    ]


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_the_places_of_each_batch(dataset, world):
    alone = take(batches(small(dataset.folder, batch=4, at_once=4), seed=5), 3)
    ranks = [
        take(
            batches(
                small(dataset.folder, batch=4, at_once=4 // world), seed=5, rank=rank, world=world
            ),
            3,
        )
        for rank in range(world)
    ]
    for number, whole in enumerate(alone):
        parts = [rank[number] for rank in ranks]
        assert {part.position for part in parts} == {whole.position}
        for rank, part in enumerate(parts):
            for name in TENSORS:
                assert torch.equal(getattr(part, name), getattr(whole, name)[rank::world])
            assert part.keys == whole.keys[rank::world]


def stored_order(
    config: DataConfig, shards: list[list[int]], number: int, seed: int = 0
) -> list[int]:
    return [
        slot.clip
        for slot in islice(slots(config, [shards], 0, seed), number)
        if slot.clip is not None
    ]


def test_a_step_takes_the_same_places_in_one_part_or_in_several(dataset):
    whole = take(batches(small(dataset.folder, batch=4, at_once=4), seed=5), 2)
    parts = take(batches(small(dataset.folder, batch=4, at_once=2), seed=5), 4)
    assert [part.keys for part in parts] == [
        step.keys[half] for step in whole for half in (slice(0, 2), slice(2, 4))
    ]
    assert [part.position for part in parts] == [4, 4, 8, 8]


def test_a_batch_that_cannot_be_shared_is_refused(dataset):
    with pytest.raises(
        ConfigError,
        match=r"batch = 4 cannot be shared by 3 processes with at_once = 1: .* a multiple of 3",
    ):
        batches(small(dataset.folder, batch=4, at_once=1), seed=0, world=3)


@pytest.mark.parametrize("world", [1, 2])
def test_all_clips_of_a_step_have_one_length_drawn_anew_for_each_step(dataset, world):
    config = small(dataset.folder, batch=2, at_once=1, least_frames=5)
    ranks = [
        take(batches(config, seed=5, rank=rank, world=world), 16 // world) for rank in range(world)
    ]
    lengths = [[part.frames.shape[1] for part in rank] for rank in ranks]
    parts = 2 // world
    steps = [
        [n for rank in lengths for n in rank[step * parts : (step + 1) * parts]]
        for step in range(8)
    ]
    assert all(len(set(step)) == 1 for step in steps)
    assert {step[0] for step in steps} <= set(range(5, 11))
    assert len({step[0] for step in steps}) > 2


def test_data_sets_with_weights_come_in_their_shares(tmp_path):
    config = replace(small(tmp_path, procedural=0), data=("a", "b"), data_weights=(1, 3))
    pools = [[[0, 1]], [[2, 3, 4], [5]]]
    drawn = [slot.clip for slot in islice(slots(config, pools, 0, 0), 4000)]
    share = sum(clip < 2 for clip in drawn) / len(drawn)
    assert abs(share - 0.25) < 0.035  # five standard deviations
    first = [clip for clip in drawn if clip < 2]
    # each has its own epochs
    assert {tuple(sorted(first[i : i + 2])) for i in range(0, 200, 2)} == {(0, 1)}


def test_a_data_set_is_a_pool_of_its_own_only_where_it_has_a_weight(dataset, copy):
    both = (str(dataset.folder), str(copy))
    clips, _ = open_clips(both, (64, 64))
    together = pools_of(replace(small(copy), data=both), clips)
    apart = pools_of(replace(small(copy), data=both, data_weights=(1, 1)), clips)
    assert len(together) == 1
    assert [sum(map(len, pool)) for pool in apart] == [len(clips) // 2] * 2
    for pools in (together, apart):
        assert sorted(clip for pool in pools for shard in pool for clip in shard) == list(
            range(len(clips))
        )


def test_thresholds_that_are_given_replace_the_stored_ones():
    stored = AgreementConfig(tau_px=3.0, min_support=0.7)
    assert AgreementOverride(tau_px=1.0).over(stored) == AgreementConfig(
        tau_px=1.0, min_support=0.7
    )
    assert AgreementOverride().over(stored) == stored
    with pytest.raises(ConfigError, match="min_support = 2"):
        AgreementOverride(min_support=2.0)


def test_nothing_to_learn_from_is_refused_when_it_is_read(tmp_path):
    with pytest.raises(ConfigError, match="no data: name a data set"):
        batches(replace(small(tmp_path), data=()), seed=0)


def kubric_alone(root: Path, batch: int) -> DataConfig:
    sizes = {"frames": 5, "height": 64, "width": 64, "queries": 6}
    return DataConfig(kubric=str(root), kubric_share=1.0, batch=batch, at_once=batch, **sizes)


def test_kubric_is_a_source_with_its_share(tmp_path):
    for number in range(3):
        write(tmp_path, f"{number:04d}", generate(number, SCENE))
    config = kubric_alone(tmp_path, batch=3)
    (batch,) = take(batches(config, seed=0), 1)
    assert set(batch.sources) == {"kubric"}
    assert sorted(batch.keys) == ["kubric-0000", "kubric-0001", "kubric-0002"]  # an epoch
    assert batch.supervise_occluded.all()
    (tmp_path / "0001" / "0001.npy").write_bytes(b"damaged")
    (batch,) = take(batches(config, seed=0), 1)
    assert set(batch.keys) == {"kubric-0000", "kubric-0002"}
    assert batch.skipped["corrupt"] >= 1


def test_a_sequence_of_kubric_that_disappears_ends_the_stream_with_its_name(tmp_path):
    for number in range(2):
        write(tmp_path, f"{number:04d}", generate(number, SCENE))
    config = kubric_alone(tmp_path, batch=2)
    stream = batches(config, seed=0)
    shutil.rmtree(tmp_path / "0001")
    with pytest.raises(ShardError, match=r"0001/frames: no such file or folder"):
        next(stream)


def test_the_students_frames_change_and_its_labels_do_not(dataset):
    clean, changed = (
        take(batches(small(dataset.folder, photometric=strength), seed=5), 4)
        for strength in (0.0, 1.0)
    )
    assert any(
        not torch.equal(one.frames, other.frames) for one, other in zip(clean, changed, strict=True)
    )
    for one, other in zip(clean, changed, strict=True):
        assert (one.keys, one.position) == (other.keys, other.position)
        for name in ("queries", "xy", "valid"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert not (other.visible & ~one.visible).any()


SHARDS = [list(range(first, first + 5)) for first in range(0, 60, 5)]


def test_an_epoch_has_every_clip_once_and_the_next_another_order(tmp_path):
    order = stored_order(small(tmp_path, procedural=0), SHARDS, 180)
    epochs = [order[first : first + 60] for first in (0, 60, 120)]
    assert all(sorted(epoch) == list(range(60)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_clips_are_shuffled_within_a_few_shards(tmp_path):
    order = stored_order(small(tmp_path, procedural=0, shards_at_once=3), SHARDS, 60)
    groups = [order[first : first + 15] for first in range(0, 60, 15)]
    assert all(len({clip // 5 for clip in group}) == 3 for group in groups)
    assert all(sorted(group) != group for group in groups)
    # the shards themselves are shuffled
    assert sorted({clip // 5 for clip in groups[0]}) != [0, 1, 2]


def test_procedural_clips_come_in_their_share_and_cost_no_stored_clip(tmp_path):
    n, share = 4000, 0.3
    kinds = [
        slot.clip is None
        for slot in islice(slots(small(tmp_path, procedural=share), [SHARDS], 0, 1), n)
    ]
    # five standard deviations
    assert abs(sum(kinds) - n * share) < 5 * np.sqrt(n * share * (1 - share))
    order = stored_order(small(tmp_path, procedural=share), SHARDS, 200)
    assert sorted(order[:60]) == list(range(60))


def test_procedural_clips_alone_need_no_data():
    config = DataConfig(procedural=1, frames=6, height=64, width=64, queries=5, batch=2, at_once=2)
    (batch,) = take(batches(config, seed=0), 1)
    assert batch.sources == ("procedural", "procedural")
    assert batch.valid.all()
    assert batch.supervise_occluded.all()
    assert not torch.equal(batch.frames[0], batch.frames[1])


def damage(folder: Path, keys: set[str]) -> None:
    """Zeros over the mp4 of these clips."""
    for clip in open_clips((str(folder),), (64, 64))[0]:
        if clip.entry.key in keys:
            offset, size = clip.entry.offsets["mp4"]
            with (folder / clip.shard.tar).open("r+b") as tar:
                tar.seek(offset)
                tar.write(bytes(size))


@pytest.mark.parametrize("readers", [0, 2])
def test_another_clip_takes_the_place_of_a_corrupt_one_which_is_counted(copy, readers):
    config = small(copy, procedural=0, readers=readers)
    before = take(batches(config, seed=5), 4)
    bad = {before[1].keys[0]}
    damage(copy, bad)
    after = take(batches(config, seed=5), 4)
    assert [batch.position for batch in after] == [batch.position for batch in before]
    assert after[1].skipped["corrupt"] >= 1
    for old, new in zip(before, after, strict=True):
        assert not bad & set(new.keys)
        assert (new.skipped["corrupt"] > 0) == bool(bad & set(old.keys))
        for place, key in enumerate(old.keys):
            if key not in bad:
                assert new.keys[place] == key
                assert torch.equal(new.frames[place], old.frames[place])
    assert_same(take(batches(config, seed=5, start=after[0].position), 3), after[1:])


def test_the_place_of_a_corrupt_clip_is_taken_by_one_of_the_same_data_set_where_these_have_weights(
    dataset, copy
):
    stored, _ = open_clips((str(copy),), (64, 64))
    good = stored[0].entry.key
    damage(copy, {clip.entry.key for clip in stored} - {good})
    config = small(
        dataset.folder, data=(str(dataset.folder), str(copy)), data_weights=(1, 1e9), procedural=0
    )
    for batch in take(batches(config, seed=5), 3):
        assert set(batch.keys) == {good}


@pytest.mark.parametrize("readers", [0, 1])
def test_a_shard_that_disappears_ends_the_stream_with_its_name(copy, readers):
    stream = batches(small(copy, procedural=0, readers=readers), seed=5)
    next(stream)
    for tar in (copy / "shards").glob("*.tar"):
        tar.unlink()
    with pytest.raises(ShardError, match=r"^\S+\.tar does not exist"):
        take(stream, 10)


def test_a_truncated_shard_is_told_at_the_start_and_the_rest_is_read(copy):
    tar = min((copy / "shards").glob("*.tar"))
    tar.write_bytes(tar.read_bytes()[:-1000])
    stream = batches(small(copy, procedural=0), seed=5)
    assert [(one.file, one.reason) for one in stream.left_out] == [(str(tar), "truncated")]
    assert len(take(stream, 3)) == 3


@pytest.mark.parametrize("readers", [0, 1])
def test_a_policy_that_finds_no_label_says_so(dataset, readers):
    config = small(
        dataset.folder,
        procedural=0,
        policy="random-agreeing",
        agreement=AgreementOverride(min_visible_frames=99),
        readers=readers,
    )
    with pytest.raises(
        ShardError, match=r"clips in a row cannot be used \(100 no-labels\).*lower thresholds"
    ):
        next(batches(config, seed=0))


@pytest.mark.parametrize("policy", [policy for policy in POLICIES if policy != "oracle"])
def test_every_policy_gives_batches(dataset, policy):
    (batch,) = take(batches(small(dataset.folder, procedural=0, policy=policy), seed=1), 1)
    assert batch.visible.any()


TRAINER = """
from multiprocessing import active_children

from student.data.config import DataConfig
from student.data.mixture import batches

if __name__ == "__main__":
    config = DataConfig(procedural=1, frames=4, height=64, width=64, queries=2, batch=1, readers=2)
    for batch in batches(config, seed=0):
        print(*(child.pid for child in active_children()), flush=True)
"""


@pytest.mark.slow
def test_workers_end_when_the_trainer_is_killed(tmp_path):
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as trainer:
        assert trainer.stdout
        workers = [int(pid) for pid in trainer.stdout.readline().split()]
        trainer.kill()
    assert len(workers) == 2
    deadline = time.monotonic() + 60
    while any(map(is_alive, workers)):
        assert time.monotonic() < deadline, f"of the workers {workers} some go on"
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": 0}, "frames = 0: must be at least 1"),
        ({"batch": 0}, "batch = 0"),
        ({"readers": -1}, "readers = -1"),
        ({"policy": "best"}, "no label policy 'best': there are random, random-agreeing"),
        ({"policy": "oracle"}, "needs exact tracks"),
        ({"procedural": 1.5}, "procedural = 1.5"),
        ({"least_frames": 11}, "least_frames = 11: must be between 1 and frames = 10"),
        ({"batch": 3}, "batch = 3 cannot be taken at_once = 2"),
        ({"photometric": -1}, "photometric = -1"),
        ({"kubric_share": 0.5}, "kubric = None with kubric_share = 0.5: give both"),
        (
            {"kubric": "k", "kubric_share": 0.8},
            "procedural = 0.3 and kubric_share = 0.8: together at most 1",
        ),
        ({"data_weights": (1, 2)}, r"one above 0 for each of the 1 data sets"),
        ({"labels": "inline"}, "inline labels need teachers"),
        ({"teachers": ("lk",)}, "stored ones take none"),
        (
            {"labels": "inline", "teachers": ("lk",), "photometric": 1},
            "would see the changed frames",
        ),
        ({"height": 32}, "at least 64 px"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        small(tmp_path, **changes)


@pytest.mark.parametrize("where", [{"start": -1}, {"seed": -1}, {"rank": 2, "world": 2}])
def test_a_start_or_rank_that_cannot_be_is_refused(dataset, where):
    with pytest.raises(ConfigError, match="rank is below world"):
        batches(small(dataset.folder), **{"seed": 0, **where})
