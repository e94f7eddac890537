"""Runs answered in words: what is recorded, read from the words, and left open."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from mata_interp.benchmarks import Item, load_benchmark
from mata_interp.experiments import Condition, load_run, run
from mata_interp.experiments.records import generation_records
from mata_interp.interventions import Mata
from mata_interp.lalm import LALM, Decoding, GenerationOutput
from tests.support.sounds import make_items
from tests.tiny import tiny_qwen2_audio

MATA = Mata(alpha=3.0, layers=[1, 2], rule="add")
DRAWN = Decoding(10, temperature=1.3, top_p=0.9, seed=5)
CONDITIONS = {
    "options": None,
    "greedy": Condition(decoding=Decoding(10)),
    "drawn": Condition(decoding=DRAWN),
    "other draw": Condition(decoding=replace(DRAWN, seed=6)),
    "mata": Condition(MATA, decoding=Decoding(10)),
    "mata in prefill": Condition(replace(MATA, phase="prefill"), decoding=Decoding(10)),
    "mata in decode": Condition(replace(MATA, phase="decode"), decoding=Decoding(10)),
    "other audio": Condition(audio="other", decoding=Decoding(10)),
}


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return make_items(tmp_path_factory.mktemp("clips"), clips=4)


@pytest.fixture(scope="module")
def done(tiny_lalm, items, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "words"
    return run(tiny_lalm, items, CONDITIONS, out, batch_size=5, progress=False)


def rows(records: pd.DataFrame, condition: str) -> pd.DataFrame:
    return records[records["condition"] == condition].set_index("item")


@pytest.mark.parametrize(
    ("text", "in_words", "option"),
    [
        ("a dog", "a dog", "a dog"),
        ("(b)", "(b)", "a bell"),
        ("<think>A bell? No.</think>\n\nThe answer is A.", "The answer is A.", "a dog"),
        ("<think>one</think><answer> a dog </answer>", "a dog", "a dog"),
        ("A bell? No.</think>a dog", "a dog", "a dog"),  # opened by the chat template
        ("<answer>a bell</answer> no, <answer>B", "B", "a bell"),  # cut before the tag was closed
        ("<think>a dog? <answer>a bell</answer>", "", None),  # cut while it thought
        ("a dog or a bell", "a dog or a bell", None),
        ("", "", None),
    ],
)
def test_an_option_is_read_or_left_open(text, in_words, option):
    item = Item(audio=None, question="?", choices=("a dog", "a bell", "rain"), answer="a dog")
    table = generation_records(
        "c", 0, [item], [{}], GenerationOutput((text,), torch.zeros(1, 1), np.ones(1), np.ones(1))
    )
    row = table.to_pylist()[0]
    assert (row["text"], row["final_answer"]) == (text, in_words)
    assert (row["predicted"], row["parsed"]) == (option, option is not None)
    assert row["correct"] == (option == "a dog")


def test_words_are_those_of_the_model_asked_item_by_item(done, tiny_lalm, items):
    for name, condition in CONDITIONS.items():
        if condition is None or condition.audio != "own":
            continue
        for item in items[:3]:
            alone = tiny_lalm.answer(
                tiny_lalm.prompt(item), condition.intervention, decoding=condition.decoding
            )
            row = rows(done.records, name).loc[item.id]
            assert row["text"] == alone.texts[0]
            assert (row["generated_tokens"], row["stopped"]) == (alone.lengths[0], alone.stopped[0])
            for dose, value in alone.dose.items():
                assert row[f"dose_{dose}"] == pytest.approx(value[0], abs=1e-4)


def prefills(lalm: LALM) -> list[int]:
    """Grows by one with each pass over a prompt's audio."""
    seen: list[int] = []
    lalm.model.model.audio_tower.register_forward_hook(lambda *_: seen.append(1))
    return seen


@pytest.mark.parametrize("edited", [2, 3, 5])
def test_answers_of_many_conditions_share_a_prefill(items, edited):
    """Three edited conditions and more: the prefill that all share, and that of the plain answer."""
    lalm = LALM(*tiny_qwen2_audio(seed=0))
    edits = {f"mata {k}": Mata(1.0 + k, [1, 2], "add") for k in range(edited)}
    lalm.prepare(lalm.prompt(items[:2]), generating=True)  # probes the positions of the audio
    seen = prefills(lalm)
    run(lalm, items[:2], {"none": None, **edits}, batch_size=2, progress=False, decoding=Decoding(4))
    assert len(seen) == (1 + edited if edited < 3 else 2)


def test_an_interrupted_run_shares_prefills_as_a_whole_one_does(tiny_lalm, items, tmp_path):
    """One condition is missing; its answers and doses are those of the whole run to the bit."""
    edits = {f"mata {k}": Mata(1.0 + k, [1, 2], "add") for k in range(3)}

    def again() -> pd.DataFrame:
        return run(tiny_lalm, items[:4], edits, tmp_path / "a", batch_size=2, progress=False,
                   decoding=Decoding(6)).records  # fmt: skip

    whole = again()
    parts = sorted((tmp_path / "a" / "parts").glob("*.parquet"))
    parts[1].unlink()
    pd.testing.assert_frame_equal(again(), whole, check_exact=True)


def test_conditions_that_should_differ_do(done):
    texts = {name: rows(done.records, name)["text"].tolist() for name in CONDITIONS if name != "options"}
    assert len({tuple(in_words) for in_words in texts.values()}) == len(texts)


def test_what_is_not_there_is_null(done):
    compared, in_words = rows(done.records, "options"), rows(done.records, "greedy")
    assert compared[["text", "final_answer", "parsed", "generated_tokens", "stopped"]].isna().all(axis=None)
    assert in_words[["logprob", "tokens", "margin", "predicted_normalised"]].isna().all(axis=None)
    assert compared["official"].notna().all()
    assert (done.records["rows_together"] <= 5).all()


def test_what_cannot_be_read_is_a_failure_and_no_guess(done):
    """A model of random weights says nothing that is an option: no row is right, none has a prediction."""
    in_words = rows(done.records, "greedy")
    failed = in_words[~in_words["parsed"].astype(bool)]
    assert len(failed) > 0
    assert failed["predicted"].isna().all()
    assert not failed["correct"].any()
    assert failed["correct"].notna().all()


def test_batch_size_and_company_do_not_change_words(done, tiny_lalm, items):
    few = {name: CONDITIONS[name] for name in ("greedy", "drawn", "mata")}
    again = run(tiny_lalm, items[::-1], few, batch_size=1, progress=False)
    for name in few:
        there, here = rows(done.records, name), rows(again.records, name)
        assert here["text"].tolist() == there["text"].tolist()
        assert here["predicted"].tolist() == there["predicted"].tolist()


def test_the_manifest_tells_how_answers_were_made(done, tiny_lalm, items, tmp_path):
    manifest = done.manifest
    assert manifest["conditions"]["drawn"]["decoding"] == DRAWN.to_dict()
    assert "decoding" not in manifest["conditions"]["options"]
    assert manifest["generation"]["eos_token_id"] == tiny_lalm.model.generation_config.eos_token_id
    assert manifest["prompt_format"] == "options"
    worded = run(
        tiny_lalm, items[:3], {"a": None}, tmp_path / "a", prompt_format="letters", progress=False,
        decoding=Decoding(3),
    )  # fmt: skip
    assert worded.manifest["prompt_format"] == "lmms-eval"
    assert worded.manifest["prompt_wording"].startswith("{question}\nA. {first option}\nB. ")
    assert worded.manifest["conditions"]["a"]["decoding"]["max_new_tokens"] == 3
    assert (worded.records["generated_tokens"] <= 3).all()
    again = run(
        tiny_lalm, items[:3], {"a": Condition(decoding=Decoding(3))}, tmp_path / "a",
        prompt_format="lmms-eval", progress=False,
    )  # fmt: skip
    pd.testing.assert_frame_equal(again.records, worded.records, check_exact=True)
    with pytest.raises(ValueError, match="No prompt format 'haiku'"):
        run(tiny_lalm, items[:3], {"a": None}, tmp_path / "b", prompt_format="haiku", progress=False)


def test_the_organism_answers_in_words_what_it_finds_likeliest(tmp_path):
    """It was taught to answer with an option's text, so its words and its log-probabilities agree."""
    lalm, items = LALM.from_pretrained("organism"), load_benchmark("listening").sample(36, seed=1)
    edit = Mata(alpha=1.0, layers=[3, 4])
    conditions = {"options": None, "words": Condition(decoding=Decoding(16)),
                  "mata": edit, "mata in words": Condition(edit, decoding=Decoding(16))}  # fmt: skip
    records = run(lalm, items, conditions, tmp_path / "run", progress=False).records
    for compared, in_words in (("options", "words"), ("mata", "mata in words")):
        options, words = rows(records, compared), rows(records, in_words)
        assert words["stopped"].all()
        assert words["parsed"].mean() > 0.9
        parsed = words[words["parsed"].astype(bool)]
        agree = (parsed["predicted"] == options.loc[parsed.index, "predicted"]).mean()
        assert agree > 0.9
        assert np.mean(words["correct"].astype(bool) == words["official"].astype(bool)) > 0.95
    assert rows(records, "mata in words")["dose_kl"].gt(0).all()
    assert load_run(tmp_path / "run").missing == 0
