"""Attention masses of chosen queries, read layer by layer while the model runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from mata_interp.attention import AttentionCall, SharedMasks
from mata_interp.errors import ArgumentError, ModelError
from mata_interp.execution import MeasuredBatch
from mata_interp.interventions import InterventionLike, select_queries
from mata_interp.interventions.spans import span_groups
from mata_interp.lalm import Decoding, Prompt
from mata_interp.lalm.calls.attention_calls import Add, Backend, attention_calls
from mata_interp.lalm.decoding import decode
from mata_interp.lalm.prompting.thinking import TAGS, ThoughtState

from .edited_rows import EditedRows
from .queries import ChosenQueries, Queries

if TYPE_CHECKING:
    from mata_interp.lalm import LALM, GenerationOutput

__all__ = ["AttentionMasses", "read_masses"]


@dataclass(frozen=True, eq=False)
class AttentionMasses:
    """The masses of B prompts.

    Attributes:
        mass: float32 [B, layers, heads, G, Q], NaN for absent queries and for heads that a layer does not
            have; with the mean over queries, Q is 1.
        queries: the Q queries.
        groups: names of the G groups.
        predicts: [B, Q], what each query predicts: "reasoning", a token of a thought; "answer"; or "" for
            absent queries. None where there is no thought, or with the mean over queries.
    """

    mass: np.ndarray
    queries: Queries
    groups: list[str]
    predicts: np.ndarray | None = None

    def to_part(self, notes: Mapping[str, Any]) -> MeasuredBatch:
        """The masses as a part of a trace, with further ``notes``."""
        arrays = {name: getattr(self.queries, name) for name in Queries.__dataclass_fields__}
        if self.predicts is not None:
            arrays["predicts"] = self.predicts
        return MeasuredBatch({"mass": self.mass, **arrays}, {**notes, "groups": self.groups})

    @classmethod
    def from_part(cls, part: MeasuredBatch) -> AttentionMasses:
        """What `to_part` made a part of."""
        queries = Queries(**{name: part.arrays[name] for name in Queries.__dataclass_fields__})
        return cls(part.arrays["mass"], queries, list(part.notes["groups"]), part.arrays.get("predicts"))


@torch.inference_mode()
def read_masses(
    lalm: LALM,
    prompt: Prompt,
    query: str,
    max_new_tokens: int,
    mean: bool,
    intervention: InterventionLike = None,
    spans: Sequence[str] = (),
) -> AttentionMasses:
    """Run the model and read its attention.

    The model's device is waited for twice, whatever the number of layers and tokens: for the tokens and their
    groups, and for the masses.

    Args:
        lalm: the model.
        prompt: B prompts.
        query: which queries, one of QUERIES.
        max_new_tokens: of the answer, for ``query="generated"``.
        mean: take the mean over queries.
        intervention: in force while the model is read: None, one, or several in order.
        spans: names of parts of the audio, from `seconds`, that are groups, too.
    """
    prompt = lalm.prepare(prompt, generating=query == "generated")
    if spans:
        named = span_groups(prompt.groups["audio"], spans, prompt.audio_seconds, needed=False)
        prompt = replace(prompt, groups={**prompt.groups, **named})
    edited = EditedRows(lalm, prompt, intervention, query == "generated")
    if query == "generated":
        return _read_answers(lalm, prompt, max_new_tokens, mean, edited)
    tokens, groups = _on_cpu(prompt.inputs["input_ids"], prompt.groups)
    chosen = select_queries(query, groups)
    mass = _masses_of_prompts(lalm, prompt, chosen, mean, edited)
    return AttentionMasses(mass, Queries.from_tokens(tokens, groups, chosen, mean), list(groups))


def _on_cpu(tokens: Tensor, groups: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Tokens [B, T] and groups, bool [B, T] each, in one copy."""
    together = torch.stack([tokens, *(group.to(tokens.dtype) for group in groups.values())]).cpu()
    return together[0], {name: group.bool() for name, group in zip(groups, together[1:], strict=True)}


def _masses_of_prompts(
    lalm: LALM, prompt: Prompt, chosen: Tensor, mean: bool, edited: EditedRows
) -> np.ndarray:
    """[B, layers, heads, G, Q] of the queries ``chosen``, bool [B, T] on the CPU, in one forward."""
    keys = _GroupKeys(list(prompt.groups.values()))
    columns = chosen.any(0).nonzero()[:, 0]  # (R,) tokens that are a query in some prompt
    queries = ChosenQueries(chosen[:, columns], mean)
    first, last = int(columns[0]), int(columns[-1])
    together = last - first + 1 == len(columns)  # no index is needed on the device
    masses: dict[int, Tensor] = {}
    masks = SharedMasks()

    def on_call(layer: int, call: AttentionCall, total: int) -> Add | None:
        before = total - call.query.shape[2]
        if first < before:
            raise ModelError(
                f"The attention of layer {layer} does not get all queries at once: trace query='last'."
            )
        rows = slice(first - before, last + 1 - before) if together else columns - before
        mask = masks.of(call, rows) if isinstance(rows, slice) and len(columns) == 1 else None
        mass = call.masses(rows, keys.of(call, total), mask)  # (B, H, R, G)
        change = edited.change(layer, call, total)
        mass = edited.replace_masses(mass, columns, keys.of(call, total))
        masses[layer] = queries.reduce(mass.transpose(2, 3))
        return change

    # nothing after the last layer's scores is needed: neither its values nor the output head
    early = edited.bound is None
    backend: Backend = "nnsight" if early else "direct"
    reading = attention_calls(lalm.structure, lalm.attention_layers, on_call, backend, stop_early=early)
    with edited.in_force(), reading as run:
        run(lambda: lalm.model(**prompt.inputs, use_cache=False))
    return _collect(masses)


def _read_answers(
    lalm: LALM, prompt: Prompt, max_new_tokens: int, mean: bool, edited: EditedRows
) -> AttentionMasses:
    """The masses of the tokens that predict a greedy answer."""
    groups = dict(prompt.groups)
    no_token = torch.zeros_like(prompt.inputs["input_ids"], dtype=torch.bool)
    groups.setdefault("generated", no_token)
    steps, answer = _masses_of_answers(lalm, prompt, groups, max_new_tokens, edited)

    # all but the last token of the answer are queries, too, after the last one of the prompt
    longer = torch.cat([prompt.inputs["input_ids"], answer.tokens], 1)
    width, count = prompt.width, answer.tokens.shape[1]
    masks = {name: pad(group, (0, count)) for name, group in groups.items()}
    tokens, groups = _on_cpu(longer, masks)
    predicted = torch.arange(count) < torch.from_numpy(answer.lengths)[:, None]
    opened = _thoughts_in(lalm, prompt, tokens[:, width:])
    if opened is not None and edited.bound is not None:
        raise ArgumentError(
            "Answers with a thought are traced without an intervention only: their tokens are sorted into "
            "reasoning and answer in a second pass, to which no intervention applies."
        )
    if opened is not None:
        return _masses_with_thoughts(lalm, prompt, answer.tokens, predicted, opened, mean)
    chosen = torch.cat([torch.zeros(prompt.size, width - 1, dtype=torch.bool), predicted], 1)
    groups["generated"][:, width:] = pad(predicted[:, 1:], (0, 1))
    groups = {name: group[:, :-1] for name, group in groups.items()}

    queries = ChosenQueries(predicted, mean)
    mass = _collect(
        {layer: queries.reduce(torch.stack(masses_of_steps, -1)) for layer, masses_of_steps in steps.items()}
    )
    return AttentionMasses(mass, Queries.from_tokens(tokens[:, :-1], groups, chosen, mean), list(groups))


def _masses_of_answers(
    lalm: LALM, prompt: Prompt, groups: dict[str, Tensor], max_new_tokens: int, edited: EditedRows
) -> tuple[dict[int, list[Tensor]], GenerationOutput]:
    """The last row at every step of a greedy generation.

    Returns:
        layer -> masses [B, heads, G] of each token predicted, and the answers.
    """
    keys = _GroupKeys(list(groups.values()), list(groups).index("generated"))
    steps: dict[int, list[Tensor]] = {}
    masks = SharedMasks()

    def on_call(layer: int, call: AttentionCall, total: int) -> Add | None:
        change = edited.change(layer, call, total)
        if edited.paused:
            return change
        last = call.query.shape[2] - 1
        rows = slice(last, last + 1)
        mass = call.masses(rows, keys.of(call, total), masks.of(call, rows))  # (B, H, 1, G)
        mass = edited.replace_masses(mass, torch.tensor([total - 1]), keys.of(call, total))
        steps.setdefault(layer, []).append(mass[:, :, 0])
        return change

    def generate() -> GenerationOutput:
        if edited.bound is None:
            return lalm.answer(prompt, max_new_tokens=max_new_tokens)
        tokenizer = getattr(lalm.processor, "tokenizer", None)
        return decode(lalm.model, tokenizer, prompt, Decoding(max_new_tokens), edited.bound)

    backend: Backend = "nnsight" if edited.bound is None else "direct"
    reading = attention_calls(lalm.structure, lalm.attention_layers, on_call, backend)
    with edited.in_force(), reading as run:
        answer = run(generate)
    return steps, answer


def _thoughts_in(lalm: LALM, prompt: Prompt, tokens: Tensor) -> Tensor | None:
    """Whether a thought is open before and after each token of answers [B, N]: bool [B, 1 + N], on the CPU.

    None where no answer has a thought, or where there is no tokenizer to find its tags.

    Args:
        lalm: the model.
        prompt: the prompts, of which all or none end in an open thought.
        tokens: the answers, on the CPU.
    """
    tokenizer = getattr(lalm.processor, "tokenizer", None)
    if tokenizer is None:
        return None
    rows = tokens.tolist()
    if prompt.thought is None:
        texts = [tokenizer.decode(row, skip_special_tokens=False) for row in rows]
        if not any(tags.open in text for text in texts for tags in TAGS):
            return None
    state = ThoughtState(tokenizer, prompt.thought and prompt.thought.tags, prompt.size)
    for column in zip(*rows, strict=True):
        state.add(column)
    return state.open if bool(state.open.any()) else None


def _masses_with_thoughts(
    lalm: LALM, prompt: Prompt, answers: Tensor, predicted: Tensor, opened: Tensor, mean: bool
) -> AttentionMasses:
    """The masses of answers with thoughts, of which reasoning and answer are groups of their own.

    Which tokens are reasoning is known when they have been generated, so the answers are read once more, in
    one pass.
    """
    device = answers.device
    real = predicted[:, 1:]
    inside = (opened[:, :-1] | opened[:, 1:])[:, :-1]  # the tags belong to the thought
    groups = {"generated": real, "reasoning": real & inside, "answer": real & ~inside}
    groups = {name: group.to(device) for name, group in groups.items()}
    whole = prompt.continued(answers[:, :-1], real.to(device), groups, align=False)
    chosen = torch.cat([torch.zeros(prompt.size, prompt.width - 1, dtype=torch.bool), predicted], 1)
    mass = _masses_of_prompts(lalm, whole, chosen, mean, EditedRows(lalm, whole, None, False))
    tokens, groups = _on_cpu(whole.inputs["input_ids"], whole.groups)
    queries = Queries.from_tokens(tokens, groups, chosen, mean)
    names = np.where(opened[:, :-1].numpy(), "reasoning", "answer")
    names = np.where(predicted.numpy(), names, "")[:, : queries.position.shape[1]]
    return AttentionMasses(mass, queries, list(groups), None if mean else names)


class _GroupKeys:
    """The group of every key of a call, computed once for all layers that are alike.

    Args:
        groups: bool [B, P] each, of the prompts' tokens.
        generated: index of the group of the answer's tokens.
    """

    def __init__(self, groups: list[Tensor], generated: int | None = None) -> None:
        self._stacked = torch.stack(groups, 1).float()  # (B, G, P)
        self._generated = generated
        self._last: dict[tuple, Tensor] = {}  # of the current pass

    def of(self, call: AttentionCall, total: int) -> Tensor:
        """float32 [B, G, L] for a call whose last key is the last of ``total`` tokens."""
        alike = (total, call.length, call.key.device)
        if alike not in self._last:
            if any(key[0] != total for key in self._last):
                self._last.clear()
            keys, behind = self._stacked, total - self._stacked.shape[2]
            if behind and self._generated is not None:
                keys = pad(keys, (0, behind))
                keys[:, self._generated, -behind:] = 1.0
            # a sliding cache has the newest keys only
            self._last[alike] = keys[..., total - call.length :].to(call.key.device)
        return self._last[alike]


def _collect(masses: dict[int, Tensor]) -> np.ndarray:
    """Masses [B, heads, G, Q] of each layer as [B, layers, heads, G, Q], with one copy from each device."""
    by_device: dict[torch.device, list[int]] = {}
    for layer, mass_of_layer in masses.items():
        by_device.setdefault(mass_of_layer.device, []).append(layer)
    copied: dict[int, Tensor] = {}
    for layers in by_device.values():
        together = torch.cat([masses[layer].flatten() for layer in layers]).cpu()
        parts = together.split([masses[layer].numel() for layer in layers])
        copied |= {
            layer: part.reshape(masses[layer].shape) for layer, part in zip(layers, parts, strict=True)
        }
    heads = max(mass_of_layer.shape[1] for mass_of_layer in copied.values())
    batch, _, groups, queries = next(iter(copied.values())).shape
    mass = np.full((batch, len(copied), heads, groups, queries), np.nan, np.float32)
    for place, layer in enumerate(sorted(copied)):
        mass[:, place, : copied[layer].shape[1]] = copied[layer].numpy()
    return mass
