"""`mata-interp trace`: attention on audio, layer by layer."""

from __future__ import annotations

from pathlib import Path

import mata_interp as mi

from ..errors import RunError
from ..experiments.files import write_whole
from ..reporting.terminal import bar
from ..reporting.wording import number, percent, printable
from .opening import Source, open_model
from .output import print_json, print_table, progress

WHOSE = {
    "last": "the last prompt token",
    "text": "the mean of the text after the audio",
    "generated": "the mean of the tokens that predict the answer",
}


def trace_benchmark(
    model: str,
    source: Source,
    items: int | None,
    query: str,
    max_new_tokens: int,
    out: Path | None,
    seed: int,
    batch_size: int,
    as_json: bool,
) -> None:
    """Trace and print; the arguments are those of the command."""
    data = source.open()
    data = data.sample(items, seed=seed) if items else data
    lalm = open_model(model)
    data = data.drop_undecodable(lalm.sampling_rate)
    if not len(data):
        raise RunError(f"{data.name}: none of {len(data.excluded)} item(s) can be used.")
    traced = mi.trace(
        lalm, data, query, batch_size=batch_size, progress=progress(), max_new_tokens=max_new_tokens
    )
    if out:
        content = traced.to_netcdf(engine="scipy")
        write_whole(out, lambda file: file.write(content))
    by_layer = {
        "audio_share": mi.audio_share(traced).mean(("item", "head"), skipna=True),
        "mdi": mi.mdi(traced).mean("item", skipna=True),
        "aei": mi.aei(traced).mean("item", skipna=True),
    }
    if as_json:
        values = {name: measure.values for name, measure in by_layer.items()}
        masses = traced["mass"].mean(("item", "head"), skipna=True)
        groups = {str(g): masses.sel(group=g).values for g in traced["group"].values}
        about = {"items": len(data), "query": query, "queries": int(traced["n_queries"].sum())}
        print_json({**about, "layer": traced["layer"].values, **values, "mass": groups, "out": out})
        return
    rows = []
    for row, layer in enumerate(traced["layer"].values):
        share, mdi, aei = (float(by_layer[name][row]) for name in ("audio_share", "mdi", "aei"))
        rows.append([f"{layer:>5}  {bar(share)}", percent(share), number(mdi), number(aei)])
    print(f"{printable(lalm.name)} on {printable(data.name)}, {len(data)} items: {WHOSE[query]}\n")
    print_table(["layer", "audio share", "MDI", "AEI"], rows)
    print("\naudio share: audio / (audio + text), first token left out. MDI, AEI: arXiv 2508.10552.")
    if out:
        print(f"The trace: {out}")
