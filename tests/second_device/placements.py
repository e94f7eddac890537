"""Where a model is put: on one device, its decoder split over two, or with weights on the CPU and on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from accelerate import dispatch_model

from mata_interp.lalm import LALM

__all__ = ["PLACEMENTS"]


def on_one_device(lalm: LALM, folder: Path) -> None:
    lalm.model.to("accel:0")


def split(lalm: LALM, folder: Path) -> None:
    """The second half of the decoder, its last norm and the output head are on the second device."""
    half = lalm.num_layers // 2
    layers = ["accel:0"] * half + ["accel:1"] * (lalm.num_layers - half)
    _dispatch(lalm, layers, {"norm": "accel:1", "lm_head": "accel:1"}, folder)


def offloaded(lalm: LALM, folder: Path) -> None:
    """Some weights are on the CPU and some on disk, until a forward pass needs them on the first device."""
    layers = [("accel:0", "cpu", "disk")[layer % 3] for layer in range(lalm.num_layers)]
    _dispatch(lalm, layers, {"embed_tokens": "cpu", "norm": "disk", "lm_head": "cpu"}, folder)


PLACEMENTS: dict[str, Callable[[LALM, Path], None]] = {
    "one device": on_one_device,
    "split decoder": split,
    "offloaded": offloaded,
}
"""Name -> a function that moves a model; ``folder`` is empty, for weights on disk."""


def _dispatch(lalm: LALM, layers: list[str], place_of_name: dict[str, str], folder: Path) -> None:
    """Spread a model over devices, as ``device_map`` does; what is not named goes to the first device.

    Args:
        layers: the place of each decoder layer.
        place_of_name: the last part of a module's name -> its place.
    """
    names = {module: name for name, module in lalm.model.named_modules()}
    places = {names[block]: place for block, place in zip(lalm.structure.blocks, layers, strict=True)}
    decoder = names[lalm.structure.decoder]
    for name in names.values():
        parent, _, last = name.rpartition(".")
        if last in place_of_name and parent in (decoder, ""):
            places[name] = place_of_name[last]
    for name in names.values():
        inside = any(f"{name}.".startswith(f"{placed}.") for placed in places)
        around = not name or any(placed.startswith(f"{name}.") for placed in places)
        if not inside and not around:
            places[name] = "accel:0"
    dispatch_model(lalm.model, places, offload_dir=folder, skip_keys="past_key_values")
