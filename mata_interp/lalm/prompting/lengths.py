"""Number of tokens of an item's prompt, without computing audio features where it is not necessary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mata_interp.benchmarks import Item
from mata_interp.benchmarks.audio import joint_sha256

from .formats import PROMPT_FORMATS, canonical_format
from .messages import takes_audio_in_call
from .prompts import refuse_special_tokens
from .texts import render

if TYPE_CHECKING:
    from ..model import LALM

__all__ = ["PromptLength", "PromptLengths"]


@dataclass(frozen=True)
class PromptLength:
    """Size of an item's prompt.

    Attributes:
        tokens: Number of tokens, audio included.
        truncated_seconds: Seconds of audio cut off because the model takes no more, all clips together.
        audio_sha256: SHA-256 of the decoded audio; of several clips, of their hashes.
    """

    tokens: int
    truncated_seconds: float
    audio_sha256: str


class PromptLengths:
    """Measures prompts of one model; a call takes an item and returns its `PromptLength`.

    The number of audio tokens depends on the number of samples of each clip alone. So the whole prompt is
    built for the first item with these numbers only; for the others the text is tokenized. Processors that
    take audio in their chat template alone have no text to tokenize: their prompts are always built.

    Args:
        lalm: The model.
        format: Prompt format, one of PROMPT_FORMATS.

    >>> import mata_interp as mi
    >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")
    >>> PromptLengths(lalm)(items[0]).tokens == lalm.prompt(items[0]).width
    True
    """

    def __init__(self, lalm: LALM, format: str = "options") -> None:
        canonical_format(format)
        self._lalm, self._format = lalm, format
        self._audio_tokens: dict[
            tuple[int, ...], int
        ] = {}  # samples -> tokens of the prompt less those of its text
        self._by_text = lalm.processor is not None and takes_audio_in_call(lalm.processor)

    def __call__(self, item: Item) -> PromptLength:
        """The length of one item's prompt.

        Raises:
            ItemError: The item's audio or text cannot be used.
            ModelError: The processor's tokens cannot be assigned to groups.
        """
        rate = self._lalm.sampling_rate
        clips = item.load_clips(rate)
        samples = [len(clip.samples) for clip in clips]
        sample_counts = tuple(map(self._lalm.audio_limit.usable_samples, samples))
        cut, sha256 = (sum(samples) - sum(sample_counts)) / rate, joint_sha256(clips)
        if self._by_text and sample_counts in self._audio_tokens:
            return PromptLength(self._audio_tokens[sample_counts] + self._text_tokens(item), cut, sha256)
        tokens = self._lalm.prompt(item, format=self._format).width
        if self._by_text:
            self._audio_tokens[sample_counts] = tokens - self._text_tokens(item)
        return PromptLength(tokens, cut, sha256)

    def _text_tokens(self, item: Item) -> int:
        """Number of tokens of the rendered text, in which each clip is a single placeholder."""
        processor = self._lalm.processor
        refuse_special_tokens([item], processor.tokenizer, self._lalm.structure.audio_token_id)
        parts = render([PROMPT_FORMATS[self._format](item)], processor, [len(item.clips)])[0]
        text = "".join(part for _, part in parts)
        bos = processor.tokenizer.bos_token
        own_bos = bool(bos and text.startswith(bos))
        return len(processor.tokenizer(text, add_special_tokens=not own_bos)["input_ids"])
