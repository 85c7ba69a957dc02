"""The verifier's network in torch, to train it; `labeler.labels.verifier` runs the same in
numpy."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from labeler.labels.verifier import DILATIONS, shapes


class Network(nn.Module):
    """Evidence -> logits. Its weights have the names and shapes of
    `labeler.labels.verifier.shapes`."""

    def __init__(self, width: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weights: dict[str, Tensor] = {}
        for name, shape in shapes(width).items():
            value = torch.zeros(shape)
            if name.endswith(".std"):
                value = torch.ones(shape)
            elif name.endswith(".k"):
                value = torch.randn(shape, generator=generator) / 9**0.5
            elif len(shape) == 2:
                value = torch.randn(shape, generator=generator) * (1.5 / shape[0]) ** 0.5
            if not name.endswith((".mean", ".std")):
                value = nn.Parameter(value)
                self.register_parameter(name.replace(".", "_"), value)
            self.weights[name] = value

    def normalise(self, own: np.ndarray, shared: np.ndarray) -> None:
        """Take mean and deviation of the evidence from rows of it, [n, OWN] and [n, SHARED]."""
        for name, rows in (("own", own), ("shared", shared)):
            self.weights[f"{name}.mean"].copy_(torch.from_numpy(rows.mean(0)))
            self.weights[f"{name}.std"].copy_(torch.from_numpy(rows.std(0) + 0.05))

    def forward(self, own: Tensor, shared: Tensor, placed: Tensor) -> tuple[Tensor, Tensor]:
        """[K, N, T, own], [N, T, shared], bool [K, N, T] -> right [K, N, T], hidden [N, T]."""
        w = self.weights
        there = placed[..., None].float()
        count = there.sum(0).clamp(min=1)
        own = (own - w["own.mean"]) / w["own.std"] * there
        shared = (shared - w["shared.mean"]) / w["shared.std"]
        h = torch.relu(own @ w["first.w"] + (shared @ w["first.shared"] + w["first.b"]))
        h = torch.relu(h @ w["second.w"] + w["second.b"]) * there
        for i, dilation in enumerate(DILATIONS):
            together = _together(h, count) @ w[f"pool{i}.w"] + w[f"pool{i}.b"]
            h = (h + torch.relu(h @ w[f"mix{i}.w"] + together)) * there
            past = _over_time(h, w[f"time{i}.k"], dilation)
            h = (h + torch.relu(past @ w[f"time{i}.w"] + w[f"time{i}.b"])) * there
        g = torch.relu(
            _together(h, count) @ w["hidden.pool"] + shared @ w["hidden.shared"] + w["hidden.b"]
        )
        g = g + torch.relu(_over_time(g, w["hidden.k"], 1) @ w["hidden.w"] + w["hidden.b2"])
        return (h @ w["right.w"] + w["right.b"])[..., 0], (g @ w["hidden.out"] + w["hidden.b3"])[
            ..., 0
        ]

    def to_numpy(self) -> dict[str, np.ndarray]:
        return {
            name: value.detach().numpy().astype(np.float32).copy()
            for name, value in self.weights.items()
        }


def _together(h: Tensor, count: Tensor) -> Tensor:
    return torch.cat([h.sum(0) / count, h.amax(0)], -1)


def _over_time(h: Tensor, kernel: Tensor, dilation: int) -> Tensor:
    """One matrix [T, T] for each channel: a third of the time of a depthwise convolution on a CPU,
    or of sums of shifts, backwards too."""
    frame = torch.arange(h.shape[-2])
    shift = frame[:, None] - frame
    tap = shift // dilation + len(kernel) // 2
    taken = (shift % dilation == 0) & (tap >= 0) & (tap < len(kernel))
    matrices = torch.where(taken, kernel.T[:, tap.clamp(0, len(kernel) - 1)], 0)
    rows = h.reshape(-1, *h.shape[-2:]).permute(2, 0, 1).contiguous()  # [C, K N, T]
    return torch.bmm(rows, matrices).permute(1, 2, 0).reshape(h.shape)
