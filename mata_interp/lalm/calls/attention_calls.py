"""One way to intercept attention: read, edit or replace the attention calls of a model while it runs.

``trace`` reads calls, edits add to their output, sweeps and fusion replace it. All of them go through
:func:`attention_calls`, which has two backends. ``"nnsight"`` traces the model and can stop it early, and
takes about a millisecond for each pass of the decoder. ``"direct"`` stands in for the attention function,
which transformers looks up by name in every call, for some microseconds a call, and is for hot loops. Both
see the same calls and give the same bits. Everything is removed from the model at the end, also after errors.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeVar

from torch import Tensor, nn

from mata_interp.attention import AttentionCall
from mata_interp.errors import ModelError

from ..discovery.hooks import temporary_hooks, tokens_so_far
from ..discovery.structure import ModelStructure
from .call import attention_call
from .function_table import configs_of, handled_calls, is_named, replaced_attention
from .locks import exclusive
from .nnsight_calls import traced_calls

__all__ = ["Add", "Backend", "OnCall", "Replace", "Run", "attention_calls", "patched_attribute"]

Backend = Literal["nnsight", "direct"]
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Add:
    """Add to the output of an attention call.

    Attributes:
        rows: the queries whose output changes.
        delta: float32 [B, R, H, Dv], added to those rows.
    """

    rows: slice
    delta: Tensor


@dataclass(frozen=True, eq=False)
class Replace:
    """Use this output in place of the model's own attention, which is not computed.

    Attributes:
        output: [B, Q, H, Dv].
    """

    output: Tensor


OnCall = Callable[[int, AttentionCall, int], "Add | Replace | None"]
"""``on_call(layer, call, total)``: index of the layer, its call, and the tokens so far, these included."""


class Run(Protocol):
    """Runs a callable with an interception active, and returns what it returns."""

    def __call__(self, forward: Callable[[], Result], /) -> Result: ...


@contextmanager
def attention_calls(
    structure: ModelStructure,
    layers: Iterable[int],
    on_call: OnCall,
    backend: Backend = "nnsight",
    *,
    stop_early: bool = False,
    replaces: bool = False,
    suffix_rows: bool = False,
) -> Iterator[Run]:
    """Intercept the attention calls of a model: gives ``run(forward)``, which runs a callable so.

    Inside, other threads that use the model through this package wait. Passes outside of ``run`` and passes
    by other threads are not intercepted. Interceptions of different models are independent of each other.

    Args:
        structure: of the model.
        layers: whose attention to intercept; with none of them, ``run(forward)`` is ``forward()``.
        on_call: called at each attention call, in each pass of the decoder. It must not run the same model.
        backend: ``"nnsight"`` or ``"direct"``. Eager attention has no name to stand in for, so that
            ``"direct"`` is done by nnsight there.
        stop_early: leave the model once the last of the layers was called; ``run`` then returns None. For
            ``"nnsight"``.
        replaces: ``on_call`` returns :class:`Replace` for every call. The masks are then those of SDPA,
            whatever attention the model uses. For ``"direct"``.
        suffix_rows: the queries and keys of a call belong to rows over a shared past, while its mask belongs
            to one row of all tokens: keys are handed over as they are.

    Raises:
        ModelError: an attention call is missing in a pass or comes twice, has a term of the scores that is
            not understood, or the backend does not support the request.

    Examples:
        >>> import mata_interp as mi
        >>> from mata_interp.lalm.calls.attention_calls import attention_calls
        >>> lalm = mi.LALM.from_pretrained("organism")
        >>> prompt = lalm.prompt(mi.load_benchmark("listening")[0])
        >>> shapes = {}
        >>> def on_call(layer, call, total):
        ...     shapes[layer] = tuple(call.query.shape[:2])
        >>> with attention_calls(lalm.structure, [0, 3], on_call) as run:
        ...     output = run(lambda: lalm.model(**prompt.inputs))
        >>> sorted(shapes)
        [0, 3]
    """
    if backend not in ("nnsight", "direct"):
        raise ModelError(f"No backend {backend!r}: choose 'nnsight' or 'direct'.")
    if replaces and backend != "direct":
        raise ModelError("Only backend='direct' can replace the output of attention calls.")
    modules = {structure.attention[layer]: layer for layer in sorted(set(layers))}
    reader = _Reader(structure, on_call, suffix_rows)
    with exclusive(structure.decoder):
        if not modules:
            yield lambda forward: forward()
        elif replaces or (backend == "direct" and not stop_early and is_named(modules)):
            with _direct(structure, modules, reader, replaces) as run:
                yield run
        else:
            yield _Traced(structure, list(modules.values()), reader, stop_early)


class _Reader:
    """Turns the arguments of an attention function into a call, and asks ``on_call``."""

    def __init__(self, structure: ModelStructure, on_call: OnCall, suffix_rows: bool) -> None:
        self._heads, self._on_call, self._suffix_rows = structure.heads, on_call, suffix_rows
        self._busy = False  # whether ``on_call`` runs

    def __call__(self, layer: int, args: tuple, kwargs: dict, total: int) -> Add | Replace | None:
        call = self._rows(layer, args, kwargs) if self._suffix_rows else attention_call(
            layer, args, kwargs, total
        )  # fmt: skip
        if call.query.shape[1] != self._heads[layer]:
            raise ModelError(
                f"The attention of layer {layer} has {call.query.shape[1]} heads, and "
                f"{self._heads[layer]} were found in its module."
            )
        self._busy = True
        try:
            return self._on_call(layer, call, total)
        finally:
            self._busy = False

    def refuse_inside_on_call(self, *_: Any) -> None:
        """Before a pass of the decoder."""
        if self._busy:
            raise ModelError("The model runs again inside on_call, in the middle of a pass of its decoder.")

    @staticmethod
    def _rows(layer: int, args: tuple, kwargs: dict) -> AttentionCall:
        """A call whose mask does not belong to its keys."""
        module, query, key, value, *more = args
        mask = more[0] if more else kwargs.get("attention_mask")
        terms = {name: value for name, value in kwargs.items() if name != "attention_mask"}
        call = attention_call(layer, (module, query, key, value, None), terms)
        if call.mask is not None:
            raise ModelError(f"The attention of layer {layer} has a bias, which rows cannot have.")
        return replace(call, mask=mask)


class _Traced:
    """Runs of a model under nnsight."""

    def __init__(
        self, structure: ModelStructure, layers: list[int], reader: _Reader, stop_early: bool
    ) -> None:
        self._structure, self._layers, self._reader, self._stop = structure, layers, reader, stop_early

    def __call__(self, forward: Callable[[], Result], /) -> Result:
        with temporary_hooks([(self._structure.decoder, self._reader.refuse_inside_on_call)]):
            returned, missing = traced_calls(self._structure, forward, self._layers, self._visit, self._stop)
        if missing is not None:
            raise ModelError(_missing(missing))
        return returned[0] if returned else None  # type: ignore[return-value]

    def _visit(self, layer: int, args: tuple, kwargs: dict, total: int) -> tuple[slice, Tensor] | None:
        change = self._reader(layer, args, kwargs, total)
        if isinstance(change, Replace):
            raise ModelError(
                "Only backend='direct' can replace the output of attention calls, and only of attention that "
                "transformers looks up by name: pass replaces=True for any other."
            )
        return None if change is None else (change.rows, change.delta)


class _Direct:
    """Passes of a decoder whose attention functions are stood in for."""

    def __init__(self, modules: Mapping[nn.Module, int], reader: _Reader, replaces: bool) -> None:
        self._modules, self._reader, self._replaces = modules, reader, replaces
        self._layers = sorted(modules.values())
        self._pending: list[int] = []  # layers still to come in this pass
        self._total = 0  # tokens so far
        self._passes = 0
        self._thread: int | None = None  # the one in ``run``

    def __call__(self, forward: Callable[[], Result], /) -> Result:
        outer, passes = self._thread, self._passes
        self._thread = threading.get_ident()
        try:
            result = forward()
        finally:
            self._thread = outer
        if self._passes == passes:
            raise ModelError(_missing(self._layers[0]))
        return result

    def begin(self, args: tuple, kwargs: dict) -> None:
        """Before a pass of the decoder."""
        if self._thread is None:
            return
        self._reader.refuse_inside_on_call()
        self._pending[:] = self._layers
        self._passes += 1
        self._total = tokens_so_far(args, kwargs)

    def end(self, *_: Any) -> None:
        """After a pass of the decoder."""
        if self._thread is not None and self._pending:
            raise ModelError(_missing(self._pending[0]))

    def attention(self, original: Callable[..., Any], module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """In place of an attention function."""
        if self._thread != threading.get_ident():
            return original(module, *args, **kwargs)
        layer = self._modules[module]
        if layer not in self._pending:
            raise ModelError(f"The attention of layer {layer} is called twice, or outside of the decoder.")
        self._pending.remove(layer)
        change = self._reader(layer, (module, *args), kwargs, self._total)
        if isinstance(change, Replace):
            return change.output, None
        if self._replaces:
            raise ModelError(f"The attention of layer {layer} is not replaced, and all of it has to be.")
        output = original(module, *args, **kwargs)
        if change is not None:
            output[0][:, change.rows].add_(change.delta)  # (B, R, H, Dv), summed in float32
        return output


@contextmanager
def _direct(
    structure: ModelStructure, modules: Mapping[nn.Module, int], reader: _Reader, replaces: bool
) -> Iterator[Run]:
    direct = _Direct(modules, reader, replaces)
    handlers = dict.fromkeys(modules, direct.attention)
    decoder = structure.decoder
    configs = configs_of([decoder, *structure.attention.values()])
    attention = replaced_attention(configs, handlers) if replaces else handled_calls(handlers)
    with temporary_hooks([(decoder, direct.begin)], [(decoder, direct.end)]), attention:
        yield direct


@contextmanager
def patched_attribute(target: Any, name: str, value: Any) -> Iterator[None]:
    """Inside, an object has another attribute: the ``update`` of a cache, the ``forward`` of a decoder.

    At the end the object has what it had before in ``vars()``, or nothing.
    """
    attributes = vars(target)
    existed, before = name in attributes, attributes.get(name)
    attributes[name] = value
    try:
        yield
    finally:
        if existed:
            attributes[name] = before
        else:
            attributes.pop(name, None)


def _missing(layer: int) -> str:
    return f"The model ran without calling the attention of decoder layer {layer}."
