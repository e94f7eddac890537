"""The model under check with its prompt, and what several checks need from both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from mata_interp.benchmarks import Exclusion, Item, load_benchmark
from mata_interp.errors import ItemError, ModelError, RunError
from mata_interp.interventions import AttentionEdit, Editing, Mata
from mata_interp.lalm import Prompt
from mata_interp.lalm.discovery.experts import Flips, Routing, agreeing, experts_of, routed
from mata_interp.lalm.discovery.quantised import quantised_layers
from mata_interp.lalm.prompting.prompts import build_prompt

from .bounds import JITTER_FACTOR, LOGITS, MAX_MASS, MEASURED_LAYERS, MIN_EFFECT, ROUNDING_FACTOR, ROWS
from .eager import EagerReference, ReferenceEdit, real_tokens
from .results import NotApplicable

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["CheckContext", "default_items", "last_query", "seeded_forwards"]

Result = TypeVar("Result")

STEPS = 4  # tokens decoded
REPEATS = 8  # plain forward passes that show whether a device repeats itself
JITTERS = 4  # runs with other roundings
STRENGTHS = (1.0, 2.0, -2.0, 3.0, -3.0, 4.0, -4.0, 5.0, 6.0, -6.0, 8.0)
"""Nats that are added to the scores of all audio keys, tried in this order until the logits change clearly.

The weakest that tells is used: a strong edit in every layer drives a model so far from what it was trained on
that its own rounding grows beyond every bound."""


def last_query(weights: Tensor) -> Tensor:
    """Of attention weights [B, H, T, L] those of the last query, [B, H, L]."""
    return weights[:, :, -1]


class CheckContext:
    """A model and a prompt to check it with.

    Args:
        lalm: the model.
        prompt: B prompts, or items to make them of; None for two questions about clips that ship with the
            package, one of them cut, so that one row is padded.
        strict: raise for the first item that cannot be used, instead of leaving it out.

    Attributes:
        prompt: the prompts, on the model's device.
        items: the items of the prompt, if all have audio; empty for ready-made inputs.
        excluded: items that were left out.

    Raises:
        ModelError: there is neither a prompt nor a processor to make one.
        ItemError: an item cannot be used, with ``strict``.
        RunError: no item can be used.
    """

    def __init__(
        self, lalm: LALM, prompt: Prompt | Item | Sequence[Item] | None, strict: bool = False
    ) -> None:
        self.lalm = lalm
        self.excluded: list[Exclusion] = []
        if not isinstance(prompt, Prompt):
            if lalm.processor is None:
                raise ModelError(
                    f"{lalm.name} has no processor, so it cannot make a prompt: give one, "
                    "mi.check(lalm, lalm.prompt_from_inputs(inputs))."
                )
            items = [prompt] if isinstance(prompt, Item) else prompt
            prompt = self.build(self._usable(default_items(lalm) if items is None else items, strict))
        self.prompt = prompt.with_closed_thought().to(lalm.model)
        from_items = lalm.processor is not None and all(item.audio is not None for item in prompt.items)
        self.items = prompt.items if from_items else ()

    def _usable(self, items: Sequence[Item], strict: bool) -> tuple[Item, ...]:
        """The items of which a prompt with audio can be made; the others go to ``excluded``."""
        usable = []
        for item in items:
            try:
                if item.audio is None:
                    raise ItemError(item.id, "audio", "the item has no audio, which checks compare.")
                self.build((item,))
            except ItemError as error:
                if strict:
                    raise
                self.excluded.append(Exclusion.from_error(error))
                continue
            usable.append(item)
        if not usable:
            first = (
                f", the first: {self.excluded[0].item!r}: {self.excluded[0].reason}" if self.excluded else ""
            )
            raise RunError(
                f"No item can be used to check {self.lalm.name}. {len(self.excluded)} left out{first}"
            )
        return tuple(usable)

    def build(self, items: tuple[Item, ...]) -> Prompt:
        """As ``lalm.prompt``, without its refusal of models whose audio is at other positions than their
        placeholders: that is a check of its own here."""
        lalm = self.lalm
        made = build_prompt(
            lalm.processor,
            items,
            audio_token_id=lalm.structure.audio_token_id,
            sampling_rate=lalm.sampling_rate,
        )
        return made.with_closed_thought().to(lalm.model)

    @cached_property
    def eager(self) -> EagerReference:
        """The reference: a clone of the model on eager attention."""
        return EagerReference(self.lalm)

    @property
    def plain(self) -> Tensor:
        """The model's own logits, [B, V]."""
        return self._plain[0]

    @property
    def plain_routing(self) -> Routing:
        """The experts that the prompt's tokens are routed to in the model's own forward pass."""
        return self._plain[1]

    @cached_property
    def _plain(self) -> tuple[Tensor, Routing]:
        return self.with_routing(lambda: self.lalm.logits(self.prompt).float())

    @cached_property
    def has_experts(self) -> bool:
        """Whether some layer is a mixture of experts."""
        return bool(experts_of(self.lalm.structure.blocks))

    @property
    def unsure(self) -> str:
        """Why a difference above a bound may be no fault; "" if it is one."""
        read = self.plain_routing.experts and not self.plain_routing.unread
        if self.has_experts and not read and self.half:
            return "its choice of experts cannot be read here, and rounding may have flipped it"
        if self._change_in_batch > self.logit_bound:
            return (
                f"its own logits change by {self._change_in_batch:.2g} with the rest of a batch: its "
                "layers quantise the states of all tokens of a call together"
            )
        return ""

    @cached_property
    def _change_in_batch(self) -> float:
        """By how much a quantised model's own logits of a prompt change in a batch; 0 for other models."""
        if not quantised_layers(self.lalm.model):
            return 0.0
        alone = [self.lalm.logits(self.build((item,))).float()[0] for item in self.items]
        return max((float((a - b).abs().max()) for a, b in zip(alone, self.plain, strict=True)), default=0.0)

    def with_routing(self, run: Callable[[], Result]) -> tuple[Result, Routing]:
        """The result of a run of the model, and the experts that its tokens were routed to."""
        if not self.has_experts:
            return run(), Routing()
        with routed(self.lalm.structure) as routing:
            return run(), routing

    def with_experts_of(
        self, routing: Routing, prompt: Prompt, run: Callable[[], Result]
    ) -> tuple[Result, Flips]:
        """The result of a pass of the model over a prompt with the experts of another run, and how many of
        its own choices differed."""
        return agreeing(self.lalm.structure, routing, real_tokens(prompt.inputs), run)

    @property
    def half(self) -> bool:
        """Whether the model is in half precision."""
        return self.lalm.dtype in (torch.float16, torch.bfloat16)

    @cached_property
    def logit_bound(self) -> float:
        """How far logits may differ."""
        bound = LOGITS.get(self.lalm.dtype, LOGITS[torch.bfloat16]) * max(1.0, float(self.plain.abs().max()))
        if quantised_layers(self.lalm.model):
            bound = max(bound, JITTER_FACTOR * self._jitter(self._eager_last_logits))
        if not self.half:
            return bound
        # the model's own two attention implementations, neither of which contains code of this package
        eager, _ = self.eager_logits(0.0, self.plain_routing)
        rounding = float((self.plain - eager.to(self.plain)).abs().max())
        return max(bound, ROUNDING_FACTOR * rounding)

    def _eager_last_logits(self) -> Tensor:
        return self.eager.logits(self.prompt.inputs, 1, None, self.plain_routing)[0]

    def _jitter_of_weights(self, reduce: Callable[[Tensor], Tensor]) -> float:
        """How far reduced attention weights move when states are off by roundings; 0 if there are none."""

        def run() -> Tensor:
            by_layer, _ = self.eager.weights(self.prompt.inputs, reduce, self.plain_routing)
            return torch.cat([weights.flatten().cpu() for weights in by_layer.values()])

        try:
            return self._jitter(run)
        except NotApplicable:  # eager attention returns no weights
            return 0.0

    def _jitter(self, run: Callable[[], Tensor]) -> float:
        """The largest change of a tensor of the reference over runs whose states are off by roundings.

        Layers that quantise what they are given turn a difference in the last digit into one of a step of
        8 bits, and deep models in half precision amplify it from layer to layer.
        """
        reference, largest = run(), 0.0
        for seed in range(JITTERS):
            with self.eager.jittered(seed):
                largest = max(largest, float((run() - reference).abs().max()))
        return largest

    def exact(self, difference: float) -> tuple[float, str]:
        """How far logits may differ that are computed twice in the same way, and what that was derived from.

        Nothing may differ on a CPU. The kernels of other devices may sum in any order: where plain forward
        passes differ from each other, it is the bound of logits.

        Args:
            difference: what was measured. If it is 0, no further pass is made.

        Returns:
            the bound, and a note for the result; "" if there is nothing to say.
        """
        if difference == 0 or self.lalm.device.type == "cpu":
            return 0.0, ""
        apart = self.repeat_difference
        passes = f"; {REPEATS} more plain forward passes on {self.lalm.device}"
        if not apart:
            return 0.0, f"{passes} are equal"
        return self.logit_bound, f"{passes} differ by up to {apart:.2g}"

    @cached_property
    def repeat_difference(self) -> float:
        """How far repeated plain forward passes differ from the first."""
        again = (self.lalm.logits(self.prompt).float() for _ in range(REPEATS))
        return max(float((logits - self.plain).abs().max()) for logits in again)

    def weight_bound(self, difference: float, reduce: Callable[[Tensor], Tensor] = last_query) -> float:
        """How far attention weights, or masses of them, may differ.

        Beyond the fixed bound it is measured what rounding alone does to the same weights of this model, if
        its layers are quantised, or if it is in half precision and deeper than the models that the bound was
        measured on.

        Args:
            difference: what was measured. Up to the fixed bound no further pass is made.
            reduce: attention weights of a layer, [B, H, T, L], to what is compared.

        Raises:
            NotApplicable: rounding moves them so far that agreement would show nothing.
        """
        fixed = ROWS.get(self.lalm.dtype, ROWS[torch.bfloat16])
        deep = self.half and len(self.lalm.attention_layers) > MEASURED_LAYERS and not self.has_experts
        if not difference > fixed or not (deep or quantised_layers(self.lalm.model)):
            return fixed  # also of NaN, which exceeds every bound
        rounding = self._jitter_of_weights(reduce)
        bound = max(fixed, JITTER_FACTOR * rounding)
        if bound > MAX_MASS:
            raise NotApplicable(
                f"rounding alone moves attention in this model by up to {rounding:.2g}, so that agreement "
                "would show nothing. Check it in float32 and before it is quantised."
            )
        return bound

    @cached_property
    def strength(self) -> float:
        """The first of STRENGTHS that changes the eager logits clearly; else the one that does so most."""
        effects = {}
        plain, _ = self.eager_logits(0.0)
        for alpha in STRENGTHS:
            edited, _ = self.eager_logits(alpha)
            effects[alpha] = float((edited - plain).abs().max())
            if effects[alpha] >= MIN_EFFECT * self.logit_bound:
                return alpha
        return max(effects, key=lambda alpha: effects[alpha])

    @property
    def mata(self) -> AttentionEdit:
        """An edit of every attention layer, in prefill and decode."""
        return Mata(self.strength, self.lalm.attention_layers, "add")

    def reference_edit(self, alpha: float) -> ReferenceEdit | None:
        """The same edit for the reference; None for strength 0."""
        if not alpha:
            return None
        return ReferenceEdit(alpha, self.prompt.groups["audio"], first_query=self.prompt.width - 1)

    def eager_logits(self, alpha: float, routing: Routing | None = None) -> tuple[Tensor, Flips]:
        """Logits of the reference under an edit of the audio's scores, [B, V], and how many choices of
        experts differed."""
        logits, flips = self.eager.logits(self.prompt.inputs, 1, self.reference_edit(alpha), routing)
        return logits[:, 0], flips

    def editing(self) -> Editing:
        return Editing((self.mata,), self.prompt.groups, self.lalm.structure.heads)


def default_items(lalm: LALM) -> tuple[Item, ...]:
    """Two questions about clips that ship with the package, of different length in text and audio."""
    long, short = load_benchmark("listening").split("selection")[:2]
    audio = short.load_audio(lalm.sampling_rate)
    half = audio.samples[: len(audio.samples) // 2]
    return (
        Item(audio=long.audio, audio_root=long.audio_root, question=long.question, choices=long.choices),
        Item(audio=(half, audio.rate), question="What is it?", choices=("a bell", "a dog barks")),
    )


@contextmanager
def seeded_forwards(lalm: LALM) -> Iterator[None]:
    """Inside, every forward pass of the model and of its later clones starts from the same random state.

    So a model that draws random numbers in each pass fails the one check for that, and the others still show
    whether attention is read and edited correctly.
    """
    devices = [lalm.device] if lalm.device.type == "cuda" else []
    handle = lalm.model.register_forward_pre_hook(_seed)
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        handle.remove()


def _seed(*_: object) -> None:
    torch.manual_seed(0)
