"""Tests of every family: masses, edits in prefill and decode, padding, reload, sweep."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch

import mata_interp as mi
from mata_interp import Mata
from mata_interp.checking.eager import EagerReference
from mata_interp.checking.results import NotApplicable
from mata_interp.errors import ModelError
from mata_interp.interventions import Editing
from mata_interp.lalm import LALM, Prompt
from mata_interp.lalm.calls.edited_calls import edited_calls
from mata_interp.sweeps import SweepWarning

from . import reference
from .reference import Edit

STEPS = 4
BOUND = 1e-5


def close(measured, expected, bound: float = BOUND) -> None:
    torch.testing.assert_close(torch.as_tensor(measured), torch.as_tensor(expected), atol=bound, rtol=0)


@pytest.mark.parametrize("query", ["last", "text"])
def test_masses_equal_eager_attention(built, query, verified):
    """At every layer and head, by transformers' own ``output_attentions``, one prompt at a time."""
    mass = mi.trace(built.lalm, built.prompt, query=query, per_query=True, progress=False)["mass"]
    for row in range(2):
        alone = reference.single(built.prompt.inputs, row)
        with torch.no_grad():
            attentions = built.eager(**alone, output_attentions=True, use_cache=False).attentions
        real = built.prompt.inputs["attention_mask"][row].bool()
        groups = torch.stack([built.prompt.groups[str(g)][row, real] for g in mass["group"].values], 1)
        queries = np.flatnonzero(mass["position"].values[row] >= 0) if query == "text" else [0]
        places = [int(mass["position"].values[row, q]) for q in queries]
        for layer, weights in zip(mass["layer"].values, attentions, strict=True):
            expected = weights[0][:, places] @ groups.float()  # (H, Q, G)
            close(
                mass.sel(layer=layer)[row, :, :, queries].transpose("head", "query", "group").values, expected
            )
    audio = mass.sel(group="audio").values
    assert np.nanstd(audio) > 0.01, "uniform attention would show nothing"
    verified(built, "masses")


EDITS = {
    "abs": Mata(0.8, [1, 2], "abs"),
    "add": Mata(1.5, [0, 1], "add"),
    "knockout": Mata(1.0, [1], "knockout"),
}


def as_reference(mata: Mata, audio: torch.Tensor) -> Edit:
    return Edit(mata.alpha, mata.layers, mata.rule, audio, phase=mata.phase)


def row_of(built, row: int) -> tuple[dict, torch.Tensor]:
    """One prompt without padding, and its audio tokens."""
    real = built.prompt.inputs["attention_mask"][row].bool()
    return reference.single(built.prompt.inputs, row), built.prompt.groups["audio"][row, real]


@pytest.mark.parametrize("rule", ["add", "knockout", pytest.param("abs", marks=pytest.mark.acceptance)])
def test_an_edit_equals_the_same_edit_of_eager_scores(built, rule, verified):
    mata = built.placed(EDITS[rule])
    plain, edited = built.lalm.logits(built.prompt), built.lalm.logits(built.prompt, mata)
    for row in range(2):
        alone, audio = row_of(built, row)
        close(plain[row], reference.forward(built.eager, built.modules, alone)[-1], built.family.rounding)
        expected = reference.forward(built.eager, built.modules, alone, [as_reference(mata, audio)])[-1]
        close(edited[row], expected, built.family.rounding)
    assert (edited - plain).abs().amax(1).min() > 0.01 * plain.std(), "the edit must change the logits"
    # the second row is padded in the batch: alone it is the same
    close(built.lalm.logits(built.alone, mata)[0], edited[1], built.family.rounding)
    verified(built, "edits")
    verified(built, "left padding")


def test_strength_zero_changes_nothing(built):
    for mata in (Mata(0.0, [0, 1, 2], "abs"), Mata(0.0, [0, 1, 2], "add")):
        mata = built.placed(mata)
        for prompt in (built.prompt, built.alone):
            assert torch.equal(built.lalm.logits(prompt, mata), built.lalm.logits(prompt))
        tokens = built.lalm.generate(built.prompt, mata, max_new_tokens=3)
        assert torch.equal(tokens, built.lalm.generate(built.prompt, max_new_tokens=3))


@pytest.mark.parametrize("phase", ["both", pytest.param("decode", marks=pytest.mark.acceptance)])
def test_every_step_of_a_generation_equals_eager_attention(built, phase, verified):
    """With a KV cache, on a left-padded batch; the logits of each step, and the tokens."""
    lalm, mata = built.lalm, built.placed(Mata(1.5, [0, 1, 2], "add", phase=phase))
    editing = Editing([mata], built.prompt.groups, lalm.structure.heads)
    inputs = lalm.prepare(built.prompt).inputs
    with torch.inference_mode(), edited_calls(lalm.structure, editing) as run:
        out = run(
            lambda: lalm.model.generate(
                **inputs, max_new_tokens=STEPS, do_sample=False, output_logits=True,
                return_dict_in_generate=True,
            )
        )  # fmt: skip
    tokens = out.sequences[:, built.prompt.width :]
    steps = torch.stack(out.logits, 1)  # (B, STEPS, V)
    moved = 0.0
    for row in range(2):
        alone, audio = row_of(built, row)
        answer = tokens[row, :-1].tolist()
        edits = [as_reference(mata, audio)]
        expected, plain = (
            reference.forward(built.eager, built.modules, alone, some, answer) for some in (edits, ())
        )
        close(steps[row], expected, built.family.rounding)
        moved = max(moved, float((expected - plain).abs().max()))
    assert moved > 0.01 * float(steps.std()), "the edit must change the logits"
    assert torch.equal(lalm.generate(built.prompt, mata, max_new_tokens=STEPS), tokens)
    verified(built, "decode")


def test_saved_and_loaded_again(built, tmp_path, verified):
    built.lalm.model.save_pretrained(tmp_path)
    if built.family.missing:
        packages = ", ".join(built.family.missing)
        with pytest.raises(ModelError, match=packages):
            LALM.from_pretrained(tmp_path)
        verified(built, "reload", f"not verified here: needs {packages}; built without vision")
        pytest.skip(f"{built.family.name} needs {packages}")
    again = LALM.from_pretrained(tmp_path)
    assert type(again.model) is type(built.lalm.model)
    prompt = again.prompt_from_inputs(built.prompt.inputs)
    assert torch.equal(again.logits(prompt), built.lalm.logits(built.prompt))
    verified(built, "reload")


def looped(lalm: LALM, prompt: Prompt, configurations) -> np.ndarray:
    return np.stack([lalm.logits(prompt, mata).numpy() for mata in configurations.values()], 1)


SWEPT = {
    "none": None,
    "abs": Mata(0.8, [1, 2]),
    "add": Mata(1.5, [0, 1], "add"),
    "last": Mata(2.0, [2], "add"),
    "knockout": Mata(1.0, [1], "knockout"),
    "heads": Mata(1.0, [0, 1], "add", heads=[0, 3]),
    "both": (Mata(0.5, [1]), Mata(1.0, [2], "add", keys="text")),
}


def test_a_sweep_equals_the_loop(built, verified):
    """As rows over one prefill, or as a larger batch where layers keep a state; the record says which."""
    swept = built.all_placed(SWEPT)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SweepWarning)  # which says that a plain loop ran
        result = mi.sweep(built.lalm, built.prompt, swept, progress=False)
    close(result.values, looped(built.lalm, built.prompt, swept))
    assert result.attrs["looped"] == 0
    path = "batch" if built.family.states else "rows"
    assert set(result["path"].values) == {path}
    verified(built, "sweep", path)


def moved_by_rounding(half, full, prompt, full_prompt) -> float:
    """How far eager attention alone says that masses of the last token can be apart in two precisions."""
    try:
        rows = [
            EagerReference(lalm).weights(lalm.prepare(some).inputs, lambda weights: weights[:, :, -1])[0]
            for lalm, some in ((half, prompt), (full, full_prompt))
        ]
    except NotApplicable:  # eager attention returns no weights
        return 0.0
    return max(float((rows[0][i] - rows[1][i]).abs().sum(-1).max()) / 2 for i in rows[0])


def test_bfloat16(built, verified):
    """Rows computed in float32 from bfloat16 queries and keys, beside the float32 truth.

    Measured on these sharpened models: masses off by 0.0005 to 0.13, effects of 0.35 to 1.9 off by 0.014 to
    0.27; rounding without an edit moves the logits by 0.013 to 0.25.
    """
    half = LALM(copy.deepcopy(built.lalm.model).to(torch.bfloat16))
    prompt = half.prompt_from_inputs(built.prompt.inputs)
    mata = built.placed(Mata(1.5, [0, 1], "add"))
    assert torch.equal(half.logits(prompt, built.placed(Mata(0.0, [0, 1]))), half.logits(prompt))
    masses = [mi.trace(lalm, prompt, progress=False)["mass"].values for lalm in (half, built.lalm)]
    off = np.nanmax(np.abs(masses[0] - masses[1]))
    assert np.nanmax(np.abs(np.nansum(masses[0], -1) - 1)) < 1e-5
    plain, edited = (half.logits(prompt, x).float() for x in (None, mata))
    truth, moved = (built.lalm.logits(built.prompt, x) for x in (None, mata))
    rounding = float((plain - truth).abs().max())
    wrong = float(((edited - plain) - (moved - truth)).abs().max())
    effect = float((moved - truth).abs().max())
    assert off < max(0.2, 0.1 + moved_by_rounding(half, built.lalm, prompt, built.prompt))
    assert wrong < max(3 * rounding, 0.1 * effect)
    verified(built, "bf16")
