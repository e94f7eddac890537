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
# # From a run folder to a report
#
# A study chooses layers and strength on some clips, tests one prespecified hypothesis on others, adds
# controls, and writes everything to a folder. This notebook runs a small one, reads the folder back,
# checks its main number by hand, and writes the page and the files for a paper.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import seaborn as sns

import mata_interp as mi

sns.set_theme(style="ticks", context="notebook", palette="colorblind")
plt.rcParams["figure.dpi"] = 110

lalm = mi.LALM.from_pretrained("organism")
items = mi.load_benchmark("listening")

# %% [markdown]
# ## Run
#
# The same as `mata-interp study --items 90 --out runs/first`. Every stage is resumable: run it again, and
# it continues where it stopped.

# %%
study = mi.study(lalm, items, "runs/first", items_limit=90, progress=False)
print(study.study.answer)

# %% [markdown]
# ## What is in the folder

# %%
folder = Path("runs/first")
for path in sorted(folder.iterdir()):
    print(path.name + ("/" if path.is_dir() else f"  {path.stat().st_size / 1024:.0f} kB"))

# %% [markdown]
# `manifest.json` says what was run on what, with hashes and versions; `parts/` has one row for each item
# and condition; `effects.json` every comparison; `study.json` the choice and the answer. `mi.load_run`
# reads the folder on any machine, without the model.

# %%
run = mi.load_run(folder)
run

# %%
run.records.iloc[0][
    [
        "item",
        "condition",
        "caption_condition",
        "choices",
        "answer",
        "predicted",
        "correct",
        "margin",
        "dose_kl",
    ]
]

# %% [markdown]
# ## Check the main number by hand
#
# The primary comparison is MATA against the baseline on items whose caption contradicts the audio.

# %%
primary = run.effects.primary
print(primary.comparison.name, primary.comparison.subset)
conflict = run.records[run.records["caption_condition"] == "conflict"]
correct = conflict.pivot(index="item", columns="condition", values="correct").astype(float)
by_hand = correct[primary.comparison.after].mean() - correct[primary.comparison.before].mean()
assert abs(by_hand - primary.effect.difference) < 1e-12
primary.effect

# %% [markdown]
# ## Figures of your own
#
# Everything on the page can be drawn on axes of your own.

# %%
figure, axes = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained")
mi.plot.share(run.trace, by="condition", window=run.study.selection.chosen.layers, ax=axes[0])
mi.plot.margins(run, primary.comparison.before, primary.comparison.after, ax=axes[1])
sns.despine()
plt.show()

# %% [markdown]
# The points on the right are all 90 items: 7 are corrected and 4 broken. The main number above is of the 30
# conflict items among them, of which 6 are corrected and none is broken. Below is every comparison of the
# study; MATA and what the answers rely on are blue, controls hollow.

# %%
figure, ax = plt.subplots(figsize=(9, 11), layout="constrained")
mi.plot.effects(run.effects, ax=ax)
plt.show()

# %% [markdown]
# ## The page
#
# One HTML file that opens from disk and loads nothing from elsewhere.

# %%
page = mi.report(folder)
print(page.name, f"{page.stat().st_size / 1e6:.1f} MB")

# %% [markdown]
# ## The paper
#
# `mi.paper` (`mata-interp report runs/first --paper`) writes every figure of the page as SVG and PDF with the
# numbers drawn as CSV, the tables as LaTeX, Markdown and CSV, and a methods paragraph with BibTeX made from
# the manifest. The buttons of the page save the same numbers, tables and texts.

# %%
written = mi.paper(folder)
for path in sorted(written.iterdir()):
    print(path.name)

# %%
print((written / "methods.md").read_text())
