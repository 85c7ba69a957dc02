"""Mixture: an endless stream of batches from shards and synthetic video, a function of (config,
seed, start) alone.

    stream = batches(config, seed=0)  # or start=batch.position of the last step that was taken
    for batch in stream: ...

Slots    The stream is a sequence of numbered slots. A slot takes a stored clip, a procedural one,
         or one of Kubric; everything random about it is drawn from a generator seeded with (seed,
         number). Stored clips come epoch by epoch, each once; with weights, each data set has its
         own epochs.
Splits   A step takes the next `batch` slots, whatever the number of ranks; each rank has its part
         of them, and gets them `at_once` by `at_once`. Each reader makes whole parts in turn. So
         neither ranks, readers, nor a restart change what a step learns from; all ranks are always
         at the same position; and as slots never end, no rank waits for one whose shards ran out.
Skipped  A slot whose clip is damaged, or has no label in the drawn part, takes another clip of its
         pool: a slot always gives one.

webdataset's pipeline splits and maps; slots, and so exact restarts, are ours, as it has none in
the middle of an epoch.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from multiprocessing.context import BaseContext
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from labeler.dataset.review import Review, read_review
from labeler.labels.policies import find
from labeler.shards.record import ClipEntry
from student.data.augment import Crop, UnusableSample, View, asked, crop_of, part_of, views
from student.data.batch import Batch, InlineRequest, TrainClip, collate
from student.data.config import DataConfig
from student.data.exact import procedural_clip, training_clip
from student.data.order import (
    SLOT,
    BatchSlots,
    Pool,
    Slot,
    own_parts,
    parts_of_step,
    pools_of,
    slots,
)
from student.data.photometric import photometric
from student.data.reader import (
    LabelChoice,
    UnusableClips,
    first_by_hash,
    open_clips,
    read_clip,
    read_unlabelled,
    refuse_unjudged,
    refuse_unknown_teachers,
    reviewed,
)
from student.data.stored import StoredClip, StoredClips, fits
from student.evaluation.kubric import KubricSequence, sequences
from teachers import ConfigError, ShardError, TapdistillError

KEYS = 100_000
"""Clips up to which a stream is known by each clip's key."""
MOST_TRIES = 100
"""This many unusable clips in a row for one slot cannot be an accident."""


class Batches(Iterator[Batch]):
    """The endless stream of `batches`."""

    def __init__(
        self,
        loader: DataLoader[Batch],
        left_out: Sequence[UnusableClips],
        digest: str,
        views: Mapping[int, int],
        note: str = "",
    ) -> None:
        self.left_out = tuple(left_out)
        """Clips that were found unusable at the start."""
        self.digest = digest
        """sha256 of what the stream is drawn from: the same slots give the same clips only where
        it is the same."""
        self.views = views
        """Number of different runs of frames to learn from -> how many stored clips offer that
        many."""
        self.note = note
        """What a user should know about the clips; empty if there is nothing to say."""
        self._batches = iter(loader)

    def __next__(self) -> Batch:
        batch = next(self._batches)
        if isinstance(batch, TapdistillError):
            raise batch
        return batch


def batches(
    config: DataConfig,
    seed: int,
    start: int = 0,
    rank: int = 0,
    world: int = 1,
    *,
    whole: bool = False,
) -> Batches:
    """Endless batches for one of `world` ranks.

    Args:
        start: 0, or the `position` of the last step that was taken, with the same config and seed;
            `world` may be another.
        whole: show whole frames of stored clips, as they are stored; for one clip `at_once`.

    Raises:
        ConfigError: `start` or `rank` cannot be right, `world` does not divide the batch, or the
            photographs for procedural video are not installed.
        ShardError: at once, if a data set is missing, empty, or of another schema; later, from the
            iterator, if a shard disappears or nearly no clip can be used.
    """
    if seed < 0 or start < 0 or not 0 <= rank < world:
        raise ConfigError(
            f"seed = {seed}, start = {start}, rank = {rank} of {world}: none is negative, and rank "
            "is below world."
        )
    config.check_complete()
    parts_of_step(config, world)
    # read when webdataset is imported: no pickles, no pipes
    os.environ.setdefault("WDS_SECURE", "1")
    import webdataset

    there, left_out = open_clips(config.data, (config.height, config.width))
    refuse_unknown_teachers(there, config.use_teachers)
    clips: Sequence[StoredClip] = there
    review = read_review(config.review) if config.review else None
    note = ""
    if review:
        clips, note = reviewed(clips, review, only=config.reviewed_only)
    if config.most_clips is not None:
        clips = first_by_hash(clips, config.most_clips)
    if config.labels == "stored" and (config.weigh or find(config.policy).needs_verdict):
        refuse_unjudged(clips, "--weigh" if config.weigh else f"policy {config.policy!r}")
    kubric = sequences(config.kubric) if config.kubric else []
    pools = pools_of(config, clips)
    members = [_members(pool) for pool in pools]
    stream = partial(slots, config, pools, len(kubric), seed)
    pipeline = webdataset.DataPipeline(
        partial(own_parts, config, stream, seed, start, rank, world),
        webdataset.split_by_worker,
        webdataset.map(_Load(config, clips, members, kubric, seed, review, whole)),
    )
    loader: DataLoader[Batch] = DataLoader(
        pipeline,
        batch_size=None,
        num_workers=config.readers,
        multiprocessing_context=_fork_server() if config.readers else None,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_start_reader,
    )
    drawn_from = [_identity(clips), [sequence.name for sequence in kubric]]
    digest = hashlib.sha256(json.dumps(drawn_from).encode()).hexdigest()
    return Batches(loader, left_out, digest, _views(config, clips), note)


def _members(pool: Pool) -> Sequence[int]:
    """The clips of a pool, whatever their shard; those of neighbouring ranges as one range."""
    ranges = [shard for shard in pool if isinstance(shard, range)]
    if len(ranges) == len(pool) and all(a.stop == b.start for a, b in pairwise(ranges)):
        return range(ranges[0].start, ranges[-1].stop) if ranges else range(0)
    return [clip for shard in pool for clip in shard]


def _identity(clips: Sequence[StoredClip]) -> list[Any]:
    """Which clips they are: up to a number their keys; of more the names of their tars, which hold
    a hash of the bytes, so that not every record is read."""
    if isinstance(clips, StoredClips) and len(clips) > KEYS:
        named = [
            (url, tar) for url, table in clips.tables() for tar in table["tar"].astype("object")
        ]
        return [clips.crop_hw, len(clips), named]
    return [(clip.shard.url, clip.shard.tar, clip.entry.key) for clip in clips]


def _views(config: DataConfig, clips: Sequence[StoredClip]) -> Counter[int]:
    """Number of views -> how many clips offer that many. Views are the different runs of frames of
    a clip that a student can see; of the longest that is drawn, if lengths vary."""
    shapes = Counter[tuple[int, int]]()
    if isinstance(clips, StoredClips):
        for (height, width, frames, stride), count in clips.shapes().items():
            if fits((height, width), clips.crop_hw):
                shapes[frames, stride] += count
    else:
        shapes.update((clip.entry.frames, clip.entry.stride) for clip in clips)
    found = Counter[int]()
    for (frames, stride), count in shapes.items():
        found[views(frames, config.frames, config.steps_of(stride))] += count
    return found


@dataclass(frozen=True)
class _Load:
    """Slots to a batch. An expected error is returned, for the trainer to raise: a reader could
    only pass on its traceback."""

    config: DataConfig
    clips: Sequence[StoredClip]
    pools: Sequence[Sequence[int]]
    """Indices of stored clips by pool."""
    kubric: Sequence[KubricSequence]
    seed: int
    review: Review | None = None
    whole: bool = False

    def __call__(self, part: BatchSlots) -> Batch | TapdistillError:
        skipped = Counter[str]()
        try:
            return collate(
                [self.clip(slot, part.frames, skipped) for slot in part.slots],
                part.position,
                skipped,
            )
        except TapdistillError as error:
            return error

    def clip(self, slot: Slot, frames: int, skipped: Counter[str]) -> TrainClip:
        rng = np.random.default_rng((self.seed, SLOT, slot.number))
        clip = (
            self.procedural(slot, frames, rng)
            if slot.clip is None
            else self.usable(slot, slot.clip, frames, rng, skipped)
        )
        return photometric(clip, self.config.photometric, rng)

    def procedural(self, slot: Slot, frames: int, rng: np.random.Generator) -> TrainClip:
        return procedural_clip(
            f"procedural-{slot.number}", int(rng.integers(2**62)), self.config.synth(frames)
        )

    def of_kubric(self, index: int, frames: int, rng: np.random.Generator) -> TrainClip:
        config = self.config
        return training_clip(
            self.kubric[index],
            frames,
            (config.height, config.width),
            config.queries,
            rng=rng,
            flip=config.flip,
        )

    def stored(self, index: int, frames: int, rng: np.random.Generator) -> TrainClip:
        config, clip = self.config, self.clips[index]
        choice = LabelChoice(
            config.use_teachers, config.samplers, self.review, config.reviewed_only
        )

        def shown(entry: ClipEntry) -> View:
            steps = config.steps_of(clip.entry.stride)
            index = part_of(entry.frames, frames, steps, rng)
            frame_hw = (entry.height, entry.width)
            if self.whole:
                return View(index, Crop.whole(frame_hw))
            size = config.height, config.width
            crop = crop_of(frame_hw, size, rng, config.scale, config.squeeze)
            return View(index, crop)

        if config.labels == "inline":
            teacher = config.teachers[rng.integers(len(config.teachers))]
            request = InlineRequest(teacher, int(rng.integers(2**31)))
            part = read_unlabelled(clip, request, choice, shown)
        else:
            part = read_clip(
                clip,
                config.policy,
                rng,
                config.agreement,
                config.trust,
                config.weigh,
                choice=choice,
                view=shown,
            )
        return asked(part, config.queries, config.flip, rng, config.query_part)

    def usable(
        self,
        slot: Slot,
        index: int,
        frames: int,
        rng: np.random.Generator,
        skipped: Counter[str],
    ) -> TrainClip:
        """The clip with that index, or if it is unusable another one of the slot's pool, or of
        Kubric; why is counted."""
        of_kubric, tried = slot.source == "kubric", Counter[str]()
        make = self.of_kubric if of_kubric else self.stored
        others = range(len(self.kubric)) if of_kubric else self.pools[slot.pool]
        for _ in range(MOST_TRIES):
            try:
                clip = make(index, frames, rng)
            except UnusableSample as why:
                tried[why.reason] += 1
                index = others[int(rng.integers(len(others)))]
                continue
            skipped += tried
            return clip
        counts = ", ".join(f"{number} {reason}" for reason, number in tried.items())
        many = bool(self.config.data_weights)
        where = (
            self.config.kubric
            if of_kubric
            else ", ".join([self.config.data[slot.pool]] if many else self.config.data)
        )
        raise ShardError(
            f"{where}: {MOST_TRIES} clips in a row cannot be used ({counts}). 'corrupt': run "
            f"`tapdistill verify`. 'no-labels': policy {self.config.policy!r} finds too little to "
            "learn from; take more teachers, lower thresholds, or 'random'."
        )


def _fork_server() -> BaseContext:
    """Where readers come from. OpenCV hangs in a plain fork of a process that has used its threads;
    a spawned reader takes seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _start_reader(reader: int) -> None:
    """One thread, as the readers share the cores; and no reader outlives a trainer that was killed,
    as those of a fork server would."""
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_trainer, daemon=True).start()


def _end_with_trainer() -> None:
    if trainer := multiprocessing.parent_process():
        trainer.join()
        os._exit(1)
