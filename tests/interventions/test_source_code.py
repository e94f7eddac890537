"""Hashes of the source of users' rules and methods; results are not continued with another source."""

import functools
import importlib
import json
import subprocess
import sys
import types

import numpy as np
import pytest
import torch

import mata_interp as mi
from mata_interp.errors import InterventionError, RunError
from mata_interp.interventions import MissingMethod, from_dict, read_method, rules, to_dict
from mata_interp.interventions.rules import MissingRuleError, replace_scores
from mata_interp.interventions.source_code import source_sha256

MODULE = """
SIZE = {size}
OTHER = 1
def helper(x):
    return x {operator} SIZE
def rule(scores, keys, alpha, shift={shift}):
    return inner(scores, alpha) + shift
def inner(scores, alpha):
    return helper(scores) * alpha
class Base:
    scale = {scale}
    def edit(self, x, context):
        return helper(x) * self.scale
class Method(Base):
    pass
"""
DEFAULTS = {"size": 2, "operator": "+", "shift": 0, "scale": 1}


def module(tmp_path, **changes):
    """A user's module, written to a file so that Python can show its source."""
    text = MODULE.format(**DEFAULTS | changes)
    file = tmp_path / f"module_{abs(hash(text))}.py"
    file.write_text(text)
    made = types.ModuleType("of_a_user")
    made.__file__ = str(file)
    exec(compile(text, str(file), "exec"), made.__dict__)
    return made


@pytest.fixture
def items():
    sounds = np.random.default_rng(0).normal(0, 0.1, (2, 8_000)).astype(np.float32)
    return [
        mi.Item((sound, 16_000), "Which?", ("no", "rain falls"), "no", id=f"q{n}")
        for n, sound in enumerate(sounds)
    ]


@pytest.fixture(autouse=True)
def _same_rules():
    saved = dict(rules._rules)
    yield
    rules._rules.clear()
    rules._rules.update(saved)


def square(scores, keys, alpha):
    return replace_scores(keys, scores + alpha * scores**2, scores)


def cube(scores, keys, alpha):
    return replace_scores(keys, scores + alpha * scores**3, scores)


def register(function):
    return mi.register_rule("mine", function, formula="mine")


@pytest.mark.parametrize("name", ["rule", "Method"])
def test_a_helper_or_constant_that_is_used_changes_the_hash(tmp_path, name):
    hashes = {
        changed: source_sha256(getattr(module(tmp_path, **changes), name))
        for changed, changes in {
            "nothing": {},
            "constant": {"size": 3},
            "helper": {"operator": "*"},
            "default": {"shift": 1},
            "base": {"scale": 2},
        }.items()
    }
    unused = {"rule": "base", "Method": "default"}[name]
    assert hashes.pop(unused) == hashes["nothing"]
    assert len(set(hashes.values())) == len(hashes)


def test_closures_defaults_lambdas_partials_and_objects():
    def made(size):
        return lambda scores, keys, alpha: scores * size

    class Rule:
        def __init__(self, size):
            self.size = size

        def __call__(self, scores, keys, alpha):
            return scores * self.size

    makers = (
        made,
        lambda size: functools.partial(square, alpha=size),
        Rule,
        lambda size: Rule(size).__call__,
    )
    for make in makers:
        one, two, three = (torch.tensor(float(n)) for n in (1, 2, 1))
        for first, second, same in ((1, 2, 1), (one, two, three), ((1, "a"), (1, "b"), (1, "a"))):
            assert source_sha256(make(first)) == source_sha256(make(same))
            assert source_sha256(make(first)) != source_sha256(make(second)), make
    pair = (lambda x: x + 1, lambda x: x + 2)  # Python shows one source for both
    assert source_sha256(pair[0]) != source_sha256(pair[1])


def test_the_hash_is_that_of_another_process(tmp_path, monkeypatch):
    (tmp_path / "users.py").write_text(MODULE.format(**DEFAULTS))
    monkeypatch.syspath_prepend(str(tmp_path))
    users = importlib.import_module("users")
    monkeypatch.delitem(sys.modules, "users")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import users\n"
        "from mata_interp.interventions.source_code import source_sha256\n"
        "print(source_sha256(users.rule), source_sha256(users.Method))"
    )
    env = {"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.split() == [source_sha256(users.rule), source_sha256(users.Method)]


def test_rules_that_ship_have_no_hash():
    assert {rule.source_sha256 for rule in map(rules.find_rule, ("abs", "mul", "add", "knockout"))} == {None}
    assert "rule_source_sha256" not in mi.Mata(1.0, [1]).to_dict()


def test_an_edit_is_read_back_with_the_source_it_was_written_with():
    rule = register(square)
    edit = mi.Mata(0.1, [1, 2], "mine")
    for write, read in ((mi.AttentionEdit.to_dict, mi.AttentionEdit.from_dict), (to_dict, from_dict)):
        data = json.loads(json.dumps(write(edit)))
        assert data["rule_source_sha256"] == rule.source_sha256
        assert read(data) == edit
    del data["rule_source_sha256"]
    assert from_dict(data) == edit  # written by hand
    data = edit.to_dict()
    register(cube)
    with pytest.raises(MissingRuleError, match="'mine'"):
        mi.AttentionEdit.from_dict(data)
    missing = read_method(data)
    assert isinstance(missing, MissingMethod)
    assert missing.layers == (1, 2)
    del rules._rules["mine"]
    assert isinstance(read_method(data), MissingMethod)
    with pytest.raises(InterventionError):
        read_method(mi.Mata(0.1, [1]).to_dict() | {"phase": "never"})


def test_results_are_not_continued_with_another_source(tiny_lalm, items, tmp_path):
    """A run, a sweep and a trace, each with the rule as it was, then with another of the same name."""
    register(square)

    def run():
        return mi.run(tiny_lalm, items, conditions, tmp_path / "run", progress=False)

    def sweep():
        return mi.sweep(tiny_lalm, items, conditions, out=tmp_path / "sweep.nc", progress=False)

    def trace():
        edit = conditions["mine"]
        return mi.trace(tiny_lalm, items, intervention=edit, out=tmp_path / "trace.nc", progress=False)

    conditions = {"baseline": None, "mine": mi.Mata(0.1, [1, 2], "mine")}
    for task in (run, sweep, trace):
        task()
        task()  # the same source goes on
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    (written,) = manifest["conditions"]["mine"]["interventions"]
    assert written["rule_source_sha256"] == source_sha256(square)
    register(cube)
    for task in (run, sweep, trace):
        with pytest.raises(RunError, match="rule_source_sha256"):
            task()
    register(square)
    run()
    assert mi.load_run(tmp_path / "run").conditions["mine"].interventions == (conditions["mine"],)


def test_a_shared_edit_does_not_load_under_another_source(tmp_path):
    register(square)
    edit = mi.Mata(0.1, [1, 2], "mine")
    folder = edit.save_pretrained(tmp_path)
    assert mi.load_intervention(folder) == edit
    register(cube)
    with pytest.raises(InterventionError, match="another source"):
        mi.load_intervention(folder)
