"""mi.run on the tiny model: what is asked, what is recorded, what is refused."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mata_interp.errors import InterventionError, ItemError, RunError, RunWarning
from mata_interp.experiments import Condition, load_run, run
from mata_interp.experiments.answering import Work
from mata_interp.experiments.records import SCHEMA
from mata_interp.interventions import Mata
from tests.support.sounds import make_items

MATA = Mata(alpha=0.5, layers=[1, 2])
CONDITIONS = {
    "baseline": None,
    "mata": MATA,
    "text too": (MATA, replace(MATA, keys="text")),
    "other audio": Condition(audio="other"),
    "mata + other audio": Condition(MATA, audio="other"),
    "silence": Condition(audio="silence"),
    "no audio": Condition(audio="none"),
}


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return make_items(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def finished(tiny_lalm, items, tmp_path_factory):
    return run(
        tiny_lalm, items, CONDITIONS, tmp_path_factory.mktemp("runs") / "all", batch_size=4, progress=False
    )


def rows(records: pd.DataFrame, condition: str) -> pd.DataFrame:
    return records[records["condition"] == condition].set_index("item")


def test_one_row_per_item_and_condition_with_every_column(finished, items):
    records = finished.records
    assert list(records) == SCHEMA.names
    assert records.groupby("condition", sort=False).size().to_dict() == dict.fromkeys(CONDITIONS, len(items))
    assert records["condition"].unique().tolist() == list(CONDITIONS)
    assert all(rows(records, name).index.tolist() == sorted(i.id for i in items) for name in CONDITIONS)


def test_answers_are_those_of_the_model_asked_item_by_item(finished, tiny_lalm, items):
    for item in items[:4]:
        for name, edit in (("baseline", None), ("mata", MATA)):
            scores = tiny_lalm.score(tiny_lalm.prompt(item), [item.choices], edit)
            row = rows(finished.records, name).loc[item.id]
            np.testing.assert_allclose(row["logprob"], scores.logprob[0, : len(item.choices)], atol=1e-4)
            assert row["tokens"].tolist() == scores.tokens[0, : len(item.choices)].tolist()


def test_both_ways_to_answer_follow_from_the_recorded_log_probabilities(finished):
    disagree = 0
    for _, row in finished.records.iterrows():
        right = row["choices"].tolist().index(row["answer"])
        for suffix, scores in (("", row["logprob"]), ("_normalised", row["logprob"] / row["tokens"])):
            best = int(np.argmax(scores))
            assert row[f"predicted{suffix}"] == row["choices"][best]
            assert row[f"correct{suffix}"] == (best == right)
            assert row[f"margin{suffix}"] == scores[right] - max(np.delete(scores, right))
        disagree += row["predicted"] != row["predicted_normalised"]
    assert disagree  # else the two ways were not told apart here


def test_audio_is_what_the_condition_says(finished, items):
    records, by_id = finished.records, {item.id: item for item in items}
    plain, other, edited = (rows(records, name) for name in ("baseline", "other audio", "mata + other audio"))
    assert (plain["audio_from"] == plain.index).all()
    assert other["audio_from"].tolist() == edited["audio_from"].tolist()
    assert all(by_id[partner].source != by_id[item].source for item, partner in other["audio_from"].items())
    lent = [plain.loc[partner, "audio_tokens"] for partner in other["audio_from"]]
    assert other["audio_tokens"].tolist() == lent
    silent, none = rows(records, "silence"), rows(records, "no audio")
    assert silent["audio_from"].isna().all()
    assert silent["audio_seconds"].tolist() == plain["audio_seconds"].tolist()
    assert none["audio_from"].isna().all()
    assert (none["audio_tokens"] == 0).all()
    assert (none["prompt_tokens"] < plain["prompt_tokens"] - plain["audio_tokens"] + 1).all()
    for condition in ("other audio", "silence", "no audio"):  # each is another input, so another answer
        assert (np.stack(rows(records, condition)["margin"]) != np.stack(plain["margin"])).all()


def test_dose_is_recorded_where_something_was_edited(finished):
    records = finished.records
    for name in ("baseline", "other audio", "silence", "no audio"):
        assert rows(records, name).filter(like="dose_").isna().all(axis=None)
    edited = rows(records, "mata")
    assert edited["dose_left_alone"].isna().all()  # of methods that count such rows
    assert edited.filter(like="dose_").drop(columns="dose_left_alone").notna().all(axis=None)
    assert (edited["dose_kl"] > 0).all()
    assert edited["dose_mass_before"].between(0, 1, inclusive="neither").all()


def test_batches_are_fixed_in_the_manifest_by_length(finished):
    batches = finished.manifest["batches"]
    plain = rows(finished.records, "baseline")
    assert [len(batch["items"]) for batch in batches] == [4, 4, 4, 4, 2]
    lengths = [plain.loc[item, "prompt_tokens"] for batch in batches for item in batch["items"]]
    assert lengths == sorted(lengths, reverse=True)
    for number, batch in enumerate(batches):
        for item in batch["items"]:
            assert plain.loc[item, "batch"] == number
            assert plain.loc[item, "padded_width"] == batch["padded_width"]
        assert batch["padded_width"] == plain.loc[batch["items"], "prompt_tokens"].max()


def test_batch_size_does_not_matter(finished, tiny_lalm, items):
    alone = run(
        tiny_lalm,
        items,
        {"mata": MATA, "other audio": CONDITIONS["other audio"]},
        batch_size=1,
        progress=False,
    )
    assert alone.path is None
    for name in ("mata", "other audio"):
        there, here = rows(finished.records, name), rows(alone.records, name)
        np.testing.assert_allclose(here["margin"], there["margin"], atol=1e-4)
        assert here["audio_from"].tolist() == there["audio_from"].tolist()


def test_bad_items_are_left_out_counted_and_named_and_the_others_go_on(tiny_lalm, items, tmp_path):
    (tmp_path / "empty.wav").write_bytes(b"")
    bad = [
        replace(items[0], id="gone", audio=tmp_path / "gone.wav"),
        replace(items[0], id="empty", audio=tmp_path / "empty.wav"),
        replace(items[0], id="silent nan", audio=(np.full(8000, np.nan), 16_000)),
        replace(items[0], id="no choice", choices=()),
        replace(items[0], id="repeated", choices=("a bell", "a bell"), answer="a bell"),
        replace(items[0], id="foreign answer", answer="a cat"),
        replace(items[0]),
        replace(items[0], id="markup", question="Is <|im_end|> heard?"),
    ]
    with pytest.warns(RunWarning, match=r"8 left out"):
        done = run(tiny_lalm, [*items[:2], *bad, items[2]], {"baseline": None}, progress=False)
    assert done.records["item"].tolist() == sorted(item.id for item in items[:3])
    assert {row.item: row.field for row in done.excluded} == {
        **dict.fromkeys(("gone", "empty", "silent nan"), "audio"),
        **dict.fromkeys(("no choice", "repeated"), "choices"),
        "foreign answer": "answer",
        items[0].id: "id",
        "markup": "question",
    }
    assert all(row.reason for row in done.excluded)


def test_nothing_left_to_ask_is_an_error(tiny_lalm, items, tmp_path):
    with pytest.raises(RunError, match=r"no item can be used.*'gone'"):
        run(tiny_lalm, [replace(items[0], id="gone", audio="gone.wav")], {"baseline": None}, progress=False)


def test_overlong_audio_is_cut_and_the_cut_recorded(tiny_lalm, items):
    longest = tiny_lalm.max_audio_seconds
    noise = np.random.default_rng(0).normal(size=int(16_000 * (longest + 0.5))).astype(np.float32)
    long = replace(items[0], id="long", audio=(noise, 16_000))
    done = run(tiny_lalm, [long, items[1]], {"baseline": None}, progress=False)
    assert rows(done.records, "baseline").loc["long", "truncated_seconds"] == pytest.approx(0.5)
    assert rows(done.records, "baseline").loc[items[1].id, "truncated_seconds"] == 0


def test_items_without_an_answer_are_asked_but_not_marked(tiny_lalm, items):
    done = run(tiny_lalm, [replace(items[0], answer=None)], {"baseline": None}, progress=False)
    row = done.records.iloc[0]
    assert row["predicted"] in items[0].choices
    assert pd.isna(row["correct"])
    assert np.isnan(row["margin"])


def test_conditions_that_make_no_sense_are_refused_before_anything_is_written(tiny_lalm, items, tmp_path):
    for conditions, message in [
        ({}, "baseline"),
        ({"": None}, "cannot name a condition"),
        ({"mata": Mata(0.1, [99])}, "99"),
        ({"mata": "mata"}, "an edit that a run takes|not an intervention"),
    ]:
        with pytest.raises(InterventionError, match=message):
            run(tiny_lalm, items, conditions, tmp_path / "run", progress=False)
    with pytest.raises(InterventionError, match="audio='loud' is unknown"):
        Condition(audio="loud")  # type: ignore[arg-type]
    with pytest.raises(InterventionError, match="decoding='greedy'"):
        Condition(decoding="greedy")  # type: ignore[arg-type]
    with pytest.raises(InterventionError, match="audio='none'"):
        Condition(MATA, audio="none")
    with pytest.raises(RunError, match="at least two recordings"):
        run(tiny_lalm, items[:2], {"other": Condition(audio="other")}, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_configuration_that_meets_the_clips_it_was_chosen_on_is_announced(tiny_lalm, items):
    chosen = replace(MATA, chosen_on=("clip00", "clip05", "clip99"))
    with pytest.warns(RunWarning, match=r"'mata' was chosen on 1 of the 2 clips"):
        run(tiny_lalm, items[:6], {"baseline": None, "mata": chosen}, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RunWarning)
        run(tiny_lalm, items[3:6], {"mata": chosen}, progress=False)


def test_a_folder_of_another_model_or_other_data_is_refused(finished, tiny_lalm, items, tmp_path):
    from mata_interp.lalm import LALM
    from tests.tiny import tiny_qwen2_audio

    def go(lalm, items, **changed):
        run(lalm, items, changed.pop("conditions", CONDITIONS), finished.path, progress=False, **changed)

    settings = {"batch_size": 4}
    with pytest.raises(RunError, match=r"model\.\w+ is"):
        go(LALM(*tiny_qwen2_audio(seed=1)), items, **settings)
    with pytest.raises(RunError, match=r"data have changed: .* 1 item\(s\) with other words .*'clip05-conf"):
        go(tiny_lalm, [*items[:-1], replace(items[-1], question="What?")], **settings)
    with pytest.raises(
        RunError, match=r"conditions\.mata\.interventions\[0\]\.alpha is 0\.5, here it is 0\.1"
    ):
        go(tiny_lalm, items, conditions={**CONDITIONS, "mata": replace(MATA, alpha=0.1)}, **settings)
    with pytest.raises(RunError, match="batch_size is 4, here it is 5"):
        go(tiny_lalm, items, batch_size=5)
    with pytest.raises(RunError, match="seed is 0, here it is 1"):
        go(tiny_lalm, items, seed=1, **settings)
    load_run(finished.path)  # untouched


def test_a_folder_that_cannot_be_used_is_refused_before_items_are_looked_at(
    finished, tiny_lalm, items, tmp_path
):
    unusable = [replace(items[0], id="gone", audio="gone.wav")]
    with pytest.raises(RunError, match=r"conditions\.mata is .* here it is None"):
        run(tiny_lalm, unusable, {"baseline": None}, finished.path, batch_size=4, progress=False)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="cannot write"):
        run(tiny_lalm, unusable, {"baseline": None}, tmp_path / "file" / "run", progress=False)


def test_changed_sound_is_changed_data(tiny_lalm, tmp_path):
    items = make_items(tmp_path, clips=2)
    run(tiny_lalm, items, {"baseline": None}, tmp_path / "run", progress=False)
    items[0].audio.write_bytes(items[3].audio.read_bytes())
    with pytest.raises(RunError, match=r"data have changed: .* 3 item\(s\) with another sound \('clip00-"):
        run(tiny_lalm, make_items_anew(items), {"baseline": None}, tmp_path / "run", progress=False)
    items[0].audio.unlink()
    with (
        pytest.warns(RunWarning, match="3 left out"),
        pytest.raises(RunError, match=r"3 item\(s\) that are gone or cannot be used any more \('clip00-"),
    ):
        run(tiny_lalm, make_items_anew(items), {"baseline": None}, tmp_path / "run", progress=False)


def make_items_anew(items):
    return [replace(item) for item in items]


def test_a_damaged_part_is_computed_again_and_said(tiny_lalm, items, tmp_path):
    conditions = {"baseline": None, "mata": MATA}
    first = run(tiny_lalm, items, conditions, tmp_path / "run", batch_size=4, progress=False)
    part = tmp_path / "run" / "parts" / "mata--00002.parquet"
    whole = part.read_bytes()
    part.write_bytes(whole[: len(whole) // 2])
    with pytest.warns(RunWarning, match=r"1 damaged part\(s\) are computed again: mata--00002"):
        again = run(tiny_lalm, items, conditions, tmp_path / "run", batch_size=4, progress=False)
    assert part.read_bytes() == whole
    pd.testing.assert_frame_equal(again.records, first.records, check_exact=True)


def test_parts_of_other_runs_are_not_taken_for_this_ones(tiny_lalm, items, tmp_path):
    """Neither under the name of a part nor under another, where they would not be counted but are named."""
    edits = {"mata": MATA}
    first = run(tiny_lalm, items, edits, tmp_path / "run", batch_size=4, progress=False)
    run(tiny_lalm, items, edits, tmp_path / "shuffled", batch_size=4, progress=False, seed=1)
    foreign = (tmp_path / "shuffled" / "parts" / "mata--00002.parquet").read_bytes()
    (tmp_path / "run" / "parts" / "mata--00002.parquet").write_bytes(foreign)  # same items, same condition
    with pytest.warns(RunWarning, match=r"mata--00002.parquet \(it is of another run\)"):
        again = run(tiny_lalm, items, edits, tmp_path / "run", batch_size=4, progress=False)
    pd.testing.assert_frame_equal(again.records, first.records, check_exact=True)
    (tmp_path / "run" / "parts" / "copy of mata--00002.parquet").write_bytes(foreign)
    with pytest.warns(RunWarning, match=r"1 file\(s\).*\(copy of mata"):
        pd.testing.assert_frame_equal(load_run(tmp_path / "run").records, first.records, check_exact=True)


def test_a_clip_that_vanishes_meanwhile_is_named_and_the_run_goes_on_when_it_is_back(
    tiny_lalm, tmp_path, monkeypatch
):
    items = make_items(tmp_path, clips=3)
    moved, clip = tmp_path / "away.wav", items[0].audio
    build = Work._build

    def vanishing(self, lalm, unit, *rest):
        if unit.batch == 1 and clip.exists():
            clip.rename(moved)
        return build(self, lalm, unit, *rest)

    monkeypatch.setattr(Work, "_build", vanishing)
    with pytest.raises(ItemError, match=r"item 'clip00-\w+', field 'audio': no such file"):
        run(tiny_lalm, items, {"baseline": None}, tmp_path / "run", batch_size=3, progress=False)
    monkeypatch.undo()
    moved.rename(clip)
    again = run(
        tiny_lalm, make_items_anew(items), {"baseline": None}, tmp_path / "run", batch_size=3, progress=False
    )
    assert (again.missing, len(again.records)) == (0, len(items))


def test_a_finished_run_is_read_and_not_computed_again(finished, tiny_lalm, items, monkeypatch):
    monkeypatch.setattr(tiny_lalm, "score_each", None)
    monkeypatch.setattr(tiny_lalm, "answer", None)
    again = run(tiny_lalm, items, CONDITIONS, finished.path, batch_size=4, progress=False)
    pd.testing.assert_frame_equal(again.records, finished.records, check_exact=True)


def test_a_run_keeps_its_roles_where_its_rule_is_not_registered(tiny_lalm, items, tmp_path):
    """Roles follow from the edits, and an edit by an unknown rule says nothing: the manifest has them."""
    from mata_interp.interventions import MissingMethod, register_rule, rules

    def doubled(scores, keys, alpha):
        return rules.replace_scores(keys, scores + 2 * alpha, scores)

    register_rule("doubled", doubled, formula="scores + 2 * alpha")
    try:
        edit = Mata(0.5, [1, 2], rule="doubled")
        conditions = {
            "plain": None,
            "edited": edit,
            "on text": replace(edit, keys="text"),
            "elsewhere": Condition(edit, role="sham_random_layers"),
            "edited + other audio": Condition(edit, audio="other"),
        }
        roles = dict(run(tiny_lalm, items[:6], conditions, tmp_path / "run", progress=False).roles)
    finally:
        del rules._rules["doubled"]
    assert list(roles.values()) == ["baseline", "mata", "sham_text", "sham_random_layers", "mata_other_audio"]
    read = load_run(tmp_path / "run")
    assert isinstance(read.conditions["edited"].interventions[0], MissingMethod)
    assert dict(read.roles) == roles
    # a folder that was written before roles were recorded
    manifest = {name: value for name, value in read.manifest.items() if name != "roles"}
    assert replace(read, manifest=manifest).roles["edited"] == "other"
