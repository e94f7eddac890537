"""Estimated time of 10,000 items with 100 configurations on many GPUs, with all assumptions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

__all__ = ["GPUS", "Assumptions", "on_paper"]

GPUS = (8, 64, 512)


@dataclass(frozen=True)
class Assumptions:
    """Qwen2-Audio-7B in bfloat16 on GPUs of the A100 class, on the longest clips there are (30 s).

    Arithmetic is two operations for each parameter and token; that of attention itself, about 2 % more at
    this length, is neglected. Memory traffic is that of weights and, where each configuration reads them, of
    keys and values.

    Attributes:
        items: number of items.
        configurations: number of configurations.
        prompt_tokens: 750 tokens of audio (25 a second), the rest text.
        option_tokens: tokens of all options of an item together; 0 if the first token decides (letters).
        options: number of options.
        decoder: parameters that a decoder token passes through.
        encoder: parameters that an encoder frame passes through.
        encoder_frames: frames of 30 s.
        shared: share of the layers below the first edit, which all configurations of a sweep have in common.
        flops: peak operations per second of one GPU.
        reading: share of the peak that a prefill reaches.
        rows: share of the peak that rows of single tokens in large blocks reach.
        bandwidth: bytes per second read by a pass over few tokens, 70 % of the peak.
        cache: bytes of an item's keys and values: 870 tokens x 2 x 32 layers x 4096 x 2 bytes.
        batch: items in a batch.
        load: seconds to load the model: first in the process that starts the run, then in all workers at
            once.
        check: seconds per item that the process that starts the run spends on validation.
        prepare: seconds per item that a worker's CPU takes to decode audio and compute features, while its
            GPU waits.
        part: seconds to receive and write one part.
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
        """Seconds of one GPU for all configurations of one item, by method.

        - ``loop``: a forward pass for each configuration, options included.
        - ``run``: as in `mi.run`, one prefill, then for each configuration the last token and the options.
          These are passes over few tokens, in which memory traffic costs more than arithmetic: the weights,
          which a batch shares, and the keys and values of each item.
        - ``sweep``: as in `mi.sweep`, the same rows for all configurations at once, and only in the layers
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
        """Number of files: one for each batch and condition; of a sweep, one for each batch."""
        batches = math.ceil(self.items / self.batch)
        return batches if method == "sweep" else batches * self.configurations


def on_paper(assumptions: Assumptions, gpus: tuple[int, ...] = GPUS) -> pd.DataFrame:
    """One row for each method and number of GPUs: GPU hours, elapsed hours, and the longest stage.

    A batch is not divided, so the last round may leave GPUs idle. The process that starts the run loads the
    model, validates every item, and writes every part while the workers answer. ``busy`` is the share of the
    GPUs' time in which they compute.
    """
    rows = []
    for method, seconds in assumptions.seconds_an_item().items():
        batches = math.ceil(assumptions.items / assumptions.batch)
        for count in gpus:
            answering = math.ceil(batches / count) * assumptions.batch * (assumptions.prepare + seconds)
            writing, checking = (
                assumptions.parts(method) * assumptions.part,
                assumptions.check * assumptions.items,
            )
            loading = 2 * assumptions.load  # by the process that starts the run, then by all workers at once
            stages = {answering: "answering", writing: "writing", checking: "checking", loading: "loading"}
            whole = loading + checking + max(answering, writing)
            rows.append(
                {
                    "method": method,
                    "gpus": count,
                    "gpu_hours": assumptions.items * seconds / 3600,
                    "hours": whole / 3600,
                    "busy": assumptions.items * seconds / (count * whole),
                    "longest": stages[max(stages)],
                }
            )
    return pd.DataFrame(rows)
