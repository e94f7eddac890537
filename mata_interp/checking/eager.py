"""The independent reference: the model's twin on transformers' own eager attention.

It shares the model's weights and nothing of this package's mathematics: attention rows are those that the
eager function returns, and an edit that adds to scores is put into the additive mask that transformers makes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mata_interp.lalm import ModelStructure
from mata_interp.lalm.bridge.clone import clone_sharing_weights, use_eager
from mata_interp.lalm.discovery.experts import Flips, Routing, agreeing
from mata_interp.lalm.scoring import output_head

from .results import NotApplicable

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["Bias", "Eager", "extended", "is_per_token", "real_in"]


@dataclass(frozen=True, eq=False)
class Bias:
    """Added to the scores of keys ``columns``, bool [B, P], for all queries from position ``first`` on."""

    alpha: float
    columns: Tensor
    first: int


class Eager:
    """A twin that shows its attention.

    Its passes take a ``routing``, that of the run which they are compared with: in a mixture of experts,
    where its own choices differ from those, it is run with those.

    Args:
        lalm: whose twin.
        flips: gets, of each pass with a routing, how many choices differed.

    Raises:
        NotApplicable: when read or edited, where the model has no eager attention that can be.
    """

    def __init__(self, lalm: LALM, flips: list[Flips]) -> None:
        self._flips = flips
        self.model = clone_sharing_weights(lalm.model)
        self.structure = ModelStructure.from_model(self.model)
        use_eager([self.structure.decoder, *self.structure.attention.values()])

    def logits(
        self, inputs: dict[str, Tensor], last: int, bias: Bias | None = None, routing: Routing | None = None
    ) -> Tensor:
        """Of the last positions: float32 [B, last, V], in one forward without a cache."""
        hooks = [] if bias is None else [self._biased(layer, bias) for layer in self.structure.attention]
        head = output_head(self.model)
        hooks.append(head.register_forward_pre_hook(lambda _, args: (args[0][:, -last:], *args[1:])))
        with _held(hooks), torch.no_grad():
            return self._pass(inputs, routing).logits[:, -last:].float()

    def weights(
        self,
        inputs: dict[str, Tensor],
        reduce: Callable[[Tensor], Tensor],
        routing: Routing | None = None,
    ) -> dict[int, Tensor]:
        """Of each attention layer, what ``reduce`` makes of its float32 weights [B, H, T, L]."""
        seen: dict[int, Tensor] = {}

        def keep(layer: int) -> Callable[..., None]:
            def hook(_: Any, args: Any, out: Any) -> None:
                weights = out[1] if isinstance(out, tuple) and len(out) > 1 else None
                if isinstance(weights, Tensor) and weights.dim() == 4:
                    seen[layer] = reduce(weights.float())

            return hook

        hooks = [module.register_forward_hook(keep(i)) for i, module in self.structure.attention.items()]
        with _held(hooks), torch.no_grad():
            self._pass(inputs, routing)
        if missing := sorted(set(self.structure.attention) - set(seen)):
            raise NotApplicable(f"the model's eager attention shows no weights in layer {missing[0]}.")
        return seen

    def _pass(self, inputs: dict[str, Tensor], routing: Routing | None) -> Any:
        out, flips = agreeing(
            self.structure,
            routing or Routing(),
            real_in(inputs),
            lambda: self.model(**inputs, use_cache=False),
        )
        self._flips.append(flips)
        return out

    def _biased(self, layer: int, bias: Bias) -> Any:
        """A hook that adds to the mask of one attention module."""
        module: Any = self.structure.attention[layer]
        names = list(inspect.signature(module.forward).parameters)

        def hook(_: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            given = dict(zip(names, args, strict=False)) | kwargs
            mask = given.get("attention_mask")
            if not isinstance(mask, Tensor) or mask.dim() != 4 or not mask.is_floating_point():
                raise NotApplicable(f"the eager attention of layer {layer} takes no mask to put an edit in.")
            rows, width = bias.columns.shape
            mask = mask.expand(rows, -1, -1, -1).clone()
            columns = bias.columns.to(mask.device)[:, None, None, :]
            mask[:, :, bias.first :, :width] += torch.where(columns, bias.alpha, 0.0).to(mask.dtype)
            if "attention_mask" in kwargs:
                return args, kwargs | {"attention_mask": mask}
            place = names.index("attention_mask")
            return (*args[:place], mask, *args[place + 1 :]), kwargs

        return module.register_forward_pre_hook(hook, with_kwargs=True)


def extended(inputs: dict[str, Tensor], tokens: Tensor, real: Tensor | None = None) -> dict[str, Tensor]:
    """The inputs of a prompt [B, P] with tokens [B, N] behind it; ``real``, bool [B, N]: not padding."""
    given = inputs["input_ids"]
    longer = dict(inputs)
    mask = inputs.get("attention_mask", torch.ones_like(given))
    more = torch.ones_like(tokens) if real is None else real.to(tokens)
    for name, value in inputs.items():
        if is_per_token(value, given):
            longer[name] = torch.cat([value, value.new_zeros(tokens.shape)], 1)
    longer["input_ids"] = torch.cat([given, tokens], 1)
    longer["attention_mask"] = torch.cat([mask, more.to(mask.dtype)], 1)
    return longer


def real_in(inputs: dict[str, Tensor]) -> Tensor:
    """Which tokens are no padding: bool [B, T]."""
    tokens = inputs["input_ids"]
    return inputs.get("attention_mask", torch.ones_like(tokens)).bool()


def is_per_token(value: Any, tokens: Tensor) -> bool:
    """Whether an input says something of each of the tokens [B, P]: a mask, a type."""
    return isinstance(value, Tensor) and value.shape == tokens.shape and not value.is_floating_point()


@contextmanager
def _held(hooks: list[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
