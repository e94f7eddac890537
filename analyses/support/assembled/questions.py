"""Questions of four options on what a clip contains, and descriptions of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .clips import Segment

__all__ = ["CAPTIONS", "Question", "ask", "describe", "option_text"]

OPTIONS = 4
WORDINGS = {
    "word": ("Which word is spoken?", "What does the speaker say?", "Which word do you hear?"),
    "first word": ("Which word is spoken first?", "What is the first word?"),
    "last word": ("Which word is spoken last?", "What is the last word?"),
    "sound": ("Which sound is heard?", "What makes the sound?", "Which sound do you hear?"),
    "first sound": ("Which sound is heard first?", "What is the first sound?"),
    "last sound": ("Which sound is heard last?", "What is the last sound?"),
}
CAPTIONS = {
    "word": "The spoken word is {}.",
    "first word": "The first word is {}.",
    "last word": "The last word is {}.",
    "sound": "One can hear {}.",
    "first sound": "It begins with {}.",
    "last sound": "It ends with {}.",
}
DESCRIBE = ("What is heard in the clip, in order?", "Describe the recording.", "Describe what you hear.")


@dataclass(frozen=True)
class Question:
    """A question with its options.

    Attributes:
        topic: key of `WORDINGS`, e.g. ``"first word"``.
        text: the question.
        choices: four options in random order.
        answer: the right one.
    """

    topic: str
    text: str
    choices: tuple[str, ...]
    answer: str

    @property
    def role(self) -> str:
        """``"word"`` or ``"sound"``."""
        return self.topic.split()[-1]


def ask(
    segments: Sequence[Segment], labels: Mapping[str, Sequence[str]], rng: np.random.Generator
) -> Question:
    """Draw a question on a clip.

    Where the clip has two segments of one role, the question is on the first or the last of them, and the
    other one is among the options, so that the order matters.

    Args:
        segments: the clip's segments in order of time.
        labels: role -> every label, from which wrong options are drawn.
        rng: source of the draw.
    """
    target = int(rng.integers(len(segments)))
    role, answer = segments[target].role, segments[target].label
    rivals = [one.label for one in segments if one.role == role and one.label != answer]
    topic = f"{('first', 'last')[target]} {role}" if rivals else role
    distractors = [label for label in labels[role] if label != answer and label not in rivals]
    drawn = rng.choice(len(distractors), OPTIONS - 1 - len(rivals), replace=False)
    choices = [answer, *rivals, *(distractors[index] for index in drawn)]
    shuffled = tuple(choices[index] for index in rng.permutation(OPTIONS))
    wordings = WORDINGS[topic]
    return Question(topic, wordings[rng.integers(len(wordings))], shuffled, answer)


def describe(segments: Sequence[Segment], rng: np.random.Generator) -> tuple[str, str]:
    """Draw a request to describe a clip, and return it with the right description."""
    text = ", then ".join(("the word " if one.role == "word" else "") + one.label for one in segments)
    return DESCRIBE[rng.integers(len(DESCRIBE))], text


def option_text(question: Question) -> str:
    """Return question and options as mata-interp's default prompt format writes them."""
    return f"{question.text}\nChoose one of these options: {'; '.join(question.choices)}."
