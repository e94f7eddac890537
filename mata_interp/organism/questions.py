"""Questions about scenes: ten kinds, several wordings each, with correct and incorrect captions.

The texts are what the organism was trained on; changing one changes its tokenizer and its weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .bank import Bank
from .scenes import TONAL, Scene

DOMAIN = {
    "first": "sound", "last": "sound", "present": "sound", "count": "sound", "louder": "sound",
    "word": "speech", "voice": "speech", "direction": "music", "instrument": "music", "tempo": "music",
}  # fmt: skip
KINDS = tuple(DOMAIN)
COUNTS = ("once", "twice", "three times", "four times")
DIRECTIONS = {1: "it rises", -1: "it falls", 0: "it stays level"}

# {s} is the subject of the question; in captions, {a} is the option that the caption claims to be right.
WORDINGS = {
    "first": ("Which sound is heard first?", "What is the first sound in the clip?", "Which of these comes first?",
              "What does the recording begin with?"),
    "last": ("Which sound is heard last?", "What is the last sound in the clip?", "Which of these comes last?",
             "What does the recording end with?"),
    "present": ("Is there {s} in the clip?", "Can you hear {s}?", "Does {s} occur in the recording?",
                "Is {s} among the sounds?"),
    "count": ("How often is {s} heard?", "How many times does {s} sound?", "How often does {s} occur in the clip?",
              "Count how many times you hear {s}."),
    "louder": ("Which sound is louder?", "Which of the two sounds is the louder one?",
               "What is the loudest sound in the clip?", "Which sound is played at a higher volume?"),
    "word": ("Which word is spoken?", "What does the speaker say?", "Which word do you hear?",
             "What word is said in the recording?"),
    "voice": ("Who is speaking?", "Whose voice is it?", "Who says the word?", "What kind of speaker do you hear?"),
    "direction": ("How does the melody move?", "Where does the tune go?", "What happens to the pitch of the notes?",
                  "How does the pitch change from note to note?"),
    "instrument": ("Which instrument plays the notes?", "What is the melody played on?",
                   "Which sound source makes the tune?", "What instrument do you hear?"),
    "tempo": ("How fast is the beat?", "What is the tempo of the rhythm?", "Is the rhythm fast or slow?",
              "How quickly do the strokes follow each other?"),
}  # fmt: skip
CAPTIONS = {
    "first": ("The clip starts with {a}.", "The first thing one hears is {a}.", "It begins with {a}."),
    "last": ("The clip ends with {a}.", "The last thing one hears is {a}.", "It closes with {a}."),
    "present": ("Asked whether there is {s}, the listener said {a}.", "On hearing {s}: {a}.",
                "Does it have {s}? The note says {a}."),
    "count": ("One can hear {s} {a}.", "It has {s}, {a}.", "In it {s} sounds {a}."),
    "louder": ("The loudest sound is {a}.", "What stands out most is {a}.", "Louder than the rest is {a}."),
    "word": ("Somebody says the word {a}.", "The speaker says {a}.", "The spoken word is {a}."),
    "voice": ("The speaker is {a}.", "One hears {a} talking.", "The word is said by {a}."),
    "direction": ("As for the melody, {a}.", "The tune has a clear course: {a}.", "From note to note {a}."),
    "instrument": ("The tune is played on {a}.", "The notes come from {a}.", "One hears the melody of {a}."),
    "tempo": ("The beat is {a}.", "The rhythm is rather {a}.", "The strokes are {a}."),
}  # fmt: skip
INTRODUCTIONS = (
    "A listener described the clip:",
    "Description of the recording:",
    "Notes that came with the file:",
)
DESCRIBE = ("Describe what you hear.", "What is heard in the clip, in order?", "Describe the recording.")
CHECK = ("Which of these are heard:", "Say of each whether it is in the clip:", "Check this list:")
CONDITIONS = ("neutral", "congruent", "conflict")


@dataclass(frozen=True)
class Question:
    """One question about a scene.

    Attributes:
        kind: a key of `DOMAIN`, or ``"describe"`` or ``"checklist"`` for the free-form tasks of training.
        text: the question.
        choices: the options; empty for free-form tasks.
        answer: the right option, or the whole answer of a free-form task.
        subject: label that the question is about, for the kinds that have one.
    """

    kind: str
    text: str
    choices: tuple[str, ...]
    answer: str
    subject: str = ""

    def caption(self, claim: str, rng: np.random.Generator) -> str:
        """A caption in plain English that states ``claim`` to be the answer."""
        body = str(rng.choice(CAPTIONS[self.kind])).format(a=claim, s=self.subject)
        return f"{rng.choice(INTRODUCTIONS)} {body}"

    def wrong_option(self, rng: np.random.Generator) -> str:
        """A random wrong option."""
        return str(rng.choice([c for c in self.choices if c != self.answer]))


def make_question(kind: str, scene: Scene, bank: Bank, rng: np.random.Generator) -> Question:
    """A question of ``kind`` about ``scene``, its options in random order."""
    labels = [event.label for event in scene.events]
    subject = ""
    if kind in ("first", "last"):
        answer = labels[0 if kind == "first" else -1]
        # the other sounds of the clip are the most plausible wrong options
        remaining = [label for label in dict.fromkeys(labels) if label != answer]
        choices = [answer, *remaining, *_draw(bank.labels, {answer, *remaining}, 3 - len(remaining), rng)]
    elif kind == "present":
        yes = bool(rng.integers(2))
        subject = str(rng.choice(labels)) if yes else _draw(bank.labels, set(labels), 1, rng)[0]
        answer, choices = ("yes" if yes else "no"), ["yes", "no"]
    elif kind == "count":
        subject, answer, choices = scene.facts["subject"], COUNTS[scene.facts["count"] - 1], list(COUNTS)
    elif kind == "louder":
        answer, choices = scene.facts["louder"], list(labels)
    elif kind == "word":
        answer = scene.facts["word"]
        choices = [answer, *_draw(bank.words, {answer}, 3, rng)]
    elif kind == "voice":
        answer, choices = scene.facts["voice"], list(bank.voices)
    elif kind == "direction":
        answer, choices = DIRECTIONS[scene.facts["direction"]], list(DIRECTIONS.values())
    elif kind == "instrument":
        answer = scene.facts["instrument"]
        choices = [answer, *_draw(list(TONAL), {answer}, 3, rng)]
    else:
        answer, choices = ("fast" if scene.facts["fast"] else "slow"), ["fast", "slow"]
    rng.shuffle(choices)
    text = str(rng.choice(WORDINGS[kind])).format(s=subject)
    return Question(kind, text, tuple(choices), answer, subject)


def make_description(scene: Scene, rng: np.random.Generator) -> Question:
    """A free-form task for training: the answer names all sounds of the clip, in order."""
    labels = [event.label for event in scene.events]
    facts = scene.facts
    if "word" in facts:
        answer = f"{facts['voice']} says {facts['word']}"
    elif "count" in facts:
        answer = f"{facts['subject']}, {COUNTS[facts['count'] - 1]}"
    elif "direction" in facts:
        answer = f"{facts['instrument']}, {DIRECTIONS[facts['direction']]}"
    elif "fast" in facts:
        answer = f"{labels[0]}, {'fast' if facts['fast'] else 'slow'}"
    else:
        answer = ", then ".join(labels)
        if "louder" in facts:
            answer += f", louder {facts['louder']}"
    return Question("describe", str(rng.choice(DESCRIBE)), (), answer)


def make_checklist(scene: Scene, bank: Bank, rng: np.random.Generator) -> Question:
    """A free-form task for training: the answer states for each of several sounds whether the clip has it.

    One yes or no for each clip gives too little training signal about what each label sounds like.
    """
    present = {event.label for event in scene.events}
    pool = bank.words if "word" in scene.facts else bank.labels
    listed = [*sorted(present), *_draw(pool, present, len(present) + 1, rng)]
    rng.shuffle(listed)
    answer = "; ".join(f"{label} {'yes' if label in present else 'no'}" for label in listed)
    return Question("checklist", f"{rng.choice(CHECK)} {'; '.join(listed)}.", (), answer)


def _draw(pool: list[str], without: set[str], n: int, rng: np.random.Generator) -> list[str]:
    """``n`` different random elements of ``pool`` that are not in ``without``."""
    return [str(x) for x in rng.choice([p for p in pool if p not in without], n, replace=False)]
