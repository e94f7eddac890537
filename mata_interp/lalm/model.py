"""LALM: a large audio-language model with its processor, its anatomy and the instrument on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from mata_interp.benchmarks import Item
from mata_interp.errors import ItemError, ModelError
from mata_interp.interventions import Editing, InterventionLike, in_order

from .calls.instrument import Instrument
from .decoding import Decoding, GenerationOutput, decode
from .discovery.audio_positions import AudioAlignment, count_audio_frames, probe_audio_positions
from .discovery.structure import ModelStructure, unwrap_thinker
from .fingerprint import fingerprint
from .loading import feature_extractor_of, load, longest_sound
from .prompting.placing import placed
from .prompting.prompts import Prompt, build_prompt
from .scoring import OptionScores, score_options

if TYPE_CHECKING:
    from .bridge.transformer_lens_view import TransformerLensView

__all__ = ["LALM"]

Result = TypeVar("Result")


class LALM:
    """A language model that hears.

    The model stays as it is, on SDPA or FlashAttention, and is put in eval mode. Without an intervention, or
    with one that has no layers, it runs as if this class did not exist.

    Args:
        model: a transformers model with audio in and text out.
        processor: its processor; without one, make prompts with :meth:`Prompt.from_inputs`.
        name: what to call it in records; the model's own if not given.
        revision: of the hub it came from.

    Raises:
        ModelError: the model has no audio, or its decoder is built in a way that is not understood.

    See Also:
        LALM.from_pretrained: from a folder, the hub, or the ``"organism"`` that ships.
    """

    def __init__(
        self, model: Any, processor: Any = None, *, name: str | None = None, revision: str | None = None
    ) -> None:
        self.structure = ModelStructure.from_model(model)
        self.model = unwrap_thinker(model).eval()
        self.processor = processor
        self.name = name or getattr(model.config, "_name_or_path", "") or type(model).__name__
        self.revision = revision
        self.instrument = Instrument(self.structure)
        self._why_no_processor = "it was given without one"
        self._heard = False  # whether a sound was seen to reach its placeholders, and them alone

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        dtype: Any = None,
        device_map: Any = None,
        revision: str | None = None,
        token: Any = None,
        chat_template: str | Path | None = None,
    ) -> LALM:
        """Load a model and its processor.

        A model without a usable processor is loaded all the same: prompts are then made with
        :meth:`Prompt.from_inputs`, and asking for anything else says what is missing. The quantization_config
        in a folder is honoured by transformers itself; untested here, as bitsandbytes needs a GPU build.

        Args:
            name: ``"organism"`` or ``"organism-unbiased"`` (they ship), a folder, or a hub id; the folder may
                be that of a PEFT adapter, which names its model.
            dtype, device_map, revision, token: as in transformers.
            chat_template: a Jinja template, or a file that holds one, for processors that have none.

        Raises:
            ModelError: there is no such model, or it takes no audio.
        """
        loaded = load(name, dtype, device_map, revision, token, chat_template)
        lalm = cls(loaded.model, loaded.processor, name=str(name), revision=revision)
        lalm._why_no_processor = loaded.why_no_processor
        return lalm

    def __repr__(self) -> str:
        return f"LALM({self.name!r}, {type(self.model).__name__}, {self.num_layers} layers, {self.dtype})"

    @property
    def device(self) -> torch.device:
        """Where its inputs go."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Of its weights."""
        return self.model.dtype

    @property
    def num_layers(self) -> int:
        """Number of decoder layers."""
        return self.structure.num_layers

    @property
    def attention_layers(self) -> tuple[int, ...]:
        """The decoder layers that have attention."""
        return tuple(self.structure.attention)

    @property
    def sampling_rate(self) -> int:
        """Of the sound it takes, in Hz."""
        return int(feature_extractor_of(self._need_processor()).sampling_rate)

    @property
    def max_audio_seconds(self) -> float | None:
        """The longest sound it takes; None where no limit is stated."""
        return longest_sound(self._need_processor())

    def prompt(
        self,
        items: Item | Sequence[Item],
        audio: str | None = "own",
        format: str = "options",
        width: int | None = None,
    ) -> Prompt:
        """Ask items through the processor's chat template, on this model's device.

        Args:
            items: one or several.
            audio: ``"own"``, or None to leave the sound and its marks out altogether.
            format: one of PROMPT_FORMATS.
            width: pad to so many tokens, as in a larger batch; None: to the longest item.

        Raises:
            ItemError: an item's sound or text cannot be used.
            ModelError: the processor's tokens cannot be told apart into groups, or the model does not hear
                the sound where its audio tokens are.
        """
        prompt = build_prompt(
            self._need_processor(),
            items,
            audio_token_id=self.structure.audio_token_id,
            sampling_rate=self.sampling_rate,
            max_audio_seconds=self.max_audio_seconds,
            audio=audio,
            format=format,
            width=width,
        ).to(self.device)
        if audio:
            self.validate_audio_positions(prompt)
        return prompt

    def audio_alignment(self, prompt: Prompt) -> AudioAlignment:
        """Which decoder inputs move with the sound, by changing it: runs as far as the first layer.

        Done by itself once, with the first prompt that has sound; :meth:`Hearing.require` raises where the
        sound is not where the prompt's audio tokens are.
        """
        return probe_audio_positions(self.model, self.structure, self.place(prompt).inputs)

    def validate_audio_positions(self, prompt: Prompt, each: bool = False) -> None:
        """Raise a ModelError where sound does not go to audio tokens and to them alone.

        Shown once by changing the sound; with ``each``, frames and tokens are counted of every prompt.
        """
        if not self._heard:
            self._heard = self.audio_alignment(prompt).require(self.name).moved is not None
        elif each:
            count_audio_frames(self.model, self.structure, self.place(prompt).inputs).require(self.name)

    def to_transformer_lens(self, prompt: Prompt) -> TransformerLensView:
        """transformer-lens on a prompt with its audio, the model left as it is: see :class:`Lens`."""
        from .bridge.transformer_lens_view import TransformerLensView

        return TransformerLensView(self, prompt)

    def place(self, prompt: Prompt) -> Prompt:
        """The prompt on this model's device, its features in the model's dtype."""
        return placed(self.model, prompt)

    @torch.inference_mode()
    def logits(self, prompt: Prompt, intervention: InterventionLike = None) -> Tensor:
        """Logits of the next token, [B, vocab]: the model's own at the last position."""
        prompt = self.place(prompt)
        editing = self._editing(prompt, intervention)
        return self._run(lambda: self.model(**prompt.inputs).logits[:, -1], editing)

    @torch.inference_mode()
    def generate(
        self,
        prompt: Prompt,
        intervention: InterventionLike = None,
        max_new_tokens: int = 32,
        *,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> Tensor:
        """Decode with a KV cache, greedily or by drawing: the new tokens, [B, n], padded after an end.

        Args:
            max_new_tokens, temperature, top_k, top_p, seed: those of :class:`Decoding`.
        """
        how = Decoding(max_new_tokens, temperature, top_k, top_p, seed)
        return self.answer(prompt, how, intervention).tokens

    @torch.inference_mode()
    def answer(
        self, prompt: Prompt, decoding: Decoding | None = None, intervention: InterventionLike = None
    ) -> GenerationOutput:
        """Let the model answer in its own words: texts, tokens, how each row ended, and the dose."""
        prompt, decoding = self.place(prompt), decoding or Decoding()
        editing = self._editing(prompt, intervention)
        tokenizer = getattr(self.processor, "tokenizer", None)
        answers = self._run(lambda: decode(self.model, tokenizer, prompt, decoding, editing), editing)
        return replace(answers, dose=editing.dose() if editing else {})

    @torch.inference_mode()
    def score(
        self, prompt: Prompt, choices: Sequence[Sequence[str]], intervention: InterventionLike = None
    ) -> OptionScores:
        """Log-probability of each option as the answer, teacher-forced.

        The same as decoding each option token by token: edits reach the last prompt token and the tokens of
        the option.

        Args:
            prompt: B prompts.
            choices: of each prompt, its options; tokenized as they stand and put right after the prompt.

        Raises:
            ItemError: a prompt has no options, or an option has no tokens.
        """
        return self.score_each(prompt, choices, [intervention])[0]

    @torch.inference_mode()
    def score_each(
        self, prompt: Prompt, choices: Sequence[Sequence[str]], interventions: Sequence[InterventionLike]
    ) -> list[OptionScores]:
        """The scores under each intervention, the prompt read once for all of them.

        Bit for bit what `score` gives for each alone. An intervention after the first costs one token of the
        prompt and the options' tokens, a small part of reading a prompt with audio; but one that edits more
        of the prompt than its last token (``queries="text"``) needs a reading of its own.
        """
        prompt = self.place(prompt)
        if len(choices) != prompt.size:
            raise ValueError(f"{len(choices)} lists of options for {prompt.size} prompts.")
        if "position_ids" in prompt.inputs:
            raise ModelError(
                "Inputs with position_ids of their own cannot be scored: leave them to the model."
            )
        options = [self.option_tokens(item, texts) for item, texts in zip(prompt.items, choices, strict=True)]
        editings = [self._editing(prompt, intervention) for intervention in interventions]
        return score_options(self.model, prompt, options, editings, self._run)

    def fingerprint(self) -> dict[str, Any]:
        """What tells this model from any other: names, hashes of config and weights, dtype, versions."""
        return {"name": self.name, "revision": self.revision} | self._fingerprint

    @cached_property
    def _fingerprint(self) -> dict[str, Any]:
        return fingerprint(self.model)

    def _editing(self, prompt: Prompt, intervention: InterventionLike) -> Editing | None:
        parts = in_order(intervention)
        return Editing(parts, prompt.groups, self.structure.heads) if parts else None

    def _run(self, forward: Callable[[], Result], editing: Editing | None) -> Result:
        return forward() if editing is None else self.instrument.edit(forward, editing.layers, editing)

    def option_tokens(self, item: Item, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of one prompt's options, tokenized as they stand."""
        tokenizer = self._need_processor().tokenizer
        tokens = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        if not tokens or not all(tokens):
            raise ItemError(item.id, "choices", f"{list(texts)!r}: it needs options, and each some text.")
        return tokens

    def _need_processor(self) -> Any:
        if self.processor is None:
            raise ModelError(
                f"{self.name} has no processor: {self._why_no_processor.rstrip('.')}. Make prompts with "
                "Prompt.from_inputs."
            )
        return self.processor
