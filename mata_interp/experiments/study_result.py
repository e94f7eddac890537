"""StudyResult: what a study chose and found, as it stands in ``study.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..benchmarks import Exclusion
from .dose_matching import TOLERANCE
from .effects import ComparisonResult
from .schema import from_plain, read_versioned, write_versioned

__all__ = [
    "Configuration",
    "GridRow",
    "LayerOrigin",
    "LayerShare",
    "Selection",
    "ShamMatch",
    "ShamMatches",
    "Split",
    "StudyResult",
    "SweepQuality",
    "SweepScore",
]


@dataclass(frozen=True)
class SweepScore:
    """How well a configuration does on the swept items.

    Attributes:
        margin: Mean log-probability difference between the right option and the best other one, in nats.
        accuracy: Proportion of correct answers.
        n: Number of items.
    """

    margin: float
    accuracy: float
    n: int


@dataclass(frozen=True)
class Configuration:
    """MATA's settings: edited layers, strength and rule."""

    layers: tuple[int, ...]
    alpha: float
    rule: str


@dataclass(frozen=True)
class GridRow(SweepScore):
    """A configuration of the sweep and its score."""

    layers: tuple[int, ...]
    alpha: float
    rule: str

    @property
    def configuration(self) -> Configuration:
        """The settings without the score."""
        return Configuration(self.layers, self.alpha, self.rule)


@dataclass(frozen=True)
class LayerOrigin:
    """Where layers come from that the study does not choose itself.

    Attributes:
        layers: The layers.
        profile_model: Model of the `FusionProfile` that they are the window of; None for layers by hand.
        clips: Number of clips that they were chosen on, as far as is known.
        selection_clips, test_clips: How many of those clips are among the study's own.
    """

    layers: tuple[int, ...]
    profile_model: str | None
    clips: int
    selection_clips: int
    test_clips: int


@dataclass(frozen=True)
class ShamMatch:
    """The strength at which a sham's mean row KL is closest to MATA's.

    Attributes:
        keys: ``"text"`` for the sham on text, ``"audio"`` for MATA in random layers.
        layers: The layers that the sham edits.
        alpha: The sham's strength.
        kl: Its mean row KL, in nats.
        target_kl: MATA's mean row KL, in nats.
        mata: The settings that it is matched to.
        items: Number of items that the means are over.
        tried: Strength and mean row KL of every evaluation, in order.
        heads: Which heads it edits: ``"all"`` that MATA edits; ``"half"``, a random half of them; or
            ``"signs"``, that half, and the others with the opposite sign. KL is the mean over all rows that
            MATA edits: where a sham leaves half of them alone, these count as 0.
    """

    keys: str
    layers: tuple[int, ...]
    alpha: float
    kl: float
    target_kl: float
    mata: Configuration
    items: int
    tried: tuple[tuple[float, ...], ...]
    heads: str = "all"

    @property
    def shared_layers(self) -> tuple[int, ...]:
        """The layers that MATA edits as well."""
        return tuple(layer for layer in self.layers if layer in self.mata.layers)

    @property
    def is_matched(self) -> bool:
        """Whether the mean row KL is MATA's, within the tolerance of the search."""
        return abs(self.kl / self.target_kl - 1) <= TOLERANCE


@dataclass(frozen=True)
class ShamMatches:
    """The shams of a study at MATA's dose.

    Attributes:
        text: The same rule on text tokens, in MATA's layers.
        random_layers: MATA in each draw of random layers.
        in_heads: The shams in random heads and with random signs, as far as they were asked for.
    """

    text: ShamMatch
    random_layers: tuple[ShamMatch, ...]
    in_heads: tuple[ShamMatch, ...] = ()


@dataclass(frozen=True)
class SweepQuality:
    """Checks that the selection sweep ran.

    Attributes:
        canary: Largest difference of the unedited canary row from the plain forward, in steps of the number
            format (see `mata_interp.sweeps.canary`).
        looped: Number of items that were computed one configuration at a time instead.
        culprits: Why, naming layers and items; empty if there are none.
    """

    canary: float
    looped: int
    culprits: str


@dataclass(frozen=True)
class LayerShare:
    """Mean audio share of the attention in one layer."""

    layer: int
    share: float


@dataclass(frozen=True)
class Selection:
    """How layers and strength were chosen, on the selection split.

    Attributes:
        items, clips: Number of items and clips of the split.
        grid_items: Number of items that every configuration was tried on.
        grid_caption_condition: Their caption condition; None where they have several.
        grid_chance: Accuracy of answers drawn at random from their options.
        layer_origin: Where the layers come from if the study did not choose them.
        grid: Every configuration that was tried.
        baseline: The score without intervention.
        chosen: The configuration with the best mean margin.
        edges: In which respects it is the largest that was tried: ``"the largest alpha"``, ``"the widest
            window"``.
        reason: The choice in one or two sentences.
        sweep: Checks of the sweep.
        sham: The sham on text.
        random_layers: MATA in each draw of random layers, at its own dose.
        shams_in_heads: MATA in random heads and with random signs, as far as these were asked for.
        trace_items: Number of items traced.
        trace_share_by_layer: Mean audio share of each layer.
    """

    items: int
    clips: int
    grid_items: int
    grid_caption_condition: str | None
    grid_chance: float
    layer_origin: LayerOrigin | None
    grid: tuple[GridRow, ...]
    baseline: SweepScore
    chosen: Configuration
    edges: tuple[str, ...]
    reason: str
    sweep: SweepQuality
    sham: ShamMatch
    random_layers: tuple[ShamMatch, ...]
    trace_items: int
    trace_share_by_layer: tuple[LayerShare, ...]
    shams_in_heads: tuple[ShamMatch, ...] = ()


@dataclass(frozen=True)
class Split:
    """Number of items and clips of a split."""

    items: int
    clips: int


@dataclass(frozen=True)
class StudyResult:
    """What a study chose and found.

    Attributes:
        answer: The answer in plain English: the headline, then up to three paragraphs of numbers.
        hypothesis: The primary hypothesis.
        primary: The primary comparison and its effect.
        selection: How layers and strength were chosen.
        test: Size of the confirmation split.
        excluded: Items left out of either split.
        truncated: Number of items whose audio is longer than the model takes.
        seed, items_limit: Arguments of `study`.
        seconds: Stage -> seconds it took; a stage that was already done takes almost none.
        command: The command line.
        model: The model's fingerprint.

    Examples:
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")
        >>> done = mi.study(lalm, items, "second-study", layers=[6], items_limit=6, progress=False)
        >>> done.study.test.items > 0, done.study.primary.effect.n > 0
        (True, True)
    """

    answer: str
    hypothesis: str
    primary: ComparisonResult
    selection: Selection
    test: Split
    excluded: tuple[Exclusion, ...]
    truncated: int
    seed: int
    items_limit: int | None
    seconds: Mapping[str, float]
    command: str
    model: Mapping[str, Any]

    def save(self, path: str | Path) -> None:
        """Write ``study.json``; RunError if the file cannot be written."""
        content = {name: getattr(self, name) for name in self.__dataclass_fields__}
        write_versioned(Path(path).expanduser(), **content)

    @classmethod
    def load(cls, path: str | Path) -> StudyResult:
        """Read ``study.json``.

        Raises:
            RunError: The file cannot be read, has another format version, or lacks a field.
        """
        content = read_versioned(Path(path).expanduser())
        del content["version"]
        return from_plain(cls, content, path)
