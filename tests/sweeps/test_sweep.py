"""The sweep against the loop: every rule, layers, heads, phases, keys, in order, padded, fp32 and bf16."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

import mata_interp as mi
from mata_interp import Item, Mata
from mata_interp.errors import ExclusionWarning
from mata_interp.sweeps import SweepWarning, sweep
from tests.tiny import RATE, tiny_qwen2_audio

CHOICES = ("a bell", "no", "three times, then a crow", "x")


def item(seconds: float, question: str, choices=CHOICES, seed: int = 0) -> Item:
    sound = np.random.default_rng(seed).normal(0, 0.1, int(seconds * RATE)).astype(np.float32)
    return Item(audio=(sound, RATE), question=question, choices=choices, answer=choices[0])


ITEMS = [
    item(0.9, "Which sound is heard first?"),
    item(0.4, "Why?", ("yes", "no"), seed=1),
    item(0.7, "Is there a crow?", ("yes", "certainly not", "no"), seed=2),
]
CONFIGURATIONS = {
    "baseline": None,
    "zero": Mata(0.0, [1, 2]),
    "abs": Mata(0.5, [1, 2]),
    "abs, one layer": Mata(0.5, [1]),
    "abs, last layer": Mata(1.0, [3]),
    "mul": Mata(0.7, [0, 2], rule="mul"),
    "add": Mata(-1.5, [0, 1, 2, 3], rule="add"),
    "heads": Mata(0.8, [1, 2], heads=[0, 3]),
    "heads by layer": Mata(2.0, [1, 2], "add", heads={1: [2], 2: [0, 1]}),
    "prefill": Mata(1.0, [1, 2], phase="prefill"),
    "decode": Mata(1.0, [1, 2], phase="decode"),
    "text": Mata(1.0, [1, 2], keys="text"),
    "generated": Mata(1.0, [1, 2], "add", keys="generated"),
    "sink": Mata(-3.0, [1], "add", keys="sink"),
    "all text": Mata(0.7, [1, 2], queries="text"),
    "all text, prefill": Mata(1.0, [0, 2], "add", phase="prefill", queries="text"),
    "all text, decode": Mata(1.0, [1, 2], phase="decode", queries="text"),
    "all text on text": Mata(0.5, [1], keys="text", queries="text"),
    "text knockout": Mata(1.0, [1, 3], "knockout", heads=[0, 2], queries="text"),
    "as VAF does": (
        Mata(0.15, [1, 2], "mul", queries="text"),
        Mata(-0.05, [1, 2], "mul", keys="template", queries="text"),
    ),
    "all text, then the last": (Mata(0.5, [0, 1], queries="text"), Mata(1.0, [1], "mul", keys="text")),
    "knockout": Mata(1.0, [1, 2], "knockout"),
    "knockout of a head": Mata(1.0, [2], "knockout", heads=[1]),
    "knockout, then more": (
        Mata(1.0, [1], "knockout"),
        Mata(1.0, [1, 2]),
        Mata(1.0, [1], "mul", keys="text"),
    ),
    "in order": (Mata(0.5, [1, 2]), Mata(1.0, [2, 3], "mul", keys="text"), Mata(0.2, [2], "add")),
    "audio then text": (Mata(0.5, [0]), Mata(0.5, [0], keys="text")),
    "text then audio": (Mata(0.5, [0], keys="text"), Mata(0.5, [0])),
}


@pytest.fixture(scope="module")
def lalm() -> mi.LALM:
    return mi.LALM(*tiny_qwen2_audio(seed=3))


def looped(lalm: mi.LALM, items, configurations) -> np.ndarray:
    prompt = lalm.prompt(items)
    scores = lalm.score_each(prompt, [i.choices for i in items], list(configurations.values()))
    return np.stack([s.logprob for s in scores], 1)


@pytest.mark.parametrize("items", [ITEMS[:1], ITEMS], ids=["B=1", "left-padded B=3"])
def test_a_sweep_is_the_loop(lalm, items):
    swept = sweep(lalm, items, CONFIGURATIONS, progress=False)
    loop = looped(lalm, items, CONFIGURATIONS)
    assert swept.attrs["looped"] == 0
    assert swept.attrs["canary"] < 20  # steps of float32
    assert (np.isnan(swept.values) == np.isnan(loop)).all()
    np.testing.assert_allclose(swept.values, loop, atol=1e-5, rtol=3e-7)
    moved = np.abs(swept - swept.sel(configuration="baseline")).max(["item", "choice"])
    unmoved = {"baseline", "zero"}
    for name in CONFIGURATIONS:
        assert (float(moved.sel(configuration=name)) > 1e-3) == (name not in unmoved), name


def test_nothing_done_is_nothing_to_the_bit(lalm):
    swept = sweep(lalm, ITEMS, {"a": None, "b": Mata(0.0, [1, 2]), "c": Mata(1.0, [])}, progress=False)
    np.testing.assert_array_equal(swept.sel(configuration="a"), swept.sel(configuration="b"))
    np.testing.assert_array_equal(swept.sel(configuration="a"), swept.sel(configuration="c"))


def test_blocks_and_order_change_nothing(lalm):
    names = list(CONFIGURATIONS)
    whole = sweep(lalm, ITEMS, CONFIGURATIONS, progress=False)
    backwards = sweep(
        lalm, ITEMS, {n: CONFIGURATIONS[n] for n in reversed(names)}, block=3, batch_size=2, progress=False
    )
    assert list(backwards["configuration"].values) == names[::-1]
    np.testing.assert_allclose(backwards.sel(configuration=names), whole, atol=1e-5, rtol=3e-7)


def test_prompts_give_the_vocabulary(lalm):
    prompt = lalm.prompt(ITEMS)
    swept = sweep(lalm, prompt, CONFIGURATIONS, progress=False)
    assert swept.dims == ("item", "configuration", "vocab")
    for name, intervention in CONFIGURATIONS.items():
        plain = lalm.logits(prompt, intervention)
        np.testing.assert_allclose(swept.sel(configuration=name), plain, atol=2e-5, rtol=0, err_msg=name)


def test_half_precision_is_as_near_to_the_truth_as_its_loop(lalm):
    """Rounding moves both: log p by 0.32 and 0.47 at most, where effects reach 9.6 (measured)."""
    model, processor = tiny_qwen2_audio(seed=3)
    half = mi.LALM(model.to(torch.bfloat16), processor)
    truth = looped(lalm, ITEMS, CONFIGURATIONS)
    swept = sweep(half, ITEMS, CONFIGURATIONS, progress=False)
    assert swept.attrs["looped"] == 0
    off, loop_off = (
        np.nanmax(np.abs(x - truth)) for x in (swept.values, looped(half, ITEMS, CONFIGURATIONS))
    )
    assert off < 1.5 * loop_off
    assert off < 0.1 * np.nanmax(np.abs(truth - truth[:, :1]))


def test_the_model_is_left_as_it_was(lalm):
    prompt = lalm.prompt(ITEMS)
    names = [m.config._attn_implementation for m in lalm.structure.attention.values()]
    forward = vars(lalm.structure.decoder).get("forward")
    before = lalm.logits(prompt)
    sweep(lalm, ITEMS, CONFIGURATIONS, progress=False)
    assert torch.equal(before, lalm.logits(prompt))
    assert [m.config._attn_implementation for m in lalm.structure.attention.values()] == names
    assert vars(lalm.structure.decoder).get("forward") is forward


def test_a_canary_that_is_off_sends_the_sweep_round_the_loop(lalm):
    """A layer that mixes rows is what the canary is for: here one that adds the mean over all rows."""
    layer = lalm.structure.decoder.layers[2]
    handle = layer.register_forward_hook(lambda m, args, out: out + 0.5 * out.mean(-2, keepdim=True))
    try:
        with pytest.warns(
            SweepWarning, match="plain loop: an unedited row is .* off .* after layer 2, in item"
        ):
            swept = sweep(lalm, ITEMS, CONFIGURATIONS, progress=False)
        assert swept.attrs["looped"] == 3
        assert "first after layer 2" in swept.attrs["culprits"]
        np.testing.assert_array_equal(swept.values, looped(lalm, ITEMS, CONFIGURATIONS))
    finally:
        handle.remove()


def test_what_is_not_there_is_refused(lalm):
    with pytest.raises(mi.errors.InterventionError, match="No head 9"):
        sweep(lalm, ITEMS, [Mata(1.0, [1], heads=[9])])
    everything = [Mata(1.0, [1], "knockout", keys=k) for k in (*lalm.prompt(ITEMS).groups,)]
    some = [part for part in everything if part.keys not in ("caption",)]
    with pytest.raises(mi.errors.InterventionError, match="layer 1 leaves a query"):
        sweep(lalm, ITEMS, [some], progress=False)
    with pytest.raises(mi.errors.InterventionError, match="layer 1 leaves a query"):
        lalm.logits(lalm.prompt(ITEMS), some)
    with pytest.raises(ValueError, match="at least one"):
        sweep(lalm, ITEMS, [])
    with pytest.raises(ValueError, match="one after the other"):
        sweep(lalm, [ITEMS[0], lalm.prompt(ITEMS)], [None])
    silent = mi.Item(audio=None, question="?", choices=("a", "b"))
    with pytest.raises(mi.errors.MataError):
        sweep(lalm, [silent], [Mata(1.0, [1])], progress=False)


def test_labels(lalm):
    swept = sweep(lalm, ITEMS, CONFIGURATIONS, progress=False)
    assert swept.dims == ("item", "configuration", "choice")
    assert list(swept["item"].values) == [i.id for i in ITEMS]
    one = swept.sel(configuration="heads by layer")
    assert (one["layers"], one["rule"], one["alpha"]) == ("1-2", "add", 2.0)
    assert swept.sel(configuration="in order")["rule"] == "abs then mul then add"
    assert swept["answer"].values.tolist() == [0, 0, 0]
    assert sweep(lalm, ITEMS[0], [None, CONFIGURATIONS["abs"]], progress=False).shape == (1, 2, 4)


def test_what_cannot_be_used_is_left_out_counted_and_named(lalm):
    gone = Item(audio="nowhere.wav", question="?", choices=("a", "b"), id="gone")
    open_ended = Item(audio=ITEMS[0].audio, question="What?", id="open")
    some = [ITEMS[0], gone, ITEMS[1], open_ended]
    with pytest.warns(ExclusionWarning, match="2 items used, 2 left out.*'open'.*'choices'"):
        swept = sweep(lalm, some, CONFIGURATIONS, progress=False)
    xr.testing.assert_allclose(
        swept.drop_attrs(), sweep(lalm, ITEMS[:2], CONFIGURATIONS, progress=False).drop_attrs(), atol=1e-5
    )
    assert [line.split(":")[:2] for line in swept.attrs["excluded"].split("\n")] == [
        ["open", " choices"],
        ["gone", " audio"],
    ]


def test_a_strict_sweep_stops_at_the_first_item_that_cannot_be_used(lalm):
    gone = Item(audio="nowhere.wav", question="?", choices=("a", "b"), id="gone")
    open_ended = Item(audio=ITEMS[0].audio, question="What?", id="open")
    for bad in (gone, open_ended):
        with pytest.raises(mi.errors.ItemError, match=bad.id):
            sweep(lalm, [ITEMS[0], bad], [None], strict=True, progress=False)
    with pytest.raises(mi.errors.ItemError, match="gone"):
        mi.sweep_generate(lalm, [gone], [None], strict=True, progress=False)
    assert issubclass(SweepWarning, mi.errors.MataWarning)


def test_text_queries_move_nothing_before_them(lalm):
    """What lets them share: positions before the first text token after the audio are as without the edit."""
    prompt = lalm.prompt(ITEMS)
    begin = int((prompt.groups["audio"].cumsum(1) == 0).int().argmin(1).min())
    states = []
    for intervention in (None, Mata(2.0, [0, 1, 2, 3], "add", queries="text")):
        outputs = []
        hook = lalm.structure.decoder.layers[-1].register_forward_hook(
            lambda m, a, out, outputs=outputs: outputs.append(out)
        )
        lalm.logits(prompt, intervention)
        hook.remove()
        states.append(outputs[0])
    moved = (states[0] - states[1]).abs().amax((0, 2))
    assert moved[: begin + 1].max() == 0
    assert moved[-1] > 0.1


def test_padding_may_lie_among_the_rows(lalm):
    """A long question and a short prompt: the text of the one is longer than all of the other."""
    some = [item(0.2, "Which? " * 40), item(0.2, "Why?", ("no", "x"), seed=1)]
    prompt = lalm.prompt(some)
    text = (prompt.groups["audio"].cumsum(1) > 0)[0].sum()
    assert int(prompt.inputs["attention_mask"][1].sum()) < text
    swept = sweep(lalm, some, CONFIGURATIONS, progress=False)
    assert swept.attrs["looped"] == 0
    np.testing.assert_allclose(swept.values, looped(lalm, some, CONFIGURATIONS), atol=1e-5, rtol=3e-7)
