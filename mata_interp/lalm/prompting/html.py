"""A prompt as HTML for notebooks: text tinted by token group, with seconds under the audio."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mata_interp.markup import coloured_tokens, frame, legend, line

from .groups import partition

if TYPE_CHECKING:
    from .prompts import Prompt

__all__ = ["prompt_html"]

ROWS = 3  # shown of a batch


def prompt_html(prompt: Prompt) -> str:
    """The first rows of a prompt; without its tokenizer, the groups and their numbers of tokens."""
    parts = []
    for row, item in enumerate(prompt.items[:ROWS]):
        groups = _groups(prompt, row)
        counts = {name: groups.count(name) for name in dict.fromkeys(groups)}
        about = [line(f"item {item.id}", small=True)] if prompt.size > 1 else []
        if (texts := _texts(prompt, row)) is not None:
            about.append(coloured_tokens(list(zip(texts, groups, strict=True)), prompt.audio_seconds[row]))
        if prompt.truncated_seconds[row] > 0:
            about.append(line(f"{prompt.truncated_seconds[row]:.1f} s of audio were cut off.", small=True))
        parts += [*about, legend(counts.items())]
    if prompt.size > ROWS:
        parts.append(line(f"{prompt.size - ROWS} more rows", small=True))
    size = f"{prompt.size} x {prompt.width} tokens on {prompt.inputs['input_ids'].device}"
    return frame(f"Prompt: {size}", *parts)


def _groups(prompt: Prompt, row: int) -> list[str]:
    """The group of each real token of a row."""
    names = ["" for _ in range(prompt.width)]
    for name, mask in partition(prompt.groups).items():
        for place in mask[row].nonzero().flatten().tolist():
            names[place] = name
    return [name for name in names if name]


def _texts(prompt: Prompt, row: int) -> list[str] | None:
    """The text of each real token of a row."""
    if prompt.tokenizer is None:
        return None
    real = sum(mask[row].int() for mask in partition(prompt.groups).values()).bool()  # type: ignore[union-attr]
    ids = prompt.inputs["input_ids"][row][real].tolist()
    return [prompt.tokenizer.decode([one]) for one in ids]
