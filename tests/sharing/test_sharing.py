"""Saving, loading and uploading interventions; evidence and its retest."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import metadata_load
from safetensors.torch import load_file, save_file

import mata_interp as mi
from mata_interp.errors import ArgumentError, BenchmarkError, InterventionError
from mata_interp.interventions import METHODS, push_intervention
from mata_interp.interventions import catalogue as c
from mata_interp.sharing import evidence, retest
from tests.interventions.cases import CASES

METHODS_TO_SAVE = {name: case.method for name, case in CASES.items()}
MATA = mi.Mata(1.0, [4, 5, 6, 7])


@pytest.fixture(scope="module")
def lalm() -> mi.LALM:
    return mi.LALM.from_pretrained("organism")


@pytest.fixture(scope="module")
def items() -> mi.Items:
    conflict = mi.load_benchmark("listening").filter(condition="conflict")
    return conflict.split("confirmation").sample(40)


@pytest.fixture(scope="module")
def shipped(lalm, items) -> mi.Evidence:
    return evidence(lalm, items, MATA, progress=False)


@pytest.fixture(scope="module")
def folder(lalm, shipped, tmp_path_factory) -> Path:
    return MATA.save_pretrained(tmp_path_factory.mktemp("shared"), lalm=lalm, evidence=shipped)


@pytest.mark.parametrize("name", METHODS_TO_SAVE)
def test_every_method_comes_back(tmp_path, name):
    method = METHODS_TO_SAVE[name]
    folder = mi.save_intervention(method, tmp_path)
    assert mi.load_intervention(folder) == method
    assert {path.suffix for path in folder.iterdir()} <= {".json", ".md", ".safetensors"}
    assert mi.load_intervention(mi.save_intervention([method, MATA], tmp_path)) == (method, MATA)


def test_the_cases_are_of_all_methods_of_the_catalogue():
    saved = {type(method).__name__ for method in METHODS_TO_SAVE.values()}
    methods = {name for name, cls in METHODS.items() if cls.__module__.startswith("mata_interp.")}
    assert methods - saved <= {"Opposed", "OppositePath", "Guidance", "AvcdContrast"}  # parts of others


def test_methods_of_classes_save_and_load(tmp_path):
    boost = c.InstABoost((3, 4))
    assert c.InstABoost.from_pretrained(boost.save_pretrained(tmp_path)) == boost
    with pytest.raises(InterventionError, match="InstABoost, not AttentionEdit"):
        mi.AttentionEdit.from_pretrained(tmp_path)


def test_arrays_are_in_safetensors_and_checked(tmp_path):
    steering = c.Steering((1, 2), 0.3, c.Array(torch.randn(2, 32)))
    mi.save_intervention(steering, tmp_path)
    arrays = load_file(tmp_path / "arrays.safetensors")
    assert torch.equal(arrays["array_0"], steering.directions.tensor)
    assert "float32" not in (tmp_path / "intervention.json").read_text()
    save_file({"array_0": arrays["array_0"] + 1}, tmp_path / "arrays.safetensors")
    with pytest.raises(InterventionError, match="array_0"):
        mi.load_intervention(tmp_path)
    mi.save_intervention(MATA, tmp_path)  # nothing of the other stays
    assert not (tmp_path / "arrays.safetensors").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data | {"format": 2},
        lambda data: {"format": 1},
        lambda data: data | {"interventions": [{"method": "NoSuchMethod"}]},
        lambda data: data | {"evidence": {"accuracy": {}}},
    ],
)
def test_damaged_folders_are_refused(tmp_path, damage):
    mi.save_intervention(MATA, tmp_path)
    path = tmp_path / "intervention.json"
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(InterventionError):
        mi.load_intervention(tmp_path)


def test_what_cannot_be_saved(tmp_path):
    class Unknown:
        site, layers, queries, phase = "weights", (1,), "last", "both"

        def edit(self, x, context):
            return x

    for wrong in (None, [], Unknown(), 3):
        with pytest.raises(InterventionError):
            mi.save_intervention(wrong, tmp_path)
    with pytest.raises(InterventionError, match="not a hub id"):
        mi.load_intervention("./nowhere")


def test_evidence_is_that_of_a_run(lalm, items, shipped):
    run = mi.run(lalm, items, {"baseline": None, "mata": MATA}, progress=False)
    correct = run.records.pivot(index="item", columns="condition", values="correct").astype(float)
    clusters = run.records.drop_duplicates("item").set_index("item")["cluster"].loc[correct.index]
    effect = mi.paired_effect(correct["baseline"], correct["mata"], clusters=clusters.tolist())
    for name in ("n", "n_clusters", "before", "after", "difference", "fixed", "broken"):
        assert getattr(shipped.accuracy, name) == getattr(effect, name)
    assert (shipped.accuracy.low, shipped.accuracy.high) == pytest.approx((effect.low, effect.high))
    assert shipped.data_sha256 == run.manifest["data"]["sha256"]
    kl = run.records.loc[run.records["condition"] == "mata", "dose_kl"]
    assert shipped.dose_kl == pytest.approx(kl.mean(), rel=1e-4)
    assert shipped.dose_kl == pytest.approx(shipped.sham.dose_kl, rel=0.1)


def test_evidence_from_the_clips_that_chose_the_edit_is_refused(lalm, items):
    with pytest.raises(ArgumentError, match="chosen on"):
        evidence(lalm, items, replace(MATA, chosen_on=[items[0].cluster]), progress=False)


def test_evidence_of_a_method_of_another_site(lalm, items):
    measured = evidence(lalm, items.sample(4), c.HeadMask((4,), ((0,),)), progress=False)
    assert measured.sham is None
    assert measured.dose_kl is None
    assert mi.Evidence.from_dict(json.loads(json.dumps(measured.to_dict()))).to_dict() == measured.to_dict()


def test_the_card_says_what_was_measured(folder, shipped):
    text = (folder / "README.md").read_text()
    body = text.split("---\n", 2)[2]
    assert metadata_load(folder / "README.md")["library_name"] == "mata-interp"
    for value in (shipped.accuracy.difference, shipped.accuracy.low, shipped.accuracy.high):
        assert f"{100 * value:+.1f}" in body
    assert shipped.data_sha256 in body
    assert "0-7" not in body
    assert "4-7" in body
    assert (folder / "intervention.json").stat().st_size < 20_000


def test_names_cannot_break_the_card(tmp_path, lalm):
    name = 'x/y"\n---\n# `evil` | <script>'
    other = mi.LALM(lalm.model, lalm.processor, name=name)
    text = (MATA.save_pretrained(tmp_path, lalm=other) / "README.md").read_text()
    assert "base_model" not in text
    assert text.count("\n---\n") == 1
    assert "\n# `evil`" not in text


def test_a_retest_reproduces(folder, lalm, items, shipped):
    again = retest(folder, lalm, mi.load_benchmark("listening"), progress=False)
    assert again.reproduced
    assert again.same_data
    assert again.model_differences == again.missing == ()
    assert again.after.accuracy == shipped.accuracy
    assert again.after.sham == shipped.sham


def test_a_retest_that_does_not_reproduce(tmp_path, lalm, items, shipped):
    """The same evidence shared for an edit without strength."""
    mi.Mata(0.0, [4, 5, 6, 7]).save_pretrained(tmp_path, lalm=lalm, evidence=shipped)
    again = retest(tmp_path, lalm, items, progress=False)
    assert shipped.verdict == "helps"
    assert again.after.verdict == "undetected"
    assert not again.reproduced


def test_other_data_and_another_model_are_said(folder, lalm, items):
    silent = [item.with_audio((np.zeros(16_000, dtype=np.float32), 16_000)) for item in items[:20]]
    other = mi.LALM.from_pretrained("organism-unbiased")
    again = retest(folder, other, silent, progress=False)
    assert not again.same_data
    assert len(again.missing) == 20
    assert any("weights" in text for text in again.model_differences)
    with pytest.raises(BenchmarkError, match="None of the 40 items"):
        retest(folder, lalm, [replace(items[0], id="another")], progress=False)


def test_a_folder_without_evidence_is_refused(tmp_path, lalm, items):
    with pytest.raises(InterventionError, match="No evidence"):
        retest(MATA.save_pretrained(tmp_path), lalm, items, progress=False)


class FakeHub:
    """The network boundary of huggingface_hub: what would be sent is kept, what would be loaded is local."""

    def __init__(self, root: Path) -> None:
        self.root, self.calls = root, []

    def api(self, token=None):
        self.calls.append(("token", token))
        return self

    def create_repo(self, repo_id, private, exist_ok):
        self.calls.append(("create", repo_id, private, exist_ok))

    def upload_folder(self, repo_id, folder_path, commit_message, allow_patterns):
        self.calls.append(("upload", repo_id, commit_message))
        target = self.root / repo_id
        target.mkdir(parents=True)
        for path in Path(folder_path).iterdir():
            assert path.name in allow_patterns
            (target / path.name).write_bytes(path.read_bytes())
        return f"https://huggingface.co/{repo_id}/commit/1"

    def snapshot_download(self, repo_id, revision, token, allow_patterns):
        self.calls.append(("download", repo_id, revision))
        return str(self.root / repo_id)


def test_upload_and_download(tmp_path, monkeypatch, lalm, shipped):
    hub = FakeHub(tmp_path)
    monkeypatch.setattr("huggingface_hub.HfApi", hub.api)
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub.snapshot_download)
    address = MATA.push_to_hub("owner/mata", lalm=lalm, evidence=shipped, private=True, token="secret")
    assert address.endswith("/commit/1")
    assert hub.calls[:2] == [("token", "secret"), ("create", "owner/mata", True, True)]
    assert mi.AttentionEdit.from_pretrained("owner/mata", revision="v1") == MATA
    assert hub.calls[-1] == ("download", "owner/mata", "v1")
    assert mi.SharedIntervention.read("owner/mata").evidence == shipped
    push_intervention([MATA, c.InstABoost((1,))], "owner/two")
    assert mi.load_intervention("owner/two") == (MATA, c.InstABoost((1,)))


def test_a_missing_repository_is_said(monkeypatch):
    def download(*_, **__):
        raise OSError("there is no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(InterventionError, match="there is no network"):
        mi.load_intervention("owner/none")
