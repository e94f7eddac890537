"""mi.trace: attention masses at every layer and head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr

from mata_interp.benchmarks import Item
from mata_interp.errors import ArgumentError
from mata_interp.execution import MeasuredBatch, Output, RayWorkers, batch_identity, measure_batches
from mata_interp.interventions import InterventionLike, describe, in_order, record_of
from mata_interp.lalm.batching import PromptBatches, exclusion_notes, in_parts, item_labels, usable_prompt
from mata_interp.lalm.prompting.formats import canonical_format
from mata_interp.lalm.prompting.prompts import Prompt
from mata_interp.lalm.site_hooks import check_sites
from mata_interp.lalm.verification import note_unchecked
from mata_interp.version import __version__

from .attention_masses import AttentionMasses, read_masses
from .queries import QUERIES, Queries
from .storage import read_finished, read_trace, write_trace
from .subgroups import concatenate, of_groups, of_subgroups, predicts, whole_groups

if TYPE_CHECKING:
    from mata_interp.execution.ray_backend import Cluster
    from mata_interp.lalm import LALM

__all__ = ["trace"]

BATCH_SIZE = 16


def trace(  # noqa: PLR0913 one keyword per setting of a trace
    lalm: LALM,
    items: Item | Prompt | Sequence[Item | Prompt],
    query: str = "last",
    batch_size: int | None = None,
    progress: bool = True,
    *,
    intervention: InterventionLike = None,
    spans: Sequence[str] = (),
    per_query: bool = False,
    max_new_tokens: int = 32,
    strict: bool = False,
    prompt_format: str = "options",
    out: str | Path | Output | None = None,
    ray: RayWorkers | Cluster | str | bool = False,
) -> xr.Dataset:
    """Measure how much attention chosen tokens pay to each group of tokens.

    Attention is read at the call of the attention function, the model left on SDPA or FlashAttention. Memory
    is O(T) for each head, never T x T.

    Args:
        lalm: the model.
        items: one or several items, or prompts; a prompt of B rows is B items.
        query: ``"last"``, the last prompt token, which predicts the first token of the answer; ``"text"``,
            the tokens of question, options, caption and template after the first audio token, and the last
            one (text before the audio cannot see it, and a mean over it would measure the length of the
            template; of a prompt without audio, all text); or ``"generated"``, the tokens that predict a
            greedy answer, token by token: the last prompt token, then the answer's own.
        batch_size: items in a batch; 16 if not given. Prompts are batches already.
        progress: show a bar.
        intervention: in force while the model is read: None, one, or several in order. Masses of edited rows
            are those of the weights after the edit, whose sum over groups is not 1 where a method does not
            renormalise them. Parts at the logits matter for ``"generated"`` only.
        spans: parts of the audio, from `seconds`, measured as subgroups; NaN for items that end before.
        per_query: keep the queries, instead of the mean over them.
        max_new_tokens: of the answer, for ``"generated"``.
        strict: raise an error for an item that cannot be used, instead of leaving it out.
        prompt_format: wording of the items, one of PROMPT_FORMATS.
        out: write the trace to this netCDF file, batch by batch: the same call continues a trace that was
            stopped, and reads one that is finished. The trace is then returned as it is read from the file.
        ray: spread the batches over a Ray cluster: True for the available one, its address, or `RayWorkers`.

    Returns:
        ``mass[item, layer, head, group]``, float32, summing to 1 over ``group``; NaN for heads that a layer
        does not have. ``n_tokens[item, group]``, the tokens that a query can see, those in the prompt (or
        answer) up to itself, sliding windows ignored, as a mean over queries; ``n_queries[item]``.
        With ``per_query``, mass and tokens have ``query`` as a last dimension, NaN and 0 after an item's
        last query, and ``position`` (tokens before the query), ``token`` (its id; both -1 where there is no
        query) and ``query_group`` are coordinates ``[item, query]``.
        Where there are ``spans``, items have several clips, or answers a thought,
        ``subgroup_mass[item, layer, head, subgroup]`` and ``subgroup_n_tokens[item, subgroup]`` measure the
        parts of ``audio`` (``audio_1``, ``audio_2``, ..., ``audio:2-4s``) and of ``generated``
        (``reasoning``, ``answer``); NaN for a clip that an item does not have. With
        ``per_query``, ``query_predicts`` says whether a query predicts reasoning or answer.
        ``layer`` is the index in the decoder; layers without attention are left out. The ``domain``,
        ``kind``, ``condition`` and ``cluster`` of each item are coordinates. The attribute ``excluded`` names
        the items that were left out, one a line, and ``n_excluded`` counts them.

    Warns:
        ExclusionWarning: items were left out.

    Raises:
        ArgumentError: the query or the format does not exist, there is no item, or the prompts have different
            groups.
        InterventionError: the model lacks a layer or head of the intervention, or it cannot act here.
        ItemError: with ``strict``, an item's audio or text cannot be used.
        RunError: no item can be used; ``out`` cannot be written or holds something else; there is no worker.
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
    parts = in_order(intervention)
    check_sites(lalm.structure, parts)
    source = PromptBatches(items, strict, format=prompt_format)
    batches = source.batches(batch_size or BATCH_SIZE)
    settings: dict[str, Any] = {"query": query, "max_new_tokens": max_new_tokens, "per_query": per_query}
    if parts and out is not None:
        settings["intervention"] = [record_of(part) for part in parts]
    if spans:
        settings["spans"] = list(spans)
    output = _output(lalm, out, batches, {**settings, "prompt_format": canonical_format(prompt_format)})
    if output is not None and (finished := read_finished(output.path, output.identity)) is not None:
        return finished
    fingerprint = lalm.fingerprint()
    note_unchecked(lalm, fingerprint=fingerprint)
    measured = measure_batches(
        lalm,
        TraceBatch(query, max_new_tokens, not per_query, prompt_format, strict, parts, tuple(spans)),
        batches,
        label="trace",
        progress=progress,
        parts=output and output.parts(lalm),
        ray=ray,
        on_part=_same_groups(),
    )
    traced = source.collect(batches, [part.notes["excluded"] for part in measured])
    masses = [AttentionMasses.from_part(part) for part in measured if part.arrays]
    attributes: dict[str, Any] = {"query": query, "queries": QUERIES[query]}
    if parts:
        attributes["intervention"] = "; ".join(map(describe, parts))
    if query == "generated":
        attributes["max_new_tokens"] = max_new_tokens
    attributes |= {"excluded": source.excluded_lines(), "n_excluded": len(source.excluded)}
    items_traced = [item for batch in traced for item in batch]
    attributes |= _provenance(fingerprint)
    dataset = _to_dataset(lalm, items_traced, masses, per_query).assign_attrs(attributes)
    if output is None:
        return dataset
    write_trace(output.path, dataset, output.identity)
    output.remove_parts()
    return read_trace(output.path)


@dataclass(frozen=True)
class TraceBatch:
    """Measures one batch; the arguments are those of `trace`.

    Attributes:
        mean: take the mean over queries.
    """

    query: str
    max_new_tokens: int
    mean: bool
    prompt_format: str
    strict: bool
    intervention: tuple[Any, ...] = ()
    spans: tuple[str, ...] = ()

    def __call__(self, lalm: LALM, batch: Prompt | list[Item]) -> MeasuredBatch:
        prompt, excluded = usable_prompt(lalm, batch, self.prompt_format, strict=self.strict)
        notes = {"excluded": exclusion_notes(excluded)}
        if prompt is None:
            return MeasuredBatch({}, notes)

        def read(part: Prompt) -> AttentionMasses:
            return read_masses(
                lalm, part, self.query, self.max_new_tokens, self.mean, self.intervention, self.spans
            )

        ready = isinstance(batch, Prompt)
        generating = self.query == "generated"
        results = in_parts(lalm, prompt, read, None if ready else self.prompt_format, generating)
        return _joined([masses for _, masses in results]).to_part(notes)


def _output(
    lalm: LALM, out: str | Path | Output | None, batches: Sequence[Any], settings: dict[str, Any]
) -> Output | None:
    """The file to write, with what decides its content."""
    if out is None or isinstance(out, Output):
        return out
    return Output(Path(out), batch_identity(lalm, "trace", batches, settings))


def _same_groups() -> Callable[[MeasuredBatch], None]:
    """A function that refuses a part whose groups differ from those of the first."""
    first: list[list[str]] = []

    def check(part: MeasuredBatch) -> None:
        if not part.arrays:
            return
        first.append(whole_groups(part.notes["groups"]))
        if first[-1] != first[0]:
            raise ArgumentError(f"Prompts have different groups: {first[0]}, {first[-1]}.")

    return check


def _to_dataset(
    lalm: LALM, items: Sequence[Item], masses: Sequence[AttentionMasses], per_query: bool
) -> xr.Dataset:
    """The masses of all batches, one after the other."""
    queries = [batch.queries for batch in masses]
    groups = whole_groups(masses[0].groups)
    mass, n_tokens = of_groups(masses, groups)
    coords: dict[str, Any] = {
        "item": [item.id for item in items],
        "layer": list(lalm.attention_layers),
        "head": np.arange(mass.shape[2]),
        "group": groups,
        **item_labels(items),
    }
    mass_dims, token_dims = ("item", "layer", "head", "group"), ("item", "group")
    if per_query:
        mass_dims, token_dims = (*mass_dims, "query"), (*token_dims, "query")
        dims = ("item", "query")
        coords["query"] = np.arange(mass.shape[-1])
        coords["position"] = dims, concatenate([batch.position for batch in queries], -1)
        coords["token"] = dims, concatenate([batch.token for batch in queries], -1)
        coords["query_group"] = dims, concatenate([batch.group for batch in queries], "")
        if any(batch.predicts is not None for batch in masses):
            coords["query_predicts"] = dims, concatenate([predicts(batch) for batch in masses], "")
    else:
        mass, n_tokens = mass[..., 0], n_tokens[..., 0]
    n_queries = np.concatenate([batch.counts for batch in queries])
    variables = {
        "mass": (mass_dims, mass),
        "n_tokens": (token_dims, n_tokens),
        "n_queries": ("item", n_queries),
    }
    return xr.Dataset(variables, coords).merge(of_subgroups(masses, per_query))


def _joined(parts: Sequence[AttentionMasses]) -> AttentionMasses:
    """The masses of the parts of a batch that was halved, one after the other."""
    if len(parts) == 1:
        return parts[0]
    groups = list(dict.fromkeys(name for part in parts for name in part.groups))
    mass, n_tokens = of_groups(parts, groups)
    queries = [part.queries for part in parts]
    joined = Queries(
        n_tokens=n_tokens,
        position=concatenate([one.position for one in queries], -1),
        token=concatenate([one.token for one in queries], -1),
        group=concatenate([one.group for one in queries], ""),
    )
    thoughts = any(part.predicts is not None for part in parts)
    named = concatenate([predicts(part) for part in parts], "") if thoughts else None
    return AttentionMasses(mass, joined, groups, named)


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
