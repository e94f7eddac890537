"""The manifest of a run: all that decides what is in its tables, and how they came about."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import torch

from ..benchmarks import Item
from ..execution.files import plain
from ..execution.notices import warn
from ..interventions import published_convention, published_layers
from ..lalm.description import devices_of, template_sha256
from ..lalm.prompting.formats import canonical_format, wording
from ..lalm.reasoning import thinking_settings
from ..version import __version__, source_commit
from .conditions import Condition
from .planning import plan_batches
from .records import RUN_FORMAT
from .reliance import caption_answers
from .validation import ValidatedItems

if TYPE_CHECKING:
    from ..lalm import LALM

__all__ = ["known_beforehand", "make_manifest", "warn_of_other_machine"]


def known_beforehand(
    lalm: LALM,
    conditions: Mapping[str, Condition],
    batch_size: int,
    seed: int,
    prompt_format: str = "options",
) -> dict[str, Any]:
    """The part of the manifest that does not wait for the items to be looked at.

    ``generation``, there if any condition is answered in words, holds the model's own settings for that
    (end marks, repetition penalty, ...), which hold but for its sampling.
    """
    words = any(condition.decoding for condition in conditions.values())
    return {
        "version": RUN_FORMAT,
        "model": lalm.fingerprint(),
        "chat_template": template_sha256(lalm.processor),
        **({"generation": generation_settings(lalm.model)} if words else {}),
        **({"thinking": thinking_settings(lalm)} if lalm.opens_thought else {}),
        "prompt_format": canonical_format(prompt_format),
        "prompt_wording": wording(prompt_format),
        "seed": seed,
        "batch_size": batch_size,
        "conditions": {name: condition.to_dict() for name, condition in conditions.items()},
    }


def generation_settings(model: Any) -> dict[str, Any]:
    """The model's settings for generation that differ from transformers' defaults, as JSON knows them."""
    settings = plain(model.generation_config.to_diff_dict())
    passing = ("_from_model_config", "transformers_version")
    return {name: value for name, value in sorted(settings.items()) if name not in passing}


def make_manifest(
    lalm: LALM,
    validated: ValidatedItems,
    conditions: Mapping[str, Condition],
    partners: Mapping[str, Item],
    batch_size: int,
    seed: int,
    prompt_format: str = "options",
) -> dict[str, Any]:
    """What is asked of whom in which batches, and by which command, when and where.

    These decide what is in the tables (`identity.IDENTITY`), and a folder in which one differs is refused:

    - ``version``: format of the folder (`RUN_FORMAT`); folders of another one are not read.
    - ``model``: its fingerprint, with dtype, attention function and quantisation; name and revision may
      differ, the rest may not.
    - ``chat_template``: SHA-256 of the processor's template; null without one.
    - ``generation``: the model's own settings for it, where a condition is answered in words.
    - ``thinking``, where the chat template ends in an open thought: what is done with it before options are
      compared, one of `THINKING`.
    - ``data``: name, SHA-256 of the file and of all items, their number and that of recordings;
      ``digests``, item id -> twelve hex digits of its words and labels, a dash, twelve of its decoded sound.
    - ``prompt_format`` and ``prompt_wording``: the name, and the user text with names for an item's words.
    - ``seed``: of the choice whose audio is heard under ``audio="other"``; ``audio_from``, item id -> whose.
    - ``batch_size`` and ``batches``: each batch's items in order, and the width they are padded to with their
      own audio; the width of every row under every condition is in the records.
    - ``conditions``: name -> ``audio``, ``interventions``, and ``decoding`` of those answered in words.
    - ``excluded``: item, field and reason of each that was left out.

    ``caption_answers``, item id -> the option that its caption speaks for, tells a reader of the tables which
    answers followed the text; it decides nothing in them. ``roles``, name of each condition -> what it is in
    a study, for a reader who does not have its rule or method. ``published_layers``, the layers that MATA's
    papers edit in this model, and the ``convention`` by which they were found, for those that compare.

    These tell how they came about: ``environment`` (version and commit of this package, torch's threads,
    devices, Python, platform), ``loading`` (the `LoadOptions` that were used; null for a model that was
    passed), ``command``, ``created``.
    """
    return {
        **known_beforehand(lalm, conditions, batch_size, seed, prompt_format),
        "data": {
            "name": validated.name,
            "file_sha256": validated.file_sha256,
            "items": len(validated.items),
            "clips": len(validated.clusters),
            "sha256": validated.sha256,
            "digests": {item.id: _brief(validated.digests[item.id]) for item in validated.items},
        },
        "excluded": [asdict(exclusion) for exclusion in validated.excluded],
        "batches": [
            {
                "items": [item.id for item in batch],
                "padded_width": max(validated.lengths[item.id] for item in batch),
            }
            for batch in plan_batches(validated.items, validated.lengths, batch_size)
        ],
        "audio_from": {item: partner.id for item, partner in sorted(partners.items())},
        "caption_answers": caption_answers(validated.items),
        "roles": {name: condition.inferred_role for name, condition in conditions.items()},
        "published_layers": {
            "layers": published_layers(lalm),
            "convention": published_convention(lalm),
        },
        "environment": {
            "mata_interp": __version__,
            "commit": source_commit(),
            "threads": torch.get_num_threads(),
            "device": " and ".join(devices_of(lalm.model)),
            "python": platform.python_version(),
            "platform": platform.platform(),
        },
        "loading": None if lalm.load_options is None else lalm.load_options.to_dict(),
        "command": shlex.join(sys.argv),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _brief(digest: str) -> str:
    """Twelve digits of each of the two: enough to say which item changed and whether in words or sound."""
    return "-".join(part[:12] for part in digest.split("-"))


def warn_of_other_machine(there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Rows computed with another number of threads or on another device differ in their last digits."""
    old, new = there.get("environment", {}), here["environment"]
    changed = [f"{name} {old.get(name)} -> {new[name]}" for name in ("threads", "device", "platform")
               if old.get(name) != new[name]]  # fmt: skip
    if changed:
        warn(
            f"This run was begun elsewhere ({', '.join(changed)}): rows computed here may differ in the last "
            "digits from those of an unbroken run."
        )
