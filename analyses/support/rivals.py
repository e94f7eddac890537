"""Other ways to read attention, as they are meant to be used, for comparison of costs."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any
from unittest import mock

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from mata_interp.errors import BenchmarkError

from .medium import ask, medium_lalm

__all__ = ["RIVALS", "rival"]

RIVALS = ("transformers, output_attentions", "transformer-lens, patterns", "transformer-lens, all")


def rival(name: str, audio_seconds: float) -> Callable[[], object]:
    """One of ``RIVALS``, as a task on a model of its own with eager attention and the same weights.

    transformers returns every T x T matrix; ``run_with_cache`` of transformer-lens keeps the attention
    patterns, or all activations.

    Raises:
        BenchmarkError: there is no such method.
    """
    if name not in RIVALS:
        raise BenchmarkError(f"No method {name!r}: choose one of {', '.join(RIVALS)}.")
    if name.startswith("transformers"):
        eager = medium_lalm("eager")
        prompt = ask(eager, audio_seconds)
        return lambda: eager.model(**prompt.inputs, output_attentions=True, use_cache=False)
    lalm, bridged = _bridge()
    inputs = dict(ask(lalm, audio_seconds).inputs)
    tokens = inputs.pop("input_ids")
    options = {"names_filter": _is_pattern} if name.endswith("patterns") else {}
    return lambda: bridged.run_with_cache(tokens, **inputs, **options)


def _is_pattern(name: str) -> bool:
    return name.endswith("hook_pattern")


@cache
def _bridge() -> tuple[Any, Any]:
    """A model wrapped by transformer-lens, which switches it to eager attention in place.

    If no processor can be loaded, booting runs ``pip install torchvision``, which may replace torch in the
    environment (transformer-lens 4.3). The patches prevent this, and a search for "medium" on the hub.
    """
    from huggingface_hub import constants
    from transformer_lens.model_bridge import TransformerBridge
    from transformer_lens.model_bridge.sources.transformers import helpers

    lalm = medium_lalm("eager")
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(8)}, unk_token="w0"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="w0", eos_token="w1", pad_token="w2"
    )
    lalm.model.config.architectures = [type(lalm.model).__name__]
    no_pip = mock.patch.object(helpers, "_ensure_torchvision", return_value=False)
    with no_pip, mock.patch.object(constants, "HF_HUB_OFFLINE", True):
        bridged = TransformerBridge.boot_transformers("medium", hf_model=lalm.model, tokenizer=tokenizer)
    return lalm, bridged
