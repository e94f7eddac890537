"""Load models from a folder, from the hub, or from those that ship, through transformers."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
import transformers
from transformers import AutoConfig, AutoModelForMultimodalLM, AutoProcessor

from mata_interp.compat import class_for_config, decoder_config_name
from mata_interp.errors import ArgumentError, ModelError
from mata_interp.load_options import LoadOptions

from .description import attention_of
from .discovery.structure import unsupported_reason
from .fingerprint import weights_sha256
from .load_values import (
    attention_to_use,
    check_quantization,
    dtype_to_use,
    map_to_use,
    quantization_to_use,
)

__all__ = ["SHIPPED", "Loaded", "feature_extractor_of", "load", "shipped_weights"]

SHIPPED = {
    name: Path(__file__).parents[1] / "organism" / "weights" / name
    for name in ("organism", "organism-unbiased")
}
"""Folders of the models that ship with the package, by name."""


class Loaded(NamedTuple):
    """A model in eval mode, its processor, and the reason why there is no processor, if there is none."""

    model: Any
    processor: Any
    why_no_processor: str


_HUB = ("cache_dir", "force_download", "local_files_only", "proxies", "subfolder")  # not for weights alone
_FIXED = ("config", "trust_remote_code", "use_safetensors")  # keywords that this package sets


def load(name: str | Path, options: LoadOptions) -> Loaded:
    """Load a model, or an adapter with its base model, and the processor where there is one.

    Only safetensors are read, and no code from the hub runs. Weights are loaded straight to their device. Of
    an Omni checkpoint only the thinker is loaded, which reads audio and answers.

    Args:
        name: of a model that ships, a folder, or a hub id.
        options: as in `LALM.from_pretrained`; the chat template is Jinja text.

    Raises:
        ArgumentError: an option has a value that does not exist here.
        ModelError: there is no such model, it takes no audio, something it needs is not installed, or it does
            not fit on the device.
    """
    where = SHIPPED.get(str(name), name)
    if not Path(where).is_dir() and (where in SHIPPED.values() or _looks_like_a_path(str(name))):
        raise ModelError(f"No model folder {str(where)!r}.")
    settings = _settings(options)
    if (Path(where) / "adapter_config.json").is_file():
        _need_peft(where)
    if _is_adapter_alone(Path(where)):
        return _adapted(Path(where), options)
    hub = _hub(options)
    config = _attempt("config", name, AutoConfig, where, hub)
    if reason := unsupported_reason(config):
        architecture = (getattr(config, "architectures", None) or [config.model_type])[0]
        raise ModelError(f"{str(name)!r} ({architecture}) {reason}")
    config, family = _config_and_class(config, name)
    quantised = quantization_to_use(options.quantization_config, settings.get("dtype"), config)
    if quantised is not None:
        settings["quantization_config"] = quantised
    model = _model(name, family, where, settings | hub | {"config": config, "use_safetensors": True})
    try:
        processor, why = _processor(name, where, hub, options.chat_template), ""
    except ModelError as error:
        processor, why = None, str(error)
    if where in SHIPPED.values():
        _shipped[model] = weights_sha256(model)
    return Loaded(model.eval(), processor, why)


def _settings(options: LoadOptions) -> dict[str, Any]:
    """What transformers' from_pretrained takes for the weights, the quantisation aside."""
    for name in _FIXED:
        if name in options.more:
            raise ArgumentError(
                f"{name!r} cannot be set: only safetensors are read, with the model's own config, and no "
                "code from the hub runs."
            )
    check_quantization(options.quantization_config)
    settings: dict[str, Any] = {
        "device_map": map_to_use(options.device, options.device_map),
        "dtype": dtype_to_use(options.dtype),
        "attn_implementation": attention_to_use(options.attn_implementation),
    }
    return {name: value for name, value in settings.items() if value is not None} | dict(options.more)


def _hub(options: LoadOptions) -> dict[str, Any]:
    """Where config, weights and processor come from."""
    more = {name: options.more[name] for name in _HUB if name in options.more}
    return {"revision": options.revision, "token": options.token, **more}


def _model(name: str | Path, family: Any, where: str | Path, settings: dict[str, Any]) -> Any:
    """The weights. An attention function that an encoder lacks is used by the decoder alone."""
    implementation = settings.get("attn_implementation")
    try:
        model = _attempt("weights", name, family, where, settings)
    except ModelError as error:
        part = decoder_config_name(settings["config"])
        if not isinstance(implementation, str) or part is None or not isinstance(error.__cause__, ValueError):
            raise
        model = _attempt(
            "weights", name, family, where, settings | {"attn_implementation": {part: implementation}}
        )
    if "flash" in str(attention_of(model)) and model.dtype == torch.float32:
        raise ModelError(
            f"{str(name)!r} is loaded in float32, and FlashAttention computes in 16 bits: pass dtype='bf16' "
            "or dtype='fp16'."
        )
    return model


_shipped: WeakKeyDictionary[Any, str] = WeakKeyDictionary()  # models that ship -> hash of their weights


def shipped_weights(model: Any) -> str | None:
    """The hash of the weights with which a model that ships was loaded; None for other models."""
    return _shipped.get(model)


def _config_and_class(config: Any, name: str | Path) -> tuple[Any, Any]:
    """The config and the class of the model to load: the thinker's for an Omni model."""
    thinker = getattr(config, "thinker_config", None)
    thinker_class = class_for_config(AutoModelForMultimodalLM, thinker)
    if thinker_class is not None:
        return thinker, thinker_class
    architecture = (getattr(config, "architectures", None) or [None])[0]
    family = getattr(transformers, architecture or "", None)
    registered = class_for_config(AutoModelForMultimodalLM, config)
    if family is None and registered is not None:  # a folder without the name, or a family from elsewhere
        family = registered if architecture in (None, registered.__name__) else None
    if family is None:
        raise ModelError(f"{str(name)!r} is a {architecture!r}, which this transformers does not have.")
    return config, family


def _is_adapter_alone(where: Path) -> bool:
    """Whether a folder holds an adapter and no model.

    With a model beside it, as Granite Speech is published, transformers loads that model with the adapter,
    whatever base the adapter's config names.
    """
    return (where / "adapter_config.json").is_file() and not (where / "config.json").is_file()


def _need_peft(where: str | Path) -> None:
    """Refuse a folder with an adapter where PEFT is missing; transformers would leave the adapter out."""
    if find_spec("peft") is None:
        raise ModelError(f"{str(where)!r} has an adapter, which needs PEFT: pip install peft.")


def _adapted(where: Path, options: LoadOptions) -> Loaded:
    """The model that a PEFT adapter's folder names, with the adapter in its layers."""
    from peft import PeftConfig

    config = _attempt("adapter", where, PeftConfig, where, {})
    if config.is_prompt_learning:
        raise ModelError(
            f"{str(where)!r} is a {config.peft_type.value} adapter: it puts vectors before the prompt "
            "that belong to no group of tokens. Adapters in the layers, such as LoRA, can be traced."
        )
    base = load(config.base_model_name_or_path, replace(options, revision=config.revision))
    base.model.load_adapter(str(where))
    if (where / "processor_config.json").is_file() or (where / "preprocessor_config.json").is_file():
        processor = _processor(where, where, {}, options.chat_template)
        return base._replace(processor=processor, why_no_processor="")
    return base


def _processor(name: str | Path, where: Any, hub: dict[str, Any], chat_template: str | Path | None) -> Any:
    processor = _attempt("processor", name, AutoProcessor, where, hub)
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None or feature_extractor_of(processor) is None:
        raise ModelError(
            f"No processor of a model {str(name)!r}: a {type(processor).__name__} alone does not turn audio "
            "and text into inputs."
        )
    if chat_template is not None:
        processor.chat_template = chat_template
    elif not processor.chat_template:
        processor.chat_template = tokenizer.chat_template
    return processor


def feature_extractor_of(processor: Any) -> Any:
    """What turns audio into features, called ``audio_processor`` in some families; None if there is none."""
    return getattr(processor, "feature_extractor", None) or getattr(processor, "audio_processor", None)


def _attempt(part: str, name: str | Path, kind: Any, where: str | Path, options: dict[str, Any]) -> Any:
    """``kind.from_pretrained``, with errors of one line."""
    try:
        return kind.from_pretrained(where, **options)
    except ImportError as error:
        reason = " ".join(str(error).split()).split(". ")[0].rstrip(".")
        raise ModelError(
            f"No {part} of a model {str(name)!r}: {reason}. Packages that only some families need are "
            "installed by: pip install 'mata-interp[families]' torchvision. torchvision and torchaudio must "
            f"be of the same build as torch, here {torch.__version__}: take them from where that came from, "
            "or importing transformers fails."
        ) from error
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"The {part} of {str(name)!r} do not fit on the device: use dtype='bf16', device_map='auto' (all "
            "GPUs, then the CPU's memory), or quantization_config='8bit' or '4bit'."
        ) from error
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        reason = " ".join(str(error).split()).split(". ")[0].rstrip(".")
        raise ModelError(f"No {part} of a model {str(name)!r}: {reason}.") from error


def _looks_like_a_path(name: str) -> bool:
    """Whether a name cannot be a hub id, which is ``name`` or ``owner/name``."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name
