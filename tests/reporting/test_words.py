"""The page of a run answered in words: both scores, parse failures, what answers rely on, others' claims."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest

import mata_interp as mi
from mata_interp.benchmarks import published_claims
from mata_interp.experiments import Effects, Run, load_run, text_dominance_by, text_prior_of
from mata_interp.reporting.accuracy import accuracy, accuracy_tables, rate
from mata_interp.reporting.claims import claims_section
from mata_interp.reporting.comparisons import Comparisons
from mata_interp.reporting.parts import Table
from mata_interp.reporting.provenance import _answers, provenance_section
from mata_interp.reporting.reliance import reliance_section
from mata_interp.statistics import Rate, proportion, text_prior
from tests.support.sounds import make_items

MINI = "9f18fda99f8dbc2bc5ecd6323fb5063309f54969810b5c6f1caeb3b8d904cf1c"  # mmau-test-mini.json, v05.15.25
CONDITIONS = {
    "compared": None,
    "baseline": mi.Condition(decoding=mi.Decoding(4)),
    "mata": mi.Condition(mi.Mata(1.0, [1]), decoding=mi.Decoding(4)),
    "no audio": mi.Condition(audio="none", decoding=mi.Decoding(4)),
    "other": mi.Condition(audio="other", decoding=mi.Decoding(4)),
}


@pytest.fixture(scope="module")
def run(tiny_lalm, tmp_path_factory) -> Run:
    """A real run; then words in place of the small model's babble, so that every kind of answer is there."""
    folder = tmp_path_factory.mktemp("words")
    done = mi.run(tiny_lalm, make_items(folder, clips=6), CONDITIONS, folder / "run", progress=False)
    records, spoken = done.records.copy(), done.manifest["caption_answers"]
    for n, row in enumerate(records.to_dict("records")):
        if row["text"] is not None:
            options = (row["answer"], spoken.get(row["item"], row["answer"]), None)
            option = options[(n + n // 5) % 3]
            right = option == row["answer"]
            records.loc[n, ["predicted", "parsed", "correct"]] = [option, option is not None, right]
            records.loc[n, "official"] = right and n % 2 == 0
    return replace(done, records=records)


def comparisons(run: Run) -> Comparisons:
    return Comparisons(Effects(), run.conditions)


def cells(table: Table) -> dict[str, dict[str, tuple[str, ...]]]:
    return {block.title: {row.cells[0]: tuple(row.cells[1:]) for row in block.rows} for block in table.blocks}


def test_both_scores_and_the_failures_stand_side_by_side(run):
    (_, compared), (_, words) = accuracy_tables(run.records, comparisons(run))
    assert isinstance(compared, Table)
    assert isinstance(words, Table)
    assert [row.cells[0] for row in compared.blocks[0].rows] == ["chance", "compared"]
    assert compared.columns[-1] == "official"
    assert words.columns[2:5] == ("option-aware", "official", "no option")
    shown = cells(words)
    assert list(shown) == [
        "All items", "Caption contradicts the audio", "Caption neutral or absent",
        "Caption agrees with the audio", "Music", "Sound", "Speech",
    ]  # fmt: skip
    for label, name in {name: name for name in ("baseline", "mata", "no audio")}.items():
        part = run.records[run.records["condition"] == name]
        failed = f"{100 * (1 - part['parsed'].astype(float).mean()):.1f}"
        assert failed != "0.0"
        n, aware, official, unparsed, _ = shown["All items"][label]
        assert (n, unparsed) == ("18", failed)
        assert aware == accuracy(part, "correct")
        assert aware.startswith(f"{100 * part['correct'].astype(float).mean():.1f} [")
        assert official.startswith(f"{100 * part['official'].astype(float).mean():.1f} [")


def test_what_answers_rely_on_has_intervals_and_counts(run):
    section = reliance_section(run, comparisons(run))
    assert section is not None
    shown = cells(section.content[0][1])  # type: ignore[arg-type]
    dominance = next(rows for title, rows in shown.items() if title.startswith("Text-dominance"))
    assert list(dominance) == ["compared", "baseline", "mata"]  # not those that hear nothing or another sound
    ratios = text_dominance_by(run.records, run.manifest["caption_answers"])
    for label, name in {name: name for name in ("compared", "baseline", "mata")}.items():
        counts = f"{ratios[name].numerator} / {ratios[name].denominator}"
        assert dominance[label] == ("6", "6", rate(ratios[name], 1, 2), counts)
    prior = next(rows for title, rows in shown.items() if title.startswith("Text-prior rate: no audio"))
    whole = text_prior_of(run.records, "no audio", "baseline")
    assert prior["all items"] == ("18", "6", rate(whole, 1, 2), f"{whole.numerator} / {whole.denominator}")
    assert "[" in prior["all items"][2]
    conditions = {"baseline": run.manifest["conditions"]["baseline"]}
    bare = replace(run, manifest={**run.manifest, "conditions": conditions, "caption_answers": {}})
    assert reliance_section(bare, comparisons(bare)) is None


def test_a_ratio_without_an_upper_end():
    assert rate(text_prior([0, 0, 1], [0, 0, 1]), 1, 2).endswith("]")
    assert rate(Rate(0.5, 0.25, float("inf"), 1, 2, 3, 3, ""), 1, 2) == "0.50 [0.25, ∞]"
    assert rate(Rate(float("nan"), float("nan"), float("nan"), 0, 0, 0, 0, "")) == "—"


def test_the_interval_of_an_accuracy():
    assert accuracy(pd.DataFrame({"correct": [], "cluster": []}), "correct") == "—"
    share = proportion([True] * 3 + [False])
    assert (share.value, share.method) == (0.75, "Wilson")
    assert (share.low, share.high) == pytest.approx((0.3006, 0.9544), abs=1e-4)  # Wilson, by hand
    assert proportion([True] * 4, clusters=[0, 0, 1, 1]).low == pytest.approx(0.3424, abs=1e-4)  # of 2 clips
    assert proportion([1, 1, 0, 0], clusters=[0, 0, 1, 1]).method == "Wilson, clustered"


@pytest.mark.parametrize(
    ("name", "claims"),
    [
        ("mmau-test-mini", published_claims("mmau", "test-mini")),
        ("mmau", published_claims("mmau")),
        ("MMAR-meta", published_claims("mmar")),
    ],
)
def test_claims_are_headed_as_such(run, name, claims):
    there = replace(run, manifest={**run.manifest, "data": {**run.manifest["data"], "name": name}})
    section = claims_section(there, comparisons(there))
    assert section is not None
    table = section.content[0][1]
    assert isinstance(table, Table)
    measured, *claimed = table.blocks
    assert measured.rows[0].data["score"] == "official"
    labels = [row.cells[0] for row in measured.rows]
    assert "chance" in labels
    assert [label for label in labels if label != "chance"] == [
        f"{label}, {score} score"
        for label in ("compared", "baseline", "mata")
        for score in ("official", "option-aware")
    ]
    part = run.records[run.records["condition"] == "compared"]
    assert measured.rows[0].cells[-1] == accuracy(part, "official")
    for claim in claims:
        which = f": {claim.subset} {claim.version}; " if claim.subset else "; "
        block = next(b for b in claimed if f"{which}{claim.source}" in b.title)
        assert ("read in the source" in block.title) == (claim.read == "source")
        row = claim.model if claim.method == "baseline" else f"{claim.model} with MATA"
        averages = [r.cells[-1] for r in block.rows if r.cells[0] == row]
        assert f"{100 * claim.accuracy['average']:.1f}" in averages
    assert sum(len(block.rows) for block in claimed) == len(claims)
    assert "not a known release" in table.caption


def test_no_claims_about_other_benchmarks(run):
    for name in ("mmau-pro", "listening", "mmarvel"):
        there = replace(run, manifest={**run.manifest, "data": {**run.manifest["data"], "name": name}})
        assert claims_section(there, comparisons(there)) is None


def test_a_released_file_is_named(run):
    data = {**run.manifest["data"], "name": "mine", "file_sha256": MINI}
    there = replace(run, manifest={**run.manifest, "data": data})
    table = claims_section(there, comparisons(there)).content[0][1]  # type: ignore[union-attr]
    assert "18 of the 1,000 records of mmau-test-mini.json" in table.caption  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "sha256", "release"),
    [
        ("mine", MINI, "mmau test-mini: mmau-test-mini.json (v05.15.25), by its SHA-256"),
        ("mmau-test", "0" * 64, "not a known release of this benchmark"),
        ("mmau-pro", "0" * 64, None),
    ],
)
def test_the_page_says_whether_the_file_is_pinned(run, name, sha256, release):
    data = {**run.manifest["data"], "name": name, "file_sha256": sha256}
    section = provenance_section(replace(run, manifest={**run.manifest, "data": data}))
    facts: dict[str, str] = dict(next(part for kind, part in section.content if kind == "facts"))  # type: ignore[arg-type]
    assert facts.get("Released file") == release


def test_every_condition_states_its_decoding(run):
    table = next(part for kind, part in provenance_section(run).content if kind == "table")
    assert isinstance(table, Table)
    assert table.columns == ("Condition", "Audio", "Answers", "Intervention")
    answers = {row.data["condition"]: row.cells[2] for row in table.blocks[0].rows}
    for name, condition in run.conditions.items():
        greedy = condition.decoding is not None
        assert ("greedy" in answers[name]) == greedy
        assert ("up to 4 tokens" in answers[name]) == greedy
    drawn = _answers(mi.Decoding(1, temperature=0.7, top_k=5, top_p=0.9, seed=3))
    assert all(part in drawn for part in ("temperature 0.7", "top p 0.9", "seed 3", "top k 5", "1 token"))


def test_the_whole_page(run, tmp_path):
    """Written from the folder alone; a folder from before captions' claims were noted has a page, too."""
    folder = shutil.copytree(run.path, tmp_path / "run")
    html = mi.report(folder).read_text("utf-8")
    assert '<section id="reliance"' in html
    assert "Text-dominance ratio" in html
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["caption_answers"]["clip00-conflict"] == "a dog"
    del manifest["caption_answers"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert load_run(folder).missing == 0
    html = mi.report(folder).read_text("utf-8")
    assert "Text-dominance ratio" not in html
    assert "Text-prior rate" in html
