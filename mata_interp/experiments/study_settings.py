"""StudySettings: what `study`, `preregister`, `forecast_study` and `plan_study` take as keyword arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from ..benchmarks import Item, Items
from ..benchmarks.entries import as_items
from ..interventions import DEFAULT_ALPHAS, AttentionEdit
from .choosing import Search, candidates, resolve_search
from .conditions import Condition, Edit
from .extra_shams import check_shams
from .planning import StageSettings
from .study_plan import StudyExtras, StudySplits, other_methods

if TYPE_CHECKING:
    from ..fusion import FusionProfile
    from ..lalm import LALM, Decoding

__all__ = ["StudySettings"]


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """The settings of a study, with their defaults; `mata_interp.study` says what each means.

    >>> StudySettings(items_limit=6, shams=["heads", "heads"]).shams
    ('heads',)
    """

    layers: Iterable[int] | FusionProfile | None = None
    alphas: Sequence[float] = DEFAULT_ALPHAS
    rule: str = "abs"
    decoding: Decoding | None = None
    prompt_format: str = "options"
    items_limit: int | None = None
    batch_size: int = 16
    progress: bool = True
    seed: int = 0
    strict: bool = False
    search: Search | None = None
    methods: Mapping[str, Edit] | None = None
    crossfit: int | None = None
    shams: Sequence[str] = ()
    repeat_baseline: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "shams", check_shams(self.shams))

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> StudySettings:
        """Those of a function's arguments that are settings: call it with ``locals()`` in the first line.

        Args:
            arguments: Name -> value; other names are left out, and settings that are missing have their
                defaults.

        Raises:
            ArgumentError: There is no such sham.
        """
        names = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in arguments.items() if name in names})

    @property
    def stages(self) -> StageSettings:
        """How the stages are computed, without Ray."""
        return StageSettings(self.batch_size, self.progress, self.seed, self.prompt_format)

    @property
    def extras(self) -> StudyExtras:
        """What is done beside choosing and testing."""
        return StudyExtras(self.crossfit, tuple(self.shams), self.repeat_baseline)

    def other_methods(self, lalm: LALM) -> dict[str, Condition]:
        """The conditions of further methods; InterventionError if one cannot act, or its name is taken."""
        return other_methods(lalm, self.methods or {}, self.decoding)

    def configurations(self, lalm: LALM) -> dict[str, AttentionEdit]:
        """Name -> configuration to choose from; InterventionError if the model lacks its layers or rule."""
        return candidates(lalm, self.layers, self.alphas, self.rule)

    def splits(self, lalm: LALM, items: Items | Sequence[Item]) -> StudySplits:
        """The items of both splits, checked; RunError if a split has no usable item."""
        return StudySplits.of(lalm, as_items(items), self.items_limit, self.stages, self.strict)

    def resolved_search(self, configurations: Mapping[str, AttentionEdit], splits: StudySplits) -> Search:
        """How the configurations are tried: as asked for, else by their number and that of the clips."""
        return resolve_search(self.search, configurations, len(splits.to_sweep.clusters))
