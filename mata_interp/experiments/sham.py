"""The sham on text, at the alpha at which it changes attention as much as MATA does."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..execution import MeasuredBatch, measure_batches
from ..execution.files import read_json, write_json
from ..interventions import AttentionEdit
from ..lalm.batching import in_parts
from .dose_matching import match_alpha
from .planning import StageSettings
from .schema import from_plain, read_versioned, write_versioned
from .study_result import Configuration, ShamMatch
from .validation import ValidatedItems

if TYPE_CHECKING:
    from ..lalm import LALM, Prompt

__all__ = ["match_sham"]


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


def match_sham(
    lalm: LALM,
    mata: AttentionEdit,
    chosen: Configuration,
    validated: ValidatedItems,
    path: Path,
    settings: StageSettings,
) -> ShamMatch:
    """The sham's alpha by mean row KL, from the file if an earlier call of the same study wrote it.

    Every strength that was tried is written at once, so that a study that is stopped goes on from there.
    """
    if path.exists():
        match = from_plain(ShamMatch, read_versioned(path).get("sham"), path)
        if match.mata == chosen:
            return match
    size = settings.batch_size
    batches = [validated.items[i : i + size] for i in range(0, len(validated.items), size)]
    prompts: list[Prompt] = []
    notes = path.with_name(f"{path.name}.parts") / "strengths.json"
    strengths: dict[str, float] = dict(read_json(notes)) if notes.exists() else {}

    def strength(edit: AttentionEdit) -> float:
        key = json.dumps(replace(edit, chosen_on=()).to_dict(), sort_keys=True)
        if key not in strengths:
            if not prompts:
                prompts.extend(lalm.prompt(batch, format=settings.prompt_format) for batch in batches)
            parts = measure_batches(
                lalm,
                DoseBatch(edit, settings.prompt_format),
                prompts,
                label=f"alpha {edit.alpha:g} on {edit.keys}",
                progress=settings.progress,
                ray=settings.ray,
            )
            strengths[key] = float(np.concatenate([part.arrays["kl"] for part in parts]).mean())
            write_json(notes, strengths)
        return strengths[key]

    on_text = replace(mata, keys="text", chosen_on=())
    found = match_alpha(lambda alpha: strength(replace(on_text, alpha=alpha)), strength(mata), mata.alpha)
    match = ShamMatch(
        alpha=found.alpha,
        kl=found.strength,
        target_kl=found.target,
        mata=chosen,
        items=len(validated.items),
        tried=found.tried,
    )
    write_versioned(path, sham=match)
    shutil.rmtree(notes.parent, ignore_errors=True)
    return match
