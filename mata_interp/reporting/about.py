"""What the method, the model and the benchmark of a page are, in a sentence each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..experiments import Run
from .wording import count, printable

__all__ = ["about"]

METHOD = (
    "an intervention without training: in chosen layers it raises the attention scores from the last token "
    "to the audio tokens, before the softmax."
)
MODELS = {
    "organism": "a small Qwen2-Audio (3.1 M parameters, 8 decoder layers) that ships with mata-interp. It "
    "was trained to over-rely on captions, so that a method against text dominance has something to "
    "correct; it shows that the instrument works, not that MATA works on a large model.",
    "organism-unbiased": "the model that organism was tuned from: a small Qwen2-Audio (3.1 M parameters, 8 "
    "decoder layers) that ships with mata-interp and was not trained to over-rely on captions.",
}
BENCHMARKS = {
    "listening": "ten kinds of multiple-choice question about sound, speech and music, each asked without a "
    "caption, with a right one and with a wrong one; it ships with mata-interp.",
    "mmau": "multiple-choice questions about sound, music and speech, with audio from existing data sets "
    "(Sakshi et al. 2024).",
    "mmar": "multiple-choice questions on deep reasoning about speech, audio, music and their mix (Ma et "
    "al. 2025).",
}


def about(run: Run, with_mata: bool, counted: bool = True) -> list[tuple[str, str]]:
    """Name and sentence of each.

    Args:
        run: The run.
        with_mata: Say what the method is, too.
        counted: Say how many items of the benchmark the run uses.
    """
    model, data = run.manifest["model"], run.manifest["data"]
    name = short_name(model.get("name"))
    kind = f"{printable(model.get('class') or 'model', 60)}{_layers(run)}"
    rows = [("MATA", METHOD)] if with_mata else []
    benchmark, described = benchmark_about(data)
    used = f" {count(data['items'], 'item')} on {count(data['clips'], 'clip')} are used here."
    return [*rows, (name, model_about(model, kind)), (benchmark, f"{described}{used if counted else ''}")]


def model_about(model: Mapping[str, Any], kind: str = "") -> str:
    """What a model is, from its entry in a manifest; ``kind``: its class in words."""
    name = str(model.get("name")).strip("/")
    shipped = MODELS.get(name)
    return shipped or f"a {kind or printable(model.get('class') or 'model', 60)} that reads text and audio."


def benchmark_about(data: Mapping[str, Any]) -> tuple[str, str]:
    """Name of a benchmark, and what it is, from its entry in a manifest."""
    benchmark = printable(data.get("name"), 60)
    kind = benchmark.lower().partition("-")[0]
    return benchmark, BENCHMARKS.get(kind, "multiple-choice questions about audio.")


def short_name(name: object) -> str:
    """A model's name without the folder or the owner on the hub."""
    return printable(name).rstrip("/").rpartition("/")[2]


def _layers(run: Run) -> str:
    return "" if run.trace is None else f" with {count(run.trace.sizes['layer'], 'attention layer')}"
