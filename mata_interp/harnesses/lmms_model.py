"""lmms-eval (``lmms-eval``) runs its own audio models with an intervention.

``lmms-eval --model mata_interp --model_args base=qwen2_audio,intervention=FOLDER,pretrained=...`` evaluates
lmms-eval's model ``qwen2_audio`` with the intervention that was saved in a folder; other arguments go to that
model. The package ``lmms_eval`` is imported when a class is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..attaching import attach
from ..errors import ArgumentError, RunError
from ..interventions import load_intervention
from ..lalm.calls.attention_calls import patched_attribute

if TYPE_CHECKING:
    from ..interventions import InterventionLike

__all__ = ["NAME", "model_class", "with_intervention"]

NAME = "mata_interp"


def with_intervention(base: type, intervention: InterventionLike, missing: str = "raise") -> type:
    """A model class of lmms-eval whose model runs with an intervention.

    Several classes of lmms-eval catch every error of ``generate`` and answer with an empty text. Here such
    an error ends the evaluation, since empty answers would count as wrong answers of the intervention.

    Args:
        base: a class of lmms-eval that holds a transformers model as ``model``, such as ``Qwen2_Audio``.
        intervention: None, one, or several in order.
        missing: that of `mata_interp.attach`: ``"raise"`` or ``"skip"`` for prompts without audio.

    Returns:
        A subclass of ``base``, made with the same arguments. Its instances have ``attachment``, what is
        attached to their model.

    Raises:
        RunError: from its ``generate_until``, where ``generate`` failed.

    Example:
        >>> import mata_interp as mi
        >>> from mata_interp.harnesses import with_intervention
        >>> class Base:  # in place of a class of lmms-eval
        ...     def __init__(self):
        ...         self.model = mi.LALM.from_pretrained("organism").model
        >>> edited = with_intervention(Base, mi.Mata(1.0, layers=[3, 4]))
        >>> edited().attachment.attached
        True
    """

    class Edited(base):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.attachment = attach(self.model, intervention, getattr(self, "processor", None), missing)

        def generate_until(self, requests: Any) -> list[str]:
            with _errors_of_generate(self.model) as errors:
                answers = super().generate_until(requests)
            if errors:
                raise RunError(
                    f"{len(errors)} calls of generate failed, which {base.__name__} of lmms-eval would "
                    f"count as empty answers. The first: {type(errors[0]).__name__}: {errors[0]}"
                ) from errors[0]
            return answers

        def clean(self) -> None:
            """Leave the model as it was before, then what the class itself does."""
            self.attachment.detach()
            super().clean()

    Edited.__name__ = Edited.__qualname__ = f"{base.__name__}WithIntervention"
    return Edited


def model_class() -> type:
    """The class behind ``--model mata_interp``.

    Raises:
        ImportError: the package ``lmms_eval`` is not installed.
    """
    api: Any = import_module("lmms_eval.api.model")
    models: Any = import_module("lmms_eval.models")
    parse: Callable[[str], dict[str, Any]] = import_module("lmms_eval.utils").simple_parse_args_string

    class MataInterp(api.lmms):
        """Makes the model named by ``base``; it has no instances of its own."""

        @classmethod
        def create_from_arg_string(cls, arg_string: str, additional_config: Any = None) -> Any:
            arguments = parse(arg_string)
            base, folder = arguments.pop("base", None), arguments.pop("intervention", None)
            missing = arguments.pop("missing", "raise")
            if base is None:
                raise ArgumentError(
                    f"--model {NAME} needs the name of one of lmms-eval's models: "
                    "--model_args base=qwen2_audio,intervention=FOLDER,pretrained=..."
                )
            intervention = None if folder is None else load_intervention(folder)
            arguments |= {
                name: value for name, value in (additional_config or {}).items() if value is not None
            }
            return with_intervention(models.get_model(base), intervention, missing)(**arguments)

    return MataInterp


@contextmanager
def _errors_of_generate(model: Any) -> Iterator[list[Exception]]:
    """The errors that the model's ``generate`` raises inside, whoever catches them."""
    errors: list[Exception] = []
    original = model.generate

    def recorded(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        except Exception as error:
            errors.append(error)
            raise

    with patched_attribute(model, "generate", recorded):
        yield errors
