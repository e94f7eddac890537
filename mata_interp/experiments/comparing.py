"""The table of every paper, for any run: each condition against a baseline, by stratum if wanted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import nan
from typing import Any, Literal

import numpy as np
import pandas as pd

from ..errors import ArgumentError, unknown_name
from ..statistics import (
    benjamini_hochberg,
    count_flips,
    holm,
    max_t,
    odds_ratio,
    paired_effect,
    romano_wolf,
    standardised_change,
)
from .chance import chance_of

__all__ = ["CORRECTIONS", "compare_conditions"]

CORRECTIONS = ("max-t", "romano-wolf", "holm", "bh", "none")

Score = Literal["correct", "official", "margin", "correct_normalised", "margin_normalised"]
SCORES: tuple[Score, ...] = ("correct", "official", "margin", "correct_normalised", "margin_normalised")


def compare_conditions(  # noqa: PLR0913 the arguments of `Run.compare`, and two of its attributes
    records: pd.DataFrame,
    baseline: str,
    *,
    score: Score = "correct",
    by: str | None = None,
    conditions: Sequence[str] | None = None,
    correct: str = "max-t",
    seed: int = 0,
    level: float = 0.95,
    chosen_on: Mapping[str, Collection[str]] | None = None,
) -> pd.DataFrame:
    """Compare each condition with a baseline on the same items; see `mata_interp.Run.compare`.

    Args:
        records: One row per item and condition; items without a known answer are left out.
        baseline, score, by, conditions, correct, seed, level: As in `Run.compare`.
        chosen_on: Name of a condition -> the clips that it was chosen on. One that is compared on such a clip
            has no p-value.

    Raises:
        ArgumentError: A condition, a column or a correction does not exist, or an item was answered under one
            of the conditions only.
    """
    if correct not in CORRECTIONS:
        raise ArgumentError(unknown_name("correction", correct, CORRECTIONS))
    if score not in SCORES:
        raise ArgumentError(unknown_name("score", score, SCORES))
    if by is not None and by not in records:
        raise ArgumentError(unknown_name("column", by, list(records)))
    known = list(dict.fromkeys(records["condition"]))
    edited = [name for name in known if name != baseline] if conditions is None else list(conditions)
    for name in (baseline, *edited):
        if name not in known:
            raise ArgumentError(unknown_name("condition", name, known))
    scored = records.loc[records["answer"].notna()]
    strata = [None] if by is None else sorted(scored[by].dropna().unique(), key=str)
    chosen = chosen_on or {}
    rows: list[dict[str, Any]] = []
    for stratum in strata:
        part = scored if stratum is None else scored.loc[scored[by] == stratum]
        of_baseline = part.loc[part["condition"] == baseline].set_index("item")
        pairs = {name: _paired(part, of_baseline, name, baseline, score) for name in edited}
        about = {} if by is None else {by: stratum}
        for name, pair in pairs.items():
            clips = {*chosen.get(name, ()), *chosen.get(baseline, ())}
            row = _row(pair, score, seed, level, clips)
            rows.append({"condition": name, "baseline": baseline, **about, **row})
    table = pd.DataFrame(rows)
    if len(table):
        table["p_adjusted"] = _adjusted(table, scored, edited, baseline, score, by, correct, seed)
        order = [column for column in table.columns if column != "p_adjusted"]
        order.insert(order.index("p") + 1, "p_adjusted")
        table = table.loc[:, order]
    table.attrs = {"score": score, "correction": correct, "level": level, "seed": seed}
    return table


def _paired(
    part: pd.DataFrame, of_baseline: pd.DataFrame, name: str, baseline: str, score: str
) -> pd.DataFrame:
    """The items of a condition beside the baseline's; those without a value in either are counted."""
    of_condition = part.loc[part["condition"] == name].set_index("item")
    if set(of_condition.index) != set(of_baseline.index):
        missing = sorted(set(of_condition.index) ^ set(of_baseline.index), key=str)
        raise ArgumentError(
            f"Items of {name!r} and {baseline!r} differ: {len(missing)} were answered under one of them only "
            f"(the first: {missing[0]!r}). Finish the run first."
        )
    pair = of_baseline.join(of_condition.add_suffix("_after")).sort_index()
    values = pair[[score, f"{score}_after"]].astype(float)
    there = np.isfinite(values.to_numpy()).all(1)
    complete = values.loc[there]
    return pair.loc[there].assign(
        before=complete[score], after=complete[f"{score}_after"], left_out=(~there).sum()
    )


def _row(
    pair: pd.DataFrame, score: str, seed: int, level: float, chosen_on: Collection[str]
) -> dict[str, Any]:
    kind = "margin" if score.startswith("margin") else "binary"
    before, after = pair["before"].to_numpy(), pair["after"].to_numpy()
    effect = paired_effect(before, after, kind, pair["cluster"].tolist(), seed, level, chosen_on)
    row: dict[str, Any] = {
        "n": effect.n,
        "clips": effect.n_clusters,
        "left_out": int(pair["left_out"].iloc[0]) if len(pair) else 0,
        "chance": chance_of(pair),
        "before": effect.before,
        "after": effect.after,
        "difference": effect.difference,
        "low": effect.low,
        "high": effect.high,
        "p": effect.p,
    }
    if kind == "binary":
        ratio, ratio_low, ratio_high = odds_ratio(effect.fixed or 0, effect.broken or 0, level)
        row |= {"fixed": effect.fixed, "broken": effect.broken}
        row |= {"odds_ratio": ratio, "odds_low": ratio_low, "odds_high": ratio_high}
    else:
        row["standardised"] = standardised_change(before, after)
    flips = count_flips(pair["predicted"].tolist(), pair["predicted_after"].tolist(), pair["answer"].tolist())
    row |= {"churned": flips.churned, "churn": flips.churn}
    row["dose_kl"] = float(np.nanmean(pair["dose_kl_after"])) if _has_dose(pair) else nan
    return row


def _has_dose(pair: pd.DataFrame) -> bool:
    return "dose_kl_after" in pair and bool(pair["dose_kl_after"].notna().any())


def _adjusted(
    table: pd.DataFrame,
    scored: pd.DataFrame,
    edited: Sequence[str],
    baseline: str,
    score: str,
    by: str | None,
    correct: str,
    seed: int,
) -> np.ndarray:
    """The p-values of all rows that have one, as one family."""
    p = table["p"].to_numpy(dtype=float)
    adjusted, tested = np.full(len(p), nan), np.isfinite(p)
    if correct == "none" or not tested.any():
        return adjusted
    if correct in ("holm", "bh"):
        adjusted[tested] = (holm if correct == "holm" else benjamini_hochberg)(p[tested])
        return adjusted
    values = scored.pivot(index="item", columns="condition", values=score).astype(float)
    items = scored.drop_duplicates("item").set_index("item").loc[values.index]
    columns = []
    for _, row in table.loc[tested].iterrows():
        change = (values[row["condition"]] - values[baseline]).to_numpy()
        inside = np.ones(len(items), bool) if by is None else (items[by] == row[by]).to_numpy()
        columns.append(np.where(inside & np.isfinite(change), change, 0.0))  # others change nothing
    test = romano_wolf if correct == "romano-wolf" else max_t
    adjusted[tested] = test(np.array(columns).T, items["cluster"].tolist(), seed=seed).p
    return adjusted
