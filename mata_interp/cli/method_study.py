"""`mata-interp study --method`: a study of a method of the catalogue in place of MATA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .checks import check_excluded, check_needs
from .methods import check_method, make_method
from .output import print_forecast, print_result, print_table

if TYPE_CHECKING:
    from ..lalm import LALM

__all__ = ["MethodOptions", "check_method_options", "study_the_method"]

OF_MATA = "it belongs to a study of MATA, whose strength is chosen and whose dose is matched"


@dataclass(frozen=True)
class MethodOptions:
    """``--method`` and ``--set``.

    Attributes:
        name: of the method; None: the study is one of MATA.
        settings: texts of the form key=value.
    """

    name: str | None
    settings: Sequence[str] | None


def check_method_options(options: MethodOptions, of_mata: Mapping[str, Any]) -> None:
    """Refuse what makes no sense, before a model is loaded.

    Args:
        options: of the command.
        of_mata: option -> its value, None where it was not used: those that need MATA.
    """
    check_needs({"--set": options.settings or None}, "--method", options.name is not None)
    if options.name is not None:
        check_excluded(of_mata, "--method", OF_MATA)
        check_method(options.name, options.settings)


def study_the_method(
    lalm: LALM,
    data: Any,
    options: MethodOptions,
    layers: Any,
    out: Path,
    *,
    dry_run: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Run the study, or say what its test would do, and print the result.

    Args:
        lalm: the model.
        data: items of both splits.
        options: of the command.
        layers: layers or a FusionProfile to edit; None: they are chosen.
        out: the run folder.
        dry_run: whether to say what would be done.
        as_json: whether to print JSON.
        settings: the other arguments of `study_method`.
    """
    import mata_interp

    from ..interventions import AttentionEdit, published_layers

    # where layers are chosen, any stand for them; a profile stands for its window
    where = published_layers(lalm) if layers is None else AttentionEdit(0.0, layers).layers
    assert options.name is not None
    method = make_method(options.name, options.settings, where)
    if dry_run:
        forecast = mata_interp.forecast_method(lalm, data, method, out, layers=layers, **settings)
        print_forecast("study --dry-run", forecast, out, as_json)
        return
    done = mata_interp.study_method(lalm, data, method, out, layers=layers, **settings)
    page = mata_interp.report(out).resolve()
    rows = done.effects.astype(object).where(done.effects.notna(), None).to_dict("records")
    if as_json:
        values = {"method": done.name, "chosen": asdict(done.choice), "effects": rows, "absent": done.absent}
        print_result("study --method", {**values, "report": page})
        return
    _print(done, rows)
    print(f"The report: {page.as_uri()}")


def _print(done: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """The choice, one line for each comparison, and the controls that the method does not have."""
    from ..ranges import named_layers
    from ..reporting.wording import printable

    choice = done.choice
    if choice.margins:
        tried = f"{len(choice.margins) - 1} windows on {choice.items} items of {choice.clips} other clips"
        print(f"{done.name} edits {named_layers(choice.layers)}, the best of {tried}.")
    elif choice.layers:
        print(f"{done.name} edits {named_layers(choice.layers)}, which were not chosen here.")
    table = [
        [printable(row["condition"]), printable(row["baseline"]), row["score"], str(row["n"]),
         f"{row['difference']:+.3f}", f"{row['low']:+.3f} to {row['high']:+.3f}",
         "" if row["p"] is None else f"{row['p']:.3g}",
         "" if row["dose_kl"] is None else f"{row['dose_kl']:.3g}"]
        for row in rows
    ]  # fmt: skip
    print_table(["condition", "against", "score", "items", "change", "95 % interval", "p", "KL, nats"], table)
    main = [row for row in rows if row["p_adjusted"] is not None]
    print("\n".join(f"Holm-adjusted p of {row['score']}: {row['p_adjusted']:.3g}" for row in main))
    for control, reason in done.absent.items():
        print(f"No control {control}: {reason}." if control != "dose" else f"No dose: {reason}.")
