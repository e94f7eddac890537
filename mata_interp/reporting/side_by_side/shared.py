"""The section on the items that runs share: paired differences, and the difference of their changes."""

from __future__ import annotations

from collections.abc import Sequence

from ..comparisons import CALIBRATION, subset_label
from ..figures import forest
from ..figures.svg import figure_part
from ..parts import Block, Content, FigurePart, Row, Section, Table
from ..wording import count, interval, known, number, p_value, points, printable
from .joining import Contrast
from .sides import Side

__all__ = ["contrast_words", "shared_section"]

COUNTED = ("2nd only", "1st only")
AXIS = "second \u2212 first, percentage points of accuracy"


def shared_section(
    sides: Sequence[Side], accuracy: Sequence[Contrast], margin: Sequence[Contrast]
) -> Section | None:
    """The contrasts of every run with the first; None where no items are shared."""
    if not accuracy and not margin:
        return None
    content: list[Content] = []
    if accuracy:
        content += [("figure", _forest(accuracy)), ("table", _table(accuracy))]
    if margin:
        content.append(("folded", _table(margin)))
    return Section("shared", "The same items under each run", content)


def _forest(rows: Sequence[Contrast]) -> FigurePart:
    sections = []
    for subset in _subsets(rows):
        members = [row for row in rows if dict(row.subset) == subset]
        title = f"{subset_label(subset).capitalize()}"
        sections.append(forest.Section(title, [_forest_row(row) for row in members]))
    return figure_part(
        "paired",
        lambda width: forest.forest(sections, width, COUNTED, AXIS),
        "Paired differences between runs",
        "Differences between runs on the items that they share, with 95 % intervals.",
        "Diamonds: difference of the changes by the intervention. Circles: difference of the answers. Above "
        "zero, the second run is better or gains more. The numbers at the right are items that only the "
        "second, "
        "and only the first, has right.",
    )


def _forest_row(row: Contrast) -> forest.Row:
    effect = row.effect
    label = f"{row.second} \u2212 {row.first}: {printable(row.title, 26)}"
    return forest.Row(
        label, effect.difference, effect.low, effect.high, effect.n, effect.fixed, effect.broken,
        "primary" if row.of_change else "mata",
    )  # fmt: skip


def _subsets(rows: Sequence[Contrast]) -> list[dict[str, str]]:
    return [dict(key) for key in dict.fromkeys(tuple(row.subset.items()) for row in rows)]


def _table(rows: Sequence[Contrast]) -> Table:
    accuracy = rows[0].measure == "accuracy"
    blocks = []
    for subset in _subsets(rows):
        members = [_row(row) for row in rows if dict(row.subset) == subset]
        blocks.append(Block(members, subset_label(subset).capitalize()))
    what, unit = ("accuracy", "points") if accuracy else ("mean margin", "nats")
    clusters = any((row.effect.n_clusters or row.effect.n) < row.effect.n for row in rows)
    methods = sorted({f"{row.effect.interval_method} interval, {row.effect.p_method} test" for row in rows})
    return Table(
        f"Paired differences of {what}.",
        ("Runs", "compared", "n", "clips", "first", "second",
         f"second \u2212 first, {unit} [95\u00a0%\u00a0interval]", "only second right", "only first right",
         "p", "p, Holm"),
        blocks,
        f"Rows on answers compare the two runs item by item; rows on changes compare, item by item, what the "
        f"intervention changed in each (difference of differences). Methods: {'; '.join(methods)}; two-sided"
        f"{'; items that share a clip in either run are one unit' if clusters else ''}. Holm's correction is "
        f"over the {count(len(rows), 'row')} of this table. Nothing was fixed before, so these comparisons "
        f"explore. {CALIBRATION}",
    )  # fmt: skip


def _row(row: Contrast) -> Row:
    effect, accuracy = row.effect, row.measure == "accuracy"

    def form(value: float | None) -> str:
        return points(value) if accuracy else number(value, 2, sign=True)

    def level(value: float) -> str:
        if row.of_change:
            return form(value)
        return number(100 * value, 1) if accuracy else number(value)

    cells = [
        f"{row.first}, {row.second}",
        row.title,
        f"{effect.n:,}",
        f"{effect.n_clusters or effect.n:,}",
        level(effect.before),
        level(effect.after),
        f"{form(effect.difference)} {interval(effect.low, effect.high, form)}",
        "" if effect.fixed is None else str(effect.fixed),
        "" if effect.broken is None else str(effect.broken),
        p_value(effect.p),
        p_value(row.p_holm),
    ]
    data = {
        "contrast": "change" if row.of_change else "answers",
        "measure": row.measure,
        "runs": row.first + row.second,
        "subset": ",".join(f"{column}={printable(value)}" for column, value in row.subset.items()),
        **{
            name: repr(value) if known(value) else ""
            for name, value in {
                "n": effect.n, "difference": effect.difference, "low": effect.low, "high": effect.high,
                "p": effect.p, "p-holm": row.p_holm,
            }.items()
        },
    }  # fmt: skip
    return Row(cells, "primary" if row.of_change else "", data)


def contrast_words(row: Contrast, sides: Sequence[Side]) -> str:
    """A contrast in a sentence; a direction only where it is detected."""
    names = {side.letter: side.label for side in sides}
    effect = row.effect
    what = "the change in accuracy by the intervention" if row.of_change else f"accuracy {row.title}"
    ends = interval(effect.low, effect.high) if known(effect.low) else "without an interval"
    size = f"{points(effect.difference)} points {ends}"
    test = f"Holm-adjusted p {p_value(row.p_holm)}" if known(row.p_holm) else "no p-value"
    items = f"On the {count(effect.n, 'shared item')} ({subset_label(row.subset)})"
    if not row.detected:
        return (
            f"{items}, no difference between {names[row.first]} and {names[row.second]} in {what} is "
            f"detectable: {size}, {test}."
        )
    direction = "larger" if row.of_change else "higher"
    if effect.difference < 0:
        direction = "smaller" if row.of_change else "lower"
    return (
        f"{items}, {what} is {direction} in {names[row.second]} than in {names[row.first]}: {size}, {test}."
    )
