"""Text dominance and text prior from a run's records."""

from __future__ import annotations

import pandas as pd
import pytest

from mata_interp.benchmarks import Item
from mata_interp.errors import RunError
from mata_interp.experiments.reliance import text_dominance_of, text_prior_of


def items() -> list[Item]:
    usual = {"audio": None, "question": "Which?", "choices": ["dog", "bell", "rain"], "answer": "dog"}
    says = ["bell", "bell", "bell", "dog", None, "bell"]
    return [Item(id=f"q{n}", caption_answer=text, **usual) for n, text in enumerate(says)]


def records(**predicted: list[str | None]) -> pd.DataFrame:
    rows = [
        {"item": f"q{n}", "condition": name, "cluster": f"c{n}", "answer": "dog", "predicted": option}
        | {"correct": option == "dog"}
        for name, options in predicted.items()
        for n, option in enumerate(options)
    ]
    return pd.DataFrame(rows)


def test_only_captions_that_contradict_count():
    table = records(
        baseline=["bell", "dog", "rain", "dog", "bell", None],
        mata=["dog", "dog", "dog", "bell", "bell", "dog"],
    )
    rates = text_dominance_of(table, items())
    assert list(rates) == ["baseline", "mata"]
    assert (rates["baseline"].value, rates["baseline"].denominator, rates["baseline"].n) == (0.5, 2, 4)
    assert (rates["mata"].value, rates["mata"].n_clusters) == (0, 4)
    assert text_dominance_of(table, items()[3:5]) == {}


def test_text_prior_on_the_items_that_both_conditions_have():
    table = records(baseline=["dog", "dog", "dog", "rain", "dog"], none=["dog", "rain", "bell", "dog"])
    rate = text_prior_of(table, without="none")
    assert (rate.n, rate.numerator, rate.denominator) == (4, 2, 3)
    with pytest.raises(RunError, match=r"no condition 'silence'; it has \['baseline', 'none'\]"):
        text_prior_of(table, without="silence")
