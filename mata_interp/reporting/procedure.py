"""The section on what the answer depends on: the selection procedure, and answers that change by rounding."""

from __future__ import annotations

from ..experiments import Run
from ..experiments.study_result import Configuration
from .parts import Block, Content, Row, Section, Table
from .registration import registration_sentence
from .wording import count, interval, named_layers, number, p_value, percent, points

__all__ = ["extra_sentences", "procedure_section"]


def procedure_section(run: Run) -> Section | None:
    """The cross-fitted selection and the A/A run; None for a run that has neither."""
    content: list[Content] = [
        ("text", sentence) for sentence in (crossfit_sentence(run), repeat_sentence(run)) if sentence
    ]
    if run.crossfit is not None:
        content.append(("folded", _often(run)))
    return Section("procedure", "Selection procedure and repetition", content) if content else None


def extra_sentences(run: Run) -> list[str]:
    """A sentence for each of cross-fitting, repetition and preregistration that the study has."""
    sentences = (crossfit_sentence(run), repeat_sentence(run), registration_sentence(run))
    return [sentence for sentence in sentences if sentence]


def crossfit_sentence(run: Run) -> str:
    """The effect of the selection procedure, and what it is an effect of; empty without cross-fitting."""
    result = run.crossfit
    if result is None:
        return ""
    accuracy, margin = result.accuracy, result.margin
    different = len(set(result.chosen))
    return (
        f"Effect of the selection procedure, cross-fitted: layers and strength are chosen among "
        f"{result.configurations:,} configurations without each of {accuracy.folds} folds of the clips, and "
        f"measured on that fold ({count(accuracy.n, 'item')}, {count(accuracy.n_clusters, 'clip')} of both "
        f"splits). It changes accuracy by {points(accuracy.difference)} points "
        f"{interval(accuracy.low, accuracy.high)} (p {p_value(accuracy.p)}) and the margin by "
        f"{_nats(margin.difference)} nats {interval(margin.low, margin.high, _nats)}. The selection is "
        f"repeated in every resample. The folds chose {count(different, 'different configuration')}. This is "
        "an effect of choosing in this way, not of one configuration."
    )


def repeat_sentence(run: Run) -> str:
    """How many answers the baseline's repetition changes, beside MATA; empty without one."""
    result = run.repeat
    if result is None:
        return ""
    again, mata = result.repeat, result.mata
    return (
        f"Repeating the baseline with batches of {result.batch_size} instead of {result.first_batch_size} "
        f"changes {count(again.changed, 'answer')} of {again.items:,} ({percent(again.churn)}; {again.fixed} "
        f"corrected, {again.broken} broken); MATA changes {mata.changed:,} ({percent(mata.churn)})."
    )


def _often(run: Run) -> Table:
    assert run.crossfit is not None
    rows = [
        Row([_named(one.configuration), percent(one.frequency)], "", {"frequency": repr(one.frequency)})
        for one in run.crossfit.often
    ]
    return Table(
        "How often each configuration is chosen, over folds and resamples.",
        ("Configuration", "Chosen"),
        [Block(rows)],
        "The most frequent ones. Many different choices mean that the selection is not robust.",
    )


def _named(configuration: Configuration) -> str:
    return f"{named_layers(configuration.layers)}, \u03b1 {configuration.alpha:g}"


def _nats(value: float | None) -> str:
    return number(value, 2, sign=True)
