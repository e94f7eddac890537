"""What an edit did to each item's answer: fixed, broken, churned or unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import pandas as pd

from ..seeding import named_generator
from .conditions import Condition, Role

__all__ = ["OUTCOMES", "Outcome", "choose_examples", "outcomes_of", "recorded_conditions"]

Outcome = Literal["fixed", "broken", "churned", "unchanged"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
"""``fixed``: wrong before, right after. ``broken``: right before, wrong after. ``churned``: from one wrong
answer to another. ``unchanged``: the same answer."""

ROLES: tuple[Role, ...] = ("baseline", "mata", "sham_text")


def recorded_conditions(conditions: Mapping[str, Condition]) -> dict[str, Condition]:
    """The conditions that are recorded: the first with the item's own audio in each of three roles.

    Baseline, MATA, and the same rule on text, in this order; empty without a baseline.

    Args:
        conditions: Name -> condition of a run.
    """
    recorded: dict[str, Condition] = {}
    for role in ROLES:
        for name, condition in conditions.items():
            if condition.inferred_role == role and condition.audio == "own":
                recorded[name] = condition
                break
    return recorded if recorded and next(iter(recorded.values())).inferred_role == "baseline" else {}


def outcomes_of(records: pd.DataFrame, before: str, after: str) -> dict[str, Outcome]:
    """The outcome of every item that was answered under both conditions.

    An item without a known answer is ``churned`` where its answer changed.

    Args:
        records: Records of a run.
        before, after: Names of the conditions.
    """
    columns = ["item", "predicted", "correct"]
    first, second = (records.loc[records["condition"] == name, columns] for name in (before, after))
    both = first.merge(second, on="item", suffixes=("", "_after"))
    return {
        str(row["item"]): _outcome(
            row["predicted"], row["correct"], row["predicted_after"], row["correct_after"]
        )
        for row in both.to_dict("records")
    }


def _outcome(before: object, right_before: object, after: object, right_after: object) -> Outcome:
    known = not (_missing(right_before) or _missing(right_after))
    if known and bool(right_before) != bool(right_after):
        return "fixed" if right_after else "broken"
    same = before == after or (_missing(before) and _missing(after))
    return "unchanged" if same or (known and bool(right_after)) else "churned"


def _missing(value: object) -> bool:
    """Whether a value of a record is None or NaN."""
    return value is None or value != value


def choose_examples(outcomes: Mapping[str, Outcome], each: int, seed: int) -> tuple[str, ...]:
    """Items drawn at random for each outcome, in the order of `OUTCOMES`.

    Args:
        outcomes: Item id -> outcome.
        each: Number of items of each outcome, at most.
        seed: Seed of the draw, which has a stream of its own for each outcome.
    """
    chosen: list[str] = []
    for outcome in OUTCOMES:
        ids = sorted(item for item, recorded in outcomes.items() if recorded == outcome)
        generator = named_generator(seed, f"recorded items, {outcome}")
        drawn = generator.choice(len(ids), size=min(each, len(ids)), replace=False) if ids else []
        chosen += [ids[number] for number in sorted(drawn)]
    return tuple(chosen)
