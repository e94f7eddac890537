"""The effects of methods on held-out items: against the baseline, against each other, and on other items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

import mata_interp as mi
from mata_interp.experiments.no_harm import MARGINS
from mata_interp.experiments.planned_comparisons import primary_subset
from mata_interp.interventions import describe
from mata_interp.statistics import no_harm

__all__ = ["BASELINE", "OTHER", "WITH_OTHER", "bounded", "comparison", "harm", "option_divergence", "table"]

BASELINE = "baseline"
OTHER = "other audio"  # the baseline with another clip's audio
WITH_OTHER = "{}, other audio"  # a method with it

LARGEST = 20.0  # nats
Records: TypeAlias = pd.DataFrame


def bounded(margins: Any) -> Any:
    """Log-probability differences, at most 20 nats: contrastive methods drop options altogether, to -inf.

    Where all options are dropped, there is no difference: 0.
    """
    return margins.where(~np.isnan(margins), 0.0).clip(-LARGEST, LARGEST)


def _values(records: Records, condition: str, column: str) -> pd.Series:
    rows = records.loc[records["condition"] == condition].set_index("item")[column]
    values = rows.sort_index().astype(float)
    return bounded(values) if column == "margin" else values


def comparison(records: Records, before: str, after: str, column: str, seed: int) -> mi.Effect:
    """One condition against another on the same items, clips as units.

    Args:
        records: of the items.
        before, after: names of conditions.
        column: ``"correct"`` or ``"margin"``.
        seed: of permutations and bootstraps.
    """
    old, new = (_values(records, name, column) for name in (before, after))
    clusters = records.drop_duplicates("item").set_index("item").loc[old.index, "cluster"]
    kind: Any = "binary" if column == "correct" else "margin"
    return mi.paired_effect(old, new.loc[old.index], kind, clusters=clusters.tolist(), seed=seed)


def table(
    records: Records, methods: Mapping[str, Any], costs: Mapping[str, Mapping[str, float]], seed: int
) -> list[dict[str, Any]]:
    """One row for each method, in the order of the lower end of the interval of accuracy.

    p-values are Holm-adjusted over the methods.

    Args:
        records: of a run with the conditions `BASELINE`, every method, and both with other audio.
        methods: name -> tuned method.
        costs: name -> `relative_cost`.
        seed: of permutations and bootstraps.
    """
    main = _where(records, primary_subset(records))
    rows = []
    for name, method in methods.items():
        accuracy, margin = (comparison(main, BASELINE, name, c, seed) for c in ("correct", "margin"))
        control = comparison(main, OTHER, WITH_OTHER.format(name), "correct", seed)
        dose = _values(main, name, "dose_kl")
        left = _values(main, name, "dose_left_alone")
        row = {
            "method": name,
            "settings": describe(method),
            "items": accuracy.n,
            "clips": accuracy.n_clusters,
            **_flat("accuracy", accuracy),
            "before": accuracy.before,
            "after": accuracy.after,
            "fixed": accuracy.fixed,
            "broken": accuracy.broken,
            **_flat("margin", margin),
            "control": control.difference,
            "control_low": control.low,
            "control_high": control.high,
            "dose_kl": _mean(dose),
            "left_alone": _mean(left),
            "option_kl": option_divergence(main, name),
            "cost_prompt": costs[name]["prompt"],
            "cost_token": costs[name]["token"],
        }
        rows.append(row)
    for row, p in zip(rows, mi.holm([row["accuracy_p"] for row in rows]), strict=True):
        row["p_holm"] = float(p)
    harms = harm(records, list(methods))
    for row in rows:
        row["harm"] = harms[row["method"]]
    return sorted(rows, key=lambda row: -row["accuracy_low"])


def _flat(name: str, effect: mi.Effect) -> dict[str, Any]:
    values = {"": effect.difference, "_low": effect.low, "_high": effect.high, "_p": effect.p}
    return {f"{name}{end}": float(value) for end, value in values.items()}


def _mean(values: pd.Series) -> float | None:
    known = values.dropna()
    return float(known.mean()) if len(known) else None


def _where(records: Records, subset: Mapping[str, str]) -> Records:
    for column, value in subset.items():
        records = records.loc[records[column] == value]
    return records


def option_divergence(records: Records, condition: str) -> float:
    """Mean KL of the distribution over the options from that of the baseline, nats: a dose of any method."""
    both = [
        records.loc[records["condition"] == name].set_index("item")["logprob"].sort_index()
        for name in (BASELINE, condition)
    ]
    divergences = []
    for old, new in zip(*both, strict=True):
        p, q = (_distribution(x) for x in (new, old))
        inside = p > 0
        divergences.append(float((p[inside] * np.log(p[inside] / np.maximum(q[inside], 1e-300))).sum()))
    return float(np.mean(divergences))


def _distribution(logprob: Sequence[float]) -> np.ndarray:
    values = np.asarray(logprob, dtype=float)
    if not np.isfinite(values).any():
        return np.full(len(values), 1 / len(values))
    shifted = np.exp(values - values[np.isfinite(values)].max())
    return shifted / shifted.sum()


def harm(records: Records, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Equivalence of accuracy within 5 points on items that a method should not change, Holm over methods.

    Args:
        records: of all items. Those whose caption contradicts the audio are left out.
        names: of methods.

    Returns:
        name -> difference, its 90 % interval, and the verdict; {} where there are no other items.
    """
    agreeing = records.loc[records["caption_condition"] != "conflict"]
    if agreeing.empty or not primary_subset(records):
        return {name: {} for name in names}
    clusters = agreeing.drop_duplicates("item").set_index("item")["cluster"]
    tests = {}
    for name in names:
        old, new = (_values(agreeing, each, "correct") for each in (BASELINE, name))
        labels = clusters.loc[old.index].tolist()
        tests[name] = no_harm(old, new.loc[old.index], MARGINS["binary"], "binary", clusters=labels)
    known = [name for name in names if np.isfinite(tests[name].p_equivalence)]
    adjusted = dict(zip(known, mi.holm([tests[name].p_equivalence for name in known]), strict=True))
    return {
        name: {
            "difference": test.difference,
            "low": test.low,
            "high": test.high,
            "p_holm": float(adjusted.get(name, np.nan)),
            "none": bool(adjusted.get(name, 1.0) < test.level),
        }
        for name, test in tests.items()
    }
