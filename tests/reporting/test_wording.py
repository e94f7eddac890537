import math

import pytest

from mata_interp.reporting.wording import (
    count,
    interval,
    layer_range,
    listing,
    named_layers,
    number,
    p_value,
    percent,
    points,
    printable,
    runs,
)


@pytest.mark.parametrize(
    ("value", "digits", "sign", "text"),
    [
        (1.005, 1, False, "1.0"),
        (-1.5, 2, False, "\u22121.50"),
        (1.5, 1, True, "+1.5"),
        (-0.0001, 2, True, "0.00"),  # what rounds to zero has no sign
        (12345.6, 0, False, "12,346"),
        (None, 2, False, "\u2014"),
        (math.nan, 2, False, "\u2014"),
        (math.inf, 2, False, "\u2014"),
    ],
)
def test_numbers(value, digits, sign, text):
    assert number(value, digits, sign) == text


def test_rates_and_differences():
    assert percent(0.5512) == "55.1\u202f%"
    assert percent(None) == "\u2014"
    assert points(0.0612) == "+6.1"
    assert points(-0.0612) == "\u22126.1"
    assert interval(0.02, 0.101) == "[+2.0, +10.1]"
    assert interval(None, 0.1) == "\u2014"


@pytest.mark.parametrize(
    ("p", "text"),
    [(0.0004, "<\u202f0.001"), (0.0123, "0.012"), (0.34, "0.34"), (1.0, "1.00"), (None, "\u2014")],
)
def test_p_values(p, text):
    assert p_value(p) == text


def test_layers():
    assert layer_range((9, 3, 4, 5, 4)) == "3\u20135, 9"
    assert layer_range(()) == "none"
    assert named_layers([3]) == "layer 3"
    assert named_layers([4, 3]) == "layers 3\u20134"
    assert named_layers([]) == "no layers"
    assert runs([7, 0, 1]) == [(0, 1), (7, 7)]


def test_words():
    assert listing(["a"]) == "a"
    assert listing(["a", "b", "c"]) == "a, b and c"
    assert count(1, "item") == "1 item"
    assert count(2000, "item") == "2,000 items"
    assert count(2, "batch", "batches") == "2 batches"


def test_what_drives_a_terminal_is_taken_out():
    assert printable("a\x1b[31mb\nc\x00d") == "a\ufffd[31mb c\ufffdd"
    assert printable("\u202eevil") == "evil"  # turns the direction of writing
    assert printable("狗 ✓ é") == "狗 ✓ é"
    assert printable("abcdef", 4) == "abc…"
