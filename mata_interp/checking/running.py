"""mi.check: verify that attention is read and edited correctly on a model."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mata_interp.benchmarks import Item
from mata_interp.errors import ExclusionWarning
from mata_interp.lalm import Prompt
from mata_interp.lalm.calls.locks import exclusive
from mata_interp.lalm.discovery.quantised import describe_quantised
from mata_interp.lalm.verification import being_checked, remember_check
from mata_interp.precision import full_precision
from mata_interp.version import __version__

from . import cross_checks, edits, inputs, passes, rows
from .context import CheckContext, seeded_forwards
from .registry import MEMORY, Check, run_check
from .results import CheckReport
from .snapshot import ModelSnapshot

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["CHECKS", "check"]


CHECKS: tuple[Check, ...] = (
    *inputs.CHECKS,
    *rows.CHECKS,
    *edits.CHECKS,
    *passes.CHECKS,
    *cross_checks.CHECKS,
)
"""All checks in the order of the report, the simplest first: where several fail, the first is the most
informative. The check that the model is unchanged follows them."""


def check(
    lalm: LALM, prompt: Prompt | Item | Sequence[Item] | None = None, *, strict: bool = False
) -> CheckReport:
    """Verify that attention is read and edited correctly on a model, against independent references.

    Runs in the model's own precision and on its own device, in about thirty forward passes. The references
    are a clone of the model (with its weights) on transformers' eager attention, edits added to its mask, one
    pass instead of many, and transformer-lens where that knows the model. The last check is that the model is
    unchanged.

    Where two computations should be equal bit for bit and are not, on another device than a CPU, plain
    forward passes are repeated. If these differ as well, because kernels sum in any order, the bound is that
    of logits, and the result says by how much they differ.

    In a mixture of experts, rounding alone may choose other experts, and two runs then compute different
    numbers. Where choices differ, the reference runs with those of the other run
    (`mata_interp.lalm.discovery.experts`), so that the bounds hold as elsewhere, and the result says how many
    differ. If the choices of a mixture cannot be read, a difference above the bound in half precision is
    ``"not comparable"``.

    Args:
        lalm: the model.
        prompt: prompts to check with, or items to make them of; two or more rows of different length are most
            informative. If not given, two questions about clips that ship with the package.
        strict: raise for the first item that cannot be used, instead of leaving it out.

    Returns:
        A report with one result per check; ``ok`` if none failed or is not comparable. ``print(report)``
        shows a table. Items that were left out are in its ``excluded``.

    Warns:
        ExclusionWarning: items were left out.

    Raises:
        ModelError: there is neither a prompt nor a processor to make one.
        ItemError: an item cannot be used, with ``strict``.
        RunError: no item can be used.

    Examples:
        >>> import mata_interp as mi
        >>> lalm = mi.LALM.from_pretrained("organism")
        >>> report = mi.check(lalm)
        >>> report.ok
        True
        >>> report["attention rows sum to 1"].verdict
        'pass'

    See Also:
        LALM.to_transformer_lens: the second instrument by itself.
    """
    with being_checked(lalm), exclusive(lalm.structure.decoder):
        return _check(lalm, prompt, strict)


@full_precision()
def _check(lalm: LALM, prompt: Prompt | Item | Sequence[Item] | None, strict: bool) -> CheckReport:
    context = CheckContext(lalm, prompt, strict)
    excluded = tuple(f"{left.item}: {left.field}: {left.reason}" for left in context.excluded)
    if excluded:
        problem = f"{len(excluded)} items were left out of the check, the first: {excluded[0]}"
        warnings.warn(ExclusionWarning(problem), stacklevel=3)
    before = ModelSnapshot(context)
    with seeded_forwards(lalm):
        context.plain  # noqa: B018 the bounds derive from it
        results = [run_check(one, context) for one in CHECKS]
    unchanged = Check(
        name="model is unchanged after the checks",
        compared="modules, their attributes, hooks, settings, weights, attention functions and logits before "
        "and after all of the above",
        remedy="Reload the model before you continue, and please report this output.",
        measure=lambda context: before.compare(ModelSnapshot(context), context.exact),
    )
    results.append(run_check(unchanged, context))
    report = CheckReport(lalm.name, _about(context), tuple(results), excluded)
    # where memory ran out and nothing else is wrong, nothing is known of the model
    if report.ok or any(result.remedy != MEMORY for result in report.failed):
        remember_check(lalm, report.to_dict())
    return report


def _about(context: CheckContext) -> dict[str, str]:
    fingerprint = context.lalm.fingerprint()
    versions = {**fingerprint["versions"], "mata_interp": __version__}
    quantised = describe_quantised(context.lalm.model, context.lalm.structure.decoder)
    return {
        "class": fingerprint["class"],
        "dtype": fingerprint["dtype"],
        **({"quantised": quantised} if quantised else {}),
        "device": str(context.lalm.device),
        "attention": str(fingerprint["attention"]),
        "prompt": f"{context.prompt.size} x {context.prompt.width} tokens",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
