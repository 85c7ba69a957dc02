"""Processes: the ranks that train one student together, and the few messages that they exchange.

    all ranks   read their share of every batch and add up its gradients
    then        one small message: did all get their clips, were all answers finite, and what were
                the losses?
    then        one large message: the mean gradient, so all ranks take the same step

This is data-parallel training without `DistributedDataParallel`: see
docs/decisions/0007-own-gradient-exchange.md. A single process sends nothing. Rank 0 alone reads and
writes files of the run.
"""

from __future__ import annotations

import importlib
import os
import socket
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from teachers.errors import ConfigError, TapdistillError
from teachers.layers.device import pick_device

E = TypeVar("E")
T = TypeVar("T")

PATIENCE = timedelta(hours=1)
"""How long ranks wait for each other; rank 0 evaluates alone."""
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""The variables that torchrun sets in the environment."""


@dataclass(frozen=True)
class Processes:
    """This process, as one of those that train together."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """The mean of the `values` of all ranks, which have the same shape."""
        if self.world > 1:
            dist.all_reduce(values)
            values /= self.world
        return values

    def mean_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give every rank the mean of all ranks' gradients."""
        if self.world == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        parts = self.mean(torch.cat([gradient.flatten() for gradient in gradients])).split(
            [g.numel() for g in gradients]
        )
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, by rank; for plain values, not for large tensors."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def from_first(self, make: Callable[[], T]) -> T:
        """The result of `make`, which is called only on rank 0; an error there is raised on all
        ranks, so that none waits forever."""
        if self.world == 1:
            return make()
        made: list[Any] = [_value_or_error(make) if self.first else None]
        dist.broadcast_object_list(made)
        value, error = made[0]
        if error is not None:
            raise error
        return value

    def together(self, make: Callable[[], T]) -> T:
        """The result of `make`, which every rank calls for itself; an error of one of them is
        raised on all ranks, so that none waits forever."""
        made, error = _value_or_error(make)
        for one in self.gather(error):
            if one is not None:
                raise one
        return cast(T, made)

    def work_of_first(self, work: Generator[E, None, T]) -> Generator[E, None, T]:
        """`from_first` of a generator: yields on rank 0 what it yields, and has its result."""
        made: list[T] = []
        failed: TapdistillError | None = None
        if self.first:
            try:
                made.append((yield from work))
            except TapdistillError as error:
                failed = error

        def result() -> T:
            if failed is not None:
                raise failed
            return made[0]

        return self.from_first(result)


def _value_or_error(make: Callable[[], T]) -> tuple[T | None, TapdistillError | None]:
    try:
        return make(), None
    except TapdistillError as error:
        return None, error


ALONE = Processes()


def under_torchrun() -> bool:
    """Whether torchrun started this process."""
    return all(name in os.environ for name in TORCHRUN)


@contextmanager
def joined(
    device: str, rank: int, world: int, local_rank: int, address: str
) -> Iterator[Processes]:
    """This process as one of `world`, which meet at `address` ("tcp://host:port", or "env://" for
    what torchrun says).

    Args:
        device: of the training; "auto" or "cuda" is the GPU number `local_rank`.

    Raises:
        ConfigError: this machine has no such device, or only some of the processes have a GPU.
    """
    chosen = _own_device(device, local_rank)
    # Every optimizer imports this. If it does so inside a group, torch (2.13) keeps the group's
    # threads alive when it is destroyed, and one of them can abort the process while it ends.
    importlib.import_module("torch._dynamo")
    store, *_ = next(rendezvous(address, rank, world, timeout=PATIENCE))
    _require_one_kind(store, chosen.type, rank, world)
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=PATIENCE)
    try:
        yield Processes(rank, world)
    finally:
        dist.destroy_process_group()


def _require_one_kind(store: dist.Store, kind: str, rank: int, world: int) -> None:
    """Raise a ConfigError in every process if some of them train on a GPU and others do not: they
    would wait for each other for ever."""
    store.set(f"device/{rank}", f"{kind} of {socket.gethostname()}")
    devices = [store.get(f"device/{other}").decode() for other in range(world)]
    without = [other for other, found in enumerate(devices) if not found.startswith("cuda")]
    if 0 < len(without) < world:
        raise ConfigError(
            f"process {without[0]} found no GPU ({devices[without[0]]}), and others did: repair "
            "that machine or leave it out, or train with --device cpu."
        )


def _own_device(device: str, local_rank: int) -> torch.device:
    """The device of this process, which is torch's current one from then on. It is chosen before
    anything is asked of a GPU, else each process would hold memory on the first."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device not in ("auto", "cuda") or not count:
        chosen = pick_device(device)
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
        return chosen
    if local_rank >= count:
        raise ConfigError(
            f"process {local_rank} of this machine, counted from 0: it has only {count} "
            f"GPU{'s' if count > 1 else ''}. Start as many processes as it has: torchrun "
            f"--nproc-per-node {count}."
        )
    torch.cuda.set_device(local_rank)
    return pick_device(device)


@contextmanager
def joined_by_torchrun(device: str) -> Iterator[Processes]:
    """This process as torchrun placed it."""
    rank, world, local_rank = (int(os.environ[name]) for name in TORCHRUN[:3])
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(
            f"device = {device!r} under torchrun: give auto, cpu, or cuda; each process takes the "
            "GPU of its number."
        )
    with joined(device, rank, world, local_rank, "env://") as processes:
        yield processes
