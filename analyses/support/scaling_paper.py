"""On paper: what 10,000 items under 100 configurations should take on many GPUs, and on which assumptions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

__all__ = ["GPUS", "Assumptions", "on_paper"]

GPUS = (8, 64, 512)


@dataclass(frozen=True)
class Assumptions:
    """Qwen2-Audio-7B in bfloat16 on GPUs of the A100 class, on the longest clips there are (30 s).

    Arithmetic is two operations a parameter and token; attention's own, some 2 % more at this length, is left
    out. Traffic is of weights and, where each configuration reads them anew, of keys and values.

    Attributes:
        items, configurations: what is asked.
        prompt_tokens: 750 of audio (25 a second), the others words.
        option_tokens: of all options of an item together; 0 where the first token decides (letters).
        decoder, encoder: parameters that a decoder token, or an encoder frame, passes through.
        encoder_frames: of 30 s.
        shared: part of the layers that configurations share in a sweep, edits being in the middle ones.
        flops: of one GPU at its peak, per second.
        reading, rows: part of the peak that a prefill, and rows of single tokens in large blocks, reach.
        bandwidth: bytes a second that a pass over few tokens reads, 70 % of the peak.
        cache: bytes of an item's keys and values: 870 tokens x 2 x 32 layers x 4096 x 2 bytes.
        batch: items in a batch.
        load: seconds until a process holds the model: first the one that starts the run, then all workers.
        check: seconds that the process that starts the run spends on each item before any GPU works.
        prepare: seconds that a worker's processor takes to decode a sound and make its features, while
            its GPU waits.
        part: seconds it takes to receive and write one part.
    """

    items: int = 10_000
    configurations: int = 100
    prompt_tokens: int = 870
    option_tokens: int = 20
    options: int = 4
    decoder: float = 7.7e9
    encoder: float = 0.64e9
    encoder_frames: int = 1500
    shared: float = 0.3
    flops: float = 312e12
    reading: float = 0.4
    rows: float = 0.3
    bandwidth: float = 1.4e12
    cache: float = 870 * 2 * 32 * 4096 * 2
    batch: int = 16
    load: float = 120.0
    check: float = 0.04
    prepare: float = 0.04
    part: float = 0.005

    def seconds_an_item(self) -> dict[str, float]:
        """Of one GPU, for all configurations of one item, by method.

        - ``loop``: a whole forward for each configuration, options included.
        - ``run``: what `mi.run` does: the prompt read once, then for each configuration the last token and
          the options. These are passes over few tokens, so that reading costs more than arithmetic: the
          weights, which a batch shares, and each item's keys and values.
        - ``sweep``: what `mi.sweep` does: the same rows, all configurations at once, and only in the layers
          that they do not share.
        """
        prefill = 2 * self.decoder * self.prompt_tokens + 2 * self.encoder * self.encoder_frames
        read = prefill / (self.flops * self.reading)
        row_flops = 2 * self.decoder * (1 + self.option_tokens)
        rows = row_flops / (self.flops * self.rows)
        passes = 1 + (self.options if self.option_tokens else 0)
        traffic = passes * (2 * self.decoder / self.batch + self.cache) / self.bandwidth
        return {
            "loop": self.configurations * (read + max(rows, traffic)),
            "run": read + self.configurations * max(rows, traffic),
            "sweep": read + (1 - self.shared) * self.configurations * rows,
        }

    def parts(self, method: str) -> int:
        """Files written: one a batch and condition; a sweep's results are one array a batch."""
        batches = math.ceil(self.items / self.batch)
        return batches if method == "sweep" else batches * self.configurations


def on_paper(given: Assumptions, gpus: tuple[int, ...] = GPUS) -> pd.DataFrame:
    """One row a method and number of GPUs: GPU hours, hours by the clock, and what holds it up.

    A batch is not divided, so the last round may leave GPUs idle; the process that started the run loads the
    model, looks at every item and then writes every part, which overlaps with the answering. ``busy`` is the
    part of the GPUs' time in which they compute.
    """
    rows = []
    for method, seconds in given.seconds_an_item().items():
        batches = math.ceil(given.items / given.batch)
        for count in gpus:
            answering = math.ceil(batches / count) * given.batch * (given.prepare + seconds)
            writing, checking = given.parts(method) * given.part, given.check * given.items
            loading = 2 * given.load  # by the process that starts the run, then by all workers at once
            stages = {answering: "answering", writing: "writing", checking: "checking", loading: "loading"}
            whole = loading + checking + max(answering, writing)
            rows.append(
                {
                    "method": method,
                    "gpus": count,
                    "gpu_hours": given.items * seconds / 3600,
                    "hours": whole / 3600,
                    "busy": given.items * seconds / (count * whole),
                    "longest": stages[max(stages)],
                }
            )
    return pd.DataFrame(rows)
