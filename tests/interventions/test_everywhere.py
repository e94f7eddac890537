"""Every method in sweeps, maps, traces and runs: the same numbers as alone, and recorded with its source."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import mata_interp as mi
from mata_interp.errors import ArgumentError, InterventionError
from mata_interp.experiments import Condition
from mata_interp.interventions import MissingMethod, describe, in_order, source_hash
from mata_interp.interventions import catalogue as c
from mata_interp.interventions.catalogue import registry
from tests.interventions import plain_methods as plain
from tests.interventions.cases import CASES, LAYERS, row_of
from tests.tiny import RATE, tiny_qwen2_audio

LATE = ("hgai", "instaboost at the last query", "pai with guidance", "owl", "aad omitted", "ad-hh", "dola")


@pytest.fixture(scope="module")
def eager():
    return tiny_qwen2_audio(seed=0, attention="eager")[0]


@pytest.fixture(scope="module")
def items():
    noise = np.random.default_rng(0)
    texts = [("Which of them comes first?", ("no", "rain falls")), ("How many?", ("one", "two", "y"))]
    return [
        mi.Item(
            audio=(noise.normal(0, 0.1, n).astype(np.float32), RATE),
            question=question,
            choices=choices,
            answer=choices[0],
            id=f"item {n}",
        )
        for n, (question, choices) in zip((9_000, 5_000), texts, strict=True)
    ]


@pytest.fixture
def _same_methods():
    before = dict(registry._methods)
    yield
    registry._methods.clear()
    registry._methods.update(before)


METHODS = {name: case.method for name, case in CASES.items()}
METHODS["instaboost at the last query"] = c.InstABoost(LAYERS, queries="last")


def test_a_sweep_of_all_methods_is_the_loop(tiny_lalm, items):
    swept = mi.sweep(tiny_lalm, items, {"none": None, **METHODS}, progress=False)
    prompt = tiny_lalm.prompt(items)
    for name, method in {"none": None, **METHODS}.items():
        alone = tiny_lalm.score(prompt, None, method).logprob
        values = swept.sel(configuration=name).values[:, : alone.shape[1]]
        np.testing.assert_allclose(values, alone, atol=1e-5, rtol=3e-7, err_msg=name)
    paths = dict(zip(swept["configuration"].values.tolist(), swept["path"].values.tolist(), strict=True))
    assert paths["none"] == paths["mata abs"] == paths["scaling"] == "rows"
    assert {paths[name] for name in LATE} == {"prefill"}
    assert {paths[name] for name in ("seka", "vaf", "instaboost", "head mask")} == {"loop"}
    assert swept.attrs["looped"] == 0
    assert str(swept["settings"].sel(configuration="hgai").values) == describe(METHODS["hgai"])


def test_logits_of_methods(tiny_lalm, items):
    prompt = tiny_lalm.prompt(items)
    methods = {"mata": mi.Mata(1.0, [1]), "hgai": c.Hgai(LAYERS)}
    swept = mi.sweep(tiny_lalm, prompt, methods, progress=False)
    for name, method in methods.items():
        alone = tiny_lalm.logits(prompt, method).numpy()
        np.testing.assert_allclose(swept.sel(configuration=name).values, alone, atol=2e-5)
    assert swept["path"].values.tolist() == ["rows", "loop"]


def test_generated_answers_of_a_sweep(tiny_lalm, items):
    methods = {name: METHODS[name] for name in ("hgai", "iat", "caac", "seka", "aad omitted", "dola")}
    swept = mi.sweep_generate(
        tiny_lalm, items, methods, decoding=mi.Decoding(max_new_tokens=4), progress=False
    )
    for name, method in methods.items():
        alone = tiny_lalm.answer(tiny_lalm.prompt(items), method, max_new_tokens=4)
        for row, length in enumerate(alone.lengths):
            tokens = swept["tokens"].sel(configuration=name).values[row, :length]
            assert tokens.tolist() == alone.tokens[row, :length].tolist(), name


def test_spans_in_sweeps_and_traces(tiny_lalm, items):
    span = mi.seconds(0.1, 0.2)
    edit = mi.Knockout([1, 2], keys=span)
    swept = mi.sweep(tiny_lalm, items, [edit, c.InstABoost([1], keys=span)], progress=False)
    assert swept.attrs["looped"] == 0
    for k, method in enumerate((edit, c.InstABoost([1], keys=span))):
        alone = tiny_lalm.score(tiny_lalm.prompt(items), None, method).logprob
        np.testing.assert_allclose(swept.values[:, k], alone, atol=1e-5, rtol=3e-7)
    spans = [mi.seconds(0, 0.25), mi.seconds(0.25, 1), mi.seconds(0.5, 1)]
    traced = mi.trace(tiny_lalm, items, spans=spans, progress=False)
    parts = traced["subgroup_mass"].sel(subgroup=spans[:2]).sum("subgroup")
    whole = traced["mass"].sel(group="audio")
    np.testing.assert_allclose(parts.isel(item=0), whole.isel(item=0), rtol=0.35)  # a token may be in both
    assert not np.isnan(traced["subgroup_mass"].sel(subgroup=spans[2]).isel(item=0)).any()
    assert np.isnan(traced["subgroup_mass"].sel(subgroup=spans[2]).isel(item=1)).all()  # 0.31 s long
    hidden = mi.trace(tiny_lalm, items, spans=[span], intervention=edit, progress=False)
    assert float(hidden["subgroup_mass"].sel(layer=[1, 2]).max()) == 0
    assert float(hidden["subgroup_mass"].sel(layer=0).min()) > 0
    with pytest.raises(InterventionError, match="not a span of time"):
        mi.trace(tiny_lalm, items, spans=["audio"], progress=False)


def _plain_masses(eager, row: plain.Row, layers, change, site: str) -> np.ndarray:
    """[layer, head] mass of audio in the last row, while ``change`` edits the rows of some layers."""
    masses: dict[int, torch.Tensor] = {}
    audio = row.keys("audio", row.length)

    def watch(layer, at, rows):
        if site == "scores":
            edited = change(rows) if layer in layers else rows
            masses[layer] = (edited.softmax(-1)[:, audio]).sum(-1)
            return edited
        edited = change(rows) if layer in layers else rows
        masses[layer] = edited[:, audio].sum(-1)
        return edited

    with plain.attention(range(4), {row.length - 1}, watch, site):
        plain.run(eager, row.inputs, ())
    return torch.stack([masses[layer] for layer in range(4)]).numpy()


@pytest.mark.parametrize("count", [1, 2], ids=["one prompt", "two, left-padded"])
def test_a_trace_under_a_method_reads_the_edited_rows(tiny_lalm, eager, items, count):
    prompt = tiny_lalm.prompt(items[:count])

    def raised(rows, row):
        return torch.where(row.keys("audio", row.length), rows + 0.8 * rows.abs(), rows)

    def boosted(rows, row):
        tripled = torch.where(row.keys("audio", row.length), 3 * rows, rows)
        return tripled / tripled.sum(-1, keepdim=True)

    cases = {
        "scores": (mi.Mata(0.8, LAYERS), raised),
        "weights": (c.InstABoost(LAYERS, queries="last"), boosted),
    }
    before = mi.trace(tiny_lalm, prompt, progress=False)["mass"].sel(group="audio")
    for site, (method, change) in cases.items():
        traced = mi.trace(tiny_lalm, prompt, intervention=method, progress=False)
        masses = traced["mass"].sel(group="audio")
        assert describe(method) in traced.attrs["intervention"]
        for n in range(count):
            row = row_of(eager, prompt, n)
            expected = _plain_masses(eager, row, LAYERS, lambda x, row=row, f=change: f(x, row), site)
            np.testing.assert_allclose(masses.values[n], expected, atol=2e-5)
        assert float(abs(masses - before).sel(layer=0).max()) == pytest.approx(0, abs=1e-6)
        assert all(float(abs(masses - before).sel(layer=layer).max()) > 1e-3 for layer in (1, 2, 3))


def test_a_trace_with_strength_zero_is_the_plain_trace(tiny_lalm, items):
    plain_trace = mi.trace(tiny_lalm, items, query="text", progress=False)
    for method in (mi.Mata(0.0, LAYERS), c.InstABoost(LAYERS, 1.0), c.ValueScaling(LAYERS, 1.0)):
        traced = mi.trace(tiny_lalm, items, query="text", intervention=method, progress=False)
        np.testing.assert_allclose(traced["mass"], plain_trace["mass"], atol=1e-6)


def test_traces_of_answers_under_methods(tiny_lalm, items):
    """Each token's row is that of a trace of the prompt and the answer up to it."""
    for name in ("mata abs", "iat", "aad omitted", "seka"):
        method = METHODS[name]
        traced = mi.trace(
            tiny_lalm, items[:1], "generated", intervention=method, max_new_tokens=3, per_query=True,
            progress=False,
        )  # fmt: skip
        answer = tiny_lalm.answer(tiny_lalm.prompt(items[:1]), method, max_new_tokens=3)
        assert traced["token"].values[0, 1:].tolist() == answer.tokens[0, :2].tolist()
        first = mi.trace(tiny_lalm, items[:1], intervention=method, progress=False)
        np.testing.assert_allclose(traced["mass"].values[..., 0], first["mass"], atol=2e-5)


def test_traces_refuse_what_cannot_act(tiny_lalm, items, tmp_path):
    with pytest.raises(InterventionError, match="No attention in layer 9"):
        mi.trace(tiny_lalm, items, intervention=c.InstABoost([9]), progress=False)
    file = tmp_path / "trace.nc"
    traced = mi.trace(tiny_lalm, items, intervention=c.Hgai(LAYERS), out=file, progress=False)
    again = mi.trace(tiny_lalm, items, intervention=c.Hgai(LAYERS), out=file, progress=False)
    assert again.identical(traced)
    with pytest.raises(mi.errors.RunError):
        mi.trace(tiny_lalm, items, intervention=c.Hgai(LAYERS, 0.7), out=file, progress=False)


def test_maps_of_methods(tiny_lalm, items):
    by_layer = {f"layer {n}": c.InstABoost([n], queries="last") for n in range(4)}
    drawn = mi.causal_map(tiny_lalm, items, by_layer, progress=False)
    assert drawn.dims == ("layer",)
    assert drawn.attrs["method"] == "InstABoost"
    swept = mi.sweep(tiny_lalm, items, {"no intervention": None, **by_layer}, progress=False)
    margins = mi.margin(swept)
    moved = (margins - margins.sel(configuration="no intervention")).mean("item")
    np.testing.assert_allclose(drawn, moved.sel(configuration=list(by_layer)), atol=1e-9)
    both = {f"{n} {f}": c.InstABoost([n], f, queries="last") for n in (1, 2) for f in (2.0, 4.0)}
    drawn = mi.causal_map(tiny_lalm, items, both, progress=False)
    assert (drawn.dims, drawn["alpha"].values.tolist()) == (("layers", "alpha"), [2.0, 4.0])
    assert drawn.attrs["strength"] == "factor"
    assert mi.plot.causal_map(drawn) is not None
    with pytest.raises(InterventionError, match="several methods"):
        mi.causal_map(tiny_lalm, items, {"a": c.Hgai([1]), "b": mi.Mata(1.0, [1])}, progress=False)
    with pytest.raises(InterventionError, match="differ in up, down"):
        mi.causal_map(tiny_lalm, items, {"a": c.Vaf([1], 1.2), "b": c.Vaf([1], 1.3, 0.9)}, progress=False)


def test_runs_of_all_methods(tiny_lalm, items, tmp_path):
    conditions = {"baseline": None, **METHODS, "two in order": (METHODS["hgai"], METHODS["ad-hh"])}
    run = mi.run(tiny_lalm, items, conditions, tmp_path / "run", progress=False)
    prompt = tiny_lalm.prompt(items)
    for name, method in conditions.items():
        alone = tiny_lalm.score(prompt, None, method)
        rows = run.records[run.records["condition"] == name].set_index("item").loc[[i.id for i in items]]
        for n, logprob in enumerate(rows["logprob"]):
            np.testing.assert_allclose(logprob, alone.logprob[n, : len(logprob)], atol=1e-5)
        if "kl" in alone.dose:
            np.testing.assert_allclose(rows["dose_kl"], alone.dose["kl"], atol=1e-5)
    back = mi.load_run(tmp_path / "run").conditions
    for name, method in conditions.items():
        expected = method if isinstance(method, tuple) else () if method is None else (method,)
        assert back[name].interventions == expected
    assert run.roles["hgai"] == "other"
    assert run.roles["mata abs"] == "mata"
    # the same call goes on, another strength is another run
    assert mi.run(tiny_lalm, items, conditions, tmp_path / "run", progress=False).records.equals(run.records)
    other = conditions | {"hgai": c.Hgai(LAYERS, 0.9)}
    with pytest.raises(mi.errors.RunError, match="hgai"):
        mi.run(tiny_lalm, items, other, tmp_path / "run", progress=False)
    page = mi.report(tmp_path / "run").read_text("utf-8")
    assert c.Hgai.formula in page.replace("&#43;", "+")


@pytest.mark.usefixtures("_same_methods")
def test_a_run_records_the_source_of_a_method_and_reads_without_it(tiny_lalm, items, tmp_path):
    @mi.register
    @dataclass(frozen=True)
    class Halve:
        layers: tuple
        site, queries, phase = "weights", "last", "both"

        def edit(self, x, context):
            return x.where(~context.columns("audio"), x / 2)

    out = tmp_path / "run"
    conditions = {"baseline": None, "halved": Halve((1, 2))}
    mi.run(tiny_lalm, items, conditions, out, progress=False)
    written = json.loads((out / "manifest.json").read_text())["conditions"]["halved"]["interventions"][0]
    assert written == {"method": "Halve", "source_sha256": source_hash(Halve), "layers": [1, 2]}

    del registry._methods["Halve"]
    run = mi.load_run(out)
    missing = run.conditions["halved"].interventions[0]
    assert isinstance(missing, MissingMethod)
    assert "Halve" in missing.reason
    assert run.conditions["halved"].to_dict()["interventions"] == [written]
    assert mi.report(out).exists()
    with pytest.raises(InterventionError, match="Halve cannot be used here"):
        mi.run(tiny_lalm, items, dict(run.conditions), tmp_path / "other", progress=False)
    with pytest.raises(InterventionError, match="Halve is not registered"):
        Condition(Halve((1, 2)))

    @mi.register
    @dataclass(frozen=True)
    class Halve:
        layers: tuple
        site, queries, phase = "weights", "last", "both"

        def edit(self, x, context):
            return x.where(~context.columns("audio"), x / 3)

    with pytest.raises(mi.errors.RunError, match="source_sha256"):
        mi.run(tiny_lalm, items, {"baseline": None, "halved": Halve((1, 2))}, out, progress=False)


def test_conditions_refuse_what_makes_no_sense(tiny_lalm, items):
    with pytest.raises(InterventionError, match="leaves it out"):
        Condition(c.Aad(), audio="none")
    with pytest.raises(InterventionError, match="leaves it out"):
        Condition(c.InstABoost([1]), audio="none")
    with pytest.raises(InterventionError, match="No attention in layer 9"):
        mi.run(tiny_lalm, items, {"a": c.InstABoost([9])}, progress=False)
    with pytest.raises(InterventionError, match="not an intervention"):
        Condition("InstABoost")


def test_dose_of_methods_is_the_divergence_of_the_edited_rows(tiny_lalm, items):
    """InstABoost multiplies the weights, so that KL and masses follow from the plain masses alone."""
    prompt = tiny_lalm.prompt([mi.Item(item.audio, item.question, ("x", "y")) for item in items])
    method = c.InstABoost([1], 3.0, queries="last", phase="prefill")
    dose = tiny_lalm.score(prompt, None, method).dose
    mass = mi.trace(tiny_lalm, prompt, progress=False)["mass"].sel(group="audio", layer=1).values  # [B, H]
    after = 3 * mass / (1 + 2 * mass)
    kl = after * np.log(3 / (1 + 2 * mass)) + (1 - after) * np.log(1 / (1 + 2 * mass))
    np.testing.assert_allclose(dose["mass_before"], mass.mean(1), atol=1e-5)
    np.testing.assert_allclose(dose["mass_after"], after.mean(1), atol=1e-5)
    np.testing.assert_allclose(dose["kl"], kl.mean(1), atol=1e-5)
    assert np.isnan(dose["boost"]).all()
    assert tiny_lalm.score(prompt, None, c.HeadMask((1,), ((0,),))).dose == {}


def test_negatives_are_worded_as_the_prompt(tiny_lalm, items):
    """A contrast in another format is with a negative prompt of that format."""
    prompt = tiny_lalm.prompt(items, format="letters")
    without = tiny_lalm.prompt(items, audio=None, format="letters")
    expected = 1.5 * tiny_lalm.logits(prompt) - 0.5 * tiny_lalm.logits(without)
    torch.testing.assert_close(tiny_lalm.logits(prompt, c.Aad(0.5)), expected, atol=1e-5, rtol=0)


def test_parts_of_composites_are_swept_in_order(tiny_lalm, items):
    owl = METHODS["owl"]
    swept = mi.sweep(tiny_lalm, items, {"owl": owl}, progress=False)
    assert str(swept["rule"].values[0]) == " then ".join(type(part).__name__ for part in in_order(owl))
    with pytest.raises(ArgumentError):
        mi.sweep(tiny_lalm, items, {}, progress=False)
