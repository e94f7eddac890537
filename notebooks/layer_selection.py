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
# # In which layers does a model read audio?
#
# MATA raises attention to audio in *intermediate* layers: 10 to 20 of 28 in the paper, chosen by hand.
# Causal tracing of the same model names layers 18 to 31. Both cannot be *the* fusion layers, the layers in
# which text tokens read from audio. This notebook estimates the fusion layers of the small model that
# ships, with every criterion of the package. It then asks whether the criteria can be trusted, with models
# whose fusion layers are known. It takes about two minutes on a CPU.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import display

import mata_interp as mi
from mata_interp.sweeps import by_alpha

sns.set_theme(style="ticks", context="notebook", palette="colorblind")
organism = mi.LALM.from_pretrained("organism")
data = mi.load_benchmark("listening")
selection, confirmation = data.split("selection"), data.split("confirmation")

# %% [markdown]
# ## Two ways in which audio reaches the answer
#
# The question comes *after* the audio, so each of its tokens can attend to the audio. The last token, where
# the answer begins, can read the audio itself (*out at the last token*), or it can read from the question's
# tokens what these have read before (*into text*). MATA edits the last token only, so the distinction
# matters. The figure shows the effect of two attention knockouts, in one more layer at a time: the audio is
# hidden from the last token only, or from all text.

# %%
items = selection.filter(condition="neutral").sample(48)
profile = mi.fusion_layers(organism, items, progress=False)
both = profile.profiles.sel(criterion=["knockout_text", "knockout_last"]).to_dataframe().reset_index()
both["hidden from"] = both["criterion"].map(
    {"knockout_text": "all text", "knockout_last": "the last token only"}
)
axis = sns.lineplot(both, x="layer", y="profile", hue="hidden from", marker="o", errorbar=("ci", 95))
axis.axhline(0, color="0.7", linewidth=0.8)
axis.set(ylabel="loss of log-probability difference [nats]")
sns.despine()
plt.show()

# %% [markdown]
# Where the two lines coincide, the last token reads the audio itself. Where the knockout from all text
# costs more, the question's tokens read for it.
#
# ## All criteria
#
# The figure groups the criteria by their kind of evidence: causal criteria (blue) hide or exchange
# something and measure the effect on the answer; gradient criteria (green) differentiate the answer;
# attention criteria (orange) only read attention weights. The shaded area is the window that each criterion
# implies, and the bar below it the confidence in its limits. The top panel combines the causal criteria,
# from which the recommended window is cut. The bottom panel shows, head by head, what is carried from audio
# directly to the answer.

# %%
display(mi.figure(profile, 7.5))
print(profile)

# %% [markdown]
# The printed sentence is the result, with intervals and disagreements between criteria. With few clips no
# layer may differ from noise, and then there is no window. These heads carry most from audio to the answer:

# %%
profile.audio_heads.head(5).round(2)

# %% [markdown]
# How much do the windows of the criteria overlap? An intersection over union (IoU) of 1 means the same
# layers, 0 no common layer.

# %%
figure, axis = plt.subplots(figsize=(8, 6.5))
sns.heatmap(profile.agreement, cmap="Blues", vmin=0, vmax=1, square=True, ax=axis, cbar_kws={"label": "IoU"})
axis.set_title("Overlap of the criteria's windows")
plt.show()

# %% [markdown]
# ## A known edit as ground truth
#
# The criteria disagree, so which of them is right? Take the unbiased model and suppress its reading of
# audio in known layers: in layers 4 and 5, subtract 4 from the attention scores of text on audio. With this
# edit as `baseline`, every criterion measures the suppressed model. The difference between the two profiles
# is the effect of the edit.

# %%
unbiased = mi.LALM.from_pretrained("organism-unbiased")
suppression = mi.Mata(-4.0, [4, 5], "add", queries="text")
names = ("knockout_text", "restoration_audio", "saliency_last", "attribution", "change_point")
few = items.sample(8)
intact, suppressed = (
    mi.fusion_layers(unbiased, few, criteria=names, baseline=baseline, progress=False)
    for baseline in (None, suppression)
)
change = (intact.mean - suppressed.mean).to_dataframe("change").reset_index()
grid = sns.relplot(
    change, x="layer", y="change", col="label", col_wrap=3, kind="line", marker="o", height=2.4, aspect=1.2,
    facet_kws={"sharey": False},
)  # fmt: skip
for axis in grid.axes.flat:
    axis.axvspan(3.5, 5.5, color="#d55e00", alpha=0.12, linewidth=0)
    axis.axhline(0, color="0.7", linewidth=0.8)
grid.set_titles("{col_name}")
grid.set_ylabels("intact - suppressed")
plt.show()

# %% [markdown]
# Criteria that read or weight attention fall in layers 4 and 5 and hardly anywhere else. Causal criteria
# need not: they measure what the answer *loses*, and where other layers compensate, the effect moves to
# these layers. Attention shows where attention was edited; causal criteria show the consequences. These are
# two questions.
#
# The inverse edit is known, too: adding 4 in the same layers must restore every log-probability, not only
# the right answers. The sweep below tries every window of two layers, without information about the
# suppressed ones.

# %%
inverses = mi.window_configs(unbiased, (1.0, 4.0), "add", widths=[2], queries="text")
tried = {name: (suppression, inverse) for name, inverse in inverses.items()}
configurations = {"intact": None, "suppressed": suppression, **tried}
swept = mi.sweep(unbiased, few, configurations, progress=False)
distance = abs(swept - swept.sel(configuration="intact", drop=True)).max(["item", "choice"])
table = distance.to_series().drop("intact").sort_values()
print(f"The log-probabilities of the suppressed model differ by up to {table['suppressed']:.2f} nats.\n")
print(table.head(3))

# %% [markdown]
# ## Planted models as ground truth
#
# An edit of attention is a simple ground truth. A harder one is a **planted model**: a model that was
# trained to read audio in chosen layers. One method needs no training to be verified: all layers but the
# chosen ones get a sliding attention window of four tokens. The question is longer than eight layers of
# four tokens can bridge, so the audio reaches the answer through the chosen layers or not at all. Without
# chosen layers, exchanging the audio changes the logits by exactly 0.

# %%
from mata_interp.organism.planted_model import PlantedModelSpec, build_planted_model  # noqa: E402

item = items[0]
samples, other = (each.load_audio(unbiased.sampling_rate).samples for each in items[:2])
swapped = item.with_audio((np.resize(other, len(samples)), unbiased.sampling_rate))
rows = []
for layers in [(), (1,), (3, 4), (6,), tuple(range(8))]:
    model = build_planted_model(unbiased.model, PlantedModelSpec(layers, "window"))
    lalm = mi.LALM(model, unbiased.processor, name=f"window {layers}")
    difference = lalm.logits(lalm.prompt(item)) - lalm.logits(lalm.prompt(swapped))
    rows.append({"fusion layers": str(list(layers)), "change of logits": float(difference.abs().max())})
assert rows[0]["change of logits"] == 0.0
pd.DataFrame(rows)

# %% [markdown]
# These models have the weights of the unbiased model and were not trained with the new attention masks.
# Trained planted models are made with `mata-interp organism train-planted 3-4`, and
# `analyses/planted_truth.py` compares every criterion with nine of them, most of which show nothing in
# their masks. The next cell uses the first trained planted model in the folder `MATA_PLANTED_MODELS`, if
# there is one, and otherwise the untrained model that can read audio in layers 3 and 4. The latter has not
# learnt to use what it reads there: attention and gradients may well point to layers 3 and 4, while causal
# criteria should find almost no effect.

# %%
folder = Path(os.environ.get("MATA_PLANTED_MODELS", "runs/planted-models/models"))
trained = sorted(path.parent for path in folder.glob("*/config.json"))
if trained:
    planted = mi.LALM.from_pretrained(trained[0])
else:
    model = build_planted_model(unbiased.model, PlantedModelSpec((3, 4), "window"))
    planted = mi.LALM(model, unbiased.processor, name="untrained, fusion layers 3 and 4")
names = ("knockout_text", "restoration_audio", "saliency_last", "change_point")
planted_profile = mi.fusion_layers(planted, items.sample(24), criteria=names, progress=False)
print(f"{planted.name}: {planted_profile}\n")
planted_profile.mean.to_series().unstack("layer").round(2)

# %% [markdown]
# ## Does the recommended window help?
#
# Finding the layers that read audio is one thing; making a model use its audio more is another. The last
# cell compares MATA in the recommended window with MATA in every other window of as many neighbouring
# layers, on conflict items of the confirmation split. Each window has the strength that was best for it on
# the selection split.

# %%
width = max(1, len(profile.window))
alphas = (0.5, 1.0, 2.0)
windows = mi.window_configs(organism, alphas, widths=[width])
if profile.window:  # it may have gaps
    windows |= by_alpha([profile.window], alphas)
tried = mi.sweep(organism, selection.filter(condition="conflict").sample(24), windows, progress=False)
mean = mi.margin(tried).mean("item").to_series()
best = {}
for name, mata in windows.items():
    if mata.layers not in best or mean[name] > mean[best[mata.layers]]:
        best[mata.layers] = name
chosen = {name: windows[name] for name in best.values()}
conflict = confirmation.filter(condition="conflict").sample(60)
test = mi.sweep(organism, conflict, {"baseline": None, **chosen}, progress=False)
margins = mi.margin(test)
rows = []
for name, mata in chosen.items():
    effect = mi.paired_effect(
        margins.sel(configuration="baseline").values, margins.sel(configuration=name).values, "margin",
        clusters=list(test["cluster"].values), seed=0,
    )  # fmt: skip
    rows.append(
        {"window": name, "change": effect.difference, "low": effect.low, "high": effect.high}
        | {"recommended": mata.layers == profile.window}
    )
table = pd.DataFrame(rows)
figure, axis = plt.subplots(figsize=(7, 0.5 + 0.4 * len(table)))
colours = ["#c23b22" if recommended else "0.4" for recommended in table["recommended"]]
axis.hlines(table.index, table["low"], table["high"], colors=colours)
axis.scatter(table["change"], table.index, c=colours, zorder=3)
axis.axvline(0, color="0.7", linewidth=0.8)
axis.set_yticks(table.index, table["window"])
axis.set(
    xlabel="change of the log-probability difference [nats], 95 % interval", title="red: recommended window"
)
axis.margins(y=0.2)
axis.invert_yaxis()
sns.despine()
plt.show()
table.sort_values("change", ascending=False).round(2)

# %% [markdown]
# Here the recommended window is first of five. With so few items this order is not reliable: with a profile
# from 96 items, strengths from 24 items and a test on 80 items, the window that an
# earlier rule recommended (0,4-7) was second of five (2.27 nats; the first, 3-7, had 2.37 nats). On 400 items
# it was first:
# `analyses/layer_selection.py`, which also gives the rank of the recommended window with its interval.
#
# ## Limits
#
# - All models here are one small model and variants of it. That the criteria find planted fusion layers
#   shows that they *can* work, not that they do in a model of 7 billion parameters.
# - Causal criteria are for *one* question with *one* competing answer, at the token that distinguishes the
#   two. What a long answer reads from audio later on is not measured.
# - Hiding audio shifts attention to other tokens, and exchanged audio may resemble the original. This is
#   why two causal criteria decide together, and why they sometimes disagree.
# - The layers that read audio need not be those in which more attention to audio helps.
