"""The data of the item view: packed arrays, what is left out of too large a page, hostile text."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

import mata_interp as mi
from mata_interp.reporting import report
from mata_interp.reporting.item_view import items_section, recorded_ids, section
from mata_interp.reporting.item_view.budget import MEANS, coarser, fit, pack_means
from mata_interp.reporting.item_view.markup import item_view_markup, script
from mata_interp.reporting.item_view.packing import pack_attention, unpack_attention
from mata_interp.reporting.item_view.view_data import view_data

from .pages import CONDITIONS, OUTCOMES, made_up_items, write_page
from .small import HOSTILE, small_study

EVIL = f"{HOSTILE} <!-- ]]> \u202e\u2067 'single' \"double\" &amp; \x00"


def data_of(html: str) -> dict:
    """The data in a page, as its script reads them."""
    return json.loads(
        re.search(r'<script type="application/json" class="iv-data">(.*?)</script>', html, re.S)[1]
    )


def view_of(items, **settings):
    return view_data(CONDITIONS, items, layers=range(8), edited=[4, 5], outcomes=OUTCOMES, **settings)


def test_attention_survives_the_packing():
    rng = np.random.default_rng(0)
    mass = rng.gamma(0.3, 0.01, (3, 4, 5, 30))
    mass[1, 2, 3] = np.nan  # a head that a layer does not have
    packed = pack_attention(mass)
    assert packed["shape"] == [4, 5, 3, 30]
    plain = np.nan_to_num(mass)
    error = np.abs(unpack_attention(packed) - plain)
    assert error.max() <= plain.max() / 255
    assert error[plain < plain.max() / 100].max() <= plain.max() / 1000
    np.testing.assert_array_equal(unpack_attention(pack_attention(np.zeros((1, 1, 1, 2)))), 0)


def test_equal_conditions_compress():
    mass = np.random.default_rng(0).gamma(0.3, 0.01, (1, 8, 8, 60))
    alone, three = (len(pack_attention(np.repeat(mass, n, 0))["data"]) for n in (1, 3))
    assert three < 1.3 * alone


def test_pairs_of_bins_add_up():
    mean, edges = np.arange(10.0).reshape(1, 2, 5), np.array([0, 1, 2, 3, 4, 5.0])
    merged, fewer = coarser(mean, edges)
    np.testing.assert_array_equal(merged, [[[1, 5, 4], [11, 15, 9]]])
    np.testing.assert_array_equal(fewer, [0, 2, 4, 5])


def test_means_of_many_items_get_fewer_bins():
    rng = np.random.default_rng(0)
    means = [rng.random((3, 32, 60)) for _ in range(300)]
    packed, edges = pack_means(means, [np.linspace(0, 1, 61)] * 300, limit=MEANS // 10)
    assert sum(len(one["data"]) for one in packed) <= MEANS // 10 or packed[0]["shape"][-1] <= 16
    assert len(edges[0]) == packed[0]["shape"][-1] + 1 < 61
    np.testing.assert_allclose(unpack_attention(packed[0])[:, :, 0].sum(-1), means[0].sum(-1), rtol=0.02)


def test_heads_are_dropped_before_audio_and_the_page_says_so():
    items = made_up_items(12, full=4)
    whole = view_of(items)
    assert not whole.notes
    assert sum(item["heads"] is not None for item in whole.items) == 4

    def limited(limit):
        data = view_of(items, limit=limit)
        size = len(json.dumps(data.items))
        fields = {
            name: sum(item[name] is not None for item in data.items) for name in ("heads", "audio", "mean")
        }
        return fields, data, size

    bare = [{name: value for name, value in item.items() if name != "notices"} for item in whole.items]
    everything = len(json.dumps(bare, separators=(",", ":")))
    fields, data, size = limited(everything - 1000)
    assert fields["heads"] == 3
    assert (fields["audio"], fields["mean"]) == (4, 12)
    assert len(data.notes) == 1
    assert any("heads" in notice for notice in data.items[3]["notices"])
    heads = sum(len(item["heads"]["data"]) for item in whole.items if item["heads"])
    fields, data, size = limited(everything - heads - 20_000)
    assert fields["heads"] == 0
    assert fields["audio"] < 4
    assert any("audio" in notice for notice in data.items[3]["notices"])
    fields, data, size = limited(30_000)
    assert (fields["heads"], fields["audio"]) == (0, 0)
    assert size < 45_000


def test_long_texts_are_cut_last():
    items = [
        replace(item, recording=replace(item.recording, question="x" * 10_000))
        for item in made_up_items(3, full=0)
    ]
    entries = [dict(entry) for entry in view_of(items).items]
    assert len(entries[0]["question"]) == 10_000
    notes = fit(entries, 9_000)
    assert all(len(entry["question"]) <= 300 for entry in entries)
    assert len(notes) == 2


def test_hostile_text_stays_in_the_data():
    html = str(item_view_markup(view_of(made_up_items(4, text=EVIL))))
    assert "<img" not in html
    assert html.count("<script") == html.count("</script>") == 1
    first = data_of(html)["items"][0]
    assert first["question"] == f"Which sound is heard in clip 0? {EVIL}"
    assert first["choices"][0] == f"a dog{EVIL}"


def test_the_section_of_a_study():
    small = small_study()
    run = mi.load_run(small.run)
    section = items_section(run)
    data = data_of(str(section.content[-1][1]))
    assert [one["label"] for one in data["conditions"]] == ["without MATA", "MATA", "same rule on text"]
    records = run.records.set_index(["condition", "item"])
    assert len(data["items"]) == 12
    for item in data["items"]:
        baseline, mata = (records.loc[(name, item["id"])] for name in ("baseline", "mata"))
        assert item["logprob"][1] == pytest.approx(list(mata["logprob"]), abs=1e-4)
        assert item["choices"][item["predicted"][0]] == baseline["predicted"]
        assert item["choices"][item["answer"]] == baseline["answer"]
        assert item["dose"] == pytest.approx(mata["dose_kl"], abs=1e-4)
        assert (item["outcome"] == "fixed") == (not baseline["correct"] and mata["correct"])
        assert len(data["edges"][item["edges"]]) == item["mean"]["shape"][-1] + 1
    assert set(recorded_ids(run)) == {item["id"] for item in data["items"] if item["audio"]}
    captions = run.manifest["caption_answers"]
    claimed = [item for item in data["items"] if item["claimed"] is not None]
    assert claimed
    assert all(item["choices"][item["claimed"]] == captions[item["id"]] for item in claimed)


def test_runs_without_recordings_and_without_an_edit(tmp_path):
    small = small_study()
    shutil.copytree(small.run, tmp_path / "run")
    (tmp_path / "run" / "items.npz").unlink()
    run = mi.load_run(tmp_path / "run")
    section = items_section(run)
    data = data_of(str(section.content[-1][1]))
    assert all("--add-items" in item["notices"][0] for item in data["items"])
    assert recorded_ids(run) == ()
    (tmp_path / "run" / "items.npz").write_bytes(b"damaged")
    texts = [part for kind, part in items_section(run).content if kind == "text"]
    assert any("items.npz" in text for text in texts)
    assert "items.npz" in report(tmp_path / "run").read_text("utf-8")
    baseline = replace(run, records=run.records[run.records["condition"] == "none"])
    assert items_section(baseline) is None


def test_a_plain_run_keeps_its_names_and_a_long_table_is_cut(tmp_path, monkeypatch):
    run = mi.load_run(small_study().run)
    plain = {
        name: {k: v for k, v in one.items() if k != "role"}
        for name, one in run.manifest["conditions"].items()
    }
    renamed = replace(run, manifest={**run.manifest, "conditions": plain})
    monkeypatch.setattr(section, "MOST", 5)
    content = items_section(renamed).content
    data = data_of(str(content[-1][1]))
    assert [one["label"] for one in data["conditions"]] == ["baseline", "mata", "mata on text"]
    assert len(data["items"]) == 5
    assert any("5 of 12 items" in text for kind, text in content if kind == "text")


def test_the_script_has_no_markup_and_no_network():
    text = script()
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "fetch(",
        "XMLHttp",
        "http:",
    ):
        assert word not in text
    assert "</script" not in text


def test_a_page_of_a_thousand_items_is_small(tmp_path):
    page = write_page(tmp_path / "page.html", made_up_items(1000, full=24))
    assert page.stat().st_size < 8e6
