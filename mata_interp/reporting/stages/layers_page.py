"""The page of a layer profile, and that of several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_uppercase

import numpy as np

from ...fusion import FusionProfile
from ...fusion.windows import overlap
from ..about import model_about, short_name
from ..figures.shares import Share, shares
from ..figures.svg import figure_part
from ..glossary import used_terms
from ..layers import editing, profile_content
from ..parts import Block, Content, FigurePart, Key, KeyRow, Page, Row, Section, Table, all_text, numbered
from ..side_by_side.sides import distinct_paths
from ..wording import count, interval, layer_range, listing, named_layers, number, percent, printable
from .kinds import LAYERS

__all__ = ["build_layers_page", "layers_page"]

SHARE = (
    "The share of a layer is its part of the effect of the audio on the answer: what the audio there changes "
    "in the log-probability difference, relative to what it changes in all layers together. Where both were "
    "measured, it is the mean of what hiding the audio in that layer alone costs and of what it gives back "
    "there while it is hidden in all others."
)
METHOD = (
    "layers of the decoder in which text tokens read from audio tokens. Interventions (attention knockout, "
    "activation patching) decide; attention is only shown beside them."
)


@dataclass(frozen=True, eq=False)
class Member:
    """A profile of a comparison."""

    letter: str
    name: str
    path: Path
    profile: FusionProfile

    @property
    def label(self) -> str:
        """``A: organism``."""
        return f"{self.letter}: {self.name}"


def layers_page(paths: Sequence[Path]) -> Page:
    """The page of the profiles at these paths: files, or folders with a ``layers.json``.

    Raises:
        RunError: One cannot be read, or is given twice.
    """
    if len(paths) == 1:
        return build_layers_page(FusionProfile.load(_file(paths[0])))
    files = [_file(path) for path in distinct_paths(paths)]
    profiles = [FusionProfile.load(file) for file in files]
    models = [short_name(profile.model) for profile in profiles]
    names = models if len(set(models)) == len(models) else [_name(file) for file in files]
    members = [
        Member(letter, printable(name, 40), file, profile)
        for letter, name, file, profile in zip(ascii_uppercase, names, files, profiles, strict=False)
    ]
    return _finished(_several(members))


def _file(path: Path) -> Path:
    return path / LAYERS if path.is_dir() else path


def _name(file: Path) -> str:
    return file.resolve().parent.name if file.name == LAYERS else file.stem


def _finished(page: Page) -> Page:
    page = replace(page, sections=numbered(page.sections))
    return replace(page, glossary=used_terms(all_text(page)))


# -------------------------------------------------------------------------------------------------------- one
def build_layers_page(profile: FusionProfile, command: str = "") -> Page:
    """The page of a profile, as data.

    Args:
        profile: From `mata_interp.fusion_layers`.
        command: What made it; "": not known, as the file of a profile does not say.
    """
    name, items, clips = short_name(profile.model), profile.profiles.sizes["item"], len(profile.chosen_on)
    content: list[Content] = [("text", f"{SHARE} {editing(profile)}"), *profile_content(profile)]
    sections = [Section("layers", "Where text reads the audio", content), _provenance(profile, command)]
    if profile.excluded:
        rows = [Row([printable(line)]) for line in profile.excluded]
        table = Table("Items left out.", ("Item, field and reason",), [Block(rows)], words=True)
        sections.append(Section("left-out", "What was left out", [("folded", table)]))
    return _finished(
        Page(
            kicker=f"Fusion layers of {name}: {count(items, 'item')} on {count(clips, 'clip')}",
            title=f"In which layers does {name} read the audio?",
            answer=[printable(profile.summary)],
            rows=[KeyRow("row-window", "Window", _keys(profile))],
            about=[("Fusion layers", METHOD), (name, model_about({"name": profile.model}))],
            sections=sections,
        )
    )


def _keys(profile: FusionProfile) -> list[Key]:
    window = layer_range(profile.window) or "none"
    inside = [layer in profile.window for layer in profile.layers]
    keys = [Key("Layers for MATA", window, profile.verdict, {"key": "window", "verdict": profile.verdict})]
    if profile.window:
        carried = float(np.nansum(profile.share.values[inside]))
        keys.append(
            Key("Share of the effect of audio", percent(carried, 0), "sum over the window", {"key": "share"})
        )
    if profile.stability is not None:
        detail = "predicted chance that as many other clips give a window that overlaps by half"
        keys.append(Key("Stability", percent(profile.stability, 0), detail, {"key": "stability"}))
    if profile.clips_needed:
        keys.append(Key("Clips needed", f"about {profile.clips_needed:,}", "", {"key": "clips-needed"}))
    return keys


def _provenance(profile: FusionProfile, command: str) -> Section:
    facts = [
        ("Model", profile.model),
        ("Items", f"{profile.profiles.sizes['item']:,} on {count(len(profile.chosen_on), 'clip')}"),
        ("Clips that decide", f"{profile.clips:,}"),
        ("Attention layers", layer_range(profile.layers)),
        ("Criteria", ", ".join(map(str, profile.profiles["criterion"].values))),
        ("Active in all measurements", "; ".join(map(str, profile.baseline)) or "no intervention"),
        ("Seed", str(profile.seed)),
        ("Left out", count(len(profile.excluded), "item")),
    ]
    text = "The JSON file of the profile has the value of every criterion for every item and layer."
    content: list[Content] = [("text", text)]
    if command:
        content.append(("command", printable(command)))
    content.append(("facts", [(name, printable(value)) for name, value in facts]))
    return Section("provenance", "How to reproduce", content)


# ---------------------------------------------------------------------------------------------------- several
def _several(members: Sequence[Member]) -> Page:
    content: list[Content] = [("text", SHARE), ("figure", _figure(members)), ("table", _windows(members))]
    content.append(("folded", _criteria(members)))
    commands = " ".join(str(member.path) for member in members)
    provenance: list[Content] = [
        ("command", f"mata-interp report {printable(commands)}"), ("table", _facts(members))
    ]  # fmt: skip
    keys = [
        Key(member.label, layer_range(member.profile.window) or "none", member.profile.verdict,
            {"run": member.letter, "window": layer_range(member.profile.window)})
        for member in members
    ]  # fmt: skip
    answer = [
        f"{member.label}: {named_layers(member.profile.window)}" if member.profile.window
        else f"{member.label}: no window ({member.profile.verdict})"
        for member in members
    ]  # fmt: skip
    return Page(
        kicker=f"Fusion layers of {listing([member.label for member in members])}",
        title="Where text reads the audio, side by side",
        answer=[f"Layers where text reads the audio. {'; '.join(answer)}.", _shared(members)],
        rows=[KeyRow("row-windows", "Windows", keys)],
        about=[("Fusion layers", METHOD)],
        sections=[
            Section("layers", "Layers side by side", content),
            Section("provenance", "How to reproduce", provenance),
        ],
    )


def _shared(members: Sequence[Member]) -> str:
    """How many clips the profiles have in common; their shares are not paired."""
    first = set(members[0].profile.chosen_on)
    words = [
        f"{len(first & set(member.profile.chosen_on)):,} of its "
        f"{count(len(member.profile.chosen_on), 'clip')} are also used in A ({member.letter})"
        for member in members[1:]
    ]
    return f"Clips: {'; '.join(words)}. The shares are not paired by clip."


def _figure(members: Sequence[Member]) -> FigurePart:
    runs = [
        Share(member.label, member.profile.layers, member.profile.share.values,
              member.profile.share["low"].values, member.profile.share["high"].values)
        for member in members
    ]  # fmt: skip
    title = "Share of the effect of audio, %"
    return figure_part(
        "shares",
        lambda width: shares(runs, width, title),
        "Share of the effect of audio by layer",
        "Share of each layer in the effect of the audio on the answer.",
        "With the simultaneous 95 % band over all layers of each profile alone. Where the models differ in "
        "their layers, the figure is over depth.",
    )


def _windows(members: Sequence[Member]) -> Table:
    first = members[0].profile
    rows = []
    for member in members:
        profile = member.profile
        same = first.layers == profile.layers
        share = float(np.nansum([profile.share.sel(layer=layer) for layer in profile.window]))
        cells = [
            member.label,
            layer_range(profile.window) or "none",
            profile.verdict,
            percent(share, 0) if profile.window else "",
            "" if profile.stability is None else percent(profile.stability, 0),
            number(overlap(first.window, profile.window)) if same else "other layers",
            f"{profile.profiles.sizes['item']:,}",
            f"{len(profile.chosen_on):,}",
        ]
        rows.append(Row(cells, "", {"run": member.letter, "window": layer_range(profile.window)}))
    return Table(
        "Recommended windows.",
        ("Profile", "layers", "verdict", "share of the effect", "stability", "overlap with A (IoU)", "items",
         "clips"),
        [Block(rows)],
        "Overlap: size of the intersection over size of the union.",
    )  # fmt: skip


def _criteria(members: Sequence[Member]) -> Table:
    names = dict.fromkeys(name for member in members for name in member.profile.windows)
    rows = []
    for name in names:
        cells = [
            layer_range(member.profile.windows[name]) or "none"
            if name in member.profile.windows
            else f"refused: {printable(member.profile.refused[name], 60)}"
            if name in member.profile.refused
            else "not measured"
            for member in members
        ]
        rows.append(Row([printable(name), *cells], "", {"criterion": printable(name)}))
    return Table(
        "Window of each criterion.",
        ("Criterion", *(member.label for member in members)),
        [Block(rows)],
        words=True,
    )


def _facts(members: Sequence[Member]) -> Table:
    rows = []
    for member in members:
        profile = member.profile
        ends = interval(float(profile.layers[0]), float(profile.layers[-1]), lambda value: f"{value:g}")
        cells = [
            member.label,
            str(member.path),
            profile.model,
            ends,
            str(profile.seed),
            str(len(profile.excluded)),
        ]
        rows.append(Row([printable(cell, 200) for cell in cells]))
    head = ("Profile", "File", "Model", "First and last layer", "Seed", "Items left out")
    return Table("Profiles.", head, [Block(rows)], words=True)
