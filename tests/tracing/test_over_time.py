"""Attention over time is that of eager attention, edited or not, alone and left-padded."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mata_interp.tracing.over_time as over_time
from mata_interp import Item, Knockout, Mata
from mata_interp.lalm import LALM
from mata_interp.tracing.over_time import attention_over_time
from tests import reference
from tests.tiny import RATE, tiny_qwen2_audio

MATA = Mata(2.0, [1, 2])
ON_TEXT = Mata(3.0, [1, 2], keys="text")
CONDITIONS = [(), (MATA,), (ON_TEXT,)]


def sound(seconds: float, seed: int):
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)).astype(np.float32), RATE


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return [
        Item(sound(1.0, 0), "Which?", choices=("a", "b")),
        Item(sound(0.4, 1), "How many are there?", choices=("1", "2"), caption="Two."),
        Item([sound(0.3, 2), sound(0.6, 3)], "Which is first?", choices=("x", "y")),
    ]


def ends_of(items) -> list[np.ndarray]:
    return [np.cumsum([0.0, *(len(clip.samples) / RATE for clip in item.load_clips(RATE))]) for item in items]


def plain_rows(eager, prompt, row: int, edits) -> list[torch.Tensor]:
    """The last attention row of each layer of one prompt without padding, edited as the reference edits."""
    inputs = reference.single(prompt.inputs, row) if prompt.size > 1 else prompt.inputs
    real = prompt.inputs["attention_mask"][row].bool()
    text = ("question", "options", "caption", "template")
    keys = {
        "audio": prompt.groups["audio"][row, real],
        "text": torch.stack([prompt.groups[name][row, real] for name in text]).any(0),
    }
    changes = [
        reference.Edit(e.alpha, e.layers, e.rule, keys[e.keys], include_self=e.keys == "audio") for e in edits
    ]
    with torch.no_grad(), reference.edited(changes, inputs["input_ids"].shape[1]):
        attentions = eager(**inputs, output_attentions=True, use_cache=False).attentions
    return [weights[0, :, -1] for weights in attentions]


@pytest.mark.parametrize("which", [[0], [2], [1, 0]], ids=["one", "two clips", "padded"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("cached", [True, False])
def test_it_is_that_of_eager_attention(items, which, dtype, cached, monkeypatch):
    if not cached:  # a model that cannot step back by a token
        monkeypatch.setattr(over_time, "read", lambda *_: None)
    model, processor = tiny_qwen2_audio(seed=0)
    lalm = LALM(model.to(dtype), processor)
    eager = tiny_qwen2_audio(seed=0, attention="eager")[0].to(dtype)
    some = [items[n] for n in which]
    prompt = lalm.prepare(lalm.prompt(some))
    measured = attention_over_time(lalm, prompt, ends_of(some), CONDITIONS, bins=7)
    tolerance = 1e-5 if dtype == torch.float32 else 0.06
    for row, item in enumerate(some):
        mass, edges = measured.of(row)
        audio = prompt.groups["audio"][row][prompt.inputs["attention_mask"][row].bool()]
        clips = 1 if len(item.clips) < 2 else 2
        assert edges[0] == 0
        assert edges[-1] == pytest.approx(ends_of([item])[0][-1])
        assert (np.diff(edges) > 0).all()
        assert len(edges) - 1 == (7 if clips == 1 else round(7 / 3) + round(14 / 3))
        for condition, edits in enumerate(CONDITIONS):
            for layer, weights in enumerate(plain_rows(eager, prompt, row, edits)):
                tokens = weights[:, audio].float().numpy()
                # which bin each token is in, by the middle of its time
                counts = [int(m.sum()) for m in _clip_masks(prompt, row, clips)]
                starts = ends_of([item])[0]
                middles = np.concatenate(
                    [
                        starts[c] + (np.arange(n) + 0.5) / n * (starts[c + 1] - starts[c])
                        for c, n in enumerate(counts)
                    ]
                )
                bins = np.searchsorted(edges, middles) - 1
                expected = np.stack([tokens[:, bins == b].sum(1) for b in range(len(edges) - 1)], 1)
                np.testing.assert_allclose(mass[condition, layer], expected, atol=tolerance)


def _clip_masks(prompt, row, clips):
    if clips == 1:
        return [prompt.groups["audio"][row]]
    return [prompt.groups[f"audio_{n}"][row] for n in (1, 2)]


def test_edits_move_attention_and_strength_0_moves_none(tiny_lalm, items):
    prompt = tiny_lalm.prompt(items[:2])
    conditions = [(), (Mata(0.0, [1, 2]),), (MATA,), (Knockout([2]),)]
    mass = attention_over_time(tiny_lalm, prompt, ends_of(items[:2]), conditions, bins=5).mass
    plain, none, mata, knockout = np.moveaxis(mass, 1, 0)
    np.testing.assert_array_equal(plain, none)
    np.testing.assert_array_equal(plain[:, 0], mata[:, 0])  # below the edited layers
    assert (mata[:, 1].sum(-1) > plain[:, 1].sum(-1)).mean() > 0.7
    assert np.abs(mata[:, 1].sum(-1) - plain[:, 1].sum(-1)).max() > 0.1
    assert np.nanmax(knockout[:, 2]) == 0
    assert np.abs(mata[:, 3] - plain[:, 3]).max() > 1e-4  # and above them, through the states


def test_a_shorter_clip_has_fewer_bins(tiny_lalm, items):
    prompt = tiny_lalm.prompt(items[:2])
    measured = attention_over_time(tiny_lalm, prompt, ends_of(items[:2]), [()], bins=60)
    counts = [len(measured.of(row)[1]) - 1 for row in (0, 1)]
    assert counts == prompt.groups["audio"].sum(1).tolist()  # one token each
    assert np.isnan(measured.mass[1, ..., counts[1] :]).all()
    assert not np.isnan(measured.of(1)[0]).any()
