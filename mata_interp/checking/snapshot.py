"""The state of a model and of transformers' attention functions, to show that a check changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from mata_interp.compat import attention_function_table, attention_mask_table, attention_name, count_hooks
from mata_interp.lalm import ModelStructure
from mata_interp.lalm.fingerprint import fingerprint

from .context import CheckContext, seeded_forwards
from .results import Measurement

__all__ = ["ModelSnapshot"]

TENSORS = ("_parameters", "_buffers", "_modules")
"""Attributes of a module that hold what `weights` and `modules` of a snapshot compare."""


class ModelSnapshot:
    """Modules, their attributes, hooks, settings, weights and logits of a model at one moment.

    The table of attention functions of transformers is part of it: an edit that leaves a function there keeps
    it, and everything it refers to, alive in the whole process.
    """

    def __init__(self, context: CheckContext) -> None:
        model = context.lalm.model
        self.parts: dict[str, Any] = {
            "modules": [(name, id(module), type(module)) for name, module in model.named_modules()],
            "hooks": [count_hooks(module) for module in model.modules()],
            "modes": [module.training for module in model.modules()],
            "attention": [
                attention_name(config)
                for module in ModelStructure.from_model(model).attention.values()
                if (config := getattr(module, "config", None)) is not None
            ],
            "attention functions": _attention_functions(),
            "places of weights": [t.data_ptr() for t in (*model.parameters(), *model.buffers())],
            "weights": fingerprint(model)["weights_sha256"],
            "config": model.config.to_json_string(),
        }
        before = _attributes(model)
        with seeded_forwards(context.lalm), torch.no_grad():
            self.logits = model(**context.prompt.inputs).logits[:, -1].clone()
        self._attributes = _attributes(model)
        # some models store positions or the like: what a plain forward pass changes is their own business
        names = before.keys() | self._attributes.keys()
        self._stored = {name for name in names if before.get(name) != self._attributes.get(name)}

    def compare(
        self, later: ModelSnapshot, exact: Callable[[float], tuple[float, str]] = lambda _: (0.0, "")
    ) -> Measurement:
        """How a later snapshot differs.

        Args:
            later: the other snapshot.
            exact: from a difference of logits, how far they may differ and a note on that; see
                `CheckContext.exact`.
        """
        changed = [name for name, value in self.parts.items() if later.parts[name] != value]
        if self._own_attributes(later) != later._own_attributes(self):
            changed.append("module attributes")
        difference = float((self.logits.float() - later.logits.float()).abs().max())
        count = len(self.parts) + 1
        bound, note = exact(difference)
        return Measurement(
            f"{count - len(changed)} of {count} parts as before, max |Δlogit| {difference:.3g}{note}",
            difference,
            bound,
            f"changed: {', '.join(changed)}" if changed else "",
        )

    def _own_attributes(self, other: ModelSnapshot) -> dict[tuple[int, str], Any]:
        """Attributes of the modules, without those that plain forward passes change, here or there."""
        stored = self._stored | other._stored
        return {name: value for name, value in self._attributes.items() if name not in stored}


def _attributes(model: nn.Module) -> dict[tuple[int, str], Any]:
    """The identity of each attribute of each module; of tables of hooks, how many they hold."""
    attributes: dict[tuple[int, str], Any] = {}
    for number, module in enumerate(model.modules()):
        for name, value in vars(module).items():
            if "hooks" in name:
                attributes[number, name] = len(value) if hasattr(value, "__len__") else value
            elif name not in TENSORS:
                simple = isinstance(value, bool | int | float | str)
                attributes[number, name] = value if simple else id(value)
    return attributes


def _attention_functions() -> dict[str, Any]:
    """The functions that transformers knows by name, for attention and for its masks."""
    tables = {"attention": attention_function_table(), "mask": attention_mask_table()}
    return {f"{kind} {name}": id(table[name]) for kind, table in tables.items() for name in table}
