"""The exact map of heads against attribution patching, its estimate from one gradient.

Exact: the audio is knocked out of one head at a time at the token that decides, and the margin measured again
(`mi.head_configs`, rows of one sweep); or the head's output is exchanged for that of a run on other audio
(`patch_configs`). Attribution patching (Nanda 2023; Syed et al. 2023, arXiv 2310.10348)
estimates the change to first order: that of the head's output times the derivative of the margin by it. It is
published as two forward passes and one backward pass, which give the outputs to exchange and the gradient.
For a knockout the exchanged output follows from the scores, so that the gradient of the last token suffices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch.utils.flop_counter import FlopCounterMode

import mata_interp as mi
from mata_interp.attention import Edit
from mata_interp.errors import ItemError, RunError
from mata_interp.fusion.context_inputs import Decision
from mata_interp.fusion.item_context import ItemContext
from mata_interp.interventions import RULES
from mata_interp.interventions.catalogue import negative_prompt
from mata_interp.lalm.discovery.heads import output_projection
from mata_interp.lalm.discovery.hooks import hidden_states_in, replace_hidden_states, temporary_hooks
from mata_interp.precision import full_precision
from mata_interp.statistics import cluster_codes
from mata_interp.sweeps import patch_configs

__all__ = [
    "as_published",
    "compare",
    "compare_patches",
    "estimated_heads",
    "exact_heads",
    "exact_patches",
    "flops_of_heads",
]

RESAMPLES = 2000


@full_precision()
def estimated_heads(context: ItemContext) -> np.ndarray:
    """Estimated change of the margin where one head loses the audio at the last token: logits, [layers, H].

    Args:
        context: the item; with ``last_token_only`` the gradient is that of the last token alone.

    Raises:
        ModelError: the model has no backward pass.
    """
    trace = context.last_token_trace
    trace.require_gradients()
    estimates = []
    for layer in context.layers:
        call = trace.calls[layer]
        keys = context.audio_keys[-call.length :].to(call.key.device)[None]
        last = call.query.shape[2] - 1
        change, _ = call.delta([Edit(RULES["knockout"], keys, 1.0)], slice(last, last + 1))  # (1, 1, H, Dv)
        estimates.append((change[0, 0] * trace.gradients[layer][:, -1]).sum(-1))
    return torch.stack(estimates).cpu().double().numpy()


def exact_heads(lalm: mi.LALM, prompt: mi.Prompt, decision: Decision) -> np.ndarray:
    """The change itself, of a prompt of one row, from a sweep: logits, [layers, H]."""
    return _changes(lalm, prompt, decision, mi.head_configs(lalm))


def as_published(lalm: mi.LALM, prompt: mi.Prompt, other: mi.Prompt, decision: Decision) -> Any:
    """Attribution patching from another clip with two forward passes and a backward pass, for its cost.

    Returns:
        Estimated change of the margin where one head's output at the last token is that of the other prompt:
        logits, float32 [layers, H].
    """
    structure, heads = lalm.structure, lalm.structure.heads
    projections = {layer: output_projection(module) for layer, module in structure.attention.items()}
    corrupted: dict[int, torch.Tensor] = {}  # outputs of heads side by side at the last token, [1, 1, H * Dv]
    clean: dict[int, torch.Tensor] = {}
    offsets: dict[int, torch.Tensor] = {}  # zeros added to them, which receive the gradient

    def reading(layer: int) -> Callable[..., None]:
        def before(args: tuple, kwargs: dict) -> None:
            corrupted[layer] = hidden_states_in(args, kwargs)[:, -1:]

        return before

    def adding(layer: int) -> Callable[..., Any]:
        def before(args: tuple, kwargs: dict) -> Any:
            states = hidden_states_in(args, kwargs)
            clean[layer] = states[:, -1:].detach()
            offsets[layer] = torch.zeros_like(clean[layer], requires_grad=True)
            shifted = torch.cat([states[:, :-1], states[:, -1:] + offsets[layer]], 1)
            return replace_hidden_states(args, kwargs, shifted)

        return before

    with torch.no_grad(), temporary_hooks([(part, reading(n)) for n, part in projections.items()]):
        lalm.model(**other.inputs, use_cache=False)
    trainable = [parameter for parameter in lalm.model.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        with torch.enable_grad(), temporary_hooks([(part, adding(n)) for n, part in projections.items()]):
            logits = lalm.model(**prompt.inputs, use_cache=False).logits[0, -1].float()
            margin = logits[decision.right] - logits[decision.wrong]
            slopes = torch.autograd.grad(margin, [offsets[layer] for layer in projections])
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
    changes = [(corrupted[n] - clean[n]) * slope for n, slope in zip(projections, slopes, strict=True)]
    return torch.stack(
        [
            change.unflatten(-1, (heads[n], -1)).sum(-1)[0, 0]
            for n, change in zip(projections, changes, strict=True)
        ]
    )


def exact_patches(lalm: mi.LALM, prompt: mi.Prompt, decision: Decision, negative: str) -> np.ndarray:
    """The change of the margin where one head's output at the last token is that of a run on other audio.

    Args:
        lalm, prompt, decision: those of `exact_heads`.
        negative: the other audio, one of NEGATIVES.

    Returns:
        Logits, [layers, H], from a sweep of activation patches.
    """
    configurations = patch_configs(lalm, "head_output", negative=negative)
    return _changes(lalm, prompt, decision, configurations)


def compare(lalm: mi.LALM, items: Sequence[mi.Item], seed: int = 0) -> dict[str, Any]:
    """Rank correlation of the estimated and the exact map of heads without audio, means over items.

    Args:
        lalm: the model; all its layers have the same number of heads.
        items: items with known answers. Those whose options begin with the same token are left out, because
            they are decided after the prompt.
        seed: of the bootstrap over clips.

    Returns:
        ``rho`` of the maps with ``low`` and ``high`` (percentile bootstrap over clips), ``rho_of_items`` (the
        median over items of each item's own), ``items``, ``left_out``, ``clips``, ``heads`` and, for a
        figure, ``exact`` and ``estimated``, [heads].
    """

    def measure(context: ItemContext) -> tuple[np.ndarray, np.ndarray]:
        return exact_heads(lalm, context.prompt, context.decision), estimated_heads(context)

    return _agreement(lalm, items, measure, seed)


def compare_patches(
    lalm: mi.LALM, items: Sequence[mi.Item], negative: str = "reversed", seed: int = 0
) -> dict[str, Any]:
    """The same for heads whose output is that of a run on other audio; see `compare`."""

    def measure(context: ItemContext) -> tuple[np.ndarray, np.ndarray]:
        prompt, decision = context.prompt, context.decision
        other = lalm.prepare(negative_prompt(lalm, prompt, negative))
        estimated = as_published(lalm, prompt, other, decision).cpu().double().numpy()
        return exact_patches(lalm, prompt, decision, negative), estimated

    return _agreement(lalm, items, measure, seed)


def flops_of_heads(lalm: mi.LALM, prompt: mi.Prompt) -> dict[str, float]:
    """Floating-point operations of products, relative to a plain forward pass without logits of all tokens.

    Args:
        lalm: the model.
        prompt: of one row, from ready-made inputs.
    """
    decision = Decision(right=5, wrong=7)
    features = prompt.inputs["input_features"]
    other = replace(prompt, inputs={**prompt.inputs, "input_features": features.flip(-1)})
    lalm.prepare(prompt)

    def estimate() -> None:
        estimated_heads(ItemContext(lalm, prompt, decision, last_token_only=True, keep_states=False))

    tasks: dict[str, Callable[[], object]] = {
        "exact map of knockouts, one sweep": lambda: exact_heads(lalm, prompt, decision),
        "attribution patching, gradient of the last token": estimate,
        "attribution patching, 2 forwards and 1 backward": lambda: as_published(
            lalm, prompt, other, decision
        ),
        "a forward for each head (calculated)": lambda: None,
    }
    with torch.no_grad():
        plain = _flops(lambda: lalm.model(**prompt.inputs, use_cache=False, logits_to_keep=1))
    ratios = {name: _flops(task) / plain for name, task in tasks.items()}
    heads = sum(lalm.structure.heads.values())
    return ratios | {"a forward for each head (calculated)": float(heads + 1)}


def _flops(task: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        task()
    return counter.get_total_flops()


def _changes(
    lalm: mi.LALM, prompt: mi.Prompt, decision: Decision, configurations: dict[str, Any]
) -> np.ndarray:
    """Changes of the margin under configurations for each layer and head, of a prompt of one row."""
    logits = mi.sweep(lalm, prompt, {"none": None, **configurations}, progress=False).values[0].astype(float)
    margins = logits[:, decision.right] - logits[:, decision.wrong]
    return (margins[1:] - margins[0]).reshape(len(lalm.attention_layers), -1)


def _agreement(
    lalm: mi.LALM,
    items: Sequence[mi.Item],
    measure: Callable[[ItemContext], tuple[np.ndarray, np.ndarray]],
    seed: int,
) -> dict[str, Any]:
    exact, estimated, clips = [], [], []
    for item in items:
        try:
            context = ItemContext.from_item(lalm, item, last_token_only=True, keep_states=False)
        except ItemError:
            continue
        if context.decision.forced:
            continue
        maps_of_item = measure(context)
        exact.append(maps_of_item[0].ravel())
        estimated.append(maps_of_item[1].ravel())
        clips.append(item.cluster)
    if not clips:
        raise RunError("Every item is decided after its prompt: none can be compared.")
    maps = np.stack([exact, estimated])  # (2, n, heads)
    codes, count = cluster_codes(clips)
    generator = np.random.default_rng(seed)
    rows_of = [np.flatnonzero(codes == code) for code in range(count)]
    resampled = []
    for drawn in generator.integers(0, count, (RESAMPLES, count)):
        rows = np.concatenate([rows_of[code] for code in drawn])
        resampled.append(_rho(*maps[:, rows].mean(1)))
    low, high = np.quantile(resampled, [0.025, 0.975])
    return {
        "rho": _rho(*maps.mean(1)),
        "low": float(low),
        "high": float(high),
        "rho_of_items": float(np.median([_rho(*maps[:, n]) for n in range(maps.shape[1])])),
        "items": maps.shape[1],
        "left_out": len(items) - maps.shape[1],
        "clips": count,
        "heads": maps.shape[2],
        "exact": maps[0].mean(0).tolist(),
        "estimated": maps[1].mean(0).tolist(),
    }


def _rho(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation."""
    return float(spearmanr(a, b)[0])  # type: ignore[arg-type]
