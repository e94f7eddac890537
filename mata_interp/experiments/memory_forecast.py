"""How much memory a stage takes, from the model's config and the size of a batch, before anything runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..lalm.discovery.structure import ModelStructure
from ..lalm.memory import free_bytes, memory_devices
from ..sweeps.memory import configuration_bytes, configurations_at_once
from ..sweeps.shared_prefill import HEAD_BYTES

if TYPE_CHECKING:
    from ..lalm import LALM

__all__ = ["FACTOR", "BatchSize", "MemoryForecast", "forecast_memory"]

FACTOR = 2.0
"""The measured peaks of the tests lie within this factor of their forecasts, either way."""

_STATES, _WIDE = 8, 4  # tensors of one layer in memory at once: of the hidden size, of the feed-forward size
_ENCODER_STATES, _ENCODER_WIDE = 8, 2  # the same in a layer of the audio encoder
_HEAD_COPIES = 4  # logits in the model's dtype and float32, their log-probabilities, and those of the options


@dataclass(frozen=True)
class BatchSize:
    """What decides how much memory one batch takes.

    Attributes:
        rows: Number of prompts.
        width: Number of tokens of each, padding included.
        new_tokens: Tokens that follow a prompt: those of the longest option, or of the generated answer.
        options: Tokens of all options of a prompt together, the first token of each left out.
        configurations: Number of configurations that are swept; 0 for none.
        queries: Number of tokens whose attention is traced.
        cached: Whether keys and values are kept.
    """

    rows: int
    width: int
    new_tokens: int = 1
    options: int = 0
    configurations: int = 0
    queries: int = 0
    cached: bool = True


@dataclass(frozen=True)
class MemoryForecast:
    """Bytes that a stage takes at its peak.

    Attributes:
        weights: Parameters and buffers of the model.
        cache: Keys and values of the largest batch.
        activations: The widest layer of decoder or audio encoder, on the largest batch.
        logits: Logits and log-probabilities.
        sweep_rows: Rows of the configurations that run at once.
        free: Free memory of the device, now.
        device: The device.

    Examples:
        >>> MemoryForecast(10, 5, 3, 2, 0, free=100, device="cpu").total
        18
    """

    weights: int
    cache: int
    activations: int
    logits: int
    sweep_rows: int
    free: int
    device: str

    @property
    def added(self) -> int:
        """Bytes beside the weights: the cache, and either the prefill or what follows it."""
        return self.cache + max(self.activations, self.logits + self.sweep_rows)

    @property
    def total(self) -> int:
        """All bytes."""
        return self.weights + self.added

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "total": self.total}

    def __str__(self) -> str:
        names = {
            "weights": self.weights,
            "KV cache": self.cache,
            "activations": self.activations,
            "logits": self.logits,
            "sweep rows": self.sweep_rows,
        }
        parts = ", ".join(f"{name} {_gigabytes(size)}" for name, size in names.items() if size)
        note = "" if self.added <= self.free else " A batch that does not fit is halved."
        return (
            f"about {_gigabytes(self.total)} ({parts}); {_gigabytes(self.free)} are free on {self.device} "
            f"beside the weights.{note}"
        )


def forecast_memory(lalm: LALM, batch: BatchSize) -> MemoryForecast:
    """The memory that a batch takes on this model.

    Args:
        lalm: The model.
        batch: The largest batch.

    Examples:
        >>> import mata_interp as mi
        >>> lalm = mi.LALM.from_pretrained("organism")
        >>> forecast = forecast_memory(lalm, BatchSize(rows=4, width=100))
        >>> forecast.cache == 4 * 101 * forecast_memory(lalm, BatchSize(rows=1, width=0)).cache
        True
    """
    structure = lalm.structure
    config: Any = structure.decoder.config
    size, tokens = _item_size(lalm), batch.rows * batch.width
    hidden = int(config.hidden_size)
    wide = int(getattr(config, "intermediate_size", None) or 4 * hidden)
    vocab = int(lalm.model.get_output_embeddings().weight.shape[0]) if batch.cached else 0
    heads = max(structure.heads.values())
    free = free_bytes(*memory_devices(lalm.model.parameters()))
    scores = 4 * batch.rows * heads * batch.queries * batch.width
    prefill = tokens * (_STATES * hidden + _WIDE * wide) * size + scores
    logits = batch.rows * max(batch.new_tokens, 1) * vocab * 4
    rows = 0
    if batch.configurations:
        shape = batch.rows, 1 + batch.options, max(batch.width - 1, 1), heads, hidden
        at_once = min(batch.configurations + 1, configurations_at_once(free, *shape))
        rows = at_once * configuration_bytes(*shape)
        logits = max(logits, min(HEAD_BYTES, at_once * batch.rows * (1 + batch.options) * vocab * 4))
    return MemoryForecast(
        weights=_bytes([*lalm.model.parameters(), *lalm.model.buffers()]),
        cache=batch.rows * (batch.width + batch.new_tokens) * _cache_bytes(structure, size) * batch.cached,
        activations=max(prefill, _encoder_bytes(lalm, batch.rows)),
        logits=_HEAD_COPIES * logits,
        sweep_rows=rows,
        free=free,
        device=str(lalm.device),
    )


def _cache_bytes(structure: ModelStructure, size: int) -> int:
    """Bytes of the keys and values of one token in all layers."""
    config: Any = structure.decoder.config
    heads = int(config.num_attention_heads)
    head = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return 2 * sum(structure.key_heads.values()) * head * size


def _encoder_bytes(lalm: LALM, rows: int) -> int:
    """Bytes of the widest layer of the audio encoder, for whole windows of audio; 0 where none is named."""
    config: Any = getattr(lalm.model.config, "audio_config", None)
    frames = getattr(config, "max_source_positions", None)
    width = getattr(config, "d_model", None) or getattr(config, "hidden_size", None)
    if frames is None or width is None:
        return 0
    wide = getattr(config, "encoder_ffn_dim", None) or getattr(config, "intermediate_size", None) or 4 * width
    size = _item_size(lalm)
    return rows * frames * (_ENCODER_STATES * width + _ENCODER_WIDE * wide) * size


def _item_size(lalm: LALM) -> int:
    """Bytes of one number of the hidden states."""
    return torch.finfo(lalm.dtype).bits // 8


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of tensors, each counted once."""
    return sum({id(t): t.numel() * t.element_size() for t in tensors}.values())


def _gigabytes(size: int) -> str:
    """``1.4 GB``, with two significant digits; ``0.35 MB`` below a tenth of a gigabyte."""
    unit, name = (1e9, "GB") if size >= 1e8 else (1e6, "MB")
    return f"{float(f'{size / unit:.2g}'):g} {name}"
