"""Text and generated queries: their masses are those of eager attention, row by row."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from mata_interp.benchmarks import Item
from mata_interp.lalm import GROUPS, LALM
from mata_interp.lalm.calls.attention_calls import attention_calls
from mata_interp.tracing import audio_share, mdi, trace
from tests import reference
from tests.tiny import RATE, tiny_qwen2_audio

TEXT = ("question", "options", "caption", "template")


@pytest.fixture(scope="module")
def items() -> list[Item]:
    noise = np.random.default_rng(3)

    def sound(seconds: float):
        return noise.normal(0, 0.1, round(seconds * RATE)).astype(np.float32), RATE

    return [
        Item(audio=sound(1.0), question="Which?", choices=("a", "b")),
        Item(audio=sound(0.5), question="How many are there?", choices=("1", "2"), caption="Two."),
        Item(audio=sound(0.2), question="When?", choices=("x", "yes")),
    ]


def windowed(attention: str | None = None):
    """The tiny model, every other layer with a sliding window of 24 tokens."""
    model, processor = tiny_qwen2_audio()
    config: Any = copy.deepcopy(model.config)
    config.text_config.sliding_window = 24
    config.text_config.layer_types = ["full_attention", "sliding_attention"] * 2
    config._attn_implementation = attention or "sdpa"
    other = type(model)(config).eval()
    other.load_state_dict(model.state_dict())
    other.generation_config = model.generation_config
    return other, processor


@pytest.fixture(scope="module", params=["full", "windowed"])
def both(request):
    """An LALM, and its model with eager attention."""
    make = tiny_qwen2_audio if request.param == "full" else windowed
    return LALM(*make()), make(attention="eager")[0]


@torch.no_grad()
def rows_of(eager, inputs, row: int, answer=()) -> torch.Tensor:
    """Eager attention of one row of a batch, alone and without padding: [layers, H, T, T]."""
    alone = reference.single(inputs, row)
    more = torch.tensor([list(answer)], dtype=torch.long)
    tokens = torch.cat([alone["input_ids"], more], 1)
    whole = alone | {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    return torch.cat(eager(**whole, output_attentions=True, use_cache=False).attentions)


def masses(weights: torch.Tensor, queries: torch.Tensor, keys: dict[str, torch.Tensor]) -> torch.Tensor:
    """[layers, H, G, Q] from weights [layers, H, T, T]."""
    chosen = weights[:, :, queries]
    return torch.stack([(chosen * keys[name]).sum(-1) for name in GROUPS], 2)


@pytest.mark.parametrize("size", [1, 3])
def test_text_queries_are_those_of_eager_attention(both, items, size):
    lalm, eager = both
    prompt = lalm.prompt(items[:size])
    traced = trace(lalm, prompt, query="text", per_query=True, progress=False)
    mean = trace(lalm, prompt, query="text", progress=False)
    assert traced["mass"].dims == ("item", "layer", "head", "group", "query")
    for row in range(size):
        real = prompt.inputs["attention_mask"][row].bool()
        keys = {name: mask[row, real] for name, mask in prompt.groups.items()}
        text = torch.stack([keys[name] for name in TEXT]).any(0)
        queries = (text & (keys["audio"].cumsum(0) > 0)).nonzero()[:, 0]
        assert 0 < len(queries) < text.sum()  # the template's beginning cannot see the audio
        expected = masses(rows_of(eager, prompt.inputs, row), queries, keys).numpy()
        measured = traced["mass"][row].values
        np.testing.assert_allclose(measured[..., : len(queries)], expected, atol=1e-5)
        assert np.isnan(measured[..., len(queries) :]).all()
        np.testing.assert_allclose(mean["mass"][row], expected.mean(-1), atol=1e-5)

        assert traced["n_queries"][row] == mean["n_queries"][row] == len(queries)
        counts = np.stack([keys[name].cumsum(0)[queries] for name in GROUPS])
        np.testing.assert_array_equal(traced["n_tokens"][row, :, : len(queries)], counts)
        np.testing.assert_allclose(mean["n_tokens"][row], counts.mean(-1))
        there = traced.isel(item=row, query=slice(len(queries)))
        assert there["position"].values.tolist() == queries.tolist()
        assert there["token"].values.tolist() == prompt.inputs["input_ids"][row, real][queries].tolist()
        owner = [next(name for name in GROUPS if keys[name][q]) for q in queries.tolist()]
        assert there["query_group"].values.tolist() == owner
        beyond = traced.isel(item=row, query=slice(len(queries), None))
        assert (beyond["position"] == -1).all()
        assert (beyond["query_group"] == "").all()


def test_a_window_shows(tiny_lalm, items):
    """The windows of the model above are short enough to matter, in its second layer and not in its first."""
    narrow = trace(LALM(*windowed()), items, query="text", progress=False)["mass"]
    apart = abs(narrow - trace(tiny_lalm, items, query="text", progress=False)["mass"])
    assert apart.sel(layer=0).max() < 1e-6
    assert apart.sel(layer=1).max() > 0.05


def test_the_last_text_query_is_the_last_one(tiny_lalm, items):
    prompt = tiny_lalm.prompt(items)
    text = trace(tiny_lalm, prompt, query="text", per_query=True, progress=False)
    last = trace(tiny_lalm, prompt, progress=False)
    final = text["mass"].isel(query=xr.DataArray(text["n_queries"].values - 1, dims="item"))
    np.testing.assert_allclose(final.transpose(*last["mass"].dims), last["mass"], atol=1e-5)


@pytest.mark.parametrize("size", [1, 3])
def test_generated_queries_are_those_of_eager_attention(both, items, size):
    lalm, eager = both
    prompt = lalm.prompt(items[:size])
    output = lalm.generate(prompt, max_new_tokens=5)
    per_query = trace(lalm, prompt, query="generated", per_query=True, max_new_tokens=5, progress=False)
    mean = trace(lalm, prompt, query="generated", max_new_tokens=5, progress=False)
    for row in range(size):
        steps = int(per_query["n_queries"][row])
        answer = output[row, : steps - 1].tolist()
        real = prompt.inputs["attention_mask"][row].bool()
        prompted = int(real.sum())
        new = torch.zeros(steps - 1, dtype=torch.bool)
        keys = {
            name: torch.cat([m[row, real], new | (name == "generated")]) for name, m in prompt.groups.items()
        }
        queries = torch.arange(prompted - 1, prompted - 1 + steps)
        expected = masses(rows_of(eager, prompt.inputs, row, answer), queries, keys).numpy()
        np.testing.assert_allclose(per_query["mass"][row, ..., :steps], expected, atol=1e-5)
        np.testing.assert_allclose(mean["mass"][row], expected.mean(-1), atol=1e-5)
        there = per_query.isel(item=row, query=slice(steps))
        assert there["position"].values.tolist() == queries.tolist()
        assert there["token"].values.tolist() == [int(prompt.inputs["input_ids"][row, -1]), *answer]
        assert there["query_group"].values.tolist() == ["template", *["generated"] * (steps - 1)]
        assert there["n_tokens"].sel(group="generated").values.tolist() == list(range(steps))
    assert (per_query["mass"].sel(group="generated", query=slice(1, None)).max() > 0.01).all()


def test_an_answer_ends_at_its_end(items):
    """Queries after the end of a row's answer are padding and stay out of its mean."""
    lalm = LALM(*tiny_qwen2_audio())
    prompt = lalm.prompt(items)
    output = lalm.generate(prompt, max_new_tokens=6)
    lalm.model.generation_config.eos_token_id = [int(output[0, 2])]
    lalm.model.generation_config.pad_token_id = 0
    again = lalm.generate(prompt, max_new_tokens=6)
    per_query = trace(lalm, prompt, query="generated", per_query=True, max_new_tokens=6, progress=False)
    mean = trace(lalm, prompt, query="generated", max_new_tokens=6, progress=False)
    for row, tokens in enumerate(again.tolist()):
        end = tokens.index(int(output[0, 2])) + 1 if int(output[0, 2]) in tokens else len(tokens)
        assert per_query["n_queries"][row] == end
        assert np.isnan(per_query["mass"][row, ..., end:]).all()
        alone = per_query["mass"][row, ..., :end].mean("query")
        np.testing.assert_allclose(mean["mass"][row], alone, atol=1e-6)
    assert per_query["n_queries"][0] <= 3


@pytest.mark.parametrize("query", ["text", "generated"])
def test_masses_sum_to_one_and_batches_do_not_matter(tiny_lalm, items, query):
    whole = trace(tiny_lalm, items, query=query, max_new_tokens=3, progress=False)
    np.testing.assert_allclose(whole["mass"].sum("group"), 1, atol=1e-5)
    assert whole["mass"].dims == ("item", "layer", "head", "group")
    assert whole["mass"].dtype == np.float32
    one = trace(tiny_lalm, items, query=query, max_new_tokens=3, batch_size=1, progress=False)
    xr.testing.assert_allclose(one, whole, atol=1e-5)
    settings = {"per_query": True, "max_new_tokens": 3, "progress": False}
    per_query = trace(tiny_lalm, items, query=query, batch_size=2, **settings)
    xr.testing.assert_allclose(per_query, trace(tiny_lalm, items, query=query, **settings), atol=1e-5)
    np.testing.assert_allclose(per_query["mass"].mean("query"), whole["mass"], atol=1e-5)


def test_the_last_query_kept(tiny_lalm, items):
    per_query = trace(tiny_lalm, items, per_query=True, progress=False)
    last = trace(tiny_lalm, items, progress=False)
    assert per_query.sizes["query"] == 1
    np.testing.assert_array_equal(per_query["mass"][..., 0], last["mass"])
    assert (last["n_queries"] == 1).all()


@pytest.mark.parametrize("size", [1, 3])
def test_bfloat16(items, size):
    """Masses are float32 sums of the model's own rows; eager's weights, rounded to bfloat16, agree as far."""
    model, processor = tiny_qwen2_audio()
    lalm = LALM(model.bfloat16(), processor)
    prompt = lalm.prepare(lalm.prompt(items[:size]))
    chosen: list[torch.Tensor] = []

    def look(layer, call, total):
        weights = call.scores(slice(None)).double().softmax(-1)
        chosen.append(torch.stack([(weights * m[:, None, None]).sum(-1) for m in prompt.groups.values()], 2))

    with torch.inference_mode(), attention_calls(lalm.structure, range(4), look) as run:
        run(lambda: lalm.model(**prompt.inputs, use_cache=False))
    measured = trace(lalm, prompt, query="text", per_query=True, progress=False)
    np.testing.assert_allclose(
        measured["mass"].sum("group").values[measured["mass"].notnull().any("group")], 1, atol=1e-5
    )
    expected = torch.stack(chosen, 1).numpy()  # (B, layers, H, G, T)
    padding = prompt.width - prompt.inputs["attention_mask"].sum(1)
    for row in range(size):
        n = int(measured["n_queries"][row])
        at = measured["position"].values[row, :n] + int(padding[row])
        np.testing.assert_allclose(measured["mass"][row, ..., :n], expected[row][..., at], atol=1e-5)


def test_measures_of_kept_queries(tiny_lalm, items):
    per_query = trace(tiny_lalm, items, query="text", per_query=True, progress=False)
    assert audio_share(per_query).dims == ("item", "layer", "head", "query")
    there = per_query["position"].values >= 0
    assert np.isfinite(mdi(per_query).values[:, 0][there]).all()
    assert np.isnan(mdi(per_query).values[:, 0][~there]).all()


def test_through_a_file(tiny_lalm, items, tmp_path):
    per_query = trace(tiny_lalm, items, query="generated", per_query=True, max_new_tokens=2, progress=False)
    per_query.to_netcdf(tmp_path / "trace.nc", engine="scipy")
    back = xr.load_dataset(tmp_path / "trace.nc", engine="scipy")
    np.testing.assert_array_equal(back["mass"], per_query["mass"])
    assert back["query_group"].values.tolist() == per_query["query_group"].values.tolist()
    assert back.attrs["query"] == "generated"
    assert back.attrs["max_new_tokens"] == 2
    assert "predicts" in back.attrs["queries"]


def test_text_without_audio_is_all_text(tiny_lalm, items):
    prompt = tiny_lalm.prompt(items, audio=None)
    traced = trace(tiny_lalm, prompt, query="text", progress=False)
    assert traced["n_queries"].values.tolist() == (prompt.inputs["attention_mask"].sum(1) - 1).tolist()


def test_what_cannot_be_asked(tiny_lalm, items):
    with pytest.raises(ValueError, match=r"No query 'all'.*'last', 'text', 'generated'"):
        trace(tiny_lalm, items, query="all")
    with pytest.raises(ValueError, match="max_new_tokens is 0"):
        trace(tiny_lalm, items, query="generated", max_new_tokens=0)
