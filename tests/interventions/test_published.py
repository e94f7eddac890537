"""One definition of the published layers, at every depth."""

from __future__ import annotations

import pytest

from mata_interp.errors import ArgumentError
from mata_interp.interventions import published_convention, published_layers


@pytest.mark.parametrize(
    ("count", "options", "expected"),
    [
        (28, {}, range(10, 21)),
        (32, {}, range(10, 21)),
        (32, {"end": "exclusive"}, range(10, 20)),
        (28, {"convention": "relative"}, range(10, 21)),
        (28, {"convention": "relative", "end": "exclusive"}, range(10, 20)),
        (32, {"convention": "relative"}, range(11, 24)),
        (32, {"convention": "relative", "end": "exclusive"}, range(11, 23)),
        (40, {}, range(14, 30)),
        (40, {"convention": "absolute"}, range(10, 21)),
        (12, {}, range(4, 9)),
        (8, {}, range(3, 6)),
        (3, {}, range(1, 2)),
        (2, {}, range(1, 2)),
        (1, {}, range(1)),
    ],
)
def test_layers(count, options, expected):
    assert published_layers(count, **options) == tuple(expected)


def test_of_a_model_with_layers_that_have_no_attention(tiny_lalm):
    assert published_layers(tiny_lalm) == published_layers(4) == (1, 2)

    class Hybrid:
        attention_layers = (1, 3, 5)

    assert published_layers(Hybrid()) == (3,)


def test_the_convention_is_named():
    assert published_convention(28).startswith("absolute: layers 10-20")
    assert "10/28 to 20/28 of 40 layers" in published_convention(40, end="exclusive")


@pytest.mark.parametrize(
    ("count", "options", "message"),
    [
        (28, {"convention": "absolut"}, "'absolut'.*Did you mean 'absolute'"),
        (28, {"end": "open"}, "'open'.*inclusive, exclusive"),
        (12, {"convention": "absolute"}, "12 layers"),
        (0, {}, "0 layers"),
    ],
)
def test_what_makes_no_sense(count, options, message):
    with pytest.raises(ArgumentError, match=message):
        published_layers(count, **options)
