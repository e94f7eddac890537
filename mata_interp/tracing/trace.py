"""mi.trace: attention masses at every layer and head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from tqdm import tqdm

import mata_interp
from mata_interp.benchmarks import Item
from mata_interp.lalm.batching import in_batches, item_labels
from mata_interp.lalm.prompting.prompts import Prompt
from mata_interp.lalm.verification import note_unchecked

from .attention_masses import AttentionMasses, read_masses
from .queries import QUERIES

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
    *,
    per_query: bool = False,
    max_new_tokens: int = 32,
) -> xr.Dataset:
    """How much of their attention chosen tokens give to each group of tokens.

    Read at the attention call, the model left on SDPA; O(T) memory for each head, never T x T.

    Args:
        lalm: the model.
        items: one or several items, asked in the default format, or prompts; a prompt of B rows is B items.
        query: ``"last"``, the last prompt token, whose next token starts the answer; ``"text"``, the tokens
            of question, options, caption and template after the first audio token, and the last one (text
            before the audio cannot see it, so that a mean over it would tell how long the template is; of a
            prompt without audio, all text); or ``"generated"``, the tokens that predict a greedy answer,
            token by token: the last prompt token, then the answer's own.
        batch_size: items asked at once; 16 if not given. Prompts are batches already.
        progress: show a bar.
        per_query: keep the queries, instead of the mean over them.
        max_new_tokens: of the answer, for ``"generated"``.

    Returns:
        ``mass[item, layer, head, group]``, float32, summing to 1 over ``group``; NaN for heads that a layer
        does not have. ``n_tokens[item, group]``, the tokens a query can see, those in the prompt (or answer)
        no later than itself, sliding windows not counted, as a mean over queries; ``n_queries[item]``.
        With ``per_query``, mass and tokens have ``query`` as a last dimension, NaN and 0 beyond an item's
        own number of queries, and ``position`` (tokens before the query), ``token`` (its id; both -1 beyond)
        and ``query_group`` are coordinates ``[item, query]``.
        ``layer`` is the index in the decoder; layers without attention are left out. Of each item its
        ``domain``, ``kind``, ``condition`` and ``cluster`` are coordinates.

    Raises:
        ItemError: an item's sound or text cannot be used.
        ModelError: the model's attention is not understood.

    See Also:
        audio_share, audio_text_ratio, mdi, aei: what such a trace says.
    """
    if query not in QUERIES:
        raise ValueError(f"No query {query!r}: choose one of {', '.join(map(repr, QUERIES))}.")
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}: an answer has at least one token.")
    given = [items] if isinstance(items, Item | Prompt) else list(items)
    if not given:
        raise ValueError("Nothing to trace: give at least one item or prompt.")
    note_unchecked(lalm)
    traced: list[Item] = []
    readings: list[AttentionMasses] = []
    with tqdm(total=len(given), desc="trace", unit="item", disable=not progress) as bar:
        for batch in in_batches(given, batch_size or BATCH):
            prompt = batch if isinstance(batch, Prompt) else lalm.prompt(batch)
            readings.append(read_masses(lalm, prompt, query, max_new_tokens, mean=not per_query))
            if (groups := readings[-1].groups) != readings[0].groups:
                raise ValueError(f"Prompts of other groups than {readings[0].groups}: {groups}.")
            traced.extend(prompt.items)
            bar.update(1 if isinstance(batch, Prompt) else len(batch))
    generating = {"max_new_tokens": max_new_tokens} if query == "generated" else {}
    return _labelled(lalm, traced, readings, per_query).assign_attrs(
        {"query": query, "queries": QUERIES[query], **generating, **_origin(lalm)}
    )


def _labelled(
    lalm: LALM, traced: Sequence[Item], readings: Sequence[AttentionMasses], per_query: bool
) -> xr.Dataset:
    """The readings of all batches, one after the other."""
    dims, coords = (), {}
    if per_query:
        dims = ("query",)
        coords = {
            "query": np.arange(max(reading.queries.position.shape[1] for reading in readings)),
            "position": (("item", "query"), _joined([r.queries.position for r in readings], -1)),
            "token": (("item", "query"), _joined([r.queries.token for r in readings], -1)),
            "query_group": (("item", "query"), _joined([r.queries.group for r in readings], "")),
        }
    mass = _joined([reading.mass for reading in readings], np.nan)
    n_tokens = _joined([reading.queries.n_tokens for reading in readings], 0)
    return xr.Dataset(
        {
            "mass": (("item", "layer", "head", "group", *dims), mass if per_query else mass[..., 0]),
            "n_tokens": (("item", "group", *dims), n_tokens if per_query else n_tokens[..., 0]),
            "n_queries": ("item", np.concatenate([reading.queries.counts for reading in readings])),
        },
        coords={
            "item": [item.id for item in traced],
            "layer": list(lalm.attention_layers),
            "head": np.arange(mass.shape[2]),
            "group": readings[0].groups,
            **item_labels(traced),
            **coords,
        },
    )


def _joined(batches: Sequence[np.ndarray], absent: Any) -> np.ndarray:
    """Batches [B, ..., Q] one after the other, those with fewer queries filled up."""
    width = max(batch.shape[-1] for batch in batches)
    return np.concatenate(
        [
            np.pad(b, [(0, 0)] * (b.ndim - 1) + [(0, width - b.shape[-1])], constant_values=absent)
            for b in batches
        ]
    )


def _origin(lalm: LALM) -> dict[str, str | int]:
    """Flat attributes, as netCDF takes them."""
    print_ = lalm.fingerprint()
    versions = {**print_.pop("versions"), "mata_interp": mata_interp.__version__}
    model = {f"model_{name}": str(value) for name, value in print_.items() if value is not None}
    return {
        "threads": torch.get_num_threads(),
        **model,
        **{f"version_{name}": value for name, value in versions.items()},
    }
