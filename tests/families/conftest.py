"""Each family built once, and a record of what was verified, out of which the README's table is made."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from mata_interp.lalm import LALM, Prompt

from .family import Family
from .registry import FAMILIES

PACKAGES = ("torch", "transformers", "nnsight", "torchvision", "torchaudio", "timm", "mistral-common")
RECORDED = pytest.StashKey[dict]()
FAILED = pytest.StashKey[set]()


@dataclass(frozen=True)
class Built:
    """One family, ready: the model on SDPA, its eager twin, and a left-padded batch of two prompts."""

    family: Family

    @cached_property
    def lalm(self) -> LALM:
        return LALM(self.family.model(None))

    def placed(self, edits: Any) -> Any:
        """The same edits, their layers counted among those that have attention."""
        if isinstance(edits, tuple):
            return tuple(map(self.placed, edits))
        return edits and replace(edits, layers=[self.lalm.attention_layers[n] for n in edits.layers])

    def all_placed(self, edits: dict[str, Any]) -> dict[str, Any]:
        return {name: self.placed(some) for name, some in edits.items()}

    @cached_property
    def eager(self) -> Any:
        return self.family.model("eager")

    @cached_property
    def modules(self) -> dict[Any, int]:
        """The eager twin's attention modules and their layers."""
        return {module: layer for layer, module in LALM(self.eager).structure.attention.items()}

    @cached_property
    def prompt(self) -> Prompt:
        return self.lalm.prompt_from_inputs(self.family.inputs(2))

    @cached_property
    def alone(self) -> Prompt:
        """Its second row, without padding."""
        from .reference import single

        return self.lalm.prompt_from_inputs(single(self.family.inputs(2), 1))


@pytest.fixture(scope="session")
def _built() -> dict[str, Built]:
    return {}


@pytest.fixture(params=list(FAMILIES))
def built(request, _built) -> Iterator[Built]:
    name = request.param
    if name not in _built:
        _built[name] = Built(FAMILIES[name])
    return _built[name]


@pytest.fixture
def verified(request):
    """``verified(built, "sweep", "rows")``: the last line of a test that holds."""

    def note(which: Built | str, what: str, result: str = "yes") -> None:
        name = which if isinstance(which, str) else which.family.name
        request.config.stash[RECORDED].setdefault(name, {})[what] = result

    return note


def pytest_configure(config):
    config.stash[RECORDED] = {}
    config.stash[FAILED] = set()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """A family with any failed test is recorded as failing, whatever its other tests found."""
    report = yield
    params = getattr(getattr(item, "callspec", None), "params", {})
    if report.failed:
        item.config.stash[FAILED].add(params.get("built") or params.get("name"))
    return report


def pytest_sessionfinish(session):
    """Write what was verified, beside what an earlier run with the same versions did."""
    recorded, failed = session.config.stash[RECORDED], session.config.stash[FAILED]
    if not recorded and not failed:
        return
    named = os.environ.get("MATA_FAMILIES_RECORD")
    if not named and getattr(session.config, "cache", None) is None:  # pytest -p no:cacheprovider
        return
    path = Path(named) if named else session.config.cache.mkdir("families") / "record.json"
    versions = {name: version(name) for name in PACKAGES if find_spec(name.replace("-", "_"))}
    before = json.loads(path.read_text()) if path.exists() else {}
    earlier = before.get("families", {}) if before.get("versions") == versions else {}
    families = {name: earlier.get(name, {}) | recorded.get(name, {}) for name in {**earlier, **recorded}}
    for name in failed - {None}:
        families[name] = dict.fromkeys({"masses", *families.get(name, {})}, "failing")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"versions": versions, "families": families}, indent=1, sort_keys=True) + "\n")
