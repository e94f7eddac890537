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
# # Quick start: does the model use its audio, and does MATA help?
#
# This notebook takes a large audio-language model (LALM) from loading to a tested causal effect in five
# steps: load, look at the data, read attention, intervene, test. The model is the **organism** that ships
# with the package: a Qwen2-Audio with 3 M parameters that was trained to over-rely on captions, so that
# everything runs on a laptop. Any other model works the same way: pass a hub id or a folder to
# `from_pretrained`.

# %%
import matplotlib.pyplot as plt
import seaborn as sns

import mata_interp as mi

sns.set_theme(style="ticks", context="notebook", palette="colorblind")
plt.rcParams["figure.dpi"] = 110

lalm = mi.LALM.from_pretrained("organism")
lalm

# %% [markdown]
# ## The data
#
# The benchmark `listening` asks about 600 clips, each of them three times: without a caption (*neutral*),
# with a correct caption (*congruent*) and with a wrong caption (*conflict*). Here are items whose caption
# contradicts the audio. The *selection* split is for exploring and choosing, the *confirmation* split for
# testing.

# %%
items = mi.load_benchmark("listening")
misled = items.filter(condition="conflict")
misled.split("selection")[:3]

# %% [markdown]
# A prompt knows which token belongs to which group. The last token, after the template, is where the
# answer begins: its attention is what the next steps read and edit.

# %%
lalm.prompt(misled.split("selection")[0])

# %% [markdown]
# ## Where does the last token look?
#
# `mi.trace` measures, in every layer and head, how much of the attention of the last prompt token goes to
# each group of tokens. The *audio share* is the attention on audio over the attention on audio and text,
# the first token (the attention sink) left out.

# %%
trace = mi.trace(lalm, items.split("selection").sample(60), progress=False)

figure, axes = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
mi.plot.groups(trace, ax=axes[0])
mi.plot.share(trace, by="condition", ax=axes[1])
sns.despine()
plt.show()

# %% [markdown]
# The audio share is lowest in the middle of the decoder. With a caption it is a few points lower in some
# layers; the bands are 95 % intervals over clips. Attention shows where the model looks, not what it
# uses. Only an intervention can show that.
#
# ## Intervene
#
# MATA raises the attention scores from the last token to the audio tokens, before the softmax, in chosen
# layers. The layers and the strength `alpha` below were chosen on the selection split; the effect is
# measured on clips of the confirmation split.

# %%
mata = mi.Mata(alpha=2.0, layers=[4, 5, 6, 7], rule="abs")
run = mi.run(lalm, misled.split("confirmation").sample(100), {"baseline": None, "mata": mata}, progress=False)
run

# %% [markdown]
# ## Test
#
# A difference needs an interval and a test on the same items. `mi.paired_effect` compares them pair by
# pair and treats items that share a clip as one unit.

# %%
correct = run.records.pivot(index="item", columns="condition", values="correct").astype(float)
clips = run.records.drop_duplicates("item").set_index("item").loc[correct.index, "cluster"]
effect = mi.paired_effect(correct["baseline"], correct["mata"], clusters=clips)
effect

# %% [markdown]
# What lies behind the difference? Each dot is one item. Its *margin* is the log-probability of the right
# option minus that of the best wrong one, so that an answer changes only where a dot crosses an axis.

# %%
figure, ax = plt.subplots(figsize=(4.6, 4.4), layout="constrained")
mi.plot.margins(run, ax=ax)
sns.despine()
plt.show()

# %% [markdown]
# More attention to the audio in layers 4-7 raises the margin of most items, corrects answers that the
# caption had spoilt, and breaks none. Whether this is due to *this* audio, in *these* layers, is a
# question for controls: see the notebook on MATA's causal effect.
#
# ## Next
#
# - Every plot of `mi.plot` draws on axes of your own, and `mi.plot.data(axes)` returns the numbers drawn.
# - `2_attention_imbalance` reads attention in detail, `3_layer_selection` finds the layers of a new
#   model, `4_causal_effect` adds controls and dose, `5_rivals` other methods, `6_listening_tour` plays
#   the clips.
# - `mata-interp study` does all of it in one command, and writes a report: `8_from_run_to_report`.
