"""The table of methods as Markdown, and its figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import seaborn as sns

__all__ = ["draw", "write_page"]

OURS, OTHERS, CONTROL = "#c23b22", "0.2", "0.72"


def draw(results: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Change of accuracy with its interval, one column for each model, sorted by the lower end.

    Grey: the same method with another clip's audio, against that audio without it.
    """
    sns.set_theme(style="ticks", context="paper")
    most = max(len(result["methods"]) for result in results)
    figure, axes = plt.subplots(
        1, len(results), figsize=(4.4 * len(results), 1.2 + 0.19 * most), squeeze=False, sharex=True
    )
    for axis, result in zip(axes[0], results, strict=True):
        for y, row in enumerate(result["methods"]):
            colour = OURS if row["method"].startswith(("MATA", "target share")) else OTHERS
            low, high = (100 * row[f"accuracy_{end}"] for end in ("low", "high"))
            axis.plot([low, high], [y, y], color=colour, linewidth=1.3)
            axis.plot(100 * row["accuracy"], y, "o", color=colour, markersize=4)
            axis.plot(100 * row["control"], y + 0.28, "|", color=CONTROL, markersize=5)
        names = [row["method"] for row in result["methods"]]
        axis.set_yticks(range(len(names)), names, fontsize=6.5)
        axis.set_ylim(len(names) - 0.4, -0.6)
        axis.axvline(0, color="0.8", linewidth=0.8, zorder=0)
        items = result["methods"][0]["items"] if result["methods"] else 0
        axis.set_title(f"{result['model']}, {items} items", loc="left", fontsize=8)
        axis.set_xlabel("change of accuracy, points\n(grey: with another clip's audio)", fontsize=7)
    sns.despine(figure)
    figure.tight_layout()
    figure.savefig(path, dpi=160)
    plt.close(figure)


def write_page(results: Sequence[Mapping[str, Any]], path: Path, figure: Path, command: str) -> None:
    """One Markdown page: for each model the answers, the contests and the table."""
    lines = ["# MATA among its rivals", "", f"`{command}`", "", f"![Change of accuracy]({figure.name})", ""]
    for result in results:
        lines += [f"## {result['model']}", "", result["sentence"], ""]
        lines += ["| contest | difference, points | 95 % interval | p | p, Holm |", "|---|---|---|---|---|"]
        for row in result["contests"]:
            lines.append(
                f"| {row['after']} minus {row['before']} | {_points(row['difference'])} | "
                f"{_points(row['low'])} to {_points(row['high'])} | {_p(row['p'])} | {_p(row['p_holm'])} |"
            )
        for row in result["shams"]:
            lines += [
                "",
                f"{row['condition']}: {_points(row['difference'])} points ({_points(row['low'])} to "
                f"{_points(row['high'])}); KL {_number(row['dose_kl'])}; {100 * row['left_alone']:.0f} % of "
                "the rows have no solution on text and are left alone in both.",
            ]
        lines += ["", *_table(result), "", _notes(result), ""]
    path.write_text("\n".join(lines), encoding="utf-8")


HEAD = (
    "method", "accuracy, %", "change, points", "95 % interval", "corrected / broken", "p, Holm",
    "margin, nats", "other audio, points", "no harm", "KL rows", "KL options", "left alone",
    "cost, prompt", "cost, token", "settings",
)  # fmt: skip


def _table(result: Mapping[str, Any]) -> list[str]:
    lines = [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    for row in result["methods"]:
        harm = row["harm"]
        cells = [
            row["method"],
            f"{100 * row['after']:.1f}",
            _points(row["accuracy"]),
            f"{_points(row['accuracy_low'])} to {_points(row['accuracy_high'])}",
            f"{row['fixed']} / {row['broken']}",
            _p(row["p_holm"]),
            f"{row['margin']:+.2f}",
            f"{_points(row['control'])} ({_points(row['control_low'])} to {_points(row['control_high'])})",
            "" if not harm else f"{'yes' if harm['none'] else 'not shown'} ({_points(harm['difference'])})",
            _number(row["dose_kl"]),
            _number(row["option_kl"]),
            "" if row["left_alone"] is None else f"{100 * row['left_alone']:.0f} %",
            f"{row['cost_prompt']:.2f}",
            f"{row['cost_token']:.2f}",
            row["settings"].replace("|", "\\|"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _notes(result: Mapping[str, Any]) -> str:
    return (
        f"Each method was tuned over {result['budget']} configurations on {result['selection_items']} items "
        f"of the selection split, by the mean log-probability difference, and tested on "
        f"{result['methods'][0]['items']} other items ({result['methods'][0]['clips']} clips) with "
        f"{result['subset']}. Accuracy without a method: {100 * result['methods'][0]['before']:.1f} %. "
        "Sorted by the lower end of the interval. p: Holm-adjusted over the methods. Other audio: change by "
        "the method with another clip's audio. No harm: change within 5 points on the other items (two "
        "one-sided tests, Holm over methods). KL rows: of the edited attention rows; KL options: of the "
        "distribution over the options. Cost: tokens that the decoder reads, relative to none."
    )


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _p(value: float) -> str:
    return "" if value != value else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _number(value: float | None) -> str:
    return "" if value is None or value != value else f"{value:.3f}"
