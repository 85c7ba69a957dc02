"""Examples: the evidence of a clip for random subsets of teachers, real ones and fakes.

An example holds what `labeler.labels.evidence.gather` says of some teachers on one clip, and the
truth. Each clip gives `SUBSETS` of them, of 1 to 7 teachers: some real only, some mixed, some
nearly all fakes. They are kept in files: evidence costs more than a training step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from experiments.files import write_npz
from experiments.verifier.clips import Kind, TrackedClip, read_clip
from experiments.verifier.fakes import fake
from labeler.labels.evidence import gather
from teachers import Tracks, VisibleRule

SUBSETS = 6
FAKES = 7
SIZES = {1: 0.08, 2: 0.12, 3: 0.2, 4: 0.25, 5: 0.15, 6: 0.12, 7: 0.08}
"""Number of teachers of an example, and how often."""


@dataclass(frozen=True)
class Example:
    """Evidence and truth."""

    teachers: tuple[str, ...]
    own: np.ndarray  # float16 [K, N, T, OWN]
    shared: np.ndarray  # float16 [N, T, SHARED]
    placed: np.ndarray  # bool [K, N, T]
    right: np.ndarray  # bool [K, N, T]
    hidden: np.ndarray  # bool [N, T]


def examples_of(kind: Kind, seed: int, folder: Path, without: str | None) -> Path:
    """The file of a clip's examples. A teacher can only be left out of those to learn from."""
    left_out = f"-without-{without}" if without and kind == "train" else ""
    return folder / f"{kind}-examples{left_out}" / f"{seed:05d}.npz"


def make_examples(kind: Kind, clip: Path, folder: Path, without: str | None = None) -> Path:
    """The file of a clip's examples; made if it is not there."""
    path = examples_of(kind, int(clip.stem), folder, without)
    if path.exists():
        return path
    tracked = read_clip(clip)
    if kind == "train":
        known = {name: found for name, found in tracked.tracks.items() if name != without}
        tracked = replace(tracked, tracks=known)
    whole = [(tracked.tracks, tracked.rules)]
    out: dict[str, np.ndarray] = {"hidden": ~tracked.truth.visible}
    for i, (tracks, rules) in enumerate(
        subsets(int(clip.stem), tracked) if kind == "train" else whole
    ):
        evidence = gather(tracked.frames, tracked.queries, tracks, rules)
        out |= {
            f"{i}/own": evidence.own.astype(np.float16), f"{i}/shared":
            evidence.shared.astype(np.float16), f"{i}/placed": evidence.placed, f"{i}/right":
            tracked.right(tracks), f"{i}/teachers": np.array(list(tracks)),
        }  # fmt: skip
    write_npz(path, **out)
    return path


def read_examples(path: Path) -> list[Example]:
    """The inverse of `make_examples`."""
    with np.load(path) as z:
        count = sum(name.endswith("/own") for name in z.files)
        return [
            Example(
                tuple(map(str, z[f"{i}/teachers"])), z[f"{i}/own"], z[f"{i}/shared"],
                z[f"{i}/placed"], z[f"{i}/right"], z["hidden"],
            )
            for i in range(count)
        ]  # fmt: skip


def subsets(
    seed: int, clip: TrackedClip
) -> Iterator[tuple[dict[str, Tracks], dict[str, VisibleRule]]]:
    """Tracks and rules of random teachers, `SUBSETS` times."""
    rng = np.random.default_rng((seed, 5))
    hardness = np.exp(rng.normal(0, 1, len(clip.queries)))
    real = [(name, clip.tracks[name], clip.rules[name]) for name in clip.tracks]
    fakes: list[tuple[str, Tracks, VisibleRule]] = []
    for i in range(FAKES):
        models = [(tracks, rule) for _, tracks, rule in (*real, *fakes)]
        fakes.append((f"fake-{i}", *fake(rng, clip.truth, models, hardness)))
    for i in range(SUBSETS):
        size = int(rng.choice(list(SIZES), p=list(SIZES.values())))
        share = (1.0, 1.0, 0.6, 0.6, 0.3, rng.random())[i % 6]
        left = [
            list(rng.permutation(len(real))),
            list(rng.permutation(len(fakes) if share < 1 else 0)),
        ]
        chosen = []
        while len(chosen) < size and (left[0] or left[1]):
            kind = 0 if rng.random() < share else 1
            kind = kind if left[kind] else 1 - kind
            chosen.append((real, fakes)[kind][left[kind].pop()])
        yield {name: tracks for name, tracks, _ in chosen}, {name: rule for name, _, rule in chosen}
