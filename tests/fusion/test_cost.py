"""What criteria cost at 30 layers, by counted multiplications: those that decide the window, and all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import mata_interp as mi
from mata_interp.fusion.criteria import CRITERIA
from mata_interp.fusion.criteria.layer_parts import starts_at_last
from mata_interp.fusion.item_context import Decision, ItemContext
from mata_interp.fusion.recommend import DECIDING
from tests.tiny import tiny_qwen2_audio

AUDIO, TEXT = 750, 48  # tokens of 30 s, and of a question with its options


def model_and_prompt(reading: Sequence[int]) -> tuple[mi.LALM, mi.Prompt]:
    """A random model of 30 layers x 256 whose attention does something in some layers only, and a prompt.

    Attention is eager, since multiplications inside the fused kernel are not counted.
    """
    model, _ = tiny_qwen2_audio(
        layers=30, heads=8, kv_heads=8, head_dim=32, chunk_length=30, attention="eager"
    )
    for layer, block in enumerate(model.model.language_model.layers):
        if layer not in reading:
            block.self_attn.o_proj.weight.data.zero_()
    lalm = mi.LALM(model)
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 256, (1, 3 + TEXT), generator=draw)
    audio = torch.full((1, AUDIO), model.config.audio_token_id)
    inputs = {
        "input_ids": torch.cat([tokens[:, :3], audio, tokens[:, 3:]], 1),
        "input_features": torch.randn(1, 32, 3000, generator=draw),
        "feature_attention_mask": torch.ones(1, 3000, dtype=torch.long),
    }
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    prompt = lalm.prompt_from_inputs(inputs)
    lalm.prepare(prompt)  # what is done once for a model is not counted
    return lalm, prompt


def work(run) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops()


@pytest.fixture(scope="module")
def forwards() -> Callable[..., float]:
    """What criteria cost for one item, in plain forwards: a question of 48 tokens about 30 s of audio.

    Both prefills are included. Two layers have an effect. The item's id decides from which end layers are
    changed.
    """
    lalm, prompt = model_and_prompt((11, 12))
    features = prompt.inputs["input_features"]
    other = replace(prompt, inputs={**prompt.inputs, "input_features": features.flip(-1)})
    plain = work(lambda: lalm.model(**prompt.inputs, use_cache=False))

    def cost(names: Collection[str], id: str = "0") -> float:
        items = (replace(prompt.items[0], id=id),)

        def measure() -> None:
            context = ItemContext(
                lalm,
                replace(prompt, items=items),
                Decision(right=5, wrong=7),
                replace(other, items=items),
                last_token_only=not any(CRITERIA[name].runs_suffix for name in names),
                keep_states=any(CRITERIA[name].reads_states for name in names),
            )
            for name in names:
                CRITERIA[name].measure(context)

        return work(measure) / plain

    return cost


@pytest.mark.acceptance
def test_the_window_costs_at_most_three_forwards_of_an_item(forwards):
    """The prefill of one clip is 0.98 of it."""
    cost = forwards(DECIDING)
    print(f"{cost:.2f} plain forwards")
    assert cost < 3


@pytest.mark.acceptance
@pytest.mark.parametrize("from_last", [True, False])
def test_the_window_and_restoration_from_another_clip_cost_few_forwards(forwards, from_last):
    """The prefills of two clips are 1.97 of it."""
    id = next(id for id in map(str, range(20)) if starts_at_last(id) == from_last)
    cost = forwards([*DECIDING, "restoration_audio"], id)
    print(f"{cost:.2f} plain forwards")
    assert cost < 3.5


@pytest.mark.acceptance
def test_all_criteria_cost_few_forwards_of_an_item(forwards):
    cost = forwards(CRITERIA)
    print(f"{cost:.2f} plain forwards")
    assert cost < 6


@pytest.mark.acceptance
def test_restoration_at_the_text_costs_less_than_a_forward_more_than_at_the_audio(forwards):
    """Runs that copy the cache and run all text in all layers took 3.6 more."""
    names = ("restoration_audio", "restoration_text", "restoration_last")
    cost = forwards(names) - forwards(names[:1])
    print(f"{cost:.2f} plain forwards")
    assert cost < 1.5
