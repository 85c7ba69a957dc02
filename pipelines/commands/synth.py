"""tapdistill synth: make procedural video with exact tracks, as npz files and, if asked for, as mp4
files to look at."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.progress import track

from labeler.show import draw_tracks, rainbow
from labeler.video import encode_clip
from pipelines.terminal.console import console, say
from student.synth.scene import SynthConfig, generate, save
from teachers import ConfigError


@dataclass(frozen=True, kw_only=True)
class SynthCommand:
    """Write procedural clips with exact tracks, each as an npz with `video`, `points`, `occluded`,
    and `queries`."""

    out: Annotated[Path, tyro.conf.Positional]
    """Folder for the clips."""
    clips: int = 8
    """How many."""
    seed: int = 0
    """Seed of the first clip; each further clip takes the next."""
    mp4: bool = False
    """Also write each clip as an mp4 with its tracks drawn on it."""
    scene: SynthConfig = field(default_factory=SynthConfig)

    def __post_init__(self) -> None:
        if self.clips < 1:
            raise ConfigError(f"--clips {self.clips}: must be at least 1.")


def run(command: SynthCommand) -> int:
    command.out.mkdir(parents=True, exist_ok=True)
    seeds = range(command.seed, command.seed + command.clips)
    for seed in track(
        seeds, "drawing", console=console, transient=True, disable=not console.is_terminal
    ):
        clip = generate(seed, command.scene)
        file = save(clip, command.out / f"{command.scene.split}-{seed:05d}")
        if command.mp4:
            drawn = draw_tracks(clip.frames, clip.xy, clip.visible, rainbow(clip.queries))
            file.with_suffix(".mp4").write_bytes(encode_clip(drawn, fps=12))
    say(
        f"{command.clips} clips of {command.scene.frames} x {command.scene.height} x "
        f"{command.scene.width} px with {command.scene.points} points each, "
        f"{drawn_from(command.scene)}, in {command.out}"
    )
    return 0


def drawn_from(scene: SynthConfig) -> str:
    """Where the textures come from, in words."""
    return (
        f"from the {scene.split} photographs"
        if scene.domain == "photos"
        else f"with {scene.domain} for photographs"
    )
