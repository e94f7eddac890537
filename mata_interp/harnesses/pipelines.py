"""A pipeline of transformers whose model runs with an intervention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..attaching import attach
from ..interventions import InterventionLike

if TYPE_CHECKING:
    from types import TracebackType

    from ..lalm import LALM

__all__ = ["InterventionPipeline", "pipeline"]


class InterventionPipeline:
    """A pipeline of transformers with an intervention in force in its calls; made by `pipeline`.

    Attributes:
        pipe: the pipeline of transformers.
        attachment: what is attached to its model.
    """

    def __init__(self, pipe: Any, intervention: InterventionLike, missing: str) -> None:
        self.pipe = pipe
        self.attachment = attach(pipe.model, intervention, pipe.processor, missing)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the pipeline returns."""
        return self.pipe(*args, **kwargs)

    def __enter__(self) -> InterventionPipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.attachment.__exit__(kind, error, trace)

    def close(self) -> None:
        """Leave the model as it was before."""
        self.attachment.detach()


def pipeline(
    lalm: LALM,
    intervention: InterventionLike = None,
    task: str = "any-to-any",
    missing: str = "raise",
    **settings: Any,
) -> InterventionPipeline:
    """A pipeline of transformers on a model, with an intervention.

    Args:
        lalm: the model, with its processor.
        intervention: None, one, or several in order.
        task: of `transformers.pipeline`.
        missing: that of `mata_interp.attach`.
        **settings: further arguments of `transformers.pipeline`.

    Example:
        >>> import mata_interp as mi
        >>> from mata_interp.harnesses import pipeline
        >>> lalm = mi.LALM.from_pretrained("organism")
        >>> with pipeline(lalm, mi.Mata(1.0, layers=[4, 5]), missing="skip") as pipe:
        ...     answers = pipe(text="Which animal is it?", max_new_tokens=2)
        >>> len(answers)
        1
    """
    import transformers

    make: Any = transformers.pipeline
    pipe = make(task, model=lalm.model, processor=lalm.processor, **settings)
    return InterventionPipeline(pipe, intervention, missing)
