"""transformer-lens as a second instrument: its bridge and its cache on prompts with their audio."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
import xarray as xr
from torch import Tensor

from mata_interp.errors import ModelError

from ..discovery.audio_positions import sounds
from ..prompting.prompts import Prompt
from ..scoring import output_head
from .causal_lm import bridge_whole, decoder_call, wrap_as_causal_lm

if TYPE_CHECKING:
    from transformer_lens import ActivationCache
    from transformer_lens.model_bridge import TransformerBridge

    from ..model import LALM

__all__ = ["TransformerLensView"]

Hooks = Sequence[tuple[str, Callable[..., Any]]]


class TransformerLensView:
    """One prompt under transformer-lens (4.3), the sound included.

    The bridge stands on a twin of the model (same weights, other modules), so that the model itself is
    neither switched to eager attention nor taken apart, whatever is done with the bridge.

    transformer-lens' own helpers, ``patching.generic_activation_patch`` among them, hand on tokens alone: the
    placeholders then stand there without any sound, and what is measured is another prompt. The bridge of a
    lens refuses to run so. Use :meth:`run_with_cache`, :meth:`run_with_hooks` and :meth:`patch`, which give
    the whole encoding, or give it yourself: ``bridge(*lens.args, **lens.kwargs)``.

    Attributes:
        bridge: a TransformerBridge, in raw weights (no folding): of the whole model where transformer-lens
            knows it, else of its decoder, which is given the embeddings that the model itself made.
        whole: whether the bridge holds the whole model, with hooks in the encoder, too.
        prompt: on the model's device.

    Raises:
        ModelError: transformer-lens can stand neither on the model nor on its decoder; with the reasons.
    """

    def __init__(self, lalm: LALM, prompt: Prompt) -> None:
        self._lalm, self.prompt = lalm, lalm.prepare(prompt)
        self.whole, reasons = True, []
        for self.whole, build in ((True, bridge_whole), (False, wrap_as_causal_lm)):
            try:
                self.bridge: TransformerBridge = build(lalm.model)
                break
            except ModelError as reason:
                reasons.append(str(reason))
        else:
            raise ModelError(f"{lalm.name} has no place under transformer-lens: {' '.join(reasons)}")
        self.args, self.kwargs = self.encode(self.prompt)
        if not self.whole and self._off() > 1e-2 * float(lalm.logits(self.prompt).abs().max()):
            self.bridge = wrap_as_causal_lm(lalm.model, bare=True)
        placeholder = lalm.structure.audio_token_id
        self.bridge.original_model.register_forward_pre_hook(
            lambda _, args, kwargs: _refuse_silence(args, kwargs, placeholder), with_kwargs=True, prepend=True
        )

    def encode(self, prompt: Prompt) -> tuple[tuple[Tensor], dict[str, Any]]:
        """What the bridge is called with for a prompt: (tokens or embeddings,), and all the rest."""
        inputs = dict(self._lalm.prepare(prompt).inputs)
        if self.whole:
            return (inputs.pop("input_ids"),), inputs
        with torch.no_grad():
            embeds, rest = decoder_call(self._lalm.model, self._lalm.structure, inputs)
        return (embeds,), rest

    @cached_property
    def _read(self) -> tuple[Tensor, ActivationCache]:
        return self.run_with_cache()

    @property
    def logits(self) -> Tensor:
        """Of every position, [B, T, V]."""
        return self._read[0]

    @property
    def cache(self) -> ActivationCache:
        """Everything transformer-lens keeps of the prompt: patterns, residual stream, head outputs, ..."""
        return self._read[1]

    @cached_property
    def difference(self) -> float:
        """Largest difference of the bridge's logits from the model's own at the last position."""
        return self._off()

    def _off(self) -> float:
        own = self._lalm.logits(self.prompt).float()
        return float((self.run_with_hooks([])[:, -1].float() - own).abs().max())

    def pattern(self, layer: int) -> Tensor:
        """Attention weights of a decoder layer: [B, H, T, T]."""
        return self.cache["pattern", layer]

    @torch.no_grad()
    def run_with_cache(self, prompt: Prompt | None = None, **kwargs: Any) -> tuple[Tensor, ActivationCache]:
        """Logits [B, T, V] and the cache; of another prompt if one is given.

        Args:
            kwargs: to the bridge's method of the same name: ``names_filter``, ``device``, ...
        """
        args, rest = (self.args, self.kwargs) if prompt is None else self.encode(prompt)
        return self.bridge.run_with_cache(*args, **rest, **kwargs)

    @torch.no_grad()
    def run_with_hooks(self, hooks: Hooks, prompt: Prompt | None = None) -> Tensor:
        """Logits [B, T, V] with hooks ``(name, f(activation, hook))``, as in transformer-lens."""
        args, rest = (self.args, self.kwargs) if prompt is None else self.encode(prompt)
        return self.bridge.run_with_hooks(*args, fwd_hooks=list(hooks), **rest)

    def patch(
        self,
        names: str | Sequence[str],
        source: Mapping[str, Tensor] | ActivationCache,
        positions: slice | Sequence[int] | Tensor | None = None,
        heads: Sequence[int] | None = None,
    ) -> Tensor:
        """Logits [B, V] at the last position with activations of another run put in the place of the own.

        Args:
            names: hooks, such as ``"blocks.3.hook_resid_post"`` or ``"blocks.3.attn.hook_z"``.
            source: the other run's cache: ``lens.run_with_cache(other)[1]``, of as many tokens.
            positions: only at these tokens: a slice, indices, or a mask bool [B, T]; everywhere if not given.
            heads: only in these heads, of activations [B, T, H, D].

        Raises:
            ModelError: an activation of the other run has another shape.
        """

        def put(name: str, activation: Tensor, hook: Any) -> Tensor:
            new = source[name]
            if new.shape != activation.shape:
                raise ModelError(
                    f"{name} is {tuple(new.shape)} in the other run and {tuple(activation.shape)} here: "
                    "patch between prompts of as many tokens."
                )
            where = self._mask(positions, activation)
            if heads is not None:
                chosen = torch.zeros(activation.shape[2], dtype=torch.bool, device=activation.device)
                chosen[list(heads)] = True
                where = where & chosen[:, None]
            return torch.where(where, new.to(activation), activation)

        named = [names] if isinstance(names, str) else list(names)
        return self.run_with_hooks([(name, partial(put, name)) for name in named])[:, -1]

    @torch.no_grad()
    def attribution(
        self,
        tokens: Sequence[int] | Tensor,
        against: Sequence[int] | Tensor | None = None,
        heads: bool = True,
    ) -> xr.DataArray:
        """Direct logit attribution at the last position: what each part of the model adds to a token's logit.

        The residual stream is a sum (of the embedding, each head, each feed-forward part), and the last norm
        is linear once its scale is known, so the logit is a sum, too (Elhage et al. 2021). The scale is that
        of the run and the norm's gain is counted in, which ``ActivationCache.logit_attrs`` leaves out where
        weights are not folded. The logit is the output head's own, before any cap or scaling behind it.

        Args:
            tokens: of each row, whose logit.
            against: of each row, minus whose logit.
            heads: heads one by one; else each layer's attention as a whole.

        Returns:
            ``[component, item]``, float32; ``off`` among its attributes is how far the sum is from the logit.

        Raises:
            ModelError: the parts do not add up, as where a norm stands behind the attention, or they are not
                kept.
        """
        norm = self.bridge.cfg.normalization_type
        if norm not in ("RMS", "RMSPre"):
            raise ModelError(f"Direct attribution needs a last norm that only scales; this one is {norm}.")
        last = self.cache[f"blocks.{self.bridge.cfg.n_layers - 1}.hook_resid_post"][:, -1]  # (B, d)
        split: Any = self.cache.get_full_resid_decomposition if heads else self.cache.decompose_resid
        more: Any = {"expand_neurons": False} if heads else {}
        try:
            parts, labels = split(layer=-1, mlp_input=False, pos_slice=-1, return_labels=True, **more)
        except KeyError as missing:  # of hybrid decoders, say, whose layers are not all of one kind
            raise ModelError(
                f"transformer-lens keeps no {missing} of {self._lalm.name}: its parts cannot be summed. The "
                'attribution criterion of mi.fusion_layers (criteria=["attribution"]) does without.'
            ) from missing
        # what enters the first layer: a decoder that is given embeddings never looks any up
        own = [i for i, label in enumerate(labels) if label not in ("embed", "pos_embed")]
        labels = ["embed", *(labels[i] for i in own)]
        parts = torch.cat([self.cache["resid_pre", 0][:, -1][None], parts[own]])
        normed = self.cache["ln_final.hook_out"][:, -1].float()
        factor = torch.where(last == 0, 0.0, normed / last.float())
        weight = output_head(self._lalm.model).weight
        direction = weight[torch.as_tensor(tokens, device=weight.device)].float()  # (B, d)
        if against is not None:
            direction = direction - weight[torch.as_tensor(against, device=weight.device)].float()
        told = (parts.float() * factor * direction).sum(-1)  # (N, B)
        whole = (normed * direction).sum(-1)
        off = float((told.sum(0) - whole).abs().max())
        if off > 0.02 * float(told.abs().sum(0).max()):
            raise ModelError(
                f"The parts add up to a logit that is {off:.2g} off: use heads=False."
                if heads
                else f"The layers add up to a logit that is {off:.2g} off."
            )
        return xr.DataArray(
            told.cpu().numpy(),
            {"component": list(labels), "item": [item.id for item in self.prompt.items]},
            ("component", "item"),
            "attribution",
            {"off": off, "model": self._lalm.name},
        )

    def _mask(self, positions: Any, activation: Tensor) -> Tensor:
        """bool, broadcastable to an activation [B, T, ...]."""
        batch, width = activation.shape[:2]
        mask = torch.zeros(batch, width, dtype=torch.bool, device=activation.device)
        if isinstance(positions, Tensor) and positions.dtype == torch.bool:
            mask = positions.to(activation.device).expand(batch, width)
        elif positions is None:
            mask = ~mask
        else:
            mask[:, positions if isinstance(positions, slice) else list(positions)] = True
        return mask.reshape(batch, width, *(1,) * (activation.dim() - 2))


def _refuse_silence(args: tuple, kwargs: dict[str, Any], placeholder: int) -> None:
    """Tokens that say "here is sound" and no sound."""
    tokens = kwargs.get("input_ids", args[0] if args else None)
    if not isinstance(tokens, Tensor) or tokens.is_floating_point():
        return
    count = int((tokens == placeholder).sum())
    if count and not sounds(kwargs):
        raise ModelError(
            f"These tokens hold {count} audio placeholders, and no sound came with them: patching helpers of "
            "transformer-lens pass tokens only. Use lens.patch or lens.run_with_hooks, or give the whole "
            "encoding: bridge(*lens.args, **lens.kwargs)."
        )
