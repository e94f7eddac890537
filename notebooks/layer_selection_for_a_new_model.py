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
# # Layer selection for a new model family
#
# `mata_interp` has no code for single model families: it discovers the decoder, the attention and the audio
# tokens from the model itself. This notebook defines a new family, which the package cannot know, and goes
# from a model folder to a **checked** trace and a profile over layers. Replace `folder` by the folder or
# hub id of your model; the rest stays the same. It takes about a minute on a CPU.

# %% [markdown]
# ## A new family
#
# A third party would publish a configuration and a model class, registered with the Auto classes of
# transformers. *Listener* has a Whisper-like encoder, one linear projector and a Llama decoder. Its weights
# are copied from the small trained model that ships, so that it can answer questions about audio.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMultimodalLM,
    GenerationMixin,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

import mata_interp as mi

sns.set_theme(style="ticks", context="notebook", palette="colorblind")


class ListenerConfig(PretrainedConfig):
    model_type = "listener"
    sub_configs = {"audio_config": AutoConfig, "text_config": AutoConfig}  # noqa: RUF012

    def __init__(self, audio_config=None, text_config=None, audio_token_id=3, **kwargs):
        for name, part in {"audio_config": audio_config, "text_config": text_config}.items():
            if isinstance(part, dict):
                part = AutoConfig.for_model(**part)
            setattr(self, name, part)
        self.audio_token_id = audio_token_id
        super().__init__(**kwargs)


class Listener(PreTrainedModel, GenerationMixin):
    config_class = ListenerConfig
    _supports_sdpa = True

    def __init__(self, config):
        super().__init__(config)
        self.encoder = AutoModel.from_config(config.audio_config)
        self.projector = nn.Linear(config.audio_config.d_model, config.text_config.hidden_size)
        self.decoder = AutoModel.from_config(config.text_config)
        self.head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def get_decoder(self):
        return self.decoder

    def get_input_embeddings(self):
        return self.decoder.embed_tokens

    def get_output_embeddings(self):
        return self.head

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        input_features=None,
        feature_attention_mask=None,
        past_key_values=None,
        position_ids=None,
        **kwargs,
    ):
        embeds = self.decoder.embed_tokens(input_ids)
        audio_positions = input_ids == self.config.audio_token_id
        if input_features is not None and audio_positions.any():  # not for generated tokens
            audio = self.projector(self.encoder(input_features).last_hidden_state)
            frames = ((feature_attention_mask.sum(1) - 1) // 2 + 1 - 2) // 2 + 1
            audio = torch.cat([clip[:n] for clip, n in zip(audio, frames.tolist(), strict=True)])
            embeds = embeds.masked_scatter(audio_positions[..., None], audio.to(embeds))
        kwargs.pop("labels", None)
        out = self.decoder(
            inputs_embeds=embeds,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=position_ids,
            **kwargs,
        )
        return CausalLMOutputWithPast(
            logits=self.head(out.last_hidden_state), past_key_values=out.past_key_values
        )


AutoConfig.register("listener", ListenerConfig)
AutoModel.register(ListenerConfig, Listener)
AutoModelForMultimodalLM.register(ListenerConfig, Listener)

# %% [markdown]
# The model folder, as it would come from the hub: weights, configuration, processor.

# %%
shipped = mi.LALM.from_pretrained("organism")
source = shipped.model
text = source.config.text_config.to_dict()
text = {name: text[name] for name in text if name not in ("model_type", "architectures", "layer_types")}
config = ListenerConfig(
    source.config.audio_config.to_dict(), LlamaConfig(**text, attention_bias=True).to_dict()
)
model = Listener(config)
model.encoder.load_state_dict(source.model.audio_tower.state_dict())
model.projector.load_state_dict(source.model.multi_modal_projector.linear.state_dict())
keys = model.decoder.load_state_dict(source.model.language_model.state_dict(), strict=False)
print("not in the source model:", {name.split(".", 2)[-1] for name in keys.missing_keys})
for layer in model.decoder.layers:  # Llama has this bias and Qwen2 has not
    nn.init.zeros_(layer.self_attn.o_proj.bias)
model.head.load_state_dict(source.lm_head.state_dict())
model.generation_config.eos_token_id = source.generation_config.eos_token_id
model.generation_config.pad_token_id = source.generation_config.pad_token_id

folder = Path(tempfile.mkdtemp()) / "listener"
model.save_pretrained(folder)
shipped.processor.save_pretrained(folder)
sorted(path.name for path in folder.iterdir())

# %% [markdown]
# ## Load the model and look at its discovered structure

# %%
lalm = mi.LALM.from_pretrained(folder)
print(lalm)
print(f"decoder {type(lalm.structure.decoder).__name__}, heads {dict(lalm.structure.heads)}")

# %% [markdown]
# ## Check the model
#
# `mi.check` (on the command line `mata-interp check FOLDER`) compares everything that this package reads
# and edits with plain references, on this model and this machine. Without it, the first trace warns that
# the model has not been validated.

# %%
report = mi.check(lalm)
print(report)
assert report.ok

# %% [markdown]
# ## Attention and its causal effect, layer by layer
#
# Two profiles over layers on the *selection* split; the other clips are kept for the test. The first is the
# audio share of the last prompt token's attention. The second is causal: the loss of the log-probability
# difference between the right and the best wrong option when this token's attention to audio is knocked out
# in one layer. The two need not agree, since attention is not use. `mi.fusion_layers` turns such profiles
# into a window, with intervals and more criteria: see the notebook `layer_selection`. Here the choice is
# made by eye.

# %%
items = mi.load_benchmark("listening").split("selection").sample(60)
trace = mi.trace(lalm, items, progress=False)
share = mi.audio_share(trace).mean("head").to_dataframe("audio share").reset_index()

knockouts = mi.layer_configs(lalm)
swept = mi.sweep(lalm, items, {"baseline": None, **knockouts}, progress=False)
margin = mi.margin(swept)
drop = margin.sel(configuration="baseline", drop=True) - margin.sel(configuration=list(knockouts))
drop = drop.assign_coords(configuration=list(lalm.attention_layers)).rename(configuration="layer")
drop = drop.drop_vars(["layers", "rule", "alpha", "heads", "group", "phase"], errors="ignore")
drop = drop.to_dataframe("loss [nats]").reset_index()

figure, axes = plt.subplots(2, 1, figsize=(6.4, 5.6), sharex=True)
sns.lineplot(share, x="layer", y="audio share", hue="condition", marker="o", errorbar=("ci", 95), ax=axes[0])
sns.lineplot(
    drop,
    x="layer",
    y="loss [nats]",
    hue="condition",
    marker="o",
    errorbar=("ci", 95),
    ax=axes[1],
)
axes[1].axhline(0, color="0.6", linewidth=1)
axes[0].set(ylim=(0, None), title="Attention to audio, and loss of log-probability difference by knockout")
axes[1].get_legend().remove()
sns.move_legend(axes[0], "upper left", bbox_to_anchor=(1, 1), frameon=False)
sns.despine()
plt.show()

# %% [markdown]
# The heads of the layer with the largest loss:

# %%
cost = drop.groupby("layer")["loss [nats]"].mean()
deepest = int(cost.idxmax())
heads = mi.audio_share(trace).sel(layer=deepest).to_dataframe("audio share").reset_index()
axis = sns.boxplot(heads, x="head", y="audio share", hue="condition", fliersize=2)
axis.set(title=f"Audio share of the heads in layer {deepest}", ylim=(0, None))
sns.move_legend(axis, "upper left", bbox_to_anchor=(1, 1), frameon=False)
sns.despine()
plt.show()
cost.round(2)

# %% [markdown]
# ## A second instrument
#
# transformer-lens does not know *Listener* either, but it knows Llama: its bridge wraps the decoder and
# takes the embeddings that this model makes of text and audio. Direct logit attribution then shows which
# components of the model contribute to the answer.

# %%


def first(item, choice):
    """The first token of an option."""
    return lalm.option_tokens(item, [choice])[0][0]


pairs = [
    (item, wrong)
    for item in items
    for wrong in item.choices
    if item.condition == "neutral" and first(item, wrong) != first(item, item.answer)
]
item, wrong = pairs[0]
right, tokens = item.answer, [first(item, item.answer), first(item, wrong)]
lens = lalm.to_transformer_lens(lalm.prompt(item))
attribution = lens.attribution(tokens[:1], tokens[1:], heads=False).isel(item=0)
print(f"{item.question} {right!r} against {wrong!r}; largest difference of logits {lens.difference:.0e}")
frame = attribution.to_dataframe().reset_index()
figure, axis = plt.subplots(figsize=(6.4, 4))
sns.barplot(frame, y="component", x="attribution", color=sns.color_palette()[0], ax=axis)
axis.set(xlabel=f"logit of {right!r} minus {wrong!r}", ylabel="")
sns.despine()
plt.show()

# %% [markdown]
# The next step is a test on the confirmation split, with controls: `mi.study(lalm, items, out=...)` or
# `mata-interp study --model FOLDER`.
