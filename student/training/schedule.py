"""Optimiser and learning rate of the published training scripts: AdamW, one cosine cycle, clipped
gradients.

The cycle is made for 100 steps more than are taken, so that it never reaches its end; `spare_steps`
changes that.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR

from teachers.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How weights move. The defaults are those of pseudo-label training (CoTracker3, appendix
    A)."""

    steps: int = 15_000
    learning_rate: float = 5e-5
    """The highest learning rate."""
    weight_decay: float = 1e-5
    clip_norm: float = 10.0
    """The longest gradient, over all parameters together; longer ones are clipped. With inf, none
    is."""
    warm_up: float = 0.0
    """Share of the steps in which the rate rises, from a 25th of its highest value; then it falls
    to nearly 0 along a cosine."""
    spare_steps: int = 100
    """The cosine is made for this many more steps than are taken, so that it never reaches its end;
    with 0 it does."""
    frozen: str | None = None
    """Parameters whose names contain this stay as they are, or of several parts, separated by
    commas, any; a frozen visibility head does anyway."""
    ema: int | None = None
    """Steps over which a running mean of the weights goes, which is then what is exported and
    scored; None: the weights of the last step."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(
                f"steps = {self.steps}: at least 1 is needed; the published recipe takes 15000."
            )
        for name in ("learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be above 0.")
        for name in ("spare_steps", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be 0 or more.")
        if self.ema is not None and self.ema < 2:
            raise ConfigError(
                f"ema = {self.ema}: a running mean goes over at least 2 steps; 100 is usual, None "
                "is none."
            )
        if not 0 <= self.warm_up < 1:
            raise ConfigError(
                f"warm_up = {self.warm_up}: must be in [0, 1); it is a share of the steps."
            )

    @classmethod
    def pseudo_label(cls, steps: int = 15_000) -> ScheduleConfig:
        return cls(steps=steps)

    @classmethod
    def supervised(cls, steps: int = 50_000) -> ScheduleConfig:
        """Training on synthetic video with exact tracks (Kubric)."""
        return cls(
            steps=steps,
            learning_rate=5e-4,
            weight_decay=5e-4,
            clip_norm=1.0,
            warm_up=0.05,
        )


class Optimiser:
    """Freezes the parameters that the config freezes, and a head if one is given, and takes steps
    for the other parameters of a model."""

    def __init__(self, model: nn.Module, config: ScheduleConfig, head: str | None = None) -> None:
        freeze(model, config.frozen)
        freeze(model, head)
        self.config = config
        self.parameters = list(model.parameters())
        self.adamw = AdamW(
            self.parameters, lr=config.learning_rate, weight_decay=config.weight_decay, eps=1e-8
        )
        total = config.steps + config.spare_steps
        self.cycle = OneCycleLR(
            self.adamw,
            max_lr=config.learning_rate,
            total_steps=total,
            # torch divides by the length of a warm-up of a single step, which is 0
            pct_start=0.0 if config.warm_up * total == 1 else config.warm_up,
            anneal_strategy="cos",
            cycle_momentum=False,
        )

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return float(self.adamw.param_groups[0]["lr"])

    def step(self) -> Tensor:
        """Take a step with the gradients that backward has left, and clear them. Returns their
        length before clipping."""
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
        self.adamw.step()
        self.cycle.step()
        self.adamw.zero_grad()
        return norm

    def state_dict(self) -> dict[str, object]:
        return {"adamw": self.adamw.state_dict(), "cycle": self.cycle.state_dict()}

    def load_state_dict(self, state: dict[str, dict[str, object]]) -> None:
        self.adamw.load_state_dict(state["adamw"])
        self.cycle.load_state_dict(state["cycle"])


def freeze(model: nn.Module, parts: str | None) -> None:
    """Parameters whose names contain one of the `parts`, separated by commas, get no gradient, and
    thus no weight decay; a ConfigError if there are none of a part."""
    for part in parts.split(",") if parts else ():
        names = [name for name, _ in model.named_parameters() if part in name]
        if not names or not part:
            raise ConfigError(
                f"frozen = {parts!r}: no parameter of {type(model).__name__} has {part!r} in its "
                "name."
            )
        for name in names:
            model.get_parameter(name).requires_grad_(False)
