"""mi.check: does every instrument tell the truth on this model?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import mata_interp
from mata_interp.lalm import Prompt
from mata_interp.lalm.verification import being_checked, remember_check

from . import cross_checks, edits, inputs, passes, rows  # each registers its checks
from .context import CheckContext, steady
from .cross_checks import ModelSnapshot
from .results import CHECKS, Check, CheckReport, run_check

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["check"]

ORDER = (inputs, rows, edits, passes, cross_checks)


def check(lalm: LALM, prompt: Prompt | None = None) -> CheckReport:
    """Compare what this package reads and edits in a model with plain references, on the model itself.

    Runs in the model's own precision and on its own device, in some thirty forward passes. The references
    are the model's twin (its weights in other modules) on transformers' eager attention, edits put into its
    mask, one pass instead of many, and transformer-lens where that knows the model. The model is left as it
    was found, which is a line of its own.

    In a mixture of experts rounding alone may choose other experts, and the two runs that a line compares are
    then two different numbers. Where their choices differ the reference is run with those of the other
    (`mata_interp.lalm.discovery.experts`), so that the bounds hold as elsewhere, and the line says how many
    differ. On a mixture whose choices cannot be read, a line that is off in half precision is
    ``"not comparable"``.

    Args:
        lalm: the model.
        prompt: what to ask it; B >= 2 rows of unlike length tell most. If not given, two questions about
            clips that ship are asked through the model's processor.

    Returns:
        A report of one line for each check, ``ok`` if none failed or is not comparable;
        printed, it is a table.

    Raises:
        ModelError: there is no prompt and no processor to make one.
        ItemError: the processor cannot make one.

    See Also:
        LALM.to_transformer_lens: the second instrument by itself.
    """
    subject = CheckContext(lalm, prompt)
    with being_checked(lalm):
        before = ModelSnapshot(subject)
        with steady(lalm):
            subject.plain  # noqa: B018 the bounds come from it
            lines = [run_check(one, subject) for one in in_order()]
    after = Check(
        "the model is left as found",
        "modules, hooks, settings, weights and logits before and after all of the above",
        "Load the model anew before you go on. Please report it with this output.",
        lambda subject: before.compare(ModelSnapshot(subject)),
    )
    with being_checked(lalm):
        lines.append(run_check(after, subject))
    report = CheckReport(lalm.name, _about(subject), tuple(lines))
    remember_check(lalm, report.to_dict())
    return report


def in_order() -> list[Check]:
    """All checks, simple things first: where many fail, the first says most."""
    places = [module.__name__ for module in ORDER]
    return sorted(CHECKS, key=lambda one: places.index(one.measure.__module__))


def _about(subject: CheckContext) -> dict[str, str]:
    told = subject.lalm.fingerprint()
    versions = {**told["versions"], "mata_interp": mata_interp.__version__}
    return {
        "class": told["class"],
        "dtype": told["dtype"],
        "device": str(subject.lalm.device),
        "attention": str(told["attention"]),
        "prompt": f"{subject.prompt.size} x {subject.prompt.width} tokens",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
