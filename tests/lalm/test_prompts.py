"""Prompts: what the model is given, and whose every token is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers
from tokenizers import processors as post_processors
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast, Qwen2AudioProcessor

from mata_interp.benchmarks import Item
from mata_interp.errors import ItemError, ModelError
from mata_interp.lalm.prompting.formats import canonical_format, wording
from mata_interp.lalm.prompting.groups import GROUPS, groups_of_tokens
from mata_interp.lalm.prompting.prompts import Prompt, build_prompt
from tests.tiny import RATE, SPECIAL, tiny_processor, tiny_qwen2_audio

BEFORE = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
AFTER = "<|im_end|>\n<|im_start|>assistant\n"
SOUND = "Audio 1: <|audio_bos|><|audio_eos|>\n"


def noise(seconds: float, seed: int = 0) -> tuple[np.ndarray, int]:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)).astype(np.float32), RATE


def an_item(**values) -> Item:
    values = {"audio": noise(0.5), "question": "Which comes first?", "choices": ("a dog", "a bell")} | values
    return Item(**values)


def ask(processor, items, **options) -> Prompt:
    token = processor.tokenizer.convert_tokens_to_ids("<|AUDIO|>")
    return build_prompt(processor, items, audio_token_id=token, sampling_rate=RATE, **options)


def texts(processor, prompt: Prompt, row: int) -> dict[str, str]:
    """The decoded tokens of each group of a row."""
    ids = prompt.inputs["input_ids"][row]
    return {name: processor.tokenizer.decode(ids[mask[row]]) for name, mask in prompt.groups.items()}


@pytest.fixture(scope="module")
def processor() -> Qwen2AudioProcessor:
    return tiny_processor()


@pytest.fixture(scope="module")
def merging() -> Qwen2AudioProcessor:
    """The same processor with a BPE that has merges and leaves spaces out of its offsets, as GPT-2's does."""
    tokenizer = tiny_processor().tokenizer.backend_tokenizer
    output = ["Choose one of these options: a dog; a bell. Which comes first? Who speaks? You are a helpful"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(output * 20, BpeTrainer(initial_alphabet=alphabet, special_tokens=SPECIAL))
    tokenizer.post_processor = post_processors.ByteLevel(trim_offsets=True)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|endoftext|>")
    return Qwen2AudioProcessor(tiny_processor().feature_extractor, fast)


def test_each_group_holds_its_words_in_a_padded_batch(processor):
    items = [
        an_item(audio=noise(0.9), caption="A bell, then a naïve dog 🐕."),
        an_item(audio=noise(0.3), question="Who speaks?"),
        an_item(audio=noise(1.0), choices=()),
    ]
    prompt = ask(processor, items)
    assert prompt.size == 3
    assert prompt.width == prompt.inputs["input_ids"].shape[1]
    frames = [90, 30, 100]  # 10 ms each; the encoder halves them, the pooling again
    expected = [
        {"caption": "A bell, then a naïve dog 🐕.\n", "question": "Which comes first?\n"},
        {"caption": "", "question": "Who speaks?\n"},
        {"caption": "", "question": "Which comes first?", "options": ""},
    ]
    for row, output in enumerate(expected):
        got = texts(processor, prompt, row)
        assert got["audio"] == "<|AUDIO|>" * ((((frames[row] - 1) // 2 + 1) - 2) // 2 + 1)
        assert got["sink"] == "<|im_start|>"
        assert got["template"] == (BEFORE + SOUND + AFTER).removeprefix("<|im_start|>")
        assert got["generated"] == ""
        output = {"options": "Choose one of these options: a dog; a bell."} | output
        assert {name: got[name] for name in output} == output


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<|>\ue000"), max_size=12)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(words, words, st.lists(words, max_size=3)), min_size=1, max_size=3))
def test_every_real_token_is_in_one_group_and_padding_in_none(rows):
    processor = tiny_processor()
    items = [an_item(caption=a, question=b, choices=c, audio=None) for a, b, c in rows]
    prompt = ask(processor, items, audio=None)
    assert tuple(prompt.groups) == GROUPS
    memberships = sum(mask.long() for mask in prompt.groups.values())
    assert torch.equal(memberships, prompt.inputs["attention_mask"])
    for row, item in enumerate(items):
        got = texts(processor, prompt, row)
        assert got["caption"].strip() == item.caption.strip()
        assert got["question"].strip() == item.question.strip()


def test_words_that_the_template_also_says_are_told_apart(processor):
    prompt = ask(processor, an_item(question="You are a helpful assistant.", caption="assistant"))
    got = texts(processor, prompt, 0)
    assert got["question"] == "You are a helpful assistant.\n"
    assert got["caption"] == "assistant\n"
    assert got["template"] == (BEFORE + SOUND + AFTER).removeprefix("<|im_start|>")


def test_merged_tokens_and_trimmed_offsets(merging):
    item = an_item(caption="a dog  and a bell", question="Which comes  first?")
    prompt = ask(merging, item)
    assert (prompt.groups["options"].sum() < len("Choose one of these options: a dog; a bell.")).item()
    got = texts(merging, prompt, 0)
    assert got["caption"] == "a dog  and a bell\n"
    assert got["question"] == "Which comes  first?\n"
    assert got["options"] == "Choose one of these options: a dog; a bell."


@pytest.mark.parametrize(
    ("offsets", "groups"),
    [
        ([(0, 3), (3, 6)], ["caption", "question"]),
        ([(0, 4), (4, 6)], ["caption", "question"]),  # straddles, more of the first
        ([(0, 1), (1, 6)], ["caption", "question"]),  # straddles, more of the second
        ([(0, 2), (2, 4), (4, 6)], ["caption", "caption", "question"]),  # one character of each: the earlier
        ([(0, 0), (0, 3), (3, 6)], ["template", "caption", "question"]),  # covers nothing, in front
        ([(0, 3), (4, 6)], ["caption", "question"]),  # a space left out
        ([(0, 3), (4, 4), (4, 6)], ["caption", "question", "question"]),  # a space alone, left out
        (
            [(0, 2), (2, 3), (2, 3), (3, 6)],
            ["caption", "caption", "caption", "question"],
        ),  # bytes of "c"
        ([(0, 3), (3, 6), (0, 0)], ["caption", "question", "template"]),  # covers nothing, at the end
    ],
)
def test_a_straddling_token_is_in_the_group_it_covers_most(offsets, groups):
    assert groups_of_tokens(offsets, [("caption", "abc"), ("question", "def")]) == groups


@pytest.mark.parametrize(("chunk", "hop"), [(3, 320), (1, 160)])
def test_there_is_a_placeholder_for_every_frame_the_encoder_yields(chunk, hop):
    model, processor = tiny_qwen2_audio(chunk_length=chunk, hop_length=hop)
    tower = model.model.audio_tower
    most = chunk * RATE // hop
    lengths = [frames * hop + extra for frames in range(8, most) for extra in (-hop + 1, 0)] + [most * hop]
    silence = np.full(most * hop, 0.01, np.float32)
    prompt = ask(processor, [an_item(audio=(silence[:length], RATE)) for length in lengths])
    placeholders = prompt.groups["audio"].sum(1)
    for row, frames in enumerate(prompt.inputs["feature_attention_mask"].sum(1).tolist()):
        features = prompt.inputs["input_features"][row, :, :frames]
        yielded = tower.avg_pooler(tower.conv2(tower.conv1(features))).shape[-1]
        assert placeholders[row] == yielded, lengths[row]
    longest = prompt.inputs["input_features"][-1:]
    assert placeholders[-1] == tower(longest).last_hidden_state.shape[1]


def test_the_shortest_sound_reaches_the_model():
    model, processor = tiny_qwen2_audio()
    prompt = ask(processor, an_item(audio=noise(0.07)))
    assert prompt.groups["audio"].sum() == 2
    new = model.generate(**prompt.inputs, max_new_tokens=2, do_sample=False)
    assert new.shape[1] > prompt.width


@pytest.mark.parametrize(("seconds", "tokens"), [(0.02, 0), (0.06, 1)])
def test_a_shorter_one_is_refused(processor, seconds, tokens):
    with pytest.raises(ItemError, match=f"{seconds:.3f} s is too short: it gives {tokens} audio") as caught:
        ask(processor, [an_item(), an_item(audio=noise(seconds), id="blip")])
    assert (caught.value.item, caught.value.field) == ("blip", "audio")


def test_a_row_does_not_depend_on_its_batch(processor):
    items = [an_item(audio=noise(0.2 + 0.3 * seed, seed), caption="x" * 9 * seed) for seed in range(3)]
    together = ask(processor, items)
    for row, item in enumerate(items):
        alone = ask(processor, item)
        pad = together.width - alone.width
        assert together.inputs["attention_mask"][row].tolist() == [0] * pad + [1] * alone.width
        assert torch.equal(together.inputs["input_ids"][row, pad:], alone.inputs["input_ids"][0])
        assert torch.equal(together.inputs["input_features"][row], alone.inputs["input_features"][0])
        for name, mask in together.groups.items():
            assert torch.equal(mask[row, pad:], alone.groups[name][0])
            assert not mask[row, :pad].any()


def test_a_long_sound_loses_its_end_and_that_is_recorded(processor):
    samples, _ = noise(2.5)
    long, cut = an_item(audio=(samples, RATE)), an_item(audio=(samples[:RATE], RATE))
    prompt = ask(processor, [long, cut])
    assert prompt.audio_seconds == (1.0, 1.0)
    assert prompt.truncated_seconds == (1.5, 0.0)
    assert torch.equal(*prompt.inputs["input_features"])


def test_without_audio_no_trace_of_it_is_left(processor):
    with_it, without = ask(processor, an_item()), ask(processor, an_item(), audio=None)
    assert set(without.inputs) == {"input_ids", "attention_mask"}
    assert not without.groups["audio"].any()
    assert without.audio_seconds == without.truncated_seconds == (0.0,)
    got = texts(processor, without, 0)
    assert got["template"] == (BEFORE + AFTER).removeprefix("<|im_start|>")
    assert {k: got[k] for k in ("question", "options")} == {
        k: texts(processor, with_it, 0)[k] for k in ("question", "options")
    }


@pytest.mark.parametrize("token", ["<|AUDIO|>", "<|im_end|>", "<|audio_bos|>", "<|endoftext|>"])
@pytest.mark.parametrize("field", ["question", "caption", "choices"])
def test_special_tokens_in_an_items_words_are_refused(processor, token, field):
    text = f"a {token} b"
    item = an_item(**{field: ("a dog", text) if field == "choices" else text, "id": "sly"})
    for audio in ("own", None):
        with pytest.raises(ItemError, match="special token") as caught:
            ask(processor, [an_item(), item], audio=audio)
        assert (caught.value.item, caught.value.field) == ("sly", field)
        assert token in str(caught.value)


def test_an_item_without_audio_is_refused_unless_none_is_asked_for(processor):
    with pytest.raises(ItemError, match="field 'audio': there is none"):
        ask(processor, an_item(audio=None))


def test_letters(processor):
    got = texts(processor, ask(processor, an_item(), format="letters"), 0)
    assert got["question"] == "Which comes first?\n"
    instruction = "Answer with the option's letter from the given choices directly."
    assert got["options"] == f"A. a dog\nB. a bell\n{instruction}"
    assert texts(processor, ask(processor, an_item(choices=()), format="letters"), 0)["options"] == ""


@pytest.mark.parametrize(
    ("name", "question", "options"),
    [
        ("official", "Which comes first? ",
         "Choose the correct option from the following options:\n(A) a dog\n(B) a bell"),
        ("r1-aqa", "Which comes first? ",
         "Please choose the answer from the following options: ['a dog', 'a bell']. "
         "Output the final answer in <answer> </answer>."),
        ("kimi", "Which comes first?\n", "(A) a dog (B) a bell"),
        ("lmms-eval", "Which comes first?\n",
         "A. a dog\nB. a bell\nAnswer with the option's letter from the given choices directly."),
    ],
)  # fmt: skip
def test_named_wordings(processor, name, question, options):
    got = texts(processor, ask(processor, an_item(caption="You hear rain."), format=name), 0)
    assert (got["caption"], got["question"], got["options"]) == ("You hear rain.\n", question, options)
    bare = texts(processor, ask(processor, an_item(choices=()), format=name), 0)
    assert (bare["question"], bare["options"]) == ("Which comes first?", "")
    assert options.replace("a dog", "{first option}").replace("a bell", "{second option}") in wording(name)


def test_letters_is_another_name():
    assert canonical_format("letters") == canonical_format("lmms-eval") == "lmms-eval"
    assert wording("options").startswith("{question}\nChoose one of these options: {first option}; ")


def test_a_wider_prompt_is_the_same_but_for_padding(processor):
    narrow, wide = ask(processor, an_item()), ask(processor, an_item(), width=200)
    assert (wide.width, narrow.width < 200) == (200, True)
    for name, mask in narrow.groups.items():
        assert torch.equal(wide.groups[name][:, -narrow.width :], mask)
        assert not wide.groups[name][:, : -narrow.width].any()
    assert torch.equal(wide.inputs["input_ids"][:, -narrow.width :], narrow.inputs["input_ids"])
    assert wide.inputs["attention_mask"].sum() == narrow.width
    with pytest.raises(ModelError, match="instead of 5"):
        ask(processor, an_item(), width=5)


@pytest.mark.parametrize(
    ("items", "options", "message"),
    [
        ([], {}, "at least one item"),
        (an_item(), {"format": "haiku"}, "'haiku'.*options, lmms-eval, official"),
        (an_item(), {"audio": "other"}, "not 'other'"),
    ],
)
def test_wrong_arguments_say_what_is_right(processor, items, options, message):
    with pytest.raises(ValueError, match=message):
        ask(processor, items, **options)


class Altered(Qwen2AudioProcessor):
    """Writes a time mark into the placeholders, as some families do."""

    def replace_audio_token(self, audio_inputs, audio_idx, **kwargs):
        return super().replace_audio_token(audio_inputs, audio_idx) + "[1 s]"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ messages[0]['content'][-1]['text'] | upper }}", "alters or repeats"),
        ("{{ messages[0]['content'][-1]['text'] * 2 }}", "alters or repeats"),
        ("nothing", "alters or repeats"),
        ("", "no chat template"),
    ],
)
def test_a_template_whose_parts_cannot_be_told_is_refused(template, message):
    processor = tiny_processor()
    processor.chat_template = template
    with pytest.raises(ModelError, match=f"{message}.*prompt_from_inputs"):
        ask(processor, an_item(), audio=None)


def test_time_marks_among_the_placeholders_belong_to_the_template(processor):
    marked = Altered(processor.feature_extractor, processor.tokenizer)
    plain, prompt = (ask(p, an_item(caption="Rain.")) for p in (processor, marked))
    assert prompt.width == plain.width + len("[1 s]")
    for name in ("audio", "question", "options", "caption"):
        assert prompt.groups[name].sum() == plain.groups[name].sum()
    assert "[1 s]" in texts(processor, prompt, 0)["template"]
    assert texts(processor, prompt, 0)["question"] == texts(processor, plain, 0)["question"]


class Rewritten(Qwen2AudioProcessor):
    """Alters the words, which no group can then be told of."""

    def __call__(self, text, audio=None, **kwargs):
        return super().__call__(text=[one.replace("?", "?!") for one in text], audio=audio, **kwargs)


def test_a_processor_that_alters_the_words_is_refused(processor):
    with pytest.raises(ModelError, match="not those of the chat template"):
        ask(Rewritten(processor.feature_extractor, processor.tokenizer), an_item(question="Which?"))


class Mute(Qwen2AudioProcessor):
    """Passes over the sound, as a plain tokenizer does."""

    def replace_audio_token(self, audio_inputs, audio_idx, **kwargs):
        return ""


def test_a_processor_that_writes_no_placeholder_is_refused(processor):
    with pytest.raises(ModelError, match="wrote no audio placeholder for 1 s of audio"):
        ask(Mute(processor.feature_extractor, processor.tokenizer), an_item(audio=noise(1.0)))


def test_a_processor_without_a_tokenizer_is_refused(processor):
    with pytest.raises(ModelError, match="has no tokenizer"):
        build_prompt(
            processor.feature_extractor,
            an_item(),
            audio_token_id=0,
            sampling_rate=RATE,
        )


def test_audio_stays_audio_where_it_comes_first():
    processor = tiny_processor()
    processor.chat_template = "<|AUDIO|>{{ messages[0]['content'][-1]['text'] }}"
    prompt = ask(processor, [an_item(), an_item(caption="A dog.")])
    assert not prompt.groups["sink"].any()
    assert torch.equal(prompt.groups["audio"], prompt.inputs["input_ids"] == processor.audio_token_id)


@pytest.mark.parametrize("written", [True, False])
def test_a_beginning_of_sequence_mark_comes_once_and_is_the_sink(written):
    processor = tiny_processor()
    tokenizer = processor.tokenizer
    tokenizer.bos_token = "<|endoftext|>"
    bos = ("<|endoftext|>", tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = post_processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[bos]
    )
    if written:
        processor.chat_template = "<|endoftext|>" + processor.chat_template
    prompt = ask(processor, an_item())
    got = texts(processor, prompt, 0)
    assert got["sink"] == "<|endoftext|>"
    assert got["template"] == BEFORE + SOUND + AFTER


def test_a_prompt_moves_between_devices(processor):
    moved = ask(processor, an_item()).to("meta")
    assert {tensor.device.type for tensor in (moved.inputs | moved.groups).values()} == {"meta"}


def test_ready_made_inputs(tiny_lalm):
    made = ask(tiny_lalm.processor, [an_item(), an_item(caption="A dog.")])
    prompt = tiny_lalm.prompt_from_inputs(made.inputs, ids=["one", "two"])
    assert [item.id for item in prompt.items] == ["one", "two"]
    assert np.isnan(prompt.audio_seconds).all()
    assert torch.equal(prompt.groups["audio"], made.groups["audio"])
    assert torch.equal(prompt.groups["sink"], made.groups["sink"])
    assert torch.equal(sum(m.long() for m in prompt.groups.values()), made.inputs["attention_mask"])
    assert not any(prompt.groups[name].any() for name in ("options", "caption", "template", "generated"))
    assert [item.id for item in tiny_lalm.prompt_from_inputs(made.inputs).items] == ["0", "1"]

    right = {name: tensor.flip(1) for name, tensor in made.inputs.items()}
    with pytest.raises(ModelError, match="not left-padded"):
        tiny_lalm.prompt_from_inputs(right)
    with pytest.raises(ModelError, match="1 ids for 2 rows"):
        tiny_lalm.prompt_from_inputs(made.inputs, ids=["one"])
    lone = made.inputs["input_ids"].clone()
    lone[0][made.groups["audio"][0].nonzero()[1:]] = 0
    with pytest.raises(ModelError, match="one audio placeholder"):
        tiny_lalm.prompt_from_inputs(made.inputs | {"input_ids": lone})
