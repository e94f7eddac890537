"""The plain reference of any family: eager attention of the decoder, written anew, with the edits in it.

It sees one prompt at a time without padding, runs the whole sequence anew for every token, and holds the
whole score matrix. It shares no code with the package; the mask it is given is the model's own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from tests.reference import Edit

__all__ = ["Edit", "edited", "forward", "single"]


@contextmanager
def edited(modules: dict[Any, int], edits: Sequence[Edit], prompt_length: int) -> Iterator[dict[int, Tensor]]:  # noqa: C901 a reference reads best in one piece
    """Inside, eager attention of these modules edits rows from the last prompt token on.

    Args:
        modules: the decoder's attention modules and the layers they belong to.

    Yields:
        The weights of each layer, [1, H, T, T], as they are computed.
    """
    weights_of_layer: dict[int, Tensor] = {}
    code = {sys.modules[type(module).__module__] for module in modules}

    def attending(plain):
        def attention(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
            if module not in modules:
                return plain(module, query, key, value, attention_mask, scaling, dropout=dropout, **kwargs)
            layer = modules[module]
            assert query.shape[2] == key.shape[2], "the reference runs without a cache"
            groups = query.shape[1] // key.shape[1]
            key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
            scores = (query @ key.transpose(2, 3)).float() * scaling  # (1, H, T, T)
            if kwargs.get("softcap") is not None:
                scores = kwargs["softcap"] * torch.tanh(scores / kwargs["softcap"])
            if kwargs.get("position_bias") is not None:
                scores = scores + kwargs["position_bias"]
            length = scores.shape[-1]
            hidden = ~torch.ones(length, length, dtype=torch.bool).tril()
            if attention_mask is not None:
                hidden = attention_mask < -1e4
            scores = scores.masked_fill(hidden, -torch.inf)
            for edit in (edit for edit in edits if layer in edit.layers):
                first = prompt_length if edit.phase == "decode" else prompt_length - 1
                last = prompt_length if edit.phase == "prefill" else length
                for row in range(first, last):
                    touched = [int(k) for k in edit.keys.nonzero() if scores[0, 0, row, k] > -torch.inf]
                    for head in range(scores.shape[1]):
                        old = scores[0, head, row, touched]
                        new = {
                            "abs": old + edit.alpha * old.abs(),
                            "add": old + edit.alpha,
                            "knockout": torch.full_like(old, -torch.inf),
                        }[edit.rule]
                        scores[0, head, row, touched] = new
            weights_of_layer[layer] = weights = scores.softmax(-1)
            return (weights.to(value.dtype) @ value).transpose(1, 2).contiguous(), weights

        return attention

    plain = {module: module.eager_attention_forward for module in code}
    try:
        for module, function in plain.items():
            module.eager_attention_forward = attending(function)
        yield weights_of_layer
    finally:
        for module, function in plain.items():
            module.eager_attention_forward = function


def single(inputs: dict[str, Any], row: int) -> dict[str, Any]:
    """One row of a batch without its padding; every family's inputs have a row for each prompt."""
    alone = {name: x[row : row + 1] if isinstance(x, Tensor) else x for name, x in inputs.items()}
    real = alone["attention_mask"][0].bool()
    return alone | {name: alone[name][:, real] for name in ("input_ids", "attention_mask")}


@torch.no_grad()
def forward(
    model: Any, modules: dict[Any, int], inputs: dict[str, Any], edits: Sequence[Edit] = (), answer=()
) -> Tensor:
    """Logits [1 + len(answer), vocab] at the last prompt token and at each token of the answer."""
    length = inputs["input_ids"].shape[1]
    more = torch.tensor([list(answer)], dtype=torch.long)
    ids = torch.cat([inputs["input_ids"], more], 1)
    whole = inputs | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with edited(modules, edits, length) as weights:
        logits = model(**whole, use_cache=False).logits[0, length - 1 :]
    assert sorted(weights) == sorted(modules.values()), "the reference was not used"
    return logits
