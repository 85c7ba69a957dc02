"""Official weights of a parity case, and comparison of tracks with what the official code gave for
them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from teachers.cotracker.refinements import Refinements
from teachers.cotracker.teacher import CoTrackerTeacher
from teachers.errors import CheckpointError
from teachers.interface import Teacher
from teachers.tracks import Tracks
from tests.support import parity

USUAL = ("tolerance_px", "tolerance_logit")


def model_of(case: parity.Case, model: nn.Module, keys: str) -> nn.Module:
    """`model` with the weights of the case; those of rule "keep" are the constants that it has
    already."""
    filled = parity.weights(keys, **case.meta["weights"])
    missing, unexpected = model.load_state_dict(
        {key: torch.from_numpy(value) for key, value in filled.items()}, strict=False
    )
    kept = {entry["key"] for entry in parity.key_list(keys) if entry["rule"] == "keep"}
    assert set(missing) == kept
    assert unexpected == []
    return model.eval()


def variant_of(
    case: parity.Case,
    network: Callable[..., nn.Module],
    config: Callable[..., Any],
    variants: Mapping[str, Mapping[str, Any]],
    **changes: Any,
) -> Any:
    """The network that the case is about, one of several variants of a config, with its weights."""
    name = case.meta["model"]
    model = network(config(**variants[name], **changes)).requires_grad_(False)
    return model_of(case, model, name)


def file_of(case: parity.Case, model: nn.Module, keys: str, folder: Path) -> str:
    """A checkpoint file with those weights."""
    path = folder / f"{keys}.safetensors"
    save_file(model_of(case, model, keys).state_dict(), path)
    return str(path)


def check_refused(
    kind: Callable[..., Teacher], name: str, model: nn.Module, likely: str, folder: Path
) -> str:
    """A file with the weights of `model`, which teacher `name` refuses, naming what it looks
    like."""
    path = folder / "other.safetensors"
    save_file(model.state_dict(), path)
    refused = f"not a checkpoint of '{name}'.*It looks like a file of '{likely}'"
    with pytest.raises(CheckpointError, match=refused):
        kind(name=name, checkpoint=str(path), device="cpu")
    return str(path)


def inputs(case: parity.Case) -> tuple[Tensor, Tensor]:
    """Frames [1, T, 3, H, W] and queries [1, N, 3]."""
    return torch.from_numpy(case.frames).permute(0, 3, 1, 2)[None], torch.from_numpy(
        case["queries"]
    )[None]


def check(ours: np.ndarray | Tensor, theirs: np.ndarray, tolerance: float) -> None:
    """`ours` is [..., N, T] or [..., N, T, 2], theirs has T before N."""
    points = -3 if theirs.shape[-1] == 2 and np.ndim(ours) > 2 else -2
    np.testing.assert_allclose(
        np.swapaxes(np.asarray(ours), points, points + 1), theirs, atol=tolerance, rtol=0
    )


def check_answer(
    values: Tensor, case: parity.Case, prefix: str = "", tolerances: tuple[str, str] = USUAL
) -> None:
    """Positions and two logits [..., N, T, 4] of the TAPIR family, as the case has them under names
    with that prefix; it also says which of its tolerances count, for px and for logits."""
    px, logit = (case.meta[name] for name in tolerances)
    for ours, name, tolerance in (
        (values[..., :2], "tracks", px),
        (values[..., 2], "occlusion", logit),
        (values[..., 3], "expected_dist", logit),
    ):
        np.testing.assert_allclose(ours, case[f"{prefix}{name}"], atol=tolerance, rtol=0)


def answers(windows: list[Refinements], iteration: int) -> tuple[Tensor, Tensor, Tensor]:
    """xy [N, T, 2], visibility [N, T], confidence [N, T] after an iteration; where windows overlap
    the later counts."""
    frames = windows[-1].first_frame + windows[-1].xy.shape[3]
    points = windows[0].xy.shape[2]
    xy = windows[0].xy.new_zeros(points, frames, 2)
    visibility, confidence = xy.new_zeros(points, frames), xy.new_zeros(points, frames)
    for window in windows:
        place = slice(window.first_frame, window.first_frame + window.xy.shape[3])
        xy[:, place] = window.xy[iteration, 0]
        visibility[:, place] = window.visibility[min(iteration, len(window.visibility) - 1), 0]
        confidence[:, place] = window.confidence[min(iteration, len(window.confidence) - 1), 0]
    return xy, visibility, confidence


def check_predictor(
    case: parity.Case, teacher: CoTrackerTeacher, tracks: Tracks, prefix: str = ""
) -> None:
    """Positions within the tolerance, and the visible flag wherever the case is sure of it."""
    assert teacher.info.settings["iterations"] == case.meta["iters"]
    check(tracks.xy, case[f"{prefix}tracks"], case.meta["tolerance_px"])
    visible, sure = teacher.info.rule(tracks).T, case[f"{prefix}visibility_sure"]
    np.testing.assert_array_equal(visible[sure], case[f"{prefix}visibility"][sure])


def concatenated(parts: list[Tracks]) -> Tracks:
    """One track from the tracks of consecutive frames."""
    return Tracks(
        *(
            np.concatenate([getattr(part, name) for part in parts], 1)
            for name in ("xy", "visibility", "confidence")
        )
    )


def predictor(kind: type[CoTrackerTeacher], checkpoint: str, **settings: Any) -> CoTrackerTeacher:
    """A teacher with the weights of that file, in the mode of the official predictor."""
    return kind(name="official", checkpoint=checkpoint, device="cpu", **settings)


def check_evaluation(
    case: parity.Case, kind: type[CoTrackerTeacher], checkpoint: str, product: bool, **settings: Any
) -> CoTrackerTeacher:
    """Benchmark mode gives what the official evaluation does, whose visibility is one probability,
    or the product of both. Returns the teacher."""
    call = case.meta["constructor"]
    teacher = kind(
        name="official",
        checkpoint=checkpoint,
        device="cpu",
        mode="benchmark",
        resolution=tuple(call["interp_shape"]),
        iterations=call["n_iters"],
        **settings,
    )
    tracks = teacher.track(case.frames, case["queries"])
    visibility = tracks.visibility * tracks.confidence if product else tracks.visibility
    check(tracks.xy, case["tracks"], case.meta["tolerance_px"])
    check(visibility, case["visibility"], case.meta["tolerance_prob"])
    return teacher
