"""Eager references, written plainly from the papers and slow: what the fast paths are compared with.

They see one prompt at a time without padding, run the whole sequence anew for every token, hold the whole
score matrix, and share no code with the package.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.models.qwen2 import modeling_qwen2


@dataclass
class Edit:
    """One edit of the score matrix: which rule, where, and of which prompt positions."""

    alpha: float
    layers: Sequence[int]
    rule: str
    keys: Tensor  # bool [P]
    heads: dict[int, Sequence[int]] | None = None
    phase: str = "both"
    include_self: bool = True  # whether a query may be edited at its own key
    queries: Tensor | None = None  # bool [P], prompt positions edited besides the last
    rows: Sequence[int] | None = None  # positions edited instead of those of the phase


@contextmanager
def edited(edits: Sequence[Edit], prompt_length: int) -> Iterator[None]:  # noqa: C901 a reference reads best in one piece
    """Inside, eager attention of a Qwen2 decoder edits rows from the last prompt token on."""

    def attention(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):  # noqa: C901
        assert query.shape[2] == key.shape[2], "the reference runs without a cache"
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        scores = query @ key.transpose(2, 3) * scaling  # (1, H, T, T)
        length = scores.shape[-1]
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        for edit in edits:
            if module.layer_idx not in edit.layers:
                continue
            heads = range(scores.shape[1]) if edit.heads is None else edit.heads[module.layer_idx]
            first = prompt_length if edit.phase == "decode" else prompt_length - 1
            last = prompt_length if edit.phase == "prefill" else length
            rows = list(range(first, last))
            if edit.queries is not None and edit.phase != "decode":
                rows += edit.queries[:-1].nonzero().flatten().tolist()
            for row in rows if edit.rows is None else edit.rows:
                touched = edit.keys.nonzero().flatten()
                if not edit.include_self:
                    touched = touched[touched != row]
                for head in heads:
                    score = scores[0, head, row, touched]
                    if edit.rule == "abs":
                        score = score + edit.alpha * abs(score)
                    elif edit.rule == "mul":
                        score = score * (1 + edit.alpha)
                    elif edit.rule == "knockout":
                        score = torch.full_like(score, -torch.inf)
                    elif edit.rule == "add":
                        score = score + edit.alpha
                    else:
                        raise ValueError(edit.rule)
                    scores[0, head, row, touched] = score
        weights = scores.masked_fill(~causal, -torch.inf).softmax(-1)
        return (weights @ value).transpose(1, 2), weights

    plain = modeling_qwen2.eager_attention_forward
    modeling_qwen2.eager_attention_forward = attention
    try:
        yield
    finally:
        modeling_qwen2.eager_attention_forward = plain


def single(inputs: dict[str, Tensor], row: int) -> dict[str, Tensor]:
    """One row of a batch without its padding."""
    alone = {name: tensor[row : row + 1] for name, tensor in inputs.items()}
    real = alone["attention_mask"][0].bool()
    return alone | {name: alone[name][:, real] for name in ("input_ids", "attention_mask")}


@torch.no_grad()
def forward(model, inputs: dict, edits: Sequence[Edit] = (), answer: Sequence[int] = ()) -> Tensor:
    """Logits [1 + len(answer), vocab] at the last prompt token and at each token of the answer."""
    assert model.config.text_config._attn_implementation == "eager"
    assert inputs["input_ids"].shape[0] == 1
    length = inputs["input_ids"].shape[1]
    more = torch.tensor([list(answer)], dtype=torch.long)
    whole = inputs | {
        "input_ids": torch.cat([inputs["input_ids"], more], 1),
        "attention_mask": torch.ones(1, length + len(answer), dtype=torch.long),
    }
    with edited(edits, length):
        return model(**whole, use_cache=False).logits[0, length - 1 :]


def logprob(model, inputs: dict, edits: Sequence[Edit], option: Sequence[int]) -> float:
    """log p of an option, in one forward of prompt and option together."""
    logits = forward(model, inputs, edits, option)[:-1].double()
    return float(logits.log_softmax(-1)[range(len(option)), option].sum())


def token_by_token(model, inputs: dict, edits: Sequence[Edit], option: Sequence[int]) -> float:
    """log p of an option, decoded one token after the other."""
    steps = [forward(model, inputs, edits, option[:n])[-1] for n in range(len(option))]
    steps = [logits.double().log_softmax(-1) for logits in steps]
    return float(sum(step[token] for step, token in zip(steps, option, strict=True)))


def greedy(model, inputs: dict, edits: Sequence[Edit], steps: int, end: int) -> list[int]:
    """Greedy decoding; ends with ``end`` or after ``steps`` tokens."""
    tokens: list[int] = []
    while len(tokens) < steps and end not in tokens:
        tokens.append(int(forward(model, inputs, edits, tokens)[-1].argmax()))
    return tokens


@torch.no_grad()
def last_row(model, inputs: dict) -> list[Tensor]:
    """Of each layer, the attention weights of the last query: [B, H, T]."""
    assert model.config.text_config._attn_implementation == "eager"
    return [weights[:, :, -1] for weights in model(**inputs, output_attentions=True).attentions]


PEAK = """
import re, pathlib, resource
def peak():
    status = pathlib.Path("/proc/self/status")
    if status.exists():  # ru_maxrss includes the parent process at the time of the fork
        return int(re.search(r"VmHWM:\\s*(\\d+)", status.read_text())[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
"""
"""Code that defines ``peak()``: the most memory of a process so far, in bytes."""


def process_peak(code: str) -> float:
    """What ``code`` prints, in a process of its own in which ``PEAK`` ran before."""
    done = subprocess.run([sys.executable, "-c", PEAK + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)
