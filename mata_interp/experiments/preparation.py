"""What a run needs before it starts: conditions that fit the model, the manifest, and the work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..interventions import in_order
from ..lalm.site_hooks import check_sites
from .answering import Work
from .conditions import Condition, Edit, named_conditions
from .manifest import make_manifest
from .partners import audio_partners
from .planning import StageSettings
from .validation import ValidatedItems

if TYPE_CHECKING:
    from ..lalm import LALM, Decoding

__all__ = ["bind_conditions", "prepare"]


def bind_conditions(
    lalm: LALM, conditions: Mapping[str, Edit | Condition], decoding: Decoding | None
) -> dict[str, Condition]:
    """The conditions by name; the model has their layers, heads and sites, else nothing is computed."""
    named = named_conditions(conditions, decoding)
    for condition in named.values():
        check_sites(lalm.structure, in_order(condition.intervention))
    return named


def prepare(
    lalm: LALM,
    validated: ValidatedItems,
    conditions: Mapping[str, Condition],
    settings: StageSettings,
) -> tuple[dict[str, Any], Work]:
    """The manifest of a run, and what computing its units needs."""
    batch_size, seed, prompt_format = settings.batch_size, settings.seed, settings.prompt_format
    needs_partners = any(condition.audio == "other" for condition in conditions.values())
    partners = audio_partners(validated.items, seed) if needs_partners else {}
    manifest = make_manifest(lalm, validated, conditions, partners, batch_size, seed, prompt_format)
    items = {item.id: item for item in validated.items}
    return manifest, Work(items, dict(conditions), partners, prompt_format)
