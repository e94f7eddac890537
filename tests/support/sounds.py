"""Real sound files and questions about them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from mata_interp.benchmarks import Item

RATE = 16_000
WORDS = ("a bell", "a dog", "rain", "a violin", "two claps")


def write_clips(folder: Path, clips: int) -> list[Path]:
    """Different tones with noise, 0.4 to 0.9 s."""
    paths = []
    for clip in range(clips):
        rng = np.random.default_rng(clip)
        time = np.arange(int(RATE * (0.4 + 0.5 * rng.random()))) / RATE
        samples = 0.4 * np.sin(2 * np.pi * (200 + 90 * clip) * time) + 0.1 * rng.normal(size=len(time))
        paths.append(folder / f"clip{clip:02d}.wav")
        soundfile.write(paths[-1], samples.astype(np.float32), RATE)
    return paths


def make_items(folder: Path, clips: int = 6, splits: tuple[str, ...] = ("",)) -> list[Item]:
    """Three items a clip: a neutral, a congruent and a conflict caption; two to four options."""
    items = []
    for clip, path in enumerate(write_clips(folder, clips)):
        choices = WORDS[: 2 + clip % 3]
        answer, wrong = choices[clip % 2], choices[1 - clip % 2]
        captions = {"neutral": "", "congruent": f"You hear {answer}.", "conflict": f"You hear {wrong}."}
        for condition, caption in captions.items():
            items.append(
                Item(
                    audio=path,
                    question="What is heard" + " first" * (clip % 3) + "?",
                    choices=choices,
                    answer=answer,
                    id=f"clip{clip:02d}-{condition}",
                    caption=caption,
                    caption_answer={"neutral": None, "congruent": answer, "conflict": wrong}[condition],
                    domain=("sound", "speech", "music")[clip % 3],
                    kind=("first", "which")[clip % 2],
                    condition=condition,
                    split=splits[clip % len(splits)],
                    source=path.stem,
                )
            )
    return items
