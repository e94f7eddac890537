"""mi.trace: attention masses at every layer and head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr

from mata_interp.benchmarks import Item
from mata_interp.errors import ArgumentError
from mata_interp.lalm.batching import PromptBatches, item_labels
from mata_interp.lalm.prompting.prompts import Prompt
from mata_interp.lalm.verification import note_unchecked
from mata_interp.version import __version__

from .attention_masses import AttentionMasses, read_masses
from .queries import QUERIES

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["trace"]

BATCH_SIZE = 16


def trace(
    lalm: LALM,
    items: Item | Prompt | Sequence[Item | Prompt],
    query: str = "last",
    batch_size: int | None = None,
    progress: bool = True,
    *,
    per_query: bool = False,
    max_new_tokens: int = 32,
    strict: bool = False,
) -> xr.Dataset:
    """Measure how much attention chosen tokens pay to each group of tokens.

    Attention is read at the call of the attention function, the model left on SDPA or FlashAttention. Memory
    is O(T) for each head, never T x T.

    Args:
        lalm: the model.
        items: one or several items, asked in the default format, or prompts; a prompt of B rows is B items.
        query: ``"last"``, the last prompt token, which predicts the first token of the answer; ``"text"``,
            the tokens of question, options, caption and template after the first audio token, and the last
            one (text before the audio cannot see it, and a mean over it would measure the length of the
            template; of a prompt without audio, all text); or ``"generated"``, the tokens that predict a
            greedy answer, token by token: the last prompt token, then the answer's own.
        batch_size: items in a batch; 16 if not given. Prompts are batches already.
        progress: show a bar.
        per_query: keep the queries, instead of the mean over them.
        max_new_tokens: of the answer, for ``"generated"``.
        strict: raise an error for an item that cannot be used, instead of leaving it out.

    Returns:
        ``mass[item, layer, head, group]``, float32, summing to 1 over ``group``; NaN for heads that a layer
        does not have. ``n_tokens[item, group]``, the tokens that a query can see, those in the prompt (or
        answer) up to itself, sliding windows ignored, as a mean over queries; ``n_queries[item]``.
        With ``per_query``, mass and tokens have ``query`` as a last dimension, NaN and 0 after an item's
        last query, and ``position`` (tokens before the query), ``token`` (its id; both -1 where there is no
        query) and ``query_group`` are coordinates ``[item, query]``.
        ``layer`` is the index in the decoder; layers without attention are left out. The ``domain``,
        ``kind``, ``condition`` and ``cluster`` of each item are coordinates. The attribute ``excluded`` names
        the items that were left out, one a line, and ``n_excluded`` counts them.

    Warns:
        ExclusionWarning: items were left out.

    Raises:
        ArgumentError: the query does not exist, there is no item, or the prompts have different groups.
        ItemError: with ``strict``, an item's audio or text cannot be used.
        RunError: no item can be used.
        ModelError: the model's attention is not understood.

    See Also:
        audio_share, audio_text_ratio, mdi, aei: measures of such a trace.

    Examples:
        >>> import mata_interp as mi
        >>> lalm = mi.LALM.from_pretrained("organism")
        >>> items = mi.load_benchmark("listening").split("selection")[:2]
        >>> trace = mi.trace(lalm, items, progress=False)
        >>> trace["mass"].dims
        ('item', 'layer', 'head', 'group')
        >>> bool(abs(trace["mass"].sum("group") - 1).max() < 1e-5)
        True
    """
    if query not in QUERIES:
        raise ArgumentError(f"No query {query!r}: choose one of {', '.join(map(repr, QUERIES))}.")
    if max_new_tokens < 1:
        raise ArgumentError(f"max_new_tokens is {max_new_tokens}: an answer has at least one token.")
    batches = PromptBatches(items, strict)
    fingerprint = lalm.fingerprint()
    note_unchecked(lalm, fingerprint=fingerprint)
    traced: list[Item] = []
    masses: list[AttentionMasses] = []

    def read(prompt: Prompt) -> AttentionMasses:
        return read_masses(lalm, prompt, query, max_new_tokens, mean=not per_query)

    for prompt, found in batches.results(lalm, read, batch_size or BATCH_SIZE, progress, "trace"):
        masses.append(found)
        if masses[-1].groups != masses[0].groups:
            raise ArgumentError(f"Prompts have different groups: {masses[0].groups}, {masses[-1].groups}.")
        traced.extend(prompt.items)
    attributes: dict[str, Any] = {"query": query, "queries": QUERIES[query]}
    if query == "generated":
        attributes["max_new_tokens"] = max_new_tokens
    attributes |= {"excluded": batches.excluded_lines(), "n_excluded": len(batches.excluded)}
    return _to_dataset(lalm, traced, masses, per_query).assign_attrs(attributes | _provenance(fingerprint))


def _to_dataset(
    lalm: LALM, items: Sequence[Item], masses: Sequence[AttentionMasses], per_query: bool
) -> xr.Dataset:
    """The masses of all batches, one after the other."""
    queries = [batch.queries for batch in masses]
    mass = _concatenate([batch.mass for batch in masses], np.nan)
    n_tokens = _concatenate([batch.n_tokens for batch in queries], 0)
    coords: dict[str, Any] = {
        "item": [item.id for item in items],
        "layer": list(lalm.attention_layers),
        "head": np.arange(mass.shape[2]),
        "group": masses[0].groups,
        **item_labels(items),
    }
    mass_dims, token_dims = ("item", "layer", "head", "group"), ("item", "group")
    if per_query:
        mass_dims, token_dims = (*mass_dims, "query"), (*token_dims, "query")
        dims = ("item", "query")
        coords["query"] = np.arange(mass.shape[-1])
        coords["position"] = dims, _concatenate([batch.position for batch in queries], -1)
        coords["token"] = dims, _concatenate([batch.token for batch in queries], -1)
        coords["query_group"] = dims, _concatenate([batch.group for batch in queries], "")
    else:
        mass, n_tokens = mass[..., 0], n_tokens[..., 0]
    n_queries = np.concatenate([batch.counts for batch in queries])
    variables = {
        "mass": (mass_dims, mass),
        "n_tokens": (token_dims, n_tokens),
        "n_queries": ("item", n_queries),
    }
    return xr.Dataset(variables, coords)


def _concatenate(batches: Sequence[np.ndarray], absent: Any) -> np.ndarray:
    """Batches [B, ..., Q] one after the other, those with fewer queries filled up with ``absent``."""
    width = max(batch.shape[-1] for batch in batches)
    padded = []
    for batch in batches:
        widths = [(0, 0)] * (batch.ndim - 1) + [(0, width - batch.shape[-1])]
        padded.append(np.pad(batch, widths, constant_values=absent))
    return np.concatenate(padded)


def _provenance(fingerprint: dict[str, Any]) -> dict[str, str | int]:
    """Model and versions as flat attributes, which is what netCDF takes."""
    versions = {**fingerprint["versions"], "mata_interp": __version__}
    model = {
        f"model_{name}": str(value)
        for name, value in fingerprint.items()
        if name != "versions" and value is not None
    }
    return {
        "threads": torch.get_num_threads(),
        **model,
        **{f"version_{name}": value for name, value in versions.items()},
    }
