"""Each method of the catalogue with its plain reference and the same method without strength."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from mata_interp.interventions import Knockout, Mata
from mata_interp.interventions import catalogue as c
from tests import reference
from tests.interventions import plain_methods as plain
from tests.tiny import tiny_processor

RATE = 16_000
LAYERS = (1, 2)


def _projections(seed: int) -> torch.Tensor:
    """A random projection of rank 3 per layer and key head: [2, 2, 8, 8]."""
    draw = torch.Generator().manual_seed(seed)
    bases = torch.linalg.qr(torch.randn(2, 2, 8, 3, generator=draw))[0]
    return bases @ bases.transpose(2, 3)


RAISING, LOWERING = _projections(0), _projections(1)
DIRECTIONS = torch.randn(2, 32, generator=torch.Generator().manual_seed(2))
HEADS = {1: (0, 2), 3: (1, 2, 3)}


@dataclass(frozen=True)
class Case:
    """A method, its plain reference for one row, and the same method without strength.

    Attributes:
        reference: ``reference(row, inputs)``, where ``inputs(make)`` are the inputs of the same row of
            another prompt, ``make(lalm, items)``.
        in_prompt: whether the logits at the prompt's last token move.
    """

    method: Any
    reference: Callable[[plain.Row, Callable[[Any], dict]], plain.Forward]
    nothing: Any
    in_prompt: bool = True


def changed_audio(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Any, Any], Any]:
    """A prompt of the same items with their audio changed."""

    def make(lalm, items):
        return lalm.prompt([item.with_audio((change(item.audio[0]), RATE)) for item in items])

    return make


def without_audio(lalm, items):
    return lalm.prompt(items, audio=None)


def ignoring(lalm, items):
    return lalm.prompt([replace(item, question=item.question + " Ignore the audio.") for item in items])


silent = changed_audio(np.zeros_like)
backwards = changed_audio(lambda x: x[::-1].copy())


def _seka(row, _):
    return plain.seka(row, LAYERS, RAISING, LOWERING, 0.8, 0.2)


def _sinks(method):
    def reference_of(row, _):
        return plain.sinks(row, LAYERS, method.dimensions, method.keep, 0.2, 0.5, method.threshold)

    return reference_of


def _pai(row, inputs):
    boosted = plain.add_abs(row, LAYERS, {"audio": 0.5})

    def combine(first, second):
        first_p, second_p = first.log_softmax(-1), second.log_softmax(-1)
        return plain.cut(1.5 * (first_p - second_p) + second_p, first, 0.1)

    return plain.contrast(row, inputs(without_audio), combine, boosted)


def _owl(row, inputs):
    first = plain.add_abs(row, LAYERS, {"audio": 0.4, "text": -0.3})
    second = plain.add_abs(row, LAYERS, {"audio": -0.4, "text": 0.3})
    combine = lambda a, b: plain.cut(a + 2 * (a - b), a, 0.1)  # noqa: E731
    return plain.contrast(row, row.inputs, combine, first, second)


def _adaptive_owl(row, inputs):
    first = plain.opposed(row, LAYERS, 0.2, 0.3, 4.0)
    second = plain.opposed(row, LAYERS, -0.2, -0.3, 4.0)
    combine = lambda a, b: plain.cut(a + 2 * (a - b), a, 0.1)  # noqa: E731
    return plain.contrast(row, row.inputs, combine, first, second)


def _keywords(row) -> set[int]:
    """Positions of the bytes of two words of the questions: the tokens of the tiny model are bytes."""
    places = row.groups["question"].nonzero().flatten().tolist()
    ids = row.inputs["input_ids"][0, places].tolist()
    text = [PROCESSOR.tokenizer.decode([token]) for token in ids]
    chosen, word = set(), []
    for place, letter in [*zip(places, text, strict=True), (-1, " ")]:
        if letter.isalnum():
            word.append((place, letter))
            continue
        if "".join(one for _, one in word).lower() in ("first", "how"):
            chosen |= {at for at, _ in word}
        word = []
    return chosen


def _tad(row, inputs):
    return plain.contrast(
        row, inputs(without_audio), lambda a, b: plain.tad(a, b, (65, 66), (67, 70), 0.5, 0.5, 2.5)
    )


def _avcd(row, inputs):
    def combine(a, b):
        entropy = -(a.softmax(-1) * a.log_softmax(-1)).sum(-1, keepdim=True)
        return torch.where(entropy > 0.6, 2.5 * a - 1.5 * b, a)

    return plain.contrast(row, row.inputs, combine, None, plain.hide_salient(row, LAYERS))


def _aad(make, strength=0.5):
    def reference_of(row, inputs):
        return plain.contrast(row, inputs(make), lambda a, b: (1 + strength) * a - strength * b)

    return reference_of


def _acd(row, inputs):
    return plain.contrast(row, inputs(silent), lambda a, b: plain.cut(2 * a - b, a, 0.1))


def _amti(row, inputs):
    return plain.contrast(row, inputs(ignoring), lambda a, b: plain.amti(a, b, 2.0, 3.0))


PROCESSOR = tiny_processor()
SINKS = c.SinkRedistribution(LAYERS, (3, 17), keep=0.3, threshold=1.6)
SPECIALISTS = c.AudioSpecialists((3,), (1, 2), 0.8)
RAISES = {"raising": c.Array(RAISING), "lowering": c.Array(LOWERING)}
MULTIPLE = plain.multiply

CASES = {
    "mata abs": Case(
        Mata(0.8, LAYERS), lambda r, _: plain.add_abs(r, LAYERS, {"audio": 0.8}), Mata(0.0, LAYERS)
    ),
    "mata mul": Case(
        Mata(0.8, LAYERS, "mul"), lambda r, _: MULTIPLE(r, LAYERS, {"audio": 1.8}), Mata(0.0, LAYERS, "mul")
    ),
    "mata add": Case(
        Mata(0.8, LAYERS, "add"), lambda r, _: plain.add(r, LAYERS, {"audio": 0.8}), Mata(0.0, LAYERS, "add")
    ),
    "knockout": Case(
        Knockout(LAYERS), lambda r, _: plain.add(r, LAYERS, {"audio": -torch.inf}), Knockout([])
    ),
    "pai": Case(
        c.Pai(LAYERS, 0.5), lambda r, _: plain.add_abs(r, LAYERS, {"audio": 0.5}), c.Pai(LAYERS, 0.0)
    ),
    "pai with guidance": Case(c.Pai(LAYERS, 0.5, 1.5), _pai, c.Pai(LAYERS, 0.0)),
    "hgai": Case(c.Hgai(LAYERS), lambda r, _: plain.hgai(r, LAYERS, 0.5), c.Hgai(LAYERS, 0.0)),
    "iat": Case(
        c.Iat(LAYERS),
        lambda r, _: plain.add_abs(r, LAYERS, {"generated": 0.8}),
        c.Iat(LAYERS, 0.0),
        in_prompt=False,
    ),
    "vaf": Case(
        c.Vaf(LAYERS, 1.5, 0.8),
        lambda r, _: MULTIPLE(r, LAYERS, {"audio": 1.5, "template": 0.8}, "text"),
        c.Vaf(LAYERS, 1.0, 1.0),
    ),
    "scaling": Case(
        c.Scaling(LAYERS), lambda r, _: MULTIPLE(r, LAYERS, {"audio": 2.0}), c.Scaling(LAYERS, 1.0)
    ),
    "gated scaling": Case(
        c.GatedScaling(LAYERS, 2.0, 0.5, 0.175),
        lambda r, _: plain.gated_scaling(r, LAYERS, 2.0, 0.5, 0.175),
        c.GatedScaling(LAYERS, 1.0, 1.0),
    ),
    "owl": Case(c.Owl(LAYERS, 0.4, 0.3), _owl, c.Owl(LAYERS, 0.0, 0.0, 0.0)),
    "owl, adaptive": Case(
        c.Owl(LAYERS, 0.2, 0.3, ratio=4.0), _adaptive_owl, c.Owl(LAYERS, 0.0, 0.0, 0.0, ratio=4.0)
    ),
    "keyword scaling": Case(
        c.KeywordScaling(LAYERS, 3.0, words=("first", "how")),
        lambda r, _: plain.keyword_scaling(r, LAYERS, 3.0, _keywords(r)),
        c.KeywordScaling(LAYERS, 1.0, words=("first", "how")),
    ),
    "paint": Case(
        c.Paint(LAYERS, share=0.3),
        lambda r, _: plain.paint(r, LAYERS, 0.7, 0.3, 0.3),
        c.Paint(LAYERS, 0.0, 0.0),
    ),
    "caac": Case(
        c.Caac(LAYERS, 0.9),
        lambda r, _: plain.caac(r, LAYERS, 0.9, 0.25),
        c.Caac(LAYERS, 0.0),
        in_prompt=False,
    ),
    "pasta": Case(
        c.Pasta(LAYERS, ((0, 2), (1,)), 0.1),
        lambda r, _: plain.pasta(r, {1: (0, 2), 2: (1,)}, 0.1),
        c.Pasta(LAYERS, ((0, 2), (1,)), 1.0),
    ),
    "spotlight": Case(
        c.SpotLight(LAYERS, 0.5), lambda r, _: plain.spotlight(r, LAYERS, 0.5), c.SpotLight(LAYERS, 0.0)
    ),
    "instaboost": Case(
        c.InstABoost(LAYERS), lambda r, _: plain.instaboost(r, LAYERS, 3.0), c.InstABoost(LAYERS, 1.0)
    ),
    "sinks": Case(SINKS, _sinks(SINKS), c.SinkRedistribution(LAYERS, (3, 17), keep=1.0, threshold=1.6)),
    "ad-hh": Case(
        c.AdHh(tuple(HEADS), tuple(HEADS.values())),
        lambda r, _: plain.adhh(r, HEADS, 0.4),
        c.AdHh(tuple(HEADS), tuple(HEADS.values()), strength=0.0),
    ),
    **{
        f"sham {kind}": Case(
            c.ShamAttention(LAYERS, kind),
            lambda r, _, kind=kind: plain.sham(r, LAYERS, kind),
            c.ShamAttention(LAYERS, kind, 0.0),
        )
        for kind in c.SHAMS
    },
    "head mask": Case(
        c.HeadMask(tuple(HEADS), tuple(HEADS.values())),
        lambda r, _: plain.head_mask(r, HEADS),
        c.HeadMask(tuple(HEADS), tuple(HEADS.values()), 0.0),
    ),
    "seka": Case(c.Seka(LAYERS, **RAISES), _seka, c.Seka(LAYERS, up=0.0, down=0.0, **RAISES)),
    "value scaling": Case(
        c.ValueScaling(LAYERS),
        lambda r, _: plain.value_scaling(r, LAYERS, 1.5),
        c.ValueScaling(LAYERS, 1.0),
    ),
    "steering, given": Case(
        c.Steering((0, 2), 0.6, c.Array(DIRECTIONS)),
        lambda r, _: plain.steering(r, {0: DIRECTIONS[0], 2: DIRECTIONS[1]}, 0.6),
        c.Steering((0, 2), 0.0, c.Array(DIRECTIONS)),
    ),
    "steering, measured": Case(
        c.Steering((0, 2), 0.6),
        lambda r, inputs: plain.measured_steering(r, (0, 2), 0.6, inputs(without_audio)),
        c.Steering((0, 2), 0.0),
    ),
    "audio specialists": Case(
        SPECIALISTS,
        lambda r, inputs: plain.specialists(r, 3, (1, 2), 0.8, inputs(silent)),
        c.AudioSpecialists((3,), (1, 2), 0.0),
    ),
    "patch of layers": Case(
        c.ActivationPatch(LAYERS),
        lambda r, inputs: plain.patched(r, LAYERS, inputs(silent)),
        c.ActivationPatch(()),
    ),
    "patch of heads": Case(
        c.ActivationPatch(tuple(HEADS), "head_output", tuple(HEADS.values()), negative="reversed"),
        lambda r, inputs: plain.patched(r, list(HEADS), inputs(backwards), HEADS),
        c.ActivationPatch((), "head_output"),
    ),
    "aad omitted": Case(c.Aad(0.5), _aad(without_audio), c.Aad(0.0)),
    "aad silent": Case(c.Aad(2.5, "silent"), _aad(silent, 2.5), c.Aad(0.0, "silent")),
    "aad reversed": Case(c.Aad(2.5, "reversed"), _aad(backwards, 2.5), c.Aad(0.0, "reversed")),
    "acd": Case(c.Acd(1.0, negative="silent"), _acd, c.Acd(0.0)),
    "amti": Case(c.Amti(bits=3.0), _amti, c.Amti(1.0)),
    "tad": Case(c.Tad((65, 66), (67, 70), 0.5, 0.5), _tad, c.Tad((65,), (67,), 0.0, penalty=0.0)),
    "hidden salient tokens": Case(
        c.HideSalient(LAYERS), lambda r, _: plain.hide_salient(r, LAYERS), c.HideSalient(LAYERS, 0.0)
    ),
    "avcd": Case(c.Avcd(LAYERS, 1.5), _avcd, c.Avcd(LAYERS, 0.0)),
    "dola": Case(c.Dola((0, 1, 2)), lambda r, _: plain.dola(r, (0, 1, 2), 0.1), c.Dola((0, 1), 0.0)),
    "target share": Case(
        c.DoseTargetedMata(LAYERS, 0.7),
        lambda r, _: plain.target_share(r, LAYERS, 0.7),
        c.DoseTargetedMata(LAYERS, 0.7, below=0.0),
    ),
    "target share, low heads": Case(
        c.DoseTargetedMata(LAYERS, 0.6, below=0.1),
        lambda r, _: plain.target_share(r, LAYERS, 0.6, below=0.1),
        c.DoseTargetedMata(LAYERS, 0.6, below=0.0),
    ),
    "target share, some heads, matched": Case(
        c.DoseTargetedMata((1, 3), 0.3, heads=tuple(HEADS.values()), matched=True),
        lambda r, _: plain.target_share(r, (1, 3), 0.3, heads=HEADS, matched=True),
        c.DoseTargetedMata((), 0.6),
    ),
    "target share, sham": Case(
        c.DoseTargetedSham(LAYERS, 0.5),
        lambda r, _: plain.target_share(r, LAYERS, 0.5, on="text"),
        c.DoseTargetedSham(LAYERS, 0.5, below=0.0),
    ),
}


def row_of(eager: Any, prompt: Any, row: int) -> plain.Row:
    """One row of a prompt without its padding."""
    real = prompt.inputs["attention_mask"][row].bool()
    groups = {name: mask[row][real] for name, mask in prompt.groups.items()}
    return plain.Row(eager, reference.single(prompt.inputs, row), groups)


def reference_of(case: Case, lalm: Any, eager: Any, prompt: Any, row: int) -> plain.Forward:
    """The plain reference of a case, for one row of a prompt."""

    def inputs(make: Callable[[Any, Any], Any]) -> dict:
        return reference.single(make(lalm, prompt.items).inputs, row)

    return case.reference(row_of(eager, prompt, row), inputs)
