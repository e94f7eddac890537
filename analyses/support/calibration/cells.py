"""The cells of the calibration: one kind of data each, named, with its settings and number of replicates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .answers import answers
from .families import band, sweep
from .margins import margins
from .procedures import crossfit
from .rates import rates, wilson
from .remaining import association, power, strata, trend
from .rows import Row
from .studies import studies

__all__ = ["CELLS", "Cell"]

KINDS: dict[str, Callable[..., list[Row]]] = {
    "answers": answers,
    "margins": margins,
    "sweep": sweep,
    "band": band,
    "rates": rates,
    "strata": strata,
    "trend": trend,
    "association": association,
    "power": power,
    "wilson": wilson,
    "study": studies,
    "crossfit": crossfit,
}


@dataclass(frozen=True)
class Cell:
    """One kind of simulated data.

    Attributes:
        name: unique, and the seed's name.
        kind: which simulation, one of `KINDS`.
        about: what the settings are like, in a few words.
        settings: its arguments.
        limit: largest number of replicates, where one takes long; None: no limit.
    """

    name: str
    kind: str
    about: str
    settings: dict[str, Any] = field(default_factory=dict)
    limit: int | None = None

    def run(self, replicates: int, rng: np.random.Generator) -> list[Row]:
        """The rows of this cell.

        Args:
            replicates: number of replicates, up to ``limit``.
            rng: generator of the data.
        """
        count = replicates if self.limit is None else min(replicates, self.limit)
        return KINDS[self.kind](self.name, count, rng, **self.settings)


def _answer_cells() -> list[Cell]:
    """Discordance: the organism's conflict (0.2825), neutral (0.0725) and congruent items (0.025), from
    tests/experiments/shipped_effects.json; the assembled model with and without audio (77.1 and 21.7 %);
    MMAU test-mini, Qwen2-Audio 59.4 -> 64.8 %, where the discordance is not published and 0.12 is assumed."""
    cells = []
    single = (1, 1)
    for n in (50, 100, 400, 1000):
        for source, discordance in (("conflict", 0.2825), ("neutral", 0.0725), ("congruent", 0.025)):
            settings = {"clips": n, "items": single, "fixed": discordance / 2, "broken": discordance / 2}
            cells.append(
                Cell(
                    f"answers {n} items, {source}, no effect",
                    "answers",
                    f"organism, {source} captions",
                    settings,
                )
            )
    effects = [
        ("organism, conflict captions", 400, 0.275, 0.0075),
        ("organism, neutral captions", 400, 0.035, 0.0375),
        ("assembled model, audio against none", 240, 0.60, 0.046),
        ("MMAU, Qwen2-Audio", 1000, 0.087, 0.033),
        ("MMAU, Qwen2.5-Omni", 1000, 0.0625, 0.0375),
        ("harm of 5 points", 400, 0.04, 0.09),
    ]
    for source, n, fixed, broken in effects:
        settings = {"clips": n, "items": single, "fixed": fixed, "broken": broken}
        cells.append(Cell(f"answers {n} items, {source}", "answers", source, settings))
    for clips in (8, 20, 50, 200):
        for items in ((2, 4), (2, 20)):
            for discordance in (0.2825, 0.0725):
                name = f"answers {clips} clips of {items[0]}-{items[1]}, discordance {discordance:g}"
                settings = {
                    "clips": clips,
                    "items": items,
                    "fixed": discordance / 2,
                    "broken": discordance / 2,
                    "correlation": 0.5,
                }
                cells.append(Cell(f"{name}, no effect", "answers", "clips of several items", settings))
    for clips in (20, 200):
        settings = {"clips": clips, "items": (2, 4), "fixed": 0.09, "broken": 0.04, "correlation": 0.5}
        cells.append(Cell(f"answers {clips} clips of 2-4, +5 points", "answers", "an effect", settings))
        settings = settings | {"fixed": 0.04, "broken": 0.09}
        cells.append(Cell(f"answers {clips} clips of 2-4, -5 points", "answers", "harm", settings))
    return cells


def _margin_cells() -> list[Cell]:
    cells = []
    for clips, items in (
        (12, (1, 1)),
        (20, (1, 1)),
        (50, (1, 1)),
        (400, (1, 1)),
        (8, (2, 20)),
        (20, (2, 4)),
        (20, (2, 20)),
        (100, (2, 20)),
    ):
        for shape in ("normal", "skewed", "heavy", "sparse"):
            many = f"{clips} items" if items == (1, 1) else f"{clips} clips of {items[0]}-{items[1]}"
            settings = {"clips": clips, "items": items, "shape": shape, "correlation": 0.3}
            if items == (1, 1):
                settings["correlation"] = 0.0
            cells.append(Cell(f"margins {many}, {shape}", "margins", "no effect", settings))
    settings = {"clips": 400, "items": (1, 1), "shape": "normal"}
    cells.append(Cell("margins 400 items, harm", "margins", "harm at the margin", settings | {"mean": -0.1}))
    cells.append(Cell("margins 400 items, effect", "margins", "an effect", settings | {"mean": 0.15}))
    return cells


def _family_cells() -> list[Cell]:
    cells = []
    for clips, items in ((10, (1, 4)), (50, (1, 4)), (96, (1, 1))):
        for label, options in (
            ("normal", {"shape": "normal"}),
            ("skewed", {"shape": "skewed"}),
            ("answers", {"shape": "normal", "answers": True}),
            ("five effects", {"shape": "normal", "effects": 5, "size": 0.35}),
        ):
            settings = {"clips": clips, "items": items, "configurations": 26, **options}
            cells.append(Cell(f"sweep {clips} clips, {label}", "sweep", "26 configurations", settings))
        for shape in ("normal", "skewed"):
            settings = {"clips": clips, "items": items, "columns": 30, "shape": shape}
            cells.append(Cell(f"band {clips} clips, {shape}", "band", "30 layers", settings))
    return cells


def _rate_cells() -> list[Cell]:
    cells = []
    for clips, items in ((8, (2, 20)), (20, (2, 20)), (50, (2, 4)), (200, (2, 4)), (200, (1, 1))):
        for label, with_audio, without in (("", 0.771, 0.217), (", 95 and 50 %", 0.95, 0.5)):
            settings = {"clips": clips, "items": items, "with_audio": with_audio, "without": without}
            name = f"rates {clips} clips of {items[0]}-{items[1]}{label}"
            about = "accurate with audio, half right without" if label else "assembled model"
            cells.append(Cell(name, "rates", f"{about}, with and without audio", settings))
    for n in (20, 240, 1000):
        for rate in (0.217, 0.771, 0.98):
            name = f"wilson {n} items, {rate:g}"
            cells.append(Cell(name, "wilson", "one proportion", {"n": n, "rate": rate}))
    return cells


def _other_cells() -> list[Cell]:
    cells = []
    for sizes in ((30,) * 5, (100,) * 10, (20, 50, 100, 200)):
        for discordance in (0.2825, 0.0725):
            name = f"strata {'+'.join(map(str, dict.fromkeys(sizes)))} items, discordance {discordance:g}"
            settings = {"sizes": sizes, "discordance": discordance}
            cells.append(Cell(name, "strata", f"{len(sizes)} strata", settings))
    for clips, items in ((12, (1, 1)), (50, (1, 4))):
        for rise in (0.0, 0.1):
            name = f"trend {clips} clips, {'rise' if rise else 'no effect'}"
            settings = {"clips": clips, "items": items, "rise": rise}
            cells.append(Cell(name, "trend", "six doses", settings))
        for label, slope, shape in (
            ("no effect", 0.0, "normal"),
            ("no effect, skewed", 0.0, "skewed"),
            ("slope", 0.5, "normal"),
        ):
            settings = {"clips": clips, "items": items, "slope": slope, "shape": shape}
            name = f"association {clips} clips, {label}"
            cells.append(Cell(name, "association", "with one covariate", settings))
    for n, discordance in ((100, 0.2825), (400, 0.2825), (400, 0.0725), (1000, 0.12)):
        name = f"power {n} items, discordance {discordance:g}"
        settings = {"items": n, "discordance": discordance}
        cells.append(Cell(name, "power", "claimed against simulated", settings))
    return cells


def _study_cells() -> list[Cell]:
    return [
        Cell("study 100 clips, no effect", "study", "130 configurations", {"clips": 100}, 500),
        Cell("study 13 clips, no effect", "study", "130 configurations", {"clips": 13}, 500),
        Cell("study 100 clips, effect", "study", "130 configurations", {"clips": 100, "effect": 0.8}, 100),
        *_crossfit_cells(),
    ]


def _crossfit_cells() -> list[Cell]:
    cells = []
    for clips, items in ((20, (1, 4)), (96, (1, 1)), (100, (2, 4))):
        for label, effects, shape in (
            ("no effect", (), "normal"),
            ("no effect, skewed", (), "skewed"),
            ("small effects", (0.1, 0.15, 0.2, 0.15), "normal"),
            ("a clear effect", (0.3, 0.5, 0.3), "normal"),
        ):
            settings = {"clips": clips, "items": items, "configurations": 26}
            settings |= {"effects": effects, "shape": shape}
            name = f"crossfit {clips} clips, {label}"
            cells.append(Cell(name, "crossfit", "26 configurations, 5 folds", settings))
    return cells


CELLS: tuple[Cell, ...] = (
    *_answer_cells(),
    *_margin_cells(),
    *_family_cells(),
    *_rate_cells(),
    *_other_cells(),
    *_study_cells(),
)
