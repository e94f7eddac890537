"""Which lines of a check there are, and which fail."""

from __future__ import annotations

import mata_interp as mi
from mata_interp.lalm import LALM, Prompt

NAMES = [
    "same twice",
    "sound at its placeholders",
    "rows sum to 1",
    "rows equal eager attention",
    "trace equals eager attention",
    "alpha 0 is no edit",
    "edit reaches the logits",
    "alone as in a batch",
    "prefill and decode as one pass",
    "both backends give the same bits",
    "options scored as one pass",
    "a sweep equals the loop",
    "transformer-lens agrees",
    "the model is left as found",
]


def failed(lalm: LALM, prompt: Prompt | None = None) -> set[str]:
    report = mi.check(lalm, prompt)
    assert [line.name for line in report.lines] == NAMES
    for line in report.failed:
        assert line.remedy
    return {line.name for line in report.failed}
