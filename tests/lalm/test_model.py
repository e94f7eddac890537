"""LALM itself: what it says of a model, what it refuses, and that it computes what the model computes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from mata_interp.errors import ItemError, ModelError
from mata_interp.interventions import Mata
from mata_interp.lalm import LALM
from tests import reference
from tests.tiny import tiny_qwen2_audio


def test_what_it_says_of_the_model(tiny_lalm):
    assert tiny_lalm.num_layers == 4
    assert tiny_lalm.attention_layers == (0, 1, 2, 3)
    assert tiny_lalm.sampling_rate == 16_000
    assert tiny_lalm.max_audio_seconds == 1.0
    assert tiny_lalm.device.type == "cpu"
    assert tiny_lalm.dtype == torch.float32
    assert repr(tiny_lalm).endswith("on cpu, float32, sdpa: Qwen2AudioForConditionalGeneration, 4 layers)")


def test_longer_hops():
    """As the shipped model has them: fewer tokens a second."""
    lalm = LALM(*tiny_qwen2_audio(layers=2, chunk_length=3, hop_length=320))
    assert lalm.max_audio_seconds == 3.0
    sound = np.random.default_rng(0).normal(0, 0.1, 48_000).astype(np.float32), 16_000
    prompt = lalm.prompt(_item(sound))
    assert int(prompt.groups["audio"].sum()) == 37
    assert (lalm.logits(prompt, Mata(2.0, [0, 1], "add")) - lalm.logits(prompt)).abs().max() > 0.05
    assert lalm.score(prompt, [["a dog", "x"]]).logprob.shape == (1, 2)


def _item(sound):
    from mata_interp.benchmarks import Item

    return Item(audio=sound, question="What?", choices=("a dog", "x"))


def test_it_is_put_in_eval_mode():
    model, processor = tiny_qwen2_audio(layers=1)
    assert not LALM(model.train(), processor).model.training


def test_ready_made_inputs(tiny_lalm, prompt):
    ready = tiny_lalm.prompt_from_inputs(prompt.inputs)
    mata = Mata(0.7, [1, 2])
    assert torch.equal(tiny_lalm.logits(ready, mata), tiny_lalm.logits(prompt, mata))
    assert torch.equal(
        tiny_lalm.generate(ready, mata, max_new_tokens=3), tiny_lalm.generate(prompt, mata, max_new_tokens=3)
    )


def test_ready_made_inputs_without_a_mask(tiny_lalm, items):
    whole = tiny_lalm.prompt(items[0])
    bare = tiny_lalm.prompt_from_inputs({k: v for k, v in whole.inputs.items() if k != "attention_mask"})
    mata = Mata(0.7, [1, 2])
    np.testing.assert_array_equal(
        tiny_lalm.score(bare, [["a bell"]], mata).logprob, tiny_lalm.score(whole, [["a bell"]], mata).logprob
    )


def test_a_copy_is_its_own_model(tiny_lalm, prompt):
    """nnsight stands in the way of a forward; a copy of the model must not run on the original's weights."""
    model = copy.deepcopy(tiny_lalm.model)
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    assert torch.equal(LALM(model).logits(prompt), 2 * tiny_lalm.logits(prompt))


def test_scores_without_intervention_are_those_of_whole_forwards(tiny_lalm, eager, prompt, items):
    scores = tiny_lalm.score(prompt, [item.choices for item in items])
    assert scores.logprob.dtype == np.float64
    for row, item in enumerate(items):
        for c, text in enumerate(item.choices):
            tokens = tiny_lalm.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
            expected = reference.logprob(eager, reference.single(prompt.inputs, row), (), tokens)
            assert scores.logprob[row, c] == pytest.approx(expected, abs=2e-5)


def test_options_do_not_see_each_other(tiny_lalm, prompt):
    """Whatever stands beside an option, and in whatever order, its score is the same."""
    few = tiny_lalm.score(prompt, [["a bell"], ["rain"], ["y"]]).logprob[:, 0]
    many = [["x", "a bell", "something quite long"], ["rain", "r"], ["one", "y", "two", "y"]]
    scores = tiny_lalm.score(prompt, many).logprob
    np.testing.assert_allclose([scores[0, 1], scores[1, 0], scores[2, 1]], few, atol=1e-5)
    assert scores[2, 3] == pytest.approx(scores[2, 1], abs=1e-5)
    assert np.isnan(scores[1, 2:]).all()


def test_options_of_one_token_need_no_second_run(tiny_lalm, prompt):
    passes = []
    handle = tiny_lalm.structure.decoder.register_forward_hook(lambda *_: passes.append(1))
    try:
        tiny_lalm.score(prompt, [["x", "y"]] * 3)
        short = len(passes)
        tiny_lalm.score(prompt, [["x", "yes"]] * 3)
    finally:
        handle.remove()
    assert len(passes) == 2 * short + 1


def test_the_audio_encoder_runs_once_for_all_options(tiny_lalm, prompt, items):
    passes = []
    handle = tiny_lalm.model.model.audio_tower.register_forward_hook(lambda *_: passes.append(1))
    try:
        tiny_lalm.score(prompt, [item.choices for item in items], Mata(0.5, [1]))
    finally:
        handle.remove()
    assert passes == [1]


def test_options_that_cannot_be_scored(tiny_lalm, prompt, items):
    with pytest.raises(ItemError, match="needs options") as caught:
        tiny_lalm.score(prompt, [["a"], [], ["b"]])
    assert caught.value.item == items[1].id
    assert caught.value.field == "choices"
    with pytest.raises(ItemError, match="each some text"):
        tiny_lalm.score(prompt, [["a"], ["b", ""], ["c"]])
    with pytest.raises(ValueError, match="2 lists of options for 3 prompts"):
        tiny_lalm.score(prompt, [["a"], ["b"]])
    placed = tiny_lalm.prompt_from_inputs(
        prompt.inputs | {"position_ids": torch.zeros_like(prompt.inputs["input_ids"])}
    )
    with pytest.raises(ModelError, match="position_ids"):
        tiny_lalm.score(placed, [["a"]] * 3)


def test_without_a_processor(tiny_lalm, prompt, items):
    deaf = LALM(tiny_lalm.model)
    assert torch.equal(deaf.logits(prompt), tiny_lalm.logits(prompt))
    for use in (
        lambda: deaf.prompt(items),
        lambda: deaf.score(prompt, [["a"]] * 3),
        lambda: deaf.sampling_rate,
    ):
        with pytest.raises(ModelError, match="has no processor: none was passed"):
            use()


def test_fingerprint_tells_models_apart(tiny_lalm, half):
    same, other = LALM(*tiny_qwen2_audio(seed=0)), LALM(*tiny_qwen2_audio(seed=1))
    print_ = tiny_lalm.fingerprint()
    assert same.fingerprint() == print_
    assert other.fingerprint()["config_sha256"] == print_["config_sha256"]
    assert other.fingerprint()["weights_sha256"] != print_["weights_sha256"]
    assert half.fingerprint()["dtype"] == "bfloat16"
    assert half.fingerprint()["weights_sha256"] != print_["weights_sha256"]
    assert LALM(*tiny_qwen2_audio(layers=3)).fingerprint()["config_sha256"] != print_["config_sha256"]
    assert {"name", "revision", "class", "attention", "versions"} <= set(print_)


def test_fingerprint_does_not_depend_on_the_folder(tiny_lalm, tmp_path):
    prints = []
    for name in ("one", "two"):
        tiny_lalm.model.save_pretrained(tmp_path / name)
        tiny_lalm.processor.save_pretrained(tmp_path / name)
        result = LALM.from_pretrained(tmp_path / name).fingerprint()
        assert result.pop("name") == str(tmp_path / name)
        prints.append(result)
    assert prints[0] == prints[1]


def test_items_are_taken_wherever_prompts_are(tiny_lalm, items):
    mata = Mata(0.7, [1, 2])
    prompt = tiny_lalm.prompt(items[0])
    assert torch.equal(tiny_lalm.logits(items[0], mata), tiny_lalm.logits(prompt, mata))
    assert torch.equal(
        tiny_lalm.generate(items[0], mata, max_new_tokens=3),
        tiny_lalm.generate(prompt, mata, max_new_tokens=3),
    )
    answers = tiny_lalm.answer(items, mata, max_new_tokens=3)
    assert answers.tokens.shape[0] == len(items)
    scores = tiny_lalm.score(items, None, mata)
    lists = tiny_lalm.score(tiny_lalm.prompt(items), [item.choices for item in items], mata)
    np.testing.assert_array_equal(scores.logprob, lists.logprob)
    plain_list = tiny_lalm.score(items[0], list(items[0].choices), mata)
    np.testing.assert_array_equal(plain_list.logprob, tiny_lalm.score(items[0], None, mata).logprob)


def test_one_default_of_new_tokens():
    import inspect

    from mata_interp.defaults import MAX_NEW_TOKENS
    from mata_interp.lalm import Decoding

    default = inspect.signature(LALM.generate).parameters["max_new_tokens"].default
    assert default == MAX_NEW_TOKENS == Decoding().max_new_tokens == 64


def test_every_repr_is_short(tiny_lalm, prompt):
    answers, scores = tiny_lalm.answer(prompt, max_new_tokens=20), tiny_lalm.score(prompt)
    many = Mata(0.1, [1], chosen_on=[f"clip {n}" for n in range(100)])
    for shown in (prompt, answers, scores, tiny_lalm, many):
        assert len(repr(shown)) < 160
        assert "\n" not in repr(shown)
    assert "3 x" in repr(prompt)
    assert "100" in repr(many)
