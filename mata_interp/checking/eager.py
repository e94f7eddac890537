"""The independent reference of all checks: a clone of the model on transformers' own eager attention.

It shares the model's weights and nothing of this package's mathematics: attention rows are those that the
eager function returns, and an edit that adds to scores is added to the mask that transformers makes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mata_interp.lalm import ModelStructure
from mata_interp.lalm.bridge.clone import clone_sharing_weights, use_eager
from mata_interp.lalm.discovery.experts import Flips, Routing, agreeing
from mata_interp.lalm.discovery.hooks import hidden_states_in, replace_hidden_states, temporary_hooks
from mata_interp.lalm.discovery.output_head import output_head

from .results import NotApplicable

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["EagerReference", "ReferenceEdit", "extend_inputs", "is_per_token", "real_tokens"]


@dataclass(frozen=True, eq=False)
class ReferenceEdit:
    """An edit of attention scores, as the reference applies it.

    It decides keys, queries and phase for itself on purpose. A check that took them from the edit engine of
    this package would confirm that engine's mistakes. The rule is the simplest one: add a number.

    Attributes:
        alpha: number added to the scores, in nats.
        keys: which keys it is added to, bool [B, P].
        first_query: position of the first query it applies to; it applies to all later ones as well, those
            of answer tokens included.
    """

    alpha: float
    keys: Tensor
    first_query: int


class EagerReference:
    """A clone of the model on eager attention, whose weights can be read and edited.

    Its passes take a ``routing``, the choices of experts of the run that they are compared with. Where its
    own choices differ in a mixture of experts, it runs with those of the other run. Each pass returns how
    many choices differed.

    Args:
        lalm: the model to clone; the clone shares its weights.

    Raises:
        NotApplicable: when it is read or edited, if the model has no eager attention that allows it.
    """

    def __init__(self, lalm: LALM) -> None:
        self.model = clone_sharing_weights(lalm.model)
        self.structure = ModelStructure.from_model(self.model)
        use_eager([self.structure.decoder, *self.structure.attention.values()])

    def logits(
        self,
        inputs: dict[str, Tensor],
        last: int,
        edit: ReferenceEdit | None = None,
        routing: Routing | None = None,
    ) -> tuple[Tensor, Flips]:
        """Logits of the last positions, in one forward pass without a cache.

        Args:
            inputs: of the model.
            last: number of positions.
            edit: applied in every attention layer.
            routing: choices of experts of the run that this one is compared with.

        Returns:
            float32 [B, last, V], and how many choices of experts differed.
        """
        hooks = [] if edit is None else [self._edit_mask(layer, edit) for layer in self.structure.attention]
        head = output_head(self.model)
        hooks.append(head.register_forward_pre_hook(lambda _, args: (args[0][:, -last:], *args[1:])))
        with _removed_after(hooks), torch.no_grad():
            out, flips = self._run(inputs, routing)
        return out.logits[:, -last:].float(), flips

    def weights(
        self,
        inputs: dict[str, Tensor],
        reduce: Callable[[Tensor], Tensor],
        routing: Routing | None = None,
    ) -> tuple[dict[int, Tensor], Flips]:
        """Attention weights of every layer.

        Args:
            inputs: of the model.
            reduce: applied to the float32 weights of a layer, [B, H, T, L].
            routing: choices of experts of the run that this one is compared with.

        Returns:
            the reduced weights by layer, and how many choices of experts differed.
        """
        by_layer: dict[int, Tensor] = {}

        def keep(layer: int) -> Callable[..., None]:
            def hook(_: Any, args: Any, out: Any) -> None:
                weights = out[1] if isinstance(out, tuple) and len(out) > 1 else None
                if isinstance(weights, Tensor) and weights.dim() == 4:
                    by_layer[layer] = reduce(weights.float())

            return hook

        hooks = [module.register_forward_hook(keep(i)) for i, module in self.structure.attention.items()]
        with _removed_after(hooks), torch.no_grad():
            _, flips = self._run(inputs, routing)
        missing = sorted(set(self.structure.attention) - set(by_layer))
        if missing:
            raise NotApplicable(f"the model's eager attention returns no weights in layer {missing[0]}.")
        return by_layer, flips

    def jittered(self, seed: int) -> AbstractContextManager[None]:
        """Inside, the states that enter each layer are off by roundings of their dtype: what a layer makes of
        that is rounding of the model, in which no code of this package takes part."""
        generator = torch.Generator().manual_seed(seed)

        def shift(args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            states = hidden_states_in(args, kwargs)
            noise = torch.randn(states.shape, generator=generator).to(states)
            two_roundings = 2 * torch.finfo(states.dtype).eps  # as much as two attention kernels differ
            return replace_hidden_states(args, kwargs, states * (1 + two_roundings * noise))

        return temporary_hooks([(block, shift) for block in self.structure.blocks])

    def _run(self, inputs: dict[str, Tensor], routing: Routing | None) -> tuple[Any, Flips]:
        return agreeing(
            self.structure,
            routing or Routing(),
            real_tokens(inputs),
            lambda: self.model(**inputs, use_cache=False),
        )

    def _edit_mask(self, layer: int, edit: ReferenceEdit) -> Any:
        """A hook that adds an edit to the mask of one attention module."""
        module: Any = self.structure.attention[layer]
        names = list(inspect.signature(module.forward).parameters)

        def hook(_: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            arguments = dict(zip(names, args, strict=False)) | kwargs
            mask = arguments.get("attention_mask")
            if not isinstance(mask, Tensor) or mask.dim() != 4 or not mask.is_floating_point():
                raise NotApplicable(f"the eager attention of layer {layer} takes no mask to add an edit to.")
            rows, width = edit.keys.shape
            mask = mask.expand(rows, -1, -1, -1).clone()
            keys = edit.keys.to(mask.device)[:, None, None, :]
            mask[:, :, edit.first_query :, :width] += torch.where(keys, edit.alpha, 0.0).to(mask.dtype)
            if "attention_mask" in kwargs:
                return args, kwargs | {"attention_mask": mask}
            place = names.index("attention_mask")
            return (*args[:place], mask, *args[place + 1 :]), kwargs

        return module.register_forward_pre_hook(hook, with_kwargs=True)


def extend_inputs(inputs: dict[str, Tensor], tokens: Tensor, real: Tensor | None = None) -> dict[str, Tensor]:
    """Inputs of a prompt with further tokens appended.

    Args:
        inputs: of a prompt [B, P].
        tokens: ids to append, [B, N].
        real: which of these are no padding, bool [B, N]; all, if not given.
    """
    ids = inputs["input_ids"]
    longer = dict(inputs)
    mask = inputs.get("attention_mask", torch.ones_like(ids))
    more = torch.ones_like(tokens) if real is None else real.to(tokens)
    for name, value in inputs.items():
        if is_per_token(value, ids):
            longer[name] = torch.cat([value, value.new_zeros(tokens.shape)], 1)
    longer["input_ids"] = torch.cat([ids, tokens], 1)
    longer["attention_mask"] = torch.cat([mask, more.to(mask.dtype)], 1)
    return longer


def real_tokens(inputs: dict[str, Tensor]) -> Tensor:
    """Which tokens are no padding: bool [B, T]."""
    tokens = inputs["input_ids"]
    return inputs.get("attention_mask", torch.ones_like(tokens)).bool()


def is_per_token(value: Any, tokens: Tensor) -> bool:
    """Whether an input has one integer for each of the tokens [B, P], such as a mask or token types."""
    return isinstance(value, Tensor) and value.shape == tokens.shape and not value.is_floating_point()


@contextmanager
def _removed_after(hooks: list[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
