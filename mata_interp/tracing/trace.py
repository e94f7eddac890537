"""Attention masses of the query that is about to answer, at every layer and head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from tqdm import tqdm

import mata_interp
from mata_interp.attention import AttentionCall
from mata_interp.benchmarks import Item
from mata_interp.lalm.batching import in_batches, item_labels
from mata_interp.lalm.prompts import Prompt

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["trace"]

BATCH = 16


def trace(
    lalm: LALM,
    items: Item | Prompt | Sequence[Item | Prompt],
    query: str = "last",
    batch_size: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """How much of its attention the last prompt token gives to each group of tokens.

    Read at the attention call, the model left on SDPA; O(T) memory for each head, never T x T.

    Args:
        lalm: the model.
        items: one or several items, asked in the default format, or prompts; a prompt of B rows is B items.
        query: ``"last"``, the last prompt token, whose next token starts the answer.
        batch_size: items asked at once; 16 if not given. Prompts are batches already.
        progress: show a bar.

    Returns:
        ``mass[item, layer, head, group]``, float32, summing to 1 over ``group``; NaN for heads that a layer
        does not have. ``n_tokens[item, group]``. ``layer`` is the index in the decoder; layers without
        attention are left out. Of each item its ``domain``, ``kind``, ``condition`` and ``cluster`` are
        coordinates.

    Raises:
        ItemError: an item's sound or text cannot be used.
        ModelError: the model's attention is not understood.

    See Also:
        audio_share, audio_text_ratio, mdi, aei: what such a trace says.
    """
    if query != "last":
        raise ValueError(f"No query {query!r}: the one there is is 'last'.")
    given = [items] if isinstance(items, Item | Prompt) else list(items)
    if not given:
        raise ValueError("Nothing to trace: give at least one item or prompt.")
    traced, masses, counts = [], [], []
    groups: list[str] = []
    with tqdm(total=len(given), desc="trace", unit="item", disable=not progress) as bar:
        for batch in in_batches(given, batch_size or BATCH):
            prompt = batch if isinstance(batch, Prompt) else lalm.prompt(batch)
            groups = groups or list(prompt.groups)
            if list(prompt.groups) != groups:
                raise ValueError(f"Prompts of other groups than {groups}: {list(prompt.groups)}.")
            traced.extend(prompt.items)
            masses.append(_masses(lalm, prompt))
            counts.append(torch.stack([prompt.groups[name].sum(1) for name in groups], 1).cpu().numpy())
            bar.update(1 if isinstance(batch, Prompt) else len(batch))
    return xr.Dataset(
        {
            "mass": (("item", "layer", "head", "group"), np.concatenate(masses)),
            "n_tokens": (("item", "group"), np.concatenate(counts)),
        },
        coords={
            "item": [item.id for item in traced],
            "layer": list(lalm.attention_layers),
            "head": np.arange(masses[0].shape[2]),
            "group": groups,
            **item_labels(traced),
        },
        attrs=_origin(lalm, query),
    )


@torch.inference_mode()
def _masses(lalm: LALM, prompt: Prompt) -> np.ndarray:
    """float32 [B, layers, heads, groups]."""
    prompt = lalm.place(prompt)
    groups = torch.stack(list(prompt.groups.values()), 1)  # (B, G, T)
    heads = lalm.anatomy.heads
    mass = np.full((prompt.size, len(heads), max(heads.values()), groups.shape[1]), np.nan, np.float32)
    place = {layer: i for i, layer in enumerate(lalm.attention_layers)}

    def visit(layer: int, call: AttentionCall, total: int) -> None:
        seen = groups[..., total - call.length :].to(call.key.device)
        rows = call.masses(slice(-1, None), seen)[:, :, 0]  # (B, H, G)
        mass[:, place[layer], : rows.shape[1]] = rows.cpu().numpy()

    # nothing after the last layer's scores is wanted: neither its values nor the output head
    lalm.instrument.look(lambda: lalm.model(**prompt.inputs, use_cache=False), lalm.attention_layers, visit)
    return mass


def _origin(lalm: LALM, query: str) -> dict[str, str | int]:
    """Flat attributes, as netCDF takes them."""
    print_ = lalm.fingerprint()
    versions = {**print_.pop("versions"), "mata_interp": mata_interp.__version__}
    model = {f"model_{name}": str(value) for name, value in print_.items() if value is not None}
    return {
        "query": query,
        "threads": torch.get_num_threads(),
        **model,
        **{f"version_{name}": value for name, value in versions.items()},
    }
