"""Shared by the tests of the organism: the bank, and one batcher."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mata_interp.organism.bank import Bank, load_bank
from mata_interp.organism.batches import Batch
from mata_interp.organism.training import TrainingModel


@pytest.fixture(scope="session")
def bank() -> Bank:
    return load_bank()


def audio_effect(model: TrainingModel, batch: Batch) -> float:
    """Largest change of the logits that predict the answers' first tokens, when clips are exchanged."""
    other = replace(batch, features=batch.features.flip(0))
    first = (batch.labels >= 0).long().argmax(1) - 1
    rows = torch.arange(len(first))
    with torch.no_grad():
        return float((model.logits(batch) - model.logits(other))[rows, first].abs().max())


def plain_inputs(model: TrainingModel, batch: Batch) -> dict[str, torch.Tensor]:
    """The batch as inputs of a plain forward pass, the prefix in every row."""
    prefix = model.prefix.expand(len(batch.suffix), -1)
    return {
        "input_ids": torch.cat([prefix, batch.suffix], 1),
        "attention_mask": torch.cat([torch.ones_like(prefix), batch.mask.long()], 1),
        "input_features": batch.features,
        "feature_attention_mask": batch.feature_mask,
    }
