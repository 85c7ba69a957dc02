"""Network teachers: what every tracker with learnt weights does alike.

    preset, or the sizes stored in the file --> network from a fixed seed --> weights, strictly
        --> device --> bf16 --> `info`

A subclass says which network it is and which settings it has, and implements two hooks: `_set_up`,
which decides what its mode does, and `_track`. Below it are the parts that adapters share: the pass
over the reversed clip, and the check of what a network computed.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from teachers.checkpoints.files import (
    LICENCE,
    load_weights,
    no_weights,
    read_metadata,
    stored_config,
    stored_rule,
)
from teachers.errors import ConfigError, TeacherError
from teachers.info import Mode, Precision, Preset, TeacherInfo
from teachers.interface import Teacher, checked_settings
from teachers.layers.device import (
    compile_parts,
    compute_in_bf16,
    describe,
    multiplying,
    pick_device,
    resolved,
    sent,
)
from teachers.layers.memory import DEFAULT_MEMORY, Memory
from teachers.published import OWN_LICENCE, WeightsFile
from teachers.settings import require_switch
from teachers.tracks import VisibleRule

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Network = TypeVar("Network", bound=nn.Module)


class NetworkTeacher(Teacher):
    """A tracker whose network has learnt weights.

    Settings, in addition to those of `settings_type`:
        preset: "official" or "mini", which network; a checkpoint that states its sizes needs none.
        memory: see `Memory`; None takes what suits the network and the device.
        bf16: see `compute_in_bf16`; only for a network that names its `BF16_PARTS`.
        precision: see `Precision`; "bf16" is the same as `bf16`, where the network can.
        compiled: see `compile_parts`; for the networks that `bf16` is for.
    """

    architecture: ClassVar[str]
    weights: ClassVar[WeightsFile]
    """The published file, for the message of a teacher without weights, and its licence."""
    presets: ClassVar[Mapping[str, Callable[..., Any]]]
    """Functions that make a config of the network, by name, "official" among them; called with
    `variant`."""
    variant: ClassVar[Mapping[str, Any]] = {}
    """Fields of the config in which this model differs from others of its architecture."""
    network: ClassVar[type[Any]]
    """The class of the network, which is made from a config."""
    settings_type: ClassVar[type[Any]]
    """A frozen dataclass with the settings of this teacher and their defaults; it checks them when
    it is made."""
    config_settings: ClassVar[Sequence[str]] = ()
    """Settings that are fields of the network's config; none of them changes the shape of a
    weight."""
    rule: ClassVar[VisibleRule]
    """When a point counts as visible, as published, where that is the same in every mode."""
    cpu_memory: ClassVar[Memory] = DEFAULT_MEMORY
    gpu_memory: ClassVar[Memory] = DEFAULT_MEMORY
    """How much is computed at once by default."""
    memory_format: ClassVar[torch.memory_format] = torch.preserve_format
    """The memory format of the network's weights."""

    settings: Any
    """An instance of `settings_type`."""
    published_rule: VisibleRule
    """When a point counts as visible, as published for the mode. The rule that applies is
    `info.rule`: that of the checkpoint, if one was calibrated for it."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "weights" in vars(cls):
            cls.licence = cls.weights.licence

    def __init__(
        self,
        *,
        name: str,
        checkpoint: str | None = None,
        device: str = "auto",
        mode: Mode = "predictor",
        preset: Preset = "official",
        memory: Memory | None = None,
        bf16: bool = False,
        precision: Precision = "auto",
        compiled: bool = False,
        **settings: Any,
    ) -> None:
        """Arguments are as for `teachers.load`.

        Raises:
            ConfigError: a setting does not exist, or its value cannot be right.
            CheckpointError: there is no checkpoint, or it is not one of this network.
        """
        self.settings = checked_settings(
            self.settings_type,
            settings,
            name,
            others=("preset", "memory", "bf16", "precision", "compiled"),
        )
        if preset not in self.presets:
            raise ConfigError(f"preset = {preset!r}: there are {', '.join(self.presets)}.")
        require_switch(bf16=bf16, compiled=compiled)
        can = hasattr(self.network, "BF16_PARTS")
        for asked, does in ((bf16, "computes in bf16"), (compiled, "is compiled")):
            if asked and not can:
                raise ConfigError(f"teacher {name!r}: its network has no part that {does}.")
        if checkpoint is None:
            raise no_weights(name, self.weights)
        config = stored_config(checkpoint, self.presets[preset](**self.variant))
        official = config == self.presets["official"](**self.variant)
        self.device = pick_device(device)
        if bf16 and precision not in ("auto", "bf16"):
            raise ConfigError(f"bf16 = True with precision = {precision!r}: leave one of them out.")
        self.precision = resolved("bf16" if bf16 else precision, self.device, can)
        self.bf16 = bf16 = self.precision == "bf16"
        self.memory = self._memory(memory)
        self.config = replace(
            config, **{name: getattr(self.settings, name) for name in self.config_settings}
        )
        stored_settings = self._set_up(mode) | ({"compiled": True} if compiled else {})
        self.model = untrained(self.network, self.config)
        self.published_rule = self._rule(mode)
        self.info = TeacherInfo(
            name=name,
            architecture=architecture_of(self.architecture, self.model, official),
            mode=mode,
            visible_rule=str(stored_rule(checkpoint) or self.published_rule),
            licence=read_metadata(checkpoint).get(
                LICENCE, self.weights.licence if official else OWN_LICENCE
            ),
            checkpoint_sha256="random"
            if checkpoint == "random"
            else load_weights(self.model, checkpoint, name),
            settings=stored_settings,
            precision="" if self.precision == "float32" else self.precision,
            device=describe(self.device),
        )
        self.model.to(self.device, memory_format=self.memory_format)
        if bf16:
            compute_in_bf16(self.model)
        if compiled:
            compile_parts(self.model)

    def computing(self) -> AbstractContextManager[None]:
        return multiplying(self.precision, self.device)

    @abc.abstractmethod
    def _set_up(self, mode: Mode) -> dict[str, Any]:
        """Get ready for `mode`, from `settings` and `config`, before the network exists; returns
        the settings that `info` stores."""

    def _stored(self, mode_settings: DataclassInstance, *names: str) -> dict[str, Any]:
        """What `_set_up` returns: the settings of the mode, those of the teacher with these names,
        and bf16."""
        own = {name: getattr(self.settings, name) for name in names}
        return asdict(mode_settings) | own | {"bf16": self.bf16}

    def _require_forward(self, backward: bool) -> None:
        """A ConfigError for a mode that also tracks backward, which no stream can."""
        if backward:
            raise ConfigError(
                f"mode {self.info.mode!r} of {self.info.name!r} needs the whole clip, because it "
                "also tracks backward: stream with mode 'predictor'."
            )

    def _memory(self, given: Memory | None) -> Memory:
        own = self.cpu_memory if self.device.type == "cpu" else self.gpu_memory
        return given.filled(own) if given else own

    def _rule(self, mode: Mode) -> VisibleRule:
        """When a point counts as visible in that mode, as published."""
        return self.rule

    def _video(self, frames: np.ndarray) -> Tensor:  # uint8 [T, H, W, 3] -> uint8 [T, 3, H, W]
        """Frames on the device. They are copied, because torch warns of read-only arrays, and those
        that Ray gives are read-only."""
        return sent(torch.from_numpy(frames.copy()), self.device).permute(0, 3, 1, 2)


def untrained(network: type[Network], config: Any) -> Network:
    """A network for inference, with weights drawn from a fixed seed, from which nothing else is
    drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made: Network = network(config)
    return made.eval().requires_grad_(False)


def architecture_of(name: str, model: nn.Module, official: bool) -> str:
    """What `info` calls a network: its name and, if its size is not the official one, its size."""
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    return name if official else f"{name}, {millions:.1f} M parameters"


def reversed_queries(queries: Tensor, frames: int) -> Tensor:  # [..., N, 3] -> [..., N, 3]
    """Queries (t, x, y) of a clip of that many frames, as queries of the reversed clip."""
    return torch.cat([frames - 1 - queries[..., :1], queries[..., 1:]], -1)


def with_backward_pass(
    tracks: Tensor,  # [..., N, T, C]
    queries: Tensor,  # [..., N, 3] (t, x, y)
    backward: Callable[[Tensor], Tensor],  # [..., N, 3] -> [..., N, T, C]
    needed: bool | None = None,
) -> Tensor:  # [..., N, T, C]
    """`tracks`, with the frames before each query taken from a pass over the reversed clip.
    `backward` computes the tracks of that pass for the reversed queries. It is called only if a
    frame lies before a query: `needed` says so where that is known already, which avoids waiting
    for a GPU."""
    frames = tracks.shape[-2]
    before = torch.arange(frames, device=queries.device) < queries[..., :1]  # [..., N, T]
    if not (before.any() if needed is None else needed):
        return tracks
    back = backward(reversed_queries(queries, frames))
    return torch.where(before[..., None], back.flip(-2), tracks)


def require_finite(values: Tensor, name: str) -> None:
    """Raise a TeacherError that names the teacher, unless every value is a finite number. A network
    whose weights are broken computes NaN, and must not pass for one that has nothing to say. Pass
    values that are on the CPU already, so that this does not wait for a GPU.

    Args:
        values: [..., C], a row for each point that the network had to answer for.
    """
    broken = ~values.isfinite().all(-1)
    if broken.any():
        raise TeacherError(
            f"the network of teacher {name!r} computed NaN or infinity for {int(broken.sum())} of "
            f"{broken.numel()} points: its weights are broken. See what is wrong with their file: "
            f"`tapdistill teachers check {name} FILE`."
        )
