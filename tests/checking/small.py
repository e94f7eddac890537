"""The names of all checks, and which of them fail on a model."""

from __future__ import annotations

import mata_interp as mi
from mata_interp.lalm import LALM, Prompt

NAMES = [
    "two runs give equal logits",
    "audio changes only its placeholders",
    "audio reaches the model to its end",
    "attention rows sum to 1",
    "attention rows equal eager attention",
    "trace equals eager attention",
    "alpha 0 leaves logits unchanged",
    "edited logits equal eager attention",
    "batch equals single prompts",
    "cached decoding equals one pass",
    "both backends give equal logits",
    "option scores equal one pass",
    "sweep equals loop",
    "transformer-lens agrees",
    "model is unchanged after the checks",
]


def failed(lalm: LALM, prompt: Prompt | None = None) -> set[str]:
    """Names of the checks that fail; none of them ends in an error of its own."""
    report = mi.check(lalm, prompt)
    assert [result.name for result in report.results] == NAMES
    for result in report.failed:
        assert result.verdict == "fail", result
        assert result.remedy
    return {result.name for result in report.failed}
