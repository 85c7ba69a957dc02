"""Training on Ray: several processes that train one student, as plain Ray actors.

    driver          places the actors, hands rank 0's events on, and ends all of them when one fails
    TrainWorker     one rank: joins the others at rank 0's address, then runs
                    `student.training.train.training`

Why this is not Ray Train: see docs/decisions/0007-own-gradient-exchange.md. A lost worker ends the
training; the same command continues from the last checkpoint, with another number of workers if
need be.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from pipelines.engines import ray as engine_ray
from pipelines.engines.layout import share_of_rank
from student.training.config import TrainConfig
from student.training.events import TrainEvent, TrainResult
from student.training.processes import joined
from student.training.train import training
from teachers.errors import TapdistillError, TransientError

PLACEMENT_TIMEOUT_S = 300.0
"""How long the cluster may take to start the workers."""


class TrainWorker:
    """One process of a training, in the driver's folder, if its node has it: relative paths, which
    checkpoints keep as they were given, then name the driver's files."""

    def __init__(self, folder: str) -> None:
        with contextlib.suppress(OSError):
            os.chdir(folder)

    def address(self) -> str:
        """The address at which the other processes can reach this one."""
        with socket.socket() as free:
            free.bind(("", 0))
            return f"tcp://{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"

    def train(
        self, config: TrainConfig, out: str, resume: bool, rank: int, world: int, address: str
    ) -> Iterator[TrainEvent | TrainResult | TapdistillError]:
        """The events of this rank. An expected error comes as the last of them, because if it were
        raised, Ray would wrap it on its way to the driver."""
        try:
            with joined(config.device, rank, world, 0, address) as processes:
                yield from training(config, out, resume, processes)
        except TapdistillError as error:
            yield error


@contextlib.contextmanager
def trained_on_ray(
    config: TrainConfig, out: Path | str, resume: bool, workers: int, address: str | None
) -> Iterator[Iterator[TrainEvent | TrainResult]]:
    """The events of rank 0 of a training in `workers` processes, which end with the block.

    Each process has a GPU of its own if the cluster has any, and CPUs for its readers; they are
    placed on as few nodes as possible.

    Raises:
        ConfigError: there are more workers than GPUs.
        TransientError: there is no cluster, or no room in it, or a worker was lost.
        TapdistillError: whatever `student.training.train.train` raises.
    """
    with engine_ray.connected(address, workers):
        data = config.data
        share = share_of_rank(
            engine_ray.nodes(), workers, data.readers, config.device, data.batch, data.at_once
        )
        if not share.gpus:  # otherwise, all of them would take the first GPU that they see
            config = replace(config, device="cpu")
        bundle = {"CPU": share.cpus} | ({"GPU": share.gpus} if share.gpus else {})
        group = placement_group([bundle] * workers, strategy="PACK")
        actor: Any = ray.remote(num_cpus=share.cpus, num_gpus=share.gpus)(TrainWorker)
        actors = [
            actor.options(
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    placement_group=group, placement_group_bundle_index=rank
                )
            ).remote(os.getcwd())
            for rank in range(workers)
        ]
        try:
            meeting = _when_placed(actors)[0]
            streams = [
                one.train.options(num_returns="streaming").remote(
                    config, _everywhere(out), resume, rank, workers, meeting
                )
                for rank, one in enumerate(actors)
            ]
            yield _events_of_first(streams)
        finally:
            for one in actors:
                ray.kill(one)
            remove_placement_group(group)


def _everywhere(out: Path | str) -> str:
    """`out` in a form that is valid in processes with another current folder."""
    return str(out) if "://" in str(out) else os.path.abspath(out)


def _when_placed(actors: list[Any]) -> list[str]:
    try:
        return ray.get([actor.address.remote() for actor in actors], timeout=PLACEMENT_TIMEOUT_S)
    except GetTimeoutError as error:
        raise TransientError(
            f"the cluster had no room for {len(actors)} workers in {PLACEMENT_TIMEOUT_S:g} s: it "
            f"has {ray.cluster_resources()}. Give fewer --workers."
        ) from error


def _events_of_first(streams: list[Any]) -> Iterator[TrainEvent | TrainResult]:
    """The events of rank 0, and the first error of any rank. The events of the others are received
    too, and dropped: only their errors matter."""
    running: list[Any] = list(streams)
    while running:
        stream: Any = ray.wait(running, num_returns=1)[0][0]
        rank = streams.index(stream)
        try:
            event: Any = ray.get(next(stream))
        except StopIteration:
            running.remove(stream)
            continue
        except RayTaskError:
            raise
        except RayError as error:
            raise TransientError(
                f"worker {rank} was lost: {error} The same command continues from the last "
                "checkpoint."
            ) from error
        if isinstance(event, TapdistillError):
            raise event
        if rank == 0:
            yield event
