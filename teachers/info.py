"""Info: which tracker made these tracks, and what it declares about itself. Every sample stores
it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from teachers.spdx import FORMER, allows_commercial_use
from teachers.tracks import VisibleRule

if TYPE_CHECKING:
    from teachers.interface import Teacher

Mode = Literal["predictor", "label", "recipe", "benchmark"]
"""predictor: the official predictor. label: every frame covered, for `tapdistill label`. recipe:
the published training script's call. benchmark: the TAP-Vid protocol of the CoTracker papers."""

MODES: tuple[Mode, ...] = get_args(Mode)

Precision = Literal["auto", "float32", "tf32", "bf16"]
"""How a network multiplies. float32: as it is written. tf32: on a GPU, factors are rounded to 11
significant bits; sums stay float32. bf16: the parts that can bear it with 8 bits, the others as
tf32. auto: tf32 on a GPU, float32 elsewhere."""

Preset = Literal["official", "mini"]
"""The size of a network."""


@dataclass(frozen=True, kw_only=True)
class TeacherInfo:
    """Who made these tracks; stored in every sample.

    What is left out from `licence` on, a teacher takes from its class: see the attributes of
    `Teacher` with the same names.
    """

    name: str
    architecture: str
    mode: Mode
    visible_rule: str
    licence: str = ""
    """SPDX id of the licence that binds whoever uses these tracks, such as "CC-BY-NC-4.0"."""
    checkpoint_sha256: str | None = None
    """None for a teacher without weights; "random" for weights that were never trained."""
    settings: dict[str, Any] = field(default_factory=dict)
    streams: bool | None = None
    tracks_jointly: bool | None = None
    knows_hidden_points: bool | None = None
    commercial_use: bool | None = None
    """None if that is not known."""
    evidence: str = ""
    precision: str = ""
    """How the network multiplied, "tf32" or "bf16"; empty means float32."""
    device: str = ""
    """The GPU that it ran on, with the versions of its libraries; empty means a CPU."""

    @property
    def rule(self) -> VisibleRule:
        return VisibleRule.parse(self.visible_rule)

    def completed(self, declared: type[Teacher]) -> TeacherInfo:
        """This info, with whatever it leaves out taken from the class of the teacher."""
        licence = self.licence or declared.licence
        commercial_use = self.commercial_use
        if commercial_use is None and licence == declared.licence:
            commercial_use = declared.commercial_use
        if commercial_use is None:
            commercial_use = allows_commercial_use(licence)
        switches = {
            name: getattr(declared, name) if getattr(self, name) is None else getattr(self, name)
            for name in ("streams", "tracks_jointly", "knows_hidden_points")
        }
        return replace(
            self,
            licence=licence,
            commercial_use=commercial_use,
            evidence=self.evidence or declared.evidence or f"network:{self.architecture}",
            **switches,
        )

    def to_json(self) -> dict[str, Any]:
        """As samples store it; fields that are empty on a CPU are left out, so that the bytes stay
        the same."""
        stored = asdict(self)
        return {k: v for k, v in stored.items() if v or k not in ("precision", "device")}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> TeacherInfo:
        """The inverse of `to_json`, for shards of this version, of earlier ones, and of later ones.

        Fields that version 0.1.0 did not store are filled in by the architecture, as far as that is
        known. A tracker that is not known is assumed to track each point alone, not to know where
        hidden points are, and to share its evidence with no other.
        """
        known = {field.name for field in fields(cls)}
        values = {name: value for name, value in stored.items() if name in known}
        texts = {name: str(values.get(name) or "") for name in _TEXTS}
        info = cls(**{"mode": "label", **values, **texts})
        former = next(
            (former for former in _FORMER if info.architecture.startswith(former.architecture)),
            _Former("", False, False, f"network:{info.architecture or info.name}"),
        )
        licence = FORMER.get(info.licence, info.licence)
        return replace(
            info,
            licence=licence,
            streams=bool(info.streams),
            tracks_jointly=_either(info.tracks_jointly, former.tracks_jointly),
            knows_hidden_points=_either(info.knows_hidden_points, former.knows_hidden_points),
            commercial_use=_either(info.commercial_use, allows_commercial_use(licence)),
            evidence=info.evidence or former.evidence,
        )


_TEXTS = (
    "name",
    "architecture",
    "visible_rule",
    "licence",
    "evidence",
    "precision",
    "device",
)


class _Former(NamedTuple):
    """What holds for an architecture whose tracks were stored before teachers declared it."""

    architecture: str
    """How the name of the architecture begins."""
    tracks_jointly: bool
    knows_hidden_points: bool
    evidence: str


_FORMER = (
    _Former("CoTracker3", True, True, "network:cotracker3"),
    _Former("CoTracker", True, True, "network:cotracker2"),
    _Former("PIPs++", False, True, "network:pips2"),
    _Former("PIPs", False, True, "network:pips"),
    _Former("TAPIR", False, False, "network:tapir"),
    _Former("BootsTAPIR", False, False, "network:tapir"),
    _Former("causal BootsTAPIR", False, False, "network:tapir"),
    _Former("XFeat", False, False, "patch-alignment"),
    _Former("pyramidal Lucas-Kanade", False, False, "patch-alignment"),
    _Former("descriptor matching", False, False, "patch-alignment"),
    _Former("chained dense flow", False, False, "flow"),
)
"""The trackers of version 0.1.0; the first that fits counts. Later ones declare these things
themselves."""


def _either(stored: bool | None, default: bool | None) -> bool | None:
    return default if stored is None else stored
