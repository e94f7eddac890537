"""From values of tokens to values of queries, against a loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mata_interp.tracing.queries import ChosenQueries

CHOSEN = torch.tensor([[True, False, True, True], [False, False, True, False], [True, True, True, True]])


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_values_of_queries(shape):
    values = torch.rand(3, *shape, 4, generator=torch.Generator().manual_seed(0))
    values[1, ..., 0] = torch.nan  # of a token that is no query
    queries = [values[b][..., CHOSEN[b]] for b in range(3)]
    mean = ChosenQueries(CHOSEN, mean=True).reduce(values)
    torch.testing.assert_close(mean, torch.stack([part.mean(-1, keepdim=True) for part in queries]))
    each = ChosenQueries(CHOSEN, mean=False).reduce(values)
    assert each.shape == (3, *shape, 4)
    for b, part in enumerate(queries):
        np.testing.assert_array_equal(each[b][..., : part.shape[-1]], part)
        assert each[b][..., part.shape[-1] :].isnan().all()


def test_a_single_query_of_every_prompt_is_left_as_it_is():
    values = torch.rand(3, 2, 1)
    for mean in (True, False):
        assert ChosenQueries(torch.ones(3, 1, dtype=torch.bool), mean).reduce(values) is values
    one_absent = ChosenQueries(torch.tensor([[True], [False], [True]]), False).reduce(values)
    assert one_absent[1].isnan().all()
