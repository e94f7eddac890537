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
# # Layer selection for a new model
#
# MATA edits *intermediate* layers: 10 to 20 of 28 in the paper, chosen by hand. Causal tracing of the
# same model names layers 18 to 31. Which layers does *your* model need? This notebook goes from a model
# folder to a checked model, to criteria over layers, to a recommended window, and to the question whether
# that window helps. The package has no code for single model families: decoder, attention and audio
# tokens are discovered. Replace `folder` by the folder or hub id of your model; the rest stays the same.

# %%
import matplotlib.pyplot as plt
import seaborn as sns

import mata_interp as mi

sns.set_theme(style="ticks", context="notebook", palette="colorblind")
plt.rcParams["figure.dpi"] = 110

folder = "organism"
lalm = mi.LALM.from_pretrained(folder)
lalm

# %% [markdown]
# ## Check the model
#
# `mi.check` (`mata-interp check FOLDER`) compares everything that the package reads and edits with plain
# references, on this model and this machine. Without it, the first trace of a new model warns that the
# model has not been validated.

# %%
report = mi.check(lalm)
report

# %% [markdown]
# ## One layer at a time
#
# Two simple profiles on the *selection* split. The first is the audio share of the last token's
# attention. The second is causal: the change of the log-probability difference (right option minus best
# wrong option) when this token's attention to the audio is knocked out in one layer. The two need not
# agree, since attention is not use.

# %%
data = mi.load_benchmark("listening")
selection, confirmation = data.split("selection"), data.split("confirmation")
items = selection.filter(condition="neutral").sample(48)

trace = mi.trace(lalm, items, progress=False)
knockouts = mi.causal_map(lalm, items, mi.layer_configs(lalm), progress=False)

figure, axes = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
mi.plot.share(trace, ax=axes[0])
mi.plot.layers(knockouts, ax=axes[1])
axes[1].set_ylabel("change by knockout, nats")
sns.despine()
plt.show()

# %% [markdown]
# ## Criteria and the recommended window
#
# Audio can reach the answer in two ways. The last token can read the audio itself, or it can read from
# tokens of the question what these have read before. `mi.fusion_layers` measures both, with causal
# criteria (which hide or exchange something), gradients and attention, and recommends a window only if
# the causal evidence for it exceeds what noise produces over all layers. Two criteria decide: what hiding
# the audio in one layer costs, and what the audio gives back in one layer when it is hidden in all others.

# %%
names = [
    "knockout_text_single",
    "knockout_text_others",
    "knockout_last",
    "restoration_audio",
    "attribution",
    "saliency_last",
    "change_point",
]
profile = mi.fusion_layers(lalm, items, criteria=names, progress=False)
profile

# %%
figure, ax = plt.subplots(figsize=(6.4, 3), layout="constrained")
mi.plot.profile(profile, ax=ax)
sns.despine()
plt.show()

# %% [markdown]
# This is the share of each layer in the effect of the audio on the answer, with a band that holds for all
# layers at once; the window is shaded. `mi.plot.criteria` shows the evidence behind it, one criterion a
# row: causal ones (blue), gradients (green), attention (orange), and the heads that carry audio to the
# answer directly.

# %%
mi.plot.criteria(profile)

# %% [markdown]
# How much do the criteria agree? An intersection over union (IoU) of 1 means the same layers. A criterion
# without a window of its own has 0 with all others, as saliency has here (`()` below).

# %%
figure, ax = plt.subplots(figsize=(6, 5), layout="constrained")
mi.plot.agreement(profile, ax=ax)
plt.show()
profile.windows

# %% [markdown]
# ## Can the criteria be trusted? A known edit as ground truth
#
# Take the unbiased model and suppress its reading of audio in layers 4 and 5: subtract 4 from the
# attention scores of all text on audio. With this edit as `baseline`, every criterion measures the
# suppressed model; the difference of the two profiles is the effect of the edit.

# %%
unbiased = mi.LALM.from_pretrained("organism-unbiased")
suppression = mi.Mata(-4.0, [4, 5], "add", queries="text")
few = items.sample(8)
names = ["knockout_text", "saliency_last", "change_point"]
intact, suppressed = (
    mi.fusion_layers(unbiased, few, criteria=names, baseline=baseline, progress=False)
    for baseline in (None, suppression)
)
change = intact.mean - suppressed.mean
labels = {name: str(intact.profiles["label"].sel(criterion=name).item()) for name in names}

figure, axes = plt.subplots(1, 3, figsize=(11, 2.8), layout="constrained")
for ax, name in zip(axes, names, strict=True):
    ax.axvspan(3.5, 5.5, color="#d55e00", alpha=0.12, linewidth=0)
    ax.axhline(0, color="0.7", linewidth=0.8)
    ax.plot(change["layer"], change.sel(criterion=name), marker="o", color="#0072b2")
    ax.set(title=labels[name], xlabel="layer", ylabel="intact - suppressed")
sns.despine()
plt.show()

# %% [markdown]
# Saliency and the change of attention, which read or weight attention, fall in layers 4 and 5 and hardly
# anywhere else. The causal criterion (left) does not follow: it falls in layer 5 and *rises* in layer 4,
# which is suppressed as well. Causal criteria measure what the answer *loses*, and that can move to other
# layers; the means are of 8 items. A harder test are *planted models*, trained so that they can read the
# audio in known layers only:
# `mata-interp organism train-planted 3-4` and `analyses/planted_truth.py`.
#
# ## Does a window help?
#
# Finding the layers that read audio is one thing; making the model use its audio more is another. The map
# shows MATA in every window of layers on conflict items of the selection split: the first layer of the
# window across, the last one up.

# %%
conflict = selection.filter(condition="conflict").sample(24)
windows = mi.window_configs(lalm, alphas=(0.5, 2.0))
causal = mi.causal_map(lalm, conflict, windows, progress=False)

figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for ax, alpha in zip(axes, (0.5, 2.0), strict=True):
    mi.plot.windows(causal, alpha=alpha, colorbar=alpha == 2.0, ax=ax)
plt.show()

# %% [markdown]
# The best of 72 configurations looks better than it is, since it was chosen on these items. So the layers
# are chosen here, and their effect is measured on the *confirmation* split: `4_causal_effect`, or in one
# command `mata-interp study --layers auto`.
#
# ## Limits
#
# - All models here are one small model and variants of it. That the criteria find known layers shows that
#   they *can* work, not that they do in a model of 7 billion parameters.
# - Causal criteria are for *one* question with *one* competing answer, at the token that distinguishes
#   the two.
# - Hiding audio shifts attention to other tokens, which exchanging it does not; exchanged audio may resemble
#   the original. The summary says where `restoration_audio`, which exchanges it, gives other layers.
# - The layers that read audio need not be those in which more attention to audio helps.
