"""What the clips contain: spoken words, voices and sounds, and which of them each split may use."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["SPLITS", "VOICES", "WORDS", "recordings_by_split", "speaker"]

SPLITS = ("train", "selection", "test")

# " word" is one token of SmolLM2's vocabulary for each of them.
WORDS = tuple(
    """
    dog cat horse cow sheep tiger lion bear wolf snake frog duck rabbit monkey elephant spider table
    chair door window mirror roof kitchen garden house church school hospital bridge tower castle river
    ocean island mountain valley forest desert beach village apple orange lemon banana bread butter
    cheese sugar salt pepper coffee water juice potato chicken doctor teacher lawyer farmer soldier
    driver singer king queen mother father brother sister baby neighbor finger shoulder stomach heart
    blood yellow purple silver winter summer autumn morning evening seven eleven twelve twenty hundred
    million zero train airplane bicycle truck rocket engine hammer bottle basket paper pencil letter
    newspaper picture music guitar piano violin money market factory hotel restaurant museum library
    computer telephone camera radio television rain snow storm thunder planet smoke sand happy angry
    hungry quiet heavy empty jacket button umbrella sword arrow ladder
    """.split()  # noqa: SIM905
)

# espeak-ng voices: accent + speaker. No speaker belongs to two splits.
VOICES: Mapping[str, tuple[str, ...]] = {
    "train": (
        "en-us",
        "en-us+m1",
        "en-us+m3",
        "en-us+m5",
        "en-us+f1",
        "en-us+f5",
        "en-us+klatt2",
        "en-us-nyc+m5",
        "en-us-nyc+f2",
        "en-gb",
        "en-gb+m2",
        "en-gb+m6",
        "en-gb+f2",
        "en-gb-x-rp+m1",
        "en-gb-x-rp+f5",
        "en-gb-scotland",
        "en-gb-scotland+m3",
        "en-gb-scotland+f1",
        "en-gb-x-gbclan+m2",
        "en-029+m6",
    ),
    "selection": ("en-us+m4", "en-gb+f3", "en-gb-x-rp+m4", "en-us-nyc+f3"),
    "test": ("en-us+f4", "en-gb+m7", "en-gb-scotland+f4", "en-029+m8", "en-us-nyc+m7"),
}


def speaker(voice: str) -> str:
    """Return the speaker of an espeak-ng voice, without the accent: ``"m1"`` of ``"en-us+m1"``."""
    return voice.partition("+")[2] or "default"


def recordings_by_split(names_by_label: Mapping[str, list[str]]) -> dict[str, dict[str, list[str]]]:
    """Divide the recordings of every sound among the splits, so that no recording belongs to two.

    The first recording (in alphabetical order) of each four goes to the test, the third to selection, the
    others to training. Labels with fewer than three recordings are left out.

    Args:
        names_by_label: sound label -> names of its recordings.

    Returns:
        split -> label -> names of recordings, at least one for every label that is kept.
    """
    divided: dict[str, dict[str, list[str]]] = {split: {} for split in SPLITS}
    for label, names in sorted(names_by_label.items()):
        if len(names) < len(SPLITS):
            continue
        for position, name in enumerate(sorted(names)):
            split = ("test", "train", "selection", "train")[position % 4]
            divided[split].setdefault(label, []).append(name)
    return divided
