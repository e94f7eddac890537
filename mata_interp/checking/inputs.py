"""Checks of the inputs: equal logits from equal inputs, and audio at its placeholders."""

from __future__ import annotations

import torch

from mata_interp.lalm.discovery.audio_positions import audio_input_names

from .context import CheckContext
from .registry import register_check
from .results import Measurement, NotApplicable

__all__ = ["CHECKS"]


@register_check(
    name="two runs give equal logits",
    compared="the logits of two runs on the same inputs, from two random seeds",
    remedy="Something draws random numbers: switch it off in the model's config or inputs (an input named "
    "sample is set to False already), or no number of a trace can be reproduced.",
)
def deterministic(context: CheckContext) -> Measurement:
    lalm, inputs = context.lalm, context.prompt.inputs
    logits = []
    for seed in (1, 2):
        # registered after the hook that makes all other checks start from one seed
        hook = lalm.model.register_forward_pre_hook(lambda *_, seed=seed: torch.manual_seed(seed) and None)
        try:
            with torch.no_grad():
                logits.append(lalm.model(**inputs).logits[:, -1].float())
        finally:
            hook.remove()
    difference = float((logits[0] - logits[1]).abs().max())
    bound, note = context.exact(difference)
    return Measurement(f"max |Δlogit| {difference:.3g}{note}", difference, bound)


@register_check(
    name="audio changes only its placeholders",
    compared="the decoder's inputs that change when the audio is changed, and the audio placeholders",
    remedy="A split of attention into audio and text is meaningless on these inputs. Make them with the "
    "model's own processor, one placeholder per frame; a model that adds audio to every position cannot be "
    "traced at all.",
)
def audio_positions(context: CheckContext) -> Measurement:
    if not audio_input_names(context.prompt.inputs):
        raise NotApplicable("the prompt has no audio: give one that has.")
    alignment = context.lalm.audio_alignment(context.prompt)
    placeholders, moved, problem = alignment.placeholders, alignment.moved, alignment.problem or ""
    count = int(placeholders.sum())
    if moved is None or moved.shape != placeholders.shape:
        return Measurement(f"{count} placeholders", float("nan"), 0.0, problem)
    at_placeholders, elsewhere = int((moved & placeholders).sum()), int((moved & ~placeholders).sum())
    padding = f", {alignment.padded} are padding" if alignment.padded and not problem else ""
    measured = f"{at_placeholders} of {count} placeholders changed{padding}, {elsewhere} other inputs"
    return Measurement(measured, elsewhere, 0.0, problem)


@register_check(
    name="audio reaches the model to its end",
    compared="the processor's features of each clip and of the same clip with its last 100 ms changed; of a "
    "clip that is cut, with its features before the cut",
    remedy="The processor drops the end of these clips, and truncated_seconds in records is wrong. Please "
    "report it with this output; until then, cut the clips yourself.",
)
def audio_reaches_the_end(context: CheckContext) -> Measurement:
    lalm = context.lalm
    clips = [clip for item in context.items for clip in item.load_clips(lalm.sampling_rate)]
    if not clips:
        raise NotApplicable("the prompt was not made from items.")
    limit = lalm.audio_limit
    sample_counts = [limit.usable_samples(len(clip.samples)) for clip in clips]
    flaws = [
        f"clip {number} of {clip.seconds:.1f} s: {flaw}"
        for number, (clip, count) in enumerate(zip(clips, sample_counts, strict=True), 1)
        if (flaw := limit.flaw(clip.samples, count))
    ]
    cut = [(len(clip.samples) - count) / clip.rate for clip, count in zip(clips, sample_counts, strict=True)]
    whole = sum(seconds == 0 for seconds in cut)
    measured = f"{whole} of {len(clips)} clips whole, {sum(cut):.1f} s cut"
    return Measurement(measured, float(len(flaws)), 0.0, "; ".join(flaws))


CHECKS = (deterministic, audio_positions, audio_reaches_the_end)
