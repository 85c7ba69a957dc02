"""Order: which clip comes when. The stream of `student.data.mixture` as numbers, before anything is
read.

Numbered slots follow each other without end; each takes a stored clip, a procedural one, or one of
Kubric. A step takes the next `batch` of them, whatever the number of ranks, and each rank has every
`world`-th.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice

import numpy as np

from labeler.io.storage import Storage
from student.data.batch import Source
from student.data.config import DataConfig
from student.data.stored import StoredClip, StoredClips
from teachers.errors import ConfigError, ShardError

_ORDER, _KIND, SLOT, _LENGTH, _KUBRIC = range(5)
"""What a generator is for: no two share a seed."""


Pool = Sequence[Sequence[int]]
"""By shard, the indices of its clips."""


@dataclass(frozen=True)
class Slot:
    """One clip of the stream."""

    number: int
    source: Source
    clip: int | None = None
    """Index of a clip in the shards or in Kubric; None of a procedural one."""
    pool: int = 0
    """Of a stored clip: the pool that it is of, from which another clip is taken if that one cannot
    be used."""


@dataclass(frozen=True)
class BatchSlots:
    """Slots that go through the network together."""

    slots: list[Slot]
    frames: int
    """Length of the clips."""
    position: int
    """The number of the first slot of the next step."""


def parts_of_step(config: DataConfig, world: int) -> int:
    """How many batches each of `world` ranks gets in a step; their gradients are added up.

    Raises:
        ConfigError: the batch cannot be shared out evenly.
    """
    parts, rest = divmod(config.batch, world * config.at_once)
    if rest:
        raise ConfigError(
            f"batch = {config.batch} cannot be shared by {world} processes with at_once = "
            f"{config.at_once}: it must be a multiple of {world * config.at_once}. Take a smaller "
            "at_once, or another batch."
        )
    return parts


def slots(
    config: DataConfig,
    pools: Sequence[Pool],  # of stored clips
    kubric: int,  # how many sequences of Kubric there are
    seed: int,
) -> Iterator[Slot]:
    """The endless stream of slots, from number 0."""
    kind = np.random.default_rng((seed, _KIND))
    stored = [
        _shuffled(shards, config.shards_at_once, (seed, _ORDER), pool)
        for pool, shards in enumerate(pools)
    ]
    sequence = _shuffled([range(kubric)], 1, (seed, _KUBRIC), 0)
    for number in count():
        draw = kind.random()
        if draw < config.procedural:
            yield Slot(number, "procedural")
        elif draw < config.synthetic:
            yield Slot(number, "kubric", next(sequence))
        else:
            pool = (
                int(kind.choice(len(stored), p=_shares(config.data_weights)))
                if config.data_weights
                else 0
            )
            yield Slot(number, "shards", next(stored[pool]), pool)


def _shares(weights: Sequence[float]) -> np.ndarray:
    return np.array(weights) / sum(weights)


def _shuffled(
    shards: Sequence[Sequence[int]], at_once: int, seed: tuple[int, int], pool: int
) -> Iterator[int]:
    """The clips of a pool, each once an epoch, without end."""
    for epoch in count():
        rng = np.random.default_rng((*seed, epoch, pool))
        order = rng.permutation(len(shards))
        for first in range(0, len(order), at_once):
            group = [clip for shard in order[first : first + at_once] for clip in shards[shard]]
            yield from rng.permutation(group).tolist()


def own_parts(
    config: DataConfig,
    stream: Callable[[], Iterator[Slot]],
    seed: int,
    start: int,
    rank: int,
    world: int,
) -> Iterator[BatchSlots]:
    """The rank's slots of each step from `start` on."""
    rest = islice(stream(), start, None)
    for first in count(start, config.batch):
        own = list(islice(rest, config.batch))[rank::world]
        for part in range(0, len(own), config.at_once):
            together = own[part : part + config.at_once]
            number = together[0].number if config.length_of == "clip" else first
            yield BatchSlots(together, _length(config, seed, number), first + config.batch)


def _length(config: DataConfig, seed: int, number: int) -> int:
    """Frames of the clips of the step that begins with slot `number`, or of that slot's clip."""
    if config.least_frames is None:
        return config.frames
    rng = np.random.default_rng((seed, _LENGTH, number))
    return int(rng.integers(config.least_frames, config.frames + 1))


def pools_of(config: DataConfig, clips: Sequence[StoredClip]) -> list[Pool]:
    """Indices of stored clips by pool and shard: a pool for each data set that has a weight, else
    one for all."""
    urls = [Storage(url).url for url in config.data]
    if isinstance(clips, StoredClips) and len(set(urls)) == len(urls):
        ranges = clips.ranges()
        of_set = clips.shards[:, 0].tolist()
        if not config.data_weights:
            return [ranges]
        pools: list[Pool] = [
            [one for one, of in zip(ranges, of_set, strict=True) if of == number]
            for number in range(len(urls))
        ]
        return _none_empty(urls, pools)
    shards: dict[tuple[str, str], list[int]] = {}
    for index, clip in enumerate(clips):
        shards.setdefault((clip.shard.url, clip.shard.tar), []).append(index)
    if not config.data_weights:
        return [list(shards.values())]
    return _none_empty(
        urls, [[shard for (url, _), shard in shards.items() if url == of] for of in urls]
    )


def _none_empty(urls: Sequence[str], pools: list[Pool]) -> list[Pool]:
    for url, pool in zip(urls, pools, strict=True):
        if not pool:
            raise ShardError(
                f"{url}: has a weight, but none of its clips can be used for this crop."
            )
    return pools
