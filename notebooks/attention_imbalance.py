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
# # Does this model use its audio?
#
# Large audio-language models are reported to attend to text rather than to audio when they answer. This
# notebook measures this *attention imbalance* in one model. It then tests the causal question: does more
# attention to the audio lead to better answers? The model is the **organism** that ships with the package:
# it was tuned to rely on captions although its audio encoder is accurate. Any other model works the same
# way. The notebook takes about half a minute on a CPU.

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
# The benchmark `listening` has every question three times: without a caption (*neutral*), with a caption
# that names the right option (*congruent*), and with a caption that names a wrong option (*conflict*). The
# *selection* split is for exploring and choosing, the *confirmation* split for testing.

# %%
items = mi.load_benchmark("listening")
selection, confirmation = items.split("selection"), items.split("confirmation")
for item in selection[:3]:
    print(f"{item.condition:>10}: {item.caption!r} {item.question!r} {list(item.choices)} -> {item.answer!r}")

# %% [markdown]
# The tokens of a prompt belong to groups. Attention is summed over the tokens of each group.

# %%
prompt = lalm.prompt(selection[2])
{name: int(mask.sum()) for name, mask in prompt.groups.items()}

# %% [markdown]
# ## Attention of the last prompt token
#
# `mi.trace` reads the attention weights of every layer and head at the last prompt token, where the answer
# begins.

# %%
trace = mi.trace(lalm, selection.sample(120), progress=False)
trace

# %% [markdown]
# The audio share is A / (A + T): the attention mass on audio over the mass on audio and text. The first
# token, the attention sink, is excluded.

# %%
share = mi.audio_share(trace)
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
# Published measures of text dominance compare attention *per token*: MDI is the mean mass of a text token
# over that of an audio token, and AEI is the text's share of attention over its share of tokens (arXiv
# 2508.10552). Values above 1 mean that text dominates.

# %%
trace[["n_tokens"]].assign(mdi=mi.mdi(trace), aei=mi.aei(trace))[["mdi", "aei"]].mean(
    "item"
).to_dataframe().round(2)

# %% [markdown]
# ## Attention is not use: intervene
#
# MATA raises the attention scores of the last token on audio tokens, in some layers, before the softmax.
# The layers and the strength below are those that `mata-interp study` chooses on the selection split of
# this model. The effect is measured on the confirmation split, whose clips played no part in that choice.

# %%
mata = mi.Mata(alpha=2.0, layers=[4, 5, 6, 7], rule="abs")
run = mi.run(lalm, confirmation.sample(90), {"baseline": None, "mata": mata}, progress=False)
accuracy = run.records.groupby(["caption_condition", "condition"], observed=True)["correct"].mean()
accuracy.unstack().astype(float).round(3)

# %% [markdown]
# A difference needs a confidence interval. `mi.paired_effect` compares the same items with and without MATA
# and resamples clips. Where the caption contradicts the audio, MATA corrects answers:

# %%
for condition in ("conflict", "neutral", "congruent"):
    rows = run.records[run.records["caption_condition"] == condition]
    table = rows.set_index(["item", "condition"])["correct"].astype(float).unstack()
    clusters = rows.drop_duplicates("item").set_index("item").loc[table.index, "cluster"]
    print(f"{condition}: {mi.paired_effect(table['baseline'], table['mata'], clusters=clusters, seed=0)}\n")

# %% [markdown]
# Without a caption, and with a correct one, there is little to correct. Thirty items for each condition are
# few, and the intervals are wide. `mata-interp study` runs all clips in about three minutes, chooses layers
# and strength itself, and adds controls: the same edit on text, in random layers, and with the audio of
# other clips.
