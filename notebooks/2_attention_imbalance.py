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
# # Attention imbalance
#
# Large audio-language models are reported to attend to text rather than to audio when they answer. This
# notebook measures that *attention imbalance* by layer, head, token group and caption, compares two
# models, and says what attention can and cannot show.

# %%
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

import mata_interp as mi

sns.set_theme(style="ticks", context="notebook", palette="colorblind")
plt.rcParams["figure.dpi"] = 110

organism = mi.LALM.from_pretrained("organism")
unbiased = mi.LALM.from_pretrained("organism-unbiased")
items = mi.load_benchmark("listening").split("selection").sample(90)

# %% [markdown]
# The two models share everything but their last phase of training, in which `organism` learnt to
# over-rely on captions. A wrong caption costs it most of its accuracy.
#
# ## The attention of the last prompt token
#
# `mi.trace` leaves the model on its fast attention (SDPA or FlashAttention) and never stores an attention
# matrix. The result is an `xarray.Dataset`: `mass[item, layer, head, group]` sums to 1 over the groups.

# %%
traces = {lalm.name: mi.trace(lalm, items, progress=False) for lalm in (organism, unbiased)}
traces["organism"].sizes

# %%
figure, axes = plt.subplots(1, 2, figsize=(11, 3.2), layout="constrained", sharey=True)
for ax, (name, trace) in zip(axes, traces.items(), strict=True):
    mi.plot.groups(trace, ax=ax)
    ax.set_title(name)
axes[0].get_legend().remove()
sns.despine()
plt.show()

# %% [markdown]
# In some layers half of the attention goes to the chat template, which carries no information about the
# item. In most pretrained models the first token, the *attention sink*, takes most of what is left over;
# here it takes almost nothing. The *audio share*, A / (A + T), leaves the sink out and compares audio
# with all other text.
#
# ## Does a caption draw attention away from the audio?
#
# One line for each caption condition, with 95 % intervals over clips.

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained", sharey=True)
for ax, (name, trace) in zip(axes, traces.items(), strict=True):
    mi.plot.share(trace, by="condition", ax=ax)
    ax.set_title(name)
axes[0].get_legend().remove()
sns.despine()
plt.show()

# %% [markdown]
# The same as numbers, with the published measures of text dominance, which compare attention *per token*:
# MDI is the mean attention on a text token over that on an audio token, and AEI the text's share of
# attention over its share of tokens (arXiv 2508.10552). Values above 1 mean that text dominates.

# %%
rows = []
for name, trace in traces.items():
    measures = {"audio share": mi.audio_share(trace).mean("head"), "MDI": mi.mdi(trace), "AEI": mi.aei(trace)}
    for measure, values in measures.items():
        by_caption = values.mean("layer").groupby("condition").mean().to_series()
        rows.append({"model": name, "measure": measure, **by_caption})
pd.DataFrame(rows).set_index(["model", "measure"]).round(2)

# %% [markdown]
# Text tokens get more attention each than audio tokens (MDI above 1), and more so in the organism.
#
# ## Which heads?
#
# The mean over heads hides a lot: a few heads spend half of their attention on the audio, others none.

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for ax, (name, trace) in zip(axes, traces.items(), strict=True):
    mi.plot.heads(trace, ax=ax)
    ax.set_title(name)
plt.show()

# %% [markdown]
# ## During the answer
#
# `query="generated"` traces the tokens of the answer instead of the last prompt token, and `query="text"`
# all text after the audio, which may read the audio first and pass it on.

# %%
few = items.sample(24)
figure, ax = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
queries = {"last": "last prompt token", "generated": "answer", "text": "all text"}
for (query, label), colour in zip(queries.items(), ["#0072b2", "#d55e00", "#009e73"], strict=True):
    mi.plot.share(mi.trace(organism, few, query=query, progress=False), ax=ax, palette=[colour])
    ax.get_lines()[-1].set_label(label)
ax.legend(frameon=False)
sns.despine()
plt.show()

# %% [markdown]
# ## What this does and does not show
#
# - The organism attends to the audio less than its unbiased twin in layers 3 to 6, whatever the caption.
#   That is the failure that MATA targets.
# - The difference in attention is a few points, and the difference in accuracy with a wrong caption is 58
#   points (38 against 96 %). Attention alone does not explain it.
# - Attention is not use. A head can attend to audio without moving the answer, and text tokens that the
#   last token reads may have read the audio before. `3_layer_selection` and `4_causal_effect` intervene
#   instead.
# - A low share is no imbalance in itself: audio has many tokens that carry little, and text few that
#   carry much.
