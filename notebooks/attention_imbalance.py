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
# # Does this model listen?
#
# Large audio-language models are said to look at text rather than at audio when they answer. This notebook
# looks for that *attention imbalance* in one model, and then asks the question that matters: does more
# attention to the audio *cause* better answers? It uses the small model that ships, the **organism**, which
# was made to lean on captions although it hears well; any other model works the same way.

# %%
import matplotlib.pyplot as plt
import seaborn as sns

import mata_interp as mi

sns.set_theme(style="ticks", context="notebook", palette="colorblind")
lalm = mi.LALM.from_pretrained("organism")
lalm

# %% [markdown]
# ## The questions
#
# `listening` asks about each clip three times: without a caption, with one that is right, and with one that
# is wrong. The *selection* split is for looking and choosing; the *confirmation* split is kept for the test.

# %%
items = mi.load_benchmark("listening")
selection, confirmation = items.split("selection"), items.split("confirmation")
for item in selection[:3]:
    print(f"{item.condition:>10}: {item.caption!r} {item.question!r} {list(item.choices)} -> {item.answer!r}")

# %% [markdown]
# Each prompt's tokens belong to groups. That is what lets us say how much attention goes where.

# %%
prompt = lalm.prompt(selection[2])
{name: int(mask.sum()) for name, mask in prompt.groups.items()}

# %% [markdown]
# ## Where does the last token look?

# %%
trace = mi.trace(lalm, selection.sample(120), progress=False)
trace

# %%
share = mi.audio_share(trace)  # A / (A + T), the first token (the attention sink) left out
figure, axis = plt.subplots(figsize=(6, 3.6))
sns.heatmap(
    share.mean("item"),
    cmap="viridis",
    vmin=0,
    annot=True,
    fmt=".2f",
    ax=axis,
    cbar_kws={"label": "audio share"},
)
axis.set(xlabel="head", ylabel="layer", title="Audio share of the last prompt token's attention")
plt.show()

# %% [markdown]
# Does a caption draw attention away from the audio?

# %%
frame = share.mean("head").to_dataframe("audio share").reset_index()
axis = sns.lineplot(frame, x="layer", y="audio share", hue="condition", marker="o", errorbar=("ci", 95))
axis.set(ylim=(0, None))
sns.despine()
plt.show()

# %% [markdown]
# The published measures of text dominance compare *per token*: MDI is a text token's mean mass over an audio
# token's, AEI text's share of attention over its share of tokens (arXiv 2508.10552). Values above 1 mean that
# text dominates.

# %%
trace[["n_tokens"]].assign(mdi=mi.mdi(trace), aei=mi.aei(trace))[["mdi", "aei"]].mean(
    "item"
).to_dataframe().round(2)

# %% [markdown]
# ## Attention is not use: intervene
#
# MATA raises the last token's scores on audio keys in middle layers before the softmax. Here it is at one
# strength on a few confirmation items; `mata-interp study` chooses layers and strength on the selection split
# and adds controls.

# %%
mata = mi.Mata(alpha=1.0, layers=[3, 4], rule="abs")
run = mi.run(lalm, confirmation.sample(90), {"baseline": None, "mata": mata}, progress=False)
run.records.groupby(["caption_condition", "condition"], observed=True)["correct"].mean().unstack().astype(
    float
).round(3)

# %% [markdown]
# A difference without its interval says nothing:

# %%
wide = run.records.set_index(["item", "condition"])["correct"].astype(float).unstack()
clusters = run.records.drop_duplicates("item").set_index("item").loc[wide.index, "cluster"]
effect = mi.paired_effect(wide["baseline"], wide["mata"], clusters=clusters, seed=0)
print(effect)

# %% [markdown]
# Ninety items are few, and the interval says so. The full study on all clips takes about three minutes:
# `mata-interp study`.
