"""Makes reliability.webp: how often what the verifier says with probability p is so, and its labels
beside those of the policies. OUT is the folder of `experiments.verifier.train`.

python docs/images/make_reliability.py OUT
"""

import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from experiments.verifier.clips import read_clip
from experiments.verifier.examples import Example, read_examples
from experiments.verifier.measure import logits_of, scores_by_policy, verdict_of, verified, wrong
from experiments.verifier.train import aside
from labeler.labels.verifier import Verifier

BINS = np.linspace(0, 1, 11)
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
NAMED = (0.3, 0.5, 0.7, 0.9)
COLOURS = ("#0072B2", "#D55E00")
GREY = "#888888"


def draw_reliability(axes: Axes, what: str, sets: dict[str, list[Example]]) -> None:
    """Said against so, in ten bins; the area of a dot grows with the share of its bin."""
    axes.plot((0, 1), (0, 1), color=GREY, lw=1, ls=":")
    for (name, examples), colour in zip(sets.items(), COLOURS, strict=True):
        logits, truth = logits_of(Verifier.load().logits, examples, what)
        said = 1 / (1 + np.exp(-logits))
        bins = np.digitize(said, BINS[1:-1])
        count = np.bincount(bins, minlength=10)
        mean, so = (np.bincount(bins, value, 10) / count for value in (said, truth))
        axes.plot(mean, so, color=colour, label=name)
        axes.scatter(mean, so, 200 * np.sqrt(count / count.sum()), color=colour, alpha=0.6, lw=0)
    axes.set(xlabel="said", ylabel="so", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_title(what, loc="left", fontsize=10)


def draw_labels(axes: Axes, folder: Path, tests: list[Path]) -> None:
    """Of the visible frames, how many are labelled; of the labels, how many are wrong."""
    clips = [read_clip(folder / "test" / path.name) for path in tests]
    rights = [verdict_of(Verifier.load().logits, read_examples(path)[0])[0] for path in tests]
    scores = {p: verified(rights, clips, p) for p in THRESHOLDS}
    points = {p: (100 * score["used"], 100 * wrong(score)) for p, score in scores.items()}
    axes.plot(*zip(*points.values(), strict=True), "o-", ms=4, color=COLOURS[0])
    for p in NAMED:
        axes.annotate(f"p > {p:g}", points[p], (6, -9), textcoords="offset points", fontsize=8)
    for policy, score in scores_by_policy(clips).items():
        at = 100 * score["used"], 100 * wrong(score)
        axes.plot(*at, "s", color=COLOURS[1])
        axes.annotate(policy, at, (6, 3), textcoords="offset points", fontsize=8)
    axes.set(xlabel="% of the visible frames that are labelled", xlim=(0, None), ylim=(0, None))
    axes.set_title("% of the labels that are wrong, unseen world", loc="left", fontsize=10)


def main() -> None:
    mpl.use("Agg")
    folder = Path(sys.argv[1])
    tests = sorted((folder / "test-examples").glob("*.npz"))
    kept = [path for path in sorted((folder / "train-examples").glob("*.npz")) if aside(path)]
    sets = {
        "clips kept aside": [each for path in kept for each in read_examples(path)],
        "unseen world": [read_examples(path)[0] for path in tests],
    }
    figure, (right, hidden, labels) = plt.subplots(1, 3, figsize=(12, 3.5), layout="constrained")
    draw_reliability(right, "right", sets)
    draw_reliability(hidden, "hidden", sets)
    draw_labels(labels, folder, tests)
    right.legend(frameon=False, fontsize=8, loc="upper left")
    for axes in (right, hidden, labels):
        axes.spines[["top", "right"]].set_visible(False)
    to = Path(__file__).with_name("reliability.webp")
    figure.savefig(to, dpi=110, pil_kwargs={"quality": 85, "method": 6})


if __name__ == "__main__":
    main()
