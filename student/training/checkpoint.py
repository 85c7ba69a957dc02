"""Checkpoint: everything that is needed to continue training as if it had not stopped, and the
weights alone, for everybody else.

    <folder>/checkpoints/step-00001000.pt    network, optimiser, schedule, random states, place in
                                             the data; the last few are kept
    <folder>/student.safetensors             the newest weights under the official key names, with
                                             the sizes of their network
    <folder>/best.safetensors                those of the best evaluation so far

A file is written under a temporary name, flushed, and renamed, so it is there whole or not at all:
a full disk or a kill costs the steps since the last checkpoint. All files contain only tensors and
plain values; nothing is read that could run code.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from labeler.io.storage import Storage
from teachers.checkpoints.files import CONFIG, TEACHER
from teachers.errors import CheckpointError

FOLDER = "checkpoints"
NAME = "step-{step:08d}.pt"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The state after `step` steps.

    Attributes:
        position: where reading of the data continues, as `start` of `student.data.mixture.batches`.
        data: `Batches.digest` of the stored clips.
        network: sizes of the network.
        config: settings of the training, as plain values.
        model: the weights.
        optimiser: state of `student.training.schedule.Optimiser`: moments, and position in the
            cycle of the learning rate.
        random: `random_states`, by rank.
        figures: those of the last evaluation; empty before the first.
        best: the figure of the best evaluation so far.
        mean: the running mean of the weights, if there is one.
        before: the weights before training, if visibility is held to what they say.
        origin: fields of `student.training.beginning.Origin`, so that the file in `init` is needed
            only once.
        evaluated: the step of the last evaluation that ended; 0 before the first.
    """

    step: int
    position: int
    data: str
    network: dict[str, Any]
    config: dict[str, Any]
    model: dict[str, Tensor]
    optimiser: dict[str, Any]
    random: list[dict[str, Any]]
    figures: dict[str, float]
    best: float | None
    mean: dict[str, Tensor] | None = None
    before: dict[str, Tensor] | None = None
    origin: dict[str, str] | None = None
    evaluated: int = 0


def checkpoints_in(storage: Storage) -> list[str]:
    """Names of the checkpoints in their folder, the newest last; whatever else lies there is not
    ours."""
    return [
        name for name in storage.names(FOLDER) if name.startswith("step-") and name.endswith(".pt")
    ]


class Checkpoints:
    """The checkpoints in a folder."""

    def __init__(self, folder: Path, keep: int, shown: str | None = None) -> None:
        """
        Args:
            shown: what messages call the folder, which may stand in for a URL.
        """
        self.folder, self.keep = folder, keep
        self._shown = str(folder) if shown is None else shown
        self._storage = Storage(str(folder))
        for place in (FOLDER, ""):
            self._storage.remove_abandoned_parts(place)

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, then remove all but the last `keep`.

        Raises:
            TransientError: it cannot be written, as on a full disk; earlier checkpoints stay.
        """
        content = io.BytesIO()
        torch.save(vars(checkpoint), content)
        self._storage.replace(f"{FOLDER}/{NAME.format(step=checkpoint.step)}", content.getvalue())
        for name in self._names()[: -self.keep]:
            self._storage.remove(f"{FOLDER}/{name}")

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint, on the CPU; None if there is none.

        Raises:
            CheckpointError: the file is damaged, or not a checkpoint of this project.
        """
        names = self._names()
        if not names:
            return None
        path = self.folder / FOLDER / names[-1]
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            return Checkpoint(**content)
        except (
            pickle.UnpicklingError,
            RuntimeError,
            EOFError,
            ValueError,
            KeyError,
            TypeError,
        ) as error:
            raise CheckpointError(
                f"{self._shown}/{FOLDER}/{names[-1]}: not a checkpoint of this version of "
                f"tapdistill, or damaged ({type(error).__name__}). Remove it, and training "
                "continues from the one before; or give another --out."
            ) from error

    def export(
        self,
        name: str,
        model: Any,
        teacher: str,
        notes: Mapping[str, str],
        *,
        weights: Mapping[str, Tensor] | None = None,
        sizes: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write the weights alone as `<name>.safetensors`; `tapdistill eval --model FILE` and
        `--checkpoint FILE` take it.

        Args:
            model: a network whose keys are the official ones.
            teacher: the name of the teacher that they are for.
            weights: weights to write instead of the model's own, such as its running mean.
            sizes: fields of the network's config, if it is trained with another one.

        Raises:
            TransientError: it cannot be written; an earlier file of that name stays.
        """
        given = model.state_dict() if weights is None else weights
        tensors = {key: value.detach().cpu().contiguous() for key, value in given.items()}
        config = json.dumps(sizes or asdict(model.config))
        metadata = {TEACHER: teacher, CONFIG: config, **notes}
        self._storage.replace(f"{name}.safetensors", safetensors.torch.save(tensors, metadata))
        return self.folder / f"{name}.safetensors"

    def _names(self) -> list[str]:
        return checkpoints_in(self._storage)


def random_states(device: torch.device) -> dict[str, Any]:
    """The states of torch's own random generators in this process: on the CPU, and on its GPU."""
    return {
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore_random_states(states: Mapping[str, Any], device: torch.device) -> None:
    """Continue drawing random numbers from `states`; a GPU that was not there then, or is not there
    now, is left as it is."""
    torch.set_rng_state(states["cpu"])
    if states["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
