"""The sources that a page cites, as links that open only on a click."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..experiments import Run
from .parts import Link
from .wording import printable

__all__ = ["citations"]

MATA = (
    Link("MATA: arXiv 2509.18816", "https://arxiv.org/abs/2509.18816"),
    Link("MATA: Interspeech 2026, paper 1212", ""),
)
BENCHMARKS = {
    "mmau": Link("MMAU: Sakshi et al. 2024, arXiv 2410.19168", "https://arxiv.org/abs/2410.19168"),
    "mmar": Link("MMAR: Ma et al. 2025, arXiv 2505.13032", "https://arxiv.org/abs/2505.13032"),
}
METHODS = {
    "Tango": Link("Interval: Tango 1998, Statistics in Medicine 17:891", "https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8%3C891::AID-SIM780%3E3.0.CO;2-B"),
    "McNemar mid-p": Link("Test: Fagerland, Lydersen and Laake 2013, BMC Medical Research Methodology 13:91", "https://doi.org/10.1186/1471-2288-13-91"),
    "Holm": Link("Correction: Holm 1979, Scandinavian Journal of Statistics 6:65", "https://www.jstor.org/stable/4615733"),
}  # fmt: skip
INSTRUMENTS = Link("Reading of attention: nnsight, arXiv 2407.14561", "https://arxiv.org/abs/2407.14561")
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def citations(run: Run, with_mata: bool) -> list[Link]:
    """Method, model, benchmark, statistics and instrument, as far as the run uses them."""
    return [*(MATA if with_mata else ()), *_model(run), *_benchmark(run), *_statistics(run), INSTRUMENTS]


def _model(run: Run) -> Iterator[Link]:
    """The model's page, where it was loaded from the hub: a folder has no revision."""
    name = str(run.manifest["model"].get("name", ""))
    if run.manifest["model"].get("revision") and HUB_NAME.fullmatch(name):
        yield Link(f"Model: {printable(name)}", f"https://huggingface.co/{name}")


def _benchmark(run: Run) -> Iterator[Link]:
    name = str(run.manifest["data"].get("name", "")).lower().partition("-")[0]
    if name in BENCHMARKS:
        yield BENCHMARKS[name]


def _statistics(run: Run) -> Iterator[Link]:
    if run.effects is None:
        return
    used = " ".join(f"{row.effect.interval_method} {row.effect.p_method}" for row in run.effects)
    for name, link in METHODS.items():
        if name in used or name == "Holm":
            yield link
