"""PIPs and PIPs++ as teachers: networks that go forward from a query's frame, each point for itself.

    frames --padded--> features, window by window --> pass from each query's frame on --> [pass over the reversed clip]

| mode | frames before a query |
|---|---|
| `predictor` | NaN: the official models know no way back |
| `label` | from a pass over the reversed clip |
| `recipe`, `benchmark` | as `label`; no published recipe has these teachers, and strided TAP-Vid asks for every frame |

In every mode frames keep their size. Sides that leave less than two cells at the coarsest level of the network's pyramid (where the
official code gives NaN) are continued by the last row and column. So are those that are no multiple of its stride, but in `predictor`:
the official code squeezes such a frame into the cells that are whole, by up to a cell. A track goes through its query exactly.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from teachers.checkpoints import LICENCE, load_weights, no_weights, read_metadata, stored_config
from teachers.clip_features import ClipFeatures
from teachers.device import pick_device
from teachers.errors import ConfigError
from teachers.finite import require_finite
from teachers.interface import Mode, Teacher, TeacherInfo, Tracks, VisibleRule
from teachers.memory import Memory
from teachers.precision import compute_in_bf16
from teachers.settings import require_switch, require_whole

Preset = Literal["official", "mini"]


class ForwardTeacher(Teacher):
    """A subclass says which network, and how it goes through a clip.

    Settings:
        preset: "official" or "mini", which network; a checkpoint that says so itself needs none.
        iterations: refinements in each window.
        backward: take the frames before a query from a pass over the reversed clip; None is what the mode does.
        memory: see `Memory`.
        bf16: see `precision.py`.
    """

    architecture: ClassVar[str]
    weights_at: ClassVar[str]
    presets: ClassVar[Mapping[str, Callable[[], Any]]]
    """Configs of the network by name; each has `stride` and `levels`."""
    network: ClassVar[type[Any]]
    """Class of the network; made from a config."""
    rule: ClassVar[VisibleRule]

    def __init__(
        self,
        *,
        name: str,
        checkpoint: str | None,
        device: str,
        mode: Mode,
        preset: Preset,
        iterations: int,
        backward: bool | None,
        max_frames: int,
        memory: Memory,
        bf16: bool,
        settings: dict[str, Any],
    ) -> None:
        """Args:
        max_frames: longest clip whose features are all held, so that a pass back need not encode them again.
        settings: of the subclass.
        """
        if checkpoint is None:
            raise no_weights(name, self.weights_at, "MIT")
        if preset not in self.presets:
            raise ConfigError(f"preset = {preset!r}: there are {', '.join(self.presets)}.")
        require_whole(1, iterations=iterations)
        self.config = stored_config(checkpoint, self.presets[preset]())
        self.iterations, self.max_frames, self.memory = iterations, max_frames, memory
        self.backward = mode != "predictor" if backward is None else backward
        require_switch(backward=self.backward, bf16=bf16)
        self.device = pick_device(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = self.network(self.config).eval().requires_grad_(False)
        millions = sum(parameter.numel() for parameter in self.model.parameters()) / 1e6
        official = self.config == self.presets["official"]()
        self.info = TeacherInfo(
            name=name,
            architecture=self.architecture if official else f"{self.architecture}, {millions:.1f} M parameters",
            mode=mode,
            visible_rule=str(self.rule),
            licence=read_metadata(checkpoint).get(LICENCE, "MIT"),
            checkpoint_sha256="random" if checkpoint == "random" else load_weights(self.model, checkpoint, name),
            settings={"iterations": iterations, "backward": self.backward, "bf16": bf16} | settings,
        )
        self.model.to(self.device)
        if bf16:
            compute_in_bf16(self.model)

    @abc.abstractmethod
    def _pass(self, features: ClipFeatures, queries: Tensor) -> Tensor:  # [N, 3] -> [N, T, 3]
        """(x, y, visibility) from each query's frame on; NaN before it."""

    def _track(self, frames: np.ndarray, queries: np.ndarray, seed: int) -> Tracks:
        with torch.inference_mode():
            features, points = ClipFeatures(self._encode, frames), torch.from_numpy(queries).to(self.device)
            if len(frames) <= self.max_frames:
                features.window(0, len(frames))
            tracks = self._pass(features, points)
            before = torch.arange(len(frames), device=self.device) < points[:, :1]  # [N, T]
            if self.backward and before.any():
                back = self._pass(features.reversed(), torch.cat([len(frames) - 1 - points[:, :1], points[:, 1:]], 1))
                tracks = torch.where(before[..., None], back.flip(1), tracks)
            known = tracks if self.rule.quantity == "v" else tracks[..., :2]
            require_finite(known if self.backward else known[~before], self.info.name)
        xy, visibility = (part.cpu().numpy() for part in tracks.split((2, 1), -1))
        return Tracks(xy, visibility[..., 0], np.full(xy.shape[:2], np.nan, np.float32))

    def _encode(self, frames: np.ndarray) -> list[Tensor]:  # [t, H, W, 3] -> per level [1, t, h, w, C]
        video = torch.from_numpy(frames.copy()).to(self.device).permute(0, 3, 1, 2)  # torch warns of read-only arrays: Ray's are
        stride, least = self.config.stride, self.config.stride * 2**self.config.levels
        multiple = 1 if self.info.mode == "predictor" else stride
        below, right = (max(least, side + -side % multiple) - side for side in video.shape[-2:])
        if below or right:
            video = F.pad(video.float(), (0, right, 0, below), mode="replicate")
        return self.model.encode(video[None], self.memory)
