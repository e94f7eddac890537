"""Layers that keep a recurrent state: found as such, never shared between rows, never cropped."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from mata_interp.errors import ModelError
from mata_interp.fusion.criteria import attribution
from mata_interp.fusion.criteria.lens import lens_margins
from mata_interp.fusion.item_context import Decision, ItemContext
from mata_interp.interventions import AttentionEdit
from mata_interp.lalm import LALM, Decoding
from mata_interp.lalm.rereading import keeps_states
from mata_interp.lalm.rows.caches import branch_cache, crop_last_token, has_state_layers
from mata_interp.lalm.scoring import option_logprobs, score_options
from mata_interp.lalm.site_hooks import BoundInterventions
from mata_interp.sweeps.generation import answer_conditions

from .hybrids import nemotron_of
from .registry import FAMILIES

KINDS = {
    "nemotron_h_omni": ("linear", "full", "none", "full", "linear", "none", "full"),
    "granite_speech on granitemoehybrid": ("linear", "full", "linear", "full", "full"),
    "audioflamingo3 on qwen3_next": ("linear", "full", "linear", "full", "full"),
    "voxtral on lfm2": ("linear", "full", "linear", "full", "full"),
}


@pytest.mark.parametrize("name", KINDS)
@torch.inference_mode()
def test_branches_share_no_state(name):
    """Whatever runs on one branch, the next one starts at the end of the prompt."""
    lalm = LALM(FAMILIES[name].model(None))
    assert lalm.structure.kinds == KINDS[name]
    prompt = lalm.prompt_from_inputs(FAMILIES[name].inputs(1))
    cache = lalm.model(**prompt.inputs, use_cache=True).past_key_values
    assert has_state_layers(cache)
    mask = torch.ones(1, prompt.width + 1, dtype=torch.long)

    def logits_after(token: int) -> torch.Tensor:
        ids = torch.tensor([[token]])
        return lalm.model(input_ids=ids, attention_mask=mask, past_key_values=branch_cache(cache)).logits

    first = logits_after(65)
    assert (logits_after(90) - first).abs().max() > 0.01
    assert torch.equal(logits_after(65), first)
    # the cache of Lfm2's convolutions claims to be croppable
    assert crop_last_token(cache) is None
    assert keeps_states(lalm.model)


@pytest.mark.parametrize("name", KINDS)
@torch.inference_mode()
def test_interventions_share_a_prefill(name):
    """All tokens but the last are read once, by themselves; what follows is what a whole pass gives."""
    lalm = LALM(FAMILIES[name].model(None))
    prompt = lalm.prepare(lalm.prompt_from_inputs(FAMILIES[name].inputs(2)))
    layers = lalm.attention_layers[:2]
    edits = [(), (AttentionEdit(0.0, layers, "add"),), (AttentionEdit(5.0, layers, "add"),),
             (AttentionEdit(0.0, layers, "add", queries="text"),),
             (AttentionEdit(5.0, layers, "add", queries="text"),)]  # fmt: skip
    options = [[[40, 41, 42], [43]], [[44], [45, 46]]]
    passes: list[int] = []
    lalm.structure.blocks[0].register_forward_hook(lambda *_: passes.append(1))
    bound = [BoundInterventions(lalm, prompt, parts) if parts else None for parts in edits]
    whole = [
        lalm._run(partial(option_logprobs, lalm.model, prompt, options, None, some), some) for some in bound
    ]
    of_whole = len(passes)
    bound = [BoundInterventions(lalm, prompt, parts) if parts else None for parts in edits]
    scores = score_options(lalm.model, prompt, options, bound, lalm._run, None, lalm.dtype)
    # one pass over the prompt, one more for each edit of its text, and three tokens for each
    assert len(passes) - of_whole == 1 + 2 + 3 * len(edits)
    for one, other in zip(scores, whole, strict=True):
        np.testing.assert_allclose(one.logprob, other, atol=2e-4)
    for zero in (1, 3):
        np.testing.assert_array_equal(scores[zero].logprob, scores[0].logprob)
    for edited in (2, 4):
        assert np.nanmax(np.abs(scores[edited].logprob - scores[0].logprob)) > 1e-3
        assert (scores[edited].dose["mass_after"] > scores[edited].dose["mass_before"]).all()

    decoding = Decoding(5)
    answers, shared = answer_conditions(lalm, prompt, decoding, edits)
    assert shared
    for parts, one in zip(edits, answers, strict=True):
        assert torch.equal(one.tokens, lalm.answer(prompt, parts, decoding=decoding).tokens)


def test_a_wrapper_that_names_no_output_head():
    """Nemotron's: criteria that read the head, and transformer-lens, find it in its language model."""
    layers = ("full_attention", "mlp", "full_attention", "moe", "full_attention", "mlp")
    lalm = LALM(nemotron_of(layers, None))
    assert lalm.model.get_output_embeddings() is None
    prompt = lalm.prompt_from_inputs(FAMILIES["nemotron_h_omni"].inputs(1))
    context = ItemContext(lalm, prompt, Decision(40, 41), last_token_only=True)
    logits = lalm.logits(prompt)[0]
    margin = float(logits[40] - logits[41])
    parts = attribution.decomposition(context)
    total = sum(parts["audio"]) + sum(parts["attention"]) + sum(parts["rest"]) + parts["embed"]
    assert total == pytest.approx(margin, abs=1e-4)
    assert abs(sum(parts["audio"])) > 0.1
    margins = lens_margins(context, context.last_token_trace.states, torch.ones(1, dtype=torch.bool))
    assert margins[-1] == pytest.approx(margin, abs=1e-4)
    lens = lalm.to_transformer_lens(prompt)
    assert lens.difference < 1e-5
    with pytest.raises(ModelError, match=r"blocks\.0\.attn\.hook_z"):
        lens.attribution([40], [41])
