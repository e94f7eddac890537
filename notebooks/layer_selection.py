# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Where does a model take in what it hears?
#
# MATA raises attention to the sound in *intermediate* layers: 10 to 20 of 28, picked by hand. Causal tracing
# of the same model names layers 18 to 31. Both cannot be *the* fusion layers. This notebook looks for them in
# the small model that ships, with every criterion the package has, and then asks the question that matters:
# can a criterion be trusted at all? For that one needs models in which the answer is known.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import display

import mata_interp as mi

sns.set_theme(style="ticks", context="notebook", palette="colorblind")
organism = mi.LALM.from_pretrained("organism")
data = mi.load_benchmark("listening")
selection, confirmation = data.split("selection"), data.split("confirmation")

# %% [markdown]
# ## Two things that are called reading
#
# A question stands *behind* the sound, so each of its tokens can look back at it. The last token, where the
# answer begins, can do so itself (*reading out*), or it can take from the question's tokens what those have
# read before (*reading into text*). MATA edits the last token alone. So the two must be kept apart: hide the
# sound from the last token only, and then from all text, one more layer at a time.

# %%
items = selection.filter(condition="neutral").sample(96)
profile = mi.fusion_layers(organism, items, progress=False)
both = profile.profiles.sel(criterion=["knockout_text", "knockout_last"]).to_dataframe().reset_index()
both["hidden from"] = both["criterion"].map(
    {"knockout_text": "all text", "knockout_last": "the last token alone"}
)
axis = sns.lineplot(both, x="layer", y="profile", hue="hidden from", marker="o", errorbar=("ci", 95))
axis.axhline(0, color="0.7", linewidth=0.8)
axis.set(ylabel="margin lost by hiding the sound [nats]")
sns.despine()
plt.show()

# %% [markdown]
# Where the two lines run together, the last token does the reading itself; where hiding the sound from all
# text costs more, the question's tokens read for it.
#
# ## Every criterion, and what they agree on
#
# Causes first (blue): something was hidden or exchanged, and the answer looked at. Then gradients (green),
# then where the model merely looks (orange). Shaded is the window cut from each; the bar at its foot is how
# sure its boundaries are. At the top, what the causes say together, from which the recommended window is cut;
# at the foot, head by head, what is carried from the sound straight to the answer.

# %%
display(mi.figure(profile, 7.5))
print(profile)

# %% [markdown]
# The sentence is the finding, intervals and quarrels included. With few clips it may well be that nothing
# stands out from the noise; then there is no window. Which heads carry the sound?

# %%
profile.audio_heads.head(5).round(2)

# %% [markdown]
# How much do the criteria's windows have in common? 1 is the same layers, 0 none in common.

# %%
figure, axis = plt.subplots(figsize=(8, 6.5))
sns.heatmap(profile.agreement, cmap="Blues", vmin=0, vmax=1, square=True, ax=axis, cbar_kws={"label": "IoU"})
axis.set_title("Criteria disagree, so which of them is right?")
plt.show()

# %% [markdown]
# ## A known illness
#
# Take the healthy sister model and make it ill *on purpose*: in layers 4 and 5, subtract 4 from the scores
# that text gives to the sound. Now we know what is wrong, and where. With the illness as `baseline`, every
# criterion looks at the ill model; what falls between the two profiles is what the illness took.

# %%
healthy = mi.LALM.from_pretrained("organism-unbiased")
illness = mi.Mata(-4.0, [4, 5], "add", queries="text")
names = ("knockout_text", "restoration_audio", "saliency_last", "attribution", "change_point")
patients = items.sample(8)
before, after = (
    mi.fusion_layers(healthy, patients, criteria=names, baseline=state, progress=False)
    for state in (None, illness)
)
fall = (before.mean - after.mean).to_dataframe("fall").reset_index()
grid = sns.relplot(
    fall, x="layer", y="fall", col="label", col_wrap=3, kind="line", marker="o", height=2.4, aspect=1.2,
    facet_kws={"sharey": False},
)  # fmt: skip
for axis in grid.axes.flat:
    axis.axvspan(3.5, 5.5, color="#d55e00", alpha=0.12, linewidth=0)
    axis.axhline(0, color="0.7", linewidth=0.8)
grid.set_titles("{col_name}")
grid.set_ylabels("healthy - ill")
plt.show()

# %% [markdown]
# Attention, and what is weighted by it, falls in layers 4 and 5 and hardly anywhere else. Causes need not:
# they say what the answer *loses*, and a model that loses little, because other layers do the work instead,
# has parts of its answer moved about rather than taken away. Attention tells where an edit of attention was
# made, causes what came of it: two questions.
#
# And the cure is known, too: add 4 in the same place. It must bring back everything, not only the right
# answers. The sweep is not told where the illness is; it tries every window of two layers.

# %%
cures = mi.sweeps.window_configs(healthy, (1.0, 4.0), "add", widths=[2], queries="text")
named = {"healthy": None, "ill": illness, **{name: (illness, cure) for name, cure in cures.items()}}
swept = mi.sweep(healthy, patients, named, progress=False)
off = abs(swept - swept.sel(configuration="healthy", drop=True)).max(["item", "choice"])
table = off.to_series().drop("healthy").sort_values()
print(f"the ill model's log-probabilities are off by up to {table['ill']:.2f} nats\n")
print(table.head(3))

# %% [markdown]
# ## Layers that are known by construction
#
# An illness is still an edit by our own hand. The hardest test is a model that *grew* so that it reads the
# sound in chosen layers: a **plant**. One way to force it needs no training to be seen: give all layers but
# the chosen ones a sliding window of four tokens. The question is longer than eight layers of four tokens can
# carry anything, so the sound reaches the answer through the chosen layers, or not at all. Exactly not: other
# sounds move the logits by 0.

# %%
from mata_interp.organism.planting import Plant, plant  # noqa: E402

item = items[0]
other = items[1].load_audio(healthy.sampling_rate).samples
length = len(item.load_audio(healthy.sampling_rate).samples)
swapped = item.with_audio((np.resize(other, length), healthy.sampling_rate))
rows = []
for layers in [(), (1,), (3, 4), (6,), tuple(range(8))]:
    body = mi.LALM(plant(healthy.model, Plant(layers, "window")), healthy.processor, name=f"window {layers}")
    moved = body.logits(body.prompt(item)) - body.logits(body.prompt(swapped))
    rows.append({"layers that can hear": str(list(layers)), "logits moved": float(moved.abs().max())})
assert rows[0]["logits moved"] == 0.0
pd.DataFrame(rows)

# %% [markdown]
# These bodies have the healthy model's weights and were never trained in their new form. Trained plants are
# made by `mata-interp organism train --fusion-layers 3-4`, and `analyses/planted_truth.py` holds every
# criterion against nine of them, most of which show nothing in their masks. If there is a folder of plants
# here (`MATA_PLANTS`), look at one; if not, look at the untrained body that can hear in layers 3 and 4. It
# has not learnt to do anything with what it hears there: attention and gradients may well point to 3 and 4,
# and causes should say that there is no effect to speak of.

# %%
folder = Path(os.environ.get("MATA_PLANTS", "runs/plants/models"))
trained = sorted(path.parent for path in folder.glob("*/config.json"))
if trained:
    planted = mi.LALM.from_pretrained(trained[0])
else:
    body = plant(healthy.model, Plant((3, 4), "window"))
    planted = mi.LALM(body, healthy.processor, name="an untrained body that can hear in layers 3 and 4")
names = ("knockout_text", "restoration_audio", "saliency_last", "change_point")
seen = mi.fusion_layers(planted, items, criteria=names, progress=False)
print(f"{planted.name}: {seen}\n")
seen.mean.to_series().unstack("layer").round(2)

# %% [markdown]
# ## Does the window help?
#
# Finding where a model listens is one thing, making it listen more another. MATA in the recommended window,
# against MATA in every other window of as many layers, on clips nobody has looked at, whose captions say
# something wrong. Each window keeps the strength that was best for it on the selection split.

# %%
width = max(1, len(profile.window))
windows = mi.sweeps.window_configs(organism, (0.5, 1.0, 2.0), widths=[width])
if profile.window:  # it may have gaps
    windows |= mi.sweeps.by_alpha([profile.window], (0.5, 1.0, 2.0))
tried = mi.sweep(organism, selection.filter(condition="conflict").sample(24), windows, progress=False)
margins = mi.sweeps.margin(tried).mean("item").to_series()
best = {}
for name, mata in windows.items():
    if mata.layers not in best or margins[name] > margins[best[mata.layers]]:
        best[mata.layers] = name
chosen = {name: windows[name] for name in best.values()}
asked = confirmation.filter(condition="conflict").sample(80)
test = mi.sweep(organism, asked, {"none": None, **chosen}, progress=False)
margins = mi.sweeps.margin(test)
rows = []
for name, mata in chosen.items():
    effect = mi.paired_effect(
        margins.sel(configuration="none").values, margins.sel(configuration=name).values, "margin",
        clusters=list(test["cluster"].values), seed=0,
    )  # fmt: skip
    rows.append(
        {"window": name, "change": effect.difference, "low": effect.low, "high": effect.high}
        | {"recommended": mata.layers == profile.window}
    )
table = pd.DataFrame(rows)
figure, axis = plt.subplots(figsize=(7, 0.5 + 0.4 * len(table)))
colours = ["#c23b22" if own else "0.4" for own in table["recommended"]]
axis.hlines(table.index, table["low"], table["high"], colors=colours)
axis.scatter(table["change"], table.index, c=colours, zorder=3)
axis.axvline(0, color="0.7", linewidth=0.8)
axis.set_yticks(table.index, table["window"])
axis.set(xlabel="change of the margin [nats], 95 % interval", title="red: the recommended window")
axis.margins(y=0.2)
axis.invert_yaxis()
sns.despine()
plt.show()

# %% [markdown]
# `analyses/layer_selection.py` does this in full, with the rank of the recommended window and its interval,
# single criteria's windows, and right answers beside margins.
#
# ## What remains open
#
# - All of this is one small model that was made ill on purpose, and its sisters. That the criteria find what
#   was planted says that they *can*, not that they do so in a model of 7 billion parameters.
# - Causes are of *one* question with *one* rival answer, at the token that tells them apart. What a long
#   answer takes from the sound later on is not looked at.
# - Hiding the sound makes attention fall elsewhere, and another sound may resemble the first: that is why two
#   causes decide together, and why they sometimes disagree.
# - The layers in which a model listens need not be those in which more listening helps.
