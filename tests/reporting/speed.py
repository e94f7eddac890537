"""How fast is the page of a large run? ``python -m tests.reporting.speed FOLDER`` prints seconds and sizes.

The page is written in a process of its own, whose peak memory is measured. In Chromium, each interaction is
timed from the event to the end of the next frame: the time that a reader waits. ``extended`` makes a run of
any number of items from a smaller one.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mata_interp.experiments import load_run
from mata_interp.experiments.folder import RunFolder
from mata_interp.experiments.item_recordings import RECORDINGS, load_recordings
from mata_interp.experiments.records import SCHEMA
from tests.reference import PEAK

from .browser import chromium

WRITE = """
import sys, time
started = time.perf_counter()
import mata_interp
imported, computed = time.perf_counter(), time.process_time()
path = mata_interp.report(sys.argv[1], sys.argv[2])
print(imported - started, time.perf_counter() - imported, time.process_time() - computed, peak() / 2**20)
"""

TIMED = """async (action) => {
  const root = document.querySelector('.item-view'), view = root.itemView, items = view.data.items;
  const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  const set = (selector, value, event) => {
    const control = root.querySelector(selector);
    control.value = value;
    control.dispatchEvent(new Event(event, { bubbles: true }));
  };
  const move = (selector, x, y) => {
    const element = root.querySelector(selector), box = element.getBoundingClientRect();
    const settings = { clientX: box.left + x * box.width, clientY: box.top + y * box.height, bubbles: true };
    element.dispatchEvent(new PointerEvent('pointermove', { ...settings, pointerId: 1, button: 0 }));
  };
  const option = (name, count) => {
    const options = root.querySelector(`[name=${name}]`).options;
    return options[turn % Math.min(count, options.length)].value;
  };
  let turn = 0;
  const actions = {
    'filter by outcome': () => root.querySelectorAll('.iv-chip')[turn % 4].click(),
    'filter by task': () => set('[name=task]', option('task', 3), 'change'),
    'search': () => set('[name=q]', ['', 'a', 'dog', 'bell'][turn % 4], 'input'),
    'sort': () => root.querySelectorAll('.iv-rows th button')[turn % 4].click(),
    'hover a head': () => move('.iv-map canvas', 0.3 + 0.1 * (turn % 5), 0.2 + 0.1 * (turn % 7)),
    'hover a moment': () => move('.iv-tracks', 0.2 + 0.09 * (turn % 7), 0.5),
    'lock a head': () => view.lock({ layer: turn % view.data.layers.length, head: turn % 3 }),
    'another view': () => set('[name=view]', option('view', 3), 'change'),
    'open an item': () => view.open(items[turn % items.length]),
  };
  const times = [];
  for (turn = 0; turn < 9; turn++) {
    await frame();
    const started = performance.now();
    await actions[action]();
    const worked = performance.now() - started;
    await frame();
    times.push([worked, performance.now() - started]);
  }
  return times;
}"""

ACTIONS = (
    "filter by outcome", "filter by task", "search", "sort", "hover a head", "hover a moment", "lock a head",
    "another view", "open an item",
)  # fmt: skip


def extended(source: Path, folder: Path, items: int) -> Path:
    """A copy of a finished run with at least this many items: the same rows under new ids, again and again.

    Recordings are repeated without heads and audio. Digests of the copies are those of the originals, as the
    page does not compute with them.
    """
    folder.mkdir(parents=True)
    for path in source.iterdir():
        if path.is_file() and path.name != RECORDINGS:
            shutil.copy(path, folder / path.name)
    manifest = json.loads((source / "manifest.json").read_text())
    known = list(manifest["data"]["digests"])
    times = -(-items // len(known))

    def names(id: str) -> Iterator[str]:
        return (id if n == 0 else f"{id}-copy-{n}" for n in range(times))

    data = manifest["data"]
    data |= {"items": times * data["items"], "clips": times * data["clips"]}
    data["digests"] = {name: data["digests"][id] for id in known for name in names(id)}
    for key in ("caption_answers", "audio_from"):
        manifest[key] = {name: value for id, value in manifest[key].items() for name in names(id)}
    manifest["batches"] = [
        {**batch, "items": [id if n == 0 else f"{id}-copy-{n}" for id in batch["items"]]}
        for n in range(times)
        for batch in manifest["batches"]
    ]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    _repeat_parts(source, folder, times)
    if (source / RECORDINGS).exists():
        recordings = load_recordings(source / RECORDINGS)
        bare = {"heads": None, "audio": None, "peaks": None, "spectrogram": None}
        more = {
            name: (one if name == id else replace(one, item=name, **bare))
            for id, one in recordings.items.items()
            for name in names(id)
        }
        replace(recordings, items=more).save(folder / RECORDINGS)
    return folder


def _repeat_parts(source: Path, folder: Path, times: int) -> None:
    """Write the records of a run under the new ids, one file a condition as in any finished run."""
    records, written = load_run(source).records, RunFolder(folder)
    batches = int(records["batch"].max()) + 1
    for n in range(times):
        part = records.assign(batch=records["batch"] + n * batches)
        for column in ("item", "audio_from", "cluster") if n else ():
            part[column] = part[column].where(part[column].isna(), part[column] + f"-copy-{n}")
        for (condition, batch), rows in part.groupby(["condition", "batch"], sort=False):
            in_order = written.manifest["batches"][int(batch)][
                "items"
            ]  # of the batch; records have the items'
            rows = rows.set_index("item", drop=False).loc[in_order]
            table = pa.Table.from_pandas(rows, schema=SCHEMA, preserve_index=False)
            written.write_part(str(condition), int(batch), table.replace_schema_metadata(None))
    written.compact()


def write(folder: Path, page: Path) -> dict[str, float]:
    """Write the page in a process of its own; seconds, CPU seconds and MiB."""
    command = [sys.executable, "-c", PEAK + WRITE, str(folder), str(page)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported, seconds, cpu, peak = map(float, done.stdout.split()[-4:])
    return {"import, s": imported, "report, s": seconds, "CPU, s": cpu, "peak, MiB": peak,
            "page, MB": page.stat().st_size / 1e6}  # fmt: skip


def interactions(page: Path) -> dict[str, dict[str, float]]:
    """Milliseconds of each interaction, by action.

    ``script``, ``frame``: median time in the script, and until the next frame is drawn. ``cpu``: mean time
    that the main thread of the page computed (script, style, layout, paint), of three rounds the least, which
    other work on the machine changes least.
    """
    results = {}
    with chromium() as browser:
        tab = browser.new_page(viewport={"width": 1440, "height": 900})
        session = tab.context.new_cdp_session(tab)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})

        def computed() -> float:
            metrics = session.send("Performance.getMetrics")["metrics"]
            return next(each["value"] for each in metrics if each["name"] == "TaskDuration")

        tab.set_default_timeout(180_000)
        tab.goto(page.resolve().as_uri())
        tab.wait_for_selector('.item-view[data-loaded]:not([data-loaded=""])', state="attached")
        for action in ACTIONS:
            rounds = []
            for _ in range(3):
                before = computed()
                times = np.array(tab.evaluate(TIMED, action))
                rounds.append((1000 * (computed() - before) / len(times), *np.median(times, axis=0).tolist()))
            results[action] = dict(zip(("cpu", "script", "frame"), min(rounds), strict=True))
    return results


def main(folder: Path) -> None:
    """Print the figures of a run's page."""
    page = folder / "speed.html"
    rows = len(pq.ParquetDataset(folder / "parts").read(columns=["item"]))
    print(f"{rows:,} records")
    for name, value in write(folder, page).items():
        print(f"{name:24} {value:10.2f}")
    for action, times in interactions(page).items():
        cpu, script, frame = (f"{times[name]:7.1f} ms" for name in ("cpu", "script", "frame"))
        print(f"{action:24} {cpu} of the main thread; {script} in the script, {frame} to the next frame")
    page.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
