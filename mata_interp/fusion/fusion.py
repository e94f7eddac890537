"""mi.fusion_layers: find the layers in which text tokens read from audio."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from mata_interp.benchmarks import Exclusion, Item
from mata_interp.benchmarks.entries import as_entries
from mata_interp.errors import ArgumentError, ExclusionWarning, ItemError, ModelError, RunError
from mata_interp.execution import (
    MeasuredBatch,
    Output,
    RayWorkers,
    batch_identity,
    measure_batches,
    refuse_other_work,
)
from mata_interp.execution.files import read_json, write_json
from mata_interp.interventions import AttentionEdit, InterventionLike, in_order, require_attention_edits
from mata_interp.lalm import Prompt
from mata_interp.lalm.batching import rows_of
from mata_interp.lalm.calls.locks import exclusive
from mata_interp.lalm.memory import in_halves
from mata_interp.lalm.prompting.formats import canonical_format
from mata_interp.statistics import clustered_interval

from .baseline_edit import describe_baseline
from .boundaries import boundaries
from .context_inputs import Decision
from .counterfactual_audio import counterfactual_items
from .criteria import CRITERIA, criteria_named
from .criteria.attribution import head_attributions
from .criteria.knockout import whole_effect
from .item_context import ItemContext
from .profile import FusionProfile, label_effect, label_heads, label_profiles, label_share
from .recommend import DECIDING, choose
from .share_window import WORTH
from .summary import Findings, summarize
from .windows import DRAWS, Draws, apply_window_rule, draw_profiles

if TYPE_CHECKING:
    from mata_interp.execution.ray_backend import Cluster
    from mata_interp.lalm import LALM

__all__ = ["fusion_layers"]

BATCH_SIZE = 8
IDENTITY = "identity"  # the entry of a file that says what decides its content

Result = TypeVar("Result")


@torch.inference_mode(False)
def fusion_layers(  # noqa: PLR0913 one keyword per setting
    lalm: LALM,
    items: Item | Prompt | Sequence[Item | Prompt],
    target: Sequence[tuple[int, int]] | None = None,
    *,
    criteria: Collection[str] | None = None,
    baseline: InterventionLike = None,
    seed: int = 0,
    strict: bool = False,
    progress: bool = True,
    prompt_format: str = "options",
    batch_size: int = BATCH_SIZE,
    out: str | Path | None = None,
    ray: RayWorkers | Cluster | str | bool = False,
) -> FusionProfile:
    """Find the layers in which text tokens read from audio. The result may be that there are none.

    Every criterion is measured on every item, and a window of layers is recommended for MATA. Formulas and
    sources are in `mata_interp.fusion.criteria`, the rules for windows in `mata_interp.fusion.windows`, and
    the rule behind the recommended one in `mata_interp.fusion.recommend`. Each prompt is prefilled once; the
    criteria cost a part of that each.
    Models of more than twelve layers are measured block by block, in one order of layers for each item: see
    `mata_interp.fusion.criteria.layer_parts`.

    A window must not be tested on the clips that it was found on. ``Mata(layers=profile)`` carries the clips
    along, and runs warn about them.

    Args:
        lalm: the model.
        items: items with options and known answers; or ready-made prompts.
        target: of each row of ready-made prompts, ids of the right and of a wrong next token.
        criteria: names of the criteria to measure; all of `CRITERIA` if not given.
        baseline: interventions that are active in all measurements, as if they were part of the model;
            those that a criterion applies come after them. This shows how an edit changes where audio is
            read.
        seed: seed of the bootstrap and of the choice of counterfactual audio.
        strict: raise for the first item that cannot be used, instead of leaving it out.
        progress: report progress.
        prompt_format: wording of the items, one of PROMPT_FORMATS.
        batch_size: items that are written together, and given to a worker together; they are measured one by
            one, so that it changes no number.
        out: write the profile to this JSON file, batch by batch: the same call goes on with a profile that
            was stopped, and reads one that is finished. :meth:`FusionProfile.load` reads the file.
        ray: spread the batches over a Ray cluster: True for the available one, its address, or `RayWorkers`.

    Returns:
        The profile. Items that cannot be used are in its ``excluded``, criteria that are not defined on the
        model in its ``refused``. Restoration of ready-made prompts is always refused, because there is no
        other clip to replace their audio with.

    Warns:
        ExclusionWarning: items were left out.

    Raises:
        ArgumentError: a criterion or format does not exist; there is nothing to measure; items and prompts
            are mixed; ``target`` is missing or does not fit the prompts.
        ItemError: an item cannot be used, with ``strict``.
        RunError: no item can be used; ``out`` cannot be written or holds something else; there is no worker.
        InterventionError: the baseline names layers or heads that the model does not have.

    Examples:
        >>> import mata_interp as mi
        >>> lalm = mi.LALM.from_pretrained("organism")
        >>> items = mi.load_benchmark("listening").split("selection")[:2]
        >>> profile = mi.fusion_layers(lalm, items, criteria=["knockout_text", "depth"], progress=False)
        >>> profile.profiles.sizes["layer"], sorted(profile.windows)
        (8, ['depth', 'knockout_text'])
    """
    names = criteria_named(criteria)
    active = tuple(
        part.bind(lalm.structure.heads)
        for part in require_attention_edits(in_order(baseline), "fusion_layers")
    )
    canonical_format(prompt_format)
    entries = as_entries(items, Prompt)
    rows = _entries(lalm, list(entries), target, names, seed)
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    excluded: list[Exclusion] = list(entries.excluded)
    settings = {
        "criteria": names,
        "baseline": [part.to_dict() for part in active],
        "seed": seed,
        "prompt_format": prompt_format,
        "excluded": [asdict(exclusion) for exclusion in excluded],
    }
    output = None
    if out is not None:
        output = Output(Path(out), batch_identity(lalm, "fusion profile", batches, settings))
        if (finished := _finished(output)) is not None:
            return finished
    parts = measure_batches(
        lalm,
        FusionBatch(tuple(names), active, prompt_format, strict),
        batches,
        label="fusion",
        progress=progress,
        parts=output and output.parts(lalm),
        ray=ray,
    )
    measured = _Measurements.joined(lalm, names, excluded, batches, parts)
    measured.finish()
    profile = _profile(measured, active, seed)
    if output is not None:
        write_json(output.path, {**profile.to_dict(), IDENTITY: output.identity})
        output.remove_parts()
    return profile


def _finished(output: Output) -> FusionProfile | None:
    """The profile that the same call wrote before; None if there is no file.

    Raises:
        RunError: the file was written by something else.
    """
    if not output.path.exists():
        return None
    data = read_json(output.path)
    if not isinstance(data, dict) or IDENTITY not in data:
        reason = "is not a profile that can be continued"
        raise RunError(f"{output.path} {reason}. Choose another file (out=...).")
    refuse_other_work(output.path, data[IDENTITY], output.identity)
    return FusionProfile.from_dict(data)


@dataclass(frozen=True)
class FusionBatch:
    """Measures the items of a batch one by one.

    Attributes:
        names: names of the criteria.
        baseline: interventions that are active in all measurements.
        prompt_format, strict: arguments of `fusion_layers`.
    """

    names: tuple[str, ...]
    baseline: tuple[AttentionEdit, ...]
    prompt_format: str
    strict: bool

    @torch.inference_mode(False)
    def __call__(self, lalm: LALM, batch: Sequence[tuple[Any, Any]]) -> MeasuredBatch:
        measured = _Measurements(lalm, list(self.names), [])
        for entry in batch:
            name = (entry[0].items[0] if isinstance(entry[0], Prompt) else entry[0]).id
            try:
                context = _naming(name, lambda entry=entry: self._context(lalm, *entry))
            except ItemError as error:
                if self.strict:
                    raise
                measured.excluded.append(Exclusion.from_error(error))
                continue
            with exclusive(lalm.structure.decoder):
                _naming(name, lambda context=context: measured.add(context))
        return measured.to_part()

    def _context(self, lalm: LALM, entry: Item | Prompt, other: Any) -> ItemContext:
        needs: dict[str, Any] = {
            "last_token_only": not any(CRITERIA[name].runs_suffix for name in self.names),
            "keep_states": any(CRITERIA[name].reads_states for name in self.names),
        }
        if isinstance(entry, Prompt):
            return ItemContext(lalm, entry, other, baseline=self.baseline, **needs)
        return ItemContext.from_item(
            lalm, entry, other, self.baseline, prompt_format=self.prompt_format, **needs
        )


def _naming(item: str, compute: Callable[[], Result]) -> Result:
    """What ``compute`` returns; a RunError that names the item if memory runs out."""
    return in_halves(lambda _: compute(), [item], lambda item: f"item {item!r}")[0]


@dataclass
class _Measurements:
    """What the criteria gave for each item.

    Attributes:
        profiles: of each criterion, one row [layers] per used item; NaN where the item lacks what it needs.
        heads: one array [layer, head] of direct attributions per used item.
        effects: what hiding the audio from all text in all layers costs, nats, of each used item; empty if
            the criteria that need it were not measured.
        refused: criteria that are not defined on the model, and why.
        used: the items.
        excluded: items that were left out.
    """

    lalm: LALM
    names: list[str]
    excluded: list[Exclusion]
    profiles: dict[str, list[np.ndarray]] = field(default_factory=dict)
    heads: list[np.ndarray] = field(default_factory=list)
    effects: list[float] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    used: list[Item] = field(default_factory=list)

    def to_part(self) -> MeasuredBatch:
        """The measurements of one batch."""
        arrays = {f"profile {name}": np.array(rows) for name, rows in self.profiles.items()}
        if self.heads:
            arrays["heads"] = np.array(self.heads)
        if self.effects:
            arrays["effects"] = np.array(self.effects)
        notes = {"excluded": [asdict(left) for left in self.excluded], "refused": self.refused}
        return MeasuredBatch(arrays, notes)

    @classmethod
    def joined(
        cls,
        lalm: LALM,
        names: list[str],
        excluded: list[Exclusion],
        batches: Sequence[Sequence[tuple[Any, Any]]],
        parts: Sequence[MeasuredBatch],
    ) -> _Measurements:
        """The measurements of all batches; a criterion that one of them refuses is refused."""
        whole = cls(lalm, names, excluded)
        for batch, part in zip(batches, parts, strict=True):
            left_out = [Exclusion(**entry) for entry in part.notes["excluded"]]
            whole.excluded += left_out
            ids = {exclusion.item for exclusion in left_out}
            items = [entry.items[0] if isinstance(entry, Prompt) else entry for entry, _ in batch]
            whole.used += [item for item in items if item.id not in ids]
            whole.refused = {**part.notes["refused"], **whole.refused}
            whole.heads += list(part.arrays.get("heads", ()))
            whole.effects += list(part.arrays.get("effects", ()))
            for name in names:
                whole.profiles.setdefault(name, []).extend(part.arrays.get(f"profile {name}", ()))
        whole.profiles = {
            name: rows for name, rows in whole.profiles.items() if rows and name not in whole.refused
        }
        return whole

    def add(self, context: ItemContext) -> None:
        """Measure an item by every criterion."""
        self.used.append(context.item)
        for name in self.names:
            if name in self.refused:
                continue
            try:
                values = CRITERIA[name].measure(context)
            except ItemError:  # the item lacks what it needs, normally a counterfactual clip
                values = np.full(len(context.layers), np.nan)
            except ModelError as error:
                self.refused[name] = str(error)
                self.profiles.pop(name, None)
                continue
            self.profiles.setdefault(name, []).append(values)
        if "attribution" in self.profiles:
            self.heads.append(_padded([part.cpu().numpy() for part in head_attributions(context)]))
        if all(name in self.profiles for name in DECIDING):
            self.effects.append(whole_effect(context))

    def finish(self) -> None:
        """Refuse criteria that no item has values for, and report what was left out."""
        if not self.used:
            first = "there are none."
            if self.excluded:
                first = f"item {self.excluded[0].item!r}, {self.excluded[0].field}: {self.excluded[0].reason}"
            raise RunError(f"No item can be used. {len(self.excluded)} left out, the first: {first}")
        for name in [name for name in self.profiles if not np.isfinite(self.profiles[name]).any()]:
            del self.profiles[name]
            self.refused[name] = "no item has another clip to replace its audio with."
        if "attribution" not in self.profiles:
            self.heads.clear()
        if len(self.effects) < len(self.used):
            self.effects.clear()
        if self.excluded:
            first = self.excluded[0]
            warnings.warn(
                ExclusionWarning(
                    f"{len(self.excluded)} of {len(self.excluded) + len(self.used)} items were left out, the "
                    f"first: item {first.item!r}, {first.field}: {first.reason}"
                ),
                stacklevel=4,
            )


def _entries(
    lalm: LALM,
    entries: list[Item | Prompt],
    target: Sequence[tuple[int, int]] | None,
    names: Sequence[str],
    seed: int,
) -> list[tuple[Any, Any]]:
    """Each item with the same question about another clip (or None), or each prompt row with its decision."""
    if not entries:
        raise ArgumentError("There is nothing to measure: give at least one item or prompt.")
    items = [entry for entry in entries if isinstance(entry, Item)]
    prompts = [entry for entry in entries if isinstance(entry, Prompt)]
    if items and prompts:
        raise ArgumentError("Items and prompts cannot be mixed: call fusion_layers once for each.")
    if items:
        if target is not None:
            raise ArgumentError("target= is for ready-made prompts; items have answers of their own.")
        swaps = any(name.startswith("restoration") for name in names)
        counterfactuals = counterfactual_items(items, lalm.sampling_rate, seed) if swaps else {}
        return [(item, counterfactuals.get(item.id)) for item in items]
    rows = [row for prompt in prompts for row in _rows(prompt)]
    if target is None or len(target) != len(rows):
        count = "no target=" if target is None else f"{len(target)} targets"
        raise ArgumentError(f"{count} for {len(rows)} rows: give the (right, wrong) token ids of each row.")
    return [(row, Decision(int(right), int(wrong))) for row, (right, wrong) in zip(rows, target, strict=True)]


def _rows(prompt: Prompt) -> Iterator[Prompt]:
    """A prompt of one row, without padding, for each row of a prompt."""
    tokens = prompt.inputs["input_ids"]
    mask = prompt.inputs.get("attention_mask")
    if prompt.size == 1 and (mask is None or bool(mask.all())):  # as it is, whatever its inputs look like
        yield prompt
        return
    for row in range(prompt.size):
        alone = rows_of(prompt, range(row, row + 1))
        real = slice(None) if mask is None else mask[row].bool()
        inputs = {
            name: x[:, real]
            if isinstance(x, Tensor) and x.shape[1:2] == tokens.shape[1:] and not x.is_floating_point()
            else x
            for name, x in alone.inputs.items()
        }
        yield replace(
            alone, inputs=inputs, groups={name: group[:, real] for name, group in alone.groups.items()}
        )


def _profile(measured: _Measurements, baseline: tuple[AttentionEdit, ...], seed: int) -> FusionProfile:
    """Windows from measurements, and the recommended window."""
    layers = measured.lalm.attention_layers
    ids, clusters = zip(*((item.id, item.cluster) for item in measured.used), strict=True)
    profiles = {name: np.array(rows) for name, rows in measured.profiles.items()}
    profiles = {name: profiles[name] for name in measured.names if name in profiles}
    effect = np.array(measured.effects) if measured.effects else None
    choice, deciding = choose(profiles, clusters, len(layers), seed, effect)
    cuts = {"window": (choice.inside, choice.resampled)}
    cuts |= {
        name: apply_window_rule(CRITERIA[name].window_rule, values, clusters, seed)
        for name, values in profiles.items()
    }
    windows = {name: tuple(np.array(layers)[inside].tolist()) for name, (inside, _) in cuts.items()}
    edges = {name: boundaries(inside, resampled, layers) for name, (inside, resampled) in cuts.items()}
    window = windows.pop("window")
    totals = {name: _total(draw_profiles(v, clusters, DRAWS, seed)) for name, v in profiles.items()}
    whole = None if effect is None else _total(draw_profiles(effect[:, None], clusters, DRAWS, seed))
    replaceable = ()
    if deciding == DECIDING:
        replaceable = tuple(np.array(layers)[choice.inside & _not_needed(profiles)].tolist())
    summary = summarize(
        Findings(choice, deciding, window, windows, edges["window"], totals, whole, replaceable)
    )
    if baseline:
        summary = f"Under {describe_baseline(baseline)}: {summary}"
    support = [
        resampled.mean(0) if len(resampled) else np.full(len(layers), np.nan)
        for _, resampled in cuts.values()
    ]
    heads = None
    if measured.heads:
        heads = label_heads(*clustered_interval(np.array(measured.heads), clusters), layers)
    return FusionProfile(
        model=measured.lalm.name,
        window=window,
        summary=summary,
        verdict=choice.verdict,
        windows=windows,
        boundaries=edges,
        profiles=label_profiles(
            profiles,
            {name: asdict(CRITERIA[name]) for name in profiles},
            ids,
            clusters,
            layers,
        ),
        support=xr.DataArray(
            support, {"criterion": list(cuts), "layer": list(layers)}, ("criterion", "layer")
        ),
        share=label_share(choice.share, choice.low, choice.high, layers),
        stability=choice.stability if choice.inside.any() else None,
        clips=choice.clips,
        clips_needed=choice.clips_needed,
        effect=None if effect is None else label_effect(effect, ids, clusters),
        heads=heads,
        chosen_on=tuple(sorted(set(clusters))),
        refused={name: measured.refused[name] for name in measured.names if name in measured.refused},
        excluded=tuple(f"{left.item}: {left.field}: {left.reason}" for left in measured.excluded),
        baseline=baseline,
        seed=seed,
    )


def _not_needed(profiles: Mapping[str, np.ndarray]) -> np.ndarray:
    """Layers whose cost is less than a fifth of their gain, mean over complete items: bool [n]."""
    both = np.array([profiles[name] for name in DECIDING])
    cost, gain = both[:, np.isfinite(both).all(axis=(0, 2))].mean(1)
    return cost < WORTH * gain


def _total(draws: Draws) -> tuple[float, float, float]:
    """The sum over layers and its 95 % bootstrap interval."""
    mean, resampled = draws
    low, high = np.percentile(resampled.sum(1), [2.5, 97.5]) if len(resampled) else (np.nan, np.nan)
    return float(mean.sum()), float(low), float(high)


def _padded(parts: list[np.ndarray]) -> np.ndarray:
    """[layer, head], NaN where a layer has fewer heads."""
    width = max(map(len, parts))
    return np.array([np.pad(part, (0, width - len(part)), constant_values=np.nan) for part in parts])
