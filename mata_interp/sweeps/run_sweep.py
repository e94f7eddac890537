"""mi.sweep: any number of interventions on the same prompts, for little more than one forward."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mata_interp.benchmarks import Item
from mata_interp.errors import ArgumentError, ModelError, RunError
from mata_interp.execution import (
    MeasuredBatch,
    Output,
    RayWorkers,
    batch_identity,
    measure_batches,
    refuse_other_work,
)
from mata_interp.execution.files import plain
from mata_interp.interventions import InterventionLike, record_of
from mata_interp.interventions.selection import refuse_reasoning_phase
from mata_interp.interventions.spans import with_spans
from mata_interp.lalm import Prompt
from mata_interp.lalm.batching import exclusion_notes, in_parts, usable_prompt
from mata_interp.lalm.discovery.experts import experts_of
from mata_interp.lalm.prompting.formats import canonical_format
from mata_interp.lalm.rereading import keeps_states
from mata_interp.lalm.verification import note_unchecked

from .batch_rows import in_batch
from .canary import STEPS, Rounding, token_counts
from .inputs import SweepInputs, SweepWarning, named_configurations
from .paths import Parts, path_of
from .row_patches import measured_patches
from .shared_prefill import shared
from .storage import load_sweep, save_sweep
from .table import concatenate_choices, table

if TYPE_CHECKING:
    from mata_interp.execution.ray_backend import Cluster
    from mata_interp.lalm import LALM

__all__ = ["sweep"]

BATCH = 8
IDENTITY = "identity"  # the attribute of a file that says what decides its content, as JSON
SLACK = 4  # an edit sharpens attention, which amplifies rounding beyond what the unedited row shows


def sweep(  # noqa: PLR0913 one keyword per setting of a sweep
    lalm: LALM,
    items: Item | Prompt | Sequence[Item | Prompt],
    interventions: Sequence[InterventionLike] | Mapping[str, InterventionLike],
    *,
    batch_size: int = BATCH,
    block: int | None = None,
    strict: bool = False,
    progress: bool = True,
    prompt_format: str = "options",
    out: str | Path | Output | None = None,
    ray: RayWorkers | Cluster | str | bool = False,
) -> xr.DataArray:
    """Every intervention on every item, with one prefill per prompt.

    The same numbers as a loop of ``lalm.score`` (items) or ``lalm.logits`` (prompts). An edit of the
    attention of the last prompt token and of the answer leaves everything before it as it is, so each
    configuration is one more row over a shared prefix, and configurations share their rows up to the first
    layer in which they differ. Edits of all text (``queries="text"``) share the audio and what is before it,
    and rerun the text. Every block has one row that is not edited, the canary: where it differs from the
    plain forward, the batch runs in a plain loop instead, which is exact and slow. In a mixture of experts,
    rounding can choose another expert in an edited row alone: there one edited configuration per sweep is
    compared with the loop, at the cost of one more prefill of the first batch.

    Methods of the catalogue and of yours are configurations, too. `ActivationPatch` at the last token or in
    the text is a row as well: the states of the other audio are measured once for all patches. One that
    leaves the tokens before the last one as they are runs that token and the options on the shared prefill;
    one that edits earlier tokens has a prefill of its own. On architectures that keep a state, edits from the
    last token on run as a larger batch, each configuration on a copy of the cache. The coordinate ``path``
    says which: ``rows``, ``batch``, ``prefill`` or ``loop``.

    Args:
        lalm: the model.
        items: items with options, or prompts; a prompt of B rows is B items. Items that cannot be used are
            left out.
        interventions: configurations, each one intervention or several in order; a mapping names them. None
            is a configuration, too.
        batch_size: items in a batch. Prompts are batches already.
        block: configurations that run at once; None: what a quarter of the free memory holds, up to 768 MiB.
        strict: raise an error for the first item that cannot be used, instead of leaving it out.
        progress: report progress.
        prompt_format: wording of the items, one of PROMPT_FORMATS.
        out: write the sweep to this netCDF file, batch by batch: the same call continues a sweep that was
            stopped, and reads one that is finished. `load_sweep` reads the file.
        ray: spread the batches over a Ray cluster: True for the available one, its address, or `RayWorkers`.

    Returns:
        Items: ``[item, configuration, choice]``, log p of each option in nats, NaN where there is none.
        Prompts: ``[item, configuration, vocab]``, logits at the last prompt token.
        Attributes: ``canary``, the largest difference between the unedited row and the plain forward in
        logits and in log p per token of an option, in steps of the number format at the largest logit;
        ``looped``, how many items ran in a plain loop because rows cannot run on the model or the canary was
        off, and ``culprits``, why (layer and item); ``excluded``, the items left out, with reasons.
        `save_sweep` writes a file, and so does ``to_netcdf``.

    Warns:
        ExclusionWarning: items were left out.
        SweepWarning: items ran in a plain loop.

    Raises:
        RunError: no item can be used; ``out`` cannot be written or holds something else; there is no worker.
        ItemError: an item cannot be used, with ``strict``.
        InterventionError: a configuration names what the model or a prompt does not have; or, with ``out``,
            its class is not registered.

    See Also:
        LALM.score_each: the loop, with the dose of each edit.
        sweep_generate: generated answers.

    Example:
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening").sample(2)
        >>> swept = mi.sweep(lalm, items, {"none": None, "mata": mi.Mata(1.0, [3, 4])}, progress=False)
        >>> swept.dims
        ('item', 'configuration', 'choice')
    """
    inputs = SweepInputs(items, strict=strict, format=prompt_format)
    configurations = named_configurations(lalm, interventions)
    refuse_reasoning_phase(part for parts in configurations.values() for part in parts)
    batches = inputs.batches(batch_size)
    output = _output(lalm, out, batches, configurations, prompt_format)
    if output is not None and output.whole and (finished := _finished(output)) is not None:
        return finished
    note_unchecked(lalm)
    work = SweepBatch(tuple(configurations.values()), inputs.kind is Item, block, prompt_format, strict)
    measured = measure_batches(
        lalm,
        work,
        batches,
        label="sweep",
        progress=progress,
        parts=output and output.parts(lalm),
        ray=ray,
        on_part=lambda part: work.warn_of_loop(lalm, part.notes.get("culprit", "")),
    )
    used = inputs.collect(batches, [part.notes["excluded"] for part in measured])
    notes = [part.notes for part in measured if part.arrays]
    culprits = [note["culprit"] for note in notes if note["culprit"]]
    attrs = {
        "canary": max(note["canary"] for note in notes),
        "looped": sum(note["looped"] for note in notes),
        "culprits": "\n".join(dict.fromkeys(culprits)),
        "excluded": inputs.excluded_lines(),
    }
    kind = "vocab" if inputs.kind is Prompt else "choice"
    values = [part.arrays["values"] for part in measured if part.arrays]
    swept_items = [item for batch in used for item in batch]
    swept = table(lalm, values, swept_items, configurations, kind, attrs)
    states = keeps_states(lalm.model)
    paths = [path_of(parts, inputs.kind is Item, states) for parts in work.edits]
    swept = swept.assign_coords(path=("configuration", np.array(paths)))
    if output is not None and output.whole:
        swept.attrs[IDENTITY] = json.dumps(plain(output.identity))
        save_sweep(swept, output.path)
        output.remove_parts()
    return swept


@dataclass
class SweepBatch:
    """Sweeps one batch.

    Attributes:
        edits: the configurations.
        scored: whether options are scored; else next-token logits are taken.
        block, prompt_format, strict: arguments of `sweep`.
        verified: whether an edited row was compared with the loop in this process, where that is necessary.
        warned: whether a warning said in this process that a batch runs in a plain loop.
    """

    edits: tuple[Parts, ...]
    scored: bool
    block: int | None
    prompt_format: str
    strict: bool
    verified: bool = False
    warned: bool = False

    def __call__(self, lalm: LALM, batch: Prompt | list[Item]) -> MeasuredBatch:
        prompt, excluded = usable_prompt(lalm, batch, self.prompt_format, self.scored, self.strict)
        notes: dict[str, Any] = {"excluded": exclusion_notes(excluded)}
        if prompt is None:
            return MeasuredBatch({}, notes)
        ready = isinstance(batch, Prompt)
        results = in_parts(
            lalm, prompt, lambda part: self._sweep(lalm, part), None if ready else self.prompt_format
        )
        culprits = dict.fromkeys(culprit for _, (_, _, culprit) in results if culprit)
        notes["canary"] = max(canary for _, (_, canary, _) in results)
        notes["culprit"] = "\n".join(culprits)
        notes["looped"] = sum(part.size for part, (_, _, culprit) in results if culprit)
        return MeasuredBatch(
            {"values": concatenate_choices([values for _, (values, _, _) in results])}, notes
        )

    def _sweep(self, lalm: LALM, prompt: Prompt) -> tuple[np.ndarray, float, str]:
        """The values of a prompt, the canary's error, and why a plain loop ran, if it did."""
        options = tokens = None
        if self.scored:
            options = [list(item.choices) for item in prompt.items]
            tokens = [lalm.option_tokens(item, item.choices) for item in prompt.items]
        states, together = keeps_states(lalm.model), {"rows": self._rows, "batch": self._batch}
        paths = [path_of(parts, self.scored, states) for parts in self.edits]
        by_run: dict[Any, list[int]] = {}
        for k, path in enumerate(paths):
            by_run.setdefault(together.get(path, _alone), []).append(k)
        values, canaries, culprits = None, [], {}
        for run, chosen in by_run.items():
            some, canary, culprit = run(lalm, prompt, [self.edits[k] for k in chosen], options, tokens)
            if values is None:
                values = np.empty((len(some), len(self.edits), some.shape[2]), some.dtype)
            values[:, chosen] = some
            canaries.append(canary)
            culprits |= {culprit: None} if culprit else {}
        assert values is not None
        return values, max(canaries), "\n".join(culprits)

    def _rows(
        self,
        lalm: LALM,
        prompt: Prompt,
        edits: Sequence[Parts],
        options: Sequence[Sequence[str]] | None,
        tokens: Any,
    ) -> tuple[np.ndarray, float, str]:
        """The values of configurations that run as rows."""
        parts = [part for some in edits for part in some]
        grouped = replace(prompt, groups=with_spans(prompt.groups, parts, prompt.audio_seconds))

        def run() -> tuple[np.ndarray, float]:
            measured = measured_patches(lalm, prompt, parts)
            return shared(lalm, grouped, edits, tokens, self.block, measured=measured)

        verify = bool(experts_of(lalm.structure.blocks))
        return self._or_loop(lalm, prompt, edits, options, run, verify)

    def _batch(
        self,
        lalm: LALM,
        prompt: Prompt,
        edits: Sequence[Parts],
        options: Sequence[Sequence[str]] | None,
        tokens: Any,
    ) -> tuple[np.ndarray, float, str]:
        """The values of configurations that run as rows of a larger batch."""

        def run() -> tuple[np.ndarray, float]:
            return in_batch(lalm, prompt, edits, tokens, self.block)[:2]

        # the whole prompt is read at once in the loop, and here in two parts
        return self._or_loop(lalm, prompt, edits, options, run, verify=True)

    def _or_loop(
        self,
        lalm: LALM,
        prompt: Prompt,
        edits: Sequence[Parts],
        options: Sequence[Sequence[str]] | None,
        run: Callable[[], tuple[np.ndarray, float]],
        verify: bool,
    ) -> tuple[np.ndarray, float, str]:
        """What ``run`` returns; from the loop, and why, where the model refuses it.

        Args:
            verify: compare one edited configuration with the loop, once in this process.
        """
        try:
            values, canary = run()
            if verify and not self.verified:
                _verify_against_loop(lalm, prompt, edits, options, values)
            self.verified = True
            return values, canary, ""
        except ModelError as problem:
            self.warn_of_loop(lalm, str(problem))
            return _loop(lalm, prompt, edits, options), 0.0, str(problem)

    def warn_of_loop(self, lalm: LALM, culprit: str) -> None:
        """Warn, once, of a batch that runs in a plain loop; ``culprit`` says why, and is empty if none does.

        The process that runs the loop warns before it begins, because a loop can take many times longer.
        """
        if culprit and not self.warned:
            self.warned = True
            count = len(self.edits)
            cost = (
                f"Its {count} configurations run one after the other"
                if self.scored
                else f"This takes {count} forward passes a batch"
            )
            text = f"{lalm.name} is swept in a plain loop: {culprit.rstrip('.')}. {cost}."
            warnings.warn(SweepWarning(text), stacklevel=5)


def _output(
    lalm: LALM,
    out: str | Path | Output | None,
    batches: Sequence[Any],
    configurations: Mapping[Any, Parts],
    prompt_format: str,
) -> Output | None:
    """The file to write, with what decides its content."""
    if out is None or isinstance(out, Output):
        return out
    edits = {str(name): [record_of(part) for part in parts] for name, parts in configurations.items()}
    settings = {"configurations": edits, "prompt_format": canonical_format(prompt_format)}
    return Output(Path(out), batch_identity(lalm, "sweep", batches, settings))


def _finished(output: Output) -> xr.DataArray | None:
    """The sweep that the same call wrote before; None if there is no file.

    Raises:
        RunError: the file was written by something else.
    """
    if not output.path.exists():
        return None
    try:
        result = load_sweep(output.path)
        identity = json.loads(result.attrs[IDENTITY])
    except (ArgumentError, KeyError) as error:
        raise RunError(
            f"cannot read {output.path} as a sweep: {error}. Delete it, and the same command makes it again, "
            "or choose another file (out=...)."
        ) from error
    refuse_other_work(output.path, identity, output.identity)
    return result


def _verify_against_loop(
    lalm: LALM,
    prompt: Prompt,
    configurations: Sequence[Parts],
    options: Sequence[Sequence[str]] | None,
    values: np.ndarray,
) -> None:
    """Compare the configuration that edits most with the loop.

    Raises:
        ModelError: rows differ from the loop.
    """
    edited = [k for k, parts in enumerate(configurations) if parts]
    if not edited:
        return
    chosen = max(
        edited,
        key=lambda k: sum(len(part.layers) * abs(getattr(part, "alpha", 1.0)) for part in configurations[k]),
    )
    row, loop = values[:, chosen], _loop(lalm, prompt, [configurations[chosen]], options)[:, 0]
    if options is None:
        rounding = Rounding.at(lalm.dtype, loop)
        off = rounding.of_logits(row, loop)
    else:
        rounding = Rounding.at(lalm.dtype, lalm.logits(prompt, configurations[chosen]).float().cpu().numpy())
        tokens = [lalm.option_tokens(i, texts) for i, texts in zip(prompt.items, options, strict=True)]
        off = rounding.of_options(row, loop, token_counts(tokens, loop.shape))
    allowed = SLACK * STEPS[lalm.dtype]
    if not (off <= allowed).all():
        worst = int(np.nan_to_num(off, nan=np.inf).argmax())
        raise ModelError(
            f"an edited row is {off[worst]:.3g} steps of the number format off the plain loop "
            f"(of {rounding.step[worst]:.2g} each; {allowed} are allowed), in item "
            f"{prompt.items[worst].id!r}."
        )


def _alone(
    lalm: LALM,
    prompt: Prompt,
    edits: Sequence[Parts],
    options: Sequence[Sequence[str]] | None,
    tokens: Any,
) -> tuple[np.ndarray, float, str]:
    """The values of methods that are computed one after the other by their nature."""
    return _loop(lalm, prompt, edits, options), 0.0, ""


def _loop(
    lalm: LALM, prompt: Prompt, configurations: Sequence[Parts], options: Sequence[Sequence[str]] | None
) -> np.ndarray:
    """The same values, one configuration after the other."""
    if options is not None:
        return np.stack([s.logprob for s in lalm.score_each(prompt, options, configurations)], 1)
    return np.stack([lalm.logits(prompt, parts).float().cpu().numpy() for parts in configurations], 1)
