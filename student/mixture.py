"""Mixture: an endless stream of batches from shards and procedural video, a function of (config, seed, start) alone.

    stream = batches(config, seed=0)                        # or start=batch.position of the last batch that was trained on
    for batch in stream: ...

Places   The stream is a sequence of numbered places. A place is a stored clip or a procedural one; everything random about it is drawn
         from a generator seeded with (seed, number). Stored clips come epoch by epoch, each once.
Splits   A batch of all ranks is a run of `batch` x `world` places; each rank has its part of it, and each worker makes whole batches
         in turn. So neither the number of workers nor a restart changes a batch, and all ranks are always at the same position.
Skipped  A place whose clip is damaged, or has no label in the drawn part, takes another clip: a place always gives one.

webdataset's pipeline splits and maps; places, and so exact restarts, are ours, as it has none in the middle of an epoch.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from multiprocessing.context import BaseContext

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from labeler.agreement import AgreementConfig
from student.augment import Unusable, augment
from student.batch import Batch, TrainClip, collate
from student.policies import POLICIES, Policy
from student.reader import LeftOut, StoredClip, open_clips, read_clip
from student.synth import SynthConfig, generate
from teachers import ConfigError, ShardError, TapdistillError

MOST_TRIES = 100
"""So many unusable clips in a row for one place are no accident."""

_ORDER, _KIND, _PLACE = range(3)
"""What a generator is for: no two share a seed."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What a student learns from. The defaults are CoTracker3's pseudo-label training."""

    data: tuple[str, ...] = ()
    """Data sets that `tapdistill label` wrote: folders or URLs."""
    policy: Policy = "random"
    """Whose track is the label. random: one teacher's, drawn anew each time a clip is read. random-agreeing: for each query one of the
    teachers that agree, where it agrees. medoid, mean, median: ablations."""
    agreement: AgreementConfig | None = None
    """Thresholds of policies that need agreement; None takes those of the stored labels."""
    procedural: float = 0.0
    """Share of procedural clips, in [0, 1]."""
    frames: int = 64
    """Frames of a clip; shorter clips are extended by their reverse."""
    height: int = 384
    """Px of the crop."""
    width: int = 512
    """Px of the crop."""
    queries: int = 384
    """Points of a clip."""
    batch: int = 1
    """Clips of a batch, on each rank."""
    flip: bool = True
    """Mirror half of the stored clips."""
    shards_at_once: int = 16
    """Clips are shuffled within so many shards, themselves in random order, so that reads stay near each other."""
    workers: int = 0
    """Processes that read and decode; 0 does it in the trainer's own. Changes no batch. A script that uses them needs the usual
    `if __name__ == "__main__":`."""

    def __post_init__(self) -> None:
        for name in ("frames", "height", "width", "queries", "batch", "shards_at_once"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be at least 1.")
        if self.workers < 0:
            raise ConfigError(f"workers = {self.workers}: must be 0 (none) or more.")
        if self.policy not in POLICIES or self.policy == "oracle":
            names = ", ".join(policy for policy in POLICIES if policy != "oracle")
            raise ConfigError(f"policy = {self.policy!r}: stored clips have {names} ('oracle' needs exact tracks).")
        if not 0 <= self.procedural <= 1:
            raise ConfigError(f"procedural = {self.procedural}: is the share of procedural clips, in [0, 1].")
        if not self.data and self.procedural < 1:
            raise ConfigError(
                f"procedural = {self.procedural} and no data: name a data set of `tapdistill label`, or train on procedural video "
                "alone with procedural = 1."
            )
        if self.procedural > 0:
            self.synth()

    def synth(self) -> SynthConfig:
        """What the procedural clips are like."""
        return SynthConfig(
            frames=self.frames, height=self.height, width=self.width, points=self.queries, query_frame="random", split="train"
        )  # fmt: skip


@dataclass(frozen=True)
class Place:
    """One clip of the stream."""

    number: int
    clip: int | None
    """Index of a stored clip, or None for a procedural one."""


class Batches(Iterator[Batch]):
    """The endless stream of `batches`."""

    def __init__(self, loader: DataLoader, left_out: Sequence[LeftOut], digest: str) -> None:
        self.left_out = tuple(left_out)
        """Clips that were found unusable at the start."""
        self.digest = digest
        """sha256 of what the stream is drawn from: the same places give the same clips only where it is the same."""
        self._batches = iter(loader)

    def __next__(self) -> Batch:
        batch = next(self._batches)
        if isinstance(batch, TapdistillError):
            raise batch
        return batch


def batches(config: DataConfig, seed: int, start: int = 0, rank: int = 0, world: int = 1) -> Batches:
    """Batches for one of `world` ranks, for ever.

    Args:
        start: 0, or the `position` of the last batch that was trained on, with the same config, seed, and `world`.

    Raises:
        ConfigError: `start` or `rank` cannot be right, or the photographs for procedural video are not installed.
        ShardError: at once, if a data set is missing, empty, or of another schema; later, from the iterator, if a shard disappears or
            nearly no clip can be used.
    """
    if seed < 0 or start < 0 or not 0 <= rank < world:
        raise ConfigError(f"seed = {seed}, start = {start}, rank = {rank} of {world}: none is negative, and rank is below world.")
    os.environ.setdefault("WDS_SECURE", "1")  # read when webdataset is imported: no pickles, no pipes
    import webdataset

    clips, left_out = open_clips(config.data, (config.height, config.width))
    pipeline = webdataset.DataPipeline(
        partial(_own_places, config, _by_shard(clips), seed, start, rank, world),
        webdataset.split_by_worker,
        webdataset.map(_Load(config, clips, seed)),
    )
    loader: DataLoader = DataLoader(
        pipeline,
        batch_size=None,
        num_workers=config.workers,
        multiprocessing_context=_fork_server() if config.workers else None,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_start_worker,
    )
    places = [(clip.shard.url, clip.shard.tar, clip.entry.key) for clip in clips]
    return Batches(loader, left_out, hashlib.sha256(json.dumps([places, world]).encode()).hexdigest())


def places(config: DataConfig, shards: Sequence[Sequence[int]], seed: int) -> Iterator[Place]:
    """The stream of places from number 0, for ever; `shards` are the indices of stored clips by shard."""
    kind = np.random.default_rng((seed, _KIND))
    stored = _shuffled(shards, config.shards_at_once, seed)
    for number in count():
        yield Place(number, None if kind.random() < config.procedural else next(stored))


def _shuffled(shards: Sequence[Sequence[int]], at_once: int, seed: int) -> Iterator[int]:
    """Every stored clip once an epoch, for ever."""
    for epoch in count():
        rng = np.random.default_rng((seed, _ORDER, epoch))
        order = rng.permutation(len(shards))
        for first in range(0, len(order), at_once):
            group = [clip for shard in order[first : first + at_once] for clip in shards[shard]]
            yield from rng.permutation(group).tolist()


def _own_places(
    config: DataConfig, shards: Sequence[Sequence[int]], seed: int, start: int, rank: int, world: int
) -> Iterator[tuple[list[Place], int]]:
    """The rank's places of each batch from `start` on, and the position after that batch."""
    stream = islice(places(config, shards, seed), start, None)
    for position in count(start + config.batch * world, config.batch * world):
        yield list(islice(stream, config.batch * world))[rank::world], position


@dataclass(frozen=True)
class _Load:
    """Places to a batch. An expected error is returned, for the trainer to raise: a worker could only pass on its traceback."""

    config: DataConfig
    clips: Sequence[StoredClip]
    seed: int

    def __call__(self, item: tuple[list[Place], int]) -> Batch | TapdistillError:
        own, position = item
        skipped = Counter[str]()
        try:
            return collate([self.clip(place, skipped) for place in own], position, skipped)
        except TapdistillError as error:
            return error

    def clip(self, place: Place, skipped: Counter[str]) -> TrainClip:
        rng = np.random.default_rng((self.seed, _PLACE, place.number))
        return self.procedural(place, rng) if place.clip is None else self.stored(place.clip, rng, skipped)

    def procedural(self, place: Place, rng: np.random.Generator) -> TrainClip:
        made = generate(int(rng.integers(2**62)), self.config.synth())
        key = f"procedural-{place.number}"
        return TrainClip(key, "procedural", made.frames, made.queries, made.xy, made.visible, np.ones_like(made.visible), True)

    def stored(self, index: int, rng: np.random.Generator, skipped: Counter[str]) -> TrainClip:
        config, tried = self.config, Counter[str]()
        for _ in range(MOST_TRIES):
            clip = self.clips[index]
            try:
                whole, hidden = read_clip(clip, config.policy, rng, config.agreement)
                part = augment(whole, config.frames, (config.height, config.width), config.queries, config.flip, rng)
            except Unusable as why:
                tried[why.reason] += 1
                index = int(rng.integers(len(self.clips)))
                continue
            skipped += tried
            return TrainClip(clip.entry.key, "shards", part.frames, part.queries, part.xy, part.visible, part.used, hidden)
        counts = ", ".join(f"{number} {reason}" for reason, number in tried.items())
        raise ShardError(
            f"{', '.join(config.data)}: {MOST_TRIES} clips in a row cannot be used ({counts}). 'corrupt': run `tapdistill verify`. "
            f"'no-labels': policy {config.policy!r} finds too little to learn from; take more teachers, lower thresholds, or 'random'."
        )


def _by_shard(clips: Sequence[StoredClip]) -> list[list[int]]:
    shards: dict[tuple[str, str], list[int]] = {}
    for index, clip in enumerate(clips):
        shards.setdefault((clip.shard.url, clip.shard.tar), []).append(index)
    return list(shards.values())


def _fork_server() -> BaseContext:
    """Where workers come from. OpenCV hangs in a plain fork of a process that has used its threads; a spawned worker takes seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _start_worker(worker: int) -> None:
    """One thread, as the workers share the cores; and no worker outlives a trainer that was killed, as those of a fork server would."""
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_trainer, daemon=True).start()


def _end_with_trainer() -> None:
    trainer = multiprocessing.parent_process()
    assert trainer is not None
    trainer.join()
    os._exit(1)
