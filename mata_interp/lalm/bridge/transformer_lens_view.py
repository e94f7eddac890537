"""transformer-lens as a second instrument: its bridge and its cache on prompts with their audio."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
import xarray as xr
from torch import Tensor

from mata_interp.errors import ModelError
from mata_interp.precision import full_precision

from ..calls.locks import exclusive
from ..discovery.audio_positions import audio_input_names
from ..discovery.output_head import output_head, token_directions
from ..prompting.prompts import Prompt
from .causal_lm import bridge_whole, decoder_call, wrap_as_causal_lm

if TYPE_CHECKING:
    from transformer_lens import ActivationCache
    from transformer_lens.model_bridge import TransformerBridge

    from ..model import LALM

__all__ = ["TransformerLensView"]

Hooks = Sequence[tuple[str, Callable[..., Any]]]


class TransformerLensView:
    """One prompt under transformer-lens (4.3), with its audio.

    The bridge is built on a clone of the model (same weights, other modules), so that the model is neither
    switched to eager attention nor changed otherwise, whatever is done with the bridge.

    The helpers of transformer-lens, ``patching.generic_activation_patch`` among them, pass tokens alone: the
    audio placeholders then stand there without any audio, and the measurement is that of another prompt. The
    bridge of a view refuses such a call. Use :meth:`run_with_cache`, :meth:`run_with_hooks` and
    :meth:`patch`, which pass the whole encoding, or pass it yourself: ``bridge(*view.args, **view.kwargs)``.

    Args:
        lalm: the model.
        prompt: what to run.

    Attributes:
        bridge: a TransformerBridge, in raw weights (no folding): of the whole model where transformer-lens
            knows it, else of its decoder, which takes the embeddings that the model computed.
        whole: whether the bridge holds the whole model, with hooks in the encoder, too.
        prompt: on the model's device.

    Raises:
        ModelError: transformer-lens supports neither the model nor its decoder; with the reasons.
    """

    def __init__(self, lalm: LALM, prompt: Prompt) -> None:
        self._lalm, self.prompt = lalm, lalm.prepare(prompt)
        reasons: list[str] = []
        with exclusive(lalm.structure.decoder):  # no clone of a model that is intercepted
            bridge = _build(bridge_whole, lalm.model, reasons)
            self.whole = bridge is not None
            if bridge is None:
                bridge = _build(wrap_as_causal_lm, lalm.model, reasons)
        if bridge is None:
            raise ModelError(f"transformer-lens does not support {lalm.name}: {' '.join(reasons)}")
        self.bridge: TransformerBridge = bridge
        self.args, self.kwargs = self.encode(self.prompt)
        if not self.whole and self._logit_difference() > 1e-2 * float(lalm.logits(self.prompt).abs().max()):
            with exclusive(lalm.structure.decoder):
                self.bridge = wrap_as_causal_lm(lalm.model, bare=True)
        placeholder = lalm.structure.audio_token_id
        self.bridge.original_model.register_forward_pre_hook(
            lambda _, args, kwargs: _refuse_missing_audio(args, kwargs, placeholder),
            with_kwargs=True,
            prepend=True,
        )

    def encode(self, prompt: Prompt) -> tuple[tuple[Tensor], dict[str, Any]]:
        """Arguments and keywords with which to call the bridge: (tokens or embeddings,), and the rest."""
        inputs = dict(self._lalm.prepare(prompt).inputs)
        if self.whole:
            return (inputs.pop("input_ids"),), inputs
        with torch.no_grad(), exclusive(self._lalm.structure.decoder):
            embeds, rest = decoder_call(self._lalm.model, self._lalm.structure, inputs)
        return (embeds,), rest

    @cached_property
    def _logits_and_cache(self) -> tuple[Tensor, ActivationCache]:
        return self.run_with_cache()

    @property
    def logits(self) -> Tensor:
        """The bridge's logits at every position, [B, T, V]."""
        return self._logits_and_cache[0]

    @property
    def cache(self) -> ActivationCache:
        """Everything that transformer-lens caches for the prompt: patterns, residual stream, head outputs."""
        return self._logits_and_cache[1]

    @cached_property
    def difference(self) -> float:
        """Largest difference between the bridge's logits and the model's at the last position."""
        return self._logit_difference()

    def _logit_difference(self) -> float:
        logits = self._lalm.logits(self.prompt).float()
        return float((self.run_with_hooks([])[:, -1].float() - logits).abs().max())

    def pattern(self, layer: int) -> Tensor:
        """Attention weights of a decoder layer: [B, H, T, T]."""
        return self.cache["pattern", layer]

    @full_precision()
    @torch.no_grad()
    def run_with_cache(self, prompt: Prompt | None = None, **kwargs: Any) -> tuple[Tensor, ActivationCache]:
        """Logits [B, T, V] and the cache.

        Args:
            prompt: another prompt; None: the view's own.
            kwargs: of the bridge's method of the same name: ``names_filter``, ``device``, ...
        """
        args, rest = (self.args, self.kwargs) if prompt is None else self.encode(prompt)
        return self.bridge.run_with_cache(*args, **rest, **kwargs)

    @full_precision()
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
        """Logits [B, V] at the last position with activations of another run in place of this one's.

        Args:
            names: hooks, such as ``"blocks.3.hook_resid_post"`` or ``"blocks.3.attn.hook_z"``.
            source: the other run's cache: ``view.run_with_cache(other)[1]``, of as many tokens.
            positions: patch these tokens only: a slice, indices, or a mask bool [B, T]; None: all tokens.
            heads: patch these heads only, of activations [B, T, H, D]; None: all heads.

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
        of the run, and the norm's gain is included, which ``ActivationCache.logit_attrs`` leaves out where
        weights are not folded. The logit is that of the output head, before any cap or scaling after it.

        Args:
            tokens: one token id for each row, whose logit is explained.
            against: one token id for each row, whose logit is subtracted.
            heads: explain by single heads; otherwise by each layer's attention as a whole.

        Returns:
            ``[component, item]``, float32; the attribute ``off`` is how far the sum is from the logit.

        Raises:
            ModelError: the parts do not add up, for example where a norm follows the attention, or
                transformer-lens does not cache them.
        """
        norm = self.bridge.cfg.normalization_type
        if norm not in ("RMS", "RMSPre"):
            raise ModelError(f"Direct attribution needs a last norm that only scales; this one is {norm}.")
        last = self.cache[f"blocks.{self.bridge.cfg.n_layers - 1}.hook_resid_post"][:, -1]  # (B, d)
        split: Any = self.cache.get_full_resid_decomposition if heads else self.cache.decompose_resid
        more: Any = {"expand_neurons": False} if heads else {}
        try:
            parts, labels = split(layer=-1, mlp_input=False, pos_slice=-1, return_labels=True, **more)
        except NotImplementedError as error:  # packed weights, and classes of tensors without some operators
            raise ModelError(
                f"transformer-lens cannot read the quantised weights of {self._lalm.name}: use heads=False, "
                'or the attribution criterion of mi.fusion_layers (criteria=["attribution"]).'
            ) from error
        except KeyError as missing:  # of hybrid decoders, say, whose layers are not all of one kind
            raise ModelError(
                f"transformer-lens caches no {missing} of {self._lalm.name}: its parts cannot be summed. Use "
                'the attribution criterion of mi.fusion_layers (criteria=["attribution"]).'
            ) from missing
        # what enters the first layer: a decoder that takes embeddings never looks any up
        chosen = [i for i, label in enumerate(labels) if label not in ("embed", "pos_embed")]
        labels = ["embed", *(labels[i] for i in chosen)]
        parts = torch.cat([self.cache["resid_pre", 0][:, -1][None], parts[chosen]])
        normed = self.cache["ln_final.hook_out"][:, -1].float()
        factor = torch.where(last == 0, 0.0, normed / last.float())
        head, out = output_head(self._lalm.model), self.cache["ln_final.hook_out"][:, -1]
        direction = token_directions(head, tokens, out)  # (B, d)
        if against is not None:
            direction = direction - token_directions(head, against, out)
        attribution = (parts.float() * factor * direction).sum(-1)  # (N, B)
        logit = (normed * direction).sum(-1)
        off = float((attribution.sum(0) - logit).abs().max())
        if off > 0.02 * float(attribution.abs().sum(0).max()):
            raise ModelError(
                f"The parts add up to a logit that is {off:.2g} off: use heads=False."
                if heads
                else f"The layers add up to a logit that is {off:.2g} off."
            )
        return xr.DataArray(
            attribution.cpu().numpy(),
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


def _build(build: Callable[[Any], Any], model: Any, reasons: list[str]) -> Any:
    """A bridge; None, with the reason added to ``reasons``, where there can be none."""
    try:
        return build(model)
    except ModelError as reason:
        reasons.append(str(reason))
        return None


def _refuse_missing_audio(args: tuple, kwargs: dict[str, Any], placeholder: int) -> None:
    """Raise a ModelError for tokens with audio placeholders without audio."""
    tokens = kwargs.get("input_ids", args[0] if args else None)
    if not isinstance(tokens, Tensor) or tokens.is_floating_point():
        return
    count = int((tokens == placeholder).sum())
    if count and not audio_input_names(kwargs):
        raise ModelError(
            f"These tokens hold {count} audio placeholders, and no audio came with them: patching helpers of "
            "transformer-lens pass tokens only. Use view.patch or view.run_with_hooks, or pass the whole "
            "encoding: bridge(*view.args, **view.kwargs)."
        )
