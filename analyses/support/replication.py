"""The conditions of a replication of MATA, its tables, and the published numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

import mata_interp as mi
from mata_interp.errors import ArgumentError, unknown_name
from mata_interp.experiments.random_layers import random_layers
from mata_interp.interventions.published import CONVENTIONS, ENDS, published_convention
from mata_interp.statistics import holm

__all__ = ["PUBLISHED", "Choices", "conditions_of", "forecast_hours", "layer_conventions", "tables"]

PUBLISHED = (
    # benchmark, model, accuracies without and with MATA in %: sound, music, speech, average; as MATA's papers
    # report them (MMAR numbers from a digest). The claims of others, not expected values.
    ("MMAU v05.15.25 test-mini", "Qwen2-Audio", (67.1, 55.8, 55.4, 59.4), (71.2, 61.4, 61.8, 64.8)),
    ("MMAU v05.15.25 test-mini", "Qwen2.5-Omni", (77.8, 64.7, 70.9, 71.1), (79.9, 68.3, 72.7, 73.6)),
    ("MMAU test (9,000)", "Qwen2-Audio", (None, None, None, 57.3), (None, None, None, 57.3)),
    ("MMAU test (9,000)", "Qwen2.5-Omni", (None, None, None, 71.0), (None, None, None, 73.7)),
    ("MMAR", "Qwen2.5-Omni", (None, None, None, 56.6), (None, None, None, 61.2)),
    ("MMAR", "Ke-Omni-R", (None, None, None, 64.1), (None, None, None, 66.8)),
)


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What a replication varies.

    Attributes:
        alpha: strength.
        rules, phases: of the edit.
        layers: reading of the published layers -> the layers.
        answers: ``"generated"`` or ``"scored"``, or both.
        max_new_tokens: longest generated answer.
        random_draws: number of draws of random layers.
        seed: seed of the draws.
    """

    alpha: float
    rules: Sequence[str]
    phases: Sequence[str]
    layers: Mapping[str, tuple[int, ...]]
    answers: Sequence[str]
    max_new_tokens: int
    random_draws: int
    seed: int

    def __post_init__(self) -> None:
        for answers in self.answers:
            if answers not in ("generated", "scored"):
                raise ArgumentError(unknown_name("answers", answers, ("generated", "scored")))


def layer_conventions(lalm: mi.LALM, conventions: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Readings of the published layers, such as ``absolute-inclusive``, and the layers; equal ones once.

    Args:
        lalm: the model.
        conventions: the readings; all that the model's depth allows if empty.

    Raises:
        ArgumentError: a reading does not exist, or the model has too few layers for it.
    """
    known = [f"{convention}-{end}" for convention, end in product(CONVENTIONS, ENDS)]
    result: dict[str, tuple[int, ...]] = {}
    for name in conventions or known:
        if name not in known:
            raise ArgumentError(unknown_name("reading of the published layers", name, known))
        convention, end = name.split("-")
        try:
            layers = mi.published_layers(lalm, convention, end)
        except ArgumentError:
            if conventions:
                raise
            continue
        if layers not in result.values():
            result[name] = layers
    return result


def conditions_of(lalm: mi.LALM, choices: Choices) -> dict[str, mi.Condition]:
    """Every combination, its baseline and the controls, once for each kind of answers."""
    edits: dict[str, tuple[Any, Any]] = {"baseline": (None, "own")}
    for rule, phase, (reading, layers) in product(choices.rules, choices.phases, choices.layers.items()):
        edits[f"MATA {rule}, {reading}, {phase}"] = (_mata(choices, layers, rule, phase), "own")
    reading, layers = next(iter(choices.layers.items()))
    rule, phase = choices.rules[0], choices.phases[-1]
    edits[f"text {rule}, {reading}, {phase}"] = (_mata(choices, layers, rule, phase, "text"), "own")
    draws = random_layers(lalm.attention_layers, layers, choices.random_draws, choices.seed)
    for number, drawn in enumerate(draws, 1):
        edits[f"random layers {number}, {rule}, {phase}"] = (_mata(choices, drawn, rule, phase), "own")
    edits["other audio"] = (None, "other")
    edits[f"MATA {rule}, {reading}, {phase}, other audio"] = (_mata(choices, layers, rule, phase), "other")
    conditions = {}
    for answers, (name, (edit, audio)) in product(choices.answers, edits.items()):
        decoding = mi.Decoding(choices.max_new_tokens) if answers == "generated" else None
        conditions[f"{name} ({answers})"] = mi.Condition(
            edit, audio=audio, decoding=decoding, role=_role(name)
        )
    return conditions


def _mata(
    choices: Choices, layers: tuple[int, ...], rule: str, phase: str, keys: str = "audio"
) -> mi.AttentionEdit:
    return mi.Mata(choices.alpha, layers, rule, phase=phase, keys=keys)


def _role(name: str) -> Any:
    """The roles of the first combination and its controls are left open: there are many combinations."""
    return "other" if name != "baseline" else "baseline"


def forecast_hours(
    lalm: mi.LALM, items: Any, conditions: Mapping[str, mi.Condition], folder: Path, **settings: Any
) -> float:
    """Hours left of one run, on one device of the kind at hand; 0 if nothing is left."""
    return (mi.forecast(lalm, items, conditions, folder, **settings).seconds or 0.0) / 3600


def tables(runs: Mapping[tuple[str, str], mi.Run], seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Effects of all combinations, and accuracies by domain.

    The first has the columns of `mata_interp.Run.compare` and ``benchmark``, ``prompt``, ``answers``,
    ``score`` (official or option-aware), ``role`` (MATA or control). MATA's combinations on one benchmark are
    one family (Holm), over prompts, answers and scores; controls are not corrected.
    """
    effects, accuracies = [], []
    for (benchmark, prompt), run in runs.items():
        kinds = [kind for kind in ("generated", "scored") if f"baseline ({kind})" in run.conditions]
        for answers in kinds:
            labels = {"benchmark": benchmark, "prompt": prompt, "answers": answers}
            mine = [name for name in run.conditions if name.endswith(f"({answers})")]
            scores = {"option-aware": "correct", "official": "official"}
            for score, column in scores.items():
                if column == "official" and answers == "scored":
                    continue
                table = _compared(run, mine, answers, column, seed)
                effects.append(table.assign(**labels, score=score))
            accuracies.append(_by_domain(run, mine).assign(**labels))
    joined = pd.concat(effects, ignore_index=True)
    joined["p_adjusted"] = float("nan")
    for _, rows in joined.loc[joined["role"] == "MATA"].groupby("benchmark"):
        joined.loc[rows.index, "p_adjusted"] = holm(rows["p"].to_numpy())
    return joined, pd.concat(accuracies, ignore_index=True)


def _compared(run: mi.Run, names: Sequence[str], answers: str, column: Any, seed: int) -> pd.DataFrame:
    """Each condition against the baseline with the same audio."""
    rows = []
    for other in (False, True):
        baseline = f"other audio ({answers})" if other else f"baseline ({answers})"
        conditions = [name for name in names if name != baseline and ("other audio (" in name) is other]
        if conditions:
            rows.append(run.compare(baseline, score=column, conditions=conditions, correct="none", seed=seed))
    table = pd.concat(rows, ignore_index=True)
    is_mata = table["condition"].str.startswith("MATA") & ~table["condition"].str.contains("other audio")
    return table.assign(role=is_mata.map({True: "MATA", False: "control"}))


def _by_domain(run: mi.Run, names: Sequence[str]) -> pd.DataFrame:
    """Option-aware and official accuracy of each condition, by domain and over all; parse failures."""
    records = run.records.loc[run.records["condition"].isin(names) & run.records["answer"].notna()]
    parts = {"all": records, **dict(iter(records.groupby("domain")))}
    return pd.DataFrame(
        [
            {
                "condition": condition,
                "domain": domain or "not stated",
                "n": len(rows),
                "option_aware": float(rows["correct"].astype(float).mean()),
                "official": float(rows["official"].astype(float).mean()),
                "not_parsed": int((~rows["parsed"].astype("boolean").fillna(True)).sum()),
            }
            for domain, part in parts.items()
            for condition, rows in part.groupby("condition", sort=False)
        ]
    )


def published_rows() -> list[dict[str, Any]]:
    """The papers' numbers as rows for the page."""
    return [
        {"benchmark": benchmark, "model": model, "before": before, "after": after}
        for benchmark, model, before, after in PUBLISHED
    ]


def readings(lalm: mi.LALM, choices: Choices) -> list[str]:
    """The readings of the published layers in words."""
    return [
        f"{name}: {published_convention(lalm, *name.split('-'))}, layers {layers[0]} to {layers[-1]}"
        for name, layers in choices.layers.items()
    ]
