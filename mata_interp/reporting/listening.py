"""mi.listen: one clip and one question, with and without MATA, and where in the audio the model attends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..benchmarks import Item
from ..defaults import MAX_NEW_TOKENS
from ..execution.files import plain
from ..experiments.item_recordings import ItemRecording
from .wording import printable

if TYPE_CHECKING:
    from ..benchmarks.audio import AudioSource
    from ..interventions import AttentionEdit
    from ..lalm import LALM, Prompt


@dataclass(frozen=True, eq=False, repr=False)
class Listening:
    """The answers to one question about a clip, with and without MATA, and the attention over the audio.

    Several clips stand one after the other on the time axis.

    Attributes:
        model: name of the model.
        item: audio, question, options and caption.
        mata: the edit.
        before, after: probability of each option among the options, without and with MATA (softmax of the
            summed log-probabilities), ``[C]``; empty without options.
        answer_before, answer_after: the chosen option, or the generated answer, without and with MATA.
        logprob: log-probability of each option, without and with MATA, ``[2, C]``; empty without options.
        recording: attention over time by head without and with MATA, and the audio.
        layers: decoder layer of each row of ``attention``, ``[layer]``.
        share: audio / (audio + text) without the first token, mean over heads, ``[layer]``.
        samples, rate: the audio that the model received.
        truncated_seconds: duration that was cut from the ends of clips.
        name: what the clip is called: the names of its files, or ``"clip"``.
        layers_convention: how `published_layers` found MATA's layers; "" if they were named.

    Examples:
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")
        >>> item = items[0]
        >>> listening = mi.listen(lalm, item.audio_root / item.audio, item.question, item.choices)
        >>> listening.attention.shape[0] == len(listening.layers)
        True
    """

    model: str
    item: Item
    mata: AttentionEdit
    before: np.ndarray
    after: np.ndarray
    answer_before: str
    answer_after: str
    logprob: np.ndarray
    recording: ItemRecording
    layers: tuple[int, ...]
    share: np.ndarray
    samples: np.ndarray
    rate: int
    truncated_seconds: float
    name: str = "clip"
    layers_convention: str = ""

    @property
    def attention(self) -> np.ndarray:
        """Attention of the last prompt token by time, mean over heads, without MATA: ``[layer, bin]``."""
        return self.recording.mean[0]

    @property
    def edges(self) -> np.ndarray:
        """Edges of the time bins, in seconds: ``[bin + 1]``."""
        return self.recording.edges

    @property
    def clip_starts(self) -> tuple[float, ...]:
        """Where each clip begins on the time axis, in seconds."""
        return self.recording.clip_starts

    @property
    def clip_attention(self) -> np.ndarray:
        """Attention to each clip, mean over heads and layers, without MATA: ``[clip]``."""
        middles = (self.edges[:-1] + self.edges[1:]) / 2
        ends = [*self.clip_starts, self.seconds]
        parts = [self.attention[:, (middles > begin) & (middles < end)] for begin, end in pairwise(ends)]
        return np.array([float(part.sum(1).mean()) for part in parts])

    @property
    def seconds(self) -> float:
        """Duration of the audio that the model received."""
        return float(self.edges[-1])

    @property
    def profile(self) -> np.ndarray:
        """Attention to each time bin, mean over layers: ``[bin]``."""
        return self.attention.mean(0)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; probabilities and attention are fractions."""
        options = [
            {"option": option, "before": before, "after": after}
            for option, before, after in zip(self.item.choices, self.before, self.after, strict=True)
        ]
        return plain(
            {
                "model": self.model,
                "name": self.name,
                "question": self.item.question,
                "caption": self.item.caption,
                "options": options,
                "mata": self.mata.to_dict(),
                "layers_convention": self.layers_convention,
                "answer_before": self.answer_before,
                "answer_after": self.answer_after,
                "seconds": self.seconds,
                "truncated_seconds": self.truncated_seconds,
                "clip_starts": self.clip_starts,
                "clip_attention": self.clip_attention,
                "layers": self.layers,
                "edges": self.edges,
                "attention": self.attention,
                "share": self.share,
            }
        )

    def save(self, path: str | Path) -> Path:
        """Write a self-contained HTML page with a player to ``path``; returns the path."""
        from .listening_page import save_html

        return save_html(self, path)

    def __str__(self) -> str:
        from .terminal import render_text

        return render_text(self)

    def __repr__(self) -> str:
        answers = " -> ".join(repr(printable(text, 40)) for text in (self.answer_before, self.answer_after))
        return f"<Listening of {self.model!r}, {self.seconds:.1f} s: {answers}>"


def listen(  # noqa: PLR0913 one keyword per setting, as in the command
    lalm: LALM,
    audio: AudioSource | Sequence[AudioSource],
    question: str,
    choices: Sequence[str] = (),
    *,
    caption: str = "",
    alpha: float = 0.1,
    layers: Sequence[int] | None = None,
    rule: str = "abs",
    prompt_format: str = "options",
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> Listening:
    """Ask one question about one clip, without and with MATA, and measure where the last token attends.

    Args:
        lalm: the model.
        audio: a path, or ``(samples, rate)``; or a list of these, several clips in one prompt.
        question: the question.
        choices: answer options, compared by log-probability; without any, the model generates an answer.
        caption: text that is shown with the question; it may be wrong.
        alpha: strength of MATA; the default is the published one.
        layers: decoder layers that MATA edits; None for the published layers (see `published_layers`).
        rule: a rule of `Mata`; it is not settled which one the papers use.
        prompt_format: one of PROMPT_FORMATS.
        max_new_tokens: longest generated answer, in tokens.

    Returns:
        A `Listening`: print it, use its arrays, or write a page with ``save("page.html")``.

    Raises:
        ItemError: the audio, the question or the options cannot be used.
        InterventionError: the model does not have these layers, or alpha is not finite.

    Examples:
        >>> import mata_interp as mi
        >>> lalm = mi.LALM.from_pretrained("organism")
        >>> item = mi.load_benchmark("listening")[0]
        >>> path = item.audio_root / item.audio
        >>> listening = mi.listen(lalm, path, item.question, item.choices, alpha=1.0, layers=range(4, 8))
        >>> listening.attention.shape[0] == lalm.num_layers
        True
        >>> round(float(listening.after.sum()), 6)
        1.0
    """
    from ..experiments.recording import audio_of, detailed_recording
    from ..interventions import Mata, published_convention, published_layers
    from ..tracing import audio_share, trace

    name = _name_of(audio)
    item = Item(audio=audio, question=question, choices=tuple(choices), caption=caption)
    if choices:
        item.validate()
    rate = lalm.sampling_rate
    clips = [clip.samples for clip in item.load_clips(rate)]
    item = item.with_audio([(clip, rate) for clip in clips])  # decoded once
    mata = Mata(alpha, published_layers(lalm) if layers is None else layers, rule=rule)
    mata.bind(lalm.structure.heads)
    prompt = lalm.prompt(item, format=prompt_format)
    logprob_before, answer_before = _answer(lalm, prompt, item, None, max_new_tokens)
    logprob_after, answer_after = _answer(lalm, prompt, item, mata, max_new_tokens)
    recording = detailed_recording(lalm, prompt, [(), (mata,)])
    share = audio_share(trace(lalm, prompt, query="last", progress=False)).isel(item=0)
    return Listening(
        model=lalm.name,
        item=item,
        mata=mata,
        before=_probabilities(logprob_before),
        after=_probabilities(logprob_after),
        answer_before=answer_before,
        answer_after=answer_after,
        logprob=np.stack([logprob_before, logprob_after]),
        recording=recording,
        layers=tuple(int(layer) for layer in share["layer"].values),
        share=share.mean("head", skipna=True).values,
        samples=audio_of(lalm, item),
        rate=rate,
        truncated_seconds=prompt.truncated_seconds[0],
        name=name,
        layers_convention=published_convention(lalm) if layers is None else "",
    )


def _answer(
    lalm: LALM, prompt: Prompt, item: Item, mata: AttentionEdit | None, max_new_tokens: int
) -> tuple[np.ndarray, str]:
    """Log-probabilities of the options and the best one; without options, none and the generated answer."""
    if not item.choices:
        tokens = lalm.generate(prompt, mata, max_new_tokens=max_new_tokens)
        text = lalm.processor.tokenizer.decode(tokens[0], skip_special_tokens=True)
        return np.empty(0), text.strip()
    logprob = np.asarray(lalm.score(prompt, [item.choices], mata).logprob[0], dtype=np.float64)
    return logprob, item.choices[int(logprob.argmax())]


def _probabilities(logprob: np.ndarray) -> np.ndarray:
    """Softmax of log-probabilities [C]; empty without options."""
    if not len(logprob):
        return logprob
    odds = np.exp(logprob - logprob.max())
    return odds / odds.sum()


def _name_of(audio: Any) -> str:
    """File names of the audio, joined; ``"clip"`` for samples."""
    sources = audio if isinstance(audio, list) else [audio]
    names = [Path(source).name for source in sources if isinstance(source, str | Path)]
    return " + ".join(names) or "clip"
