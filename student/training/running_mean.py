"""Running mean of the weights: what is exported and scored where `--ema` asks for it.

Over the first `steps` steps, it is the mean of all weights so far; from then on, the weights of
each step enter with a share of 1 / steps (an exponential moving average). The noise of single steps
averages out, so that a short run at a high learning rate ends better.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class RunningMean:
    """The mean of a model's parameters over its steps; other tensors are those of the model."""

    def __init__(self, model: nn.Module, steps: int) -> None:
        self._model, self._steps = model, steps
        self._mean = {
            name: parameter.detach().clone() for name, parameter in model.named_parameters()
        }

    @torch.no_grad()
    def add(self, step: int) -> None:
        """Add the model's weights after that step; steps count from 1."""
        share = max(1 / self._steps, 1 / (step + 1))
        for name, parameter in self._model.named_parameters():
            self._mean[name].lerp_(parameter, share)

    def state_dict(self) -> dict[str, Tensor]:
        """The mean alone, for a checkpoint."""
        return self._mean

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a mean that `state_dict` gave."""
        for name, value in self._mean.items():
            value.copy_(state[name])

    def weights(self) -> dict[str, Tensor]:
        """The model's state dict, its parameters replaced by their mean."""
        return {**self._model.state_dict(), **self._mean}
