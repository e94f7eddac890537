"""A model provider for Inspect (``inspect-ai``): a model with an intervention.

``inspect eval task.py --model mata-interp/organism -M intervention=FOLDER`` uses the intervention that was
saved in a folder. The package ``inspect_ai`` is imported by `model_api` alone.
"""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..errors import ArgumentError
from ..interventions import load_intervention
from ..lalm import LALM, Decoding
from .chat import answer_messages

if TYPE_CHECKING:
    from ..interventions import InterventionLike

__all__ = ["decoding_of", "model_api"]

NAME = "mata-interp"

# settings of Inspect that affect how calls are made, not the answers
_IGNORED = {"max_retries", "timeout", "attempt_timeout", "max_connections", "adaptive_connections", "batch"}
_IGNORED |= {"cache", "cache_prompt", "parallel_tool_calls", "internal_tools", "extra_headers"}
_DECODING = {"max_tokens": "max_new_tokens", "temperature": "temperature", "top_k": "top_k", "top_p": "top_p"}
_DECODING |= {"seed": "seed"}


def model_api(lalm: LALM | None = None, intervention: InterventionLike = None) -> type:
    """The class of a model provider for Inspect, registered as ``mata-interp``.

    Args:
        lalm: the model; None: the one that Inspect names (``mata-interp/NAME``) is loaded.
        intervention: None, one, or several in order; None where Inspect passes ``-M intervention=FOLDER``.

    Returns:
        A subclass of Inspect's ``ModelAPI``.

    Raises:
        ImportError: the package ``inspect_ai`` is not installed.
    """
    inspect_model: Any = import_module("inspect_ai.model")
    fixed_lalm, fixed_intervention = lalm, intervention

    class MataModelAPI(inspect_model.ModelAPI):
        """A large audio-language model with an intervention."""

        def __init__(
            self,
            model_name: str,
            base_url: str | None = None,
            api_key: str | None = None,
            config: Any = None,
            intervention: str | None = None,
            **loading: Any,
        ) -> None:
            config = inspect_model.GenerateConfig() if config is None else config
            super().__init__(model_name, base_url, api_key, [], config)
            self.lalm = fixed_lalm or LALM.from_pretrained(model_name.removeprefix(f"{NAME}/"), **loading)
            saved = None if intervention is None else load_intervention(intervention)
            self.intervention = fixed_intervention if saved is None else saved

        async def generate(self, input: Any, tools: Any, tool_choice: Any, config: Any) -> Any:
            """The answer to a chat."""
            if tools:
                raise ArgumentError("The model has no tools: leave them out of the task.")
            decoding = decoding_of(config.model_dump(exclude_none=True))
            # in a thread, so that Inspect's event loop keeps running
            answer = await asyncio.to_thread(answer_messages, self.lalm, input, self.intervention, decoding)
            message = inspect_model.ChatMessageAssistant(content=answer.text, source="generate")
            return inspect_model.ModelOutput(
                model=self.model_name,
                choices=[
                    inspect_model.ChatCompletionChoice(
                        message=message, stop_reason="stop" if answer.stopped else "max_tokens"
                    )
                ],
                usage=inspect_model.ModelUsage(
                    input_tokens=answer.input_tokens,
                    output_tokens=answer.output_tokens,
                    total_tokens=answer.input_tokens + answer.output_tokens,
                ),
                metadata={"dose": dict(answer.dose)},
            )

        def max_connections(self) -> int:
            """One connection: the model answers one chat at a time."""
            return 1

    return inspect_model.modelapi(name=NAME)(MataModelAPI)


def decoding_of(settings: dict[str, Any]) -> Decoding:
    """Inspect's settings of generation.

    Args:
        settings: those that are set, by Inspect's names.

    Raises:
        ArgumentError: one of them has no counterpart here.

    Example:
        >>> from mata_interp.harnesses.inspect_model import decoding_of
        >>> decoding_of({"max_tokens": 8, "temperature": 0.7}).max_new_tokens
        8
    """
    unknown = sorted(set(settings) - _IGNORED - set(_DECODING))
    if unknown:
        raise ArgumentError(f"{', '.join(unknown)} cannot be set here: choose among {', '.join(_DECODING)}.")
    return Decoding(**{_DECODING[name]: value for name, value in settings.items() if name in _DECODING})
