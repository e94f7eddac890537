"""The shams on text, in random layers and in random heads, at the alphas at which they change attention as
much as MATA."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..execution import MeasuredBatch, measure_batches
from ..execution.files import read_json, write_json
from ..interventions import AttentionEdit
from ..lalm.batching import in_parts
from ..ranges import named_layers
from .dose_matching import match_alpha
from .extra_shams import IN_HEADS, edits_in_heads, share_of_heads
from .planning import StageSettings
from .schema import from_plain, read_versioned, write_versioned
from .study_result import Configuration, ShamMatch, ShamMatches
from .validation import ValidatedItems

if TYPE_CHECKING:
    from ..lalm import LALM, Prompt

__all__ = ["match_shams"]

HEADS = {"heads": "half", "signs": "signs"}  # name of a sham -> `ShamMatch.heads`
Edits = tuple[AttentionEdit, ...]


@dataclass(frozen=True)
class DoseBatch:
    """Measures how much an edit changes the attention of each item of a prompt: row KL, in nats.

    Attributes:
        edit: The edit, or edits of different heads.
        prompt_format: Format in which the prompts were made.
    """

    edit: AttentionEdit | tuple[AttentionEdit, ...]
    prompt_format: str

    def __call__(self, lalm: LALM, batch: Prompt) -> MeasuredBatch:
        def divergence(prompt: Prompt) -> np.ndarray:
            return lalm.score(prompt, [item.choices for item in prompt.items], self.edit).dose["kl"]

        parts = in_parts(lalm, batch, divergence, self.prompt_format)
        return MeasuredBatch({"kl": np.concatenate([kl for _, kl in parts])})


def match_shams(
    lalm: LALM,
    mata: AttentionEdit,
    draws: Sequence[tuple[int, ...]],
    validated: ValidatedItems,
    path: Path,
    settings: StageSettings,
    shams: Sequence[str] = (),
) -> ShamMatches:
    """The alpha of each sham by mean row KL, from the file if an earlier call of the same study wrote it.

    Every strength that was tried is written at once, so that a study that is stopped goes on from there.

    Args:
        lalm: The model.
        mata: The chosen configuration.
        draws: The random layers.
        validated: Items of the selection split.
        path: The file to write.
        settings: How batches are computed.
        shams: Further shams of the study; of those in `IN_HEADS` the alpha is matched as well.
    """
    in_heads = [name for name in IN_HEADS if name in shams]
    chosen = Configuration(tuple(mata.layers), mata.alpha, mata.rule)
    if path.exists():
        known = from_plain(ShamMatches, read_versioned(path).get("shams"), path)
        same = known.text.mata == chosen and [match.layers for match in known.random_layers] == list(draws)
        if same and [match.heads for match in known.in_heads] == [HEADS[name] for name in in_heads]:
            return known
    notes = path.with_name(f"{path.name}.parts") / "strengths.json"
    strength = _Strength(lalm, validated, notes, settings)
    target = strength(mata)

    def match(edits_at: Callable[[float], Edits], share: float = 1.0, heads: str = "all") -> ShamMatch:
        nearest = match_alpha(lambda alpha: share * strength(*edits_at(alpha)), target, mata.alpha)
        sham = edits_at(nearest.alpha)[0]
        return ShamMatch(
            keys=sham.keys,
            layers=tuple(sham.layers),
            alpha=nearest.alpha,
            kl=nearest.strength,
            target_kl=nearest.target,
            mata=chosen,
            items=len(validated.items),
            tried=nearest.tried,
            heads=heads,
        )

    def at(edit: AttentionEdit) -> Callable[[float], Edits]:
        return lambda alpha: (replace(edit, alpha=alpha),)

    plain = replace(mata, chosen_on=())
    sizes, seed = lalm.structure.heads, settings.seed
    matches = ShamMatches(
        text=match(at(replace(plain, keys="text"))),
        random_layers=tuple(match(at(replace(plain, layers=layers))) for layers in draws),
        in_heads=tuple(
            match(
                lambda alpha, name=name: edits_in_heads(plain, name, sizes, seed, alpha),
                share_of_heads(plain, name, sizes),
                HEADS[name],
            )
            for name in in_heads
        ),
    )
    write_versioned(path, shams=matches)
    shutil.rmtree(notes.parent, ignore_errors=True)
    return matches


class _Strength:
    """Mean row KL of edits over items and edited rows, each measured once and noted in a file.

    Args:
        lalm: The model.
        validated: The items.
        notes: The file of the notes.
        settings: How batches are computed.
    """

    def __init__(self, lalm: LALM, validated: ValidatedItems, notes: Path, settings: StageSettings) -> None:
        self.lalm, self.items, self.notes, self.settings = lalm, validated.items, notes, settings
        self.known: dict[str, float] = dict(read_json(notes)) if notes.exists() else {}

    @cached_property
    def prompts(self) -> list[Prompt]:
        size = self.settings.batch_size
        batches = [self.items[start : start + size] for start in range(0, len(self.items), size)]
        return [self.lalm.prompt(batch, format=self.settings.prompt_format) for batch in batches]

    def __call__(self, *edits: AttentionEdit) -> float:
        first = edits[0]
        key = json.dumps([replace(edit, chosen_on=()).to_dict() for edit in edits], sort_keys=True)
        if key not in self.known:
            parts = measure_batches(
                self.lalm,
                DoseBatch(edits, self.settings.prompt_format),
                self.prompts,
                label=f"alpha {first.alpha:g} on {first.keys} in {named_layers(first.layers)}",
                progress=self.settings.progress,
                ray=self.settings.ray,
            )
            self.known[key] = float(np.concatenate([part.arrays["kl"] for part in parts]).mean())
            write_json(self.notes, self.known)
        return self.known[key]
