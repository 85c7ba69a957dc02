"""Training: a student learns from batches of labelled clips.

    read clips -> tracks of every refinement -> losses
        -> mean gradient of all processes -> clipped AdamW step [-> running mean of the weights]

The student knows which network it is, and what its losses are (`interface`). There are two ways to
train, and the settings for both are in the config:
    fine-tuning    from a checkpoint, on pseudo-labels. What happens to visibility is a choice:
                   CoTracker3's head stays as it is (CoTracker3, section 3.3), because teachers
                   disagree about what is hidden. These are the defaults.
    from scratch   `init="scratch"`: visibility must be learnt too (`TrainConfig.from_scratch`), by
                   default from clips with exact tracks; positions are learnt from all clips.

A run that is killed at any moment and started again continues from the last checkpoint; on CPUs
with the same numbers of threads and processes, its weights are then, bit for bit, those of a run
that was never stopped. Nothing here prints: `watch` is called with events.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from student.clip import TestClip
from student.data.batch import Batch
from student.data.inline import InlineLabels
from student.data.mixture import Batches, batches
from student.data.order import parts_of_step
from student.evaluation.calibration import Fitted
from student.evaluation.testsets import procedural_clips
from student.training.beginning import first_network, origin
from student.training.calibration_clips import calibration_clips
from student.training.checkpoint import (
    Checkpoint,
    Checkpoints,
    random_states,
    restore_random_states,
)
from student.training.config import TrainConfig, check_same_settings, plain
from student.training.evaluation import check_there, score_clips, score_sets, sets_of
from student.training.events import (
    Calibrated,
    Evaluated,
    Saved,
    Started,
    StepDone,
    StepSkipped,
    TrainEvent,
    TrainResult,
)
from student.training.fitting import fit
from student.training.mirror import mirror
from student.training.processes import ALONE, Processes
from student.training.running_mean import RunningMean
from student.training.schedule import Optimiser
from student.training.step import StepPart, add_gradient, recomputes
from student.training.students import STUDENTS
from student.training.tensorboard import Curves, strip
from teachers.checkpoints.files import LICENCE, VISIBLE
from teachers.errors import (
    CheckpointError,
    ConfigError,
    ShardError,
    TapdistillError,
    TeacherError,
)
from teachers.info import Mode
from teachers.interface import Teacher
from teachers.layers.device import constant, multiplying, pick_device, resolved

T = TypeVar("T")
Work: TypeAlias = Generator[TrainEvent, None, T]
"""What tells events while it is done, and has a result."""

STUDENT, BEST, TRIED = "student", "best", "tried"
JUDGED_BY = ("eval_data", "eval_clips", "eval_most")
"""Settings that say what figures are of: those of other clips say nothing of the best weights."""


def train(
    config: TrainConfig,
    out: Path | str,
    *,
    resume: bool = True,
    watch: Callable[[TrainEvent], None] = lambda event: None,
    processes: Processes = ALONE,
) -> TrainResult:
    """Train until all steps are done.

    Args:
        out: folder, or fsspec URL, for checkpoints, TensorBoard curves, and
            `student.safetensors`.
        resume: continue from the newest checkpoint in `out`, if there is one; False refuses a
            folder that has one.
        watch: called with every event.
        processes: those that train together; only rank 0 reads and writes `out`.

    Raises:
        ConfigError: settings cannot be right, or the loss stays NaN.
        CheckpointError: `init` or the checkpoint in `out` is of another network or of other
            settings.
        ShardError: a data set is missing, empty, or of another schema; or a shard has gone.
        TransientError: `out` cannot be written; the last checkpoint stays.
    """
    events = training(config, out, resume, processes)
    while not isinstance(event := next(events), TrainResult):
        watch(event)
    return event


def training(
    config: TrainConfig, out: Path | str, resume: bool, processes: Processes
) -> Generator[TrainEvent | TrainResult, None, None]:
    """`train`, as the events themselves; the result comes last."""
    if "://" not in str(out):
        yield from _Run(config, Path(out), resume, processes).events()
        return
    with mirror(str(out), processes.first) as copy:
        processes.from_first(copy.fetch)
        for event in _Run(config, copy.folder, resume, processes, copy.url).events():
            if isinstance(event, Saved | Evaluated | TrainResult):
                processes.from_first(copy.send)
            yield (
                replace(event, weights=f"{copy.url}/{Path(event.weights).name}")
                if isinstance(event, TrainResult)
                else event
            )


class _Run:
    """The state of one call of `training`."""

    def __init__(
        self,
        config: TrainConfig,
        out: Path,
        resume: bool,
        processes: Processes,
        shown: str | None = None,  # what messages call `out`
    ) -> None:
        self.out, self.processes = out, processes
        self.shown = str(out) if shown is None else shown
        self.student = STUDENTS[config.student]
        self.device = pick_device(config.device)
        self.config = config = replace(config, recompute=recomputes(config, self.device))
        # this refuses tf32 on a CPU
        self.precision = resolved(config.precision, self.device, has_bf16_parts=True)
        self.parts = parts_of_step(config.data, processes.world)
        self.inline = (
            processes.together(partial(InlineLabels.of, config.data, self.device))
            if config.data.labels == "inline"
            else None
        )
        found = processes.from_first(lambda: self._found(resume))
        model = (
            self.student.network(self.student.config(**found.network))
            if found
            else processes.from_first(partial(first_network, config))
        )
        self.origin = processes.from_first(partial(origin, config, found))
        self.sizes = asdict(model.config)  # type: ignore[call-overload]
        self.model = self._prepared(model)
        self.before = self._before(found)
        head = self.student.head if config.visibility_choice == "frozen" else None
        self.optimiser = Optimiser(self.model, config.schedule, head)
        ema = config.schedule.ema
        self.mean = RunningMean(self.model, ema) if ema else None
        self.step = self.position = self.steps_skipped = self.skipped_in_a_row = 0
        self.data = found.data if found else ""
        self.figures: dict[str, float] = {}
        self.best: float | None = None
        self.evaluated = 0
        if found:
            self._restore(found)
        self.samples_skipped = Counter[str]()
        self.waited_s = 0.0
        self.test_clips: list[TestClip] = []
        self.test_sets = sets_of(config.eval_data)
        processes.from_first(partial(check_there, self.test_sets, config.draws_clips))
        self.fitted: Fitted | None = None
        self.fitted_at = -1, False
        self.calibration_clips = cache(partial(calibration_clips, config))  # read once

    def events(self) -> Iterator[TrainEvent | TrainResult]:
        started = time.perf_counter()
        config, steps, every = self.config, self.config.schedule.steps, self.config.picture_every
        stream = self._stream()
        yield Started(
            step=self.step,
            parts=self.parts,
            left_out=stream.left_out,
            views=stream.views,
            note=stream.note,
        )
        curves = Curves(self.out, self.step, config.log_every) if self.processes.first else None
        try:
            if config.evaluates_at(self.step) and self.evaluated < self.step:
                yield from self._evaluate(curves)  # it was interrupted after this checkpoint
                yield self._save()
            while self.step < steps:
                event, batch, part = self._one_step(stream)
                yield event
                if isinstance(event, StepSkipped):
                    continue
                if curves:
                    curves.add(event)
                    if self.step % every == 0 or self.step == steps:
                        tracks = self.student.last_tracks(part.answer, batch.frames.shape[1])
                        curves.add_picture(self.step, strip(batch, *tracks))
                due = self.step % config.checkpoint_every == 0 or self.step == steps
                if config.evaluates_at(self.step):
                    if due:
                        yield self._save()  # what is evaluated may be damaged, or far away
                    yield from self._evaluate(curves)
                if due:
                    yield self._save()
        finally:
            if curves:
                curves.close()
        weights = yield from self.processes.work_of_first(self._fitted(finished=True))
        if self.fitted:
            yield Calibrated(fitted=self.fitted)
        yield TrainResult(
            steps=self.step,
            weights=weights,
            figures=self.figures,
            samples_skipped=sum(self.processes.gather(self.samples_skipped), Counter()),
            left_out=sum(one.clips for one in stream.left_out),
            steps_skipped=self.steps_skipped,
            seconds=time.perf_counter() - started,
            waited_s=self.waited_s,
        )

    def _stream(self) -> Batches:
        ranks = self.processes
        stream = ranks.together(
            lambda: batches(
                self.config.data, self.config.seed, self.position, ranks.rank, ranks.world
            )
        )
        other = [
            rank for rank, one in enumerate(ranks.gather(stream.digest)) if one != stream.digest
        ]
        if other:
            raise ShardError(
                f"{', '.join(self.config.data.data)}: process {other[0]} finds other clips there "
                f"than process {ranks.rank}, so they would not share them out. Wait until nobody "
                "labels into it, and give a path that is the same folder on every node."
            )
        if self.data not in ("", stream.digest):
            raise CheckpointError(
                f"{self.shown}: the data sets hold other clips or revisions than when its "
                f"checkpoint of step {self.step} was written, so the run cannot go on as it was. "
                "Give another --out, with `--init` the weights of this one."
            )
        self.data = stream.digest
        return stream

    def _one_step(self, stream: Batches) -> tuple[StepDone | StepSkipped, Batch, StepPart]:
        """Take a step, or skip it if an answer or the gradient of any process is not finite. Also
        returns the last batch, and its answer.

        An error of one process, such as a shard that has gone, is raised by all of them.
        """
        began, waited_before = time.perf_counter(), self.waited_s
        progress = self.step / max(1, self.config.schedule.steps - 1)
        keys, unfit, error, fits = list[str](), list[str](), None, list[Tensor]()
        names = self.student.parts
        losses = torch.zeros(len(names), device=self.device)
        try:
            for _ in range(self.parts):
                batch = self._next(stream)
                with multiplying(self.precision, self.device):
                    asked = self.student, self.model, batch, self.config, self.parts, progress
                    part = add_gradient(*asked, self.before)
                keys += batch.keys
                unfit += part.unfit
                if part.fit is not None:
                    fits.append(part.fit)
                if part.losses:
                    each = torch.stack([part.losses[name] for name in names])
                    losses += each.detach() / self.parts
        except TapdistillError as caught:
            error = caught
        if fits and error is None and self.processes.world == 1:
            # the only wait of a step on a GPU
            told = [losses, self._gradient_norm()[None], *(fit.to(losses) for fit in fits)]
            values = torch.cat(told).tolist()
            means, gradient_norm = values[: len(names)], values[len(names)]
            unfit = _unfit(keys, values[len(names) + 1 :])
            if unfit:
                return self._skip(unfit), batch, part
        else:
            flags = constant(losses, error is not None, bool(unfit))
            if fits:
                flags[1] = torch.cat(fits).logical_not().any()
            failed, missing, *means = self.processes.mean(torch.cat([flags, losses])).tolist()
            if failed:
                raise next(error for error in self.processes.gather(error) if error is not None)
            if missing:
                unfit += _unfit(keys, torch.cat(fits).tolist()) if fits else []
                return self._skip(unfit), batch, part
            self.processes.mean_gradients(self.optimiser.parameters)
            gradient_norm = self._gradient_norm().item()
        if not math.isfinite(gradient_norm):
            return self._skip(keys), batch, part
        learning_rate = self.optimiser.learning_rate
        self.optimiser.step()
        self.step += 1
        if self.mean:
            self.mean.add(self.step)
        self.skipped_in_a_row = 0
        done = StepDone(
            step=self.step,
            losses={**dict(zip(names, means, strict=True)), "total": sum(means)},
            learning_rate=learning_rate,
            gradient_norm=gradient_norm,
            seconds=time.perf_counter() - began,
            waited_s=self.waited_s - waited_before,
        )
        return done, batch, part

    def _gradient_norm(self) -> Tensor:
        gradients = [parameter.grad for parameter in self.optimiser.parameters]
        return get_total_norm([gradient for gradient in gradients if gradient is not None])

    def _next(self, stream: Batches) -> Batch:
        began = time.perf_counter()
        batch = next(stream)
        self.waited_s += time.perf_counter() - began
        self.position = batch.position
        self.samples_skipped += batch.skipped
        return (self.inline.label(batch) if self.inline else batch).to(self.device)

    def _skip(self, keys: list[str]) -> StepSkipped:
        self.model.zero_grad()
        self.steps_skipped += 1
        self.skipped_in_a_row += 1
        named = tuple(key for of_rank in self.processes.gather(keys) for key in of_rank)
        if self.skipped_in_a_row == self.config.most_skipped:
            raise ConfigError(
                f"the loss was not finite {self.config.most_skipped} times in a row after step "
                f"{self.step}, the last time with {', '.join(named)}: training stops, and "
                "checkpoints stay as they are. Try a lower learning rate; if it is always the same "
                "sample, look at it."
            )
        return StepSkipped(step=self.step, keys=named)

    def _evaluate(self, curves: Curves | None) -> Work[None]:
        event = yield from self.processes.work_of_first(self._scored())
        self.figures = event.figures
        if event.best:
            self.best = event.figures["delta_avg"]
        self.evaluated = event.step
        if curves:
            curves.add_figures(self.step, self.figures)
        yield event

    def _scored(self) -> Work[Evaluated]:
        """Score the weights as users will get them: exported, and loaded as a teacher."""
        if self.test_sets:
            teacher = self._exported((yield from self._fitted()), "benchmark")
            self.figures = yield from score_sets(
                teacher, self.test_sets, self.config.eval_most, self.step
            )
        else:
            teacher = self._exported((yield from self._fitted()))
            self.test_clips = self.test_clips or list(procedural_clips(self.config.eval_clips))
            self.figures = yield from score_clips(teacher, self.test_clips, self.step)
        better = self.best is None or self.figures["delta_avg"] > self.best
        if better:
            self._export(BEST)
        return Evaluated(step=self.step, figures=self.figures, best=better)

    def _fitted(self, finished: bool = False) -> Work[Path]:
        """Export the weights, with what fits them best; how a finished student refines is part."""
        chosen = finished and self.config.refinement == "chosen"
        if self.config.calibration_clips and self.fitted_at != (self.step, chosen):
            self.fitted, self.fitted_at = None, (self.step, chosen)  # not of earlier weights
            self._export(STUDENT)  # is there, whatever happens to what follows
            with suppress(TeacherError):  # NaN or infinity, which nothing fits
                self.fitted = yield from fit(
                    lambda way: self._exported(self._export(TRIED, way), "label"),
                    self.student.refinements(self.model) if chosen else [{}],
                    self.calibration_clips,
                    self.step,
                )
            (self.out / f"{TRIED}.safetensors").unlink(missing_ok=True)
        return self._export(STUDENT)

    def _exported(self, weights: Path, mode: Mode = "predictor") -> Teacher:
        """The student as users will get it: exported, and loaded as a teacher."""
        return self.student.adapter(
            name=STUDENT, checkpoint=str(weights), device=str(self.device), mode=mode
        )

    def _save(self) -> Saved:
        random = self.processes.gather(random_states(self.device))
        self.processes.from_first(lambda: self._write(random))
        return Saved(step=self.step)

    def _write(self, random: list[dict[str, Tensor | None]]) -> None:
        self._checkpoints.save(
            Checkpoint(
                step=self.step,
                position=self.position,
                data=self.data,
                network=self.sizes,
                config=plain(self.config),
                model=self.model.state_dict(),
                optimiser=self.optimiser.state_dict(),
                random=random,
                figures=self.figures,
                best=self.best,
                evaluated=self.evaluated,
                mean=self.mean.state_dict() if self.mean else None,
                before=self.before.state_dict() if self.before else None,
                origin=asdict(self.origin),
            )
        )

    @property
    def _checkpoints(self) -> Checkpoints:
        return Checkpoints(self.out, self.config.keep, self.shown)

    def _prepared(self, model: nn.Module) -> nn.Module:
        data = self.config.data
        self.student.prepare(model, (data.height, data.width), self.config.iterations)
        return model.to(self.device)

    def _before(self, found: Checkpoint | None) -> nn.Module | None:
        """The network before training, if visibility is held to what it says."""
        if self.config.visibility_choice != "held":
            return None
        with torch.random.fork_rng(devices=[]):
            before = self.student.network(self.student.config(**self.sizes))
        before.load_state_dict(found.before if found and found.before else self.model.state_dict())
        return self._prepared(before).eval().requires_grad_(False)

    def _found(self, resume: bool) -> Checkpoint | None:
        found = self._checkpoints.latest()
        if found and not resume:
            raise ConfigError(
                f"{self.shown} has a checkpoint of step {found.step} already: resume from it, or "
                "give another folder."
            )
        if found:
            check_same_settings(self.config, found, self.shown, vars(self.student.config()))
        return found

    def _export(self, name: str, refinement: Mapping[str, Any] | None = None) -> Path:
        fitted = self.fitted.refinement if self.fitted else {}
        notes = {
            "step": str(self.step),
            "figures": json.dumps(self.figures),
            "training": json.dumps(plain(self.config)),
            LICENCE: self.origin.licence,
        }
        if self.fitted and self.fitted.calibration.changed:
            notes[VISIBLE] = str(self.fitted.calibration.rule)
        elif self.origin.rule:
            notes[VISIBLE] = self.origin.rule
        return self._checkpoints.export(
            name,
            self.model,
            self.student.teacher,
            notes,
            weights=self.mean.weights() if self.mean else None,
            sizes=self.sizes | fitted | (refinement or {}),
        )

    def _restore(self, found: Checkpoint) -> None:
        self.model.load_state_dict(found.model)
        self.optimiser.load_state_dict(found.optimiser)
        if self.mean and found.mean:
            self.mean.load_state_dict(found.mean)
        self.step, self.position, self.figures = found.step, found.position, found.figures
        now = plain(self.config)
        if all(found.config.get(name) == now[name] for name in JUDGED_BY):
            self.best, self.evaluated = found.best, found.evaluated
        if self.processes.rank < len(found.random):
            restore_random_states(found.random[self.processes.rank], self.device)


def _unfit(keys: Sequence[str], fit: Sequence[float]) -> list[str]:
    """The keys of the clips whose answers are not finite."""
    return [key for key, good in zip(keys, fit, strict=True) if not good]
