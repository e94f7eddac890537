"""`mata-interp benchmark`: what is in a benchmark file, and what of it cannot be used."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer

from .options import AsJson, AudioRoot
from .output import print_json, print_table

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look into benchmark files.")

SHOWN = 20  # of the items left out


@app.callback()
def _group() -> None:
    pass


@app.command(short_help="Count items, and list what is left out and why.")
def inspect(
    path: Annotated[str, typer.Argument(metavar="PATH", help="listening, or a file: JSON, JSONL or CSV.")],
    audio_root: AudioRoot = None,
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
    """
    import mata_interp as mi

    from ..reporting.wording import count, printable

    items = mi.load_benchmark(path, audio_root=audio_root)
    if decode:
        items = items.vetted()
    counts = {
        field: dict(Counter(getattr(item, field) for item in items).most_common())
        for field in ("split", "condition", "domain", "kind")
    }
    choices = dict(sorted(Counter(len(item.choices) for item in items).items()))
    excluded = [{"item": e.item, "field": e.field, "reason": e.reason} for e in items.excluded]
    if as_json:
        whole = {"name": items.name, "sha256": items.sha256, "items": len(items)}
        print_json({**whole, "decoded": decode, "counts": counts, "choices": choices, "excluded": excluded})
        return
    sounds = "every sound decoded" if decode else "sounds not decoded (--decode does)"
    print(f"{printable(items.name)}: {count(len(items), 'item')}, {len(excluded)} left out; {sounds}")
    print(f"SHA-256 {items.sha256}\n")
    rows = [
        (f"{field}: {printable(value) or '(none)'}", f"{n:,}")
        for field, values in {**counts, "options": choices}.items()
        for value, n in values.items()
    ]
    print_table(("items with", "number"), rows)
    if excluded:
        print(f"\nleft out{f', the first {SHOWN}' if len(excluded) > SHOWN else ''}:")
        for row in excluded[:SHOWN]:
            print(f"  {printable(row['item'])}: {printable(row['field'])}: {printable(row['reason'])}")
