"""The queue of units of the Ray engine, without Ray: an unfit node costs the job no other one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayTaskError

from labeler.io.scratch import FullScratchError
from labeler.shards.plan import Unit
from labeler.unit import UnitDone
from pipelines.engines.common import Note, UnitOpen
from pipelines.engines.layout import lay_out
from pipelines.engines.ray import _UnitQueue
from teachers import FullStorageError, InstallationError, TransientError

Work = Callable[[Unit], Any]
"""What a node makes of a unit: an event, or an error that is raised."""


class Node:
    """A node with room for one group of one worker."""

    def __init__(self, work: Work, ready: Callable[[], None] = lambda: None) -> None:
        self.work, self.ready = work, ready
        self.open, self.tried = True, 0

    def has_room(self) -> bool:
        return True

    def has_lost_its_node(self) -> bool:
        return False

    def close(self) -> None:
        self.open = False

    def worker(self) -> Any:
        ready = SimpleNamespace(remote=lambda: _Call(self.ready))
        do = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._do))
        return SimpleNamespace(ready=ready, do=do)

    def _do(self, unit: Unit, then: Unit | None) -> Iterator[Any]:
        self.tried += 1

        def events() -> Iterator[Any]:
            yield _Call(lambda: self.work(unit))

        return events()


class _Call:
    def __init__(self, answer: Callable[[], Any]) -> None:
        self.answer = answer


class _Full(Node):
    """A group for which the cluster has no room."""

    def __init__(self) -> None:
        super().__init__(done)

    def has_room(self) -> bool:
        return False

    def worker(self) -> Any:
        return SimpleNamespace(ready=SimpleNamespace(remote=lambda: "waits"))


def done(unit: Unit) -> UnitDone:
    return UnitDone(unit.number, 0)


def full_scratch(unit: Unit) -> UnitDone:
    raise RayTaskError("do", "", FullScratchError("No space left on node b."))


def full_data_set(unit: Unit) -> UnitDone:
    raise RayTaskError("do", "", FullStorageError("No space left in the data set."))


@pytest.fixture
def events(monkeypatch):
    """events(nodes, units): what the queue tells of so many units on these nodes, the first of
    which begins the job and of which the others join it."""
    monkeypatch.setattr("ray.get", lambda call: call.answer())
    monkeypatch.setattr(
        "ray.wait", lambda calls, **_: ([one for one in calls if one != "waits"], [])
    )
    monkeypatch.setattr("ray.kill", lambda actor: None)

    def run(nodes: Sequence[Node], units: int) -> Iterator[Any]:
        groups: list[Any] = [nodes[0]]
        others = iter(nodes[1:])
        queue = _UnitQueue(
            [Unit(i, 0, ()) for i in range(units)],
            lay_out([(1, 0)], teachers=1, workers=None),
            groups,
            lambda: next(others, None) or _Full(),
            lambda group: group.worker(),
        )
        return queue.run()

    return run


def test_a_node_whose_scratch_disk_is_full_costs_the_job_that_node(events):
    well, full = Node(done), Node(full_scratch)
    told = list(events([well, full], 12))
    assert {event.unit for event in told if isinstance(event, UnitDone)} == set(range(12))
    assert full.tried == 3
    assert (well.open, full.open) == (True, False)
    (note,) = (event.text for event in told if isinstance(event, Note))
    assert note == "note: the job goes on without a worker: No space left on node b."


def test_a_unit_for_which_no_scratch_disk_has_room_costs_itself_alone(events):
    node = Node(lambda unit: full_scratch(unit) if unit.number == 1 else done(unit))
    told = list(events([node], 4))
    assert {event.unit for event in told if isinstance(event, UnitDone)} == {0, 2, 3}
    assert [event for event in told if isinstance(event, UnitOpen)] == [
        UnitOpen(1, "No space left on node b.")
    ]


def test_a_job_without_any_room_for_temporary_files_stops(events):
    nodes = [Node(full_scratch), Node(full_scratch)]
    with pytest.raises(FullScratchError, match="No space left on node b"):
        list(events(nodes, 12))
    assert sum(node.tried for node in nodes) == 6


def test_a_data_set_without_room_stops_the_job_at_once(events):
    nodes = [Node(full_data_set), Node(done)]
    with pytest.raises(FullStorageError, match="in the data set"):
        list(events(nodes, 12))
    assert nodes[0].tried == 1


def raises(error: Exception) -> Callable[[], None]:
    def ready() -> None:
        raise RayTaskError("ready", "", error)

    return ready


def test_a_node_that_joins_and_cannot_decode_is_left_alone(events):
    well, sick = Node(done), Node(done, raises(InstallationError("no video can be decoded here.")))
    told = list(events([well, sick], 4))
    assert {event.unit for event in told if isinstance(event, UnitDone)} == {0, 1, 2, 3}
    assert (well.open, sick.open, sick.tried) == (True, False, 0)
    (note,) = (event.text for event in told if isinstance(event, Note))
    assert note == "note: the job goes on without a worker: no video can be decoded here."


def test_a_worker_that_never_comes_up_beside_one_at_work_is_given_up(events):
    starts = []

    def ready() -> None:
        starts.append(1)
        raises(TransientError("its decoder does not start."))()

    told = list(events([Node(done), Node(done, ready)], 12))
    assert sum(isinstance(event, UnitDone) for event in told) == 12
    assert len(starts) == 3
    assert sum(isinstance(event, Note) for event in told) == 1


def test_a_job_of_which_no_worker_can_decode_stops_with_the_reason(events):
    nodes = [Node(done, raises(InstallationError(f"node {i} cannot decode."))) for i in range(2)]
    with pytest.raises(InstallationError, match=r"node \d cannot decode"):
        list(events(nodes, 4))
