"""Whose tracks may become labels: the checkpoints that NAME=FILE texts give to teachers, and none
that was never trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from teachers import ConfigError, TeacherInfo


def checkpoints(texts: Iterable[str], names: Sequence[str]) -> dict[str, str]:
    """Teacher -> file of its weights, from texts NAME=FILE. ConfigError for a text of another form,
    or with a name that is not in `names`."""
    found = {}
    for text in texts:
        name, separator, file = text.partition("=")
        if not separator or name not in names:
            raise ConfigError(
                f"--checkpoint {text}: write NAME=FILE with a NAME from --teachers "
                f"({', '.join(names)})."
            )
        found[name] = file
    return found


def refuse_untrained(infos: Mapping[str, TeacherInfo]) -> None:
    """ConfigError if a teacher's weights were never trained: noise is never a label."""
    untrained = [name for name, info in infos.items() if info.checkpoint_sha256 == "random"]
    if untrained:
        raise ConfigError(
            f"teacher {untrained[0]!r} has random weights: noise is never a label. Give it a "
            "checkpoint."
        )
