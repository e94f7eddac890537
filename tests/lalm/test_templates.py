"""Chat templates as they are published: which keys they test, and what is said where one fails."""

from __future__ import annotations

import pytest
import torch

import mata_interp as mi
from mata_interp.errors import ModelError
from tests.lalm.test_prompts import an_item, ask, texts
from tests.tiny import tiny_processor, tiny_qwen2_audio

FRAME = (
    "{{% for m in messages %}}<|im_start|>{{{{ m.role }}}}\n{body}<|im_end|>\n{{% endfor %}}"
    "{{% if add_generation_prompt %}}<|im_start|>assistant\n{{% endif %}}"
)
PARTS = (
    "{{% for part in m.content %}}{{% if {audio} %}}<|audio_bos|><|AUDIO|><|audio_eos|>\n"
    "{{% elif {text} %}}{{{{ part.text }}}}{{% endif %}}{{% endfor %}}"
)


def template(audio: str, text: str) -> str:
    return FRAME.format(body=PARTS.format(audio=audio, text=text))


BY_TYPE = template("part.type == 'audio'", "part.type == 'text'")
TESTS = [
    ("part.type == 'audio'", "'text' in part"),
    ("part['type'] == 'audio'", "part['type'] == 'text'"),
    ("'audio' in part", "'text' in part"),
    ("'audio_url' in part", "'text' in part"),
    ("'audio' in part or 'audio_url' in part or part.type == 'audio'", "'text' in part"),
    ("part.get('audio_url') is not none", "'text' in part"),
    ("part.audio is defined", "part.text is defined"),
    ("'text' not in part", "true"),
]


@pytest.mark.parametrize(("audio", "text"), TESTS)
def test_the_parts_of_a_message_have_every_key_that_templates_test(audio, text):
    plain, other = tiny_processor(), tiny_processor()
    plain.chat_template, other.chat_template = BY_TYPE, template(audio, text)
    expected, result = ask(plain, an_item()), ask(other, an_item())
    assert torch.equal(result.inputs["input_ids"], expected.inputs["input_ids"])
    assert texts(other, result, 0) == texts(plain, expected, 0)
    without = ask(other, an_item(), audio=None)
    assert not without.groups["audio"].any()
    assert torch.equal(without.inputs["input_ids"], ask(plain, an_item(), audio=None).inputs["input_ids"])


@pytest.mark.parametrize("body", ["{{ m.content }}", "{{ m['content'] + '' }}"])
def test_templates_of_plain_texts_get_placeholders_in_front(body):
    processor = tiny_processor()
    processor.chat_template = FRAME.format(body=body)
    prompt = ask(processor, [an_item(), an_item(question="Which?")])
    assert prompt.groups["audio"].any(1).all()
    assert texts(processor, prompt, 0)["question"].strip() == "Which comes first?"
    assert "type" not in processor.tokenizer.decode(prompt.inputs["input_ids"][0])
    without = ask(processor, an_item(), audio=None)
    assert not without.groups["audio"].any()


def test_a_run_answers_with_such_a_template():
    model, processor = tiny_qwen2_audio(seed=0)
    processor.chat_template = template("'audio_url' in part", "'text' in part")
    lalm = mi.LALM(model, processor)
    item = mi.Item(**{**vars_of(an_item()), "answer": "a dog"})
    assert len(mi.run(lalm, [item], {"baseline": None}, progress=False).records) == 1


def vars_of(item: mi.Item) -> dict:
    return {"audio": item.audio, "question": item.question, "choices": item.choices}


@pytest.mark.parametrize(
    "broken",
    [
        template("part.type == 'sound'", "part.type == 'text'"),  # no placeholder for audio
        "{{ raise_exception('Conversation roles must alternate.') }}",
        "{% for part in messages %}",
    ],
)
def test_an_error_of_a_template_names_it(broken):
    processor = tiny_processor()
    processor.chat_template = broken
    with pytest.raises(ModelError, match="chat template") as caught:
        ask(processor, an_item())
    assert "--chat-template" in str(caught.value)
    assert "\n" not in str(caught.value)
