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
# # A listening tour
#
# Numbers over items hide what happens in a clip. This notebook plays single clips beside the attention of
# the model over time: where does it look, what does a caption change, what does MATA change, and what
# does the model hear if only that is left which it attends to? (Players need a running notebook or nbviewer;
# GitHub shows figures only.)

# %%
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from IPython.display import HTML

import mata_interp as mi
from mata_interp.markup import player

sns.set_theme(style="ticks", context="notebook", palette="colorblind")
plt.rcParams["figure.dpi"] = 110

lalm = mi.LALM.from_pretrained("organism")
items = mi.load_benchmark("listening").split("confirmation")

# %% [markdown]
# ## One clip, one question
#
# `mi.listen` asks a question about a clip with and without MATA, and measures the attention of the last
# prompt token over the time of the clip. The caption of this item is wrong.

# %%
item = items.filter(condition="conflict", kind="first")[0]
print(f"{item.question}  {' | '.join(item.choices)}  (right: {item.answer})\ncaption: {item.caption}")
clip = item.load_audio(lalm.sampling_rate)
HTML(player(clip.samples, clip.rate))

# %%
settings = {"layers": [4, 5, 6, 7], "alpha": 2.0}
listening = mi.listen(
    lalm, item.audio_root / item.audio, item.question, item.choices, caption=item.caption, **settings
)
print(listening)

# %% [markdown]
# The waveform with the attention to it, the mean over layers, and below it layer by layer:

# %%
figure, axes = plt.subplots(2, 1, figsize=(9, 5), layout="constrained", sharex=True)
mi.plot.clip(listening, ax=axes[0])
axes[0].set(xlabel="", title="attention over time (blue) on the waveform")
mi.plot.clip(listening, by_layer=True, ax=axes[1])
sns.despine(ax=axes[0], left=True)
plt.show()

# %% [markdown]
# ## What a caption changes
#
# The same clip and question without a caption (*neutral*), with a correct one (*congruent*) and with a
# wrong one (*conflict*): to the left the attention over time, to the right the probability of the right
# answer.

# %%
group = [other for other in items if other.cluster == item.cluster and other.question == item.question]
order = ["neutral", "congruent", "conflict"]
by_caption = {
    one.condition: mi.listen(
        lalm, one.audio_root / one.audio, one.question, one.choices, caption=one.caption, **settings
    )
    for one in sorted(group, key=lambda one: order.index(one.condition))
}
figure, axes = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained", width_ratios=[3, 2])
for name, marker in zip(by_caption, "osD", strict=False):
    listening = by_caption[name]
    middles = (listening.edges[:-1] + listening.edges[1:]) / 2
    axes[0].plot(middles, 100 * listening.profile, label=name, marker=marker, markersize=3)
axes[0].set(xlabel="seconds", ylabel="attention to the bin, %", ylim=(0, None))
axes[0].legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
width = 0.38
places = np.arange(len(by_caption))
right = [one.item.choices.index(item.answer) for one in by_caption.values()]
for shift, when, colour in ((-width / 2, "before", "#9a9a9a"), (width / 2, "after", "#0072b2")):
    values = [getattr(one, when)[at] for one, at in zip(by_caption.values(), right, strict=True)]
    label = {"before": "without MATA", "after": "with MATA"}[when]
    axes[1].bar(places + shift, values, width, color=colour, label=label)
axes[1].set_xticks(places, list(by_caption))
axes[1].set(ylabel=f"probability of {item.answer!r}", ylim=(0, 1))
axes[1].legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
sns.despine()
plt.show()

# %% [markdown]
# ## Play only what the model attends to
#
# The gain of each moment follows the attention of one layer: what stays audible is what that layer reads.


# %%
def through(listening, layer):
    """The clip with a gain that follows the attention of a layer, from 0 to 1."""
    row = listening.attention[listening.layers.index(layer)] / np.diff(listening.edges)
    middles = (listening.edges[:-1] + listening.edges[1:]) / 2
    seconds = np.arange(len(listening.samples)) / listening.rate
    return listening.samples * np.interp(seconds, middles, row / row.max())


rows = []
for layer in (1, 5, 7):
    rows.append(f"<p>layer {layer} {player(through(listening, layer), listening.rate)}</p>")
HTML("".join(rows))

# %% [markdown]
# ## Which answers did MATA correct, and which did it break?
#
# A run over many items finds the clips that are worth listening to.

# %%
conflict = items.filter(condition="conflict").sample(40)
mata = mi.Mata(2.0, [4, 5, 6, 7])
run = mi.run(lalm, conflict, {"baseline": None, "mata": mata}, progress=False)
wide = run.records.pivot(index="item", columns="condition", values="correct").astype(bool)
corrected = wide.index[~wide["baseline"] & wide["mata"]]
broken = wide.index[wide["baseline"] & ~wide["mata"]]
print(f"{len(corrected)} corrected, {len(broken)} broken of {len(wide)}")
conflict.filter(id=list(corrected[:3]))

# %% [markdown]
# The page of a study has this for every item, with one cursor through audio, spectrogram and attention:
# `8_from_run_to_report`. For one clip on the command line: `mata-interp listen CLIP "question" --choices
# "a|b"`.
