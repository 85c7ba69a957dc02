"""Published files of TAPNext: from their names and shapes to those of the network.

TAPNext and BootsTAPNext are published as the arrays of the JAX release; TAPNext++ as a training
checkpoint of the torch release, with the constant table of position codes (201 MB), which the
network here computes where it needs it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from teachers.tapnext.network import UNITS, position_waves

JAX = "backbone/"
TABLE = "query_pos_embed"
TABLE_NOISE = 1e-4
"""Tolerance between ways of computing sines of angles up to 255."""

NAMES = (
    ("backbone/Transformer/encoderblock_", "blocks/"),
    ("backbone/Transformer/", ""),
    ("backbone/embedding/", "lin_proj/"),
    ("backbone/pos_embedding", "image_pos_emb"),
    ("backbone/", ""),
    ("_head/layers_", "_head/"),
    ("/LayerNorm_0/", "/ln_1/"),
    ("/LayerNorm_1/", "/ln_2/"),
    ("/MlpBlock_0/Dense_0/", "/mlp/0/"),
    ("/MlpBlock_0/Dense_1/", "/mlp/3/"),
    ("/MultiHeadDotProductAttention_0/out/", "/self_attention/out_proj/"),
    ("/MultiHeadDotProductAttention_0/", "/self_attention/"),
)
"""Parts of JAX names, and what they are called here; they are replaced one after another."""
STACKED = ("query", "key", "value")


def state_dict(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights as the network names them; those of any other file as they are."""
    if any(key.startswith(JAX) for key in weights):
        return of_jax(weights)
    if TABLE in weights and "point_query_token" in weights and _is_the_table(weights[TABLE]):
        return {key: value for key, value in weights.items() if key != TABLE}
    return weights


def of_jax(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The arrays of the JAX release, renamed, transposed, and with query, key, and value in one
    matrix."""
    found = dict(_renamed(key, value) for key, value in arrays.items())
    for key in [key for key in found if key.endswith("self_attention.query.weight")]:
        stem = key.removesuffix("query.weight")
        for kind in ("weight", "bias"):
            parts = [f"{stem}{part}.{kind}" for part in STACKED]
            if all(part in found for part in parts):
                found[f"{stem}in_proj_{kind}"] = torch.cat([found.pop(part) for part in parts])
    return {key: value.contiguous() for key, value in found.items()}


def _renamed(key: str, value: Tensor) -> tuple[str, Tensor]:
    for theirs, ours in NAMES:
        key = key.replace(theirs, ours)
    stem, _, kind = key.rpartition("/")
    inside = "self_attention" in stem and not stem.endswith("out_proj")
    if kind == "kernel":
        if value.dim() == 5:  # [1, h, w, in, out]
            value = value[0].permute(3, 2, 0, 1)
        elif value.dim() == 3:  # [in, heads, size], or [heads, size, out]
            value = (value.flatten(1) if inside else value.flatten(0, 1)).T
        elif value.dim() == 2:
            value = value.T
        kind = "weight"
    elif kind == "bias" and inside:
        value = value.flatten()
    elif kind == "scale" and not stem.endswith("_pre_norm"):
        kind = "weight"
    return f"{stem}/{kind}".strip("/").replace("/", "."), value


def _is_the_table(table: Tensor) -> bool:  # [1, 256 * 256, C]
    """Whether a row and a column of the table are the codes that the network computes. A table
    without values, on the meta device, passes."""
    width = table.shape[-1]
    if table.dim() != 3 or table.shape[:2] != (1, UNITS * UNITS) or width % 4 or width < 8:
        return False
    if table.is_meta:
        return True
    waves = position_waves(width // 2)
    cells = table.view(UNITS, UNITS, width).float()  # y, x
    row, column = cells[37], cells[:, 101]
    expected_row = torch.cat([waves, waves[37].expand_as(waves)], 1)
    expected_column = torch.cat([waves[101].expand_as(waves), waves], 1)
    return bool(
        torch.allclose(row, expected_row, atol=TABLE_NOISE, rtol=0)
        and torch.allclose(column, expected_column, atol=TABLE_NOISE, rtol=0)
    )
