"""Named random streams: reproducible, and different for different names and seeds."""

from __future__ import annotations

from mata_interp.seeding import named_generator


def test_streams_depend_on_seed_and_name_only():
    first = named_generator(0, "item order").integers(2**62, size=4).tolist()
    assert named_generator(0, "item order").integers(2**62, size=4).tolist() == first
    streams = [(0, "item orders"), (0, "bootstraps"), (1, "item order"), (0, "")]  # one has as many letters
    draws = [named_generator(*other).integers(2**62, size=4).tolist() for other in streams]
    assert len({tuple(each) for each in [first, *draws]}) == 5
