"""mi.listen: one clip and one question, with and without MATA, and where in the audio the model attends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..benchmarks import Item
from ..defaults import MAX_NEW_TOKENS
from ..execution.files import plain
from .wording import printable

if TYPE_CHECKING:
    from ..benchmarks.audio import AudioSource
    from ..interventions import AttentionEdit
    from ..lalm import LALM, Prompt

BINS = 60  # time bins of the attention at most, as many as can be told apart on a page


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
        attention: attention of the last prompt token to each time bin, mean over heads, without MATA,
            ``[layer, bin]``.
        layers: decoder layer of each row of ``attention``, ``[layer]``.
        edges: edges of the time bins, in seconds, ``[bin + 1]``.
        share: audio / (audio + text) without the first token, mean over heads, ``[layer]``.
        samples, rate: the audio that the model received.
        truncated_seconds: duration that was cut from the ends of clips.
        layers_convention: how `published_layers` found MATA's layers; "" if they were named.
        clip_starts: where each clip begins on the time axis, in seconds.
        clip_attention: attention of the last prompt token to each clip, mean over heads and layers, without
            MATA, ``[clip]``.

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
    attention: np.ndarray
    layers: tuple[int, ...]
    edges: np.ndarray
    share: np.ndarray
    samples: np.ndarray
    rate: int
    truncated_seconds: float
    layers_convention: str = ""
    clip_starts: tuple[float, ...] = (0.0,)
    clip_attention: np.ndarray = field(default_factory=lambda: np.full(1, np.nan))

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
    from ..interventions import Mata, published_convention, published_layers

    item = Item(audio=audio, question=question, choices=tuple(choices), caption=caption)
    if choices:
        item.validate()
    rate = lalm.sampling_rate
    clips = [clip.samples for clip in item.load_clips(rate)]
    item = item.with_audio([(clip, rate) for clip in clips])  # decoded once
    mata = Mata(alpha, published_layers(lalm) if layers is None else layers, rule=rule)
    mata.bind(lalm.structure.heads)
    prompt = lalm.prompt(item, format=prompt_format)
    before, answer_before = _answer(lalm, prompt, item, None, max_new_tokens)
    after, answer_after = _answer(lalm, prompt, item, mata, max_new_tokens)
    clips = [clip[: lalm.audio_limit.kept(len(clip))] for clip in clips]
    ends = np.cumsum([0, *map(len, clips)]) / rate
    attention, edges, share, measured = _attention_over_time(lalm, prompt, ends)
    middles = (edges[:-1] + edges[1:]) / 2
    by_clip = [attention[:, (middles > begin) & (middles < end)] for begin, end in pairwise(ends)]
    return Listening(
        model=lalm.name,
        item=item,
        mata=mata,
        before=before,
        after=after,
        answer_before=answer_before,
        answer_after=answer_after,
        attention=attention,
        layers=measured,
        edges=edges,
        share=share,
        samples=np.concatenate(clips),
        rate=rate,
        truncated_seconds=prompt.truncated_seconds[0],
        layers_convention=published_convention(lalm) if layers is None else "",
        clip_starts=tuple(ends[:-1].tolist()),
        clip_attention=np.array([float(part.sum(1).mean()) for part in by_clip]),
    )


def _answer(
    lalm: LALM, prompt: Prompt, item: Item, mata: AttentionEdit | None, max_new_tokens: int
) -> tuple[np.ndarray, str]:
    """Probabilities of the options and the best one; without options, none and the generated answer."""
    if not item.choices:
        tokens = lalm.generate(prompt, mata, max_new_tokens=max_new_tokens)
        text = lalm.processor.tokenizer.decode(tokens[0], skip_special_tokens=True)
        return np.empty(0), text.strip()
    logprob = np.asarray(lalm.score(prompt, [item.choices], mata).logprob[0], dtype=np.float64)
    odds = np.exp(logprob - logprob.max())
    return odds / odds.sum(), item.choices[int(logprob.argmax())]


def _attention_over_time(
    lalm: LALM, prompt: Prompt, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, ...]]:
    """Attention [layer, bin], bin edges, audio share [layer], and the decoder layers of the rows.

    Each time bin is traced as a token group of its own, so no row of attention is ever stored. The bins of a
    clip are of equal length, and each is of one clip only.

    Args:
        ends: where the clips begin and end, in seconds, one after the other.
    """
    import torch

    from ..lalm.prompting.groups import clip_group, partition
    from ..tracing import audio_share, trace

    whole = partition(prompt.groups)
    clips = [prompt.groups.get(clip_group(n), whole["audio"])[0] for n in range(1, len(ends))]
    bins: list[Any] = []
    edges = [0.0]
    for clip, (begin, end) in zip(clips, pairwise(ends), strict=True):
        positions = clip.nonzero().flatten()
        share_of_bins = max(1, round(BINS * (end - begin) / ends[-1]))
        parts = positions.tensor_split(min(share_of_bins, len(positions)))
        bins += parts
        edges += (begin + (end - begin) * np.cumsum([len(p) for p in parts]) / len(positions)).tolist()
    groups = {name: mask for name, mask in whole.items() if name != "audio"}
    names = [f"audio {index:03d}" for index in range(len(bins))]
    for name, tokens in zip(names, bins, strict=True):
        groups[name] = torch.zeros_like(prompt.groups["audio"])
        groups[name][0, tokens] = True
    by_bin = trace(lalm, replace(prompt, groups=groups), query="last", progress=False)
    traced = trace(lalm, prompt, query="last", progress=False)
    attention = (
        by_bin["mass"].sel(group=names).isel(item=0).mean("head", skipna=True).transpose("layer", "group")
    )
    share = audio_share(traced).isel(item=0).mean("head", skipna=True)
    measured = tuple(int(layer) for layer in traced["layer"].values)
    return attention.values, np.array(edges), share.values, measured
