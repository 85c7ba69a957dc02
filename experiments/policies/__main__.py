"""Does a student pass its teachers, and which label policy teaches it best?

    python -m experiments.policies --out OUT            # about an hour on two cores
    python -m experiments.policies --out OUT --night    # twice as long videos, long trainings
    python -m experiments.policies --out OUT --quick    # a minute: every part works, none measures

Killed, the same command goes on.

1. Procedural videos of worlds that no mini was trained on are encoded and labelled by `tapdistill
   label` with every teacher that has weights here. Their exact tracks are known, and used for
   `oracle`, `truth`, and scoring alone.
2. Mini students learn from the shards alone, once for each world, policy, and seed, from the
   weights that are shipped, which also are among the teachers. `oracle` and `truth` have data sets
   of their own: there, each query has the tracks of the teacher nearest to the truth, or the exact
   ones.
3. Teachers and students are scored on other clips of the same world, all in mode "label", TAP-Vid
   figures, query mode first.

Five tables for each world: how right the labels of each policy are; who tracks how well; each
student minus the best teacher; minus the weights that it began with, as they are and with the
visible rule that the student chose on its labels, which tells what the weights have learnt; and one
policy minus another. What is done is kept in OUT: the shards, the students, and a JSON file with
the figures of each tracker.
"""

from __future__ import annotations

import tyro

from experiments.policies.config import Experiment
from experiments.policies.run import run
from teachers import TapdistillError


def main() -> None:
    try:
        run(tyro.cli(Experiment, description=__doc__).sized())
    except TapdistillError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
