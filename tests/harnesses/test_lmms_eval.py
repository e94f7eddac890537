"""Shipped items through the real lmms-eval give, token for token, the answers of `LALM.answer`.

lmms-eval does not fit the lock: `make acceptance-harness` makes an environment for it, and runs this file.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

import mata_interp as mi
from mata_interp.errors import ArgumentError, RunError

pytest.importorskip("lmms_eval", reason="run by `make acceptance-harness`")
pytestmark = pytest.mark.acceptance

MATA = mi.Mata(4.0, [2, 3, 4, 5, 6, 7])
TOKENS = 6
RATE = 16_000

TASK = """\
task: shipped
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: generate_until
doc_to_visual: !function shipped_functions.audio_of
doc_to_text: !function shipped_functions.question_of
doc_to_target: answer
generation_kwargs:
  max_new_tokens: {tokens}
  until: ["<|never|>"]
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
"""
FUNCTIONS = """\
import soundfile

def audio_of(doc):
    samples, rate = soundfile.read(doc["audio"], dtype="float32")
    return [{"array": samples, "sampling_rate": rate}]

def question_of(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]
"""


@pytest.fixture(scope="module")
def lalm() -> mi.LALM:
    return mi.LALM.from_pretrained("organism")


@pytest.fixture(scope="module")
def model_folder(lalm, tmp_path_factory) -> Path:
    """The organism as transformers writes it: a folder for lmms-eval's own class."""
    folder = tmp_path_factory.mktemp("model")
    lalm.model.save_pretrained(folder)
    lalm.processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def items(tmp_path_factory) -> list[mi.Item]:
    folder = tmp_path_factory.mktemp("audio")
    items = []
    for number, item in enumerate(mi.load_benchmark("listening")[:4]):
        path = folder / f"{number}.wav"
        soundfile.write(path, item.load_audio(RATE).samples, RATE, subtype="FLOAT")
        items.append(mi.Item(audio=str(path), question=item.question, id=str(number)))
    return items


def loaded(model_folder: Path, folder: str | None = None):
    """lmms-eval's Qwen2_Audio, by the name that the package registers."""
    from lmms_eval.models import get_model

    arguments = f"base=qwen2_audio,pretrained={model_folder},device_map=auto,device=cpu"
    arguments += "" if folder is None else f",intervention={folder}"
    model = get_model("mata_interp").create_from_arg_string(arguments, {"batch_size": 1, "device": None})
    model.device_map = "cpu"  # with "auto" this version sends every input to "cuda"
    return model


def answers(model, items: list[mi.Item], folder: Path) -> list[str]:
    """What an evaluation by lmms-eval records as the model's answers, in order of the items."""
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    rows = [{"audio": str(item.audio), "question": item.question, "answer": "none"} for item in items]
    (folder / "shipped.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "shipped.yaml").write_text(TASK.format(data=folder / "shipped.jsonl", tokens=TOKENS))
    (folder / "shipped_functions.py").write_text(FUNCTIONS)
    tasks = TaskManager(include_path=str(folder), include_defaults=False)
    results = simple_evaluate(model=model, tasks=["shipped"], task_manager=tasks, log_samples=True)
    samples = sorted(results["samples"]["shipped"], key=lambda sample: sample["doc_id"])
    return [np.ravel(sample["resps"])[0] for sample in samples]


@pytest.mark.parametrize("intervention", [None, MATA], ids=["plain", "MATA"])
def test_lmms_eval_gives_the_answers_of_the_lalm(lalm, model_folder, items, tmp_path, intervention):
    folder = None if intervention is None else str(intervention.save_pretrained(tmp_path / "mata"))
    results = answers(loaded(model_folder, folder), items, tmp_path)
    expected = [lalm.answer(item, intervention, max_new_tokens=TOKENS).texts[0] for item in items]
    assert [text.strip() for text in results] == [text.strip() for text in expected]


def test_mata_moves_answers(lalm, items):
    """Without this, equal answers would show nothing."""
    plain = [lalm.answer(item, max_new_tokens=TOKENS).texts[0] for item in items]
    assert plain != [lalm.answer(item, MATA, max_new_tokens=TOKENS).texts[0] for item in items]


def test_an_error_of_generate_is_no_empty_answer(model_folder, items, tmp_path, monkeypatch):
    """Qwen2_Audio of lmms-eval answers with an empty text where generate fails."""
    model = loaded(model_folder, str(MATA.save_pretrained(tmp_path / "mata")))
    monkeypatch.setattr(model.model.lm_head, "forward", lambda *_, **__: 1 / 0)
    with pytest.raises(RunError, match="ZeroDivisionError"):
        answers(model, items, tmp_path)


def test_the_model_must_be_named():
    from lmms_eval.models import get_model

    with pytest.raises(ArgumentError, match="base="):
        get_model("mata_interp").create_from_arg_string("pretrained=folder")
