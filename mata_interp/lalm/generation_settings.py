"""The generation settings that come with a model: which hold, which are replaced, and which are refused.

A model's folder may hold a ``generation_config.json``. What changes the words of an answer holds here as in
the model's own ``generate``: penalties, bad words, stop strings, end-of-sequence tokens, least lengths. What
says how an answer is searched for, or how it is computed and returned, is replaced, so that an answer is the
same with and without a shared cache, and an edit reaches every token of it.
"""

from __future__ import annotations

from typing import Any

from mata_interp.errors import ModelError

__all__ = ["REPLACED", "generation_arguments", "settings_in_force", "stop_strings"]

_SEARCH: dict[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    "num_return_sequences": 1,
    # None for what only sampling or beams use, so that greedy decoding is not warned about
    **dict.fromkeys(("temperature", "top_k", "top_p", "min_p", "top_h", "typical_p")),
    **dict.fromkeys(("epsilon_cutoff", "eta_cutoff", "penalty_alpha", "early_stopping", "length_penalty")),
    **dict.fromkeys(("diversity_penalty", "num_beam_groups", "low_memory")),
    # faster ways to the same greedy answer, which run the model on tokens that may not become part of it
    **dict.fromkeys(("use_mtp", "prompt_lookup_num_tokens", "assistant_early_exit", "speculation_type")),
    "max_time": None,  # an answer does not depend on how fast a machine is
    "max_length": None,  # an answer has ``max_new_tokens``
}
_COMPUTATION: dict[str, Any] = {
    "use_cache": True,  # false in checkpoints that were fine-tuned with gradient checkpointing
    "return_dict_in_generate": False,
    **dict.fromkeys(("output_attentions", "output_hidden_states", "output_scores", "output_logits"), False),
    # the plain cache, in full precision, from which answers branch
    **dict.fromkeys(("cache_implementation", "cache_config", "max_cache_len", "prefill_chunk_size")),
    "disable_compile": True,
    "compile_config": None,
}
REPLACED: dict[str, Any] = {**_SEARCH, **_COMPUTATION}
"""Settings of a model that do not hold, with what stands in their place."""

_REFUSED = {
    "guidance_scale": "it runs the model a second time without the prompt",
    "watermarking_config": "it changes tokens after they were chosen",
    "token_healing": "it changes the prompt",
    "dola_layers": "it needs code from the hub",
    "constraints": "it needs beam search",
    "force_words_ids": "it needs beam search",
}


def generation_arguments(model: Any) -> dict[str, Any]:
    """Keyword arguments of ``generate`` for greedy search with a plain cache, whatever a model's folder says.

    Stop strings are left to `stop_strings`.

    Raises:
        ModelError: a setting of the model makes answers that cannot be edited or traced.
    """
    config = model.generation_config
    for name, reason in _REFUSED.items():
        value = getattr(config, name, None)
        if not (value is None or value is False or (value == 1 and value is not True)):
            raise ModelError(
                f"The generation settings of this model have {name}={value!r}, under which answers cannot be "
                f"edited or traced: {reason}. Set lalm.model.generation_config.{name} = None first."
            )
    return {**REPLACED, "stop_strings": None}


def stop_strings(model: Any) -> list[str]:
    """Texts that end an answer, by the model's generation settings."""
    strings = getattr(model.generation_config, "stop_strings", None) or []
    return [strings] if isinstance(strings, str) else list(strings)


def settings_in_force(model: Any) -> dict[str, Any]:
    """The generation settings that decide what a model answers: all but those that are replaced."""
    config = getattr(model, "generation_config", None)
    if config is None:
        return {}
    ignored = {*REPLACED, "transformers_version", "max_new_tokens"}
    return {
        name: value
        for name, value in sorted(config.to_dict().items())
        if value is not None and name not in ignored and not name.startswith("_")
    }
