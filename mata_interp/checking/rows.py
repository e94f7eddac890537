"""Checks of attention rows: what the package reads equals the model's own attention."""

from __future__ import annotations

import torch
import xarray as xr
from torch import Tensor

from mata_interp.attention import AttentionCall
from mata_interp.errors import ItemError
from mata_interp.lalm import Prompt
from mata_interp.lalm.calls.attention_calls import attention_calls
from mata_interp.lalm.prompting.groups import partition
from mata_interp.tracing import trace

from .bounds import SUMS
from .context import CheckContext, last_query
from .edits import nan_first
from .registry import register_check
from .results import Measurement

__all__ = ["CHECKS", "last_rows"]

REMEDY = (
    "Attention is read wrongly in this model: do not use its traces. Please report it with this output and "
    "the names of the keyword arguments that the model passes to its attention function."
)


@register_check(
    name="attention rows sum to 1",
    compared="the masses of all token groups together, in the trace of the last prompt token",
    remedy="Some tokens are in no group or in two, or attention falls on positions without a key: look at "
    "prompt.groups.",
)
def row_sums(context: CheckContext) -> Measurement:
    mass = trace(context.lalm, context.prompt, "last", progress=False)["mass"]
    total = mass.sum("group", skipna=False).values[~mass.isnull().all("group").values]
    difference = float(abs(total - 1).max()) if total.size else float("nan")
    bound = SUMS.get(context.lalm.dtype, 1e-5)
    return Measurement(f"largest difference {difference:.3g}", difference, bound)


@register_check(
    name="attention rows equal eager attention",
    compared="the last prompt token's attention weights in every layer and head, read at the model's own "
    "attention call, and those that its eager attention returns",
    remedy=REMEDY,
)
def rows_equal_eager(context: CheckContext) -> Measurement:
    rows, routing = context.with_routing(lambda: last_rows(context))
    reference, flips = context.eager.weights(context.prompt.inputs, last_query, routing)
    apart = {layer: _difference(rows[layer], reference[layer]) for layer in rows}
    worst = max(apart, key=lambda layer: nan_first(apart[layer]))
    measured = f"largest difference {apart[worst]:.3g}, in layer {worst}; {len(apart)} layers"
    bound = context.weight_bound(apart[worst])
    return Measurement(measured, apart[worst], bound, unsure=context.unsure, flips=flips)


@register_check(
    name="trace equals eager attention",
    compared="the masses of mi.trace by layer, head and group, of the last token and of the text after the "
    "audio, and those summed from the model's eager attention",
    remedy=REMEDY,
)
def trace_equals_eager(context: CheckContext) -> Measurement:
    lalm, prompt = context.lalm, context.prompt
    groups = torch.stack(list(partition(prompt.groups).values()), 1).float()  # (B, G, T)
    # every trace is this forward pass, whatever its query
    _, routing = context.with_routing(lambda: trace(lalm, prompt, "last", progress=False))
    traces: dict[str, xr.Dataset] = {}
    notes = {}
    for query in ("last", "text"):
        try:
            traces[query] = trace(lalm, prompt, query, progress=False, per_query=True)
        except ItemError as error:  # there is no text after the audio
            notes[query] = error.problem
    compared = torch.zeros_like(groups[:, 0])  # (B, T), 1 for the tokens whose attention is compared
    for traced in traces.values():
        for b, rows in enumerate(_rows(prompt, traced)):
            compared[b, rows.to(compared.device)] = 1.0

    def masses_of(weights: Tensor) -> Tensor:
        masses = weights @ groups.transpose(1, 2)[:, None, : weights.shape[-1]].to(weights)
        return masses * compared[:, None, :, None].to(weights)

    masses, flips = context.eager.weights(prompt.inputs, masses_of, routing)
    worst = 0.0
    for query, traced in traces.items():
        difference = _trace_difference(prompt, traced, masses)
        notes[query] = f"largest difference {difference:.3g}"
        worst = max(worst, difference, key=nan_first)
    measured = "; ".join(f"{query}: {note}" for query, note in notes.items())
    return Measurement(
        measured, worst, context.weight_bound(worst, masses_of), unsure=context.unsure, flips=flips
    )


CHECKS = (row_sums, rows_equal_eager, trace_equals_eager)


def _rows(prompt: Prompt, traced: xr.Dataset) -> list[Tensor]:
    """The decoder positions of the queries of each traced prompt, int [Q]."""
    grouped = torch.stack(list(prompt.groups.values())).any(0).cpu()  # a trace counts positions among these
    counts = traced["n_queries"].values.astype(int)
    positions = [traced["position"].values[b][: counts[b]].tolist() for b in range(prompt.size)]
    return [grouped[b].nonzero()[:, 0][positions[b]] for b in range(prompt.size)]


def _trace_difference(prompt: Prompt, traced: xr.Dataset, masses: dict[int, Tensor]) -> float:
    """Largest difference between a trace and masses [B, H, T, G] of eager attention."""
    worst = 0.0
    for b, rows in enumerate(_rows(prompt, traced)):
        for layer, mass in masses.items():
            values = traced["mass"].sel(layer=layer).values[b, : mass.shape[1], :, : len(rows)]  # (H, G, Q)
            reference = mass[b].cpu()[:, rows].transpose(1, 2)
            worst = max(worst, _difference(torch.from_numpy(values), reference), key=nan_first)
    return worst


def last_rows(context: CheckContext) -> dict[int, Tensor]:
    """The last query's weights in each attention layer, read at the attention call: float32 [B, H, L]."""
    lalm, inputs = context.lalm, context.prompt.inputs
    rows: dict[int, Tensor] = {}

    def on_call(layer: int, call: AttentionCall, total: int) -> None:
        rows[layer] = call.scores(slice(-1, None)).softmax(-1)[:, :, 0]

    calls = attention_calls(lalm.structure, lalm.attention_layers, on_call, stop_early=True)
    with torch.inference_mode(), calls as run:
        run(lambda: lalm.model(**inputs, use_cache=False))
    return rows


def _difference(measured: Tensor, reference: Tensor) -> float:
    """Largest difference; NaN if there is one or the shapes differ."""
    if measured.shape != reference.shape:
        return float("nan")
    return float((measured - reference.to(measured.device)).abs().max())
