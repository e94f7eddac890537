"""`mata-interp benchmark`: what there is, what is in a file, scores of predictions, submissions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import AsJson, AudioRoot, Fields, Subset
from .output import print_json, print_table

if TYPE_CHECKING:
    from ..benchmarks import Items

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Look into benchmarks; score predictions."
)

SHOWN = 20  # of the items left out

Place = Annotated[
    str,
    typer.Argument(
        metavar="PATH", help="listening; a file: JSON, JSONL or CSV; a dataset's folder; or hf:owner/name."
    ),
]


@app.callback()
def _group() -> None:
    pass


@app.command("list", short_help="Name the benchmarks that are known.")
def list_benchmarks(as_json: AsJson = False) -> None:
    """Name the benchmarks that are known, where to get them, and whether their files were tried."""
    from ..benchmarks import read_mapping, shipped_mappings
    from ..benchmarks.loading import DOWNLOADS, SHIPPED

    rows = [{"name": name, "source": "ships", "fields": "own", "verified": True} for name in SHIPPED]
    rows += [
        {"name": n, "source": where, "fields": "own", "verified": True} for n, where in DOWNLOADS.items()
    ]
    for name in shipped_mappings():
        mapping = read_mapping(name)
        rows.append({"name": name, "source": mapping.source, "fields": name, "verified": mapping.verified})
    if as_json:
        print_json(rows)
        return
    for row in rows:
        tried = "" if row["verified"] else "   (not verified on the released files)"
        print(f"{row['name']:<10} {row['source']}{tried}")


@app.command(short_help="Count items, and list what is left out and why.")
def inspect(
    path: Place,
    audio_root: AudioRoot = None,
    fields: Fields = None,
    subset: Subset = None,
    decode: Annotated[
        bool, typer.Option("--decode", help="Also decode every sound, to find bad ones.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Count items by domain, condition, kind and split, and list what is left out and why.

    \b
    Examples
      mata-interp benchmark inspect listening
      mata-interp benchmark inspect mmau-test-mini.json --audio-root audio/ --decode
      mata-interp benchmark inspect MMSU.jsonl --fields mmsu
    """
    import mata_interp as mi

    from ..benchmarks import read_mapping
    from ..benchmarks.hub import is_dataset
    from ..benchmarks.loading import locate
    from ..benchmarks.reading import mixed_columns, read_records

    items = mi.load_benchmark(path, audio_root=audio_root, subset=subset, fields=fields)
    missing = _missing(items)
    if decode:
        items = items.drop_undecodable()
    found = _found(items, missing, decode)
    if not is_dataset(place := locate(path)):
        found["odd_fields"] = mixed_columns(read_records(place))
    if fields is not None:
        mapping = read_mapping(fields)
        found["mapping"] = {"name": mapping.name, "verified": mapping.verified, "note": mapping.note}
    if as_json:
        print_json(found)
    else:
        _tell(items, found)


def _missing(items: Items) -> list[str]:
    """Ids of the items whose sound is a path where there is no file, or none that may be read."""
    from ..benchmarks.audio import find_audio
    from ..errors import ItemError

    bad = []
    for item in items:
        if isinstance(item.audio, str | Path):
            try:
                find_audio(item.audio, item.audio_root, item.id)
            except ItemError:
                bad.append(item.id)
    return bad


def _found(items: Items, missing: list[str], decode: bool) -> dict[str, Any]:
    from collections import Counter
    from dataclasses import asdict

    from ..benchmarks import find_release

    counts = {
        field: dict(Counter(getattr(item, field) for item in items).most_common())
        for field in ("split", "condition", "domain", "kind")
    }
    choices = dict(sorted(Counter(len(item.choices) for item in items).items()))
    excluded = [{"item": e.item, "field": e.field, "reason": e.reason} for e in items.excluded]
    release = find_release(items.sha256)
    return {
        "name": items.name,
        "sha256": items.sha256,
        "release": None if release is None else asdict(release),
        "items": len(items),
        "decoded": decode,
        "counts": counts,
        "choices": choices,
        "no_answer": sum(item.answer is None for item in items),
        "missing_audio": len(missing),
        "missing_audio_items": missing[:SHOWN],
        "repeated_choices": sum("is repeated" in e.reason for e in items.excluded if e.field == "choices"),
        "excluded": excluded,
    }


def _tell(items: Items, found: dict[str, Any]) -> None:
    from ..reporting.wording import count, printable

    excluded, release = found["excluded"], found["release"]
    sounds = "every sound decoded" if found["decoded"] else "sounds not decoded (--decode does)"
    print(f"{printable(items.name)}: {count(len(items), 'item')}, {len(excluded)} left out; {sounds}")
    print(f"SHA-256 {items.sha256} ({_pinned(release)})")
    if (mapping := found.get("mapping")) and not mapping["verified"]:
        print(f"field mapping {printable(mapping['name'])}: NOT VERIFIED on the released files.")
        print(f"  {printable(mapping['note'])}")
    if found["missing_audio"]:
        first = ", ".join(map(printable, found["missing_audio_items"][:3]))
        print(f"{count(found['missing_audio'], 'item')} without a sound file, e.g. {first}: see --audio-root")
    if found["no_answer"]:
        print(f"{count(found['no_answer'], 'item')} without an answer: can be asked, not scored")
    if found["repeated_choices"]:
        left_out = count(found["repeated_choices"], "item")
        print(f"{left_out} with a repeated choice: left out here, scored by `benchmark score`")
    for column, kinds in found.get("odd_fields", {}).items():
        print(f"odd field {printable(column)}: {', '.join(f'{n:,} {kind}' for kind, n in kinds.items())}")
    print()
    rows = [
        (f"{field}: {printable(value) or '(none)'}", f"{n:,}")
        for field, values in {**found["counts"], "options": found["choices"]}.items()
        for value, n in values.items()
    ]
    print_table(("items with", "number"), rows)
    if excluded:
        print(f"\nleft out{f', the first {SHOWN}' if len(excluded) > SHOWN else ''}:")
        for row in excluded[:SHOWN]:
            print(f"  {printable(row['item'])}: {printable(row['field'])}: {printable(row['reason'])}")


def _pinned(release: dict[str, Any] | None) -> str:
    if release is None:
        return "not pinned: no known release has it"
    return f"verified as released: {release['benchmark']}, {release['file']}"


@app.command(short_help="Score a predictions file as the benchmark's own script does.")
def score(
    predictions: Annotated[Path, typer.Argument(metavar="PREDICTIONS", help="JSON or JSONL.")],
    benchmark: Annotated[str, typer.Option(help="mmau or mmar: whose script to follow.")],
    answers: Annotated[
        Path | None, typer.Option(help="The benchmark's file, where PREDICTIONS has only ids and answers.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score predictions by the benchmark's official string match and, beside it, by the option they name.

    PREDICTIONS is what the official script takes: the benchmark's records, each with its prediction
    (model_output for MMAU, answer_prediction for MMAR; model_prediction for both).

    \b
    Examples
      mata-interp benchmark score predictions.json --benchmark mmau
      mata-interp benchmark score mine.jsonl --benchmark mmar --answers MMAR-meta.jsonl --json
    """
    from ..benchmarks import join_answers, score_predictions
    from ..benchmarks.reading import read_records

    records = read_records(predictions)
    if answers is not None:
        records = join_answers(records, read_records(answers))
    scores = score_predictions(records, benchmark)
    if as_json:
        print_json(scores)
        return
    from ..reporting.wording import percent, printable

    ours, theirs = scores["option_aware"], scores["official"]
    rows = [
        (
            f"{group}: {printable(value)}",
            f"{part['n']:,}",
            percent(part["accuracy"]),
            percent(right["accuracy"]),
        )
        for group, parts in theirs["by"].items()
        for (value, part), right in zip(parts.items(), ours["by"][group].values(), strict=True)
    ]
    whole = ("all", f"{theirs['n']:,}", percent(theirs["accuracy"]), percent(ours["accuracy"]))
    print_table(("", "items", "official", "option-aware"), [*rows, whole])
    print(f"\nno prediction ({theirs['key']}): {theirs['no_prediction']} items, not in the denominator")
    print(f"no option could be told: {ours['unparsed']} answers ({percent(ours['unparsed_rate'])}), wrong")


@app.command(short_help="Write a run's answers as the benchmark's leaderboard takes them.")
def submit(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    benchmark: Annotated[str, typer.Option(help="mmau or mmar: whose format.")],
    data: Annotated[Path, typer.Option(help="The benchmark's file, e.g. MMAU's test set without answers.")],
    out: Annotated[Path, typer.Option(help="The file to write: .json or .jsonl.")],
    condition: Annotated[str, typer.Option(help="Which of the run's conditions.")] = "baseline",
    as_json: AsJson = False,
) -> None:
    """Write the benchmark's records, each with what a run answered under one condition.

    The answer is what the model said or, where options were compared, the text of the likeliest. Items that
    the run left out have no prediction, and are counted.

    \b
    Examples
      mata-interp benchmark submit runs/mmau --benchmark mmau --data mmau-test.json --out submission.json
    """
    from dataclasses import asdict
    from hashlib import sha256

    import mata_interp as mi

    from ..benchmarks import find_release, write_submission
    from ..benchmarks.reading import read_records
    from ..errors import RunError

    records = mi.load_run(run).records
    there = list(map(str, records["condition"].unique()))
    if condition not in there:
        raise RunError(f"{str(run)!r} has no condition {condition!r}: it has {', '.join(there)}.")
    part = records.loc[records["condition"] == condition]
    said = part["said"].where(part["said"].notna(), part["predicted"])
    answers = {str(item): str(text) for item, text in zip(part["item"], said, strict=True)}
    missing = write_submission(read_records(data), answers, benchmark, out)
    digest = sha256(data.read_bytes()).hexdigest()
    release = None if (known := find_release(digest)) is None else asdict(known)
    if as_json:
        counts = {"predictions": len(answers), "no_prediction": missing}
        print_json({"out": out, **counts, "data_sha256": digest, "release": release})
    else:
        print(f"{out}: {len(answers)} predictions, {missing} items without one")
        print(f"The data file: SHA-256 {digest} ({_pinned(release)})")
