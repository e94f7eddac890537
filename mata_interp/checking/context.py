"""The model under check with its prompt, and what several checks need of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from mata_interp.benchmarks import Item, load_benchmark
from mata_interp.errors import ModelError
from mata_interp.interventions import AttentionEdit, Editing, Mata
from mata_interp.lalm import Prompt
from mata_interp.lalm.discovery.experts import Flips, Routing, agreeing, experts_of, routed
from mata_interp.lalm.prompting.prompts import build_prompt

from .bounds import LOGITS, OWN_ROUNDING, ROWS, TELLING
from .eager import Bias, Eager, real_in

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["CheckContext", "own_items", "steady"]

Result = TypeVar("Result")

STEPS = 4  # tokens decoded
STRENGTHS = (2.0, -4.0, 8.0)  # nats added to the scores of all audio keys, until the logits move


class CheckContext:
    """A model and a prompt to check it with.

    Args:
        lalm: the model.
        prompt: B prompts; None asks about two clips that ship, one of them cut, so that one row is padded.

    Attributes:
        prompt: on the model's device.
        items: what the prompt was made of, with sound; empty for ready-made inputs.
        flips: where compared runs of the check in hand chose other experts.

    Raises:
        ModelError: no prompt was given and none can be made.
    """

    def __init__(self, lalm: LALM, prompt: Prompt | None) -> None:
        self.lalm = lalm
        self.flips: list[Flips] = []
        if prompt is None:
            if lalm.processor is None:
                raise ModelError(
                    f"{lalm.name} has no processor to make a prompt with: give one, "
                    "mi.check(lalm, lalm.prompt_from_inputs(inputs))."
                )
            prompt = self.asked(own_items(lalm))
        self.prompt = prompt.to(lalm.model)
        heard = lalm.processor is not None and all(item.audio is not None for item in prompt.items)
        self.items = prompt.items if heard else ()

    def asked(self, items: tuple[Item, ...]) -> Prompt:
        """As ``lalm.prompt``, which refuses a model that hears in the wrong places: that is a line here."""
        lalm = self.lalm
        made = build_prompt(
            lalm.processor,
            items,
            audio_token_id=lalm.structure.audio_token_id,
            sampling_rate=lalm.sampling_rate,
            max_audio_seconds=lalm.max_audio_seconds,
        )
        return made.to(lalm.model)

    @cached_property
    def eager(self) -> Eager:
        """The model's twin on its own eager attention."""
        return Eager(self.lalm, self.flips)

    @property
    def plain(self) -> Tensor:
        """The model's own logits, [B, V]."""
        return self._plain[0]

    @property
    def plain_routing(self) -> Routing:
        """Which experts the prompt's tokens go to in the model's own forward."""
        return self._plain[1]

    @cached_property
    def _plain(self) -> tuple[Tensor, Routing]:
        return self.seen(lambda: self.lalm.logits(self.prompt).float())

    @cached_property
    def has_experts(self) -> bool:
        """Whether some layer is a mixture of experts."""
        return bool(experts_of(self.lalm.structure.blocks))

    @property
    def unsure(self) -> str:
        """Why being off by more than a bound need be no fault; "" where it is one."""
        read = self.plain_routing.experts and not self.plain_routing.unread
        if self.has_experts and not read and self.half:
            return "its choice of experts cannot be read here, and rounding may have flipped it"
        return ""

    def seen(self, run: Callable[[], Result]) -> tuple[Result, Routing]:
        """What a run of the model returns, and which experts its tokens went to."""
        if not self.has_experts:
            return run(), Routing()
        with routed(self.lalm.structure) as routing:
            return run(), routing

    def agreeing(self, routing: Routing, prompt: Prompt, run: Callable[[], Result]) -> Result:
        """What a pass of the model over a prompt returns with the experts of another run."""
        result, flips = agreeing(self.lalm.structure, routing, real_in(prompt.inputs), run)
        self.flips.append(flips)
        return result

    @property
    def half(self) -> bool:
        """Whether the model is in half precision."""
        return self.lalm.dtype in (torch.float16, torch.bfloat16)

    @cached_property
    def logit_bound(self) -> float:
        """How far logits may be off."""
        bound = LOGITS.get(self.lalm.dtype, LOGITS[torch.bfloat16]) * max(1.0, float(self.plain.abs().max()))
        if not self.half:
            return bound
        # nothing of this package is in either: its own two attentions, under which the model rounds otherwise
        before = list(self.flips)
        own = float((self.plain - self.eager_logits(0.0, self.plain_routing).to(self.plain)).abs().max())
        self.flips[:] = before  # those that the bound comes from are not the check's
        return max(bound, OWN_ROUNDING * own)

    @property
    def row_bound(self) -> float:
        """How far attention weights may be off."""
        return ROWS.get(self.lalm.dtype, ROWS[torch.bfloat16])

    @cached_property
    def strength(self) -> float:
        """The first of STRENGTHS that moves the eager logits enough to tell, or else what moves them most."""
        effects = {}
        for alpha in STRENGTHS:
            effects[alpha] = float((self.eager_logits(alpha) - self.eager_logits(0.0)).abs().max())
            if effects[alpha] >= TELLING * self.logit_bound:
                return alpha
        return max(effects, key=lambda alpha: effects[alpha])

    @property
    def mata(self) -> AttentionEdit:
        """An edit that reaches every attention layer, in prefill and decode."""
        return Mata(self.strength, self.lalm.attention_layers, "add")

    def bias(self, alpha: float) -> Bias | None:
        """The same edit as something added to the eager mask."""
        first = self.prompt.width - 1
        return Bias(alpha, self.prompt.groups["audio"], first) if alpha else None

    def eager_logits(self, alpha: float, routing: Routing | None = None) -> Tensor:
        """[B, V], of the eager twin under an edit of the audio's scores."""
        return self.eager.logits(self.prompt.inputs, 1, self.bias(alpha), routing)[:, 0]

    def editing(self) -> Editing:
        return Editing((self.mata,), self.prompt.groups, self.lalm.structure.heads)


def own_items(lalm: LALM) -> tuple[Item, ...]:
    """Two questions about clips that ship, of unlike length in text and sound."""
    long, short = load_benchmark("listening").split("selection")[:2]
    sound = short.load_audio(lalm.sampling_rate)
    half = sound.samples[: len(sound.samples) // 2]
    return (
        Item(audio=long.audio, audio_root=long.audio_root, question=long.question, choices=long.choices),
        Item(audio=(half, sound.rate), question="What is it?", choices=("a bell", "a dog barks")),
    )


@contextmanager
def steady(lalm: LALM) -> Iterator[None]:
    """Inside, every forward of the model and of its later twins starts from the same random state.

    So a model that draws at random in each forward fails the one check that looks for it, and the others
    still say whether attention is read and edited correctly.
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
