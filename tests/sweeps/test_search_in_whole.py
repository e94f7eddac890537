"""The search at true depth, by counted work, and on the model that ships, by what its choice is worth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import mata_interp as mi
from mata_interp.statistics import clustered_interval
from mata_interp.sweeps import LEAST_CLIPS, margin, search, search_windows
from mata_interp.sweeps.search import WindowGrid
from tests.support.analyses import import_analysis
from tests.tiny import tiny_qwen2_audio

pytestmark = pytest.mark.acceptance


def test_a_search_at_32_layers_costs_less_than_1_3_forwards():
    """Counted multiplications, relative to a plain forward of every item; 1,960 configurations and 30 s.

    A narrow model with the ratios of Qwen2-Audio-7B: what a row costs relative to a token does not depend on
    the width. The first two rounds have a quarter of the items each, the last has half.
    """
    medium = import_analysis("support.medium")
    model, _ = tiny_qwen2_audio(layers=32, heads=4, kv_heads=4, head_dim=16, chunk_length=30)
    lalm = mi.LALM(model)
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 256, (1, 51), generator=draw)
    audio = torch.full((1, 750), model.config.audio_token_id)
    features = torch.randn(1, 32, 3000, generator=draw)
    inputs = {
        "input_ids": torch.cat([tokens[:, :3], audio, tokens[:, 3:]], 1),
        "input_features": features,
        "feature_attention_mask": torch.ones(1, 3000, dtype=torch.long),
    }
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    prompt = lalm.prompt_from_inputs(inputs)
    assert prompt.width == medium.CLIP_TOKENS + 51

    def work(run):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            run()
        return counter.get_total_flops()

    plain = work(lambda: lalm.model(**prompt.inputs, use_cache=False))
    configurations = mi.window_configs(lalm, widths=range(1, 17))
    assert len(configurations) == 1960
    costs: list[float] = []

    def measure(names):
        edits = {"none": None, **{name: configurations[name] for name in names}}
        results: list = []
        run = lambda: results.append(mi.sweep(lalm, prompt, edits, progress=False))  # noqa: E731
        costs.append(work(run) / plain)
        logit = results[0].isel(item=0, vocab=5)
        return (logit.sel(configuration=list(names)) - logit.sel(configuration="none")).values.tolist()

    WindowGrid.from_configurations(configurations).search(measure)
    full = work(lambda: mi.sweep(lalm, prompt, configurations, progress=False)) / plain
    coarse = np.average(costs, weights=[1, 1, 2])
    assert coarse < 1.3, (coarse, costs)
    assert full > 2.5, full


def test_its_choice_is_worth_as_much_on_other_clips(monkeypatch):
    """On the model that ships; its eight layers are searched from halves on, in three rounds as 32 are."""
    monkeypatch.setattr(search, "CELLS", 2)
    lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")
    chosen_on = items.split("selection").filter(condition="conflict").sample(96, seed=0)
    assert len({item.cluster for item in chosen_on}) >= LEAST_CLIPS
    edits = mi.window_configs(lalm, widths=range(1, 5))
    options = {"batch_size": 16, "progress": False}
    searched = search_windows(lalm, chosen_on, edits, "none", **options)
    swept = mi.sweep(lalm, chosen_on, {"none": None, **edits}, **options)
    gains = margin(swept).mean("item").drop_sel(configuration="none")
    full = str(gains.idxmax().item())
    last = margin(search.last_round(searched)).mean("item").drop_sel(configuration="none")
    coarse = str(last.idxmax().item())
    assert searched.sizes["configuration"] < swept.sizes["configuration"]

    tested_on = items.split("confirmation").filter(condition="conflict")
    tested = margin(
        mi.sweep(lalm, tested_on, {"none": None, "full": edits[full], "coarse": edits[coarse]}, **options)
    )
    difference = (tested.sel(configuration="coarse") - tested.sel(configuration="full")).values
    mean, low, high = clustered_interval(difference[:, None], tested["cluster"].values)
    worth = float((tested.sel(configuration="full") - tested.sel(configuration="none")).mean())
    assert high[0] >= 0, (full, coarse, mean, low, high)
    assert mean[0] > -0.05 * worth, (full, coarse, mean, worth)
