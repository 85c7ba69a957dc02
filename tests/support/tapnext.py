"""Networks with the weights of a parity case, and their inputs in the network's own form."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from teachers.tapnext.network import Answer, State, TapNext, TapNextConfig, certainty
from tests.support import parity

SIZES: dict[str, dict[str, Any]] = {
    "tapnext_b": {},
    "tapnext_mini": {"width": 96, "depth": 3, "heads": 3},
}


def network(case: parity.Case, **changes: Any) -> TapNext:
    config = TapNextConfig(**SIZES[case.meta["model"]], **changes)
    model = TapNext(config).eval().requires_grad_(False)
    model.load_state_dict(weights(case))
    return model


def weights(case: parity.Case) -> dict[str, Tensor]:
    """Of every entry but the constant table, which the network computes where it needs it."""
    return _weights(case.meta["model"], json.dumps(case.meta["weights"]))


@functools.lru_cache(maxsize=1)
def _weights(model: str, formula: str) -> dict[str, Tensor]:
    return {
        key: torch.from_numpy(value)
        for key, value in parity.weights(model, **json.loads(formula)).items()
    }


def file_of(case: parity.Case, folder: Path, table_factor: float = 1.0) -> str:
    """A checkpoint file as the training of TAPNext++ leaves it: with the constant table, and with a
    prefix."""
    path = folder / f"official_{table_factor}.pt"
    width = SIZES[case.meta["model"]].get("width", 768)
    frequencies = 10000.0 ** (-np.arange(width // 4) / (width // 4 - 1))
    angles = np.arange(256)[:, None] * frequencies
    waves = np.concatenate([np.sin(angles), np.cos(angles)], 1)
    x, y = (
        np.broadcast_to(waves[None], (256, 256, width // 2)),
        np.broadcast_to(waves[:, None], (256, 256, width // 2)),
    )
    table = torch.from_numpy(
        np.concatenate([x, y], -1).reshape(1, 65536, width) * table_factor
    ).float()
    content = weights(case) | {"query_pos_embed": table}
    torch.save({"state_dict": {f"tapnext.{key}": value for key, value in content.items()}}, path)
    return str(path)


def frames(case: parity.Case, dtype: torch.dtype = torch.float32) -> Tensor:  # [1, T, 3, H, W]
    return torch.from_numpy(case.frames).permute(0, 3, 1, 2)[None].to(dtype) / 255 * 2 - 1


def queries(case: parity.Case, dtype: torch.dtype = torch.float32) -> Tensor:  # [1, N, 3] (t, x, y)
    return torch.from_numpy(case["queries"])[None].to(dtype)


@torch.inference_mode()
def in_calls(model: TapNext, case: parity.Case, lengths: list[int]) -> tuple[list[Answer], State]:
    """Answers of successive calls with so many frames each, and the last state."""
    answers, state = [], None
    for part in frames(case).split(lengths, 1):
        answer, state = model(part, queries(case), state)
        answers.append(answer)
    assert state is not None
    return answers, state


def check(
    answers: list[Answer], case: parity.Case, prefix: str = "", tolerance: str = "tolerance"
) -> None:
    """Answers of successive calls against the arrays of the case, where rounding cannot move a
    peak."""
    xy, visible = (
        torch.cat([getattr(answer, name)[0] for answer in answers], 1).numpy()
        for name in ("xy", "visible")
    )
    sure = case.arrays.get("sure", np.ones(visible.shape, bool))
    np.testing.assert_allclose(
        xy[sure], case[f"{prefix}tracks"][sure], atol=case.meta[f"{tolerance}_px"], rtol=0
    )
    np.testing.assert_allclose(
        visible, case[f"{prefix}visible_logit"], atol=case.meta[f"{tolerance}_logit"], rtol=0
    )


def check_certainty(answers: list[Answer], case: parity.Case) -> None:
    """The certainty of the torch release."""
    ours = np.concatenate(
        [certainty(answer.xy[0], answer.logits[0], official_quirks=True) for answer in answers], 1
    )
    sure = case.arrays.get("sure", np.ones(ours.shape, bool))
    np.testing.assert_allclose(
        ours[sure], case["certainty"][sure], atol=case.meta["tolerance_logit"], rtol=0
    )
