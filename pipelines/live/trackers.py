"""Trackers: which ones a live page offers, and how each is loaded, once, when it is first
chosen."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.tracking.trackers import load_tracker, name_and_checkpoint, titles
from teachers import ConfigError, Mode, Teacher
from teachers.checkpoints.cache import cached_checkpoint
from teachers.info import Precision
from teachers.loading import known_name, settings_of
from teachers.registry import declared, entries, left_out, own_name

QUICK = {"resolutions": ((256, 256),), "predictor": "online"}
"""Settings with which a tracker keeps up, or streams at all, for trackers that have them."""


@dataclass(frozen=True)
class Offered:
    """A tracker that can be chosen."""

    title: str
    text: str
    """What it was asked for by, as `tapdistill track --teacher` takes it."""
    name: str
    """The teacher that it is."""
    missing: str = ""
    """The command to run before it can be chosen."""

    def to_json(self) -> dict[str, str]:
        return {"title": self.title, "missing": self.missing}


class LiveTrackers:
    """The trackers that are offered, and those that are loaded."""

    def __init__(
        self,
        texts: Sequence[str] = (),
        *,
        device: str = "auto",
        mode: Mode = "predictor",
        precision: Precision = "auto",
        compiled: bool = False,
    ) -> None:
        """Args:
            texts: names, NAME=CHECKPOINT, or checkpoint files; none: all that stream.

        Raises:
            ConfigError: one cannot stream, or does not exist.
        """
        self._device, self._mode, self._precision = device, mode, precision
        self._compiled = compiled
        self._loaded: dict[str, Teacher] = {}
        self._lock = threading.Lock()
        self.offered = {each.title: each for each in (_named(texts) if texts else _streaming())}

    def load(self, title: str) -> Teacher:
        """The tracker.

        Raises:
            ConfigError: it is not offered. CheckpointError: its weights cannot be loaded.
        """
        if title not in self.offered:
            raise ConfigError(f"no tracker {title!r}: there are {', '.join(self.offered)}.")
        with self._lock:
            if title not in self._loaded:
                offered = self.offered[title]
                settings: dict[str, Any] = {
                    key: value
                    for key, value in QUICK.items()
                    if key in settings_of(declared(offered.name))
                }
                self._loaded[title] = load_tracker(
                    offered.text,
                    self._device,
                    self._mode,
                    settings,
                    precision=self._precision,
                    compiled=self._compiled,
                    flag="--teacher",
                )
            return self._loaded[title]


def _named(texts: Sequence[str]) -> list[Offered]:
    found = [name_and_checkpoint(text, "--teacher") for text in texts]
    known = [known_name(*one) for one in found]
    for text, name in zip(texts, known, strict=True):
        if not declared(name).streams:
            able = ", ".join(each.name for each in _streaming())
            raise ConfigError(
                f"--teacher {text}: {name!r} needs the whole clip; a live page takes {able}."
            )
    called = titles([(own_name(name), file) for name, file in found], "--teacher")
    return [Offered(*each) for each in zip(called, texts, known, strict=True)]


def _streaming() -> list[Offered]:
    """Every tracker that streams; those whose weights are here come first."""
    found = []
    for entry in entries():
        with left_out(entry.name):
            if declared(entry.name).streams:
                at_hand = entry.file is None or cached_checkpoint(entry.name)
                missing = "" if at_hand else f"tapdistill teachers pull {entry.name}"
                found.append(Offered(entry.name, entry.name, entry.name, missing))
    return sorted(found, key=lambda each: (bool(each.missing), each.name != "tapir-mini"))
