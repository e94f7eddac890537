"""The catalogue as data: JSON, formulas, hashes, a method of one's own, files of masks, spans, negatives."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, dataclass

import numpy as np
import pandas as pd
import pytest
import torch

import mata_interp as mi
from mata_interp.errors import InterventionError
from mata_interp.interventions import METHODS, all_methods, from_dict, in_order, source_hash, to_dict
from mata_interp.interventions import catalogue as c
from mata_interp.interventions.catalogue import registry
from mata_interp.interventions.catalogue.negatives import negative_prompt
from mata_interp.lalm import LALM
from tests.interventions.cases import CASES
from tests.tiny import RATE, tiny_qwen2_audio


@pytest.fixture(scope="module")
def items():
    noise = np.random.default_rng(1)
    return [
        mi.Item(
            audio=(noise.normal(0, 0.1, n).astype(np.float32), RATE), question=f"{n}?", choices=("a", "b")
        )
        for n in (16_000, 8_000)
    ]


@pytest.fixture
def _same_methods():
    before = dict(registry._methods)
    yield
    registry._methods.clear()
    registry._methods.update(before)


@pytest.mark.parametrize("name", CASES)
def test_json_and_back(name):
    for method in (CASES[name].method, CASES[name].nothing):
        back = from_dict(json.loads(json.dumps(to_dict(method))))
        assert back == method
        assert hash(back) == hash(method)
        assert type(back) is METHODS[type(method).__name__]
    assert to_dict(CASES[name].method) != to_dict(CASES[name].nothing)


def test_every_registered_method_is_tested():
    tested = {
        type(part).__name__ for case in CASES.values() for part in (case.method, *in_order(case.method))
    }
    assert set(METHODS) == tested


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"AttentionEdit"}))
def test_formula_and_source(name):
    cls = METHODS[name]
    assert cls.formula
    assert any(word in cls.source for word in ("code read", "digest", "abstract", "this package"))


def test_a_method_prints_its_formula():
    text = str(c.Hgai([3, 4, 5], 0.7))
    assert text.startswith("Hgai: A + a mean over heads of |A| (layers 3-5")
    assert "strength 0.7" in text


def test_methods_are_frozen():
    with pytest.raises(FrozenInstanceError):
        c.Hgai([1]).strength = 2.0


def test_published_defaults():
    assert c.Pai([2]).strength == 0.2
    assert (c.Vaf([9]).up, c.Vaf([9]).down, c.Vaf([9]).queries) == (1.15, 0.95, "text")
    assert (c.Owl([2]).up, c.Owl([2]).down, c.Owl([2]).contrast) == (0.2, 0.2, 2.0)
    assert (c.Seka([1], c.Array(torch.zeros(1, 1, 2, 2)), c.Array(torch.zeros(1, 1, 2, 2))).up) == 0.8
    assert (c.Acd().strength, c.Acd().cutoff, c.Acd().negative) == (1.0, 0.1, "noised")
    assert (c.Amti().weight, c.Amti().bits, c.Amti().negative) == (2.0, 1.0, "ignored")
    gated = c.GatedScaling([1])
    assert (gated.sure, gated.unsure, gated.threshold) == (1.5, 0.5, 0.4)
    assert (c.Avcd([1]).strength, c.Avcd([1]).entropy) == (0.5, 0.6)


@pytest.mark.usefixtures("_same_methods")
def test_a_method_of_ones_own(tiny_lalm, items):
    @mi.register
    @dataclass(frozen=True)
    class Halve:
        layers: tuple
        site, queries, phase = "weights", "last", "both"

        def edit(self, x, context):
            return x.where(~context.columns("audio"), x / 2)

    data = json.loads(json.dumps(to_dict(Halve((1, 2)))))
    assert data["source_sha256"] == source_hash(Halve)
    assert from_dict(data) == Halve((1, 2))
    assert (tiny_lalm.logits(items, Halve((1, 2))) - tiny_lalm.logits(items)).abs().max() > 1e-3
    with pytest.raises(InterventionError, match="another source"):
        from_dict(data | {"source_sha256": "0"})


def test_what_cannot_be_registered_or_read():
    class Loose:
        pass

    @dataclass(frozen=True)
    class Hgai:
        layers: tuple

    with pytest.raises(InterventionError, match="Loose is not a frozen dataclass"):
        mi.register(Loose)
    with pytest.raises(InterventionError, match="named Hgai"):
        mi.register(Hgai)
    with pytest.raises(InterventionError, match="Hgai is not registered"):
        to_dict(Hgai((1,)))
    with pytest.raises(InterventionError, match="No method 'Hgay'"):
        from_dict({"method": "Hgay"})
    with pytest.raises(InterventionError, match="No field of Hgai 'strenght'"):
        from_dict({"method": "Hgai", "layers": [1], "strenght": 1.0})


@pytest.mark.usefixtures("_same_methods")
def test_methods_of_installed_packages(monkeypatch):
    @dataclass(frozen=True)
    class Elsewhere:
        layers: tuple

    class Entry:
        def load(self):
            mi.register(Elsewhere)

    groups = []
    monkeypatch.setattr(registry, "entry_points", lambda group: groups.append(group) or [Entry()])
    assert from_dict({"method": "Elsewhere", "layers": [1]}) == Elsewhere((1,))
    assert groups == ["mata_interp.interventions"]
    assert all_methods()["Elsewhere"] is Elsewhere


def test_values_are_checked():
    assert hash(c.HeadMask([1, 2], [[0], [1]])) == hash(c.HeadMask((1, 2), ((0,), (1,))))
    assert c.Hgai([2, 1, 2]) == c.Hgai((1, 2))
    with pytest.raises(InterventionError, match="must ascend"):
        c.HeadMask([2, 1], [[0], [1]])
    with pytest.raises(InterventionError, match="strength of Hgai is nan"):
        c.Hgai([1], float("nan"))
    with pytest.raises(InterventionError, match="layers is"):
        c.Hgai("all")
    with pytest.raises(InterventionError, match="No kind 'invert'"):
        c.ShamAttention([1], "invert")
    with pytest.raises(InterventionError, match="No group 'sound'"):
        mi.LALM.from_pretrained("organism").logits(
            mi.load_benchmark("listening")[0], c.InstABoost([3], keys="sound")
        )


def test_files_of_ahamask(tmp_path):
    values = torch.full((4, 3), 5.0)
    values[1, 2] = values[3, 0] = values[3, 1] = -5.0
    path = tmp_path / "checkpoint.pth"
    torch.save({"model": {"tensor": values}}, path)
    mask = c.HeadMask.from_ahamask(path)
    assert (mask.layers, mask.heads) == ((1, 3), ((2,), (0, 1)))
    torch.save({"other": 1}, path)
    with pytest.raises(InterventionError, match="no AHAMask file"):
        c.HeadMask.from_ahamask(path)


def test_spans_in_seconds(tiny_lalm, items):
    """Tokens share the clip's length equally, in every row of a left-padded batch."""
    prompt = tiny_lalm.prompt(items)
    assert prompt.audio_seconds == (1.0, 0.5)
    edit = mi.Knockout([1, 2], keys=mi.seconds(0.25, 0.5))
    logits = tiny_lalm.logits(prompt, edit)
    for row, seconds in enumerate(prompt.audio_seconds):
        audio = prompt.groups["audio"][row].nonzero().flatten()
        inside = [n for n in range(len(audio)) if n * seconds / len(audio) < 0.5]
        inside = [n for n in inside if (n + 1) * seconds / len(audio) > 0.25]
        assert 0 < len(inside) < len(audio)
        named = torch.zeros_like(prompt.groups["audio"])
        named[row, audio[inside]] = True
        named[1 - row] = prompt.groups["audio"][1 - row]

        class Hide:
            site, layers, queries, phase = "scores", (1, 2), "last", "both"

            def edit(self, x, context, named=named):
                columns = torch.nn.functional.pad(named, (0, x.shape[-1] - named.shape[1]))
                return x.masked_fill(columns[:, None, None], -torch.inf)

        torch.testing.assert_close(logits[row], tiny_lalm.logits(prompt, Hide())[row], atol=2e-5, rtol=0)
    with pytest.raises(InterventionError, match=r"Row 1 of the prompt has no audio at 0.7-0.9 s"):
        tiny_lalm.logits(prompt, mi.Mata(0.5, [1], keys=mi.seconds(0.7, 0.9)))
    boost = c.InstABoost((1, 2), keys=mi.seconds(0, 0.25))
    assert (tiny_lalm.logits(prompt, boost) - tiny_lalm.logits(prompt)).abs().max() > 1e-3
    for times in ((2, 1), (-1, 2), (0, float("inf"))):
        with pytest.raises(InterventionError, match="begin < end"):
            mi.seconds(*times)


def test_negatives(tiny_lalm, items, tmp_path):
    import soundfile

    clip = str(tmp_path / "clip.wav")
    soundfile.write(clip, np.random.default_rng(5).normal(0, 0.1, 12_000), RATE)
    samples = {}
    for negative in set(c.NEGATIVES) - {"omitted"}:
        prompt = negative_prompt(
            tiny_lalm, tiny_lalm.prompt(items), negative, clip if negative == "another" else None
        )
        samples[negative] = [item.load_audio(RATE).samples for item in prompt.items]
    clips = [item.audio[0] for item in items]
    for row, x in enumerate(clips):
        assert not samples["silent"][row].any()
        assert len(samples["silent"][row]) == len(x)
        np.testing.assert_array_equal(samples["reversed"][row], x[::-1])
        np.testing.assert_array_equal(samples["ignored"][row], x)
        assert len(samples["another"][row]) == 12_000
        noise = samples["noised"][row] - np.sqrt(0.5) * x
        assert np.std(noise) == pytest.approx(np.sqrt(0.5) * np.std(x), rel=0.05)
        assert abs(np.corrcoef(noise, x)[0, 1]) < 0.05
    alone = negative_prompt(tiny_lalm, tiny_lalm.prompt(items[1]), "noised").items[0]
    np.testing.assert_array_equal(alone.load_audio(RATE).samples, samples["noised"][1])
    assert not negative_prompt(tiny_lalm, tiny_lalm.prompt(items), "omitted").groups["audio"].any()
    with pytest.raises(InterventionError, match="clip"):
        c.Aad(negative="another")
    with pytest.raises(InterventionError, match="No negative 'silence'"):
        c.Aad(negative="silence")
    other = tiny_lalm.logits(items, c.Aad(2.5, "another", clip))
    assert (other - tiny_lalm.logits(items, c.Aad(2.5, "silent"))).abs().max() > 1e-3


def test_sink_dimensions_are_found(tiny_lalm, items):
    prompt = tiny_lalm.prompt(items)
    dimensions = c.find_sink_dimensions(tiny_lalm, prompt, 2)
    states = tiny_lalm.hidden_states(prompt, [2])[:, 0]
    first = states[prompt.groups["sink"]].abs()
    sizes = (first / first.square().mean(-1, keepdim=True).sqrt()).mean(0)
    assert set(dimensions) == set(sizes.argsort(descending=True)[:2].tolist())


def test_sinks_and_thresholds_matter(tiny_lalm, items):
    """The reference compares only where there are sinks, and heads on both sides of the gates."""
    method = CASES["sinks"].method
    sinks = method.measure(tiny_lalm, tiny_lalm.prompt(items))["sinks"]
    audio = tiny_lalm.prompt(items).groups["audio"][:, None]
    assert (sinks & audio).any()
    assert (~sinks & audio).any()


@pytest.fixture(scope="module")
def half():
    model, processor = tiny_qwen2_audio(seed=0)
    return LALM(model.to(torch.bfloat16), processor)


@pytest.mark.parametrize(
    "name",
    [
        "hgai",
        "vaf",
        "spotlight",
        "instaboost",
        "ad-hh",
        "head mask",
        "seka",
        "steering, measured",
        "dola",
        "owl, adaptive",
        "tad",
    ],
)
def test_bfloat16(half, tiny_lalm, items, name):
    """The edit moves the logits as in float32, up to rounding, and not at all without strength."""
    case = CASES[name]
    for some in (items[:1], items):
        prompt, exact = half.prompt(some), tiny_lalm.prompt(some)
        assert torch.equal(half.logits(prompt, case.nothing), half.logits(prompt))
        half_change = (half.logits(prompt, case.method) - half.logits(prompt)).float()
        exact_change = tiny_lalm.logits(exact, case.method) - tiny_lalm.logits(exact)
        both = half_change.isfinite() & exact_change.isfinite()
        similar = torch.cosine_similarity(half_change[both], exact_change[both], dim=0)
        assert similar > 0.9, float(similar)


def test_keywords_are_the_words_that_carry_content(tiny_lalm, items):
    texts = ["Which animal is heard?", "Is it a dog-like bark, or rain?"]
    worded = [mi.Item(item.audio, text, item.choices) for item, text in zip(items, texts, strict=True)]
    prompt = tiny_lalm.prompt(worded)
    for method, expected in (
        (c.KeywordScaling([1], last=False), ["animalheard", "doglikebarkrain"]),
        (c.KeywordScaling([1], last=False, words=("heard", "rain")), ["heard", "rain"]),
    ):
        chosen = method.measure(tiny_lalm, prompt)["queries"]
        for row, text in enumerate(expected):
            ids = prompt.inputs["input_ids"][row, chosen[row]].tolist()
            assert tiny_lalm.processor.tokenizer.decode(ids) == text
    assert c.KeywordScaling([1]).measure(tiny_lalm, prompt)["queries"][:, -1].all()
    with pytest.raises(InterventionError, match="Row 0 of the prompt has no keyword"):
        c.KeywordScaling([1], words=("thunder",)).measure(tiny_lalm, prompt)


def test_sinks_of_the_model_at_hand(tiny_lalm, items):
    prompt = tiny_lalm.prompt(items)
    method = c.SinkRedistribution.for_model(tiny_lalm, prompt, (1, 2), count=3, keep=0.3)
    assert method.dimensions == c.find_sink_dimensions(tiny_lalm, prompt, 2, 3)
    sinks = method.measure(tiny_lalm, prompt)["sinks"]
    assert all(sinks[row, :, prompt.groups["sink"][row]].all() for row in range(2))


def test_specialist_heads_are_those_that_go_with_being_right():
    import xarray as xr

    rng = np.random.default_rng(0)
    correct = rng.integers(0, 2, 200).astype(bool)
    mass = rng.uniform(0, 1, (200, 3, 4, 1))
    mass[:, 1, 2, 0] += 0.5 * correct
    mass[:, 2, 0, 0] -= 0.5 * correct
    mass[:, 0, 3, 0] = np.nan  # a head that the layer does not have
    trace = xr.Dataset(
        {"mass": (("item", "layer", "head", "group"), mass)}, {"layer": [4, 6, 9], "group": ["audio"]}
    )
    heads = c.find_specialist_heads(trace, correct, 3)
    assert heads[0][:2] == (6, 2)
    assert heads[0][2] == pytest.approx(np.corrcoef(mass[:, 1, 2, 0], correct)[0, 1])
    assert all(place[2] > 0 for place in heads)
    assert (9, 0) not in {place[:2] for place in heads}
    with pytest.raises(InterventionError, match="both correct and wrong"):
        c.find_specialist_heads(trace, np.ones(200))


def test_specialist_heads_carry_the_clips_that_they_were_chosen_on():
    method = c.AudioSpecialists((1,), (0,), chosen_on=np.array(["b", "a", "b"]))  # type: ignore[arg-type]
    assert method.chosen_on == ("a", "b")
    assert from_dict(json.loads(json.dumps(to_dict(method)))) == method
    assert "chosen_on" not in str(method)
    manifest = {"conditions": {"specialists": mi.Condition(method).to_dict()}}
    run = mi.Run(path=None, manifest=manifest, records=pd.DataFrame())
    assert run.chosen_on == {"specialists": frozenset({"a", "b"})}


def test_the_tokens_of_yes_and_no(tiny_lalm):
    method = c.Tad.for_model(tiny_lalm, yes=("Yes", "yes"), no=("No",))
    decode = tiny_lalm.processor.tokenizer.decode
    assert {decode([token]) for token in method.yes} == {"Y", "y"}
    assert {decode([token]) for token in method.no} == {"N"}
    assert (method.strength, method.threshold, method.penalty) == (0.5, 0.2, 2.5)
    with pytest.raises(InterventionError, match="yes names no token"):
        c.Tad((), (1,))
