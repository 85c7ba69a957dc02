"""The verifier's parity cases: its network with the weights of a case, and what goes into it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from teachers.verifier import VerifierConfig, VerifierNetwork
from tests.support import parity


def weights_of(case: parity.Case) -> dict[str, Tensor]:
    filled = parity.weights("verifier", **case.meta["weights"])
    return {key: torch.from_numpy(np.asarray(value)) for key, value in filled.items()}


def network_of(case: parity.Case) -> VerifierNetwork:
    """The published network; its weights are strictly those of the case."""
    network = VerifierNetwork(VerifierConfig(resolution=tuple(case.meta["input_size"])))
    network.load_state_dict(weights_of(case))
    return network.eval().requires_grad_(False)


def file_of(case: parity.Case, folder: Path) -> Path:
    """A checkpoint with those weights that says at which size frames go in."""
    path = folder / "verifier.safetensors"
    config = json.dumps({"resolution": case.meta["input_size"]})
    save_file(weights_of(case), path, {"config": config, "licence": "none: from a formula"})
    return path


def inputs(case: parity.Case, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Frames [T, 3, H, W], queries [N, 3], candidates [K, N, T, 2]."""
    frames = torch.from_numpy(case.frames).permute(0, 3, 1, 2)
    queries, candidates = (
        torch.from_numpy(case[name]).to(dtype) for name in ("queries", "candidates")
    )
    return frames, queries, candidates.permute(2, 1, 0, 3)
