"""Options in other orders and repeated items: every copy keeps its answer, its split and its cluster."""

from __future__ import annotations

from dataclasses import replace

import pytest

import mata_interp as mi
from mata_interp.benchmarks import Items
from mata_interp.errors import ArgumentError
from tests.support.sounds import make_items


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    made = make_items(tmp_path_factory.mktemp("clips"), clips=4, splits=("selection", "test"))
    return Items.from_records([*made, replace(made[0], id="gone", question="")], "made")


def test_the_original_order_changes_nothing(items):
    assert mi.reorder_options(items, "original") is items
    assert mi.repeat_items(items, 1) is items


def test_cyclic_orders_put_every_option_everywhere(items):
    cyclic = mi.reorder_options(items, "cyclic")
    assert len(cyclic) == sum(len(item.choices) for item in items)
    for item in items:
        copies = [copy for copy in cyclic if copy.id.partition(", order")[0] == item.id]
        for place in range(len(item.choices)):
            assert {copy.choices[place] for copy in copies} == set(item.choices)
        assert {copy.cluster for copy in copies} == {item.cluster}
        assert {(copy.answer, copy.split, copy.condition) for copy in copies} == {
            (item.answer, item.split, item.condition)
        }
    assert cyclic.excluded == items.excluded != ()


def test_shuffled_orders_are_those_of_the_seed(items):
    first, again, other = (mi.reorder_options(items, "shuffled", seed) for seed in (0, 0, 1))
    assert [item.choices for item in first] == [item.choices for item in again]
    assert [item.choices for item in first] != [item.choices for item in other]
    for item, before in zip(first, items, strict=True):
        assert sorted(item.choices) == sorted(before.choices)
        assert (item.id, item.answer, item.cluster) == (before.id, before.answer, before.cluster)


def test_samples_have_ids_of_their_own_and_share_the_cluster(items):
    repeated = mi.repeat_items(items, 3)
    assert len({item.id for item in repeated}) == len(repeated) == 3 * len(items)
    assert {item.cluster for item in repeated} == {item.cluster for item in items}


def test_the_samples_of_an_item_differ(items, tiny_lalm):
    sampled = mi.repeat_items(items[:1], 4)
    decoding = mi.Decoding(max_new_tokens=8, temperature=2.0, seed=3)
    run = mi.run(tiny_lalm, sampled, {"baseline": None}, decoding=decoding, progress=False)
    assert run.records["text"].nunique() > 1
    assert run.records["cluster"].nunique() == 1


@pytest.mark.parametrize("call", [lambda i: mi.reorder_options(i, "random"), lambda i: mi.repeat_items(i, 0)])
def test_bad_arguments_are_refused(items, call):
    with pytest.raises(ArgumentError):
        call(items)
