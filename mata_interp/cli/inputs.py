"""What commands begin with: the model, the items and the layers that their options name."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..defaults import LAYER_ITEMS
from ..errors import ItemError, RunError
from .checks import check_file, check_folder, check_model, usage_error, with_map
from .options import AS_STORED, AUTO, DEFAULT_MODEL
from .output import print_note, print_status, progress

if TYPE_CHECKING:
    from ..benchmarks import Items
    from ..lalm import LALM
    from ..load_options import LoadOptions

AUTO_CRITERIA = ("knockout_text_single", "knockout_text_others", "knockout_last", "restoration_audio")
"""What ``--layers auto`` measures."""


def model_name(argument: str | None, option: str | None) -> str:
    """The model of ``MODEL`` or ``--model``; both may be given if they agree."""
    if argument is not None and option is not None and argument != option:
        raise usage_error(f"two models are named: {argument!r} and, as MODEL, {option!r}.", "--model")
    return check_model(argument or option or DEFAULT_MODEL)


def load_model(name: str, options: LoadOptions = AS_STORED) -> LALM:
    """Load the model and say on stderr where and how it runs; bars are drawn in a terminal only.

    Args:
        name: what `model_name` returned.
        options: checked by `check_loading` before.
    """
    from ..lalm import LALM

    if not progress():
        from transformers.utils import logging

        logging.disable_progress_bar()
    lalm = LALM.from_pretrained(name, **with_map(options).arguments())
    print_status(lalm.description)
    return lalm


@dataclass(frozen=True)
class Source:
    """Where items come from: ``--benchmark``, ``--audio-root``, ``--fields`` and ``--subset``."""

    benchmark: str
    audio_root: Path | None
    fields: str | None
    subset: str | None

    @property
    def stem(self) -> str:
        """A short name for folders."""
        return Path(self.benchmark).expanduser().stem

    def usable(self) -> Items:
        """The items.

        Raises:
            RunError: none can be used.
        """
        items = self.load()
        if not len(items):
            first = items.excluded[0] if items.excluded else None
            reason = f", the first ({first.item}): {first.field}: {first.reason}" if first else ""
            raise RunError(
                f"{items.name}: no item can be used; {len(items.excluded)} left out{reason} "
                "`mata-interp benchmark inspect` lists all."
            )
        return items

    def load(self, option: str = "--benchmark") -> Items:
        """The items; a file that does not exist is wrong usage of ``option``."""
        from ..benchmarks import load_benchmark

        path = Path(self.benchmark).expanduser()
        if path.suffix and not self.benchmark.startswith("hf:") and not path.exists():
            raise usage_error(f"there is no file {str(path)!r}.", option)
        if path.is_file() or self.benchmark == "listening":  # of a dataset, audio is unpacked there
            check_folder(self.audio_root, "--audio-root")
        if self.fields is not None and self.fields.lower().endswith(".json"):
            check_file(Path(self.fields).expanduser(), "--fields")
        fields = self.fields if self.fields is None else str(Path(self.fields).expanduser())
        return load_benchmark(self.benchmark, audio_root=self.audio_root, subset=self.subset, fields=fields)


def take(items: Items, split: str, limit: int | None, seed: int) -> Items:
    """At most ``limit`` items of a split; says so where whole clips make fewer than ``limit``.

    Raises:
        RunError: the split has no item.
    """
    chosen = items if split == "all" else items.split(split, seed=seed)
    if not len(chosen):
        raise RunError(f"{items.name} has no item in its {split} split; --split all takes every item.")
    return sample(chosen, split, limit, seed)


def sample(chosen: Items, split: str, limit: int | None, seed: int) -> Items:
    """At most ``limit`` of the ``chosen`` items, which are those of ``split``."""
    if limit is None:
        return chosen
    few = chosen.sample(limit, seed=seed)
    if len(few) < min(limit, len(chosen)):
        where = "" if split == "all" else f" of the {split} split"
        print_note(f"{len(few)} of {len(chosen)} items{where} (--items {limit} takes whole clips).")
    return few


# --------------------------------------------------------------------------------------------------- layers
@dataclass(frozen=True)
class LayersFile:
    """What a file for ``--layers`` holds: a window, or a whole fusion profile."""

    path: Path
    layers: Any  # a tuple of layers, or a FusionProfile

    @property
    def chosen_on(self) -> frozenset[str]:
        """The clips that the layers were chosen on, as far as the file says."""
        return frozenset(getattr(self.layers, "chosen_on", ()))


def read_layers(value: Any) -> Any:
    """The value of ``--layers``, a file read already: before a model is loaded.

    Raises:
        RunError: the file holds no layers.
    """
    if not isinstance(value, Path):
        return value
    check_file(value, "--layers")
    try:
        data = json.loads(value.read_text("utf-8"))
        window = tuple(int(layer) for layer in data["window"])
        if "chosen_on" not in data:
            return LayersFile(value, window)
        from ..fusion import FusionProfile

        return LayersFile(value, FusionProfile.from_dict(data))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f'cannot read layers from {value}: {error!r}. It must hold {{"window": [3, 4, 5]}} or '
            "be written by `mata-interp layers --out`."
        ) from error


@dataclass(frozen=True)
class AutoLayers:
    """How ``--layers auto`` is measured.

    Attributes:
        data: returns the items whose selection split is measured.
        seed: seed of the split and of the draws.
        prompt_format: wording of the items.
        folder: folder of the command's results, in which the profile is kept; None keeps it in memory.
        ray: the Ray cluster, as in `mata_interp.run`.
        dry_run: measure nothing, and take the published layers.
    """

    data: Callable[[], Items]
    seed: int = 0
    prompt_format: str = "options"
    folder: Path | None = None
    ray: Any = False
    dry_run: bool = False

    def measure(self, lalm: LALM) -> Any:
        """The fusion profile, or in a dry run layers in its place."""
        import mata_interp

        from ..reporting.wording import count, printable

        chosen = clips_to_choose_on(self.data(), LAYER_ITEMS, self.seed)
        items = f"{count(len(chosen), 'item')} of the selection split of {printable(chosen.name)}"
        if self.dry_run:
            print_note(
                f"--layers auto would be measured on {items} first; here the published layers stand in."
            )
            return mata_interp.published_layers(lalm)
        profile = mata_interp.fusion_layers(
            lalm,
            chosen,
            criteria=AUTO_CRITERIA,
            seed=self.seed,
            prompt_format=self.prompt_format,
            out=None if self.folder is None else self.folder / "layers.json",
            ray=self.ray,
        )
        print_note(f"--layers auto, on {items}: {printable(profile.summary)}")
        return profile


def resolve_layers(value: Any, lalm: LALM, auto: AutoLayers) -> Any:
    """What ``Mata(layers=...)`` takes, for the value of ``--layers``.

    Args:
        value: what `read_layers` returned: layers or None, which come back as they are, a `LayersFile`, or
            ``auto``.
        lalm: the model.
        auto: how ``auto`` is measured.
    """
    from ..ranges import brief
    from ..reporting.wording import printable

    if isinstance(value, LayersFile):
        layers = value.layers
        source_model = getattr(layers, "model", lalm.name)
        if source_model != lalm.name:
            print_note(
                f"layers {brief(layers.window)} of {value.path} were found in {printable(source_model)}, "
                f"not in {printable(lalm.name)}."
            )
        return layers
    return auto.measure(lalm) if value == AUTO else value


def clips_to_choose_on(data: Items, limit: int, seed: int) -> Items:
    """The items of `mata_interp.fusion.selection_items`; says so where they are fewer than ``limit``.

    Raises:
        RunError: the selection split is empty.
    """
    from ..fusion import selection_items

    return sample(selection_items(data, None, seed), "selection", limit, seed)


def clusters_of(items: Sequence[Any]) -> frozenset[str]:
    """The clips of the items whose audio can be identified."""
    clusters = set()
    for item in items:
        try:
            clusters.add(item.cluster)
        except ItemError:
            continue
    return frozenset(clusters)
