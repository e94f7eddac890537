"""The plan of a study: items to choose on and to test on, its conditions, and the files it writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..benchmarks import Items
from ..errors import InterventionError, RunError
from ..interventions import AttentionEdit
from .choosing import BASELINE, GRID_ITEMS
from .conditions import Condition, Edit
from .extra_shams import extra_shams
from .planned_comparisons import CONFLICT
from .planning import StageSettings
from .preparation import bind_conditions
from .validation import ValidatedItems, validate_items

if TYPE_CHECKING:
    from ..lalm import LALM, Decoding

__all__ = [
    "DRAWS",
    "SHAM",
    "SWEEP",
    "TRACE",
    "StudyExtras",
    "StudySplits",
    "other_methods",
    "study_conditions",
]

SWEEP, TRACE, SHAM = "selection.nc", "trace.nc", "sham.json"
DRAWS = 5  # of random layers

TRACE_ITEMS = 300  # of the selection split, spread evenly
MATCH_ITEMS = 48  # of the swept items: the sham's alpha needs a mean, not a test


@dataclass(frozen=True)
class StudySplits:
    """The items of a study, checked.

    Attributes:
        selection: Those on which layers and alpha are chosen.
        test: Those of the other split, on which they are tested.
        to_sweep, to_trace, to_match: Those of the selection that each stage uses.
    """

    selection: ValidatedItems
    test: ValidatedItems
    to_sweep: ValidatedItems
    to_trace: ValidatedItems
    to_match: ValidatedItems

    @classmethod
    def of(
        cls, lalm: LALM, items: Items, limit: int | None, settings: StageSettings, strict: bool
    ) -> StudySplits:
        """Split the items and check each.

        Args:
            lalm: The model.
            items: Items of both splits.
            limit: Number of items of each split, at most.
            settings: Seed, progress and prompt format.
            strict: Raise for an item that cannot be used.

        Raises:
            RunError: A split has no usable item.
        """
        seed = settings.seed
        chosen, tested = (_split(items, name, limit, seed) for name in ("selection", "confirmation"))
        checks = {"progress": settings.progress, "scored": True, "strict": strict}
        selection = validate_items(lalm, chosen, format=settings.prompt_format, **checks)
        test = validate_items(lalm, tested, format=settings.prompt_format, **checks)
        to_sweep = selection.only(_conflict_items(chosen).sample(GRID_ITEMS, seed=seed))
        to_trace = selection.only(chosen.sample(TRACE_ITEMS, seed=seed))
        return cls(selection, test, to_sweep, to_trace, to_sweep.only(to_sweep.items[:MATCH_ITEMS]))

    @property
    def to_crossfit(self) -> ValidatedItems:
        """The items of both splits that the primary comparison would be on."""
        test = self.test.only(_conflict_items(self.test.as_items()))
        conflict = all(item.condition == CONFLICT for item in test.items)
        chosen = self.selection.items
        selection = self.selection.only([i for i in chosen if not conflict or i.condition == CONFLICT])
        return selection.joined(test)


@dataclass(frozen=True)
class StudyExtras:
    """What a study does beside choosing and testing.

    Attributes:
        crossfit: Number of folds of the cross-fitted selection; None: none.
        shams: Further shams, names among `SHAMS`.
        repeat_baseline: Whether the baseline is repeated at another batch size.
    """

    crossfit: int | None = None
    shams: tuple[str, ...] = ()
    repeat_baseline: bool = False


def _split(items: Items, name: str, limit: int | None, seed: int) -> Items:
    split = items.split(name, seed=seed)
    if not len(split):
        raise RunError(f"{items.name} has no item in its {name} split; a study needs both splits.")
    return split if limit is None else split.sample(limit, seed=seed)


def _conflict_items(items: Items) -> Items:
    """The items whose caption contradicts the audio; all items where there are none."""
    conflict = items.filter(condition=CONFLICT)
    return conflict if len(conflict) else items


def study_conditions(
    mata: AttentionEdit,
    sham_alpha: float,
    draws: Mapping[tuple[int, ...], float],
    shams: Sequence[str] = (),
    heads: Mapping[int, int] | None = None,
    seed: int = 0,
    alphas: Mapping[str, float] | None = None,
) -> dict[str, Condition]:
    """MATA, its baseline and its controls, in the order in which they are reported.

    Args:
        mata: The chosen configuration.
        sham_alpha: Strength of the sham on text.
        draws: Random layers -> strength of MATA in them.
        shams: Further shams, names among `SHAMS`.
        heads: Number of query heads of each decoder layer, for shams in random heads.
        seed: Seed of the random heads.
        alphas: Strength of the shams in random heads at MATA's dose; None: MATA's own.
    """
    on_text = replace(mata, alpha=sham_alpha, keys="text")
    random = {
        f"mata in random layers {n}": Condition(
            replace(mata, layers=layers, alpha=alpha, chosen_on=()), role="sham_random_layers"
        )
        for n, (layers, alpha) in enumerate(draws.items(), 1)
    }
    return {
        BASELINE: Condition(role="baseline"),
        "mata": Condition(mata, role="mata"),
        "mata on text": Condition(on_text, role="sham_text"),
        **random,
        "other audio": Condition(audio="other", role="other_audio"),
        "mata + other audio": Condition(mata, audio="other", role="mata_other_audio"),
        "no audio": Condition(audio="none", role="no_audio"),
        **extra_shams(mata, shams, heads or {}, seed, alphas),
    }


def other_methods(lalm: LALM, methods: Mapping[str, Edit], decoding: Decoding | None) -> dict[str, Condition]:
    """The conditions of further methods, measured on the items of the test beside MATA.

    Args:
        lalm: The model.
        methods: Name -> intervention.
        decoding: How answers are generated; None: options are compared.

    Raises:
        InterventionError: One cannot act on the model, or has the name of a condition of every study.
    """
    if not methods:
        return {}
    any_edit = AttentionEdit(0.0, [])
    reserved = set(study_conditions(any_edit, 0.0, dict.fromkeys([(n,) for n in range(DRAWS)], 0.0)))
    if taken := reserved & set(methods):
        raise InterventionError(f"A study has a condition {min(taken)!r} of its own: choose another name.")
    named = bind_conditions(lalm, methods, decoding)
    return {name: replace(condition, role="other") for name, condition in named.items()}
