"""The section on the layers where text reads from audio: the fusion profile in the folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RunError
from ..experiments.study_result import Selection
from ..fusion import FusionProfile
from ..fusion.windows import overlap
from .figures.fusion import fusion
from .figures.svg import figure_part
from .parts import Block, Content, FigurePart, Row, Section, Table
from .wording import count, layer_range, named_layers, number, percent, printable

__all__ = ["editing", "layers_section", "profile_content"]

FILE = "layers.json"
HEADS = 10  # in the table


def layers_section(folder: Path | None, selection: Selection | None = None) -> Section | None:
    """The profile that ``mata-interp study --layers auto`` or ``mata-interp layers`` left in the folder.

    Args:
        folder: of the run.
        selection: how its study chose the layers that it edits, if it is one.
    """
    path = None if folder is None else folder / FILE
    if path is None or not path.exists():
        return None
    title = "Where text reads the audio"
    try:
        profile = FusionProfile.load(path)
    except RunError as error:
        return Section(
            "layers", title, [("notice", printable(f"The layer profile is not shown. {error}", 300))]
        )
    text = f"{printable(profile.summary)} {editing(profile, selection)}"
    return Section("layers", title, [("text", text), *profile_content(profile)])


def editing(profile: FusionProfile, selection: Selection | None = None) -> str:
    """Which layers to edit, beside those that read: what a study found, or what would find it."""
    if selection is None:
        return (
            "Where text reads the audio and where an edit helps most are different questions. A study "
            "without --layers tries every window on selection clips, and tests the best on other clips."
        )
    chosen = selection.chosen.layers
    if selection.layer_origin is not None:
        return (
            f"The study edits {named_layers(chosen)}, which were given; whether an edit of other layers does "
            "more was not tried."
        )
    best: dict[tuple[int, ...], float] = {}
    for row in selection.grid:
        best[row.layers] = max(row.margin, best.get(row.layers, row.margin))
    text = f"The study chose {named_layers(chosen)} to edit, by their effect on the selection clips"
    if not profile.window or not best:
        return f"{text}."
    text += f" (overlap with the layers where text reads, IoU: {number(overlap(profile.window, chosen))})"
    tried, reading = count(len(best), "window"), best.get(tuple(profile.window))
    if reading is None:
        return f"{text}. The window where text reads was not among the {tried} that it tried."
    place = 1 + sum(margin > reading for margin in best.values())
    change = number(reading - selection.baseline.margin, sign=True)
    return (
        f"{text}. Of the {tried} that it tried, the window where text reads is number {place}: at its best "
        f"alpha the margin changed by {change} nats on these clips, an optimistic figure."
    )


def profile_content(profile: FusionProfile) -> list[Content]:
    """Figure, windows and heads of a profile."""
    content: list[Content] = [("figure", _figure(profile)), ("table", _windows(profile))]
    if len(profile.audio_heads):
        content.append(("folded", _heads(profile)))
    return content


def _figure(profile: FusionProfile) -> FigurePart:
    source = ""
    if profile.effect is not None:
        source = ", from what hiding the audio there alone costs and what it gives back alone"
    return figure_part(
        "fusion",
        lambda width: fusion(profile, width),
        "Criteria for the layers that read audio",
        "Criteria for the layers that read the audio.",
        "The first panel decides the window: each layer's share of the effect of the audio on the answer"
        f"{source}. "
        "Criteria that change the model (causal) come before those that only observe attention. Measured "
        f"on {count(profile.profiles.sizes['item'], 'item')} of {count(profile.clips, 'clip')}.",
    )


def _windows(profile: FusionProfile) -> Table:
    """The recommended window and that of each criterion, with how far they agree."""
    agreement: dict[str, Any] = profile.agreement["window"].to_dict()
    rows = [Row(["recommended", "", layer_range(profile.window), ""], "primary", {"criterion": "window"})]
    for name in map(str, profile.profiles["criterion"].values):
        about = profile.profiles.sel(criterion=name)
        cells = [
            str(about["label"].item()),
            str(about["evidence"].item()),
            layer_range(profile.windows[name]),
            number(float(agreement[name])),
        ]
        rows.append(Row([printable(cell, 60) for cell in cells], "", {"criterion": printable(name)}))
    rows += [
        Row([printable(name), "refused", "", printable(reason, 120)], "sham", {"criterion": printable(name)})
        for name, reason in profile.refused.items()
    ]
    stability = profile.stability
    note = (
        ""
        if stability is None
        else f" Stability, the predicted chance that as many other clips agree: {percent(stability, 0)}."
    )
    return Table(
        "Windows by criterion.",
        ("Criterion", "evidence", "layers", "overlap with the window (IoU)"),
        [Block(rows)],
        f"Overlap: size of the intersection over size of the union.{note}",
        words=True,
    )


def _heads(profile: FusionProfile) -> Table:
    heads: list[Any] = list(profile.audio_heads.head(HEADS).itertuples())
    rows = [
        Row([
            f"layer {row.layer}, head {row.head}", number(row.attribution, 3),
            f"[{number(row.low, 3)}, {number(row.high, 3)}]",
        ])
        for row in heads
    ]  # fmt: skip
    return Table(
        "Heads that write audio into the answer.",
        ("Head", "direct attribution, logits", "95\u00a0% interval"),
        [Block(rows)],
        f"The {count(len(heads), 'head')} with the largest direct attribution whose interval lies above 0, "
        f"of {int(np.isfinite(profile.heads.values).sum()) if profile.heads is not None else 0:,}; "
        "intervals are not corrected for their number. Direct attribution is not causal.",
    )
