"""The shams on text and in random layers, at the alphas at which they change attention as much as MATA."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
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
from .planning import StageSettings
from .schema import from_plain, read_versioned, write_versioned
from .study_result import Configuration, ShamMatch, ShamMatches
from .validation import ValidatedItems

if TYPE_CHECKING:
    from ..lalm import LALM, Prompt

__all__ = ["match_shams"]


@dataclass(frozen=True)
class DoseBatch:
    """Measures how much an edit changes the attention of each item of a prompt: row KL, in nats.

    Attributes:
        edit: The edit.
        prompt_format: Format in which the prompts were made.
    """

    edit: AttentionEdit
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
    """
    chosen = Configuration(tuple(mata.layers), mata.alpha, mata.rule)
    if path.exists():
        known = from_plain(ShamMatches, read_versioned(path).get("shams"), path)
        if known.text.mata == chosen and [match.layers for match in known.random_layers] == list(draws):
            return known
    notes = path.with_name(f"{path.name}.parts") / "strengths.json"
    strength = _Strength(lalm, validated, notes, settings)
    target = strength(mata)

    def match(sham: AttentionEdit) -> ShamMatch:
        found = match_alpha(lambda alpha: strength(replace(sham, alpha=alpha)), target, mata.alpha)
        return ShamMatch(
            keys=sham.keys,
            layers=tuple(sham.layers),
            alpha=found.alpha,
            kl=found.strength,
            target_kl=found.target,
            mata=chosen,
            items=len(validated.items),
            tried=found.tried,
        )

    matches = ShamMatches(
        text=match(replace(mata, keys="text", chosen_on=())),
        random_layers=tuple(match(replace(mata, layers=layers, chosen_on=())) for layers in draws),
    )
    write_versioned(path, shams=matches)
    shutil.rmtree(notes.parent, ignore_errors=True)
    return matches


class _Strength:
    """Mean row KL of an edit over items, each edit measured once and noted in a file.

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

    def __call__(self, edit: AttentionEdit) -> float:
        key = json.dumps(replace(edit, chosen_on=()).to_dict(), sort_keys=True)
        if key not in self.known:
            parts = measure_batches(
                self.lalm,
                DoseBatch(edit, self.settings.prompt_format),
                self.prompts,
                label=f"alpha {edit.alpha:g} on {edit.keys} in {named_layers(edit.layers)}",
                progress=self.settings.progress,
                ray=self.settings.ray,
            )
            self.known[key] = float(np.concatenate([part.arrays["kl"] for part in parts]).mean())
            write_json(self.notes, self.known)
        return self.known[key]
