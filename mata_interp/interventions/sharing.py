"""Interventions as folders that others can load: JSON, safetensors for arrays, and a card. No pickle.

``intervention.json`` holds the settings, what model they are for, and the evidence; ``arrays.safetensors``
the directions, projections and masks of methods that have some; ``README.md`` the card, written from them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mata_interp.compat import loaded_commit
from mata_interp.errors import InterventionError
from mata_interp.version import __version__

from .card import card
from .catalogue import Array, from_dict, to_dict
from .evidence import Evidence
from .protocol import InterventionLike, in_order

__all__ = [
    "SharedIntervention",
    "load_intervention",
    "model_record",
    "push_intervention",
    "save_intervention",
]

FORMAT = 1
SETTINGS, ARRAYS, CARD = "intervention.json", "arrays.safetensors", "README.md"
_COMPARED = {
    "weights_sha256": "its weights are others",
    "config_sha256": "its config is another",
    "chat_template_sha256": "its chat template is another",
    "tokenizer_sha256": "its tokenizer is another",
    "dtype": "it computes in another dtype",
}


@dataclass(frozen=True)
class SharedIntervention:
    """What a folder of a shared intervention holds.

    Attributes:
        intervention: one, or a tuple of several in order.
        model: what model it is for: ``name``, ``revision``, hashes of weights, config, chat template and
            tokenizer; None where none was named.
        evidence: what was measured; None where nothing was.
        version: of mata-interp that wrote it.

    Example:
        >>> import mata_interp as mi
        >>> folder = mi.Mata(0.5, layers=[3, 4]).save_pretrained("shared")
        >>> mi.SharedIntervention.read(folder).intervention
        AttentionEdit(0.5, layers=(3, 4), rule='abs')
    """

    intervention: Any
    model: Mapping[str, Any] | None
    evidence: Evidence | None
    version: str

    @classmethod
    def read(
        cls, name: str | Path, *, revision: str | None = None, token: str | bool | None = None
    ) -> SharedIntervention:
        """Read a folder, or a repository of the Hugging Face hub.

        Args:
            name: the folder or, where there is none, a hub id.
            revision: branch, tag or commit on the hub.
            token: of the hub.

        Raises:
            InterventionError: there is no such intervention, a file is damaged or of a later format, or the
                class of a method is not known here, or has another source.
        """
        folder = _local_folder(name, revision, token)
        try:
            data = json.loads((folder / SETTINGS).read_text("utf-8"))
            version, written = data["format"], data["interventions"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InterventionError(f"{folder} holds no shared intervention: {error!r}.") from error
        if version != FORMAT:
            raise InterventionError(
                f"{folder / SETTINGS} has format {version}, and this version reads {FORMAT}: install a later "
                "one."
            )
        arrays = _read_arrays(folder / ARRAYS)
        parts = tuple(from_dict(_with_arrays(one, arrays)) for one in written)
        evidence = data.get("evidence")
        return cls(
            intervention=parts[0] if len(parts) == 1 else parts,
            model=data.get("model"),
            evidence=None if evidence is None else Evidence.from_dict(evidence),
            version=str(data.get("mata_interp", "")),
        )

    def differences(self, lalm: Any) -> tuple[str, ...]:
        """How a model differs from the one that the intervention is for: sentences, none where it does not.

        Args:
            lalm: an LALM.
        """
        if self.model is None:
            return ()
        here = model_record(lalm)
        return tuple(text for field, text in _COMPARED.items() if self.model.get(field) != here.get(field))


def save_intervention(
    intervention: InterventionLike, folder: str | Path, *, lalm: Any = None, evidence: Evidence | None = None
) -> Path:
    """Write an intervention to a folder: about 10 kB, without its arrays and the ids of the evidence's items.

    Args:
        intervention: one, or several in order, of classes in `METHODS`.
        folder: it is made where it does not exist; files of an earlier save are replaced.
        lalm: the model that it is for, an LALM; its weights are hashed. None: no model is named.
        evidence: from `mata_interp.evidence`.

    Returns:
        The folder.

    Raises:
        InterventionError: there is nothing to save, a class is not registered, or the folder cannot be
            written.

    Example:
        >>> import mata_interp as mi
        >>> folder = mi.save_intervention(mi.Mata(0.5, layers=[3, 4]), "shared")
        >>> sorted(path.name for path in folder.iterdir())
        ['README.md', 'intervention.json']
        >>> mi.load_intervention(folder) == mi.Mata(0.5, layers=[3, 4])
        True
    """
    parts = _as_written(intervention)
    folder, arrays = Path(folder).expanduser(), {}
    data = {
        "format": FORMAT,
        "mata_interp": __version__,
        "interventions": [_without_arrays(to_dict(part), arrays) for part in parts],
        "model": None if lalm is None else model_record(lalm),
        "evidence": None if evidence is None else evidence.to_dict(),
    }
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if arrays:
            save_file(arrays, folder / ARRAYS)
        else:
            (folder / ARRAYS).unlink(missing_ok=True)
        (folder / SETTINGS).write_text(f"{text}\n", "utf-8")
        (folder / CARD).write_text(card(parts, data["model"], evidence), "utf-8")
    except OSError as error:
        raise InterventionError(f"{folder} cannot be written: {error}.") from error
    return folder


def load_intervention(
    name: str | Path, *, revision: str | None = None, token: str | bool | None = None
) -> Any:
    """The intervention in a folder or on the hub; several come as a tuple, in order.

    Args:
        name, revision, token: those of `SharedIntervention.read`, which also has model and evidence.

    Raises:
        InterventionError: that of `SharedIntervention.read`.

    Example:
        >>> import mata_interp as mi
        >>> folder = mi.Knockout([3]).save_pretrained("shared")
        >>> mi.load_intervention(folder) == mi.Knockout([3])
        True
    """
    return SharedIntervention.read(name, revision=revision, token=token).intervention


def push_intervention(
    intervention: InterventionLike,
    repo_id: str,
    *,
    lalm: Any = None,
    evidence: Evidence | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    message: str | None = None,
) -> str:
    """Save an intervention and upload it to the Hugging Face hub.

    Args:
        intervention, lalm, evidence: those of `save_intervention`.
        repo_id: ``owner/name``; the repository is made where it does not exist.
        private: whether a new repository is private; None: the owner's default.
        token: of the hub; None: the one that is logged in.
        message: of the commit.

    Returns:
        The address of the commit.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with TemporaryDirectory(prefix="mata-interp-") as temporary:
        folder = save_intervention(intervention, temporary, lalm=lalm, evidence=evidence)
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=message or "Upload intervention",
            allow_patterns=[SETTINGS, ARRAYS, CARD],
        )
    return str(getattr(commit, "commit_url", commit))


def model_record(lalm: Any) -> dict[str, Any]:
    """What tells the model from others: name, revision, hashes of weights, config, template and tokenizer.

    Args:
        lalm: an LALM.
    """
    fingerprint = lalm.fingerprint()
    fields = ("name", "class", "dtype", "attention", "config_sha256", "weights_sha256", "versions")
    return {name: fingerprint[name] for name in fields} | {
        "revision": loaded_commit(lalm.model.config) or fingerprint.get("revision"),
        "layers": lalm.num_layers,
        "chat_template_sha256": _sha256(getattr(lalm.processor, "chat_template", None)),
        "tokenizer_sha256": _tokenizer_sha256(getattr(lalm.processor, "tokenizer", None)),
    }


def _sha256(value: Any) -> str | None:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest() if value else None


def _tokenizer_sha256(tokenizer: Any) -> str | None:
    """SHA-256 of all that a fast tokenizer does; of the vocabulary of any other; None without one."""
    if tokenizer is None:
        return None
    backend = getattr(tokenizer, "backend_tokenizer", None)
    written = json.loads(backend.to_str()) if backend is not None else tokenizer.get_vocab()
    if backend is not None:  # set by the last call, and no part of the tokenizer
        written |= {"padding": None, "truncation": None}
    return _sha256(written)


def _as_written(intervention: InterventionLike | Any) -> tuple[Any, ...]:
    """The interventions as the user made them: a method that stands for several stays one."""
    in_order(intervention)  # which refuses what is no intervention
    parts = tuple(intervention) if isinstance(intervention, Sequence) else (intervention,)
    if not parts or any(part is None for part in parts):
        raise InterventionError("There is no intervention to save.")
    return parts


def _without_arrays(value: Any, arrays: dict[str, Any]) -> Any:
    """Plain data with the name of a tensor in place of each array, which goes to ``arrays``."""
    if isinstance(value, Mapping) and "float32" in value:
        array = Array.from_dict(value)
        name = f"array_{len(arrays)}"
        arrays[name] = array.tensor
        return {"array": name, "sha256": array.digest}
    if isinstance(value, Mapping):
        return {key: _without_arrays(one, arrays) for key, one in value.items()}
    return [_without_arrays(one, arrays) for one in value] if isinstance(value, list) else value


def _with_arrays(value: Any, arrays: Mapping[str, Any]) -> Any:
    """The inverse of `_without_arrays`."""
    if isinstance(value, Mapping) and "array" in value:
        array = Array(arrays[value["array"]]) if value["array"] in arrays else None
        if array is None or array.digest != value.get("sha256"):
            raise InterventionError(f"{ARRAYS} lacks {value['array']!r}, or holds another under this name.")
        return array.to_dict()
    if isinstance(value, Mapping):
        return {key: _with_arrays(one, arrays) for key, one in value.items()}
    return [_with_arrays(one, arrays) for one in value] if isinstance(value, list) else value


def _read_arrays(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InterventionError(f"{path} cannot be read: {error}.") from error


def _local_folder(name: str | Path, revision: str | None, token: str | bool | None) -> Path:
    """The folder, downloaded from the hub where there is none of this name."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    text = str(name)
    if isinstance(name, Path) or text.startswith((".", "/", "~")) or text.count("/") != 1:
        raise InterventionError(f"There is no folder {text!r}, and it is not a hub id (owner/name).")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        patterns = [SETTINGS, ARRAYS, CARD]
        return Path(snapshot_download(text, revision=revision, token=token, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InterventionError(f"{text} cannot be loaded from the hub: {reason}") from error
