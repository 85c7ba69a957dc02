"""Train the verifier, measure it in a world that it never saw, and against trees.

    python -m experiments.verifier.train --out OUT                  # under 30 minutes, two cores
    python -m experiments.verifier.train --out OUT --without xfeat  # a teacher is left out
    python -m experiments.verifier.train --out OUT --trees          # boosted trees beside it

Killed, the same command goes on: clips, examples, and the training's state lie in OUT, and OUT may
be shared by all three. The result is OUT/verifier.safetensors, or
OUT/verifier-without-NAME.safetensors; the one that is shipped lies in labeler/labels/weights.

1. Clips of several worlds are rendered, and tracked by every teacher that has weights here.
2. Evidence is gathered for random subsets of teachers, real ones and fakes
   (`experiments.verifier.fakes`).
3. A small network learns from them; the clips of every eighth seed are kept aside, choose nothing
   but two temperatures, and show how well it is calibrated.
4. Labels by the verifier are measured against the policies in `SynthConfig.unseen`.
"""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import tyro
from safetensors.numpy import save
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from experiments.files import freeze, write_whole
from experiments.policies.labels import weights_of_teachers
from experiments.verifier.clips import FIRST_SEED, TEACHERS, Kind, make_clip
from experiments.verifier.examples import Example, examples_of, make_examples, read_examples
from experiments.verifier.measure import logits_of, measure, reliability, trees
from experiments.verifier.network import Network
from labeler.fingerprint import one_thread
from labeler.labels.evidence import SHARED
from labeler.labels.verifier import Verifier
from pipelines.terminal.console import say
from teachers import ConfigError, TapdistillError

WIDTH = 32
SAVE_EVERY, SAY_EVERY = 100, 100
SETTINGS = ("clips", "steps", "batch", "queries", "learning_rate", "seed", "without")
"""Those of which the weights depend."""
HELD = 8
"""The clips of every eighth seed are not learnt from."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """Train the verifier of labels."""

    out: Path
    """Folder for everything."""
    clips: int = 41
    """Clips to learn from."""
    test_clips: int = 21
    """Clips of the unseen world to measure in; 0 measures nothing."""
    steps: int = 3000
    """Of the training."""
    batch: int = 8
    """Examples of a step, all of equally many teachers."""
    queries: int = 8
    """Of each example in a step."""
    learning_rate: float = 6e-3
    """Its highest value."""
    seed: int = 0
    """Of the training."""
    without: str | None = None
    """A teacher that the training never meets, nor a fake that copies it."""
    trees: bool = False
    """Measure boosted trees on the same evidence too (needs scikit-learn)."""
    workers: int = 2
    """Processes that make clips and evidence."""

    def __post_init__(self) -> None:
        if self.clips < HELD:
            raise ConfigError(
                f"--clips {self.clips}: at least {HELD}, since every {HELD}th is kept aside."
            )


def main(training: Training) -> None:
    began = time.monotonic()
    freeze(training.out / "teachers.json", {"weights": weights_of_teachers(TEACHERS["train"])})
    files = {
        kind: made(training, kind, count)
        for kind, count in (("train", training.clips), ("test", training.test_clips))
    }
    held = [path for path in files["train"] if aside(path)]
    learnt = [
        example for path in files["train"] if not aside(path) for example in read_examples(path)
    ]
    with one_thread():
        weights = taught(training, learnt)
    kept = [example for path in held for example in read_examples(path)]
    calibrate(weights, kept)
    name = f"verifier-without-{training.without}" if training.without else "verifier"
    path = training.out / f"{name}.safetensors"
    write_whole(path, save(weights, metadata={"licence": "Apache-2.0"}))
    verifier = Verifier.load(path)
    say(f"{path}: version {verifier.version}, {verifier.size:,} weights")
    say(reliability("clips kept aside", verifier, kept))
    if files["test"]:
        tests = [
            (training.out / "test" / path.name, read_examples(path)[0]) for path in files["test"]
        ]
        say(reliability("unseen world", verifier, [example for _, example in tests]))
        judges = {"verifier": verifier.logits}
        if training.trees:
            judges["trees"] = trees(learnt)
        for table in measure(judges, tests):
            say(table)
    say(f"{time.monotonic() - began:.0f} s")


def aside(path: Path) -> bool:
    """Whether the clip of this file is not learnt from."""
    return int(path.stem) % HELD == HELD - 1


def made(training: Training, kind: Kind, count: int) -> list[Path]:
    """The files of examples of `count` clips; what is missing is made, by several processes."""
    seeds = range(FIRST_SEED[kind], FIRST_SEED[kind] + count)
    files = [examples_of(kind, seed, training.out, training.without) for seed in seeds]
    missing = [
        (kind, seed, training.out, training.without)
        for seed, file in zip(seeds, files, strict=True)
        if not file.exists()
    ]
    if missing:
        say(f"making {len(missing)} clips to {'learn from' if kind == 'train' else 'measure in'}")
    context = get_context("spawn")
    with ProcessPoolExecutor(
        max(1, min(training.workers, len(missing))), mp_context=context
    ) as pool:
        list(pool.map(_make, missing))
    return files


def _make(job: tuple[Kind, int, Path, str | None]) -> None:
    kind, seed, out, without = job
    with one_thread():
        make_examples(kind, make_clip(kind, seed, out), out, without)


def taught(training: Training, examples: Sequence[Example]) -> dict[str, np.ndarray]:
    """The weights after a training; one that was interrupted goes on."""
    state = training.out / f"training-{training.without or 'all'}.pt"
    network = Network(WIDTH, training.seed)
    network.normalise(
        np.concatenate([each.own[each.placed][::17].astype(np.float32) for each in examples]),
        np.concatenate(
            [each.shared.reshape(-1, len(SHARED))[::17].astype(np.float32) for each in examples]
        ),
    )
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=training.learning_rate, weight_decay=1e-3
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, training.learning_rate, total_steps=training.steps, pct_start=0.1
    )
    parts = {"network": network, "optimiser": optimiser, "schedule": schedule}
    of_all = asdict(training)
    settings = {name: of_all[name] for name in SETTINGS} | {"first_seed": FIRST_SEED["train"]}
    first = 0
    if state.exists():
        stored = torch.load(state, weights_only=True)
        if stored.get("settings") == settings:  # others begin anew
            first = stored["step"]
            for name, part in parts.items():
                part.load_state_dict(stored[name])
    by_size: dict[int, list[Example]] = {}
    for example in examples:
        by_size.setdefault(len(example.teachers), []).append(example)
    sizes = sorted(by_size)
    often = np.array([len(by_size[size]) * (size + 1.0) for size in sizes])
    losses = []
    for step in range(first, training.steps):
        rng = np.random.default_rng((training.seed, step))
        own, shared, placed, right, hidden = _batch(
            by_size[sizes[rng.choice(len(sizes), p=often / often.sum())]], rng, training
        )
        right_logits, hidden_logits = network(own.float(), shared.float(), placed)
        loss_right = cross_entropy(right_logits[placed], right[placed].float())
        loss_hidden = cross_entropy(hidden_logits, hidden.float())
        optimiser.zero_grad()
        (loss_right + loss_hidden).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append((loss_right.item(), loss_hidden.item()))
        if (step + 1) % SAY_EVERY == 0:
            means = np.mean(losses[-SAY_EVERY:], axis=0)
            say(f"step {step + 1}: right {means[0]:.4f}, hidden {means[1]:.4f}")
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == training.steps:
            stored = {name: part.state_dict() for name, part in parts.items()}
            content = io.BytesIO()
            torch.save(stored | {"step": step + 1, "settings": settings}, content)
            write_whole(state, content.getvalue())
    return network.to_numpy()


def _batch(
    examples: Sequence[Example], rng: np.random.Generator, training: Training
) -> list[torch.Tensor]:
    """Random queries of random examples of equally many teachers, in random order: own, shared,
    placed, right, hidden."""
    parts = []
    for _ in range(training.batch):
        example = examples[rng.integers(len(examples))]
        rows = rng.permutation(len(example.hidden))[: training.queries]
        order = rng.permutation(len(example.own))[:, None]
        parts.append((
            example.own[order, rows], example.shared[rows], example.placed[order, rows],
            example.right[order, rows], example.hidden[rows],
        ))  # fmt: skip
    along = (1, 0, 1, 1, 0)  # the axis of queries
    return [
        torch.from_numpy(np.concatenate(values, axis))
        for values, axis in zip(zip(*parts, strict=True), along, strict=True)
    ]


def calibrate(weights: dict[str, np.ndarray], examples: Sequence[Example]) -> None:
    """Divide the last layers by the temperatures that fit `examples` best."""
    for what, names in (("right", ("right.w", "right.b")), ("hidden", ("hidden.out", "hidden.b3"))):
        logits, labels = logits_of(Verifier(weights, "").logits, examples, what)
        grid = np.exp(np.linspace(np.log(0.5), np.log(3), 60))
        losses = [np.logaddexp(0, np.where(labels, -logits, logits) / heat).mean() for heat in grid]
        heat = np.float32(grid[int(np.argmin(losses))])
        say(f"temperature of {what}: {heat:.2f}")
        for name in names:
            weights[name] = weights[name] / heat


if __name__ == "__main__":
    try:
        main(tyro.cli(Training, description=__doc__))
    except TapdistillError as error:
        raise SystemExit(str(error)) from error
