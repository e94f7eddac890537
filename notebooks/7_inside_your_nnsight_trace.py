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
# # Inside your own nnsight trace
#
# `mata_interp` reads attention through [nnsight](https://nnsight.net), and leaves the model as it found
# it. You can use nnsight yourself on the same model and the same prompts: the package then gives you
# prompts with token groups, discovered structure, and references to check against. This notebook reads
# hidden states and attention, rebuilds MATA by hand, and patches activations.

# %%
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch

import mata_interp as mi

sns.set_theme(style="ticks", context="notebook", palette="colorblind")
plt.rcParams["figure.dpi"] = 110

lalm = mi.LALM.from_pretrained("organism")
items = mi.load_benchmark("listening").split("selection")


def first_tokens(item):
    """The first token of each option."""
    return [lalm.option_tokens(item, [choice])[0][0] for choice in item.choices]


# an item whose options differ in their first token, so that one logit tells them apart
item = next(
    one for one in items.filter(condition="conflict") if len(set(first_tokens(one))) == len(one.choices)
)
prompt = lalm.prompt(item)
prompt

# %% [markdown]
# ## The wrapped model
#
# `lalm.nnsight` is the transformers model `lalm.model` wrapped by nnsight, and `prompt.inputs` is what
# its forward takes. The structure that the package discovered names the decoder layers, whatever the
# model family.

# %%
model = lalm.nnsight
layers = model.model.language_model.layers  # nnsight's view of lalm.structure.decoder.layers
len(layers), list(lalm.attention_layers)

# %% [markdown]
# ## Read: a logit lens over layers
#
# The output of each layer at the last token, sent through the final norm and the output head.

# %%
hidden = {}
with torch.no_grad(), model.trace(**prompt.inputs):
    for number in range(len(layers)):
        hidden[number] = layers[number].output[:, -1].save()
    logits = model.lm_head.output[:, -1].save()

assert torch.equal(logits, lalm.logits(prompt))  # the trace changes nothing

decoder, head = lalm.structure.decoder, lalm.model.lm_head
first = dict(zip(item.choices, first_tokens(item), strict=True))
with torch.no_grad():
    lens = {
        number: head(decoder.norm(state))[0] for number, state in hidden.items() if number < len(layers) - 1
    }
lens[len(layers) - 1] = logits[0]
figure, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
for (choice, token), marker in zip(first.items(), "osD^", strict=False):
    role = " (right)" if choice == item.answer else " (caption)" if choice == item.caption_answer else ""
    values = [lens[number][token].item() for number in sorted(lens)]
    ax.plot(sorted(lens), values, marker=marker, markersize=4, label=choice + role)
ax.set(xlabel="layer", ylabel="logit of the option")
ax.legend(frameon=False)
sns.despine()
plt.show()

# %% [markdown]
# ## Read: attention at the call of the attention function
#
# The model stays on SDPA, which returns no attention weights. nnsight's `.source` reaches the call inside
# the attention module, where queries and keys are rotated and cached. Softmax of their products is the
# attention; summed over the audio tokens it is what `mi.trace` measures.

# %%
audio = prompt.groups["audio"]
by_hand = {}
with torch.no_grad(), model.trace(**prompt.inputs):
    for number in range(len(layers)):
        args, kwargs = layers[number].self_attn.source.attention_interface_1.inputs
        query, key = args[1], args[2]  # [B, H, T, D]
        weights = (query[:, :, -1:] @ key.mT * kwargs["scaling"]).softmax(-1)
        by_hand[number] = weights[:, :, 0].mul(audio[:, None]).sum(-1).save()  # [B, H]

trace = mi.trace(lalm, prompt, progress=False)
measured = trace["mass"].sel(group="audio").isel(item=0).values
masses_by_hand = np.array([by_hand[number][0].numpy() for number in sorted(by_hand)])
print(f"largest difference from mi.trace: {abs(masses_by_hand - measured).max():.1e}")

# %% [markdown]
# ## Edit: MATA by hand
#
# MATA with rule `abs`: the scores A of the last token on the audio become A + alpha |A|, before the
# softmax. The output of the attention call is replaced for the last token only.

# %%
alpha, edited = 2.0, [4, 5, 6, 7]
with torch.no_grad(), model.trace(**prompt.inputs):
    for number in edited:
        call = layers[number].self_attn.source.attention_interface_1
        args, kwargs = call.inputs
        query, key, value = args[1], args[2], args[3]
        scores = query[:, :, -1:] @ key.mT * kwargs["scaling"]  # [B, H, 1, T]
        raised = torch.where(audio[:, None, None], scores + alpha * scores.abs(), scores)
        call.output[0][:, -1:] = (raised.softmax(-1) @ value).transpose(1, 2)
    by_hand_logits = model.lm_head.output[:, -1].save()

mata = mi.Mata(alpha, edited)
reference = lalm.logits(prompt, mata)
print(f"by hand against mi.Mata: {(by_hand_logits - reference).abs().max():.1e} logits")
print(f"MATA against no edit:    {(reference - logits).abs().max():.1e} logits")

# %% [markdown]
# `mi.Mata` does the same with the details that the lines above leave out: padding, sliding windows,
# grouped key heads, caches in generation, bf16 (it adds the *difference* of the two attention outputs, so
# that strength 0 changes nothing at all), and many strengths for one prefill.
#
# ## Patch: where does the last token learn what the audio is?
#
# Activation patching at the last token: the state after each layer is taken from the same question about
# *another* clip with another answer. The layer after which the answer follows the other clip is the one
# by which the audio has arrived.

# %%
pool = items.filter(condition="neutral", kind=item.kind)
margins = mi.margin(mi.sweep(lalm, pool, {"baseline": None}, progress=False))[:, 0].values
known = [one for one, value in zip(pool, margins, strict=True) if value > 0]  # answered correctly
target = known[0]
source = next(one for one in known if one.answer != target.answer and one.answer in target.choices)
print(f"{target.question} target: {target.answer!r}, source: {source.answer!r}")
by_option = dict(zip(target.choices, first_tokens(target), strict=True))
tokens = [by_option[target.answer], by_option[source.answer]]
target_prompt, source_prompt = lalm.prompt(target), lalm.prompt(source)

states = {}
with torch.no_grad(), model.trace(**source_prompt.inputs):
    for number in range(len(layers)):
        states[number] = layers[number].output[:, -1].save()


def difference(logits):
    """Logit of the target's answer minus that of the source's."""
    return (logits[0, tokens[0]] - logits[0, tokens[1]]).item()


patched = []
for number in range(len(layers)):
    with torch.no_grad(), model.trace(**target_prompt.inputs):
        layers[number].output[:, -1] = states[number]
        out = model.lm_head.output[:, -1].save()
    patched.append(difference(out))

figure, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
ax.axhline(difference(lalm.logits(target_prompt)), color="#0072b2", linewidth=1, label="target, unpatched")
ax.axhline(
    difference(lalm.logits(source_prompt)),
    color="#d55e00",
    linewidth=1,
    linestyle="--",
    label="source, unpatched",
)
ax.plot(range(len(layers)), patched, marker="o", color="#1a1a1a", label="target, patched")
ax.set(xlabel="layer of the patched state", ylabel=f"logit of {target.answer!r} minus {source.answer!r}")
ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
sns.despine()
plt.show()

# %% [markdown]
# One pair of clips is an illustration. `mi.fusion_layers` has this as a criterion (`restoration_audio`),
# over many items and with intervals.
#
# ## Leave no trace
#
# nnsight leaves a forward of its own on every module of the model it wraps. Results stay the same:

# %%
bool(torch.equal(lalm.logits(prompt), logits))
