"""Students: each learns from a world's labels by one policy, from the weights that are shipped."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from experiments.policies.config import LEARNERS, SELF, WITH_TRUTH, Experiment, StudentName, World
from labeler.labels.policies import Policy
from pipelines.commands.train import recipe
from student.training.config import TrainConfig
from student.training.train import train


@dataclass(frozen=True)
class Lesson:
    """One training."""

    world: World
    student: StudentName
    policy: Policy
    seed: int

    def __str__(self) -> str:
        return f"{self.student}-{self.policy}-{self.seed}"


def taught(experiment: Experiment, lesson: Lesson) -> Path:
    """The weights after a training; one that was interrupted goes on."""
    labels = f"labels-{lesson.policy}" if lesson.policy in WITH_TRUTH else "labels"
    data = (str(experiment.folder(lesson.world) / labels),)
    return train(training(experiment, lesson, data), weights_of(experiment, lesson).parent).weights


def weights_of(experiment: Experiment, lesson: Lesson) -> Path:
    """Where a training leaves its weights."""
    return experiment.folder(lesson.world) / "students" / str(lesson) / "student.safetensors"


def training(experiment: Experiment, lesson: Lesson, data: tuple[str, ...]) -> TrainConfig:
    """The student's recipe, but for what the experiment sets."""
    learner = LEARNERS[lesson.student]
    base = recipe(learner.recipe, out=experiment.folder(lesson.world)).training()
    steps = max(1, round(learner.steps * experiment.steps))
    batch = max(1, round(learner.batch * experiment.batch))
    return replace(
        base,
        data=replace(
            base.data,
            data=data,
            # one teacher alone
            policy="random" if lesson.policy in (SELF, *WITH_TRUTH) else lesson.policy,
            use_teachers=(lesson.student,) if lesson.policy == SELF else (),
            trust=experiment.trust,
            frames=experiment.frames,
            height=experiment.crop,
            width=experiment.crop,
            queries=max(1, experiment.queries // 3),
            batch=batch,
            at_once=batch,
        ),
        schedule=replace(
            base.schedule,
            steps=steps,
            ema=max(2, min(100, steps // 6)),
        ),
        seed=lesson.seed,
        device="cpu",
        checkpoint_every=25,
        calibration_clips=min(base.calibration_clips, experiment.clips),
        refinement="own",  # policies are compared, and all refine alike
        picture_every=10**9,
        keep=1,
    )
