"""Shipped items through the real Inspect give, token for token, the answers of `LALM.answer`.

Inspect does not fit the lock: `make acceptance-harness` makes an environment for it and runs this file there.
"""

from __future__ import annotations

import pytest
import soundfile

import mata_interp as mi

inspect_ai = pytest.importorskip("inspect_ai", reason="run by `make acceptance-harness`")
pytestmark = pytest.mark.acceptance

MATA = mi.Mata(4.0, [2, 3, 4, 5, 6, 7])
TOKENS = 6


@pytest.fixture(scope="module")
def items(tmp_path_factory) -> list[mi.Item]:
    """Shipped items whose audio is a WAV file, which Inspect takes."""
    folder = tmp_path_factory.mktemp("audio")
    items = []
    for number, item in enumerate(mi.load_benchmark("listening")[:4]):
        clip = item.load_audio(16_000)
        path = folder / f"{number}.wav"
        soundfile.write(path, clip.samples, 16_000, subtype="FLOAT")
        items.append(mi.Item(audio=str(path), question=item.question, id=str(number)))
    return items


def outputs(items: list[mi.Item], tmp_path, **arguments: str):
    """What a model of Inspect answers to items, in an evaluation: the outputs by item."""
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.model import ChatMessageUser, ContentAudio, ContentText
    from inspect_ai.solver import generate

    samples = [
        Sample(
            input=[
                ChatMessageUser(
                    content=[
                        ContentAudio(audio=str(item.audio), format="wav"),
                        ContentText(text=item.question),
                    ]
                )
            ],
            id=item.id,
        )
        for item in items
    ]
    task = inspect_ai.Task(dataset=MemoryDataset(samples), solver=generate())
    (log,) = inspect_ai.eval(
        task,
        model="mata-interp/organism",
        model_args=arguments,
        max_tokens=TOKENS,
        log_dir=str(tmp_path / "logs"),
        display="none",
    )
    assert log.status == "success", log.error
    return {str(sample.id): sample.output for sample in log.samples}


@pytest.mark.parametrize("intervention", [None, MATA], ids=["plain", "MATA"])
def test_inspect_gives_the_answers_of_the_lalm(items, tmp_path, intervention):
    arguments = {}
    if intervention is not None:
        arguments["intervention"] = str(intervention.save_pretrained(tmp_path / "mata"))
    results = outputs(items, tmp_path, **arguments)
    lalm = mi.LALM.from_pretrained("organism")
    for item in items:
        expected = lalm.answer(item, intervention, max_new_tokens=TOKENS)
        output = results[item.id]
        assert output.completion == expected.texts[0]
        assert output.usage.output_tokens == expected.lengths[0]
        assert output.stop_reason == ("stop" if expected.stopped[0] else "max_tokens")
        if intervention is not None:
            assert output.metadata["dose"]["kl"] == pytest.approx(expected.dose["kl"][0], rel=1e-6)
            assert expected.dose["kl"][0] > 0


def test_mata_moves_answers(items):
    """Without this, equal answers would show nothing."""
    lalm = mi.LALM.from_pretrained("organism")
    plain = [lalm.answer(item, max_new_tokens=TOKENS).texts[0] for item in items]
    assert plain != [lalm.answer(item, MATA, max_new_tokens=TOKENS).texts[0] for item in items]
