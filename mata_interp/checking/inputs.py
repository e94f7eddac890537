"""Does the model say the same twice, and does it hear where its placeholders stand?"""

from __future__ import annotations

import torch

from mata_interp.lalm.discovery.audio_positions import audio_input_names

from .context import CheckContext
from .results import Measurement, NotApplicable, register_check

__all__: list[str] = []


@register_check(
    "same twice",
    "the logits of two runs on the same inputs, from two random seeds",
    "Something draws at random: switch it off in the model's config or inputs (an input named sample is set "
    "to False already), or no number of a trace can be repeated.",
)
def _deterministic(subject: CheckContext) -> Measurement:
    lalm, inputs = subject.lalm, subject.prompt.inputs
    logits = []
    for seed in (1, 2):
        # behind the hook that makes all other checks start from one seed
        hook = lalm.model.register_forward_pre_hook(lambda *_, seed=seed: torch.manual_seed(seed) and None)
        try:
            with torch.no_grad():
                logits.append(lalm.model(**inputs).logits[:, -1].float())
        finally:
            hook.remove()
    off = float((logits[0] - logits[1]).abs().max())
    # kernels of a GPU may sum in any order
    bound = 0.0 if lalm.device.type == "cpu" else subject.logit_bound
    return Measurement(f"max |Δlogit| {off:.2g}", off, bound)


@register_check(
    "sound at its placeholders",
    "the decoder's inputs that move when the sound is changed, and the audio placeholders",
    "A split of attention into audio and text means nothing on these inputs. Make them with the model's own "
    "processor, one placeholder a frame; a model that adds sound to every position cannot be traced at all.",
)
def _hearing(subject: CheckContext) -> Measurement:
    if not audio_input_names(subject.prompt.inputs):
        raise NotApplicable("the prompt has no sound: give one that has.")
    heard = subject.lalm.audio_alignment(subject.prompt)
    count = int(heard.placeholders.sum())
    if heard.moved is None or heard.moved.shape != heard.placeholders.shape:
        return Measurement(f"{count} placeholders", float("nan"), 0.0, heard.problem or "")
    hit, stray = int((heard.moved & heard.placeholders).sum()), int((heard.moved & ~heard.placeholders).sum())
    filled = f", {heard.padded} are fillers" if heard.padded and not heard.problem else ""
    return Measurement(
        f"{hit} of {count} placeholders moved{filled}, {stray} other inputs", stray, 0.0, heard.problem or ""
    )
