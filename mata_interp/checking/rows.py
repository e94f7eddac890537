"""Are the attention rows that the package reads those of the model?"""

from __future__ import annotations

import torch
from torch import Tensor

import mata_interp as mi
from mata_interp.attention import AttentionCall
from mata_interp.lalm.calls.attention_calls import attention_calls

from .bounds import SUMS
from .context import CheckContext
from .results import Measurement, register_check

__all__ = ["fast_rows"]

DIFFERS = (
    "Attention is read wrongly in this model: do not use its traces. Please report it with this output and "
    "the names of the keywords that the model hands to its attention function."
)


@register_check(
    "rows sum to 1",
    "the masses of all token groups together, in the trace of the last prompt token",
    "Some tokens are in no group or in two, or attention goes where no key is: look at prompt.groups.",
)
def _sums(subject: CheckContext) -> Measurement:
    trace = mi.trace(subject.lalm, subject.prompt, "last", progress=False)
    mass = trace["mass"]
    total = mass.sum("group", skipna=False).values[~mass.isnull().all("group").values]
    off = float(abs(total - 1).max()) if total.size else float("nan")
    bound = SUMS.get(subject.lalm.dtype, 1e-5)
    return Measurement(f"off by {off:.1g} at most", off, bound)


@register_check(
    "rows equal eager attention",
    "the last prompt token's attention weights in every layer and head, read at the model's own attention "
    "call, and those that its eager attention returns",
    DIFFERS,
)
def _rows(subject: CheckContext) -> Measurement:
    ours, routing = subject.seen(lambda: fast_rows(subject))
    theirs = subject.eager.weights(subject.prompt.inputs, lambda weights: weights[:, :, -1], routing)
    off = {layer: _apart(ours[layer], theirs[layer]) for layer in ours}
    worst = max(off, key=lambda layer: (off[layer] != off[layer], off[layer]))
    told = f"off by {off[worst]:.1g} at most, in layer {worst}; {len(off)} layers"
    return Measurement(told, off[worst], subject.row_bound, unsure=subject.unsure)


@register_check(
    "trace equals eager attention",
    "the masses of mi.trace by layer, head and group, of the last token and of the text behind the audio, "
    "and those summed up from the model's eager attention",
    DIFFERS,
)
def _trace(subject: CheckContext) -> Measurement:
    lalm, prompt = subject.lalm, subject.prompt
    groups = torch.stack(list(prompt.groups.values()), 1).float()  # (B, G, T)
    # whatever is asked, a trace is this forward
    _, routing = subject.seen(lambda: mi.trace(lalm, prompt, "last", progress=False))
    masses = subject.eager.weights(
        prompt.inputs, lambda w: w @ groups.transpose(1, 2)[:, None, : w.shape[-1]].to(w), routing
    )
    told, worst = [], 0.0
    for query in ("last", "text"):
        try:
            trace = mi.trace(lalm, prompt, query, progress=False, per_query=True)
        except mi.errors.ItemError as nothing:  # no text stands behind the audio
            told.append(f"{query}: {nothing.problem}")
            continue
        off = 0.0
        grouped = (
            torch.stack(list(prompt.groups.values())).any(0).cpu()
        )  # a trace counts positions among these
        for b in range(prompt.size):
            places = trace["position"].values[b][: int(trace["n_queries"][b])]
            rows = grouped[b].nonzero()[:, 0][places.tolist()]
            for layer, mass in masses.items():
                ours = trace["mass"].sel(layer=layer).values[b, : mass.shape[1], :, : len(rows)]  # (H, G, Q)
                theirs = mass[b].cpu()[:, rows].transpose(1, 2)
                off = max(off, _apart(torch.from_numpy(ours), theirs), key=lambda x: (x != x, x))
        told.append(f"{query}: off by {off:.1g}")
        worst = max(worst, off, key=lambda x: (x != x, x))
    return Measurement("; ".join(told), worst, subject.row_bound, unsure=subject.unsure)


def fast_rows(subject: CheckContext) -> dict[int, Tensor]:
    """Of each attention layer, the last query's weights as read at the attention call: float32 [B, H, L]."""
    lalm, inputs = subject.lalm, subject.prompt.inputs
    rows: dict[int, Tensor] = {}

    def on_call(layer: int, call: AttentionCall, total: int) -> None:
        rows[layer] = call.scores(slice(-1, None)).softmax(-1)[:, :, 0]

    calls = attention_calls(lalm.structure, lalm.attention_layers, on_call, stop_early=True)
    with torch.inference_mode(), calls as run:
        run(lambda: lalm.model(**inputs, use_cache=False))
    return rows


def _apart(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference; NaN where there is one or the shapes differ."""
    if ours.shape != theirs.shape:
        return float("nan")
    return float((ours - theirs.to(ours.device)).abs().max())
