"""Every public name has an example in its docstring, and every example runs."""

from __future__ import annotations

import doctest
import inspect
import operator
import sys
import types

import pytest

import mata_interp as mi

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
PUBLIC = [name for name in mi.__all__ if not isinstance(getattr(mi, name), types.ModuleType)]
PUBLIC += [f"plot.{name}" for name in mi.plot.__all__]


def examples_of(name: str) -> list[doctest.DocTest]:
    """The examples of a function, or of a class and its own public methods."""
    public = operator.attrgetter(name)(mi)
    finder = doctest.DocTestFinder(exclude_empty=True, recurse=inspect.isclass(public))
    globs = {**vars(sys.modules[public.__module__]), "mi": mi}
    result = finder.find(public, name, globs=globs)
    return [test for test in result if test.examples]


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_have_an_example(name):
    public = operator.attrgetter(name)(mi)
    if inspect.isclass(public) and issubclass(public, Exception | Warning):
        return
    assert examples_of(name)


@pytest.fixture
def _same_rules():
    """Remove the rules and methods that an example registers."""
    from mata_interp.interventions import rules
    from mata_interp.interventions.catalogue import registry

    tables = (rules._rules, registry._methods)
    before = [dict(table) for table in tables]
    yield
    for table, names in zip(tables, before, strict=True):
        table.clear()
        table.update(names)


@pytest.mark.usefixtures("_same_rules")
@pytest.mark.parametrize("name", PUBLIC)
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    report: list[str] = []
    for example in examples_of(name):
        runner.run(example, out=report.append)
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
    assert runner.summarize(verbose=False).failed == 0, "".join(report)
