"""Preregistration: the plan of a study with a hash, written before any answer is computed, and its check.

`preregister` writes a JSON file: hypotheses, margins of the claims of no harm, both splits by the SHA-256 of
their items, settings, choice rule and tests. `study(registration=FILE)` makes the plan again from what it is
about to do, and writes ``registration.json`` into the run folder: what differs, if anything. A study that
departs from its plan is not refused; it says so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..benchmarks import Item, Items
from ..errors import RunError
from ..execution.comparison import first_difference, short
from ..execution.files import plain, read_json, write_json
from ..interventions import DEFAULT_ALPHAS, AttentionEdit
from ..version import __version__
from .choosing import GRID_ITEMS, Search
from .conditions import Condition, Role
from .dose_matching import TOLERANCE
from .effects import Effects
from .identity import identity
from .manifest import known_beforehand
from .no_harm import MARGINS
from .planned_comparisons import Comparison, comparisons, no_harm_comparisons, primary_subset
from .registration_check import RegistrationCheck
from .study_plan import DRAWS, StudySplits, study_conditions
from .study_settings import StudySettings

if TYPE_CHECKING:
    from ..fusion import FusionProfile
    from ..lalm import LALM, Decoding

__all__ = [
    "Registration",
    "check_registration",
    "plan_of_study",
    "preregister",
]

LEVEL = 0.05


@dataclass(frozen=True)
class Registration:
    """A plan that was written before a study.

    Attributes:
        plan: everything that was fixed.
        sha256: SHA-256 of the plan as JSON with sorted keys: publish it to show later that the plan is older.
        created: when it was written.
    """

    plan: Mapping[str, Any]
    sha256: str
    created: str

    @classmethod
    def read(cls, path: str | Path) -> Registration:
        """Read a file that `preregister` wrote.

        Raises:
            RunError: the file cannot be read, or its plan does not have the hash that stands in it.
        """
        content = read_json(Path(path).expanduser())
        if not isinstance(content, dict) or set(content) < {"plan", "sha256", "created"}:
            raise RunError(f"{path} is no preregistration: it needs plan, sha256 and created.")
        if _digest(content["plan"]) != content["sha256"]:
            raise RunError(f"{path} was changed after it was written: its plan has another SHA-256.")
        return cls(content["plan"], content["sha256"], content["created"])


def preregister(  # noqa: PLR0913 the arguments of `study`
    lalm: LALM,
    items: Items | Sequence[Item],
    path: str | Path,
    *,
    layers: Iterable[int] | FusionProfile | None = None,
    alphas: Sequence[float] = DEFAULT_ALPHAS,
    rule: str = "abs",
    decoding: Decoding | None = None,
    prompt_format: str = "options",
    items_limit: int | None = None,
    batch_size: int = 16,
    progress: bool = True,
    seed: int = 0,
    strict: bool = False,
    search: Search | None = None,
    crossfit: int | None = None,
    shams: Sequence[str] = (),
) -> Registration:
    """Write the plan of a study before it computes any answer.

    Items are checked and split, as the study will split them; the model answers nothing.

    Args:
        lalm: the model.
        items: items of both splits.
        path: the file to write, which must not exist.
        layers, alphas, rule, decoding, prompt_format, items_limit, batch_size, progress, seed, strict,
            search, crossfit, shams: as in `study`.

    Raises:
        RunError: the file exists, or a split has no usable item.

    Examples:
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")
        >>> plan = mi.preregister(lalm, items, "plan.json", layers=[4, 5], items_limit=6, progress=False)
        >>> plan.plan["hypotheses"][0]["family"], len(plan.sha256)
        ('primary', 64)
    """
    study = StudySettings.of(locals())
    path = Path(path).expanduser()
    if path.exists():
        raise RunError(f"{path} exists. A preregistration is not overwritten: choose another file.")
    splits = study.splits(lalm, items)
    plan = plan_of_study(lalm, splits, study.configurations(lalm), study)
    written = Registration(plan, _digest(plan), datetime.now(UTC).isoformat(timespec="seconds"))
    write_json(path, {**asdict(written), "mata_interp": __version__})
    return written


def plan_of_study(
    lalm: LALM,
    splits: StudySplits,
    configurations: Mapping[str, AttentionEdit],
    study: StudySettings,
) -> dict[str, Any]:
    """What a study with these settings is going to do, as plain data.

    Args:
        lalm: the model.
        splits: the items, checked.
        configurations: name -> configuration to choose from.
        study: the settings of the study.
    """
    decoding = study.decoding
    some = next(iter(configurations.values()))
    heads = lalm.structure.heads
    conditions = study_conditions(some, some.alpha, {}, study.shams, heads, study.seed)
    beforehand = known_beforehand(lalm, {}, study.batch_size, study.seed, study.prompt_format)
    return plain(
        {
            "model": identity(beforehand)["model"],
            "prompt_format": beforehand["prompt_format"],
            "seed": study.seed,
            "batch_size": study.batch_size,
            "decoding": None if decoding is None else decoding.to_dict(),
            "data": {
                "name": splits.test.name,
                "selection": _split(splits.selection),
                "confirmation": _split(splits.test),
            },
            "choice": {
                "configurations": [edit.to_dict() | {"chosen_on": []} for edit in configurations.values()],
                "search": study.resolved_search(configurations, splits),
                "items": len(splits.to_sweep.items),
                "items_at_most": GRID_ITEMS,
                "criterion": "largest mean log-probability difference on the selection split; of equal ones "
                "the smallest alpha, the fewest layers, the earliest",
            },
            "controls": {
                "conditions": list(conditions),
                "random_layers": DRAWS,
                "dose": f"mean row KL within {100 * TOLERANCE:g} % of MATA's",
            },
            "hypotheses": _hypotheses(splits, conditions, decoding),
            "analysis": {
                "level": LEVEL,
                "correct answers": "McNemar mid-p and Tango's interval; where a clip has several items, sign "
                "flips of whole clips and the cluster-robust t interval",
                "margins": "sign flips and the t interval (CR2), both by clip",
                "correction": "Holm over the families primary and mata; Holm over the family no_harm",
                "no_harm_margins": dict(MARGINS),
                "crossfit": study.crossfit,
            },
            "items_limit": study.items_limit,
        }
    )


def _split(validated: Any) -> dict[str, Any]:
    return {
        "items": len(validated.items),
        "clips": len(validated.clusters),
        "left_out": len(validated.excluded),
        "sha256": validated.sha256,
    }


def _hypotheses(
    splits: StudySplits, conditions: Mapping[str, Condition], decoding: Decoding | None
) -> list[dict[str, Any]]:
    """The hypotheses on MATA, MATA against the sham on text, and the claims of no harm."""
    rows = [
        {
            "item": item.id,
            "condition": name,
            "caption_condition": item.condition,
            "domain": item.domain,
            "correct": True,
            "correct_normalised": None if decoding else True,
            "margin": np.nan if decoding else 0.0,
        }
        for item in splits.test.items
        for name in conditions
    ]
    records = pd.DataFrame(rows)
    roles: dict[str, Role] = {name: condition.inferred_role for name, condition in conditions.items()}
    planned = [
        comparison
        for comparison in comparisons(records, roles)
        if comparison.family in ("primary", "mata")
        or (comparison.before_role, comparison.after_role) == ("sham_text", "mata")
    ]
    claims = list(no_harm_comparisons(records, roles))
    main = primary_subset(records)
    return [
        {**_brief(comparison), "primary_items": comparison.subset == main}
        for comparison in [*planned, *claims]
    ]


def _brief(comparison: Comparison) -> dict[str, Any]:
    fields = ("name", "subset", "column", "family")
    return {name: value for name, value in comparison.to_dict().items() if name in fields}


def check_registration(
    path: str | Path,
    plan: Mapping[str, Any],
    effects: Effects,
    begun: str,
) -> RegistrationCheck:
    """Compare a preregistration with what a study was about to do and with what it tested.

    Args:
        path: the preregistration.
        plan: `plan_of_study` of the study.
        effects: its effects.
        begun: when its run folder was created, as in the manifest.

    Raises:
        RunError: the file cannot be read or was changed.
    """
    registered = Registration.read(path)
    deviations = []
    for field in dict.fromkeys([*registered.plan, *plan]):
        change = first_difference(registered.plan.get(field), plain(plan).get(field), field)
        if change:
            name, old, new = change
            deviations.append(f"{name} is {short(new)}; registered: {short(old)}")
    tested = [_brief(row.comparison) for row in effects] + [_brief(row.comparison) for row in effects.no_harm]
    for hypothesis in registered.plan["hypotheses"]:
        if {name: hypothesis[name] for name in ("name", "subset", "column", "family")} not in plain(tested):
            deviations.append(f"not tested: {_words(hypothesis)}")
    if begun < registered.created:
        deviations.append(
            f"the run was begun at {begun}, before the plan was registered at {registered.created}"
        )
    hypotheses = tuple(
        _words(each) for each in registered.plan["hypotheses"] if each["family"] in ("primary", "mata")
    )
    name = str(Path(path).expanduser())
    return RegistrationCheck(name, registered.sha256, registered.created, hypotheses, tuple(deviations))


def _words(hypothesis: Mapping[str, Any]) -> str:
    where = ", ".join(f"{column} {value}" for column, value in hypothesis["subset"].items()) or "all items"
    return f"{hypothesis['name']}, {hypothesis['column']}, {where} ({hypothesis['family']})"


def _digest(plan: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain(plan), sort_keys=True).encode()).hexdigest()
