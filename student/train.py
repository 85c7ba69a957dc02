"""Training: a CoTracker3 student learns from batches of labelled clips.

    read a batch -> tracks of every refinement -> loss -> clipped gradient -> AdamW step          `config.schedule.steps` times

Two ways, and the settings for both are in the config:
    fine-tuning    from a checkpoint, on pseudo-labels; the visibility and confidence head stays as it is (CoTracker3, section 3.3),
                   because teachers disagree about what is hidden. These are the defaults.
    from scratch   `init="scratch"`: the head must learn too (`TrainConfig.from_scratch`). Its losses take only procedural clips, whose
                   visibility is exact; positions are learnt from all clips.

Killed at any moment and started again, it goes on from the last checkpoint; on a CPU with the same number of threads the weights are
then, bit for bit, those of a run that was never stopped. Nothing here prints: `watch` is told what happens.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch.nn.utils import get_total_norm

from student.batch import Batch
from student.checkpoint import Checkpoint, Checkpoints, random_states, restore_random_states
from student.curves import Curves
from student.evaluate import FIGURES, score_tracks, track_clips
from student.losses import LossConfig, Losses, Targets, confidence_loss, student_losses, visibility_loss
from student.mixture import batches
from student.schedule import Optimiser
from student.testsets import TestClip, procedural_clips
from student.train_config import SCRATCH, TrainConfig, check_same_settings, plain
from student.train_events import Evaluated, Saved, Started, StepDone, StepSkipped, TrainEvent, TrainResult
from teachers.checkpoints import LICENCE, load_weights, read_metadata
from teachers.cotracker3 import PRESETS, CoTracker3, CoTracker3Config, CoTracker3OfflineTeacher, config_of_file
from teachers.device import pick_device
from teachers.errors import CheckpointError, ConfigError
from teachers.memory import Memory
from teachers.refinements import Refinements

MOST_SKIPPED = 5
"""So many steps in a row without a finite loss are no accident."""
STUDENT, BEST = "student", "best"


def train(
    config: TrainConfig,
    out: Path,
    *,
    resume: bool = True,
    watch: Callable[[TrainEvent], None] = lambda event: None,
    rank: int = 0,
    world: int = 1,
) -> TrainResult:
    """Train until all steps are done.

    Args:
        out: folder for checkpoints, TensorBoard curves, and `student.safetensors`.
        resume: go on from the newest checkpoint in `out`, if there is one; False refuses a folder that has one.
        watch: called with everything that happens.
        rank, world: this process among those that train together; only rank 0 writes.

    Raises:
        ConfigError: settings that cannot be right, or a loss that stays NaN.
        CheckpointError: `init` or the checkpoint in `out` is of another network or of other settings.
        ShardError: a data set is missing, empty, or of another schema.
        SurroundingsError: `out` cannot be written; the last checkpoint stays.
    """
    return _Run(config, out, resume, watch, rank, world).to_the_end()


def first_network(config: TrainConfig) -> CoTracker3:
    """The network before its first step, on the CPU."""
    if config.init != SCRATCH:
        model = CoTracker3(config_of_file(config.init, config.preset))
        load_weights(model, config.init, "cotracker3-offline")
        return model
    sizes = PRESETS[config.preset]()
    if config.preset == "mini":
        sizes = replace(sizes, window=config.data.frames, resolution=(config.data.height, config.data.width))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return CoTracker3(sizes)


def batch_losses(result: Refinements, batch: Batch, config: LossConfig) -> Losses:
    """Positions are learnt from every clip, visibility and confidence from procedural ones: only there they are exact."""
    targets = Targets(batch.xy, batch.visible, batch.used, batch.occluded_too)
    losses = student_losses([result], targets, replace(config, visibility=0.0, confidence=0.0))
    exact = [clip for clip, source in enumerate(batch.sources) if source == "procedural"]
    if not exact or not (config.visibility or config.confidence):
        return losses
    share = len(exact) / len(batch.sources)
    visible, xy = batch.visible[exact], batch.xy[exact]
    part = [Refinements(result.xy[:, exact], result.visibility_logit[:, exact], result.confidence_logit[:, exact])]
    return replace(
        losses,
        visibility=config.visibility * share * visibility_loss(part, visible),
        confidence=config.confidence * share * confidence_loss(part, xy, visible),
    )


class _Run:
    """One call of `train`."""

    def __init__(
        self, config: TrainConfig, out: Path, resume: bool, watch: Callable[[TrainEvent], None], rank: int, world: int
    ) -> None:
        self.config, self.watch, self.rank, self.world = config, watch, rank, world
        self.device = pick_device(config.device)
        self.out = out
        self.checkpoints = Checkpoints(out, config.keep)
        found = self.checkpoints.latest()
        if found and not resume:
            raise ConfigError(f"{out} has a checkpoint of step {found.step} already: resume from it, or give another folder.")
        if found:
            check_same_settings(config, found, out)
        self.model = (CoTracker3(CoTracker3Config(**found.network)) if found else first_network(config)).to(self.device)
        self.optimiser = Optimiser(self.model, config.schedule)
        self.step = self.position = self.steps_skipped = self.skipped_in_a_row = 0
        self.data = found.data if found else ""
        self.figures: dict[str, float] = {}
        self.best: float | None = None
        if found:
            self._restore(found)
        self.samples_skipped = Counter[str]()
        self.waited_s = 0.0
        self.test_clips: list[TestClip] = []

    def to_the_end(self) -> TrainResult:
        started = time.perf_counter()
        config, steps = self.config, self.config.schedule.steps
        stream = batches(config.data, config.seed, self.position, self.rank, self.world)
        if self.data not in ("", stream.digest):
            raise CheckpointError(
                f"{self.out}: the data sets hold other clips or revisions than when its checkpoint of step {self.step} was written, so "
                "the run cannot go on as it was. Give another --out, with `--init` the weights of this one."
            )
        self.data = stream.digest
        self.watch(Started(step=self.step, left_out=stream.left_out))
        curves = Curves(self.out, self.step, config.log_every) if self.rank == 0 else None
        try:
            while self.step < steps:
                event = self._one_step(stream)
                self.watch(event)
                if isinstance(event, StepSkipped):
                    continue
                if curves:
                    curves.add(event)
                if config.eval_every and (self.step % config.eval_every == 0 or self.step == steps) and self.rank == 0:
                    self._evaluate(curves)
                if self.step % config.checkpoint_every == 0 or self.step == steps:
                    self._save()
        finally:
            if curves:
                curves.close()
        return TrainResult(
            steps=self.step, weights=self._export(STUDENT) if self.rank == 0 else self.out / f"{STUDENT}.safetensors",
            figures=self.figures, samples_skipped=self.samples_skipped, steps_skipped=self.steps_skipped,
            seconds=time.perf_counter() - started, waited_s=self.waited_s,
        )  # fmt: skip

    def _one_step(self, stream: Iterator[Batch]) -> StepDone | StepSkipped:
        began = time.perf_counter()
        batch = next(stream)
        waited_s = time.perf_counter() - began
        self.waited_s += waited_s
        self.position = batch.position
        self.samples_skipped += batch.skipped
        losses = self._losses(batch.to(self.device))
        if losses is None:
            return self._skip(batch.keys)
        losses.total.backward()
        norm = get_total_norm([parameter.grad for parameter in self.model.parameters() if parameter.grad is not None])
        values = {**vars(losses), "total": losses.total}
        numbers = torch.stack([norm, *values.values()]).detach().float().tolist()
        if not torch.tensor(numbers).isfinite().all():
            return self._skip(batch.keys)
        learning_rate = self.optimiser.learning_rate
        self.optimiser.step()
        self.step += 1
        self.skipped_in_a_row = 0
        return StepDone(
            step=self.step, losses=dict(zip(values, numbers[1:], strict=True)), learning_rate=learning_rate, gradient_norm=numbers[0],
            seconds=time.perf_counter() - began, waited_s=waited_s,
        )  # fmt: skip

    def _losses(self, batch: Batch) -> Losses | None:
        """None where the network's answer is not finite: the cross entropy of such a probability would be an error on a GPU."""
        config = self.config
        memory = Memory(recompute=config.recompute)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.bf16 and self.device.type == "cuda"):
            result = self.model(batch.frames.permute(0, 1, 4, 2, 3), batch.queries, config.iterations, memory)
            if not torch.stack([result.xy.sum(), result.visibility_logit.sum(), result.confidence_logit.sum()]).isfinite().all():
                return None
            return batch_losses(result, batch, config.loss)

    def _skip(self, keys: tuple[str, ...]) -> StepSkipped:
        self.model.zero_grad()
        self.steps_skipped += 1
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row == MOST_SKIPPED:
            raise ConfigError(
                f"the loss was not finite {MOST_SKIPPED} times in a row after step {self.step}, the last time with {', '.join(keys)}: "
                "training stops, and checkpoints stay as they are. Try a lower learning rate; if it is always the same sample, look at it."
            )
        return StepSkipped(step=self.step, keys=keys)

    def _evaluate(self, curves: Curves | None) -> None:
        """Score the weights as users will get them: exported, and loaded as a teacher."""
        self.test_clips = self.test_clips or list(procedural_clips(self.config.eval_clips))
        teacher = CoTracker3OfflineTeacher(name=STUDENT, checkpoint=str(self._export(STUDENT)), device=str(self.device))
        tracks, _ = track_clips(teacher, self.test_clips)
        table = score_tracks(tracks, teacher.info.rule, self.test_clips)
        self.figures = {name: float(table[name].mean()) for name in FIGURES}
        better = self.best is None or self.figures["delta_avg"] > self.best
        if better:
            self.best = self.figures["delta_avg"]
            self._export(BEST)
        if curves:
            curves.add_figures(self.step, self.figures)
        self.watch(Evaluated(step=self.step, figures=self.figures, best=better))

    def _save(self) -> None:
        if self.rank != 0:
            return
        self.checkpoints.save(
            Checkpoint(
                step=self.step, position=self.position, data=self.data, network=asdict(self.model.config), config=plain(self.config),
                model=self.model.state_dict(), optimiser=self.optimiser.state_dict(), random=random_states(), figures=self.figures,
                best=self.best,
            )
        )  # fmt: skip
        self.watch(Saved(step=self.step))

    def _export(self, name: str) -> Path:
        figures = json.dumps(self.figures)
        notes = {"step": str(self.step), "figures": figures, "training": json.dumps(plain(self.config)), LICENCE: self._licence()}
        return self.checkpoints.export(name, self.model, notes)

    def _licence(self) -> str:
        if self.config.init == SCRATCH:
            return "Apache-2.0"
        return read_metadata(self.config.init).get(LICENCE, f"that of {Path(self.config.init).name}, from which it was trained")

    def _restore(self, found: Checkpoint) -> None:
        self.model.load_state_dict(found.model)
        self.optimiser.load_state_dict(found.optimiser)
        self.step, self.position, self.figures, self.best = found.step, found.position, found.figures, found.best
        restore_random_states(found.random)
