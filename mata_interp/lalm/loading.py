"""Load models from a folder, from the hub, or from those that ship, through transformers."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
import transformers
from transformers import AutoConfig, AutoModelForMultimodalLM, AutoProcessor

from mata_interp.compat import class_for_config
from mata_interp.errors import ModelError

from .discovery.structure import unsupported_reason
from .fingerprint import weights_sha256

__all__ = ["SHIPPED", "Loaded", "feature_extractor_of", "load", "longest_sound", "shipped_weights"]

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


def load(
    name: str | Path,
    dtype: Any = None,
    device_map: Any = None,
    revision: str | None = None,
    token: Any = None,
    chat_template: str | Path | None = None,
) -> Loaded:
    """Load a model, or an adapter with its base model, and the processor where there is one.

    Only safetensors are read, and no code from the hub runs. The default dtype is the config's. Of an Omni
    checkpoint only the thinker is loaded, which reads audio and answers.

    Args:
        name, dtype, device_map, revision, token: as in transformers.
        chat_template: a Jinja template in place of the processor's own, or the file that holds it.

    Raises:
        ModelError: there is no such model, it takes no audio, or something it needs is not installed.
    """
    where = SHIPPED.get(str(name), name)
    if not Path(where).is_dir() and (where in SHIPPED.values() or _looks_like_a_path(str(name))):
        raise ModelError(f"No model folder {str(where)!r}.")
    if chat_template is not None:
        chat_template = _template(chat_template)
    hub: dict[str, Any] = {"revision": revision, "token": token}
    if (Path(where) / "adapter_config.json").is_file():
        _need_peft(where)
    if _is_adapter_alone(Path(where)):
        return _adapted(Path(where), dtype, device_map, token, chat_template)
    config = _attempt("config", name, AutoConfig, where, hub)
    if reason := unsupported_reason(config):
        architecture = (getattr(config, "architectures", None) or [config.model_type])[0]
        raise ModelError(f"{str(name)!r} ({architecture}) {reason}")
    config, family = _config_and_class(config, name)
    options = hub | {"config": config, "use_safetensors": True}
    if dtype is not None:
        options["dtype"] = dtype
    if device_map is not None:
        options["device_map"] = device_map
    model = _attempt("weights", name, family, where, options)
    try:
        processor, why = _processor(name, where, hub, chat_template), ""
    except ModelError as error:
        processor, why = None, str(error)
    if where in SHIPPED.values():
        _shipped[model] = weights_sha256(model)
    return Loaded(model.eval(), processor, why)


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


def _adapted(
    where: Path, dtype: Any, device_map: Any, token: Any, chat_template: str | Path | None
) -> Loaded:
    """The model that a PEFT adapter's folder names, with the adapter in its layers."""
    from peft import PeftConfig

    config = _attempt("adapter", where, PeftConfig, where, {})
    if config.is_prompt_learning:
        raise ModelError(
            f"{str(where)!r} is a {config.peft_type.value} adapter: it puts vectors before the prompt "
            "that belong to no group of tokens. Adapters in the layers, such as LoRA, can be traced."
        )
    base = load(config.base_model_name_or_path, dtype, device_map, config.revision, token, chat_template)
    base.model.load_adapter(str(where))
    if (where / "processor_config.json").is_file() or (where / "preprocessor_config.json").is_file():
        return base._replace(processor=_processor(where, where, {}, chat_template), why_no_processor="")
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


def longest_sound(processor: Any) -> float | None:
    """Seconds of the longest audio that a processor takes; None where no limit is stated.

    Where the processor itself truncates nothing, the limit of its feature extractor is the length of a
    window: the processor makes as many windows as the audio needs.
    """
    features = feature_extractor_of(processor)
    samples = getattr(features, "n_samples", None)
    if samples is None or (getattr(processor, "audio_kwargs", None) or {}).get("truncation") is False:
        return None
    return samples / features.sampling_rate


def _template(template: str | Path) -> str:
    """The template; a text without any Jinja in it names a file."""
    if isinstance(template, str) and ("{{" in template or "{%" in template):
        return template
    try:
        return Path(template).read_text(encoding="utf-8")
    except OSError as error:
        raise ModelError(
            f"No chat template {str(template)!r}: it is no Jinja text, and no such file exists."
        ) from error


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
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        reason = " ".join(str(error).split()).split(". ")[0].rstrip(".")
        raise ModelError(f"No {part} of a model {str(name)!r}: {reason}.") from error


def _looks_like_a_path(name: str) -> bool:
    """Whether a name cannot be a hub id, which is ``name`` or ``owner/name``."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name
