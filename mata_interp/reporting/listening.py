"""mi.listen: one sound, one question, with and without MATA, and where in the sound the model looked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..benchmarks import Item
from ..experiments.files import plain, write_whole

if TYPE_CHECKING:
    from ..benchmarks.audio import AudioSource
    from ..interventions import AttentionEdit
    from ..lalm import LALM, Prompt

BINS = 60  # of time, at most: as many as a reader can tell apart on a page
NEW_TOKENS = 48  # of an answer in free words


@dataclass(frozen=True, eq=False, repr=False)
class Listening:
    """What a model made of one sound.

    Attributes:
        model: its name.
        item: the sound, the question and the options.
        mata: the intervention.
        before, after: of each option, its probability among the options without and with MATA (softmax of the
            summed log-probabilities), ``[C]``; empty without options.
        said_before, said_after: the chosen option, or the answer in free words.
        attention: part of the last prompt token's attention on each stretch of the sound, mean over heads,
            untouched by MATA, ``[layer, bin]``.
        layers: of the decoder, ``[layer]``.
        edges: of the bins, in seconds, ``[bin + 1]``.
        share: audio / (audio + text), the first token left out, mean over heads, ``[layer]``.
        samples, rate: the sound as the model heard it.
        truncated_seconds: cut off its end.
    """

    model: str
    item: Item
    mata: AttentionEdit
    before: np.ndarray
    after: np.ndarray
    said_before: str
    said_after: str
    attention: np.ndarray
    layers: tuple[int, ...]
    edges: np.ndarray
    share: np.ndarray
    samples: np.ndarray
    rate: int
    truncated_seconds: float

    @property
    def seconds(self) -> float:
        """Length of the sound as heard."""
        return float(self.edges[-1])

    @property
    def profile(self) -> np.ndarray:
        """Attention on each stretch of the sound, mean over layers: ``[bin]``."""
        return self.attention.mean(0)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; probabilities and attention are fractions."""
        fields = (
            "model",
            "said_before",
            "said_after",
            "truncated_seconds",
            "layers",
            "edges",
            "attention",
            "share",
        )
        options = [
            {"option": option, "before": before, "after": after}
            for option, before, after in zip(self.item.choices, self.before, self.after, strict=True)
        ]
        asked = {"question": self.item.question, "options": options, "mata": self.mata.to_dict()}
        return plain({**asked, "seconds": self.seconds, **{name: getattr(self, name) for name in fields}})

    def save(self, path: str | Path) -> Path:
        """Write a self-contained page: a player, the waveform, the attention over it. Returns its path."""
        from .listening_page import listening_page

        path, html = Path(path), listening_page(self)
        write_whole(path, lambda file: file.write(html.encode("utf-8", errors="replace")))
        return path

    def __str__(self) -> str:
        from .terminal import listening_text

        return listening_text(self)

    __repr__ = __str__


def listen(
    lalm: LALM,
    audio: AudioSource,
    question: str,
    choices: Sequence[str] = (),
    *,
    alpha: float = 0.1,
    layers: Sequence[int] | None = None,
    rule: str = "abs",
) -> Listening:
    """Ask ``question`` about one sound, without and with MATA, and see where the answering token looked.

    Args:
        lalm: the model.
        audio: a path, or ``(samples, rate)``.
        choices: options, scored by log-probability; without any the model answers in its own words.
        alpha: MATA's strength; the published 0.1 if not given.
        layers: where MATA acts; if not given, the published layers (see `published_layers`).
        rule: see `Mata`; which rule is the papers' is not settled.

    Returns:
        a `Listening`: print it, look at its arrays, or ``save("page.html")``.

    Raises:
        ItemError: the sound, the question or the options cannot be used.
        InterventionError: layers or alpha that make no sense for this model.
    """
    from ..interventions import Mata, published_layers

    item = Item(audio=audio, question=question, choices=tuple(choices))
    if choices:
        item.validate()
    sound = item.load_audio(lalm.sampling_rate)
    item = item.with_audio((sound.samples, sound.rate))  # decoded once
    mata = Mata(alpha, published_layers(lalm) if layers is None else layers, rule=rule)
    mata.bind(lalm.structure.heads)
    prompt = lalm.prompt(item)
    before = _answer(lalm, prompt, item, None)
    after = _answer(lalm, prompt, item, mata)
    attention, edges, share, seen = _look(lalm, prompt)
    seconds = prompt.audio_seconds[0]
    return Listening(
        model=lalm.name,
        item=item,
        mata=mata,
        before=before[0],
        after=after[0],
        said_before=before[1],
        said_after=after[1],
        attention=attention,
        layers=seen,
        edges=edges * seconds,
        share=share,
        samples=sound.samples[: round(seconds * sound.rate)],
        rate=sound.rate,
        truncated_seconds=prompt.truncated_seconds[0],
    )


def _answer(lalm: LALM, prompt: Prompt, item: Item, mata: AttentionEdit | None) -> tuple[np.ndarray, str]:
    """Probabilities of the options and the best one; or none and free words."""
    if not item.choices:
        tokens = lalm.generate(prompt, mata, max_new_tokens=NEW_TOKENS)
        words = lalm.processor.tokenizer.decode(tokens[0], skip_special_tokens=True)
        return np.empty(0), words.strip()
    logprob = np.asarray(lalm.score(prompt, [item.choices], mata).logprob[0], dtype=np.float64)
    odds = np.exp(logprob - logprob.max())
    return odds / odds.sum(), item.choices[int(logprob.argmax())]


def _look(lalm: LALM, prompt: Prompt) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, ...]]:
    """Attention [layer, bin], edges of the bins from 0 to 1, audio share [layer], and which layers these are.

    Each stretch of the sound is traced as a token group of its own, so that no row of attention is ever kept.
    """
    import torch

    from ..tracing import audio_share, trace

    positions = prompt.groups["audio"][0].nonzero().flatten()
    stretches = positions.tensor_split(min(BINS, len(positions)))
    groups = {name: mask for name, mask in prompt.groups.items() if name != "audio"}
    names = [f"audio {index:03d}" for index in range(len(stretches))]
    for name, stretch in zip(names, stretches, strict=True):
        groups[name] = torch.zeros_like(prompt.groups["audio"])
        groups[name][0, stretch] = True
    finely = trace(lalm, replace(prompt, groups=groups), query="last", progress=False)
    whole = trace(lalm, prompt, query="last", progress=False)
    attention = (
        finely["mass"].sel(group=names).isel(item=0).mean("head", skipna=True).transpose("layer", "group")
    )
    share = audio_share(whole).isel(item=0).mean("head", skipna=True)
    edges = np.cumsum([0, *(len(stretch) for stretch in stretches)]) / len(positions)
    return attention.values, edges, share.values, tuple(int(layer) for layer in whole["layer"].values)
