"""Measure what an intervention does to the answers of a benchmark, in the form that is shared with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..benchmarks import Item
from ..errors import ArgumentError
from ..experiments.dose_matching import match_alpha
from ..experiments.validation import ValidatedItems, validate_items
from ..interventions import AttentionEdit, Evidence, InterventionLike, ShamEvidence, in_order, to_dict
from ..lalm.batching import in_batches, in_parts
from ..progress import progress_bar
from ..statistics import Effect, is_correct, margin, paired_effect
from ..version import __version__

if TYPE_CHECKING:
    from ..lalm import LALM, Prompt

__all__ = ["evidence", "evidence_on"]

MATCHED_ON = 32  # items on which the dose of the sham is matched


def evidence(
    lalm: LALM,
    items: Item | Sequence[Item],
    intervention: InterventionLike,
    sham: InterventionLike | str = "text",
    *,
    prompt_format: str = "options",
    batch_size: int = 16,
    seed: int = 0,
    progress: bool = True,
) -> Evidence:
    """Measure an intervention on items with known answers: without it, with it, and under a sham.

    Options are compared by their log-probability, as in `LALM.score`.

    Args:
        lalm: the model.
        items: items that the intervention was not chosen on.
        intervention: one, or several in order, of any site.
        sham: a control of the same dose. ``"text"``: for one AttentionEdit of audio, the same rule on text
            tokens, its alpha matched in mean row KL on up to 32 of the items; for any other intervention no
            control. None: no control. Or an intervention.
        prompt_format: wording of the questions.
        batch_size: items that the model reads at once.
        seed: of permutations and bootstraps.
        progress: show a bar.

    Returns:
        The `Evidence`, for `save_intervention` and ``save_pretrained``.

    Raises:
        ArgumentError: the intervention was chosen on a clip of these items, or edits nothing.
        RunError: no item can be used.

    Example:
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")
        >>> mata = mi.Mata(1.0, layers=[4, 5])
        >>> found = mi.evidence(lalm, items[:2], mata, sham=None, progress=False)
        >>> found.accuracy.n, found.sham is None
        (2, True)
    """
    validated = validate_items(lalm, items, progress=progress, scored=True, format=prompt_format)
    settings = Settings(prompt_format, batch_size, seed, progress)
    parts = in_order(intervention)
    if not parts:
        raise ArgumentError("The intervention edits nothing: it names no layers.")
    control: Any = sham
    if isinstance(sham, str):
        if sham != "text":
            raise ArgumentError(f"sham is {sham!r}: choose 'text', None or an intervention.")
        control = _text_sham(lalm, validated, parts, settings)
    return evidence_on(lalm, validated, intervention, control, settings)


@dataclass(frozen=True)
class Settings:
    """How evidence is measured; the attributes are arguments of `evidence`."""

    prompt_format: str
    batch_size: int
    seed: int
    progress: bool


def evidence_on(
    lalm: LALM,
    validated: ValidatedItems,
    intervention: InterventionLike,
    sham: InterventionLike,
    settings: Settings,
) -> Evidence:
    """`evidence` on validated items."""
    used = {clip for part in in_order(intervention) for clip in getattr(part, "chosen_on", ())}
    if shared := used & validated.clusters:
        raise ArgumentError(
            f"The intervention was chosen on {len(shared)} of the {len(validated.clusters)} clips of these "
            "items, so that they are no evidence: use items.split('confirmation')."
        )
    edits: list[InterventionLike] = [None, intervention, *([] if sham is None else [sham])]
    plain, edited, *controls = _answers(lalm, validated.items, edits, settings)
    clusters = [item.cluster for item in validated.items]

    def effect(before: _Answers, after: _Answers, kind: str = "binary") -> Effect:
        values = [x.correct if kind == "binary" else x.margin for x in (before, after)]
        return paired_effect(*values, kind=kind, clusters=clusters, seed=settings.seed)  # type: ignore[arg-type]

    return Evidence(
        accuracy=effect(plain, edited),
        margin=effect(plain, edited, "margin"),
        sham=None
        if not controls
        else ShamEvidence(
            tuple(to_dict(part) for part in _as_sequence(sham)),
            effect(plain, controls[0]),
            effect(controls[0], edited),
            controls[0].dose_kl,
        ),
        benchmark=validated.name,
        items=tuple(item.id for item in validated.items),
        clips=len(validated.clusters),
        data_sha256=validated.sha256,
        prompt_format=settings.prompt_format,
        batch_size=settings.batch_size,
        seed=settings.seed,
        dose_kl=edited.dose_kl,
        versions={"mata_interp": __version__, **lalm.fingerprint()["versions"]},
    )


@dataclass(frozen=True)
class _Answers:
    """Answers to N items: whether correct, 0 or 1, and the log-probability difference, nats, [N] each."""

    correct: np.ndarray
    margin: np.ndarray
    dose_kl: float | None


def _answers(
    lalm: LALM, items: Sequence[Item], edits: Sequence[InterventionLike], settings: Settings
) -> list[_Answers]:
    """The answers under each edit; one prefill serves those that leave the prompt alone."""
    rows: list[list[tuple[bool, float, float]]] = [[] for _ in edits]
    with progress_bar("evidence", len(items), show=settings.progress) as bar:
        for batch in in_batches(items, settings.batch_size):
            prompt = lalm.prompt(batch, format=settings.prompt_format)  # type: ignore[arg-type]

            def score(part: Prompt) -> list[Any]:
                return lalm.score_each(part, None, edits)

            for part, scores in in_parts(lalm, prompt, score, settings.prompt_format):
                for of_edit, scored in zip(rows, scores, strict=True):
                    of_edit += _judged(part, scored)
                bar.update(part.size)
    answers = []
    for of_edit in rows:
        correct, margin, kl = (np.array(column, dtype=float) for column in zip(*of_edit, strict=True))
        answers.append(_Answers(correct, margin, None if np.isnan(kl).all() else float(np.nanmean(kl))))
    return answers


def _judged(prompt: Prompt, scores: Any) -> list[tuple[bool, float, float]]:
    """Of each row: whether the most probable option is correct, the margin, and the dose in nats."""
    kl = scores.dose.get("kl", np.full(prompt.size, np.nan))
    judged = []
    for row, item in enumerate(prompt.items):
        right = item.choices.index(item.answer)
        logprob = scores.logprob[row, : len(item.choices)]
        judged.append((bool(is_correct(logprob, right)), float(margin(logprob, right)), float(kl[row])))
    return judged


def _text_sham(
    lalm: LALM, validated: ValidatedItems, parts: Sequence[Any], settings: Settings
) -> AttentionEdit | None:
    """The same rule on text tokens, at the alpha of the same dose; None where there is no such control."""
    edit = parts[0]
    if len(parts) > 1 or not isinstance(edit, AttentionEdit) or edit.keys != "audio" or edit.alpha <= 0:
        return None
    few = validated.items[:MATCHED_ON]
    quiet = replace(settings, progress=False)

    def strength(one: AttentionEdit) -> float:
        return _answers(lalm, few, [one], quiet)[0].dose_kl or 0.0

    sham = replace(edit, keys="text", chosen_on=())
    match = match_alpha(lambda alpha: strength(replace(sham, alpha=alpha)), strength(edit), edit.alpha)
    return replace(sham, alpha=match.alpha)


def _as_sequence(intervention: Any) -> tuple[Any, ...]:
    return tuple(intervention) if isinstance(intervention, Sequence) else (intervention,)
