"""Progress of a training run: a bar in a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

from pipelines.terminal.console import say
from pipelines.terminal.progress import LineThrottle, terminal_bar
from pipelines.wording import counted, duration
from student.training import events

RECENT = 50
"""Speed and loss are averaged over this many steps."""


class TrainProgress:
    """Shows how many of all steps are done, the loss, steps/s, the time left, and the share of time
    spent waiting for data."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._recent: deque[events.StepDone] = deque(maxlen=RECENT)
        self._lines = LineThrottle()
        self._bar = terminal_bar(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps · {task.fields[counts]}"),
            TimeElapsedColumn(),
        )
        self._task = self._bar.add_task("training", total=steps, counts="")

    def __enter__(self) -> TrainProgress:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def show(self, event: events.TrainEvent) -> None:
        """Tell what happened."""
        match event:
            case events.Started():
                if event.step:
                    say(f"going on after step {event.step}")
                if event.parts > 1:
                    say(f"each process adds up the gradients of {event.parts} batches a step")
                if event.views:
                    least, middle = min(event.views), _median(event.views)
                    clips = counted(sum(event.views.values()), "stored clip")
                    say(
                        f"{clips}; each offers {counted(middle, 'view')} "
                        f"(runs of frames that differ in start or stride; the median, at least "
                        f"{least})"
                    )
                if event.note:
                    say(event.note)
                for left_out in event.left_out:
                    say(
                        f"left out: {left_out.clips} clips of {left_out.file}, {left_out.reason}: "
                        f"{left_out.detail}"
                    )
            case events.StepSkipped():
                say(
                    f"after step {event.step}: loss not finite, step skipped; samples "
                    f"{', '.join(event.keys)}"
                )
            case events.Evaluated():
                figures = ", ".join(
                    f"{name} {100 * value:.1f}" for name, value in event.figures.items()
                )
                say(
                    f"step {event.step}: {figures} on {clips_of(event.figures)}"
                    f"{' (best so far)' if event.best else ''}"
                )
            case events.Calibrated():
                say(str(event.fitted))
            case events.Measuring():
                of = f"/{event.total:,}" if event.total else ""
                said = f"{event.what}: {event.done:,}{of} clips"
                self._bar.update(self._task, counts=said)
                begins_at_end = event.step == self._steps and not event.done
                if self._lines.at_once() if begins_at_end else self._lines.due():
                    say(said)
            case events.Saved():
                self._lines.soon()
            case events.StepDone():
                self._recent.append(event)
                counts = self._counts()
                self._bar.update(self._task, completed=event.step, counts=counts)
                if self._lines.due():
                    say(f"training: {event.step}/{self._steps} steps · {counts}")

    def _counts(self) -> str:
        steps = len(self._recent)
        seconds = sum(event.seconds for event in self._recent)
        waited = sum(event.waited_s for event in self._recent) / seconds
        loss = sum(event.losses["total"] for event in self._recent) / steps
        left = duration((self._steps - self._recent[-1].step) * seconds / steps)
        return (
            f"loss {loss:.3f}, {steps / seconds:.2f} steps/s, {waited:.0%} waiting for data, about "
            f"{left} left"
        )


def _median(counts: Mapping[int, int]) -> int:
    """The lower median of numbers, of which it is counted how often each occurs."""
    half, so_far = (sum(counts.values()) + 1) // 2, 0
    for number in sorted(counts):
        so_far += counts[number]
        if so_far >= half:
            return number
    raise ValueError("no numbers")


def clips_of(figures: Mapping[str, float]) -> str:
    """What a student was scored on, by the names of its figures."""
    published = any("/" in name for name in figures)
    return "published test sets" if published else "procedural test clips"
