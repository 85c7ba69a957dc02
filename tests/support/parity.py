"""Inputs of the parity cases in `tests/data`: weights, videos, and queries from formulas, so that
no weight needs to be stored.

A case is an npz with the outputs of the official code for these inputs; its `meta` says which.
Integer arithmetic up to the last step: every machine gets the same bits.
"""

from __future__ import annotations

import functools
import json
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

NOISE_PX = 2e-3
"""Float32 noise of a track, as in the parity cases."""

DATA = Path(__file__).parents[1] / "data"


@dataclass(frozen=True)
class Case:
    """One npz: its `meta` and its arrays."""

    meta: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    @functools.cached_property
    def frames(self) -> np.ndarray:
        """uint8 [T, H, W, 3], checked against the probe in the file."""
        frames = video(**self.meta["video"])
        np.testing.assert_array_equal(probe(frames), self["video_probe"])
        return frames


def case(name: str) -> Case:
    with np.load(DATA / f"{name}.npz", allow_pickle=False) as file:
        arrays = dict(file)
    return Case(json.loads(str(arrays.pop("meta"))), arrays)


def key_list(model: str) -> list[dict[str, Any]]:
    """Every entry of the official checkpoint: key, shape, rule, gain."""
    return json.loads((DATA / f"{model}.state_dict.json").read_text())["entries"]


def uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """float64 in [-1, 1): SplitMix64 of (index + crc32(name) * 2**32), top 53 bits."""
    z = np.arange(math.prod(shape), dtype=np.uint64) + (
        np.uint64(zlib.crc32(name.encode())) << np.uint64(32)
    )
    with np.errstate(over="ignore"):
        z += np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return ((z >> np.uint64(11)).astype(np.float64) / 2.0**52 - 1.0).reshape(shape)


def weights(
    model: str, *, salt: str = "", gains: Any = (), bias_offset: Any = (), column_gains: Any = ()
) -> dict[str, np.ndarray]:
    """float32 weights of every filled entry; arguments as in a case's `meta["weights"]`.

    Entries of rule "keep" are constants of the network and left out.
    """
    filled = {}
    for entry in key_list(model):
        key, shape, rule = entry["key"], tuple(entry["shape"]), entry["rule"]
        if rule == "keep":
            continue
        gain = entry.get("gain", 1.0) * math.prod(factor for part, factor in gains if part in key)
        unit = uniform(salt + key, shape)
        value = {
            "matrix": lambda: gain * math.sqrt(3.0 / max(1, math.prod(shape[1:]))) * unit,  # noqa: B023
            "scale": lambda: 1.0 + 0.1 * unit,  # noqa: B023
            "bias": lambda: 0.02 * gain * unit,  # noqa: B023
            "table": lambda: gain * unit,  # noqa: B023
        }[rule]().astype(np.float32)
        for part, offset in bias_offset:
            if part in key:
                value = (value.astype(np.float64) + offset).astype(np.float32)
        filled[key] = value
    for key, first, end, factor in column_gains:
        wide = filled[key].astype(np.float64)
        wide[:, first:end] *= factor
        filled[key] = wide.astype(np.float32)
    return filled


def video(seed: int, T: int, H: int, W: int, vx: float, vy: float) -> np.ndarray:
    """uint8 [T, H, W, 3]: a background that drifts by (vx, vy) px a frame, and a disc in front that
    moves by (-1.5 vx, -vy).

    Texture: 24 plane waves a channel, 4 to 40 px long. The disc has radius min(H, W) / 5 and starts
    at (0.35 W, 0.5 H).
    """
    y, x = np.mgrid[0:H, 0:W].astype(np.float64)

    def texture(name: str, px: np.ndarray, py: np.ndarray) -> np.ndarray:
        out = np.zeros((H, W, 3))
        for channel, waves in enumerate(uniform(f"{name}/{seed}", (3, 24, 4))):
            for length, angle, phase, amplitude in waves:
                k = 2.0 * math.pi / (4.0 * 10.0 ** ((length + 1.0) / 2.0))
                theta = math.pi * angle
                wave = np.sin(k * (math.cos(theta) * px + math.sin(theta) * py) + math.pi * phase)
                out[..., channel] += (0.6 + 0.4 * amplitude) * wave
        return out

    frames = []
    for t in range(T):
        back = texture("back", x - vx * t, y - vy * t)
        front = texture("front", x + 1.5 * vx * t, y + vy * t)
        cx, cy = 0.35 * W - 1.5 * vx * t, 0.5 * H - vy * t
        inside = ((x - cx) ** 2 + (y - cy) ** 2 < (min(H, W) / 5.0) ** 2)[..., None]
        frames.append(
            np.clip(np.rint(127.5 + 26.0 * np.where(inside, front, back)), 0, 255).astype(np.uint8)
        )
    return np.stack(frames)


def queries(seed: int, N: int, T: int, H: int, W: int) -> np.ndarray:
    """float32 [N, 3] as (t, x, y): a third at t = 0, the others at any frame; 8 % margin; multiples
    of 1/16 px."""
    u = (uniform(f"queries/{seed}", (N, 3)) + 1.0) / 2.0
    t = np.floor(u[:, 0] * T)
    t[: (N + 2) // 3] = 0
    x = np.rint((0.08 + 0.84 * u[:, 1]) * (W - 1) * 16) / 16
    y = np.rint((0.08 + 0.84 * u[:, 2]) * (H - 1) * 16) / 16
    return np.stack([t, x, y], axis=1).astype(np.float32)


def probe(frames: np.ndarray) -> np.ndarray:
    """float64 [6, 5]: (t, y, x, channel, value) of six fixed places."""
    T, H, W, _ = frames.shape
    places = [((i * 7) % T, (13 + 31 * i) % H, (17 + 43 * i) % W, i % 3) for i in range(6)]
    return np.array([(*place, float(frames[place])) for place in places])
