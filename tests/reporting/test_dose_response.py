"""What the page says of dose and response follows from the numbers."""

from __future__ import annotations

from dataclasses import replace
from math import nan
from typing import Any

import pytest

from mata_interp.experiments import Effects
from mata_interp.experiments.dose_response import (
    FIXED,
    INCOMPLETE,
    REPEATED,
    DoseAssociation,
    DosePoint,
    DoseResponse,
)
from mata_interp.reporting.dose_response import association_words, dose_response_content, trend_words
from mata_interp.statistics.choices import REFUSED

POINTS = (DosePoint(0.5, 0.1, -0.1, 0.3), DosePoint(1.0, 0.4, 0.1, 0.7))
CURVE = DoseResponse((1, 2), POINTS, 24, 12, 0.95, 0.2, 0.003, REPEATED)
ASSOCIATION = DoseAssociation(
    {"caption_condition": "conflict"}, 40, 20, 0.41, 0.2, 0.6, -0.3, 0.3, 0.004, "permutations of clips"
)


def test_a_trend_is_said_only_if_its_test_shows_it():
    assert "It rises with alpha" in trend_words(CURVE)
    assert "It falls with alpha" in trend_words(replace(CURVE, slope=-0.2))
    weak = trend_words(replace(CURVE, p=0.2))
    assert "No trend over alpha is detectable" in weak
    assert "rises" not in weak


@pytest.mark.parametrize(("method", "optimistic"), [(REPEATED, True), (FIXED, False)])
def test_a_curve_on_the_items_of_the_choice_is_called_optimistic(method, optimistic):
    text = trend_words(replace(CURVE, p_method=method))
    assert ("optimistic" in text) == ("repeats the choice" in text) == optimistic
    assert "0.003" in text


@pytest.mark.parametrize("method", [REFUSED, INCOMPLETE])
def test_a_trend_without_a_test_has_no_p_value(method):
    text = trend_words(replace(CURVE, p=nan, p_method=method))
    assert "not tested" in text
    assert "p " not in text.replace("alpha ", "")
    assert "rises" not in text
    assert "detectable" not in text


def test_an_association_is_never_called_mediation():
    shown = association_words(ASSOCIATION)
    for number in ("+0.41", "+0.20", "+0.60", "0.004", "40 tested items"):
        assert number in shown
    hidden = association_words(replace(ASSOCIATION, p=0.4))
    assert ("not detectably different" in shown, "not detectably different" in hidden) == (False, True)
    refused = association_words(replace(ASSOCIATION, p=nan, p_method=REFUSED))
    assert "no p-value" in refused
    assert "detectably" not in refused
    for text in (shown, hidden, refused):
        assert "does not show that attention mediates" in text
    assert "no correlation" in association_words(replace(ASSOCIATION, rho=nan))


def test_what_a_study_does_not_have_is_not_shown():
    assert dose_response_content(None, 1.0) == []
    assert dose_response_content(Effects(), 1.0) == []
    content = dose_response_content(Effects(dose_response=CURVE, association=ASSOCIATION), 1.0)
    assert [kind for kind, _ in content] == ["figure", "text"]
    without_band = replace(CURVE, points=tuple(replace(p, low=nan, high=nan) for p in POINTS))
    figure: Any = dose_response_content(Effects(dose_response=without_band), 1.0)[0][1]
    assert "without a band" in figure.caption
