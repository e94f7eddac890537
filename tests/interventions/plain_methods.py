"""The methods of the catalogue written as hooks on an eager model, one prompt at a time and without a cache.

Nothing of the package takes part: attention is replaced by plain matrices, modules get plain hooks, and every
token is read anew with the whole sequence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers.models.qwen2 import modeling_qwen2

Forward = Callable[[dict, Sequence[int]], Tensor]


@dataclass
class Row:
    """One prompt without padding: its groups, bool [P] each, and its length."""

    model: Any
    inputs: dict
    groups: dict[str, Tensor]

    @property
    def length(self) -> int:
        return self.inputs["input_ids"].shape[1]

    def keys(self, name: str, total: int) -> Tensor:
        """Which of the first ``total`` tokens are in a group, in text, or in the prompt: bool [total]."""
        prompt = torch.zeros(self.length, dtype=torch.bool)
        if name == "text":
            prompt = self.groups["question"] | self.groups["options"]
            prompt = prompt | self.groups["caption"] | self.groups["template"]
        elif name == "prompt":
            prompt = ~prompt
        elif name != "generated":
            prompt = self.groups[name]
        answer = torch.full((max(0, total - self.length),), name == "generated")
        return torch.cat([prompt, answer])[:total]

    def queries(self, which: str, phase: str, total: int) -> set[int]:
        """The positions that are edited."""
        prompt = {self.length - 1}
        if which == "all":
            prompt = set(range(self.length))
        elif which == "text":
            first = int(self.groups["audio"].nonzero()[0])
            text = self.keys("text", self.length)
            prompt |= {p for p in range(first + 1, self.length) if text[p]}
        answer = set(range(self.length, total))
        return {"prefill": prompt, "decode": answer, "both": prompt | answer}[phase]


def run(model: Any, inputs: dict, tokens: Sequence[int]) -> Tensor:
    """Logits [1 + n, V] at the last prompt token and at n tokens of an answer."""
    length = inputs["input_ids"].shape[1]
    more = torch.tensor([list(tokens)], dtype=torch.long)
    whole = inputs | {
        "input_ids": torch.cat([inputs["input_ids"], more], 1),
        "attention_mask": torch.ones(1, length + len(tokens), dtype=torch.long),
    }
    with torch.no_grad():
        return model(**whole, use_cache=False).logits[0, length - 1 :]


@contextmanager
def attention(
    layers: Sequence[int], queries: set[int], change: Callable[[int, int, Tensor], Tensor], site: str
) -> Iterator[None]:
    """Inside, eager Qwen2 attention of some layers has the rows [H, T] of some queries changed.

    Scores of later keys are -inf.
    """

    def changed(layer: int, rows: Tensor) -> Tensor:
        if layer in layers:
            for at in queries:
                rows[0, :, at] = change(layer, at, rows[0, :, at].clone())
        return rows

    def forward(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        scores = query @ key.transpose(2, 3) * scaling
        causal = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        scores = scores.masked_fill(~causal, -torch.inf)
        if site == "scores":
            scores = changed(module.layer_idx, scores).masked_fill(~causal, -torch.inf)
        weights = scores.softmax(-1)
        if site == "weights":
            weights = changed(module.layer_idx, weights)
        return (weights @ value).transpose(1, 2), weights

    plain = modeling_qwen2.eager_attention_forward
    modeling_qwen2.eager_attention_forward = forward
    try:
        yield
    finally:
        modeling_qwen2.eager_attention_forward = plain


@contextmanager
def hooks(handles: list[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def in_attention(
    row: Row,
    layers: Sequence[int],
    rule: Callable[[int, int, Tensor, int], Tensor],
    site: str = "scores",
    queries: str = "last",
    phase: str = "both",
) -> Forward:
    """A forward in which ``rule(layer, query, row [H, T], total)`` changes scores or weights."""

    def forward(inputs: dict, tokens: Sequence[int]) -> Tensor:
        total = row.length + len(tokens)
        change = lambda layer, at, values: rule(layer, at, values, total)  # noqa: E731
        with attention(layers, row.queries(queries, phase, total), change, site):
            return run(row.model, inputs, tokens)

    return forward


def multiply(row: Row, layers, by: dict[str, float], queries="last", phase="both") -> Forward:
    """Scores of some groups times a factor each."""

    def rule(layer, at, values, total):
        for name, factor in by.items():
            values[:, row.keys(name, at + 1).nonzero().flatten()] *= factor
        return values

    return in_attention(row, layers, rule, queries=queries, phase=phase)


def add_abs(row: Row, layers, by: dict[str, float], queries="last") -> Forward:
    """Scores of some groups plus a factor times their absolute value."""

    def rule(layer, at, values, total):
        for name, factor in by.items():
            keys = row.keys(name, at + 1).nonzero().flatten()  # a query sees no later key
            values[:, keys] += factor * values[:, keys].abs()
        return values

    return in_attention(row, layers, rule, queries=queries)


def add(row: Row, layers, by: dict[str, float], queries="last", heads=None) -> Forward:
    """Scores of some groups plus a number; -inf for knockout."""

    def rule(layer, at, values, total):
        chosen = range(len(values)) if heads is None else heads[layer]
        for name, amount in by.items():
            for head in chosen:
                values[head, row.keys(name, total)] += amount
        return values

    return in_attention(row, layers, rule, queries=queries)


def pasta(row: Row, heads: dict[int, Sequence[int]], scale: float) -> Forward:
    def rule(layer, at, values, total):
        outside = row.keys("prompt", total) & ~row.keys("audio", total)
        for head in heads[layer]:
            values[head, outside] += math.log(scale)
        return values

    return in_attention(row, list(heads), rule, queries="all")


def hgai(row: Row, layers, strength: float) -> Forward:
    def rule(layer, at, values, total):
        heads = len(values)
        for key in row.keys("audio", total).nonzero().flatten().tolist():
            mean = sum(abs(float(values[head, key])) for head in range(heads)) / heads
            values[:, key] += strength * mean
        return values

    return in_attention(row, layers, rule)


def paint(row: Row, layers, most: float, least: float, share: float) -> Forward:
    def rule(layer, at, values, total):
        audio = row.keys("audio", total).nonzero().flatten().tolist()
        ranked = sorted(audio, key=lambda key: -float(values[:, key].mean()))
        count = math.ceil(share * len(ranked))
        for place, key in enumerate(ranked):
            values[:, key] += (most if place < count else least) * abs(values[:, key])
        return values

    return in_attention(row, layers, rule)


def gated_scaling(row: Row, layers, sure: float, unsure: float, threshold: float) -> Forward:
    confident = float(run(row.model, row.inputs, ())[-1].softmax(-1).max()) >= threshold
    return multiply(row, layers, {"audio": sure if confident else unsure})


def caac(row: Row, layers, strength: float, threshold: float) -> Forward:
    def forward(inputs, tokens):
        factors: dict[int, float] = {}

        def rule(layer, at, values, total):
            values[:, row.keys("audio", total)] *= factors[at]
            return values

        edited = in_attention(row, layers, rule, queries="all", phase="decode")
        for n in range(len(tokens)):  # the factor of a token depends on the step before it
            p = float(edited(inputs, tokens[:n])[-1].softmax(-1).max())
            factors[row.length + n] = 1 + strength * (1 - p) if p <= threshold else 1.0
        return edited(inputs, tokens)

    return forward


def spotlight(row: Row, layers, target: float) -> Forward:
    def rule(layer, at, values, total):
        span = row.keys("audio", total)
        for head in range(len(values)):
            share = float(values[head].softmax(-1)[span].sum())
            if 0 < share < target:
                values[head, span] += math.log(target / share)
        return values

    return in_attention(row, layers, rule, queries="all")


def instaboost(row: Row, layers, factor: float, group: str = "audio") -> Forward:
    def rule(layer, at, values, total):
        values[:, row.keys(group, total)] *= factor
        return values / values.sum(-1, keepdim=True)

    return in_attention(row, layers, rule, "weights", queries="all")


def adhh(row: Row, heads: dict[int, Sequence[int]], threshold: float) -> Forward:
    def rule(layer, at, values, total):
        text = row.keys("text", total)
        for head in heads[layer]:
            if values[head, text].sum() >= threshold:
                values[head, text] = 0.0
        return values

    return in_attention(row, list(heads), rule, "weights")


def sinks(row: Row, layers, dimensions, keep: float, mass: float, most: float, threshold: float) -> Forward:
    blocks, is_sink = row.model.model.language_model.layers, {}

    def look(layer):
        def hook(module, args, kwargs):
            states = (args[0] if args else kwargs["hidden_states"])[0]
            for at, state in enumerate(states):
                size = math.sqrt(float((state**2).mean()))
                is_sink[layer, at] = max(abs(float(state[d])) / size for d in dimensions) > threshold

        return hook

    with hooks([blocks[i].register_forward_pre_hook(look(i), with_kwargs=True) for i in layers]):
        run(row.model, row.inputs, ())

    def rule(layer, at, values, total):
        audio = row.keys("audio", total)
        sink = torch.tensor([is_sink.get((layer, key), False) for key in range(total)])
        for head in range(len(values)):
            w = values[head].clone()
            on_audio, on_sinks = float(w[audio].sum()), float(w[audio & sink].sum())
            if on_audio < mass or on_sinks / on_audio > most:
                continue
            freed = (1 - keep) * float(w[sink].sum())
            rest = w[audio & ~sink]
            values[head, sink] = w[sink] * keep
            values[head, audio & ~sink] = rest + freed * rest / rest.sum()
        return values

    return in_attention(row, layers, rule, "weights", queries="text")


@cache
def drawn(layer: int, head: int, query: int, key: int, seed: int = 0) -> float:
    """The number from 0 to 1 that a sham draws for one key; places from the prompt's end."""
    n = 7919 * seed + 104729 * layer + 1299709 * head
    n += 15485863 * (query + 2**20) + 32452843 * (key + 2**20)
    for _ in range(3):
        n = n % 2**31 * 1103515245 + 12345
        n ^= n >> 16
    return (n % 2**24) / 2**24


def sham(row: Row, layers, kind: str) -> Forward:
    def other(w: list[float], draws: list[float]) -> list[float]:
        new = {
            "uniform": [1.0] * len(w),
            "random": [draw + 1e-6 for draw in draws],
            "reversed": [max(w) - each for each in w],
            "shuffled": sorted(w),
        }[kind]
        if kind == "shuffled":
            order = sorted(range(len(w)), key=lambda n: -draws[n])
            new = [new[order.index(n)] for n in range(len(w))]
        return [each * sum(w) / sum(new) for each in new] if sum(new) else w

    def rule(layer, at, values, total):
        keys = [key for key in row.keys("audio", total).nonzero().flatten().tolist() if key <= at]
        for head in range(len(values) if keys else 0):
            draws = [drawn(layer, head, at - row.length, key - row.length) for key in keys]
            values[head, keys] = torch.tensor(other(values[head, keys].tolist(), draws))
        return values

    return in_attention(row, layers, rule, "weights", queries="all")


def head_mask(row: Row, heads: dict[int, Sequence[int]]) -> Forward:
    def rule(layer, at, values, total):
        values[list(heads[layer])] = 0.0
        return values

    return in_attention(row, list(heads), rule, "weights", queries="all")


def _projected(row: Row, name: str, change: Callable[[int, int, Tensor], Tensor], layers) -> Forward:
    """Keys or values [Hkv, D] of every token of the prompt, as their projection makes them, changed."""
    blocks, heads = row.model.model.language_model.layers, row.model.config.text_config.num_key_value_heads

    def hook(layer):
        def edit(module, args, output):
            output = output.clone()
            for at in range(row.length):
                each_head = output[0, at].reshape(heads, -1).clone()
                output[0, at] = change(layer, at, each_head).flatten()
            return output

        return edit

    def forward(inputs, tokens):
        with hooks([getattr(blocks[i].self_attn, name).register_forward_hook(hook(i)) for i in layers]):
            return run(row.model, inputs, tokens)

    return forward


def seka(row: Row, layers, raising: Tensor, lowering: Tensor, up: float, down: float) -> Forward:
    def change(layer, at, keys):
        if not row.groups["audio"][at]:
            return keys
        n = list(layers).index(layer)
        moved = [k + up * raising[n, head] @ k + down * lowering[n, head] @ k for head, k in enumerate(keys)]
        return torch.stack(moved)

    return _projected(row, "k_proj", change, layers)


def value_scaling(row: Row, layers, factor: float) -> Forward:
    def change(layer, at, values):
        return values * factor if row.groups["audio"][at] else values

    return _projected(row, "v_proj", change, layers)


def outputs(model: Any, inputs: dict, layers: Sequence[int]) -> dict[int, Tensor]:
    """The output of decoder layers at the last token: [d] each."""
    states: dict[int, Tensor] = {}

    def look(layer):
        def hook(module, args, output):
            states[layer] = (output[0] if isinstance(output, tuple) else output)[0, -1].clone()

        return hook

    blocks = model.model.language_model.layers
    with hooks([blocks[i].register_forward_hook(look(i)) for i in layers]):
        run(model, inputs, ())
    return states


def residual(row: Row, layers, change: Callable[[int, Tensor], Tensor]) -> Forward:
    """The output of layers, from the last token of the prompt on, changed one token at a time."""
    blocks = row.model.model.language_model.layers

    def hook(layer):
        def edit(module, args, output):
            states = (output[0] if isinstance(output, tuple) else output).clone()
            for at in range(row.length - 1, states.shape[1]):
                states[0, at] = change(layer, states[0, at].clone())
            return (states, *output[1:]) if isinstance(output, tuple) else states

        return edit

    def forward(inputs, tokens):
        with hooks([blocks[i].register_forward_hook(hook(i)) for i in layers]):
            return run(row.model, inputs, tokens)

    return forward


def steering(row: Row, directions: dict[int, Tensor], strength: float) -> Forward:
    def change(layer, x):
        moved = x + strength * directions[layer]
        return moved / moved.norm() * x.norm()

    return residual(row, list(directions), change)


def measured_steering(row: Row, layers, strength: float, without: dict) -> Forward:
    with_audio, blank = outputs(row.model, row.inputs, layers), outputs(row.model, without, layers)
    return steering(row, {layer: with_audio[layer] - blank[layer] for layer in layers}, strength)


def specialists(row: Row, layer: int, layers, strength: float, silent: dict) -> Forward:
    with_audio, without_audio = outputs(row.model, row.inputs, layers), outputs(row.model, silent, layers)
    response = sum(with_audio[i] - without_audio[i] for i in layers) / len(layers)
    return residual(row, [layer], lambda _, x: x + strength * response)


def patched(row: Row, layers, other: dict, heads: dict[int, Sequence[int]] | None = None) -> Forward:
    """The last prompt token's outputs of layers, or of heads of theirs, from a run on other inputs."""
    blocks = row.model.model.language_model.layers
    stored = {}

    def keep(layer):
        def edit(module, args, output=None):
            states = args[0] if heads else (output[0] if isinstance(output, tuple) else output)
            stored[layer] = states[0, -1].clone()

        return edit

    def put(layer):
        def edit(module, args, output=None):
            x = (args[0] if heads else (output[0] if isinstance(output, tuple) else output)).clone()
            if heads is None:
                x[0, row.length - 1] = stored[layer]
                return (x, *output[1:]) if isinstance(output, tuple) else x
            size = x.shape[-1] // row.model.config.text_config.num_attention_heads
            for head in heads[layer]:
                place = slice(head * size, (head + 1) * size)
                x[0, row.length - 1, place] = stored[layer][place]
            return (x,)

        return edit

    def set_hooks(make):
        if heads:
            return hooks([blocks[i].self_attn.o_proj.register_forward_pre_hook(make(i)) for i in layers])
        return hooks([blocks[i].register_forward_hook(make(i)) for i in layers])

    def forward(inputs, tokens):
        with set_hooks(keep):
            run(row.model, other, ())
        with set_hooks(put):
            return run(row.model, inputs, tokens)

    return forward


def contrast(
    row: Row,
    other: dict,
    combine: Callable[[Tensor, Tensor], Tensor],
    edited: Forward | None = None,
    edited_other: Forward | None = None,
) -> Forward:
    """Logits of two passes, combined; ``other`` are the inputs of the second."""

    def forward(inputs, tokens):
        first = edited or (lambda i, t: run(row.model, i, t))
        second = edited_other or (lambda i, t: run(row.model, i, t))
        return combine(first(inputs, tokens), second(other, tokens))

    return forward


def cut(logits: Tensor, plain: Tensor, part: float) -> Tensor:
    """-inf where a token's plain probability is below a part of the largest."""
    p = plain.softmax(-1)
    return logits.masked_fill(p < part * p.max(-1, keepdim=True).values * (1 - 1e-6), -torch.inf)


def amti(with_audio: Tensor, ignored: Tensor, weight: float, bits: float) -> Tensor:
    guided = with_audio.clone()
    for at, logits in enumerate(with_audio):
        p = logits.softmax(-1)
        if float(-(p * p.log2()).sum()) > bits:
            guided[at] = weight * logits - (weight - 1) * ignored[at]
    return guided


def dola(row: Row, layers, cutoff: float) -> Forward:
    decoder, head = row.model.model.language_model, row.model.lm_head

    def forward(inputs, tokens):
        states: dict[int, Tensor] = {}

        def look(layer):
            def hook(module, args, output):
                states[layer] = output[0] if isinstance(output, tuple) else output

            return hook

        with hooks([decoder.layers[i].register_forward_hook(look(i)) for i in layers]):
            final = run(row.model, inputs, tokens)
        with torch.no_grad():
            early = {i: head(decoder.norm(states[i]))[0, row.length - 1 :] for i in layers}
        rows = []
        for at, logits in enumerate(final):
            q = logits.softmax(-1)
            distance = {}
            for i in layers:
                p = early[i][at].softmax(-1)
                m = (p + q) / 2
                distance[i] = float((m * (m / p).log()).sum() + (m * (m / q).log()).sum()) / 2
            chosen = max(layers, key=lambda i: distance[i])
            rows.append(cut(q.log() - early[chosen][at].log_softmax(-1), logits, cutoff))
        return torch.stack(rows)

    return forward


def target_share(
    row: Row,
    layers: Sequence[int],
    target: float,
    *,
    on: str = "audio",
    below: float = 1.0,
    heads: dict[int, Sequence[int]] | None = None,
    matched: bool = False,
) -> Forward:
    """Dose-targeted MATA (on audio) or its sham (on text), row by row and head by head with a root finder.

    The weights themselves are scaled to their new masses; their logarithms are the new scores.
    """

    def change(layer: int, at: int, rows: Tensor, total: int) -> Tensor:
        edited = rows.clone()
        text, on_audio = row.keys("text", total), row.keys("audio", total)
        text[at] = False
        for head in range(len(rows)):
            p = rows[head].softmax(-1).double()
            s, t = float(p[on_audio].sum()), float(p[text].sum())
            if heads is not None and head not in heads[layer]:
                continue
            if s >= below and below < 1:
                continue
            raised = raised_text_mass(target, s, t)
            if (on == "text" or matched) and raised is None:
                continue
            mass, span, now = (target, on_audio, s) if on == "audio" else (raised, text, t)
            scaled = torch.where(span, p * mass / now, p * (1 - mass) / (1 - now))
            edited[head] = scaled.log().to(rows.dtype)
        return edited

    return in_attention(row, layers, change)


def raised_text_mass(y: float, s: float, t: float) -> float | None:
    """y_t > t with KL(y_t, t) = KL(y, s), or None."""
    from scipy.optimize import brentq

    dose = two_valued_kl(y, s)
    if not 0 < t < 1 or dose >= -math.log(t):
        return None
    return brentq(lambda mass: two_valued_kl(mass, t) - dose, t, 1 - 1e-12, xtol=1e-13)


def two_valued_kl(y: float, s: float) -> float:
    return y * math.log(y / s) + (1 - y) * math.log((1 - y) / (1 - s))


def tad(first: Tensor, second: Tensor, yes, no, strength: float, threshold: float, penalty: float) -> Tensor:
    """Logits [1 + n, V] with and without audio: contrast, and a penalty on yes at the first token."""

    def evidence(logits: Tensor) -> float:
        sums = [sum(math.exp(float(logits[token])) for token in words) for words in (yes, no)]
        return math.log(sums[0]) - math.log(sums[1])

    out = (1 + strength) * first - strength * second
    if evidence(first[0]) - evidence(second[0]) < threshold:
        for token in yes:
            out[0, token] -= penalty
    return out


def hide_salient(row: Row, layers: Sequence[int]) -> Forward:
    """The most attended tokens of the less attended modality lose their weight in every row."""

    def rule(layer, at, values, total):
        mean = values.mean(0).tolist()
        text, audio = row.keys("text", total), row.keys("audio", total)
        groups = [
            [key for key in range(at + 1) if group[key] and (key != at or group is audio)]
            for group in (audio, text)
        ]
        sums = [sum(mean[key] for key in group) for group in groups]
        less = groups[0] if sums[0] <= sums[1] else groups[1]
        if less:
            ordered = sorted(mean[key] for key in less)
            median = ordered[(len(ordered) - 1) // 2]  # the lower one of two, as torch has it
            for key in less:
                if mean[key] > median:
                    values[:, key] = 0.0
        return values / values.sum(-1, keepdim=True)

    return in_attention(row, layers, rule, site="weights", queries="all")


def keyword_scaling(row: Row, layers, factor: float, keywords: set[int]) -> Forward:
    """Scores of audio times a factor for some queries, the last one and those of the answer."""

    def rule(layer, at, values, total):
        if at in keywords or at >= row.length - 1:
            values[:, row.keys("audio", at + 1).nonzero().flatten()] *= factor
        return values

    return in_attention(row, layers, rule, queries="all")


def opposed(row: Row, layers, up: float, down: float, ratio: float) -> Forward:
    """One path of OWL with a strength that grows where the ratio of audio to text is low."""

    def rule(layer, at, values, total):
        audio, text = row.keys("audio", total), row.keys("text", total)
        mean = values.softmax(-1).mean(0)
        ratio_now = float(mean[audio].sum() / mean[text].sum())
        size = abs(up)
        if ratio_now < ratio:
            size = min(0.6, size + 0.2 * (ratio - ratio_now) / ratio)
        for group, amount in ((audio, math.copysign(size, up)), (text, -down)):
            keys = group[: at + 1].nonzero().flatten()
            values[:, keys] += amount * values[:, keys].abs()
        return values

    return in_attention(row, layers, rule)
