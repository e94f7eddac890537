"""Scenes and questions: answers and captions agree with the contents of the clip."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mata_interp.organism.bank import RATE, load_bank
from mata_interp.organism.questions import CONDITIONS, COUNTS, DIRECTIONS, DOMAIN, KINDS, make_question
from mata_interp.organism.scenes import LONGEST, SHORTEST, Mixer

BANK = load_bank()


@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2**32),
    split=st.sampled_from(["train", "selection", "confirmation"]),
)
@settings(max_examples=150, deadline=None)
def test_clip_question_and_caption_agree(kind, seed, split):
    rng = np.random.default_rng(seed)
    scene = Mixer(BANK, split, rng).scene(kind)
    question = make_question(kind, scene, BANK, rng)

    assert scene.samples.dtype == np.float32
    assert SHORTEST - 1e-3 <= len(scene.samples) / RATE <= LONGEST + 1e-3
    assert np.isfinite(scene.samples).all()
    assert 0 < abs(scene.samples).max() < 1
    by_name = {r.name: r for r in BANK.recordings}
    assert all(split in by_name[name].splits for name in scene.recordings)
    starts = [e.start for e in scene.events]
    assert starts == sorted(starts)
    for event, following in zip(scene.events, scene.events[1:], strict=False):
        assert event.start + event.seconds <= following.start + 1e-6 or kind == "tempo"

    labels = [e.label for e in scene.events]
    truth = {
        "first": lambda: labels[0],
        "last": lambda: labels[-1],
        "present": lambda: "yes" if question.subject in labels else "no",
        "count": lambda: COUNTS[len(labels) - 1],
        "louder": lambda: scene.facts["louder"],
        "word": lambda: labels[0],
        "voice": lambda: by_name[scene.recordings[0]].voice,
        "direction": lambda: DIRECTIONS[scene.facts["direction"]],
        "instrument": lambda: labels[0],
        "tempo": lambda: "fast" if starts[1] - starts[0] < 0.25 else "slow",
    }[kind]()
    assert question.answer == truth
    assert question.choices.count(question.answer) == 1
    assert len(set(question.choices)) == len(question.choices) >= 2
    assert question.subject in question.text

    wrong = question.wrong_option(rng)
    assert wrong in question.choices
    assert wrong != question.answer
    for claim in (question.answer, wrong):
        assert claim in question.caption(claim, rng)


def test_the_louder_sound_is_louder():
    rng = np.random.default_rng(3)
    mixer = Mixer(BANK, "train", rng)
    for _ in range(20):
        scene = mixer.scene("louder")
        if scene.facts["snr"] < 8:
            continue
        power = {}
        for event in scene.events:
            piece = scene.samples[int(event.start * RATE) : int((event.start + event.seconds) * RATE)]
            power[event.label] = float(np.mean(piece**2))
        assert max(power, key=power.__getitem__) == scene.facts["louder"]


def test_there_are_ten_kinds_over_three_domains_with_several_wordings():
    from mata_interp.organism.questions import CAPTIONS, WORDINGS

    assert len(KINDS) == 10
    assert set(DOMAIN.values()) == {"sound", "speech", "music"}
    assert CONDITIONS == ("neutral", "congruent", "conflict")
    assert all(len(set(WORDINGS[k])) >= 4 and len(set(CAPTIONS[k])) >= 3 for k in KINDS)


def test_a_seed_gives_the_same_clip_and_another_seed_another():
    a, b, c = (
        Mixer(BANK, "confirmation", np.random.default_rng(s)).scene("first").samples for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(a, b)
    assert len(a) != len(c) or not np.array_equal(a, c)
