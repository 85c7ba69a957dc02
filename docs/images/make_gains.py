"""Makes gains.webp, or a picture of another name: what students gain, by what taught them. OUT is
the folder of `experiments.policies`; policies of which it has no training are left out.

python docs/images/make_gains.py OUT [gains-night.webp]
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from experiments.policies.config import WORLDS, Experiment, StudentName, World
from experiments.policies.scores import differences, figures_of, lessons, scored
from labeler.labels.policies import Policy
from student.evaluation.evaluate import FIGURES

SAYS = {
    "random-agreeing": "where teachers agree",
    "random": "a random teacher",
    "random-verified": "a random teacher,\nwhere verified",
    "verified": "what the verifier trusts",
    "self": "its own tracks",
    "oracle": "nearest teacher (oracle)",
    "truth": "exact tracks (truth)",
}
COLOURS = ("#0072B2", "#D55E00")


def trained(
    experiment: Experiment, world: World, student: StudentName, policy: Policy
) -> list[pd.DataFrame]:
    """`scored` of each training that there is."""
    names = [str(lesson) for lesson in lessons(experiment, world, student, policy)]
    return [
        scored(experiment, world, name)
        for name in names
        if figures_of(experiment, world, name).exists()
    ]


def draw(
    axes: Sequence[Axes], experiment: Experiment, student: StudentName, policies: Sequence[Policy]
) -> None:
    """A panel for each figure, a row for each policy, a colour for each world."""
    for world, colour, shift in zip(WORLDS, COLOURS, (-0.13, 0.13), strict=True):
        began = scored(experiment, world, student)
        for at, policy in enumerate(policies):
            students = trained(experiment, world, student, policy)
            if not students:
                continue
            for panel, (mean, low, high) in zip(axes, differences(students, [began]), strict=True):
                panel.plot((low, high), (at + shift, at + shift), color=colour, lw=1.5)
                panel.plot(mean, at + shift, "o", color=colour, ms=5)
    for panel, figure in zip(axes, FIGURES, strict=True):
        panel.axvline(0, color="#888888", lw=1)
        panel.set_title(figure, loc="left", fontsize=10)
        panel.set_yticks(np.arange(len(policies)), [SAYS[each] for each in policies])
        panel.tick_params(axis="y", length=0, labelleft=panel is axes[0])
        panel.set_ylim(len(policies) - 0.5, -0.5)
        panel.spines[["top", "right", "left"]].set_visible(False)
    axes[1].set_xlabel(f"points above what {student} began with")


def main() -> None:
    mpl.use("Agg")
    out, name = (*sys.argv[1:], "gains.webp")[:2]
    experiment = Experiment(out=Path(out))
    figure, rows = plt.subplots(
        len(experiment.students), len(FIGURES), figsize=(10, 6.5), layout="constrained"
    )
    for axes, student in zip(rows, experiment.students, strict=True):
        done = [
            policy
            for policy in SAYS
            if any(trained(experiment, world, student, policy) for world in WORLDS)
        ]
        draw(axes, experiment, student, done)
    for world, colour in zip(WORLDS, COLOURS, strict=True):
        rows[0, 0].plot([], [], "o-", color=colour, label=f"world {world}")
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    to = Path(__file__).with_name(name)
    figure.savefig(to, dpi=110, pil_kwargs={"quality": 85, "method": 6})


if __name__ == "__main__":
    main()
