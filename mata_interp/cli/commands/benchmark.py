"""`mata-interp benchmark`: list benchmarks, inspect a file, score predictions, write a submission."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..checks import check_file, check_folder, check_name, check_out_file, usage_error
from ..inputs import Source
from ..options import AsJson, AudioRoot, Fields, Subset, out_option, parse_path
from ..output import print_note, print_result, print_table

if TYPE_CHECKING:
    from ...benchmarks import Items

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List and inspect benchmarks, score predictions, write submissions.",
)

SHOWN = 20  # of the items left out

BenchmarkPath = Annotated[
    str,
    typer.Argument(
        metavar="PATH",
        help="listening; a JSON, JSONL or CSV file; a folder with MMAU or MMAR and its audio, or "
        "saved by `datasets`; mmau or mmar, once downloaded; or hf:owner/name.",
    ),
]


@app.callback()
def _group() -> None:
    pass


@app.command("list", short_help="List the known benchmarks.")
def list_benchmarks(as_json: AsJson = False) -> None:
    """List the known benchmarks, where to get them, and whether their released files were read.

    \b
    Examples
      mata-interp benchmark list
      mata-interp benchmark list --json
    """
    from ...benchmarks import read_mapping, shipped_mappings
    from ...benchmarks.loading import SHIPPED
    from ...benchmarks.places import DOWNLOADS

    rows = [{"name": name, "source": "ships", "fields": "own", "verified": True} for name in SHIPPED]
    for name, download in DOWNLOADS.items():
        source = f"{download.data}; {download.audio}"
        rows.append({"name": name, "source": source, "fields": "own", "verified": True})
    for name in shipped_mappings():
        mapping = read_mapping(name)
        rows.append({"name": name, "source": mapping.source, "fields": name, "verified": mapping.verified})
    if as_json:
        print_result("benchmark list", {"benchmarks": rows})
        return
    for row in rows:
        verified = "" if row["verified"] else "   (not verified on the released files)"
        print(f"{row['name']:<10} {row['source']}{verified}")


@app.command(short_help="Count the items of a file and list those left out.")
def inspect(
    path: BenchmarkPath,
    audio_root: AudioRoot = None,
    fields: Fields = None,
    subset: Subset = None,
    decode: Annotated[
        bool, typer.Option("--decode", help="Decode every audio file, to find unusable ones.")
    ] = False,
    write_fields: Annotated[
        Path | None,
        typer.Option(
            "--write-fields",
            parser=parse_path,
            metavar="FILE",
            help="Guess which columns hold which fields, write this mapping to a JSON file, and use it.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Count items by domain, condition, kind and split, and list the items left out, with reasons.

    Exit code 1 if no item can be used. Where columns have unknown names, the error lists them and a guess.

    \b
    Examples
      mata-interp benchmark inspect listening
      mata-interp benchmark inspect mmau-test-mini.json --audio-root audio/ --decode
      mata-interp benchmark inspect MMSU.jsonl --fields mmsu
      mata-interp benchmark inspect own.csv --write-fields own-fields.json
    """
    from ...benchmarks import read_mapping, shipped_mappings
    from ...benchmarks.loading import file_at, locate
    from ...benchmarks.reading import mixed_columns, read_records

    if write_fields is not None:
        fields = _write_guess(path, fields, write_fields)
    items = Source(path, audio_root, fields, subset).load("PATH")
    missing = _missing(items)
    if decode:
        items = items.drop_undecodable()
    summary = _summary(items, missing, decode) | {"odd_fields": None, "mapping": None}
    if (file := file_at(locate(path), subset)) is not None:
        summary["odd_fields"] = mixed_columns(read_records(file))
    if fields is not None:
        mapping = read_mapping(fields)
        verified = mapping.verified if fields in shipped_mappings() else None  # nothing is known of others
        summary["mapping"] = {"name": mapping.name, "verified": verified, "note": mapping.note}
    if as_json:
        print_result("benchmark inspect", summary)
    else:
        _print(items, summary)
    if not len(items):
        raise typer.Exit(1)


def _write_guess(path: str, fields: str | None, out: Path) -> str:
    """Write the guess at the columns of a file; the mapping for ``--fields``."""
    from ...benchmarks.guessing import guess_fields, missing_fields, unknown_columns, write_fields
    from ...benchmarks.loading import locate, records_of
    from ...errors import BenchmarkError

    if fields is not None:
        raise usage_error("it makes a mapping, and --fields gives one.", "--write-fields")
    check_out_file(out, "--write-fields", suffixes=(".json",))
    data = records_of(locate(path))
    guess = guess_fields(data.records)
    if missing := [field for field in missing_fields(data.records) if field not in guess]:
        raise BenchmarkError(unknown_columns(data.records, data.file, missing))
    write_fields(guess, out)
    print_note(f"{out}: {json.dumps(guess, ensure_ascii=False)}")
    return str(out)


def _missing(items: Items) -> list[str]:
    """Ids of the items whose audio is a path without a file, or one outside of the audio root."""
    from ...benchmarks.audio import find_audio
    from ...errors import ItemError

    bad = []
    for item in items:
        try:
            for clip in item.clips:
                if isinstance(clip, str | Path):
                    find_audio(clip, item.audio_root, item.id)
        except ItemError:
            bad.append(item.id)
    return bad


def _summary(items: Items, missing: list[str], decode: bool) -> dict[str, Any]:
    from collections import Counter
    from dataclasses import asdict

    from ...benchmarks import find_release

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


def _print(items: Items, summary: dict[str, Any]) -> None:
    from ...reporting.wording import count, printable

    excluded, release = summary["excluded"], summary["release"]
    audio = "every audio file decoded" if summary["decoded"] else "audio not decoded (use --decode)"
    print(f"{printable(items.name)}: {count(len(items), 'item')}, {len(excluded)} left out; {audio}")
    print(f"SHA-256 {items.sha256}{_release(release)}")
    if (mapping := summary["mapping"]) and mapping["verified"] is False:
        print(f"field mapping {printable(mapping['name'])}: not verified on the released files")
        if mapping["note"]:
            print(f"  {printable(mapping['note'])}")
    if summary["missing_audio"]:
        first = ", ".join(map(printable, summary["missing_audio_items"][:3]))
        print(
            f"{count(summary['missing_audio'], 'item')} without an audio file, e.g. {first}: see --audio-root"
        )
    if summary["no_answer"]:
        print(f"{count(summary['no_answer'], 'item')} without a known answer: usable, but not scored")
    if summary["repeated_choices"]:
        left_out = count(summary["repeated_choices"], "item")
        print(f"{left_out} left out for a repeated choice; `benchmark score` scores them")
    for column, kinds in (summary["odd_fields"] or {}).items():
        values = ", ".join(f"{n:,} {kind}" for kind, n in kinds.items())
        print(f"field {printable(column)} has values of several types: {values}")
    print()
    rows = [
        (f"{field}: {printable(value) or '(none)'}", f"{n:,}")
        for field, values in {**summary["counts"], "options": summary["choices"]}.items()
        for value, n in values.items()
    ]
    print_table(("items with", "number"), rows)
    if excluded:
        print(f"\nleft out{f', the first {SHOWN}' if len(excluded) > SHOWN else ''}:")
        for row in excluded[:SHOWN]:
            print(f"  {printable(row['item'])}: {printable(row['field'])}: {printable(row['reason'])}")


def _release(release: dict[str, Any] | None) -> str:
    """The released file that it is; {} for any other file."""
    return "" if release is None else f" (a known release: {release['benchmark']}, {release['file']})"


@app.command(short_help="Score predictions as the benchmark's own script does.")
def score(
    predictions: Annotated[
        Path, typer.Argument(parser=parse_path, metavar="PREDICTIONS", help="A JSON or JSONL file.")
    ],
    benchmark: Annotated[
        str, typer.Option(metavar="NAME", help="Whose official script to follow: mmau or mmar.")
    ],
    answers: Annotated[
        Path | None,
        typer.Option(
            parser=parse_path,
            metavar="FILE",
            help="The benchmark's file; needed if PREDICTIONS holds ids and predictions only.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score predictions by the benchmark's official string match and by the option that each one names.

    PREDICTIONS has the format of the official script: the benchmark's records, each with its prediction
    (model_output for MMAU, answer_prediction for MMAR, or model_prediction for both).

    \b
    Examples
      mata-interp benchmark score predictions.json --benchmark mmau
      mata-interp benchmark score mine.jsonl --benchmark mmar --answers MMAR-meta.jsonl --json
    """
    from ...benchmarks import join_answers, score_predictions
    from ...benchmarks.reading import read_records

    _check_script(benchmark)
    check_file(predictions, "PREDICTIONS")
    check_file(answers, "--answers")
    records = read_records(predictions)
    if answers is not None:
        records = join_answers(records, read_records(answers))
    scores = score_predictions(records, benchmark)
    if as_json:
        print_result("benchmark score", scores)
        return
    from ...reporting.wording import percent, printable

    option_aware, official = scores["option_aware"], scores["official"]
    rows = [
        (
            f"{group}: {printable(value)}",
            f"{part['n']:,}",
            percent(part["accuracy"]),
            percent(right["accuracy"]),
        )
        for group, parts in official["by"].items()
        for (value, part), right in zip(parts.items(), option_aware["by"][group].values(), strict=True)
    ]
    whole = ("all", f"{official['n']:,}", percent(official["accuracy"]), percent(option_aware["accuracy"]))
    print_table(("", "items", "official", "option-aware"), [*rows, whole])
    print(f"\nwithout a prediction ({official['key']}): {official['no_prediction']} items, not counted")
    unparsed = f"{option_aware['unparsed']} ({percent(option_aware['unparsed_rate'])})"
    print(f"predictions that name no option: {unparsed}, counted as wrong")


def _check_script(benchmark: str) -> None:
    """Refuse a benchmark whose official script is not known."""
    from ...benchmarks.scoring import RULES

    check_name("official script", benchmark, RULES, "--benchmark")


@app.command(short_help="Write the answers of a run for a leaderboard.")
def submit(
    run: Annotated[Path, typer.Argument(parser=parse_path, metavar="RUN", help="A run folder.")],
    benchmark: Annotated[str, typer.Option(metavar="NAME", help="Whose format to write: mmau or mmar.")],
    data: Annotated[
        Path,
        typer.Option(
            parser=parse_path,
            metavar="FILE",
            help="The benchmark's file, e.g. MMAU's test set without answers.",
        ),
    ],
    out: Annotated[Path, out_option("The file to write: .json or .jsonl.", "FILE")],
    condition: Annotated[
        str, typer.Option(metavar="NAME", help="The condition of the run whose answers to write.")
    ] = "baseline",
    as_json: AsJson = False,
) -> None:
    """Write the benchmark's records, each with the answer of a run under one condition.

    The answer is the generated text or, if options were compared, the option with the highest probability.
    Items that the run left out get no prediction; their number is printed.

    \b
    Examples
      mata-interp benchmark submit runs/mmau --benchmark mmau --data mmau-test.json --out submission.json
    """
    from dataclasses import asdict
    from hashlib import sha256

    from ...benchmarks import find_release, write_submission
    from ...benchmarks.reading import read_records
    from ...experiments import load_run

    _check_script(benchmark)
    check_folder(run, "RUN")
    check_file(data, "--data")
    check_out_file(out, suffixes=(".json", ".jsonl"))
    records = load_run(run).records
    check_name("condition", condition, list(map(str, records["condition"].unique())), "--condition")
    part = records.loc[records["condition"] == condition]
    texts = part["final_answer"].where(part["final_answer"].notna(), part["predicted"])
    answers = {str(item): str(text) for item, text in zip(part["item"], texts, strict=True)}
    missing = write_submission(read_records(data), answers, benchmark, out)
    digest = sha256(data.read_bytes()).hexdigest()
    release = None if (details := find_release(digest)) is None else asdict(details)
    if as_json:
        counts = {"predictions": len(answers), "no_prediction": missing}
        values = {"out": out, **counts, "data_sha256": digest, "release": release}
        print_result("benchmark submit", values)
    else:
        print(f"{out}: {len(answers)} predictions, {missing} items without one")
        print(f"The data file: SHA-256 {digest}{_release(release)}")
