"""Answers in the model's own words against a plain loop without a cache, row by row."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch

from mata_interp.benchmarks import Item
from mata_interp.errors import ArgumentError
from mata_interp.interventions import Mata
from mata_interp.lalm import Decoding, random_draws
from mata_interp.lalm.decoding import _Chooser, _text
from mata_interp.lalm.random_draws import GumbelNoise
from tests.tiny import RATE, tiny_processor

SAMPLED = Decoding(12, temperature=1.5, top_k=40, top_p=0.95, seed=7)


def items_of(count: int) -> list[Item]:
    rng = np.random.default_rng(0)
    return [
        Item(
            audio=(rng.normal(0, 0.1, int(RATE * (0.3 + 0.1 * n))).astype(np.float32), RATE),
            question="What is heard" + ", and then" * n + "?",
            choices=("a dog", "a bell"),
            id=f"item {n}",
        )
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def prompt(tiny_lalm):
    return tiny_lalm.prompt(items_of(3))


MASK = 2**64 - 1


def splitmix(x: int) -> int:
    """The finaliser of SplitMix64, in whole numbers of any size."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def gumbel(seed: int, item: str, position: int, token: int) -> float:
    """The noise of one token, written out."""
    step = 0x9E3779B97F4A7C15
    key = int.from_bytes(hashlib.sha256(f"{seed} {item}".encode()).digest()[:8], "little")
    bits = splitmix((splitmix((key + (position + 1) * step) & MASK) + (token + 1) * step) & MASK)
    return -math.log(-math.log1p(-((bits >> 11) + 0.5) / 2**53))


def drawn_one_by_one(lalm, item: Item, how: Decoding) -> list[int]:
    """The plain reference: the whole text read anew for every token, the draw written out."""
    inputs = lalm.prompt(item).inputs
    output: list[int] = []
    while len(output) < how.max_new_tokens:
        ids = torch.cat([inputs["input_ids"], torch.tensor([output], dtype=torch.long)], 1)
        whole = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
        with torch.inference_mode():
            logits = lalm.model(**whole).logits[0, -1].double()
        if how.temperature > 0:
            p = (logits / how.temperature).softmax(-1)
            order = p.argsort(descending=True)[: how.top_k or None]
            ordered = p[order] / p[order].sum()
            few = int((ordered.cumsum(0) - ordered < how.top_p).sum())
            noise = {token: gumbel(how.seed, item.id, len(output), token) for token in order[:few].tolist()}
            token = max(noise, key=lambda token: float(p[token].log()) + noise[token])
        else:
            token = int(logits.argmax())
        output.append(token)
        if token == lalm.model.generation_config.eos_token_id:
            break
    return output


@pytest.mark.parametrize("how", [Decoding(12), SAMPLED], ids=["greedy", "sampled"])
def test_a_batch_with_a_cache_says_what_each_row_says_alone_without(tiny_lalm, prompt, how):
    answers = tiny_lalm.answer(prompt, decoding=how)
    for row, item in enumerate(prompt.items):
        plain = drawn_one_by_one(tiny_lalm, item, how)
        assert answers.tokens[row, : answers.lengths[row]].tolist() == plain
        assert answers.stopped[row] == (plain[-1] == tiny_lalm.model.generation_config.eos_token_id)


def test_what_is_drawn_depends_on_seed_and_item_alone(tiny_lalm, prompt):
    items = list(prompt.items)
    texts = dict(
        zip([item.id for item in items], tiny_lalm.answer(prompt, decoding=SAMPLED).texts, strict=True)
    )
    turned = tiny_lalm.answer(tiny_lalm.prompt(items[::-1]), decoding=SAMPLED).texts
    assert list(turned) == [texts[item.id] for item in items[::-1]]
    for item in items:
        assert tiny_lalm.answer(tiny_lalm.prompt(item), decoding=SAMPLED).texts == (texts[item.id],)
        wide = tiny_lalm.prompt(item, width=prompt.width)  # padded as in the batch
        assert wide.width == prompt.width
        assert tiny_lalm.answer(wide, decoding=SAMPLED).texts == (texts[item.id],)
    other = Decoding(12, temperature=1.5, top_k=40, top_p=0.95, seed=8)
    assert tiny_lalm.answer(prompt, decoding=other).texts != tiny_lalm.answer(prompt, decoding=SAMPLED).texts
    torch.manual_seed(1)  # the world's own generators have no part in it
    assert tiny_lalm.answer(prompt, decoding=SAMPLED).texts == tuple(texts[item.id] for item in items)
    tokens = tiny_lalm.generate(
        prompt, None, max_new_tokens=12, temperature=1.5, top_k=40, top_p=0.95, seed=7
    )
    assert torch.equal(tokens, tiny_lalm.answer(prompt, decoding=SAMPLED).tokens)


def test_draws_have_the_probabilities_of_the_softmax():
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0, -torch.inf]])
    ids, n = torch.zeros(1, 1, dtype=torch.long), 4000
    drawn = torch.zeros(5)
    for seed in range(n):
        chooser = _Chooser(["x"], Decoding(temperature=2.0, seed=seed), torch.tensor([99]), None)
        drawn[chooser(ids, logits).argmax()] += 1
    expected = n * (logits[0] / 2).softmax(-1)
    chi2 = ((drawn - expected)[:4] ** 2 / expected[:4]).sum()
    assert drawn[4] == 0
    assert chi2 < 16.3  # 3 degrees of freedom, p = 0.001


def test_noise_is_that_of_whole_numbers_written_out():
    noise = GumbelNoise(3, ["a", "b"], torch.device("cpu")).draw(5, 300)
    reference = [[gumbel(3, item, 5, token) for token in range(300)] for item in "ab"]
    torch.testing.assert_close(noise, torch.tensor(reference), atol=2e-6, rtol=2e-6)


def test_noise_is_gumbel_and_every_name_has_its_own():
    """Kolmogorov-Smirnov against the Gumbel distribution; tokens, positions, items and seeds uncorrelated."""
    n = 200_000
    noise = GumbelNoise(0, ["x", "y"], torch.device("cpu"))
    draws = [noise.draw(0, n)[0], noise.draw(0, n)[1], noise.draw(1, n)[0]]
    draws.append(GumbelNoise(1, ["x"], torch.device("cpu")).draw(0, n)[0])
    for draw in draws:
        ordered = (-(-draw.double()).exp()).exp().sort().values  # uniform if it is Gumbel
        steps = torch.arange(n) / n
        assert float((ordered - steps).abs().max()) < 1.95 / n**0.5  # p = 0.001
        lag = torch.corrcoef(torch.stack([draw[:-1], draw[1:]]))[0, 1]
        assert abs(float(lag)) < 3.3 / n**0.5
    off = torch.corrcoef(torch.stack(draws)) - torch.eye(len(draws))
    assert float(off.abs().max()) < 3.9 / n**0.5  # 6 pairs, p = 0.001


@pytest.mark.parametrize("bits", [0, 1, 2**53 - 1, 2**53 - 2, 2**52])
def test_noise_is_finite_at_the_ends(bits, monkeypatch):
    monkeypatch.setattr(
        random_draws, "_hash", lambda x: torch.full_like(x, bits << 11 if bits < 2**52 else -1)
    )
    assert torch.isfinite(GumbelNoise(0, ["x"], torch.device("cpu")).draw(0, 3)).all()


@pytest.mark.parametrize("phase", ["prefill", "decode", "both"])
def test_edits_reach_words_and_padding_stays_out_of_the_dose(tiny_lalm, prompt, phase):
    mata, how = Mata(3.0, [1, 2], "add", phase=phase), Decoding(12)
    together = tiny_lalm.answer(prompt, mata, decoding=how)
    assert tiny_lalm.answer(prompt, decoding=how).texts != together.texts
    for row, item in enumerate(prompt.items):
        alone = tiny_lalm.answer(tiny_lalm.prompt(item), mata, decoding=how)
        assert alone.texts[0] == together.texts[row]
        assert alone.lengths[0] == together.lengths[row]
        for name, values in together.dose.items():
            assert alone.dose[name][0] == pytest.approx(values[row], abs=2e-5)


def test_a_row_that_ends_early_is_counted_to_its_end(tiny_lalm, prompt, monkeypatch):
    plain = tiny_lalm.answer(prompt, decoding=Decoding(12))
    end = int(plain.tokens[0, 3])  # now this token ends an answer
    monkeypatch.setattr(tiny_lalm.model.generation_config, "eos_token_id", [end, 10**6])
    ended = tiny_lalm.answer(prompt, Mata(0.5, [1], "add", phase="decode"), decoding=Decoding(12))
    first = tiny_lalm.answer(prompt, decoding=Decoding(12))
    assert first.lengths[0] == plain.tokens[0].tolist().index(end) + 1 <= 4
    assert first.stopped[0]
    assert tiny_lalm.processor.tokenizer.decode([end]) not in first.texts[0][-1:]
    alone = tiny_lalm.answer(prompt.items[0], Mata(0.5, [1], "add", phase="decode"), decoding=Decoding(12))
    assert alone.dose["kl"][0] == pytest.approx(ended.dose["kl"][0], abs=1e-5, nan_ok=True)


def test_think_marks_stay_in_the_text_even_where_a_tokenizer_calls_them_special():
    tokenizer = tiny_processor().tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    output = torch.tensor(tokenizer("<think>hm</think>a dog<|im_end|>")["input_ids"])
    ends = torch.tensor([tokenizer.eos_token_id])
    prompt_ids = torch.tensor(tokenizer("assistant\n")["input_ids"])
    assert _text(tokenizer, prompt_ids, output, ends) == "<think>hm</think>a dog"
    opened = torch.tensor(tokenizer("assistant\n<think>\n")["input_ids"])
    assert _text(tokenizer, opened, output[1:], ends) == "<think>hm</think>a dog"


@pytest.mark.parametrize(
    ("wrong", "output"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"temperature": -1}, "temperature is -1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": 1, "top_p": 0}, "top_p is 0"),
        ({"top_k": 5}, "temperature above 0"),
        ({"seed": True}, "seed is True"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, output):
    with pytest.raises(ArgumentError, match=output):
        Decoding(**wrong)
