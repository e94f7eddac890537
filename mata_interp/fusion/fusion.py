"""mi.fusion_layers: in which decoder layers does text take in what was heard?"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, astuple, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from tqdm import tqdm

from mata_interp.benchmarks import Exclusion, Item
from mata_interp.errors import ArgumentError, ItemError, ModelError, RunError, unknown_name
from mata_interp.interventions import AttentionEdit, InterventionLike, in_order, require_attention_edits
from mata_interp.lalm import Prompt
from mata_interp.statistics import clustered_interval

from .baseline_edit import described
from .bounds import boundaries
from .counterfactual_audio import other_sounds
from .criteria import CRITERIA
from .criteria.attribution import attributed
from .item_context import Decision, ItemContext
from .profile import FusionProfile, by_head, labelled
from .recommend import choose
from .sentence import say
from .windows import cut, draw

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["fusion_layers"]


@torch.inference_mode(False)
def fusion_layers(
    lalm: LALM,
    items: Item | Prompt | Sequence[Item | Prompt],
    target: Sequence[tuple[int, int]] | None = None,
    *,
    criteria: Collection[str] | None = None,
    baseline: InterventionLike = None,
    seed: int = 0,
    progress: bool = True,
) -> FusionProfile:
    """Find the layers in which text reads the sound, by every criterion, and say which to give to MATA.

    Each item is read once; what the criteria need besides costs a part of that (see
    `mata_interp.fusion.criteria` for formulas and sources, `mata_interp.fusion.windows` for how a window is
    cut, `mata_interp.fusion.recommend` for the rule behind the recommended one). Nothing found here may be
    tested on the same clips: ``Mata(layers=profile)`` carries them along.

    Args:
        lalm: the model.
        items: with options and known answers, asked in the default format; or ready-made prompts.
        target: of each row of ready-made prompts, the ids of the right and of a wrong next token.
        criteria: names of those to measure; all of CRITERIA if not given.
        baseline: interventions that are in force all the time, as if they were a part of the model: what the
            criteria try comes after them. So one sees what an edit does to where the sound is read.
        seed: of the bootstrap, and of which other sound an item is corrupted with.
        progress: show a bar.

    Raises:
        RunError: no item can be used.
        ArgumentError: a criterion does not exist.
        ValueError: prompts without targets, or targets of another number.
        InterventionError: the baseline names layers or heads that the model lacks.

    Restoration of ready-made prompts is refused: which sound to put in the place of theirs is not known.
    """
    names = list(CRITERIA) if criteria is None else [name for name in CRITERIA if name in criteria]
    if unknown := sorted(set(criteria or ()) - set(CRITERIA)):
        raise ArgumentError(unknown_name("criterion", unknown[0], CRITERIA))
    acting = tuple(
        part.bind(lalm.structure.heads)
        for part in require_attention_edits(in_order(baseline), "fusion_layers")
    )
    given = [items] if isinstance(items, Item | Prompt) else list(items)
    excluded: list[Exclusion] = list(getattr(items, "excluded", ()))
    measured: dict[str, list[np.ndarray]] = {name: [] for name in names}
    heads: list[np.ndarray] = []
    refused: dict[str, str] = {}
    used: list[Item] = []
    nothing = np.full(len(lalm.attention_layers), np.nan)
    for entry in tqdm(
        list(_asked(lalm, given, target, names, acting, seed)), "fusion", unit="item", disable=not progress
    ):
        try:
            case = entry()
        except ItemError as error:
            excluded.append(Exclusion.from_error(error))
            continue
        used.append(case.item)
        for name in (name for name in names if name not in refused):
            try:
                values = CRITERIA[name].measure(case)
            except ItemError:  # this item has not what it takes: no other sound, as a rule
                values = nothing
            except ModelError as error:
                refused[name] = str(error)
                continue
            measured[name].append(values)
        if "attribution" in names and "attribution" not in refused:
            heads.append(_padded([part.cpu().numpy() for part in attributed(case)]))
    if not used:
        first = str(ItemError(*astuple(excluded[0]))) if excluded else "there are none."
        raise RunError(f"No item can be used. {len(excluded)} left out, the first: {first}")
    for name in names:
        if name not in refused and not np.isfinite(measured[name]).any():
            refused[name] = "no item has another sound to put in the place of its own."
    told = {name: np.array(measured[name]) for name in names if name not in refused}
    return _found(lalm, used, told, heads if "attribution" in told else [], refused, excluded, acting, seed)


def _asked(
    lalm: LALM,
    given: list[Item | Prompt],
    target: Any,
    names: list[str],
    acting: tuple[AttentionEdit, ...],
    seed: int,
) -> Iterator[Any]:
    """Of each item or row, a function that makes its case."""
    kinds = {isinstance(entry, Prompt) for entry in given}
    if not kinds:
        raise ValueError("Nothing to look at: give at least one item or prompt.")
    if len(kinds) > 1:
        raise ValueError("Items and prompts together: look at them one after the other.")
    if kinds == {False}:
        if target is not None:
            raise ValueError("target= is for ready-made prompts; items say themselves what is right.")
        asked: list[Any] = given
        swaps = any(name.startswith("restoration") for name in names)
        others = other_sounds(asked, lalm.sampling_rate, seed) if swaps else {}
        for item in asked:
            yield lambda item=item: ItemContext.of_item(lalm, item, others.get(item.id), acting)
        return
    rows = [row for prompt in given if isinstance(prompt, Prompt) for row in _rows(prompt)]
    if target is None or len(target) != len(rows):
        count = "no target=" if target is None else f"{len(target)} targets"
        raise ValueError(f"{count} for {len(rows)} rows: give (right, wrong) token ids of each.")
    for row, (right, wrong) in zip(rows, target, strict=True):
        decision = Decision(int(right), int(wrong))
        yield lambda row=row, decision=decision: ItemContext(lalm, row, decision, baseline=acting)


def _rows(prompt: Prompt) -> Iterator[Prompt]:
    """A prompt of one row for each of its rows, without padding."""
    tokens = prompt.inputs["input_ids"]
    mask = prompt.inputs.get("attention_mask")
    if prompt.size == 1 and (mask is None or bool(mask.all())):  # as it is, whatever its inputs look like
        yield prompt
        return
    for row in range(prompt.size):
        real = slice(None) if mask is None else mask[row].bool()
        inputs: dict[str, Any] = {}
        for name, x in prompt.inputs.items():
            if isinstance(x, Tensor) and len(x) != prompt.size:
                raise ModelError(f"{name} of a prompt of {prompt.size} rows cannot be told apart by row.")
            alone = x[row : row + 1] if isinstance(x, Tensor) else x
            per_token = isinstance(x, Tensor) and x.shape[:2] == tokens.shape and not x.is_floating_point()
            inputs[name] = alone[:, real] if per_token else alone
        yield replace(
            prompt,
            inputs=inputs,
            groups={name: group[row : row + 1, real] for name, group in prompt.groups.items()},
            items=prompt.items[row : row + 1],
            audio_seconds=prompt.audio_seconds[row : row + 1],
            truncated_seconds=prompt.truncated_seconds[row : row + 1],
        )


def _found(
    lalm: LALM,
    used: list[Item],
    told: dict[str, np.ndarray],
    heads: list[np.ndarray],
    refused: dict[str, str],
    excluded: list[Exclusion],
    acting: tuple[AttentionEdit, ...],
    seed: int,
) -> FusionProfile:
    """From profiles [item, layer] to windows and what they say together."""
    layers = lalm.attention_layers
    clusters = [item.cluster for item in used]
    draws = {name: draw(values, clusters, seed) for name, values in told.items()}
    insides = {name: cut(CRITERIA[name].cut, drawn) for name, drawn in draws.items()}
    choice = choose(draws, len(layers))
    every = {"window": (choice.inside, choice.drawn), **insides}
    chosen = {name: tuple(np.array(layers)[inside].tolist()) for name, (inside, _) in every.items()}
    window = chosen.pop("window")
    edges = {name: boundaries(*both, layers) for name, both in every.items()}
    totals = {name: _total(*drawn) for name, drawn in draws.items()}
    support = [drawn.mean(0) if len(drawn) else np.full(len(layers), np.nan) for _, drawn in every.values()]
    by_layer = ("criterion", "layer")
    averaged = clustered_interval(np.array(heads), clusters, seed) if heads else None
    carried = float(choice.share[choice.inside].sum())
    under = f"Under {described(acting)}: " if acting else ""
    return FusionProfile(
        model=lalm.name,
        window=window,
        sentence=under + say(choice, window, chosen, edges["window"], totals, carried),
        verdict=choice.verdict,
        windows=chosen,
        interval=edges,
        profiles=labelled(
            told, {name: asdict(CRITERIA[name]) for name in told}, [i.id for i in used], clusters, layers
        ),
        support=xr.DataArray(support, {"criterion": list(every), "layer": list(layers)}, by_layer),
        share=xr.DataArray(choice.share, {"layer": list(layers)}, ("layer",)),
        heads=by_head(*averaged, layers) if averaged else None,
        chosen_on=tuple(sorted({*clusters})),
        refused=refused,
        excluded=tuple(f"{e.item}: {e.field}: {e.reason}" for e in excluded),
        baseline=acting,
        seed=seed,
    )


def _total(mean: np.ndarray, drawn: np.ndarray) -> tuple[float, float, float]:
    """The sum over layers and its 95 % bootstrap interval."""
    low, high = np.percentile(drawn.sum(1), [2.5, 97.5]) if len(drawn) else (np.nan, np.nan)
    return float(mean.sum()), float(low), float(high)


def _padded(parts: list[np.ndarray]) -> np.ndarray:
    """[layer, head], NaN where layers have fewer."""
    width = max(map(len, parts))
    return np.array([np.pad(part, (0, width - len(part)), constant_values=np.nan) for part in parts])
