"""What is drawn equals the table that `plot.data` returns, and wrong input is refused."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.collections import LineCollection, PathCollection, PolyCollection, QuadMesh
from matplotlib.colors import to_hex

import mata_interp as mi
from mata_interp.errors import ArgumentError, FigureError, MataError
from mata_interp.plot.colours import GROUP_COLOURS, LINES
from mata_interp.statistics import clustered_interval, simultaneous_band
from mata_interp.sweeps import by_alpha

RNG = np.random.default_rng(0)
ITEMS, LAYERS, HEADS = 12, [0, 1, 3, 4], 3


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def trace(nan: bool = False) -> xr.Dataset:
    """A trace of random attention; layer 0 has fewer heads if ``nan``."""
    names = ["audio", "question", "options", "template", "sink"]
    mass = RNG.dirichlet([2, 1, 1, 2, 4], (ITEMS, len(LAYERS), HEADS))
    if nan:
        mass[:, 0, 2] = np.nan
    coords = {
        "item": [f"item {n}" for n in range(ITEMS)],
        "layer": LAYERS,
        "head": range(HEADS),
        "group": names,
        "condition": ("item", ["neutral", "conflict"] * (ITEMS // 2)),
        "cluster": ("item", [f"clip {n // 2}" for n in range(ITEMS)]),
    }
    return xr.Dataset({"mass": (("item", "layer", "head", "group"), mass)}, coords)


def window_map(alphas=(0.5, 1.0)) -> xr.DataArray:
    """A causal map of every window of four layers that are not neighbours in the decoder."""
    names = ["0", "1", "3", "4", "0-1", "1,3", "3-4", "0-1,3", "1,3-4", "0-1,3-4"]
    values = RNG.normal(size=(len(names), len(alphas)))
    values[3, 0] = np.nan
    return xr.DataArray(
        values, {"layers": names, "alpha": list(alphas)}, ("layers", "alpha"), "change of margin"
    )


# ------------------------------------------------------------------------------------------ the numbers drawn
@pytest.mark.parametrize("by", [None, "condition"])
def test_share_draws_means_and_intervals_over_clips(by):
    traced = trace(nan=True)
    ax = mi.plot.share(traced, by=by, window=[1, 3])
    table = mi.plot.data(ax)
    values = mi.audio_share(traced).mean("head", skipna=True)
    labels = [None] if by is None else ["neutral", "conflict"]
    for label, line, band in zip(labels, ax.get_lines(), ax.collections, strict=True):
        here = np.ones(ITEMS, bool) if label is None else values["condition"].values == label
        rows = table if label is None else table.loc[table["condition"] == label]
        mean, low, high = clustered_interval(values.values[here], values["cluster"].values[here])
        np.testing.assert_array_equal(line.get_ydata(), rows["value"])
        np.testing.assert_allclose(rows[["value", "low", "high"]].to_numpy().T, [mean, low, high])
        assert rows["layer"].tolist() == LAYERS
        inside = band.get_paths()[0].vertices[:, 1]
        assert inside.min() == pytest.approx(low.min())
        assert inside.max() == pytest.approx(high.max())
    assert len(ax.patches) == 1  # layers 1 and 3 stand side by side
    if by:
        assert [text.get_text() for text in ax.get_legend().get_texts()] == labels
        assert [to_hex(line.get_color()) for line in ax.get_lines()] == list(LINES[:2])


def test_share_draws_other_measures():
    traced = trace()
    traced["n_tokens"] = ("item", "group"), np.full((ITEMS, 5), 3)
    ax = mi.plot.share(mi.mdi(traced))
    assert ax.get_ylabel() == "MDI"
    np.testing.assert_allclose(mi.plot.data(ax)["value"], mi.mdi(traced).mean("item"))


def test_groups_are_stacked_to_one():
    traced = trace(nan=True)
    ax = mi.plot.groups(traced)
    table = mi.plot.data(ax)
    mass = traced["mass"].mean(("item", "head"))
    bars = {bar.get_label(): [patch.get_height() for patch in bar] for bar in ax.containers}
    for name, heights in bars.items():
        np.testing.assert_allclose(heights, mass.sel(group=name))
        np.testing.assert_allclose(heights, table.loc[table["group"] == name, "value"])
    np.testing.assert_allclose(table.groupby("layer")["value"].sum(), 1)
    assert to_hex(ax.containers[0][0].get_facecolor()) == GROUP_COLOURS["audio"]


def test_heads_of_a_trace_and_of_a_causal_map():
    traced = trace(nan=True)
    ax = mi.plot.heads(traced, window=[1, 4])
    share = mi.audio_share(traced).mean("item")
    mesh = next(c for c in ax.collections if isinstance(c, QuadMesh))
    drawn = np.ma.filled(mesh.get_array(), np.nan).reshape(share.shape)
    np.testing.assert_allclose(drawn, share)
    assert np.isnan(drawn[0, 2])
    assert len(mi.plot.data(ax)) == share.size - 1
    assert mesh.get_clim()[0] == 0
    outlines = [patch for patch in ax.patches if not patch.get_fill()]
    assert [(patch.get_y(), patch.get_height()) for patch in outlines] == [(0.5, 1), (2.5, 1)]

    change = xr.DataArray(
        RNG.random((4, 3)), {"layer": LAYERS, "head": range(3)}, ("layer", "head"), "change of margin"
    )
    mesh = mi.plot.heads(change, ax=plt.figure().subplots()).collections[0]
    low, high = mesh.get_clim()
    assert low == -high == -change.values.max()  # symmetric even where all changes are gains


def test_layers_draws_every_interval():
    value = RNG.normal(size=4)
    ends = {"low": ("layer", value - 0.1), "high": ("layer", value + 0.2)}
    effects = xr.DataArray(value, {"layer": LAYERS, **ends}, ("layer",), "change of margin")
    ax = mi.plot.layers(effects)
    lines = next(c for c in ax.collections if isinstance(c, LineCollection))
    dots = next(c for c in ax.collections if isinstance(c, PathCollection))
    table = mi.plot.data(ax)
    np.testing.assert_allclose([s[:, 1] for s in lines.get_segments()], table[["low", "high"]])
    np.testing.assert_allclose(dots.get_offsets()[:, 1], table["value"])
    np.testing.assert_allclose(table["value"], value)


def test_windows_stand_at_their_first_and_last_layer():
    effects = window_map()
    ax = mi.plot.windows(effects, alpha=0.5, chosen=[1, 3])
    table = mi.plot.data(ax)
    assert len(table) == 9  # one was not tried
    row = table.loc[(table["first"] == 1) & (table["last"] == 3)]
    assert row["value"].item() == effects.sel(layers="1,3", alpha=0.5).item()
    cells = next(c for c in ax.collections if isinstance(c, PolyCollection))
    np.testing.assert_array_equal(cells.get_array(), table["value"])
    middles = np.array([path.vertices[:4].mean(0) for path in cells.get_paths()])
    assert middles.tolist() == [
        [LAYERS.index(a), LAYERS.index(b)] for a, b in zip(table["first"], table["last"], strict=True)
    ]
    frame = next(patch for patch in ax.patches if not patch.get_fill())
    assert (frame.get_x(), frame.get_y()) == (0.5, 1.5)
    assert cells.norm.vmax == np.nanmax(np.abs(effects))  # one scale for all strengths


@pytest.fixture(scope="module")
def lalm():
    return mi.LALM.from_pretrained("organism")


@pytest.fixture(scope="module")
def items():
    return mi.load_benchmark("listening").split("selection").filter(condition="conflict")[:8]


@pytest.fixture(scope="module")
def run(lalm, items):
    edits = {
        f"{keys} {alpha}": mi.Mata(alpha, [4, 5], keys=keys)
        for keys in ("audio", "text")
        for alpha in (1.0, 2.0)
    }
    return mi.run(lalm, items, {"baseline": None, **edits}, progress=False)


def test_effects_of_a_run_are_those_of_compare(run):
    ax = mi.plot.effects(run, score="margin")
    compared, table = run.compare(score="margin"), mi.plot.data(ax)
    columns = ["difference", "low", "high"]
    pd.testing.assert_frame_equal(table[columns], compared[columns])
    assert [text.get_text() for text in ax.get_yticklabels()] == compared["condition"].tolist()
    bars = [
        line
        for line in ax.get_lines()
        if len(line.get_xdata()) == 2 and line.get_ydata()[0] == line.get_ydata()[1]
    ]
    np.testing.assert_allclose([line.get_xdata() for line in bars], table[["low", "high"]])
    assert "nats" in ax.get_xlabel()
    by = mi.plot.data(mi.plot.effects(run, by="domain", ax=plt.figure().subplots()))
    assert len(by) == 4 * run.records["domain"].nunique()
    assert by["label"].str.contains(", ").all()


def test_accuracies_are_drawn_in_points_and_returned_as_fractions():
    effect = mi.paired_effect([0, 0, 1, 0, 0, 1], [1, 1, 1, 1, 0, 0])
    hostile = "<script>$\\frac"
    ax = mi.plot.effects({hostile: effect})
    dot = next(line for line in ax.get_lines() if len(line.get_xdata()) == 1)
    assert dot.get_xdata()[0] == pytest.approx(100 * effect.difference)
    assert mi.plot.data(ax)["difference"].item() == effect.difference
    assert ax.get_yticklabels()[0].get_text() == hostile
    ax.figure.draw_without_rendering()  # the label is no mathematics
    margin = mi.paired_effect([0.1, 0.2, 0.3], [0.3, 0.1, 0.5], kind="margin")
    with pytest.raises(FigureError, match="common"):
        mi.plot.effects({"a": effect, "b": margin})


def test_dose_of_a_sweep_and_of_a_run_agree(lalm, items, run):
    edits = {name: c.interventions[0] for name, c in run.conditions.items() if c.interventions}
    swept = mi.sweep(lalm, items, {"baseline": None, **edits}, progress=False)
    tables = [mi.plot.data(mi.plot.dose(results, ax=plt.figure().subplots())) for results in (run, swept)]
    columns = ["alpha", "value", "low", "high", "line"]
    pd.testing.assert_frame_equal(tables[0][columns], tables[1][columns], atol=1e-4)
    assert tables[0]["line"].unique().tolist() == ["on audio", "on text"]
    ax = mi.plot.dose(run, score="margin", ax=plt.figure().subplots())
    wide = run.records.pivot(index="item", columns="condition", values="margin").astype(float)
    change = wide[["audio 1.0", "audio 2.0"]].sub(wide["baseline"], axis=0)
    clusters = run.records.drop_duplicates("item").set_index("item")["cluster"].loc[wide.index]
    band = simultaneous_band(change.to_numpy(), clusters)
    line = ax.get_lines()[0]
    np.testing.assert_allclose(line.get_ydata(), [0, *band.mean])
    np.testing.assert_allclose(mi.plot.data(ax)["high"][:3], [0, *band.high])
    points = mi.plot.dose(run, score="correct", ax=plt.figure().subplots())
    shown = mi.plot.data(points)
    right = run.records.pivot(index="item", columns="condition", values="correct").astype(float)
    one = mi.paired_effect(right["baseline"], right["audio 1.0"], clusters=clusters, level=0.975)
    row = shown.query("line == 'on audio' and alpha == 1").iloc[0]
    assert row[["value", "low", "high"]].tolist() == [one.difference, one.low, one.high]
    np.testing.assert_allclose(
        points.get_lines()[0].get_ydata(), 100 * shown.loc[shown["line"] == "on audio", "value"]
    )


def test_margins_counts_what_changed(run):
    ax = mi.plot.margins(run, after="audio 2.0")
    table = mi.plot.data(ax)
    assert len(table) == run.records["item"].nunique()
    drawn = np.vstack([c.get_offsets() for c in ax.collections])
    assert sorted(map(tuple, drawn)) == sorted(zip(table["before"], table["after"], strict=True))
    texts = {text.get_text() for text in ax.texts}
    effect = run.compare().set_index("condition").loc["audio 2.0"]
    assert texts == {f"{effect['fixed']} corrected", f"{effect['broken']} broken"}


def test_clip_draws_the_attention_of_each_bin(lalm, items):
    item = items[0]
    listening = mi.listen(lalm, item.audio_root / item.audio, item.question, item.choices)
    table = mi.plot.data(mi.plot.clip(listening))
    np.testing.assert_allclose(table["value"], listening.attention.mean(0))
    ax = mi.plot.clip(listening, by_layer=True, ax=plt.figure().subplots())
    mesh = ax.collections[0]
    np.testing.assert_allclose(mesh.get_array().ravel(), listening.attention.ravel())
    np.testing.assert_allclose(mi.plot.data(ax)["value"], listening.attention.ravel())


@pytest.fixture(scope="module")
def fusion_profile(lalm):
    chosen = mi.load_benchmark("listening").split("selection").filter(condition="neutral").sample(8)
    names = ["knockout_text", "knockout_last", "restoration_audio", "attribution", "depth"]
    return mi.fusion_layers(lalm, chosen, criteria=names, progress=False)


def test_profile_draws_the_share_and_one_criterion(fusion_profile):
    ax = mi.plot.profile(fusion_profile)
    table = mi.plot.data(ax)
    np.testing.assert_array_equal(table["value"], fusion_profile.share)
    assert [bar.get_height() for bar in ax.containers[0]] == table["value"].tolist()
    assert table.loc[table["in_window"], "layer"].tolist() == list(fusion_profile.window)
    ax = mi.plot.profile(fusion_profile, "knockout_last", ax=plt.figure().subplots())
    np.testing.assert_allclose(mi.plot.data(ax)["value"], fusion_profile.mean.sel(criterion="knockout_last"))
    with pytest.raises(FigureError, match="knockout_text"):
        mi.plot.profile(fusion_profile, "knockout_txt")


def test_criteria_draws_every_criterion_and_the_heads(fusion_profile):
    figure = mi.plot.criteria(fusion_profile, 3.9)
    tables = [mi.plot.data(ax) for ax in figure.axes]
    assert len(tables) == 1 + len(fusion_profile.windows) + 1
    drawn = {table["criterion"].iloc[0] for table in tables[1:-1]}
    assert drawn == set(fusion_profile.windows)
    assert len(tables[-1]) == np.isfinite(fusion_profile.heads).sum()
    pd.testing.assert_frame_equal(
        mi.plot.data(mi.plot.heads(fusion_profile)), tables[-1].astype({"layer": int}), check_dtype=False
    )
    overlap = mi.plot.data(mi.plot.agreement(fusion_profile, ax=plt.figure().subplots()))
    one = overlap.query("first == 'window' and second == 'depth'")["value"].item()
    assert one == fusion_profile.agreement.loc["window", "depth"]


@pytest.mark.parametrize("kind", ["windows", "layers", "heads", "sets"])
def test_every_kind_of_causal_map_is_drawn(lalm, items, kind, tmp_path):
    configurations = {
        "windows": lambda: mi.window_configs(lalm, (0.5, 1.0), widths=[1, 2]),
        "layers": lambda: mi.layer_configs(lalm),
        "heads": lambda: mi.head_configs(lalm, 1.0, "abs", queries="text"),
        "sets": lambda: by_alpha([[0, 2], [1]], (0.5, 1.0)),
    }[kind]()
    effects = mi.causal_map(lalm, items[:2], configurations, progress=False)
    figure = mi.plot.causal_map(effects)
    figure.savefig(tmp_path / "map.png")
    panels = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    tables = [mi.plot.data(ax) for ax in panels]
    values = np.sort(np.concatenate([table["value"].to_numpy() for table in tables]))
    np.testing.assert_array_equal(values, np.sort(effects.values[np.isfinite(effects.values)]))
    note = " ".join(figure._supxlabel.get_text().split())
    assert "2 items of 2 clips" in note
    assert ("queries text" in note) == (kind == "heads")


# ------------------------------------------------------------------------------------------------ wrong input
REFUSED = {
    "a list as a trace": lambda: mi.plot.share([1, 2]),
    "a trace with queries": lambda: mi.plot.share(trace().expand_dims(query=2)),
    "no such coordinate": lambda: mi.plot.share(trace(), by="caption"),
    "a mean over items": lambda: mi.plot.share(mi.audio_share(trace()).mean("item")),
    "a layer that is not there": lambda: mi.plot.share(trace(), window=[2]),
    "no such palette": lambda: mi.plot.share(trace(), palette="nonsense"),
    "a palette without a colour": lambda: mi.plot.share(trace(), by="condition", palette={"neutral": "k"}),
    "a figure as axes": lambda: mi.plot.share(trace(), ax=plt.figure()),
    "a share as groups": lambda: mi.plot.groups(mi.audio_share(trace())),
    "heads of a map of windows": lambda: mi.plot.heads(window_map()),
    "no such colour map": lambda: mi.plot.heads(trace(), palette="nonsense"),
    "windows of a trace": lambda: mi.plot.windows(trace()),
    "windows without a strength": lambda: mi.plot.windows(window_map()),
    "windows of no such strength": lambda: mi.plot.windows(window_map(), alpha=2),
    "no such window": lambda: mi.plot.windows(window_map(), alpha=0.5, chosen=[0, 3]),
    "sets as windows": lambda: mi.plot.windows(
        window_map([1.0]).isel(layers=[0, 1, 2]).assign_coords(layers=["0", "1-2", "0,2"])
    ),
    "layers of a map of windows": lambda: mi.plot.layers(window_map()),
    "effects of a number": lambda: mi.plot.effects(3),
    "effects of another table": lambda: mi.plot.effects(pd.DataFrame({"a": [1]})),
    "no effects": lambda: mi.plot.effects({}),
    "no such score": lambda: mi.plot.effects({}, score="accuracy"),
    "dose of a table": lambda: mi.plot.dose(pd.DataFrame()),
    "profile of a trace": lambda: mi.plot.profile(trace()),
    "margins of a table": lambda: mi.plot.margins(pd.DataFrame()),
    "clip of a trace": lambda: mi.plot.clip(trace()),
    "a causal map of items": lambda: mi.plot.causal_map(xr.DataArray([1.0], dims="item")),
    "data of bare axes": lambda: mi.plot.data(plt.figure().subplots()),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_input_is_refused_before_anything_is_drawn(name):
    with pytest.raises(FigureError) as caught:
        REFUSED[name]()
    assert isinstance(caught.value, MataError)
    assert len(str(caught.value)) > 30


def test_a_run_that_cannot_be_drawn_says_why(run):
    with pytest.raises(FigureError, match="Did you mean"):
        mi.plot.margins(run, after="audio 1")
    with pytest.raises(ArgumentError, match="baseline"):
        mi.plot.effects(mi.Run(None, {**run.manifest}, run.records.query("condition != 'baseline'")))
    one = {name: run.manifest["conditions"][name] for name in ("baseline", "audio 1.0")}
    with pytest.raises(FigureError, match="two strengths"):
        mi.plot.dose(mi.Run(None, {**run.manifest, "conditions": one}, run.records))


def test_what_is_drawn_stands_on_the_given_axes_in_the_given_colours():
    figure, axes = plt.subplots(1, 2)
    assert mi.plot.share(trace(), ax=axes[1], palette=["#123456"]) is axes[1]
    assert to_hex(axes[1].get_lines()[0].get_color()) == "#123456"
    assert not axes[0].has_data()
    plt.sca(axes[0])
    assert mi.plot.groups(trace(), palette="colorblind") is axes[0]
    mi.plot.share(trace(), ax=axes[1])
    assert len(mi.plot.data(axes[1])) == 2 * len(LAYERS)
    assert figure.axes == list(axes)
