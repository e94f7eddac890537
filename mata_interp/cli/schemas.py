"""The JSON that each command prints with ``--json``: one object, with these keys beside ``schema``.

``schema`` is ``mata-interp/COMMAND/VERSION``; the version changes when a key is renamed, removed or gets
another meaning. Rates are fractions; values that are not finite are null. An error is printed as
``{"schema": "mata-interp/error/1", "error": {"type": ..., "message": ...}}`` with the exit code that it has
without ``--json``: 2 for wrong usage, 1 for a failure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["LISTENING", "SCHEMAS", "Schema"]


@dataclass(frozen=True)
class Schema:
    """What a command prints.

    Attributes:
        id: name and version.
        keys: top-level key -> what it holds.
    """

    id: str
    keys: Mapping[str, str]


_OUT = "the file or folder that was written, or null"
_EXCLUDED = "items left out: a list of {item, field, reason}"
_MEMORY = (
    "bytes: {weights, cache, activations, logits, sweep_rows, total}, and `free` bytes of the `device` "
    "beside the weights"
)
_STAGE = {
    "name": "name of the stage",
    "items": "number of items",
    "clips": "number of clips",
    "by_condition": "caption condition -> number of items",
    "work": "what is done with each item",
    "batches": "number of batches",
    "done": "of them, batches that are done",
    "seconds": "estimated time left, or null",
    "memory": _MEMORY,
    "out": "the file or folder that would be written, or null",
}

LISTENING = {
    "model": "name",
    "question": "text",
    "caption": "text shown with the question, or an empty string",
    "options": "a list of {option, before, after}: probabilities without and with MATA",
    "mata": "settings of the edit",
    "layers_convention": "how the published layers were found; an empty string if layers were named",
    "answer_before": "answer without MATA",
    "answer_after": "answer with MATA",
    "name": "names of the audio files",
    "seconds": "duration of the audio that the model received",
    "truncated_seconds": "duration cut from its end",
    "clip_starts": "where each clip of the prompt begins, in seconds, one after the other",
    "clip_attention": "attention to each clip of the prompt, mean over heads and layers, without MATA",
    "layers": "decoder layers of `attention` and `share`",
    "edges": "bin edges of `attention`, seconds",
    "attention": "[layer, bin] attention of the last prompt token, mean over heads, without MATA",
    "share": "[layer] audio / (audio + text), mean over heads, without MATA",
}
"""What `listen` says of each clip and caption."""

SCHEMAS = {
    "error": Schema("mata-interp/error/1", {"error": "{type: class of the error or UsageError, message}"}),
    "study": Schema(
        "mata-interp/study/1",
        {
            "answer": "the result in plain English",
            "primary": "the primary comparison: difference, interval, p-values, counts",
            "chosen": "the layers and alpha that were chosen on the selection split",
            "report": "path of the HTML page",
        },
    ),
    "listen": Schema(
        "mata-interp/listen/2",
        {"clips": f"for each clip and caption: {', '.join(LISTENING)}", "page": _OUT},
    ),
    "trace": Schema(
        "mata-interp/trace/1",
        {
            "items": "number of items",
            "split": "selection, confirmation or all",
            "query": "last, text or generated",
            "intervention": "the edit in force, as plain data, or null",
            "queries": "number of query tokens over all items",
            "layer": "[layer] decoder layers of the lists below",
            "audio_share": "[layer] audio / (audio + text) without the first token",
            "mdi": "[layer] modality dominance index",
            "aei": "[layer] attention efficiency index",
            "mass": "group of tokens -> [layer] attention",
            "excluded": _EXCLUDED,
            "out": _OUT,
        },
    ),
    "layers": Schema(
        "mata-interp/layers/1",
        {
            "model": "name",
            "split": "selection, confirmation or all",
            "items": "number of items",
            "clips": "number of clips",
            "window": "recommended layers; an empty list for none",
            "verdict": "found, no effect, spread, too few clips or nothing measured",
            "stability": "predicted chance of a similar window from as many other clips; null without one",
            "clips_needed": "with the verdict 'too few clips', about how many are needed; else null",
            "summary": "the result in plain English",
            "layers": "decoder layers of the lists below",
            "share": "[layer] share of the audio effect",
            "share_low": "[layer] lower end of its simultaneous 95 % band",
            "share_high": "[layer] upper end",
            "windows": "criterion -> its layers",
            "boundaries": "window and criterion -> boundaries with their 95 % intervals",
            "agreement": "intersection over union of every two windows",
            "criteria": "criterion -> {label, evidence, reads, unit, mean: [layer]}",
            "heads": "heads with a 95 % interval above 0: a list of {layer, head, attribution, low, high}",
            "refused": "criterion -> why it was not measured",
            "excluded": "items left out, one text each",
            "seed": "seed",
            "profile": "with --profiles: the whole profile, as --out writes it; else null",
            "out": _OUT,
            "figure": _OUT,
            "report": "path of the HTML page beside the file of the profile, or null",
        },
    ),
    "sweep": Schema(
        "mata-interp/sweep/1",
        {
            "items": "number of items",
            "clips": "number of clips",
            "split": "selection, confirmation or all",
            "baseline": "{margin: nats, accuracy} without an edit",
            "configurations": "a list of {name, layers, heads, rule, alpha, group, queries, phase, change, "
            "low, high, accuracy}; change of the margin in nats with its 95 % interval over clips",
            "canary": "largest difference of the unedited row, in steps of the number format",
            "looped": "number of items answered in a plain loop",
            "culprits": "why: layers and items",
            "excluded": _EXCLUDED,
            "map": "path of the figure, or null",
            "no_map": "why there is no map, or null",
            "out": _OUT,
            "report": "path of the HTML page",
        },
    ),
    "check": Schema(
        "mata-interp/check/1",
        {
            "model": "name",
            "ok": "whether no check failed",
            "about": "class, dtype, device, attention, prompt and versions",
            "results": "a list of {name, compared, measured, difference, bound, verdict, remedy}",
            "excluded": "items that were left out, with field and reason",
        },
    ),
    "retest": Schema(
        "mata-interp/retest/1",
        {
            "reproduced": "whether the change of accuracy has the same direction and the intervals overlap",
            "before": "the evidence that was shared: changes with intervals, control, items, versions",
            "after": "the evidence that was measured, with the same keys",
            "same_data": "whether texts, labels and decoded audio of the items are the same",
            "model_differences": "how the model differs from the one that was saved: a list of texts",
            "missing": "ids of items that the benchmark lacks",
        },
    ),
    "run": Schema(
        "mata-interp/run/1",
        {
            "items": "number of items",
            "split": "selection, confirmation or all",
            "accuracy": "condition -> accuracy; empty where no answer is known",
            "official": "condition -> accuracy by the benchmark's own string match",
            "unparsed": "with --generate: condition -> rate of answers that name no option; else null",
            "cut": "with --generate: condition -> rate of answers cut at --max-new-tokens; else null",
            "effects": "condition -> change of accuracy against the baseline: interval, p-value, counts",
            "excluded": _EXCLUDED,
            "out": _OUT,
        },
    ),
    "run --list-methods": Schema(
        "mata-interp/methods/1",
        {"methods": "a list of {name, formula, settings: name -> default or needed, source}"},
    ),
    "run --dry-run": Schema(
        "mata-interp/forecast/1",
        {
            "items": "number of items",
            "clips": "number of clips",
            "by_condition": "caption condition -> number of items",
            "excluded": "number of items left out",
            "conditions": "names",
            "batches": "number of batches",
            "parts": "files of the finished run",
            "done": "of them, files that exist",
            "tokens": "tokens still to be read, with padding",
            "seconds": "estimated time left, or null",
            "basis": "what the estimate rests on",
            "memory": _MEMORY,
            "out": "the run folder",
        },
    ),
    "study --method": Schema(
        "mata-interp/study-method/1",
        {
            "method": "name of the method's condition",
            "chosen": "its layers; layers -> mean margin on the selection split; items and clips there",
            "effects": "a list of comparisons on the confirmation split: condition, baseline, score, numbers "
            "of items and clips, items left out, means before and after, difference with low and high, p, "
            "p_adjusted (Holm's, of the method's hypotheses), answers corrected and broken, KL in nats",
            "absent": "control -> why it has no meaning for the method",
            "report": "path of the HTML page",
        },
    ),
    "study --plan": Schema(
        "mata-interp/study-plan/1",
        {
            "pilot_items": "number of pilot items, of the selection split",
            "configuration": "layers, alpha and rule with the best mean margin on them",
            "changed": "number of them whose correctness it changes",
            "margin_sd": "standard deviation of the change of the margin, nats",
            "test_items": "number of items of the primary comparison",
            "test_clips": "number of their clips",
            "changes": "for the lower end of the discordance's interval, the discordance and the upper end: "
            "discordance, smallest detectable change (items independent, or one unit per clip), items that "
            "changes of several sizes need, and those that a claim of no harm needs",
            "detectable_margin": "smallest detectable mean change of the margin, nats",
        },
    ),
    "study --preregister": Schema(
        "mata-interp/study-preregistration/1",
        {
            "file": "the preregistration",
            "sha256": "SHA-256 of its plan",
            "created": "time, UTC",
            "plan": "hypotheses, margins, splits, settings and analysis",
        },
    ),
    "study --dry-run": Schema(
        "mata-interp/study-forecast/1",
        {
            "stages": "a list of objects with the keys of trace --dry-run, but `out`",
            "excluded": "number of items left out of either split",
            "seconds": "estimated time left",
            "memory": f"of the stage that takes most: {_MEMORY}",
            "power": "of the primary comparison: items, assumed discordance, smallest detectable change, "
            "whether that is too large, and the items that a change of 10 points needs",
            "out": "the run folder",
        },
    ),
    **{
        f"{command} --dry-run": Schema(f"mata-interp/{command}-forecast/1", _STAGE)
        for command in ("trace", "sweep", "layers")
    },
    "report": Schema(
        "mata-interp/report/1",
        {"report": "path of the HTML page", "paper": "folder of the files for a paper, or null"},
    ),
    "benchmark list": Schema(
        "mata-interp/benchmark-list/1", {"benchmarks": "a list of {name, source, fields, verified}"}
    ),
    "benchmark inspect": Schema(
        "mata-interp/benchmark-inspect/1",
        {
            "name": "name",
            "sha256": "of the file",
            "release": "the known release that the file is, or null",
            "items": "number of usable items",
            "decoded": "whether the audio was decoded",
            "counts": "field -> value -> number of items",
            "choices": "number of options -> number of items",
            "no_answer": "number of items without a known answer",
            "missing_audio": "number of items whose audio file is missing",
            "missing_audio_items": "the first of them",
            "repeated_choices": "number of items left out for a repeated option",
            "excluded": _EXCLUDED,
            "odd_fields": "field with values of several types -> type -> number; null for a dataset",
            "mapping": "with --fields: {name, verified (null for a file of yours), note}; else null",
        },
    ),
    "benchmark score": Schema(
        "mata-interp/benchmark-score/1",
        {
            "official": "accuracy by the benchmark's own string match, over all and by group",
            "option_aware": "accuracy by the option that each prediction names",
        },
    ),
    "benchmark submit": Schema(
        "mata-interp/benchmark-submit/1",
        {
            "out": _OUT,
            "predictions": "number of predictions",
            "no_prediction": "number of records without one",
            "data_sha256": "of the benchmark's file",
            "release": "the known release that the file is, or null",
        },
    ),
}
"""Command -> schema."""
