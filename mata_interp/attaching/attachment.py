"""Attach an intervention to a plain transformers model, which then runs with it wherever it is called.

Hooks on the model, on its decoder and one entry in transformers' table of attention functions are all that
changes; `Attachment.detach` takes them away. The edits are those of `LALM.generate`, made by the same code.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np
from torch import Tensor, nn

from mata_interp.errors import ArgumentError, InterventionError, ModelError, unknown_name
from mata_interp.interventions import InterventionLike, in_order
from mata_interp.interventions.editing import refuse_part
from mata_interp.interventions.protocol import ATTENTION_SITES
from mata_interp.lalm import LALM
from mata_interp.lalm.calls.attention_calls import patched_attribute
from mata_interp.lalm.calls.locks import is_exclusive_here
from mata_interp.lalm.calls.standing_calls import StandingCalls, outside_graphs

from .batch import DOSED_SITES, Batch, forward_inputs, named_arguments, padding_mask
from .generation import Generation
from .target import attention_layers, inner_model

__all__ = ["Attachment", "attach"]

MISSING = ("raise", "skip")


def attach(
    model: Any, intervention: InterventionLike, processor: Any = None, missing: str = "raise"
) -> Attachment:
    """Run a transformers model with an intervention, wherever it is called from.

    ``generate`` (greedy, sampled, with beams, several answers, assisted by prompt lookup or by another model;
    with dynamic, static and sliding caches), pipelines and loops of your own over the model's forward all run
    with it, and give the tokens that `LALM.generate` gives. Audio is found by its placeholders among the
    prompt's ``input_ids``. Calls through an `LALM` around the same model are left alone.

    Graphs made by ``torch.compile`` break at every edited attention; the model is recompiled when something
    is first attached to it, and not again. ``generate`` itself compiles nothing
    while an intervention is attached.

    Models in training mode, embeddings in place of ids, and settings of ``generate`` that run the model in
    other ways (guidance, early exit, custom loops) raise an error that names them.

    Args:
        model: a transformers model in eval mode, or an `LALM`.
        intervention: None (nothing changes), one, or several in order.
        processor: for interventions that need the tokenizer, such as those of a phase of reasoning.
        missing: prompts without audio are an error (``"raise"``), or run without the intervention
            (``"skip"``).

    Returns:
        An `Attachment`: a context manager, in force from now until its end or until ``detach()``.

    Raises:
        ArgumentError: ``missing`` is neither.
        InterventionError: the model lacks a layer or head, or the intervention names no layers.
        ModelError: the model cannot be intercepted, or has an attachment already.

    Example:
        >>> import mata_interp as mi
        >>> lalm, item = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")[0]
        >>> model, inputs = lalm.model, lalm.prompt(item).inputs  # as from transformers alone
        >>> mata = mi.Mata(1.0, layers=[3, 4])
        >>> with mi.attach(model, mata) as attached:
        ...     sequences = model.generate(**inputs, max_new_tokens=4, do_sample=False)
        >>> tokens = sequences[:, inputs["input_ids"].shape[1] :]
        >>> bool((tokens == lalm.generate(item, mata, max_new_tokens=4)).all())
        True
        >>> sorted(attached.dose)
        ['boost', 'kl', 'mass_after', 'mass_before', 'negative']
    """
    if missing not in MISSING:
        raise ArgumentError(unknown_name("missing", missing, MISSING))
    model, processor = (model.model, model.processor) if isinstance(model, LALM) else (model, processor)
    parts = in_order(intervention)
    if intervention is not None and not parts:
        raise InterventionError("The intervention names no layers, so that it would change nothing.")
    return Attachment(model, parts, processor, missing)


class Attachment:
    """An intervention that is attached to a model; made by `attach`.

    Attributes:
        attached: whether it is in force.

    Example:
        >>> import mata_interp as mi
        >>> lalm = mi.LALM.from_pretrained("organism")
        >>> attached = mi.attach(lalm.model, mi.Mata(1.0, layers=[3]))
        >>> attached.attached
        True
        >>> attached.detach()
        >>> attached.attached
        False
    """

    def __init__(self, model: Any, parts: tuple[Any, ...], processor: Any, missing: str) -> None:
        self._parts, self._missing = parts, missing
        self._stack = ExitStack()
        self._local = threading.local()
        self._batches: weakref.WeakKeyDictionary[Any, Batch] = weakref.WeakKeyDictionary()  # by their cache
        self._dose: dict[str, np.ndarray] | None = {}
        self._last: Batch | None = None  # that of the last forward outside of generate
        self._answered = self._skipped = False
        self.attached = False
        self._lalm = LALM(inner_model(model), processor)
        self._decoder = self._lalm.structure.decoder
        for part in parts:
            if part.site in ATTENTION_SITES:
                refuse_part(part, self._lalm.structure.heads)
        if parts:
            self._attach()
        self.attached = True

    def _attach(self) -> None:
        with _guard, ExitStack() as stack:
            if self._decoder in _attached:
                raise ModelError(
                    "An intervention is attached to this model already: detach it first, or attach several "
                    "interventions as one list, in the order in which they are applied."
                )
            model = self._lalm.model
            layers = sorted({layer for part in self._parts for layer in attention_layers(part)})
            layers = layers or list(self._lalm.attention_layers[:1])
            self._calls = StandingCalls(self._lalm.structure, layers, self._refuse_stray)
            stack.callback(self._calls.close)
            stack.callback(
                model.register_forward_pre_hook(outside_graphs(self._begin), with_kwargs=True).remove
            )
            self._end_outside = outside_graphs(self._end)
            self._end_hook = model.register_forward_hook(
                self._end_outside, with_kwargs=True, always_call=True
            )
            stack.callback(lambda: self._end_hook.remove())
            if hasattr(model, "generate"):
                wrapped = partial(self._generate, model.generate)
                stack.enter_context(patched_attribute(model, "generate", wrapped))
            _attached[self._decoder] = True
            stack.callback(_attached.pop, self._decoder, None)
            self._stack = stack.pop_all()

    def __repr__(self) -> str:
        state = "attached" if self.attached else "detached"
        return f"<Attachment of {len(self._parts)} interventions to {self._lalm.name}, {state}>"

    def __enter__(self) -> Attachment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()
        if kind is None and self._parts and not (self._answered or self._skipped):
            self._require_touched()

    def detach(self) -> None:
        """Leave the model as it was before; a second call does nothing."""
        self._stack.close()
        for batch in list(self._batches.values()):
            batch.close()
        self._batches.clear()
        self.attached = False

    @property
    def dose(self) -> dict[str, np.ndarray]:
        """The dose of the last answers, or of the last prompts that were run: name -> float64 [B].

        That of `GenerationOutput`: a mean over edited layers, heads and queries. Only tokens that became part
        of an answer count. Empty as long as the model has not run.

        Raises:
            InterventionError: no part of the intervention edits attention scores or weights, so that masses
                and divergences of attention do not describe it.
        """
        if self._parts and not any(part.site in DOSED_SITES for part in self._parts):
            names = ", ".join(f"{type(part).__name__} edits {part.site}" for part in self._parts)
            raise InterventionError(
                f"{names}: only edits of attention scores and weights have a dose. Compare the answers or "
                "their log-probabilities instead."
            )
        if self._dose is None and self._last is not None:
            self._dose = self._last.dose(self._last.dose_log.sums())
        return self._dose or {}

    def _generate(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """In place of the model's ``generate``."""
        if is_exclusive_here(self._decoder):
            return original(*args, **kwargs)
        if getattr(self._local, "generation", None) is not None:
            raise ModelError("The model runs generate inside of its own generate, which edits cannot follow.")
        generation = Generation(self._lalm, self._parts, self._missing, original, args, kwargs)
        self._local.generation = generation
        try:
            output = original(*args, **{"disable_compile": True} | kwargs)
        finally:
            self._local.generation = None
            generation.close()
        if generation.batch is not None and generation.batch.edited:
            sums = generation.sums(output)
            generation.require_touched(sums)
            self._dose, self._answered = generation.batch.dose(sums), True
        return output

    def _begin(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        """Before a forward of the model."""
        if is_exclusive_here(self._decoder):
            return
        current: Batch | None = getattr(self._local, "batch", None)
        if current is not None and current.busy:
            self._local.depth += 1  # the extra pass of an edit of logits
            return
        arguments = named_arguments(type(model).forward, (model, *args), kwargs)
        tokens = arguments.get("input_ids")
        if not isinstance(tokens, Tensor):
            raise ModelError(
                "An intervention is attached to this model, which finds audio by its placeholders: run it "
                "with input_ids."
            )
        cache = arguments.get("past_key_values")
        before = 0 if cache is None else int(cache.get_seq_length())
        batch = self._batch(arguments, tokens, cache, before)
        self._local.batch, self._local.depth, self._local.cache = batch, 0, cache
        batch.begin(tokens)
        self._calls.begin(batch.on_pass, batch.on_call)

    def _batch(self, arguments: dict[str, Any], tokens: Tensor, cache: Any, before: int) -> Batch:
        """The prompts that a forward reads or continues."""
        generation: Generation | None = getattr(self._local, "generation", None)
        if generation is not None:
            if generation.batch is None:
                batch = generation.start(len(tokens), continued=before > 0)
                self._renew_end_hook()
                self._skipped |= not batch.edited
            generation.follow(cache)
            assert generation.batch is not None
            return generation.batch
        if before == 0:
            mask = padding_mask(tokens, arguments.get("attention_mask"))
            inputs = forward_inputs(self._lalm.model, arguments) | {"attention_mask": mask}
            batch = Batch(self._lalm, self._parts, inputs, self._missing)
            self._renew_end_hook()
            self._skipped |= not batch.edited
            return batch
        batch = self._batches.get(cache)
        if batch is None:
            raise ModelError(
                f"This cache holds {before} tokens that the model did not read while the intervention was "
                "attached: where their audio is, is not known. Use model.generate with all ids of the "
                "prompt, or start without the cache."
            )
        if tokens.shape[1] > 1:
            raise ModelError(
                f"A forward reads {tokens.shape[1]} tokens after a prompt, and whether they belong to it "
                "or to an answer is not known: use model.generate with all ids of the prompt, or read one "
                "token at a time."
            )
        return batch

    def _end(self, _: nn.Module, args: tuple, *more: Any) -> None:
        """After a forward of the model, also after an error in it."""
        batch: Batch | None = getattr(self._local, "batch", None)
        if batch is None or is_exclusive_here(self._decoder):
            return
        if self._local.depth:
            self._local.depth -= 1
            return
        self._calls.end()
        batch.end()
        self._local.batch = None
        if getattr(self._local, "generation", None) is None:
            cache = getattr(more[-1] if more else None, "past_key_values", None)
            self._settle(batch, self._local.cache if cache is None else cache)

    def _settle(self, batch: Batch, cache: Any) -> None:
        """After a forward outside of ``generate``: its batch lives as long as its cache."""
        if batch.edited:
            self._dose, self._last = None, batch
        if cache is None:
            batch.close()
        elif self._batches.get(cache) is not batch:
            self._batches[cache] = batch
            weakref.finalize(cache, batch.close).atexit = False

    def _require_touched(self) -> None:
        """Refuse an attachment under which nothing was edited."""
        batch = self._last
        if batch is None:
            raise InterventionError(
                "The attached intervention touched nothing: the model did not run while it was attached."
            )
        if len(batch.untouched(batch.dose_log.sums())) == batch.size:
            raise InterventionError(
                "The attached intervention touched nothing in the last run of the model: its keys are not "
                "visible in its layers, or its phase was not reached."
            )

    def _renew_end_hook(self) -> None:
        """Register the end hook again, so that it runs after the hooks of the batch's interventions."""
        self._end_hook.remove()
        self._end_hook = self._lalm.model.register_forward_hook(
            self._end_outside, with_kwargs=True, always_call=True
        )

    def _refuse_stray(self) -> None:
        if not is_exclusive_here(self._decoder):
            raise ModelError(
                "The decoder runs without its model, and an intervention is attached: run the whole model, "
                "whose input_ids say where the audio is."
            )


_guard = threading.RLock()
_attached: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()
