"""The card of a shared intervention: a README with a YAML head, written from its settings and its "
"evidence."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

from mata_interp.ranges import brief
from mata_interp.statistics import Effect

from .attention_edit import AttentionEdit
from .evidence import Evidence
from .rules import find_rule

__all__ = ["card"]

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_TAGS = ("mata-interp", "interpretability", "audio-text-to-text", "attention")


def card(parts: Sequence[Any], model: Mapping[str, Any] | None, evidence: Evidence | None) -> str:
    """The text of ``README.md``.

    Args:
        parts: the interventions, in order.
        model: the model that they are for, or None.
        evidence: what was measured, or None.
    """
    sections = [_head(model, evidence), _title(parts, model), _settings(parts), _use(), _model(model)]
    sections.append(_evidence(evidence))
    return "\n\n".join(filter(None, sections)) + "\n"


def _head(model: Mapping[str, Any] | None, evidence: Evidence | None) -> str:
    """The YAML head; every value is written as JSON, which is YAML, so that no name can end it."""
    values: dict[str, Any] = {"library_name": "mata-interp", "tags": list(_TAGS)}
    if model is not None and _HUB_ID.fullmatch(str(model.get("name"))):
        values["base_model"] = model["name"]
    if evidence is not None:
        values["metrics"] = ["accuracy"]
    lines = [f"{name}: {json.dumps(value)}" for name, value in values.items()]
    return "\n".join(["---", *lines, "---"])


def _title(parts: Sequence[Any], model: Mapping[str, Any] | None) -> str:
    names = " + ".join(type(part).__name__ for part in parts)
    on = f" for {_code(model['name'])}" if model is not None else ""
    return f"# {names}{on}\n\nAn intervention on a large audio-language model, written by mata-interp."


def _settings(parts: Sequence[Any]) -> str:
    return "\n".join(["## What it does", "", *(f"- {_describe(part)}" for part in parts)])


def _describe(part: Any) -> str:
    layers = getattr(part, "layers", ())
    where = f" Layers: {brief(layers)}." if layers else ""
    if isinstance(part, AttentionEdit):
        rule = find_rule(part.rule)
        text = (
            f"Scores before the softmax become {_code(rule.formula)} with alpha {part.alpha:g}, for "
            f"{part.keys} keys; queries: {part.queries}, phase: {part.phase}."
        )
        heads = "" if part.heads == "all" else f" Heads: {_code(part.heads)}."
        clips = f" Chosen on {len(part.chosen_on)} clips." if part.chosen_on else ""
        return text + where + heads + clips
    formula = getattr(part, "formula", "")
    source = getattr(part, "source", "")
    return f"{_code(part)}{f' Formula: {_code(formula)}.' if formula else ''}{where} {source}".strip()


def _use() -> str:
    return (
        "## Use\n\n```python\nimport mata_interp as mi\n\n"
        'intervention = mi.load_intervention("FOLDER or owner/name")\n'
        "with mi.attach(model, intervention):  # a transformers model\n"
        "    model.generate(**inputs)\n```"
    )


def _model(model: Mapping[str, Any] | None) -> str:
    if model is None:
        return "## Model\n\nNo model was named when this was saved."
    names = ("name", "revision", "class", "dtype", "layers", "weights_sha256", "config_sha256")
    names += ("chat_template_sha256", "tokenizer_sha256")
    rows = [f"| {name} | {_code(model.get(name))} |" for name in names]
    return "\n".join(["## Model", "", "| | |", "|---|---|", *rows])


def _evidence(evidence: Evidence | None) -> str:
    if evidence is None:
        return "## Evidence\n\nNone: nothing was measured when this was saved."
    rows = [
        ("accuracy, against no intervention", evidence.accuracy),
        ("log-probability difference, against no intervention", evidence.margin),
    ]
    if evidence.sham is not None:
        rows += [
            ("accuracy of the control, against no intervention", evidence.sham.accuracy),
            ("accuracy, against the control", evidence.sham.difference),
        ]
    lines = [f"| {name} | {_numbers(effect)} |" for name, effect in rows]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(evidence.versions.items()))
    return "\n".join(
        [
            "## Evidence",
            "",
            f"{len(evidence.items)} items of {_code(evidence.benchmark)}, {evidence.clips} clips; options "
            "are compared by their log-probability.",
            "",
            "| change | before | after | difference | 95 % interval | p |",
            "|---|---|---|---|---|---|",
            *lines,
            "",
            f"SHA-256 of the items: {_code(evidence.data_sha256)}. Measured with {versions}.",
            "",
            "`mata-interp retest FOLDER --benchmark ...` measures it again.",
        ]
    )


def _numbers(effect: Effect) -> str:
    scale, digits = (100, 1) if effect.kind == "binary" else (1, 3)
    unit = " points" if effect.kind == "binary" else " nats"

    def show(value: float, sign: str = "") -> str:
        return "not defined" if isnan(value) else f"{scale * value:{sign}.{digits}f}"

    interval = f"{show(effect.low, '+')} to {show(effect.high, '+')}"
    p = "not defined" if isnan(effect.p) else f"{effect.p:.2g}"
    means = f"{show(effect.before)} | {show(effect.after)}"
    return f"{means} | {show(effect.difference, '+')}{unit} | {interval} | {p}"


def _code(value: Any) -> str:
    """A value as code in Markdown, on one line, which it cannot end."""
    text = " ".join(str(value).split()).replace("`", "'").replace("|", "\\|")
    return f"`{text}`"
