"""The page of a replication: every combination as a row of a forest plot, controls, accuracies, published
numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

import mata_interp as mi
from mata_interp.reporting.figures.forest import Row, Section, forest
from mata_interp.reporting.figures.svg import responsive
from mata_interp.reporting.render import style_sheet

from .replication import Choices, published_rows, readings

__all__ = ["write_page"]

TEMPLATE = Path(__file__).with_name("replication.jinja")


def write_page(
    path: Path,
    lalm: mi.LALM,
    choices: Choices,
    runs: Mapping[tuple[str, str], mi.Run],
    effects: pd.DataFrame,
    accuracies: pd.DataFrame,
) -> Path:
    """Write the page, one file without links to others; returns its path."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    first = next(iter(runs.values()))
    left_out = {name: len(run.excluded) for name, run in runs.items() if run.excluded}
    rounded = accuracies.assign(
        option_aware=(100 * accuracies["option_aware"]).round(1),
        official=[("" if value != value else round(100 * value, 1)) for value in accuracies["official"]],
    )
    text = environment.from_string(TEMPLATE.read_text("utf-8")).render(
        model=lalm.name,
        style=style_sheet(),
        answer=_answer(effects),
        choices=choices,
        readings=readings(lalm, choices),
        figures=[_figure(keys, rows) for keys, rows in _groups(effects)],
        accuracies=rounded.to_dict("records"),
        published=published_rows(),
        command=first.manifest["command"],
        excluded="No item was left out."
        if not left_out
        else "Items left out: "
        + "; ".join(f"{name}, {prompt}: {n}" for (name, prompt), n in left_out.items()),
    )
    path.write_text(text, encoding="utf-8")
    return path


def _groups(effects: pd.DataFrame) -> list[tuple[tuple[str, ...], pd.DataFrame]]:
    columns = ["benchmark", "prompt", "answers", "score"]
    return [(tuple(map(str, keys)), rows) for keys, rows in effects.groupby(columns, sort=False)]  # type: ignore[arg-type]


def _figure(keys: tuple[str, ...], rows: pd.DataFrame) -> dict[str, Any]:
    """One forest plot with what its caption says."""
    benchmark, prompt, answers, score = keys
    sections = [
        Section(title, [_row(row, style) for _, row in rows.loc[rows["role"] == role].iterrows()])
        for title, role, style in (("MATA", "MATA", "mata"), ("controls", "control", "sham"))
    ]
    title = f"{benchmark}, prompt {prompt}, {answers} answers, {score} score"
    name = "-".join(part.replace(" ", "-") for part in keys)
    svg: Markup = responsive(lambda width: forest(sections, width), name, title)
    of_mata = rows.loc[rows["role"] == "MATA"].iloc[0]
    return {
        "title": title,
        "svg": svg,
        "before": f"{100 * of_mata['before']:.1f} %",
        "chance": f"{100 * of_mata['chance']:.1f} %",
        "n": int(of_mata["n"]),
    }


def _row(row: Any, style: str) -> Row:
    label = str(row["condition"]).rsplit(" (", 1)[0]
    return Row(
        label,
        row["difference"],
        row["low"],
        row["high"],
        int(row["n"]),
        int(row["fixed"]),
        int(row["broken"]),
        style,
    )


def _answer(effects: pd.DataFrame) -> str:
    """What the combinations show, whichever way they fall."""
    of_mata = effects.loc[effects["role"] == "MATA"]
    significant = of_mata["p_adjusted"] < 0.05
    raised, lowered = (
        (significant & (of_mata["difference"] > 0)).sum(),
        (significant & (of_mata["difference"] < 0)).sum(),
    )
    low, high = 100 * of_mata["difference"].min(), 100 * of_mata["difference"].max()
    return (
        f"Of {len(of_mata)} combinations of rule, layers, phase, prompt, way of answering and score, MATA "
        f"raises accuracy in {raised} and lowers it in {lowered} after correction for their number. The "
        f"changes range from {low:+.1f} to {high:+.1f} points."
    ).replace("-", "\N{MINUS SIGN}")
