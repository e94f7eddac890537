"""What the method, the model and the benchmark of a page are, in a sentence each."""

from __future__ import annotations

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


def about(run: Run, with_mata: bool) -> list[tuple[str, str]]:
    """Name and sentence of each; the method only where the run has MATA."""
    model, data = run.manifest["model"], run.manifest["data"]
    name = short_name(model.get("name"))
    own = MODELS.get(name) if "/" not in str(model.get("name")).strip("/") else None
    layers = _layers(run)
    described = own or f"a {printable(model.get('class') or 'model', 60)}{layers} that reads text and audio."
    rows = [("MATA", METHOD)] if with_mata else []
    benchmark = printable(data.get("name"), 60)
    kind = BENCHMARKS.get(benchmark.lower().partition("-")[0], "multiple-choice questions about audio.")
    used = f"{count(data['items'], 'item')} on {count(data['clips'], 'clip')} are used here"
    return [*rows, (name, described), (benchmark, f"{kind} {used}.")]


def short_name(name: object) -> str:
    """A model's name without the folder or the owner on the hub."""
    return printable(name).rstrip("/").rpartition("/")[2]


def _layers(run: Run) -> str:
    return "" if run.trace is None else f" with {count(run.trace.sizes['layer'], 'attention layer')}"
