"""Sink redistribution (VAR): weight of attention sinks is given to the other audio tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from mata_interp.errors import InterventionError
from mata_interp.interventions.protocol import SiteContext

from .method import Method
from .registry import register

__all__ = ["SinkRedistribution", "find_sink_dimensions"]


def find_sink_dimensions(lalm: Any, prompt: Any, layer: int, count: int = 2) -> tuple[int, ...]:
    """The dimensions of the residual stream in which this model's first token is the largest.

    The first token is a sink in most models; VAR finds the dimensions of its models in this way.

    Args:
        lalm: an LALM.
        prompt: some prompts.
        layer: whose output is looked at; one in the middle of the model.
        count: number of dimensions.
    """
    states = _normalised(lalm.hidden_states(prompt, [layer])[:, 0])
    first = torch.stack([states[row, sink] for row, sink in enumerate(prompt.groups["sink"])])
    return tuple(sorted(first.amax(1).mean(0).topk(count).indices.tolist()))


@register
@dataclass(frozen=True)
class SinkRedistribution(Method):
    """VAR (the authors' code was read: seilk/VisAttnSink), on audio in place of the image.

    A token is a sink of a layer where the largest |RMSNorm(h)| of the layer's input, over the sink
    dimensions, is above ``threshold``. Sinks are looked for in a pass without the intervention. The authors
    edit all text queries from layer 2 on. Nobody has published this for audio.

    Attributes:
        dimensions: of the residual stream, from `find_sink_dimensions`; they differ by model.
        keep: p, the part of a sink's weight that it keeps; 1 changes nothing.
        least_mass: a head is edited where the mass of audio is at least this.
        most_sink: and where sinks have at most this part of that mass.
        threshold: of sinks.
    """

    site = "weights"
    dimensions: tuple[int, ...] = ()
    keep: float = 0.6
    least_mass: float = 0.2
    most_sink: float = 0.5
    threshold: float = 20.0
    queries: str = field(default="text", kw_only=True)
    formula = "w p on sinks; the freed weight goes to audio that is no sink, in proportion"
    source = "seilk/VisAttnSink (code read)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.dimensions or 0 in self.layers:
            raise InterventionError("VAR needs dimensions (see find_sink_dimensions) and layers from 1 on.")

    @classmethod
    def for_model(cls, lalm: Any, prompt: Any, layers: Any, count: int = 2, **settings: Any) -> Any:
        """With the sinks of this model: its dimensions, and a threshold that its first token passes.

        The dimensions are those of `find_sink_dimensions` in the middle of the model. The authors' threshold
        of 20 belongs to models of 7B; here it is half of the least that the first token of these prompts has
        in any of the layers' inputs.

        Args:
            lalm: an LALM.
            prompt: some prompts.
            layers: from 1 on.
            count: number of dimensions.
            settings: other attributes.
        """
        dimensions = find_sink_dimensions(lalm, prompt, lalm.num_layers // 2, count)
        states = _normalised(lalm.hidden_states(prompt, [layer - 1 for layer in layers]))
        first = torch.stack([states[row, :, sink] for row, sink in enumerate(prompt.groups["sink"])])
        least = first[..., list(dimensions)].amax(-1).min()
        return cls(layers, dimensions, threshold=float(least) / 2, **settings)

    def measure(self, lalm: Any, prompt: Any) -> Mapping[str, Tensor]:
        """Which tokens are sinks of each layer: bool [B, n, P]."""
        states = _normalised(lalm.hidden_states(prompt, [layer - 1 for layer in self.layers]))
        largest = states[..., list(self.dimensions)].amax(-1)
        real = torch.stack(list(prompt.groups.values())).any(0)
        return {"sinks": (largest > self.threshold) & real[:, None].to(largest.device)}

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """The weights [B, H, Q, L] after the rule."""
        sinks = context.measured["sinks"][:, self.layers.index(context.layer)].to(x.device)
        behind = int(context.key_positions.max()) + 1 - context.width
        sinks = pad(sinks, (0, max(0, behind)))[:, context.key_positions[0]][:, None, None]
        audio = context.columns("audio")
        mass = (x * audio).sum(-1, keepdim=True)
        share = (x * (audio & sinks)).sum(-1, keepdim=True) / mass.clamp(min=1e-12)
        rest = (x * (audio & ~sinks)).sum(-1, keepdim=True)
        freed = (1 - self.keep) * (x * sinks).sum(-1, keepdim=True)
        raised = torch.where(audio & ~sinks, x * (1 + freed / rest.clamp(min=1e-12)), x)
        edited = torch.where(sinks, x * self.keep, raised)
        return edited.where((mass >= self.least_mass) & (share <= self.most_sink) & (rest > 0), x)


def _normalised(states: Tensor) -> Tensor:
    """|RMSNorm(h)| without weights."""
    return states.abs() / states.square().mean(-1, keepdim=True).clamp(min=1e-12).sqrt()
