"""LALM: a large audio-language model with its processor, its structure and the instrument on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import torch
from nnsight import NNsight
from torch import Tensor

from mata_interp.benchmarks import Item
from mata_interp.compat import input_device, keep_4bit_weights_unpacked, loaded_from, uncompiled
from mata_interp.errors import ArgumentError, ItemError, ModelError
from mata_interp.interventions import InterventionLike, in_order
from mata_interp.interventions.selection import refuse_reasoning_phase
from mata_interp.load_options import LoadOptions
from mata_interp.markup import facts, frame
from mata_interp.ranges import brief

from ..defaults import MAX_NEW_TOKENS
from .calls.edited_calls import edited_calls
from .calls.locks import belongs_to, exclusive
from .decoding import GenerationOutput, decode
from .decoding_options import Decoding
from .description import describe, warn_of_slow_device
from .discovery.audio_positions import AudioAlignment, count_audio_frames, probe_audio_positions
from .discovery.quantised import compute_dtype
from .discovery.structure import ModelStructure, unwrap_thinker
from .fingerprint import fingerprint
from .hidden_states import read_head_outputs, read_hidden_states
from .load_values import template_text
from .loading import feature_extractor_of, load
from .prompting.limits import AudioLimit
from .prompting.prompts import Prompt, audio_limit, build_prompt, prompt_from_inputs
from .prompting.thinking import DEFAULT_THINKING, check_thinking
from .reasoning import reason_through
from .scoring import OptionScores, score_options
from .site_hooks import BoundInterventions
from .verification import in_check

if TYPE_CHECKING:
    from .bridge.transformer_lens_view import TransformerLensView
    from .rows.prefill import PrefillCache

__all__ = ["LALM", "PromptLike"]

Result = TypeVar("Result")
PromptLike: TypeAlias = "Prompt | Item | Sequence[Item]"
"""What every ``prompt`` argument takes: a prompt, or one or several items, asked in the default format."""


class LALM:
    """A large audio-language model (LALM) with its processor.

    The model stays as it is, on SDPA or FlashAttention, and is put in eval mode. Without an intervention, or
    with one that has no layers, it runs as if this class did not exist. While it runs through this class it
    is in eval mode and uncompiled, whatever was done with it since; its state is put back afterwards. It runs
    in the dtype of its weights and with float32 products that are not rounded, also under ``torch.autocast``
    and ``torch.set_float32_matmul_precision``.

    Args:
        model: a transformers model with audio in and text out.
        processor: its processor; without one, make prompts with :meth:`prompt_from_inputs`.
        name: the model's name in records; its own if None.
        revision: the revision on the hub that it was loaded from.
        thinking: what is done where a chat template ends in an open thought (``<think>``), before an option
            is scored or attention is traced: ``"close"`` it; go ``"through"`` it, so that the model reasons
            first, greedily and without any intervention; or ``"refuse"`` it. Answers are generated from the
            open thought in any case.

    Attributes:
        load_options: the `LoadOptions` of `from_pretrained`, with which another process can load the same
            model; None for a model that was passed.

    Raises:
        ArgumentError: there is no such way with thoughts.
        ModelError: the model takes no audio, or its decoder is built in a way that is not supported.

    See Also:
        LALM.from_pretrained: from a folder, the hub, or the ``"organism"`` that ships.
    """

    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        name: str | None = None,
        revision: str | None = None,
        thinking: str = DEFAULT_THINKING,
    ) -> None:
        self.thinking = check_thinking(thinking)
        model = uncompiled(model)
        keep_4bit_weights_unpacked(model)
        self.structure = ModelStructure.from_model(model)
        self.model = unwrap_thinker(model).eval()
        belongs_to(self.structure.decoder, self.model)
        self.processor = processor
        self.name = name or loaded_from(model.config) or type(model).__name__
        self.revision = revision
        self.load_options: LoadOptions | None = None  # None: the model was not loaded by this class
        self._why_no_processor = "none was passed to LALM"
        self._nnsight: Any = None
        self._audio_validated = False  # whether audio was seen to reach its placeholders, and no other token

    @classmethod
    def from_pretrained(  # noqa: PLR0913 the arguments of transformers
        cls,
        name: str | Path,
        *,
        device: Any = None,
        device_map: Any = None,
        dtype: Any = None,
        attn_implementation: Any = None,
        quantization_config: Any = None,
        revision: str | None = None,
        chat_template: str | Path | None = None,
        thinking: str = DEFAULT_THINKING,
        token: Any = None,
        **kwargs: Any,
    ) -> LALM:
        """Load a model and its processor.

        A model without a usable processor is loaded all the same: prompts are then made with
        :meth:`prompt_from_inputs`, and other methods say what is missing.

        Args:
            name: ``"organism"`` or ``"organism-unbiased"`` (they ship), a folder, or a hub id; the folder may
                be that of a PEFT adapter, which names its model.
            device: where the whole model goes, such as ``"cuda:1"``, ``"mps"`` or ``"cpu"``. None: the
                accelerator if there is one (CUDA, then MPS), else the CPU.
            device_map: in place of ``device``, how the model is split over devices: ``"auto"`` (all GPUs,
                then the CPU's memory), another name that transformers has, or module -> device.
            dtype: of the weights: ``"bf16"``, ``"fp16"``, ``"fp32"``, a torch.dtype, or None or ``"auto"``
                for the checkpoint's own.
            attn_implementation: the attention function, such as ``"sdpa"``, ``"flash_attention_2"`` or
                ``"eager"``; where an encoder does not have it, that of the decoder alone. A dictionary names
                one for each config inside the model's. None: that which transformers chooses.
            quantization_config: ``"8bit"`` or ``"4bit"`` (bitsandbytes, the latter NF4), or a quantisation
                config of transformers. None: that in the folder, if any.
            revision: branch, tag or commit on the hub.
            chat_template: a Jinja template, or a file that holds one, for processors that have none.
            thinking: that of `LALM`.
            token: of the hub.
            **kwargs: passed to transformers' ``from_pretrained``: ``max_memory``, ``offload_folder``, ...

        Raises:
            ArgumentError: there is no such device, dtype, attention or quantisation, or ``device`` and
                ``device_map`` are both used.
            ModelError: there is no such model, it takes no audio, does not fit on the device, or needs a
                package that is not installed.

        Warns:
            SlowDeviceWarning: a model of more than a billion parameters is on the CPU.

        Example:
            >>> import mata_interp as mi
            >>> lalm = mi.LALM.from_pretrained("organism", device="cpu", dtype="bf16")
            >>> lalm.description
            'organism on cpu, bfloat16, sdpa'
        """
        options = LoadOptions(
            device=device,
            device_map=device_map,
            dtype=dtype,
            attn_implementation=attn_implementation,
            quantization_config=quantization_config,
            revision=revision,
            chat_template=template_text(chat_template),
            thinking=None if check_thinking(thinking) == DEFAULT_THINKING else thinking,
            token=token,
            more=kwargs,
        )
        loaded = load(name, options)
        lalm = cls(loaded.model, loaded.processor, name=str(name), revision=revision, thinking=thinking)
        lalm.load_options = options
        lalm._why_no_processor = loaded.why_no_processor
        warn_of_slow_device(lalm.model, lalm.name, stacklevel=3)
        return lalm

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("structure", "_nnsight")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _nnsight=None)
        self.structure = ModelStructure.from_model(self.model)
        belongs_to(self.structure.decoder, self.model)

    def __repr__(self) -> str:
        return f"LALM({self.description}: {type(self.model).__name__}, {self.num_layers} layers)"

    def _repr_html_(self) -> str:
        """What the model is, for notebooks."""
        heads = self.structure.heads
        counts = sorted(set(heads.values()))
        rows: list[tuple[str, object]] = [
            ("model", f"{type(self.model).__name__}, {self.model.num_parameters() / 1e6:,.1f} M parameters"),
            ("runs as", self.description),
            ("decoder", f"{type(self.structure.decoder).__name__}, {self.num_layers} layers"),
            ("attention", f"layers {brief(heads)}, {' or '.join(map(str, counts))} heads"),
            ("audio placeholder", f"token {self.structure.audio_token_id}"),
        ]
        if self.processor is not None:
            rows.append(("audio", f"{self.sampling_rate:,} Hz"))
        return frame(f"LALM: {self.name}", facts(rows))

    @property
    def description(self) -> str:
        """Name, devices, dtype, quantisation if any, and attention function of the decoder, in one line."""
        return describe(self.model, self.name)

    @property
    def device(self) -> torch.device:
        """Where its inputs go."""
        return input_device(self.model)

    @property
    def dtype(self) -> torch.dtype:
        """In which it computes: that of its weights, quantised ones left aside."""
        return compute_dtype(self.model)

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
        """The longest clip it takes, in seconds; None if it takes 32 minutes or more.

        Found by changing the ends of longer and longer clips, which runs the processor (not the model) on up
        to 32 minutes of audio, once. `prompt` finds out only what it needs for the clips that it is given.
        """
        return self.audio_limit.seconds()

    @property
    def audio_limit(self) -> AudioLimit:
        """How much of a clip the processor takes."""
        return audio_limit(self._need_processor(), self.structure.audio_token_id, self.sampling_rate)

    @property
    def opens_thought(self) -> bool:
        """Whether the chat template ends in an open thought; False without a processor."""
        if self.processor is None:
            return False
        noise = np.random.default_rng(0).standard_normal(self.sampling_rate, dtype=np.float32)
        return self.prompt(Item(audio=(0.1 * noise, self.sampling_rate), question="?")).thought is not None

    def prompt(
        self,
        items: Item | Sequence[Item],
        audio: str | None = "own",
        format: str = "options",
        width: int | None = None,
    ) -> Prompt:
        """Format items with the processor's chat template, on this model's device; the model does not run.

        Args:
            items: one or several.
            audio: ``"own"``, or None to leave the audio and its marks out altogether.
            format: the wording, one of PROMPT_FORMATS.
            width: number of tokens to pad to, as in a larger batch; that of the longest item if None.

        Raises:
            ItemError: an item's audio or text cannot be used.
            ModelError: the processor's tokens cannot be assigned to groups.
            ArgumentError: a format or an ``audio`` that does not exist.

        Example:
            >>> import mata_interp as mi
            >>> lalm = mi.LALM.from_pretrained("organism")
            >>> lalm.prompt(mi.load_benchmark("listening")[0]).size
            1
        """
        return build_prompt(
            self._need_processor(),
            items,
            audio_token_id=self.structure.audio_token_id,
            sampling_rate=self.sampling_rate,
            audio=audio,
            format=format,
            width=width,
            thinking=self.thinking,
        ).to(self.device)

    def prompt_from_inputs(self, inputs: Mapping[str, Tensor], ids: Sequence[str] | None = None) -> Prompt:
        """A prompt from ready-made inputs. Its groups are audio, sink and, for all other tokens, question.

        Args:
            inputs: what the model's forward takes, ``input_ids[B, T]`` among them, left-padded, with one
                audio placeholder for each frame of audio.
            ids: a name for each row; ``"0"``, ``"1"``, ... if None.

        Raises:
            ModelError: a row is empty, not padded on the left, or has a single placeholder, which the model
                would expand on its own; ids and rows differ in number; placeholders and frames of audio do,
                or there is no audio.

        Example:
            >>> import mata_interp as mi
            >>> lalm = mi.LALM.from_pretrained("organism")
            >>> prompt = lalm.prompt(mi.load_benchmark("listening")[0])
            >>> again = lalm.prompt_from_inputs(prompt.inputs)
            >>> bool((lalm.logits(again) == lalm.logits(prompt)).all())
            True
        """
        prompt = prompt_from_inputs(inputs, self.structure.audio_token_id, ids)
        self.validate_audio_positions(prompt, each=True)
        return prompt

    def prepare(self, prompt: PromptLike, *, generating: bool = False) -> Prompt:
        """The prompt as the model takes it: items asked, tensors on its device and in its dtype.

        Before the first forward with audio, :meth:`validate_audio_positions` runs once. A thought that the
        template opens is closed, or thought through, as `thinking` says, so that the next token is one of the
        answer.

        Args:
            prompt: a prompt, or one or several items, asked in the default format.
            generating: leave a thought open, for the model to continue.

        Raises:
            ModelError: the prompt ends in an open thought, and ``thinking`` is ``"refuse"``.
        """
        if not isinstance(prompt, Prompt):
            prompt = self.prompt(prompt)
        prompt = prompt.to(self.model)
        # to look for audio tokens is to wait for the device, so it comes last
        if (
            not self._audio_validated
            and not in_check(self)
            and bool((prompt.inputs["input_ids"] == self.structure.audio_token_id).any())
        ):
            self.validate_audio_positions(prompt)
        return prompt if generating or prompt.thought is None else reason_through(self, prompt)

    def audio_alignment(self, prompt: Prompt) -> AudioAlignment:
        """Which decoder inputs change with the audio: three runs as far as the first layer.

        :meth:`AudioAlignment.require` raises where they are not the prompt's audio tokens.
        """
        return probe_audio_positions(self.model, self.structure, prompt.to(self.model).inputs)

    def validate_audio_positions(self, prompt: Prompt, each: bool = False) -> None:
        """Check that the audio reaches its placeholder tokens and no others.

        This is done once for a model, by changing the audio of the first prompt that is run.

        Args:
            prompt: with audio.
            each: after that, count frames and placeholders of this prompt, too.

        Raises:
            ModelError: it does not, and attention to audio is not defined on these inputs.
        """
        if not self._audio_validated:
            self._audio_validated = self.audio_alignment(prompt).require(self.name).moved is not None
        elif each:
            count_audio_frames(self.model, self.structure, prompt.to(self.model).inputs).require(self.name)

    @property
    def nnsight(self) -> NNsight:
        """The model wrapped by nnsight, for traces of your own; the same wrapper each time.

        An attached intervention is in force in its traces, beside your own reads and edits. nnsight
        leaves a forward of its own on every module, which costs some 5 % of a token.

        Example:
            >>> import mata_interp as mi
            >>> lalm = mi.LALM.from_pretrained("organism")
            >>> prompt = lalm.prompt(mi.load_benchmark("listening")[0])
            >>> with mi.attach(lalm, mi.Mata(1.0, layers=[3, 4])):
            ...     with lalm.nnsight.trace(**prompt.inputs):
            ...         logits = lalm.nnsight.output.logits[:, -1].save()
            >>> bool((logits == lalm.logits(prompt, mi.Mata(1.0, layers=[3, 4]))).all())
            True
        """
        if self._nnsight is None:
            self._nnsight = NNsight(self.model)
        return self._nnsight

    def to_transformer_lens(self, prompt: Prompt) -> TransformerLensView:
        """transformer-lens on a prompt with its audio; the model is left as it is."""
        from .bridge.transformer_lens_view import TransformerLensView

        return TransformerLensView(self, prompt)

    @torch.inference_mode()
    def logits(self, prompt: PromptLike, intervention: InterventionLike = None) -> Tensor:
        """Logits of the next token, [B, vocab]: the model's own at the last position.

        Args:
            prompt: B prompts, or one or several items.
            intervention: None, one, or several in order.

        Example:
            >>> import mata_interp as mi
            >>> lalm = mi.LALM.from_pretrained("organism")
            >>> item = mi.load_benchmark("listening")[0]
            >>> lalm.logits(item, mi.Mata(0.5, layers=[3, 4])).shape[0]
            1
        """
        prompt = self.prepare(prompt)
        refuse_reasoning_phase(in_order(intervention))
        bound = self._bind(prompt, intervention)
        return self._run(lambda: self.model(**prompt.inputs).logits[:, -1], bound)

    @torch.inference_mode()
    def hidden_states(self, prompt: PromptLike, layers: Sequence[int], last: int = 0) -> Tensor:
        """The outputs of decoder layers, without an intervention: float32 [B, len(layers), T, d].

        Args:
            prompt: B prompts of width T, or one or several items.
            layers: decoder layers, from 0; at least one.
            last: of so many last tokens alone, [B, len(layers), last, d]; True is 1. 0: of all tokens.

        Raises:
            ModelError: there is no such layer.

        Example:
            >>> import mata_interp as mi
            >>> lalm = mi.LALM.from_pretrained("organism")
            >>> lalm.hidden_states(mi.load_benchmark("listening")[0], [0, 3], last=True).shape[:3]
            torch.Size([1, 2, 1])
        """
        prompt = self.prepare(prompt)
        with exclusive(self.structure.decoder):
            return read_hidden_states(self.model, self.structure, prompt, layers, last)

    @torch.inference_mode()
    def head_outputs(self, prompt: PromptLike, layers: Sequence[int], last: int = 1) -> Tensor:
        """The outputs of attention heads before the output projection: float32 [B, len(layers), H, last, Dv].

        Without an intervention, computed from queries, keys and values in float32. 0 where a token of padding
        sees no key.

        Args:
            prompt: B prompts of width T, or one or several items.
            layers: decoder layers with attention and as many heads each; at least one.
            last: number of tokens, from the end of the prompt.

        Raises:
            ModelError: a layer has no attention.

        Example:
            >>> import mata_interp as mi
            >>> lalm = mi.LALM.from_pretrained("organism")
            >>> lalm.head_outputs(mi.load_benchmark("listening")[0], [0, 3]).shape[:2]
            torch.Size([1, 2])
        """
        prompt = self.prepare(prompt)
        with exclusive(self.structure.decoder):
            return read_head_outputs(self.model, self.structure, prompt, layers, last)

    @torch.inference_mode()
    def generate(
        self,
        prompt: PromptLike,
        intervention: InterventionLike = None,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> Tensor:
        """Decode with a KV cache, greedily or by sampling: the new tokens, [B, n], padded after an end.

        Args:
            prompt, intervention: those of `logits`.
            max_new_tokens, temperature, top_k, top_p, seed: those of `Decoding`.

        Example:
            >>> import mata_interp as mi
            >>> lalm = mi.LALM.from_pretrained("organism")
            >>> tokens = lalm.generate(mi.load_benchmark("listening")[0], max_new_tokens=4)
            >>> tokens.shape[0], tokens.shape[1] <= 4
            (1, True)
        """
        decoding = Decoding(max_new_tokens, temperature, top_k, top_p, seed)
        return self.answer(prompt, intervention, decoding=decoding).tokens

    @torch.inference_mode()
    def answer(
        self,
        prompt: PromptLike,
        intervention: InterventionLike = None,
        *,
        decoding: Decoding | None = None,
        max_new_tokens: int | None = None,
    ) -> GenerationOutput:
        """Generate an answer: texts, tokens, how each row ended, and the dose.

        Args:
            prompt, intervention: those of `logits`.
            decoding: greedy if None.
            max_new_tokens: in place of the decoding's own.

        Example:
            >>> import mata_interp as mi
            >>> lalm = mi.LALM.from_pretrained("organism")
            >>> output = lalm.answer(mi.load_benchmark("listening")[0], max_new_tokens=4)
            >>> len(output.texts)
            1
        """
        prompt, decoding = self.prepare(prompt, generating=True), decoding or Decoding()
        if max_new_tokens is not None:
            decoding = replace(decoding, max_new_tokens=max_new_tokens)
        bound = self._bind(prompt, intervention)
        tokenizer = getattr(self.processor, "tokenizer", None)
        output = self._run(lambda: decode(self.model, tokenizer, prompt, decoding, bound), bound)
        return replace(output, dose=bound.dose() if bound else {})

    @torch.inference_mode()
    def score(
        self,
        prompt: PromptLike,
        choices: Sequence[Sequence[str]] | Sequence[str] | None = None,
        intervention: InterventionLike = None,
    ) -> OptionScores:
        """Log-probability of each option as the answer, teacher-forced.

        The same as decoding each option token by token: edits reach the last prompt token and the tokens of
        the option.

        Args:
            prompt, intervention: those of `logits`.
            choices: the options of each prompt, tokenized as they stand and put right after the prompt; for
                one prompt, a plain list of options will do. The items' own choices if None.

        Raises:
            ItemError: a prompt has no options, or an option has no tokens.
            ArgumentError: there are not as many lists of options as prompts.

        Example:
            >>> import mata_interp as mi
            >>> lalm = mi.LALM.from_pretrained("organism")
            >>> item = mi.load_benchmark("listening")[0]
            >>> lalm.score(item).logprob.shape == (1, len(item.choices))
            True
        """
        return self.score_each(prompt, choices, [intervention])[0]

    @torch.inference_mode()
    def score_each(
        self,
        prompt: PromptLike,
        choices: Sequence[Sequence[str]] | Sequence[str] | None,
        interventions: Sequence[InterventionLike],
        *,
        prefill: PrefillCache | None = None,
    ) -> list[OptionScores]:
        """The scores under each intervention, with one prefill for all of them.

        Bit for bit what `score` returns for each alone. An intervention after the first costs one token of
        the prompt and the options' tokens, a small part of reading a prompt with audio. One that edits the
        text after the audio (``queries="text"``) reads that text again, in float32 and where no row of the
        batch has audio beside it; one that edits more, or in half precision, needs a prefill of its own.

        Args:
            prompt, choices: those of `score`.
            interventions: each None, one, or several in order.
            prefill: of this prompt, where there is one already; None: the prompt is read here.
        """
        prompt = self.prepare(prompt)
        if "position_ids" in prompt.inputs:
            raise ModelError("Inputs with position_ids cannot be scored: leave the positions to the model.")
        for intervention in interventions:
            refuse_reasoning_phase(in_order(intervention))
        lists = _lists_of_choices(prompt, choices)
        options = [self.option_tokens(item, texts) for item, texts in zip(prompt.items, lists, strict=True)]
        # one after the other: what a method has measured, or read of a negative prompt, need not be kept
        bound = (self._bind(prompt, intervention) for intervention in interventions)
        with exclusive(self.structure.decoder):
            cache = None if prefill is None else prefill.before(1)
            return score_options(self.model, prompt, options, bound, self._run, cache, self.dtype)

    def fingerprint(self) -> dict[str, Any]:
        """What tells this model from any other: names, hashes of config and weights, dtype, versions."""
        return {"name": self.name, "revision": self.revision} | fingerprint(self.model)

    def _bind(self, prompt: Prompt, intervention: InterventionLike) -> BoundInterventions | None:
        parts = in_order(intervention)
        return BoundInterventions(self, prompt, parts) if parts else None

    def _run(self, forward: Callable[[], Result], bound: BoundInterventions | None) -> Result:
        """Run a forward or a generation with interventions in force; other threads wait for their turn."""
        with exclusive(self.structure.decoder):
            if bound is None:
                return forward()
            with bound.in_force(), edited_calls(self.structure, bound) as run:
                return run(forward)

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
                "LALM.prompt_from_inputs."
            )
        return self.processor


def _lists_of_choices(
    prompt: Prompt, choices: Sequence[Sequence[str]] | Sequence[str] | None
) -> Sequence[Sequence[str]]:
    """One list of options for each row of a prompt."""
    if choices is None:
        return [item.choices for item in prompt.items]
    if prompt.size == 1 and choices and all(isinstance(choice, str) for choice in choices):
        return [choices]  # type: ignore[list-item]
    if len(choices) != prompt.size:
        raise ArgumentError(f"{len(choices)} lists of options for {prompt.size} prompts.")
    return choices
